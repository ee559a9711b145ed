#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use serde_json::{Value, json};

use super::*;
use crate::core::exceptions::{Exception, Terms};
use crate::core::kinds::KindEntry;
use crate::store::exceptions::Exceptions;

const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn settings() -> Settings {
    Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "terrafusion-system".into(),
        longest_pause: pause::LONGEST,
    }
}

fn catalog() -> Catalog {
    let entry = |group: &str, kind: &str, plural: &str, namespaced| KindEntry {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        namespaced,
        preferred: true,
    };
    Catalog::new(vec![
        entry("", "ConfigMap", "configmaps", true),
        entry("", "Namespace", "namespaces", false),
        entry("coordination.k8s.io", "Lease", "leases", true),
        entry("a.io", "Widget", "widgets", true),
        entry("b.io", "Widget", "widgets", true),
    ])
}

/// A guard in namespace `team` on ConfigMap `settings`, with `spec` and `metadata` merged in.
fn stored_with(spec: Value, metadata: Value) -> Stored {
    let mut all_spec = json!({"targetKind": "configmap", "targetName": "settings", "expectedHash": HASH});
    let mut all_metadata =
        json!({"name": "g", "namespace": "team", "uid": "u", "generation": 3, "resourceVersion": "9"});
    for (base, more) in [(&mut all_spec, spec), (&mut all_metadata, metadata)] {
        let Value::Object(more) = more else { panic!("not an object") };
        base.as_object_mut().unwrap().extend(more);
    }
    // Through text, as it arrives.
    let text = json!({"metadata": all_metadata, "spec": all_spec}).to_string();
    serde_json::from_str(&text).unwrap()
}

fn state(spec: Value) -> GuardState {
    convert(&stored_with(spec, json!({})), &catalog(), &settings(), None)
}

fn valid(spec: Value) -> Arc<Guard> {
    match state(spec) {
        GuardState::Valid(guard) => guard,
        GuardState::Invalid(invalid) => panic!("{invalid:?}"),
    }
}

fn invalid(spec: Value) -> Arc<InvalidGuard> {
    match state(spec) {
        GuardState::Valid(guard) => panic!("{guard:?}"),
        GuardState::Invalid(invalid) => invalid,
    }
}

#[test]
fn a_guard_of_only_the_required_fields_gets_every_default() {
    let guard = valid(json!({}));
    assert_eq!(guard.id.to_string(), "team/g");
    assert_eq!((guard.uid.as_str(), guard.generation), ("u", 3));
    assert_eq!(guard.target.to_string(), "ConfigMap/team/settings");
    assert_eq!(guard.target.resource, "configmaps");
    assert_eq!(guard.enforcement, Enforcement::Deny);
    assert_eq!(guard.failure_policy, FailurePolicy::Fail);
    assert_eq!(guard.deletion_policy, DeletionPolicy::Allow);
    assert_eq!(guard.scope.filter(), &PathFilter::everything());
    assert_eq!(guard.expected, HASH.parse().unwrap());
    assert_eq!(guard.managed_by, None);
}

#[test]
fn a_target_may_lie_in_another_namespace() {
    assert_eq!(valid(json!({"targetNamespace": "other"})).target.to_string(), "ConfigMap/other/settings");
}

#[test]
fn a_cluster_scoped_target_has_no_namespace_whatever_the_guard_says() {
    let guard = valid(json!({"targetKind": "Namespace", "targetName": "prod", "targetNamespace": "x"}));
    assert_eq!(guard.target.to_string(), "Namespace/prod");
}

#[test]
fn the_default_enforcement_counts_only_where_the_spec_names_none() {
    let audit = Settings { default_enforcement: Enforcement::Audit, ..settings() };
    for (spec, expected) in [
        (json!({}), Enforcement::Audit),
        (json!({"enforcement": "Deny"}), Enforcement::Deny),
        (json!({"enforcement": "Rewrite"}), Enforcement::Rewrite),
        (json!({"enforcement": "Warn"}), Enforcement::Warn),
    ] {
        let state = convert(&stored_with(spec, json!({})), &catalog(), &audit, None);
        let GuardState::Valid(guard) = state else { panic!("{state:?}") };
        assert_eq!(guard.enforcement, expected);
    }
}

#[test]
fn targets_in_kube_system_fail_open_unless_the_guard_says_otherwise() {
    let policy = |spec| valid(spec).failure_policy;
    assert_eq!(policy(json!({"targetNamespace": "kube-system"})), FailurePolicy::Ignore);
    assert_eq!(
        policy(json!({"targetNamespace": "kube-system", "failurePolicy": "Fail"})),
        FailurePolicy::Fail
    );
    assert_eq!(policy(json!({"failurePolicy": "Ignore"})), FailurePolicy::Ignore);
}

#[test]
fn further_approved_hashes_keep_their_end() {
    let until = "2026-12-01T00:00:00Z";
    let guard = valid(json!({"alsoApproved": [{"hash": HASH, "until": until, "reason": "next release"}]}));
    assert_eq!(guard.also_approved[0].until, Some(until.parse().unwrap()));
    assert_eq!(guard.also_approved[0].reason.as_deref(), Some("next release"));
}

