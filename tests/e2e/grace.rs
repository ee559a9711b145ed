//! What is approved and not yet applied: nobody is told and nothing is put back for a grace.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::alerting::Alerted;
use crate::auditing::{wait_for, wait_for_data, wait_for_repair};
use crate::installation::{Installation, config_map, hash_of};

fn secret(namespace: &str, name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": data,
    })
}

/// Lets DriftGuard write Secrets of a namespace, which nobody gives it by default.
fn give_secrets(on: &Installation, namespace: &str) -> Result<()> {
    let role = ["create", "role", "secrets", "--resource=secrets", "-n", namespace];
    let verbs = ["--verb=get,list,watch,create,update,patch,delete"];
    on.admin.kubectl(&[&role[..], &verbs].concat())?.success()?;
    let binding = ["create", "rolebinding", "secrets", "--role=secrets", "-n", namespace];
    let to = ["--serviceaccount=terrafusion-system:driftguard-operator"];
    on.admin.kubectl(&[&binding[..], &to].concat())?.success().map(drop)
}

#[test]
fn case_74_what_is_approved_and_not_yet_applied_is_left_alone_for_the_grace_and_then_put_back() -> Result<()>
{
    let Alerted { on, receiver } = Alerted::shared()?;
    let (before, next) = (json!({"limit": "1000"}), json!({"limit": "2000"}));
    type Make = fn(&str, &str, &Value) -> Value;
    for (kind, make) in [("configmap", config_map as Make), ("secret", secret as Make)] {
        let ns = &on.namespace(&format!("grace-{kind}"))?;
        if kind == "secret" {
            give_secrets(on, ns)?;
        }
        on.apply(&make(ns, "settings", &before))?.success()?;
        on.apply(&make(ns, "approved", &before))?.success()?;
        let object = format!("{kind}/settings");
        let stored = on.get(ns, &object)?["data"].clone();
        let hash = hash_of(&on.get(ns, &object)?)?;
        let spec = json!({"autoRemediate": true, "sourceOfTruthRef": {"kind": kind, "name": "approved"}});
        let guard = &on.pin(ns, &object, &hash, &spec)?;
        wait_for(on, ns, guard, "Drifted", "False", "InSync")?;

        on.apply(&make(ns, "approved", &next))?.success()?;
        let hash = hash_of(&on.get(ns, &format!("{kind}/approved"))?)?;
        let approve = json!({"spec": {"expectedHash": hash}}).to_string();
        on.admin
            .kubectl(&["patch", &format!("dg/{guard}"), "-n", ns, "--type=merge", "-p", &approve])?
            .success()?;
        let seen = wait_for(on, ns, guard, "Drifted", "False", "AwaitingApply")?;
        let status = &seen["status"];
        ensure!(status["lastRemediation"].is_null() && status["consecutiveFailures"] == 0, "{status}");
        ensure!(on.get(ns, &object)?["data"] == stored, "{kind} was written within the grace");

        let wanted = on.get(ns, &format!("{kind}/approved"))?["data"].clone();
        wait_for_data(on, ns, &object, &wanted)?;
        let seen = wait_for_repair(on, ns, guard)?;
        ensure!(seen["status"]["currentHash"].is_null() == (kind == "secret"), "{}", seen["status"]);
        ensure!(receiver.reasons(ns, "firing").is_empty(), "somebody was told of a change that was approved");
    }
    Ok(())
}
