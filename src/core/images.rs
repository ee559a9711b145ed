//! The hashes of a write's two objects, reckoned once for each scope.
//!
//! A target may have many guards (restored from a backup, renamed by a tool); they mostly pin the same
//! part of it, and an object of a mebibyte takes a millisecond to hash.

use std::cell::RefCell;

use crate::core::canonical::object::Object;
use crate::core::canonical::{CanonicalError, hash_parsed};
use crate::core::diff::{self, Changes};
use crate::core::hash::ContentHash;
use crate::core::review::Review;
use crate::core::scope::Scope;

/// Most paths named in a message and in a record.
pub(super) const MAX_PATHS: usize = 5;

/// What was found out so far about the object of a review, and about the one before it.
pub(super) struct Images<'r> {
    new: Option<&'r Object<'r>>,
    old: Option<&'r Object<'r>>,
    new_hashes: Known<'r, Result<ContentHash, CanonicalError>>,
    old_hashes: Known<'r, Option<ContentHash>>,
    changes: Known<'r, Changes>,
}

impl<'r> Images<'r> {
    pub(super) fn of(review: &'r Review<'r>) -> Self {
        Self {
            new: review.object.as_ref(),
            old: review.old_object.as_ref(),
            new_hashes: Known::default(),
            old_hashes: Known::default(),
            changes: Known::default(),
        }
    }

    /// The hash of what is written; `None` when the review has no object.
    pub(super) fn new_hash(&self, scope: &'r Scope) -> Option<Result<ContentHash, CanonicalError>> {
        let object = self.new?;
        Some(self.new_hashes.of(scope, || hash_parsed(object, scope)))
    }

    /// The hash of what was there; `None` when nothing was, or it cannot be read.
    pub(super) fn old_hash(&self, scope: &'r Scope) -> Option<ContentHash> {
        let object = self.old?;
        self.old_hashes.of(scope, || hash_parsed(object, scope).ok())
    }

    /// The first pinned paths that differ; none where they cannot be told.
    pub(super) fn changes(&self, scope: &'r Scope) -> Changes {
        let (Some(new), Some(old)) = (self.new, self.old) else { return Changes::default() };
        self.changes.of(scope, || diff::changed(old, new, scope, MAX_PATHS).unwrap_or_default())
    }
}

/// Answers by scope. There are few different ones, so that a list is searched.
struct Known<'r, T>(RefCell<Vec<(&'r Scope, T)>>);

impl<T> Default for Known<'_, T> {
    fn default() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl<'r, T: Clone> Known<'r, T> {
    fn of(&self, scope: &'r Scope, reckon: impl FnOnce() -> T) -> T {
        let find = |known: &(&Scope, T)| *known.0 == *scope;
        if let Some((_, answer)) = self.0.borrow().iter().find(|known| find(known)) {
            return answer.clone();
        }
        let answer = reckon();
        self.0.borrow_mut().push((scope, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::core::paths::PathFilter;

    #[test]
    fn equal_scopes_are_reckoned_once_and_different_ones_each() {
        let scope = |kind| Scope::new("", kind, PathFilter::everything());
        let scopes: Vec<Scope> = ["ConfigMap", "Secret", "ConfigMap", "Secret"].map(scope).into();
        let known = Known::default();
        let times = Cell::new(0);
        for scope in &scopes {
            let answer = known.of(scope, || {
                times.set(times.get() + 1);
                scope.is_secret()
            });
            assert_eq!(answer, scope.is_secret());
        }
        assert_eq!(times.get(), 2);
    }
}
