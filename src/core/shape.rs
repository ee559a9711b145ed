//! Content that moves between `spec` and the top level.
//!
//! Of most kinds `spec` is hashed, and of an object without one every other top-level field. So the same
//! bytes below `spec`, or lifted out of it, have the same hash, and beside a `spec` the top level could
//! then say anything. The hash cannot tell, since its form is fixed; what can is the shape of the object
//! before and after.

use jiff::Timestamp;

use crate::core::canonical::object::Object;
use crate::core::canonical::{hash_parsed, top_level};
use crate::core::guard::{Guard, GuardState, Target};
use crate::core::paths::{Position, Step};
use crate::core::review::Review;
use crate::core::scope::{Scope, ScopeKind};

/// Whether objects of a kind may come with `spec` and without. Groups without a dot are built in, and
/// the schemas of their kinds fixed.
pub(super) fn may_vary(target: &Target) -> bool {
    target.group.contains('.') && ScopeKind::of(&target.group, &target.kind) == ScopeKind::Other
}

/// Whether any of these guards needs the old object for that.
pub(super) fn concerns(guards: &[&GuardState]) -> bool {
    guards.iter().any(|state| state.target().is_some_and(may_vary))
}

/// Whether both objects have a `spec` or neither has.
pub(super) fn stays(old: Option<&Object<'_>>, new: Option<&Object<'_>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => has_spec(old) == has_spec(new),
        _ => true,
    }
}

/// Whether the hash of the new content says nothing, although it is an approved one. For reviews read to
/// their end where [`may_vary`].
pub(super) fn is_unclear(review: &Review<'_>, guard: &Guard, now: Timestamp) -> bool {
    let Some(new) = review.object.as_ref().filter(|_| may_vary(&guard.target)) else { return false };
    let old = review.old_object.as_ref();
    let beside = || has_spec(new) && has_fields_beside(new, &guard.scope);
    match old {
        // Nothing tells what the approved content was taken from.
        None => beside(),
        Some(_) if stays(old, Some(new)) => false,
        // What is not approved may take its approved shape again, with nothing beside it.
        Some(old) => beside() || hash_parsed(old, &guard.scope).is_ok_and(|hash| guard.approves(hash, now)),
    }
}

fn has_spec(object: &Object<'_>) -> bool {
    object.field("spec").is_some()
}

/// Whether there is anything beside `spec` that would be hashed without it. What the paths of the guard
/// leave out is plainly not meant.
fn has_fields_beside(object: &Object<'_>, scope: &Scope) -> bool {
    let filter = scope.filter();
    let counts =
        |name: &str| filter.descend(filter.root(), Step::Member(name)) != Position::Outside && name != "spec";
    top_level(object).is_ok_and(|fields| fields.iter().any(|(name, _)| counts(name)))
}
