#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
//! What always holds, whatever happens in whatever order: checked on random sequences of events over a
//! few guards in two namespaces, with leaders that come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::sight::Present;
use super::tests::{INTERVAL, at, guard, hash};
use super::*;
use crate::core::pause::{Pause, PausedBy};

const CONTENTS: [&str; 3] = ["good", "better", "bad"];
const GUARDS: usize = 14;

#[derive(Debug, Clone, Copy)]
enum Event {
    Write(usize, usize),
    WriteMany(usize, usize),
    Delete(usize),
    Blind(usize, bool),
    Look(usize, Look),
    Wait(u16),
    Tick,
    Finish(usize, u8),
    Pause(usize, u16),
    Unpause(usize),
    Approve(usize, usize),
    Enforce(bool),
    Conflict(usize, bool),
    /// The namespace of the target is being deleted, or stays.
    Going(usize, bool),
    AskRestore(usize),
    Acknowledge,
    TakeOver,
    /// So many targets are written while nobody leads, and one cannot be read at first.
    TakeOverAfter(usize, usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    let look = prop_oneof![Just(Look::Initial), Just(Look::Watch), Just(Look::Sweep), Just(Look::Live)];
    let of = || 0..GUARDS;
    let content = || 0..CONTENTS.len();
    prop_oneof![
        8 => (of(), content()).prop_map(|(nth, content)| Event::Write(nth, content)),
        1 => (of(), content()).prop_map(|(nth, content)| Event::WriteMany(nth, content)),
        2 => of().prop_map(Event::Delete),
        1 => (of(), any::<bool>()).prop_map(|(nth, blind)| Event::Blind(nth, blind)),
        4 => (of(), look).prop_map(|(nth, look)| Event::Look(nth, look)),
        4 => (1u16..900).prop_map(Event::Wait),
        4 => Just(Event::Tick),
        8 => (of(), 0u8..6).prop_map(|(nth, how)| Event::Finish(nth, how)),
        1 => (of(), 1u16..2_000).prop_map(|(nth, seconds)| Event::Pause(nth, seconds)),
        1 => of().prop_map(Event::Unpause),
        1 => (of(), content()).prop_map(|(nth, content)| Event::Approve(nth, content)),
        1 => any::<bool>().prop_map(Event::Enforce),
        1 => (of(), any::<bool>()).prop_map(|(nth, is)| Event::Conflict(nth, is)),
        1 => (of(), any::<bool>()).prop_map(|(nth, is)| Event::Going(nth, is)),
        1 => of().prop_map(Event::AskRestore),
        1 => Just(Event::Acknowledge),
        1 => Just(Event::TakeOver),
        1 => (of(), content(), of()).prop_map(|(count, content, blind)| {
            Event::TakeOverAfter(count, content, blind)
        }),
    ]
}

/// One guard and its target as they are, and what was said of them.
struct Pair {
    guard: Guard,
    content: Option<usize>,
    revision: u64,
    is_blind: bool,
    conflict: bool,
    is_going: bool,
    attempt: Option<String>,
    said: Option<Report>,
    since: Timestamp,
    /// The last look that showed neither approved content nor such as awaits its apply.
    last_bad: Option<Timestamp>,
}

struct World {
    book: Book,
    pairs: Vec<Pair>,
    now: Timestamp,
    enforcing_since: Option<Timestamp>,
    ids: u32,
    alerted: BTreeSet<String>,
    resolved: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let now = at(1_000_000);
        let pair = |nth: usize| Pair {
            guard: guard(if nth.is_multiple_of(2) { "a" } else { "b" }, &format!("g{nth}")),
            content: Some(0),
            revision: 1,
            is_blind: false,
            conflict: false,
            is_going: false,
            attempt: None,
            said: None,
            since: now,
            last_bad: None,
        };
        let mut world = Self {
            book: Book::new(Settings { remediation: true, limits: Limits::default() }),
            pairs: (0..GUARDS).map(pair).collect(),
            now,
            enforcing_since: None,
            ids: 0,
            alerted: BTreeSet::new(),
            resolved: BTreeSet::new(),
        };
        world.census();
        world
    }

    fn census(&mut self) {
        self.book.census([("a".into(), GUARDS / 2), ("b".into(), GUARDS / 2)]);
    }

    fn is_approved(&self, nth: usize) -> bool {
        let pair = &self.pairs[nth];
        pair.content.is_some_and(|content| pair.guard.approves(hash(CONTENTS[content]), self.now))
    }

