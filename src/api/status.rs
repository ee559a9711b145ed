//! The status of a `DriftGuard`: what was observed, never what is wanted.
//!
//! Written only by the holder of the Lease, and only when something changed. No field ever holds
//! a value of a Secret, nor an unkeyed hash of one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::driftguard::Enforcement;
use super::schema;

// `with` on optional enums keeps the field's description: the derive would show the enum's own.

/// What was observed about the guard and its target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftGuardStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions: Ready, Enforcing, Drifted, SourceAvailable, Suspended, Fighting, Conflict,
    /// AuthorUnknown, Watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The enforcement in effect: spec.enforcement, or the default of this installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Enforcement")]
    pub enforcement: Option<Enforcement>,

    /// What is known about an Audit guard that becomes Deny by spec.enforceAfterClean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce_after_clean: Option<EnforceAfterClean>,

    /// The resource that targetKind was found to mean, by which the guard goes until its spec changes.
    /// Absent for kinds of the core group, which nothing can push aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_target: Option<ResolvedTarget>,

    /// Hash of the target's content as last seen. Never set for Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = schema::HASH_PATTERN))]
    pub current_hash: Option<String>,

    /// Whether that content is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_match: Option<bool>,

    /// Checks that failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub consecutive_failures: Option<i32>,

    /// Transaction id of the drift that lasts, or that ended a moment ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub episode: Option<String>,

    /// Whether somebody has been alerted of the drift that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerted: Option<bool>,

    /// The incident (many guards that drifted at once) that keeps the target from being put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incident: Option<String>,

    /// When the target was last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::written_moment")]
    pub last_checked: Option<Time>,

    /// The last drift that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drift: Option<LastDrift>,

    /// The last attempt to restore the approved content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_remediation: Option<LastRemediation>,

    /// Value of the annotation driftguard.terrafusion.ai/restore that was heeded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub heeded_restore: Option<String>,

    /// Whether what was asked for by heededRestore is yet to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_pending: Option<bool>,

    /// What each source of truth said when it was last asked, in the order of asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = schema::SOURCES))]
    // Atomic: a source that is no longer named must go with our next write.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub sources: Vec<SourceStatus>,

    /// Hashes as which the API server now reads the approved content, since it was itself replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = schema::EQUIVALENTS))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub equivalents: Vec<Equivalent>,

    /// The look that last found approved content, by which another reading of what is stored is told from
    /// drift. Of kinds with defaults alone: an object of another kind reads the same by every API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_match: Option<LastMatch>,

    /// The form of the bytes that are hashed: v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub canonical_form: Option<String>,
}

/// What is known about an Audit guard that becomes Deny by spec.enforceAfterClean. Signed over the
/// guard's uid and generation: what DriftGuard did not write itself counts as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// Atomic: a field that somebody puts beside ours must not outlive our next write.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct EnforceAfterClean {
    /// Since when nothing would have been denied.
    #[schemars(schema_with = "schema::written_moment")]
    pub clean_since: Time,

    /// When the guard became Deny. It stays so until its spec changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::written_moment")]
    pub promoted_at: Option<Time>,

    /// Signature of the two.
    #[schemars(length(max = 64))]
    pub signature: String,
}

/// The resource that targetKind was found to mean. Signed over the guard's uid and generation: what
/// DriftGuard did not write itself counts as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// Atomic, as above.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ResolvedTarget {
    /// Group and version.
    #[schemars(length(max = 317))]
    pub api_version: String,

    /// Kind, in the server's spelling.
    #[schemars(length(max = 63))]
    pub kind: String,

    /// Plural name of the resource.
    #[schemars(length(max = 63))]
    pub resource: String,

    /// Whether its objects live in namespaces.
    pub namespaced: bool,

    /// Signature of the four.
    #[schemars(length(max = 64))]
    pub signature: String,
}

/// The last drift that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDrift {
    /// When it was seen.
    #[schemars(schema_with = "schema::written_moment")]
    pub time: Time,

    /// JSON Pointers to what changed, from the object's root; names only, no values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = schema::PATHS), inner(length(max = schema::PATH_LENGTH)))]
    pub paths: Vec<String>,

    /// The field manager or user that changed it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub actor: Option<String>,

    /// How the actor is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ActorSource")]
    pub actor_source: Option<ActorSource>,

    /// Transaction id under which it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub transaction_id: Option<String>,
}

/// How the actor of a drift is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ActorSource {
    /// From the target's managedFields, which any writer can forge.
    ManagedFields,
    /// From an admission review of the write.
    Admission,
}

/// The last attempt to restore the approved content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRemediation {
    /// When it was made.
    #[schemars(schema_with = "schema::written_moment")]
    pub time: Time,

    /// Where the content came from, for example `service terrafusion-system/config-service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub source: Option<String>,

    /// How it ended.
    pub result: RemediationResult,

    /// Transaction id under which it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub transaction_id: Option<String>,
}

/// How an attempt to restore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RemediationResult {
    /// The approved content stands again, read back and verified.
    Restored,
    /// No source had content of the approved hash; nothing was changed.
    NoVerifiedSource,
    /// The write failed, or what stood there afterwards was not what is approved.
    Failed,
    /// The guard was changed or paused, or another replica took over; nothing was changed.
    GivenUp,
    /// A right is missing, or objects of the kind are never written; nothing was changed.
    NotAllowed,
}

/// What a source of truth said when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Which one, for example `configmap team/approved settings.yaml`.
    #[schemars(length(max = 1024))]
    pub source: String,

    /// Whether it has the approved content.
    pub result: SourceResult,

    /// What it said, in one sentence; no values.
    #[schemars(length(max = 1024))]
    pub message: String,

    /// When it was asked.
    #[schemars(schema_with = "schema::written_moment")]
    pub time: Time,
}

/// Whether a source has the approved content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SourceResult {
    /// Its content hashes to expectedHash.
    Matched,
    /// It has other content.
    Mismatch,
    /// It did not answer, or has nothing.
    Unavailable,
    /// A right to read it is missing.
    Forbidden,
    /// What it has cannot be the target's content.
    Invalid,
}

/// An object in the version in which its content was found as approved. Signed over the guard's uid and
/// generation: what DriftGuard did not write itself counts as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// Atomic, as above.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LastMatch {
    /// The hash.
    #[schemars(length(max = 71), regex(pattern = schema::HASH_PATTERN))]
    pub hash: String,

    /// metadata.uid of the object.
    #[schemars(length(max = 128))]
    pub uid: String,

    /// metadata.resourceVersion of the object.
    #[schemars(length(max = 128))]
    pub resource_version: String,

    /// The version of the API server that showed it.
    #[schemars(length(max = 128))]
    pub server_version: String,

    /// Signature of the four.
    #[schemars(length(max = 64))]
    pub signature: String,
}

/// A hash as which the API server now reads the approved content. Signed over the guard's uid,
/// generation and expectedHash: what DriftGuard did not write itself counts as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Equivalent {
    /// The hash.
    #[schemars(length(max = 71), regex(pattern = schema::HASH_PATTERN))]
    pub hash: String,

    /// The version of the API server that reads it so.
    #[schemars(length(max = 128))]
    pub server_version: String,

    /// Signature of the hash.
    #[schemars(length(max = 64))]
    pub signature: String,
}
