//! Kubernetes Events about attempts on guarded objects (`events.k8s.io/v1`).
//!
//! One Event for each guard, reason, user, object and content, with a series behind it: the first attempt
//! is told at once, further ones are gathered and told together by the count of the series. Past a few of
//! these, all further attempts on a guard share one series for each reason, which counts them. Queue,
//! memory and rate are bounded, since reviews without a client certificate can be forged by any pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::metrics::Metrics;
use crate::api::names;
use crate::core::guard::{GuardId, Target};
use crate::core::hash::ContentHash;
use crate::core::verdict::{Attempt, Reason};

/// Name under which Events are reported.
const CONTROLLER: &str = "driftguard.terrafusion.ai/admission";
/// Attempts that may wait to be told.
const QUEUE: usize = 256;
/// Users, objects and contents of one guard that are told apart at a time.
pub const MAX_APART_OF_GUARD: usize = 10;
/// The same of all guards. Lower than [`MAX_SERIES`], so that noise about some guards leaves room for the
/// first attempt on another.
const MAX_APART: usize = 512;
/// Series that are remembered at a time.
const MAX_SERIES: usize = 1024;
/// How often gathered attempts of one series are told.
const GATHER: Duration = Duration::from_secs(60);
/// After so long without an attempt, the next one is told at once again, by a new Event.
const FORGET: Duration = Duration::from_secs(10 * 60);
/// Longest note; the API allows 1,024 characters.
const MAX_NOTE: usize = 1000;
/// Longest part of a guard's name, which may have 253 characters, in the name of an Event, which may not
/// have more.
const MAX_NAME: usize = 200;
/// Longest user name that is told apart, in characters; longer ones are none of people.
const MAX_USER: usize = 512;

/// What an Event tells.
#[derive(Debug, Clone)]
struct Told {
    denied: bool,
    attempt: Attempt,
}

/// Takes attempts without ever waiting.
#[derive(Debug, Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
}

impl EventSink {
    /// Queues an attempt; one too many is dropped and counted.
    pub fn offer(&self, attempt: &Attempt, denied: bool) {
        if self.queue.try_send(Told { denied, attempt: attempt.clone() }).is_err() {
            self.metrics.dropped_event();
        }
    }
}

/// The task that publishes what a sink takes.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::Receiver<Told>,
    metrics: Arc<Metrics>,
}

/// A sink and the task behind it, which must be run.
#[must_use]
pub fn channel(metrics: Arc<Metrics>) -> (EventSink, Publisher) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (EventSink { queue: sender, metrics: Arc::clone(&metrics) }, Publisher { queue: receiver, metrics })
}

impl Publisher {
    /// Publishes until every sink is gone. A failing API server costs Events, nothing else.
    pub async fn run(mut self, client: kube::Client, replica: String) {
        let mut episodes = Episodes::default();
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        // Numbers of series begin with every process; names of Events must not.
        let began = Timestamp::now().as_nanosecond();
        loop {
            let due = tokio::select! {
                told = self.queue.recv() => match told {
                    Some(told) => match episodes.observe(told, Instant::now()) {
                        Observed::Due(due) => vec![*due],
                        Observed::Gathered => Vec::new(),
                        Observed::Dropped => {
                            self.metrics.dropped_event();
                            Vec::new()
                        }
                    },
                    None => return,
                },
                _ = tick.tick() => episodes.due(Instant::now()),
            };
            for due in due {
                let event = event(&due, began, &replica, Timestamp::now());
                if let Err(error) = publish(&client, &due, &event).await {
                    self.metrics.dropped_event();
                    tracing::debug!(%error, "an Event could not be published");
                }
            }
        }
    }
}

/// Creates the Event of a series, or moves on the count of the one that is there: nothing else of an
/// Event may change.
async fn publish(client: &kube::Client, due: &Due, event: &Event) -> kube::Result<()> {
    let events: Api<Event> = Api::namespaced(client.clone(), &due.told.attempt.guard.namespace);
    if let (Some(series), Some(name)) = (&event.series, &event.metadata.name) {
        let counted = Patch::Merge(serde_json::json!({ "series": series }));
        match events.patch(name, &PatchParams::default(), &counted).await {
            // API servers forget Events after an hour, and others may delete them.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => return patched.map(drop),
        }
    }
    events.create(&PostParams::default(), event).await.map(drop)
}

/// What attempts have in common that are told together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    guard: GuardId,
    reason: Reason,
    denied: bool,
    by: By,
}