    fn remembered(&self, nth: usize) -> Option<Remembered> {
        let pair = &self.pairs[nth];
        pair.said.as_ref().map(|said| Remembered {
            generation: said.generation,
            drifted: Some((said.drifted, said.reason, pair.since)),
            hash_match: said.hash_match,
            current_hash: said.current_hash,
            consecutive_failures: said.consecutive_failures,
            last_checked: Some(said.checked_at),
            last_drift: said.last_drift.as_ref().map(|last| (last.time, Some(last.transaction_id.clone()))),
            episode: said.episode.clone(),
            alerted: said.alerted,
            fighting: said.fighting.is_some(),
            restore_pending: said.restore_pending,
            incident: said.incident.clone(),
            unwatched: said.unwatched.is_some(),
            missed_at: said
                .unwatched
                .as_ref()
                .filter(|why| why.reason == WATCH_MISSED_CHANGE)
                .map(|_| said.checked_at),
        })
    }

    fn look(&mut self, nth: usize, look: Look) {
        let pair = &self.pairs[nth];
        let sight = match pair.content {
            _ if pair.is_blind => Sight::Unreadable("it cannot be decoded".into()),
            None => Sight::Absent,
            Some(content) => Sight::Present(Present {
                uid: "object".into(),
                resource_version: pair.revision.to_string(),
                hash: hash(CONTENTS[content]),
                terminating: false,
            }),
        };
        let context = Context {
            enforcing_since: self.enforcing_since,
            built_in: true,
            server_version: "v1.37.2",
            audit_interval: Duration::from_secs(INTERVAL.unsigned_abs()),
            apply_grace: Duration::from_secs(INTERVAL.unsigned_abs()),
            pause_ended: None,
            conflict: pair.conflict,
            namespace_terminating: pair.is_going,
            being_replaced: false,
            missed: look == Look::Sweep,
            read_before: None,
            remembered: self.remembered(nth),
        };
        let terms = Terms { auto_remediate: true, max_failures_before_alert: 3 };
        let seen = Seen { sight: &sight, look, details: None, terms, context: &context };
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            format!("tx-{ids}")
        };
        let steps = self.book.see(&pair.guard, &seen, self.now, &mut new_id);
        let was_doubted = steps == [Step::Look];
        if !was_doubted {
            let said = steps.iter().rev().find_map(|step| match step {
                Step::Report(report) => Some(report.drifted),
                _ => None,
            });
            let pair = &mut self.pairs[nth];
            let drifted = said.or(pair.said.as_ref().map(|said| said.drifted));
            if drifted != Some(Truth::False) {
                pair.last_bad = Some(self.now);
            }
        }
        self.follow(nth, steps);
        let (is_approved, pair) = (self.is_approved(nth), &self.pairs[nth]);
        if let Some(said) = pair.said.as_ref().filter(|_| !was_doubted && !pair.is_blind) {
            let is_clean = said.drifted == Truth::False && said.reason != Reason::AwaitingApply;
            assert_eq!(is_clean, is_approved, "{said:?}");
            let awaits = said.reason == Reason::AwaitingApply;
            assert!(!(awaits && pair.attempt.is_some()), "put back although it may yet be applied");
        }
    }

    /// Does what follows for a guard, and checks what always holds.
    fn follow(&mut self, nth: usize, steps: Vec<Step>) {
        let mut asked = false;
        for step in steps {
            match step {
                Step::Restore { transaction_id } => self.restores(nth, transaction_id),
                Step::GiveUp { transaction_id } => {
                    let is_it = |pair: &&mut Pair| pair.attempt.as_ref() == Some(&transaction_id);
                    let pair = self.pairs.iter_mut().find(is_it);
                    pair.unwrap_or_else(|| unreachable!("{transaction_id} is not under way")).attempt = None;
                }
                Step::Alert(alert) => {
                    assert!(self.alerted.insert(alert.episode.clone()), "alerted twice: {alert:?}");
                }
                Step::Resolve(alert) => {
                    assert!(alert.resolved);
                    assert!(self.alerted.contains(&alert.episode), "never alerted: {alert:?}");
                    assert!(self.resolved.insert(alert.episode.clone()), "resolved twice: {alert:?}");
                }
                Step::Report(report) => self.reports(nth, *report),
                Step::Look => asked = true,
                Step::Record(_) | Step::CountDrift(_) | Step::Equivalent { .. } => {}
            }
        }
        if asked {
            self.look(nth, Look::Live);
        }
    }

    fn restores(&mut self, nth: usize, transaction_id: String) {
        let may = self.book.may_restore(&self.pairs[nth].guard, &transaction_id, self.now);
        let pair = &mut self.pairs[nth];
        assert!(pair.guard.paused(self.now).is_none(), "while paused");
        assert!(!pair.conflict, "while in conflict");
        assert!(!pair.is_going, "into a namespace that is being deleted");
        assert!(may, "while remediation is stopped");
        assert_eq!(pair.attempt.replace(transaction_id), None, "one attempt at a time");
    }

    fn reports(&mut self, nth: usize, report: Report) {
        let is_approved = self.is_approved(nth);
        let pair = &mut self.pairs[nth];
        let (before, after) = match &pair.said {
            Some(said) => (said.consecutive_failures, report.consecutive_failures),
            None => (0, report.consecutive_failures),
        };
        assert!(after <= before + 1, "{before} failed checks become {after}");
        if after < before {
            let quiet = pair.last_bad.map(|bad| self.now.as_second() - bad.as_second());
            assert_eq!(after, 0);
            assert!(is_approved && quiet.is_none_or(|quiet| quiet >= INTERVAL), "begun anew after {quiet:?}");
        }
        if pair.said.as_ref().is_none_or(|said| said.drifted != report.drifted) {
            pair.since = self.now;
        }
        let before = pair.said.take();
        let last_drift = report.last_drift.clone().or_else(|| before.and_then(|said| said.last_drift));
        pair.said = Some(Report { last_drift, ..report });
    }

    fn finish(&mut self, nth: usize, how: u8) {
        let pair = &self.pairs[nth];
        let Some(id) = pair.attempt.clone() else { return };
        let is_paused = pair.guard.paused(self.now).is_some();
        let may = self.book.may_restore(&pair.guard, &id, self.now);
        assert!(may || is_paused, "an attempt that may not write was not given up");
        let outcome = match how {
            _ if !may => Outcome::GivenUp,
            0 => Outcome::NothingToDo,
            1 => Outcome::NoVerifiedSource { message: "unavailable".into() },
            2 => Outcome::Failed { source: None, message: "conflict".into() },
            _ => Outcome::Restored { source: "git".into() },
        };
        self.pairs[nth].attempt = None;
        let is_restored = matches!(outcome, Outcome::Restored { .. });
        if is_restored {
            let expected = self.pairs[nth].guard.expected;
            let content = CONTENTS.iter().position(|content| hash(content) == expected).unwrap();
            self.pairs[nth].content = Some(content);
            self.pairs[nth].revision += 1;
        }
        // The watch may be faster than the end of the attempt, or slower.
        if is_restored && how == 3 {
            self.look(nth, Look::Watch);
        }
        let terms = Terms { auto_remediate: true, max_failures_before_alert: 3 };
        let guard = self.pairs[nth].guard.clone();
        let steps = self.book.restored(&guard, terms, &outcome, self.now);
        self.follow(nth, steps);
        if is_restored && how == 4 {
            self.look(nth, Look::Watch);
        }
    }

    fn change(&mut self, nth: usize, change: impl FnOnce(&mut Guard)) {
        let before = self.pairs[nth].guard.clone();
        change(&mut self.pairs[nth].guard);
        let after = self.pairs[nth].guard.clone();
        let steps = self.book.guard_changed(&before, Some(&after), self.now);
        self.follow(nth, steps);
    }

    fn of(&self, uid: &str) -> usize {
        self.pairs.iter().position(|pair| pair.guard.uid == *uid).unwrap()
    }

    fn acknowledge_all(&mut self) {
        let open: Vec<String> = self.book.incidents().map(str::to_owned).collect();
        let namespaces: BTreeSet<Text> =
            self.pairs.iter().map(|pair| pair.guard.id.namespace.clone()).collect();
        for (id, namespace) in open.iter().flat_map(|id| namespaces.iter().map(move |by| (id, by))) {
            for (uid, step) in self.book.acknowledge(id, namespace, self.now) {
                self.follow(self.of(&uid), vec![step]);
            }
        }
    }

    fn tick(&mut self) {
        for (uid, step) in self.book.tick(self.now) {
            self.follow(self.of(&uid), vec![step]);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Write(nth, content) => {
                self.pairs[nth].content = Some(content);
                self.pairs[nth].revision += 1;
                self.look(nth, Look::Watch);
            }
            Event::WriteMany(count, content) => {
                for nth in 0..=count {
                    self.happens(Event::Write(nth, content));
                }
            }
            Event::Delete(nth) => {
                self.pairs[nth].content = None;
                self.look(nth, Look::Watch);
            }
            Event::Blind(nth, blind) => {
                self.pairs[nth].is_blind = blind;
                self.look(nth, Look::Watch);
            }
            Event::Look(nth, look) => self.look(nth, look),
            Event::Wait(seconds) => self.now = after(self.now, Duration::from_secs(seconds.into())),
            Event::Tick => self.tick(),
            Event::Finish(nth, how) => self.finish(nth, how),
            Event::Pause(nth, seconds) => {
                let until = after(self.now, Duration::from_secs(seconds.into()));
                let pause = Pause { by: PausedBy::Suspend, reason: "why".into(), until };
                self.change(nth, |guard| guard.pauses = vec![pause].into());
            }
            Event::Unpause(nth) => self.change(nth, |guard| guard.pauses.clear()),
            Event::Approve(nth, content) => self.change(nth, |guard| {
                guard.generation += 1;
                guard.expected = hash(CONTENTS[content]);
            }),
            Event::Enforce(on) => self.enforcing_since = on.then_some(self.now),
            Event::Conflict(nth, is) => self.pairs[nth].conflict = is,
            Event::Going(nth, is) => self.pairs[nth].is_going = is,
            Event::AskRestore(nth) => {
                let asked = self.now.to_string();
                let steps = self.book.restore_asked(&self.pairs[nth].guard, asked, self.now);
                self.follow(nth, steps);
            }
            Event::Acknowledge => self.acknowledge_all(),
            Event::TakeOver => self.take_over(|_| {}),
            Event::TakeOverAfter(count, content, blind) => self.take_over(|pairs| {
                for pair in &mut pairs[..=count] {
                    pair.content = Some(content);
                    pair.revision += 1;
                }
                pairs[blind].is_blind = true;
            }),
        }
    }

    /// Another process leads, after what `meanwhile` does.
    fn take_over(&mut self, meanwhile: impl FnOnce(&mut [Pair])) {
        // A crash between the end of an incident and the looks that follow it would resolve it twice.
        self.tick();
        self.book = Book::new(Settings { remediation: true, limits: Limits::default() });
        self.census();
        meanwhile(&mut self.pairs);
        for pair in &mut self.pairs {
            let said = pair.said.as_ref().filter(|said| said.drifted != Truth::False);
            if let Some(incident) = said.and_then(|said| said.incident.as_ref()) {
                self.book.incident_said(&pair.guard, incident, self.now);
            }
            pair.attempt = None;
            // Looks that said nothing new are known to nobody any more.
            pair.last_bad = pair.said.as_ref().and_then(|said| {
                let last = said.last_drift.as_ref().map(|last| last.time);
                last.max((said.drifted != Truth::False).then_some(said.checked_at))
            });
        }
        for nth in 0..GUARDS {
            self.look(nth, Look::Initial);
        }
    }

    /// Everybody does right from now on.
    fn comes_to_rest(&mut self) {
        for nth in 0..GUARDS {
            self.pairs[nth].conflict = false;
            self.pairs[nth].is_going = false;
            self.pairs[nth].is_blind = false;
            self.change(nth, |guard| guard.pauses.clear());
            let expected = self.pairs[nth].guard.expected;
            let content = CONTENTS.iter().position(|content| hash(content) == expected).unwrap();
            self.happens(Event::Write(nth, content));
            self.finish(nth, 0);
        }
        for _ in 0..2_000 {
            let Some(due) = self.book.next_due() else { break };
            self.now = self.now.max(due);
            self.tick();
            for nth in 0..GUARDS {
                self.finish(nth, 0);
            }
        }
        assert_eq!(self.book.next_due(), None, "something is due for ever");
        assert_eq!(self.book.open(), 0, "something is kept for ever");
        assert_eq!(self.book.incidents().count(), 0);
        assert_eq!(self.alerted, self.resolved, "somebody was told and never that it is over");
        for pair in &self.pairs {
            let said = pair.said.as_ref().unwrap();
            assert_eq!((said.drifted, said.consecutive_failures), (Truth::False, 0));
            assert!(said.fighting.is_none() && said.incident.is_none() && !said.alerted);
            assert_eq!(said.unwatched, None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nobody_is_told_twice_and_nothing_is_put_back_where_it_must_not_be(
        events in prop::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new();
        for nth in 0..GUARDS {
            world.look(nth, Look::Initial);
        }
        for event in events {
            world.happens(event);
        }
        world.comes_to_rest();
    }
}
