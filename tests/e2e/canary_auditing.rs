//! What the auditor finds in Secrets, puts back into them and tells of them shows no value and no hash.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftguard::core::hash::ContentHash;
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, free_port, until};
use serde_json::json;

use crate::alerting::Receiver;
use crate::auditing::{wait_for, wait_for_repair, wait_until_long_enforced, write_into_etcd};
use crate::canary::{
    APPROVED, NAMESPACE, Said, approved_hashes, canaries, forms, forms_of_hash, guard_of, in_the_audit_log,
    pinned, raw, read_the_cluster, secret,
};
use crate::installation::{Installation, LIMIT, Via, driftguard};

/// What is written past admission: as long as what is approved, so that it fits where that stands in etcd.
const DRIFTED: &str = "canary-drifting-8e13b60f5a";
/// What a source holds that was never approved.
const LIED: &str = "canary-lied-41b7e2906c";

/// Puts other content into a Secret, past admission.
fn drift(on: &Installation, name: &str) -> Result<()> {
    write_into_etcd(on, &format!("/registry/secrets/{NAMESPACE}/{name}"), APPROVED, DRIFTED)
}

#[test]
fn case_42_what_is_found_in_secrets_and_put_back_stands_in_no_output() -> Result<()> {
    let (alerts, alert_url) = Receiver::start(204)?;
    let (telemetry, telemetry_url) = Receiver::start(503)?;
    let plane = ControlPlane::builder().audited_with_requests().start()?;
    let spool = plane.folder().join("spool");
    std::fs::create_dir_all(&spool)?;
    let flags = [
        "--log-level=trace".to_owned(),
        format!("--alert-url={alert_url}"),
        "--alert-allow-http".to_owned(),
        format!("--telemetry-url={telemetry_url}"),
        "--telemetry-allow-http".to_owned(),
        format!("--spool-dir={}", spool.display()),
        "--audit-interval=30s".to_owned(),
    ];
    let on = &Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    on.namespace(NAMESPACE)?;
    let rights = ["manifests", "rbac", "--for", "secrets", "--in", NAMESPACE, "--remediation"];
    let rights = driftguard(&on.admin, &rights)?.success()?;
    on.admin.kubectl_with(&["apply", "-f", "-"], rights)?.success()?;
    on.apply(&secret("approved", APPROVED))?.success()?;
    on.apply(&secret("lying", LIED))?.success()?;
    let all = [("restored", "approved"), ("deleted", "approved"), ("stuck", "lying")];
    for (name, source) in all {
        on.apply(&secret(name, APPROVED))?.success()?;
        let more = json!({
            "autoRemediate": true, "maxFailuresBeforeAlert": 1,
            "sourceOfTruthRef": {"kind": "secret", "name": source, "namespace": NAMESPACE},
        });
        on.apply(&guard_of(name, name, &more)?)?.success()?;
    }
    for (name, _) in all {
        wait_for(on, NAMESPACE, name, "Drifted", "False", "InSync")?;
        wait_until_long_enforced(on, NAMESPACE, name)?;
    }
    drift(on, "restored")?;
    drift(on, "stuck")?;
    on.admin.kubectl(&["delete", "secret/deleted", "-n", NAMESPACE])?.success()?;
    wait_for_repair(on, NAMESPACE, "restored")?;
    wait_for_repair(on, NAMESPACE, "deleted")?;
    for name in ["restored", "deleted"] {
        let stored = on.get(NAMESPACE, &format!("secret/{name}"))?;
        ensure!(stored["data"]["password"] == STANDARD.encode(APPROVED), "{name} is not as approved");
    }
    wait_for(on, NAMESPACE, "stuck", "SourceAvailable", "False", "NoVerifiedSource")?;
    until("both receivers were told", LIMIT, || {
        let of = |name: &str| alerts.bodies().iter().any(|body| body["data"]["guard"]["name"] == name);
        ensure!(of("restored") && of("deleted") && of("stuck"), "{:?}", alerts.bodies());
        ensure!(!telemetry.bodies().is_empty(), "no telemetry");
        Ok(())
    })?;

    let mut said = Said::default();
    read_the_cluster(on, &mut said)?;
    report(on, &mut said)?;
    in_the_audit_log(on, &mut said)?;
    let mut canaries = canaries(on)?;
    on.serve.signal(Signal::Terminate)?;
    on.serve.wait(LIMIT)?;
    said.note("the last records and logs", on.serve.log());
    for (who, receiver) in [("an alert", &alerts), ("telemetry", &telemetry)] {
        said.0.extend(receiver.bodies().iter().map(|body| (who.to_owned(), body.to_string())));
    }
    let mut waiting = 0;
    let mut folders = vec![spool];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            waiting += 1;
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            said.note(path.file_name().and_then(|name| name.to_str()).context("a name")?, text);
        }
    }
    ensure!(waiting > 0, "nothing waits in the spool, so that nothing of it was looked at");
    for (what, value) in [("a drifted value", DRIFTED), ("a value of a source", LIED)] {
        canaries.extend(forms(what, value.as_bytes()));
        canaries.extend(forms(what, &raw(value)));
        canaries.extend(forms_of_hash(&format!("the hash of {what}"), ContentHash::of(value.as_bytes()))?);
        canaries.extend(forms_of_hash("the hash of content never approved", pinned("", value)?)?);
    }
    // Of the two values under one key only the last was written past admission.
    let mut half = secret("x", APPROVED);
    half["data"]["raw"] = json!(STANDARD.encode(raw(DRIFTED)));
    canaries.extend(forms_of_hash("the hash of drifted content", hash(&half)?)?);
    canaries.retain(|(_, form)| form.len() >= 8);
    said.holds_none_of(&canaries)?;
    let outside: Vec<_> = said.0.into_iter().filter(|(by, _)| !by.contains("guards")).collect();
    Said(outside).holds_none_of(&approved_hashes()?)
}

/// What `audit` tells of all this, in every way.
fn report(on: &Installation, said: &mut Said) -> Result<()> {
    for format in ["json", "yaml", "table", "wide", "csv", "junit", "sarif", "html", "openreports"] {
        let ran = driftguard(&on.admin, &["audit", "-A", "-o", format])?;
        ensure!(ran.code == Some(1) && ran.stdout.contains("stuck"), "{ran}");
        if format == "json" {
            let report: serde_json::Value = serde_json::from_str(&ran.stdout)?;
            let guards = report["guards"].as_array().context("a report has guards")?;
            let stuck = guards.iter().find(|entry| entry["guard"]["name"] == "stuck").context("stuck")?;
            ensure!(stuck["state"] == "Drifted" && stuck["reason"] == "BypassedAdmission", "{stuck}");
            ensure!(stuck["also"] == json!(["SourceDown"]) && stuck["source"]["state"] == "Down", "{stuck}");
            ensure!(stuck["lastRemediation"]["result"] == "NoVerifiedSource", "{stuck}");
        }
        said.note(&format!("the report as {format}"), ran.to_string());
    }
    Ok(())
}

fn hash(secret: &serde_json::Value) -> Result<ContentHash> {
    let scope =
        driftguard::core::scope::Scope::new("", "Secret", driftguard::core::paths::PathFilter::everything());
    Ok(driftguard::core::canonical::hash_object(&serde_json::to_vec(secret)?, &scope)?)
}
