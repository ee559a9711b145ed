//! What may and may not happen to a guarded object over its life.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::installation::{Installation, config_map, hash_of};

const TARGET: &str = "configmap/limits";

fn limits(namespace: &str, maximum: &str) -> Value {
    config_map(namespace, "limits", &json!({"maximum": maximum}))
}

pub(super) fn case_10_a_guard_may_come_before_its_target(on: &Installation, ns: &str) -> Result<()> {
    on.pin(ns, TARGET, &hash_of(&limits(ns, "10"))?, &json!({}))?;
    on.apply(&limits(ns, "10"))?.success()?;
    on.refused(ns, TARGET, || on.apply(&limits(ns, "11")))?;
    Ok(())
}

pub(super) fn case_11_a_target_that_was_there_before_changes_only_to_what_is_approved(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    on.apply(&limits(ns, "1"))?.success()?;
    on.pin(ns, TARGET, &hash_of(&limits(ns, "10"))?, &json!({}))?;
    on.refused(ns, TARGET, || on.apply(&limits(ns, "2")))?;
    on.apply(&limits(ns, "10"))?.success()?;
    on.refused(ns, TARGET, || on.apply(&limits(ns, "1")))?;
    Ok(())
}

pub(super) fn case_14_binary_data_cannot_be_added(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&limits(ns, "10"))?.success()?;
    on.pin_live(ns, TARGET)?;
    let patch = r#"{"binaryData":{"hidden":"AP/+"}}"#;
    let said = on.refused(ns, TARGET, || {
        on.admin.kubectl(&["patch", TARGET, "-n", ns, "--type=merge", "-p", patch])
    })?;
    ensure!(said.contains("/binaryData/hidden would change"), "{said}");
    Ok(())
}

pub(super) fn case_16_labels_pass_on_clean_and_on_drifted_targets(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&limits(ns, "10"))?.success()?;
    on.pin_live(ns, TARGET)?;
    let label = |object: &str| on.admin.kubectl(&["label", object, "-n", ns, "team=risk"]);
    let clean = label(TARGET)?;
    ensure!(!clean.stderr.contains("Warning"), "{clean}");
    clean.success()?;
    on.apply(&config_map(ns, "drifted", &json!({"a": "1"})))?.success()?;
    on.pin(ns, "configmap/drifted", &"a".repeat(64), &json!({}))?;
    // A real one cannot change the content, so that we are not even asked; a dry run always arrives.
    let dry = on.admin.kubectl(&["label", "configmap/drifted", "-n", ns, "team=risk", "--dry-run=server"])?;
    ensure!(dry.stderr.contains("Warning") && dry.stderr.contains("has drifted"), "{dry}");
    dry.success()?;
    let drifted = label("configmap/drifted")?;
    ensure!(!drifted.stderr.contains("Warning"), "{drifted}");
    drifted.success()?;
    Ok(())
}

pub(super) fn case_21_a_terminating_object_keeps_its_content(on: &Installation, ns: &str) -> Result<()> {
    let mut object = limits(ns, "10");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    on.apply(&object)?.success()?;
    on.pin_live(ns, TARGET)?;
    let deleted = on.admin.kubectl(&["delete", TARGET, "-n", ns, "--wait=false"])?;
    ensure!(deleted.stderr.contains("its deletion counts as drift"), "{deleted}");
    deleted.success()?;
    ensure!(on.get(ns, TARGET)?["metadata"]["deletionTimestamp"].is_string(), "it is not terminating");
    let patch = r#"{"data":{"maximum":"11"}}"#;
    on.refused(ns, TARGET, || on.admin.kubectl(&["patch", TARGET, "-n", ns, "--type=merge", "-p", patch]))?;
    let release = r#"{"metadata":{"finalizers":null}}"#;
    on.admin.kubectl(&["patch", TARGET, "-n", ns, "--type=merge", "-p", release])?.success()?;
    on.admin.kubectl(&["get", TARGET, "-n", ns])?.failure()?;
    Ok(())
}

pub(super) fn case_28_a_secret_given_as_string_data_is_compared_by_its_value(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    let secret = |field: &str, value: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials", "namespace": ns},
            "type": "Opaque", field: {"password": value},
        })
    };
    let target = "secret/credentials";
    on.apply(&secret("stringData", "correct-horse"))?.success()?;
    on.pin_live(ns, target)?;
    let replace = |object: Value| on.admin.kubectl_with(&["replace", "-f", "-"], object.to_string());
    replace(secret("stringData", "correct-horse"))?.success()?;
    replace(secret("data", &STANDARD.encode("correct-horse")))?.success()?;
    let said = on.refused(ns, target, || replace(secret("stringData", "battery-staple")))?;
    ensure!(said.contains("/data/password would change"), "{said}");
    let hash = hash_of(&secret("stringData", "battery-staple"))?;
    for leaked in ["battery", "correct-horse", &STANDARD.encode("battery-staple"), &hash, "sha256"] {
        ensure!(!said.contains(leaked), "{leaked} leaked: {said}");
        let log = on.serve.log();
        ensure!(leaked == "sha256" || !log.contains(leaked), "{leaked} leaked into the log");
    }
    Ok(())
}
