//! Which reports are to be written, and when: a book of what the guards say, what was written and what stands in the
//! cluster. Pure; time comes in.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Seen;

/// How long changes are gathered: one drift changes the status of a guard several times.
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// First pause after a write that failed; each that follows is twice as long, up to [`LONGEST`].
pub(super) const RETRY: Duration = Duration::from_secs(60);
/// Longest pause after a write that failed, and before a report that others keep editing is put right again.
/// Whatever stood untouched for as long is put right soon again.
const LONGEST: Duration = Duration::from_secs(600);
/// A report is not made anew before so many times what making it took: it reads all guards of its namespace.
const REST: u32 = 10;

/// Content of a report, in few bytes.
pub(super) type Digest = [u8; 32];

/// A report that stands in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its resource version.
    pub version: String,
    /// Its uid.
    pub uid: String,
    /// Whether it can be told from it that we wrote it.
    pub is_ours: bool,
}

/// What was made of the guards of a namespace.
#[derive(Debug)]
pub(super) struct Made {
    /// What its guards came to.
    pub guards: Option<u64>,
    /// What was written, and how it stands now; `None` where that stood there already.
    pub written: Option<(Digest, Found)>,
    /// How long making it took.
    pub took: Duration,
}

/// What is known of one namespace.
#[derive(Debug, Default)]
struct Place {
    /// What its guards come to now; `None` when it has none.
    guards: Option<u64>,
    /// What they came to when the report was last made.
    made: Option<u64>,
    /// What was last written, and the version that it got.
    written: Option<(Digest, String)>,
    /// What stands in the cluster; `None` where nothing does.
    standing: Option<Found>,
    /// The report of somebody else that was told of, by its uid, and when.
    told: Option<(String, Instant)>,
    /// How often the same content was written again, since somebody changed what stood there.
    repairs: u32,
    /// When that was last done.
    repaired: Option<Instant>,
    /// When what the guards say is to be written.
    news_at: Option<Instant>,
    /// When what somebody changed is to be put right. Apart from news, so that no edit puts those off.
    repair_at: Option<Instant>,
    /// Nothing is done before.
    held: Option<Instant>,
    /// How often it could not be done since it last could, and the last answer: 0 where there was none.
    failures: u32,
    trouble: Option<u16>,
}

/// What is to be done about a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Make its report, and write it unless it stands there.
    Make,
    /// Delete it.
    Prune,
    /// Tell that the report of somebody else stands in its place, and is left alone.
    Tell,
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Desk {
    places: BTreeMap<String, Place>,
}

impl Place {
    fn task(&self) -> Option<Task> {
        match (self.guards, &self.standing) {
            (None, found) => found.as_ref().is_some_and(|found| found.is_ours).then_some(Task::Prune),
            (Some(_), Some(found)) if !found.is_ours => {
                (self.told.as_ref().map(|(uid, _)| uid) != Some(&found.uid)).then_some(Task::Tell)
            }
            _ if self.guards != self.made || !self.stands() => Some(Task::Make),
            _ => None,
        }
    }

    /// Whether what was written stands there untouched.
    fn stands(&self) -> bool {
        let standing = self.standing.as_ref().map(|found| &found.version);
        self.written.as_ref().is_some_and(|(_, version)| standing == Some(version))
    }

    /// Whether the report is as it should be, as far as is known.
    fn is_kept(&self) -> bool {
        let is_ours = self.standing.as_ref().is_none_or(|found| found.is_ours);
        (is_ours || self.guards.is_none()) && (self.trouble.is_none() || self.task().is_none())
    }

    /// Puts what is to be done off, unless it has been already.
    fn settle(&mut self, now: Instant) {
        let task = self.task();
        let is_made = task == Some(Task::Make) && self.guards == self.made;
        if task.is_some() && !is_made {
            self.news_at.get_or_insert(now + SETTLE);
        } else {
            self.news_at = None;
        }
        if task == Some(Task::Make) && self.written.is_some() && !self.stands() {
            if self.repair_at.is_none() && self.repaired.is_some_and(|moment| moment + LONGEST <= now) {
                self.repairs = 0;
            }
            let pause = SETTLE.saturating_mul(1 << self.repairs.min(8)).min(LONGEST);
            self.repair_at.get_or_insert(now + pause);
        } else {
            self.repair_at = None;
        }
    }

    /// When it is its turn; `None` when nothing is to be done.
    fn moment(&self) -> Option<Instant> {
        let first = [self.news_at, self.repair_at].into_iter().flatten().min()?;
        // Whoever makes one report after the other fills no log by it.
        let told =
            self.told.as_ref().filter(|_| self.task() == Some(Task::Tell)).map(|(_, at)| *at + LONGEST);
        Some([self.held, told].into_iter().flatten().fold(first, Instant::max))
    }
}

