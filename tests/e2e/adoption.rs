//! Case 73: a cluster of the older operator, with its guards, its finalizers and its notes.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, User};
use serde_json::{Value, json};

use crate::installation::{config_map, driftguard, hash_of};
use crate::repository::path;

const NAMESPACE: &str = "terrafusion-system";
const FINALIZER: &str = "kopf.zalando.org/KopfFinalizerMarker";

fn apply(admin: &User, object: &Value) -> Result<()> {
    admin.kubectl_with(&["apply", "-f", "-"], object.to_string())?.success().map(drop)
}

/// A guard as Kopf leaves it.
fn older_guard(name: &str, hash: &str) -> Value {
    json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "finalizers": [FINALIZER, "example.com/own"],
            "annotations": {"kopf.zalando.org/last-handled-configuration": "{}", "team": "valuation"},
        },
        "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash, "autoRemediate": true},
    })
}

/// The older operator: its label, but none of ours.
fn older_operator(replicas: u32) -> Value {
    let labels = json!({"app": "driftguard-operator"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "driftguard-operator", "namespace": NAMESPACE, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "operator", "image": "terrafusion/driftguard-operator:1"}]},
        }},
    })
}

#[test]
fn case_73_guards_of_the_older_operator_are_adopted_once_it_is_gone() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    // Its schema took more than ours: what it let be stored is there, and is not looked at again.
    let crd = std::fs::read_to_string(path("crds/driftguard.yaml"))?
        .replace("app.kubernetes.io/", "older/")
        .lines()
        .flat_map(|line| {
            let also = (line.trim() == "- configmap").then(|| line.replace("configmap", "ftp"));
            std::iter::once(line.to_owned()).chain(also)
        })
        .collect::<Vec<_>>()
        .join("\n");
    admin.kubectl_with(&["apply", "-f", "-"], crd)?.success()?;
    admin.kubectl(&["wait", "--for=condition=Established", "crd/driftguards.terrafusion.ai"])?.success()?;
    admin.kubectl(&["create", "namespace", NAMESPACE])?.success()?;
    for name in ["fits", "differs"] {
        apply(&admin, &config_map(NAMESPACE, name, &json!({"a": "1"})))?;
    }
    let live = admin.kubectl(&["get", "configmap/fits", "-n", NAMESPACE, "-o", "json"])?.json()?;
    let hash = hash_of(&live)?;
    apply(&admin, &older_guard("fits", &hash))?;
    apply(&admin, &older_guard("differs", &"a".repeat(64)))?;
    apply(&admin, &older_guard("missing", &hash))?;
    let mut foreign = older_guard("foreign", &hash);
    foreign["spec"]["sourceOfTruthRef"] = json!({"kind": "ftp", "name": "x"});
    apply(&admin, &foreign)?;
    let guard =
        |name: &str| admin.kubectl(&["get", "driftguard", name, "-n", NAMESPACE, "-o", "json"])?.json();
    let before = guard("fits")?;

    apply(&admin, &older_operator(1))?;
    let refused = driftguard(&admin, &["install", "--adopt"])?.failure()?;
    ensure!(
        refused.contains("kubectl delete deployment driftguard-operator -n terrafusion-system"),
        "{refused}"
    );
    ensure!(guard("fits")? == before, "nothing may be touched while it runs");
    admin.kubectl(&["get", "clusterrole", "driftguard-operator"])?.failure()?;
    admin.kubectl(&["delete", "deployment", "driftguard-operator", "-n", NAMESPACE])?.success()?;

    let tried = driftguard(&admin, &["install", "--adopt", "--dry-run=server"])?;
    let said = tried.clone().success()?;
    ensure!(said.contains("/fits would be adopted (server dry run)"), "{tried}");
    ensure!(guard("fits")? == before, "a dry run changed a guard");

    let adopted = driftguard(&admin, &["install", "--adopt"])?;
    let said = adopted.clone().success()?;
    for name in ["fits", "differs", "missing", "foreign"] {
        ensure!(said.contains(&format!("driftguard.terrafusion.ai/{NAMESPACE}/{name} adopted")), "{adopted}");
        let after = guard(name)?;
        ensure!(after["metadata"]["finalizers"] == json!(["example.com/own"]), "{after}");
        let annotations = after["metadata"]["annotations"].as_object().context("no annotations")?;
        ensure!(annotations.keys().all(|key| !key.starts_with("kopf.")), "{after}");
        ensure!(annotations["team"] == "valuation", "{after}");
        ensure!(after["metadata"]["generation"] == 1, "the spec was touched: {after}");
    }
    ensure!(guard("fits")?["spec"] == before["spec"]);
    ensure!(adopted.stderr.contains("3 of 4 DriftGuards do not fit"), "{adopted}");
    ensure!(adopted.stderr.contains("/differs: ConfigMap differs holds something else"), "{adopted}");
    ensure!(adopted.stderr.contains("/foreign: its spec cannot be read: unknown variant `ftp`"), "{adopted}");
    ensure!(adopted.stderr.contains("/missing: ConfigMap missing does not exist"), "{adopted}");
    ensure!(adopted.stderr.contains("only record what they would refuse (Audit)"), "{adopted}");

    let again = driftguard(&admin, &["install", "--adopt"])?;
    ensure!(!again.clone().success()?.contains("adopted"), "{again}");
    ensure!(again.stderr.contains("Audit, as chosen by an earlier install"), "{again}");
    Ok(())
}
