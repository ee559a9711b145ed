//! Who else writes an object, told before there is a guard to fight them: by `metadata` alone.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::output;
use crate::cli::subject::Subject;
use crate::core::guard_spec_rivals::{FieldOwner, written};

/// Most paths that a note names.
const MAX_NAMED: usize = 8;

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    managed_fields: Vec<Managed>,
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Managed {
    manager: String,
    subresource: String,
    fields_v1: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

fn metadata(subject: &Subject) -> Metadata {
    // What cannot be read warns of nobody; the hash is made of the same bytes and fails by itself.
    serde_json::from_slice::<Object>(&subject.json).map(|object| object.metadata).unwrap_or_default()
}

/// `Kind/name` of the controller that makes an object.
pub(in crate::cli) fn controller(subject: &Subject) -> Option<String> {
    let owners = metadata(subject).owner_references;
    owners.into_iter().find(|owner| owner.controller).map(|owner| format!("{}/{}", owner.kind, owner.name))
}

/// Says who else writes pinned fields, and by which flag they are left out.
pub(super) fn tell(subject: &Subject, ignored: &[String]) {
    for note in notes(subject, ignored) {
        output::message(&note);
    }
}

fn notes(subject: &Subject, ignored: &[String]) -> Vec<String> {
    let managed = metadata(subject).managed_fields;
    let owners: Vec<FieldOwner<'_>> = managed
        .iter()
        .map(|one| FieldOwner {
            manager: &one.manager,
            subresource: &one.subresource,
            fields: &one.fields_v1,
        })
        .collect();
    let mut notes = Vec::new();
    for (manager, mut paths) in written(&owners, &subject.scope) {
        paths.retain(|path| !ignored.contains(path));
        if paths.is_empty() {
            continue;
        }
        let more = paths.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let flags: Vec<String> =
            paths.iter().take(MAX_NAMED).map(|path| format!("--ignore-path '{path}'")).collect();
        notes.push(format!(
            "note: {manager} writes fields of {subject} too, which the guard will not let pass; leave them out by {}{more}",
            flags.join(" ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::paths::PathFilter;
    use crate::core::scope::Scope;

    fn deployment(metadata: &Value) -> Subject {
        Subject {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "web".to_owned(),
            json: serde_json::json!({"metadata": metadata}).to_string().into_bytes(),
            origin: None,
            scope: Scope::new("apps", "Deployment", PathFilter::everything()),
        }
    }

    #[test]
    fn an_autoscaler_is_named_with_the_flag_that_leaves_its_field_out() {
        let subject = deployment(&serde_json::json!({"managedFields": [
            {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": "kube-controller-manager", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]}));
        assert_eq!(
            notes(&subject, &[]),
            [
                "note: kube-controller-manager writes fields of Deployment/shop/web too, which the guard will not let pass; leave them out by --ignore-path '/spec/replicas'"
            ]
        );
        assert!(notes(&subject, &["/spec/replicas".to_owned()]).is_empty());
    }

    #[test]
    fn whoever_makes_an_object_is_named() {
        let owners = serde_json::json!({"ownerReferences": [
            {"kind": "ConfigMap", "name": "a"}, {"kind": "Rollout", "name": "web", "controller": true},
        ]});
        assert_eq!(controller(&deployment(&owners)).as_deref(), Some("Rollout/web"));
        assert_eq!(controller(&deployment(&serde_json::json!({}))), None);
    }
}
