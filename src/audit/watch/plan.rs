//! Which watches the guards need. Pure.
//!
//! Watches cover what is guarded and little more: a few objects of a namespace by their names, more of
//! them by their namespace, and very many namespaces all at once. How each guard's target is watched
//! follows from the guards alone, so that watches which another guard does not concern stay as they are.

use std::collections::{BTreeMap, HashSet};

use crate::core::guard::{Guard, GuardState, Target, url_segment};
use crate::core::index::Index;
use crate::core::text::Text;
use crate::store::field_value;

/// Most objects of a namespace that are watched by name, each by a watch of its own.
const MOST_NAMES: usize = 4;
/// Most watches of one resource; each is a connection. With more, wider ones take their place.
const MOST_WATCHES: usize = 100;

/// A resource in the version in which its objects are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Resource {
    /// API group, empty for core.
    pub(super) group: Text,
    /// API version.
    pub(super) version: Text,
    /// Plural name.
    pub(super) plural: Text,
}

impl Resource {
    fn of(target: &Target) -> Self {
        Self { group: target.group.clone(), version: target.version.clone(), plural: target.resource.clone() }
    }

    /// Whether this is the resource of a target, in the version that its guard hashes.
    pub(super) fn is_of(&self, target: &Target) -> bool {
        self.plural == target.resource && self.group == target.group && self.version == target.version
    }

