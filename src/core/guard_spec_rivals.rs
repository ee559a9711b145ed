//! Who else writes a target: such a guard is taken with a warning, since each of their writes will be
//! refused.
//!
//! Judged by metadata alone: an owner that controls the object, or a field manager that owns pinned
//! fields and is no tool by which people write.

use serde_json::Value;

use super::diff::escaped;
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

/// Whether a field manager is a tool by which people write, or by which what stands in Git is applied.
#[must_use]
pub fn is_tool(manager: &str) -> bool {
    let name = manager.to_ascii_lowercase();
    TOOLS.iter().any(|tool| name.starts_with(tool))
}

/// Whoever else writes pinned content: `Kind name` of a controlling owner, and field managers.
#[must_use]
pub fn rivals(controller: Option<(&str, &str)>, owners: &[FieldOwner<'_>], scope: &Scope) -> Vec<String> {
    let mut found: Vec<String> =
        controller.map(|(kind, name)| format!("its controller {kind}/{name}")).into_iter().collect();
    for owner in owners {
        if !is_tool(owner.manager) && owner.subresource != "status" && owns_pinned(owner.fields, scope) {
            let named = format!("field manager {}", owner.manager);
            if !found.contains(&named) {
                found.push(named);
            }
        }
    }
    found.truncate(MAX_NAMED);
    found
}

/// Who writes the pinned part where nobody's tool wrote any of it: what the cluster makes for itself, such as the
/// certificates that it puts into every namespace.
#[must_use]
pub fn maker<'a>(owners: &[FieldOwner<'a>], scope: &Scope) -> Option<&'a str> {
    let mut pinning =
        owners.iter().filter(|owner| owner.subresource != "status" && owns_pinned(owner.fields, scope));
    let first = pinning.next()?;
    let is_tool = |owner: &FieldOwner<'_>| is_tool(owner.manager);
    (!is_tool(first) && !pinning.any(&is_tool)).then_some(first.manager)
}

/// What of the pinned part others write: each manager with the paths of its fields, as `ignorePaths` spells them. A
/// list whose items have no single key of text is named as a whole.
#[must_use]
pub fn written<'a>(owners: &[FieldOwner<'a>], scope: &Scope) -> Vec<(&'a str, Vec<String>)> {
    let mut found: Vec<(&str, Vec<String>)> = Vec::new();
    for owner in owners {
        if is_tool(owner.manager) || owner.subresource == "status" {
            continue;
        }
        let mut paths = Vec::new();
        for (field, below) in pinned_fields(owner.fields, scope) {
            let position = scope.filter().descend(scope.filter().root(), Step::Member(field));
            leaves(below, scope, position, format!("/{}", escaped(field)), &mut paths);
        }
        if !paths.is_empty() {
            found.push((owner.manager, paths));
        }
    }
    found
}

/// Collects the paths of the fields of a set that have nothing below. Nesting is bounded as in [`touches`].
fn leaves(fields: &Value, scope: &Scope, position: Position, at: String, found: &mut Vec<String>) {
    if matches!(position, Position::Outside) {
        return;
    }
    let members: Vec<_> = fields.as_object().into_iter().flatten().filter(|(key, _)| *key != ".").collect();
    let item = |key: &str| {
        let keys: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
        let mut keys = keys.as_object()?.iter();
        let (name, value) = keys.next()?;
        let value = value.as_str().filter(|value| !value.contains([']', '/', '~']))?;
        keys.next().is_none().then(|| format!("[{name}={value}]"))
    };
    let is_named = |key: &str| key.starts_with("f:") || item(key).is_some();
    if members.is_empty() || !members.iter().all(|(key, _)| is_named(key)) {
        if !found.contains(&at) {
            found.push(at);
        }
        return;
    }
    for (key, below) in members {
        let (segment, position) = match key.strip_prefix("f:") {
            Some(field) => (escaped(field), scope.filter().descend(position, Step::Member(field))),
            None => (item(key).unwrap_or_default(), position),
        };
        leaves(below, scope, position, format!("{at}/{segment}"), found);
    }
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
    let filter = scope.filter();
    pinned_fields(fields, scope)
        .any(|(field, below)| touches(below, scope, filter.descend(filter.root(), Step::Member(field))))
}

/// The top-level fields of a set that a scope may pin, with what lies below them.
fn pinned_fields<'a>(fields: &'a Value, scope: &Scope) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let kind = scope.kind();
    fields.as_object().into_iter().flatten().filter_map(move |(key, below)| {
        let field = key.strip_prefix("f:")?;
        let can_be_scope = match kind {
            ScopeKind::ConfigMap | ScopeKind::Secret => matches!(field, "data" | "binaryData"),
            ScopeKind::GamaConfig => field == "spec",
            ScopeKind::Other => !matches!(field, "apiVersion" | "kind" | "metadata" | "status"),
        };
        can_be_scope.then_some((field, below))
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
    fn what_others_write_is_named_as_paths_that_can_be_ignored() {
        let scope = Scope::new("apps", "Deployment", PathFilter::everything());
        let scaled = json!({"f:spec": {"f:replicas": {}}, "f:status": {"f:x": {}}});
        let reloaded = json!({"f:spec": {"f:template": {
            "f:metadata": {"f:annotations": {".": {}, "f:example.com/a~b": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}}},
                "f:tolerations": {"v:{\"key\":\"x\"}": {}},
            },
        }}});
        let owner = |manager, subresource, fields| FieldOwner { manager, subresource, fields };
        let owners = [
            owner("kube-controller-manager", "scale", &scaled),
            owner("kubectl-edit", "", &scaled),
            owner("reloader", "", &reloaded),
        ];
        let found = written(&owners, &scope);
        assert_eq!(found[0], ("kube-controller-manager", vec!["/spec/replicas".to_owned()]));
        assert_eq!(found[1].0, "reloader");
        let paths = [
            "/spec/template/metadata/annotations/example.com~1a~0b",
            "/spec/template/spec/containers/[name=app]/image",
            "/spec/template/spec/tolerations",
        ];
        assert_eq!(found[1].1, paths);
        assert!(PathFilter::ignoring(&paths.map(str::to_owned)).is_ok(), "they are such paths");
        let ignoring = PathFilter::ignoring(&["/spec/replicas".to_owned()]).unwrap();
        assert_eq!(written(&owners[..2], &Scope::new("apps", "Deployment", ignoring)), []);
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
    fn what_no_tool_wrote_any_of_is_made_by_the_cluster() {
        let scope = Scope::new("", "ConfigMap", PathFilter::everything());
        let (data, labels) =
            (json!({"f:data": {".": {}, "f:ca.crt": {}}}), json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
        let owner = |manager, fields| FieldOwner { manager, subresource: "", fields };
        let publisher = owner("kube-controller-manager", &data);
        assert_eq!(maker(&[publisher], &scope), Some("kube-controller-manager"));
        assert_eq!(
            maker(&[owner("kubectl-label", &labels), publisher], &scope),
            Some("kube-controller-manager")
        );
        assert_eq!(maker(&[publisher, owner("kubectl-edit", &data)], &scope), None);
        assert_eq!(maker(&[owner("Helm", &data)], &scope), None);
        assert_eq!(maker(&[], &scope), None, "nobody is known to write it");
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
