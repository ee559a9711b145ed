//! Kinds other than ConfigMap and Secret: workloads, custom resources, several versions.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, config_map, deployment, gama_config, hash_of};

pub(super) fn case_12_another_served_version_is_no_way_around(on: &Installation, ns: &str) -> Result<()> {
    // One CRD serves both installations' tests: each has a cluster of its own.
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
        })
    };
    on.apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    }))?
    .success()?;
    on.admin
        .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/widgets.example.com"])?
        .success()?;
    let object = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": ns},
        "spec": {"size": 1},
    });
    driftguard_control_plane::until("widgets are served", LIMIT, || on.apply(&object)?.success())?;
    on.pin(ns, "widget/w", &hash_of(&object)?, &json!({}))?;
    for resource in ["widgets.v1.example.com/w", "widgets.v1beta1.example.com/w"] {
        let patch = r#"{"spec":{"size":2}}"#;
        let said = on.refused(ns, "widget/w", || {
            on.admin.kubectl(&["patch", resource, "-n", ns, "--type=merge", "-p", patch])
        })?;
        ensure!(said.contains("/spec/size would change"), "{said}");
    }
    Ok(())
}

pub(super) fn case_15_a_workload_takes_no_further_container_or_volume(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    on.apply(&deployment(ns, "app"))?.success()?;
    on.pin_live(ns, "deployment/app")?;
    for (patch, path) in [
        (
            json!({"spec": {"template": {"spec": {"initContainers": [{"name": "x", "image": "registry.example/x:1"}]}}}}),
            "/spec/template/spec/initContainers would change",
        ),
        (
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}}),
            "/spec/template/spec/volumes would change",
        ),
        (json!({"spec": {"replicas": 5}}), "/spec/replicas would change"),
    ] {
        let said = on.refused(ns, "deployment/app", || {
            on.admin.kubectl(&["patch", "deployment/app", "-n", ns, "-p", &patch.to_string()])
        })?;
        ensure!(said.contains(path), "{said}");
    }
    Ok(())
}

pub(super) fn case_17_status_passes_and_leaves_the_spec_alone(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&deployment(ns, "app"))?.success()?;
    on.pin_live(ns, "deployment/app")?;
    let before = on.get(ns, "deployment/app")?;
    let patch = r#"{"status":{"replicas":1},"spec":{"replicas":7}}"#;
    on.admin
        .kubectl(&["patch", "deployment/app", "-n", ns, "--subresource=status", "--type=merge", "-p", patch])?
        .success()?;
    let after = on.get(ns, "deployment/app")?;
    ensure!(after["status"]["replicas"] == 1 && after["spec"] == before["spec"], "{after}");
    Ok(())
}

pub(super) fn case_29_numbers_and_empty_maps_that_mean_the_same_are_the_same(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    let model = gama_config(ns, "model", &json!({"whole": 1000, "part": 0.5, "none": null, "empty": {}}));
    // `apply` would drop the null before it is sent.
    on.admin.kubectl_with(&["create", "-f", "-"], model.to_string())?.success()?;
    on.pin_live(ns, "gamaconfig/model")?;
    // Written by hand: a JSON library would print the numbers its own way.
    let spelled = |whole: &str, part: &str| {
        format!(
            r#"{{"apiVersion":"terrafusion.ai/v1","kind":"GAMAConfig","metadata":{{"name":"model","namespace":"{ns}"}},
                "spec":{{"parameters":{{"empty":{{}},"none":null,"part":{part},"whole":{whole}}}}}}}"#
        )
    };
    let replace = |text: String| on.admin.kubectl_with(&["replace", "-f", "-"], text);
    for (whole, part) in [("1000.0", "0.5"), ("1e3", "5e-1"), ("1.0e+3", "0.50")] {
        replace(spelled(whole, part))?.success()?;
    }
    on.refused(ns, "gamaconfig/model", || replace(spelled("1000.5", "0.5")))?;
    on.refused(ns, "gamaconfig/model", || replace(spelled("\"1000\"", "0.5")))?;
    let empty = config_map(ns, "empty", &json!({}));
    on.apply(&empty)?.success()?;
    on.pin_live(ns, "configmap/empty")?;
    let mut absent: Value = empty.clone();
    absent.as_object_mut().map(|object| object.remove("data"));
    on.admin.kubectl_with(&["replace", "-f", "-"], absent.to_string())?.success()?;
    Ok(())
}
