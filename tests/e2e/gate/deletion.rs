//! Deletion of guarded objects, one by one and all at once.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::installation::{Installation, config_map, hash_of};

fn made(on: &Installation, ns: &str, name: &str, policy: &str) -> Result<String> {
    on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
    let object = format!("configmap/{name}");
    let hash = hash_of(&on.get(ns, &object)?)?;
    on.pin(ns, &object, &hash, &json!({"deletionPolicy": policy}))?;
    Ok(object)
}

pub(super) fn case_20_a_finalizer_comes_and_goes_on_a_drifted_target(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    on.apply(&config_map(ns, "drifted", &json!({"a": "1"})))?.success()?;
    on.pin(ns, "configmap/drifted", &"a".repeat(64), &json!({}))?;
    for finalizers in [json!(["example.com/hold"]), Value::Null] {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        on.admin
            .kubectl(&["patch", "configmap/drifted", "-n", ns, "--type=merge", "-p", &patch])?
            .success()?;
    }
    Ok(())
}

pub(super) fn case_22_deletion_follows_the_policy(on: &Installation, ns: &str) -> Result<()> {
    let (free, kept) = (made(on, ns, "free", "Allow")?, made(on, ns, "kept", "Deny")?);
    let delete = |object: &str, more: &[&str]| {
        on.admin.kubectl(&[&["delete", object, "-n", ns, "--wait=false"], more].concat())
    };
    let said = on.refused(ns, &kept, || delete(&kept, &[]))?;
    ensure!(
        said.contains("it may not be deleted; to delete it, set the guard's deletionPolicy to Allow first"),
        "{said}"
    );
    on.refused(ns, &kept, || delete(&kept, &["--force", "--grace-period=0"]))?;
    on.refused(ns, &kept, || delete(&kept, &["--dry-run=server"]))?;
    on.refused(ns, &kept, || delete(&kept, &["--cascade=foreground"]))?;
    let deleted = delete(&free, &[])?;
    ensure!(deleted.stderr.contains("its deletion counts as drift"), "{deleted}");
    deleted.success()?;
    on.admin.kubectl(&["get", &free, "-n", ns])?.failure()?;
    // The way that the message names.
    let patch = r#"{"spec":{"deletionPolicy":"Allow"}}"#;
    on.admin.kubectl(&["patch", "dg/kept-guard", "-n", ns, "--type=merge", "-p", patch])?.success()?;
    driftguard_control_plane::until("it may be deleted", crate::installation::LIMIT, || {
        delete(&kept, &[])?.success()
    })?;
    Ok(())
}

pub(super) fn case_23_delete_all_takes_what_may_be_deleted(on: &Installation, ns: &str) -> Result<()> {
    let kept = made(on, ns, "kept", "Deny")?;
    made(on, ns, "free", "Allow")?;
    on.apply(&config_map(ns, "unguarded", &json!({"a": "1"})))?.success()?;
    on.refused(ns, &kept, || on.admin.kubectl(&["delete", "configmap", "--all", "-n", ns, "--wait=false"]))?;
    // One request for all of them, as the namespace controller and clients make it.
    let collection = format!("/api/v1/namespaces/{ns}/configmaps");
    on.refused(ns, &kept, || on.admin.kubectl(&["delete", "--raw", &collection]))?;
    on.admin.kubectl(&["get", "configmap/free", "-n", ns])?.failure()?;
    Ok(())
}

pub(super) fn a_terminating_namespace_takes_along_what_may_not_be_deleted(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    let going = on.namespace(&format!("{}-going", ns.get(..30).unwrap_or(ns)))?;
    let kept = made(on, &going, "kept", "Deny")?;
    let collection = format!("/api/v1/namespaces/{going}/configmaps");
    on.refused(&going, &kept, || on.admin.kubectl(&["delete", "--raw", &collection]))?;
    on.admin.kubectl(&["delete", "namespace", &going, "--wait=false"])?.success()?;
    on.admin.kubectl(&["delete", "--raw", &collection])?.success()?;
    on.admin.kubectl(&["get", &kept, "-n", &going])?.failure()?;
    Ok(())
}
