//! Custom resources of several versions, whose definition decides which version brings which write.

use anyhow::{Result, ensure};
use driftguard_control_plane::{Output, Version, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

const GROUP: &str = "versions.example.com";

/// A version whose count, if it can be scaled, stands under this field of `spec`.
fn version(name: &str, is_stored: bool, count: Option<&str>) -> Value {
    let mut version = json!({
        "name": name, "served": true, "storage": is_stored,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "replicas": {"type": "integer"}, "size": {"type": "integer"}}},
            "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}},
    });
    if let Some(field) = count {
        let scale = json!({"specReplicasPath": format!(".spec.{field}"), "statusReplicasPath": ".status.n"});
        version["subresources"] = json!({"scale": scale});
    }
    version
}

fn definition(plural: &str, kind: &str, versions: &[Value]) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                 "versions": versions},
    })
}

fn object(ns: &str, version: &str, kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind,
           "metadata": {"name": "x", "namespace": ns}, "spec": spec})
}

fn patch(on: &Installation, ns: &str, object: &str, patch: &str) -> Result<Output> {
    on.admin.kubectl(&["patch", object, "-n", ns, "--type=merge", "-p", patch])
}

#[test]
fn a_guard_whose_version_is_removed_still_refuses_and_no_longer_says_enforcing() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("version-removed")?;
    let both = [version("v1", true, None), version("v1alpha1", false, None)];
    on.apply(&definition("gears", "Gear", &both))?.success()?;
    let gear = object(&ns, "v1alpha1", "Gear", &json!({"size": 1}));
    until("gears are served", LIMIT, || on.apply(&gear)?.success())?;
    let older = json!({"targetApiVersion": format!("{GROUP}/v1alpha1")});
    let guard = on.pin(&ns, "gear/x", &hash_of(&gear)?, &older)?;
    let newer = format!("gears.v1.{GROUP}/x");
    on.refused(&ns, &newer, || patch(on, &ns, &newer, r#"{"spec":{"size":2}}"#))?;

    on.apply(&definition("gears", "Gear", &both[..1]))?.success()?;
    until("the guard says that its version is gone", LIMIT, || {
        let status = on.get(&ns, &format!("dg/{guard}"))?["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let says = |of_type: &str| conditions.iter().find(|condition| condition["type"] == of_type).cloned();
        let enforcing = says("Enforcing").unwrap_or_default();
        ensure!(enforcing["status"] == "False" && enforcing["reason"] == "TargetNoLongerServed", "{status}");
        Ok(())
    })?;
    until("the version that is left is registered", LIMIT, || {
        let get = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "json"];
        let registered = on.admin.kubectl(&get)?.success()?;
        ensure!(registered.contains(&format!("gears.v1.{GROUP}")), "{registered}");
        Ok(())
    })?;
    let mut said = String::new();
    until("the rules reach the API server's admission", LIMIT, || {
        // What changes nothing tells nothing; a dry run of a change does.
        let arguments = ["patch", &newer, "-n", &ns, "--type=merge", "--dry-run=server", "-p"];
        said = on.admin.kubectl(&[&arguments[..], &[r#"{"spec":{"size":3}}"#]].concat())?.failure()?;
        Ok(())
    })?;
    ensure!(said.contains("v1alpha1 is no longer served"), "{said}");
    on.refused(&ns, &newer, || patch(on, &ns, &newer, r#"{"spec":{"size":3}}"#))?;
    on.admin.kubectl(&["label", &newer, "-n", &ns, "a=b"])?.success()?;
    // Named anew, it is a guard of the version that is left.
    let named = json!({"targetApiVersion": format!("{GROUP}/v1")});
    on.pin(&ns, "gear/x", &hash_of(&gear)?, &named)?;
    on.refused(&ns, &newer, || patch(on, &ns, &newer, r#"{"spec":{"size":3}}"#))?;
    Ok(())
}

#[test]
fn scaling_through_a_version_that_is_not_hashed_is_no_way_around() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("version-scaled")?;
    let cases = [
        ("bolts", "Bolt", None, "replicas"),
        // A count equal to the approved one, written into another field.
        ("nuts", "Nut", Some("replicas"), "size"),
    ];
    for (plural, kind, older, newer) in cases {
        let both = [version("v1", true, Some(newer)), version("v1alpha1", false, older)];
        on.apply(&definition(plural, kind, &both))?.success()?;
        let made = object(&ns, "v1alpha1", kind, &json!({"replicas": 2, "size": 7}));
        until("it is served", LIMIT, || on.apply(&made)?.success())?;
        let hashed = json!({"targetApiVersion": format!("{GROUP}/v1alpha1")});
        on.pin(&ns, &format!("{}/x", kind.to_lowercase()), &hash_of(&made)?, &hashed)?;
        let name = format!("{plural}.v1.{GROUP}/x");
        for count in ["3", "2"] {
            if older.is_none() && count == "2" {
                continue;
            }
            let said = on.refused(&ns, &name, || {
                on.admin.kubectl(&["scale", &name, "-n", &ns, &format!("--replicas={count}")])
            })?;
            ensure!(said.contains("this write came in v1"), "{said}");
        }
        // The guard is one of the whole object all the same.
        on.refused(&ns, &name, || patch(on, &ns, &name, r#"{"spec":{"replicas":5}}"#))?;
        on.admin.kubectl(&["delete", "dg/x-guard", "-n", &ns])?.success()?;
    }
    Ok(())
}

#[test]
fn content_cannot_be_hidden_beside_a_spec_of_the_approved_hash() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("shape")?;
    let mut free = version("v1", true, None);
    free["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    on.apply(&definition("shapes", "Shape", &[free]))?.success()?;
    let shape = |fields: Value| {
        let mut shape = object(&ns, "v1", "Shape", &Value::Null);
        shape.as_object_mut().into_iter().for_each(|shape| drop(shape.remove("spec")));
        for (name, value) in fields.as_object().cloned().unwrap_or_default() {
            shape[name] = value;
        }
        shape
    };
    let plain = shape(json!({"config": {"a": 1}}));
    until("shapes are served", LIMIT, || on.apply(&plain)?.success())?;
    on.pin(&ns, "shape/x", &hash_of(&plain)?, &json!({}))?;
    let hidden = shape(json!({"spec": {"config": {"a": 1}}, "config": {"a": "evil"}}));
    ensure!(hash_of(&hidden)? == hash_of(&plain)?);
    for replace in [&["replace", "-f", "-"][..], &["replace", "--force", "-f", "-"]] {
        let write = || on.admin.kubectl_with(replace, hidden.to_string());
        // `--force` deletes first, which passes.
        let said = if replace.contains(&"--force") {
            on.not_made(&ns, "shape/x", write)?
        } else {
            on.refused(&ns, "shape/x", write)?
        };
        ensure!(said.contains("spec and"), "{said}");
    }
    on.apply(&plain)?.success()?;
    Ok(())
}

#[test]
fn a_group_that_another_api_server_serves_is_not_called_enforced_by_the_proof_of_others() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("served-elsewhere")?;
    on.apply(&definition("gears", "Gear", &[version("v1", true, None)]))?.success()?;
    let gear = object(&ns, "v1", "Gear", &json!({"size": 1}));
    until("gears are served", LIMIT, || on.apply(&gear)?.success())?;
    let guard = on.pin(&ns, "gear/x", &hash_of(&gear)?, &json!({}))?;
    let enforcing = |name: &str| -> Result<Value> {
        let status = on.get(&ns, &format!("dg/{name}"))?["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|one| one["type"] == "Enforcing").unwrap_or_default())
    };
    // Another version of the group is now served by somebody else, who is not even there.
    on.apply(&json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v9.{GROUP}")},
        "spec": {"group": GROUP, "version": "v9", "groupPriorityMinimum": 100, "versionPriority": 1,
                 "insecureSkipTLSVerify": true, "service": {"namespace": ns, "name": "nobody"}},
    }))?
    .success()?;
    // New rules are proved anew: those of the API server itself by what it serves.
    on.apply(&config_map(&ns, "first", &json!({"a": "1"})))?.success()?;
    let plain = on.pin_live(&ns, "configmap/first")?;
    until("the guard says that its group is served elsewhere", LIMIT, || {
        let found = enforcing(&guard)?;
        ensure!(found["status"] == "Unknown" && found["reason"] == "ServedElsewhere", "{found}");
        let said = found["message"].as_str().unwrap_or_default();
        ensure!(said.starts_with(&format!("{GROUP} is served by an API server of its own")), "{said}");
        Ok(())
    })?;
    ensure!(enforcing(&plain)?["reason"] == "Proved", "{}", enforcing(&plain)?);
    on.refused(&ns, "gear/x", || patch(&on, &ns, "gear/x", r#"{"spec":{"size":2}}"#))?;
    on.admin.kubectl(&["delete", "apiservice", &format!("v9.{GROUP}")])?.success()?;
    on.apply(&config_map(&ns, "second", &json!({"a": "1"})))?.success()?;
    on.pin_live(&ns, "configmap/second")?;
    on.wait_enforcing(&ns, &guard)
}
