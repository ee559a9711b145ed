//! What guards say of the content that a dry run shows which asks for proof.
//!
//! Whoever approves how another API server reads an object must know that DriftGuard itself has signed the hash, and
//! holds no key to see that by. That nobody warns is no answer: a guard in `Audit` never does, a long warning is cut, and
//! one among many is dropped. So the answer is given in words.

use jiff::Timestamp;

use crate::core::covering::{Form, object_key};
use crate::core::guard::{Guard, GuardState};
use crate::core::hash::ContentHash;
use crate::core::images::Images;
use crate::core::index::Index;
use crate::core::review::Review;
use crate::core::shape;
use crate::core::verdict::{Held, Operation, Statement};

/// What each guard says that can tell: a valid one, of a kind that API servers may read differently, of the whole object
/// in the version that it hashes. The others say nothing, which proves nothing.
pub(super) fn of<'r>(review: &'r Review<'r>, index: &'r Index, now: Timestamp) -> Vec<Statement> {
    let is_whole = Form::of(review) == Form::Object && review.sub_resource.is_empty();
    if !is_whole || review.operation != Some(Operation::Update) {
        return Vec::new();
    }
    let Ok(key) = object_key(review, Operation::Update, Form::Object) else { return Vec::new() };
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let images = Images::of(review);
    let said = |state: &'r GuardState| match state {
        GuardState::Valid(guard) => statement(review, &images, guard, now),
        GuardState::Invalid(_) => None,
    };
    index.lookup(&key.group, &key.resource, namespace, &key.name).filter_map(said).collect()
}

fn statement<'r>(
    review: &Review<'_>,
    images: &Images<'r>,
    guard: &'r Guard,
    now: Timestamp,
) -> Option<Statement> {
    let is_as_hashed = guard.target.version == review.version && guard.target.kind == review.kind;
    if !is_as_hashed || !guard.scope.has_server_defaults() {
        return None;
    }
    let hash = images.new_hash(&guard.scope)?.ok()?;
    let is_unclear = shape::is_unclear(review, guard, now);
    Some(Statement {
        guard_uid: guard.uid.as_str().to_owned(),
        guard_generation: guard.generation,
        held: if is_unclear { Held::NotApproved } else { held(guard, hash, now) },
    })
}

fn held(guard: &Guard, hash: ContentHash, now: Timestamp) -> Held {
    // Content that somebody approved, perhaps until a moment, is not to outlast that as a reading of other content.
    let mut beside = guard.also_approved.iter().filter(|also| also.hash == hash);
    let is_beside = beside.clone().next().is_some();
    if hash == guard.expected || beside.any(|also| also.until.is_none_or(|until| now < until)) {
        Held::Approved
    } else if !is_beside && guard.equivalents.contains(&hash) {
        Held::Equivalent(hash)
    } else {
        Held::NotApproved
    }
}
