//! Watches on exactly what is guarded: what becomes of the target of every guard, told when it is news.
//!
//! [`plan`] says which watches the guards need, and each is followed by a task of its own ([`follow`]).
//! Objects are hashed as they stream by and dropped; of each target only what [`known`] holds is kept.
//! Below the watches lies a net ([`keep`]): a sweep each audit interval, and content read anew when the
//! API server or the definition of a kind has changed. Where an object cannot be decoded, which breaks
//! every watch of its kind, the others are read by name ([`poll`]).
//!
//! What always holds:
//! - Objects are read as raw bytes. Nothing decodes them: the API server takes deeper objects and larger
//!   numbers than decoders do.
//! - A target is told to be absent only when a complete list did not show it, a deletion was told, or a
//!   read of it found none. Whatever else fails tells nothing: what is known stays.
//! - News of one guard come in the order in which they happened, each once. While nobody takes them,
//!   watches wait; memory does not grow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::core::audit::sight::{Look, ReadBefore, Sight};
use crate::core::duration::{self, DurationError};
use crate::core::guard::{Guard, GuardId};
use crate::core::text::Text;
use crate::store::{Observation, Store};
use crate::telemetry::metrics::Metrics;

pub(crate) mod event;
mod follow;
mod keep;
mod known;
mod list;
mod pace;
mod plan;
mod poll;
pub(crate) mod request;
mod running;
mod settled;
mod shared;
mod status;
#[cfg(test)]
pub(super) mod test_support;
pub(crate) mod text;

use follow::Follower;
use known::Source;
use pace::Backoff;
use plan::{Place, Resource};
use request::Requests;
use running::Running;
use shared::{Handle, Obstacle, Shared};

pub use keep::SWEEP_PAGE;
pub use settled::Settled;
use status::Mode;

/// News that wait to be taken. Each may hold an object of some MiB.
const MOST_NEWS: usize = 32;
/// Reads of single objects under way at once.
const MOST_READS: usize = 8;
/// With more new guards in one place at once everything there is listed instead.
const MOST_SINGLE: usize = 20;
/// How often a read is refused before that is believed: an API server that has just started may not know
/// all roles yet.
const MOST_REFUSALS: u32 = 3;
/// How often it is looked how the watches fare.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// To how much the age of a watch is told.
const AGE_STEP: u64 = 30;
/// A watch that has heard nothing for so long is broken: bookmarks come about every minute.
const STALE: Duration = Duration::from_secs(180);

/// Arguments about watching.
#[derive(Debug, Clone, clap::Args)]
pub struct WatchArgs {
    /// How often all guarded objects are compared with what watches told, from 30s to 24h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_interval)]
    pub audit_interval: Duration,
}

fn parse_interval(text: &str) -> Result<Duration, DurationError> {
    duration::parse_within(text, Duration::from_secs(30)..=Duration::from_secs(24 * 3_600))
}

/// How targets are watched.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// How often everything is compared with what the watches told.
    pub audit_interval: Duration,
    /// Namespace of the installation, which the commands that add rights name.
    pub installed: String,
}

/// News about the target of one guard.
#[derive(Clone)]
pub struct Sighting {
    /// Whose target.
    pub guard: GuardId,
    /// `metadata.uid` of that guard.
    pub guard_uid: Text,
    /// The guard as it was when the look was made: the hash is of what it pinned then.
    pub of: Arc<Guard>,
    /// What was seen.
    pub sight: Sight,
    /// How the look came about. The first news of a guard are [`Look::Initial`], however they came.
    pub how: Look,
    /// Whether a watch that lived all the time should have told it.
    pub missed: bool,
    /// As what exactly this version of the object was read before, when nobody has written it since.
    pub read_before: Option<ReadBefore>,
    /// Raw JSON of the object, with `apiVersion` and `kind`, when it is there.
    pub object: Option<Bytes>,
    /// When.
    pub seen_at: Timestamp,
}

impl Sighting {
    /// Whether it is a look at what a guard pins as it is now. If not, its hash is of something else, and the
    /// watch looks anew by itself.
    #[must_use]
    pub fn is_of(&self, guard: &Guard) -> bool {
        self.of.target == guard.target && self.of.scope == guard.scope
    }

    /// This one, where it takes the place of an older one that nobody has taken in: what only that one told of how
    /// the same content came about counts still.
    #[must_use]
    pub fn instead_of(mut self, older: &Self) -> Self {
        self.missed |= older.missed;
        let is_same = match (&self.sight, &older.sight) {
            (Sight::Present(now), Sight::Present(before)) => now.hash == before.hash,
            (Sight::Absent, Sight::Absent) => true,
            _ => false,
        };
        // For how long it may have been so is then not known.
        if is_same && matches!(older.how, Look::Initial | Look::Sweep) {
            self.how = older.how;
        }
        if let (Sight::Present(now), Sight::Present(before)) = (&self.sight, &older.sight)
            && (&now.uid, &now.resource_version) == (&before.uid, &before.resource_version)
        {
            self.read_before = self.read_before.or_else(|| older.read_before.clone());
        }
        self
    }
}

