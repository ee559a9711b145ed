//! The registered rules over time, on an installation that answers: they follow the guards, are put back when
//! somebody alters them, and what changes under them is told.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{Version, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, hash_of, unchanged};

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
    ensure!(!metrics.contains(r#"driftguard_definition_changes_total{result="deleted"} 0"#), "{metrics}");
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
    on.not_made(&ns, "valves.v1.one.example.com/v", || on.apply(&valve("one.example.com", 2)))?;
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
fn case_64_the_deletion_of_our_own_crd_is_told_and_locks_nobody_out() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("case-64-own")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    on.pin_live(&ns, "configmap/settings")?;
    let crd = "driftguards.terrafusion.ai";
    let deleted = on.admin.kubectl(&["delete", "crd", crd])?;
    ensure!(deleted.stderr.contains("without a review"), "{deleted}");
    deleted.success()?;
    let told = record(&on, "DefinitionDeleted", crd)?;
    ensure!(told["user"]["name"] == "administrator", "{told}");
    let metrics = on.health("/metrics")?;
    ensure!(!metrics.contains(r#"driftguard_definition_changes_total{result="deleted"} 0"#), "{metrics}");
    // With the guards gone, nothing stays that would need them; and the CRD can come back.
    until("what no guard pins is free", LIMIT, || {
        let edit = ["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", DATA];
        on.admin.kubectl(&edit)?.success()
    })?;
    on.admin.kubectl(&["apply", "-f", &crate::repository::path("crds/driftguard.yaml")])?.success()?;
    on.admin
        .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{crd}")])?
        .success()?;
    let held = config_map(&ns, "settings", &json!({"a": "2"}));
    until("guards are enforced again", LIMIT, || {
        on.pin(&ns, "configmap/settings", &hash_of(&held)?, &json!({}))
    })?;
    on.refused(&ns, "configmap/settings", || {
        let back = r#"{"data":{"a":"1"}}"#;
        on.admin.kubectl(&["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", back])
    })?;
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
    let said = unchanged(&on.admin, &ns, "configmap/settings", || on.admin.kubectl(&edit)?.failure())?;
    ensure!(said.contains("see-driftguard-breakglass"), "{said}");
    on.admin.kubectl(&["delete", "configmap", "settings", "-n", &ns])?.success()?;
    Ok(())
}

/// The entries of a configuration, without the generation in their paths.
fn entries(on: &Installation, kind: &str) -> Result<Vec<Value>> {
    let stored = on.admin.kubectl(&["get", kind, "driftguard", "-o", "json"])?.json()?;
    let mut entries = stored["webhooks"].as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        let url = entry["clientConfig"]["url"].as_str().context("no url")?.to_owned();
        let (head, rest) = url.split_once("/g").context("no generation")?;
        let policy = rest.split_once('/').map_or("", |(_, policy)| policy);
        entry["clientConfig"]["url"] = format!("{head}/{policy}").into();
    }
    entries.sort_by_key(|entry| entry["name"].to_string());
    Ok(entries)
}

/// Makes every entry miss writes, each in another way, and takes one away.
fn disarm(on: &Installation, kind: &str) -> Result<()> {
    let stored = on.admin.kubectl(&["get", kind, "driftguard", "-o", "json"])?.json()?;
    let count = stored["webhooks"].as_array().map_or(0, Vec::len);
    let ways = [
        ("failurePolicy", json!("Ignore")),
        ("matchConditions", json!([{"name": "never", "expression": "false"}])),
        ("namespaceSelector", json!({"matchLabels": {"guarded": "yes"}})),
        ("objectSelector", json!({"matchLabels": {"guarded": "yes"}})),
        ("matchPolicy", json!("Exact")),
        ("timeoutSeconds", json!(1)),
        ("clientConfig", json!({"url": "https://127.0.0.1:1/validate/g1/fail"})),
        (
            "rules",
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["nodes"], "operations": ["CREATE"]}]),
        ),
    ];
    let mut patch: Vec<Value> = ways
        .iter()
        .enumerate()
        .map(|(number, (field, value))| {
            json!({"op": "add", "path": format!("/webhooks/{}/{field}", number % count), "value": value})
        })
        .collect();
    if count > 1 {
        patch.push(json!({"op": "remove", "path": "/webhooks/0"}));
    }
    let patch = Value::Array(patch).to_string();
    on.admin.kubectl(&["patch", kind, "driftguard", "--type=json", "-p", &patch])?.success().map(drop)
}

