#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::super::{FailOn, Outcome, Report, Summary, compare, outcome, within};
use super::*;
use crate::core::few::Few;
use crate::core::guard::{Authorship, DeletionPolicy, Enforcement, FailurePolicy, GuardId, Target, Versions};
use crate::core::paths::PathFilter;
use crate::core::report::{Change, Drift, Leading, Moment, Origin};

const APPROVED: &[u8] = br#"{"kind":"ConfigMap","data":{"a":"1"}}"#;
const OTHER: &[u8] = br#"{"kind":"ConfigMap","data":{"a":"2"}}"#;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn guard_of(kind: &str, json: &[u8]) -> Guard {
    let scope = Scope::new("", kind, PathFilter::everything());
    Guard {
        id: GuardId { namespace: "team".into(), name: "g".into() },
        uid: "u".into(),
        generation: 3,
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: "things".into(),
            namespace: Some("team".into()),
            name: "x".into(),
        },
        expected: hash_object(json, &scope).unwrap(),
        scope,
        also_approved: Few::default(),
        equivalents: Few::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Few::default(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    }
}

fn guard() -> Guard {
    guard_of("ConfigMap", APPROVED)
}

fn known() -> Known {
    Known { now: at(1_000), is_installed: false, leading: Leading::Assumed }
}

fn said(truth: Truth, reason: &str) -> Said {
    Said {
        truth,
        reason: reason.into(),
        message: format!("said: {reason}").into(),
        since: at(500),
        generation: 3,
    }
}

/// The status of a guard that is enforced.
fn enforced() -> Facts {
    Facts { is_current: true, enforcing: Some(said(Truth::True, "Proved")), ..Facts::default() }
}

fn hash(json: &[u8]) -> ContentHash {
    hash_object(json, &guard().scope).unwrap()
}

fn found(facts: &Facts, json: &[u8]) -> Entry {
    judge(&guard(), facts, Sight::Present(json), &known())
}

#[test]
fn approved_content_is_in_sync_and_other_content_has_drifted() {
    let entry = found(&enforced(), APPROVED);
    assert_eq!((entry.state, &*entry.reason), (State::InSync, "InSync"));
    assert_eq!(entry.expected_hash, entry.current_hash);
    let entry = found(&enforced(), OTHER);
    assert_eq!((entry.state, &*entry.reason), (State::Drifted, "ContentDiffers"));
    assert_eq!(entry.message, "ConfigMap/team/x is not as approved");
    assert_ne!(entry.expected_hash, entry.current_hash);
}

