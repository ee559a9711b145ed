//! Ways to change a pinned object that pass by a rule on the object itself.

use anyhow::{Result, ensure};
use driftguard_control_plane::{Output, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, deployment, hash_of};

fn scale(on: &Installation, ns: &str, object: &str, count: u32) -> Result<Output> {
    on.admin.kubectl(&["scale", object, "-n", ns, &format!("--replicas={count}")])
}

fn set(namespace: &str, api_version: &str, kind: &str, name: &str) -> Value {
    let mut object = deployment(namespace, name);
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!("none");
    }
    if kind == "ReplicationController" {
        object["spec"]["selector"] = json!({"app": name});
    }
    object
}

pub(super) fn case_18_scaling_passes_where_the_count_is_ignored(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&deployment(ns, "app"))?.success()?;
    let live = on.get(ns, "deployment/app")?;
    let filter = driftguard::core::paths::PathFilter::ignoring(&["/spec/replicas"])?;
    let scope = driftguard::core::scope::Scope::new("apps", "Deployment", filter);
    let hash = driftguard::core::canonical::hash_object(live.to_string().as_bytes(), &scope)?.to_string();
    on.pin(ns, "deployment/app", &hash, &json!({"ignorePaths": ["/spec/replicas"]}))?;
    let said = scale(on, ns, "deployment/app", 3)?;
    ensure!(!said.stderr.contains("Warning"), "{said}");
    said.success()?;
    ensure!(on.get(ns, "deployment/app")?["spec"]["replicas"] == 3);
    Ok(())
}

pub(super) fn case_19_scaling_is_refused_and_the_approved_count_passes(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("v1", "ReplicationController"),
    ] {
        let (object, plain) = (format!("{}/app", kind.to_lowercase()), set(ns, api_version, kind, "app"));
        on.apply(&plain)?.success()?;
        let guard = on.pin_live(ns, &object)?;
        for count in [0, 5] {
            let said = on.refused(ns, &object, || scale(on, ns, &object, count))?;
            ensure!(said.contains("/spec/replicas would change") && said.contains("image sha256:"), "{said}");
        }
        scale(on, ns, &object, 1)?.success()?;
        // Drifted before it was guarded, it can be brought back.
        on.admin.kubectl(&["delete", &format!("dg/{guard}"), "-n", ns])?.success()?;
        let approved = hash_of(&on.get(ns, &object)?)?;
        until("the guard is gone", LIMIT, || scale(on, ns, &object, 4)?.success())?;
        on.pin(ns, &object, &approved, &json!({}))?;
        on.refused(ns, &object, || scale(on, ns, &object, 5))?;
        scale(on, ns, &object, 1)?.success()?;
    }
    Ok(())
}

pub(super) fn a_custom_resource_is_scaled_where_its_crd_says(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sized.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "sized", "singular": "sized", "kind": "Sized"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"scale": {"specReplicasPath": ".spec.size.wanted", "statusReplicasPath": ".status.n"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "object", "properties": {"wanted": {"type": "integer"}}}, "color": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
                }}},
            }],
        },
    }))?
    .success()?;
    // What reads a target needs the right to: for kinds of its own a cluster adds it.
    let rule =
        ["create", "clusterrole", "sized-for-driftguard", "--verb=get,patch", "--resource=sized.example.com"];
    on.admin.kubectl(&rule)?.success()?;
    let account = "--serviceaccount=terrafusion-system:driftguard-operator";
    on.admin
        .kubectl(&[
            "create",
            "clusterrolebinding",
            "sized-for-driftguard",
            "--clusterrole=sized-for-driftguard",
            account,
        ])?
        .success()?;
    let object = json!({
        "apiVersion": "example.com/v1", "kind": "Sized", "metadata": {"name": "s", "namespace": ns},
        "spec": {"size": {"wanted": 2}, "color": "red"},
    });
    until("it is served", LIMIT, || on.apply(&object)?.success())?;
    on.pin(ns, "sized/s", &hash_of(&object)?, &json!({}))?;
    let said = on.refused(ns, "sized/s", || scale(on, ns, "sized.example.com/s", 7))?;
    ensure!(said.contains("/spec/size/wanted would change"), "{said}");
    scale(on, ns, "sized.example.com/s", 2)?.success()?;
    Ok(())
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "registry.example/app:1", "resources": {
                "requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}],
        },
    })
}

