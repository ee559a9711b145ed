#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
//! The rules, one by one. Time passes only where a test says so.

use std::sync::Arc;
use std::time::Duration;

use super::super::alert::AlertReason::{self, *};
use super::super::attribution::Attribution;
use super::super::sight::Present;
use super::*;
use crate::core::guard::{
    AlsoApproved, Author, Authorship, DeletionPolicy, Enforcement, FailurePolicy, GuardId, Target, Versions,
};
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::core::pause::{Pause, PausedBy};
use crate::core::scope::Scope;

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
        scope: Scope::new("", "ConfigMap", PathFilter::everything()),
        expected: hash("good"),
        also_approved: Box::default(),
        equivalents: Box::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Vec::new(),
        authorship: Authorship::Signed(Arc::new(Author {
            user: "alice".into(),
            groups: Vec::new(),
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
    remembered: Option<Remembered>,
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
            remembered: None,
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
            remembered: self.remembered.clone(),
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

    fn pause(&mut self, seconds: i64) -> Vec<Step> {
        let until = after(self.now, Duration::from_secs(seconds.unsigned_abs()));
        let before = self.guard.clone();
        self.guard.pauses =
            vec![Pause { by: PausedBy::Exception("incident".into()), reason: "why".into(), until }];
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
fn another_version_of_the_api_server_changes_a_representation_and_no_content() {
    let mut room = Room::in_sync();
    room.server = "v1.38.0";
    let steps = room.shows("good, read otherwise", Look::Initial);
    assert_eq!(reason(&steps), (Truth::False, Reason::RepresentationChanged));
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(kinds(&steps), [RecordKind::RepresentationChanged]);
    let said = steps.iter().find_map(|step| match step {
        Step::Equivalent { hash, announcement } => Some((*hash, announcement.clone())),
        _ => None,
    });
    let (equivalent, announcement) = said.unwrap();
    assert_eq!(equivalent, hash("good, read otherwise"));
    let announcement = announcement.unwrap();
    assert!(announcement.contains("v1.38.0") && announcement.contains("v1.37.2"), "{announcement}");
    room.server = "v1.37.2";
    assert_eq!(reason(&room.shows("good", Look::Watch)), (Truth::False, Reason::InSync), "they take turns");
    room.server = "v1.38.0";
    let steps = room.shows("good, read otherwise", Look::Watch);
    assert_eq!(reason(&steps).1, Reason::RepresentationChanged);
    assert!(!steps.iter().any(|step| matches!(step, Step::Equivalent { .. })), "it is known");
}

#[test]
fn a_change_of_representation_is_announced_once_for_the_cluster() {
    let mut room = Room::new();
    let mut announced = 0;
    for name in ["a", "b", "c"] {
        room.guard = guard("ns", name);
        room.server = "v1.37.2";
        room.shows("good", Look::Initial);
        room.server = "v1.38.0";
        let steps = room.shows("otherwise", Look::Initial);
        announced += steps
            .iter()
            .filter(|step| matches!(step, Step::Equivalent { announcement: Some(_), .. }))
            .count();
    }
    assert_eq!(announced, 1);
}

#[test]
fn an_object_that_was_written_has_changed_whatever_server_shows_it() {
    let mut room = Room::in_sync();
    room.server = "v1.38.0";
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers);
    let mut room = Room::in_sync();
    let steps = room.shows("read otherwise by the same server", Look::Watch);
    assert_eq!(reason(&steps).1, Reason::ContentDiffers);
}

#[test]
fn an_edited_definition_is_alerted_and_nothing_is_written_or_approved_for_it() {
    let mut room = Room::in_sync();
    room.built_in = false;
    room.server = "v1.38.0";
    let steps = room.shows("read otherwise", Look::Watch);
    assert_eq!(reason(&steps), (Truth::True, Reason::DefinitionChanged));
    assert_eq!(alerts(&steps), [DefinitionChanged]);
    assert!(!restores(&steps));
    assert!(!steps.iter().any(|step| matches!(step, Step::Equivalent { .. })));
    room.wait(INTERVAL);
    let steps = room.shows("read otherwise", Look::Sweep);
    assert_eq!(reason(&steps), (Truth::True, Reason::DefinitionChanged));
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(reason(&room.shows("good", Look::Watch)).0, Truth::False, "the edit is undone");
}

#[test]
fn what_changes_under_an_exception_is_recorded_and_left_alone() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    room.pause(3_600);
    let steps = room.write("bad");
    assert_eq!(reason(&steps), (Truth::True, Reason::Excepted));
    assert_eq!(kinds(&steps), [RecordKind::Drift]);
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(report(&steps).consecutive_failures, 0, "nobody failed to do anything");
}

#[test]
fn at_the_end_of_an_exception_what_changed_is_not_restored_until_a_person_says_so() {
    let mut room = Room::in_sync();
    room.pause(3_600);
    room.write("bad");
    assert_eq!(room.wait_until_due(), 3_600);
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ExceptionEnded));
    assert!(!restores(&steps));
    for _ in 0..3 {
        room.wait(INTERVAL);
        assert!(!restores(&room.shows("bad", Look::Sweep)));
    }
    let guard_uid = room.guard.uid.clone();
    assert_eq!(room.book.restore_asked(&guard_uid, room.now), [Step::Look]);
    assert!(restores(&room.shows("bad", Look::Live)));
}

