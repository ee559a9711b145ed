//! Reports of `openreports.io` beside a DriftGuard that runs, with the published definition.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, free_port, until};
use serde_json::{Value, json};

use crate::auditing::write_into_etcd;
use crate::installation::{Installation, LIMIT, Via, config_map, driftguard, hash_of};

/// The Go module that carries the definition.
const MODULE: &str = "github.com/openreports/reports-api@v0.2.1";

/// The published definition of Reports.
fn definition() -> Result<PathBuf> {
    let ran = Command::new("go").args(["mod", "download", "-json", MODULE]).output().context("running go")?;
    ensure!(ran.status.success(), "go cannot fetch {MODULE}: {}", String::from_utf8_lossy(&ran.stdout));
    let told: Value = serde_json::from_slice(&ran.stdout)?;
    let folder = told["Dir"].as_str().context("go does not say where the module lies")?;
    Ok(PathBuf::from(folder).join("config/crd/openreports.io_reports.yaml"))
}

/// Waits until the report counts so many guards that pass and fail.
fn wait_for(on: &Installation, namespace: &str, pass: u64, fail: u64) -> Result<Value> {
    until(&format!("the report says {pass} pass, {fail} fail"), LIMIT, || {
        let seen = on.get(namespace, "reports.openreports.io/driftguard");
        let seen = seen.with_context(|| on.serve.log_tail())?;
        let summary = &seen["summary"];
        let is = summary["pass"] == pass && summary["fail"] == fail && summary["error"] == 0;
        ensure!(is, "{summary}\n{}", on.serve.log_tail());
        Ok(seen)
    })
}

fn wait_for_log(on: &Installation, words: &str) -> Result<()> {
    until(&format!("it is told that {words}"), LIMIT, || {
        // Told once, and soon far above the end.
        ensure!(on.serve.log().contains(words), "{}", on.serve.log_tail());
        Ok(())
    })
}

/// How many reports were written.
fn writes(on: &Installation) -> Result<u64> {
    let metrics = on.health("/metrics")?;
    let name = "driftguard_openreports_writes_total{result=\"written\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).context("writes are counted")
}

