//! `GAMAConfig`: the parameters of a GAMA model. Its CRD ships with the product; what the
//! parameters mean is the model's business.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What a `GAMAConfig` says.
///
/// Only `parameters` is known, and pinned; whatever else other tools keep in the spec is stored
/// and left alone, so that installing this CRD over an older one loses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "terrafusion.ai",
    version = "v1",
    kind = "GAMAConfig",
    plural = "gamaconfigs",
    singular = "gamaconfig",
    namespaced,
    doc = "Configuration of a GAMA model. A DriftGuard pins its spec.parameters.",
    derive = "PartialEq",
    category = "terrafusion",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct GAMAConfigSpec {
    /// The parameters of the model: any object.
    #[schemars(schema_with = "schema::free_form")]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}
