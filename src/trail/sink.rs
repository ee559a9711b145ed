//! Where records go: one JSON line each on standard output, beside the logs on standard error.
//!
//! A thread of its own writes, so that a reader who stops reading cannot hold up a review. What does
//! not fit the queue is counted and said as soon as there is room again: a gap is never silent.
//! Records of reviews that nobody authenticated are limited in rate, since those may be forged: in all,
//! and for each guard, so that noise about one guard does not hide what is done to another.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::record::Record;
use crate::telemetry::allowance::Allowance;

/// Records that may wait to be written, some 10 MiB.
const QUEUE: usize = 8192;
/// Records of unauthenticated reviews that may come at once, and per second after that.
const BURST: u32 = 2000;
const PER_SECOND: u32 = 200;
/// The same of one guard.
const GUARD_BURST: u32 = 200;
const GUARD_PER_SECOND: u32 = 20;
/// Guards that are counted apart at a time; further ones share what is left of all.
const MAX_GUARDS: usize = 4096;

/// Takes records without waiting. Clones share one queue.
#[derive(Debug, Clone)]
pub struct RecordSink {
    queue: SyncSender<String>,
    lost: Arc<AtomicU64>,
    allowances: Arc<Mutex<Allowances>>,
}

impl RecordSink {
    /// Starts writing to `output`, each line flushed by itself. The thread ends, with all written,
    /// once every clone of the sink is gone.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&lost);
        let writer =
            thread::Builder::new().name("records".into()).spawn(move || write(&receiver, output, &seen))?;
        let allowances = Arc::new(Mutex::new(Allowances::new(Instant::now())));
        Ok((Self { queue: sender, lost, allowances }, writer))
    }

    /// Queues a record.
    pub fn put(&self, record: &Record<'_>) {
        let allowed = record.authenticated || self.allows(record);
        // A record has no map with keys that are no text, so that it always serialises.
        let line = serde_json::to_string(record).ok().filter(|_| allowed);
        if line.is_none_or(|line| self.queue.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn allows(&self, record: &Record<'_>) -> bool {
        let guard = record.guard.as_ref().map(|guard| (guard.namespace, guard.name));
        self.allowances.lock().unwrap_or_else(PoisonError::into_inner).take(guard, Instant::now())
    }
}

/// What may be recorded of reviews that nobody authenticated.
#[derive(Debug)]
struct Allowances {
    all: Allowance,
    by_guard: HashMap<(String, String), Allowance>,
}

impl Allowances {
    fn new(now: Instant) -> Self {
        Self { all: Allowance::new(BURST, PER_SECOND, now), by_guard: HashMap::new() }
    }

    fn take(&mut self, guard: Option<(&str, &str)>, now: Instant) -> bool {
        let of_guard = guard.is_none_or(|(namespace, name)| {
            let guard = (namespace.to_owned(), name.to_owned());
            if let Some(allowance) = self.by_guard.get_mut(&guard) {
                return allowance.take(now);
            }
            if self.by_guard.len() >= MAX_GUARDS {
                self.by_guard.retain(|_, allowance| !allowance.is_full(now));
            }
            if self.by_guard.len() < MAX_GUARDS {
                let mut allowance = Allowance::new(GUARD_BURST, GUARD_PER_SECOND, now);
                allowance.take(now);
                self.by_guard.insert(guard, allowance);
            }
            true
        });
        of_guard && self.all.take(now)
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
            tracing::error!(
                count,
                "records were left out: too many at once, or their reader did not keep up"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::mpsc;

    use super::*;
    use crate::trail::record::Circumstances;

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
        let (sink, _writer) = RecordSink::start(Stuck { go }).unwrap();
        let line = || sink.queue.try_send("{}".into());
        // One is being written, the queue takes its fill, and the next one comes back at once.
        let taken = std::iter::repeat_with(line).take(QUEUE + 10).filter(Result::is_ok).count();
        assert!((QUEUE..=QUEUE + 1).contains(&taken), "{taken}");
        drop(release);
    }

    /// What was written so far.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(count: usize, authenticated: bool) -> usize {
        let written = Written::default();
        let (sink, writer) = RecordSink::start(written.clone()).unwrap();
        let circumstances = Circumstances {
            transaction_id: String::new(),
            time: jiff::Timestamp::UNIX_EPOCH,
            denied: true,
            review_uid: "",
            replica: "",
            authenticated,
            message: "two\nlines",
        };
        let record = Record::unjudged("Undecodable", None, circumstances);
        for _ in 0..count {
            sink.put(&record);
        }
        drop(sink);
        writer.join().unwrap();
        let bytes = written.0.lock().unwrap();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(lines.iter().all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok()));
        lines.len()
    }

    #[test]
    fn every_record_is_one_line_and_all_are_written_before_the_end() {
        assert_eq!(lines_of(3, true), 3);
        assert_eq!(lines_of(BURST as usize + 1000, true), BURST as usize + 1000);
    }

    #[test]
    fn noise_about_one_guard_does_not_hide_what_is_done_to_another() {
        let start = Instant::now();
        let mut allowances = Allowances::new(start);
        let mut taken = |guard, count| {
            std::iter::repeat_with(|| allowances.take(Some(guard), start))
                .take(count)
                .filter(|ok| *ok)
                .count()
        };
        assert_eq!(taken(("n", "noisy"), 10_000), GUARD_BURST as usize);
        assert_eq!(taken(("n", "quiet"), 1), 1);
        // More guards than are counted apart still share the bound of all.
        let names: Vec<String> = (0..2 * MAX_GUARDS).map(|number| number.to_string()).collect();
        let passed: usize = names.iter().map(|name| taken(("m", name), 1)).sum();
        assert_eq!(passed, (BURST - GUARD_BURST - 1) as usize);
    }

    #[test]
    fn forged_reviews_cannot_flood_the_trail() {
        let start = Instant::now();
        let lines = lines_of(QUEUE, false);
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
        let most = BURST as usize + seconds * PER_SECOND as usize;
        assert!((BURST as usize..=most).contains(&lines), "{lines}");
    }
}
