//! What is said of guards, and in which order: those in trouble first, each as it stands when its turn comes.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::text::Text;
use crate::telemetry::metrics::Troubled;

use super::say::{Brief, Told};
use super::status::{Statement, Written};

/// Statuses that are written at once.
const AT_ONCE: usize = 8;
/// Pause before a status that could not be written is tried again. Doubled with each failure, up to
/// [`PAUSE_MAX`]: where a right is missing nothing is gained by hurry.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is told of the guards that are not calm, or of which something is still to be written.
#[derive(Debug, Default)]
pub(super) struct Saying {
    guards: HashMap<Text, Spoken>,
    /// Guards in trouble whose turn has come; some may have been forgotten or said meanwhile.
    urgent: VecDeque<Text>,
    /// The others whose turn has come. A new installation has all of its guards here.
    calm: VecDeque<Text>,
    later: BTreeSet<(Instant, Text)>,
    /// Guards whose status somebody else writes.
    held: HashSet<Text>,
    running: usize,
}

#[derive(Debug)]
struct Spoken {
    told: Kept,
    turn: Turn,
    is_running: bool,
    /// How long it waits after its next failure.
    pause: Duration,
}

/// What is told of a guard. Of a new installation all guards may wait to be written, and nearly all of them are as
/// approved, which takes few bytes.
#[derive(Debug)]
enum Kept {
    Brief(Brief),
    Whole(Box<Told>),
}

impl Kept {
    fn of(told: Told) -> Self {
        told.brief().map_or_else(|| Self::Whole(Box::new(told)), Self::Brief)
    }

    fn whole(&self) -> Told {
        match self {
            Self::Brief(brief) => brief.into(),
            Self::Whole(told) => Told::clone(told),
        }
    }

    fn is_calm(&self) -> bool {
        match self {
            Self::Brief(_) => true,
            Self::Whole(told) => told.is_calm(),
        }
    }
}

/// When it is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The status says what is told.
    Never,
    /// Now, behind those in trouble.
    Calm,
    Urgent,
    At(Instant),
}

impl Saying {
    /// Puts what is told of a guard into the place of what was told before.
    pub(super) fn tell(&mut self, uid: &Text, told: impl FnOnce(Option<Told>) -> Told) {
        if let Some(spoken) = self.guards.get_mut(uid) {
            spoken.told = Kept::of(told(Some(spoken.told.whole())));
        } else {
            let told = Kept::of(told(None));
            let spoken = Spoken { told, turn: Turn::Never, is_running: false, pause: PAUSE };
            self.guards.insert(uid.clone(), spoken);
        }
    }

    /// Adds to what is told of a guard. Whether anything is.
    pub(super) fn add(&mut self, uid: &Text, add: impl FnOnce(&mut Told)) -> bool {
        let Some(spoken) = self.guards.get_mut(uid) else { return false };
        let mut told = spoken.told.whole();
        add(&mut told);
        spoken.told = Kept::of(told);
        true
    }

    /// Whether a guard is known to be in trouble.
    pub(super) fn is_in_trouble(&self, uid: &Text) -> bool {
        self.guards.get(uid).is_some_and(|spoken| !spoken.told.is_calm())
    }

    /// What is told of a guard is to be written as soon as may be.
    pub(super) fn say(&mut self, uid: &Text) {
        let Some(spoken) = self.guards.get_mut(uid) else { return };
        if let Turn::At(at) = spoken.turn {
            self.later.remove(&(at, uid.clone()));
        }
        let turn = if spoken.told.is_calm() { Turn::Calm } else { Turn::Urgent };
        if spoken.turn == turn || spoken.turn == Turn::Urgent {
            return;
        }
        spoken.turn = turn;
        // One that is being written comes again when that is done.
        if !spoken.is_running && !self.held.contains(uid) {
            self.queue(uid, turn);
        }
    }

    fn queue(&mut self, uid: &Text, turn: Turn) {
        let queue = if turn == Turn::Urgent { &mut self.urgent } else { &mut self.calm };
        queue.push_back(uid.clone());
    }

