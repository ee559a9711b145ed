//! The registered rules over time, on an installation that answers: they follow the guards, are put back when
//! somebody alters them, and what changes under them is told.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{Version, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

const DATA: &str = r#"{"data":{"a":"2"}}"#;

fn registered(on: &Installation) -> Result<String> {
    let get = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "json"];
    on.admin.kubectl(&get)?.success()
}

/// The first record of this reason that is about an object of this name.
fn record(on: &Installation, reason: &str, name: &str) -> Result<Value> {
    until(&format!("{reason} of {name} is recorded"), LIMIT, || {
        let log = on.serve.log();
        let mut records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records
            .find(|record| record["reason"] == reason && record["target"]["name"] == name)
            .context("not yet")
    })
}

fn event(on: &Installation, namespace: &str, reason: &str) -> Result<String> {
    until(&format!("an Event says {reason}"), LIMIT, || {
        let selector = format!("--field-selector=reason={reason}");
        let events =
            ["get", "events.events.k8s.io", "-n", namespace, &selector, "-o", "jsonpath={.items[*].note}"];
        let notes = on.admin.kubectl(&events)?.success()?;
        ensure!(!notes.is_empty(), "none yet");
        Ok(notes)
    })
}

#[test]
fn case_39_without_its_guard_an_object_is_free_and_the_rules_are_narrow_again() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("case-39")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    let guard = on.pin_live(&ns, "configmap/settings")?;
    let edit = ["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", DATA];
    on.refused(&ns, "configmap/settings", || on.admin.kubectl(&edit))?;
    ensure!(registered(on)?.contains("case-39"));
    on.admin.kubectl(&["delete", "dg", &guard, "-n", &ns])?.success()?;
    until("the rules are narrow again", LIMIT, || {
        ensure!(!registered(on)?.contains("case-39"), "still registered");
        Ok(())
    })?;
    on.admin.kubectl(&edit)?.success()?;
    Ok(())
}

#[test]
fn case_48_a_namespace_that_is_relabelled_stays_guarded() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("case-48")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    on.pin_live(&ns, "configmap/settings")?;
    let edit = ["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", DATA];
    for label in ["kubernetes.io/metadata.name=elsewhere", "kubernetes.io/metadata.name-", "other=label"] {
        // The API server may refuse it or put its own label back; either way it holds.
        on.admin.kubectl(&["label", "namespace", &ns, label, "--overwrite"])?;
        on.refused(&ns, "configmap/settings", || on.admin.kubectl(&edit))?;
        let labels = on.admin.kubectl(&["get", "namespace", &ns, "-o", "json"])?.json()?;
        ensure!(labels["metadata"]["labels"]["kubernetes.io/metadata.name"] == "case-48", "{labels}");
    }
    Ok(())
}

