//! `driftguard guard` against a real API server.

use serde_json::Value;

use crate::live::{DEPLOYMENT, cluster};

#[test]
fn a_guard_can_be_applied_as_it_is_printed() {
    let cluster = cluster().namespace("guards");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: guards}, data: {x: z}}");
    let manifest = cluster
        .driftguard(&["guard", "cm", "a", "-n", "guards", "--runbook", "https://x/y: z"], "")
        .success();
    cluster.apply(&manifest);
    let guard: Value =
        cluster.admin.kubectl(&["get", "dg/a-guard", "-n", "guards", "-o", "json"]).unwrap().json().unwrap();
    assert_eq!(guard["spec"]["targetKind"], "ConfigMap");
    assert_eq!(guard["spec"]["expectedHash"], cluster.hash(&["cm", "a", "-n", "guards"], ""));
    assert_eq!(guard["metadata"]["annotations"]["driftguard.terrafusion.ai/runbook"], "https://x/y: z");

    // A cluster-scoped object, with a name that no guard may have.
    let manifest = cluster.driftguard(&["guard", "clusterrole", "system:node", "-n", "guards"], "").success();
    cluster.apply(&manifest);
    let guard: Value = cluster
        .admin
        .kubectl(&["get", "dg/system-node-guard", "-n", "guards", "-o", "json"])
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(guard["spec"]["targetName"], "system:node");
    assert!(guard["spec"].get("targetNamespace").is_none());
}

#[test]
fn guards_of_several_objects_leave_out_what_controllers_make_and_name_who_else_writes() {
    let cluster = cluster().namespace("several");
    let maps = "apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: several, labels: {app: shop}}
data: {a: '1'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: several}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: made
  namespace: several
  labels: {app: shop}
  ownerReferences: [{apiVersion: x.io/v1, kind: Maker, name: m, uid: 0, controller: true}]
";
    cluster.apply(&maps.replace("uid: 0", "uid: 00000000-0000-0000-0000-000000000001"));
    // As the cluster puts its certificates into every namespace.
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own, namespace: several, labels: {app: shop}}\ndata: {ca.crt: x}\n";
    let publisher = ["apply", "--server-side", "--field-manager=kube-controller-manager", "-f", "-"];
    cluster.admin.kubectl_with(&publisher, own).unwrap().success().unwrap();
    let ran = cluster.driftguard(&["guard", "configmap", "-l", "app=shop", "-n", "several"], "");
    assert_eq!(
        ran.stderr,
        "note: ConfigMap/several/made is passed over: Maker/m makes it\nnote: ConfigMap/several/own is passed over: kube-controller-manager alone writes it; name the object to guard it all the same\n"
    );
    let guards = ran.success();
    assert_eq!(guards.matches("targetName: ").count(), 1, "{guards}");
    assert!(guards.contains("targetName: one\n"), "{guards}");
    let none = cluster.driftguard(&["guard", "configmap", "-l", "app=none", "-n", "several"], "").failure();
    assert!(none.contains("kubectl get configmap --show-labels"), "{none}");

    cluster
        .admin
        .kubectl_with(&["apply", "-n", "several", "-f", "-"], DEPLOYMENT)
        .unwrap()
        .success()
        .unwrap();
    let scaled = [
        "patch",
        "deploy/web",
        "-n",
        "several",
        "--subresource=scale",
        "--field-manager=autoscaler",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":5}}"#,
    ];
    cluster.kubectl(&scaled);
    let ran = cluster.driftguard(&["guard", "deploy", "--all", "-n", "several"], "");
    assert!(ran.stderr.contains("autoscaler writes fields of Deployment/several/web too"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--ignore-path '/spec/replicas'"), "{}", ran.stderr);

    // The same hash comes of the file, when the API server is asked for the defaults.
    let guard = "apiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {name: g}\nspec: {targetKind: Deployment, targetName: web, expectedHash: ''}\n---\n";
    let input = format!("{guard}{}", DEPLOYMENT.trim_start());
    let stamped = cluster.driftguard(&["stamp", "--server", "-n", "several"], &input).success();
    let want = cluster.hash(&["--server", "-f", "-", "-n", "several"], DEPLOYMENT);
    assert_eq!(stamped, input.replace("''", &format!("\"{want}\"")));
    let only = input.replace("targetKind", "onlyPaths: [/spec/template/spec/containers], targetKind");
    let stamped = cluster.driftguard(&["stamp", "--server", "-n", "several"], &only).success();
    let pinned = ["--server", "--only-path=/spec/template/spec/containers", "-f", "-", "-n", "several"];
    let want = cluster.hash(&pinned, DEPLOYMENT);
    assert_eq!(stamped, only.replace("''", &format!("\"{want}\"")), "with what the API server adds");
}

#[test]
fn a_guard_of_a_workload_file_pins_what_will_be_stored() {
    let cluster = cluster().namespace("guard-file");
    let manifest = cluster.driftguard(&["guard", "-f", "-", "-n", "guard-file"], DEPLOYMENT).success();
    cluster
        .admin
        .kubectl_with(&["apply", "-n", "guard-file", "-f", "-"], DEPLOYMENT)
        .unwrap()
        .success()
        .unwrap();
    let live = cluster.hash(&["deploy", "web", "-n", "guard-file"], "");
    assert!(manifest.contains(&format!("expectedHash: {live}")), "{manifest}");
    assert!(!manifest.contains("targetApiVersion"), "Deployment alone says enough: {manifest}");
}

#[test]
fn a_version_that_is_not_the_preferred_one_is_written_down() {
    let cluster = cluster().namespace("versions");
    let scaler = "
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec: {maxReplicas: 3, targetCPUUtilizationPercentage: 50, scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}}
";
    let manifest = cluster.driftguard(&["guard", "-f", "-", "-n", "versions"], scaler).success();
    assert!(manifest.contains("targetApiVersion: autoscaling/v1"), "{manifest}");
    cluster.admin.kubectl_with(&["apply", "-n", "versions", "-f", "-"], scaler).unwrap().success().unwrap();
    let by_version =
        cluster.driftguard(&["guard", "hpa.v1.autoscaling", "h", "-n", "versions"], "").success();
    assert_eq!(by_version, manifest);
    let preferred = cluster.driftguard(&["guard", "hpa", "h", "-n", "versions"], "").success();
    assert!(!preferred.contains("targetApiVersion"), "{preferred}");
    assert_ne!(preferred, manifest, "each version has a spec of its own");
}
