#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use super::*;
use crate::core::paths;

fn spec_schema() -> Value {
    let crd = serde_json::to_value(crds::driftguard()).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap().clone()
}

/// Calls `visit` for each schema under `schema`, with a readable place.
fn each_schema(place: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(place, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each_schema(&format!("{place}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        each_schema(&format!("{place}[]"), &schema["items"], visit);
    }
}

#[test]
fn every_string_and_list_of_guards_and_exceptions_is_bounded() {
    let mut unbounded = Vec::new();
    let mut seen = 0;
    for crd in [crds::driftguard(), crds::exception()] {
        let crd = serde_json::to_value(crd).unwrap();
        let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        each_schema("", root, &mut |place, schema| {
            let bounded = match schema["type"].as_str() {
                Some("string") => schema["maxLength"].is_u64() || schema["enum"].is_array(),
                Some("array") => schema["maxItems"].is_u64(),
                _ => return,
            };
            seen += 1;
            if !bounded {
                unbounded.push(place.to_owned());
            }
        });
    }
    assert!(unbounded.is_empty(), "no bound on {unbounded:?}");
    assert!(seen > 30, "the walk saw only {seen} strings and lists");
}

#[test]
fn every_field_is_documented_and_none_is_nullable() {
    for crd in [crds::driftguard(), crds::gamaconfig(), crds::exception()] {
        let crd = serde_json::to_value(crd).unwrap();
        let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        each_schema("", root, &mut |place, schema| {
            assert!(schema["nullable"].is_null(), "{place} is nullable");
            // List items are described by their list.
            if !place.ends_with("[]") {
                let text = schema["description"].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{place} has no description");
            }
        });
    }
}

#[test]
fn only_kind_name_and_hash_must_be_given() {
    let schema = spec_schema();
    let required: BTreeSet<&str> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(required, BTreeSet::from(["expectedHash", "targetKind", "targetName"]));
}

#[test]
fn defaults_are_those_of_the_older_operator() {
    let schema = spec_schema();
    let mut defaults = Vec::new();
    each_schema("", &schema, &mut |place, schema| {
        if !schema["default"].is_null() {
            defaults.push((place.to_owned(), schema["default"].clone()));
        }
    });
    assert_eq!(
        defaults,
        [
            (".autoRemediate".to_owned(), Value::from(false)),
            (".deletionPolicy".to_owned(), Value::from("Allow")),
            (".maxFailuresBeforeAlert".to_owned(), Value::from(3)),
        ]
    );
}

#[test]
fn the_schema_and_the_compiler_of_paths_have_the_same_bounds() {
    let schema = spec_schema();
    for field in ["ignorePaths", "onlyPaths"] {
        let list = &schema["properties"][field];
        assert_eq!(list["maxItems"], paths::MAX_PATHS);
        assert_eq!(list["items"]["maxLength"], paths::MAX_PATH_LENGTH);
    }
}

#[test]
fn guards_can_be_selected_by_the_name_of_their_target() {
    let crd = crds::driftguard();
    let fields = crd.spec.versions[0].selectable_fields.as_ref().unwrap();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].json_path, ".spec.targetName");
}

#[test]
fn columns_are_few_and_wide_ones_come_last() {
    let crd = crds::driftguard();
    let columns = crd.spec.versions[0].additional_printer_columns.as_ref().unwrap();
    let of = |wide: bool| -> Vec<&str> {
        columns.iter().filter(|c| (c.priority == Some(1)) == wide).map(|c| c.name.as_str()).collect()
    };
    assert_eq!(of(false), ["Target", "Ready", "Drifted", "Enforcement", "Last Drift", "Age"]);
    assert_eq!(of(true), ["Source", "Hash"]);
}

#[test]
fn guards_are_not_among_what_delete_all_deletes() {
    for crd in [crds::driftguard(), crds::gamaconfig(), crds::exception()] {
        assert!(!crd.spec.names.categories.unwrap().contains(&"all".to_owned()));
    }
}

#[test]
fn the_older_operators_guard_reads_as_it_did() {
    let spec: crate::api::DriftGuardSpec = serde_json::from_value(serde_json::json!({
        "targetKind": "GAMAConfig",
        "targetName": "gama-valuation-model",
        "expectedHash": "8a7b4a9f6e5d2c1b0a9e8d7c6b5a4f3e2d1c0b9a8e7d6c5b4a3f2e1d0c9b8a7f",
        "sourceOfTruthRef": {"kind": "configmap", "name": "approved"},
    }))
    .unwrap();
    assert!(!spec.auto_remediate);
    assert_eq!(spec.max_failures_before_alert, 3);
    assert_eq!(spec.source_of_truth_ref.unwrap().kind, crate::api::SourceKind::Configmap);
    assert_eq!(spec.enforcement, None, "absent means the default of the installation");
}

#[test]
fn pods_hold_no_privilege() {
    let deployment = serde_json::to_value(deploy::deployment(&Settings::default())).unwrap();
    let pod = deployment.pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
}

#[test]
fn the_older_operators_label_finds_our_pods_and_the_selector_only_ours() {
    let deployment = deploy::deployment(&Settings::default()).spec.unwrap();
    let labels = deployment.template.metadata.unwrap().labels.unwrap();
    assert_eq!(labels["app"], "driftguard-operator");
    let selector = deployment.selector.match_labels.unwrap();
    assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
    // The older operator's pods bear `app` alone; a Service or budget must not take them in.
    assert!(selector.contains_key("app.kubernetes.io/name"));
}

#[test]
fn every_rule_has_its_reason_and_none_is_a_wildcard() {
    let roles: Vec<Manifest> = rbac(&Settings::default())
        .unwrap()
        .into_iter()
        .filter(|manifest| manifest.object["rules"].is_array())
        .collect();
    assert_eq!(roles.len(), 4);
    for role in roles {
        let rules = role.object["rules"].as_array().unwrap();
        assert_eq!(rules.len(), role.reasons.len(), "{}", role.title());
        assert!(!serde_json::to_string(rules).unwrap().contains('*'), "{}", role.title());
        let read_back: Value = serde_saphyr::from_str(&role.yaml().unwrap()).unwrap();
        assert_eq!(read_back, role.object, "comments must not change what is applied");
    }
}

#[test]
fn the_namespace_and_image_asked_for_are_used_everywhere() {
    let settings =
        Settings { namespace: "elsewhere".into(), image: "example.com/dg:9".into(), ..Settings::default() };
    let text = stream(&deployment(&settings).unwrap()).unwrap();
    assert!(!text.contains(names::NAMESPACE));
    assert!(text.contains("image: example.com/dg:9"));
    assert!(text.contains("--webhook-service=elsewhere/driftguard-webhook"));
}
