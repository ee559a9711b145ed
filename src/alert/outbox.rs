//! What waits for one receiver, kept and delivered: a bounded channel, a writer, a courier.
//!
//! Whoever puts a message never waits: not for the network, and not for the disk, to which a thread of its
//! own writes. The courier delivers one message at a time and in order, tries again what failed, and
//! takes a message away only when it has arrived or its receiver will never take it. A process that ends
//! in between delivers it again after its restart, under the same id.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::backoff::{Backoff, chance};
use super::event::{Event, key};
use super::folder::{Folder, FolderError, Found};
use super::queue::{Fault, Limits, Next, Queue, Waiting};
use crate::telemetry::metrics::{Destination, Dropped, Metrics, Posted};
use crate::telemetry::traces;

/// Fewest and most messages that may wait for the writer; in between, as many as may wait at all.
const LEAST_CHANNEL: usize = 4096;
const MOST_CHANNEL: usize = 131_072;
/// Messages written between two flushes of the folder.
const BATCH: usize = 64;

/// How long anybody waits for the writer: a disk that hangs must not hold up who tells things.
const SETTLING: Duration = Duration::from_secs(10);

/// Why an outbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No thread can be started.
    #[error("cannot start a thread that writes alerts to disk: {0}")]
    Thread(std::io::Error),
}

/// How an attempt to deliver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has it.
    Delivered,
    /// It did not arrive, or the receiver cannot take it now.
    Failed {
        /// What is at fault.
        fault: Fault,
        /// How long the receiver asked to be left alone.
        asked: Option<Duration>,
        /// One clause; no URL and no credential.
        why: String,
    },
    /// The receiver will never take this message.
    Refused {
        /// One clause, as above.
        why: String,
    },
}

/// Sends one message.
pub trait Post: Send + Sync {
    /// Tries once, within bounded time.
    fn post(&self, event: &Event) -> impl Future<Output = Answer> + Send;
}

