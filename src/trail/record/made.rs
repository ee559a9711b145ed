//! What becomes a record: attempts, what befell guards, and what nobody judged.
//!
//! Texts are cut to a bounded length, since a review that nobody authenticated may be forged.

use jiff::Timestamp;

use super::{Attribution, Guard, Kind, Pause, Record, SCHEMA, Target, User};
use crate::core;
use crate::core::guard::{Enforcement, GuardId, GuardState};
use crate::core::verdict::{Attempt, Unguarded};

/// Longest text of a record, in bytes, but for messages: what a name of the API may have, and more
/// than user names have in practice.
pub(super) const MAX_TEXT: usize = 512;
/// Longest message, in bytes. Ours are far shorter.
const MAX_MESSAGE: usize = 4096;

/// A transaction id: a UUID of version 7.
#[must_use]
pub fn new_transaction_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// What a record holds besides the attempt itself.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// Transaction id of the record.
    pub transaction_id: String,
    /// When it was recorded.
    pub time: Timestamp,
    /// Whether the write was refused.
    pub denied: bool,
    /// `request.uid`.
    pub review_uid: &'a str,
    /// Name of this replica.
    pub replica: &'a str,
    /// Whether the client proved to be the API server.
    pub authenticated: bool,
    /// What the user was told, or what is wrong.
    pub message: &'a str,
}

impl<'a> Record<'a> {
    /// The record of an attempt.
    #[must_use]
    pub fn of(attempt: &'a Attempt, circumstances: Circumstances<'a>) -> Self {
        let target = &attempt.target;
        Self {
            guard: Some(Guard {
                namespace: &attempt.guard.namespace,
                name: &attempt.guard.name,
                uid: cut(&attempt.guard_uid, MAX_TEXT),
                generation: attempt.guard_generation,
            }),
            target: Some(Target {
                api_version: target.api_version(),
                kind: &target.kind,
                resource: &target.resource,
                namespace: target.namespace.as_deref(),
                name: &target.name,
                uid: cut(&attempt.target_uid, MAX_TEXT),
            }),
            operation: Some(attempt.operation.as_str()),
            sub_resource: cut(&attempt.sub_resource, MAX_TEXT),
            user: Some(User::of(&attempt.user)),
            field_manager: cut(&attempt.field_manager, MAX_TEXT),
            enforcement: attempt.enforcement.map(Enforcement::as_str),
            image_hash: attempt.image_hash.map(|hash| format!("sha256:{hash}")),
            paths: attempt.paths.iter().map(|path| cut(path, MAX_TEXT)).collect(),
            ..Self::unjudged(attempt.reason.as_str(), None, circumstances)
        }
    }

    /// The record of a change that was found rather than reviewed: who made it is known by its field
    /// manager alone. It is our own finding, so that nobody can have forged it.
    #[must_use]
    pub fn found(attempt: &'a Attempt, circumstances: Circumstances<'a>) -> Self {
        let record = Self::of(attempt, circumstances);
        Self { attribution: Attribution::FieldManager, user: None, authenticated: true, ..record }
    }

    /// The record of a guard that now denies, by `enforceAfterClean`.
    #[must_use]
    pub fn promoted(
        guard: &'a core::guard::Guard,
        transaction_id: String,
        time: Timestamp,
        message: &'a str,
        replica: &'a str,
    ) -> Self {
        let circumstances = Circumstances {
            transaction_id,
            time,
            denied: false,
            review_uid: "",
            replica,
            authenticated: true,
            message,
        };
        Self {
            kind: Kind::Promotion,
            enforcement: Some(Enforcement::Deny.as_str()),
            ..Self::of_state(
                Guard::of(&guard.id, &guard.uid, guard.generation),
                Some(&guard.target),
                "Promoted",
                circumstances,
            )
        }
    }

    /// The record of a guard that begins to let writes pass for a while, or no longer does.
    #[must_use]
    pub fn of_pause(
        state: &'a GuardState,
        reason: &'static str,
        pause: Option<Pause<'a>>,
        circumstances: Circumstances<'a>,
    ) -> Self {
        let enforcement = match state {
            GuardState::Valid(guard) => Some(guard.enforcement.as_str()),
            GuardState::Invalid(_) => None,
        };
        Self {
            kind: Kind::Pause,
            enforcement,
            pause,
            ..Self::of_state(
                Guard::of(state.id(), state.uid(), state.generation()),
                state.target(),
                reason,
                circumstances,
            )
        }
    }

    /// The record of broken glass, or of its end; every guard is concerned.
    #[must_use]
    pub fn of_glass(reason: &'static str, pause: Pause<'a>, circumstances: Circumstances<'a>) -> Self {
        Self {
            kind: Kind::Glass,
            attribution: Attribution::Itself,
            pause: Some(pause),
            ..Self::unjudged(reason, None, circumstances)
        }
    }

    /// The record of what became of a guard by our own doing.
    pub(super) fn of_state(
        guard: Guard<'a>,
        target: Option<&'a core::guard::Target>,
        reason: &'static str,
        circumstances: Circumstances<'a>,
    ) -> Self {
        Self {
            guard: Some(guard),
            target: target.map(|target| Target {
                api_version: target.api_version(),
                kind: &target.kind,
                resource: &target.resource,
                namespace: target.namespace.as_deref(),
                name: &target.name,
                uid: "",
            }),
            attribution: Attribution::Itself,
            ..Self::unjudged(reason, None, circumstances)
        }
    }

    /// The record of a review that no guard judged: it could not be read, or the guards could not.
    #[must_use]
    pub fn unjudged(
        reason: &'static str,
        object: Option<&'a Unguarded>,
        circumstances: Circumstances<'a>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            transaction_id: circumstances.transaction_id,
            time: circumstances.time,
            kind: if circumstances.denied { Kind::Denial } else { Kind::Observation },
            guard: None,
            target: object.map(|object| Target {
                api_version: cut(&object.group, MAX_TEXT).to_owned(),
                kind: "",
                resource: cut(&object.resource, MAX_TEXT),
                namespace: object.namespace.as_deref().map(|namespace| cut(namespace, MAX_TEXT)),
                name: cut(&object.name, MAX_TEXT),
                uid: "",
            }),
            operation: None,
            sub_resource: "",
            user: None,
            field_manager: "",
            attribution: Attribution::ObservedAtAdmission,
            authenticated: circumstances.authenticated,
            enforcement: None,
            reason,
            image_hash: None,
            paths: Vec::new(),
            pause: None,
            sources: Vec::new(),
            message: cut(circumstances.message, MAX_MESSAGE),
            review_uid: cut(circumstances.review_uid, MAX_TEXT),
            replica: circumstances.replica,
        }
    }
}

impl<'a> Guard<'a> {
    pub(super) fn of(id: &'a GuardId, uid: &'a str, generation: i64) -> Self {
        Self { namespace: &id.namespace, name: &id.name, uid, generation }
    }
}

impl<'a> User<'a> {
    /// Whoever made an attempt.
    pub(super) fn of(user: &'a core::verdict::User) -> Self {
        Self {
            name: cut(&user.name, MAX_TEXT),
            uid: cut(&user.uid, MAX_TEXT),
            groups: user.groups.iter().map(|group| cut(group, MAX_TEXT)).collect(),
        }
    }
}

/// The first `most` bytes of `text` that are whole characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
