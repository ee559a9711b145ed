//! A task that ends with whoever holds it.

use std::future::Future;

/// Aborts its task when dropped.
#[derive(Debug)]
pub(super) struct Running(tokio::task::JoinHandle<()>);

impl Running {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Whether it has ended by itself, which nothing here should.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
