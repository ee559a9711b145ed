//! What is installed into a cluster, as data: CRDs, namespace, rights, workload, webhook base.
//!
//! `install` applies exactly this, `driftguard manifests` prints it, and the YAML files of the
//! repository are made from it ([`files`]), so that the three cannot differ.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Enforcement, names};

pub mod crds;
pub mod deploy;
pub mod files;
pub mod labels;
pub mod monitoring;
pub mod network;
pub mod rbac;
pub mod targets;
pub mod webhook;
pub mod yaml;

/// What may differ between two installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of everything namespaced.
    pub namespace: String,
    /// Container image of the operator.
    pub image: String,
    /// What guards without an `enforcement` of their own do.
    pub default_enforcement: Enforcement,
    /// Namespaces in which guards on Secrets may be proved by a dry run of one of them.
    pub secrets_namespaces: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.to_owned(),
            image: default_image(),
            default_enforcement: Enforcement::Deny,
            secrets_namespaces: Vec::new(),
        }
    }
}

/// The image released with this version.
#[must_use]
pub fn default_image() -> String {
    format!("ghcr.io/terrafusion/driftguard:{}", env!("CARGO_PKG_VERSION"))
}

/// Why manifests could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A type of ours does not turn into JSON.
    #[error("cannot write {kind} {name} as JSON: {source}")]
    Encode {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// JSON does not turn into YAML.
    #[error(transparent)]
    Yaml(#[from] yaml::YamlError),
}

/// One object to install.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its resource, as URLs need it.
    pub resource: ApiResource,
    /// Namespace; `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// The object.
    pub object: Value,
    /// Why each of its `rules` is there, in their order; empty for all but roles.
    reasons: Vec<&'static str>,
}

impl Manifest {
    /// Takes an object as it is.
    ///
    /// # Errors
    /// [`ManifestError::Encode`] when it does not turn into JSON.
    pub fn new<K>(object: &K) -> Result<Self, ManifestError>
    where
        K: kube::Resource<DynamicType = ()> + Metadata<Ty = ObjectMeta> + Serialize,
    {
        let metadata = Metadata::metadata(object);
        let name = metadata.name.clone().unwrap_or_default();
        let json = serde_json::to_value(object).map_err(|source| ManifestError::Encode {
            kind: K::kind(&()).into_owned(),
            name: name.clone(),
            source,
        })?;
        Ok(Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: metadata.namespace.clone(),
            name,
            object: json,
            reasons: Vec::new(),
        })
    }

    fn explained<K>((object, reasons): (K, rbac::Reasons)) -> Result<Self, ManifestError>
    where
        K: kube::Resource<DynamicType = ()> + Metadata<Ty = ObjectMeta> + Serialize,
    {
        Ok(Self { reasons, ..Self::new(&object)? })
    }

    /// `resource.group/name`, as kubectl names objects.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = self.resource.kind.to_ascii_lowercase();
        if self.resource.group.is_empty() {
            format!("{kind}/{}", self.name)
        } else {
            format!("{kind}.{}/{}", self.resource.group, self.name)
        }
    }

    /// As one YAML document, the reasons of rules as comments.
    ///
    /// # Errors
    /// [`ManifestError::Yaml`] when it cannot be written.
    pub fn yaml(&self) -> Result<String, ManifestError> {
        let title = self.title();
        let mut object = self.object.clone();
        let rules = match (self.reasons.is_empty(), object.as_object_mut()) {
            (false, Some(fields)) => fields.remove("rules"),
            _ => None,
        };
        let mut text = yaml::document(&title, &object)?;
        if let Some(Value::Array(rules)) = rules {
            text.push_str("rules:\n");
            for (rule, why) in rules.iter().zip(&self.reasons) {
                text.push_str(&format!("# {why}\n"));
                text.push_str(&yaml::document(&title, &[rule])?);
            }
        }
        Ok(text)
    }
}

