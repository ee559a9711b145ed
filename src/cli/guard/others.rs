//! Who else writes an object, told before there is a guard to fight them: by `metadata` alone.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::output;
use crate::cli::subject::{Subject, SubjectArgs};
use crate::core::guard_spec_rivals::{FieldOwner, maker, written};

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

/// Who makes all that would be pinned of an object, where no tool of people wrote any of it.
pub(in crate::cli) fn sole_writer(subject: &Subject) -> Option<String> {
    let managed = metadata(subject).managed_fields;
    maker(&owners(&managed), &subject.scope).map(str::to_owned)
}

fn owners(managed: &[Managed]) -> Vec<FieldOwner<'_>> {
    managed
        .iter()
        .map(|one| FieldOwner {
            manager: &one.manager,
            subresource: &one.subresource,
            fields: &one.fields_v1,
        })
        .collect()
}

/// Says who else writes pinned fields, and how they are left out.
pub(super) fn tell(subject: &Subject, args: &SubjectArgs) {
    for note in notes(subject, &args.ignore_path, !args.only_path.is_empty()) {
        output::message(&note);
    }
}

fn notes(subject: &Subject, ignored: &[String], has_only_paths: bool) -> Vec<String> {
    let managed = metadata(subject).managed_fields;
    let mut notes = Vec::new();
    for (manager, mut paths) in written(&owners(&managed), &subject.scope) {
        paths.retain(|path| !ignored.contains(path));
        if paths.is_empty() {
            continue;
        }
        let more = paths.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        paths.truncate(MAX_NAMED);
        // Paths can be left out or be all there is, not both.
        let mend = if has_only_paths {
            format!("narrow --only-path, so that it takes in none of {}{more}", paths.join(" "))
        } else {
            let flags: Vec<String> = paths.iter().map(|path| format!("--ignore-path '{path}'")).collect();
            format!("leave them out by {}{more}", flags.join(" "))
        };
        notes.push(format!(
            "note: {manager} writes fields of {subject} too, which the guard will not let pass; {mend}"
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
            notes(&subject, &[], false),
            [
                "note: kube-controller-manager writes fields of Deployment/shop/web too, which the guard will not let pass; leave them out by --ignore-path '/spec/replicas'"
            ]
        );
        assert!(notes(&subject, &["/spec/replicas".to_owned()], false).is_empty());
        assert_eq!(
            notes(&subject, &[], true),
            [
                "note: kube-controller-manager writes fields of Deployment/shop/web too, which the guard will not let pass; narrow --only-path, so that it takes in none of /spec/replicas"
            ]
        );
    }

    #[test]
    fn what_nobody_but_the_cluster_writes_is_told_from_what_people_write() {
        let replicas = serde_json::json!({"f:spec": {"f:replicas": {}}});
        let managed = |managers: &[&str]| {
            let entries: Vec<Value> = managers
                .iter()
                .map(|manager| serde_json::json!({"manager": manager, "fieldsV1": replicas}))
                .collect();
            deployment(&serde_json::json!({"managedFields": entries}))
        };
        assert_eq!(
            sole_writer(&managed(&["kube-controller-manager"])).as_deref(),
            Some("kube-controller-manager")
        );
        assert_eq!(sole_writer(&managed(&["kube-controller-manager", "kubectl-edit"])), None);
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
