//! `driftguard doctor` on a real installation: well, and with each thing broken that it must find.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, User, until};
use serde_json::{Value, json};

use crate::auditing::wait_for;
use crate::installation::{Installation, LIMIT, Via, config_map, deployment, driftguard};

const NS: &str = "doctor";

/// The findings, and the exit code.
fn look(user: &User, more: &[&str]) -> Result<(Value, Option<i32>)> {
    let said = driftguard(user, &[&["doctor", "-o", "json"], more].concat())?;
    let report: Value = serde_json::from_str(&said.stdout).with_context(|| format!("no report: {said}"))?;
    Ok((report, said.code))
}

/// The first finding of a check that is not well, else the first.
fn finding<'a>(report: &'a Value, check: &str) -> Result<&'a Value> {
    let all = report["findings"].as_array().context("no findings")?;
    let of_check = || all.iter().filter(|finding| finding["check"] == check);
    of_check()
        .find(|finding| finding["outcome"] != "ok")
        .or_else(|| of_check().next())
        .with_context(|| format!("{check} is not told: {report}"))
}

/// Looks until a check has this outcome. Gives the finding and the exit code.
fn until_told(user: &User, check: &str, outcome: &str) -> Result<(Value, Option<i32>)> {
    until(&format!("{check} is {outcome}"), LIMIT, || {
        let (report, code) = look(user, &[])?;
        let told = finding(&report, check)?;
        ensure!(told["outcome"] == outcome, "{told}");
        Ok((told.clone(), code))
    })
}

fn says(told: &Value, detail: &str, mend: &str) -> Result<()> {
    let has = |field: &str, part: &str| told[field].as_str().is_some_and(|text| text.contains(part));
    ensure!(has("detail", detail) && has("mend", mend), "{told}");
    Ok(())
}

#[test]
fn it_finds_an_installation_well_and_each_thing_that_is_broken() -> Result<()> {
    let plane = ControlPlane::builder().audited().start()?;
    let on = Installation::on(plane, Via::Url)?;
    let admin = on.plane.admin()?;
    on.namespace(NS)?;
    on.apply(&config_map(NS, "settings", &json!({"limit": "1000"})))?.success()?;
    let guard = on.pin_live(NS, "configmap/settings")?;
    wait_for(&on, NS, &guard, "Drifted", "False", "InSync")?;
    well_and_nothing_is_written(&on, &admin)?;
    forbidden(&on)?;
    a_missing_right(&on, &admin)?;
    broken_glass(&on, &admin)?;

    // Whoever leads would put right what follows.
    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT)?;
    let (told, code) = until_told(&admin, "Webhook reachability", "fail")?;
    ensure!(code == Some(1), "{told}");
    says(&told, "a dry run of ConfigMap/doctor/settings failed", "see to the operator's pods")?;
    altered_and_deleted(&admin)?;
    admin.kubectl(&["delete", "crd", "driftguardexceptions.terrafusion.ai"])?.success()?;
    let (told, _) = until_told(&admin, "CRDs", "fail")?;
    says(&told, "driftguardexceptions.terrafusion.ai does not exist", "driftguard manifests crds |")?;
    Ok(())
}

