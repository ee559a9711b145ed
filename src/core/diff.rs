//! Which pinned paths two versions of an object differ in.
//!
//! Paths only: values are never shown, since they may be a Secret's. Lists are compared place by
//! place. Comparing is a loop over pairs of places, because objects nest to 10,000 levels.

use std::collections::BTreeMap;

use super::canonical::object::Object;
use super::canonical::tree::{Chosen, Kind, NodeId, ROOT, Tree};
use super::canonical::{
    CanonicalError, MAP_QUIRKS, PARAMETER_QUIRKS, Pinned, SPEC_QUIRKS, descend, pinned, top_level,
};
use super::json::{JsonError, Span};
use super::scope::{Scope, ScopeKind};

/// Longest path given, in characters; a longer one is cut and ends in `...`.
const MAX_SHOWN: usize = 120;

/// Most differing children of one container that are looked into. A hostile object has millions, and
/// only the first few paths are ever shown.
const MAX_LOOKED_INTO: usize = 1_000;

/// Paths that differ, the first few of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// JSON Pointers from the object's root, at most as many as were asked for.
    pub paths: Vec<String>,
    /// Whether there are more.
    pub more: bool,
}

/// A part of an object that is compared: where it stands in both, and under which path.
type Part = (Vec<String>, Option<Span>, Option<Span>);

/// The first `limit` pinned paths in which two objects, given as whole JSON texts, differ.
///
/// # Errors
/// [`CanonicalError`] when a text is no JSON object.
pub fn changed_paths(old: &[u8], new: &[u8], scope: &Scope, limit: usize) -> Result<Changes, CanonicalError> {
    let old = Object::read(&mut super::json::Cursor::new(old))?;
    let new = Object::read(&mut super::json::Cursor::new(new))?;
    changed(&old, &new, scope, limit)
}

/// [`changed_paths`] of objects whose top level has been read.
pub(crate) fn changed(
    old: &Object<'_>,
    new: &Object<'_>,
    scope: &Scope,
    limit: usize,
) -> Result<Changes, CanonicalError> {
    let comparison = Comparison::of(old, new, scope, limit, Items::ByPlace)?;
    let paths = comparison.found.iter().map(|place| comparison.shown(*place)).collect();
    Ok(Changes { paths, more: comparison.more })
}

/// Fields by which items of lists are told apart, as Kubernetes' own kinds do, in the order in which they are tried.
const ITEM_FIELDS: [&str; 8] =
    ["name", "key", "type", "containerPort", "port", "mountPath", "devicePath", "ip"];