#[test]
fn paths_narrow_the_scope() {
    let ignoring = valid(json!({"ignorePaths": ["/data/a"]}));
    assert_eq!(ignoring.scope.filter(), &PathFilter::ignoring(&["/data/a"]).unwrap());
    let only = valid(json!({"onlyPaths": ["/data/a"]}));
    assert_eq!(only.scope.filter(), &PathFilter::only(&["/data/a"]).unwrap());
}

#[test]
fn an_unknown_kind_and_an_ambiguous_one_are_told_apart() {
    let unknown = invalid(json!({"targetKind": "Gizmo"}));
    assert_eq!((unknown.reason, unknown.target.clone()), (reasons::TARGET_UNKNOWN, None));
    let ambiguous = invalid(json!({"targetKind": "Widget"}));
    assert_eq!(ambiguous.reason, reasons::TARGET_AMBIGUOUS);
    assert!(ambiguous.message.contains("targetApiVersion"), "{}", ambiguous.message);
    assert_eq!(valid(json!({"targetKind": "Widget", "targetApiVersion": "b.io/v1"})).target.group, "b.io");
}

#[test]
fn a_refused_target_is_neither_matched_nor_held() {
    let refused = invalid(json!({"targetKind": "Lease"}));
    assert_eq!((refused.reason, refused.target.clone()), (reasons::TARGET_NOT_ALLOWED, None));
}

#[test]
fn names_that_no_object_can_have_are_refused() {
    for name in ["", ".", "..", "a/b", "a%b"] {
        let refused = invalid(json!({"targetName": name}));
        assert_eq!((refused.reason, refused.target.clone()), (reasons::INVALID_SPEC, None), "{name}");
    }
}

#[test]
fn what_cannot_be_used_names_its_field_and_keeps_the_target_held() {
    for (spec, field) in [
        (json!({"expectedHash": "abc"}), "spec.expectedHash"),
        (json!({"alsoApproved": [{"hash": "abc"}]}), "spec.alsoApproved[0].hash"),
        (json!({"ignorePaths": ["data"]}), "spec.ignorePaths"),
        (json!({"onlyPaths": ["data"]}), "spec.onlyPaths"),
        (json!({"onlyPaths": ["/data/a"], "ignorePaths": ["/data/b"]}), "exclude each other"),
        (json!({"enforcement": "Explode"}), "Explode"),
        (json!({"autoRemediate": "yes"}), "cannot be read"),
    ] {
        let found = invalid(spec);
        assert_eq!(found.reason, reasons::INVALID_SPEC);
        assert!(found.message.contains(field), "{}", found.message);
        assert_eq!(found.target.as_ref().unwrap().to_string(), "ConfigMap/team/settings");
        assert_eq!((found.id.to_string().as_str(), found.generation), ("team/g", 3));
    }
}

#[test]
fn a_broken_guard_that_would_not_block_holds_nothing() {
    for word in ["Warn", "Audit"] {
        let found = invalid(json!({"expectedHash": "abc", "enforcement": word}));
        assert_eq!(found.target, None);
    }
    let audit = Settings { default_enforcement: Enforcement::Audit, ..settings() };
    let broken = stored_with(json!({"expectedHash": "abc"}), json!({}));
    assert!(convert(&broken, &catalog(), &audit, None).target().is_none());
}

#[test]
fn a_spec_that_is_no_object_is_an_invalid_guard_not_an_error() {
    for spec in ["null", "7", "[]", "{}", "\"x\""] {
        let stored: Stored = serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"g","namespace":"team"}},"spec":{spec}}}"#
        ))
        .unwrap();
        let state = convert(&stored, &catalog(), &settings(), None);
        let GuardState::Invalid(found) = state else { panic!("{state:?}") };
        assert_eq!(found.reason, reasons::INVALID_SPEC, "{spec}");
    }
}

#[test]
fn the_tool_that_applies_the_guard_is_known_by_its_marks() {
    let helm = json!({"app.kubernetes.io/managed-by": "Helm"});
    for (metadata, expected) in [
        (json!({}), None),
        (json!({"labels": helm}), Some(ManagedBy::Helm)),
        (json!({"annotations": {"meta.helm.sh/release-name": "r"}}), Some(ManagedBy::Helm)),
        (json!({"labels": {"app.kubernetes.io/managed-by": "hands"}}), None),
        (json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}), Some(ManagedBy::Flux)),
        (
            json!({"labels": {"helm.toolkit.fluxcd.io/name": "apps", "app.kubernetes.io/managed-by": "Helm"}}),
            Some(ManagedBy::Flux),
        ),
        (
            json!({"labels": helm, "annotations": {"argocd.argoproj.io/tracking-id": "app:g/k:n/g"}}),
            Some(ManagedBy::ArgoCd),
        ),
        (json!({"labels": {"argocd.argoproj.io/instance": "app"}}), Some(ManagedBy::ArgoCd)),
    ] {
        let state = convert(&stored_with(json!({}), metadata.clone()), &catalog(), &settings(), None);
        let GuardState::Valid(guard) = state else { panic!("{state:?}") };
        assert_eq!(guard.managed_by, expected, "{metadata}");
    }
}

