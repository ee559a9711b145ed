//! The admission rule: one review against the guards of its object (DESIGN section 4).
//!
//! A write passes when the new content is approved by every guard of the object, or when it leaves
//! the pinned content as it is. Otherwise the guard's enforcement decides. Nobody is exempt: no
//! user, no namespace, no object that is being deleted.

use jiff::Timestamp;

use super::canonical::object::Object;
use super::canonical::{CanonicalError, hash_parsed};
use super::covering::{Arrival, Form, approved_by_all, guards_of, object_key};
use super::diff::Changes;
use super::guard::{Enforcement, Guard, GuardState, InvalidGuard, Target};
use super::hash::ContentHash;
use super::images::Images;
use super::index::Index;
use super::message;
use super::paths::PathFilter;
use super::pause;
use super::review::{Progress, Review, metadata_text};
use super::rewrite;
use super::scope::Scope;
use super::shape;
use super::verdict::{Attempt, Fact, Judgement, Operation, Proof, Reason, ReviewError, User, Verdict};

mod deletion;
mod partial;
mod statement;

/// Field manager of a dry run that proves which replica answers; a nonce follows.
pub const PROOF_FIELD_MANAGER: &str = "driftguard-proof-";
/// How far from the end of a review its options are looked for. The API server writes them last,
/// and a field manager has at most 128 characters.
const OPTIONS_REACH: usize = 1024;

/// Judges one admission review, given as the raw body, at `now`.
///
/// # Errors
/// [`ReviewError`] when the body is no review that can be judged; it carries the uid if there is one.
pub fn judge(body: &[u8], index: &Index, now: Timestamp) -> Result<Judgement, ReviewError> {
    judge_knowing(body, index, now, None)
}

/// [`judge`] once more, with the answer to the question that the first judgement was.
///
/// # Errors
/// As [`judge`].
pub fn judge_knowing(
    body: &[u8],
    index: &Index,
    now: Timestamp,
    fact: Option<Fact<'_>>,
) -> Result<Judgement, ReviewError> {
    let (mut review, progress) = Review::read_head(body)?;
    let needs_options = asks_for_proof(body);
    let needs_old_object = review.operation == Some(Operation::Delete) || Form::of(&review) != Form::Object;
    let mut complete = progress == Progress::Finished;
    if !complete && (needs_options || needs_old_object) {
        review.read_rest()?;
        complete = true;
    }
    let verdict = verdict(&mut review, complete, index, now, fact)?;
    let nonce = needs_options.then(|| proof_nonce(&review)).flatten();
    let proof = nonce.map(|nonce| Proof { nonce, statements: statement::of(&review, index, now) });
    Ok(Judgement { uid: std::mem::take(&mut review.uid), verdict, proof })
}

fn verdict(
    review: &mut Review<'_>,
    complete: bool,
    index: &Index,
    now: Timestamp,
    fact: Option<Fact<'_>>,
) -> Result<Verdict, ReviewError> {
    let Some(operation) = review.operation else { return Ok(Verdict::Allow) };
    if operation == Operation::Connect {
        return Ok(Verdict::Allow);
    }
    let form = Form::of(review);
    let key = object_key(review, operation, form)?;
    let namespace = key.namespace.as_deref().unwrap_or_default();
    if index.lookup(&key.group, &key.resource, namespace, &key.name).next().is_none() {
        return Ok(Verdict::NotGuarded(key));
    }
    let (guards, arrives_as) = guards_of(review, form, &key, index);
    if operation == Operation::Delete || form == Form::Eviction {
        return Ok(deletion::judge(review, &guards, now, fact));
    }
    if matches!(form, Form::Scale | Form::Binding) {
        return Ok(partial::judge(review, form, &guards, now, fact));
    }
    let mut complete = complete;
    if !complete && operation == Operation::Update && shape::concerns(&guards) {
        review.read_rest()?;
        complete = true;
    }
    let is_clear = |state: &&GuardState| !matches!(state, GuardState::Valid(guard) if shape::is_unclear(review, guard, now));
    let hashed = arrives_as == Arrival::AsHashed && approved_by_all(review, &guards, now);
    if hashed && guards.iter().all(is_clear) {
        return Ok(Verdict::Allow);
    }
    if !complete {
        review.read_rest()?;
    }
    if is_end_of_namespace(review) {
        return Ok(Verdict::Allow);
    }
    Ok(judge_change(review, operation, &guards, now))
}

