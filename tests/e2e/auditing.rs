//! The auditor on a real API server: drift that passed no admission is found, put back from verified sources, and
//! said.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use driftguard_control_plane::{Etcd, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, gama_config, hash_of};

/// Rights to write targets, as a person would give them.
pub(crate) const REMEDIATION: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/remediation/remediation.yaml");

/// The installation that these tests share, which may put back what it guards.
pub(crate) fn auditing() -> Result<&'static Installation> {
    // Once: of two who make the same object at a time, one is refused.
    static GIVEN: OnceLock<Result<(), String>> = OnceLock::new();
    let installation = Installation::shared(Via::Url)?;
    let give = || installation.admin.kubectl(&["apply", "-f", REMEDIATION])?.success().map(drop);
    let given = GIVEN.get_or_init(|| give().map_err(|error| format!("{error:#}")));
    given.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(installation)
}

/// Changes stored bytes past every API server, to others of the same length.
pub(crate) fn write_into_etcd(on: &Installation, key: &str, from: &str, to: &str) -> Result<()> {
    write_into(on.plane.etcd(), key, from, to)
}

/// The same on any etcd.
pub(crate) fn write_into(etcd: &Etcd, key: &str, from: &str, to: &str) -> Result<()> {
    ensure!(from.len() == to.len(), "the stored form holds lengths");
    let stored = etcd.get(key)?.with_context(|| format!("nothing is stored at {key}"))?;
    // The last one: what was last applied stands in an annotation before it.
    let at = stored.windows(from.len()).rposition(|window| window == from.as_bytes());
    let at = at.with_context(|| format!("{from} is not stored at {key}"))?;
    let mut changed = stored;
    changed[at..at + to.len()].copy_from_slice(to.as_bytes());
    etcd.put(key, &changed)
}

pub(crate) fn condition(guard: &Value, of_type: &str) -> Option<Value> {
    let all = guard["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == of_type).cloned()
}

/// Waits until a condition of a guard has this status and reason. Gives the guard.
pub(crate) fn wait_for(
    on: &Installation,
    namespace: &str,
    guard: &str,
    of_type: &str,
    status: &str,
    reason: &str,
) -> Result<Value> {
    until(&format!("{guard} says {of_type}={status} {reason}"), LIMIT, || {
        let seen = on.get(namespace, &format!("dg/{guard}"))?;
        let said = condition(&seen, of_type);
        let is = said.as_ref().is_some_and(|said| said["status"] == status && said["reason"] == reason);
        ensure!(is, "{said:?}\n{}", on.serve.log_tail());
        Ok(seen)
    })
}

/// Waits until an object's data is this.
pub(crate) fn wait_for_data(on: &Installation, namespace: &str, object: &str, data: &Value) -> Result<Value> {
    until(&format!("{object} is put back"), LIMIT, || {
        let seen = on.get(namespace, object)?;
        ensure!(seen["data"] == *data, "it holds {}\n{}", seen["data"], on.serve.log_tail());
        Ok(seen)
    })
}

/// Waits until a guard has been enforced for so long that a change cannot have come before the proof: only
/// then does drift count as having bypassed admission.
pub(crate) fn wait_until_long_enforced(on: &Installation, namespace: &str, guard: &str) -> Result<()> {
    until("enforcement has been proved for a while", LIMIT, || {
        let seen = on.get(namespace, &format!("dg/{guard}"))?;
        let said = condition(&seen, "Enforcing").context("it does not say whether it is enforced")?;
        let since: jiff::Timestamp = said["lastTransitionTime"].as_str().unwrap_or_default().parse()?;
        ensure!(jiff::Timestamp::now() > since + Duration::from_secs(15), "since {since}");
        Ok(())
    })
}

/// Waits until a guard says that its target was put back.
pub(crate) fn wait_for_repair(on: &Installation, namespace: &str, guard: &str) -> Result<Value> {
    until("the repair is said", LIMIT, || {
        let seen = on.get(namespace, &format!("dg/{guard}"))?;
        let status = &seen["status"];
        ensure!(status["lastRemediation"]["result"] == "Restored", "{status}\n{}", on.serve.log_tail());
        ensure!(condition(&seen, "Drifted").is_some_and(|said| said["status"] == "False"), "{status}");
        Ok(seen)
    })
}

/// A ConfigMap `settings` that is pinned, with its approved content in the ConfigMap `approved`.
pub(crate) fn pinned(on: &Installation, namespace: &str, data: &Value, more: &Value) -> Result<String> {
    on.apply(&config_map(namespace, "settings", data))?.success()?;
    on.apply(&config_map(namespace, "approved", data))?.success()?;
    let hash = hash_of(&on.get(namespace, "configmap/settings")?)?;
    let mut spec = json!({
        "autoRemediate": true,
        "sourceOfTruthRef": {"kind": "configmap", "name": "approved"},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let guard = on.pin(namespace, "configmap/settings", &hash, &spec)?;
    wait_for(on, namespace, &guard, "Drifted", "False", "InSync")?;
    Ok(guard)
}

#[test]
fn drift_in_etcd_is_found_and_put_back_from_a_verified_source() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-etcd")?;
    let data = json!({"limit": "1000", "note": "as approved"});
    let guard = pinned(on, &namespace, &data, &json!({}))?;
    let before = on.get(&namespace, "configmap/settings")?;
    write_into_etcd(on, &format!("/registry/configmaps/{namespace}/settings"), "1000", "9999")?;
    let after = wait_for_data(on, &namespace, "configmap/settings", &data)?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "made anew instead of patched");
    let managers = on.admin.kubectl(&[
        "get",
        "configmap/settings",
        "-n",
        &namespace,
        "--show-managed-fields",
        "-o",
        "jsonpath={.metadata.managedFields[*].manager}",
    ])?;
    ensure!(
        managers.success()?.split(' ').any(|manager| manager == "driftguard"),
        "not written as driftguard"
    );
    let seen = wait_for_repair(on, &namespace, &guard)?;
    let status = &seen["status"];
    ensure!(
        status["lastRemediation"]["source"].as_str().is_some_and(|from| from.contains("approved")),
        "{status}"
    );
    ensure!(status["lastDrift"]["paths"] == json!(["/data/limit"]), "{status}");
    ensure!(status["lastDrift"]["transactionId"] == status["lastRemediation"]["transactionId"], "{status}");
    ensure!(condition(&seen, "SourceAvailable").is_some_and(|said| said["status"] == "True"), "{status}");
    Ok(())
}

#[test]
fn a_deleted_target_is_made_again() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-deleted")?;
    let data = json!({"limit": "1"});
    let guard = pinned(on, &namespace, &data, &json!({}))?;
    on.admin.kubectl(&["delete", "configmap/settings", "-n", &namespace])?.success()?;
    wait_for_data(on, &namespace, "configmap/settings", &data)?;
    wait_for_repair(on, &namespace, &guard).map(drop)
}

