//! `enforcement: Rewrite`: a JSON patch that puts back what a write changes (DESIGN 4.3).
//!
//! Values come from `request.oldObject` alone, and only when that is what every guard of the object
//! approves: nothing here could make a forged review tell approved content. A patch goes out only
//! after it was applied here and what comes out was hashed. On any doubt there is none; then the gate
//! refuses the write and says why ([`Obstacle`]), by this same plan, so that the hooks never disagree.

use std::fmt;

use jiff::Timestamp;

use super::canonical::object::Object;
use super::canonical::{hash_object, hash_parsed};
use super::covering::{Arrival, Form, approved_by_all, guards_of, object_key};
use super::diff::{self, Changes};
use super::guard::{Enforcement, Guard, GuardId, GuardState, Target};
use super::index::Index;
use super::json::Cursor;
use super::message;
use super::review::{Progress, Review, is_applied_by};
use super::shape;
use super::verdict::{Operation, ReviewError};

pub(crate) mod edit;
pub(crate) mod restore;
mod traces;

/// What the field manager of a dry run starts with that only wants the hash of what would be stored.
/// It must see the object as it was sent.
const HASH_FIELD_MANAGER: &str = "driftguard-hash-";
/// Most paths named in the warning.
const MAX_PATHS: usize = 5;

/// The answer of the mutating hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// `request.uid`.
    pub uid: String,
    /// What is put back; `None` when the object passes as it came.
    pub patch: Option<Patch>,
}

/// What is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The JSON patch (RFC 6902).
    pub operations: Vec<u8>,
    /// Tells the user which paths were put back.
    pub warning: String,
    /// The object.
    pub target: Target,
}

/// Judges one review of the mutating hook, given as the raw body, at `now`.
///
/// # Errors
/// [`ReviewError`] when the body is no review; it carries the uid if there is one.
pub fn rewrite(body: &[u8], index: &Index, now: Timestamp) -> Result<Mutation, ReviewError> {
    let (mut review, progress) = Review::read_head(body)?;
    let patch = patch(&mut review, progress, index, now)?;
    Ok(Mutation { uid: std::mem::take(&mut review.uid), patch })
}

fn patch(
    review: &mut Review<'_>,
    progress: Progress,
    index: &Index,
    now: Timestamp,
) -> Result<Option<Patch>, ReviewError> {
    if review.operation != Some(Operation::Update) || Form::of(review) != Form::Object {
        return Ok(None);
    }
    let Ok(key) = object_key(review, Operation::Update, Form::Object) else { return Ok(None) };
    let (guards, arrival) = guards_of(review, Form::Object, &key, index);
    let rewrites = |state: &&GuardState| matches!(state, GuardState::Valid(guard) if guard.enforcement == Enforcement::Rewrite);
    if arrival != Arrival::AsHashed || !guards.iter().any(rewrites) || approved_by_all(review, &guards, now) {
        return Ok(None);
    }
    if progress != Progress::Finished {
        review.read_rest()?;
    }
    let Ok(Some(plan)) = plan(review, &guards, now) else { return Ok(None) };
    let mut operations = vec![b'['];
    operations.extend(plan.operations.join(&b','));
    operations.push(b']');
    let warning = message::put_back(plan.guard, &plan.changes);
    Ok(Some(Patch { operations, warning, target: plan.guard.target.clone() }))
}

/// Why a write could not be put back and is refused instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// There was no object before.
    Created,
    /// The review shows only a part of the object.
    Partial,
    /// The audit log of the API server would hold a Secret's values.
    Secret,
    /// The applier would record content that was never stored.
    ServerSideApply,
    /// A dry run that asks for the hash of what it sends.
    HashOnly,
    /// What is stored is not what this guard approves.
    Drifted(GuardId),
    /// This guard refuses the write whatever others do.
    Refused(GuardId),
    /// This guard cannot be evaluated.
    Invalid(GuardId),
    /// Pinned and other content cannot be told apart, or what comes out is not approved.
    Entangled,
    /// An object cannot be read.
    Unreadable,
    /// It could have been.
    NotDone,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("there is no stored content to put back"),
            Self::Partial => f.write_str("a request on this subresource shows only a part of the object"),
            Self::Secret => f.write_str("Secrets are refused, so that no audit log holds their values"),
            Self::ServerSideApply => {
                f.write_str("a server-side apply is refused, since its tool would record what was never stored")
            }
            Self::HashOnly => f.write_str("a dry run for its hash is answered as it came"),
            Self::Drifted(guard) => {
                write!(f, "what is stored is not what DriftGuard {guard} approves")
            }
            Self::Refused(guard) => write!(f, "DriftGuard {guard} refuses it as well"),
            Self::Invalid(guard) => write!(f, "DriftGuard {guard} cannot be evaluated"),
            Self::Entangled => f.write_str("pinned content cannot be put back without the rest of the change"),
            Self::Unreadable => f.write_str("the object cannot be read"),
            Self::NotDone => f.write_str(
                "the mutating webhook was not reached or could not read the guard in time, or another webhook changed \
                 the object after it",
            ),
        }
    }
}

