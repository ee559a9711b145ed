//! `DriftGuard`: names one object and the SHA-256 of its approved content.
//!
//! The first seven fields are the older operator's; their names, types and defaults are fixed.
//! The documentation of each field is what `kubectl explain driftguard.spec` shows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::source_ref::SourceRef;
use super::status::DriftGuardStatus;

/// What to guard, what is approved, and what to do about the rest.
// Not in category `all`: `kubectl delete all --all` must not delete guards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "terrafusion.ai",
    version = "v1",
    kind = "DriftGuard",
    plural = "driftguards",
    singular = "driftguard",
    shortname = "dg",
    category = "terrafusion",
    namespaced,
    status = "DriftGuardStatus",
    derive = "PartialEq",
    doc = "Pins one object to approved content by its SHA-256. Writes that would change the pinned content are refused at admission; content that changed all the same is reported as drift.",
    selectable = ".spec.targetName",
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetName", "description": "Name of the guarded object"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Summary of all conditions"}"#,
    printcolumn = r#"{"name": "Drifted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Drifted\")].status", "description": "Whether the live content is not approved"}"#,
    printcolumn = r#"{"name": "Enforcement", "type": "string", "jsonPath": ".status.enforcement", "description": "Enforcement in effect"}"#,
    printcolumn = r#"{"name": "Last Drift", "type": "date", "jsonPath": ".status.lastDrift.time", "description": "When drift was last seen"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Source", "type": "string", "jsonPath": ".spec.sourceOfTruthRef.kind", "description": "Type of the source of truth", "priority": 1}"#,
    printcolumn = r#"{"name": "Hash", "type": "string", "jsonPath": ".status.currentHash", "description": "Hash of the live content; never shown for Secrets", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.ignorePaths) || !has(self.onlyPaths) || size(self.ignorePaths) == 0 || size(self.onlyPaths) == 0",
    "message": "ignorePaths and onlyPaths exclude each other: keep one of them",
}]))]
pub struct DriftGuardSpec {
    /// Kind of the guarded object, in any case. Any kind that the API server serves.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::KIND_PATTERN))]
    pub target_kind: String,

    /// Name of the guarded object.
    #[schemars(
        length(min = 1, max = schema::NAME_LENGTH),
        regex(pattern = schema::TARGET_NAME_PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "self != '.' && self != '..'",
            "message": "must be the name of an object; no object is named . or ..",
        }])
    )]
    pub target_name: String,

    /// Namespace of the guarded object. Default: the guard's own. Without meaning for
    /// cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = schema::NAMESPACE_LENGTH), regex(pattern = schema::NAMESPACE_PATTERN))]
    pub target_namespace: Option<String>,

    /// SHA-256 of the approved content: 64 hex digits of any case, with or without `sha256:`.
    /// `driftguard hash` prints it.
    #[schemars(length(max = 71), regex(pattern = schema::HASH_PATTERN))]
    pub expected_hash: String,

    /// Whether content that drifted is restored from a source of truth.
    #[serde(default)]
    pub auto_remediate: bool,

    /// Failed checks in a row before an alert is raised.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub max_failures_before_alert: i32,

    /// Where approved content is fetched from to restore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_of_truth_ref: Option<SourceRef>,

    /// Group and version of the guarded object, such as `apps/v1`, where targetKind alone is
    /// ambiguous. Default: found by discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::API_VERSION_PATTERN))]
    pub target_api_version: Option<String>,

    /// Further hashes that pass admission and are no drift, for example of the next release
    /// during a roll-out. Restoring always aims at expectedHash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub also_approved: Vec<AlsoApproved>,

    /// What admission does with a write that is not approved: Deny refuses it, Rewrite puts the
    /// approved content back where that is safe, Warn lets it pass with a warning, Audit lets it
    /// pass and records it. Default: that of the installation; status.enforcement shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Enforcement")]
    pub enforcement: Option<Enforcement>,

    /// An Audit guard becomes Deny when nothing would have been denied for this long, such as
    /// `72h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 32),
        regex(pattern = schema::DURATION_PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "duration(self) > duration('0s')",
            "message": "must be longer than nothing, for example 72h",
        }])
    )]
    pub enforce_after_clean: Option<String>,

    /// What becomes of writes while DriftGuard cannot answer: Fail refuses them, Ignore lets them
    /// pass. Default: Fail; Ignore in kube-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FailurePolicy")]
    pub failure_policy: Option<FailurePolicy>,

    /// Whether the guarded object may be deleted. With Allow, deletion counts as drift.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Paths from the object's root that are not pinned: JSON Pointers such as `/spec/replicas`
    /// or `/data/key`, in which a segment may also be `*` (every member) or `[name=app]` (the
    /// list items with that field). Not together with onlyPaths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = schema::PATHS),
        inner(length(min = 1, max = schema::PATH_LENGTH), regex(pattern = schema::PATH_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub ignore_paths: Vec<String>,

    /// The only paths that are pinned, written as in ignorePaths. Not together with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = schema::PATHS),
        inner(length(min = 1, max = schema::PATH_LENGTH), regex(pattern = schema::PATH_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub only_paths: Vec<String>,

    /// Further sources, tried in order after sourceOfTruthRef.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub fallback_source_refs: Vec<SourceRef>,

    /// Lets every write pass with a warning, and restores nothing, until the moment given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<Suspend>,
}

/// The older operator's default.
fn three() -> i32 {
    3
}

/// A further hash that passes admission and is no drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlsoApproved {
    /// SHA-256 of the content, written as expectedHash.
    #[schemars(length(max = 71), regex(pattern = schema::HASH_PATTERN))]
    pub hash: String,

    /// When it stops being approved, by RFC 3339. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub until: Option<Time>,

    /// Why it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = schema::REASON_LENGTH))]
    pub reason: Option<String>,
}

/// A pause of enforcement that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Suspend {
    /// When enforcement resumes, by RFC 3339. The installation caps how far ahead.
    #[schemars(schema_with = "schema::moment")]
    pub until: Time,

    /// Why it is suspended.
    #[schemars(length(min = 1, max = schema::REASON_LENGTH))]
    pub reason: String,
}

/// What admission does with a write that is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// Refuse it.
    Deny,
    /// Put the approved content back where that is safe, refuse otherwise.
    Rewrite,
    /// Let it pass with a warning, and record it.
    Warn,
    /// Let it pass and record it.
    Audit,
}

impl Enforcement {
    /// Every mode, strictest first.
    pub const ALL: [Self; 4] = [Self::Deny, Self::Rewrite, Self::Warn, Self::Audit];

    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Rewrite => "Rewrite",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

/// What becomes of writes while DriftGuard cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// They are refused.
    Fail,
    /// They pass; the gap is audited.
    Ignore,
}

/// Whether the guarded object may be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Deletion passes, with a warning, and counts as drift.
    #[default]
    Allow,
    /// Deletion is refused.
    Deny,
}