#[test]
fn a_replacement_by_force_ends_with_the_approved_content() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-forced")?;
    let data = json!({"limit": "1"});
    pinned(on, &namespace, &data, &json!({}))?;
    let other = config_map(&namespace, "settings", &json!({"limit": "2"}));
    let forced = on.admin.kubectl_with(&["replace", "--force", "-f", "-"], other.to_string())?;
    ensure!(!forced.succeeded(), "other content was stored: {forced}");
    wait_for_data(on, &namespace, "configmap/settings", &data)?;
    Ok(())
}

#[test]
fn an_immutable_target_is_deleted_and_made_again() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-immutable")?;
    let data = json!({"limit": "1000"});
    let mut settings = config_map(&namespace, "settings", &data);
    settings["immutable"] = json!(true);
    settings["metadata"]["labels"] = json!({"team": "a"});
    on.apply(&settings)?.success()?;
    on.apply(&config_map(&namespace, "approved", &data))?.success()?;
    let hash = hash_of(&on.get(&namespace, "configmap/settings")?)?;
    let spec = json!({"autoRemediate": true, "sourceOfTruthRef": {"kind": "configmap", "name": "approved"}});
    let guard = on.pin(&namespace, "configmap/settings", &hash, &spec)?;
    write_into_etcd(on, &format!("/registry/configmaps/{namespace}/settings"), "1000", "9999")?;
    wait_for_repair(on, &namespace, &guard)?;
    let after = wait_for_data(on, &namespace, "configmap/settings", &data)?;
    ensure!(after["immutable"] == true && after["metadata"]["labels"]["team"] == "a", "{after}");
    Ok(())
}

#[test]
fn content_that_is_not_approved_is_never_written() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-liar")?;
    let data = json!({"limit": "1000"});
    on.apply(&config_map(&namespace, "approved", &json!({"limit": "6666"})))?.success()?;
    // Nothing was seen live that could be put back: the target drifted before it was guarded.
    on.apply(&config_map(&namespace, "settings", &json!({"limit": "9999"})))?.success()?;
    let hash = hash_of(&config_map(&namespace, "settings", &data))?;
    let spec = json!({"autoRemediate": true, "sourceOfTruthRef": {"kind": "configmap", "name": "approved"}});
    let guard = on.pin(&namespace, "configmap/settings", &hash, &spec)?;
    let seen = wait_for(on, &namespace, &guard, "SourceAvailable", "False", "NoVerifiedSource")?;
    ensure!(seen["status"]["sources"][0]["result"] == "Mismatch", "{}", seen["status"]);
    ensure!(on.get(&namespace, "configmap/settings")?["data"]["limit"] == "9999");
    Ok(())
}

