//! Rights on guarded kinds, for the cluster's owner to add: which rule a kind needs, and where.
//!
//! Kinds that most clusters guard are known here, so that their manifest can be made without a
//! cluster; discovery tells the others. Rights on Secrets are never given cluster-wide: whoever holds
//! them can read every Secret.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleBinding};

use crate::api::names;

use super::rbac::{self, Reasons};

/// A kind as RBAC names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKind {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub plural: String,
}

/// What a right on a target is for.
const PROOF: &str = "an empty dry-run patch, which changes nothing, proves that writes to guarded objects reach us; \
     some reviews need one live read of their target; drift that passed admission by is found by a watch";
const PROOF_OF_SECRETS: &str = "an empty dry-run patch, which changes nothing, proves that writes to guarded objects reach us \
     (RBAC cannot confine the right to dry runs); drift that passed admission by is found by a watch";
const REMEDIATION: &str = "approved content is written back";

/// Group, plural and kind of what is guarded most often.
///
/// All of the core group that may be guarded: their word names no group, by which others could be meant.
const WELL_KNOWN: [(&str, &str, &str); 33] = [
    ("", "configmaps", "ConfigMap"),
    ("", "secrets", "Secret"),
    ("", "services", "Service"),
    ("", "serviceaccounts", "ServiceAccount"),
    ("", "pods", "Pod"),
    ("", "namespaces", "Namespace"),
    ("", "limitranges", "LimitRange"),
    ("", "resourcequotas", "ResourceQuota"),
    ("", "persistentvolumes", "PersistentVolume"),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "endpoints", "Endpoints"),
    ("", "podtemplates", "PodTemplate"),
    ("", "replicationcontrollers", "ReplicationController"),
    ("terrafusion.ai", "gamaconfigs", "GAMAConfig"),
    ("apps", "deployments", "Deployment"),
    ("apps", "statefulsets", "StatefulSet"),
    ("apps", "daemonsets", "DaemonSet"),
    ("apps", "replicasets", "ReplicaSet"),
    ("batch", "jobs", "Job"),
    ("batch", "cronjobs", "CronJob"),
    ("networking.k8s.io", "ingresses", "Ingress"),
    ("networking.k8s.io", "ingressclasses", "IngressClass"),
    ("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("rbac.authorization.k8s.io", "roles", "Role"),
    ("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding"),
    ("storage.k8s.io", "storageclasses", "StorageClass"),
    ("scheduling.k8s.io", "priorityclasses", "PriorityClass"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition"),
];

impl TargetKind {
    /// What `word` means without a cluster: a kind or plural of the table, or `plural.group` in lower
    /// case, taken as it stands.
    #[must_use]
    pub fn offline(word: &str) -> Option<Self> {
        let (name, group) = word.split_once('.').map_or((word, None), |(name, group)| (name, Some(group)));
        let known = WELL_KNOWN.iter().find(|(of, plural, kind)| {
            let named = kind.eq_ignore_ascii_case(name) || plural.eq_ignore_ascii_case(name);
            named && group.is_none_or(|group| group.eq_ignore_ascii_case(of))
        });
        if let Some((group, plural, _)) = known {
            return Some(Self { group: (*group).to_owned(), plural: (*plural).to_owned() });
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let group = group.filter(|_| !name.is_empty() && word.chars().all(plain))?;
        Some(Self { group: group.to_owned(), plural: name.to_owned() })
    }

    /// Whether rights on it must be given namespace by namespace.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && self.plural == "secrets"
    }

    /// `plural.group`, as `kubectl` and [`TargetKind::offline`] read it.
    #[must_use]
    pub fn word(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Name of the role that gives rights on it.
    #[must_use]
    pub fn role_name(&self) -> String {
        format!("{}-{}", rbac::TARGETS_ROLE, self.word())
    }

    /// Verbs that guarding the kind takes, without remediation.
    #[must_use]
    pub fn verbs(&self) -> &'static [&'static str] {
        &["get", "list", "watch", "patch"]
    }

    /// The command that gives [`TargetKind::verbs`] to the installation in `installed`: in the namespace
    /// `place`, since one is all that a guard needs, or for a cluster-scoped kind in the cluster.
    #[must_use]
    pub fn rights_command(&self, place: Option<&str>, installed: &str) -> String {
        let within = place.map(|place| format!(" --in {place}")).unwrap_or_default();
        // A binding names the account, which stands in the namespace of the installation.
        let home = match place {
            Some(_) if installed != names::NAMESPACE => format!(" -n {installed}"),
            _ => String::new(),
        };
        format!("driftguard manifests rbac{home} --for {}{within} | kubectl apply -f -", self.word())
    }

    fn rules(&self, remediation: bool) -> (Vec<PolicyRule>, Reasons) {
        let rule = |verbs: &[&str]| PolicyRule {
            api_groups: Some(vec![self.group.clone()]),
            resources: Some(vec![self.plural.clone()]),
            verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
            ..PolicyRule::default()
        };
        let why = if self.is_secret() { PROOF_OF_SECRETS } else { PROOF };
        let mut rules = vec![(rule(self.verbs()), why)];
        if remediation {
            rules.push((rule(&["create", "update", "delete"]), REMEDIATION));
        }
        rules.into_iter().unzip()
    }

    /// Rights in the whole cluster, taken up by the aggregated ClusterRole as soon as it is applied.
    #[must_use]
    pub fn cluster_role(&self, remediation: bool) -> (ClusterRole, Reasons) {
        let (rules, reasons) = self.rules(remediation);
        let mut metadata = rbac::meta(&self.role_name(), None);
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(rbac::TARGETS_LABEL.to_owned(), "true".to_owned());
        (ClusterRole { metadata, rules: Some(rules), ..ClusterRole::default() }, reasons)
    }

    /// Rights in one namespace.
    #[must_use]
    pub fn role(&self, namespace: &str, remediation: bool) -> (Role, Reasons) {
        let (rules, reasons) = self.rules(remediation);
        (Role { metadata: rbac::meta(&self.role_name(), Some(namespace)), rules: Some(rules) }, reasons)
    }

    /// Binds [`TargetKind::role`] to the account of the installation in `installed`.
    #[must_use]
    pub fn role_binding(&self, namespace: &str, installed: &str) -> RoleBinding {
        rbac::named_role_binding(&self.role_name(), namespace, installed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn kinds_are_found_by_kind_plural_and_group_in_any_case() {
        let deployments = TargetKind { group: "apps".into(), plural: "deployments".into() };
        for word in ["Deployment", "deployments", "deployment.apps", "Deployments.Apps"] {
            assert_eq!(TargetKind::offline(word).as_ref(), Some(&deployments), "{word}");
        }
        let other = TargetKind::offline("deployments.other.io").unwrap();
        assert_eq!(other.group, "other.io", "the same word in another group is another kind");
        assert_eq!(TargetKind::offline("Widget"), None, "only a cluster knows");
        assert_eq!(TargetKind::offline("Widget.example.com"), None);
        assert_eq!(TargetKind::offline("widgets.example.com").unwrap().word(), "widgets.example.com");
    }

    #[test]
    fn writing_takes_the_remediation_that_was_asked_for() {
        let verbs = |remediation| -> Vec<String> {
            let (role, reasons) = TargetKind::offline("Job").unwrap().cluster_role(remediation);
            let rules = role.rules.unwrap();
            assert_eq!(rules.len(), reasons.len());
            rules.into_iter().flat_map(|rule| rule.verbs).collect()
        };
        assert_eq!(verbs(false), ["get", "list", "watch", "patch"]);
        assert_eq!(verbs(true), ["get", "list", "watch", "patch", "create", "update", "delete"]);
    }
}
