//! The admission rule, sentence by sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use super::super::canonical::hash_object;
use super::super::guard::{
    AlsoApproved, Authorship, DeletionPolicy, FailurePolicy, GuardId, ManagedBy, OtherVersion, Versions,
};
use super::super::pause::{Pause, PausedBy};
use super::super::verdict::{Held, Question, Statement, Unguarded};
use super::*;

const APPROVED: &str = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","namespace":"n","uid":"o-1"},"data":{"price":"1"}}"#;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn target(kind: &str) -> Target {
    Target {
        group: "".into(),
        version: "v1".into(),
        kind: kind.into(),
        resource: format!("{}s", kind.to_lowercase()).into(),
        namespace: Some("n".into()),
        name: "x".into(),
    }
}

fn guard_of(kind: &str, approved: &str) -> Guard {
    let scope = Scope::new("", kind, PathFilter::everything());
    Guard {
        id: GuardId { namespace: "g".into(), name: "x-guard".into() },
        uid: "g-1".into(),
        generation: 3,
        target: target(kind),
        expected: hash_object(approved.as_bytes(), &scope).unwrap(),
        scope,
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Default::default(),
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

fn index(guards: impl IntoIterator<Item = Guard>) -> Index {
    Index::build(guards.into_iter().map(|guard| GuardState::Valid(Arc::new(guard))).collect())
}

fn review(resource: &str, operation: &str, object: &str, old: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"r-1","kind":{{"group":"","version":"v1","kind":"{kind}"}},"resource":{{"group":"","version":"v1","resource":"{resource}"}},"name":"x","namespace":"n","operation":"{operation}","userInfo":{{"username":"alice","groups":["dev"]}},"object":{object},"oldObject":{old}{more}}}}}"#,
        kind = if resource == "secrets" { "Secret" } else { "ConfigMap" }
    )
}

