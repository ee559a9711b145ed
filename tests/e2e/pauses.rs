//! What the auditor does while a guard is paused, and when that is over.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::alerting::Alerted;
use crate::auditing::{condition, pinned, wait_for, wait_for_data, wait_for_repair};
use crate::installation::{Installation, LIMIT, config_map, hash_of};

const RESTORE: &str = "driftguard.terrafusion.ai/restore";

/// A moment so many seconds ahead, as RFC 3339.
fn ahead(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn edit(on: &Installation, ns: &str, object: &str, limit: &str) -> Result<driftguard_control_plane::Output> {
    let patch = json!({"data": {"limit": limit}}).to_string();
    on.admin.kubectl(&["patch", object, "-n", ns, "--type=merge", "-p", &patch])
}

/// A ConfigMap `other` that is pinned and may be put back.
fn another(on: &Installation, ns: &str, data: &Value) -> Result<String> {
    on.apply(&config_map(ns, "other", data))?.success()?;
    let hash = hash_of(&on.get(ns, "configmap/other")?)?;
    let guard = on.pin(ns, "configmap/other", &hash, &json!({"autoRemediate": true}))?;
    wait_for(on, ns, &guard, "Drifted", "False", "InSync")?;
    Ok(guard)
}

#[test]
fn case_60_a_suspension_ends_by_itself_and_what_changed_under_it_waits_for_a_person() -> Result<()> {
    let Alerted { on, receiver } = Alerted::shared()?;
    let ns = &on.namespace("pause-suspended")?;
    let data = json!({"limit": "1000"});
    let guard = &pinned(on, ns, &data, &json!({}))?;
    let unchanged = &another(on, ns, &data)?;
    let suspend = json!({"spec": {"suspend": {"until": ahead(20), "reason": "migration"}}}).to_string();
    for guard in [guard, unchanged] {
        on.admin
            .kubectl(&["patch", &format!("dg/{guard}"), "-n", ns, "--type=merge", "-p", &suspend])?
            .success()?;
    }
    let passed = until("the write passes", LIMIT, || {
        let passed = edit(on, ns, "configmap/settings", "2000")?;
        passed.clone().success()?;
        Ok(passed)
    })?;
    ensure!(passed.stderr.contains("Warning"), "{passed}");
    wait_for(on, ns, guard, "Drifted", "True", "SuspendedBySpec")?;
    // Nobody writes anything from here on: the end comes by itself.
    let seen = wait_for(on, ns, guard, "Drifted", "True", "ExceptionEnded")?;
    ensure!(seen["status"]["lastRemediation"].is_null(), "{}", seen["status"]);
    ensure!(on.get(ns, "configmap/settings")?["data"]["limit"] == "2000", "it was put back");
    let said = condition(&seen, "Drifted").context("nothing is said of drift")?;
    ensure!(said["message"].as_str().is_some_and(|said| said.contains("driftguard restore -n ")), "{said}");
    wait_for(on, ns, unchanged, "Suspended", "False", "PauseEnded")?;
    wait_for(on, ns, unchanged, "Drifted", "False", "InSync")?;
    on.refused(ns, "configmap/settings", || edit(on, ns, "configmap/settings", "3000"))?;

    // A person has it put back: one who might as well approve what is there.
    let ask = |value: &str| {
        let asked = format!("{RESTORE}={value}");
        ["annotate".to_owned(), format!("dg/{guard}"), "-n".into(), ns.clone(), asked, "--overwrite".into()]
    };
    let eve = on.plane.user("eve", &["team"])?;
    let role = ["create", "role", "guards", "--verb=get,patch", "--resource=driftguards.terrafusion.ai"];
    on.admin.kubectl(&[&role[..], &["-n", ns]].concat())?.success()?;
    on.admin
        .kubectl(&["create", "rolebinding", "guards", "--role=guards", "--user=eve", "-n", ns])?
        .success()?;
    until("eve may write guards and not their targets", LIMIT, || {
        let refused = eve.kubectl(&ask("by-eve").each_ref().map(String::as_str))?.failure()?;
        ensure!(refused.contains("update configmaps settings"), "{refused}");
        Ok(())
    })?;
    ensure!(on.get(ns, "configmap/settings")?["data"]["limit"] == "2000", "it was put back for eve");
    on.admin.kubectl(&ask("1").each_ref().map(String::as_str))?.success()?;
    wait_for_data(on, ns, "configmap/settings", &data)?;
    let seen = wait_for_repair(on, ns, guard)?;
    ensure!(seen["status"]["heededRestore"] == "1", "{}", seen["status"]);
    until("who asked is told", LIMIT, || {
        let selector = "--field-selector=reason=RestoreAsked";
        let events =
            on.admin.kubectl(&["get", "events.events.k8s.io", "-n", ns, selector, "-o", "json"])?.json()?;
        let note = events["items"][0]["note"].as_str().unwrap_or_default();
        ensure!(note.starts_with("administrator asks"), "{events}");
        Ok(())
    })?;
    ensure!(receiver.reasons(ns, "firing").is_empty(), "somebody was woken by what was allowed");
    Ok(())
}

#[test]
fn case_70_what_changed_under_an_exception_stays_until_it_is_approved_or_undone() -> Result<()> {
    let Alerted { on, .. } = Alerted::shared()?;
    let ns = &on.namespace("pause-excepted")?;
    let data = json!({"limit": "1000"});
    let approved_later = &pinned(on, ns, &data, &json!({}))?;
    let undone_later = &another(on, ns, &data)?;
    on.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": "incident", "namespace": ns},
        "spec": {"guards": {"all": true}, "until": ahead(20), "reason": "page 7"},
    }))?
    .success()?;
    for object in ["configmap/settings", "configmap/other"] {
        until("the write passes", LIMIT, || edit(on, ns, object, "2000")?.success())?;
    }
    for guard in [approved_later, undone_later] {
        let seen = wait_for(on, ns, guard, "Drifted", "True", "ExceptionEnded")?;
        ensure!(seen["status"]["lastRemediation"].is_null(), "{}", seen["status"]);
    }
    for object in ["configmap/settings", "configmap/other"] {
        ensure!(on.get(ns, object)?["data"]["limit"] == "2000", "{object} was put back");
    }
    // The exception itself lists whose targets were changed under it.
    until("the exception reports", LIMIT, || {
        let status = on.get(ns, "dge/incident")?["status"].clone();
        ensure!(status["changed"] == json!(["other-guard", "settings-guard"]), "{status}");
        let said = &status["conditions"][0];
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(
            said["reason"] == "Ended" && message.ends_with("the targets of other-guard, settings-guard"),
            "{said}"
        );
        Ok(())
    })?;
    let current = on.get(ns, &format!("dg/{approved_later}"))?["status"]["currentHash"].clone();
    let approve = json!({"spec": {"expectedHash": current}}).to_string();
    on.admin
        .kubectl(&["patch", &format!("dg/{approved_later}"), "-n", ns, "--type=merge", "-p", &approve])?
        .success()?;
    edit(on, ns, "configmap/other", "1000")?.success()?;
    for guard in [approved_later, undone_later] {
        wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    }
    ensure!(on.get(ns, "configmap/settings")?["data"]["limit"] == "2000", "what was approved was put back");
    Ok(())
}
