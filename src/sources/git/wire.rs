//! One fetch's clock and purse: everything that waits for a server or takes bytes from it goes through
//! here, so that no server can hold us longer or fill us further than the settings say.

use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::SourceError;

/// Tells a fetch that nobody waits for it any more: it is late, or whoever asked went away.
#[derive(Default)]
pub(super) struct Stop {
    /// For work that waits for nothing, such as unpacking.
    flag: AtomicBool,
    /// For work that waits. Of a fetch only one thread does.
    told: Notify,
}

impl Stop {
    pub(super) fn stop(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }
}

/// What one fetch may still spend. Used from the one blocking thread of the fetch.
pub(super) struct Wire {
    runtime: Handle,
    deadline: Instant,
    /// Bytes that may still be received.
    left: AtomicU64,
    stop: Arc<Stop>,
    /// Why the fetch failed, as told by the first to know. What git makes of it is less exact.
    cause: Mutex<Option<SourceError>>,
    /// The sentence for a missed deadline.
    late: String,
    /// The sentence for too many bytes.
    large: String,
}

impl Wire {
    /// `host` is for sentences; `received` are bytes.
    pub(super) fn new(host: &str, deadline: Instant, seconds: u64, received: u64, stop: Arc<Stop>) -> Self {
        Self {
            runtime: Handle::current(),
            deadline,
            left: AtomicU64::new(received),
            stop,
            cause: Mutex::new(None),
            late: late(host, seconds),
            large: format!(
                "{host} sends more than {} MiB for one commit; keep the file in a smaller repository",
                received >> 20
            ),
        }
    }

    /// Waits for a piece of work, until the deadline or the stop at most.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        let answer = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.told.notified() => None,
                answer = timeout_at(self.deadline, work) => answer.ok(),
            }
        });
        answer.filter(|_| !self.stop.flag.load(Ordering::Relaxed)).ok_or_else(|| {
            // The next wait ends as well.
            self.stop.stop();
            self.fail(SourceError::Unavailable(self.late.clone()))
        })
    }

    /// Counts bytes that came.
    pub(super) fn received(&self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        match taken {
            Ok(_) => Ok(()),
            Err(_) => Err(self.fail(SourceError::Invalid(self.large.clone()))),
        }
    }

    /// Remembers why the fetch fails, and gives the error that makes git give up.
    pub(super) fn fail(&self, why: SourceError) -> io::Error {
        let text = why.to_string();
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        io::Error::other(text)
    }

    /// Why the fetch failed, if that is known.
    pub(super) fn cause(&self) -> Option<SourceError> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The flag that stops work which waits for nothing.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.stop.flag
    }
}

/// The sentence for a missed deadline.
pub(super) fn late(host: &str, seconds: u64) -> String {
    format!("{host} did not give the file within {seconds} s")
}

/// A stream of a server, read and written within the limits of a [`Wire`].
pub(super) struct Clocked<S> {
    pub(super) wire: Arc<Wire>,
    pub(super) stream: S,
}

impl<S: AsyncRead + Unpin> Read for Clocked<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.wire.wait(self.stream.read(buffer))??;
        self.wire.received(count)?;
        Ok(count)
    }
}

impl<S: AsyncWrite + Unpin> Write for Clocked<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.wait(self.stream.write(bytes))?
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.wait(self.stream.flush())?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::time::Duration;

    use super::*;

    fn wire(time: Duration, received: u64) -> Arc<Wire> {
        Arc::new(Wire::new(
            "git.example.com",
            Instant::now() + time,
            time.as_secs(),
            received,
            Arc::default(),
        ))
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up_at_the_deadline() {
        let wire = wire(Duration::from_millis(20), 100);
        let (stream, _silent) = tokio::io::duplex(16);
        let mut reader = Clocked { wire: Arc::clone(&wire), stream };
        let result = tokio::task::spawn_blocking(move || reader.read(&mut [0; 16])).await.unwrap();
        assert!(result.is_err());
        assert!(matches!(wire.cause(), Some(SourceError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_waits_for_ends_in_the_middle_of_waiting() {
        let wire = wire(Duration::from_secs(3600), 100);
        let (stream, _silent) = tokio::io::duplex(16);
        let mut reader = Clocked { wire: Arc::clone(&wire), stream };
        let reading = tokio::task::spawn_blocking(move || {
            (reader.read(&mut [0; 16]).is_err(), reader.read(&mut [0; 16]).is_err())
        });
        wire.stop.stop();
        assert_eq!(reading.await.unwrap(), (true, true));
    }

    #[tokio::test]
    async fn a_server_that_says_too_much_is_given_up_at_the_first_byte_too_many() {
        let wire = wire(Duration::from_secs(60), 10);
        let stream = io::Cursor::new(vec![0; 32]);
        let mut reader = Clocked { wire: Arc::clone(&wire), stream };
        let (first, second) = tokio::task::spawn_blocking(move || {
            let first = reader.read(&mut [0; 10]);
            (first, reader.read(&mut [0; 1]))
        })
        .await
        .unwrap();
        assert_eq!(first.unwrap(), 10);
        assert!(second.is_err());
        assert!(matches!(wire.cause(), Some(SourceError::Invalid(_))));
    }
}
