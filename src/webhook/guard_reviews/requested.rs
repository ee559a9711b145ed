//! What a person asks for by an annotation of a guard, beside what the guard pins: that takes the rights of an author,
//! and is recorded and told like a change.

use tokio::time::Instant;

use super::{Asking, GuardReviews};
use crate::core::audit::{ACKNOWLEDGE, RESTORE};
use crate::core::guard_spec::{self, Refusal};
use crate::store::Stored;
use crate::telemetry::notices::Notice;
use crate::trail::record::OwnAttempt;

/// Annotations by which a person has something done that takes the rights of an author, and how records call it.
const ASKED: [Requested; 2] = [
    Requested {
        annotation: RESTORE,
        reason: "RestoreAsked",
        what: "asks for the approved content to be put back",
    },
    Requested {
        annotation: ACKNOWLEDGE,
        reason: "IncidentAcknowledged",
        what: "has acknowledged an incident: remediation goes on",
    },
];

/// What an annotation asks for, how it is called in records, and what Events say of it.
pub(super) struct Requested {
    annotation: &'static str,
    pub(super) reason: &'static str,
    what: &'static str,
}

impl Asking<'_> {
    /// What an update asks to be done, beside all else, as records call it.
    pub(super) fn requested(&self) -> Vec<&'static Requested> {
        let (Some(new), Some(old)) = (&self.new, &self.old) else { return Vec::new() };
        let asks = |key| new.annotation(key).is_some_and(|value| old.annotation(key) != Some(value));
        ASKED.iter().filter(|asked| asks(asked.annotation)).collect()
    }
}

/// A record of an update that asks for something, alone or beside what else it changes.
pub(super) fn with_requested(
    told: Option<OwnAttempt>,
    requested: &[&'static Requested],
) -> Option<OwnAttempt> {
    let told = told?;
    let said: Vec<String> =
        requested.iter().map(|request| format!("{} {}", told.user.name, request.what)).collect();
    let message = if said.is_empty() { told.message } else { said.join("; ") };
    Some(OwnAttempt { message, ..told })
}

impl GuardReviews {
    /// Whether whoever writes might as well change what the guard approves.
    ///
    /// # Errors
    /// The refusal when they may not, or when that cannot be told in time.
    pub(super) async fn may_ask(&self, asking: &Asking<'_>, deadline: Instant) -> Result<(), Refusal> {
        let id = asking.id();
        let Ok(Ok(_permit)) = tokio::time::timeout_at(deadline, self.room.0.acquire()).await else {
            return Err(guard_spec::rights_unknown(&id));
        };
        let stored = asking.request.object.and_then(|raw| serde_json::from_str::<Stored>(raw.get()).ok());
        let Some(proposed) = stored.and_then(|stored| self.store.propose(&stored)) else {
            return Err(guard_spec::not_ready(&id, "the kinds that the API server serves"));
        };
        self.rights(&id, asking, &proposed, deadline).await
    }

    /// Tells in Events what was asked for.
    pub(super) fn announce_requested(&self, asking: &Asking<'_>, requested: &[&'static Requested]) {
        for Requested { reason, what, .. } in requested {
            if let Some(told) = asking.told(None, reason, None) {
                let note = format!("{} {what}", told.user.name);
                self.notices.put(Notice { guard: told.object, uid: told.uid, reason, note });
            }
        }
    }
}
