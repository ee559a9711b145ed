//! The loop of the auditor, on the replica that holds the lease: looks come in, what the book decides goes
//! out.
//!
//! Nothing is decided here. A look that shows approved content goes to the book at once. Any other needs
//! what the guard's status says (whether writes are refused, what an earlier leader told already), and so
//! waits until that is read; of looks at one target that come meanwhile the newest counts. Restoring, reading
//! and saying run beside the loop, bounded, so that no silent server stops it.
//!
//! The loop stands here. What it does by the way lies below: [`guards`] follows those, [`looks`] takes in what is
//! seen, [`steps`] carries out what was decided, and [`notes`] keeps in statuses what later leaders need.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::api::DriftGuardSpec;
use crate::control::lease::Fence;
use crate::core::audit::book::{self, Book, Terms};
use crate::core::guard::{Guard, GuardState};
use crate::core::signature::SigningKey;
use crate::core::text::Text;
use crate::sources::Sources;
use crate::sources::turns::Turns;
use crate::store::{Observation, Seen, Store};
use crate::telemetry::metrics::{Metrics, Troubled};

use super::observed::Observed;
use super::remediation::{Attempted, Remediation};
use super::saying::Saying;
use super::status::{Statuses, Written};
use super::telling::Telling;
use super::watch::{Settled, Sighting, WatchSettings, Watches};
use super::{facts, say};
use flights::{Begun, Flights};
use line::Line;
use looks::Known;
use steps::{Attempt, Beside, counted};
use tasks::Tasks;

mod flights;
mod guards;
mod line;
mod looks;
mod notes;
mod steps;
mod tasks;

/// Statuses and targets that are read at once.
const READS: usize = 8;
/// Targets that are restored at once, and those of one namespace.
const RESTORES: (usize, usize) = (16, 4);
/// Sources that are asked at once although nothing drifted.
const QUESTIONS: usize = 2;
/// Looks that wait at once for what statuses say: with whole objects, and in all.
const WAITING: (usize, usize) = (64, 1024);
/// Pause before a status that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Least time between two counts of the guards that somebody should know of.
const COUNT_PAUSE: Duration = Duration::from_millis(250);

/// How the auditor behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How targets are watched.
    pub watch: WatchSettings,
    /// How long what is approved may wait to be applied (`--apply-grace`).
    pub apply_grace: Duration,
    /// Whether anything is put back (`--remediation`).
    pub remediation: bool,
}

/// What the loop works with.
pub struct Auditor {
    /// The client.
    pub client: kube::Client,
    /// The guards.
    pub store: Store,
    /// Whether this replica may act.
    pub fence: Fence,
    /// Where approved content comes from.
    pub sources: Arc<Sources>,
    /// How it behaves.
    pub settings: Settings,
    /// Writes that this replica has judged lately.
    pub observed: Arc<Observed>,
    /// Where it is told.
    pub telling: Telling,
    /// The key by which what is kept in statuses is signed.
    pub keys: watch::Receiver<Option<SigningKey>>,
    /// Counts what is done.
    pub metrics: Arc<Metrics>,
}

impl Auditor {
    /// Runs for ever: waits for the lease, works while it is held, and waits again.
    pub async fn run(self) {
        loop {
            self.fence.clone().held().await;
            let mut lost = self.fence.clone();
            tokio::select! {
                () = self.lead() => {}
                () = lost.lost() => {}
            }
            // Whoever leads now counts them.
            self.metrics.audit.troubled(Troubled::default());
            self.metrics.audit.queue(0);
        }
    }

    /// Works until it is dropped.
    async fn lead(&self) {
        self.store.synced().await;
        let (mut watches, news) = Watches::new(
            self.client.clone(),
            self.store.clone(),
            self.settings.watch.clone(),
            Arc::clone(&self.metrics),
        );
        let settled = watches.settled();
        let mut leading = Leading::new(self);
        tokio::select! {
            () = watches.run() => {}
            () = leading.run(news, settled) => {}
        }
    }
}

/// What ran beside the loop and has ended.
enum Ended {
    /// The status of a guard was read; `None` when there is no such guard any more.
    Read(Text, Option<Box<Known>>),
    /// It could not be read.
    Unread(Text),
    /// A target of a guard was read because somebody asked; `None` when nobody answered.
    Looked(Text, Begun, Option<Box<Sighting>>),
    /// An attempt to restore.
    Restored { guard: Arc<Guard>, terms: Terms, transaction_id: String, number: u64, attempted: Attempted },
    /// Sources were asked although nothing drifted.
    Asked(Text, Vec<crate::sources::SourceReport>),
    /// A status was written.
    Said(Text, Written),
    /// It was noted in a status as which version the target stands as approved.
    Noted(Text),
    /// A target was checked since writes of it are refused, or could not be.
    Checked(Text),
}

