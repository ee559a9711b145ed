//! What the operator may do, each right with its reason.
//!
//! As little as the code needs. Rights on kinds that we know are written out; for other kinds a
//! cluster's owner labels a ClusterRole of their own (see [`targets`]), so that guarding a kind
//! never means editing ours.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::api::names;

use super::labels;

/// A right and the reason for it.
struct Grant {
    why: &'static str,
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

/// Rights in the whole cluster.
const CLUSTER: [Grant; 15] = [
    Grant {
        why: "guards are watched, found by the name of their target, and read once more before a write is refused or \
              content put back",
        groups: &["terrafusion.ai"],
        resources: &["driftguards"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Grant {
        why: "exceptions are watched: while one is active, writes to the guards that it names pass",
        groups: &["terrafusion.ai"],
        resources: &["driftguardexceptions"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Grant {
        why: "conditions and what was observed",
        groups: &["terrafusion.ai"],
        resources: &["driftguards/status", "driftguardexceptions/status"],
        names: &[],
        verbs: &["patch"],
    },
    Grant {
        why: "an empty dry-run patch of a target, which changes nothing, proves that writes to it reach us; it is \
              answered with metadata only (RBAC cannot confine the right to dry runs); its metadata tells who \
              else writes it. Drift that passed admission by is found by watching what is guarded. Secrets get \
              both by namespace",
        groups: &[""],
        resources: &["configmaps"],
        names: &[],
        verbs: &["get", "list", "watch", "patch"],
    },
    Grant {
        why: "the same for GAMA configurations",
        groups: &["terrafusion.ai"],
        resources: &["gamaconfigs"],
        names: &[],
        verbs: &["get", "list", "watch", "patch"],
    },
    Grant {
        why: "our own two webhook configurations are kept as narrow as the guards allow, and made again when \
              deleted: a server-side apply names what it creates, so that the name holds for create too",
        groups: &["admissionregistration.k8s.io"],
        resources: &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
        names: &[names::WEBHOOK_CONFIGURATION],
        verbs: &["get", "list", "watch", "create", "patch"],
    },
    Grant {
        why: "a new or changed CRD may change what a guard's targetKind means",
        groups: &["apiextensions.k8s.io"],
        resources: &["customresourcedefinitions"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Grant {
        why: "a CRD says where the count stands that the scale subresource of its kind changes",
        groups: &["apiextensions.k8s.io"],
        resources: &["customresourcedefinitions"],
        names: &[],
        verbs: &["get"],
    },
    Grant {
        why: "which groups an aggregated API server serves, whose writes no proof through another group speaks for",
        groups: &["apiregistration.k8s.io"],
        resources: &["apiservices"],
        names: &[],
        verbs: &["list"],
    },
    Grant {
        why: "a target that may not be deleted goes with its namespace all the same, and only the namespace tells \
              that it is going",
        groups: &[""],
        resources: &["namespaces"],
        names: &[],
        verbs: &["get"],
    },
    Grant {
        why: "a Scale shows only a count: the workload is read to judge what it would become",
        groups: &["apps"],
        resources: &["deployments", "replicasets", "statefulsets"],
        names: &[],
        verbs: &["get"],
    },
    Grant {
        why: "the same for replication controllers, and for Pods that are bound to a node",
        groups: &[""],
        resources: &["pods", "replicationcontrollers"],
        names: &[],
        verbs: &["get"],
    },
    Grant {
        why: "the ports and labels of a Service that a guard names as source tell how it is called",
        groups: &[""],
        resources: &["services"],
        names: &[],
        verbs: &["get"],
    },
    Grant {
        why: "the author of a guard must be allowed to change its target and to read its sources",
        groups: &["authorization.k8s.io"],
        resources: &["subjectaccessreviews"],
        names: &[],
        verbs: &["create"],
    },
    Grant {
        why: "refusals and drift are told as Events regarding the guard",
        groups: &["events.k8s.io"],
        resources: &["events"],
        names: &[],
        verbs: &["create", "patch"],
    },
];

/// Rights in the namespace that DriftGuard is installed in.
const OWN_NAMESPACE: [Grant; 6] = [
    Grant {
        why: "one replica at a time writes registration and status",
        groups: &["coordination.k8s.io"],
        resources: &["leases"],
        names: &[names::LEASE],
        verbs: &["get", "update"],
    },
    Grant {
        why: "each replica says in a lease of its own how new its view is, and removes what dead ones left; \
              its name is not known beforehand",
        groups: &["coordination.k8s.io"],
        resources: &["leases"],
        names: &[],
        verbs: &["list", "watch", "patch", "delete"],
    },
    Grant {
        why: "made by the first replica; a POST names nothing, so no name can stand here",
        groups: &["coordination.k8s.io"],
        resources: &["leases"],
        names: &[],
        verbs: &["create"],
    },
    Grant {
        why: "the certificate authority that all replicas share, and the key that signs authors of guards",
        groups: &[""],
        resources: &["secrets"],
        names: &[names::CA_SECRET, names::SIGNING_SECRET],
        verbs: &["get", "list", "watch"],
    },
    Grant {
        why: "the successor of the authority is written there, each time by the one replica that is first",
        groups: &[""],
        resources: &["secrets"],
        names: &[names::CA_SECRET],
        verbs: &["update"],
    },
    Grant {
        why: "made by the first replica: the API server lets only one of two POSTs win",
        groups: &[""],
        resources: &["secrets"],
        names: &[],
        verbs: &["create"],
    },
];

/// Rights in the namespace `default`.
const DEFAULT_NAMESPACE: [Grant; 1] = [Grant {
    why: "the addresses of the API servers: enforcement is proved through each of them",
    groups: &["discovery.k8s.io"],
    resources: &["endpointslices"],
    names: &[],
    verbs: &["list"],
}];

/// Rights on targets that only remediation needs; not part of what is installed.
const REMEDIATION: [Grant; 2] = [
    Grant {
        why: "approved content is written back; a deleted target is made again, an immutable one replaced",
        groups: &[""],
        resources: &["configmaps"],
        names: &[],
        verbs: &["create", "update", "delete"],
    },
    Grant {
        why: "the same for GAMA configurations",
        groups: &["terrafusion.ai"],
        resources: &["gamaconfigs"],
        names: &[],
        verbs: &["create", "update", "delete"],
    },
];

/// Rights on reports of openreports.io; not part of what is installed.
const OPENREPORTS: [Grant; 1] = [Grant {
    why: "a report in each namespace that has guards is kept as they are, and deleted after the last of them; only \
          those of our name, since a server-side apply names what it creates and the watch what it selects",
    groups: &["openreports.io"],
    resources: &["reports"],
    names: &[names::OPENREPORT],
    verbs: &["list", "watch", "create", "patch", "delete"],
}];

/// Rights of people who may pause guards; bound to nobody when installed.
const EXCEPTIONS: [Grant; 1] = [Grant {
    why: "making an exception pauses guards, deleting it ends that; its spec never changes, so that nothing needs \
          update or patch",
    groups: &["terrafusion.ai"],
    resources: &["driftguardexceptions"],
    names: &[],
    verbs: &["create", "get", "list", "watch", "delete"],
}];

/// ClusterRole of people who may make exceptions. Without any aggregation label: neither `edit` nor `view`
/// holds it, nor does it hold anything else.
pub const EXCEPTIONS_ROLE: &str = "driftguard-exceptions";

/// ClusterRole of the component that keeps reports of openreports.io.
pub const OPENREPORTS_ROLE: &str = "driftguard-openreports";

/// ClusterRole of the remediation component.
pub const REMEDIATION_ROLE: &str = "driftguard-remediation";

/// ClusterRole that collects rights on further guarded kinds.
pub const TARGETS_ROLE: &str = "driftguard-targets";
/// Label of the ClusterRoles that it collects, with the value `true`.
pub const TARGETS_LABEL: &str = "driftguard.terrafusion.ai/aggregate-to-targets";

/// The reasons for the rules of a role, in their order.
pub type Reasons = Vec<&'static str>;

/// The account that the pods run as.
#[must_use]
pub fn service_account(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: meta(names::OPERATOR, Some(namespace)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Rights in the whole cluster.
#[must_use]
pub fn cluster_role() -> (ClusterRole, Reasons) {
    let (rules, reasons) = rules(&CLUSTER);
    let role =
        ClusterRole { metadata: meta(names::OPERATOR, None), rules: Some(rules), ..ClusterRole::default() };
    (role, reasons)
}

/// Rights to pause guards by exceptions, for people; whoever runs the cluster binds it.
#[must_use]
pub fn exceptions() -> (ClusterRole, Reasons) {
    let (rules, reasons) = rules(&EXCEPTIONS);
    let role =
        ClusterRole { metadata: meta(EXCEPTIONS_ROLE, None), rules: Some(rules), ..ClusterRole::default() };
    (role, reasons)
}

/// Rights to write targets, of the kinds that are covered from the start.
#[must_use]
pub fn remediation() -> (ClusterRole, Reasons) {
    let (rules, reasons) = rules(&REMEDIATION);
    let role =
        ClusterRole { metadata: meta(REMEDIATION_ROLE, None), rules: Some(rules), ..ClusterRole::default() };
    (role, reasons)
}

/// Rights on reports of openreports.io.
#[must_use]
pub fn openreports() -> (ClusterRole, Reasons) {
    let (rules, reasons) = rules(&OPENREPORTS);
    let role =
        ClusterRole { metadata: meta(OPENREPORTS_ROLE, None), rules: Some(rules), ..ClusterRole::default() };
    (role, reasons)
}

/// Rights on further guarded kinds: the sum of all ClusterRoles that bear [`TARGETS_LABEL`].
///
/// Empty when installed. `patch` on a kind lets enforcement be proved by one of its objects; without
/// it guards are enforced all the same, and the condition says how that is known.
#[must_use]
pub fn targets() -> ClusterRole {
    let selector = LabelSelector {
        match_labels: Some([(TARGETS_LABEL.to_owned(), "true".to_owned())].into()),
        ..LabelSelector::default()
    };
    ClusterRole {
        metadata: meta(TARGETS_ROLE, None),
        aggregation_rule: Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) }),
        // Left to the aggregation controller.
        rules: None,
    }
}

/// Binds a ClusterRole of this name to the account.
#[must_use]
pub fn cluster_role_binding(name: &str, namespace: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta(name, None),
        role_ref: role_ref("ClusterRole", name),
        subjects: Some(vec![account(namespace)]),
    }
}

/// Rights in the namespace of the installation.
#[must_use]
pub fn own_role(namespace: &str) -> (Role, Reasons) {
    role(namespace, &OWN_NAMESPACE)
}

/// Rights in the namespace `default`.
#[must_use]
pub fn default_role() -> (Role, Reasons) {
    role("default", &DEFAULT_NAMESPACE)
}

/// Binds the Role in `place` to the account in `namespace`.
#[must_use]
pub fn role_binding(place: &str, namespace: &str) -> RoleBinding {
    named_role_binding(names::OPERATOR, place, namespace)
}

/// Binds the Role of this name in `place` to the account in `namespace`.
pub(super) fn named_role_binding(name: &str, place: &str, namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: meta(name, Some(place)),
        role_ref: role_ref("Role", name),
        subjects: Some(vec![account(namespace)]),
    }
}

fn role(namespace: &str, grants: &[Grant]) -> (Role, Reasons) {
    let (rules, reasons) = rules(grants);
    (Role { metadata: meta(names::OPERATOR, Some(namespace)), rules: Some(rules) }, reasons)
}

fn rules(grants: &[Grant]) -> (Vec<PolicyRule>, Reasons) {
    let rules = grants
        .iter()
        .map(|grant| PolicyRule {
            api_groups: Some(owned(grant.groups)),
            resources: Some(owned(grant.resources)),
            resource_names: (!grant.names.is_empty()).then(|| owned(grant.names)),
            verbs: owned(grant.verbs),
            ..PolicyRule::default()
        })
        .collect();
    (rules, grants.iter().map(|grant| grant.why).collect())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(super) fn meta(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels::operator()),
        ..ObjectMeta::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn account(namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: names::OPERATOR.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}
