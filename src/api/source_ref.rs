//! Where approved content can be fetched from.
//!
//! A source is never trusted: what it answers is used only when it hashes to `expectedHash`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Where approved content can be fetched from. What it answers is used only when it hashes to
/// expectedHash, so a source need not be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SourceRef {
    /// Type of source: git, configmap, secret or service.
    pub kind: SourceKind,

    /// Name of the ConfigMap, Secret or Service. For git, the Secret that holds url and, where
    /// needed, ref, username and password, sshPrivateKey and knownHosts.
    #[schemars(length(min = 1, max = schema::NAME_LENGTH), regex(pattern = schema::SOURCE_NAME_PATTERN))]
    pub name: String,

    /// Namespace of that object. Default: the guard's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = schema::NAMESPACE_LENGTH), regex(pattern = schema::NAMESPACE_PATTERN))]
    pub namespace: Option<String>,

    /// Path within the source: a key of a ConfigMap or Secret that holds a YAML or JSON document
    /// (absent: the object's own data is the content), the request path of a service, or a file
    /// of a git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = schema::PATH_LENGTH), regex(pattern = schema::PLAIN_PATTERN))]
    pub path: Option<String>,
}

/// Type of a source of truth. In lower case, as the older operator spelled them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A file of a git repository.
    Git,
    /// A ConfigMap.
    Configmap,
    /// A Secret.
    Secret,
    /// An HTTP service of the cluster.
    Service,
}
