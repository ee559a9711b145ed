//! Guards and observations for the tests of this module.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use crate::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use crate::core::hash::ContentHash;
use crate::core::index::Index;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::store::Observation;

/// The hash of a ConfigMap whose data is `{"a": "1"}`.
pub(in crate::audit) fn approved() -> ContentHash {
    ContentHash::of(br#"{"a": "1"}"#)
}

/// A ConfigMap whose only value is `a`.
pub(in crate::audit) fn config_map(
    namespace: &str,
    name: &str,
    uid: &str,
    revision: u64,
    value: &str,
) -> String {
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{uid}","resourceVersion":"{revision}"}},"data":{{"a":"{value}"}}}}"#
    )
}

/// A guard of a ConfigMap, or of a kind without namespaces that is named alike, in namespace `guards`.
pub(in crate::audit) fn guard(name: &str, namespace: Option<&str>, target: &str) -> Guard {
    Guard {
        id: GuardId { namespace: "guards".into(), name: name.into() },
        uid: name.into(),
        generation: 1,
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: namespace.map(Into::into),
            name: target.into(),
        },
        scope: Scope::new("", "ConfigMap", PathFilter::default()),
        expected: approved(),
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

pub(in crate::audit) fn index(guards: Vec<Guard>) -> Index {
    Index::build(guards.into_iter().map(|guard| GuardState::Valid(Arc::new(guard))).collect())
}

pub(in crate::audit) fn observation(version: u64, guards: Vec<Guard>) -> Arc<Observation> {
    Arc::new(Observation { version, index: Arc::new(index(guards)), ..Observation::default() })
}