impl Desk {
    /// Takes the guards as they are now, in order of their namespaces.
    pub(super) fn take_guards<'a>(&mut self, guards: impl Iterator<Item = &'a Seen>, now: Instant) {
        let mut all: BTreeMap<&str, DefaultHasher> = BTreeMap::new();
        for seen in guards {
            let stored = &seen.stored;
            let hasher = all.entry(stored.namespace()).or_default();
            (stored.name(), stored.uid().as_str(), &*stored.resource_version()).hash(hasher);
        }
        for (namespace, hasher) in &all {
            self.place(namespace).guards = Some(hasher.finish());
        }
        self.places.retain(|namespace, place| {
            if !all.contains_key(namespace.as_str()) {
                place.guards = None;
            }
            place.settle(now);
            place.guards.is_some() || place.standing.is_some()
        });
    }

    /// A report as it stands now; `None` when it is gone.
    pub(super) fn take_report(&mut self, namespace: &str, found: Option<Found>, now: Instant) {
        let place = self.place(namespace);
        let before = place.standing.take();
        place.standing = found.map(|mut found| {
            // Whatever is edited away from it.
            found.is_ours |= before.is_some_and(|before| before.is_ours && before.uid == found.uid);
            found
        });
        place.settle(now);
    }

    /// Only these namespaces have a report.
    pub(super) fn retain_reports(&mut self, is_there: impl Fn(&str) -> bool, now: Instant) {
        for (namespace, place) in &mut self.places {
            if !is_there(namespace) {
                place.standing = None;
                place.settle(now);
            }
        }
    }

    /// What is due, of that what has been due for longest, and its namespace.
    pub(super) fn due(&self, now: Instant) -> Option<(String, Task)> {
        let waiting =
            self.places.iter().filter_map(|(namespace, place)| Some((place.moment()?, namespace, place)));
        let (moment, namespace, place) = waiting.min_by_key(|(moment, ..)| *moment)?;
        if moment > now {
            return None;
        }
        Some((namespace.clone(), place.task()?))
    }

    /// When something is due next.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.places.values().filter_map(Place::moment).min()
    }

    /// Whether each namespace that has guards has its report: nothing is refused, and nobody else's stands there.
    pub(super) fn keeps_all(&self) -> bool {
        self.places.values().all(Place::is_kept)
    }

    /// Whether content needs no write: it is what was written, and that stands there.
    pub(super) fn stands(&self, namespace: &str, digest: &Digest) -> bool {
        let place = self.places.get(namespace);
        place.is_some_and(|place| {
            place.stands() && place.written.as_ref().is_some_and(|(written, _)| written == digest)
        })
    }

    /// What stands in a namespace.
    pub(super) fn standing(&self, namespace: &str) -> Option<&Found> {
        self.places.get(namespace)?.standing.as_ref()
    }

    /// What the guards of a namespace come to, to be noted with what is made of them.
    pub(super) fn guards(&self, namespace: &str) -> Option<u64> {
        self.places.get(namespace)?.guards
    }

    /// The report was made, and was written or stood there already.
    pub(super) fn done(&mut self, namespace: &str, made: Made, now: Instant) {
        let place = self.place(namespace);
        place.made = made.guards;
        (place.news_at, place.repair_at) = (None, None);
        (place.failures, place.trouble) = (0, None);
        place.held = Some(now + made.took.saturating_mul(REST).min(LONGEST));
        if let Some((digest, found)) = made.written {
            let is_same = place.written.as_ref().is_some_and(|(before, _)| *before == digest);
            (place.repairs, place.repaired) =
                if is_same { (place.repairs.saturating_add(1), Some(now)) } else { (0, None) };
            place.written = Some((digest, found.version.clone()));
            place.standing = Some(found);
        }
        // Guards may have changed meanwhile.
        place.settle(now);
    }

    /// The report is deleted.
    pub(super) fn pruned(&mut self, namespace: &str) {
        self.places.remove(namespace);
    }

    /// It was told whose report stands there.
    pub(super) fn told(&mut self, namespace: &str, now: Instant) {
        let place = self.place(namespace);
        place.told = place.standing.as_ref().map(|found| (found.uid.clone(), now));
        place.settle(now);
    }

    /// Something else stands there than was known, which the watch tells in a moment.
    pub(super) fn overtaken(&mut self, namespace: &str, now: Instant) {
        self.place(namespace).held = Some(now + SETTLE);
    }

    /// It could not be done: the status that was answered, or 0. Gives whether that happens nowhere else, nor did
    /// here at the last attempt.
    pub(super) fn failed(&mut self, namespace: &str, status: u16, now: Instant) -> bool {
        let is_known = |place: &Place| place.trouble == Some(status) && place.task().is_some();
        let is_first = !self.places.values().any(is_known);
        let place = self.place(namespace);
        let pause = RETRY.saturating_mul(1 << place.failures.min(8)).min(LONGEST);
        place.held = Some(now + pause);
        place.failures = place.failures.saturating_add(1);
        place.trouble = Some(status);
        is_first
    }

    fn place(&mut self, namespace: &str) -> &mut Place {
        if !self.places.contains_key(namespace) {
            self.places.insert(namespace.to_owned(), Place::default());
        }
        self.places.entry(namespace.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::guard::{Authorship, GuardId, GuardState, InvalidGuard};
    use crate::store::Stored;

    fn guard(namespace: &str, version: &str) -> Seen {
        let object = serde_json::json!({
            "metadata": {"name": "g", "namespace": namespace, "uid": "u", "resourceVersion": version},
            "spec": {},
        });
        let stored: Stored = serde_json::from_str(&object.to_string()).unwrap();
        let state = GuardState::Invalid(std::sync::Arc::new(InvalidGuard {
            id: GuardId { namespace: namespace.into(), name: "g".into() },
            uid: "u".into(),
            generation: 1,
            target: None,
            pauses: Default::default(),
            authorship: Authorship::Unknown,
            reason: "Test",
            message: String::new(),
        }));
        Seen { stored, state, since: 1, found: None, kept: None, needed: 1 }
    }

    fn found(version: &str, uid: &str, is_ours: bool) -> Option<Found> {
        Some(Found { version: version.to_owned(), uid: uid.to_owned(), is_ours })
    }

    fn ours(version: &str) -> Option<Found> {
        found(version, "u", true)
    }

    fn written(desk: &mut Desk, content: u8, version: &str, now: Instant) {
        let written = ours(version).map(|found| ([content; 32], found));
        desk.done("a", Made { guards: desk.guards("a"), written, took: Duration::ZERO }, now);
    }

    fn made(namespace: &str) -> Option<(String, Task)> {
        Some((namespace.to_owned(), Task::Make))
    }

    #[test]
    fn a_report_is_made_once_guards_have_settled_and_again_only_when_they_change() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        assert_eq!(desk.due(now), None);
        assert_eq!(desk.due(now + SETTLE), made("a"));
        written(&mut desk, 1, "10", now);
        desk.take_report("a", ours("10"), now);
        desk.take_guards([guard("a", "1")].iter(), now);
        assert_eq!((desk.due(now + LONGEST), desk.wake()), (None, None), "our own write is no news");
        desk.take_guards([guard("a", "2")].iter(), now);
        assert_eq!(desk.due(now + SETTLE), made("a"));
        assert!(desk.stands("a", &[1; 32]) && !desk.stands("a", &[2; 32]));
    }

    #[test]
    fn what_somebody_edits_or_deletes_is_put_right_ever_more_rarely() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        written(&mut desk, 1, "10", now);
        desk.take_report("a", ours("11"), now);
        assert_eq!(desk.due(now + SETTLE), made("a"));
        assert!(!desk.stands("a", &[1; 32]));
        written(&mut desk, 1, "12", now);
        desk.take_report("a", None, now);
        assert_eq!(desk.due(now + SETTLE), None);
        assert_eq!(desk.due(now + SETTLE * 2), made("a"));
        for version in 13..40 {
            written(&mut desk, 1, &version.to_string(), now);
        }
        desk.take_report("a", None, now);
        assert_eq!(desk.wake(), Some(now + LONGEST));
    }

    /// A report that was edited and put right so often that it is put right every ten minutes only.
    fn edited_for_long(now: Instant) -> Desk {
        let mut desk = Desk::default();
        desk.take_guards([guard("a", "1")].iter(), now);
        for version in 10..40 {
            written(&mut desk, 1, &version.to_string(), now);
        }
        desk
    }

    #[test]
    fn no_edit_of_a_report_puts_news_off() {
        let now = Instant::now();
        let mut desk = edited_for_long(now);
        desk.take_guards([guard("a", "2")].iter(), now);
        desk.take_report("a", ours("99"), now);
        assert_eq!(desk.wake(), Some(now + SETTLE), "edited after the news");
        let mut desk = edited_for_long(now);
        desk.take_report("a", ours("99"), now);
        assert_eq!(desk.wake(), Some(now + LONGEST));
        desk.take_guards([guard("a", "2")].iter(), now + SETTLE);
        assert_eq!(desk.wake(), Some(now + SETTLE * 2), "edited before the news");
    }

    #[test]
    fn a_report_that_was_left_alone_for_long_is_put_right_soon_again() {
        let now = Instant::now();
        let mut desk = edited_for_long(now);
        let later = now + LONGEST;
        desk.take_report("a", ours("99"), later);
        assert_eq!(desk.wake(), Some(later + SETTLE));
    }

    #[test]
    fn a_report_of_ours_without_guards_is_pruned_and_one_of_others_is_not() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_report("ours", ours("1"), now);
        desk.take_report("theirs", found("1", "u", false), now);
        desk.take_guards([].iter(), now);
        assert_eq!(desk.due(now + SETTLE), Some(("ours".to_owned(), Task::Prune)));
        desk.pruned("ours");
        assert_eq!(desk.due(now + SETTLE), None);
        assert!(desk.keeps_all(), "there is none to be kept");
    }

    #[test]
    fn a_report_of_others_is_told_of_once_and_left_until_it_goes() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_report("a", found("1", "theirs", false), now);
        desk.take_guards([guard("a", "1")].iter(), now);
        assert_eq!(desk.due(now + SETTLE), Some(("a".to_owned(), Task::Tell)));
        desk.told("a", now + SETTLE);
        desk.take_guards([guard("a", "2")].iter(), now);
        desk.take_report("a", found("2", "theirs", false), now);
        assert_eq!((desk.due(now + LONGEST), desk.wake()), (None, None));
        assert!(!desk.keeps_all());
        desk.take_report("a", None, now);
        assert_eq!(desk.due(now + SETTLE), made("a"));
        written(&mut desk, 1, "10", now);
        assert!(desk.keeps_all());
        desk.take_report("a", found("11", "another", false), now);
        let later = now + SETTLE + LONGEST;
        assert_eq!(desk.due(later), Some(("a".to_owned(), Task::Tell)), "it took the place of ours");
    }

    #[test]
    fn whoever_makes_one_report_after_the_other_is_told_of_rarely() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        desk.take_report("a", found("1", "theirs", false), now);
        desk.told("a", now);
        desk.take_report("a", None, now);
        desk.take_report("a", found("2", "theirs again", false), now);
        assert_eq!((desk.due(now + SETTLE), desk.wake()), (None, Some(now + LONGEST)));
        desk.take_report("a", None, now);
        assert_eq!(desk.due(now + SETTLE), made("a"), "ours does not wait for that");
    }

    #[test]
    fn a_report_stays_ours_whatever_is_edited_away_from_it() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        written(&mut desk, 1, "10", now);
        desk.take_report("a", found("11", "u", false), now);
        assert_eq!(desk.due(now + SETTLE), made("a"));
    }

    #[test]
    fn what_failed_waits_for_longer_each_time() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        desk.failed("a", 403, now);
        assert_eq!((desk.due(now + SETTLE), desk.wake()), (None, Some(now + RETRY)));
        desk.failed("a", 403, now);
        assert_eq!(desk.wake(), Some(now + RETRY * 2));
        for _ in 0..99 {
            desk.failed("a", 403, now);
        }
        assert_eq!(desk.wake(), Some(now + LONGEST));
    }

    #[test]
    fn a_refusal_is_told_once_however_many_namespaces_it_meets() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1"), guard("b", "1")].iter(), now);
        assert!(desk.failed("a", 403, now));
        assert!(!desk.failed("b", 403, now) && !desk.failed("a", 403, now));
        assert!(desk.failed("b", 422, now), "another answer");
        assert!(!desk.keeps_all());
        desk.take_guards([guard("a", "1")].iter(), now);
        assert!(!desk.keeps_all());
        written(&mut desk, 1, "10", now);
        assert!(desk.keeps_all());
        assert!(desk.failed("a", 403, now), "it was over");
    }

    #[test]
    fn what_takes_long_to_make_is_made_rarely() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1"), guard("b", "1")].iter(), now);
        let took = Duration::from_secs(4);
        desk.done("a", Made { guards: desk.guards("a"), written: None, took }, now);
        desk.take_guards([guard("a", "2"), guard("b", "1")].iter(), now);
        assert_eq!(desk.due(now + SETTLE), made("b"), "others do not wait for it");
        desk.pruned("b");
        assert_eq!(desk.wake(), Some(now + took * REST));
    }

    #[test]
    fn what_has_been_due_for_longest_goes_first() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("b", "1")].iter(), now);
        let later = now + Duration::from_secs(1);
        desk.take_guards([guard("a", "1"), guard("b", "1")].iter(), later);
        assert_eq!(desk.due(later + SETTLE), made("b"));
    }
}
