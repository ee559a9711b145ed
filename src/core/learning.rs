//! What changes of an object while it is watched, and which guard lets just that pass.
//!
//! Paths are those of `ignorePaths`. What always holds: a guard of the last content that leaves out all paths that changed
//! approves every content that was noted. What only tools of people wrote is what a guard is there to judge, so that it
//! stays pinned unless somebody wants it otherwise. List items are named by one of their fields where that tells them apart,
//! since an index would mean another item tomorrow; otherwise the list is left out whole.

use std::collections::{BTreeMap, BTreeSet};

use super::audit::attribution::writers;
use super::canonical::object::Object;
use super::canonical::tree::{Kind, NodeId, ROOT, Tree};
use super::canonical::{CanonicalError, hash_object};
use super::diff::{changed_places, escaped, pinned_values};
use super::guard_spec_rivals::is_tool;
use super::json::{Cursor, JsonError, Span};
use super::paths::{MAX_PATH_LENGTH, MAX_PATHS, PathFilter};
use super::scope::Scope;

/// Fields by which items of lists are told apart, as Kubernetes' own kinds do, in the order in which they are tried.
const ITEM_FIELDS: [&str; 8] =
    ["name", "key", "type", "containerPort", "port", "mountPath", "devicePath", "ip"];

/// How one path changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// In how many writes.
    pub times: u64,
    /// Field managers who wrote it, as far as they are known.
    pub by: BTreeSet<String>,
}

/// What changed of one object so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    paths: BTreeMap<String, Changed>,
    writes: u64,
    /// Whether more changed than paths can name.
    is_beyond: bool,
}

/// What guard an object should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// One that pins all of it, since nothing changed.
    Whole,
    /// One that leaves paths out.
    Without {
        /// What is left out.
        paths: Vec<(String, Changed)>,
        /// What stays pinned although it changed, since only tools wrote it by which people write.
        kept: Vec<(String, Changed)>,
    },
    /// None, since so many of its values change that little would be pinned.
    MostlyChanging {
        /// Values on the paths that changed.
        changing: usize,
        /// All values.
        of: usize,
    },
    /// None, since more changes than a guard can leave out.
    TooManyPaths,
}

impl History {
    /// How many writes changed what is pinned.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Takes note of a write, given the object before and after it. Tells whether it changed anything that `scope`
    /// pins.
    ///
    /// # Errors
    /// [`CanonicalError`] when one of the two cannot be hashed; nothing is noted then.
    pub fn note(&mut self, old: &[u8], new: &[u8], scope: &Scope) -> Result<bool, CanonicalError> {
        if hash_object(old, scope)? == hash_object(new, scope)? {
            return Ok(false);
        }
        let change = Change { old, new, scope };
        let found = change.paths()?;
        self.writes += 1;
        let Some(found) = found else {
            self.is_beyond = true;
            return Ok(true);
        };
        for (path, by) in found {
            let changed = self.paths.entry(path).or_default();
            changed.times += 1;
            changed.by.extend(by);
        }
        self.is_beyond |= self.paths.len() > 8 * MAX_PATHS;
        Ok(true)
    }

    /// The guard for the object as it is now. With `of_people`, what tools of people wrote is left out too.
    ///
    /// # Errors
    /// [`CanonicalError`] when it cannot be hashed.
    pub fn proposal(
        &self,
        object: &[u8],
        scope: &Scope,
        of_people: bool,
    ) -> Result<Proposal, CanonicalError> {
        if self.writes == 0 {
            return Ok(Proposal::Whole);
        }
        let is_kept = |changed: &Changed| {
            !of_people && !changed.by.is_empty() && changed.by.iter().all(|name| is_tool(name))
        };
        let (kept, left): (Vec<_>, Vec<_>) = self.paths.iter().partition(|(_, changed)| is_kept(changed));
        let paths = outermost(left);
        let mut kept = outermost(kept);
        kept.retain(|(path, _)| !paths.iter().any(|(above, _)| lies_under(path, above)));
        if self.is_beyond || paths.len() > MAX_PATHS {
            return Ok(Proposal::TooManyPaths);
        }
        let object = Object::read(&mut Cursor::new(object))?;
        let names: Vec<&str> = paths.iter().map(|(path, _)| path.as_str()).collect();
        // They were made as such paths.
        let Ok(filter) = PathFilter::ignoring(&names) else { return Ok(Proposal::TooManyPaths) };
        let of = pinned_values(&object, scope)?;
        let left = pinned_values(&object, &scope.with_filter(filter))?;
        let changing = of.saturating_sub(left);
        if 2 * changing > of {
            return Ok(Proposal::MostlyChanging { changing, of });
        }
        Ok(Proposal::Without { paths, kept })
    }
}

