//! What is never a target (DESIGN 4.9, section 5).
//!
//! A guard that depends on itself to be mended locks its owner out; one on what the cluster rewrites
//! every second is noise; one on what the API server never sends to a webhook protects nothing.

use crate::api::names;
use crate::core::guard::Target;

/// What names of our own objects start with.
const OWN_PREFIX: &str = "driftguard";

/// Why `target` is never guarded, or `None` when it may be.
pub(crate) fn refusal(target: &Target, own_namespace: &str) -> Option<String> {
    let because = |what: &str, why: &str| Some(format!("{what} is never guarded: {why}"));
    match (target.group.as_str(), target.resource.as_str()) {
        ("coordination.k8s.io", _) => {
            return because("a Lease", "its holder renews it every few seconds");
        }
        ("" | "events.k8s.io", "events") => return because("an Event", "it counts up by itself"),
        ("", "nodes") => {
            return because("a Node", "its kubelet must be able to write it at any moment");
        }
        ("admissionregistration.k8s.io", _) => {
            return because(
                "an admission configuration",
                "the API server sends its changes to no webhook, so nothing could be refused",
            );
        }
        (names::GROUP, resource) if resource.starts_with(names::DRIFTGUARDS.trim_end_matches('s')) => {
            return because(&format!("a {}", target.kind), "changing it is how a change is approved");
        }
        _ => {}
    }
    is_ours(target, own_namespace).then(|| {
        format!("{target} is never guarded: it belongs to DriftGuard itself, which could not be mended")
    })
}

fn is_ours(target: &Target, own_namespace: &str) -> bool {
    let named_ours = target.name.starts_with(OWN_PREFIX);
    match (target.namespace.as_deref(), target.group.as_str(), target.resource.as_str()) {
        (Some(namespace), ..) => namespace == own_namespace && named_ours,
        (None, "", "namespaces") => target.name == own_namespace,
        (None, "rbac.authorization.k8s.io", _) => named_ours,
        (None, "apiextensions.k8s.io", "customresourcedefinitions") => target
            .name
            .rsplit_once(names::GROUP)
            .is_some_and(|(head, tail)| head.ends_with('.') && tail.is_empty()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "terrafusion-system";

    fn refused(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> bool {
        let target = Target {
            group: group.into(),
            version: "v1".into(),
            kind: "Kind".into(),
            resource: resource.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        };
        refusal(&target, OWN).is_some()
    }

    #[test]
    fn what_the_cluster_itself_writes_all_the_time_is_refused() {
        assert!(refused("coordination.k8s.io", "leases", Some("kube-node-lease"), "node-1"));
        assert!(refused("", "events", Some("a"), "x"));
        assert!(refused("events.k8s.io", "events", Some("a"), "x"));
        assert!(refused("", "nodes", None, "node-1"));
        assert!(!refused("metrics.k8s.io", "nodes", None, "node-1"));
    }

    #[test]
    fn what_no_webhook_ever_sees_is_refused() {
        for resource in [
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
        ] {
            assert!(refused("admissionregistration.k8s.io", resource, None, "any"), "{resource}");
        }
    }

    #[test]
    fn guards_themselves_are_refused_but_gama_configs_are_not() {
        assert!(refused("terrafusion.ai", "driftguards", Some("a"), "x"));
        assert!(refused("terrafusion.ai", "driftguardexceptions", Some("a"), "x"));
        assert!(!refused("terrafusion.ai", "gamaconfigs", Some("a"), "x"));
    }

    #[test]
    fn our_own_objects_are_refused_and_those_beside_them_are_not() {
        assert!(refused("apps", "deployments", Some(OWN), "driftguard-operator"));
        assert!(refused("", "secrets", Some(OWN), "driftguard-ca"));
        assert!(refused("", "services", Some(OWN), "driftguard-webhook"));
        assert!(refused("", "pods", Some(OWN), "driftguard-operator-5d9f-x"));
        assert!(refused("", "namespaces", None, OWN));
        assert!(refused("rbac.authorization.k8s.io", "clusterroles", None, "driftguard-operator"));
        assert!(refused(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            None,
            "driftguards.terrafusion.ai"
        ));
        assert!(!refused("", "configmaps", Some(OWN), "market-settings"));
        assert!(!refused("", "secrets", Some("elsewhere"), "driftguard-ca"));
        assert!(!refused("", "namespaces", None, "prod"));
        assert!(!refused(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            None,
            "widgets.notterrafusion.ai"
        ));
    }
}
