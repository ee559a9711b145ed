//! Somebody who undoes each restore, written straight into etcd past every admission.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::until;
use serde_json::json;

use crate::alerting::Alerted;
use crate::auditing::{condition, pinned, wait_for, wait_for_data};
use crate::installation::{Installation, LIMIT};

const RIVAL: &str = "rival-controller";

/// Writes other content past every API server, as a field manager that says so.
fn write_as_rival(on: &Installation, namespace: &str, limit: &str) -> Result<()> {
    let with_managers = ["get", "configmap/settings", "-n", namespace, "--show-managed-fields", "-o", "json"];
    let mut object = on.admin.kubectl(&with_managers)?.json()?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    object["data"]["limit"] = json!(limit);
    let metadata = object["metadata"].as_object_mut().context("no metadata")?;
    metadata.remove("resourceVersion");
    metadata["managedFields"].as_array_mut().context("no managers")?.push(json!({
        "manager": RIVAL, "operation": "Update", "apiVersion": "v1", "time": now, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:limit": {}}},
    }));
    on.plane.etcd().put(&format!("/registry/configmaps/{namespace}/settings"), object.to_string().as_bytes())
}

#[test]
fn case_52_a_rival_that_undoes_each_restore_is_given_time_named_and_told_of_once() -> Result<()> {
    let Alerted { on, receiver } = Alerted::shared()?;
    let ns = &on.namespace("fight")?;
    let data = json!({"limit": "1000"});
    let guard = &pinned(on, ns, &data, &json!({}))?;
    let mut took = Vec::new();
    let mut begun = Instant::now();
    for round in 0..5 {
        write_as_rival(on, ns, "9999")?;
        // The longest pause leaves the most time to see both.
        if round == 4 {
            // A fight may have been told of a round before: only what is said of this drift counts.
            until("the guard names the rival and says when it puts back", LIMIT, || {
                let seen = on.get(ns, &format!("dg/{guard}"))?;
                let says = |of_type, what: &str| {
                    let said = condition(&seen, of_type).with_context(|| format!("nothing of {of_type}"))?;
                    let is = said["status"] == "True"
                        && said["message"].as_str().is_some_and(|said| said.contains(what));
                    ensure!(is, "{said}\n{}", on.serve.log_tail());
                    Ok(said)
                };
                ensure!(says("Fighting", RIVAL)?["reason"] == "RemediationUndone", "{seen}");
                says("Drifted", "put back again after")
            })?;
        }
        wait_for_data(on, ns, "configmap/settings", &data)?;
        took.push(begun.elapsed());
        begun = Instant::now();
        // What was written before it was last seen as approved is nobody's by its time alone.
        wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    }
    // Each pause is twice the one before: 1, 2, 4 and 8 seconds.
    ensure!(took[3] > Duration::from_secs(3) && took[4] > Duration::from_secs(7), "{took:?}");
    // The rival has stopped, and what it wrote is gone. That it fought is said for ten minutes more.
    let seen = wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    ensure!(condition(&seen, "Fighting").is_some_and(|said| said["status"] == "True"), "{}", seen["status"]);
    let told = until("somebody is told", LIMIT, || {
        let told = receiver.reasons(ns, "firing");
        ensure!(!told.is_empty(), "{}", on.serve.log_tail());
        Ok(told)
    })?;
    ensure!(told.len() == 1, "one episode is one alert: {told:?}");
    ensure!(receiver.reasons(ns, "resolved").is_empty(), "a fight is not over yet");
    Ok(())
}
