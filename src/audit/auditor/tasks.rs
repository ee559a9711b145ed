//! What runs beside the loop. One task that panics ends alone: else one object could stop the auditor for all others.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::task::JoinSet;

use super::{Ended, RETRY};

/// Tasks that run, until this is dropped.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<Ended>);

impl Tasks {
    /// Begins a task. If it panics it ends as `failed`, after a pause: what is tried again may panic again.
    pub(super) fn begin(&mut self, failed: Ended, task: impl Future<Output = Ended> + Send + 'static) {
        self.0.spawn(async move {
            // What it shared with others is a lock at most, and those heed no poison.
            if let Ok(ended) = AssertUnwindSafe(task).catch_unwind().await {
                return ended;
            }
            tracing::error!("a task of the auditor panicked");
            tokio::time::sleep(RETRY).await;
            failed
        });
    }

    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How the next one has ended; `None` when none runs.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        loop {
            // None is aborted, and none panics.
            if let Ok(ended) = self.0.join_next().await? {
                return Some(ended);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a panic is how a task fails")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_has_failed_and_others_go_on() {
        let mut tasks = Tasks::default();
        tasks.begin(Ended::Unread("a".into()), async { panic!("meant by the test") });
        tasks.begin(Ended::Unread("b".into()), async { Ended::Noted("b".into()) });
        assert!(matches!(tasks.next().await, Some(Ended::Noted(of)) if of == "b"));
        assert!(matches!(tasks.next().await, Some(Ended::Unread(of)) if of == "a"));
        assert!(tasks.next().await.is_none() && tasks.len() == 0);
    }
}