impl std::fmt::Debug for Sighting {
    /// Without the object: it may be a Secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sighting")
            .field("guard", &self.guard)
            .field("sight", &self.sight)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}

/// Whether the watches can be relied upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchHealth {
    /// What sweeps found and a watch should have told, since the start.
    pub missed: u64,
    /// How long the quietest watch has heard nothing, not even a bookmark. Rounded down to half minutes.
    pub oldest: Duration,
    /// Kinds of which an object cannot be decoded, so that others are read by name: `plural.group`.
    pub polled: Vec<String>,
}

impl WatchHealth {
    /// Whether a watch has heard nothing for so long that it must be broken.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.oldest >= STALE
    }
}

/// Watches of the targets of all guards.
pub struct Watches {
    shared: Arc<Shared>,
    observations: watch::Receiver<Arc<Observation>>,
    narrow: mpsc::UnboundedReceiver<Resource>,
    health: watch::Sender<WatchHealth>,
    settled: Option<mpsc::Receiver<Settled>>,
}

impl Watches {
    /// Watches of what `store` sees guarded, and the receiver of news. Nothing is asked for before
    /// [`Watches::run`].
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "handles, given away as to every part that runs")]
    pub fn new(
        client: Client,
        store: Store,
        settings: WatchSettings,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Sighting>) {
        Self::of(client, store.observations(), settings, &metrics)
    }

    fn of(
        client: Client,
        observations: watch::Receiver<Arc<Observation>>,
        settings: WatchSettings,
        metrics: &Metrics,
    ) -> (Self, mpsc::Receiver<Sighting>) {
        let (news, told) = mpsc::channel(MOST_NEWS);
        let (resting, settled) = mpsc::channel(MOST_NEWS);
        let (narrowing, narrow) = mpsc::unbounded_channel();
        let requests = Requests::new(client, metrics.watches.clone());
        let shared = Shared::new(requests, settings, metrics.watches.clone(), news, resting, narrowing);
        let (shared, health, settled) = (Arc::new(shared), watch::Sender::default(), Some(settled));
        (Self { shared, observations, narrow, health, settled }, told)
    }

    /// Whether the watches can be relied upon, as it changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<WatchHealth> {
        self.health.subscribe()
    }

    /// The receiver of targets that stand still, once; of those kinds alone that API servers may read otherwise.
    pub fn settled(&mut self) -> Option<mpsc::Receiver<Settled>> {
        self.settled.take()
    }

    /// Watches until it is dropped.
    pub async fn run(self) {
        let Self { shared, mut observations, mut narrow, health, settled } = self;
        // Where nobody took it nobody listens.
        drop(settled);
        let mut fleet = Fleet::new(shared);
        let mut tick = tokio::time::interval(LOOK_AFTER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is there already counts as a change.
        observations.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = observations.changed() => {
                    let observation = Arc::clone(&observations.borrow_and_update());
                    // Before the first complete snapshot nothing is known about guards.
                    if observation.version > 0 {
                        fleet.follow(&observation);
                    }
                }
                Some(resource) = narrow.recv() => {
                    let observation = Arc::clone(&observations.borrow());
                    fleet.narrow(resource, &observation);
                }
                _ = tick.tick() => {
                    let now = fleet.look_after();
                    health.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
                }
                Some(_) = fleet.reads.join_next() => {}
            }
        }
    }
}

/// The tasks that run.
struct Fleet {
    shared: Arc<Shared>,
    followers: BTreeMap<Place, Running>,
    keepers: HashMap<Resource, (Running, Arc<Notify>)>,
    narrow: HashSet<Resource>,
    reads: JoinSet<()>,
    /// Bounds the reads under way.
    room: Arc<Semaphore>,
    version: u64,
    began: Instant,
}

