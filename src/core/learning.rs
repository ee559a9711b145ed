//! What changes of an object while it is watched, and which guard lets just that pass.
//!
//! Paths are those of `ignorePaths`. What always holds: a guard of the last content that leaves out all paths that changed
//! approves every content that was noted. What only tools of people wrote, or nobody knows who, is what a guard is there to
//! judge, so that it stays pinned unless somebody wants it otherwise. What no path names without naming more than has changed
//! is never left out: rather no guard is proposed.

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

/// Most paths that are remembered of an object, of each class of writers: more than a guard may leave out, since those that
/// lie under others come to one.
const MAX_REMEMBERED: usize = 8 * MAX_PATHS;
/// Most writers that are remembered of a path.
const MAX_WRITERS: usize = 32;

/// Why a path cannot be left out of a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It goes through a key `*`, which means every member in a path.
    Star,
    /// It would be a whole list of objects, since what changed in it has no name of its own.
    List,
    /// It is longer than a path may be.
    TooLong,
}

/// How one path changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// In how many writes.
    pub times: u64,
    /// Field managers who wrote it, as far as they are known.
    pub by: BTreeSet<String>,
    /// Why a guard cannot leave out just this.
    pub obstacle: Option<Obstacle>,
}

impl Changed {
    /// Takes along what another path, or another write, came to; `times` are those of both.
    fn add(&mut self, other: &Self, times: u64) {
        self.times = times;
        for name in &other.by {
            if self.by.len() < MAX_WRITERS {
                self.by.insert(name.clone());
            }
        }
        self.obstacle = self.obstacle.or(other.obstacle);
    }
}

/// What changed of one object so far. Its size is bounded, however long it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What others than tools of people wrote.
    rivals: Noted,
    /// What tools of people wrote, or nobody knows who.
    people: Noted,
    writes: u64,
}

/// What writers of one class changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Noted {
    paths: BTreeMap<String, Changed>,
    /// Whether more changed than these paths name.
    is_beyond: bool,
}

impl Noted {
    fn note(&mut self, path: String, changed: &Changed) {
        if let Some(known) = self.paths.get_mut(&path) {
            known.add(changed, known.times + changed.times);
        } else if self.paths.len() == MAX_REMEMBERED {
            self.is_beyond = true;
        } else {
            self.paths.insert(path, changed.clone());
        }
    }
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
        /// What stays pinned although it changed, since only tools wrote it by which people write, or nobody knows who.
        kept: Vec<(String, Changed)>,
        /// Whether more than `kept` changed and stays pinned.
        more_kept: bool,
        /// What would stay pinned too, but lies under what is left out.
        covered: Vec<(String, Changed)>,
    },
    /// None, since a path that changed by itself cannot be left out without more.
    CannotLeaveOut {
        /// What changed.
        path: String,
        /// Why it cannot.
        obstacle: Obstacle,
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
        self.writes += 1;
        if self.rivals.is_beyond && self.people.is_beyond {
            return Ok(true);
        }
        let Found { paths, is_beyond } = Change { old, new, scope }.paths()?;
        let is_of_rivals = paths.values().any(is_of_rival);
        // A write has one writer: what could not be named of it is put down to whoever wrote the rest.
        let class = if is_of_rivals { &mut self.rivals } else { &mut self.people };
        class.is_beyond |= is_beyond;
        for (path, changed) in paths {
            let class = if is_of_rival(&changed) { &mut self.rivals } else { &mut self.people };
            class.note(path, &changed);
        }
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
        let (mut left, mut kept) = (self.rivals.paths.clone(), BTreeMap::new());
        for (path, changed) in &self.people.paths {
            match left.get_mut(path) {
                Some(known) => known.add(changed, known.times + changed.times),
                None if of_people => {
                    left.insert(path.clone(), changed.clone());
                }
                None => {
                    kept.insert(path.clone(), changed.clone());
                }
            }
        }
        if self.rivals.is_beyond || (of_people && self.people.is_beyond) {
            return Ok(Proposal::TooManyPaths);
        }
        let (paths, kept) = (outermost(left), outermost(kept));
        let obstacle =
            paths.iter().find_map(|(path, changed)| changed.obstacle.map(|obstacle| (path, obstacle)));
        if let Some((path, obstacle)) = obstacle {
            return Ok(Proposal::CannotLeaveOut { path: path.clone(), obstacle });
        }
        if paths.len() > MAX_PATHS {
            return Ok(Proposal::TooManyPaths);
        }
        let is_covered = |path: &str| paths.iter().any(|(above, _)| path == above || lies_under(path, above));
        let (covered, kept) = kept.into_iter().partition(|(path, _)| is_covered(path));
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
        Ok(Proposal::Without { paths, kept, more_kept: self.people.is_beyond, covered })
    }
}

