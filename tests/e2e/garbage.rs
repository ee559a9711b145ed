//! What kube-controller-manager deletes: objects of dead owners, dependents, whole namespaces. Guards are in
//! the way of none of it, and what comes back must be what was approved.

use anyhow::{Result, ensure};
use driftguard_control_plane::{ControlPlane, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

/// One control plane for all cases: kube-controller-manager is the costly part.
#[test]
fn controllers_delete_what_is_guarded_and_nothing_unapproved_comes_back() -> Result<()> {
    let on = Installation::on(ControlPlane::builder().controller_manager().start()?, Via::Url)?;
    case_24_what_was_collected_with_its_owner_comes_back_only_as_approved(&on)?;
    case_25_a_namespace_with_guards_and_guarded_objects_can_be_deleted(&on)?;
    case_26_a_guarded_owner_is_deleted_in_the_foreground_with_its_dependents(&on)?;
    Ok(())
}

fn owned_by(owner: &Value, mut object: Value) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "blockOwnerDeletion": true,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
    }]);
    object
}

fn gone(on: &Installation, namespace: &str, object: &str) -> Result<()> {
    until(&format!("{object} is gone"), LIMIT, || {
        let left = on.admin.kubectl(&["get", object, "-n", namespace, "--ignore-not-found", "-o", "yaml"])?;
        let left = left.success()?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

fn case_24_what_was_collected_with_its_owner_comes_back_only_as_approved(on: &Installation) -> Result<()> {
    let ns = on.namespace("case-24")?;
    on.apply(&config_map(&ns, "owner", &json!({})))?.success()?;
    let owner = on.get(&ns, "configmap/owner")?;
    on.apply(&owned_by(&owner, config_map(&ns, "settings", &json!({"price": "1"}))))?.success()?;
    on.pin_live(&ns, "configmap/settings")?;
    on.admin.kubectl(&["delete", "configmap/owner", "-n", &ns, "--cascade=background"])?.success()?;
    gone(on, &ns, "configmap/settings")?;

    let create = |data: Value| {
        on.admin.kubectl_with(&["create", "-f", "-"], config_map(&ns, "settings", &data).to_string())
    };
    on.not_made(&ns, "configmap/settings", || create(json!({"price": "999"})))?;
    // One that names an owner who is dead already is judged by its content too, and collected.
    let orphan = |data| owned_by(&owner, config_map(&ns, "settings", &data)).to_string();
    let bad = orphan(json!({"price": "999"}));
    on.not_made(&ns, "configmap/settings", || on.admin.kubectl_with(&["create", "-f", "-"], bad))?;
    on.admin.kubectl_with(&["create", "-f", "-"], orphan(json!({"price": "1"})))?.success()?;
    gone(on, &ns, "configmap/settings")?;
    create(json!({"price": "1"}))?.success().map(drop)
}

fn case_25_a_namespace_with_guards_and_guarded_objects_can_be_deleted(on: &Installation) -> Result<()> {
    let (ns, guards) = (on.namespace("case-25")?, on.namespace("case-25-guards")?);
    for name in ["here", "elsewhere", "kept"] {
        on.apply(&config_map(&ns, name, &json!({"a": "1"})))?.success()?;
    }
    let hash = hash_of(&on.get(&ns, "configmap/here")?)?;
    on.pin(&ns, "configmap/here", &hash, &json!({}))?;
    // That of another namespace does not go with it, and holds to the end.
    on.pin(&guards, "configmap/elsewhere", &hash, &json!({"targetNamespace": ns}))?;
    on.pin(&guards, "configmap/kept", &hash, &json!({"targetNamespace": ns, "deletionPolicy": "Deny"}))?;
    on.admin.kubectl(&["delete", "namespace", &ns, "--timeout=60s"])?.success()?;
    gone(on, &guards, &format!("namespace/{ns}"))?;
    on.get(&guards, "dg/elsewhere-guard")?;
    // With the guards in it, too.
    on.admin.kubectl(&["delete", "namespace", &guards, "--timeout=60s"])?.success()?;
    gone(on, "default", &format!("namespace/{guards}"))
}

fn case_26_a_guarded_owner_is_deleted_in_the_foreground_with_its_dependents(on: &Installation) -> Result<()> {
    let ns = on.namespace("case-26")?;
    on.apply(&config_map(&ns, "owner", &json!({"a": "1"})))?.success()?;
    let owner = on.get(&ns, "configmap/owner")?;
    on.apply(&owned_by(&owner, config_map(&ns, "dependent", &json!({"a": "1"}))))?.success()?;
    on.pin_live(&ns, "configmap/owner")?;
    on.pin_live(&ns, "configmap/dependent")?;
    on.admin.kubectl(&["delete", "configmap/owner", "-n", &ns, "--cascade=foreground"])?.success()?;
    gone(on, &ns, "configmap/dependent")?;
    gone(on, &ns, "configmap/owner")
}