    /// The same at a later time, unless something of it is to be written before: what is told is about to change.
    pub(super) fn say_at(&mut self, uid: &Text, at: Instant) {
        let Some(spoken) = self.guards.get_mut(uid) else { return };
        match spoken.turn {
            Turn::Calm | Turn::Urgent => return,
            Turn::At(sooner) if sooner <= at => return,
            Turn::At(later) => drop(self.later.remove(&(later, uid.clone()))),
            Turn::Never => {}
        }
        spoken.turn = Turn::At(at);
        self.later.insert((at, uid.clone()));
    }

    /// The next statement to write; [`Self::written`] must be told how that went.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Text, Statement)> {
        while let Some((at, uid)) = self.later.first().cloned().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, uid.clone()));
            self.say(&uid);
        }
        while !self.is_full() {
            let uid = self.urgent.pop_front().or_else(|| self.calm.pop_front())?;
            let Some(spoken) = self.guards.get_mut(&uid) else { continue };
            if matches!(spoken.turn, Turn::Calm | Turn::Urgent) && !spoken.is_running {
                (spoken.turn, spoken.is_running) = (Turn::Never, true);
                self.running += 1;
                return Some((uid, spoken.told.whole().statement()));
            }
        }
        None
    }

    /// How writing went. Nothing is kept of a calm guard of which all is said, unless `is_needed`.
    pub(super) fn written(&mut self, uid: &Text, written: Written, is_needed: bool, now: Instant) {
        self.running = self.running.saturating_sub(1);
        let Some(spoken) = self.guards.get_mut(uid) else { return };
        spoken.is_running = false;
        let has_failed = written == Written::Failed;
        let pause = if has_failed { spoken.pause } else { PAUSE };
        spoken.pause = if has_failed { (pause * 2).min(PAUSE_MAX) } else { PAUSE };
        match spoken.turn {
            // What is told has changed meanwhile.
            turn @ (Turn::Calm | Turn::Urgent) => self.queue(uid, turn),
            turn @ (Turn::Never | Turn::At(_)) if has_failed => {
                if let Turn::At(before) = turn {
                    self.later.remove(&(before, uid.clone()));
                }
                spoken.turn = Turn::At(now + pause);
                self.later.insert((now + pause, uid.clone()));
            }
            Turn::Never | Turn::At(_) => {
                if spoken.told.is_calm() && !is_needed {
                    self.remove(uid);
                }
            }
        }
    }

    /// Whether as many are written as may be at once.
    pub(super) fn is_full(&self) -> bool {
        self.running >= AT_ONCE
    }

    /// Keeps a guard's status for somebody else who writes it, until [`Self::release`]. Not while there is
    /// something to say in it, or too many are written.
    pub(super) fn hold(&mut self, uid: &Text) -> bool {
        let has_words = |spoken: &Spoken| spoken.is_running || spoken.turn != Turn::Never;
        if self.is_full() || self.guards.get(uid).is_some_and(has_words) || !self.held.insert(uid.clone()) {
            return false;
        }
        self.running += 1;
        true
    }

    /// Nobody else writes the status any more.
    pub(super) fn release(&mut self, uid: &Text) {
        self.held.remove(uid);
        self.running = self.running.saturating_sub(1);
        if let Some(spoken) = self.guards.get(uid)
            && let turn @ (Turn::Calm | Turn::Urgent) = spoken.turn
        {
            self.queue(uid, turn);
        }
    }

    /// What was still to be learned of a guard was not: nothing is kept of it when it is calm and all is said.
    pub(super) fn needs_no_more(&mut self, uid: &Text) {
        let is_over =
            |spoken: &Spoken| spoken.told.is_calm() && spoken.turn == Turn::Never && !spoken.is_running;
        if self.guards.get(uid).is_some_and(is_over) {
            self.remove(uid);
        }
    }

    fn remove(&mut self, uid: &Text) -> Option<Spoken> {
        let removed = self.guards.remove(uid);
        // What very many took that waited at once is given back.
        if self.guards.len() < self.guards.capacity() / 8 {
            self.guards.shrink_to(self.guards.len() * 2);
            self.calm.shrink_to(self.calm.len() * 2);
        }
        removed
    }

    /// When the next one may be tried that failed before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Nothing of a guard that is gone is kept.
    pub(super) fn forget(&mut self, uid: &Text) {
        if let Some(Spoken { turn: Turn::At(at), .. }) = self.remove(uid) {
            self.later.remove(&(at, uid.clone()));
        }
    }

    /// Counts the guards that are in trouble.
    pub(super) fn troubled(&self) -> Troubled {
        let mut troubled = Troubled::default();
        for spoken in self.guards.values() {
            if let Kept::Whole(told) = &spoken.told {
                told.count(&mut troubled);
            }
        }
        troubled
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::audit::watch::test_support::guard;
    use crate::core::audit::book::Report;
    use crate::core::audit::finding::{Reason, Truth};
    use crate::core::signature::SigningKey;

    fn told(uid: &str, drifted: Truth) -> Told {
        let report = Report {
            generation: 1,
            drifted,
            reason: if drifted == Truth::True { Reason::ContentDiffers } else { Reason::InSync },
            message: String::new(),
            fighting: None,
            unwatched: None,
            hash_match: Some(drifted == Truth::False),
            current_hash: None,
            consecutive_failures: 0,
            last_drift: None,
            last_remediation: None,
            episode: None,
            alerted: false,
            incident: None,
            heeded_restore: None,
            restore_pending: false,
            matched: None,
            checked_at: Timestamp::UNIX_EPOCH,
        };
        Told::of(&Arc::new(guard(uid, Some("n"), "x")), report, None)
    }

    fn say(saying: &mut Saying, uid: &str, drifted: Truth) {
        saying.tell(&uid.into(), |_| told(uid, drifted));
        saying.say(&uid.into());
    }

    fn all(saying: &mut Saying, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| saying.next(now)).map(|(uid, _)| uid.to_string()).collect()
    }

    #[test]
    fn whoever_is_in_trouble_is_told_first_and_each_once() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        for uid in ["a", "b", "c", "d"] {
            say(&mut saying, uid, Truth::False);
        }
        say(&mut saying, "c", Truth::True);
        say(&mut saying, "c", Truth::True);
        say(&mut saying, "a", Truth::False);
        assert_eq!(all(&mut saying, now), ["c", "a", "b", "d"]);
    }

    #[test]
    fn only_so_many_are_written_at_once() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        for number in 0..20 {
            say(&mut saying, &number.to_string(), Truth::False);
        }
        let first = all(&mut saying, now);
        assert_eq!(first.len(), AT_ONCE);
        saying.written(&first[0].as_str().into(), Written::Done, false, now);
        assert_eq!(all(&mut saying, now).len(), 1);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        say(&mut saying, "a", Truth::False);
        assert_eq!(all(&mut saying, now), ["a"]);
        say(&mut saying, "a", Truth::True);
        assert_eq!(all(&mut saying, now), [""; 0], "two writers of one status would undo each other");
        saying.written(&"a".into(), Written::Done, false, now);
        let (_, statement) = saying.next(now).unwrap();
        assert_eq!(statement.drifted.status, "True");
    }

    #[test]
    fn what_could_not_be_written_waits_longer_each_time() {
        let (mut saying, begun) = (Saying::default(), Instant::now());
        say(&mut saying, "a", Truth::False);
        let mut now = begun;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(all(&mut saying, now), ["a"]);
            saying.written(&"a".into(), Written::Failed, false, now);
            assert_eq!(all(&mut saying, now), [""; 0]);
            let due = saying.next_due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(all(&mut saying, now), ["a"]);
        saying.written(&"a".into(), Written::Done, false, now);
        assert_eq!((saying.next_due(), saying.guards.len()), (None, 0));
    }

    #[test]
    fn what_is_about_to_change_is_written_once_it_has_or_when_that_takes_too_long() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        let soon = now + Duration::from_secs(1);
        for uid in ["changes", "stays"] {
            saying.tell(&uid.into(), |_| told(uid, Truth::True));
            saying.say_at(&uid.into(), soon);
        }
        assert_eq!((all(&mut saying, now), saying.next_due()), (vec![], Some(soon)));
        say(&mut saying, "changes", Truth::False);
        assert_eq!(all(&mut saying, now), ["changes"]);
        assert_eq!(all(&mut saying, soon), ["stays"]);
        say(&mut saying, "new", Truth::True);
        saying.say_at(&"new".into(), soon);
        assert_eq!(all(&mut saying, soon), ["new"], "what is due already waits for nothing");
    }

    #[test]
    fn news_of_a_guard_that_waits_is_written_at_once() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        say(&mut saying, "a", Truth::False);
        assert_eq!(all(&mut saying, now), ["a"]);
        saying.written(&"a".into(), Written::Failed, false, now);
        say(&mut saying, "a", Truth::True);
        assert_eq!((all(&mut saying, now), saying.next_due()), (vec!["a".to_owned()], None));
    }

    #[test]
    fn of_a_calm_guard_nothing_is_kept_and_of_one_in_trouble_all() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        for (uid, drifted, is_needed) in
            [("calm", Truth::False, false), ("asked", Truth::False, true), ("drifted", Truth::True, false)]
        {
            say(&mut saying, uid, drifted);
            assert_eq!(all(&mut saying, now), [uid]);
            saying.written(&uid.into(), Written::Done, is_needed, now);
        }
        let is_kept = |saying: &Saying, uid: &str| saying.guards.contains_key(uid);
        assert!(!is_kept(&saying, "calm") && is_kept(&saying, "asked"));
        saying.needs_no_more(&"asked".into());
        assert!(!is_kept(&saying, "asked"));
        assert_eq!(saying.troubled().drifted, 1);
        saying.forget(&"drifted".into());
        assert_eq!(saying.troubled(), Troubled::default());
    }

    #[test]
    fn a_status_that_somebody_else_writes_waits_for_that() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        assert!(saying.hold(&"a".into()));
        assert!(!saying.hold(&"a".into()));
        say(&mut saying, "a", Truth::True);
        assert_eq!(all(&mut saying, now), [""; 0]);
        saying.release(&"a".into());
        assert!(!saying.hold(&"a".into()), "there is something to say");
        assert_eq!(all(&mut saying, now), ["a"]);
    }

    #[test]
    fn a_guard_in_sync_waits_in_few_bytes_and_is_told_as_if_all_were_kept() {
        assert!(size_of::<Spoken>() <= 80, "{} bytes", size_of::<Spoken>());
        let (mut saying, now) = (Saying::default(), Instant::now());
        let guard = Arc::new(guard("a", Some("n"), "x"));
        let at = Timestamp::UNIX_EPOCH;
        let told = |before| Told::of(&guard, Report::in_sync(&guard, at), before);
        let whole = told(None).statement();
        saying.tell(&guard.uid, told);
        assert!(matches!(saying.guards["a"].told, Kept::Brief(_)) && !saying.is_in_trouble(&guard.uid));
        saying.say(&guard.uid);
        let (_, statement) = saying.next(now).unwrap();
        assert_eq!(statement, whole);
        let key = SigningKey::new(&[1; 32]).unwrap();
        assert!(saying.add(&guard.uid, |told| told.equivalent(&key, &guard, guard.expected, "v1.37.2")));
        assert!(matches!(saying.guards["a"].told, Kept::Whole(_)), "what else is to be said is kept");
        assert_eq!(saying.guards["a"].told.whole().statement().equivalents.map(|all| all.len()), Some(1));
    }

    #[test]
    fn a_guard_that_is_gone_is_not_told() {
        let (mut saying, now) = (Saying::default(), Instant::now());
        say(&mut saying, "a", Truth::True);
        saying.forget(&"a".into());
        assert_eq!(all(&mut saying, now), [""; 0]);
    }
}