/// Places that differ, each by the keys that lead to it, neither escaped nor cut. An item of a list is named as
/// `[field=value]`; a list whose items no field tells apart, or whose items are in another order, is one place.
pub(crate) struct ChangedPlaces {
    /// At most as many as were asked for.
    pub(crate) places: Vec<Vec<String>>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// As [`changed`], but with the items of lists compared by their names, for those who go on with the places.
pub(crate) fn changed_places(
    old: &Object<'_>,
    new: &Object<'_>,
    scope: &Scope,
    limit: usize,
) -> Result<ChangedPlaces, CanonicalError> {
    let comparison = Comparison::of(old, new, scope, limit, Items::ByName)?;
    let segments = |place: &usize| comparison.segments(*place).map(str::to_owned).collect::<Vec<_>>();
    let places = comparison.found.iter().map(segments).map(|mut keys| {
        keys.reverse();
        keys
    });
    Ok(ChangedPlaces { places: places.collect(), more: comparison.more })
}

/// How many values a scope pins of an object: scalars, and containers that are empty.
pub(crate) fn pinned_values(object: &Object<'_>, scope: &Scope) -> Result<usize, CanonicalError> {
    let mut count = 0;
    for (keys, span, _) in parts(object, object, scope.kind())? {
        if let Some(side) = Side::read(object, span, &keys, scope)? {
            count += side.tree.leaves(&side.chosen);
        }
    }
    Ok(count)
}

/// Pairs of values to compare. Where the kind pins several fields, each is a pair of its own.
fn parts(old: &Object<'_>, new: &Object<'_>, kind: ScopeKind) -> Result<Vec<Part>, CanonicalError> {
    let of = |keys: &[&str], old, new| (keys.iter().map(|key| (*key).to_owned()).collect(), old, new);
    if matches!(kind, ScopeKind::ConfigMap | ScopeKind::Secret) {
        let fields = ["binaryData", "data", "stringData"];
        return fields.into_iter().map(|field| Ok(of(&[field], old.map(field)?, new.map(field)?))).collect();
    }
    if let (Pinned::Value { keys, span: left, .. }, Pinned::Value { span: right, .. }) =
        (pinned(old, kind)?, pinned(new, kind)?)
    {
        return Ok(vec![of(keys, left, right)]);
    }
    let (left, right) = (top_level(old)?, top_level(new)?);
    let mut named: BTreeMap<String, (Option<Span>, Option<Span>)> = BTreeMap::new();
    for (name, span) in left {
        named.entry(name).or_default().0 = Some(span);
    }
    for (name, span) in right {
        named.entry(name).or_default().1 = Some(span);
    }
    Ok(named.iter().map(|(name, (left, right))| of(&[name], *left, *right)).collect())
}

/// One of the two values.
struct Side<'a> {
    tree: Tree<'a>,
    chosen: Chosen,
}

impl<'a> Side<'a> {
    /// Reads and narrows a part; `None` when nothing of it is scope.
    fn read(
        object: &Object<'a>,
        span: Option<Span>,
        keys: &[String],
        scope: &Scope,
    ) -> Result<Option<Self>, JsonError> {
        let Some(span) = span else { return Ok(None) };
        let quirks = match scope.kind() {
            ScopeKind::ConfigMap | ScopeKind::Secret => MAP_QUIRKS,
            ScopeKind::GamaConfig => PARAMETER_QUIRKS,
            ScopeKind::Other => SPEC_QUIRKS,
        };
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let tree = Tree::read(object.text(), span)?;
        let chosen = tree.choose(scope.filter(), descend(scope.filter(), &keys), quirks)?;
        Ok(chosen.keeps(ROOT).then_some(Self { tree, chosen }))
    }

    fn items(&self, id: NodeId) -> Vec<NodeId> {
        self.tree.children(id).filter(|&child| self.chosen.keeps(child)).collect()
    }
}

/// A step on the way to a place; places form a tree of their own, so that deep ones cost no more.
struct Place {
    above: Option<usize>,
    segment: String,
}

/// What is compared with what in lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Items {
    ByPlace,
    ByName,
}

struct Comparison {
    items: Items,
    /// What differs, as indexes into `places`.
    found: Vec<usize>,
    more: bool,
    limit: usize,
    places: Vec<Place>,
}

impl Comparison {
    fn of(
        old: &Object<'_>,
        new: &Object<'_>,
        scope: &Scope,
        limit: usize,
        items: Items,
    ) -> Result<Self, CanonicalError> {
        let mut comparison = Self { items, found: Vec::new(), more: false, limit, places: Vec::new() };
        for (keys, left, right) in parts(old, new, scope.kind())? {
            let place = comparison.place_of(&keys);
            let left = Side::read(old, left, &keys, scope)?;
            let right = Side::read(new, right, &keys, scope)?;
            match (left, right) {
                (Some(left), Some(right)) => comparison.compare(&left, &right, place)?,
                (Some(side), None) | (None, Some(side)) => comparison.only_on_one_side(&side, place)?,
                (None, None) => {}
            }
        }
        Ok(comparison)
    }