/// What the writer is told.
#[derive(Debug)]
enum Job {
    Keep(Event),
    Settle(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Shared {
    destination: Destination,
    queue: Mutex<Queue>,
    folder: Option<Folder>,
    /// Told whenever the queue has changed.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

/// Takes messages without ever waiting. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Outbox {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

/// The task that delivers what an outbox takes.
#[derive(Debug)]
pub struct Courier {
    shared: Arc<Shared>,
}

/// An outbox and the courier behind it, which must be run. With a folder, what an earlier process left
/// there is delivered first; without one, messages live as long as the process.
///
/// # Errors
/// [`OutboxError`] when the folder cannot be used.
pub fn open(
    destination: Destination,
    folder: Option<&Path>,
    limits: Limits,
    metrics: Arc<Metrics>,
) -> Result<(Outbox, Courier), OutboxError> {
    let (folder, found) = match folder {
        Some(path) => {
            let (folder, found) = Folder::open(path)?;
            (Some(folder), found)
        }
        None => (None, Found::default()),
    };
    let queue = Mutex::new(Queue::new(limits, Backoff::default()));
    let shared = Arc::new(Shared { destination, queue, folder, changed: watch::Sender::new(()), metrics });
    shared.take_up(found);
    let (jobs, received) = sync_channel(limits.events.clamp(LEAST_CHANNEL, MOST_CHANNEL));
    let writing = Arc::clone(&shared);
    thread::Builder::new()
        .name(format!("spool-{}", destination.as_str()))
        .spawn(move || writing.write(&received))
        .map_err(OutboxError::Thread)?;
    Ok((Outbox { jobs, shared: Arc::clone(&shared) }, Courier { shared }))
}

impl Outbox {
    /// Queues a message. One of an id that waits already, or was done with not long ago, is ignored; one
    /// too many for the writer is dropped and counted.
    pub fn put(&self, event: Event) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.jobs.try_send(Job::Keep(event))
        {
            self.shared.dropped(Dropped::Busy, 1);
        }
    }

    /// Waits until all that was put before is on disk, as far as it ever will be, for ten seconds at the
    /// most. Returns whether it is.
    pub async fn settled(&self) -> bool {
        let settling = async {
            let (done, wait) = oneshot::channel();
            let mut job = Job::Settle(done);
            // The writer empties its channel within moments.
            while let Err(TrySendError::Full(back)) = self.jobs.try_send(job) {
                job = back;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            wait.await.is_ok()
        };
        let is_settled = tokio::time::timeout(SETTLING, settling).await.unwrap_or(false);
        if !is_settled {
            tracing::error!(
                destination = self.shared.destination.as_str(),
                "messages are not on disk in time and wait in memory"
            );
        }
        is_settled
    }

    /// Waits until all is delivered, or it is plain that it will not be: the receiver fails, or `limit`
    /// is over. Returns whether nothing waits any more.
    pub async fn drained(&self, limit: Duration) -> bool {
        let emptied = async {
            self.settled().await;
            let mut changed = self.shared.changed.subscribe();
            let over = |_: &()| {
                let queue = self.shared.queue();
                queue.depth().0 == 0 || queue.is_failing()
            };
            // The sender lives as long as this does.
            let _ = changed.wait_for(over).await;
        };
        let _ = tokio::time::timeout(limit, emptied).await;
        self.shared.queue().depth().0 == 0
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what an earlier process left.
    fn take_up(&self, found: Found) {
        let count = found.events.len() + found.unread.len();
        if found.torn > 0 {
            tracing::warn!(
                destination = self.destination.as_str(),
                torn = found.torn,
                "messages on disk were torn and are skipped"
            );
            self.metrics.alerts.dropped(self.destination, Dropped::Torn, found.torn);
        }
        let read = found.events.into_iter().map(|(place, bytes, event)| {
            (place, Waiting::new(key(&event.id), key(&event.transaction_id), bytes, None))
        });
        // Of what transaction it is stands in the file alone: until that can be read, of one of its own.
        let unread =
            found.unread.into_iter().map(|(place, bytes, id)| (place, Waiting::new(id, id, bytes, None)));
        let mut all: Vec<(u64, Waiting)> = read.chain(unread).collect();
        all.sort_by_key(|(place, _)| *place);
        for (place, waiting) in all {
            self.insert(place, waiting);
        }
        if count > 0 {
            tracing::info!(
                destination = self.destination.as_str(),
                count,
                "messages that were not delivered before are tried again"
            );
        }
        self.tell();
    }

    /// The writer: runs until every outbox is gone.
    fn write(&self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut settled = Vec::new();
            let mut kept = false;
            for job in std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1)) {
                match job {
                    Job::Keep(event) => kept |= self.keep(event),
                    Job::Settle(done) => settled.push(done),
                }
            }
            if kept
                && let Some(folder) = &self.folder
                && let Err(error) = folder.sync()
            {
                self.not_written(&error);
            }
            self.tell();
            for done in settled {
                let _ = done.send(());
            }
        }
    }

    /// Keeps one message; true when it was new.
    fn keep(&self, event: Event) -> bool {
        let (id, transaction) = (key(&event.id), key(&event.transaction_id));
        // The guard of the lock must not live while the disk is written.
        let place = self.queue().place(id);
        let Some(place) = place else { return false };
        let waiting = match self.folder.as_ref().map(|folder| folder.write(place, &event)) {
            Some(Ok(bytes)) => Waiting::new(id, transaction, bytes, None),
            failed => {
                if let Some(Err(error)) = failed {
                    self.not_written(&error);
                }
                // Better in memory than not at all.
                let bytes = u64::try_from(event.body.len()).unwrap_or(u64::MAX);
                Waiting::new(id, transaction, bytes, Some(Arc::new(event)))
            }
        };
        self.insert(place, waiting);
        true
    }

    fn insert(&self, place: u64, waiting: Waiting) {
        let dropped = self.queue().insert(place, waiting);
        for (place, oldest) in &dropped {
            self.erase(*place, oldest);
        }
        self.dropped(Dropped::Full, dropped.len());
    }

    /// Reads a message that is on disk; `None` when it is torn or gone.
    fn read(&self, place: u64, message: &Waiting) -> std::io::Result<Option<Arc<Event>>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        Ok(folder.read(place, &message.key)?.map(Arc::new))
    }

    /// As [`Self::read`], for a task.
    async fn read_aside(
        self: &Arc<Self>,
        place: u64,
        message: &Waiting,
    ) -> std::io::Result<Option<Arc<Event>>> {
        let (shared, message) = (Arc::clone(self), message.clone());
        let read = tokio::task::spawn_blocking(move || shared.read(place, &message)).await;
        read.map_err(std::io::Error::other)?
    }

