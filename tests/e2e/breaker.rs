//! Many guards that drift at once: remediation stops, admission goes on, and a person decides.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::alerting::{Alerted, Receiver};
use crate::installation::{Installation, LIMIT, config_map, hash_of};

/// Guards of ConfigMaps `c0`, `c1`... with this content, in sync.
fn guards(on: &Installation, ns: &str, count: usize) -> Result<()> {
    on.namespace(ns)?;
    let data = json!({"limit": "1000"});
    let hash = hash_of(&config_map(ns, "c", &data))?;
    let mut objects = Vec::new();
    for number in 0..count {
        objects.push(config_map(ns, &format!("c{number}"), &data));
        objects.push(json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": format!("c{number}"), "namespace": ns},
            "spec": {"targetKind": "ConfigMap", "targetName": format!("c{number}"), "expectedHash": hash,
                     "autoRemediate": true},
        }));
    }
    on.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))?.success()?;
    for condition in ["Enforcing", "Drifted=False"] {
        let wanted = format!("--for=condition={condition}");
        on.admin.kubectl(&["wait", &wanted, "--timeout=60s", "dg", "--all", "-n", ns])?.success()?;
    }
    Ok(())
}

/// Changes targets past every API server, all at the same time.
fn drift(on: &Installation, all: &[(&str, std::ops::Range<usize>)]) -> Result<()> {
    let mut pairs = Vec::new();
    for (ns, numbers) in all {
        for number in numbers.clone() {
            let key = format!("/registry/configmaps/{ns}/c{number}");
            let mut object = on.get(ns, &format!("configmap/c{number}"))?;
            object["data"]["limit"] = json!("9999");
            object["metadata"].as_object_mut().context("no metadata")?.remove("resourceVersion");
            pairs.push((key, object.to_string().into_bytes()));
        }
    }
    on.plane.etcd().put_many(&pairs)
}

/// Names of ConfigMaps of a namespace that are not as approved.
fn drifted(on: &Installation, ns: &str) -> Result<Vec<String>> {
    let all = on.admin.kubectl(&["get", "configmaps", "-n", ns, "-o", "json"])?.json()?;
    let ours = all["items"].as_array().into_iter().flatten().filter(|one| one["data"]["limit"] == "9999");
    Ok(ours.filter_map(|one| Some(one["metadata"]["name"].as_str()?.to_owned())).collect())
}

fn until_restored(on: &Installation, ns: &str) -> Result<()> {
    until(&format!("all of {ns} is put back"), LIMIT, || {
        let left = drifted(on, ns)?;
        ensure!(left.is_empty(), "{left:?}\n{}", on.serve.log_tail());
        Ok(())
    })
}

/// The alerts, or ends of alerts, that remediation has stopped, once there are so many.
fn stopped(on: &Installation, receiver: &Receiver, state: &str, count: usize) -> Result<Vec<Value>> {
    until(&format!("{count} times {state}"), LIMIT, || {
        let all = receiver.of(204, state).into_iter();
        let told: Vec<Value> = all.filter(|event| event["data"]["reason"] == "RemediationStopped").collect();
        ensure!(told.len() == count, "{told:?}\n{}", on.serve.log_tail());
        Ok(told)
    })
}

fn id(alert: &Value) -> Result<String> {
    Ok(alert["data"]["episode"].as_str().context("no id")?.to_owned())
}

/// Waits until `count` guards say that this incident holds them back.
fn held(on: &Installation, ns: &str, incident: &str, least: usize) -> Result<()> {
    until("the guards say why nothing is put back", LIMIT, || {
        let all = on.admin.kubectl(&["get", "dg", "-n", ns, "-o", "json"])?.json()?;
        let guards = all["items"].as_array().cloned().unwrap_or_default();
        let held = guards.iter().filter(|guard| guard["status"]["incident"] == incident).count();
        ensure!(held >= least, "{held} of {}\n{}", guards.len(), on.serve.log_tail());
        Ok(())
    })
}

