#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
//! The rules, one by one. Time passes only where a test says so.

use std::sync::Arc;
use std::time::Duration;

use super::super::alert::AlertReason::{self, *};
use super::super::attribution::Attribution;
use super::super::sight::{Present, ReadBefore};
use super::*;
use crate::core::guard::{
    AlsoApproved, Author, Authorship, DeletionPolicy, Enforcement, FailurePolicy, GuardId, Signer, Target,
    Versions,
};
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::core::pause::{Pause, PausedBy};
use crate::core::scope::Scope;

#[path = "book_tests/leaders.rs"]
mod leaders;
#[path = "book_tests/many.rs"]
mod many;
#[path = "book_tests/pauses.rs"]
mod pauses;
#[path = "book_tests/representation.rs"]
mod representation;
#[path = "book_tests/told.rs"]
mod told;
#[path = "book_tests/watched.rs"]
mod watched;

/// The audit interval and the grace of all tests.
pub(super) const INTERVAL: i64 = 600;
const GRACE: i64 = 600;
/// When the tests begin; long after enforcement began.
const START: i64 = 1_000_000;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn hash(content: &str) -> ContentHash {
    ContentHash::of(content.as_bytes())
}

pub(super) fn guard(namespace: &str, name: &str) -> Guard {
    Guard {
        id: GuardId { namespace: namespace.into(), name: name.into() },
        uid: format!("uid-{namespace}-{name}").into(),
        generation: 1,
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("prod".into()),
            name: name.into(),
        },
        // Of a kind with defaults: only those may read otherwise by another version of the server.
        scope: Scope::new("apps", "Deployment", PathFilter::everything()),
        expected: hash("good"),
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Default::default(),
        authorship: Authorship::Signed(Arc::new(Author {
            signer: Arc::new(Signer { user: "alice".into(), groups: Vec::new() }),
            at: at(0),
        })),
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    }
}

/// One guard, its target, and whoever looks at it.
struct Room {
    book: Book,
    guard: Guard,
    terms: Terms,
    enforcing_since: Option<Timestamp>,
    built_in: bool,
    server: &'static str,
    pause_ended: Option<Timestamp>,
    conflict: bool,
    namespace_terminating: bool,
    being_replaced: bool,
    missed: bool,
    remembered: Option<Remembered>,
    read_before: Option<ReadBefore>,
    by: Option<&'static str>,
    revision: u64,
    now: Timestamp,
    ids: u32,
}

impl Room {
    fn new() -> Self {
        let settings = Settings { remediation: true, limits: Limits::default() };
        Self {
            book: Book::new(settings),
            guard: guard("ns", "g"),
            terms: Terms { auto_remediate: true, max_failures_before_alert: 3 },
            // Off, so that what a rule does by itself is seen; a test that means it turns it on.
            enforcing_since: None,
            built_in: true,
            server: "v1.37.2",
            pause_ended: None,
            conflict: false,
            namespace_terminating: false,
            being_replaced: false,
            missed: false,
            remembered: None,
            read_before: None,
            by: None,
            revision: 1,
            now: at(START),
            ids: 0,
        }
    }

    /// One whose target has been seen as approved.
    fn in_sync() -> Self {
        let mut room = Self::new();
        room.write("good");
        room
    }