fn update(new: &str, old: &str) -> String {
    review("configmaps", "UPDATE", new, old, r#","dryRun":false,"options":{"fieldManager":"kubectl-edit"}"#)
}

fn changed(to: &str) -> String {
    APPROVED.replace(r#""price":"1""#, &format!(r#""price":"{to}""#))
}

fn verdict_of(body: &str, index: &Index) -> Verdict {
    let judgement = judge(body.as_bytes(), index, now()).unwrap();
    assert_eq!(judgement.uid, "r-1");
    judgement.verdict
}

fn denied(body: &str, index: &Index) -> (String, Attempt) {
    match verdict_of(body, index) {
        Verdict::Deny { message, attempt } => (message, *attempt),
        other => panic!("not denied: {other:?}"),
    }
}

fn allowed_with(body: &str, index: &Index) -> (Vec<String>, Option<Attempt>) {
    match verdict_of(body, index) {
        Verdict::AllowWith { warnings, mut attempts } => (warnings, attempts.pop()),
        other => panic!("not allowed with something to say: {other:?}"),
    }
}

#[test]
fn approved_content_passes_whatever_stood_there_before() {
    assert_eq!(verdict_of(&update(APPROVED, &changed("2")), &index([guard()])), Verdict::Allow);
    let create = review("configmaps", "CREATE", APPROVED, "null", "");
    assert_eq!(verdict_of(&create, &index([guard()])), Verdict::Allow);
}

#[test]
fn a_change_of_pinned_content_is_denied_with_the_guard_the_path_and_the_next_step() {
    let (message, attempt) = denied(&update(&changed("2"), APPROVED), &index([guard()]));
    let first = message.lines().next().unwrap();
    assert_eq!(
        first,
        "DriftGuard g/x-guard pins ConfigMap/n/x: /data/price would change; to approve, `driftguard approve x-guard -n g -f FILE`"
    );
    let image = hash_object(changed("2").as_bytes(), &guard().scope).unwrap();
    assert_eq!(message.lines().nth(1).unwrap(), format!("image sha256:{image}"));
    assert_eq!(attempt.paths, ["/data/price"]);
    assert_eq!(attempt.user.name, "alice");
    assert_eq!(attempt.field_manager, "kubectl-edit");
    assert_eq!((attempt.guard_generation, attempt.target_uid.as_str()), (3, "o-1"));
    assert_eq!((attempt.reason, attempt.image_hash), (Reason::HashMismatch, Some(image)));
}

#[test]
fn creating_the_target_with_other_content_is_denied() {
    let create = review("configmaps", "CREATE", &changed("2"), "null", "");
    let (message, _) = denied(&create, &index([guard()]));
    assert!(message.contains("its content is not the approved one"), "{message}");
}

#[test]
fn a_write_that_leaves_drifted_content_as_it_is_passes_with_a_warning() {
    let labelled = changed("2").replace(r#""uid""#, r#""labels":{"a":"b"},"uid""#);
    let (warnings, attempt) = allowed_with(&update(&labelled, &changed("2")), &index([guard()]));
    assert!(warnings[0].contains("has drifted"), "{warnings:?}");
    assert_eq!(attempt.unwrap().reason, Reason::AlreadyDrifted);
}

#[test]
fn drifted_content_may_only_change_to_what_is_approved() {
    denied(&update(&changed("3"), &changed("2")), &index([guard()]));
}

#[test]
fn a_terminating_object_is_judged_like_any_other() {
    let terminating = changed("2").replace(r#""uid""#, r#""deletionTimestamp":"2026-06-01T11:59:00Z","uid""#);
    denied(&update(&terminating, APPROVED), &index([guard()]));
}

#[test]
fn a_further_approval_passes_until_the_moment_it_ends() {
    let hash = hash_object(changed("2").as_bytes(), &guard().scope).unwrap();
    let with_until = |until: &str| {
        let also = AlsoApproved { hash, until: Some(until.parse().unwrap()), reason: None };
        index([Guard { also_approved: vec![also].into(), ..guard() }])
    };
    let body = update(&changed("2"), APPROVED);
    assert_eq!(verdict_of(&body, &with_until("2026-06-01T12:00:01Z")), Verdict::Allow);
    denied(&body, &with_until("2026-06-01T12:00:00Z"));
    let forever = AlsoApproved { hash, until: None, reason: None };
    assert_eq!(
        verdict_of(&body, &index([Guard { also_approved: vec![forever].into(), ..guard() }])),
        Verdict::Allow
    );
}

#[test]
fn warn_lets_through_with_a_warning_and_audit_silently_and_both_record() {
    let body = update(&changed("2"), APPROVED);
    let (warnings, attempt) =
        allowed_with(&body, &index([Guard { enforcement: Enforcement::Warn, ..guard() }]));
    assert!(warnings[0].contains("/data/price would change"), "{warnings:?}");
    assert_eq!(attempt.unwrap().enforcement, Some(Enforcement::Warn));
    let (warnings, attempt) =
        allowed_with(&body, &index([Guard { enforcement: Enforcement::Audit, ..guard() }]));
    assert!(warnings.is_empty());
    assert_eq!(attempt.unwrap().reason, Reason::HashMismatch);
}

#[test]
fn every_guard_of_a_target_must_approve() {
    let mut other = guard_of("ConfigMap", &changed("2"));
    other.id.name = "y-guard".into();
    let both = index([guard(), other]);
    denied(&update(&changed("2"), APPROVED), &both);
    let (_, attempt) = denied(&update(APPROVED, &changed("2")), &both);
    assert_eq!(attempt.guard.name, "y-guard");
    // What leaves the content as it is still passes.
    allowed_with(&update(APPROVED, APPROVED), &both);
}

#[test]
fn a_guard_that_cannot_be_evaluated_lets_nothing_change() {
    let invalid = InvalidGuard {
        id: GuardId { namespace: "g".into(), name: "broken".into() },
        generation: 1,
        uid: "".into(),
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        target: Some(target("ConfigMap")),
        reason: "InvalidSpec",
        message: "expectedHash is no SHA-256".into(),
    };
    let index = Index::build(vec![GuardState::Invalid(Arc::new(invalid))]);
    let (message, attempt) = denied(&update(&changed("2"), APPROVED), &index);
    assert!(message.contains("mend the guard") && message.contains("expectedHash"), "{message}");
    assert_eq!(attempt.reason, Reason::GuardInvalid);
    assert_eq!(verdict_of(&update(APPROVED, APPROVED), &index), Verdict::Allow);
}

#[test]
fn a_pause_lets_writes_pass_a_guard_that_cannot_be_evaluated_until_it_is_over() {
    let broken = |until: &str| {
        let invalid = InvalidGuard {
            id: GuardId { namespace: "g".into(), name: "broken".into() },
            uid: "u".into(),
            generation: 1,
            target: Some(target("ConfigMap")),
            pauses: vec![pause(until)].into(),
            authorship: Authorship::Unknown,
            reason: "InvalidSpec",
            message: "expectedHash is no SHA-256".into(),
        };
        Index::build(vec![GuardState::Invalid(Arc::new(invalid))])
    };
    let body = update(&changed("2"), APPROVED);
    let (warnings, attempt) = allowed_with(&body, &broken("2026-06-01T12:00:01Z"));
    assert_eq!(
        warnings,
        [
            "DriftGuard g/broken is paused by exception night-shift until 2026-06-01T12:00:01Z: it cannot be evaluated, so any change of ConfigMap/n/x passes; recorded"
        ]
    );
    let attempt = attempt.unwrap();
    assert_eq!((attempt.reason, attempt.guard_uid.as_str()), (Reason::Paused, "u"));
    denied(&body, &broken("2026-06-01T12:00:00Z"));
}

#[test]
fn the_objects_own_name_counts_not_the_requests() {
    let renamed = changed("2").replace(r#""name":"x""#, r#""name":"y""#);
    let create = review("configmaps", "CREATE", &renamed, "null", "");
    let want = Unguarded {
        group: "".into(),
        resource: "configmaps".into(),
        namespace: Some("n".into()),
        name: "y".into(),
    };
    assert_eq!(verdict_of(&create, &index([guard()])), Verdict::NotGuarded(want));
}

#[test]
fn deleting_the_target_passes_with_a_warning() {
    let body = review("configmaps", "DELETE", "null", APPROVED, "");
    let (warnings, attempt) = allowed_with(&body, &index([guard()]));
    assert!(warnings[0].contains("counts as drift"), "{warnings:?}");
    assert_eq!(attempt.unwrap().operation, Operation::Delete);
}

#[test]
fn a_secret_is_denied_without_value_or_hash() {
    let secret = |value: &str| {
        format!(
            r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"name":"x","namespace":"n"}},"data":{{"password":"{value}"}}}}"#
        )
    };
    let (approved, other) = (secret("b2xk"), secret("aHVudGVyMg=="));
    let guards = index([guard_of("Secret", &approved)]);
    let (message, attempt) = denied(&review("secrets", "UPDATE", &other, &approved, ""), &guards);
    assert!(message.contains("/data/password"));
    for secret in ["aHVudGVyMg", "hunter2", "sha256", "b2xk", "old\""] {
        assert!(!message.contains(secret), "{message}");
    }
    assert_eq!(attempt.image_hash, None);
}

#[test]
fn a_dry_run_asking_for_proof_gets_its_nonce_back_whatever_the_verdict() {
    let options = |dry_run: bool, manager: &str| {
        format!(r#","dryRun":{dry_run},"options":{{"kind":"PatchOptions","fieldManager":"{manager}"}}"#)
    };
    let proof = |object: &str, dry_run: bool, manager: &str| {
        let body = review("configmaps", "UPDATE", object, object, &options(dry_run, manager));
        judge(body.as_bytes(), &index([guard()]), now()).unwrap().proof
    };
    // A ConfigMap reads the same by every API server, so that nothing is said of its content.
    let answer = Some(Proof { nonce: "a1b2".to_owned(), statements: Vec::new() });
    assert_eq!(proof(APPROVED, true, "driftguard-proof-a1b2"), answer);
    assert_eq!(proof(&changed("2"), true, "driftguard-proof-a1b2"), answer);
    assert_eq!(proof(APPROVED, false, "driftguard-proof-a1b2"), None, "only a dry run asks");
    assert_eq!(proof(APPROVED, true, "driftguard-proof-a b"), None, "a nonce is plain");
    assert_eq!(proof(APPROVED, true, "kubectl"), None);
}

/// A Deployment with so many replicas.
fn deployment(replicas: u8) -> String {
    format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"x","namespace":"n","uid":"o-1"}},"spec":{{"replicas":{replicas}}}}}"#
    )
}