    fn compare(&mut self, old: &Side<'_>, new: &Side<'_>, root: usize) -> Result<(), JsonError> {
        let mut pairs = vec![(ROOT, ROOT, root)];
        while let Some((left, right, place)) = pairs.pop() {
            if self.found.len() == self.limit && self.more {
                return Ok(());
            }
            let before = pairs.len();
            match (old.tree.kind(left), new.tree.kind(right)) {
                (Kind::Object, Kind::Object) => {
                    self.compare_members((old, left), (new, right), place, &mut pairs)?;
                }
                (Kind::Array, Kind::Array) if self.items == Items::ByName => {
                    self.compare_named_items((old, left), (new, right), place, &mut pairs);
                }
                (Kind::Array, Kind::Array) => {
                    self.compare_items((old, left), (new, right), place, &mut pairs);
                }
                _ if old.tree.value(left) == new.tree.value(right) => {}
                _ if equal_scalars(&old.tree, left, &new.tree, right) => {}
                _ => self.report(place),
            }
            // The last pushed is taken first: turn them about, so that paths come in order.
            pairs[before..].reverse();
        }
        Ok(())
    }

    fn compare_members(
        &mut self,
        (old, left): (&Side<'_>, NodeId),
        (new, right): (&Side<'_>, NodeId),
        place: usize,
        pairs: &mut Vec<(NodeId, NodeId, usize)>,
    ) -> Result<(), JsonError> {
        let mut lefts = old.tree.sorted_members(left, &old.chosen)?.into_iter().peekable();
        let mut rights = new.tree.sorted_members(right, &new.chosen)?.into_iter().peekable();
        let mut looked_into = 0;
        loop {
            if self.more || looked_into == MAX_LOOKED_INTO {
                self.more = true;
                return Ok(());
            }
            let order = match (lefts.peek(), rights.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            match order {
                std::cmp::Ordering::Equal => {
                    if let (Some((key, left)), Some((_, right))) = (lefts.next(), rights.next())
                        && old.tree.value(left) != new.tree.value(right)
                    {
                        looked_into += 1;
                        let place = self.below(place, key.into_owned());
                        pairs.push((left, right, place));
                    }
                }
                one_side => {
                    let member = if one_side.is_lt() { lefts.next() } else { rights.next() };
                    if let Some((key, _)) = member {
                        let place = self.below(place, key.into_owned());
                        self.report(place);
                    }
                }
            }
        }
    }

    fn compare_items(
        &mut self,
        (old, left): (&Side<'_>, NodeId),
        (new, right): (&Side<'_>, NodeId),
        place: usize,
        pairs: &mut Vec<(NodeId, NodeId, usize)>,
    ) {
        let (lefts, rights) = (old.items(left), new.items(right));
        let mut looked_into = 0;
        for index in 0..lefts.len().max(rights.len()) {
            if self.more || looked_into == MAX_LOOKED_INTO {
                self.more = true;
                return;
            }
            match (lefts.get(index), rights.get(index)) {
                (Some(&left), Some(&right)) if old.tree.value(left) == new.tree.value(right) => {}
                (Some(&left), Some(&right)) => {
                    looked_into += 1;
                    let place = self.below(place, index.to_string());
                    pairs.push((left, right, place));
                }
                _ => {
                    let place = self.below(place, index.to_string());
                    self.report(place);
                }
            }
        }
    }

    fn compare_named_items(
        &mut self,
        (old, left): (&Side<'_>, NodeId),
        (new, right): (&Side<'_>, NodeId),
        place: usize,
        pairs: &mut Vec<(NodeId, NodeId, usize)>,
    ) {
        let (lefts, rights) = (old.items(left), new.items(right));
        let is_alike = |(left, right): (&NodeId, &NodeId)| old.tree.value(*left) == new.tree.value(*right);
        if lefts.len() == rights.len() && lefts.iter().zip(&rights).all(is_alike) {
            return;
        }
        let Some((field, before, after)) = names(&old.tree, left, &new.tree, right) else {
            self.report(place);
            return;
        };
        let in_both = |side: &Side<'_>, items: &[NodeId], others: &BTreeMap<String, NodeId>| -> Vec<String> {
            let texts = items.iter().filter_map(|item| side.tree.field_text(*item, field));
            texts.filter(|text| others.contains_key(text)).collect()
        };
        if in_both(old, &lefts, &after) != in_both(new, &rights, &before) {
            self.report(place);
            return;
        }
        let mut all: BTreeMap<String, (Option<NodeId>, Option<NodeId>)> = BTreeMap::new();
        for (text, item) in before.into_iter().filter(|(_, item)| old.chosen.keeps(*item)) {
            all.entry(text).or_default().0 = Some(item);
        }
        for (text, item) in after.into_iter().filter(|(_, item)| new.chosen.keeps(*item)) {
            all.entry(text).or_default().1 = Some(item);
        }
        let mut looked_into = 0;
        for (text, sides) in all {
            if self.more || looked_into == MAX_LOOKED_INTO {
                self.more = true;
                return;
            }
            if let (Some(left), Some(right)) = sides
                && is_alike((&left, &right))
            {
                continue;
            }
            let item = self.below(place, format!("[{field}={text}]"));
            match sides {
                (Some(left), Some(right)) => {
                    looked_into += 1;
                    pairs.push((left, right, item));
                }
                _ => self.report(item),
            }
        }
    }

    /// A part that one object lacks: its members are what differs, or itself when it has none.
    fn only_on_one_side(&mut self, side: &Side<'_>, place: usize) -> Result<(), JsonError> {
        if side.tree.kind(ROOT) != Kind::Object {
            self.report(place);
            return Ok(());
        }
        for (key, _) in side.tree.sorted_members(ROOT, &side.chosen)? {
            if self.more {
                break;
            }
            let place = self.below(place, key.into_owned());
            self.report(place);
        }
        Ok(())
    }

    fn place_of(&mut self, keys: &[String]) -> usize {
        let mut above = None;
        for key in keys {
            self.places.push(Place { above, segment: key.clone() });
            above = Some(self.places.len() - 1);
        }
        above.unwrap_or_default()
    }

    fn below(&mut self, above: usize, segment: String) -> usize {
        self.places.push(Place { above: Some(above), segment });
        self.places.len() - 1
    }

    fn report(&mut self, place: usize) {
        if self.found.len() == self.limit {
            self.more = true;
            return;
        }
        self.found.push(place);
    }

    /// The segments of the path of a place, from the last to the first.
    fn segments(&self, place: usize) -> impl Iterator<Item = &str> {
        let mut at = Some(place);
        std::iter::from_fn(move || {
            let place = self.places.get(at?)?;
            at = place.above;
            Some(place.segment.as_str())
        })
    }

    fn shown(&self, place: usize) -> String {
        let segments: Vec<&str> = self.segments(place).collect();
        let mut path = String::new();
        for segment in segments.into_iter().rev() {
            path.push('/');
            path.push_str(&escaped(segment));
            if path.len() > 4 * MAX_SHOWN {
                break;
            }
        }
        shown(&path)
    }
}

/// A key or index as a segment of a JSON Pointer.
pub(crate) fn escaped(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// A path as people get to see it: no control characters, not too long.
fn shown(path: &str) -> String {
    let clean = path.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
    if path.chars().count() <= MAX_SHOWN {
        return clean.collect();
    }
    clean.take(MAX_SHOWN - 3).chain("...".chars()).collect()
}

/// Items of a list by the text that names each.
type Named = BTreeMap<String, NodeId>;

/// The first field that every item of both lists has, each another value, with the items of both by it.
fn names(
    old: &Tree<'_>,
    left: NodeId,
    new: &Tree<'_>,
    right: NodeId,
) -> Option<(&'static str, Named, Named)> {
    let by = |tree: &Tree<'_>, list, field| {
        let mut items = BTreeMap::new();
        for item in tree.children(list) {
            if items.insert(tree.field_text(item, field)?, item).is_some() {
                return None;
            }
        }
        Some(items)
    };
    ITEM_FIELDS.iter().find_map(|field| Some((*field, by(old, left, field)?, by(new, right, field)?)))
}

/// Whether two scalars mean the same though they are written otherwise.
fn equal_scalars(old: &Tree<'_>, left: NodeId, new: &Tree<'_>, right: NodeId) -> bool {
    let is_text = |tree: &Tree<'_>, id| tree.value(id).starts_with(b"\"");
    is_text(old, left) == is_text(new, right)
        && old.scalar_text(left).is_some_and(|text| new.scalar_text(right).as_ref() == Some(&text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::paths::PathFilter;

    fn paths(kind: &str, old: &str, new: &str, filter: PathFilter) -> Vec<String> {
        let group = match kind {
            "GAMAConfig" => "terrafusion.ai",
            "Deployment" => "apps",
            _ => "",
        };
        let scope = Scope::new(group, kind, filter);
        changed_paths(old.as_bytes(), new.as_bytes(), &scope, 5).unwrap().paths
    }

    #[test]
    fn changed_added_and_removed_keys_are_named_in_order() {
        let old = r#"{"data":{"same":"1","price":"2","gone":"3"}}"#;
        let new = r#"{"data":{"same":"1","price":"9","new/key":"4"}}"#;
        assert_eq!(
            paths("ConfigMap", old, new, PathFilter::Everything),
            ["/data/gone", "/data/new~1key", "/data/price"]
        );
    }

    #[test]
    fn lists_are_compared_place_by_place_and_ignored_paths_left_out() {
        let old = r#"{"spec":{"replicas":1,"containers":[{"name":"a","image":"1"},{"name":"b"}]}}"#;
        let new =
            r#"{"spec":{"replicas":2,"containers":[{"name":"a","image":"2"},{"name":"b"},{"name":"c"}]}}"#;
        let filter = PathFilter::ignoring(&["/spec/replicas"]).unwrap();
        assert_eq!(paths("Deployment", old, new, filter), ["/spec/containers/2", "/spec/containers/0/image"]);
    }

    #[test]
    fn another_spelling_of_the_same_value_is_no_change() {
        let old = r#"{"spec":{"parameters":{"a":1,"b":"x"}}}"#;
        let new = r#"{"spec":{"parameters":{"b":"\u0078","a":1.0}}}"#;
        assert!(paths("GAMAConfig", old, new, PathFilter::Everything).is_empty());
    }

    #[test]
    fn a_missing_part_names_what_it_held() {
        assert_eq!(paths("Secret", r#"{"data":{"k":"MQ=="}}"#, "{}", PathFilter::Everything), ["/data/k"]);
        assert_eq!(
            paths("Deployment", r#"{"spec":{"a":1}}"#, r#"{"spec":{"a":"1"}}"#, PathFilter::Everything),
            ["/spec/a"]
        );
    }

    #[test]
    fn only_as_many_as_asked_for_are_named() {
        let old = r#"{"data":{"a":"","b":"","c":"","d":"","e":"","f":""}}"#;
        let scope = Scope::new("", "ConfigMap", PathFilter::Everything);
        let changes = changed_paths(old.as_bytes(), b"{}", &scope, 2).unwrap();
        assert_eq!((changes.paths.len(), changes.more), (2, true));
    }

    #[test]
    fn deep_objects_are_compared_without_recursion_and_their_paths_cut() {
        let nest =
            |leaf: &str| format!(r#"{{"spec":{}{leaf}{}}}"#, r#"{"a":"#.repeat(9_000), "}".repeat(9_000));
        let found = paths("Deployment", &nest("1"), &nest("2"), PathFilter::Everything);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("...") && found[0].len() <= MAX_SHOWN);
    }
}
