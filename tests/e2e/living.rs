//! `install` and `uninstall` while a `serve` of the installation runs.

use anyhow::{Result, ensure};
use driftguard_control_plane::{Version, until};
use serde_json::json;

use crate::installation::{Installation, LIMIT, Via, config_map, driftguard};

const ENTRIES: [&str; 5] =
    ["get", "validatingwebhookconfiguration", "driftguard", "-o", "jsonpath={.webhooks[*].name}"];

#[test]
fn installing_again_never_opens_the_gate() -> Result<()> {
    let installation = Installation::start(Via::Url, Version::Older)?;
    let namespace = installation.namespace("guarded")?;
    installation.apply(&config_map(&namespace, "settings", &json!({"a": "1"})))?.success()?;
    installation.pin_live(&namespace, "configmap/settings")?;
    let before = installation.admin.kubectl(&ENTRIES)?.success()?;
    let said = driftguard(&installation.admin, &["install", "--dev", "--force-conflicts"])?.success()?;
    ensure!(
        said.contains("validatingwebhookconfiguration.admissionregistration.k8s.io/driftguard unchanged"),
        "{said}"
    );
    let edit =
        ["patch", "configmap/settings", "-n", &namespace, "--type=merge", "-p", r#"{"data":{"a":"2"}}"#];
    installation.refused(&namespace, "configmap/settings", || installation.admin.kubectl(&edit))?;
    ensure!(installation.admin.kubectl(&ENTRIES)?.success()? == before);
    Ok(())
}

#[test]
fn the_rights_that_install_gives_are_enough() -> Result<()> {
    let installation = Installation::shared(Via::Url)?;
    let namespace = installation.namespace("rights")?;
    installation.apply(&config_map(&namespace, "settings", &json!({"a": "1"})))?.success()?;
    let guard = installation.pin_live(&namespace, "configmap/settings")?;
    let edit =
        ["patch", "configmap/settings", "-n", &namespace, "--type=merge", "-p", r#"{"data":{"a":"2"}}"#];
    installation.refused(&namespace, "configmap/settings", || installation.admin.kubectl(&edit))?;
    until("the refusal is told as an Event", LIMIT, || {
        let regarding = format!("--field-selector=regarding.name={guard}");
        let events = ["get", "events.events.k8s.io", "-n", &namespace, &regarding, "-o", "name"];
        let told = installation.admin.kubectl(&events)?.success()?;
        ensure!(!told.is_empty(), "no Event regarding {guard}");
        Ok(())
    })?;
    let log = installation.serve.log();
    // Other tests of this installation guard kinds without giving rights to watch them, which is said.
    let of_others = |line: &str| line.contains("cannot be watched") && !line.contains("configmaps");
    let refused =
        log.lines().find(|line| line.contains("cannot ") && line.contains("forbidden") && !of_others(line));
    ensure!(refused.is_none(), "a right is missing: {refused:?}");
    Ok(())
}

#[test]
fn uninstall_wins_against_a_replica_that_repairs_its_registration() -> Result<()> {
    let installation = Installation::start(Via::Service, Version::Newest)?;
    let admin = &installation.admin;
    let namespace = installation.namespace("guarded")?;
    installation.apply(&config_map(&namespace, "settings", &json!({"a": "1"})))?.success()?;
    installation.pin_live(&namespace, "configmap/settings")?;
    // It repairs what is deleted.
    admin.kubectl(&["delete", "validatingwebhookconfiguration", "driftguard"])?.success()?;
    until("the registration is repaired", LIMIT, || {
        let names = admin.kubectl(&ENTRIES)?.success()?;
        ensure!(!names.is_empty(), "no entries yet");
        Ok(())
    })?;
    // A Deployment stands for pods in the cluster; the process has just the rights that pods have.
    let deployment = admin.kubectl(&[
        "create",
        "deployment",
        "driftguard-operator",
        "--image=none",
        "-n",
        "terrafusion-system",
    ])?;
    deployment.success()?;
    let label = [
        "label",
        "deployment/driftguard-operator",
        "app.kubernetes.io/part-of=driftguard",
        "-n",
        "terrafusion-system",
    ];
    admin.kubectl(&label)?.success()?;
    driftguard(admin, &["uninstall"])?.success()?;
    // The replica still runs, and has tried by the time that it has lost the lease.
    until("the replica has noticed", LIMIT, || {
        let log = installation.serve.log();
        ensure!(log.contains("Forbidden") || log.contains("forbidden"), "it has not been refused yet");
        Ok(())
    })?;
    let left = admin.kubectl(&[
        "get",
        "validatingwebhookconfigurations,mutatingwebhookconfigurations",
        "-o",
        "name",
    ])?;
    ensure!(left.clone().success()?.is_empty(), "registered again: {left}");
    let edit =
        ["patch", "configmap/settings", "-n", &namespace, "--type=merge", "-p", r#"{"data":{"a":"2"}}"#];
    admin.kubectl(&edit)?.success()?;
    Ok(())
}