    /// `plural.group`, as people write it.
    pub(super) fn word(&self) -> String {
        if self.group.is_empty() { (&self.plural).into() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `group/version`, or `version` alone for core.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            (&self.version).into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// What one watch covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The resource.
    pub(super) resource: Resource,
    /// The namespace; `None` for all of them, and for cluster-scoped kinds.
    pub(super) namespace: Option<Text>,
    /// The only object; `None` for all.
    pub(super) name: Option<Text>,
}

impl Place {
    /// All objects of a resource.
    pub(super) fn everywhere(resource: Resource) -> Self {
        Self { resource, namespace: None, name: None }
    }

    /// Path of the collection in an API server.
    pub(super) fn path(&self) -> String {
        let Resource { group, plural, .. } = &self.resource;
        let root = if group.is_empty() { "/api" } else { "/apis" };
        let within = self.namespace.as_deref().map(|name| format!("/namespaces/{}", url_segment(name)));
        format!("{root}/{}{}/{plural}", self.resource.api_version(), within.unwrap_or_default())
    }

    /// What a query of the collection needs to select the one object, with `&` before it.
    pub(super) fn selector(&self) -> String {
        let select =
            |name: &Text| format!("&fieldSelector=metadata.name%3D{}", url_segment(&field_value(name)));
        self.name.as_ref().map(select).unwrap_or_default()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.resource.word())?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in {namespace}"))
    }
}

/// All watches, each with the positions in the index of the guards whose targets it covers.
pub(super) type Plan = BTreeMap<Place, Vec<u32>>;

/// The valid guard at a position of an index.
pub(super) fn guard_at(index: &Index, position: u32) -> Option<&std::sync::Arc<Guard>> {
    match index.guards().get(usize::try_from(position).ok()?)? {
        GuardState::Valid(guard) => Some(guard),
        GuardState::Invalid(_) => None,
    }
}

/// What is guarded in one namespace, or of one cluster-scoped kind.
#[derive(Default)]
struct Guarded {
    positions: Vec<u32>,
    /// Different names, as far as they may be watched by name.
    names: Vec<Text>,
}

impl Guarded {
    fn is_few(&self) -> bool {
        self.names.len() <= MOST_NAMES
    }
}

/// The watches that the guards of an index need. Of the resources in `narrow` not all namespaces may be
/// watched at once.
///
/// An invalid guard needs none: what it pins of its target is not known.
pub(super) fn plan(index: &Index, narrow: &HashSet<Resource>) -> Plan {
    let mut all: BTreeMap<Resource, BTreeMap<Option<Text>, Guarded>> = BTreeMap::new();
    for (position, state) in index.guards().iter().enumerate() {
        let GuardState::Valid(guard) = state else { continue };
        let (Ok(position), target) = (u32::try_from(position), &guard.target) else { continue };
        let guarded =
            all.entry(Resource::of(target)).or_default().entry(target.namespace.clone()).or_default();
        guarded.positions.push(position);
        if guarded.is_few() && !guarded.names.contains(&target.name) {
            guarded.names.push(target.name.clone());
        }
    }
    let mut plan = Plan::new();
    for (resource, namespaces) in all {
        place(index, resource, namespaces, narrow, &mut plan);
    }
    plan
}

fn place(
    index: &Index,
    resource: Resource,
    namespaces: BTreeMap<Option<Text>, Guarded>,
    narrow: &HashSet<Resource>,
    plan: &mut Plan,
) {
    if namespaces.len() > MOST_WATCHES && !narrow.contains(&resource) {
        let positions = namespaces.into_values().flat_map(|guarded| guarded.positions).collect();
        plan.insert(Place::everywhere(resource), positions);
        return;
    }
    let watches = |guarded: &Guarded| if guarded.is_few() { guarded.names.len() } else { 1 };
    let by_name = namespaces.values().map(watches).sum::<usize>() <= MOST_WATCHES;
    for (namespace, guarded) in namespaces {
        let place = |name| Place { resource: resource.clone(), namespace: namespace.clone(), name };
        if !by_name || !guarded.is_few() {
            plan.insert(place(None), guarded.positions);
            continue;
        }
        for position in guarded.positions {
            let Some(guard) = guard_at(index, position) else { continue };
            plan.entry(place(Some(guard.target.name.clone()))).or_default().push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{guard, index};
    use super::*;

    fn places(plan: &Plan) -> Vec<String> {
        plan.iter().map(|(place, guards)| format!("{place}: {}", guards.len())).collect()
    }

    fn many(namespaces: usize, names: usize) -> Index {
        let all = (0..namespaces * names).map(|number| {
            let namespace = format!("n{:03}", number / names);
            guard(&format!("g{number:04}"), Some(&namespace), &format!("x{number:04}"))
        });
        index(all.collect())
    }

    #[test]
    fn a_few_objects_of_a_namespace_are_watched_by_name_and_more_by_the_namespace() {
        let few = plan(&many(2, MOST_NAMES), &HashSet::new());
        assert_eq!(few.len(), 2 * MOST_NAMES);
        assert_eq!(places(&few)[0], "configmaps x0000 in n000: 1");
        let more = plan(&many(2, MOST_NAMES + 1), &HashSet::new());
        assert_eq!(places(&more), ["configmaps in n000: 5", "configmaps in n001: 5"]);
    }

    #[test]
    fn several_guards_of_one_object_share_its_watch() {
        let two = [guard("a", Some("n"), "x"), guard("b", Some("n"), "x")];
        assert_eq!(places(&plan(&index(two.into()), &HashSet::new())), ["configmaps x in n: 2"]);
    }

    #[test]
    fn objects_without_a_namespace_are_watched_likewise() {
        let of = |count: usize| (0..count).map(|n| guard(&format!("g{n}"), None, &format!("x{n}"))).collect();
        assert_eq!(places(&plan(&index(of(1)), &HashSet::new())), ["configmaps x0: 1"]);
        assert_eq!(places(&plan(&index(of(5)), &HashSet::new())), ["configmaps: 5"]);
    }

    #[test]
    fn many_names_in_many_namespaces_make_no_crowd_of_watches() {
        assert_eq!(plan(&many(25, 4), &HashSet::new()).len(), 100);
        assert_eq!(places(&plan(&many(26, 4), &HashSet::new()))[0], "configmaps in n000: 4");
    }

    #[test]
    fn very_many_namespaces_are_watched_at_once_where_that_is_allowed() {
        assert_eq!(plan(&many(100, 1), &HashSet::new()).len(), 100);
        let wide = plan(&many(101, 1), &HashSet::new());
        assert_eq!(places(&wide), ["configmaps: 101"]);
        let narrow = wide.into_keys().map(|place| place.resource).collect();
        assert_eq!(plan(&many(101, 1), &narrow).len(), 101);
    }

    #[test]
    fn another_guard_leaves_other_watches_as_they_are() {
        let mut guards = vec![guard("a", Some("n"), "x"), guard("b", Some("m"), "y")];
        let before: Vec<Place> = plan(&index(guards.clone()), &HashSet::new()).into_keys().collect();
        guards.push(guard("c", Some("o"), "z"));
        let after = plan(&index(guards), &HashSet::new());
        assert!(before.iter().all(|place| after.contains_key(place)), "{after:?}");
    }

    #[test]
    fn a_place_has_the_path_and_the_selector_of_its_objects() {
        let plan = plan(&index(vec![guard("a", Some("n"), "x,y=z")]), &HashSet::new());
        let place = plan.into_keys().next().unwrap_or_else(|| unreachable!());
        assert_eq!(place.path(), "/api/v1/namespaces/n/configmaps");
        assert_eq!(place.selector(), "&fieldSelector=metadata.name%3Dx%5C%2Cy%5C%3Dz");
        let apps = Resource { group: "apps".into(), version: "v1".into(), plural: "deployments".into() };
        assert_eq!(Place::everywhere(apps).path(), "/apis/apps/v1/deployments");
    }
}
