//! The loop of the auditor, on the replica that holds the lease: looks come in, what the book decides goes
//! out.
//!
//! Nothing is decided here. A look that shows approved content goes to the book at once. Any other needs
//! what the guard's status says (whether writes are refused, what an earlier leader told already), and so
//! waits until that is read; of looks at one target that come meanwhile the newest counts. Restoring, reading
//! and saying run beside the loop, bounded, so that no silent server stops it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::api::{DriftGuardSpec, DriftGuardStatus};
use crate::control::lease::Fence;
use crate::core::audit::attribution::{Evidence, attribute};
use crate::core::audit::book::{self, Book, Context, Details, Matched, Remembered, Step, Terms};
use crate::core::audit::finding::{Reason, Truth};
use crate::core::audit::sight::{Look, Present, ReadBefore, Sight};
use crate::core::audit::{ACKNOWLEDGE, RESTORE, restore_asked};
use crate::core::canonical::hash_object;
use crate::core::diff::changed_paths;
use crate::core::guard::{Guard, GuardState, Target};
use crate::core::guard_spec::rival;
use crate::core::signature::SigningKey;
use crate::core::text::Text;
use crate::sources::Sources;
use crate::sources::turns::Turns;
use crate::store::{Observation, Seen, Store};
use crate::telemetry::metrics::{Metrics, Restored, Troubled};
use crate::telemetry::traces;

use super::facts;
use super::last_match;
use super::observed::Observed;
use super::remediation::{Attempted, Attempting, Job, Outcome, Remediation};
use super::say::{self, Told};
use super::saying::Saying;
use super::status::{Statuses, Written};
use super::telling::Telling;
use super::watch::{Settled, Sighting, WatchSettings, Watches};

/// Statuses and targets that are read at once.
const READS: usize = 8;
/// Targets that are restored at once, and those of one namespace.
const RESTORES: (usize, usize) = (16, 4);
/// Sources that are asked at once although nothing drifted.
const QUESTIONS: usize = 2;
/// Looks that wait at once for what statuses say.
const WAITING: usize = 64;
/// Longest one read of an object or a namespace may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a status that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Least time between two counts of the guards that somebody should know of.
const COUNT_PAUSE: Duration = Duration::from_millis(250);
/// How often it is tried to check a target that is to be noted as checked.
const CHECKS: usize = 3;
/// Most changed paths that are told.
const MAX_PATHS: usize = 16;
/// How long what the API server said of its version counts.
const VERSION_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long it may take to say so, and how often it is asked where that decides.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION_TRIES: u32 = 3;

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

/// An attempt to restore that runs.
struct Attempt {
    /// Tells it from another one of the same transaction.
    number: u64,
    begun: Instant,
    /// The uid of its guard.
    guard_uid: Text,
    state: Arc<Attempting>,
}

/// What was read beside a look.
#[derive(Debug, Clone, Default)]
struct Known {
    status: DriftGuardStatus,
    namespace_terminating: bool,
    /// Which version the API server has, where that was asked, too.
    version: Option<String>,
    asked_at: Timestamp,
}

