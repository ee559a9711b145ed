//! What is put back, what is not, and that the gate passes what comes out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use super::*;
use crate::core::guard::{Authorship, DeletionPolicy, FailurePolicy, InvalidGuard, Target, Versions};
use crate::core::judge::judge;
use crate::core::paths::PathFilter;
use crate::core::pause::{Pause, PausedBy};
use crate::core::scope::Scope;
use crate::core::verdict::Verdict;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

/// A guard of `kind` in group `group` that approves `approved`, narrowed by `filter`.
fn guard(group: &str, kind: &str, approved: &str, filter: PathFilter, name: &str) -> Guard {
    let scope = Scope::new(group, kind, filter);
    Guard {
        id: GuardId { namespace: "g".into(), name: name.into() },
        uid: "g-1".into(),
        generation: 1,
        target: Target {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: format!("{}s", kind.to_lowercase()).into(),
            namespace: Some("n".into()),
            name: "x".into(),
        },
        expected: hash_object(approved.as_bytes(), &scope).unwrap(),
        scope,
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Rewrite,
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

fn index(guards: impl IntoIterator<Item = Guard>) -> Index {
    Index::build(guards.into_iter().map(|guard| GuardState::Valid(Arc::new(guard))).collect())
}

fn config_map(data: &str) -> String {
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"x","namespace":"n","resourceVersion":"5","managedFields":[{{"manager":"owner"}}]}},"data":{data}}}"#
    )
}

/// `config_map` as somebody else's write would leave it.
fn edited(data: &str) -> String {
    config_map(data).replace("owner", "attacker")
}

fn update_of(group: &str, kind: &str, new: &str, old: &str, more: &str) -> String {
    let resource = format!("{}s", kind.to_lowercase());
    format!(
        r#"{{"request":{{"uid":"r-1","kind":{{"group":"{group}","version":"v1","kind":"{kind}"}},"resource":{{"group":"{group}","version":"v1","resource":"{resource}"}},"name":"x","namespace":"n","operation":"UPDATE","userInfo":{{"username":"alice"}},"object":{new},"oldObject":{old}{more}}}}}"#
    )
}

