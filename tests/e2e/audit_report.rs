//! `driftguard audit` beside a DriftGuard that runs: what the statuses of guards add to what is read.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{Output, User};
use serde_json::{Value, json};

use crate::auditing::{auditing, wait_for};
use crate::installation::{config_map, driftguard, hash_of};

fn audit(user: &User, namespace: &str, args: &[&str]) -> Result<Output> {
    driftguard(user, &[&["audit", "-n", namespace], args].concat())
}

/// The entry of a guard in a report.
fn entry(report: &Value, guard: &str) -> Result<Value> {
    let all = report["guards"].as_array().context("a report has guards")?;
    let found = all.iter().find(|entry| entry["guard"]["name"] == guard);
    found.cloned().with_context(|| format!("{guard} is not in {report}"))
}

/// A user who may read guards and ConfigMaps of one namespace, and nothing else.
const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: audit-report}
rules:
- {apiGroups: [terrafusion.ai], resources: [driftguards], verbs: [get, list]}
- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: audit-report}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: report-reader}]
";

#[test]
fn a_reader_learns_what_drifted_since_when_and_by_whom() -> Result<()> {
    let on = auditing()?;
    let ns = on.namespace("audit-report")?;
    on.admin.kubectl_with(&["apply", "-f", "-"], READER)?.success()?;
    let reader = on.plane.user("report-reader", &[])?;
    for name in ["calm", "watched", "paused"] {
        on.apply(&config_map(&ns, name, &json!({"a": "1", "b": "2"})))?.success()?;
    }
    on.pin_live(&ns, "configmap/calm")?;
    let ran = audit(&reader, &ns, &["calm-guard", "-o", "json"])?;
    let calm = entry(&ran.json()?, "calm-guard")?;
    ensure!(calm["state"] == "InSync" && calm["enforcing"] == "True", "{calm}");
    ensure!(calm["enforcement"] == "Deny" && calm["source"]["state"] == "NotNamed", "{calm}");

    // One lets writes pass and one is paused: both are written by a person.
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let paused = json!({"suspend": {"until": until.to_string(), "reason": "a test"}});
    for (name, more) in [("watched", json!({"enforcement": "Audit"})), ("paused", paused)] {
        let mut spec = json!({"targetKind": "ConfigMap", "targetName": name, "expectedHash":
            hash_of(&on.get(&ns, &format!("configmap/{name}"))?)?});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let guard = json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": format!("{name}-guard"), "namespace": ns}, "spec": spec});
        on.apply(&guard)?.success()?;
        wait_for(on, &ns, &format!("{name}-guard"), "Drifted", "False", "InSync")?;
    }
    wait_for(on, &ns, "paused-guard", "Suspended", "True", "SuspendedBySpec")?;
    for name in ["watched", "paused"] {
        let patch = ["patch", "configmap", name, "-n", &ns, "--type=merge", "-p", r#"{"data":{"a":"9"}}"#];
        on.admin.kubectl(&patch)?.success()?;
    }
    wait_for(on, &ns, "watched-guard", "Drifted", "True", "ContentDiffers")?;
    wait_for(on, &ns, "paused-guard", "Drifted", "True", "SuspendedBySpec")?;

    let ran = audit(&reader, &ns, &["-o", "json"])?;
    let report: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.to_string())?;
    ensure!(report["summary"]["states"] == json!({"Drifted": 2, "InSync": 1}), "{}", report["summary"]);
    let watched = entry(&report, "watched-guard")?;
    ensure!(watched["changedPaths"] == json!(["/data/a"]), "{watched}");
    ensure!(watched["since"]["knownBy"] == "Status" && watched["transactionId"].is_string(), "{watched}");
    ensure!(watched["by"]["name"].is_string() && watched["by"]["knownBy"] != "Unknown", "{watched}");
    ensure!(watched["enforcement"] == "Audit" && watched.get("also").is_none(), "{watched}");
    let paused = entry(&report, "paused-guard")?;
    ensure!(paused["also"] == json!(["Suspended"]) && paused["reason"] == "SuspendedBySpec", "{paused}");

    let table = audit(&reader, &ns, &[])?.to_string();
    ensure!(table.contains("/data/a by ") && table.contains("also Suspended"), "{table}");
    ensure!(!audit(&reader, &ns, &["watched-guard"])?.succeeded(), "drift is a finding");
    ensure!(audit(&reader, &ns, &["watched-guard", "--fail-on", "missing"])?.succeeded(), "unless it is not");
    Ok(())
}