/// What guards say to a dry run that asks for proof and shows this object.
fn stated(object: &str, version: &str, sub_resource: &str, guards: &[Guard]) -> Vec<Statement> {
    let body = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"r-1","kind":{{"group":"apps","version":"{version}","kind":"Deployment"}},"resource":{{"group":"apps","version":"{version}","resource":"deployments"}},"subResource":"{sub_resource}","name":"x","namespace":"n","operation":"UPDATE","userInfo":{{"username":"alice","groups":["dev"]}},"object":{object},"oldObject":{object},"dryRun":true,"options":{{"fieldManager":"driftguard-proof-a1"}}}}}}"#
    );
    let judgement = judge(body.as_bytes(), &index(guards.iter().cloned()), now()).unwrap();
    judgement.proof.unwrap().statements
}

fn guard_of_deployment() -> (Guard, ContentHash) {
    let other = guard_of("Deployment", &deployment(2)).expected;
    let guard = guard_of("Deployment", &deployment(1));
    let target = Target { group: "apps".into(), ..guard.target.clone() };
    (Guard { target, ..guard }, other)
}

#[test]
fn each_guard_says_in_words_what_the_content_is_to_it() {
    let (guard, other) = guard_of_deployment();
    let held = |guard: &Guard, object: &str| {
        let said = stated(object, "v1", "", std::slice::from_ref(guard));
        assert_eq!((said[0].guard_uid.as_str(), said[0].guard_generation, said.len()), ("g-1", 3, 1));
        said[0].held
    };
    let signed = Guard { equivalents: [other].into_iter().collect(), ..guard.clone() };
    assert_eq!(held(&guard, &deployment(1)), Held::Approved);
    assert_eq!(held(&guard, &deployment(2)), Held::NotApproved);
    assert_eq!(held(&signed, &deployment(2)), Held::Equivalent(other));
    // Whatever enforcement or a pause makes of it.
    for enforcement in [Enforcement::Audit, Enforcement::Warn, Enforcement::Rewrite] {
        let guard = Guard { enforcement, ..guard.clone() };
        assert_eq!(held(&guard, &deployment(2)), Held::NotApproved);
    }
    // What is approved beside the expected content is never taken for a reading of that.
    for (until, want) in [
        (None, Held::Approved),
        (Some("2026-06-01T12:00:01Z"), Held::Approved),
        (Some("2026-06-01T12:00:00Z"), Held::NotApproved),
    ] {
        let until = until.map(|text| text.parse().unwrap());
        let also = AlsoApproved { hash: other, until, reason: None };
        let guard = Guard { also_approved: [also].into_iter().collect(), ..signed.clone() };
        assert_eq!(held(&guard, &deployment(2)), want, "{until:?}");
    }
}