impl Fleet {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            followers: BTreeMap::new(),
            keepers: HashMap::new(),
            narrow: HashSet::new(),
            reads: JoinSet::new(),
            room: Arc::new(Semaphore::new(MOST_READS)),
            version: 0,
            began: Instant::now(),
        }
    }

    /// Watches what the guards of an observation need, and looks at the targets of new ones.
    fn follow(&mut self, observation: &Observation) {
        if self.version == observation.version {
            return;
        }
        self.version = observation.version;
        let fresh = self.shared.known().follow(&observation.index, &self.narrow);
        let wanted: Vec<Place> = self.shared.known().plan().keys().cloned().collect();
        self.end_others(&wanted);
        let mut by_place: BTreeMap<Place, Vec<Arc<Guard>>> = BTreeMap::new();
        for (place, guard) in fresh {
            // A watch that only begins now lists everything.
            if self.followers.contains_key(&place) {
                by_place.entry(place).or_default().push(guard);
            }
        }
        for place in wanted {
            if !self.followers.contains_key(&place) {
                self.begin(place);
            }
        }
        for (place, guards) in by_place {
            if guards.len() > MOST_SINGLE {
                if let Some(handle) = self.shared.handles().get(&place) {
                    handle.list_anew(Look::Watch);
                }
                continue;
            }
            for guard in guards {
                self.reads.spawn(first_look(Arc::clone(&self.shared), guard, Arc::clone(&self.room)));
            }
        }
    }

    /// All namespaces of a resource may not be watched at once.
    fn narrow(&mut self, resource: Resource, observation: &Observation) {
        tracing::info!(
            resource = resource.word(),
            "not allowed to watch all namespaces at once; watching each of them"
        );
        if self.narrow.insert(resource) {
            self.version = 0;
            self.follow(observation);
        }
    }

    fn end_others(&mut self, wanted: &[Place]) {
        // Sorted, as the plan is.
        self.followers.retain(|place, _| wanted.binary_search(place).is_ok());
        self.shared.handles().retain(|place, _| wanted.binary_search(place).is_ok());
        self.keepers.retain(|resource, _| wanted.iter().any(|place| place.resource == *resource));
        self.shared.sweeps().retain(|resource, _| self.keepers.contains_key(resource));
    }

    fn begin(&mut self, place: Place) {
        let shared = &self.shared;
        let (_, reconnected) = self.keepers.entry(place.resource.clone()).or_insert_with(|| {
            shared.sweeps().insert(place.resource.clone(), Instant::now());
            let reconnected = Arc::new(Notify::new());
            (keeper(shared, &place.resource, &reconnected), reconnected)
        });
        let (handle, asked) = Handle::new();
        let follower = Follower {
            shared: Arc::clone(shared),
            place: place.clone(),
            handle: handle.clone(),
            reconnected: Arc::clone(reconnected),
        };
        shared.handles().insert(place.clone(), handle);
        self.followers.insert(place, Running::spawn(follower.run(asked)));
    }

    /// Sees how the watches fare, and begins those anew that ended.
    fn look_after(&mut self) -> WatchHealth {
        let ended = self.followers.iter().filter(|(_, task)| task.is_finished());
        for place in ended.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            tracing::error!(%place, "a watch ended by itself; beginning it anew");
            self.begin(place);
        }
        for (resource, (task, reconnected)) in &mut self.keepers {
            if task.is_finished() {
                tracing::error!(resource = resource.word(), "sweeps ended by themselves; beginning anew");
                *task = keeper(&self.shared, resource, reconnected);
            }
        }
        self.measure()
    }

    fn measure(&self) -> WatchHealth {
        let now = Instant::now();
        let metrics = &self.shared.metrics;
        let (mut oldest, mut polled) = (Duration::ZERO, Vec::new());
        let mut counts = [0; Mode::ALL.len()];
        for (place, handle) in self.shared.handles().iter() {
            let mode = handle.status.mode();
            if let Some(at) = Mode::ALL.iter().position(|of| *of == mode) {
                counts[at] += 1;
            }
            if mode.ought_to_hear() {
                oldest = oldest.max(now.duration_since(handle.status.last_heard()));
            }
            let word = place.resource.word();
            if mode == Mode::Polled && polled.last() != Some(&word) {
                polled.push(word);
            }
        }
        for (mode, count) in Mode::ALL.iter().zip(counts) {
            metrics.watches(mode.as_str(), count);
        }
        metrics.age(oldest);
        let swept = self.shared.sweeps().values().copied().min();
        metrics.sweep_age(now.duration_since(swept.unwrap_or(now)).min(now.duration_since(self.began)));
        WatchHealth {
            missed: metrics.missed_so_far(),
            oldest: Duration::from_secs(oldest.as_secs() / AGE_STEP * AGE_STEP),
            polled,
        }
    }
}

fn keeper(shared: &Arc<Shared>, resource: &Resource, reconnected: &Arc<Notify>) -> Running {
    Running::spawn(keep::keep(Arc::clone(shared), resource.clone(), Arc::clone(reconnected)))
}

/// Looks at the target of a new guard, until somebody has.
async fn first_look(shared: Arc<Shared>, guard: Arc<Guard>, room: Arc<Semaphore>) {
    let (mut backoff, mut refused) = (Backoff::default(), 0);
    while shared.known().is_untold(&guard) {
        let looked = {
            // It is never closed.
            let _permit = room.acquire().await;
            shared.look(&guard, Look::Watch, false).await
        };
        match looked {
            Ok(_) => return,
            Err(failure) => {
                tracing::debug!(target = %guard.target, %failure, "the target of a new guard cannot be read");
                refused = if failure.code == 403 { refused + 1 } else { 0 };
            }
        }
        if refused > MOST_REFUSALS {
            shared.tell_unreadable(&guard, Obstacle::Forbidden, Source::EVENT).await;
            return;
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests;
