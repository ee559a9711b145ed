//! Which reports are to be written, and when: a book of what the guards say, what was written and what stands in the
//! cluster. Pure; time comes in.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Seen;

/// How long changes are gathered: one drift changes the status of a guard several times.
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// Pause after a write that failed.
pub(super) const RETRY: Duration = Duration::from_secs(60);
/// Longest pause before a report that others keep editing is put right again.
const LONGEST: Duration = Duration::from_secs(600);

/// Content of a report, in few bytes.
pub(super) type Digest = [u8; 32];

/// What is known of one namespace.
#[derive(Debug, Default)]
struct Place {
    /// What its guards come to now; `None` when it has none.
    guards: Option<u64>,
    /// What they came to when the report was last made.
    made: Option<u64>,
    /// What was last written, and the version that it got.
    written: Option<(Digest, String)>,
    /// The version that stands in the cluster; `None` where none does.
    standing: Option<String>,
    /// Whether that one bears our label.
    is_ours: bool,
    /// How often the same content was written again, since somebody changed what stood there.
    repairs: u32,
    not_before: Option<Instant>,
}

/// What is to be done about a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Make its report, and write it unless it stands there.
    Make,
    /// Delete it.
    Prune,
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Desk {
    places: BTreeMap<String, Place>,
}

impl Place {
    fn task(&self) -> Option<Task> {
        match self.guards {
            None => (self.standing.is_some() && self.is_ours).then_some(Task::Prune),
            Some(_) if self.guards != self.made || !self.stands() => Some(Task::Make),
            Some(_) => None,
        }
    }

    /// Whether what was written stands there untouched.
    fn stands(&self) -> bool {
        self.written.as_ref().is_some_and(|(_, version)| self.standing.as_ref() == Some(version))
    }

    /// Puts what is to be done off, unless it has been already.
    fn settle(&mut self, now: Instant) {
        if self.task().is_none() {
            self.not_before = None;
            return;
        }
        let pause = SETTLE.saturating_mul(1 << self.repairs.min(8)).min(LONGEST);
        self.not_before.get_or_insert(now + pause);
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
        for (namespace, place) in &mut self.places {
            if !all.contains_key(namespace.as_str()) {
                place.guards = None;
            }
            place.settle(now);
        }
    }

    /// A report as it stands now; `None` when it is gone.
    pub(super) fn take_report(&mut self, namespace: &str, found: Option<(String, bool)>, now: Instant) {
        let place = self.place(namespace);
        (place.standing, place.is_ours) = match found {
            Some((version, is_ours)) => (Some(version), is_ours),
            None => (None, false),
        };
        place.settle(now);
    }

    /// Only these namespaces have a report.
    pub(super) fn retain_reports(&mut self, is_there: impl Fn(&str) -> bool, now: Instant) {
        for (namespace, place) in &mut self.places {
            if !is_there(namespace) {
                place.standing = None;
                place.is_ours = false;
                place.settle(now);
            }
        }
    }

    /// Something that is due, and its namespace.
    pub(super) fn due(&self, now: Instant) -> Option<(String, Task)> {
        let is_due = |place: &Place| place.not_before.is_none_or(|moment| moment <= now);
        let due = self.places.iter().filter(|(_, place)| is_due(place));
        due.into_iter().find_map(|(namespace, place)| Some((namespace.clone(), place.task()?)))
    }

    /// When something is due next.
    pub(super) fn wake(&self) -> Option<Instant> {
        let waiting = self.places.values().filter(|place| place.task().is_some());
        waiting.filter_map(|place| place.not_before).min()
    }

    /// Whether content needs no write: it is what was written, and that stands there.
    pub(super) fn stands(&self, namespace: &str, digest: &Digest) -> bool {
        let place = self.places.get(namespace);
        place.is_some_and(|place| {
            place.stands() && place.written.as_ref().is_some_and(|(written, _)| written == digest)
        })
    }

    /// What the guards of a namespace come to, to be noted with what is made of them.
    pub(super) fn guards(&self, namespace: &str) -> Option<u64> {
        self.places.get(namespace)?.guards
    }

    /// The report was made of these guards, and was written or stood there already.
    pub(super) fn done(
        &mut self,
        namespace: &str,
        guards: Option<u64>,
        written: Option<(Digest, String)>,
        now: Instant,
    ) {
        let place = self.place(namespace);
        place.made = guards;
        place.not_before = None;
        if let Some((digest, version)) = written {
            let is_same = place.written.as_ref().is_some_and(|(before, _)| *before == digest);
            place.repairs = if is_same { place.repairs.saturating_add(1) } else { 0 };
            place.standing = Some(version.clone());
            place.is_ours = true;
            place.written = Some((digest, version));
        }
        // Guards may have changed meanwhile.
        place.settle(now);
    }

    /// The report is deleted.
    pub(super) fn pruned(&mut self, namespace: &str) {
        self.places.remove(namespace);
    }

    /// It could not be done.
    pub(super) fn failed(&mut self, namespace: &str, now: Instant) {
        self.place(namespace).not_before = Some(now + RETRY);
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

    fn written(desk: &mut Desk, content: u8, version: &str, now: Instant) {
        let guards = desk.guards("a");
        desk.done("a", guards, Some(([content; 32], version.to_owned())), now);
    }

    #[test]
    fn a_report_is_made_once_guards_have_settled_and_again_only_when_they_change() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        assert_eq!(desk.due(now), None);
        assert_eq!(desk.due(now + SETTLE), Some(("a".to_owned(), Task::Make)));
        written(&mut desk, 1, "10", now);
        desk.take_report("a", Some(("10".to_owned(), true)), now);
        desk.take_guards([guard("a", "1")].iter(), now);
        assert_eq!((desk.due(now + LONGEST), desk.wake()), (None, None), "our own write is no news");
        desk.take_guards([guard("a", "2")].iter(), now);
        assert_eq!(desk.due(now + SETTLE), Some(("a".to_owned(), Task::Make)));
        assert!(desk.stands("a", &[1; 32]) && !desk.stands("a", &[2; 32]));
    }

    #[test]
    fn what_somebody_edits_or_deletes_is_put_right_ever_more_rarely() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        written(&mut desk, 1, "10", now);
        desk.take_report("a", Some(("11".to_owned(), true)), now);
        assert_eq!(desk.due(now + SETTLE), Some(("a".to_owned(), Task::Make)));
        assert!(!desk.stands("a", &[1; 32]));
        written(&mut desk, 1, "12", now);
        desk.take_report("a", None, now);
        assert_eq!(desk.due(now + SETTLE), None);
        assert_eq!(desk.due(now + SETTLE * 2), Some(("a".to_owned(), Task::Make)));
        for version in 13..40 {
            written(&mut desk, 1, &version.to_string(), now);
        }
        desk.take_report("a", None, now);
        assert_eq!(desk.wake(), Some(now + LONGEST));
    }

    #[test]
    fn a_report_of_ours_without_guards_is_pruned_and_one_of_others_is_not() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_report("ours", Some(("1".to_owned(), true)), now);
        desk.take_report("theirs", Some(("1".to_owned(), false)), now);
        desk.take_guards([].iter(), now);
        assert_eq!(desk.due(now + SETTLE), Some(("ours".to_owned(), Task::Prune)));
        desk.pruned("ours");
        assert_eq!(desk.due(now + SETTLE), None);
    }

    #[test]
    fn what_failed_waits() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.take_guards([guard("a", "1")].iter(), now);
        desk.failed("a", now);
        assert_eq!((desk.due(now + SETTLE), desk.wake()), (None, Some(now + RETRY)));
    }
}