fn update(new: &str, old: &str) -> String {
    update_of("", "ConfigMap", new, old, r#","dryRun":false,"options":{"fieldManager":"kubectl-edit"}"#)
}

fn patch_of(body: &str, index: &Index) -> Option<Patch> {
    rewrite(body.as_bytes(), index, now()).unwrap().patch
}

/// The object as the API server would have it after the patch, by another implementation than ours.
fn patched(new: &str, patch: &Patch) -> serde_json::Value {
    let mut object: serde_json::Value = serde_json::from_str(new).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch.operations).unwrap();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// The gate's word on the write as it came, which no patch reached.
fn why(body: &str, index: &Index) -> String {
    match judge(body.as_bytes(), index, now()).unwrap().verdict {
        Verdict::Deny { message, .. } => message,
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_change_of_pinned_content_is_put_back_so_that_the_server_sees_no_write() {
    let old = config_map(r#"{"a":"1","b":"2"}"#);
    let new = edited(r#"{"a":"9","c":"3"}"#);
    let guards = index([guard("", "ConfigMap", &old, PathFilter::Everything, "one")]);
    let patch = patch_of(&update(&new, &old), &guards).unwrap();
    assert_eq!(patched(&new, &patch), value(&old));
    assert_eq!(
        patch.warning,
        "ConfigMap/n/x is pinned by DriftGuard g/one: /data/b, /data/c, /data/a were put back"
    );
}

#[test]
fn what_else_changed_stays_and_then_the_owners_of_fields_stay_new() {
    let old = config_map(r#"{"a":"1"}"#);
    let new = edited(r#"{"a":"9"}"#).replace(r#""name":"x""#, r#""name":"x","labels":{"team":"risk"}"#);
    let guards = index([guard("", "ConfigMap", &old, PathFilter::Everything, "one")]);
    let patch = patch_of(&update(&new, &old), &guards).unwrap();
    let after = patched(&new, &patch);
    assert_eq!(after["data"], value(r#"{"a":"1"}"#));
    assert_eq!(after["metadata"]["labels"]["team"], "risk");
    assert_eq!(after["metadata"]["managedFields"][0]["manager"], "attacker");
}

#[test]
fn what_kubectl_apply_remembers_is_put_back_with_the_content() {
    let note = |text: &str| {
        format!(r#""name":"x","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{text}"}}"#)
    };
    let plain = r#""name":"x""#;
    let guards = |old: &str| index([guard("", "ConfigMap", old, PathFilter::Everything, "one")]);
    for (before, after) in
        [(note("good"), note("bad")), (plain.to_owned(), note("bad")), (note("good"), plain.to_owned())]
    {
        let old = config_map(r#"{"a":"1"}"#).replace(plain, &before);
        let new = edited(r#"{"a":"9"}"#).replace(plain, &after);
        let patch = patch_of(&update(&new, &old), &guards(&old)).unwrap();
        assert_eq!(patched(&new, &patch), value(&old), "{before} {after}");
    }
    // Another annotation is a change of its own.
    let old = config_map(r#"{"a":"1"}"#).replace(plain, &note("good"));
    let new = edited(r#"{"a":"9"}"#).replace(
        plain,
        r#""name":"x","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"bad","mine":""}"#,
    );
    let after = patched(&new, &patch_of(&update(&new, &old), &guards(&old)).unwrap());
    assert_eq!(after["metadata"]["annotations"]["mine"], "");
    assert_eq!(after["metadata"]["managedFields"][0]["manager"], "attacker");
}

#[test]
fn nothing_is_sent_when_nothing_pinned_changes() {
    let old = config_map(r#"{"a":"1"}"#);
    let guards = index([guard("", "ConfigMap", &old, PathFilter::Everything, "one")]);
    assert_eq!(patch_of(&update(&edited(r#"{"a":"1"}"#), &old), &guards), None);
    // Not even when it has drifted: the write leaves it so.
    let drifted = config_map(r#"{"a":"2"}"#);
    assert_eq!(patch_of(&update(&edited(r#"{"a":"2"}"#), &drifted), &guards), None);
}

#[test]
fn binary_data_that_was_added_goes() {
    let old = config_map(r#"{"a":"1"}"#);
    let new = edited(r#"{"a":"1"},"binaryData":{"b":"AP/+"}"#);
    let guards = index([guard("", "ConfigMap", &old, PathFilter::Everything, "one")]);
    assert_eq!(patched(&new, &patch_of(&update(&new, &old), &guards).unwrap()), value(&old));
}

#[test]
fn numbers_and_depth_come_back_byte_by_byte() {
    let model = |part: &str, manager: &str| {
        format!(
            r#"{{"kind":"GAMAConfig","apiVersion":"terrafusion.ai/v1","metadata":{{"name":"x","namespace":"n","managedFields":[{{"manager":"{manager}"}}]}},"spec":{{"other":1,"parameters":{{"deep":{}1{},"part":{part}}}}}}}"#,
            r#"{"a":"#.repeat(9_000),
            "}".repeat(9_000)
        )
    };
    let (old, new) = (model("1.0e-7", "owner"), model("12345678901234567890.5", "attacker"));
    let guards = index([guard("terrafusion.ai", "GAMAConfig", &old, PathFilter::Everything, "one")]);
    let body = update_of("terrafusion.ai", "GAMAConfig", &new, &old, "");
    let patch = patch_of(&body, &guards).unwrap();
    let operations = String::from_utf8(patch.operations).unwrap();
    assert!(
        operations.contains(r#"{"op":"add","path":"/spec/parameters/part","value":1.0e-7}"#),
        "{operations}"
    );
    // A whole of which every level differs is put back too.
    let new = new.replacen(r#"}1}"#, "}2}", 1).replace(":1}", ":2}");
    let body = update_of("terrafusion.ai", "GAMAConfig", &new, &old, "");
    let patch = patch_of(&body, &guards).unwrap();
    assert!(patch.operations.windows(14).any(|bytes| bytes == b"/spec/paramete".as_slice()));
}

fn workload(spec: &str) -> String {
    format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"x","namespace":"n","generation":1}},"spec":{spec},"status":{{"replicas":1}}}}"#
    )
}

fn put_back(old: &str, new: &str, filter: PathFilter) -> Option<serde_json::Value> {
    let (old, new) = (workload(old), workload(new));
    let guards = index([guard("apps", "Deployment", &old, filter, "one")]);
    let body = update_of("apps", "Deployment", &new, &old, "");
    patch_of(&body, &guards).map(|patch| patched(&new, &patch)["spec"].take())
}

#[test]
fn ignored_paths_keep_what_the_write_makes_of_them() {
    let filter = || PathFilter::ignoring(&["/spec/replicas", "/spec/c/[name=app]/image"]).unwrap();
    let old = r#"{"replicas":1,"c":[{"name":"app","image":"1","env":"good"}],"paused":false}"#;
    let new = r#"{"replicas":5,"c":[{"name":"app","image":"2","env":"bad"}],"paused":true}"#;
    let want = r#"{"replicas":5,"c":[{"name":"app","image":"2","env":"good"}],"paused":false}"#;
    assert_eq!(put_back(old, new, filter()), Some(value(want)));
    let more = r#"{"replicas":5,"c":[{"name":"evil"},{"name":"app","image":"2","env":"bad"}]}"#;
    assert_eq!(put_back(old, more, filter()), Some(value(want)));
    let none = r#"{"replicas":5,"c":[],"paused":false}"#;
    let back = r#"{"replicas":5,"c":[{"name":"app","image":"1","env":"good"}],"paused":false}"#;
    assert_eq!(put_back(old, none, filter()), Some(value(back)));
}

#[test]
fn only_what_is_pinned_is_put_back() {
    let filter = || PathFilter::only(&["/spec/c/[name=app]/image", "/spec/strategy/type"]).unwrap();
    let old = r#"{"c":[{"name":"app","image":"1"}],"strategy":{"type":"Recreate"}}"#;
    let new = r#"{"replicas":3,"c":[{"name":"side","image":"x"},{"name":"app","image":"2","env":"new"}]}"#;
    let want = r#"{"replicas":3,"c":[{"name":"side","image":"x"},{"name":"app","image":"1","env":"new"}],"strategy":{"type":"Recreate"}}"#;
    assert_eq!(put_back(old, new, filter()), Some(value(want)));
    let renamed = r#"{"c":[{"name":"other","image":"2"}],"strategy":{"type":"Recreate"}}"#;
    let want =
        r#"{"c":[{"name":"other","image":"2"},{"name":"app","image":"1"}],"strategy":{"type":"Recreate"}}"#;
    assert_eq!(put_back(old, renamed, filter()), Some(value(want)));
}

#[test]
fn what_cannot_be_put_back_by_itself_is_refused_with_the_reason() {
    // The ignored part has no place any more in what is approved.
    let filter = PathFilter::ignoring(&["/spec/a/b"]).unwrap();
    let (old, new) = (workload("{}"), workload(r#"{"a":{"b":1}}"#));
    let guards = index([guard("apps", "Deployment", &old, filter, "one")]);
    let body = update_of("apps", "Deployment", &new, &old, "");
    assert_eq!(patch_of(&body, &guards), None);
    assert!(why(&body, &guards).contains("\nnot put back: pinned content cannot be put back without"));
}

#[test]
fn a_drifted_object_is_never_put_back() {
    let approved = config_map(r#"{"a":"1"}"#);
    let guards = index([guard("", "ConfigMap", &approved, PathFilter::Everything, "one")]);
    let body = update(&edited(r#"{"a":"3"}"#), &config_map(r#"{"a":"2"}"#));
    assert_eq!(patch_of(&body, &guards), None);
    assert!(
        why(&body, &guards).contains("\nnot put back: what is stored is not what DriftGuard g/one approves")
    );
}

#[test]
fn secrets_server_side_applies_new_objects_and_dry_runs_for_the_hash_are_refused_not_rewritten() {
    let old = config_map(r#"{"a":"1"}"#);
    let new = edited(r#"{"a":"9"}"#);
    let guards = index([guard("", "ConfigMap", &old, PathFilter::Everything, "one")]);
    let applied = new.replace(r#"{"manager":"attacker"}"#, r#"{"manager":"tool","operation":"Apply"}"#);
    let options =
        |manager: &str, dry: bool| format!(r#","dryRun":{dry},"options":{{"fieldManager":"{manager}"}}"#);
    let body = update_of("", "ConfigMap", &applied, &old, &options("tool", false));
    assert_eq!(patch_of(&body, &guards), None);
    assert!(why(&body, &guards).contains("\nnot put back: a server-side apply is refused"));
    // An apply of somebody else long ago does not count.
    assert!(patch_of(&update(&applied, &old), &guards).is_some());
    let hash_only = update_of("", "ConfigMap", &new, &old, &options("driftguard-hash-1", true));
    assert_eq!(patch_of(&hash_only, &guards), None);
    let image = hash_object(new.as_bytes(), &Scope::new("", "ConfigMap", PathFilter::Everything)).unwrap();
    assert!(why(&hash_only, &guards).contains(&format!("\nimage sha256:{image}\n")));
    // The name alone is no dry run, and other dry runs show what would be stored.
    assert!(
        patch_of(&update_of("", "ConfigMap", &new, &old, &options("driftguard-hash-1", false)), &guards)
            .is_some()
    );
    assert!(patch_of(&update_of("", "ConfigMap", &new, &old, &options("kubectl", true)), &guards).is_some());
    let create = update(&new, "null").replace("UPDATE", "CREATE");
    assert_eq!(patch_of(&create, &guards), None);
    assert!(why(&create, &guards).contains("\nnot put back: there is no stored content"));

    let secret = |value: &str| config_map(&format!(r#"{{"k":"{value}"}}"#)).replace("ConfigMap", "Secret");
    let guards = index([guard("", "Secret", &secret("b2xk"), PathFilter::Everything, "one")]);
    let body = update_of("", "Secret", &secret("bmV3"), &secret("b2xk"), "");
    assert_eq!(patch_of(&body, &guards), None);
    let said = why(&body, &guards);
    assert!(said.contains("\nnot put back: Secrets are refused") && !said.contains("sha256"), "{said}");
}

#[test]
fn with_any_mix_of_guards_the_gate_passes_what_was_put_back() {
    let old = config_map(r#"{"a":"1","b":"1","c":"1","d":"1"}"#);
    let new = edited(r#"{"a":"2","b":"2","c":"2","d":"1"}"#);
    let modes = [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Warn, Enforcement::Audit];
    let pause = Pause { by: PausedBy::Suspend, reason: String::new(), until: Timestamp::MAX };
    let pick = |key: &str, mode: Enforcement, paused: bool| Guard {
        enforcement: mode,
        pauses: paused.then(|| pause.clone()).into_iter().collect(),
        ..guard("", "ConfigMap", &old, PathFilter::only(&[format!("/data/{key}")]).unwrap(), key)
    };
    for mode in modes {
        for paused in [false, true] {
            let guards = index([
                pick("a", Enforcement::Rewrite, false),
                pick("b", mode, paused),
                pick("d", Enforcement::Deny, false),
            ]);
            let patch = patch_of(&update(&new, &old), &guards);
            assert_eq!(patch.is_none(), mode == Enforcement::Deny && !paused, "{mode:?} {paused}");
            let Some(patch) = patch else {
                assert!(why(&update(&new, &old), &guards).contains("DriftGuard g/b refuses it as well"));
                continue;
            };
            let after = patched(&new, &patch);
            assert_eq!(after["data"]["a"], "1");
            assert_eq!(after["data"]["b"], if mode == Enforcement::Rewrite && !paused { "1" } else { "2" });
            assert_eq!(after["data"]["c"], "2", "nobody pins it");
            let verdict = judge(update(&after.to_string(), &old).as_bytes(), &guards, now()).unwrap().verdict;
            assert!(!matches!(verdict, Verdict::Deny { .. }), "{verdict:?}");
            // Called again after another webhook, there is nothing left to do.
            assert_eq!(patch_of(&update(&after.to_string(), &old), &guards), None);
        }
    }
}

#[test]
fn a_paused_guard_or_one_that_cannot_be_evaluated_puts_nothing_back() {
    let old = config_map(r#"{"a":"1"}"#);
    let body = update(&edited(r#"{"a":"2"}"#), &old);
    let one = || guard("", "ConfigMap", &old, PathFilter::Everything, "one");
    let pause = Pause { by: PausedBy::Exception("e".into()), reason: String::new(), until: Timestamp::MAX };
    assert_eq!(patch_of(&body, &index([Guard { pauses: vec![pause.clone()].into(), ..one() }])), None);
    let broken = InvalidGuard {
        id: GuardId { namespace: "g".into(), name: "zz".into() },
        generation: 1,
        uid: "".into(),
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        target: Some(one().target),
        reason: "InvalidSpec",
        message: String::new(),
    };
    let beside = |broken: &InvalidGuard| {
        let broken = GuardState::Invalid(Arc::new(broken.clone()));
        Index::build(vec![GuardState::Valid(Arc::new(one())), broken])
    };
    let both = beside(&broken);
    assert_eq!(patch_of(&body, &both), None);
    assert!(why(&body, &both).contains("\nnot put back: DriftGuard g/zz cannot be evaluated"));
    let paused = InvalidGuard { pauses: vec![pause].into(), ..broken };
    assert!(patch_of(&body, &beside(&paused)).is_some(), "it says nothing while it is paused");
}
