//! The entry for the definitions (CRDs) of guarded kinds, and of our own.
//!
//! Deleting a definition deletes every object of it without any review, and another schema changes
//! what stored objects say. Neither is ours to refuse, so the entry is `Ignore`; serve alerts.

use std::collections::BTreeSet;

use crate::core::guard::FailurePolicy;
use crate::core::index::Index;

use super::{Class, Demands, Hook, Phase};

/// API group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Their plural resource name.
pub const RESOURCE: &str = "customresourcedefinitions";
/// Definitions of our own kinds that guarding depends on.
pub const OWN: [&str; 2] = ["driftguards.terrafusion.ai", "driftguardexceptions.terrafusion.ai"];

/// The class of the entry.
pub(super) const CLASS: Class<'static> = Class {
    group: GROUP,
    resource: RESOURCE,
    version: "v1",
    namespaced: false,
    hook: Hook::Validate,
    policy: FailurePolicy::Ignore,
    phase: Phase::Define,
};

/// Whether a definition matters to any guard.
#[must_use]
pub fn matters(index: &Index, definition: &str) -> bool {
    if index.guards().is_empty() {
        return false;
    }
    OWN.contains(&definition)
        || definition
            .split_once('.')
            .is_some_and(|(resource, group)| group.contains('.') && index.guards_resource(group, resource))
}

/// Names of the definitions that matter: none without a guard.
pub(super) fn names(index: &Index) -> BTreeSet<String> {
    let targets: Vec<_> = index.guards().iter().filter_map(|state| state.target()).collect();
    if targets.is_empty() {
        return BTreeSet::new();
    }
    // Groups without a dot are built in; of others that are, no definition bears the name.
    let custom = targets.iter().filter(|target| target.group.contains('.'));
    let of_kinds = custom.map(|target| format!("{}.{}", target.resource, target.group));
    of_kinds.chain(OWN.map(str::to_owned)).collect()
}

/// Asks for these definitions.
pub(super) fn demand<'a>(demands: &mut Demands<'a>, names: &'a BTreeSet<String>) {
    if !names.is_empty() {
        demands.entry(CLASS).or_default().extend(names.iter().map(|name| ("", name.as_str())));
    }
}