const GATE: &str = "validatingwebhookconfiguration";
const CONVENIENCE: &str = "mutatingwebhookconfiguration";

#[test]
fn case_47_whatever_is_altered_or_deleted_is_put_back_exactly() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("altered")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    let guard = on.pin_live(&ns, "configmap/settings")?;
    on.apply(&config_map(&ns, "rewritten", &json!({"a": "1"})))?.success()?;
    let hash = hash_of(&on.get(&ns, "configmap/rewritten")?)?;
    on.pin(&ns, "configmap/rewritten", &hash, &json!({"enforcement": "Rewrite"}))?;
    let edit =
        |name: &str| on.admin.kubectl(&["patch", "configmap", name, "-n", &ns, "--type=merge", "-p", DATA]);
    let before = [entries(&on, GATE)?, entries(&on, CONVENIENCE)?];
    ensure!(before.iter().all(|entries| !entries.is_empty()), "{before:?}");
    let delete = |kind: &str| on.admin.kubectl(&["delete", kind, "driftguard"])?.success().map(drop);
    // Each is put back later than the one before it: somebody seems to keep at it.
    for (what, alter) in [
        ("the gate is altered", &(|| disarm(&on, GATE)) as &dyn Fn() -> Result<()>),
        ("both are altered", &|| disarm(&on, GATE).and_then(|()| disarm(&on, CONVENIENCE))),
        ("both are deleted", &|| delete(GATE).and_then(|()| delete(CONVENIENCE))),
    ] {
        alter()?;
        until(&format!("{what}, and put back"), LIMIT, || {
            let now = [entries(&on, GATE)?, entries(&on, CONVENIENCE)?];
            ensure!(now == before, "{now:?}");
            Ok(())
        })
        .with_context(|| on.serve.log_tail())?;
        on.refused(&ns, "configmap/settings", || edit("settings"))?;
        edit("rewritten")?.success()?;
        ensure!(on.get(&ns, "configmap/rewritten")?["data"]["a"] == "1", "it is no longer rewritten");
    }
    on.wait_enforcing(&ns, &guard)
}

#[test]
fn somebody_who_keeps_altering_the_rules_is_named_until_they_stop() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("contended")?;
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    let guard = on.pin_live(&ns, "configmap/settings")?;
    let before = entries(&on, GATE)?;
    let contended = |wanted: u8| -> Result<()> {
        let metrics = on.health("/metrics")?;
        ensure!(metrics.contains(&format!("driftguard_registration_contended {wanted}\n")), "{metrics}");
        Ok(())
    };
    contended(0)?;
    let said = until("the guard says that somebody alters the rules", LIMIT, || {
        if entries(&on, GATE)? == before {
            disarm(&on, GATE)?;
        }
        let conditions = on.get(&ns, &format!("dg/{guard}"))?["status"]["conditions"].clone();
        let enforcing = conditions.as_array().into_iter().flatten().find(|one| one["type"] == "Enforcing");
        let enforcing = enforcing.context("no condition")?.clone();
        ensure!(enforcing["reason"] == "RegistrationContended", "{enforcing}");
        contended(1)?;
        Ok(enforcing)
    })?;
    ensure!(said["status"] == "False", "{said}");
    ensure!(said["message"].to_string().contains("altered by kubectl-patch"), "{said}");
    // Nobody alters it any more.
    on.wait_enforcing(&ns, &guard)?;
    until("the metric says so, too", LIMIT, || contended(0))?;
    ensure!(entries(&on, GATE)? == before);
    let edit = ["patch", "configmap/settings", "-n", &ns, "--type=merge", "-p", DATA];
    on.refused(&ns, "configmap/settings", || on.admin.kubectl(&edit))?;
    Ok(())
}
