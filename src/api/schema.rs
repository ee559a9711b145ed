//! Bounds and patterns that several fields share, and schemas that a derive cannot express.
//!
//! Paths are checked by pattern, not by CEL: the API server refuses a CRD whose rules could cost
//! too much, and it reckons that cost from these very bounds.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest object name that the API server takes for most kinds.
pub(crate) const NAME_LENGTH: u32 = 253;
/// Longest namespace name.
pub(crate) const NAMESPACE_LENGTH: u32 = 63;
/// Most paths in `ignorePaths` and in `onlyPaths`.
pub(crate) const PATHS: u32 = 64;
/// Most sources that a status tells of: the first, eight fallbacks, the Configuration Service, what was last seen.
pub(crate) const SOURCES: u32 = 11;
/// Most hashes that a status holds as equivalents.
pub(crate) const EQUIVALENTS: u32 = 4;
/// Most characters of one path.
pub(crate) const PATH_LENGTH: u32 = 1024;
/// Most characters of a reason that a person writes.
pub(crate) const REASON_LENGTH: u32 = 512;

/// A namespace name.
pub(crate) const NAMESPACE_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The name of a Service, ConfigMap or Secret. It also becomes part of a URL.
pub(crate) const SOURCE_NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// What the API server takes as a name of any kind, RBAC's with `:` included. `.` and `..` are
/// refused by rule, since RE2 knows no look-ahead.
pub(crate) const TARGET_NAME_PATTERN: &str = r"^[^/%\x00-\x1f\x7f]+$";
/// A kind, in any case: `configmap` means `ConfigMap`.
pub(crate) const KIND_PATTERN: &str = "^[A-Za-z][A-Za-z0-9]*$";
/// `v1` or `apps/v1`.
pub(crate) const API_VERSION_PATTERN: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z]([-a-z0-9]*[a-z0-9])?$";
/// A SHA-256 in hex, any case, with or without its prefix.
pub(crate) const HASH_PATTERN: &str = "^(sha256:)?[0-9a-fA-F]{64}$";
/// A JSON Pointer of at least one segment: `~` only as `~0` and `~1`.
pub(crate) const PATH_PATTERN: &str = "^(/([^~/]|~[01])*)+$";
/// A duration as Gateway API writes them (GEP-2257): `30m`, `1h30m`, `72h`.
pub(crate) const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// A moment in the years 2000 to 2999 by RFC 3339, narrower than `format: date-time`, which
/// checks the calendar but takes offsets that do not exist.
pub(crate) const MOMENT_PATTERN: &str = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
/// Text without control characters.
pub(crate) const PLAIN_PATTERN: &str = r"^[^\x00-\x1f\x7f]*$";

/// A moment by RFC 3339.
pub(crate) fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 40,
        "pattern": MOMENT_PATTERN,
    })
}

/// A moment that we write ourselves.
pub(crate) fn written_moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 40 })
}

/// A label selector, bounded.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let key = json_schema!({ "description": "Key of a label.", "type": "string", "minLength": 1, "maxLength": 317 });
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "properties": {
            "matchLabels": {
                "description": "Labels and the values that they must have.",
                "type": "object",
                "minProperties": 1,
                "maxProperties": 16,
                "additionalProperties": {
                    "description": "Value of the label.",
                    "type": "string",
                    "maxLength": 63,
                },
            },
            "matchExpressions": {
                "description": "Further demands on labels; all must be met.",
                "type": "array",
                "minItems": 1,
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": key,
                        "operator": {
                            "description": "How the label relates to the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values; none for Exists and DoesNotExist.",
                            "type": "array",
                            "maxItems": 32,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                },
            },
        },
    })
}

/// An object that may hold anything.
pub(crate) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// `metav1.Condition` as upstream's own CRDs bound it; the type's own schema has no bounds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 40,
                },
                "message": {
                    "description": "What this means, in one sentence.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "observedGeneration": {
                    "description": "The generation of the spec that this is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "Why, in one word.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "True, False or Unknown.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "What it is about.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
    })
}