    fn look(&mut self, sight: &Sight, look: Look) -> Vec<Step> {
        let attribution = self.by.map(|manager| Attribution::FieldManager {
            manager: manager.to_owned(),
            operation: "Update".to_owned(),
            subresource: String::new(),
            at: self.now,
            sure: true,
        });
        let details =
            Details { paths: vec!["/data/a".to_owned()], attribution: attribution.unwrap_or_default() };
        let wanted = self.book.wants_details(&self.guard, sight, self.now);
        let context = Context {
            enforcing_since: self.enforcing_since,
            built_in: self.built_in,
            server_version: self.server,
            audit_interval: Duration::from_secs(INTERVAL.unsigned_abs()),
            apply_grace: Duration::from_secs(GRACE.unsigned_abs()),
            pause_ended: self.pause_ended,
            conflict: self.conflict,
            namespace_terminating: self.namespace_terminating,
            being_replaced: self.being_replaced,
            missed: self.missed,
            remembered: self.remembered.clone(),
            read_before: self.read_before.clone(),
        };
        let details = wanted.then_some(&details);
        let seen = Seen { sight, look, details, terms: self.terms, context: &context };
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            format!("tx-{ids}")
        };
        self.book.see(&self.guard, &seen, self.now, &mut new_id)
    }

    fn present(&self, content: &str) -> Sight {
        Sight::Present(Present {
            uid: "object".to_owned(),
            resource_version: self.revision.to_string(),
            hash: hash(content),
            terminating: false,
        })
    }

    /// Somebody writes the target, and a watch tells of it.
    fn write(&mut self, content: &str) -> Vec<Step> {
        self.revision += 1;
        self.shows(content, Look::Watch)
    }

    /// The target as it is, read in this way.
    fn shows(&mut self, content: &str, look: Look) -> Vec<Step> {
        let sight = self.present(content);
        self.look(&sight, look)
    }

    fn delete(&mut self) -> Vec<Step> {
        self.look(&Sight::Absent, Look::Watch)
    }

    fn wait(&mut self, seconds: i64) {
        self.now = after(self.now, Duration::from_secs(seconds.unsigned_abs()));
    }

    /// Lets time pass until something is due, and says how many seconds that took.
    fn wait_until_due(&mut self) -> i64 {
        let due = self.book.next_due().unwrap();
        let seconds = due.as_second() - self.now.as_second();
        self.now = self.now.max(due);
        let asked = self.book.tick(self.now);
        assert!(asked.iter().any(|(uid, step)| *uid == self.guard.uid && *step == Step::Look), "{asked:?}");
        seconds
    }

    fn restored(&mut self, outcome: &Outcome) -> Vec<Step> {
        self.book.restored(&self.guard, self.terms, outcome, self.now)
    }

    /// Restores as the auditor would: it writes, a watch tells, and the attempt ends.
    fn restore(&mut self) -> Vec<Step> {
        let mut steps = self.write("good");
        steps.extend(self.restored(&from_git()));
        steps
    }

    fn edit(&mut self, change: impl FnOnce(&mut Guard)) -> Vec<Step> {
        let before = self.guard.clone();
        self.guard.generation += 1;
        change(&mut self.guard);
        self.book.guard_changed(&before, Some(&self.guard), self.now)
    }

    fn ask(&mut self, request: &str) -> Vec<Step> {
        self.book.restore_asked(&self.guard, request.to_owned(), self.now)
    }

    fn pause(&mut self, seconds: i64) -> Vec<Step> {
        let until = after(self.now, Duration::from_secs(seconds.unsigned_abs()));
        let before = self.guard.clone();
        self.guard.pauses =
            vec![Pause { by: PausedBy::Exception("incident".into()), reason: "why".into(), until }].into();
        self.book.guard_changed(&before, Some(&self.guard), self.now)
    }
}

fn from_git() -> Outcome {
    Outcome::Restored { source: "git team/repo config.yaml".to_owned() }
}

fn report(steps: &[Step]) -> &Report {
    let found = steps.iter().find_map(|step| match step {
        Step::Report(report) => Some(report),
        _ => None,
    });
    found.unwrap_or_else(|| unreachable!("nothing is reported: {steps:?}"))
}

fn reason(steps: &[Step]) -> (Truth, Reason) {
    let report = report(steps);
    (report.drifted, report.reason)
}

fn alerts(steps: &[Step]) -> Vec<AlertReason> {
    let alert = |step: &Step| if let Step::Alert(alert) = step { Some(alert.reason) } else { None };
    steps.iter().filter_map(alert).collect()
}