#[test]
fn an_exception_that_is_deleted_ends_as_one_that_runs_out() {
    let mut room = Room::in_sync();
    room.pause(3_600);
    room.write("bad");
    let before = room.guard.clone();
    room.guard.pauses.clear();
    assert_eq!(room.book.guard_changed(&before, Some(&room.guard), room.now), [Step::Look]);
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
}

#[test]
fn a_person_who_approves_what_changed_under_an_exception_ends_the_matter() {
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("hotfix");
    room.wait(60);
    room.shows("hotfix", Look::Live);
    assert_eq!(room.edit(|guard| guard.expected = hash("hotfix")), [Step::Look]);
    assert_eq!(reason(&room.shows("hotfix", Look::Live)).0, Truth::False);
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("hotfix");
    room.wait(60);
    room.shows("hotfix", Look::Live);
    room.edit(|guard| guard.expected = hash("something else"));
    assert!(restores(&room.shows("hotfix", Look::Live)), "approving other content decides, too");
}

#[test]
fn prolonging_a_suspension_decides_nothing_about_what_changed_under_it() {
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("bad");
    room.wait(60);
    room.edit(|guard| guard.pauses.clear());
    assert_eq!(reason(&room.shows("bad", Look::Live)).1, Reason::ExceptionEnded);
}

#[test]
fn drift_from_before_a_pause_is_put_back_after_it() {
    let mut room = Room::in_sync();
    room.write("bad");
    assert_eq!(room.pause(60), [Step::GiveUp { transaction_id: "tx-1".into() }, Step::Look]);
    assert!(!room.book.may_restore(&room.guard, "tx-1", room.now));
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ContentDiffers));
    assert!(!restores(&steps));
    room.wait_until_due();
    assert!(restores(&room.shows("bad", Look::Live)));
}

#[test]
fn what_a_list_shows_just_after_a_pause_may_have_changed_under_it() {
    let mut room = Room::in_sync();
    room.pause_ended = Some(after(room.now, Duration::from_secs(10)));
    room.wait(INTERVAL);
    room.revision += 1;
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
    let mut room = Room::in_sync();
    room.pause_ended = Some(after(room.now, Duration::from_secs(10)));
    room.wait(20);
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers, "a watch would have told in time");
}

#[test]
fn failed_checks_are_counted_alerted_once_and_resolved_once() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    let mut told = Vec::new();
    room.write("bad");
    for expected in 2..=6 {
        room.wait(INTERVAL);
        let steps = room.shows("bad", Look::Sweep);
        assert_eq!(report(&steps).consecutive_failures, expected);
        told.extend(alerts(&steps).into_iter().map(|reason| (expected, reason)));
    }
    assert_eq!(told, [(3, Drifted)]);
    let steps = room.write("good");
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (0, 6));
    room.wait(INTERVAL - 1);
    let steps = room.shows("good", Look::Sweep);
    assert_eq!(resolved(&steps), 0, "not before a whole interval");
    room.wait(1);
    let steps = room.shows("good", Look::Sweep);
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (1, 0));
}