#[test]
fn what_the_paths_leave_out_stays_as_it_is() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-paths")?;
    let data = json!({"limit": "1000", "counter": "1"});
    on.apply(&config_map(&namespace, "settings", &data))?.success()?;
    on.apply(&config_map(&namespace, "approved", &json!({"limit": "1000"})))?.success()?;
    let hash = hash_of(&config_map(&namespace, "settings", &json!({"limit": "1000"})))?;
    let spec = json!({
        "autoRemediate": true, "ignorePaths": ["/data/counter"],
        "sourceOfTruthRef": {"kind": "configmap", "name": "approved"},
    });
    let guard = on.pin(&namespace, "configmap/settings", &hash, &spec)?;
    let counted = [
        "patch",
        "configmap/settings",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        r#"{"data":{"counter":"7"}}"#,
    ];
    on.admin.kubectl(&counted)?.success()?;
    write_into_etcd(on, &format!("/registry/configmaps/{namespace}/settings"), "1000", "9999")?;
    wait_for_repair(on, &namespace, &guard)?;
    wait_for_data(on, &namespace, "configmap/settings", &json!({"limit": "1000", "counter": "7"}))?;
    Ok(())
}

#[test]
fn a_guard_that_does_not_remediate_says_so_and_writes_nothing() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-watching")?;
    let data = json!({"limit": "1000"});
    let guard = pinned(on, &namespace, &data, &json!({"autoRemediate": false}))?;
    let key = format!("/registry/configmaps/{namespace}/settings");
    wait_until_long_enforced(on, &namespace, &guard)?;
    write_into_etcd(on, &key, "1000", "9999")?;
    let seen = wait_for(on, &namespace, &guard, "Drifted", "True", "BypassedAdmission")?;
    ensure!(seen["status"]["hashMatch"] == false, "{}", seen["status"]);
    ensure!(on.get(&namespace, "configmap/settings")?["data"]["limit"] == "9999");
    write_into_etcd(on, &key, "9999", "1000")?;
    wait_for(on, &namespace, &guard, "Drifted", "False", "InSync")?;
    Ok(())
}

#[test]
fn a_custom_resource_is_put_back_to_the_last_content_that_was_seen() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-custom")?;
    let parameters = json!({"rate": "1000", "nested": {"a": [1, 2.5, null]}});
    on.apply(&gama_config(&namespace, "model", &parameters))?.success()?;
    let hash = hash_of(&on.get(&namespace, "gamaconfig/model")?)?;
    let guard = on.pin(&namespace, "gamaconfig/model", &hash, &json!({"autoRemediate": true}))?;
    wait_for(on, &namespace, &guard, "Drifted", "False", "InSync")?;
    write_into_etcd(on, &format!("/registry/terrafusion.ai/gamaconfigs/{namespace}/model"), "1000", "9999")?;
    wait_for_repair(on, &namespace, &guard)?;
    until("it is put back", LIMIT, || {
        let seen = on.get(&namespace, "gamaconfig/model")?;
        ensure!(seen["spec"]["parameters"] == parameters, "{}\n{}", seen["spec"], on.serve.log_tail());
        Ok(())
    })
}

#[test]
fn what_changed_under_an_exception_is_not_put_back_when_it_ends() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-exception")?;
    let data = json!({"limit": "1"});
    let guard = pinned(on, &namespace, &data, &json!({}))?;
    let until_then = jiff::Timestamp::now() + Duration::from_secs(3600);
    on.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": "incident", "namespace": namespace},
        "spec": {"guards": {"names": [guard]}, "until": until_then.to_string(), "reason": "page 7"},
    }))?
    .success()?;
    let edit =
        ["patch", "configmap/settings", "-n", &namespace, "--type=merge", "-p", r#"{"data":{"limit":"2"}}"#];
    until("the write passes", LIMIT, || on.admin.kubectl(&edit)?.success())?;
    wait_for(on, &namespace, &guard, "Drifted", "True", "Excepted")?;
    on.admin.kubectl(&["delete", "driftguardexception/incident", "-n", &namespace])?.success()?;
    wait_for(on, &namespace, &guard, "Drifted", "True", "ExceptionEnded")?;
    ensure!(on.get(&namespace, "configmap/settings")?["data"]["limit"] == "2", "it was put back");
    Ok(())
}

#[test]
fn approved_content_that_is_not_applied_yet_is_no_drift() -> Result<()> {
    let on = auditing()?;
    let namespace = on.namespace("audit-awaiting")?;
    let guard = pinned(on, &namespace, &json!({"limit": "1"}), &json!({}))?;
    let next = json!({"limit": "2"});
    let hash = hash_of(&config_map(&namespace, "settings", &next))?;
    let approve = format!(r#"{{"spec":{{"expectedHash":"{hash}"}}}}"#);
    on.admin
        .kubectl(&["patch", &format!("dg/{guard}"), "-n", &namespace, "--type=merge", "-p", &approve])?
        .success()?;
    let seen = wait_for(on, &namespace, &guard, "Drifted", "False", "AwaitingApply")?;
    ensure!(seen["status"]["consecutiveFailures"].as_i64().unwrap_or_default() == 0, "{}", seen["status"]);
    on.apply(&config_map(&namespace, "settings", &next))?.success()?;
    wait_for(on, &namespace, &guard, "Drifted", "False", "InSync")?;
    Ok(())
}