/// One time of leading.
struct Leading<'a> {
    auditor: &'a Auditor,
    observations: watch::Receiver<Arc<Observation>>,
    observation: Arc<Observation>,
    book: Book,
    remediation: Arc<Remediation>,
    statuses: Statuses,
    tasks: Tasks,
    reads: Arc<Semaphore>,
    restores: Arc<Turns>,
    questions: Arc<Semaphore>,
    /// Looks that wait, by uid of the guard.
    waiting: HashMap<Text, Sighting>,
    /// Guards whose target is to be looked at, which may be all of an incident.
    looks: Line,
    /// Looks that were asked for and are under way.
    flights: Flights,
    /// Attempts to restore that run, by transaction id.
    attempts: HashMap<String, Attempt>,
    /// Attempts so far.
    numbers: u64,
    saying: Saying,
    /// Guards whose sources are asked although nothing drifted.
    asked: Line,
    /// Guards whose target is looked at since writes of it are refused.
    checking: Line,
    /// Whether what is told of any guard has changed since it was counted.
    is_news: bool,
    counted_at: Instant,
    /// Which version the API server has, and when it was last asked, had it answered.
    version: (String, Option<Timestamp>),
}

/// Of a guard whose spec can no longer be read.
const NO_TERMS: Terms = Terms { auto_remediate: false, max_failures_before_alert: 1 };

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn valid(state: &GuardState) -> Option<&Arc<Guard>> {
    match state {
        GuardState::Valid(guard) => Some(guard),
        GuardState::Invalid(_) => None,
    }
}

/// The spec of a guard that could be converted, and what of it only the auditor reads.
fn spec(seen: &Seen) -> Option<(DriftGuardSpec, Terms)> {
    let spec: DriftGuardSpec = serde_json::from_str(&seen.stored.spec()).ok()?;
    let most = u32::try_from(spec.max_failures_before_alert).unwrap_or(1).max(1);
    let terms = Terms { auto_remediate: spec.auto_remediate, max_failures_before_alert: most };
    Some((spec, terms))
}