/// The one exemption: the end of a Namespace was judged when its deletion began.
fn is_end_of_namespace(review: &Review<'_>) -> bool {
    review.group.is_empty()
        && review.resource == "namespaces"
        && review.sub_resource == "finalize"
        && review.old_object.as_ref().is_some_and(is_terminating)
}

/// Whether the deletion of an object has begun.
fn is_terminating(object: &Object<'_>) -> bool {
    metadata_text(object, "deletionTimestamp").is_ok_and(|time| !time.is_empty())
}

/// What one guard has to say against a write.
struct Finding {
    reason: Reason,
    image: Option<ContentHash>,
    changes: Changes,
}

impl Finding {
    /// A finding that knows neither content nor paths.
    fn bare(reason: Reason) -> Self {
        Self { reason, image: None, changes: Changes::default() }
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

/// The sum of what the guards say: refused when one refuses, and otherwise everything that is said.
fn sum_up<'g>(
    review: &Review<'_>,
    guards: &[&'g GuardState],
    opinion: impl Fn(&'g GuardState, &'g Target) -> Opinion,
) -> Verdict {
    let mut warnings = Vec::new();
    let mut attempts = Vec::new();
    for state in guards.iter().copied() {
        let Some(target) = state.target() else { continue };
        let (finding, answer) = match opinion(state, target) {
            Opinion::Fine => continue,
            Opinion::Says(finding, answer) => (finding, answer),
        };
        let attempt = record(review, state, target, &finding);
        match answer {
            Answer::Deny(message) => return Verdict::Deny { message, attempt: Box::new(attempt) },
            Answer::Warn(warning) => warnings.push(warning),
            Answer::Record => {}
        }
        attempts.push(attempt);
    }
    if attempts.is_empty() { Verdict::Allow } else { Verdict::AllowWith { warnings, attempts } }
}

fn judge_change(
    review: &Review<'_>,
    operation: Operation,
    guards: &[&GuardState],
    now: Timestamp,
) -> Verdict {
    let images = Images::of(review);
    sum_up(review, guards, |state, target| match state {
        GuardState::Valid(guard) if guard.target.version != review.version => {
            against_in_another_version(review, guard, now)
        }
        GuardState::Valid(guard) => against(review, &images, operation, guard, guards, now),
        GuardState::Invalid(invalid) => against_invalid(review, invalid, target, now),
    })
}

/// What becomes of a write that a guard does not approve: its pause or its enforcement decides.
fn act(
    guard: &Guard,
    now: Timestamp,
    finding: Finding,
    denial: impl FnOnce(&Finding) -> String,
    warning: impl FnOnce(&Finding) -> String,
) -> Opinion {
    if let Some(pause) = guard.paused(now) {
        let said = message::paused(guard, pause, &finding.changes);
        return Opinion::Says(Finding { reason: Reason::Paused, ..finding }, Answer::Warn(said));
    }
    let answer = match guard.enforcement {
        Enforcement::Deny | Enforcement::Rewrite => Answer::Deny(denial(&finding)),
        Enforcement::Warn => Answer::Warn(warning(&finding)),
        Enforcement::Audit => Answer::Record,
    };
    Opinion::Says(finding, answer)
}

/// The opinion of a valid guard on a write that is not approved by all.
fn against<'r>(
    review: &'r Review<'r>,
    images: &Images<'r>,
    operation: Operation,
    guard: &'r Guard,
    guards: &[&GuardState],
    now: Timestamp,
) -> Opinion {
    let new = match images.new_hash(&guard.scope) {
        None => return Opinion::Fine,
        Some(Ok(hash)) => hash,
        Some(Err(error)) => return against_undecodable(guard, &error, now),
    };
    let image = (!guard.scope.is_secret()).then_some(new);
    if guard.approves(new, now) {
        if !shape::is_unclear(review, guard, now) {
            return Opinion::Fine;
        }
        let message = || message::unclear_shape(guard, operation);
        let finding = Finding { image, ..Finding::bare(Reason::ContentMoved) };
        return act(guard, now, finding, |_| message(), |_| message());
    }
    let stays = shape::stays(review.old_object.as_ref(), review.object.as_ref());
    if stays && images.old_hash(&guard.scope) == Some(new) {
        return left_drifted(guard, image);
    }
    let finding = Finding { reason: Reason::HashMismatch, image, changes: images.changes(&guard.scope) };
    let denial = |finding: &Finding| {
        let obstacle = (guard.enforcement == Enforcement::Rewrite)
            .then(|| rewrite::obstacle(review, guards, now).to_string());
        message::denial(guard, operation, &finding.changes, image, obstacle.as_deref())
    };
    act(guard, now, finding, denial, |finding| message::would_deny(guard, &finding.changes))
}

/// The opinion on a write that leaves drifted content as it is.
fn left_drifted(guard: &Guard, image: Option<ContentHash>) -> Opinion {
    let finding = Finding { image, ..Finding::bare(Reason::AlreadyDrifted) };
    Opinion::Says(finding, Answer::Warn(message::already_drifted(guard)))
}

fn against_undecodable(guard: &Guard, error: &CanonicalError, now: Timestamp) -> Opinion {
    let message = || message::undecodable(&guard.id, &error.to_string());
    act(guard, now, Finding::bare(Reason::Undecodable), |_| message(), |_| message())
}

/// The opinion of a guard on an object that arrives in a version which it does not hash. Nor do its
/// paths say what lies where in that one.
fn against_in_another_version(review: &Review<'_>, guard: &Guard, now: Timestamp) -> Opinion {
    let (old, new) = whole_hashes(review, &guard.target);
    if old.is_some() && old == new {
        return Opinion::Fine;
    }
    in_another_version(guard, &review.version, now)
}

/// The hashes, before and after a write, of all that a guard without paths would pin. The first is
/// absent where the two do not compare.
fn whole_hashes(review: &Review<'_>, target: &Target) -> (Option<ContentHash>, Option<ContentHash>) {
    let scope = Scope::new(&target.group, &target.kind, PathFilter::everything());
    let hash =
        |object: &Option<Object<'_>>| object.as_ref().and_then(|object| hash_parsed(object, &scope).ok());
    let compares = shape::stays(review.old_object.as_ref(), review.object.as_ref());
    (if compares { hash(&review.old_object) } else { None }, hash(&review.object))
}

fn in_another_version(guard: &Guard, version: &str, now: Timestamp) -> Opinion {
    let message = || message::other_version(guard, version);
    act(guard, now, Finding::bare(Reason::OtherVersion), |_| message(), |_| message())
}

/// A guard that cannot be evaluated says nothing about what is approved, so that only writes which
/// leave all content as it is may pass: a guard passed over would be a hole.
fn against_invalid(review: &Review<'_>, guard: &InvalidGuard, target: &Target, now: Timestamp) -> Opinion {
    let (old, new) = whole_hashes(review, target);
    if old.is_some() && old == new {
        return Opinion::Fine;
    }
    let is_secret = Scope::new(&target.group, &target.kind, PathFilter::everything()).is_secret();
    let shown = !is_secret && Form::of(review) == Form::Object;
    let image = if shown { new } else { None };
    if let Some(pause) = pause::in_force(&guard.pauses, now) {
        let finding = Finding { image, ..Finding::bare(Reason::Paused) };
        return Opinion::Says(finding, Answer::Warn(message::paused_invalid(guard, target, pause)));
    }
    let finding = Finding { image, ..Finding::bare(Reason::GuardInvalid) };
    Opinion::Says(finding, Answer::Deny(message::invalid_guard(guard)))
}

fn record(review: &Review<'_>, state: &GuardState, target: &Target, finding: &Finding) -> Attempt {
    let object = review.old_object.as_ref().or(review.object.as_ref());
    let enforcement = match state {
        GuardState::Valid(guard) => Some(guard.enforcement),
        GuardState::Invalid(_) => None,
    };
    let mut user = review.user();
    user.groups.truncate(User::MAX_GROUPS);
    Attempt {
        guard: state.id().clone(),
        guard_uid: state.uid().as_str().to_owned(),
        guard_generation: state.generation(),
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
    }
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
