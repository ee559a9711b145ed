//! DriftGuard and whole namespaces are removed while every replica is dead and much is guarded: nothing is left
//! behind that nobody answers, and nobody waits for us.

use anyhow::{Result, ensure};
use driftguard_control_plane::{ControlPlane, until};
use serde_json::json;

use crate::fleet::{Fleet, SYSTEM, Target};
use crate::install::ours;
use crate::installation::{LIMIT, Via, config_map, driftguard, unchanged};
use crate::recovery::{GUARDED, UNANSWERED, guard_all};

/// Removes DriftGuard as soon as that is possible: outside the cluster a killed holder of the Lease looks like
/// one that lives for some seconds.
fn uninstall(fleet: &Fleet) -> Result<()> {
    until("it is uninstalled", LIMIT, || {
        let said = driftguard(&fleet.admin, &["uninstall"])?;
        // Whatever it does not want to do yet, it must not have done by half.
        ensure!(said.succeeded() || said.stderr.contains("when it was killed, wait "), "{said}");
        said.success().map(drop)
    })
}

fn webhooks(fleet: &Fleet) -> Result<String> {
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
    fleet.admin.kubectl(&["get", kinds, "-o", "name"])?.success()
}

fn delete_namespace(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.admin.kubectl(&["delete", "namespace", name, "--timeout=60s"])?.success().map(drop)
}

#[test]
fn uninstall_after_every_replica_was_killed_leaves_nothing_that_is_in_the_way() -> Result<()> {
    let mut fleet = Fleet::on(ControlPlane::builder().start()?, Via::Service)?;
    guard_all(&fleet)?;
    fleet.kill()?;
    fleet.refused(&GUARDED[0], UNANSWERED)?;
    uninstall(&fleet)?;
    ensure!(webhooks(&fleet)?.is_empty(), "{}", webhooks(&fleet)?);
    let left = ours(&fleet.admin)?;
    ensure!(left == "secret/driftguard-signing", "left behind: {left}");
    for target in &GUARDED {
        fleet.edit(target)?.success()?;
    }
    let guard = GUARDED[0].guard();
    let loosen = r#"{"spec":{"enforcement":"Audit"}}"#;
    fleet
        .admin
        .kubectl(&["patch", "dg", &guard, "-n", "trading", "--type=merge", "-p", loosen])?
        .success()?;
    ensure!(
        driftguard(&fleet.admin, &["uninstall"])?.success()?.is_empty(),
        "there was nothing left to delete"
    );

    // Guards that stayed are enforced again after an install: what changed meanwhile stays as it is.
    fleet.install()?;
    fleet.start()?;
    fleet.wait_enforcing(SYSTEM, &GUARDED[4].guard())?;
    let more = config_map(SYSTEM, "market-settings", &json!({"a": "3"})).to_string();
    let said = unchanged(&fleet.admin, SYSTEM, "configmap/market-settings", || {
        fleet.admin.kubectl_with(&["apply", "-f", "-"], more)?.failure()
    })?;
    ensure!(said.contains("DriftGuard terrafusion-system/"), "{said}");

    fleet.kill()?;
    uninstall(&fleet)?;
    for _ in 0..2 {
        driftguard(&fleet.admin, &["uninstall", "--purge", "--yes"])?.success()?;
        ensure!(ours(&fleet.admin)?.is_empty(), "left behind: {}", ours(&fleet.admin)?);
    }
    let gone = ["wait", "--for=delete", "crd/driftguards.terrafusion.ai", "--timeout=60s"];
    fleet.admin.kubectl(&gone)?.success().map(drop)
}

#[test]
fn pods_come_back_and_namespaces_go_while_every_replica_is_dead() -> Result<()> {
    let mut fleet = Fleet::on(ControlPlane::builder().workloads().start()?, Via::Url)?;
    guard_all(&fleet)?;
    let namespace = |name| Target {
        namespace: "",
        kind: "namespace",
        name,
        edit: r#"{"metadata":{"labels":{"a":"b"}}}"#,
    };
    for name in ["trading", "billing"] {
        fleet.pin("billing", &namespace(name), &json!({}))?;
    }
    fleet.namespace("kept")?;
    fleet.apply(&config_map("kept", "kept", &json!({"a": "1"})))?;
    let kept = Target { namespace: "kept", kind: "configmap", name: "kept", edit: r#"{"data":{"a":"2"}}"# };
    fleet.pin("kept", &kept, &json!({"deletionPolicy": "Deny"}))?;
    fleet.kill()?;
    fleet.refused(&GUARDED[0], UNANSWERED)?;

    // What a person runs in a cluster: it is up to controllers to make the pods.
    driftguard(&fleet.admin, &["install"])?.success()?;
    until("the pods are there", LIMIT, || {
        let pods = ["get", "pods", "-n", SYSTEM, "-l", "app=driftguard-operator", "-o", "name"];
        let pods = fleet.admin.kubectl(&pods)?.success()?;
        ensure!(pods.lines().count() == 2, "{pods:?}");
        Ok(())
    })?;

    // With guards in it, on what is in it, and on itself; with guards in it on what is elsewhere.
    delete_namespace(&fleet, "billing")?;
    delete_namespace(&fleet, SYSTEM)?;
    fleet.refused(&GUARDED[0], UNANSWERED)?;
    // Only what may not be deleted waits for somebody who can tell that its namespace goes.
    fleet.admin.kubectl(&["delete", "namespace", "kept", "--wait=false"])?.success()?;
    until("the namespace says what it waits for", LIMIT, || {
        let status =
            fleet.admin.kubectl(&["get", "namespace", "kept", "-o", "jsonpath={.status}"])?.success()?;
        ensure!(status.contains(UNANSWERED), "{status}");
        Ok(())
    })?;
    driftguard(&fleet.admin, &["breakglass", "--for", "10m", "--reason", "a namespace goes"])?.success()?;
    fleet.admin.kubectl(&["wait", "--for=delete", "namespace/kept", "--timeout=60s"])?.success()?;
    driftguard(&fleet.admin, &["breakglass", "--end"])?.success()?;

    // It comes back into a cluster that lost its namespace, with the guards that are left.
    fleet.install()?;
    fleet.start()?;
    fleet.wait_enforcing("trading", &GUARDED[0].guard())?;
    fleet.refused(&GUARDED[0], "DriftGuard trading/")?;

    // And out of one that lost it once more.
    fleet.kill()?;
    delete_namespace(&fleet, SYSTEM)?;
    driftguard(&fleet.admin, &["uninstall"])?.success()?;
    ensure!(webhooks(&fleet)?.is_empty(), "{}", webhooks(&fleet)?);
    fleet.edit(&GUARDED[0])?.success()?;
    delete_namespace(&fleet, "trading")
}
