//! What is certain of kinds without discovery, for files that are read without a cluster: those of Kubernetes itself,
//! and our own.
//!
//! A test on a real API server holds the tables against discovery.

use crate::api::names;
use crate::core::kinds::{Catalog, KindEntry};

/// Version and kinds of what every API server of the versions supported serves, in the version that it prefers. Kinds
/// whose preferred version changed meanwhile are not here: without a server nobody can tell it.
const KINDS: [(&str, &[&str]); 17] = [
    (
        "v1",
        &[
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
    (
        "admissionregistration.k8s.io/v1",
        &[
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io/v1", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io/v1", &["APIService"]),
    ("apps/v1", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("autoscaling/v2", &["HorizontalPodAutoscaler"]),
    ("batch/v1", &["CronJob", "Job"]),
    ("certificates.k8s.io/v1", &["CertificateSigningRequest"]),
    ("coordination.k8s.io/v1", &["Lease"]),
    ("discovery.k8s.io/v1", &["EndpointSlice"]),
    ("flowcontrol.apiserver.k8s.io/v1", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io/v1", &["Ingress", "IngressClass", "NetworkPolicy"]),
    ("node.k8s.io/v1", &["RuntimeClass"]),
    ("policy/v1", &["PodDisruptionBudget"]),
    ("rbac.authorization.k8s.io/v1", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("scheduling.k8s.io/v1", &["PriorityClass"]),
    (
        "storage.k8s.io/v1",
        &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"],
    ),
];

/// Group and kind of every cluster-scoped resource that Kubernetes itself serves, of the versions
/// supported and of those that went out since 1.32.
const CLUSTER_SCOPED: [(&str, &str); 38] = [
    ("", "ComponentStatus"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("internal.apiserver.k8s.io", "StorageVersion"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "ServiceCIDR"),
    ("node.k8s.io", "RuntimeClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "DeviceTaintRule"),
    ("resource.k8s.io", "ResourceSlice"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
    ("storagemigration.k8s.io", "StorageVersionMigration"),
    ("authentication.k8s.io", "SelfSubjectReview"),
    ("authentication.k8s.io", "TokenReview"),
    ("authorization.k8s.io", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "SelfSubjectRulesReview"),
    ("authorization.k8s.io", "SubjectAccessReview"),
];

/// Whether objects of the kind live in namespaces. A kind that is not built in is taken for
/// namespaced, as most are; with a cluster at hand discovery tells.
pub(crate) fn is_namespaced(group: &str, kind: &str) -> bool {
    !CLUSTER_SCOPED.contains(&(group, kind))
}

/// A kind of a file as discovery might list it.
pub(crate) fn entry(api_version: &str, kind: &str) -> KindEntry {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    KindEntry {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        // Nothing is asked by it.
        plural: format!("{}s", kind.to_ascii_lowercase()).into(),
        namespaced: is_namespaced(group, kind),
        preferred: true,
    }
}

/// The kinds that are certain.
pub(crate) fn entries() -> Vec<KindEntry> {
    let own = format!("{}/{}", names::GROUP, names::VERSION);
    let kinds = KINDS.iter().flat_map(|(version, kinds)| kinds.iter().map(|kind| entry(version, kind)));
    kinds.chain([entry(&own, "GAMAConfig"), entry(&own, "DriftGuard")]).collect()
}

/// What kinds mean for certain.
pub(crate) fn catalog() -> Catalog {
    Catalog::new(entries())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_kubernetes_is_not_taken_for_another_of_that_name() {
        let resolved = |kind| catalog().resolve(kind, None).map(KindEntry::api_version);
        assert_eq!(resolved("service").as_deref(), Ok("v1"));
        assert_eq!(resolved("HorizontalPodAutoscaler").as_deref(), Ok("autoscaling/v2"));
        assert_eq!(resolved("gamaconfig").as_deref(), Ok("terrafusion.ai/v1"));
        assert!(resolved("Widget").is_err());
    }

    #[test]
    fn the_group_counts() {
        assert!(!is_namespaced("", "Namespace"));
        assert!(is_namespaced("other.io", "Namespace"));
        assert!(is_namespaced("", "ConfigMap"));
        assert!(!is_namespaced("rbac.authorization.k8s.io", "ClusterRole"));
        assert!(is_namespaced("rbac.authorization.k8s.io", "Role"));
    }
}
