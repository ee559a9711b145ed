//! Where records go: one JSON line each on standard output, beside the logs on standard error.
//!
//! A thread of its own writes, so that a reader who stops reading cannot hold up a review. What does
//! not fit the queue is counted and said as soon as there is room again: a gap is never silent.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::record::Record;

/// Records that may wait to be written, some 10 MiB.
const QUEUE: usize = 8192;

/// Takes records without waiting. Clones share one queue.
#[derive(Debug, Clone)]
pub struct RecordSink {
    queue: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl RecordSink {
    /// Starts writing to `output`, each line flushed by itself.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&lost);
        thread::Builder::new().name("records".into()).spawn(move || write(&receiver, output, &seen))?;
        Ok(Self { queue: sender, lost })
    }

    /// Queues a record.
    pub fn put(&self, record: &Record<'_>) {
        let line = serde_json::to_string(record).unwrap_or_default();
        if self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(queue: &Receiver<String>, mut output: impl Write, lost: &AtomicU64) {
    while let Ok(mut line) = queue.recv() {
        line.push('\n');
        if let Err(error) = output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
            tracing::error!(%error, "a record could not be written");
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::error!(count, "records were lost: their reader did not keep up");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::mpsc;

    use super::*;

    /// An output that nobody reads until a token comes.
    struct Stuck {
        go: mpsc::Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.go.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_is_stuck_never_holds_up_who_records() {
        let (release, go) = mpsc::channel();
        let sink = RecordSink::start(Stuck { go }).unwrap();
        let line = || sink.queue.try_send("{}".into());
        // One is being written, the queue takes its fill, and the next one comes back at once.
        let taken = std::iter::repeat_with(line).take(QUEUE + 10).filter(Result::is_ok).count();
        assert!((QUEUE..=QUEUE + 1).contains(&taken), "{taken}");
        drop(release);
    }
}
