//! What the status of a guard says, and when, on a real API server with the real program.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn start(namespace: &str) -> Result<(&'static Installation, String)> {
    let on = Installation::shared(Via::Url)?;
    let namespace = on.namespace(namespace)?;
    Ok((on, namespace))
}

fn guard(ns: &str, name: &str, spec: &Value) -> Value {
    let mut all = json!({"targetKind": "ConfigMap", "targetName": name, "expectedHash": HASH});
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
           "metadata": {"name": name, "namespace": ns}, "spec": all})
}

/// `STATUS REASON` of a condition, and its message.
fn condition(guard: &Value, of_type: &str) -> Result<(String, String)> {
    let conditions = guard["status"]["conditions"].as_array().context("no conditions yet")?;
    let found = conditions.iter().find(|condition| condition["type"] == of_type);
    let found = found.with_context(|| format!("no condition {of_type}"))?;
    ensure!(
        found["observedGeneration"] == guard["metadata"]["generation"],
        "{of_type} is about an older spec"
    );
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((format!("{} {}", text("status"), text("reason")), text("message")))
}

/// Waits until a condition is so, and gives the guard.
fn says(on: &Installation, ns: &str, name: &str, of_type: &str, wanted: &str) -> Result<Value> {
    until(&format!("{name}: {of_type} is {wanted}"), LIMIT, || {
        let guard = on.get(ns, &format!("driftguard/{name}"))?;
        let (said, message) = condition(&guard, of_type)?;
        ensure!(said == wanted, "{said}: {message}");
        Ok(guard)
    })
}

#[test]
fn a_guard_says_what_is_proved_and_what_is_in_effect() -> Result<()> {
    let (on, ns) = start("reporting-proved")?;
    on.apply(&config_map(&ns, "prices", &json!({"a": "1"})))?.success()?;
    let hash = hash_of(&on.get(&ns, "configmap/prices")?)?;
    on.apply(&guard(&ns, "prices", &json!({"expectedHash": hash})))?.success()?;
    let seen = says(on, &ns, "prices", "Enforcing", "True Proved")?;
    ensure!(condition(&seen, "Ready")?.0 == "True Guarding", "{seen}");
    ensure!(seen["status"]["enforcement"] == "Deny", "{seen}");
    ensure!(seen["status"]["canonicalForm"] == "v1", "{seen}");
    ensure!(seen["status"]["observedGeneration"] == seen["metadata"]["generation"], "{seen}");
    Ok(())
}

#[test]
fn guards_that_let_writes_pass_say_so() -> Result<()> {
    let (on, ns) = start("reporting-detect-only")?;
    on.apply(&guard(&ns, "watched", &json!({"enforcement": "Audit"})))?.success()?;
    let seen = says(on, &ns, "watched", "Enforcing", "False DetectOnly")?;
    ensure!(condition(&seen, "Ready")?.0 == "True Guarding", "{seen}");
    ensure!(seen["status"]["enforcement"] == "Audit", "{seen}");
    Ok(())
}

#[test]
fn what_cannot_be_guarded_says_why_and_what_to_do() -> Result<()> {
    let (on, ns) = start("reporting-invalid")?;
    on.apply(&guard(&ns, "unknown", &json!({"targetKind": "Gizmo"})))?.success()?;
    let seen = says(on, &ns, "unknown", "Ready", "False TargetUnknown")?;
    let (said, message) = condition(&seen, "Enforcing")?;
    ensure!(said == "False TargetUnknown" && message.contains("install its CRD"), "{said}: {message}");
    for kind in ["Lease", "Event"] {
        let never = guard(&ns, "refused", &json!({"targetKind": kind}));
        let said = on.not_made(&ns, "dg/refused", || on.apply(&never))?;
        ensure!(said.contains("is never guarded") && said.contains("delete this guard"), "{said}");
    }
    Ok(())
}

#[test]
fn a_changed_spec_is_reported_under_its_own_generation() -> Result<()> {
    let (on, ns) = start("reporting-generation")?;
    on.apply(&config_map(&ns, "prices", &json!({"a": "1"})))?.success()?;
    on.pin_live(&ns, "configmap/prices")?;
    let patch = r#"{"spec":{"enforcement":"Warn"}}"#;
    let arguments = ["patch", "driftguard", "prices-guard", "-n", &ns, "--type=merge", "-p", patch];
    on.admin.kubectl(&arguments)?.success()?;
    let seen = says(on, &ns, "prices-guard", "Enforcing", "False DetectOnly")?;
    ensure!(seen["metadata"]["generation"] == 2 && seen["status"]["observedGeneration"] == 2, "{seen}");
    Ok(())
}

/// The first status is written, later ones only when they would say something else: another guard,
/// with rules of its own, is registered and proved meanwhile.
#[test]
fn a_status_is_not_written_again_without_news() -> Result<()> {
    let (on, ns) = start("reporting-quiet")?;
    for name in ["first", "second"] {
        on.apply(&config_map(&ns, name, &json!({"a": "1"})))?.success()?;
    }
    on.pin_live(&ns, "configmap/first")?;
    let before = on.get(&ns, "driftguard/first-guard")?;
    on.pin_live(&ns, "configmap/second")?;
    let after = on.get(&ns, "driftguard/first-guard")?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "{before}\n{after}"
    );
    Ok(())
}

#[test]
fn many_guards_made_at_once_are_all_enforced_by_few_registrations() -> Result<()> {
    let (on, ns) = start("reporting-many")?;
    let registrations = || -> Result<u64> {
        let metrics = on.health("/metrics")?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(r#"driftguard_registrations_total{result="applied"}"#));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default())
    };
    let before = registrations()?;
    let names: Vec<String> = (0..200).map(|number| format!("many-{number:03}")).collect();
    let items: Vec<Value> = names.iter().map(|name| guard(&ns, name, &json!({}))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let started = std::time::Instant::now();
    on.admin.kubectl_with(&["create", "-f", "-"], list.to_string())?.success()?;
    let wait = ["wait", "--for=condition=Enforcing", "--timeout=60s", "-n", &ns, "driftguard", "--all"];
    on.admin.kubectl(&wait)?.success()?;
    // Other tests register too; all of them share one registration a second.
    let made = registrations()? - before;
    let seconds = started.elapsed().as_secs();
    ensure!(made <= seconds + 2, "{made} registrations for {} guards", names.len());
    let patch = ["create", "configmap", "many-150", "-n", &ns, "--from-literal=a=b"];
    on.not_made(&ns, "configmap/many-150", || on.admin.kubectl(&patch)).map(drop)
}