/// The CRDs.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn crds() -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![
        Manifest::new(&crds::driftguard())?,
        Manifest::new(&crds::gamaconfig())?,
        Manifest::new(&crds::exception())?,
    ])
}

/// Account, roles and bindings.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn rbac(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    let namespace = &settings.namespace;
    Ok(vec![
        Manifest::new(&rbac::service_account(namespace))?,
        Manifest::explained(rbac::cluster_role())?,
        Manifest::new(&rbac::targets())?,
        Manifest::explained(rbac::exceptions())?,
        Manifest::new(&rbac::cluster_role_binding(names::OPERATOR, namespace))?,
        Manifest::new(&rbac::cluster_role_binding(rbac::TARGETS_ROLE, namespace))?,
        Manifest::explained(rbac::own_role(namespace))?,
        Manifest::new(&rbac::role_binding(namespace, namespace))?,
        Manifest::explained(rbac::default_role())?,
        Manifest::new(&rbac::role_binding("default", namespace))?,
    ])
}

/// Rights on Secrets, one Role and its binding for each namespace that was asked for.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn secrets_rights(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    let secrets = targets::TargetKind { group: String::new(), plural: "secrets".to_owned() };
    let mut all = Vec::new();
    for place in &settings.secrets_namespaces {
        all.extend(rights_in(&secrets, place, &settings.namespace, false)?);
    }
    Ok(all)
}

/// Rights on a guarded kind in one namespace.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn rights_in(
    kind: &targets::TargetKind,
    place: &str,
    installed: &str,
    remediation: bool,
) -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![
        Manifest::explained(kind.role(place, remediation))?,
        Manifest::new(&kind.role_binding(place, installed))?,
    ])
}

/// Rights on a guarded kind in the whole cluster.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn rights_on(kind: &targets::TargetKind, remediation: bool) -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![Manifest::explained(kind.cluster_role(remediation))?])
}

/// The component that lets DriftGuard write targets; `install` leaves it out.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn remediation(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![
        Manifest::explained(rbac::remediation())?,
        Manifest::new(&rbac::cluster_role_binding(rbac::REMEDIATION_ROLE, &settings.namespace))?,
    ])
}

/// The component that lets DriftGuard keep reports of openreports.io; `install` leaves it out.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn openreports(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![
        Manifest::explained(rbac::openreports())?,
        Manifest::new(&rbac::cluster_role_binding(rbac::OPENREPORTS_ROLE, &settings.namespace))?,
    ])
}

/// The static base of both webhook configurations.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn webhook() -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![Manifest::new(&webhook::validating())?, Manifest::new(&webhook::mutating())?])
}

/// The namespace alone.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn namespace(settings: &Settings) -> Result<Manifest, ManifestError> {
    Manifest::new(&deploy::namespace(settings))
}

/// Service, Deployment, PodDisruptionBudget and NetworkPolicy.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn workload(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    Ok(vec![
        Manifest::new(&deploy::service(settings))?,
        Manifest::new(&deploy::deployment(settings))?,
        Manifest::new(&deploy::disruption_budget(settings))?,
        Manifest::new(&network::policy(settings))?,
    ])
}

/// Everything but the CRDs and webhook configurations, in the order in which it is applied.
///
/// # Errors
/// [`ManifestError`], see there.
pub fn deployment(settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    let mut all = vec![namespace(settings)?];
    all.extend(rbac(settings)?);
    all.extend(workload(settings)?);
    Ok(all)
}

/// Manifests as one YAML stream, documents parted by `---`.
///
/// # Errors
/// [`ManifestError::Yaml`] when one of them cannot be written.
pub fn stream(manifests: &[Manifest]) -> Result<String, ManifestError> {
    let documents = manifests.iter().map(Manifest::yaml).collect::<Result<Vec<_>, _>>()?;
    Ok(documents.join("---\n"))
}

#[cfg(test)]
mod tests;
