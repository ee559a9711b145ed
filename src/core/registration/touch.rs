//! The second match condition: which updates cannot change what a guard pins, so that nobody needs us
//! for them. Labels, finalizers and garbage collection then pass while nobody answers.
//!
//! An expression must never say "the same" of two contents whose hashes differ, and must never fail.
//! CEL holds an integer and a float for equal when they are equal as floats, so that it cannot tell
//! `9007199254740993` from `9007199254740992.0`. Kinds whose pinned part may hold free-form numbers
//! (every custom resource, and built-in kinds with raw JSON in their spec) therefore get no such
//! condition. What remains are kinds whose fields the API server itself types: strings, booleans and
//! integers, never floats. `docs/design/registration-and-proof.md` has the measurements.

/// What an update must touch for us to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// `data` or `binaryData`: ConfigMap and Secret, whose values are all strings.
    Data,
    /// `spec`, of a built-in kind without free-form numbers.
    Spec,
    /// Anything, unless the object is being deleted: what ends a deletion that has been judged.
    Living,
}

/// A dry run always arrives: by one it is proved that we are called.
const DRY_RUN: &str = "request.?dryRun.orValue(false)";
/// Creation and deletion, where there is nothing to compare.
const NO_UPDATE: &str = "request.operation != 'UPDATE' || object == null || oldObject == null";

/// Built-in resources whose `spec` holds no float and no raw JSON, in any version.
const TYPED: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "limitranges",
            "namespaces",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "replicationcontrollers",
            "resourcequotas",
            "services",
        ],
    ),
    ("apps", &["daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

impl Touch {
    /// What can be told of writes to a resource; `None` where CEL cannot tell.
    pub(super) fn of(group: &str, resource: &str) -> Option<Self> {
        if group.is_empty() && matches!(resource, "configmaps" | "secrets") {
            return Some(Self::Data);
        }
        let typed = TYPED.iter().any(|(of, resources)| *of == group && resources.contains(&resource));
        typed.then_some(Self::Spec)
    }

    /// The expression.
    #[must_use]
    pub fn cel(self) -> String {
        match self {
            Self::Data => format!(
                "{DRY_RUN} || {NO_UPDATE} || object.?data != oldObject.?data || \
                 object.?binaryData != oldObject.?binaryData"
            ),
            Self::Spec => format!("{DRY_RUN} || {NO_UPDATE} || object.?spec != oldObject.?spec"),
            Self::Living => format!(
                "{DRY_RUN} || (oldObject == null ? object : oldObject)\
                 .?metadata.?deletionTimestamp.orValue('') == ''"
            ),
        }
    }

    /// Name of the condition; it stands in the API server's errors about it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data | Self::Spec => "pinned-content",
            Self::Living => "not-being-deleted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_free_form_numbers_gets_no_condition() {
        for (group, resource) in [
            ("terrafusion.ai", "gamaconfigs"),
            ("example.com", "widgets"),
            ("apiextensions.k8s.io", "customresourcedefinitions"),
            ("resource.k8s.io", "resourceclaims"),
            ("example.com", "deployments"),
            ("example.com", "configmaps"),
        ] {
            assert_eq!(Touch::of(group, resource), None, "{group} {resource}");
        }
    }

    #[test]
    fn kinds_without_a_spec_get_no_condition() {
        for resource in ["roles", "clusterroles", "rolebindings", "clusterrolebindings"] {
            assert_eq!(Touch::of("rbac.authorization.k8s.io", resource), None);
        }
        assert_eq!(Touch::of("", "serviceaccounts"), None);
    }

    #[test]
    fn a_dry_run_is_asked_for_first() {
        assert_eq!(Touch::of("", "secrets"), Some(Touch::Data));
        assert_eq!(Touch::of("apps", "deployments"), Some(Touch::Spec));
        for touch in [Touch::Data, Touch::Spec, Touch::Living] {
            assert!(touch.cel().starts_with("request.?dryRun.orValue(false) || "), "{}", touch.cel());
        }
    }
}
