//! What is no longer wanted is not put back: a guard that is edited or suspended while a source is being asked, and
//! targets whose namespace goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use driftguard_control_plane::{ControlPlane, free_port, until};
use serde_json::{Value, json};

use crate::alerting::Receiver;
use crate::auditing::{REMEDIATION, condition, wait_for, write_into_etcd};
use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};
use crate::one_actor::Source;

/// How many attempts ended so, as the metrics say.
fn given_up(on: &Installation) -> Result<u64> {
    let metrics = on.health("/metrics")?;
    let name = r#"driftguard_remediations_total{result="given_up"} "#;
    let count = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    Ok(count.unwrap_or_default())
}

#[test]
fn what_is_fetched_for_a_guard_that_is_edited_or_suspended_meanwhile_is_not_written() -> Result<()> {
    let (source, url) = Source::start()?;
    let ns = "given-up";
    let flags = [
        format!("--service-url={ns}/slow={url}"),
        "--allow-source-address=127.0.0.0/8".to_owned(),
        "--log-level=info".to_owned(),
    ];
    let plane = ControlPlane::builder().start()?;
    let on = &Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    on.namespace(ns)?;
    let approved = json!({"limit": "1000"});
    let spec = json!({"autoRemediate": true, "maxFailuresBeforeAlert": 100,
        "sourceOfTruthRef": {"kind": "service", "name": "slow", "path": "/settings"}});
    for name in ["edited", "suspended"] {
        let object = config_map(ns, name, &approved);
        on.admin.kubectl_with(&["create", "-f", "-"], object.to_string())?.success()?;
        on.pin(ns, &format!("configmap/{name}"), &hash_of(&object)?, &spec)?;
    }
    for guard in ["edited-guard", "suspended-guard"] {
        wait_for(on, ns, guard, "SourceAvailable", "True", "Verified")?;
    }
    source.hold(true);
    let drifted = |name: &str| -> Result<Value> {
        write_into_etcd(on, &format!("/registry/configmaps/{ns}/{name}"), "1000", "9999")?;
        on.get(ns, &format!("configmap/{name}"))
    };
    let before = [drifted("edited")?, drifted("suspended")?];
    until("the source is asked for both", LIMIT, || {
        ensure!(source.held() >= 2, "{} requests\n{}", source.held(), on.serve.log_tail());
        Ok(())
    })?;
    let next = hash_of(&config_map(ns, "edited", &json!({"limit": "2000"})))?;
    let ends = jiff::Timestamp::now() + Duration::from_secs(3600);
    let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for (guard, spec) in [
        ("edited-guard", json!({"expectedHash": next})),
        ("suspended-guard", json!({"suspend": {"until": ends, "reason": "incident 7"}})),
    ] {
        let patch = json!({"spec": spec}).to_string();
        let guard = format!("dg/{guard}");
        on.admin.kubectl(&["patch", &guard, "-n", ns, "--type=merge", "-p", &patch])?.success()?;
    }
    // Both are known before anything that was fetched arrives.
    until("the edit is acted upon", LIMIT, || {
        ensure!(source.held() >= 3, "{} requests\n{}", source.held(), on.serve.log_tail());
        Ok(())
    })?;
    until("the pause is known", LIMIT, || {
        let guard = on.get(ns, "dg/suspended-guard")?;
        let said = condition(&guard, "Drifted").map(|said| said["message"].to_string()).unwrap_or_default();
        ensure!(said.contains("nothing is put back before"), "{said}\n{}", on.serve.log_tail());
        Ok(())
    })?;
    source.hold(false);
    let guard = wait_for(on, ns, "edited-guard", "SourceAvailable", "False", "NoVerifiedSource")?;
    ensure!(guard["status"]["sources"][0]["result"] == "Mismatch", "{}", guard["status"]);
    until("the attempt under the pause is given up", LIMIT, || {
        ensure!(given_up(on)? > 0, "{}", on.serve.log_tail());
        Ok(())
    })?;
    for before in before {
        let name = before["metadata"]["name"].as_str().unwrap_or_default();
        let after = on.get(ns, &format!("configmap/{name}"))?;
        ensure!(after == before, "{name} was written:\n{before}\n{after}");
    }
    let log = on.serve.log();
    ensure!(!log.contains(r#""reason":"Restored""#), "{log}");
    Ok(())
}

#[test]
fn nothing_is_put_back_into_a_namespace_that_goes_and_nobody_is_woken_for_it() -> Result<()> {
    const GOING: &str = "going";
    let (receiver, url) = Receiver::start(204)?;
    let plane = ControlPlane::builder().controller_manager().audited().start()?;
    let flags =
        [format!("--alert-url={url}"), "--alert-allow-http".to_owned(), "--log-level=info".to_owned()];
    let on = &Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    let keeping = on.namespace("keeping")?;
    on.namespace(GOING)?;
    // What keeps the namespace for as long as somebody likes.
    let mut blocker = config_map(GOING, "blocker", &json!({}));
    blocker["metadata"]["finalizers"] = json!(["example.com/waits"]);
    on.apply(&blocker)?.success()?;
    // More than may drift at once without being an incident, whose guards stay or go along.
    let targets = ["a", "b", "c", "d", "e", "f", "g"];
    let mut all = Vec::new();
    for name in targets {
        for (name, at) in [(name.to_owned(), keeping.as_str()), (format!("own-{name}"), GOING)] {
            let object = config_map(GOING, &name, &json!({"limit": "1000"}));
            all.push(json!({
                "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
                "metadata": {"name": name, "namespace": at},
                "spec": {"targetKind": "ConfigMap", "targetName": name, "targetNamespace": GOING,
                    "expectedHash": hash_of(&object)?, "autoRemediate": true, "maxFailuresBeforeAlert": 1},
            }));
            all.insert(0, object);
        }
    }
    on.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}))?.success()?;
    for name in targets {
        for (name, at) in [(name.to_owned(), keeping.as_str()), (format!("own-{name}"), GOING)] {
            on.wait_enforcing(at, &name)?;
            wait_for(on, at, &name, "Drifted", "False", "InSync")?;
        }
    }
    on.admin.kubectl(&["delete", "namespace", GOING, "--wait=false"])?.success()?;
    for name in targets {
        let guard = wait_for(on, &keeping, name, "Drifted", "True", "Missing")?;
        let said = condition(&guard, "Drifted").unwrap_or_default();
        ensure!(said["message"].to_string().contains("its namespace is being deleted"), "{said}");
        ensure!(guard["status"]["consecutiveFailures"] == 0, "{}", guard["status"]);
    }
    until("all else is gone", LIMIT, || {
        let left = ["get", "configmaps,driftguards", "-n", GOING, "-o", "name"];
        let left = on.admin.kubectl(&left)?.success()?;
        ensure!(left.trim() == "configmap/blocker", "{left}");
        Ok(())
    })?;
    let is_ours = |entry: &Value| entry["user"]["username"].to_string().contains("driftguard-operator");
    let is_written = |entry: &Value| {
        entry["objectRef"]["namespace"] == GOING
            && entry["objectRef"]["resource"] == "configmaps"
            && ["create", "update", "patch", "delete"].iter().any(|verb| entry["verb"] == *verb)
    };
    let log = on.plane.audit_log()?;
    // Proofs of enforcement change nothing.
    let is_dry = |entry: &Value| entry["requestURI"].to_string().contains("dryRun=All");
    let ours: Vec<&Value> =
        log.iter().filter(|entry| is_ours(entry) && is_written(entry) && !is_dry(entry)).collect();
    ensure!(ours.is_empty(), "{ours:#?}");
    // They are counted before statuses say so, and delivered when they are.
    let metrics = on.health("/metrics")?;
    let mut alerts = metrics
        .lines()
        .filter(|line| line.starts_with("driftguard_alerts_total") && line.contains(r#"state="firing""#));
    ensure!(alerts.all(|line| line.ends_with(" 0")), "{metrics}");
    let firing = receiver.of(204, "firing");
    ensure!(firing.is_empty(), "{firing:#?}");
    let log = on.serve.log();
    ensure!(!log.contains(r#""kind":"incident""#), "{log}");
    Ok(())
}
