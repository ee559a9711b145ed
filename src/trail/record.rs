//! The record schema. Fields may be added; none changes its meaning without a new schema version.
//!
//! `docs/reference/record.md` describes it for readers; a test holds its example against this code. What
//! becomes a record is in [`made`], but for attempts on our own kinds, which are in [`own`], and for what the auditor
//! found and did, which is in [`audit`].

use jiff::Timestamp;
use serde::Serialize;

mod audit;
mod made;
mod own;

pub use audit::Audited;
pub use made::{Circumstances, new_transaction_id};
pub use own::{OwnAttempt, OwnKind};

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
    /// A guard was made, changed, adopted or deleted: what is approved changes.
    GuardChange,
    /// A guard of enforcement `Audit` has become one of `Deny`.
    Promotion,
    /// An exception was made, or ended by deleting it.
    ExceptionChange,
    /// A guard lets writes pass for a while, by `spec.suspend` or an exception, or no longer.
    Pause,
    /// A target has content that is not approved, or is gone.
    Drift,
    /// Approved content stands again, or has stood for long enough.
    DriftEnd,
    /// An attempt to put approved content back.
    Remediation,
    /// Many guards drifted at once, so that remediation stopped, or it goes on.
    Incident,
    /// The API server reads the same stored content otherwise than before.
    Representation,
    /// Somebody broke the glass, so that every guard lets writes pass, or it is whole again.
    Glass,
}

/// How the actor of a record is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Attribution {
    /// The API server named the user in the review.
    #[serde(rename = "observed at admission")]
    ObservedAtAdmission,
    /// A field manager in `managedFields` names whoever wrote last; any writer can give any name.
    #[serde(rename = "named by its field manager")]
    FieldManager,
    /// Nothing tells who did it.
    #[serde(rename = "unknown")]
    Unknown,
    /// DriftGuard did it.
    #[serde(rename = "by DriftGuard")]
    Itself,
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
    /// The guard that decided; absent when no guard could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard<'a>>,
    /// The object that it pins; absent when the review could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target<'a>>,
    /// `CREATE`, `UPDATE` or `DELETE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// Subresource, when not the object itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sub_resource: &'a str,
    /// Who, as the API server says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User<'a>>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<&'a str>,
    /// What lets writes pass, or did; only in records about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause<'a>>,
    /// What each source said that was asked for approved content, in that order; only of a remediation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source<'a>>,
    /// What the user was told, or what is wrong.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: &'a str,
    /// `request.uid`: each attempt of the API server has its own.
    #[serde(skip_serializing_if = "str::is_empty")]
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
    /// `group/version`, or `version` alone for core; the group alone where no version is known.
    pub api_version: String,
    /// Kind, where known.
    #[serde(skip_serializing_if = "str::is_empty")]
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

/// What lets writes pass for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pause<'a> {
    /// Name of the `DriftGuardException`, in the guard's namespace; absent for anything else.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub exception: &'a str,
    /// When it ends; absent where that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in the words of whoever asked for it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    /// Who asked for it, as far as is known.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub by: &'a str,
}

/// What one source of truth said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Source<'a> {
    /// Which one, such as `git team/repo config.yaml`.
    pub source: &'a str,
    /// `matched`, `mismatch`, `unavailable`, `forbidden` or `invalid`.
    pub result: &'static str,
    /// A stable word.
    pub reason: &'static str,
    /// One sentence without any value.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: &'a str,
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
    pub groups: Vec<&'a str>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::guard::{Enforcement, GuardId, Target};
    use crate::core::hash::ContentHash;
    use crate::core::verdict::{Attempt, Operation, Reason, Unguarded, User};

    fn attempt() -> Attempt {
        Attempt {
            guard: GuardId { namespace: "prod".into(), name: "market-settings-guard".into() },
            guard_uid: "5d3c0e6e-6f0e-4a3b-9f0e-0d6a7e1f2a11".into(),
            guard_generation: 2,
            target: Target {
                group: "".into(),
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
                uid: "".into(),
                groups: vec!["traders".into(), "system:authenticated".into()],
            },
            field_manager: "kubectl-edit".into(),
            image_hash: Some(ContentHash::of(b"{}")),
            paths: vec!["/data/price".into()],
            enforcement: Some(Enforcement::Deny),
            reason: Reason::HashMismatch,
        }
    }

    fn circumstances(message: &str) -> Circumstances<'_> {
        Circumstances {
            transaction_id: "019a0f3e-7c00-7a10-8000-0123456789ab".into(),
            time: "2026-06-01T12:00:00Z".parse().unwrap(),
            denied: true,
            review_uid: "3f1c5a40-77a0-4b8e-8a0e-5a7c1f0d9e33",
            replica: "driftguard-operator-0",
            authenticated: false,
            message,
        }
    }

    const PAGE: &str = include_str!("../../docs/reference/record.md");

    #[test]
    fn the_example_in_the_reference_is_what_is_written() {
        let example = PAGE.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let example: serde_json::Value = serde_json::from_str(example).unwrap();
        let message = example["message"].as_str().unwrap();
        let written = serde_json::to_value(Record::of(&attempt(), circumstances(message))).unwrap();
        assert_eq!(written, example);
    }

    #[test]
    fn every_field_is_in_the_reference() {
        let mut all = attempt();
        all.sub_resource = "scale".into();
        let written = serde_json::to_value(Record::of(&all, circumstances("no"))).unwrap();
        for field in written.as_object().unwrap().keys() {
            assert!(PAGE.contains(&format!("`{field}`")), "{field} is missing in docs/reference/record.md");
        }
    }

    #[test]
    fn a_record_is_one_line_of_bounded_length_whatever_a_forged_review_says() {
        let mut forged = attempt();
        let endless = "a\u{fc}\n".repeat(1_000_000);
        forged.user = User { name: endless.clone(), uid: endless.clone(), groups: vec![endless.clone(); 32] };
        forged.field_manager.clone_from(&endless);
        forged.paths = vec![endless.clone(); 5];
        let line = serde_json::to_string(&Record::of(&forged, circumstances(&endless))).unwrap();
        assert!(!line.contains('\n'));
        assert!(line.len() < 64_000, "{}", line.len());
    }

    #[test]
    fn a_review_that_nobody_judged_is_recorded_with_what_is_known() {
        let object = Unguarded {
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: None,
            name: "x".into(),
        };
        let record = Record::unjudged("GuardsUnread", Some(&object), circumstances("no answer"));
        let written = serde_json::to_value(record).unwrap();
        assert_eq!(written["target"]["name"], "x");
        assert_eq!(written["reason"], "GuardsUnread");
        assert!(written.get("guard").is_none());
    }
}