fn resolved(steps: &[Step]) -> usize {
    steps.iter().filter(|step| matches!(step, Step::Resolve(_))).count()
}

fn restores(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Restore { .. }))
}

fn kinds(steps: &[Step]) -> Vec<RecordKind> {
    let kind = |step: &Step| if let Step::Record(record) = step { Some(record.kind) } else { None };
    steps.iter().filter_map(kind).collect()
}

#[test]
fn approved_content_is_reported_once_and_then_nothing_is_kept_of_it() {
    let mut room = Room::new();
    let steps = room.write("good");
    assert_eq!(reason(&steps), (Truth::False, Reason::InSync));
    assert_eq!(report(&steps).hash_match, Some(true));
    assert_eq!(report(&steps).current_hash, Some(hash("good")));
    assert_eq!(room.shows("good", Look::Sweep), []);
    assert_eq!((room.book.open(), room.book.next_due()), (0, None));
    assert!(room.book.knows("uid-ns-g"));
    assert_eq!(room.book.last_clean("uid-ns-g"), Some(at(START)));
}

#[test]
fn drift_is_recorded_counted_reported_and_put_back_at_once() {
    let mut room = Room::in_sync();
    room.by = Some("kubectl-edit");
    let steps = room.write("bad");
    assert_eq!(reason(&steps), (Truth::True, Reason::ContentDiffers));
    assert!(steps.contains(&Step::CountDrift(Look::Watch)));
    assert!(steps.contains(&Step::Restore { transaction_id: "tx-1".into() }));
    assert_eq!(kinds(&steps), [RecordKind::Drift]);
    assert_eq!(alerts(&steps), []);
    let report = report(&steps);
    assert_eq!((report.hash_match, report.consecutive_failures), (Some(false), 1));
    let last = report.last_drift.as_ref().unwrap();
    assert_eq!((last.time, last.transaction_id.as_str()), (at(START), "tx-1"));
    assert!(
        report
            .message
            .contains("ConfigMap/prod/g is not as approved in /data/a, by field manager kubectl-edit"),
        "{}",
        report.message
    );
    assert!(room.book.may_restore(&room.guard, "tx-1", room.now));
    assert!(!room.book.may_restore(&room.guard, "tx-0", room.now));
}

#[test]
fn a_restore_is_recorded_with_its_source_and_closed_after_an_interval() {
    let mut room = Room::in_sync();
    room.write("bad");
    let steps = room.restore();
    assert_eq!(kinds(&steps), [RecordKind::Cleared, RecordKind::Remediation]);
    let Some(Step::Report(report)) = steps.last() else { unreachable!("{steps:?}") };
    let last = report.last_remediation.as_ref().unwrap();
    assert_eq!(last.source.as_deref(), Some("git team/repo config.yaml"));
    assert_eq!((report.drifted, report.consecutive_failures), (Truth::False, 1));
    assert_eq!(room.wait_until_due(), INTERVAL);
    let steps = room.shows("good", Look::Live);
    assert_eq!(kinds(&steps), [RecordKind::Closed]);
    assert_eq!(super::tests::report(&steps).consecutive_failures, 0);
    assert_eq!(room.book.open(), 0, "and nothing is kept");
}

#[test]
fn a_target_that_is_gone_is_alerted_at_once_although_it_is_put_back() {
    let mut room = Room::in_sync();
    let steps = room.delete();
    assert_eq!(reason(&steps), (Truth::True, Reason::Missing));
    assert_eq!(alerts(&steps), [Missing]);
    assert!(restores(&steps));
    assert_eq!(report(&steps).current_hash, None);
    assert_eq!(alerts(&room.delete()), [], "once");
}