/// Whose attempts a series holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum By {
    /// Those of one user, to give one object this content.
    One { user: String, target: Target, image: Option<ContentHash> },
    /// Those of all for whom there was no room.
    Others,
}

impl Key {
    fn of(told: &Told) -> Self {
        let attempt = &told.attempt;
        let user = attempt.user.name.chars().take(MAX_USER).collect();
        let by = By::One { user, target: attempt.target.clone(), image: attempt.image_hash };
        Self { guard: attempt.guard.clone(), reason: attempt.reason, denied: told.denied, by }
    }

    fn of_others(self) -> Self {
        Self { by: By::Others, ..self }
    }

    fn is_apart(&self) -> bool {
        self.by != By::Others
    }
}

/// Attempts that are told together.
#[derive(Debug)]
struct Series {
    number: u64,
    last_told: Instant,
    last_seen: Instant,
    waiting: Option<Told>,
    /// All of them, told or not.
    attempts: usize,
}

/// What is to be told of a series now.
#[derive(Debug)]
struct Due {
    /// Names the series within this process.
    number: u64,
    /// Its latest attempt.
    told: Told,
    /// How many attempts it has had.
    attempts: usize,
    /// Whether it holds the attempts of one user to store one content.
    is_apart: bool,
}

/// What becomes of an attempt.
#[derive(Debug)]
enum Observed {
    /// It is told at once.
    Due(Box<Due>),
    /// It is told later, with others.
    Gathered,
    /// There are too many series.
    Dropped,
}

/// All series that are remembered.
#[derive(Debug, Default)]
struct Episodes {
    by_key: HashMap<Key, Series>,
    /// Series so far.
    numbers: u64,
}

impl Episodes {
    /// Takes an attempt, and says what becomes of it.
    fn observe(&mut self, told: Told, now: Instant) -> Observed {
        let mut key = Key::of(&told);
        if !self.by_key.contains_key(&key) && !self.has_room_apart(&key.guard) {
            key = key.of_others();
        }
        if let Some(series) = self.by_key.get_mut(&key) {
            series.last_seen = now;
            series.attempts += 1;
            series.waiting = Some(told);
            return Observed::Gathered;
        }
        if self.by_key.len() >= MAX_SERIES {
            return Observed::Dropped;
        }
        self.numbers += 1;
        let (number, is_apart) = (self.numbers, key.is_apart());
        self.by_key
            .insert(key, Series { number, last_told: now, last_seen: now, waiting: None, attempts: 1 });
        Observed::Due(Box::new(Due { number, told, attempts: 1, is_apart }))
    }

    fn has_room_apart(&self, guard: &GuardId) -> bool {
        let apart = || self.by_key.keys().filter(|key| key.is_apart());
        apart().count() < MAX_APART && apart().filter(|key| key.guard == *guard).count() < MAX_APART_OF_GUARD
    }

    /// What has been gathered long enough; forgets what has been quiet for long.
    fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (key, series) in &mut self.by_key {
            if now.duration_since(series.last_told) >= GATHER
                && let Some(told) = series.waiting.take()
            {
                let (number, attempts) = (series.number, series.attempts);
                due.push(Due { number, told, attempts, is_apart: key.is_apart() });
                series.last_told = now;
            }
        }
        self.by_key.retain(|_, series| now.duration_since(series.last_seen) < FORGET);
        due
    }
}