#[test]
fn contact_and_runbook_come_from_the_annotations() {
    let metadata = json!({"annotations": {
        "driftguard.terrafusion.ai/contact": " #market-team ",
        "driftguard.terrafusion.ai/runbook": "",
    }});
    let GuardState::Valid(guard) = convert(&stored_with(json!({}), metadata), &catalog(), &settings(), None)
    else {
        panic!("invalid")
    };
    assert_eq!(guard.contact.as_deref(), Some("#market-team"));
    assert_eq!(guard.runbook, None);
}

#[test]
fn a_guard_names_its_author_only_by_a_signature_that_is_valid_for_it() {
    use crate::core::author::{Approved, sign};
    use crate::core::guard::{Author, Signer};
    let key = |byte| SigningKey::new(&[byte; crate::core::signature::KEY_LENGTH]).unwrap();
    let plain = stored_with(json!({}), json!({}));
    let author = Author {
        signer: Arc::new(Signer { user: "alice".into(), groups: vec!["a".into()] }),
        at: "2026-06-01T12:00:00Z".parse().unwrap(),
    };
    let spec = plain.spec();
    let approved = Approved { namespace: "team", name: "g", spec: spec.as_bytes() };
    let annotation = sign(&key(1), approved, &author).unwrap();
    let with = |spec: Value, name: &str| {
        let metadata = json!({"name": name, "annotations": {(names::ANNOTATION_AUTHOR): annotation}});
        stored_with(spec, metadata)
    };
    let authorship = |stored: &Stored, key: Option<&SigningKey>| {
        let GuardState::Valid(guard) = convert(stored, &catalog(), &settings(), key) else { panic!() };
        guard.authorship.clone()
    };
    assert_eq!(authorship(&with(json!({}), "g"), Some(&key(1))), Authorship::Signed(Arc::new(author)));
    for (stored, key) in [
        (with(json!({}), "g"), Some(key(2))),
        (with(json!({}), "g"), None),
        (with(json!({}), "other"), Some(key(1))),
        (with(json!({"autoRemediate": true}), "g"), Some(key(1))),
        (plain, Some(key(1))),
    ] {
        assert_eq!(authorship(&stored, key.as_ref()), Authorship::Unknown);
    }
}

#[test]
fn the_count_is_known_where_the_kind_can_be_scaled_and_the_count_is_pinned() {
    let path: Arc<[String]> = Arc::new(["spec".to_owned(), "replicas".to_owned()]);
    let scales = [(("a.io".to_owned(), "v1".to_owned(), "widgets".to_owned()), path.clone())].into();
    let catalog = catalog().with_replicas_paths(scales);
    let known = |more: Value| {
        let mut spec = json!({"targetKind": "widget", "targetApiVersion": "a.io/v1"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match convert(&stored_with(spec, json!({})), &catalog, &settings(), None) {
            GuardState::Valid(guard) => guard.replicas_path.clone(),
            GuardState::Invalid(invalid) => panic!("{invalid:?}"),
        }
    };
    assert_eq!(known(json!({})), Some(path.clone()));
    assert_eq!(known(json!({"ignorePaths": ["/spec/replicas"]})), None);
    assert_eq!(known(json!({"onlyPaths": ["/spec/template"]})), None);
    assert_eq!(known(json!({"onlyPaths": ["/spec/replicas"]})), Some(path));
    assert_eq!(known(json!({"targetApiVersion": "b.io/v1"})), None);
}

#[test]
fn a_guard_that_cannot_be_used_is_suspended_and_excepted_like_any_other() {
    let exceptions = Exceptions::of(vec![Exception {
        uid: "e".into(),
        namespace: "team".into(),
        name: "e".into(),
        since: "2026-06-01T11:00:00Z".parse().unwrap(),
        terms: Terms::parse(r#"{"guards":{"names":["g"]},"until":"2026-06-01T13:00:00Z","reason":"r"}"#)
            .unwrap(),
    }]);
    let suspend = json!({"until": "2026-06-01T12:00:00Z", "reason": "r"});
    let pauses = |spec: Value| {
        let stored = stored_with(spec, json!({"creationTimestamp": "2026-06-01T11:00:00Z"}));
        let state = convert(&stored, &catalog(), &settings(), None);
        let state = exceptions.apply(state, &stored, pause::LONGEST);
        let GuardState::Invalid(invalid) = state else { panic!("{state:?}") };
        invalid.pauses.iter().map(|pause| pause.by.clone()).collect::<Vec<_>>()
    };
    let both = [PausedBy::Suspend, PausedBy::Exception("e".into())];
    assert_eq!(pauses(json!({"expectedHash": "x", "suspend": suspend})), both);
    // What pins nothing has nothing to let through.
    assert_eq!(pauses(json!({"targetKind": "nothing", "suspend": suspend})), []);
    assert_eq!(pauses(json!({"expectedHash": "x", "suspend": {"until": 7}})), both[1..]);
}
