//! What happened while nobody answered is found when somebody does, and said to be what it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, until};
use serde_json::{Value, json};

use crate::auditing::{REMEDIATION, condition, pinned, wait_for, wait_until_long_enforced, write_into_etcd};
use crate::installation::{Installation, LIMIT, Via, config_map, driftguard, hash_of};
use crate::recovery::UNANSWERED;

/// How long it is watched that nothing is written.
const QUIET: Duration = Duration::from_secs(5);
const SETTINGS: &str = "configmap/settings";

fn installed() -> Result<Installation> {
    let on = Installation::on(ControlPlane::builder().start()?, Via::Url)?;
    on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    Ok(on)
}

fn edit(on: &Installation, namespace: &str, object: &str) -> Result<driftguard_control_plane::Output> {
    let patch = r#"{"data":{"limit":"7777"}}"#;
    on.admin.kubectl(&["patch", object, "-n", namespace, "--type=merge", "-p", patch])
}

/// The drifts of a guard that were recorded, by reason.
fn drifts(on: &Installation, guard: &str) -> Vec<String> {
    let log = on.serve.log();
    let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_guard = records.filter(|line| line["kind"] == "drift" && line["guard"]["name"] == guard);
    of_guard.map(|line| line["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Another ConfigMap that is pinned, never put back.
fn pin_also(on: &Installation, namespace: &str, name: &str, more: &Value) -> Result<String> {
    let made = config_map(namespace, name, &json!({"limit": "1000"}));
    on.apply(&made)?.success()?;
    let guard = on.admin.kubectl_with(&["apply", "-f", "-"], {
        let mut spec =
            json!({"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash_of(&made)?});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
                "metadata": {"name": format!("{name}-guard"), "namespace": namespace}, "spec": spec})
        .to_string()
    })?;
    guard.success()?;
    let guard = format!("{name}-guard");
    wait_for(on, namespace, &guard, "Drifted", "False", "InSync")?;
    Ok(guard)
}

fn end(on: &Installation) -> Result<()> {
    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT).map(drop)
}

#[test]
fn cases_36_and_69_what_changed_while_every_replica_was_dead_is_found_and_put_back_when_somebody_may()
-> Result<()> {
    let mut on = installed()?;
    let ns = on.namespace("gap-dead")?;
    let guard = pinned(&on, &ns, &json!({"limit": "1000"}), &json!({}))?;
    let opened = pin_also(&on, &ns, "opened", &json!({"autoRemediate": true}))?;
    let open = [
        (pin_also(&on, &ns, "warned", &json!({"enforcement": "Warn"}))?, "configmap/warned"),
        (pin_also(&on, &ns, "audited", &json!({"enforcement": "Audit"}))?, "configmap/audited"),
    ];
    on.wait_enforcing(&ns, &opened)?;
    wait_until_long_enforced(&on, &ns, &guard)?;
    wait_until_long_enforced(&on, &ns, &opened)?;
    end(&on)?;

    // Nothing is in the way of what is only watched; what is guarded is refused, and changed past admission.
    for (_, object) in &open {
        edit(&on, &ns, object)?.success()?;
    }
    let said = edit(&on, &ns, SETTINGS)?.failure()?;
    ensure!(said.contains(UNANSWERED), "{said}");
    write_into_etcd(&on, &format!("/registry/configmaps/{ns}/settings"), "1000", "9999")?;
    let drifted = on.get(&ns, SETTINGS)?;

    // A cautious start: it is found and told, and nothing is written.
    on.restart(&["--remediation=off"])?;
    let seen = wait_for(&on, &ns, &guard, "Drifted", "True", "BypassedAdmission")?;
    let message = condition(&seen, "Drifted").context("no condition")?["message"].clone();
    ensure!(message.as_str().is_some_and(|said| said.contains("remediation")), "{message}");
    for (guard, _) in &open {
        wait_for(&on, &ns, guard, "Drifted", "True", "ContentDiffers")?;
    }
    until("it is alerted", LIMIT, || {
        let seen = on.get(&ns, &format!("dg/{guard}"))?;
        ensure!(seen["status"]["alerted"] == true, "{}", seen["status"]);
        let events = ["get", "events.events.k8s.io", "-n", &ns, "-o", "json"];
        let events = on.admin.kubectl(&events)?.success()?;
        ensure!(events.contains("AlertBypassedAdmission"), "no Event tells it");
        Ok(())
    })?;
    let since = Instant::now();
    until("some time has passed", LIMIT, || {
        ensure!(on.get(&ns, SETTINGS)? == drifted, "it was written");
        ensure!(since.elapsed() >= QUIET, "{:?}", since.elapsed());
        Ok(())
    })?;
    let metrics = on.health("/metrics")?;
    let attempts = |line: &&str| line.starts_with("driftguard_remediations_total") && !line.ends_with(" 0");
    ensure!(!metrics.lines().any(|line| attempts(&line)), "{metrics}");

    // Dead again, somebody breaks the glass and changes what was refused.
    end(&on)?;
    driftguard(&on.admin, &["breakglass", "--for", "10m", "--reason", "incident 8"])?.success()?;
    until("the edit passes", LIMIT, || edit(&on, &ns, "configmap/opened")?.success())?;
    on.restart(&[])?;
    // What is open goes on, and is put back at last.
    until("the approved content is back", LIMIT, || {
        let now = on.get(&ns, SETTINGS)?;
        ensure!(now["data"]["limit"] == "1000", "{}\n{}", now["data"], on.serve.log_tail());
        Ok(())
    })?;
    until("what was changed by broken glass is found", LIMIT, || {
        let found = drifts(&on, &opened);
        ensure!(!found.is_empty(), "not yet\n{}", on.serve.log_tail());
        Ok(())
    })?;
    println!("changed by broken glass: {:?}", drifts(&on, &opened));
    driftguard(&on.admin, &["breakglass", "--end"])?.success()?;
    on.wait_enforcing(&ns, &guard)
}

#[test]
fn case_47_what_was_written_while_the_rules_were_gone_is_found_to_have_bypassed_admission() -> Result<()> {
    let on = installed()?;
    let ns = on.namespace("gap-rules")?;
    let guard = pinned(&on, &ns, &json!({"limit": "1000"}), &json!({}))?;
    let altered = pin_also(&on, &ns, "altered", &json!({"autoRemediate": true}))?;
    on.wait_enforcing(&ns, &altered)?;
    for guard in [&guard, &altered] {
        wait_until_long_enforced(&on, &ns, guard)?;
    }
    // Halted, it repairs nothing, so that there is a gap.
    on.serve.signal(Signal::Stop)?;
    let halted = Instant::now();
    on.admin.kubectl(&["delete", "validatingwebhookconfiguration", "driftguard"])?.success()?;
    for object in [SETTINGS, "configmap/altered"] {
        until("the edit passes", LIMIT, || edit(&on, &ns, object)?.success())?;
    }
    on.serve.signal(Signal::Continue)?;
    println!("halted for {:?}", halted.elapsed());
    for (guard, object) in [(&guard, SETTINGS), (&altered, "configmap/altered")] {
        until("the drift is recorded", LIMIT, || {
            let found = drifts(&on, guard);
            ensure!(found == ["BypassedAdmission"], "{found:?}\n{}", on.serve.log_tail());
            Ok(())
        })?;
        until("the approved content is back", LIMIT, || {
            let now = on.get(&ns, object)?;
            ensure!(now["data"]["limit"] == "1000", "{}\n{}", now["data"], on.serve.log_tail());
            Ok(())
        })?;
    }
    on.wait_enforcing(&ns, &guard)?;
    on.refused(&ns, SETTINGS, || edit(&on, &ns, SETTINGS)).map(drop)
}

/// What metrics count, summed over all labels.
fn counted(on: &Installation, name: &str) -> Result<u64> {
    let metrics = on.health("/metrics")?;
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
    let of_name = metrics.lines().filter(|line| line.starts_with(name));
    Ok(of_name.filter_map(count).sum())
}

#[test]
fn case_37_an_api_server_that_restarts_under_load_is_no_drift_and_brings_no_storm() -> Result<()> {
    let on = installed()?;
    let ns = on.namespace("gap-restart")?;
    let guard = pinned(&on, &ns, &json!({"limit": "1000"}), &json!({}))?;
    let mut names = Vec::new();
    for number in 0..8 {
        let name = format!("loaded-{number}");
        let loaded = pin_also(&on, &ns, &name, &json!({"autoRemediate": true}))?;
        names.push((name, loaded));
    }
    // A write before that is nobody's to refuse.
    for (_, loaded) in &names {
        on.wait_enforcing(&ns, loaded)?;
    }
    let (requests, drifts) = ("driftguard_watch_requests_total", "driftguard_drifts_total");
    let (before, found_before) = (counted(&on, requests)?, counted(&on, drifts)?);
    let is_over = AtomicBool::new(false);
    let passed = std::thread::scope(|scope| {
        let writers: Vec<_> = names
            .chunks(4)
            .map(|names| {
                let (on, ns, is_over) = (&on, &ns, &is_over);
                scope.spawn(move || -> Result<usize> {
                    let mut passed = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        for (name, _) in names {
                            let object = format!("configmap/{name}");
                            let label = format!("round={passed}");
                            let labelled = ["label", "--overwrite", &object, "-n", ns, &label];
                            passed += usize::from(on.admin.kubectl(&labelled)?.succeeded());
                            ensure!(!edit(on, ns, &object)?.succeeded(), "what is not approved was stored");
                        }
                    }
                    Ok(passed)
                })
            })
            .collect();
        let restarted = on.plane.api_server().kill().and_then(|()| on.plane.api_server().start_again());
        let settled = restarted.and_then(|()| on.wait_enforcing(&ns, &guard));
        is_over.store(true, Ordering::Relaxed);
        let passed = writers.into_iter().map(|one| one.join().unwrap_or(Ok(0))).sum::<Result<usize>>();
        settled.and(passed)
    })?;
    ensure!(passed > 0, "nobody wrote anything");
    // Watches live again: the next drift is found, and put back.
    write_into_etcd(&on, &format!("/registry/configmaps/{ns}/settings"), "1000", "9999")?;
    let drifted = Instant::now();
    until("the approved content is back", LIMIT, || {
        let now = on.get(&ns, SETTINGS)?;
        ensure!(now["data"]["limit"] == "1000", "{}\n{}", now["data"], on.serve.log_tail());
        Ok(())
    })?;
    let (after, found) = (counted(&on, requests)? - before, counted(&on, drifts)? - found_before);
    println!("{passed} writes passed; put back after {:?}; {after} requests of watches", drifted.elapsed());
    ensure!(found == 1, "{found} drifts, of which one was made\n{}", on.serve.log_tail());
    ensure!(after < 300, "{after} requests for one restart of an API server");
    Ok(())
}