/// What ran beside the loop and has ended.
enum Ended {
    /// The status of a guard was read; `None` when there is no such guard any more.
    Read(Text, Option<Box<Known>>),
    /// It could not be read.
    Unread(Text),
    /// A target was read because somebody asked.
    Looked(Option<Sighting>),
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
    tasks: JoinSet<Ended>,
    reads: Arc<Semaphore>,
    restores: Arc<Turns>,
    questions: Arc<Semaphore>,
    /// Looks that wait, by uid of the guard.
    waiting: HashMap<Text, Sighting>,
    /// Attempts to restore that run, by transaction id.
    attempts: HashMap<String, Attempt>,
    /// Attempts so far.
    numbers: u64,
    saying: Saying,
    /// Guards whose sources are asked although nothing drifted.
    asked: HashSet<Text>,
    /// Guards whose target is looked at since writes of it are refused.
    checking: HashSet<Text>,
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

/// Whether the status of a guard says that its target is as approved and writes of it are refused, and not that it
/// was seen so since.
fn is_unchecked(seen: &Seen, guard: &Guard) -> bool {
    let audited = seen.stored.status().audited();
    audited.is_some_and(|said| said.is_calm && said.is_unchecked && said.generation == guard.generation)
}

/// The spec of a guard that could be converted, and what of it only the auditor reads.
fn spec(seen: &Seen) -> Option<(DriftGuardSpec, Terms)> {
    let spec: DriftGuardSpec = serde_json::from_str(seen.stored.spec()).ok()?;
    let most = u32::try_from(spec.max_failures_before_alert).unwrap_or(1).max(1);
    let terms = Terms { auto_remediate: spec.auto_remediate, max_failures_before_alert: most };
    Some((spec, terms))
}

/// What a person asks to be done about a guard's target.
fn request(seen: &Seen) -> Option<String> {
    seen.stored.annotation(RESTORE).and_then(restore_asked)
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
            tasks: JoinSet::new(),
            reads: Arc::new(Semaphore::new(READS)),
            restores: Arc::new(Turns::new(RESTORES.0, RESTORES.1)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            waiting: HashMap::new(),
            attempts: HashMap::new(),
            numbers: 0,
            saying: Saying::default(),
            asked: HashSet::new(),
            is_news: false,
            counted_at: Instant::now(),
            checking: HashSet::new(),
            version: (String::new(), None),
        }
    }