/// Whether somebody is known to have written it who is no tool of people.
fn is_of_rival(changed: &Changed) -> bool {
    changed.by.iter().any(|name| !is_tool(name))
}

fn lies_under(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// The paths that lie under no other, which take along what is known of those that do.
fn outermost(paths: BTreeMap<String, Changed>) -> Vec<(String, Changed)> {
    let mut found: Vec<(String, Changed)> = Vec::new();
    let mut paths: Vec<(String, Changed)> = paths.into_iter().collect();
    // Whatever lies under a path is longer than it.
    paths.sort_by_key(|(path, _)| path.len());
    for (path, changed) in paths {
        match found.iter_mut().find(|(above, _)| lies_under(&path, above)) {
            // One write may have changed both.
            Some((_, above)) => {
                let obstacle = above.obstacle;
                above.add(&changed, above.times.max(changed.times));
                // What lies above is left out, with whatever cannot be named below it.
                above.obstacle = obstacle;
            }
            None => found.push((path, changed)),
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

/// What one write changed.
struct Found {
    paths: BTreeMap<String, Changed>,
    /// Whether it changed more than these paths name.
    is_beyond: bool,
}

impl Change<'_> {
    /// The paths without which the two are alike, but for those that cannot be left out.
    fn paths(&self) -> Result<Found, CanonicalError> {
        let read = |text| Object::read(&mut Cursor::new(text));
        let (old, new) = (read(self.old)?, read(self.new)?);
        let first = changed_places(&old, &new, self.scope, MAX_PATHS)?;
        let (mut places, mut is_beyond) = (first.places, first.more);
        let trees = (whole(self.old)?, whole(self.new)?);
        while !is_beyond {
            let mut names = Vec::new();
            for place in &places {
                if obstacle(&trees, place)?.is_none() {
                    names.push(joined(place));
                }
            }
            let Ok(filter) = PathFilter::ignoring(&names) else {
                is_beyond = true;
                break;
            };
            let without = self.scope.with_filter(filter);
            // A container that came or went with what is in it is a place of its own now.
            let rest = changed_places(&old, &new, &without, MAX_PATHS)?;
            let more: Vec<_> = rest.places.into_iter().filter(|place| !places.contains(place)).collect();
            if more.is_empty() {
                let is_all_named = names.len() == places.len();
                is_beyond = rest.more
                    || (is_all_named && hash_object(self.old, &without)? != hash_object(self.new, &without)?);
                break;
            }
            places.retain(|place| !more.iter().any(|above| place.starts_with(above)));
            places.extend(more);
        }
        let pointers: Vec<String> = places.iter().map(|place| joined(place)).collect();
        let mut paths: BTreeMap<String, Changed> = BTreeMap::new();
        for (place, by) in places.iter().zip(writers(self.old, self.new, &pointers)?) {
            let obstacle = obstacle(&trees, place)?;
            let path: String = joined(place).chars().take(MAX_PATH_LENGTH).collect();
            paths.entry(path).or_default().add(&Changed { times: 1, by, obstacle }, 1);
        }
        Ok(Found { paths, is_beyond })
    }
}

fn whole(text: &[u8]) -> Result<Tree<'_>, JsonError> {
    Tree::read(text, Span { start: 0, end: text.len() })
}

/// Why a place cannot be left out, if so.
fn obstacle(trees: &(Tree<'_>, Tree<'_>), place: &[String]) -> Result<Option<Obstacle>, JsonError> {
    if place.iter().any(|segment| segment == "*") {
        return Ok(Some(Obstacle::Star));
    }
    if joined(place).chars().count() > MAX_PATH_LENGTH {
        return Ok(Some(Obstacle::TooLong));
    }
    for tree in [&trees.0, &trees.1] {
        if let Some(id) = at(tree, place)?
            && tree.kind(id) == Kind::Array
            && tree.children(id).any(|item| tree.kind(item) != Kind::Scalar)
        {
            return Ok(Some(Obstacle::List));
        }
    }
    Ok(None)
}

fn joined(place: &[String]) -> String {
    place.iter().map(|segment| format!("/{}", escaped(segment))).collect()
}

/// The value at a place.
fn at(tree: &Tree<'_>, place: &[String]) -> Result<Option<NodeId>, JsonError> {
    let mut found = Some(ROOT);
    for segment in place {
        let Some(id) = found else { return Ok(None) };
        found = match tree.kind(id) {
            Kind::Object => tree.member(id, segment)?,
            Kind::Array => tree.item(id, segment),
            Kind::Scalar => None,
        };
    }
    Ok(found)
}

#[cfg(test)]
#[path = "learning_tests.rs"]
mod tests;