fn raw(on: &Installation, path: &str, body: &Value) -> Result<Output> {
    on.admin.kubectl_with(&["create", "--raw", path, "-f", "-"], body.to_string())
}

pub(super) fn case_65_no_subresource_of_a_pod_is_a_way_around(on: &Installation, ns: &str) -> Result<()> {
    on.admin.kubectl(&["create", "serviceaccount", "default", "-n", ns])?;
    on.apply(&pod(ns, "p"))?.success()?;
    let hash = hash_of(&on.get(ns, "pod/p")?)?;
    on.pin(ns, "pod/p", &hash, &json!({"deletionPolicy": "Deny"}))?;
    let resize = r#"{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"150m"}}}]}}"#;
    on.refused(ns, "pod/p", || {
        on.admin.kubectl(&["patch", "pod/p", "-n", ns, "--subresource=resize", "-p", resize])
    })?;
    let debug = r#"{"spec":{"ephemeralContainers":[{"name":"debug","image":"evil"}]}}"#;
    let path = format!("/api/v1/namespaces/{ns}/pods/p");
    on.refused(ns, "pod/p", || {
        on.admin
            .kubectl(&["patch", "pod/p", "-n", ns, "--subresource=ephemeralcontainers", "-p", debug])
            .or_else(|_| raw(on, &format!("{path}/ephemeralcontainers"), &json!({})))
    })?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "namespace": ns},
                         "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"}});
    for place in [format!("{path}/binding"), format!("/api/v1/namespaces/{ns}/bindings")] {
        let said = on.refused(ns, "pod/p", || raw(on, &place, &binding))?;
        ensure!(said.contains("/spec/nodeName would change"), "{said}");
    }
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": ns}});
    let said = on.refused(ns, "pod/p", || raw(on, &format!("{path}/eviction"), &eviction))?;
    ensure!(said.contains("it may not be deleted"), "{said}");
    on.refused(ns, "pod/p", || on.admin.kubectl(&["delete", "pod/p", "-n", ns, "--wait=false"]))?;
    // The node that is approved.
    on.apply(&pod(ns, "q"))?.success()?;
    let mut bound = on.get(ns, "pod/q")?;
    bound["spec"]["nodeName"] = json!("node-1");
    on.pin(ns, "pod/q", &hash_of(&bound)?, &json!({}))?;
    let mut other = binding.clone();
    other["metadata"]["name"] = json!("q");
    raw(on, &format!("/api/v1/namespaces/{ns}/pods/q/binding"), &other)?.success()?;
    ensure!(on.get(ns, "pod/q")?["spec"]["nodeName"] == "node-1");
    Ok(())
}

pub(super) fn case_65_a_guarded_namespace_still_finishes_its_deletion(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    let name = on.namespace(&format!("{}-own", ns.get(..30).unwrap_or(ns)))?;
    let object = format!("namespace/{name}");
    let hash = hash_of(&on.get(ns, &object)?)?;
    on.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {"name": "own", "namespace": ns},
        "spec": {"targetKind": "Namespace", "targetName": name, "expectedHash": hash},
    }))?
    .success()?;
    on.wait_enforcing(ns, "own")?;
    let finalize = || -> Result<Output> {
        let mut object = on.get(ns, &object)?;
        object["spec"]["finalizers"] = json!([]);
        let path = format!("/api/v1/namespaces/{name}/finalize");
        on.admin.kubectl_with(&["replace", "--raw", &path, "-f", "-"], object.to_string())
    };
    on.refused(ns, &object, finalize)?;
    on.admin.kubectl(&["delete", &object, "--wait=false"])?.success()?;
    finalize()?.success()?;
    on.admin.kubectl(&["get", &object])?.failure()?;
    Ok(())
}