#[test]
fn case_59_many_guards_that_drift_at_once_stop_remediation_until_a_person_or_the_content_says_otherwise()
-> Result<()> {
    let Alerted { on, receiver } = &Alerted::start()?;
    guards(on, "many", 8)?;
    guards(on, "more", 5)?;
    guards(on, "few", 2)?;

    // More than five of a namespace: it stops there and nowhere else.
    drift(on, &[("many", 0..8)])?;
    let alert = stopped(on, receiver, "firing", 1)?.remove(0);
    let incident = id(&alert)?;
    ensure!(incident.starts_with("namespace-"), "{alert}");
    let command = format!("driftguard.terrafusion.ai/acknowledge={incident}");
    let message = alert["data"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("namespace many") && message.contains(&command), "{alert}");
    held(on, "many", &incident, 2)?;
    let left = drifted(on, "many")?;
    ensure!(left.len() >= 2, "remediation went on: {left:?} are left");
    // Who drifted before it began may have been told of; it speaks for all others.
    let alone = receiver.reasons("many", "firing");
    ensure!(alone.len() <= 6, "{alone:?}");
    drift(on, &[("few", 0..1)])?;
    until_restored(on, "few")?;
    ensure!(drifted(on, "many")?.len() >= 2, "remediation went on");
    // Admission goes on: what drifted cannot be changed further, and back it can.
    let patch = |name: &str, limit: &str| {
        let patch = json!({"data": {"limit": limit}}).to_string();
        on.admin.kubectl(&["patch", name, "-n", "many", "--type=merge", "-p", &patch])
    };
    let name = format!("configmap/{}", left[0]);
    on.refused("many", &name, || patch(&name, "7"))?;
    patch(&name, "1000")?.success()?;
    ensure!(receiver.of(204, "resolved").iter().all(|end| end["data"]["reason"] != "RemediationStopped"));

    // Whoever may not change the guards may not let it go on.
    let eve = on.plane.user("eve", &["team"])?;
    let role = ["create", "role", "guards", "--verb=get,patch", "--resource=driftguards.terrafusion.ai"];
    on.admin.kubectl(&[&role[..], &["-n", "many"]].concat())?.success()?;
    on.admin
        .kubectl(&["create", "rolebinding", "guards", "--role=guards", "--user=eve", "-n", "many"])?
        .success()?;
    let guard = alert["data"]["guard"]["name"].as_str().context("no guard")?;
    let acknowledge =
        ["annotate", "driftguards.terrafusion.ai", "-n", "many", guard, &command, "--overwrite"];
    let refused = until("eve may write guards", LIMIT, || {
        let refused = eve.kubectl(&acknowledge)?.failure()?;
        ensure!(refused.contains("update configmaps"), "{refused}");
        Ok(refused)
    })?;
    ensure!(refused.contains("denied the request: DriftGuard many/"), "{refused}");
    on.admin.kubectl(&acknowledge)?.success()?;
    until_restored(on, "many")?;
    let over = stopped(on, receiver, "resolved", 1)?.remove(0);
    ensure!(id(&over)? == incident && over["data"]["message"].to_string().contains("acknowledged"), "{over}");

    // More than ten in several namespaces: it stops everywhere.
    drift(on, &[("many", 0..5), ("more", 0..5), ("few", 1..2)])?;
    let alert = stopped(on, receiver, "firing", 2)?.remove(1);
    let incident = id(&alert)?;
    ensure!(incident.starts_with("cluster-"), "{alert}");
    drift(on, &[("few", 0..1)])?;
    held(on, "few", &incident, 1)?;
    ensure!(drifted(on, "few")?.contains(&"c0".to_owned()), "remediation went on");
    // Content that is as approved ends it as well.
    for ns in ["many", "more", "few"] {
        for name in drifted(on, ns)? {
            on.apply(&config_map(ns, &name, &json!({"limit": "1000"})))?.success()?;
        }
    }
    let over = stopped(on, receiver, "resolved", 2)?.remove(1);
    ensure!(id(&over)? == incident && over["data"]["message"].to_string().contains("as approved"), "{over}");
    drift(on, &[("few", 0..1)])?;
    until_restored(on, "few")
}
