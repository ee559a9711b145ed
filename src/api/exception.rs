//! `DriftGuardException`: lets writes to guarded objects pass for a while.
//!
//! A kind of its own, so that the right to make one can be given without the right to change guards.
//! Its documentation is what `kubectl explain driftguardexception.spec` shows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Which guards are paused, until when and why.
// Not in category `all`: `kubectl delete all --all` must not end an exception.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "terrafusion.ai",
    version = "v1",
    kind = "DriftGuardException",
    plural = "driftguardexceptions",
    singular = "driftguardexception",
    shortname = "dge",
    category = "terrafusion",
    namespaced,
    status = "DriftGuardExceptionStatus",
    derive = "PartialEq",
    doc = "Pauses guards of its namespace until a moment: writes to their targets pass with a warning, and nothing is restored. It ends by itself; delete it to end it earlier. Not for Git.",
    printcolumn = r#"{"name": "Until", "type": "string", "jsonPath": ".status.until", "description": "When it ends, or ended"}"#,
    printcolumn = r#"{"name": "Active", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Active\")].status", "description": "Whether writes pass"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".spec.reason", "description": "Why"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Guards", "type": "string", "jsonPath": ".status.guards", "priority": 1, "description": "Guards that it pauses"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "an exception cannot be changed: delete it and make another",
}]))]
pub struct DriftGuardExceptionSpec {
    /// Which guards of this namespace are paused: exactly one of names, selector and all.
    pub guards: PausedGuards,

    /// When it ends, by RFC 3339. The installation caps how far ahead (8 hours unless told otherwise),
    /// counted from when the exception was made.
    #[schemars(schema_with = "schema::moment")]
    pub until: Time,

    /// Why the guards are paused.
    #[schemars(length(min = 1, max = schema::REASON_LENGTH))]
    pub reason: String,
}

/// Which guards of the namespace are paused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.names), has(self.selector), has(self.all)].filter(given, given).size() == 1 && (!has(self.all) || self.all)",
    "message": "exactly one of names, selector and all: true must be given",
}]))]
pub struct PausedGuards {
    /// The guards of these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = schema::NAME_LENGTH)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub names: Option<Vec<String>>,

    /// The guards with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,

    /// Every guard of the namespace: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// Most guards that the status of an exception names.
pub const MOST_GUARDS: usize = 64;

/// What was observed about an exception. Written only by the holder of the Lease, and only when something
/// changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftGuardExceptionStatus {
    /// Conditions: Active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// When it ends, or ended: at spec.until, but never later than the installation allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::written_moment")]
    pub until: Option<Time>,

    /// Names of the guards that it pauses, or paused when it ended; the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = schema::NAME_LENGTH)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub guards: Vec<String>,

    /// Names of the guards whose targets were changed while it lasted, or under an earlier pause and are so still; the
    /// first 64. What became of each stands in its own status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = schema::NAME_LENGTH)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub changed: Vec<String>,

    /// How many guards that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub guard_count: Option<i32>,
}
