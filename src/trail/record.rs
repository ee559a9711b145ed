//! The record schema. Fields may be added; none changes its meaning without a new schema version.
//!
//! `docs/reference/record.md` describes it for readers; a test holds its example against this code.

use jiff::Timestamp;
use serde::Serialize;

use crate::core::verdict::Attempt;

/// Name and version of the schema, in every record.
pub const SCHEMA: &str = "driftguard.terrafusion.ai/record/v1";

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A write was refused at admission.
    Denial,
    /// A write was let through although the content is not approved, or not as it should be.
    Observation,
}

/// How the actor of a record is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Attribution {
    /// The API server named the user in the review.
    #[serde(rename = "observed at admission")]
    ObservedAtAdmission,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// A UUID of version 7: unique, and sorted by time.
    pub transaction_id: String,
    /// When it was recorded, RFC 3339 in UTC.
    pub time: Timestamp,
    /// What the record is about.
    pub kind: Kind,
    /// The guard that decided.
    pub guard: Guard<'a>,
    /// The object that it pins.
    pub target: Target<'a>,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'static str,
    /// Subresource, when not the object itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sub_resource: &'a str,
    /// Who, as the API server says.
    pub user: User<'a>,
    /// `options.fieldManager` of the request.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub field_manager: &'a str,
    /// How the user is known.
    pub attribution: Attribution,
    /// Whether the review came from a client that proved to be the API server. Without client
    /// certificates any pod could have sent it.
    pub authenticated: bool,
    /// Effective enforcement of the guard; absent when the guard cannot be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<&'static str>,
    /// Why: a stable word.
    pub reason: &'static str,
    /// SHA-256 of the content that was refused or let through; never of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_hash: Option<String>,
    /// Pinned paths that differ from the stored object, the first few; names only.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub paths: &'a [String],
    /// `request.uid`: each attempt of the API server has its own.
    pub review_uid: &'a str,
    /// The replica that judged.
    pub replica: &'a str,
}

/// The guard of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guard<'a> {
    /// Namespace of the guard.
    pub namespace: &'a str,
    /// Name of the guard.
    pub name: &'a str,
    /// `metadata.uid` of the guard.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: &'a str,
    /// `metadata.generation` of the guard.
    pub generation: i64,
}

/// The target of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target<'a> {
    /// `group/version`, or `version` alone for core.
    pub api_version: String,
    /// Kind.
    pub kind: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Namespace; absent for cluster-scoped kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// Name.
    pub name: &'a str,
    /// `metadata.uid`; absent on CREATE.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: &'a str,
}

/// The user of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User<'a> {
    /// User name; impersonation hides the impersonator.
    pub name: &'a str,
    /// Uid, when the authenticator gives one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: &'a str,
    /// Groups, the first 32.
    pub groups: &'a [String],
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
}

impl<'a> Record<'a> {
    /// The record of an attempt.
    #[must_use]
    pub fn of(attempt: &'a Attempt, circumstances: Circumstances<'a>) -> Self {
        Self {
            schema: SCHEMA,
            transaction_id: circumstances.transaction_id,
            time: circumstances.time,
            kind: if circumstances.denied { Kind::Denial } else { Kind::Observation },
            guard: Guard {
                namespace: &attempt.guard.namespace,
                name: &attempt.guard.name,
                uid: &attempt.guard_uid,
                generation: attempt.guard_generation,
            },
            target: Target {
                api_version: attempt.target.api_version(),
                kind: &attempt.target.kind,
                resource: &attempt.target.resource,
                namespace: attempt.target.namespace.as_deref(),
                name: &attempt.target.name,
                uid: &attempt.target_uid,
            },
            operation: attempt.operation.as_str(),
            sub_resource: &attempt.sub_resource,
            user: User { name: &attempt.user.name, uid: &attempt.user.uid, groups: &attempt.user.groups },
            field_manager: &attempt.field_manager,
            attribution: Attribution::ObservedAtAdmission,
            authenticated: circumstances.authenticated,
            enforcement: attempt.enforcement.map(crate::core::guard::Enforcement::as_str),
            reason: attempt.reason.as_str(),
            image_hash: attempt.image_hash.map(|hash| format!("sha256:{hash}")),
            paths: &attempt.paths,
            review_uid: circumstances.review_uid,
            replica: circumstances.replica,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::guard::{Enforcement, GuardId, Target};
    use crate::core::hash::ContentHash;
    use crate::core::verdict::{Operation, Reason, User};

    fn attempt() -> Attempt {
        Attempt {
            guard: GuardId { namespace: "prod".into(), name: "market-settings-guard".into() },
            guard_uid: "5d3c0e6e-6f0e-4a3b-9f0e-0d6a7e1f2a11".into(),
            guard_generation: 2,
            target: Target {
                group: String::new(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("prod".into()),
                name: "market-settings".into(),
            },
            target_uid: "0b9d9c1c-3b1a-4d53-8f43-9a6f3d2b7c22".into(),
            operation: Operation::Update,
            sub_resource: String::new(),
            dry_run: false,
            user: User {
                name: "alice".into(),
                uid: String::new(),
                groups: vec!["traders".into(), "system:authenticated".into()],
            },
            field_manager: "kubectl-edit".into(),
            image_hash: Some(ContentHash::of(b"{}")),
            paths: vec!["/data/price".into()],
            enforcement: Some(Enforcement::Deny),
            reason: Reason::HashMismatch,
        }
    }

    #[test]
    fn the_example_in_the_reference_is_what_is_written() {
        let circumstances = Circumstances {
            transaction_id: "019a0f3e-7c00-7a10-8000-0123456789ab".into(),
            time: "2026-06-01T12:00:00Z".parse().unwrap(),
            denied: true,
            review_uid: "3f1c5a40-77a0-4b8e-8a0e-5a7c1f0d9e33",
            replica: "driftguard-operator-0",
            authenticated: false,
        };
        let written = serde_json::to_value(Record::of(&attempt(), circumstances)).unwrap();
        let page = include_str!("../../docs/reference/record.md");
        let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(example).unwrap());
    }
}