#[test]
fn ten_thousand_changes_are_one_alert_and_few_records() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    let (mut told, mut records, mut over) = (0, 0, 0);
    for nth in 0..10_000 {
        let steps = room.write(if nth % 2 == 0 { "bad" } else { "good" });
        told += alerts(&steps).len();
        records += kinds(&steps).len();
        over += resolved(&steps);
        if restores(&steps) {
            room.restored(&Outcome::NothingToDo);
        }
        if nth % 10 == 0 {
            room.wait(1);
        }
    }
    assert_eq!((told, over), (1, 0));
    assert!(records <= 20 + 2 * 1_000 / 60, "{records}");
}

#[test]
fn attempts_that_are_undone_are_made_ever_more_rarely_and_become_a_fight() {
    let mut room = Room::in_sync();
    room.by = Some("argocd-controller");
    assert!(restores(&room.write("bad")));
    let mut pauses = Vec::new();
    let mut told = Vec::new();
    for _ in 0..10 {
        room.restore();
        let steps = room.write("bad");
        assert!(!restores(&steps), "not at once again");
        told.extend(alerts(&steps));
        pauses.push(room.wait_until_due());
        assert!(restores(&room.shows("bad", Look::Live)));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(told.len(), 1, "{told:?}");
    let steps = room.restore();
    let Some(Step::Report(report)) = steps.last() else { unreachable!("{steps:?}") };
    assert!(report.fighting.as_ref().unwrap().contains("argocd-controller"), "{report:?}");
    room.wait_until_due();
    let steps = room.shows("good", Look::Live);
    assert_eq!((super::tests::report(&steps).fighting.clone(), resolved(&steps)), (None, 1), "it is over");
}

#[test]
fn a_slow_rival_is_a_fight_as_well_and_does_not_flood_anybody() {
    let mut room = Room::in_sync();
    room.terms.max_failures_before_alert = 1;
    let mut told = 0;
    for _ in 0..100 {
        told += alerts(&room.write("bad")).len();
        if let Some(due) = room.book.next_due() {
            room.now = room.now.max(due);
            room.book.tick(room.now);
            room.shows("bad", Look::Live);
        }
        room.restore();
        room.wait(180);
    }
    assert_eq!(told, 1);
}

#[test]
fn when_no_source_has_the_approved_content_somebody_is_told_and_it_is_tried_again() {
    let mut room = Room::in_sync();
    room.write("bad");
    let nowhere = Outcome::NoVerifiedSource { message: "git team/repo: unavailable".into() };
    let steps = room.restored(&nowhere);
    assert_eq!(alerts(&steps), [NoVerifiedSource]);
    assert_eq!(kinds(&steps), [RecordKind::Remediation]);
    assert!(report(&steps).message.contains("git team/repo: unavailable"), "{:?}", report(&steps).message);
    assert_eq!(report(&steps).last_remediation.as_ref().unwrap().result, RemediationResult::NoVerifiedSource);
    assert_eq!(room.wait_until_due(), 1);
    assert!(restores(&room.shows("bad", Look::Live)));
    assert_eq!(alerts(&room.restored(&nowhere)), [], "once");
    assert_eq!(room.wait_until_due(), 2);
}

#[test]
fn writes_that_fail_count_as_failed_checks() {
    let mut room = Room::in_sync();
    room.write("bad");
    let failed = Outcome::Failed { source: None, message: "403".into() };
    assert_eq!(alerts(&room.restored(&failed)), []);
    room.wait_until_due();
    room.shows("bad", Look::Live);
    assert_eq!(alerts(&room.restored(&failed)), [Drifted]);
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

/// What a status says after these steps.
fn remembers(steps: &[Step], generation: i64) -> Remembered {
    let report = steps.iter().rev().find_map(|step| match step {
        Step::Report(report) => Some(report),
        _ => None,
    });
    let report = report.unwrap();
    Remembered {
        generation,
        drifted: Some((report.drifted, report.reason, report.checked_at)),
        hash_match: report.hash_match,
        current_hash: report.current_hash,
        consecutive_failures: report.consecutive_failures,
        last_checked: Some(report.checked_at),
        last_drift: report.last_drift.as_ref().map(|last| (last.time, Some(last.transaction_id.clone()))),
        alerted: report.alerted,
        fighting: report.fighting.is_some(),
        incident: report.incident.clone(),
    }
}

/// Another process leads from now on.
fn take_over(room: &mut Room, steps: &[Step]) {
    room.remembered = Some(remembers(steps, room.guard.generation));
    room.book = Book::new(room.book.settings);
}

#[test]
fn a_new_leader_says_nothing_about_guards_that_are_calm() {
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    assert_eq!(room.shows("good", Look::Initial), []);
    assert_eq!(room.book.open(), 0);
}

#[test]
fn a_new_leader_goes_on_with_an_open_episode_and_tells_nothing_twice() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    let steps = room.write("bad");
    take_over(&mut room, &steps);
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::BypassedAdmission);
    assert_eq!((alerts(&steps), kinds(&steps)), (vec![], vec![]));
    assert!(steps.contains(&Step::Restore { transaction_id: "tx-1".into() }), "under the same id");
    let steps = room.restore();
    take_over(&mut room, &steps);
    room.wait(INTERVAL);
    let steps = room.shows("good", Look::Initial);
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (1, 0));
}

