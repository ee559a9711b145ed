//! The admission rule: one review against the guards of its object (DESIGN section 4).
//!
//! A write passes when the new content is approved by every guard of the object, or when it leaves
//! the pinned content as it is. Otherwise the guard's enforcement decides. Nobody is exempt: no
//! user, no namespace, no object that is being deleted.

use jiff::Timestamp;

use super::canonical::object::Object;
use super::canonical::{CanonicalError, hash_parsed};
use super::diff::{self, Changes};
use super::guard::{Enforcement, Guard, GuardState, InvalidGuard, Target};
use super::hash::ContentHash;
use super::index::Index;
use super::message;
use super::paths::PathFilter;
use super::review::{Progress, Review, metadata_text};
use super::scope::Scope;
use super::verdict::{Attempt, Judgement, Operation, Reason, ReviewError, Unguarded, User, Verdict};

/// Field manager of a dry run that proves which replica answers; a nonce follows.
pub const PROOF_FIELD_MANAGER: &str = "driftguard-proof-";
/// How far from the end of a review its options are looked for. The API server writes them last,
/// and a field manager has at most 128 characters.
const OPTIONS_REACH: usize = 1024;
/// Most paths named in a message and in a record.
const MAX_PATHS: usize = 5;

/// Judges one admission review, given as the raw body, at `now`.
///
/// # Errors
/// [`ReviewError`] when the body is no review that can be judged; it carries the uid if there is one.
pub fn judge(body: &[u8], index: &Index, now: Timestamp) -> Result<Judgement, ReviewError> {
    let (mut review, progress) = Review::read_head(body)?;
    let needs_options = asks_for_proof(body);
    let needs_old_object = review.operation == Some(Operation::Delete);
    let mut complete = progress == Progress::Finished;
    if !complete && (needs_options || needs_old_object) {
        review.read_rest()?;
        complete = true;
    }
    let verdict = verdict(&mut review, complete, index, now)?;
    let proof = needs_options.then(|| proof_nonce(&review)).flatten();
    Ok(Judgement { uid: std::mem::take(&mut review.uid), verdict, proof })
}

fn verdict(
    review: &mut Review<'_>,
    complete: bool,
    index: &Index,
    now: Timestamp,
) -> Result<Verdict, ReviewError> {
    let Some(operation) = review.operation else { return Ok(Verdict::Allow) };
    if operation == Operation::Connect {
        return Ok(Verdict::Allow);
    }
    let key = object_key(review, operation)?;
    let found = index.lookup(
        &review.group,
        &review.resource,
        key.namespace.as_deref().unwrap_or_default(),
        &key.name,
    );
    if found.clone().next().is_none() {
        return Ok(Verdict::NotGuarded(key));
    }
    // Each version that guards hash has an entry of its own, through which the object arrives in
    // that version: a guard is judged only there.
    let in_version =
        |state: &&GuardState| state.target().is_some_and(|target| target.version == review.version);
    let arrives_as =
        if found.clone().any(|state| in_version(&state)) { Arrival::AsHashed } else { Arrival::Otherwise };
    let guards: Vec<&GuardState> = found
        .filter(|state| arrives_as == Arrival::Otherwise || in_version(state))
        .filter(|state| {
            // Scale, Binding and Eviction are no image of the object that is pinned.
            review.sub_resource.is_empty() || state.target().is_some_and(|target| target.kind == review.kind)
        })
        .collect();
    if operation == Operation::Delete {
        return Ok(judge_deletion(review, &guards));
    }
    if arrives_as == Arrival::AsHashed && approved_by_all(review, &guards, now) {
        return Ok(Verdict::Allow);
    }
    if !complete {
        review.read_rest()?;
    }
    Ok(judge_change(review, operation, arrives_as, &guards, now))
}

/// In which version an object arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// In the one that a guard hashes.
    AsHashed,
    /// In another one alone, as while rules and index follow a change of the version one after the
    /// other. No hash of it says anything, so that only writes which change nothing may pass.
    Otherwise,
}