    async fn run(&mut self, mut news: mpsc::Receiver<Sighting>, settled: Option<mpsc::Receiver<Settled>>) {
        let mut settled = settled.unwrap_or_else(|| mpsc::channel(1).1);
        self.follow();
        loop {
            self.say();
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
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(ended) = ended {
                        self.ended(ended).await;
                    }
                }
                // Looks hold whole objects, so that only so many may wait.
                sighting = news.recv(), if self.waiting.len() < WAITING => match sighting {
                    Some(sighting) => self.sighted(sighting).await,
                    None => return,
                },
                () = until(due) => self.tick(),
                () = until(retry) => {}
                () = until(recount) => {}
                Some(settled) = settled.recv(), if !self.saying.is_full() => self.settled(&settled),
            }
        }
    }

    /// Follows the guards: tells the book of those that changed.
    fn follow(&mut self) {
        let after = Arc::clone(&self.observations.borrow_and_update());
        let before = std::mem::replace(&mut self.observation, Arc::clone(&after));
        let now = Timestamp::now();
        let mut came_or_went = false;
        let mut steps: Vec<(Arc<Guard>, Vec<Step>)> = Vec::new();
        let mut acknowledged: Vec<String> = Vec::new();
        let mut asked: Vec<(Arc<Guard>, String)> = Vec::new();
        let mut unchecked: Vec<Arc<Guard>> = Vec::new();
        let mut left: Vec<Target> = Vec::new();
        let (mut old, mut new) = (before.guards.iter().peekable(), after.guards.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.stored.id().cmp(new.stored.id()),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            if let (Some(was), Some(is)) = (was, is)
                && Arc::ptr_eq(was, is)
            {
                continue;
            }
            let same = |was: &Seen| is.is_some_and(|is| is.stored.uid() == was.stored.uid());
            let (gone, stays) = (was.filter(|was| !same(was)), was.filter(|was| same(was)));
            came_or_went |= gone.is_some() || stays.is_none();
            if let Some(gone) = gone {
                self.forget(gone.stored.uid());
            }
            if let Some(guard) = gone.and_then(|gone| valid(&gone.state)) {
                steps.push((Arc::clone(guard), self.book.guard_changed(guard, None, now)));
                left.push(guard.target.clone());
            }
            let guards = stays.and_then(|was| valid(&was.state)).zip(is.map(|is| valid(&is.state)));
            if let Some((was, is)) = guards
                && !is.is_some_and(|is| Arc::ptr_eq(was, is))
            {
                if is.is_none_or(|is| is.target != was.target || is.scope != was.scope) {
                    // Its hash is of something else; the watch looks anew.
                    self.waiting.remove(&was.uid);
                }
                left.push(was.target.clone());
                let changed = self.book.guard_changed(was, is.map(AsRef::as_ref), now);
                steps.push((Arc::clone(is.unwrap_or(was)), changed));
            }
            if let Some(guard) = is.and_then(|is| valid(&is.state).filter(|guard| is_unchecked(is, guard))) {
                unchecked.push(Arc::clone(guard));
            }
            let word = |seen: &Seen| seen.stored.annotation(ACKNOWLEDGE).map(str::to_owned);
            if let Some(incident) = is.and_then(|is| word(is))
                && stays.and_then(|was| word(was)).as_ref() != Some(&incident)
            {
                acknowledged.push(incident);
            }
            if let Some(is) = is
                && let Some(guard) = valid(&is.state)
                && let Some(request) = request(is)
                && stays.is_none_or(|was| {
                    valid(&was.state).is_none() || self::request(was).as_ref() != Some(&request)
                })
                && is.stored.status().heeded_restore() != Some(request.as_str())
            {
                asked.push((Arc::clone(guard), request));
            }
        }
        if came_or_went {
            let mut census: BTreeMap<&str, usize> = BTreeMap::new();
            for seen in &after.guards {
                *census.entry(seen.stored.namespace()).or_default() += 1;
            }
            self.book.census(census.into_iter().map(|(namespace, guards)| (namespace.into(), guards)));
        }
        for (guard, steps) in steps {
            self.take(&guard, steps, None);
        }
        for target in left {
            self.look_for_others(&target);
        }
        for guard in unchecked {
            self.check(&guard);
        }
        for incident in acknowledged {
            let steps = self.book.acknowledge(&incident, now);
            self.take_all(steps);
        }
        for (guard, request) in asked {
            let steps = self.book.restore_asked(&guard, request, now);
            self.take(&guard, steps, None);
        }
    }

    /// A guard of this target has changed or gone: what stood in the way of others may do so no longer.
    fn look_for_others(&mut self, target: &Target) {
        let observation = Arc::clone(&self.observation);
        let guards = || observation.index.guards_of(target).filter_map(valid);
        let in_trouble =
            |saying: &mut Saying, guard: &Guard| saying.told(&guard.uid).is_some_and(|told| !told.is_calm());
        let others: Vec<Arc<Guard>> =
            guards().filter(|guard| in_trouble(&mut self.saying, guard)).map(Arc::clone).collect();
        for guard in others {
            self.look(&guard);
        }
    }

    /// Nothing of a guard that is gone is kept.
    fn forget(&mut self, uid: &Text) {
        self.is_news = true;
        self.waiting.remove(uid);
        self.saying.forget(uid);
    }

    fn tick(&mut self) {
        let steps = self.book.tick(Timestamp::now());
        self.take_all(steps);
    }

    /// Steps of guards that are named by uid alone.
    fn take_all(&mut self, steps: Vec<(Text, Step)>) {
        if steps.is_empty() {
            return;
        }
        let mut by_uid: HashMap<Text, Vec<Step>> = HashMap::new();
        for (uid, step) in steps {
            by_uid.entry(uid).or_default().push(step);
        }
        let observation = Arc::clone(&self.observation);
        for seen in &observation.guards {
            if let Some(steps) = by_uid.remove(seen.stored.uid())
                && let Some(guard) = valid(&seen.state)
            {
                self.take(guard, steps, None);
            }
        }
        // That of a guard which is gone is over all the same.
        for step in by_uid.into_values().flatten() {
            if let Step::Alert(alert) | Step::Resolve(alert) = step {
                self.auditor.telling.alert(&alert);
            }
        }
    }

    /// The guard that a look is about, as it stands now.
    fn guard(&self, sighting: &Sighting) -> Option<(Arc<Guard>, Terms)> {
        let seen = self.observation.guard(&sighting.guard)?;
        let guard = valid(&seen.state).filter(|guard| guard.uid == sighting.guard_uid)?;
        Some((Arc::clone(guard), spec(seen)?.1))
    }

    /// Whether a look was made at what its guard pins now.
    fn is_of_what_is_pinned(&self, sighting: &Sighting) -> bool {
        self.guard(sighting).is_none_or(|(now, _)| sighting.is_of(&now))
    }

    async fn sighted(&mut self, sighting: Sighting) {
        let now = Timestamp::now();
        if !self.is_of_what_is_pinned(&sighting) {
            // What it was made for may be newer than what was followed, or older.
            self.follow();
            if !self.is_of_what_is_pinned(&sighting) {
                return;
            }
        }
        let Some((guard, terms)) = self.guard(&sighting) else { return };
        let approved = matches!(&sighting.sight, Sight::Present(seen) if guard.approves(seen.hash, now));
        if approved {
            self.keep(&guard, &sighting);
        }
        let uid = sighting.guard_uid.clone();
        let audited = self.observation.guard(&guard.id).and_then(|seen| seen.stored.status().audited());
        let is_said = audited.is_some_and(|said| said.is_calm && said.generation == guard.generation);
        if approved
            && !self.waiting.contains_key(&uid)
            && (self.book.knows(&uid) || is_said || audited.is_none())
        {
            let remembered = is_said.then(|| calm(&guard));
            if audited.is_none_or(|said| said.generation != guard.generation) && !self.book.knows(&uid) {
                self.ask_sources(&guard);
            }
            self.see(&guard, terms, &sighting, &Known::default(), remembered).await;
            return;
        }
        if self.waiting.insert(uid, sighting).is_none() {
            self.read(&guard);
        }
    }

    /// Reads beside the loop what the status of a guard says, and whether its target's namespace goes.
    fn read(&mut self, guard: &Arc<Guard>) {
        let (guard, statuses) = (Arc::clone(guard), self.statuses.clone());
        let (store, reads) = (self.auditor.store.clone(), Arc::clone(&self.reads));
        let client = self.is_version_due().then(|| self.auditor.client.clone());
        self.tasks.spawn(async move {
            let turn = reads.acquire().await;
            let asked_at = Timestamp::now();
            // At once: drift lasts for as long as this takes.
            let (status, terminating, version) = tokio::join!(
                statuses.read(&guard.id, &guard.uid),
                is_terminating(&store, &guard.target),
                version(client),
            );
            drop(turn);
            match status {
                Ok(status) => {
                    let namespace_terminating = terminating;
                    let known = |status| Box::new(Known { status, namespace_terminating, version, asked_at });
                    Ended::Read(guard.uid.clone(), status.map(known))
                }
                Err(error) => {
                    tracing::warn!(namespace = %guard.id.namespace, name = %guard.id.name, error, "the status of a guard could not be read");
                    tokio::time::sleep(RETRY).await;
                    Ended::Unread(guard.uid.clone())
                }
            }
        });
    }

    async fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Read(uid, known) => {
                let Some(sighting) = self.waiting.remove(&uid) else { return };
                let (Some((guard, terms)), Some(mut known)) = (self.guard(&sighting), known) else { return };
                self.learned(known.version.take(), known.asked_at);
                let remembered = (!self.book.knows(&uid)).then(|| facts::remembered(&known.status));
                self.see(&guard, terms, &sighting, &known, remembered).await;
            }
            // Without what it says, what a person must decide could be undone.
            // Nor may the look be lost: no watch tells of it again.
            Ended::Unread(uid) => {
                let guard = self.waiting.get(&uid).and_then(|sighting| self.guard(sighting));
                match guard {
                    Some((guard, _)) => self.read(&guard),
                    None => drop(self.waiting.remove(&uid)),
                }
            }
            Ended::Looked(Some(sighting)) => self.sighted(sighting).await,
            Ended::Looked(None) => {}
            Ended::Noted(uid) => self.saying.release(&uid),
            Ended::Checked(uid) => drop(self.checking.remove(&uid)),
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
                self.take(&guard, steps, Some(&attempted.sources));
            }
            Ended::Asked(uid, reports) => {
                self.asked.remove(&uid);
                if reports.is_empty() {
                    self.saying.needs_no_more(&uid);
                } else if let Some(told) = self.saying.told(&uid) {
                    told.asked(&reports, Timestamp::now());
                    self.saying.say(&uid);
                }
            }
            Ended::Said(uid, written) => {
                let is_needed = self.asked.contains(&uid);
                self.saying.written(&uid, written, is_needed, Instant::now());
            }
        }
    }

    /// Has the book see it, and does what follows.
    async fn see(
        &mut self,
        guard: &Arc<Guard>,
        terms: Terms,
        sighting: &Sighting,
        known: &Known,
        remembered: Option<Remembered>,
    ) {
        let read_before = self.read_before(guard, sighting, known);
        let built_in = facts::is_built_in(&guard.target.group);
        let decides = read_before.is_some() && built_in && guard.scope.has_server_defaults();
        self.learn_version(sighting, decides).await;
        let now = Timestamp::now();
        let details =
            self.book.wants_details(guard, &sighting.sight, now).then(|| self.details(guard, sighting));
        let index = &self.observation.index;
        let context = Context {
            enforcing_since: facts::enforcing_since(&known.status),
            built_in,
            server_version: &self.version.0,
            audit_interval: self.auditor.settings.watch.audit_interval,
            apply_grace: self.auditor.settings.apply_grace,
            pause_ended: facts::pause_ended(&known.status),
            conflict: rival(&GuardState::Valid(Arc::clone(guard)), index.guards_of(&guard.target)).is_some(),
            namespace_terminating: known.namespace_terminating,
            being_replaced: self
                .attempts
                .values()
                .any(|attempt| attempt.guard_uid == guard.uid && attempt.state.is_replacing()),
            read_before,
            remembered,
        };
        let seen = book::Seen {
            sight: &sighting.sight,
            look: sighting.how,
            details: details.as_ref(),
            terms,
            context: &context,
        };
        let span = traces::audit(&guard.id, sighting.how.as_str());
        let steps = span.in_scope(|| self.book.see(guard, &seen, now, &mut new_id));
        self.take(guard, steps, None);
    }

    /// As what exactly the version of the target that was seen was read before: by this process, or by
    /// whoever led before it.
    fn read_before(&self, guard: &Guard, sighting: &Sighting, known: &Known) -> Option<ReadBefore> {
        let Sight::Present(present) = &sighting.sight else { return None };
        let noted = || {
            let key = self.auditor.keys.borrow();
            last_match::read_before(key.as_ref(), guard, known.status.last_match.as_ref(), present)
        };
        sighting.read_before.clone().or_else(noted)
    }

    /// Has the status say in which version the target stands as approved, when it says another one.
    fn settled(&mut self, settled: &Settled) {
        let now = Timestamp::now();
        let Some(seen) = self.observation.guard(&settled.guard.id) else { return };
        let Some(guard) = valid(&seen.state).filter(|guard| guard.uid == settled.guard.uid) else { return };
        let is_pinned = guard.target == settled.guard.target && guard.scope == settled.guard.scope;
        let is_approved = guard.approves(settled.hash, now) || guard.equivalents.contains(&settled.hash);
        let noted = seen.stored.status().audited().map_or(0, |said| said.matched);
        let is_said = settled.resource_version.parse() == Ok(noted);
        let Some(key) = self.auditor.keys.borrow().clone() else { return };
        if !is_pinned || !is_approved || is_said || settled.server.is_empty() {
            return;
        }
        let matched = Matched {
            uid: settled.uid.clone(),
            resource_version: settled.resource_version.clone(),
            hash: settled.hash,
        };
        let noted = last_match::noted(&key, guard, &matched, &settled.server);
        if !self.saying.hold(&guard.uid) {
            return;
        }
        let (guard, statuses) = (Arc::clone(guard), self.statuses.clone());
        self.tasks.spawn(async move {
            let noted = Some(noted);
            let written = statuses.note(&guard.id, &guard.uid, guard.generation, noted, false, now).await;
            if let Err(error) = written {
                // Until it is written anew, another reading of this object would be taken for drift.
                tracing::debug!(namespace = %guard.id.namespace, name = %guard.id.name, error, "the version of a target could not be noted");
            }
            Ended::Noted(guard.uid.clone())
        });
    }

    /// What changed, and who did it.
    fn details(&self, guard: &Guard, sighting: &Sighting) -> Details {
        let object = sighting.object.as_deref();
        let before = self.auditor.sources.last_good().get(&guard.uid, guard.expected);
        let changes = before
            .as_ref()
            .zip(object)
            .and_then(|(before, object)| changed_paths(before, object, &guard.scope, MAX_PATHS).ok());
        let changes = changes.unwrap_or_default();
        let observed = self.auditor.observed.of(&guard.target);
        let hash = match &sighting.sight {
            Sight::Present(seen) if !guard.scope.is_secret() => Some(seen.hash),
            _ => None,
        };
        let evidence = Evidence {
            object,
            paths: &changes.paths,
            more: changes.more,
            hash,
            observed: &observed,
            last_clean: self.book.last_clean(&guard.uid),
        };
        Details { attribution: attribute(&evidence), paths: changes.paths }
    }

    /// Keeps approved content by which a target could be put back.
    fn keep(&self, guard: &Guard, sighting: &Sighting) {
        if let (Sight::Present(seen), Some(object)) = (&sighting.sight, &sighting.object)
            && seen.hash == guard.expected
        {
            self.auditor.sources.last_good().put(&guard.uid, &guard.scope, seen.hash, object);
        }
    }

    /// Which version the API server has, asked again when lists came anew: it may have been replaced. Where that
    /// `decides` what another reading means, only an answer given since the look will do.
    async fn learn_version(&mut self, sighting: &Sighting, decides: bool) {
        let is_fresh = self.version.1.is_some_and(|at| at >= sighting.seen_at);
        let is_due = self.is_version_due() && (sighting.how != Look::Live || self.version.1.is_none());
        // Without an answer what reads otherwise would be drift, and be put back.
        let tries = match (decides && !is_fresh, is_due) {
            (true, _) => VERSION_TRIES,
            (false, is_due) => u32::from(is_due),
        };
        for _ in 0..tries {
            let asked_at = Timestamp::now();
            if let Some(learned) = version(Some(self.auditor.client.clone())).await {
                return self.learned(Some(learned), asked_at);
            }
        }
    }

    fn is_version_due(&self) -> bool {
        let age = |at: Timestamp| Timestamp::now().duration_since(at);
        self.version.1.is_none_or(|at| age(at) > VERSION_FOR || age(at).is_negative())
    }

    fn learned(&mut self, version: Option<String>, asked_at: Timestamp) {
        if let Some(version) = version {
            self.version = (version, Some(asked_at));
        }
    }

    /// Does what the book has decided about a guard, in its order.
    fn take(
        &mut self,
        guard: &Arc<Guard>,
        steps: Vec<Step>,
        sources: Option<&[crate::sources::SourceReport]>,
    ) {
        let mut said = false;
        let mut equivalents = Vec::new();
        for step in steps {
            match step {
                Step::Report(report) => {
                    said = true;
                    self.is_news = true;
                    let (key, version) = (self.auditor.keys.borrow(), &self.version.0);
                    self.saying.tell(&guard.uid, |before| {
                        let mut told = Told::of(&guard.id, &guard.uid, *report, before);
                        if let Some(key) = key.as_ref() {
                            told.matched(key, guard, version);
                        }
                        told
                    });
                }
                Step::Restore { transaction_id } => self.restore(guard, transaction_id),
                Step::GiveUp { transaction_id } => {
                    if let Some(attempt) = self.attempts.get(&transaction_id) {
                        attempt.state.give_up();
                    }
                }
                Step::Alert(alert) | Step::Resolve(alert) => self.auditor.telling.alert(&alert),
                Step::Record(record) => {
                    let terms = self.job(guard).map_or(NO_TERMS, |(_, terms)| terms);
                    self.auditor.telling.record(guard, terms, &record, Timestamp::now());
                }
                Step::CountDrift(look) => self.auditor.metrics.audit.drift(look.as_str()),
                Step::Look => self.look(guard),
                Step::Equivalent { hash, announcement } => {
                    if let Some(announcement) = &announcement {
                        self.auditor.telling.announce(guard, announcement);
                    }
                    // Of a Secret no hash stands in a status.
                    equivalents.extend(Some(hash).filter(|_| !guard.scope.is_secret()));
                }
            }
        }
        // Behind all reports: what is kept of a guard begins with its first one.
        let Some(told) = self.saying.told(&guard.uid) else { return };
        if let Some(reports) = sources {
            said |= !reports.is_empty();
            told.asked(reports, Timestamp::now());
        }
        if let (false, Some(key)) = (equivalents.is_empty(), self.auditor.keys.borrow().clone()) {
            said = true;
            for hash in equivalents {
                told.equivalent(&key, guard, hash, &self.version.0);
            }
        }
        if said {
            self.saying.say(&guard.uid);
        }
    }

    fn job(&self, guard: &Arc<Guard>) -> Option<(Job, Terms)> {
        let (spec, terms) = spec(self.observation.guard(&guard.id)?)?;
        Some((Job { guard: Arc::clone(guard), spec: Arc::new(spec) }, terms))
    }

    fn restore(&mut self, guard: &Arc<Guard>, transaction_id: String) {
        let Some((job, terms)) = self.job(guard) else { return };
        let (remediation, restores) = (Arc::clone(&self.remediation), Arc::clone(&self.restores));
        let state = Arc::new(Attempting::default());
        self.numbers += 1;
        let number = self.numbers;
        let guard_uid = guard.uid.clone();
        let attempt = Attempt { number, begun: Instant::now(), guard_uid, state: Arc::clone(&state) };
        if let Some(before) = self.attempts.insert(transaction_id.clone(), attempt) {
            before.state.give_up();
        }
        self.auditor.metrics.audit.queue(self.attempts.len());
        self.tasks.spawn(async move {
            let _turn = restores.turn(&job.guard.id.namespace).await;
            let span = traces::remediation(&job.guard.id, &transaction_id);
            let attempted = remediation.restore(&job, &state).instrument(span).await;
            Ended::Restored { guard: job.guard, terms, transaction_id, number, attempted }
        });
    }

    /// Asks the sources of a guard that is new whether they have what is approved, so that its status tells
    /// before they are needed.
    fn ask_sources(&mut self, guard: &Arc<Guard>) {
        let Some((job, _)) = self.job(guard) else { return };
        if job.spec.source_of_truth_ref.is_none() && job.spec.fallback_source_refs.is_empty() {
            return;
        }
        self.asked.insert(guard.uid.clone());
        let (remediation, questions) = (Arc::clone(&self.remediation), Arc::clone(&self.questions));
        self.tasks.spawn(async move {
            let _turn = questions.acquire().await;
            Ended::Asked(job.guard.uid.clone(), remediation.ask_sources(&job).await)
        });
    }

    /// Reads a target alone, beside the loop.
    fn look(&mut self, guard: &Arc<Guard>) {
        let (guard, remediation, reads) =
            (Arc::clone(guard), Arc::clone(&self.remediation), Arc::clone(&self.reads));
        self.tasks.spawn(async move {
            let _turn = reads.acquire().await;
            let read = remediation.read(&guard.target.url_path()).await;
            let (sight, object) = match read {
                Ok(None) => (Sight::Absent, None),
                Ok(Some(object)) => match present(&guard, &object) {
                    Ok(present) => (Sight::Present(present), Some(Bytes::from(object))),
                    Err(why) => (Sight::Unreadable(why), None),
                },
                // Nothing is known; the book asks again.
                Err(_) => return Ended::Looked(None),
            };
            Ended::Looked(Some(Sighting {
                guard: guard.id.clone(),
                guard_uid: guard.uid.clone(),
                of: guard,
                sight,
                how: Look::Live,
                read_before: None,
                object,
                seen_at: Timestamp::now(),
            }))
        });
    }

    /// Looks at a target that is not known to have been as approved since writes of it are refused, and notes
    /// that. By it a leader that comes after a gap knows that what changed in it passed admission by.
    fn check(&mut self, guard: &Arc<Guard>) {
        if !self.checking.insert(guard.uid.clone()) {
            return;
        }
        let (guard, statuses, remediation) =
            (Arc::clone(guard), self.statuses.clone(), Arc::clone(&self.remediation));
        let (questions, version) = (Arc::clone(&self.questions), self.version.0.clone());
        let key = self.auditor.keys.borrow().clone();
        self.tasks.spawn(async move {
            // Few at a time: news come first.
            let _turn = questions.acquire().await;
            for _ in 0..CHECKS {
                let now = Timestamp::now();
                if let Ok(read) = remediation.read(&guard.target.url_path()).await {
                    let seen = read.and_then(|object| present(&guard, &object).ok());
                    // Whatever else it shows the watch tells.
                    let is_approved = |seen: &Present| {
                        guard.approves(seen.hash, now) || guard.equivalents.contains(&seen.hash)
                    };
                    let Some(seen) = seen.filter(is_approved) else { break };
                    let (uid, resource_version, hash) = (seen.uid, seen.resource_version, seen.hash);
                    let matched = Matched { uid, resource_version, hash };
                    let is_kept = guard.scope.has_server_defaults() && !version.is_empty();
                    let noted = key.as_ref().filter(|_| is_kept);
                    let noted = noted.map(|key| last_match::noted(key, &guard, &matched, &version));
                    let written = statuses.note(&guard.id, &guard.uid, guard.generation, noted, true, now);
                    if written.await.is_ok() {
                        break;
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
            Ended::Checked(guard.uid.clone())
        });
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

    /// Starts to say what may be said now.
    fn say(&mut self) {
        while let Some((uid, statement)) = self.saying.next(Instant::now()) {
            let (statuses, delivery) = (self.statuses.clone(), self.auditor.telling.delivery.clone());
            self.tasks.spawn(async move {
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

/// How the end of an attempt is counted; one that found nothing to do is none.
fn counted(outcome: &Outcome) -> Option<Restored> {
    match outcome {
        Outcome::Restored { .. } => Some(Restored::Restored),
        Outcome::NoVerifiedSource => Some(Restored::NoVerifiedSource),
        Outcome::NotAllowed(_) | Outcome::Terminating | Outcome::Failed(_) => Some(Restored::Failed),
        Outcome::GivenUp(_) | Outcome::Overtaken => Some(Restored::GivenUp),
        Outcome::AlreadyRight => None,
    }
}

/// What a status that says "in sync" of exactly this guard would have said.
fn calm(guard: &Guard) -> Remembered {
    Remembered {
        generation: guard.generation,
        drifted: Some((Truth::False, Reason::InSync, Timestamp::UNIX_EPOCH)),
        hash_match: Some(true),
        current_hash: (!guard.scope.is_secret()).then_some(guard.expected),
        ..Remembered::default()
    }
}

fn present(guard: &Guard, object: &[u8]) -> Result<Present, String> {
    let identity = crate::core::audit::restore::identity(object).map_err(|error| error.to_string())?;
    let hash = hash_object(object, &guard.scope).map_err(|error| error.to_string())?;
    Ok(Present {
        uid: identity.uid,
        resource_version: identity.resource_version,
        hash,
        terminating: identity.is_terminating,
    })
}

/// Which version the API server has, if somebody is to ask it and it answers in time.
async fn version(client: Option<kube::Client>) -> Option<String> {
    let client = client?;
    let asked = tokio::time::timeout(VERSION_TIMEOUT, client.apiserver_version()).await;
    Some(asked.ok()?.ok()?.git_version)
}

/// Whether the namespace of a target is being deleted; what cannot be told is taken to stay. Where it is gone
/// altogether, so is the target, which somebody should know of.
async fn is_terminating(store: &Store, target: &Target) -> bool {
    let Some(namespace) = &target.namespace else { return false };
    match within(store.read_namespace(namespace)).await {
        Some(Ok(Some(found))) => crate::core::audit::restore::is_terminating(&found).unwrap_or_default(),
        Some(Ok(None) | Err(_)) | None => false,
    }
}

/// An answer, when it comes in time.
async fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(READ_TIMEOUT, answer).await.ok()
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