fn lies_under(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// The paths that lie under no other, which take along what is known of those that do.
fn outermost(mut paths: Vec<(&String, &Changed)>) -> Vec<(String, Changed)> {
    let mut found: Vec<(String, Changed)> = Vec::new();
    // Whatever lies under a path is longer than it.
    paths.sort_by_key(|(path, _)| path.len());
    for (path, changed) in paths {
        match found.iter_mut().find(|(above, _)| lies_under(path, above)) {
            Some((_, above)) => {
                // One write may have changed both.
                above.times = above.times.max(changed.times);
                above.by.extend(changed.by.iter().cloned());
            }
            None => found.push((path.clone(), changed.clone())),
        }
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

/// One write.
struct Change<'a> {
    old: &'a [u8],
    new: &'a [u8],
    scope: &'a Scope,
}

impl Change<'_> {
    /// The paths without which the two are alike, each with whoever wrote it; `None` where there are none such.
    fn paths(&self) -> Result<Option<BTreeMap<String, BTreeSet<String>>>, CanonicalError> {
        let read = |text| Object::read(&mut Cursor::new(text));
        let found = changed_places(&read(self.old)?, &read(self.new)?, self.scope, MAX_PATHS)?;
        if found.more {
            return Ok(None);
        }
        let whole = |text: &'_ [u8]| Span { start: 0, end: text.len() };
        let (old, new) = (Tree::read(self.old, whole(self.old))?, Tree::read(self.new, whole(self.new))?);
        let pointers: Vec<String> = found.places.iter().map(|place| joined(place)).collect();
        let by = writers(self.old, self.new, &pointers)?;
        let mut places = Vec::with_capacity(found.places.len());
        for place in &found.places {
            places.push(named(&old, &new, place)?);
        }
        loop {
            let mut paths: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (place, by) in places.iter_mut().zip(&by) {
                while joined(place).chars().count() > MAX_PATH_LENGTH {
                    place.pop();
                }
                if place.is_empty() {
                    return Ok(None);
                }
                paths.entry(joined(place)).or_default().extend(by.iter().cloned());
            }
            if self.are_alike_without(&paths)? {
                return Ok(Some(paths));
            }
            // A container that came or went with what is in it, or the like.
            for place in &mut places {
                place.pop();
            }
        }
    }

    fn are_alike_without(&self, paths: &BTreeMap<String, BTreeSet<String>>) -> Result<bool, CanonicalError> {
        let names: Vec<&String> = paths.keys().collect();
        let Ok(filter) = PathFilter::ignoring(&names) else { return Ok(false) };
        let scope = self.scope.with_filter(filter);
        Ok(hash_object(self.old, &scope)? == hash_object(self.new, &scope)?)
    }
}

fn joined(place: &[String]) -> String {
    place.iter().map(|segment| format!("/{}", escaped(segment))).collect()
}

/// The place with its list items named by a field; only the way to a list where nothing names them.
fn named(old: &Tree<'_>, new: &Tree<'_>, place: &[String]) -> Result<Vec<String>, JsonError> {
    let mut found = Vec::with_capacity(place.len());
    let (mut left, mut right) = (Some(ROOT), Some(ROOT));
    for segment in place {
        let lists = [(old, left), (new, right)]
            .map(|(tree, id)| id.filter(|id| tree.kind(*id) == Kind::Array).map(|id| (tree, id)));
        if lists.iter().all(Option::is_none) {
            left = member(old, left, segment)?;
            right = member(new, right, segment)?;
            found.push(segment.clone());
            continue;
        }
        let Ok(index) = segment.parse::<usize>() else { return Ok(found) };
        let Some(item) = item_name(&lists, index) else { return Ok(found) };
        let [before, after] = lists.map(|list| list.and_then(|(tree, id)| tree.children(id).nth(index)));
        (left, right) = (before, after);
        found.push(item);
    }
    Ok(found)
}

fn member(tree: &Tree<'_>, id: Option<NodeId>, key: &str) -> Result<Option<NodeId>, JsonError> {
    let Some(id) = id.filter(|id| tree.kind(*id) == Kind::Object) else { return Ok(None) };
    for child in tree.children(id) {
        if tree.key(child)? == key {
            return Ok(Some(child));
        }
    }
    Ok(None)
}

/// `[field=value]` of an item, by a field that every item of both lists has, each another value, and that is the same
/// before and after.
fn item_name(lists: &[Option<(&Tree<'_>, NodeId)>], index: usize) -> Option<String> {
    ITEM_FIELDS.iter().find_map(|field| {
        let mut value = None;
        for (tree, list) in lists.iter().flatten() {
            let texts: Option<Vec<String>> =
                tree.children(*list).map(|item| tree.field_text(item, field)).collect();
            let mut texts = texts?;
            if let Some(own) = texts.get(index).cloned()
                && *value.get_or_insert_with(|| own.clone()) != own
            {
                return None;
            }
            texts.sort_unstable();
            if texts.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
        }
        value.map(|value| format!("[{field}={value}]"))
    })
}

#[cfg(test)]
#[path = "learning_tests.rs"]
mod tests;