#[test]
fn an_object_that_is_not_there_is_missing_and_one_that_was_not_read_is_never_in_sync() {
    let entry = judge(&guard(), &enforced(), Sight::Absent("no such object"), &known());
    assert_eq!(entry.state, State::Missing);
    let sight = Sight::Unreadable { reason: "Forbidden", why: "configmaps is forbidden" };
    let entry = judge(&guard(), &enforced(), sight, &known());
    assert_eq!((entry.state, &*entry.reason), (State::Unreadable, "Forbidden"));
    assert_eq!(entry.message, "ConfigMap/team/x could not be read: configmaps is forbidden");
    let entry = found(&enforced(), br#"{"data":7}"#);
    assert_eq!((entry.state, &*entry.reason), (State::Unreadable, "Undecodable"));
}

#[test]
fn no_word_of_a_status_makes_other_content_approved() {
    let mut facts = enforced();
    facts.drifted = Some(said(Truth::False, "InSync"));
    facts.current_hash = Some(hash(APPROVED));
    assert_eq!(found(&facts, OTHER).state, State::Drifted);
    facts.current_hash = Some(hash(OTHER));
    assert_eq!(found(&facts, OTHER).state, State::Drifted);
    facts.equivalents = vec![hash(OTHER)].into();
    assert_eq!(found(&facts, OTHER).state, State::Drifted, "a ConfigMap reads the same by every server");
}

#[test]
fn another_reading_of_a_kind_with_defaults_is_told_as_the_word_of_the_status() {
    let approved = br#"{"spec":{"a":1}}"#;
    let guard = guard_of("Thing", approved);
    let other = br#"{"spec":{"a":2}}"#;
    let mut facts =
        Facts { equivalents: vec![hash_object(other, &guard.scope).unwrap()].into(), ..enforced() };
    facts.drifted = Some(said(Truth::False, "RepresentationChanged"));
    let entry = judge(&guard, &facts, Sight::Present(other), &known());
    assert_eq!((entry.state, &*entry.reason), (State::InSync, "RepresentationChanged"));
    assert!(entry.message.contains("not checked"), "{}", entry.message);
    facts.drifted = Some(Said { generation: 2, ..said(Truth::False, "RepresentationChanged") });
    let entry = judge(&guard, &facts, Sight::Present(other), &known());
    assert_eq!(entry.state, State::Drifted, "it was noted for what the guard approved before");
}

#[test]
fn what_the_auditor_said_of_the_very_content_is_repeated_and_of_other_content_is_not() {
    let mut facts = enforced();
    facts.drifted = Some(said(Truth::True, "BypassedAdmission"));
    facts.current_hash = Some(hash(OTHER));
    facts.last_drift = Some(Box::new(Drift {
        time: at(500),
        paths: vec!["/data/a".into()],
        actor: Some(("kubectl-edit".into(), KnownBy::ManagedFields)),
        transaction_id: Some("t".into()),
    }));
    let entry = found(&facts, OTHER);
    assert_eq!(entry.reason, "BypassedAdmission");
    assert_eq!(*entry.changed_paths, ["/data/a"]);
    assert_eq!(entry.since.unwrap().time, Moment::from(at(500)));
    assert_eq!(entry.transaction_id.as_deref(), Some("t"));
    let by = entry.by.unwrap();
    assert_eq!((by.name.as_deref(), by.known_by), (Some("kubectl-edit"), ActorKnownBy::ManagedFields));
    let entry = found(&facts, br#"{"data":{"a":"3"}}"#);
    assert_eq!((&*entry.reason, entry.since), ("ContentDiffers", None));
    assert!(entry.changed_paths.is_empty());
    facts.drifted = Some(Said { generation: 2, ..said(Truth::True, "BypassedAdmission") });
    assert_eq!(found(&facts, OTHER).reason, "ContentDiffers", "the guard was changed since");
}

#[test]
fn without_a_status_one_manager_of_all_that_is_pinned_is_named_but_not_for_certain() {
    let entry = |manager: &str, key: &str| {
        format!(
            r#"{{"manager":"{manager}","operation":"Update","apiVersion":"v1","time":"2026-06-01T12:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:data":{{"f:{key}":{{}}}}}}}}"#
        )
    };
    let object = |entries: &[String]| {
        format!(
            r#"{{"metadata":{{"name":"x","managedFields":[{}]}},"data":{{"a":"2","b":"3"}}}}"#,
            entries.join(",")
        )
    };
    let one = object(&[entry("vim", "a"), entry("vim", "b")]);
    let by = found(&Facts::default(), one.as_bytes()).by.unwrap();
    assert_eq!((by.name.as_deref(), by.known_by), (Some("vim"), ActorKnownBy::ManagedFields));
    assert!(by.detail.contains("not certain"), "{}", by.detail);
    let two = object(&[entry("vim", "a"), entry("helm", "b")]);
    let by = found(&Facts::default(), two.as_bytes()).by.unwrap();
    assert_eq!((by.name, by.known_by), (None, ActorKnownBy::Unknown));
    assert!(by.detail.contains("helm and vim"), "{}", by.detail);
}

#[test]
fn the_worst_state_is_shown_and_the_others_stand_beside_it() {
    let mut facts = enforced();
    facts.suspended = Some(Box::new(said(Truth::True, "Excepted")));
    facts.source_available = Some(Box::new(said(Truth::False, "NoVerifiedSource")));
    facts.conflict = Some(Box::new(said(Truth::True, "ConflictingGuards")));
    let entry = found(&facts, OTHER);
    assert_eq!(entry.state, State::Drifted);
    assert_eq!(*entry.also, [State::Conflict, State::SourceDown, State::Suspended]);
    let entry = found(&facts, APPROVED);
    assert_eq!(entry.state, State::Conflict);
    assert!(!entry.holds(State::InSync), "in sync alone says that nothing else is wrong");
}

#[test]
fn a_guard_that_should_refuse_and_is_not_said_to_is_not_enforcing() {
    let mut facts = enforced();
    facts.enforcing = Some(said(Truth::False, "BrokenGlass"));
    let entry = found(&facts, APPROVED);
    assert_eq!((entry.state, &*entry.reason), (State::NotEnforcing, "BrokenGlass"));
    facts.enforcement = Some(Enforcement::Audit);
    assert_eq!(found(&facts, APPROVED).state, State::InSync, "it lets writes pass by its own choice");
    facts.enforcement = None;
    facts.is_current = false;
    let installed = Known { is_installed: true, ..known() };
    let entry = judge(&guard(), &facts, Sight::Present(APPROVED), &installed);
    assert_eq!((entry.state, &*entry.reason), (State::NotEnforcing, "NotObserved"));
    let entry = found(&Facts::default(), APPROVED);
    assert_eq!((entry.state, &*entry.enforcing), (State::InSync, "Unknown"));
}

#[test]
fn that_a_guard_is_enforced_is_believed_while_somebody_leads() {
    let unled = Known { leading: Leading::Nobody { since: Some(at(700)) }, is_installed: true, ..known() };
    let entry = judge(&guard(), &enforced(), Sight::Present(APPROVED), &unled);
    assert_eq!((entry.state, &*entry.reason), (State::NotEnforcing, "NotProved"));
    assert_eq!(&*entry.enforcing, "Unknown");
    assert_eq!(entry.since.map(|since| since.time), Some(at(700).into()));
    assert_eq!(found(&enforced(), APPROVED).state, State::InSync);
}

#[test]
fn a_pause_that_nobody_ends_lasts_as_long_as_the_guard_says() {
    let unled = Known { leading: Leading::Nobody { since: None }, is_installed: true, ..known() };
    let paused = Facts { suspended: Some(Box::new(said(Truth::True, "SuspendedBySpec"))), ..enforced() };
    let ended = Facts { suspend_until: Some(at(900)), ..paused.clone() };
    let entry = judge(&guard(), &ended, Sight::Present(APPROVED), &unled);
    assert_eq!((entry.state, &*entry.reason), (State::NotEnforcing, "NotProved"));
    let lasting = Facts { suspend_until: Some(at(2_000)), ..paused };
    assert_eq!(judge(&guard(), &lasting, Sight::Present(APPROVED), &unled).state, State::Suspended);
    assert_eq!(found(&ended, APPROVED).state, State::Suspended, "who leads knows best");
}

#[test]
fn a_paused_guard_is_suspended_by_the_word_of_the_controller_or_by_its_own() {
    let facts = Facts { suspended: Some(Box::new(said(Truth::True, "Excepted"))), ..enforced() };
    let entry = found(&facts, APPROVED);
    assert_eq!((entry.state, &*entry.reason), (State::Suspended, "Excepted"));
    // Of an older spec the status tells nothing of this one.
    let asked = Facts { suspend_until: Some(at(2_000)), ..Facts::default() };
    assert_eq!(found(&asked, APPROVED).state, State::Suspended);
    let over = Facts { suspend_until: Some(at(1_000)), ..Facts::default() };
    assert_eq!(found(&over, APPROVED).state, State::InSync);
    // A pause may last no longer than the installation allows, which only the controller knows.
    let capped = Facts { suspend_until: Some(at(2_000)), ..enforced() };
    assert_eq!(found(&capped, APPROVED).state, State::InSync);
    let ended = Facts { suspended: Some(Box::new(said(Truth::False, "PauseEnded"))), ..capped };
    assert_eq!(found(&ended, APPROVED).state, State::InSync);
}

#[test]
fn a_paused_guard_is_not_called_unenforced_beside() {
    let facts = Facts {
        enforcing: Some(said(Truth::False, "RegistrationPending")),
        suspended: Some(Box::new(said(Truth::True, "Excepted"))),
        ..enforced()
    };
    let entry = found(&facts, APPROVED);
    assert_eq!((entry.state, entry.also.len()), (State::Suspended, 0));
}

#[test]
fn where_nobody_looked_the_auditor_is_taken_at_its_word_about_this_very_spec() {
    let state = |facts: &Facts| judge(&guard(), facts, Sight::Said, &known()).state;
    let mut facts = enforced();
    assert_eq!(state(&facts), State::Unreadable, "it has not been looked at yet");
    facts.drifted = Some(said(Truth::False, "InSync"));
    facts.current_hash = Some(hash(APPROVED));
    assert_eq!(state(&facts), State::InSync);
    facts.drifted = Some(said(Truth::False, "AwaitingApply"));
    assert_eq!(state(&facts), State::AwaitingApply);
    facts.drifted = Some(said(Truth::True, "BypassedAdmission"));
    let entry = judge(&guard(), &facts, Sight::Said, &known());
    assert_eq!((entry.state, &*entry.reason), (State::Drifted, "BypassedAdmission"));
    assert_eq!(entry.since.unwrap().time, Moment::from(at(500)));
    facts.current_hash = None;
    assert_eq!(state(&facts), State::Missing, "of what is gone there is no hash");
    facts.drifted = Some(said(Truth::Unknown, "Unreadable"));
    assert_eq!(state(&facts), State::Unreadable);
    facts.drifted = Some(Said { generation: 2, ..said(Truth::False, "InSync") });
    assert_eq!(state(&facts), State::Unreadable, "the guard was changed since");
}

#[test]
fn what_was_approved_a_moment_ago_may_be_applied_yet() {
    let mut facts = enforced();
    facts.drifted = Some(said(Truth::False, "AwaitingApply"));
    facts.current_hash = Some(hash(OTHER));
    assert_eq!(found(&facts, OTHER).state, State::AwaitingApply);
    assert_eq!(found(&facts, br#"{"data":{}}"#).state, State::Drifted);
    let later = Known { now: at(500 + 3_601), ..known() };
    let entry = judge(&guard(), &facts, Sight::Present(OTHER), &later);
    assert_eq!(entry.state, State::Drifted, "whoever said so has died");
}

#[test]
fn an_enforcement_of_another_time_does_not_keep_a_guard_from_being_one_that_is_not_enforced() {
    let mut facts = enforced();
    (facts.enforcement, facts.is_current) = (Some(Enforcement::Audit), false);
    let installed = Known { is_installed: true, ..known() };
    let entry = judge(&guard(), &facts, Sight::Present(APPROVED), &installed);
    assert_eq!(entry.state, State::NotEnforcing);
}

#[test]
fn nothing_of_a_secret_is_told_but_the_names_of_its_keys() {
    let secret = |value: &str| format!(r#"{{"data":{{"password":"{value}"}}}}"#);
    let guard = guard_of("Secret", secret("Z2VoZWlt").as_bytes());
    let mut facts = enforced();
    facts.drifted = Some(said(Truth::True, "ContentDiffers"));
    facts.last_drift = Some(Box::new(Drift {
        time: at(5),
        paths: vec!["/data/password".into()],
        actor: None,
        transaction_id: None,
    }));
    let other = secret("Z2VoZWlu");
    for json in [secret("Z2VoZWlt"), other.clone()] {
        let entry = judge(&guard, &facts, Sight::Present(json.as_bytes()), &known());
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!((entry.expected_hash, entry.current_hash), (None, None));
        for word in ["Z2VoZWl", "geheim", &guard.expected.to_string()] {
            assert!(!text.contains(word), "{text}");
        }
    }
    let entry = judge(&guard, &facts, Sight::Present(other.as_bytes()), &known());
    assert_eq!(*entry.changed_paths, ["/data/password"]);
    assert_eq!(entry.since.unwrap().time, Moment::from(at(500)));
}

#[test]
fn a_guard_that_cannot_be_understood_is_unreadable() {
    let invalid_guard = InvalidGuard {
        id: GuardId { namespace: "team".into(), name: "g".into() },
        uid: "u".into(),
        generation: 1,
        target: None,
        pauses: Few::default(),
        authorship: Authorship::Unknown,
        reason: "TargetUnknown",
        message: "the API server serves no kind Gizmo".into(),
    };
    let entry = invalid(&invalid_guard, "Gizmo", "x\u{1b}[31m", &Facts::default(), &known());
    assert_eq!((entry.state, &*entry.reason), (State::Unreadable, "TargetUnknown"));
    assert_eq!(entry.target.to_string(), "Gizmo/x [31m", "no control character reaches a terminal");
}

#[test]
fn trouble_goes_before_findings_and_only_what_was_asked_for_is_one() {
    let drifted = found(&enforced(), OTHER);
    let clean = found(&enforced(), APPROVED);
    let suspended =
        found(&Facts { suspended: Some(Box::new(said(Truth::True, "Excepted"))), ..enforced() }, APPROVED);
    let sight = Sight::Unreadable { reason: "Forbidden", why: "no" };
    let unread = judge(&guard(), &enforced(), sight, &known());
    let of = |entries: &[&Entry], fail_on: &[FailOn]| {
        outcome(&entries.iter().copied().cloned().collect::<Vec<_>>(), fail_on)
    };
    let default = FailOn::DEFAULT;
    assert_eq!(of(&[], &default), Outcome::Clean);
    assert_eq!(of(&[&clean, &suspended], &default), Outcome::Clean);
    assert_eq!(of(&[&clean, &suspended], &[FailOn::Suspended]), Outcome::Findings);
    assert_eq!(of(&[&suspended], &[FailOn::Any]), Outcome::Findings);
    assert_eq!(of(&[&drifted], &default), Outcome::Findings);
    assert_eq!(of(&[&drifted], &[FailOn::Missing]), Outcome::Clean);
    assert_eq!(of(&[&clean, &drifted, &unread], &default), Outcome::CouldNotTell);
    assert_eq!(of(&[&unread], &[]), Outcome::CouldNotTell);
}

fn named(mut entry: Entry, name: &str) -> Entry {
    entry.guard.name = name.into();
    entry
}

fn report(entries: Vec<Entry>, second: i64) -> Report {
    Report::new(entries, Origin::default(), at(second).into())
}

#[test]
fn each_guard_is_counted_once_under_its_worst_state() {
    let facts = Facts { suspended: Some(Box::new(said(Truth::True, "Excepted"))), ..enforced() };
    let summary = Summary::of(&[found(&facts, OTHER), found(&enforced(), APPROVED)]);
    assert_eq!((summary.guards, summary.count(State::Drifted), summary.count(State::Suspended)), (2, 1, 0));
    assert_eq!(summary.holding[&State::Suspended], 1);
}

#[test]
fn an_earlier_report_tells_what_is_new_and_what_is_over() {
    let drifted = found(&enforced(), OTHER);
    let clean = found(&enforced(), APPROVED);
    let missing = judge(&guard(), &enforced(), Sight::Absent("gone"), &known());
    let earlier = report(
        vec![
            named(drifted.clone(), "stays"),
            named(drifted.clone(), "mended"),
            named(clean.clone(), "breaks"),
            named(missing.clone(), "turns"),
            named(drifted.clone(), "left"),
        ],
        700,
    );
    let now = vec![
        named(drifted.clone(), "stays"),
        named(clean.clone(), "mended"),
        named(drifted.clone(), "breaks"),
        named(drifted.clone(), "turns"),
        named(missing, "made"),
        named(clean, "calm"),
    ];
    let compared = compare(report(now, 1_000), &earlier);
    let change = |name: &str| compared.guards.iter().find(|one| one.guard.name == name).unwrap().change;
    assert_eq!(change("stays"), Some(Change::Unchanged));
    assert_eq!(change("mended"), Some(Change::Resolved));
    assert_eq!(change("breaks"), Some(Change::New));
    assert_eq!(change("turns"), Some(Change::Changed));
    assert_eq!(change("made"), Some(Change::New));
    assert_eq!(change("calm"), None);
    let counts = compared.compared.clone().unwrap();
    assert_eq!((counts.new, counts.changed, counts.unchanged, counts.resolved), (2, 1, 1, 1));
    assert_eq!(counts.gone[0].guard.name, "left");
    let since = compared.guards.iter().find(|one| one.guard.name == "stays").unwrap().since.clone().unwrap();
    assert_eq!((since.time, since.known_by), (Moment::from(at(700)), SinceKnownBy::EarlierReport));
}

#[test]
fn what_began_before_is_left_out_unless_nobody_knows_when() {
    let mut facts = enforced();
    facts.drifted = Some(said(Truth::True, "ContentDiffers"));
    facts.current_hash = Some(hash(OTHER));
    let since_500 = named(found(&facts, OTHER), "old");
    let unknown = named(found(&enforced(), OTHER), "unknown");
    let clean = named(found(&enforced(), APPROVED), "clean");
    let mut lapsed = enforced();
    lapsed.drifted = Some(said(Truth::False, "InSync"));
    lapsed.current_hash = Some(hash(APPROVED));
    lapsed.enforcing = Some(Said { since: at(700), ..said(Truth::False, "NotProved") });
    let lapsed = named(found(&lapsed, APPROVED), "lapsed");
    assert_eq!(lapsed.since.as_ref().unwrap().time, Moment::from(at(700)), "of what is shown");
    let all = report(vec![since_500, unknown, clean, lapsed], 1_000);
    let names = |report: &Report| -> Vec<String> {
        report.guards.iter().map(|entry| entry.guard.name.to_string()).collect()
    };
    assert_eq!(names(&within(all.clone(), at(500))), ["lapsed", "old", "unknown"]);
    let late = within(all, at(501));
    assert_eq!(names(&late), ["lapsed", "unknown"]);
    assert_eq!(late.summary.guards, 2);
}

#[test]
fn a_report_reads_back_as_it_was_written() {
    let report = compare(report(vec![found(&enforced(), OTHER)], 1_000), &report(vec![], 900));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}