#[test]
fn a_new_leader_finds_what_drifted_while_nobody_led() {
    let mut room = Room::in_sync();
    room.wait(100);
    let steps = room.write("good enough");
    assert_eq!(reason(&steps).0, Truth::True);
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    room.enforcing_since = Some(at(START - 60));
    room.wait(100);
    room.revision += 1;
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(
        reason(&steps).1,
        Reason::BypassedAdmission,
        "it was approved, and enforced, when last checked"
    );
    assert!(restores(&steps));
}

#[test]
fn a_new_leader_leaves_alone_what_changed_under_an_exception() {
    let mut room = Room::in_sync();
    room.pause(60);
    let steps = room.write("bad");
    take_over(&mut room, &steps);
    room.wait(60);
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
    take_over(&mut room, &steps);
    room.guard.pauses.clear();
    assert!(!restores(&room.shows("bad", Look::Initial)));
}

#[test]
fn a_new_leader_goes_on_waiting_for_an_apply() {
    let mut room = Room::in_sync();
    room.edit(|guard| guard.expected = hash("next"));
    let steps = room.shows("good", Look::Live);
    take_over(&mut room, &steps);
    room.wait(60);
    assert_eq!(reason(&room.shows("good", Look::Initial)).1, Reason::AwaitingApply);
    assert_eq!(room.wait_until_due(), GRACE - 60, "from when it began");
}

#[test]
fn an_approval_that_came_while_nobody_led_awaits_its_apply() {
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    room.guard.generation += 1;
    room.guard.expected = hash("next");
    assert_eq!(reason(&room.shows("good", Look::Initial)).1, Reason::AwaitingApply);
}

/// Many guards of one namespace, each in a room of its own that shares the book.
fn many(namespace: &str, count: usize) -> Vec<Guard> {
    (0..count).map(|nth| guard(namespace, &format!("g{nth}"))).collect()
}

impl Room {
    fn of(&mut self, guard: &Guard) -> &mut Self {
        self.guard = guard.clone();
        self
    }

    fn with(guards: &[Guard]) -> Self {
        let mut room = Self::new();
        let mut counts: BTreeMap<Text, usize> = BTreeMap::new();
        for guard in guards {
            *counts.entry(guard.id.namespace.clone()).or_default() += 1;
        }
        room.book.census(counts);
        for guard in guards {
            room.of(guard).shows("good", Look::Watch);
        }
        room
    }
}