#[test]
fn reports_follow_what_guards_say_and_stay_as_they_were_written() -> Result<()> {
    let flags = ["--openreports", "--openreports-again=1s", "--log-level=info"].map(str::to_owned);
    let on = &Installation::start_on(ControlPlane::builder().start()?, free_port()?, Via::Url, &flags)?;
    // Rights come first: without them the API server does not say whether it knows the kind.
    wait_for_log(on, "may not be listed and watched")?;
    let rights = driftguard(&on.admin, &["manifests", "openreports"])?.success()?;
    on.admin.kubectl_with(&["apply", "-f", "-"], rights)?.success()?;
    wait_for_log(on, "reports.openreports.io is not installed")?;
    let definition = definition()?;
    on.admin.kubectl(&["apply", "-f", definition.to_str().context("a path")?])?.success()?;

    let ns = on.namespace("openreports")?;
    let mut guards = Vec::new();
    for name in ["settings", "limits"] {
        on.apply(&config_map(&ns, name, &json!({"limit": "1000"})))?.success()?;
        let hash = hash_of(&on.get(&ns, &format!("configmap/{name}"))?)?;
        guards.push(on.pin(&ns, &format!("configmap/{name}"), &hash, &json!({}))?);
    }
    let first = wait_for(on, &ns, 2, 0)?;
    let owner = &first["metadata"]["ownerReferences"][0];
    let crd = on.admin.kubectl(&["get", "crd", "driftguards.terrafusion.ai", "-o", "json"])?.json()?;
    ensure!(owner["uid"] == crd["metadata"]["uid"], "{owner}");
    ensure!(first["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "driftguard", "{first}");

    // Drift shows, by path, and is gone once it is.
    let key = format!("/registry/configmaps/{ns}/settings");
    write_into_etcd(on, &key, "1000", "9999")?;
    let drifted = wait_for(on, &ns, 1, 1)?;
    let result = &drifted["results"][0];
    ensure!(result["result"] == "fail" && result["policy"] == guards[0], "the worst goes first: {result}");
    ensure!(result["properties"]["changedPaths"] == "/data/limit", "{result}");
    ensure!(result["resources"][0]["name"] == "settings", "{result}");
    write_into_etcd(on, &key, "9999", "1000")?;
    wait_for(on, &ns, 2, 0)?;

    // What somebody edits or deletes is put right.
    let edit =
        json!({"summary": {"pass": 99}, "metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
    let edit = edit.to_string();
    let patch = ["patch", "reports.openreports.io", "driftguard", "-n", &ns, "--type=merge", "-p", &edit];
    on.admin.kubectl(&patch)?.success()?;
    let righted = wait_for(on, &ns, 2, 0)?;
    ensure!(righted["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "driftguard", "{righted}");
    on.admin.kubectl(&["delete", "reports.openreports.io", "driftguard", "-n", &ns])?.success()?;
    wait_for(on, &ns, 2, 0)?;

    // The same mapping is valid to the letter: no field that the definition does not know.
    let audited = driftguard(&on.admin, &["audit", "-n", &ns, "-o", "openreports"])?.success()?;
    let strictly = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    on.admin.kubectl_with(&strictly, audited)?.success()?;

    // Guards that go are pruned, and with the last one the report.
    on.admin.kubectl(&["delete", "dg", &guards[0], "-n", &ns])?.success()?;
    let left = wait_for(on, &ns, 1, 0)?;
    ensure!(left["results"].as_array().is_some_and(|results| results.len() == 1), "{left}");
    // Six for sure: made, drifted, back, edited, deleted, one guard less.
    let before = writes(on)?;
    ensure!(before >= 6, "{before} writes");
    // Nothing is written while the guards say the same.
    on.admin.kubectl(&["annotate", "dg", &guards[1], "-n", &ns, "example.com/news=none"])?.success()?;
    others_are_left_alone(on, before)?;
    on.admin.kubectl(&["delete", "dg", &guards[1], "-n", &ns])?.success()?;
    until("the report is pruned", LIMIT, || {
        let found =
            on.admin.kubectl(&["get", "reports.openreports.io", "-n", &ns, "-o", "name"])?.success()?;
        ensure!(found.trim().is_empty(), "{found}\n{}", on.serve.log_tail());
        Ok(())
    })?;
    Ok(())
}

/// The value of the gauge.
fn kept(on: &Installation, value: &str) -> Result<()> {
    let line = format!("driftguard_openreports_kept {value}");
    until(&line, LIMIT, || {
        let metrics = on.health("/metrics")?;
        ensure!(metrics.lines().any(|found| found == line), "{}", on.serve.log_tail());
        Ok(())
    })
}

/// Somebody else's report of the same name stays as it is, until it is deleted; nor is anything else written
/// meanwhile.
fn others_are_left_alone(on: &Installation, writes_before: u64) -> Result<()> {
    let ns = on.namespace("openreports-theirs")?;
    kept(on, "1")?;
    let summary = json!({"pass": 7, "fail": 0, "warn": 0, "error": 0, "skip": 0});
    let theirs = json!({
        "apiVersion": "openreports.io/v1alpha1",
        "kind": "Report",
        "metadata": {"name": "driftguard", "namespace": ns},
        "source": "theirs",
        "summary": summary,
    });
    on.apply(&theirs)?.success()?;
    on.apply(&config_map(&ns, "settings", &json!({"limit": "1000"})))?.success()?;
    let hash = hash_of(&on.get(&ns, "configmap/settings")?)?;
    let guard = on.pin(&ns, "configmap/settings", &hash, &json!({}))?;
    wait_for_log(on, "somebody else's report of openreports.io stands where ours would")?;
    kept(on, "0")?;
    until("the guard is in sync", LIMIT, || {
        let found = on.get(&ns, &format!("dg/{guard}"))?;
        ensure!(found["status"]["hashMatch"] == true, "{found}");
        Ok(())
    })?;
    let found = on.get(&ns, "reports.openreports.io/driftguard")?;
    ensure!(found["source"] == "theirs" && found["summary"] == summary, "{found}");
    ensure!(found["metadata"]["ownerReferences"].is_null(), "{found}");
    ensure!(writes(on)? == writes_before, "{} writes", writes(on)?);
    on.admin.kubectl(&["delete", "reports.openreports.io", "driftguard", "-n", &ns])?.success()?;
    wait_for(on, &ns, 1, 0)?;
    kept(on, "1")
}
