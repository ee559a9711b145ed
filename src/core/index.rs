//! The index: every guard, found by the object that it pins.
//!
//! Built anew whenever a guard changes and then never altered, so that readers share it behind an
//! atomic pointer. A look-up costs the same however many guards there are, and allocates nothing.
//! Guards that cannot be enforced, kinds that are ambiguous and several guards on one target are
//! states kept here, never reasons to leave a guard out.

use std::collections::HashMap;

use super::guard::{GuardState, Target};

/// Guards by name, of one namespace of one resource.
type ByName = HashMap<String, Vec<usize>>;
/// Guards by namespace, of one resource. Cluster-scoped objects stand under the empty name, which
/// no namespace can have.
type ByNamespace = HashMap<String, ByName>;

/// An immutable snapshot of all guards.
#[derive(Debug, Default)]
pub struct Index {
    guards: Vec<GuardState>,
    by_group: HashMap<String, HashMap<String, ByNamespace>>,
}

impl Index {
    /// Builds the index of these guards.
    #[must_use]
    pub fn build(mut guards: Vec<GuardState>) -> Self {
        guards.sort_by(|left, right| left.id().cmp(right.id()));
        let mut by_group: HashMap<String, HashMap<String, ByNamespace>> = HashMap::new();
        for (position, guard) in guards.iter().enumerate() {
            let Some(target) = guard.target() else { continue };
            by_group
                .entry(target.group.clone())
                .or_default()
                .entry(target.resource.clone())
                .or_default()
                .entry(target.namespace.clone().unwrap_or_default())
                .or_default()
                .entry(target.name.clone())
                .or_default()
                .push(position);
        }
        Self { guards, by_group }
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
        let positions = self
            .by_group
            .get(group)
            .and_then(|resources| resources.get(resource))
            .and_then(|namespaces| namespaces.get(namespace))
            .and_then(|names| names.get(name))
            .map_or(&[] as &[usize], Vec::as_slice);
        positions.iter().map(|&position| &self.guards[position])
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
        self.by_group.get(group).is_some_and(|resources| resources.contains_key(resource))
    }
}

#[cfg(test)]
mod tests {
    use super::super::guard::{GuardId, InvalidGuard};
    use super::*;

    fn guard(name: &str, namespace: Option<&str>, target: &str) -> GuardState {
        GuardState::Invalid(InvalidGuard {
            id: GuardId { namespace: "guards".into(), name: name.into() },
            generation: 1,
            target: Some(Target {
                group: String::new(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: namespace.map(str::to_owned),
                name: target.into(),
            }),
            reason: "Test",
            message: String::new(),
        })
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
            invalid.target = None;
        }
        assert_eq!(Index::build(vec![state]).guards().len(), 1);
    }
}
