//! The index: every guard, found by the object that it pins.
//!
//! Built anew whenever a guard changes and then never altered, so that readers share it behind an
//! atomic pointer. A look-up costs the same however many guards there are, and allocates nothing.
//! Guards that cannot be enforced, kinds that are ambiguous and several guards on one target are
//! states kept here, never reasons to leave a guard out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use super::guard::{GuardState, Target};
use super::text::Text;

/// An immutable snapshot of all guards.
///
/// Names stand in the guards alone: the table holds positions, a few bytes for each guard.
#[derive(Debug, Default)]
pub struct Index {
    guards: Vec<GuardState>,
    /// By target, the position of the first guard of it.
    first: HashTable<u32>,
    /// By position, the next guard of the same target: few guards have one.
    next: HashMap<u32, u32>,
    /// Groups and resources that any guard pins.
    resources: HashMap<Text, HashSet<Text>>,
    /// Keyed by chance, so that nobody can choose names that collide.
    hasher: RandomState,
}

impl Index {
    /// Builds the index of these guards.
    #[must_use]
    pub fn build(mut guards: Vec<GuardState>) -> Self {
        // In order already where they come from a sorted map, which this finds out in one pass.
        guards.sort_by(|left, right| left.id().cmp(right.id()));
        let hasher = RandomState::new();
        let mut first = HashTable::with_capacity(guards.len());
        let mut next = HashMap::new();
        let mut resources: HashMap<Text, HashSet<Text>> = HashMap::new();
        // From the end, so that each target's first guard is what the table holds in the end.
        for (position, state) in guards.iter().enumerate().rev() {
            let Some(target) = state.target() else { continue };
            // The API server's memory would be full long before.
            let Ok(place) = u32::try_from(position) else { continue };
            let of = |at: &u32| target_at(&guards, *at);
            let slot = first.entry(
                hash(&hasher, key(target)),
                |at| of(at).is_some_and(|other| key(other) == key(target)),
                |at| of(at).map_or(0, |other| hash(&hasher, key(other))),
            );
            if let hashbrown::hash_table::Entry::Occupied(later) = &slot {
                next.insert(place, *later.get());
            }
            slot.insert(place);
            if !resources.get(target.group.as_str()).is_some_and(|all| all.contains(target.resource.as_str()))
            {
                resources.entry(target.group.clone()).or_default().insert(target.resource.clone());
            }
        }
        Self { guards, first, next, resources, hasher }
    }

    /// All guards, sorted by namespace and name.
    #[must_use]
    pub fn guards(&self) -> &[GuardState] {
        &self.guards
    }

    /// The guards of one object; `namespace` is empty for a cluster-scoped one.
    pub fn lookup<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &'a GuardState> + Clone + use<'a> {
        let wanted = (group, resource, namespace, name);
        let is = |at: &u32| target_at(&self.guards, *at).is_some_and(|target| key(target) == wanted);
        let first = self.first.find(hash(&self.hasher, wanted), is).copied();
        std::iter::successors(first, |at| self.next.get(at).copied())
            .filter_map(|at| self.guards.get(usize::try_from(at).ok()?))
    }

    /// The guards of the object that `target` names, whatever version each of them hashes.
    pub fn guards_of<'a>(
        &'a self,
        target: &Target,
    ) -> impl Iterator<Item = &'a GuardState> + Clone + use<'a> {
        self.lookup(
            &target.group,
            &target.resource,
            target.namespace.as_deref().unwrap_or_default(),
            &target.name,
        )
    }

    /// Whether any guard pins an object of this resource.
    #[must_use]
    pub fn guards_resource(&self, group: &str, resource: &str) -> bool {
        self.resources.get(group).is_some_and(|resources| resources.contains(resource))
    }
}

/// Group, resource, namespace and name. Cluster-scoped objects stand under the empty namespace, which
/// no other can have.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

fn key(target: &Target) -> Key<'_> {
    (&target.group, &target.resource, target.namespace.as_deref().unwrap_or_default(), &target.name)
}

fn hash(hasher: &RandomState, key: Key<'_>) -> u64 {
    hasher.hash_one(key)
}

fn target_at(guards: &[GuardState], at: u32) -> Option<&Target> {
    guards.get(usize::try_from(at).ok()?)?.target()
}

#[cfg(test)]
mod tests {
    use super::super::guard::{GuardId, InvalidGuard};
    use std::sync::Arc;

    use super::*;

    fn guard(name: &str, namespace: Option<&str>, target: &str) -> GuardState {
        GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "guards".into(), name: name.into() },
            generation: 1,
            uid: "".into(),
            pauses: Default::default(),
            authorship: crate::core::guard::Authorship::Unknown,
            target: Some(Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: namespace.map(Into::into),
                name: target.into(),
            }),
            reason: "Test",
            message: String::new(),
        }))
    }

    fn names<'a>(found: impl Iterator<Item = &'a GuardState>) -> Vec<&'a str> {
        found.map(|state| state.id().name.as_str()).collect()
    }

    #[test]
    fn a_guard_is_found_by_exactly_its_target() {
        let index = Index::build(vec![guard("a", Some("n"), "x"), guard("b", Some("n"), "y")]);
        assert_eq!(names(index.lookup("", "configmaps", "n", "x")), ["a"]);
        assert!(names(index.lookup("", "configmaps", "m", "x")).is_empty());
        assert!(names(index.lookup("", "secrets", "n", "x")).is_empty());
        assert!(names(index.lookup("apps", "configmaps", "n", "x")).is_empty());
        assert!(names(index.lookup("", "configmaps", "n", "z")).is_empty());
    }

    #[test]
    fn several_guards_of_one_target_all_stand() {
        let index = Index::build(vec![guard("b", Some("n"), "x"), guard("a", Some("n"), "x")]);
        assert_eq!(names(index.lookup("", "configmaps", "n", "x")), ["a", "b"]);
    }

    #[test]
    fn cluster_scoped_targets_have_no_namespace() {
        let index = Index::build(vec![guard("a", None, "x")]);
        assert_eq!(names(index.lookup("", "configmaps", "", "x")), ["a"]);
    }

    #[test]
    fn a_guard_without_a_known_target_is_kept() {
        let mut state = guard("a", None, "x");
        if let GuardState::Invalid(invalid) = &mut state {
            Arc::make_mut(invalid).target = None;
        }
        assert_eq!(Index::build(vec![state]).guards().len(), 1);
    }
}