#[test]
fn cases_64_and_75_a_changed_or_deleted_definition_is_told_and_never_taken_for_approved() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("case-64")?;
    let crd = |properties: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "pumps.rules.example.com"},
            "spec": {"group": "rules.example.com", "scope": "Namespaced",
                "names": {"kind": "Pump", "plural": "pumps", "singular": "pump"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}}]},
        })
    };
    let plain = json!({"size": {"type": "integer"}});
    on.apply(&crd(plain))?.success()?;
    let pump = json!({"apiVersion": "rules.example.com/v1", "kind": "Pump",
        "metadata": {"name": "p", "namespace": ns}, "spec": {"size": 1}});
    until("pumps are served", LIMIT, || on.apply(&pump)?.success())?;
    let guard = on.pin(&ns, "pump/p", &hash_of(&pump)?, &json!({}))?;
    let another = on.pin(&ns, "pump/q", &hash_of(&pump)?, &json!({}))?;

    let other = json!({"size": {"type": "integer"}, "mode": {"type": "string", "default": "fast"}});
    let changed = on.apply(&crd(other))?;
    ensure!(changed.stderr.contains("another schema may change"), "{changed}");
    changed.success()?;
    let told = record(on, "DefinitionChanged", "pumps.rules.example.com")?;
    ensure!(told["guard"]["name"] == guard.as_str() && told["user"]["name"] == "administrator", "{told}");
    let both = format!("2 DriftGuards ({ns}/{guard}, {ns}/{another})");
    ensure!(told["message"].as_str().is_some_and(|message| message.contains(&both)), "{told}");
    until("each guard of the kind has its Event", LIMIT, || {
        let events = ["get", "events.events.k8s.io", "-n", &ns, "--field-selector=reason=DefinitionChanged"];
        let of = [&events[..], &["-o", "jsonpath={.items[*].regarding.name}"]].concat();
        let told = on.admin.kubectl(&of)?.success()?;
        ensure!(told.contains(&guard) && told.contains(&another), "{told}");
        Ok(())
    })?;
    until("the stored object reads otherwise", LIMIT, || {
        ensure!(on.get(&ns, "pump/p")?["spec"]["mode"] == "fast", "not yet");
        Ok(())
    })?;
    // What reads otherwise is not approved: it may stay as it is, and is called drifted.
    let labelled = on.admin.kubectl(&["label", "pump/p", "-n", &ns, "a=b"])?;
    ensure!(labelled.stderr.contains("has drifted"), "{labelled}");
    labelled.success()?;
    let grow = r#"{"spec":{"size":2}}"#;
    on.refused(&ns, "pump/p", || {
        on.admin.kubectl(&["patch", "pump/p", "-n", &ns, "--type=merge", "-p", grow])
    })?;

    let deleted = on.admin.kubectl(&["delete", "crd", "pumps.rules.example.com"])?;
    ensure!(deleted.stderr.contains("without a review"), "{deleted}");
    deleted.success()?;
    record(on, "DefinitionDeleted", "pumps.rules.example.com")?;
    event(on, &ns, "DefinitionDeleted")?;
    let metrics = on.health("/metrics")?;
    ensure!(metrics.contains(r#"driftguard_definition_changes_total{result="deleted"}"#), "{metrics}");
    until("the guard says that its kind is gone", LIMIT, || {
        let status = on.get(&ns, &format!("dg/{guard}"))?["status"].to_string();
        ensure!(status.contains("TargetNoLongerServed"), "{status}");
        Ok(())
    })?;
    ensure!(registered(on)?.contains("pumps"), "the rules stay");
    Ok(())
}

#[test]
fn a_restart_does_not_turn_a_guard_to_another_resource_of_the_same_kind() -> Result<()> {
    let mut on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("turned")?;
    let valves = |group: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("valves.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"kind": "Valve", "plural": "valves", "singular": "valve"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object",
                        "properties": {"size": {"type": "integer"}}}}}}}]},
        })
    };
    let valve = |group: &str, size: u32| {
        json!({"apiVersion": format!("{group}/v1"), "kind": "Valve",
            "metadata": {"name": "v", "namespace": ns}, "spec": {"size": size}})
    };
    on.apply(&valves("one.example.com"))?.success()?;
    until("valves are served", LIMIT, || on.apply(&valve("one.example.com", 1))?.success())?;
    let guard = on.pin(&ns, "valve/v", &hash_of(&valve("one.example.com", 1))?, &json!({}))?;
    let noted = until("the resource is noted", LIMIT, || {
        let status = on.get(&ns, &format!("dg/{guard}"))?["status"].clone();
        ensure!(status["resolvedTarget"]["apiVersion"] == "one.example.com/v1", "{status}");
        Ok(status["resolvedTarget"].clone())
    })?;

    on.serve.signal(Signal::Terminate)?;
    on.serve.wait(LIMIT)?;
    on.admin.kubectl(&["delete", "crd", "valves.one.example.com"])?.success()?;
    on.apply(&valves("two.example.com"))?.success()?;
    until("the other valves are served", LIMIT, || on.apply(&valve("two.example.com", 7))?.success())?;
    on.start_again()?;
    let kept = |on: &Installation| {
        until("the guard says that it goes on for its own resource", LIMIT, || {
            let status = on.get(&ns, &format!("dg/{guard}"))?["status"].clone();
            ensure!(status["conditions"].to_string().contains("TargetNoLongerServed"), "{status}");
            ensure!(status["resolvedTarget"] == noted, "{status}");
            Ok(())
        })
    };
    kept(&on)?;
    ensure!(registered(&on)?.contains("one.example.com") && !registered(&on)?.contains("two.example.com"));
    // Its own resource comes back, beside the other: what is made of it must be what is approved.
    on.apply(&valves("one.example.com"))?.success()?;
    until("valves are served again", LIMIT, || {
        on.admin.kubectl(&["get", "valves.v1.one.example.com", "-n", &ns])?.success()
    })?;
    let said = on.apply(&valve("one.example.com", 2))?.failure()?;
    ensure!(said.contains("DriftGuard "), "{said}");
    on.apply(&valve("one.example.com", 1))?.success()?;

    // Nobody can point it elsewhere by a status.
    let mut forged = noted.clone();
    forged["apiVersion"] = json!("two.example.com/v1");
    let patch = json!({"status": {"resolvedTarget": forged}}).to_string();
    on.admin
        .kubectl(&["patch", "dg", &guard, "-n", &ns, "--subresource=status", "--type=merge", "-p", &patch])?
        .success()?;
    kept(&on)?;
    ensure!(!registered(&on)?.contains("two.example.com"));
    Ok(())
}

#[test]
fn case_47_and_69_rules_are_put_back_and_outlive_whoever_answers() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("rules")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    on.pin_live(&ns, "configmap/settings")?;
    let before = registered(&on)?;
    let failing = |text: &str| text.matches("write-fail.configmaps").count();
    ensure!(failing(&before) > 0, "{before}");
    on.admin.kubectl(&["delete", "validatingwebhookconfiguration", "driftguard"])?.success()?;
    until("the deleted rules are back", LIMIT, || {
        let now = registered(&on)?;
        ensure!(failing(&now) > 0, "not yet");
        Ok(())
    })?;
    let told = record(&on, "RegistrationAltered", "driftguard")?;
    ensure!(told["attribution"] == "named by its field manager" && told["operation"] == "DELETE", "{told}");
    event(&on, &ns, "RegistrationAltered")?;
    let metrics = on.health("/metrics")?;
    ensure!(metrics.contains(r#"driftguard_registrations_total{result="repaired"} 1"#), "{metrics}");

    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT)?;
    on.admin.kubectl(&["label", "configmap/settings", "-n", &ns, "a=b"])?.success()?;
    let edit = ["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", DATA];
    let said = on.admin.kubectl(&edit)?.failure()?;
    ensure!(said.contains("see-driftguard-breakglass"), "{said}");
    ensure!(on.get(&ns, "configmap/settings")?["data"]["a"] == "1");
    on.admin.kubectl(&["delete", "configmap", "settings", "-n", &ns])?.success()?;
    Ok(())
}
