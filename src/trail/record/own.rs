//! Records of attempts on our own kinds: what approves, and what lets writes pass.

use jiff::Timestamp;

use super::made::{Circumstances, MAX_TEXT, cut};
use super::{Guard, Kind, Pause, Record, Target, User};
use crate::api::names;
use crate::core;
use crate::core::guard::GuardId;
use crate::core::verdict::Operation;

/// An attempt to make, change or delete an object of one of our own kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAttempt {
    /// Which object.
    pub object: GuardId,
    /// Its `metadata.uid`, as far as is known.
    pub uid: String,
    /// Of which kind it is.
    pub kind: OwnKind,
    /// What was attempted.
    pub operation: Operation,
    /// Who.
    pub user: core::verdict::User,
    /// `options.fieldManager`.
    pub field_manager: String,
    /// Whether it was refused.
    pub denied: bool,
    /// Why, or what became of it: a stable word.
    pub reason: &'static str,
    /// What the user was told, or what was done.
    pub message: String,
    /// `request.uid`.
    pub review_uid: String,
}

/// What is recorded of an object of our own by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnKind {
    /// A guard, which may also be adopted.
    Guard {
        /// `metadata.generation` as it would be.
        generation: i64,
        /// What it pins, where that is known.
        target: Option<core::guard::Target>,
    },
    /// An exception.
    Exception {
        /// `spec.until`, where the spec can be read.
        until: Option<Timestamp>,
        /// `spec.reason`, likewise.
        why: String,
    },
}

impl<'a> Record<'a> {
    /// The record of an attempt on a guard or an exception itself.
    #[must_use]
    pub fn of_own(attempt: &'a OwnAttempt, circumstances: Circumstances<'a>) -> Self {
        let record = Self {
            operation: Some(attempt.operation.as_str()),
            user: Some(User::of(&attempt.user)),
            field_manager: cut(&attempt.field_manager, MAX_TEXT),
            ..Self::unjudged(attempt.reason, None, circumstances)
        };
        let kind = |done| if attempt.denied { Kind::Denial } else { done };
        match &attempt.kind {
            OwnKind::Guard { generation, target } => Self {
                kind: kind(Kind::GuardChange),
                guard: Some(Guard {
                    namespace: cut(&attempt.object.namespace, MAX_TEXT),
                    name: cut(&attempt.object.name, MAX_TEXT),
                    uid: cut(&attempt.uid, MAX_TEXT),
                    generation: *generation,
                }),
                target: target.as_ref().map(pinned),
                ..record
            },
            OwnKind::Exception { until, why } => Self {
                kind: kind(Kind::ExceptionChange),
                target: Some(exception(attempt)),
                pause: Some(Pause {
                    exception: cut(&attempt.object.name, MAX_TEXT),
                    until: *until,
                    reason: cut(why, MAX_TEXT),
                    by: "",
                }),
                ..record
            },
        }
    }
}

/// What a guard pins as it would be, which may be anything.
fn pinned(target: &core::guard::Target) -> Target<'_> {
    Target {
        api_version: target.api_version(),
        kind: cut(&target.kind, MAX_TEXT),
        resource: cut(&target.resource, MAX_TEXT),
        namespace: target.namespace.as_deref().map(|namespace| cut(namespace, MAX_TEXT)),
        name: cut(&target.name, MAX_TEXT),
        uid: "",
    }
}

/// An exception is the target itself: which guards it pauses is told when they are paused.
fn exception(attempt: &OwnAttempt) -> Target<'_> {
    Target {
        api_version: format!("{}/{}", names::GROUP, names::VERSION),
        kind: "DriftGuardException",
        resource: names::EXCEPTIONS,
        namespace: Some(cut(&attempt.object.namespace, MAX_TEXT)),
        name: cut(&attempt.object.name, MAX_TEXT),
        uid: cut(&attempt.uid, MAX_TEXT),
    }
}