/// Why this write, which a `Rewrite` guard refuses, was not put back. For reviews read to their end.
pub(crate) fn obstacle(review: &Review<'_>, guards: &[&GuardState], now: Timestamp) -> Obstacle {
    if Form::of(review) != Form::Object {
        return Obstacle::Partial;
    }
    match plan(review, guards, now) {
        Err(obstacle) => obstacle,
        Ok(_) => Obstacle::NotDone,
    }
}

/// What is put back, and for which guard first.
struct Plan<'g> {
    operations: Vec<Vec<u8>>,
    guard: &'g Guard,
    changes: Changes,
}

/// `None` when no `Rewrite` guard objects.
fn plan<'g>(
    review: &Review<'_>,
    guards: &[&'g GuardState],
    now: Timestamp,
) -> Result<Option<Plan<'g>>, Obstacle> {
    let Some(new) = &review.object else { return Ok(None) };
    let Some(old) = &review.old_object else { return Err(Obstacle::Created) };
    let guards = valid(guards, now)?;
    if guards.iter().any(|guard| guard.scope.is_secret()) {
        return Err(Obstacle::Secret);
    }
    let manager = review.field_manager();
    if review.dry_run && manager.starts_with(HASH_FIELD_MANAGER) {
        return Err(Obstacle::HashOnly);
    }
    if is_applied_by(new, &manager) {
        return Err(Obstacle::ServerSideApply);
    }
    if !shape::stays(Some(old), Some(new)) {
        return Err(Obstacle::Entangled);
    }
    let objecting = objecting(old, new, &guards, now)?;
    let Some(first) = objecting.first().copied() else { return Ok(None) };
    for guard in &guards {
        if !hash_parsed(old, &guard.scope).is_ok_and(|hash| guard.approves(hash, now)) {
            return Err(Obstacle::Drifted(guard.id.clone()));
        }
    }
    let operations = operations(old, new, &objecting, &guards, now)?;
    let changes = diff::changed(old, new, &first.scope, MAX_PATHS).unwrap_or_default();
    Ok(Some(Plan { operations, guard: first, changes }))
}

/// The guards by which something can be put back: all of them, but for those that cannot be evaluated and
/// have nothing to say for a while.
fn valid<'g>(guards: &[&'g GuardState], now: Timestamp) -> Result<Vec<&'g Guard>, Obstacle> {
    let valid = |state: &&'g GuardState| match state {
        GuardState::Valid(guard) => Some(Ok(guard.as_ref())),
        GuardState::Invalid(_) if state.paused(now).is_some() => None,
        GuardState::Invalid(invalid) => Some(Err(Obstacle::Invalid(invalid.id.clone()))),
    };
    guards.iter().filter_map(valid).collect()
}

/// Whether the gate may refuse a write for this guard.
fn blocks(guard: &Guard, now: Timestamp) -> bool {
    guard.enforcement.blocks() && guard.paused(now).is_none()
}

/// The `Rewrite` guards that do not approve the write.
fn objecting<'g>(
    old: &Object<'_>,
    new: &Object<'_>,
    guards: &[&'g Guard],
    now: Timestamp,
) -> Result<Vec<&'g Guard>, Obstacle> {
    let mut objecting = Vec::new();
    for guard in guards.iter().copied().filter(|guard| blocks(guard, now)) {
        let hash = hash_parsed(new, &guard.scope).map_err(|_| Obstacle::Unreadable)?;
        if guard.approves(hash, now) || hash_parsed(old, &guard.scope).is_ok_and(|old| old == hash) {
            continue;
        }
        if guard.enforcement == Enforcement::Deny {
            return Err(Obstacle::Refused(guard.id.clone()));
        }
        objecting.push(guard);
    }
    Ok(objecting)
}

/// The operations, tried on the new object: what comes out must pass the gate.
fn operations(
    old: &Object<'_>,
    new: &Object<'_>,
    objecting: &[&Guard],
    guards: &[&Guard],
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, Obstacle> {
    let mut operations = Vec::new();
    let mut text = new.raw().to_vec();
    for guard in objecting {
        let object = Object::read(&mut Cursor::new(&text)).map_err(|_| Obstacle::Unreadable)?;
        let edits =
            restore::edits(old, &object, &guard.scope, restore::Old::Stored).map_err(
                |problem| match problem {
                    restore::Unrestorable::Unreadable => Obstacle::Unreadable,
                    restore::Unrestorable::Entangled => Obstacle::Entangled,
                },
            )?;
        edits.write_operations("", &mut operations);
        text = edits.apply(&text).map_err(|_| Obstacle::Unreadable)?;
    }
    if let Some(guard) = guards.first()
        && let Ok(Some(edits)) = traces::edits(old.raw(), &text, &guard.target)
    {
        edits.write_operations("", &mut operations);
        text = edits.apply(&text).map_err(|_| Obstacle::Unreadable)?;
    }
    for guard in guards.iter().filter(|guard| blocks(guard, now)) {
        if !hash_object(&text, &guard.scope).is_ok_and(|hash| guard.approves(hash, now)) {
            return Err(Obstacle::Entangled);
        }
    }
    Ok(operations)
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