/// The object's own name and namespace: `request.name` is absent for some operations, and a
/// mutating webhook may rename on CREATE.
fn object_key(review: &Review<'_>, operation: Operation) -> Result<Unguarded, ReviewError> {
    let (object, field) = match operation {
        Operation::Delete => (&review.old_object, "oldObject"),
        _ => (&review.object, "object"),
    };
    let Some(object) = object else {
        let message = format!("a {} without request.{field}", operation.as_str());
        return Err(ReviewError { uid: Some(review.uid.clone()), message });
    };
    let text = |name| {
        metadata_text(object, name)
            .map_err(|error| ReviewError { uid: Some(review.uid.clone()), message: error.to_string() })
    };
    let mut namespace = text("namespace")?;
    // The request of a Namespace carries its own name as namespace.
    let is_namespace = review.group.is_empty() && review.resource == "namespaces";
    if namespace.is_empty() && !is_namespace {
        namespace.clone_from(&review.namespace);
    }
    Ok(Unguarded {
        group: review.group.clone(),
        resource: review.resource.clone(),
        namespace: (!namespace.is_empty()).then_some(namespace),
        name: text("name")?,
    })
}

fn approved_by_all(review: &Review<'_>, guards: &[&GuardState], now: Timestamp) -> bool {
    let Some(object) = &review.object else { return false };
    guards.iter().all(|state| match state {
        GuardState::Valid(guard) => {
            hash_parsed(object, &guard.scope).is_ok_and(|hash| guard.approves(hash, now))
        }
        GuardState::Invalid(_) => false,
    })
}

/// Deletion passes with a warning: it is found and put right as drift.
fn judge_deletion(review: &Review<'_>, guards: &[&GuardState]) -> Verdict {
    let mut warnings = Vec::new();
    let mut attempt = None;
    for state in guards {
        let Some(target) = state.target() else { continue };
        warnings.push(message::deleted(state.id(), target));
        if attempt.is_none() {
            let finding = Finding { reason: Reason::TargetDeleted, image: None, changes: Changes::default() };
            attempt = Some(record(review, state, target, &finding));
        }
    }
    if warnings.is_empty() { Verdict::Allow } else { Verdict::AllowWith { warnings, attempt } }
}

/// What one guard has to say against a write.
struct Finding {
    reason: Reason,
    image: Option<ContentHash>,
    changes: Changes,
}

fn judge_change(
    review: &Review<'_>,
    operation: Operation,
    arrives_as: Arrival,
    guards: &[&GuardState],
    now: Timestamp,
) -> Verdict {
    let mut warnings = Vec::new();
    let mut let_through = None;
    for state in guards {
        let (opinion, target) = match state {
            GuardState::Valid(guard) if arrives_as == Arrival::Otherwise => {
                (against_in_another_version(review, guard), &guard.target)
            }
            GuardState::Valid(guard) => (against(review, operation, guard, now), &guard.target),
            GuardState::Invalid(invalid) => match &invalid.target {
                Some(target) => (against_invalid(review, invalid, target), target),
                None => continue,
            },
        };
        let (finding, answer) = match opinion {
            Opinion::Fine => continue,
            Opinion::Says(finding, answer) => (finding, answer),
        };
        let attempt = record(review, state, target, &finding);
        match answer {
            Answer::Deny(message) => return Verdict::Deny { message, attempt },
            Answer::Warn(warning) => warnings.push(warning),
            Answer::Record => {}
        }
        let_through.get_or_insert(attempt);
    }
    match let_through {
        None => Verdict::Allow,
        Some(attempt) => Verdict::AllowWith { warnings, attempt: Some(attempt) },
    }
}

enum Opinion {
    Fine,
    Says(Finding, Answer),
}

enum Answer {
    Deny(String),
    Warn(String),
    Record,
}

/// The opinion of a valid guard on a write that is not approved by all.
fn against(review: &Review<'_>, operation: Operation, guard: &Guard, now: Timestamp) -> Opinion {
    let Some(object) = &review.object else { return Opinion::Fine };
    let new = match hash_parsed(object, &guard.scope) {
        Ok(hash) => hash,
        Err(error) => return against_undecodable(guard, &error),
    };
    if guard.approves(new, now) {
        return Opinion::Fine;
    }
    let old = review.old_object.as_ref();
    let image = (!guard.scope.is_secret()).then_some(new);
    if old.and_then(|old| hash_parsed(old, &guard.scope).ok()) == Some(new) {
        let finding = Finding { reason: Reason::AlreadyDrifted, image, changes: Changes::default() };
        return Opinion::Says(finding, Answer::Warn(message::already_drifted(guard)));
    }
    let changes =
        old.and_then(|old| diff::changed(old, object, &guard.scope, MAX_PATHS).ok()).unwrap_or_default();
    if let Some(pause) = guard.paused(now) {
        let warning = message::paused(guard, pause);
        return Opinion::Says(Finding { reason: Reason::Paused, image, changes }, Answer::Warn(warning));
    }
    let answer = match guard.enforcement {
        Enforcement::Deny | Enforcement::Rewrite => {
            Answer::Deny(message::denial(guard, operation, &changes, image))
        }
        Enforcement::Warn => Answer::Warn(message::would_deny(guard, &changes)),
        Enforcement::Audit => Answer::Record,
    };
    Opinion::Says(Finding { reason: Reason::HashMismatch, image, changes }, answer)
}