/// The Event of a series. `began` is when this process did, in nanoseconds.
fn event(due: &Due, began: i128, replica: &str, now: Timestamp) -> Event {
    let attempt = &due.told.attempt;
    // The API takes no series of one.
    let count = i32::try_from(due.attempts).unwrap_or(i32::MAX);
    let series = (count > 1).then_some(EventSeries { count, last_observed_time: MicroTime(now) });
    let name: String = attempt.guard.name.chars().take(MAX_NAME).collect();
    // No part of a name may end with a dot or a dash.
    let name = name.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    Event {
        metadata: ObjectMeta {
            namespace: Some(attempt.guard.namespace.as_str().to_owned()),
            name: Some(format!("{name}.{:x}", began + i128::from(due.number))),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(reason(&due.told).to_owned()),
        note: Some(note(due).chars().take(MAX_NOTE).collect()),
        action: Some("Admission".to_owned()),
        regarding: Some(regarding(attempt)),
        related: Some(reference(&attempt.target, &attempt.target_uid)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(replica.to_owned()),
        event_time: Some(MicroTime(now)),
        series,
        ..Event::default()
    }
}

/// It stays as it is written first; only the count of the series moves on.
fn note(due: &Due) -> String {
    let attempt = &due.told.attempt;
    let verb = match (due.told.denied, attempt.reason) {
        (true, _) => "was refused",
        (false, Reason::RegistrationAltered) => "was put right",
        (false, _) => "was let through",
    };
    let paths =
        if attempt.paths.is_empty() { String::new() } else { format!(": {}", attempt.paths.join(", ")) };
    let others = if due.is_apart {
        String::new()
    } else {
        format!(
            " (one of many: {MAX_APART_OF_GUARD} users and contents of a guard are told apart, and this series \
             counts the attempts of all others)"
        )
    };
    let image = attempt.image_hash.filter(|_| due.is_apart).map(|hash| format!("; image sha256:{hash}"));
    format!(
        "{} of {} by {} {verb}{paths}{others}{}",
        attempt.operation.as_str(),
        attempt.target,
        attempt.user.name,
        image.unwrap_or_default()
    )
}

fn reason(told: &Told) -> &'static str {
    match (told.attempt.reason, told.denied) {
        (Reason::TargetDeleted, _) => "TargetDeleted",
        (Reason::AlreadyDrifted, _) => "TargetDrifted",
        (Reason::DefinitionDeleted | Reason::DefinitionChanged | Reason::RegistrationAltered, _) => {
            told.attempt.reason.as_str()
        }
        (_, true) => "WriteDenied",
        (_, false) => "UnapprovedWriteAllowed",
    }
}

fn regarding(attempt: &Attempt) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
        kind: Some("DriftGuard".into()),
        namespace: Some(attempt.guard.namespace.as_str().into()),
        name: Some(attempt.guard.name.as_str().into()),
        uid: (!attempt.guard_uid.is_empty()).then(|| attempt.guard_uid.clone()),
        ..ObjectReference::default()
    }
}