fn well_and_nothing_is_written(on: &Installation, admin: &User) -> Result<()> {
    let before = on.plane.audit_log_size()?;
    let (report, code) = look(admin, &[])?;
    ensure!(code == Some(0), "{report:#}");
    for check in
        ["CRDs", "Rights of the operator", "Rules against guards", "Certificates", "Webhook reachability"]
    {
        ensure!(finding(&report, check)?["outcome"] == "ok", "{report:#}");
    }
    let reached = finding(&report, "Webhook reachability")?["detail"].as_str().unwrap_or_default();
    ensure!(reached.contains("answered a dry run of ConfigMap/doctor/settings at 127.0.0.1"), "{reached}");
    let hash = on.get(NS, "dg/settings-guard")?["spec"]["expectedHash"].as_str().unwrap_or("none").to_owned();
    ensure!(!report.to_string().contains(&hash), "a hash is told: {report:#}");

    let (report, code) = look(admin, &["--no-dry-run"])?;
    ensure!(code == Some(0) && finding(&report, "Webhook reachability")?["outcome"] == "skip", "{report:#}");
    let text = driftguard(admin, &["doctor"])?.success()?;
    ensure!(text.starts_with("ok    API server"), "{text}");
    ensure!(driftguard(admin, &["doctor", "-o", "yaml"])?.success()?.contains("check: API server"));

    // Neither kept nor on trial, but for questions and dry runs.
    let name = admin.name();
    for event in on.plane.audit_log_since(before)? {
        let by_us = event["user"]["username"] == name;
        let reads = ["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb);
        let uri = event["requestURI"].as_str().unwrap_or_default();
        let asks = uri.contains("/subjectaccessreviews") || uri.contains("/selfsubjectreviews");
        ensure!(!by_us || reads || asks || uri.contains("dryRun=All"), "it wrote: {event}");
    }
    Ok(())
}

fn forbidden(on: &Installation) -> Result<()> {
    let nobody = on.plane.user("doctor-nobody", &[])?;
    let (report, code) = look(&nobody, &[])?;
    ensure!(code == Some(2), "what may not be read is not well: {report:#}");
    ensure!(finding(&report, "Secrets")?["untold"] == true, "{report:#}");
    ensure!(finding(&report, "API server")?["outcome"] == "ok", "{report:#}");
    Ok(())
}

fn a_missing_right(on: &Installation, admin: &User) -> Result<()> {
    on.apply(&deployment(NS, "web"))?.success()?;
    on.pin_live(NS, "deployment/web")?;
    let (told, code) = until_told(admin, "Rights on guarded kinds", "fail")?;
    ensure!(code == Some(1), "{told}");
    says(
        &told,
        "may not list, watch, patch deployments.apps in namespace doctor",
        "--for deployments.apps --in doctor |",
    )?;
    // The mend mends.
    let mend: Vec<&str> = told["mend"]
        .as_str()
        .and_then(|mend| mend.strip_prefix("driftguard ")?.split(" | ").next())
        .context("no mend")?
        .split(' ')
        .collect();
    let rights = driftguard(admin, &mend)?.success()?;
    admin.kubectl_with(&["apply", "-f", "-"], rights)?.success()?;
    until_told(admin, "Rights on guarded kinds", "ok")?;
    // A rule for each guard, whatever its kind: also the count that a Scale changes.
    until_told(admin, "Rules against guards", "ok")?;
    let reviews = "clusterrolebinding/driftguard-operator";
    let binding = admin.kubectl(&["get", reviews, "-o", "json"])?.success()?;
    admin.kubectl(&["delete", reviews])?.success()?;
    let (told, _) = until_told(admin, "Rights of the operator", "fail")?;
    says(&told, "may not list driftguards.terrafusion.ai", "driftguard manifests rbac | kubectl apply -f -")?;
    let mut binding: Value = serde_json::from_str(&binding)?;
    binding["metadata"] = json!({"name": "driftguard-operator", "labels": binding["metadata"]["labels"]});
    on.apply(&binding)?.success()?;
    until_told(admin, "Rights of the operator", "ok").map(drop)
}

fn broken_glass(on: &Installation, admin: &User) -> Result<()> {
    driftguard(admin, &["breakglass", "--for", "1h", "--reason", "incident 7"])?.success()?;
    let (told, code) = until_told(admin, "Broken glass", "fail")?;
    ensure!(code == Some(1), "{told}");
    says(&told, "(incident 7): every write passes", "driftguard breakglass --end")?;
    // What is open by intent is no alteration.
    until_told(admin, "Rules against guards", "ok")?;
    driftguard(admin, &["breakglass", "--end"])?.success()?;
    until_told(admin, "Broken glass", "ok")?;
    on.wait_enforcing(NS, "settings-guard")
}

fn altered_and_deleted(admin: &User) -> Result<()> {
    let gate = "validatingwebhookconfiguration/driftguard";
    let entries = admin.kubectl(&["get", gate, "-o", "json"])?.json()?;
    let of_fail = |all: &Vec<Value>| all.iter().position(|entry| entry["failurePolicy"] == "Fail");
    let at = entries["webhooks"].as_array().and_then(of_fail).context("nothing refuses")?;
    let place = format!("/webhooks/{at}/failurePolicy");
    let open = json!([{"op": "replace", "path": place, "value": "Ignore"}]).to_string();
    admin.kubectl(&["patch", gate, "--type=json", "-p", &open])?.success()?;
    let (told, _) = until_told(admin, "Rules against guards", "fail")?;
    says(&told, "(failurePolicy)", "whoever leads puts it back")?;
    admin.kubectl(&["delete", gate])?.success()?;
    let (told, _) = until_told(admin, "Webhook configurations", "fail")?;
    says(&told, "validatingwebhookconfiguration/driftguard does not exist", "driftguard install")
}