#[test]
fn a_target_that_we_delete_in_order_to_make_it_again_is_not_missing() {
    let mut room = Room::in_sync();
    assert!(restores(&room.write("bad")));
    room.being_replaced = true;
    assert_eq!(room.delete(), [], "the watch is faster than our own attempt");
    // Or the attempt is faster than the watch, which tells of both one after the other.
    room.being_replaced = false;
    let steps = room.restored(&from_git());
    assert_eq!(kinds(&steps), [RecordKind::Remediation]);
    assert_eq!(room.delete(), [Step::Look]);
    let steps = room.write("good");
    assert_eq!(reason(&steps), (Truth::False, Reason::InSync));
    assert!(alerts(&steps).is_empty());
    // Whoever deletes it after that is told of.
    assert_eq!(alerts(&room.delete()), [Missing]);
}

#[test]
fn a_target_that_could_not_be_made_again_is_missing() {
    let mut room = Room::in_sync();
    room.write("bad");
    room.being_replaced = true;
    assert_eq!(room.delete(), []);
    room.being_replaced = false;
    room.restored(&Outcome::Failed { source: None, message: "forbidden".into() });
    room.wait_until_due();
    assert_eq!(alerts(&room.look(&Sight::Absent, Look::Live)), [Missing]);
}

#[test]
fn a_target_that_was_never_there_is_missing_at_once_and_alerted_after_the_grace() {
    let mut room = Room::new();
    let steps = room.delete();
    assert_eq!(reason(&steps), (Truth::True, Reason::Missing));
    assert_eq!(alerts(&steps), [], "a guard may be made a moment before its target");
    assert!(restores(&steps));
    room.restored(&Outcome::GivenUp);
    room.wait(GRACE);
    assert_eq!(alerts(&room.delete()), [Missing]);
}

#[test]
fn a_target_that_cannot_be_read_is_no_drift() {
    let mut room = Room::in_sync();
    let unreadable = Sight::Unreadable("the API server cannot decode it".into());
    let steps = room.look(&unreadable, Look::Live);
    assert_eq!(reason(&steps), (Truth::Unknown, Reason::Unreadable));
    assert_eq!(report(&steps).hash_match, None);
    assert!(kinds(&steps).is_empty() && !restores(&steps));
    room.wait(INTERVAL);
    room.look(&unreadable, Look::Sweep);
    room.wait(INTERVAL);
    let steps = room.look(&unreadable, Look::Sweep);
    assert_eq!(alerts(&steps), [Unreadable], "a guard that is blind is a hole");
    room.wait(INTERVAL);
    let steps = room.shows("good", Look::Sweep);
    assert_eq!((reason(&steps), resolved(&steps)), ((Truth::False, Reason::InSync), 1));
}

#[test]
fn what_passed_an_enforced_admission_by_is_alerted_at_once() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    let steps = room.write("bad");
    assert_eq!(reason(&steps), (Truth::True, Reason::BypassedAdmission));
    assert_eq!(alerts(&steps), [BypassedAdmission]);
    assert!(restores(&steps));
    let steps = room.restore();
    assert_eq!(resolved(&steps), 0, "the episode lasts for an interval yet");
    room.wait_until_due();
    assert_eq!(resolved(&room.shows("good", Look::Live)), 1);
}

#[test]
fn what_may_have_been_written_before_admission_was_enforced_has_bypassed_nothing() {
    let mut room = Room::in_sync();
    room.wait(10);
    room.enforcing_since = Some(room.now);
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers);
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START));
    room.guard.enforcement = Enforcement::Warn;
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers, "writes pass by the guard's own choice");
    let mut room = Room::new();
    room.enforcing_since = Some(at(START - 60));
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers, "nobody knows since when it is so");
}

#[test]
fn what_a_sweep_finds_has_bypassed_admission_only_when_it_must_have() {
    let mut room = Room::in_sync();
    room.wait(10);
    room.enforcing_since = Some(room.now);
    room.wait(INTERVAL - 1);
    room.revision += 1;
    assert_eq!(reason(&room.shows("bad", Look::Sweep)).1, Reason::ContentDiffers);
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 1));
    room.revision += 1;
    assert_eq!(reason(&room.shows("bad", Look::Sweep)).1, Reason::BypassedAdmission);
}

