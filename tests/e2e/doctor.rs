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
    paused(&on, &admin)?;
    forbidden(&on)?;
    guards_alone(&on, &admin)?;
    a_missing_right(&on, &admin)?;
    broken_glass(&on, &admin)?;

    // Whoever leads would put right what follows.
    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT)?;
    let (told, code) = until_told(&admin, "Webhook reachability", "fail")?;
    ensure!(code == Some(1), "{told}");
    says(&told, "a dry run of ConfigMap/doctor/settings failed", "see to the operator's pods")?;
    nothing_is_well_by_old_words(&on, &admin)?;
    altered_and_deleted(&admin)?;
    a_crd_of_the_same_fields(&admin)?;
    admin.kubectl(&["delete", "crd", "driftguardexceptions.terrafusion.ai"])?.success()?;
    let (told, _) = until_told(&admin, "CRDs", "fail")?;
    says(&told, "driftguardexceptions.terrafusion.ai does not exist", "driftguard manifests crds |")?;
    Ok(())
}

fn well_and_nothing_is_written(on: &Installation, admin: &User) -> Result<()> {
    let before = on.plane.audit_log_size()?;
    let (report, code) = look(admin, &[])?;
    ensure!(code == Some(0), "{report:#}");
    for check in [
        "CRDs",
        "Replicas",
        "Leader",
        "Secrets",
        "Rights of the operator",
        "Rules against guards",
        "Certificates",
        "Webhook reachability",
        "Guards enforced",
        "Authors of guards",
        "Guards in conflict",
        "Drift detection",
    ] {
        ensure!(finding(&report, check)?["outcome"] == "ok", "{check}: {report:#}");
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

fn paused(on: &Installation, admin: &User) -> Result<()> {
    let guard = ["settings-guard", "-n", NS];
    driftguard(admin, &[&["suspend"], &guard[..], &["--for", "1h", "--reason", "incident 7"]].concat())?
        .success()?;
    until("the pause is told", LIMIT, || {
        let (report, code) = look(admin, &[])?;
        let told = finding(&report, "Guards enforced")?;
        let detail = told["detail"].as_str().unwrap_or_default();
        ensure!(told["outcome"] == "ok" && detail.contains("1 of them let every write pass"), "{told}");
        ensure!(code == Some(0), "{report:#}");
        Ok(())
    })?;
    driftguard(admin, &[&["resume"], &guard[..]].concat())?.success()?;
    on.wait_enforcing(NS, "settings-guard")
}

fn forbidden(on: &Installation) -> Result<()> {
    let nobody = on.plane.user("doctor-nobody", &[])?;
    let (report, code) = look(&nobody, &[])?;
    ensure!(code == Some(2), "what may not be read is not well: {report:#}");
    ensure!(finding(&report, "Secrets")?["untold"] == true, "{report:#}");
    ensure!(finding(&report, "API server")?["outcome"] == "ok", "{report:#}");
    for check in ["Operator pods", "Rules against guards", "Guards enforced", "Guards in conflict"] {
        ensure!(finding(&report, check)?["untold"] == true, "{check}: {report:#}");
    }
    says(finding(&report, "Rights on guarded kinds")?, "forbidden", "who may list driftguards.terrafusion.ai")
}

/// Whoever may read guards alone is told what guards alone tell.
fn guards_alone(on: &Installation, admin: &User) -> Result<()> {
    let reader = on.plane.user("doctor-reader", &[])?;
    let read = ["--verb=get,list", "--resource=driftguards.terrafusion.ai"];
    admin.kubectl(&[&["create", "clusterrole", "doctor-reader"], &read[..]].concat())?.success()?;
    let bind = ["--clusterrole=doctor-reader", &format!("--user={}", reader.name())];
    admin.kubectl(&[&["create", "clusterrolebinding", "doctor-reader"], &bind[..]].concat())?.success()?;
    until("guards may be read", LIMIT, || {
        let (report, code) = look(&reader, &["--no-dry-run"])?;
        ensure!(finding(&report, "Guards in conflict")?["outcome"] == "ok", "{report:#}");
        ensure!(code == Some(2), "{report:#}");
        for check in ["Rules against guards", "Guards enforced", "Authors of guards", "Drift detection"] {
            ensure!(finding(&report, check)?["untold"] == true, "{check}: {report:#}");
        }
        Ok(())
    })
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
    says(
        &told,
        "may not get driftguards.terrafusion.ai, list driftguards.terrafusion.ai",
        "driftguard manifests rbac | kubectl apply -f -",
    )?;
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

/// All replicas are dead, as if for long or by a clock that is ahead: what statuses said is not told as well.
fn nothing_is_well_by_old_words(on: &Installation, admin: &User) -> Result<()> {
    // Without the gate nobody refuses this one.
    let gate = "validatingwebhookconfiguration/driftguard";
    let mut registered = admin.kubectl(&["get", gate, "-o", "json"])?.json()?;
    admin.kubectl(&["delete", gate])?.success()?;
    on.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "rival", "namespace": NS},
        "spec": {"targetKind": "ConfigMap", "targetName": "settings", "expectedHash": "0".repeat(64)},
    }))?
    .success()?;
    for (renewed, detail, mend) in [
        ("2026-01-01T00:00:00.000000Z", "has not renewed its Lease for", "see to the operator's pods"),
        ("2126-01-01T00:00:00.000000Z", "ahead of the API server's clock", "NTP"),
    ] {
        let leases =
            admin.kubectl(&["get", "leases", "-n", "terrafusion-system", "-o", "name"])?.success()?;
        let patch = json!({"spec": {"renewTime": renewed}}).to_string();
        let patch = ["patch", "-n", "terrafusion-system", "--type=merge", "-p", &patch];
        admin.kubectl(&[&patch[..], &leases.split_whitespace().collect::<Vec<_>>()].concat())?.success()?;
        let (report, code) = look(admin, &["--no-dry-run"])?;
        ensure!(code == Some(1), "{report:#}");
        says(finding(&report, "Leader")?, detail, mend)?;
        ensure!(finding(&report, "Replicas")?["outcome"] == "fail", "{report:#}");
        for check in ["Guards enforced", "Authors of guards", "Drift detection", "Remediation"] {
            ensure!(finding(&report, check)?["outcome"] != "ok", "{check}: {report:#}");
        }
        says(finding(&report, "Guards in conflict")?, "doctor/rival, doctor/settings-guard pin", "explain")?;
    }
    admin.kubectl(&["delete", "dg/rival", "-n", NS])?.success()?;
    let metadata = &registered["metadata"];
    registered["metadata"] = json!({
        "name": "driftguard", "labels": metadata["labels"], "annotations": metadata["annotations"],
    });
    admin.kubectl_with(&["create", "-f", "-"], registered.to_string())?.success()?;
    let (report, _) = look(admin, &["--no-dry-run"])?;
    // Nothing is wrong in them but that nobody keeps them.
    for check in ["Guards enforced", "Authors of guards", "Drift detection"] {
        ensure!(finding(&report, check)?["untold"] == true, "{check}: {report:#}");
    }
    Ok(())
}

fn a_crd_of_the_same_fields(admin: &User) -> Result<()> {
    let older = json!([{"op": "remove", "path": "/spec/versions/0/selectableFields"}]).to_string();
    let crd = "crd/driftguards.terrafusion.ai";
    admin.kubectl(&["patch", crd, "--type=json", "-p", &older])?.success()?;
    let (told, _) = until_told(admin, "CRDs", "fail")?;
    says(&told, "the API server cannot find objects by .spec.targetName", "driftguard manifests crds |")?;
    let crds = driftguard(admin, &["manifests", "crds"])?.success()?;
    admin.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], crds)?.success()?;
    until_told(admin, "CRDs", "ok").map(drop)
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