#[test]
fn many_guards_that_drift_at_once_stop_remediation_with_one_alert() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    room.enforcing_since = Some(at(START - 60));
    let steps: Vec<Vec<Step>> = guards.iter().map(|guard| room.of(guard).write("bad")).collect();
    let restored: Vec<bool> = steps.iter().map(|steps| restores(steps)).collect();
    assert_eq!(restored, [true, true, true, true, true, false, false, false]);
    let told: Vec<AlertReason> = steps.iter().flat_map(|steps| alerts(steps)).collect();
    assert_eq!(told[..5], [BypassedAdmission; 5]);
    assert_eq!(told[5..], [RemediationStopped], "it speaks for the others");
    let id = room.book.incidents().next().unwrap().to_owned();
    let held = report(&steps[7]);
    assert_eq!(held.incident.as_ref(), Some(&id));
    let command = format!(
        "kubectl annotate driftguards.terrafusion.ai -n ns g7 driftguard.terrafusion.ai/acknowledge={id} --overwrite"
    );
    assert!(held.message.contains(&command), "{}", held.message);
    assert!(!room.book.may_restore(&guards[0], "tx-1", room.now), "what is under way stops as well");
}

#[test]
fn an_acknowledgement_lets_remediation_go_on() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    for guard in &guards {
        room.of(guard).write("bad");
        room.restored(&Outcome::GivenUp);
    }
    assert_eq!(room.book.acknowledge("namespace-other", room.now), []);
    let id = room.book.incidents().next().unwrap().to_owned();
    let steps = room.book.acknowledge(&id, room.now);
    let asked: BTreeSet<&Text> =
        steps.iter().filter(|(_, step)| *step == Step::Look).map(|(uid, _)| uid).collect();
    assert_eq!(asked.len(), 8);
    let steps: Vec<Step> = steps.iter().map(|(_, step)| step.clone()).collect();
    assert_eq!((resolved(&steps), kinds(&steps)), (1, vec![RecordKind::IncidentClosed]));
    room.wait(10);
    for guard in &guards {
        assert!(restores(&room.of(guard).shows("bad", Look::Live)), "{}", guard.id);
    }
}

#[test]
fn an_incident_is_over_when_its_guards_are_as_approved() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    for guard in &guards {
        room.of(guard).write("bad");
    }
    let mut over = 0;
    for guard in &guards {
        over += resolved(&room.of(guard).write("good"));
    }
    assert_eq!((over, room.book.incidents().count()), (1, 0));
}

#[test]
fn edits_grace_exceptions_and_representations_open_no_incident() {
    let guards = many("ns", 30);
    let mut room = Room::with(&guards);
    room.server = "v1.38.0";
    for guard in &guards[..10] {
        room.of(guard).shows("otherwise", Look::Initial);
    }
    room.server = "v1.37.2";
    for guard in &guards[10..20] {
        room.of(guard).pause(60);
        room.write("bad");
    }
    for guard in &guards[20..] {
        room.of(guard).edit(|guard| guard.also_approved = Box::default());
        room.edit(|guard| guard.expected = hash("next"));
        room.shows("good", Look::Live);
    }
    room.wait(GRACE);
    for guard in &guards[20..] {
        let edited = Guard { generation: 3, expected: hash("next"), ..guard.clone() };
        assert_eq!(reason(&room.of(&edited).shows("good", Look::Live)).1, Reason::NotApplied);
    }
    assert_eq!(room.book.incidents().count(), 0);
}

#[test]
fn a_new_leader_goes_on_with_an_incident() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    let said: Vec<Vec<Step>> = guards.iter().map(|guard| room.of(guard).write("bad")).collect();
    let id = room.book.incidents().next().unwrap().to_owned();
    room.book = Book::new(room.book.settings);
    room.remembered = Some(remembers(&said[7], 1));
    let steps = room.of(&guards[7]).shows("bad", Look::Initial);
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(room.book.incidents().next(), Some(id.as_str()));
}