    /// As [`Self::erase`], for a task. What cannot be removed now is delivered again after a restart.
    async fn erase_aside(self: &Arc<Self>, place: u64, message: Waiting) {
        let shared = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || shared.erase(place, &message)).await;
    }

    fn erase(&self, place: u64, message: &Waiting) {
        if let (Some(folder), None) = (&self.folder, &message.held) {
            folder.remove(place, &message.key);
        }
    }

    fn dropped(&self, why: Dropped, count: usize) {
        if count > 0 {
            self.metrics.alerts.dropped(self.destination, why, count);
            tracing::error!(
                destination = self.destination.as_str(),
                why = why.as_str(),
                count,
                "messages were dropped"
            );
        }
    }

    fn not_written(&self, error: &std::io::Error) {
        self.metrics.alerts.not_written(self.destination);
        tracing::error!(
            %error,
            destination = self.destination.as_str(),
            "a message could not be written to --spool-dir and waits in memory"
        );
    }

    /// Shows the queue to metrics, and wakes whoever waits for a change of it.
    fn tell(&self) {
        {
            let queue = self.queue();
            let (events, bytes) = queue.depth();
            self.metrics.alerts.spool(self.destination, events, bytes, queue.fill(), queue.is_failing());
        }
        self.changed.send_replace(());
    }
}

impl Courier {
    /// Delivers for ever. Dropped at any moment, it loses nothing.
    pub async fn run(self, receiver: impl Post) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let next = self.shared.queue().next(Instant::now());
            let place = match next {
                Next::Deliver(place) => place,
                Next::At(then) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(then) => {}
                        _ = changed.changed() => {}
                    }
                    continue;
                }
                Next::Nothing => {
                    // The sender lives as long as this does.
                    let _ = changed.changed().await;
                    continue;
                }
            };
            self.deliver(place, &receiver).await;
            self.shared.tell();
        }
    }

    async fn deliver(&self, place: u64, receiver: &impl Post) {
        let shared = &self.shared;
        let Some(waiting) = shared.queue().message(place).cloned() else { return };
        let read = match &waiting.held {
            Some(event) => Ok(Some(Arc::clone(event))),
            None => shared.read_aside(place, &waiting).await,
        };
        let event = match read {
            Ok(Some(event)) => event,
            Ok(None) => {
                // One that was dropped meanwhile is counted already.
                if shared.queue().lost(place).is_some() {
                    shared.erase_aside(place, waiting).await;
                    shared.dropped(Dropped::Torn, 1);
                }
                return;
            }
            Err(error) => {
                let pause = shared.queue().failed(place, Fault::Message, None, Instant::now(), chance());
                tracing::error!(
                    %error,
                    destination = shared.destination.as_str(),
                    again_in_seconds = pause.as_secs(),
                    "a message cannot be read from --spool-dir now and is tried again"
                );
                return;
            }
        };
        let span = traces::delivery(shared.destination.as_str(), &event.transaction_id);
        let began = Instant::now();
        let answer = receiver.post(&event).instrument(span).await;
        let took = began.elapsed();
        let destination = shared.destination;
        match answer {
            Answer::Delivered => {
                shared.metrics.alerts.posted(destination, Posted::Delivered, took);
                // Whoever sees an empty queue may end the process: nothing of it is left then.
                shared.erase_aside(place, waiting).await;
                shared.queue().delivered(place);
            }
            Answer::Refused { why } => {
                shared.metrics.alerts.posted(destination, Posted::Refused, took);
                tracing::error!(
                    destination = destination.as_str(),
                    transactionId = event.transaction_id,
                    why,
                    "the receiver refuses a message for good; it is dropped"
                );
                shared.erase_aside(place, waiting).await;
                shared.queue().refused(place);
                shared.metrics.alerts.dropped(destination, Dropped::Refused, 1);
            }
            Answer::Failed { fault, asked, why } => {
                shared.metrics.alerts.posted(destination, Posted::Failed, took);
                let pause = shared.queue().failed(place, fault, asked, Instant::now(), chance());
                tracing::warn!(
                    destination = destination.as_str(),
                    transactionId = event.transaction_id,
                    why,
                    again_in_seconds = pause.as_secs(),
                    "a message could not be delivered and is tried again"
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