#[test]
fn a_first_look_of_a_new_list_does_not_tell_when_something_was_written() {
    let mut room = Room::in_sync();
    room.wait(10);
    room.enforcing_since = Some(room.now);
    room.wait(10_000);
    room.revision += 1;
    assert_eq!(reason(&room.shows("bad", Look::Initial)).1, Reason::ContentDiffers);
}

#[test]
fn what_was_approved_before_awaits_its_apply_for_the_grace_and_then_is_drift() {
    let mut room = Room::in_sync();
    assert_eq!(room.edit(|guard| guard.expected = hash("next")), [Step::Look]);
    let steps = room.shows("good", Look::Live);
    assert_eq!(reason(&steps), (Truth::False, Reason::AwaitingApply));
    assert!(!restores(&steps) && alerts(&steps).is_empty() && kinds(&steps).is_empty());
    assert_eq!(report(&steps).hash_match, Some(false));
    assert_eq!(room.wait_until_due(), GRACE);
    let steps = room.shows("good", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::NotApplied));
    assert!(restores(&steps));
}

#[test]
fn what_is_applied_within_the_grace_is_in_sync() {
    let mut room = Room::in_sync();
    room.edit(|guard| guard.expected = hash("next"));
    room.shows("good", Look::Live);
    room.wait(5);
    assert_eq!(reason(&room.write("next")), (Truth::False, Reason::InSync));
    assert_eq!(room.book.open(), 0);
    assert_eq!(
        reason(&room.write("good")),
        (Truth::True, Reason::ContentDiffers),
        "the grace is over with it"
    );
}

#[test]
fn two_approvals_in_a_row_both_await() {
    let mut room = Room::in_sync();
    room.edit(|guard| guard.expected = hash("next"));
    room.shows("good", Look::Live);
    room.wait(60);
    room.edit(|guard| guard.expected = hash("last"));
    assert_eq!(reason(&room.shows("good", Look::Live)).1, Reason::AwaitingApply);
    assert_eq!(reason(&room.write("next")).1, Reason::AwaitingApply);
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers);
}

#[test]
fn a_target_of_which_no_watch_tells_is_read_each_interval_until_one_does() {
    let mut room = Room::in_sync();
    room.look(&Sight::Unreadable("it may not be watched".to_owned()), Look::Watch);
    for _ in 0..4 {
        assert!(room.wait_until_due() <= INTERVAL);
        assert_eq!(room.book.open(), 1);
        room.shows("good", Look::Live);
    }
    room.write("good");
    assert_eq!((room.book.open(), room.book.next_due()), (0, None), "a watch tells of it again");
}

#[test]
fn nothing_is_put_back_where_it_must_not_be_and_the_condition_says_why() {
    type Change = fn(&mut Room);
    let cases: [(Change, &str); 7] = [
        (|room| room.terms.auto_remediate = false, "autoRemediate is false"),
        (|room| room.conflict = true, "another guard"),
        (|room| room.guard.authorship = Authorship::Unknown, "driftguard adopt -n ns g"),
        (|room| room.guard.target.group = "rbac.authorization.k8s.io".into(), "escalate and bind"),
        (|room| room.namespace_terminating = true, "namespace is being deleted"),
        (
            |room| {
                room.book = Book::new(Settings { remediation: false, limits: Limits::default() });
                room.write("good");
            },
            "--remediation=off",
        ),
        (
            |room| {
                room.pause(60);
            },
            "nothing is put back before",
        ),
    ];
    for (change, expected) in cases {
        let mut room = Room::in_sync();
        change(&mut room);
        let steps = room.write("bad");
        assert!(!restores(&steps), "{expected}");
        let message = &report(&steps).message;
        assert!(message.contains(expected), "{message}");
    }
    let mut room = Room::in_sync();
    room.revision += 1;
    let Sight::Present(present) = room.present("bad") else { unreachable!() };
    let steps = room.look(&Sight::Present(Present { terminating: true, ..present }), Look::Watch);
    assert!(!restores(&steps) && report(&steps).message.contains("being deleted"));
}