fn reference(target: &Target, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(target.api_version()),
        kind: Some(target.kind.as_str().into()),
        namespace: target.namespace.as_ref().map(Into::into),
        name: Some(target.name.as_str().into()),
        uid: (!uid.is_empty()).then(|| uid.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::verdict::{Operation, User};

    fn told(guard: &str) -> Told {
        let attempt = Attempt {
            guard: GuardId { namespace: "g".into(), name: guard.into() },
            guard_uid: "".into(),
            guard_generation: 1,
            target: Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("n".into()),
                name: "x".into(),
            },
            target_uid: "".into(),
            operation: Operation::Update,
            sub_resource: String::new(),
            dry_run: false,
            user: User { name: "alice".into(), ..User::default() },
            field_manager: String::new(),
            image_hash: None,
            paths: vec!["/data/price".into()],
            enforcement: None,
            reason: Reason::HashMismatch,
        };
        Told { denied: true, attempt }
    }

    fn told_by(guard: &str, user: &str, image: &str) -> Told {
        let mut told = told(guard);
        told.attempt.user.name = user.into();
        told.attempt.image_hash = Some(ContentHash::of(image.as_bytes()));
        told
    }

    /// Observes an attempt, and gives what is told of it at once.
    fn at_once(episodes: &mut Episodes, told: Told, now: Instant) -> Option<Due> {
        match episodes.observe(told, now) {
            Observed::Due(due) => Some(*due),
            Observed::Gathered | Observed::Dropped => None,
        }
    }

    fn counts(due: &[Due]) -> Vec<usize> {
        let mut counts: Vec<_> = due.iter().map(|due| due.attempts).collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn the_first_attempt_is_told_at_once_and_the_rest_together() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        assert!(at_once(&mut episodes, told("a"), start).is_some());
        for _ in 0..9_999 {
            assert!(at_once(&mut episodes, told("a"), start).is_none());
        }
        assert!(episodes.due(start).is_empty());
        assert_eq!(counts(&episodes.due(start + GATHER)), [10_000]);
        assert!(episodes.due(start + GATHER * 2).is_empty(), "nothing new, nothing told");
    }

    #[test]
    fn attempts_are_told_apart_by_user_object_and_content() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        let mut scaled = told_by("a", "alice", "1");
        scaled.attempt.target.name = "y".into();
        let all = [
            told_by("a", "alice", "1"),
            told_by("a", "bob", "1"),
            told_by("a", "alice", "2"),
            told_by("b", "alice", "1"),
            scaled,
            Told { denied: false, ..told_by("a", "alice", "1") },
        ];
        let mut numbers = Vec::new();
        for one in &all {
            let due = at_once(&mut episodes, one.clone(), start);
            numbers.push(due.expect("each is the first of its kind").number);
            assert!(at_once(&mut episodes, one.clone(), start).is_none(), "a retry is the same attempt");
        }
        numbers.dedup();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(counts(&episodes.due(start + GATHER)), [2; 6]);
    }

    #[test]
    fn ten_thousand_users_make_a_bounded_number_of_series_and_every_attempt_counts() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for number in 0..10_000 {
            let user = format!("user-{}", number % 5_000);
            told.extend(at_once(&mut episodes, told_by("a", &user, &number.to_string()), start));
        }
        assert_eq!(told.len(), MAX_APART_OF_GUARD + 1);
        assert_eq!(told.iter().filter(|due| due.is_apart).count(), MAX_APART_OF_GUARD);
        let due = episodes.due(start + GATHER);
        assert_eq!(counts(&due), [10_000 - MAX_APART_OF_GUARD]);
        let said = note(&due[0]);
        assert!(said.contains("counts the attempts of all others"), "{said}");
        // They do not hide what is done to another guard, nor another reason.
        assert!(at_once(&mut episodes, told_by("b", "alice", "1"), start).is_some());
        let let_through = Told { denied: false, ..told_by("a", "alice", "1") };
        assert!(at_once(&mut episodes, let_through, start).is_some());
    }

    #[test]
    fn memory_is_bounded_however_many_guards_are_attacked() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        let mut told = 0;
        for guard in 0..5_000 {
            for user in ["alice", "bob"] {
                let due = at_once(&mut episodes, told_by(&guard.to_string(), user, "1"), start);
                told += usize::from(due.is_some());
            }
        }
        assert_eq!((told, episodes.by_key.len()), (MAX_SERIES, MAX_SERIES));
        assert!(matches!(episodes.observe(told_by("one-more", "alice", "1"), start), Observed::Dropped));
        episodes.due(start + FORGET);
        assert!(episodes.by_key.is_empty());
    }

    #[test]
    fn noise_about_some_guards_leaves_room_for_the_first_attempt_on_another() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        for guard in 0..100 {
            for user in 0..100 {
                at_once(&mut episodes, told_by(&guard.to_string(), &user.to_string(), "1"), start);
            }
        }
        let due = at_once(&mut episodes, told_by("quiet", "alice", "1"), start);
        assert!(due.is_some(), "{} series", episodes.by_key.len());
    }

    #[test]
    fn the_note_says_what_was_attempted_by_whom_and_names_the_paths() {
        let now = Timestamp::UNIX_EPOCH;
        let due = Due { number: 1, told: told("a"), attempts: 1, is_apart: true };
        let first = event(&due, 255, "replica-1", now);
        let said = "UPDATE of ConfigMap/n/x by alice was refused: /data/price";
        assert_eq!(first.note.as_deref(), Some(said));
        assert_eq!(first.reason.as_deref(), Some("WriteDenied"));
        assert_eq!(first.metadata.name.as_deref(), Some("a.100"));
        assert_eq!(first.series, None, "the API takes no series of one");

        let due = Due { attempts: 3, told: told_by("a", "alice", "1"), ..due };
        let third = event(&due, 255, "replica-1", now);
        assert_eq!(third.metadata.name, first.metadata.name);
        assert_eq!(third.series.map(|series| series.count), Some(3));
        let image = ContentHash::of(b"1");
        assert_eq!(third.note, Some(format!("{said}; image sha256:{image}")));
    }

    #[test]
    fn an_event_fits_what_the_api_takes_whatever_a_forged_review_says() {
        let endless = "a.\u{fc}".repeat(100_000);
        let mut told = told_by(&format!("{}.b", "a".repeat(MAX_NAME - 1)), &endless, "1");
        told.attempt.paths = vec![endless.clone(); 5];
        let due = Due { number: 1, told, attempts: usize::MAX, is_apart: true };
        let event = event(&due, Timestamp::MAX.as_nanosecond(), "replica-1", Timestamp::UNIX_EPOCH);
        assert_eq!(event.note.map(|note| note.chars().count()), Some(MAX_NOTE));
        let name = event.metadata.name.unwrap_or_default();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        assert_eq!(event.series.map(|series| series.count), Some(i32::MAX));
        let key = Key::of(&due.told);
        assert!(matches!(key.by, By::One { user, .. } if user.chars().count() == MAX_USER));
    }
}
