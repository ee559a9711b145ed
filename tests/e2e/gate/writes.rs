//! All the ways in which kubectl writes.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::installation::{Installation, config_map, editor, hash_of};

const TARGET: &str = "configmap/market-settings";

fn settings(namespace: &str, price: &str) -> Value {
    config_map(namespace, "market-settings", &json!({"price": price, "currency": "EUR"}))
}

/// A pinned ConfigMap with price 100.
fn pinned(on: &Installation, namespace: &str) -> Result<()> {
    on.apply(&settings(namespace, "100"))?.success()?;
    on.pin_live(namespace, TARGET).map(drop)
}

pub(super) fn case_01_kubectl_edit_is_refused(on: &Installation, ns: &str) -> Result<()> {
    pinned(on, ns)?;
    // With its key: the digits alone may stand in a uid as well.
    let editor = editor(on.plane.folder(), "edit-price", r#"price: "100""#, r#"price: "999""#)?;
    let folder = on.plane.folder().to_string_lossy().into_owned();
    let said = on.refused(ns, TARGET, || {
        let edit = on.admin.command(&["edit", TARGET, "-n", ns]);
        edit.env("KUBE_EDITOR", &editor).env("TMPDIR", &folder).run()
    })?;
    let line = format!(
        "DriftGuard {ns}/market-settings-guard pins ConfigMap/{ns}/market-settings: /data/price would change"
    );
    ensure!(said.contains(&line), "{said}");
    let image = hash_of(&settings(ns, "999"))?;
    ensure!(said.contains(&format!("image sha256:{image}")), "{said}");
    Ok(())
}

pub(super) fn case_02_client_side_apply_is_refused_and_approved_content_passes(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    pinned(on, ns)?;
    on.refused(ns, TARGET, || on.apply(&settings(ns, "999")))?;
    on.apply(&settings(ns, "100"))?.success()?;
    Ok(())
}

pub(super) fn case_03_every_kind_of_patch_is_refused(on: &Installation, ns: &str) -> Result<()> {
    pinned(on, ns)?;
    let change = r#"{"data":{"price":"999"}}"#;
    let replace = r#"[{"op":"replace","path":"/data/price","value":"999"}]"#;
    let remove = r#"[{"op":"remove","path":"/data"}]"#;
    for (kind, patch) in [("strategic", change), ("merge", change), ("json", replace), ("json", remove)] {
        on.refused(ns, TARGET, || {
            on.admin.kubectl(&["patch", TARGET, "-n", ns, &format!("--type={kind}"), "-p", patch])
        })?;
    }
    Ok(())
}

pub(super) fn case_04_replace_is_refused(on: &Installation, ns: &str) -> Result<()> {
    pinned(on, ns)?;
    on.refused(ns, TARGET, || {
        on.admin.kubectl_with(&["replace", "-f", "-"], settings(ns, "999").to_string())
    })?;
    on.admin.kubectl_with(&["replace", "-f", "-"], settings(ns, "100").to_string())?.success()?;
    Ok(())
}

pub(super) fn case_06_server_side_apply_is_refused_with_and_without_force(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    pinned(on, ns)?;
    let apply = |force: &[&str]| {
        let arguments = [&["apply", "--server-side", "-f", "-"], force].concat();
        on.admin.kubectl_with(&arguments, settings(ns, "999").to_string())
    };
    on.refused(ns, TARGET, || apply(&["--force-conflicts"]))?;
    // Without force the API server itself refuses to change another manager's field.
    let before = on.get(ns, TARGET)?;
    apply(&[])?.failure()?;
    ensure!(before == on.get(ns, TARGET)?);
    // A field that nobody owns yet meets no conflict, and is refused all the same.
    let mut more = settings(ns, "100");
    more["data"]["extra"] = json!("1");
    on.refused(ns, TARGET, || {
        on.admin.kubectl_with(&["apply", "--server-side", "-f", "-"], more.to_string())
    })?;
    Ok(())
}

pub(super) fn case_07_a_missing_target_is_made_only_with_the_exact_content(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    on.pin(ns, TARGET, &hash_of(&settings(ns, "100"))?, &json!({}))?;
    let apply = |price: &str| {
        on.admin.kubectl_with(&["apply", "--server-side", "-f", "-"], settings(ns, price).to_string())
    };
    let said = apply("999")?.failure()?;
    ensure!(said.contains("its content is not the approved one"), "{said}");
    on.admin.kubectl(&["get", TARGET, "-n", ns])?.failure()?;
    apply("100")?.success()?;
    Ok(())
}

pub(super) fn case_13_a_patch_that_changes_nothing_passes(on: &Installation, ns: &str) -> Result<()> {
    pinned(on, ns)?;
    let before = on.get(ns, TARGET)?;
    let patch = r#"{"data":{"price":"100"}}"#;
    let said = on.admin.kubectl(&["patch", TARGET, "-n", ns, "--type=merge", "-p", patch])?.success()?;
    ensure!(said.contains("no change"), "{said}");
    ensure!(before == on.get(ns, TARGET)?);
    Ok(())
}

pub(super) fn case_27_a_server_dry_run_is_refused_and_recorded_nowhere(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    let marker = config_map(ns, "marker", &json!({"a": "1"}));
    on.apply(&marker)?.success()?;
    let marker_guard = on.pin_live(ns, "configmap/marker")?;
    let tried = config_map(ns, "dry-run-target", &json!({"a": "1"}));
    on.apply(&tried)?.success()?;
    let guard = on.pin_live(ns, "configmap/dry-run-target")?;
    let patch = r#"{"data":{"a":"2"}}"#;
    let change = |object: &str, more: &[&str]| {
        on.admin.kubectl(&[&["patch", object, "-n", ns, "--type=merge", "-p", patch], more].concat())
    };
    on.refused(ns, "configmap/dry-run-target", || change("configmap/dry-run-target", &["--dry-run=server"]))?;
    on.refused(ns, "configmap/marker", || change("configmap/marker", &[]))?;
    ensure!(on.records_of(&guard, &marker_guard)?.is_empty(), "a dry run was recorded");
    let recorded = on.records_of(&marker_guard, &marker_guard)?;
    ensure!(
        recorded[0]["kind"] == "denial" && recorded[0]["user"]["name"] == "administrator",
        "{recorded:?}"
    );
    ensure!(recorded[0]["paths"] == json!(["/data/a"]), "{recorded:?}");
    Ok(())
}

pub(super) fn case_31_generated_names_are_judged_by_the_name_they_get(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    pinned(on, ns)?;
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"price": "999"},
        "metadata": {"generateName": "market-settings", "namespace": ns},
    });
    on.admin.kubectl_with(&["create", "-f", "-"], object.to_string())?.success()?;
    on.refused(ns, TARGET, || on.apply(&settings(ns, "999")))?;
    Ok(())
}