impl<'a> Leading<'a> {
    fn new(auditor: &'a Auditor) -> Self {
        let observations = auditor.store.observations();
        let settings =
            book::Settings { remediation: auditor.settings.remediation, limits: book::Limits::default() };
        let remediation = Remediation {
            client: auditor.client.clone(),
            store: auditor.store.clone(),
            fence: auditor.fence.clone(),
            sources: Arc::clone(&auditor.sources),
            rights: Default::default(),
        };
        Self {
            auditor,
            observations,
            observation: Arc::default(),
            book: Book::new(settings),
            remediation: Arc::new(remediation),
            statuses: Statuses { client: auditor.client.clone(), fence: auditor.fence.clone() },
            tasks: Tasks::default(),
            reads: Arc::new(Semaphore::new(READS)),
            restores: Arc::new(Turns::new(RESTORES.0, RESTORES.1)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            waiting: HashMap::new(),
            looks: Line::default(),
            flights: Flights::default(),
            attempts: HashMap::new(),
            numbers: 0,
            saying: Saying::default(),
            asked: Line::default(),
            is_news: false,
            counted_at: Instant::now(),
            checking: Line::default(),
            version: (String::new(), None),
        }
    }

    async fn run(&mut self, mut news: mpsc::Receiver<Sighting>, settled: Option<mpsc::Receiver<Settled>>) {
        let mut settled = settled.unwrap_or_else(|| mpsc::channel(1).1);
        self.follow();
        loop {
            self.say();
            self.ask();
            self.count();
            let due = self.book.next_due().map(instant);
            let retry = self.saying.next_due();
            let recount = self.is_news.then(|| self.counted_at + COUNT_PAUSE);
            tokio::select! {
                // What is known of guards comes before what is seen of their targets.
                biased;
                changed = self.observations.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                Some(ended) = self.tasks.next(), if self.tasks.len() > 0 => self.ended(ended).await,
                // Looks hold whole objects, so that only so many may wait.
                sighting = news.recv(), if !self.is_full() => match sighting {
                    Some(sighting) => {
                        self.flights.told(&sighting.guard_uid);
                        self.sighted(sighting).await;
                    }
                    None => return,
                },
                () = until(due) => self.tick(),
                () = until(retry) => {}
                () = until(recount) => {}
                Some(settled) = settled.recv(), if !self.saying.is_full() => self.settled(&settled),
            }
        }
    }

    /// Whether no more looks may wait.
    fn is_full(&self) -> bool {
        let holds_object = |sighting: &&Sighting| sighting.object.is_some();
        let (objects, all) = WAITING;
        self.waiting.len() >= all
            || self.waiting.len() >= objects && self.waiting.values().filter(holds_object).count() >= objects
    }

    fn tick(&mut self) {
        let steps = self.book.tick(Timestamp::now());
        self.take_all(steps);
    }

    async fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Read(uid, known) => {
                let Some(sighting) = self.waiting.remove(&uid) else { return };
                let (Some((guard, terms)), Some(mut known)) = (self.guard(&sighting), known) else { return };
                self.learned(known.version.take(), known.asked_at);
                let remembered = (!self.book.knows(&uid)).then(|| {
                    let asked = self.now(&guard).and_then(|(seen, _)| guards::request(seen));
                    facts::remembered(&known.status, asked.as_deref())
                });
                self.see(&guard, terms, &sighting, *known, remembered).await;
            }
            // Without what it says, what a person must decide could be undone.
            // Nor may the look be lost: no watch tells of it again.
            Ended::Unread(uid) => {
                // Statuses that can never be read must not take the places of others.
                if self.is_full()
                    && let Some(sighting) = self.waiting.get_mut(&uid)
                {
                    sighting.object = None;
                }
                let guard = self.waiting.get(&uid).and_then(|sighting| self.guard(sighting));
                match guard {
                    Some((guard, _)) => self.read(&guard, false),
                    None => drop(self.waiting.remove(&uid)),
                }
            }
            Ended::Looked(uid, begun, sighting) => {
                let counts = self.flights.ends(&uid, begun);
                if let Some(sighting) = sighting.filter(|_| counts) {
                    self.sighted(*sighting).await;
                }
            }
            Ended::Noted(uid) => self.saying.release(&uid),
            Ended::Checked(uid) => self.checking.done(&uid),
            Ended::Restored { guard, terms, transaction_id, number, attempted } => {
                // Of one that was given up and has a successor nobody wants to know.
                if self.attempts.get(&transaction_id).is_none_or(|attempt| attempt.number != number) {
                    return;
                }
                let took = self.attempts.remove(&transaction_id).map(|attempt| attempt.begun.elapsed());
                if let (Some(took), Some(result)) = (took, counted(&attempted.outcome)) {
                    self.auditor.metrics.audit.remediation(result, took);
                }
                self.auditor.metrics.audit.queue(self.attempts.len());
                let now = Timestamp::now();
                self.auditor.telling.attempted(&guard, terms, &transaction_id, &attempted, now);
                let steps = self.book.restored(&guard, terms, &say::outcome(&attempted), now);
                let sources = Some(attempted.sources.as_slice());
                self.take(&guard, steps, Beside { sources, ..Beside::default() });
            }
            Ended::Asked(uid, reports) => {
                self.asked.done(&uid);
                if reports.is_empty() {
                    self.saying.needs_no_more(&uid);
                } else if self.saying.add(&uid, |told| told.asked(&reports, Timestamp::now())) {
                    self.saying.say(&uid);
                }
            }
            Ended::Said(uid, written) => {
                let is_needed = self.asked.has(&uid);
                self.saying.written(&uid, written, is_needed, Instant::now());
            }
        }
    }

    /// Counts the guards that somebody should know of, when what is told of any has changed: not for each of
    /// very many that change at once.
    fn count(&mut self) {
        let now = Instant::now();
        if !self.is_news || now < self.counted_at + COUNT_PAUSE {
            return;
        }
        (self.is_news, self.counted_at) = (false, now);
        self.auditor.metrics.audit.troubled(self.saying.troubled());
    }

    /// Asks sources, and looks at targets and checks them, for guards whose turn has come.
    fn ask(&mut self) {
        // Each brings a whole object, and then waits for what the status says as those do that watches tell.
        while self.flights.under_way() < READS
            && !self.is_full()
            && let Some(guard) = self.looks.next(READS)
        {
            // Whoever asks from now on wants one that begins later.
            self.looks.done(&guard.uid);
            let now = self.now(&guard).map(|(_, now)| Arc::clone(now));
            if let Some(now) = now {
                self.look(&now);
            }
        }
        while let Some(guard) = self.asked.next(QUESTIONS) {
            self.ask_sources(&guard);
        }
        while let Some(guard) = self.checking.next(QUESTIONS) {
            self.check(&guard);
        }
    }

    /// Starts to say what may be said now.
    fn say(&mut self) {
        while let Some((uid, statement)) = self.saying.next(Instant::now()) {
            let (statuses, delivery) = (self.statuses.clone(), self.auditor.telling.delivery.clone());
            self.tasks.begin(Ended::Said(uid.clone(), Written::Failed), async move {
                // Once a status says so nobody tells it again, neither an alert nor its end: before, that must
                // outlive this process.
                if !delivery.settled().await {
                    return Ended::Said(uid, Written::Failed);
                }
                let written = statuses.write(&statement).await;
                Ended::Said(uid, written)
            });
        }
    }
}

/// The instant of a time, as far as clocks agree.
fn instant(at: Timestamp) -> Instant {
    let left = at.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