#[test]
fn a_guard_that_cannot_tell_says_nothing() {
    let (guard, other) = guard_of_deployment();
    let signed = Guard { equivalents: [other].into_iter().collect(), ..guard };
    let guards = [signed];
    assert_eq!(stated(&deployment(2), "v1", "", &guards).len(), 1);
    assert_eq!(stated(&deployment(2), "v1beta1", "", &guards), [], "another version");
    assert_eq!(stated(&deployment(2), "v1", "scale", &guards), [], "only a part of it");
    assert_eq!(stated(&deployment(2).replace(r#""name":"x""#, r#""name":"y""#), "v1", "", &guards), []);
}

#[test]
fn the_next_step_of_a_managed_guard_is_in_git() {
    let managed = Guard { managed_by: Some(ManagedBy::ArgoCd), ..guard() };
    let (message, _) = denied(&update(&changed("2"), APPROVED), &index([managed]));
    let next = "; to approve, change the guard in Git; Argo CD must apply it first (docs/gitops.md)";
    assert!(message.lines().next().unwrap().ends_with(next), "{message}");
    assert!(!message.contains("driftguard hash"));
}

#[test]
fn contact_and_runbook_follow_on_lines_of_their_own_without_control_characters() {
    let guard = Guard {
        contact: Some("#prices\u{7}".into()),
        runbook: Some("https://r.example/1".into()),
        ..guard()
    };
    let (message, _) = denied(&update(&changed("2"), APPROVED), &index([guard]));
    assert!(message.ends_with("\ncontact: #prices \nrunbook: https://r.example/1"), "{message}");
}

#[test]
fn the_first_line_stays_within_its_bound_however_long_the_names_are() {
    let long = "a".repeat(253);
    for managed_by in [None, Some(ManagedBy::Flux)] {
        let mut guard = Guard { managed_by, ..guard() };
        guard.id = GuardId { namespace: "n".repeat(63).into(), name: long.as_str().into() };
        guard.target.name = long.as_str().into();
        let body = update(&changed("2"), APPROVED).replace(r#""name":"x""#, &format!(r#""name":"{long}""#));
        let (message, _) = denied(&body, &index([guard]));
        let first = message.lines().next().unwrap();
        assert!(first.chars().count() <= message::MAX_FIRST_LINE, "{}", first.len());
        assert!(first.contains("to approve, "), "{first}");
    }
}

#[test]
fn an_object_that_cannot_be_hashed_is_denied_not_passed() {
    let bad = APPROVED.replace(r#"{"price":"1"}"#, r#"{"price":"\x"}"#);
    let (message, attempt) = denied(&update(&bad, APPROVED), &index([guard()]));
    assert_eq!(attempt.reason, Reason::Undecodable);
    assert!(message.contains("cannot hash this object"), "{message}");
}

#[test]
fn a_review_in_another_version_passes_only_when_it_changes_nothing() {
    let other = |new: &str, old: &str| {
        update(new, old).replace(r#""version":"v1","resource""#, r#""version":"v2","resource""#)
    };
    let (message, attempt) = denied(&other(&changed("2"), APPROVED), &index([guard()]));
    assert!(message.contains("in version v1, and this write came in v2"), "{message}");
    assert_eq!((attempt.reason, attempt.image_hash), (Reason::OtherVersion, None));
    // Not even the approved text: in another version it may mean something else.
    denied(&other(APPROVED, &changed("2")), &index([guard()]));
    assert_eq!(verdict_of(&other(APPROVED, APPROVED), &index([guard()])), Verdict::Allow);
}

#[test]
fn a_guard_of_another_version_is_left_to_its_own_entry() {
    let mut newer = guard();
    newer.id.name = "newer-guard".into();
    newer.target.version = "v2".into();
    newer.expected = hash_object(changed("9").as_bytes(), &newer.scope).unwrap();
    assert_eq!(verdict_of(&update(APPROVED, &changed("2")), &index([guard(), newer])), Verdict::Allow);
}

#[test]
fn in_another_version_paths_leave_nothing_out() {
    let scope = Scope::new("", "ConfigMap", PathFilter::ignoring(&["/data/price"]).unwrap());
    let guard = Guard { scope, ..guard() };
    let body = update(&changed("2"), APPROVED)
        .replace(r#""version":"v1","resource""#, r#""version":"v2","resource""#);
    denied(&body, &index([guard]));
}

#[test]
fn a_guard_whose_version_is_gone_is_judged_beside_those_of_the_version_that_came() {
    let others = vec![OtherVersion { version: "v1".into(), replicas_path: None }];
    let mut older = guard();
    older.id.name = "older-guard".into();
    older.target.version = "v1alpha1".into();
    older.versions = Versions { is_gone: true, others: others.into() };
    let mut newer = guard();
    newer.expected = hash_object(changed("2").as_bytes(), &newer.scope).unwrap();
    let both = index([older, newer]);
    let (message, attempt) = denied(&update(&changed("2"), APPROVED), &both);
    assert_eq!(attempt.reason, Reason::OtherVersion);
    assert!(
        message.contains("v1alpha1 is no longer served, so set the guard's targetApiVersion"),
        "{message}"
    );
    assert!(matches!(verdict_of(&update(APPROVED, APPROVED), &both), Verdict::AllowWith { .. }));
}

#[test]
fn content_that_moves_between_spec_and_the_top_level_is_not_approved_for_having_the_same_hash() {
    let object = |fields: &str| {
        format!(
            r#"{{"apiVersion":"a.io/v1","kind":"Widget","metadata":{{"name":"x","namespace":"n"}},{fields}}}"#
        )
    };
    let bare = object(r#""config":{"a":1}"#);
    let drifted = object(r#""config":{"a":2}"#);
    let within = object(r#""spec":{"config":{"a":1}}"#);
    let beside = object(r#""spec":{"config":{"a":1}},"config":{"a":"evil"}"#);
    let guard = |paths: &[&str]| {
        let filter =
            if paths.is_empty() { PathFilter::everything() } else { PathFilter::ignoring(paths).unwrap() };
        let scope = Scope::new("a.io", "Widget", filter);
        let mut guard = Guard { expected: hash_object(within.as_bytes(), &scope).unwrap(), scope, ..guard() };
        guard.target.group = "a.io".into();
        guard.target.resource = "widgets".into();
        guard
    };
    let written = |operation: &str, new: &str, old: &str| {
        review("widgets", operation, new, old, "")
            .replace(r#"{"group":"","version""#, r#"{"group":"a.io","version""#)
    };
    let all = index([guard(&[])]);
    for (new, old) in [(&beside, &bare), (&within, &bare), (&bare, &within), (&beside, &drifted)] {
        let (message, attempt) = denied(&written("UPDATE", new, old), &all);
        assert_eq!(attempt.reason, Reason::ContentMoved, "{new} {old}");
        assert!(message.contains("may not move between spec and the top level"), "{message}");
    }
    // Nor does it stay as it is, for being as far from what is approved as before.
    let moved = object(r#""spec":{"config":{"a":2}},"config":{"a":"evil"}"#);
    assert_eq!(denied(&written("UPDATE", &moved, &drifted), &all).1.reason, Reason::HashMismatch);
    for (new, old) in
        [(&beside, &beside), (&within, &beside), (&beside, &within), (&bare, &bare), (&bare, &drifted)]
    {
        assert_eq!(verdict_of(&written("UPDATE", new, old), &all), Verdict::Allow, "{new} {old}");
    }
    let other = object(r#""spec":{"config":{"a":2}}"#);
    assert_eq!(verdict_of(&written("UPDATE", &within, &drifted), &all), Verdict::Allow, "it is put right");
    assert_eq!(verdict_of(&written("UPDATE", &bare, &other), &all), Verdict::Allow, "it is put right");
    let (message, _) = denied(&written("CREATE", &beside, "null"), &all);
    assert!(message.contains("leave these out, or add them to ignorePaths"), "{message}");
    for new in [&within, &bare] {
        assert_eq!(verdict_of(&written("CREATE", new, "null"), &all), Verdict::Allow);
    }
    let told = index([guard(&["/config"])]);
    assert_eq!(verdict_of(&written("CREATE", &beside, "null"), &told), Verdict::Allow);
}

#[test]
fn a_write_without_its_object_is_no_review() {
    for (operation, old) in [("CREATE", "null"), ("UPDATE", APPROVED), ("DELETE", "null")] {
        let body = review("configmaps", operation, "null", old, "");
        let error = judge(body.as_bytes(), &index([guard()]), now()).unwrap_err();
        assert_eq!(error.uid.as_deref(), Some("r-1"));
    }
}

#[test]
fn objects_of_3_mib_and_of_10_000_levels_are_judged() {
    let big = changed(&"x".repeat(3 << 20));
    denied(&update(&big, APPROVED), &index([guard()]));
    let deep = format!(
        r#"{{"metadata":{{"name":"x","namespace":"n"}},"data":{}1{}}}"#,
        r#"{"a":"#.repeat(9_999),
        "}".repeat(9_999)
    );
    denied(&update(&deep, APPROVED), &index([guard()]));
}

fn pause(until: &str) -> Pause {
    Pause {
        by: PausedBy::Exception("night-shift".into()),
        reason: "INC-1".into(),
        until: until.parse().unwrap(),
    }
}

#[test]
fn a_paused_guard_lets_through_with_a_warning_until_the_pause_is_over() {
    let body = update(&changed("2"), APPROVED);
    for enforcement in [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Audit] {
        let paused = Guard { enforcement, pauses: vec![pause("2026-06-01T12:00:01Z")].into(), ..guard() };
        let (warnings, attempt) = allowed_with(&body, &index([paused]));
        assert_eq!(
            warnings,
            [
                "DriftGuard g/x-guard is paused by exception night-shift until 2026-06-01T12:00:01Z: /data/price would change in ConfigMap/n/x; recorded"
            ]
        );
        assert_eq!(attempt.unwrap().reason, Reason::Paused);
    }
    denied(&body, &index([Guard { pauses: vec![pause("2026-06-01T12:00:00Z")].into(), ..guard() }]));
    // Approved content needs no pause.
    let paused = Guard { pauses: vec![pause("2026-06-01T12:00:01Z")].into(), ..guard() };
    assert_eq!(verdict_of(&update(APPROVED, &changed("2")), &index([paused])), Verdict::Allow);
}

#[test]
fn each_guard_that_lets_through_is_recorded() {
    let mode = |name: &str, enforcement| {
        let mut guard = Guard { enforcement, ..guard() };
        guard.id.name = name.into();
        guard
    };
    let guards = index([mode("a", Enforcement::Audit), mode("b", Enforcement::Warn)]);
    let Verdict::AllowWith { warnings, attempts } = verdict_of(&update(&changed("2"), APPROVED), &guards)
    else {
        panic!("not allowed");
    };
    assert_eq!(warnings.len(), 1);
    let recorded: Vec<&str> = attempts.iter().map(|attempt| attempt.guard.name.as_str()).collect();
    assert_eq!(recorded, ["a", "b"]);
    // One that refuses is enough.
    let guards =
        index([mode("a", Enforcement::Audit), mode("b", Enforcement::Warn), mode("c", Enforcement::Deny)]);
    assert_eq!(denied(&update(&changed("2"), APPROVED), &guards).1.guard.name, "c");
}

#[test]
fn many_guards_of_one_target_are_no_more_work_than_one() {
    let many = index((0..2_000).map(|number| {
        let mut guard = Guard { enforcement: Enforcement::Audit, ..guard() };
        guard.id.name = format!("g{number}").into();
        guard
    }));
    // A mebibyte each hash: two thousand of them would take minutes where the tests are not optimised.
    let large = |price: &str| {
        changed(price).replace("\"data\":{", &format!("\"data\":{{\"text\":\"{}\",", "x".repeat(1 << 20)))
    };
    let Verdict::AllowWith { attempts, .. } = verdict_of(&update(&large("2"), &large("1")), &many) else {
        panic!("not allowed");
    };
    assert_eq!(attempts.len(), 2_000);
    assert!(attempts.iter().all(|attempt| attempt.paths == ["/data/price"]));
}

fn knowing(body: &str, index: &Index, fact: Fact<'_>) -> Verdict {
    judge_knowing(body.as_bytes(), index, now(), Some(fact)).unwrap().verdict
}

fn undeletable() -> Guard {
    Guard { deletion_policy: DeletionPolicy::Deny, ..guard() }
}

#[test]
fn deletion_is_refused_where_the_guard_says_so_unless_the_namespace_is_going() {
    let body = review("configmaps", "DELETE", "null", APPROVED, "");
    let guards = index([undeletable()]);
    assert_eq!(verdict_of(&body, &guards), Verdict::Ask(Question::Namespace("n".into())));
    let active = br#"{"metadata":{"name":"n"}}"#;
    let going = br#"{"metadata":{"name":"n","deletionTimestamp":"2026-06-01T11:00:00Z"}}"#;
    let Verdict::Deny { message, attempt } = knowing(&body, &guards, Fact::Object(active)) else {
        panic!("not denied");
    };
    assert!(
        message.contains("it may not be deleted; to delete it, set the guard's deletionPolicy"),
        "{message}"
    );
    assert_eq!(attempt.reason, Reason::TargetDeleted);
    for passes in [Fact::Object(going), Fact::Absent, Fact::Unread(FailurePolicy::Ignore)] {
        assert!(matches!(knowing(&body, &guards, passes), Verdict::AllowWith { .. }), "{passes:?}");
    }
    let Verdict::Deny { attempt, .. } = knowing(&body, &guards, Fact::Unread(FailurePolicy::Fail)) else {
        panic!("not denied");
    };
    assert_eq!(attempt.reason, Reason::TargetUnread);
}

#[test]
fn only_a_guard_that_blocks_and_is_not_paused_refuses_a_deletion() {
    let body = review("configmaps", "DELETE", "null", APPROVED, "");
    let soft = [
        Guard { enforcement: Enforcement::Warn, ..undeletable() },
        Guard { enforcement: Enforcement::Audit, ..undeletable() },
        Guard { pauses: vec![pause("2026-06-01T13:00:00Z")].into(), ..undeletable() },
    ];
    for guard in soft {
        allowed_with(&body, &index([guard]));
    }
    // What has begun cannot be undone.
    let terminating = APPROVED.replace(r#""uid""#, r#""deletionTimestamp":"2026-06-01T11:59:00Z","uid""#);
    allowed_with(&review("configmaps", "DELETE", "null", &terminating, ""), &index([undeletable()]));
}

fn on_pod(sub: &str, object: &str, old: &str) -> String {
    review("pods", "CREATE", object, old, "").replace(
        r#""name":"x","namespace":"n","operation""#,
        &format!(r#""subResource":"{sub}","name":"x","namespace":"n","operation""#),
    )
}

const POD: &str =
    r#"{"kind":"Pod","metadata":{"name":"x","namespace":"n"},"spec":{"containers":[],"nodeName":"a"}}"#;

#[test]
fn an_eviction_is_judged_like_a_deletion() {
    let eviction = r#"{"kind":"Eviction","metadata":{"name":"x"}}"#;
    let body = on_pod("eviction", eviction, "null");
    let guards = index([Guard { deletion_policy: DeletionPolicy::Deny, ..guard_of("Pod", POD) }]);
    assert_eq!(verdict_of(&body, &guards), Verdict::Ask(Question::Namespace("n".into())));
    assert!(matches!(knowing(&body, &guards, Fact::Object(b"{}")), Verdict::Deny { .. }));
    allowed_with(&body, &index([guard_of("Pod", POD)]));
}

#[test]
fn a_binding_is_judged_by_the_pod_that_it_makes() {
    let binding = |node: &str| {
        format!(r#"{{"kind":"Binding","metadata":{{"name":"x"}},"target":{{"name":"{node}"}}}}"#)
    };
    let guards = index([guard_of("Pod", POD)]);
    let unbound = POD.replace(r#","nodeName":"a""#, "");
    let live = Fact::Object(unbound.as_bytes());
    let target = guard_of("Pod", POD).target;
    // The older way shows no subresource.
    let older = |node: &str| {
        on_pod("", &binding(node), "null").replace(r#""resource":"pods""#, r#""resource":"bindings""#)
    };
    for body in [on_pod("binding", &binding("a"), "null"), older("a")] {
        assert_eq!(verdict_of(&body, &guards), Verdict::Ask(Question::Target(target.clone())));
        assert_eq!(knowing(&body, &guards, live), Verdict::Allow);
    }
    for body in [on_pod("binding", &binding("b"), "null"), older("b")] {
        let Verdict::Deny { message, .. } = knowing(&body, &guards, live) else { panic!("not denied") };
        assert!(message.contains("/spec/nodeName would change"), "{message}");
    }
    let scope = Scope::new("", "Pod", PathFilter::ignoring(&["/spec/nodeName"]).unwrap());
    let free = Guard { scope, ..guard_of("Pod", POD) };
    assert_eq!(verdict_of(&on_pod("binding", &binding("b"), "null"), &index([free])), Verdict::Allow);
}

#[test]
fn a_scale_is_judged_by_the_object_with_its_new_count() {
    let workload = |count: &str| {
        format!(r#"{{"metadata":{{"name":"x","namespace":"n"}},"spec":{{"replicas":{count},"z":1.50}}}}"#)
    };
    let scale =
        |spec: &str| format!(r#"{{"kind":"Scale","metadata":{{"name":"x","namespace":"n"}},"spec":{spec}}}"#);
    let guard = |enforcement| Guard {
        replicas_path: Some(Arc::new(["spec".into(), "replicas".into()])),
        enforcement,
        ..guard_of("Workload", &workload("3"))
    };
    let deny = index([guard(Enforcement::Deny)]);
    let body = |new: &str, old: &str| {
        review("workloads", "UPDATE", &scale(new), &scale(old), "").replace(
            r#""name":"x","namespace":"n","operation""#,
            r#""subResource":"scale","name":"x","namespace":"n","operation""#,
        )
    };
    let (three, five, none) = (r#"{"replicas":3}"#, r#"{"replicas":5}"#, "{}");
    assert_eq!(verdict_of(&body(three, three), &deny), Verdict::Allow, "nothing changes, nothing is read");
    assert_eq!(
        verdict_of(&body(five, three), &deny),
        Verdict::Ask(Question::Target(guard(Enforcement::Deny).target))
    );
    let live = workload("5");
    assert_eq!(knowing(&body(three, five), &deny, Fact::Object(live.as_bytes())), Verdict::Allow);
    let live = workload("3");
    for (new, count) in [(five, "5"), (none, "0")] {
        let Verdict::Deny { message, .. } = knowing(&body(new, three), &deny, Fact::Object(live.as_bytes()))
        else {
            panic!("not denied");
        };
        let image = hash_object(workload(count).as_bytes(), &guard(Enforcement::Deny).scope).unwrap();
        assert!(
            message.contains("/spec/replicas would change") && message.contains(&image.to_string()),
            "{message}"
        );
    }
    assert!(matches!(knowing(&body(five, three), &deny, Fact::Absent), Verdict::Deny { .. }));
    assert!(matches!(
        knowing(&body(five, three), &deny, Fact::Unread(FailurePolicy::Fail)),
        Verdict::Deny { .. }
    ));
    assert!(matches!(
        knowing(&body(five, three), &deny, Fact::Unread(FailurePolicy::Ignore)),
        Verdict::AllowWith { .. }
    ));
    let rewrite = index([guard(Enforcement::Rewrite)]);
    let Verdict::Deny { message, .. } = knowing(&body(five, three), &rewrite, Fact::Object(live.as_bytes()))
    else {
        panic!("not denied");
    };
    assert!(message.contains("\nnot put back: a request on this subresource"), "{message}");
    let warn = index([guard(Enforcement::Warn)]);
    assert!(matches!(
        knowing(&body(five, three), &warn, Fact::Unread(FailurePolicy::Fail)),
        Verdict::AllowWith { .. }
    ));
    let free = Guard { replicas_path: None, ..guard(Enforcement::Deny) };
    assert_eq!(verdict_of(&body(five, three), &index([free])), Verdict::Allow);
}

#[test]
fn a_scale_through_another_version_counts_only_where_the_count_stands_alike() {
    let workload = |count: &str| {
        format!(r#"{{"metadata":{{"name":"x","namespace":"n"}},"spec":{{"replicas":{count}}}}}"#)
    };
    let scale = |count: u8| {
        format!(
            r#"{{"kind":"Scale","metadata":{{"name":"x","namespace":"n"}},"spec":{{"replicas":{count}}}}}"#
        )
    };
    let keys = |field: &str| Arc::from(["spec".to_owned(), field.to_owned()]);
    let guarded = |own: Option<&str>, other: &str, filter: PathFilter| {
        let others = vec![OtherVersion { version: "v2".into(), replicas_path: Some(keys(other)) }];
        let scope = Scope::new("", "Workload", filter);
        let expected = hash_object(workload("3").as_bytes(), &scope).unwrap();
        index([Guard {
            replicas_path: own.map(keys),
            versions: Versions { is_gone: false, others: others.into() },
            expected,
            scope,
            ..guard_of("Workload", &workload("3"))
        }])
    };
    // As it arrives in `arrives` when it was made through `through`.
    let body = |count, arrives: &str, through: &str| {
        review("workloads", "UPDATE", &scale(count), &scale(4), "")
            .replace(r#""version":"v1","resource""#, &format!(r#""version":"{arrives}","resource""#))
            .replace(
                r#""name":"x","namespace":"n","operation""#,
                &format!(
                    r#""subResource":"scale","requestResource":{{"group":"","version":"{through}","resource":"workloads"}},"name":"x","namespace":"n","operation""#
                ),
            )
    };
    let all = PathFilter::everything;
    let live = workload("4");
    let live = Fact::Object(live.as_bytes());
    let alike = guarded(Some("replicas"), "replicas", all());
    assert_eq!(knowing(&body(3, "v1", "v2"), &alike, live), Verdict::Allow);
    assert!(matches!(knowing(&body(5, "v1", "v2"), &alike, live), Verdict::Deny { .. }));
    let elsewhere = guarded(Some("replicas"), "size", all());
    for count in [3, 5] {
        let (message, attempt) = denied(&body(count, "v1", "v2"), &elsewhere);
        assert_eq!(attempt.reason, Reason::OtherVersion);
        assert!(message.contains("through v1"), "{message}");
    }
    assert_eq!(verdict_of(&body(4, "v1", "v2"), &elsewhere), Verdict::Allow, "nothing changes");
    assert_eq!(knowing(&body(3, "v1", "v1"), &elsewhere, live), Verdict::Allow);
    denied(&body(3, "v1", "v3"), &elsewhere);
    let unscaled = guarded(None, "replicas", all());
    denied(&body(5, "v2", "v2"), &unscaled);
    let free = guarded(None, "replicas", PathFilter::ignoring(&["/spec/replicas"]).unwrap());
    assert_eq!(verdict_of(&body(5, "v2", "v2"), &free), Verdict::Allow);
}

#[test]
fn the_end_of_a_namespace_passes_and_its_finalizers_are_kept_before() {
    let namespace = |more: &str, finalizers: &str| {
        format!(
            r#"{{"kind":"Namespace","metadata":{{"name":"x"{more}}},"spec":{{"finalizers":{finalizers}}}}}"#
        )
    };
    let mut guard = guard_of("Namespace", &namespace("", r#"["kubernetes"]"#));
    guard.target.namespace = None;
    let guards = index([guard]);
    let finalize = |more: &str| {
        review("namespaces", "UPDATE", &namespace(more, "[]"), &namespace(more, r#"["kubernetes"]"#), "")
            .replace(r#""kind":"ConfigMap"}"#, r#""kind":"Namespace"}"#)
            .replace(
                r#""name":"x","namespace":"n","operation""#,
                r#""subResource":"finalize","name":"x","namespace":"x","operation""#,
            )
    };
    denied(&finalize(""), &guards);
    assert_eq!(
        verdict_of(&finalize(r#","deletionTimestamp":"2026-06-01T11:59:00Z""#), &guards),
        Verdict::Allow
    );
}