#[test]
fn a_target_that_goes_with_its_namespace_wakes_nobody() {
    let mut room = Room::in_sync();
    room.namespace_terminating = true;
    let steps = room.delete();
    assert_eq!((reason(&steps).1, alerts(&steps)), (Reason::Missing, vec![]));
}

#[test]
fn a_guard_that_is_edited_or_deleted_gives_up_its_attempt() {
    let mut room = Room::in_sync();
    room.write("bad");
    let give_up = Step::GiveUp { transaction_id: "tx-1".into() };
    let steps = room.edit(|guard| guard.enforcement = Enforcement::Audit);
    assert_eq!(steps, [give_up.clone(), Step::Look]);
    assert!(!room.book.may_restore(&room.guard, "tx-1", room.now));
    let mut room = Room::in_sync();
    room.delete();
    let guard = room.guard.clone();
    let steps = room.book.guard_changed(&guard, None, room.now);
    assert_eq!(steps[0], give_up);
    assert_eq!(resolved(&steps), 1, "what was alerted is over");
    assert!(!room.book.knows(&guard.uid));
    assert_eq!((room.book.open(), room.book.next_due()), (0, None));
}

#[test]
fn a_guard_that_pins_another_object_now_begins_anew() {
    let mut room = Room::in_sync();
    room.write("bad");
    let steps = room.edit(|guard| guard.target.name = "other".into());
    assert_eq!(steps, [Step::GiveUp { transaction_id: "tx-1".into() }, Step::Look]);
    assert!(room.book.knows("uid-ns-g"), "what its status says is of the other object");
    assert_eq!(reason(&room.shows("good", Look::Live)).0, Truth::False);
    assert_eq!(room.book.open(), 0);
}

#[test]
fn an_approval_that_ends_is_looked_at_when_it_does() {
    let mut room = Room::new();
    let until = Some(at(START + 100));
    room.guard.also_approved = vec![AlsoApproved { hash: hash("next"), until, reason: None }].into();
    assert_eq!(reason(&room.write("next")).0, Truth::False);
    assert_eq!(room.wait_until_due(), 100);
    let steps = room.shows("next", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ApprovalEnded));
    assert!(restores(&steps));
}

#[test]
fn a_look_that_another_has_overtaken_is_not_believed() {
    let mut room = Room::in_sync();
    room.write("bad");
    room.write("good");
    room.revision -= 1;
    assert_eq!(room.shows("bad", Look::Watch), [Step::Look]);
    assert_eq!(reason(&room.shows("bad", Look::Live)).0, Truth::True, "etcd may have been put back");
}

#[test]
fn a_watch_that_lags_behind_our_own_restore_is_no_rival() {
    let mut room = Room::in_sync();
    room.write("bad");
    room.restored(&from_git());
    assert_eq!(room.shows("bad", Look::Watch), [Step::Look]);
    let steps = room.write("good");
    assert_eq!((reason(&steps).0, report(&steps).fighting.clone()), (Truth::False, None));
}

#[test]
fn hashes_of_secrets_stand_nowhere() {
    let mut room = Room::new();
    room.guard.scope = Scope::new("", "Secret", PathFilter::everything());
    room.guard.target.kind = "Secret".into();
    let mut all = room.write("good");
    all.extend(room.write("bad"));
    all.extend(room.restore());
    all.extend(room.delete());
    let text = format!("{all:?}");
    for content in ["good", "bad"] {
        assert!(!text.contains(&hash(content).to_string()));
    }
    for step in &all {
        match step {
            Step::Report(report) => assert_eq!(report.current_hash, None),
            Step::Record(record) => assert_eq!(record.hash, None),
            _ => {}
        }
    }
}
