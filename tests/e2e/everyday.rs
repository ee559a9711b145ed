//! The everyday commands, as a person uses them, on a real installation.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{Output, until};
use serde_json::{Value, json};

use crate::auditing::{auditing, pinned, wait_for};
use crate::installation::{Installation, LIMIT, config_map, driftguard};

const TARGET: &str = "configmap/settings";

fn edit(on: &Installation, ns: &str, limit: &str) -> Result<Output> {
    let patch = json!({"data": {"limit": limit}}).to_string();
    on.admin.kubectl(&["patch", TARGET, "-n", ns, "--type=merge", "-p", &patch])
}

/// A pinned ConfigMap that is left alone unless somebody asks.
fn guarded(on: &Installation, ns: &str) -> Result<String> {
    pinned(on, ns, &json!({"limit": "1000"}), &json!({"autoRemediate": false}))
}

#[test]
fn a_guard_is_suspended_and_resumed_by_its_own_name_or_that_of_its_target() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-suspend")?;
    guarded(on, ns)?;
    on.refused(ns, TARGET, || edit(on, ns, "2000"))?;
    let suspend = ["suspend", "settings-guard", "-n", ns, "--reason", "migration 12", "--for"];
    let said = driftguard(&on.admin, &[&suspend[..], &["1h"]].concat())?.success()?;
    ensure!(said.starts_with("driftguard/settings-guard suspended until 2"), "{said}");
    // It returns once writes pass.
    edit(on, ns, "2000")?.success()?;
    edit(on, ns, "1000")?.success()?;
    let said = driftguard(&on.admin, &["resume", TARGET, "-n", ns])?.success()?;
    ensure!(said == "driftguard/settings-guard resumed\n", "{said}");
    on.refused(ns, TARGET, || edit(on, ns, "3000"))?;
    let said = driftguard(&on.admin, &["resume", "settings-guard", "-n", ns])?.success()?;
    ensure!(said == "driftguard/settings-guard is not suspended\n", "{said}");

    // What is not possible is said in a line.
    let too_long = driftguard(&on.admin, &[&suspend[..], &["9h"]].concat())?;
    ensure!(too_long.code == Some(2), "{too_long}");
    let said = too_long.failure()?;
    ensure!(said.contains("--max-exception") && said.lines().count() == 1, "{said}");
    let said = driftguard(&on.admin, &["resume", "setings-guard", "-n", ns])?.failure()?;
    ensure!(said.ends_with("did you mean settings-guard?\n"), "{said}");
    let said = driftguard(&on.admin, &["resume", "configmap/approved", "-n", ns])?.failure()?;
    ensure!(said.contains("no DriftGuard pins ConfigMap/every-suspend/approved;"), "{said}");
    Ok(())
}

#[test]
fn an_exception_is_opened_listed_and_closed_with_a_summary_and_what_changed_is_put_back() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-exception")?;
    let guard = &guarded(on, ns)?;
    let open = ["exception", "open", "-n", ns, "--for", "1h", "--reason", "incident 7", "--name", "incident"];
    let opened = driftguard(&on.admin, &[&open[..], &["settings-guard", "missing-guard"]].concat())?;
    ensure!(opened.stderr.contains("Warning: ") && opened.stderr.contains("missing-guard"), "{opened}");
    ensure!(opened.stderr.contains("writes to the target of 1 guard pass until"), "{opened}");
    let said = opened.success()?;
    ensure!(said.starts_with("driftguardexception/incident opened until 2"), "{said}");
    edit(on, ns, "2000")?.success()?;
    wait_for(on, ns, guard, "Drifted", "True", "Excepted")?;

    let row = until("the list names what changed", LIMIT, || {
        let list = driftguard(&on.admin, &["exception", "list", "-n", ns])?.success()?;
        let row = list.lines().nth(1).context("no row")?.split("   ").map(str::trim).collect::<Vec<_>>();
        let row: Vec<String> = row.into_iter().filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
        ensure!(row.get(4).is_some_and(|changed| changed == guard), "{list}");
        Ok(row)
    })?;
    ensure!(row[0] == "incident" && row[1] == "True" && row[5] == "incident 7", "{row:?}");
    let closed = driftguard(&on.admin, &["exception", "close", "incident", "-n", ns])?;
    ensure!(closed.stderr.contains("changed under it: the targets of settings-guard"), "{closed}");
    ensure!(closed.success()? == "driftguardexception/incident closed\n");
    wait_for(on, ns, guard, "Drifted", "True", "ExceptionEnded")?;

    let said = driftguard(&on.admin, &["restore", TARGET, "-n", ns])?.success()?;
    let from = format!("driftguard/settings-guard put back, from configmap {ns}/approved\n");
    ensure!(said == from, "{said}");
    ensure!(on.get(ns, TARGET)?["data"]["limit"] == "1000", "it was not put back");
    let said = driftguard(&on.admin, &["restore", guard, "-n", ns])?.success()?;
    ensure!(said.ends_with("is as approved: nothing had to be put back\n"), "{said}");

    // While one lasts nothing is put back, whoever asks; what was asked for is done once it is closed.
    let open =
        ["exception", "open", "--all", "-n", ns, "--for", "1h", "--reason", "again", "--name", "again"];
    driftguard(&on.admin, &open)?.success()?;
    edit(on, ns, "3000")?.success()?;
    wait_for(on, ns, guard, "Drifted", "True", "Excepted")?;
    let held = driftguard(&on.admin, &["restore", guard, "-n", ns])?;
    ensure!(held.code == Some(2) && held.stderr.contains("nothing is put back before"), "{held}");
    ensure!(held.stderr.ends_with("; it stays asked for\n"), "{held}");
    ensure!(on.get(ns, TARGET)?["data"]["limit"] == "3000", "it was put back");
    driftguard(&on.admin, &["exception", "close", "again", "-n", ns])?.success()?;
    wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    ensure!(on.get(ns, TARGET)?["data"]["limit"] == "1000", "it was not put back");
    Ok(())
}

#[test]
fn a_restore_that_no_source_can_serve_tells_what_each_source_said() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-no-source")?;
    on.apply(&config_map(ns, "settings", &json!({"limit": "1000"})))?.success()?;
    on.apply(&config_map(ns, "approved", &json!({"limit": "other"})))?.success()?;
    // Approved is what nobody has.
    let spec: Value = json!({"sourceOfTruthRef": {"kind": "configmap", "name": "approved"}});
    let guard = on.pin(ns, TARGET, &"ab".repeat(32), &spec)?;
    let told = driftguard(&on.admin, &["restore", &guard, "-n", ns])?;
    ensure!(told.code == Some(2), "{told}");
    ensure!(told.stderr.contains(&format!("source configmap {ns}/approved: ")), "{told}");
    let last = told.stderr.lines().last().unwrap_or_default();
    ensure!(
        last.starts_with("error: driftguard/settings-guard: ConfigMap/every-no-source/settings"),
        "{told}"
    );
    Ok(())
}
