//! Who else writes a target: such a guard is taken with a warning, since each of their writes will be
//! refused.
//!
//! Judged by metadata alone: an owner that controls the object, or a field manager that owns pinned
//! fields and is no tool by which people write.

use serde_json::Value;

use super::paths::{Position, Step};
use super::scope::{Scope, ScopeKind};

/// What field managers are called that write what a person, or Git, decided: the beginnings of their
/// names, in lower case. Their writes are what a guard is there to judge.
const TOOLS: [&str; 20] = [
    "kubectl",
    "oc",
    "helm",
    "argocd",
    "argo-cd",
    "kustomize-controller",
    "flux",
    "driftguard",
    "terraform",
    "hashicorp",
    "pulumi",
    "ansible",
    "openapi-generator",
    "kapp",
    "skaffold",
    "k9s",
    "lens",
    "mozilla",
    "curl",
    "before-first-apply",
];
/// Most rivals named.
const MAX_NAMED: usize = 3;

/// A manager of fields, as `metadata.managedFields` names it.
#[derive(Debug, Clone, Copy)]
pub struct FieldOwner<'a> {
    /// Its name.
    pub manager: &'a str,
    /// Subresource by which it writes; empty for the object itself.
    pub subresource: &'a str,
    /// `fieldsV1`.
    pub fields: &'a Value,
}

/// Whoever else writes pinned content: `Kind name` of a controlling owner, and field managers.
#[must_use]
pub fn rivals(controller: Option<(&str, &str)>, owners: &[FieldOwner<'_>], scope: &Scope) -> Vec<String> {
    let mut found: Vec<String> =
        controller.map(|(kind, name)| format!("its controller {kind}/{name}")).into_iter().collect();
    for owner in owners {
        let name = owner.manager.to_ascii_lowercase();
        let is_tool = TOOLS.iter().any(|tool| name.starts_with(tool));
        if !is_tool && owner.subresource != "status" && owns_pinned(owner.fields, scope) {
            let named = format!("field manager {}", owner.manager);
            if !found.contains(&named) {
                found.push(named);
            }
        }
    }
    found.truncate(MAX_NAMED);
    found
}

/// The warning about rivals.
#[must_use]
pub fn warning(target: &super::guard::Target, rivals: &[String], blocks: bool) -> String {
    let what = if blocks { "refused" } else { "reported" };
    format!(
        "{target} is also written by {}: each of its writes to pinned content will be {what}",
        rivals.join(", ")
    )
}

/// Whether a set of fields touches what a scope pins.
fn owns_pinned(fields: &Value, scope: &Scope) -> bool {
    let Value::Object(top) = fields else { return false };
    top.iter().any(|(key, below)| {
        let Some(field) = key.strip_prefix("f:") else { return false };
        let can_be_scope = match scope.kind() {
            ScopeKind::ConfigMap | ScopeKind::Secret => matches!(field, "data" | "binaryData"),
            ScopeKind::GamaConfig => field == "spec",
            ScopeKind::Other => !matches!(field, "apiVersion" | "kind" | "metadata" | "status"),
        };
        let filter = scope.filter();
        can_be_scope && touches(below, scope, filter.descend(filter.root(), Step::Member(field)))
    })
}

/// Whether any field of a set lies within the scope. Nesting is bounded by whoever parsed the JSON.
fn touches(fields: &Value, scope: &Scope, position: Position) -> bool {
    match position {
        Position::Outside => return false,
        Position::Inside => return true,
        _ => {}
    }
    let Value::Object(members) = fields else { return true };
    let mut fields = members.iter().filter(|(key, _)| key.as_str() != ".").peekable();
    if fields.peek().is_none() {
        return true;
    }
    fields.any(|(key, below)| match key.strip_prefix("f:") {
        Some(field) => touches(below, scope, scope.filter().descend(position, Step::Member(field))),
        // List items are named by keys here and by position in paths: better one warning too many.
        None => true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;
    use crate::core::paths::PathFilter;

    fn found(manager: &str, subresource: &str, fields: &Value, scope: &Scope) -> Vec<String> {
        rivals(None, &[FieldOwner { manager, subresource, fields }], scope)
    }

    #[test]
    fn a_controlling_owner_and_a_manager_of_pinned_fields_are_rivals() {
        let scope = Scope::new("", "Secret", PathFilter::everything());
        let data = json!({"f:data": {".": {}, "f:password": {}}});
        let owners = [FieldOwner {
            manager: "externalsecrets.external-secrets.io/db",
            subresource: "",
            fields: &data,
        }];
        assert_eq!(
            rivals(Some(("ExternalSecret", "db")), &owners, &scope),
            ["its controller ExternalSecret/db", "field manager externalsecrets.external-secrets.io/db"]
        );
    }

    #[test]
    fn tools_of_people_and_writers_of_other_fields_are_none() {
        let scope = Scope::new("apps", "Deployment", PathFilter::everything());
        let spec = json!({"f:spec": {"f:replicas": {}}});
        for tool in ["kubectl-client-side-apply", "Helm", "argocd-controller", "kustomize-controller"] {
            assert!(found(tool, "", &spec, &scope).is_empty(), "{tool}");
        }
        let status = json!({"f:status": {"f:replicas": {}}, "f:metadata": {"f:labels": {}}});
        assert!(found("kube-controller-manager", "", &status, &scope).is_empty());
        assert!(found("kube-controller-manager", "status", &spec, &scope).is_empty());
        assert_eq!(found("kube-controller-manager", "scale", &spec, &scope).len(), 1);
    }

    #[test]
    fn who_writes_only_what_paths_leave_out_is_none() {
        let spec = json!({"f:spec": {"f:replicas": {}}});
        let ignoring = PathFilter::ignoring(&["/spec/replicas"]).unwrap();
        assert!(found("hpa", "scale", &spec, &Scope::new("apps", "Deployment", ignoring)).is_empty());
        let only = PathFilter::only(&["/spec/template"]).unwrap();
        assert!(found("hpa", "scale", &spec, &Scope::new("apps", "Deployment", only)).is_empty());
        let only = PathFilter::only(&["/spec/replicas"]).unwrap();
        assert_eq!(found("hpa", "scale", &spec, &Scope::new("apps", "Deployment", only)).len(), 1);
    }
}
