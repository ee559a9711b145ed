//! Waiting for a condition, and running async code from anywhere.

use std::future::Future;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::runtime::{Builder, Handle, Runtime};

/// How often a condition is looked at. Short enough not to be felt, long enough not to be load.
const INTERVAL: Duration = Duration::from_millis(50);

/// The runtime of this crate's own connections and tasks. It lives as long as the process, so that what
/// runs in it does not depend on which test made it.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // A TLS provider must be chosen once a process; that another was chosen before is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        #[allow(clippy::expect_used, reason = "without threads nothing can be tested at all")]
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads for the control plane")
    })
}

/// The runtime that the caller is in, or else this crate's own.
pub(crate) fn here() -> Handle {
    Handle::try_current().unwrap_or_else(|_| runtime().handle().clone())
}

/// Runs a future to its end, blocking this thread; unlike `Runtime::block_on` also inside async code.
///
/// # Errors
/// When the future panicked.
pub(crate) fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    runtime().spawn(async move {
        // Nobody waits any more only when the waiting thread is gone.
        drop(done.send(future.await));
    });
    result.recv().map_err(|_| anyhow::anyhow!("a task of the control plane panicked"))
}

/// Looks at a condition until it holds, and says at the deadline what was seen last.
///
/// `look` gives `Ok(value)` when it holds and `Err(what is so far)` when it does not yet.
///
/// # Errors
/// When the condition does not hold within `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                bail!("{what}: not within {limit:?}; last: {error:#}")
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}
