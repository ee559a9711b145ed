//! The store on a thread of its own.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs what keeps a store up to date on a thread of its own, until this future is dropped; I/O and time are those of
/// the runtime, which must be one with workers.
///
/// What is held of guards is replaced piece by piece for as long as a process lives. An allocator gives each thread room of
/// its own, and what one thread has freed no other uses again: a future that moves between workers would take the room
/// of its guards once for each. Nor do workers that answer reviews wait while very many guards are converted.
pub async fn apart(running: impl Future<Output = ()> + Send + 'static) {
    let runtime = Handle::current();
    let (held, dropped) = oneshot::channel::<()>();
    let (ending, ended) = oneshot::channel::<()>();
    let run = move || {
        let _ending = ending;
        runtime.block_on(async {
            tokio::select! {
                // First, since there may be no runtime any more when it is dropped.
                biased;
                _ = dropped => {}
                () = running => {}
            }
        });
    };
    match std::thread::Builder::new().name("guards".to_owned()).spawn(run) {
        Ok(_) => {
            // Nothing is ever sent: it is dropped in good order, or with what panicked.
            let _ = ended.await;
            tracing::error!("the thread that watches guards has ended");
        }
        Err(error) => tracing::error!(%error, "no thread can be started that watches guards"),
    }
    drop(held);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a panic is how a future fails")]
    use std::thread;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_runs_has_its_thread_until_nobody_waits_for_it() {
        let (started, name) = oneshot::channel();
        let (alive, gone) = oneshot::channel::<()>();
        let running = async move {
            let _alive = alive;
            let _ = started.send(thread::current().name().map(str::to_owned));
            std::future::pending::<()>().await;
        };
        let waiting = tokio::spawn(apart(running));
        assert_eq!(name.await.ok().flatten().as_deref(), Some("guards"));
        waiting.abort();
        assert!(gone.await.is_err(), "it was dropped");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn it_ends_with_what_runs() {
        apart(async {}).await;
        let failing = apart(async { panic!("meant by the test") });
        failing.await;
    }
}
