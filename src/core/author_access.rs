//! Which rights the author of a guard must have: one list for target, sources and fallback sources.
//!
//! DriftGuard acts for the author: it refuses others' writes to the target, and reads sources and
//! writes the target with rights of its own. Without this list anybody who may make a guard could
//! use those rights. It depends on the guard alone, never on what exists.

use std::collections::BTreeSet;
use std::fmt;

use super::guard::Target;

/// One right, as RBAC and SubjectAccessReview name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name; `*` for all of the group.
    pub resource: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Object name, empty where the verb names none.
    pub name: String,
    /// The verb.
    pub verb: &'static str,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// What a source of truth is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret; also that of a git source, which holds its URL and credentials.
    Secret,
    /// A Service, by a request to it.
    Service,
}

/// A source of truth, as far as rights are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceObject {
    /// What is read.
    pub reads: Reads,
    /// Namespace of the object.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a guard acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// A resource that the API server serves.
    Known(Target),
    /// A kind that is not served, or not by one group alone. What it will mean is not known, so it
    /// takes the right to everything that it may come to mean.
    Unknown {
        /// The group of `targetApiVersion`; `*` without one.
        group: String,
    },
}

/// The rights that the author of a guard needs, sorted.
#[must_use]
pub fn needed(aim: &Aim, auto_remediate: bool, sources: &[SourceObject]) -> Vec<Access> {
    let mut all = BTreeSet::new();
    let verbs: &[&'static str] = if auto_remediate { &["create", "delete", "update"] } else { &["update"] };
    match aim {
        Aim::Known(target) => {
            all.extend(verbs.iter().map(|verb| of_target(target, verb)));
            if target.group.is_empty() && target.resource == "secrets" {
                all.insert(of_target(target, "get"));
            }
        }
        Aim::Unknown { group } => {
            // It may turn out to hold secrets, and to be cluster-scoped.
            all.extend(verbs.iter().chain(&["get"]).map(|verb| Access {
                group: group.clone(),
                resource: "*".to_owned(),
                subresource: String::new(),
                namespace: String::new(),
                name: String::new(),
                verb,
            }));
        }
    }
    all.extend(sources.iter().map(of_source));
    all.into_iter().collect()
}

/// The right to read one source.
#[must_use]
pub fn of_source(source: &SourceObject) -> Access {
    let (resource, subresource) = match source.reads {
        Reads::ConfigMap => ("configmaps", ""),
        Reads::Secret => ("secrets", ""),
        Reads::Service => ("services", "proxy"),
    };
    Access {
        group: String::new(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: source.namespace.clone(),
        name: source.name.clone(),
        verb: "get",
    }
}

fn of_target(target: &Target, verb: &'static str) -> Access {
    // A POST names no object. Asked with a name, a rule on that name would say yes to what a POST is
    // refused.
    let name = if verb == "create" { String::new() } else { target.name.as_str().to_owned() };
    // The API server authorises requests for a Namespace within that very namespace.
    let is_namespace = target.group.is_empty() && target.resource == "namespaces";
    let namespace =
        if is_namespace { name.clone() } else { target.namespace.as_deref().unwrap_or_default().to_owned() };
    Access {
        group: target.group.as_str().into(),
        resource: target.resource.as_str().into(),
        subresource: String::new(),
        namespace,
        name,
        verb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(group: &str, resource: &str, namespace: Option<&str>) -> Aim {
        Aim::Known(Target {
            group: group.into(),
            version: "v1".into(),
            kind: "Kind".into(),
            resource: resource.into(),
            namespace: namespace.map(Into::into),
            name: "x".into(),
        })
    }

    fn said(aim: &Aim, auto_remediate: bool, sources: &[SourceObject]) -> Vec<String> {
        needed(aim, auto_remediate, sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn guarding_takes_the_right_to_update_and_restoring_that_to_make_and_delete() {
        let aim = target("apps", "deployments", Some("n"));
        assert_eq!(said(&aim, false, &[]), ["update deployments.apps x in namespace n"]);
        assert_eq!(
            said(&aim, true, &[]),
            [
                "create deployments.apps in namespace n",
                "delete deployments.apps x in namespace n",
                "update deployments.apps x in namespace n",
            ]
        );
    }

    #[test]
    fn a_secret_takes_the_right_to_read_it() {
        let aim = target("", "secrets", Some("n"));
        assert_eq!(
            said(&aim, false, &[]),
            ["get secrets x in namespace n", "update secrets x in namespace n"]
        );
        assert_eq!(said(&target("a.io", "secrets", Some("n")), false, &[]).len(), 1);
    }

    #[test]
    fn every_source_takes_the_right_to_read_it_once() {
        let source = |reads, name: &str| SourceObject { reads, namespace: "s".into(), name: name.into() };
        let sources = [
            source(Reads::ConfigMap, "a"),
            source(Reads::Secret, "b"),
            source(Reads::Service, "c"),
            source(Reads::ConfigMap, "a"),
        ];
        assert_eq!(
            said(&target("", "configmaps", Some("n")), false, &sources),
            [
                "update configmaps x in namespace n",
                "get configmaps a in namespace s",
                "get secrets b in namespace s",
                "get services/proxy c in namespace s",
            ]
        );
    }

    #[test]
    fn cluster_scoped_targets_have_no_namespace_and_a_namespace_lies_in_itself() {
        let role = target("rbac.authorization.k8s.io", "clusterroles", None);
        assert_eq!(said(&role, false, &[]), ["update clusterroles.rbac.authorization.k8s.io x"]);
        let namespace = target("", "namespaces", None);
        assert_eq!(
            said(&namespace, true, &[]),
            ["create namespaces", "delete namespaces x in namespace x", "update namespaces x in namespace x"]
        );
    }

    #[test]
    fn a_kind_that_is_not_known_takes_the_right_to_all_that_it_may_mean() {
        let aim = Aim::Unknown { group: "a.io".into() };
        assert_eq!(said(&aim, false, &[]), ["get *.a.io", "update *.a.io"]);
    }
}