fn against_undecodable(guard: &Guard, error: &CanonicalError) -> Opinion {
    let finding = Finding { reason: Reason::Undecodable, image: None, changes: Changes::default() };
    let message = message::undecodable(&guard.id, &error.to_string());
    let answer = match guard.enforcement {
        Enforcement::Deny | Enforcement::Rewrite => Answer::Deny(message),
        Enforcement::Warn => Answer::Warn(message),
        Enforcement::Audit => Answer::Record,
    };
    Opinion::Says(finding, answer)
}

/// The opinion of a guard on an object that arrives in a version which it does not hash.
fn against_in_another_version(review: &Review<'_>, guard: &Guard) -> Opinion {
    let hash = |object: &Option<Object<'_>>| {
        object.as_ref().and_then(|object| hash_parsed(object, &guard.scope).ok())
    };
    let (old, new) = (hash(&review.old_object), hash(&review.object));
    if old.is_some() && old == new {
        return Opinion::Fine;
    }
    let finding = Finding { reason: Reason::OtherVersion, image: None, changes: Changes::default() };
    let message = message::other_version(guard, &review.version);
    let answer = match guard.enforcement {
        Enforcement::Deny | Enforcement::Rewrite => Answer::Deny(message),
        Enforcement::Warn => Answer::Warn(message),
        Enforcement::Audit => Answer::Record,
    };
    Opinion::Says(finding, answer)
}

/// A guard that cannot be evaluated says nothing about what is approved, so that only writes which
/// leave all content as it is may pass: a guard passed over would be a hole.
fn against_invalid(review: &Review<'_>, guard: &InvalidGuard, target: &Target) -> Opinion {
    let scope = Scope::new(&target.group, &target.kind, PathFilter::everything());
    let hash =
        |object: &Option<Object<'_>>| object.as_ref().and_then(|object| hash_parsed(object, &scope).ok());
    let (old, new) = (hash(&review.old_object), hash(&review.object));
    if old.is_some() && old == new {
        return Opinion::Fine;
    }
    let image = if scope.is_secret() { None } else { new };
    let finding = Finding { reason: Reason::GuardInvalid, image, changes: Changes::default() };
    Opinion::Says(finding, Answer::Deny(message::invalid_guard(guard)))
}

fn record(review: &Review<'_>, state: &GuardState, target: &Target, finding: &Finding) -> Box<Attempt> {
    let object = review.old_object.as_ref().or(review.object.as_ref());
    let (guard_uid, guard_generation, enforcement) = match state {
        GuardState::Valid(guard) => (guard.uid.clone(), guard.generation, Some(guard.enforcement)),
        GuardState::Invalid(invalid) => (String::new(), invalid.generation, None),
    };
    let mut user = review.user();
    user.groups.truncate(User::MAX_GROUPS);
    Box::new(Attempt {
        guard: state.id().clone(),
        guard_uid,
        guard_generation,
        target: target.clone(),
        target_uid: object.and_then(|object| metadata_text(object, "uid").ok()).unwrap_or_default(),
        operation: review.operation.unwrap_or(Operation::Update),
        sub_resource: review.sub_resource.clone(),
        dry_run: review.dry_run,
        user,
        field_manager: review.field_manager(),
        image_hash: finding.image,
        paths: finding.changes.paths.clone(),
        enforcement,
        reason: finding.reason,
    })
}

/// Whether the end of the review, where its options stand, names the proof's field manager. A cheap
/// test that saves every other review from being read to its end.
fn asks_for_proof(body: &[u8]) -> bool {
    let name = PROOF_FIELD_MANAGER.as_bytes();
    let tail = &body[body.len().saturating_sub(OPTIONS_REACH)..];
    // Comparing only where the first byte fits keeps this to a fraction of a microsecond.
    tail.iter().enumerate().any(|(at, byte)| *byte == name[0] && tail[at..].starts_with(name))
}

/// The nonce of a dry run that asks for proof.
fn proof_nonce(review: &Review<'_>) -> Option<String> {
    let manager = review.field_manager();
    let nonce = manager.strip_prefix(PROOF_FIELD_MANAGER)?;
    let plain = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (review.dry_run && plain).then(|| nonce.to_owned())
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
