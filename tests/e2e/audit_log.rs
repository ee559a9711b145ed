//! The API server's audit log names our record of each write that was not simply allowed.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, free_port, until};
use serde_json::{Value, json};

use crate::auditing::wait_for;
use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

const NAMESPACE: &str = "audit-log";

/// What stands under a key of ours in an entry of the log, whichever webhook it was.
fn note<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    let all = entry["annotations"].as_object()?;
    let of = format!("terrafusion.ai/{key}");
    all.iter().find(|(name, _)| name.ends_with(&of)).and_then(|(_, value)| value.as_str())
}

/// The entries about an object that hold a verdict of ours.
fn entries(on: &Installation, resource: &str, name: &str) -> Result<Vec<Value>> {
    let is_it = |entry: &Value| {
        let object = &entry["objectRef"];
        object["resource"] == resource && object["name"] == name && object["namespace"] == NAMESPACE
    };
    let log = on.plane.audit_log()?;
    Ok(log.into_iter().filter(|entry| is_it(entry) && note(entry, "verdict").is_some()).collect())
}

/// The record of this kind about a guard.
fn record(on: &Installation, guard: &str, kind: &str) -> Result<Value> {
    until(&format!("a {kind} of {guard} is recorded"), LIMIT, || {
        let log = on.serve.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it = |line: &Value| line["kind"] == kind && line["guard"]["name"] == guard;
        lines.find(is_it).with_context(|| on.serve.log_tail())
    })
}

#[test]
fn the_audit_log_of_the_api_server_names_the_record_of_a_write() -> Result<()> {
    let plane = ControlPlane::builder().audited().start()?;
    let on = &Installation::start_on(plane, free_port()?, Via::Url, &["--log-level=info".to_owned()])?;
    on.namespace(NAMESPACE)?;
    let data = json!({"price": "100"});
    for (name, enforcement) in [("denied", "Deny"), ("warned", "Warn"), ("rewritten", "Rewrite")] {
        let object = config_map(NAMESPACE, name, &data);
        on.apply(&object)?.success()?;
        on.apply(&json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash_of(&object)?,
                "enforcement": enforcement},
        }))?
        .success()?;
    }
    on.wait_enforcing(NAMESPACE, "denied")?;
    on.wait_enforcing(NAMESPACE, "rewritten")?;
    wait_for(on, NAMESPACE, "warned", "Enforcing", "False", "DetectOnly")?;
    let patch = |name: &str, price: &str, more: &[&str]| {
        let patch = format!(r#"{{"data":{{"price":"{price}"}}}}"#);
        let object = format!("configmap/{name}");
        let arguments = ["patch", &object, "-n", NAMESPACE, "--type=merge", "-p", &patch];
        on.admin.kubectl(&[&arguments, more].concat())
    };
    patch("denied", "101", &["--dry-run=server"])?.failure()?;
    patch("denied", "102", &[])?.failure()?;
    patch("warned", "103", &[])?.success()?;
    patch("rewritten", "104", &[])?.success()?;

    for (name, kind, verdict) in [("denied", "denial", "deny"), ("warned", "observation", "warn")] {
        let record = record(on, name, kind)?;
        let entries = entries(on, "configmaps", name)?;
        let id = record["transactionId"].as_str().context("no id")?;
        let entry = entries.iter().find(|entry| note(entry, "transaction-id") == Some(id));
        let entry = entry.with_context(|| format!("{id} is not in {entries:#?}"))?;
        ensure!(entry["user"]["username"] == record["user"]["name"], "{entry}\n{record}");
        ensure!(note(entry, "verdict") == Some(verdict), "{entry}");
        ensure!(note(entry, "reason") == Some("HashMismatch"), "{entry}");
        ensure!(note(entry, "guard") == Some(format!("{NAMESPACE}/{name}").as_str()), "{entry}");
    }
    let dry = entries(on, "configmaps", "denied")?;
    let is_dry = |entry: &&Value| entry["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun=All"));
    let dry = dry.iter().find(is_dry).context("the dry run is not noted")?;
    ensure!(note(dry, "verdict") == Some("deny") && note(dry, "transaction-id").is_none(), "{dry}");
    let rewritten = entries(on, "configmaps", "rewritten")?;
    ensure!(rewritten.iter().any(|entry| note(entry, "verdict") == Some("rewrite")), "{rewritten:#?}");
    // Whoever approves is found there as well.
    let made = record(on, "denied", "guardChange")?;
    let id = made["transactionId"].as_str();
    let entries = entries(on, "driftguards", "denied")?;
    ensure!(entries.iter().any(|entry| note(entry, "transaction-id") == id), "{id:?}: {entries:#?}");
    // What is simply allowed is noted nowhere.
    let made = on.plane.audit_log()?;
    let is_made = |entry: &Value| {
        entry["verb"] == "create"
            && entry["objectRef"]["resource"] == "configmaps"
            && note(entry, "verdict").is_some()
    };
    ensure!(!made.iter().any(is_made), "a plain allow is noted");
    Ok(())
}
