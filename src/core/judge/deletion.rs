//! Deletion and eviction of a guarded object.
//!
//! It passes with a warning, and is found and put right as drift, unless a guard says
//! `deletionPolicy: Deny`. Then it passes only where refusing it would strand a namespace that is going
//! away, which the review does not say, or where it has begun already.

use jiff::Timestamp;

use super::{Answer, Finding, Opinion, is_terminating, sum_up};
use crate::core::canonical::object::Object;
use crate::core::guard::{DeletionPolicy, FailurePolicy, Guard, GuardState, Target};
use crate::core::json::Cursor;
use crate::core::message;
use crate::core::review::Review;
use crate::core::verdict::{Fact, Question, Reason, Verdict};

pub(super) fn judge(
    review: &Review<'_>,
    guards: &[&GuardState],
    now: Timestamp,
    fact: Option<Fact<'_>>,
) -> Verdict {
    // What cannot be undone any more must not be held up: a kubelet ends a Pod by a second DELETE.
    let has_begun = review.old_object.as_ref().is_some_and(is_terminating);
    let refuses = |guard: &Guard| {
        guard.deletion_policy == DeletionPolicy::Deny
            && guard.enforcement.blocks()
            && guard.paused(now).is_none()
            && !has_begun
    };
    let refused = guards.iter().find_map(|state| match state {
        GuardState::Valid(guard) if refuses(guard) => Some(&guard.target),
        _ => None,
    });
    if let Some(Target { namespace: Some(namespace), .. }) = refused
        && fact.is_none()
    {
        return Verdict::Ask(Question::Namespace(namespace.as_str().to_owned()));
    }
    sum_up(review, guards, |state, target| match state {
        GuardState::Valid(guard) if refuses(guard) => against(guard, target, fact),
        _ => passes(state, target),
    })
}

fn passes(state: &GuardState, target: &Target) -> Opinion {
    let warning = message::deleted(state.id(), target);
    Opinion::Says(Finding::bare(Reason::TargetDeleted), Answer::Warn(warning))
}

fn against(guard: &Guard, target: &Target, namespace: Option<Fact<'_>>) -> Opinion {
    let denied = |message| Opinion::Says(Finding::bare(Reason::TargetDeleted), Answer::Deny(message));
    let unread = |answer: fn(String) -> Answer| {
        let message = message::unread(guard, "the namespace");
        Opinion::Says(Finding::bare(Reason::TargetUnread), answer(message))
    };
    let warned = || {
        let warning = message::deleted(&guard.id, target);
        Opinion::Says(Finding::bare(Reason::TargetDeleted), Answer::Warn(warning))
    };
    match namespace {
        None => denied(message::deletion_denied(guard)),
        Some(Fact::Absent) => warned(),
        Some(Fact::Unread(FailurePolicy::Fail)) => unread(Answer::Deny),
        Some(Fact::Unread(FailurePolicy::Ignore)) => unread(Answer::Warn),
        Some(Fact::Object(text)) => match Object::read(&mut Cursor::new(text)) {
            Ok(namespace) if is_terminating(&namespace) => warned(),
            _ => denied(message::deletion_denied(guard)),
        },
    }
}
