//! Reviews of our own kinds as they are sent, and as they are answered. Unlike those of targets they are small
//! and rare, so that they are read as a whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::notes::Notes;
use super::response;
use crate::core::guard::GuardId;
use crate::core::guard_spec::Refusal;
use crate::core::verdict::{Operation, User};
use crate::trail::record::{OwnAttempt, OwnKind, new_transaction_id};

#[derive(Deserialize)]
pub(super) struct Review<'a> {
    #[serde(borrow)]
    pub(super) request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    pub(super) uid: String,
    pub(super) resource: Resource,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) user_info: UserInfo,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) old_object: Option<&'a RawValue>,
    pub(super) dry_run: Option<bool>,
    pub(super) options: Option<Options>,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) resource: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UserInfo {
    pub(super) username: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    #[serde(default)]
    pub(super) field_manager: String,
}

impl Request<'_> {
    /// Who asks, as records name them.
    pub(super) fn user(&self) -> User {
        let UserInfo { username, uid, groups, .. } = &self.user_info;
        let groups = groups.iter().take(User::MAX_GROUPS).cloned().collect();
        User { name: username.clone(), uid: uid.clone(), groups }
    }

    /// `options.fieldManager`, empty when there is none.
    pub(super) fn field_manager(&self) -> String {
        self.options.as_ref().map(|options| options.field_manager.clone()).unwrap_or_default()
    }

    /// What is recorded of it; nothing of a dry run. `done` is what became of it unless it was refused.
    pub(super) fn told(
        &self,
        operation: Operation,
        (object, uid): (GuardId, String),
        kind: OwnKind,
        refusal: Option<&Refusal>,
        done: &'static str,
    ) -> Option<OwnAttempt> {
        if self.dry_run == Some(true) {
            return None;
        }
        Some(OwnAttempt {
            object,
            uid,
            kind,
            operation,
            user: self.user(),
            field_manager: self.field_manager(),
            denied: refusal.is_some(),
            reason: refusal.map_or(done, |refusal| refusal.reason),
            message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
            review_uid: self.uid.clone(),
        })
    }
}

/// The answer to a review of an object of our own.
pub(super) struct OwnAnswer {
    /// For metrics.
    pub(super) verdict: &'static str,
    /// For metrics.
    pub(super) reason: &'static str,
    /// The bytes of the answer.
    pub(super) reply: Vec<u8>,
    /// What to record.
    pub(super) told: Option<OwnAttempt>,
    /// As what.
    pub(super) transaction_id: String,
}

impl OwnAnswer {
    /// It passes, perhaps with warnings.
    pub(super) fn allowed(
        uid: &str,
        reason: &'static str,
        warnings: &[String],
        told: Option<OwnAttempt>,
    ) -> Self {
        let verdict = if warnings.is_empty() { "allow" } else { "warn" };
        let transaction_id = new_transaction_id();
        let reply = if told.is_none() && warnings.is_empty() {
            response::allow(uid, warnings)
        } else {
            let notes = Notes::of_own(verdict, reason, told.as_ref(), &transaction_id);
            response::allow_noted(uid, warnings, &notes)
        };
        Self { verdict, reason, reply, told, transaction_id }
    }

    /// It is refused.
    pub(super) fn refused(uid: &str, refusal: &Refusal, told: Option<OwnAttempt>) -> Self {
        let transaction_id = new_transaction_id();
        let notes = Notes::of_own("deny", refusal.reason, told.as_ref(), &transaction_id);
        let reply = response::deny(uid, &refusal.message, &[], &notes);
        Self { verdict: "deny", reason: refusal.reason, reply, told, transaction_id }
    }
}
