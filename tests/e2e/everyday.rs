//! The everyday commands, as a person uses them, on a real installation.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{Output, until};
use serde_json::{Value, json};

use crate::auditing::{auditing, pinned, wait_for};
use crate::installation::{Installation, LIMIT, config_map, deployment, driftguard, hash_of};

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

/// A file with these lines.
fn file(folder: &std::path::Path, name: &str, manifest: &Value) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, manifest.to_string())?;
    Ok(path.display().to_string())
}

#[test]
fn a_file_is_held_against_its_guard_with_the_defaults_that_the_api_server_fills_in() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-verify")?;
    let web = deployment(ns, "web");
    on.apply(&web)?.success()?;
    on.pin_live(ns, "deployment/web")?;
    guarded(on, ns)?;
    let folder = tempfile::tempdir()?;
    let same = file(folder.path(), "same.json", &web)?;
    let mut other = web.clone();
    other["spec"]["replicas"] = json!(7);
    let other = file(folder.path(), "other.json", &other)?;
    let map = file(folder.path(), "map.json", &config_map(ns, "settings", &json!({"limit": "1000"})))?;
    let free = file(folder.path(), "free.json", &config_map(ns, "approved", &json!({"limit": "1000"})))?;

    let verify = |files: &[&str], more: &[&str]| {
        let files = files.iter().flat_map(|file| ["-f", file]);
        driftguard(
            &on.admin,
            &["verify"].into_iter().chain(files).chain(more.iter().copied()).collect::<Vec<_>>(),
        )
    };
    let said = verify(&[&same, &map, &free], &[])?;
    ensure!(said.code == Some(0), "{said}");
    let rows = format!(
        "Deployment/{ns}/web: matches\nConfigMap/{ns}/settings: matches\nConfigMap/{ns}/approved: not guarded\n"
    );
    ensure!(said.stdout == rows, "{said}");
    let said = verify(&[&free], &["--all-guarded"])?;
    ensure!(said.code == Some(1), "{said}");
    let said = verify(&[&other], &[])?;
    ensure!(
        said.code == Some(1) && said.stdout.starts_with(&format!("Deployment/{ns}/web: differs (")),
        "{said}"
    );
    Ok(())
}

#[test]
fn what_drifted_is_shown_line_by_line_and_of_secrets_by_key_alone() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-diff")?;
    let guard = &guarded(on, ns)?;
    let web = deployment(ns, "web");
    on.apply(&web)?.success()?;
    on.pin_live(ns, "deployment/web")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": ns},
        "stringData": {"password": "planted-old-value", "user": "me"},
    });
    on.apply(&secret)?.success()?;
    let hash = hash_of(&on.get(ns, "secret/login")?)?;
    let patch = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {"name": "login-guard", "namespace": ns},
        "spec": {"targetKind": "Secret", "targetName": "login", "expectedHash": hash, "enforcement": "Audit"},
    });
    on.apply(&patch)?.success()?;
    let same = driftguard(&on.admin, &["diff", guard, "-n", ns])?;
    ensure!(same.code == Some(0) && same.stdout.is_empty(), "{same}");

    let open = ["exception", "open", guard, "-n", ns, "--for", "1h", "--reason", "test"];
    driftguard(&on.admin, &open)?.success()?;
    edit(on, ns, "2000")?.success()?;
    let differs = driftguard(&on.admin, &["diff", TARGET, "-n", ns])?;
    ensure!(differs.code == Some(1), "{differs}");
    let wanted = format!(
        "--- configmap {ns}/approved\n+++ ConfigMap/{ns}/settings (live)\n@@ -1 +1 @@\n-limit: \"1000\"\n+limit: \"2000\"\n"
    );
    ensure!(differs.stdout == wanted, "{differs}");
    let paths = driftguard(&on.admin, &["diff", TARGET, "-n", ns, "-o", "paths"])?;
    ensure!(paths.stdout.ends_with("(live)\n~ /data/limit\n"), "{paths}");

    // A file of a kind with defaults, although the gate lets nobody write it.
    let folder = tempfile::tempdir()?;
    let mut other = web.clone();
    other["spec"]["replicas"] = json!(7);
    let other = file(folder.path(), "other.json", &other)?;
    let differs = driftguard(&on.admin, &["diff", "deploy/web", "-n", ns, "-f", &other])?;
    ensure!(differs.code == Some(1) && differs.stderr.contains("is not what DriftGuard"), "{differs}");
    let changed: Vec<&str> =
        differs.stdout.lines().skip(2).filter(|line| line.starts_with(['-', '+'])).collect();
    ensure!(changed == ["-replicas: 7", "+replicas: 1"], "{differs}");

    let mut later = secret;
    later["stringData"] = json!({"password": "planted-new-value", "more": "planted-key-value"});
    let later = file(folder.path(), "secret.json", &later)?;
    let differs = driftguard(&on.admin, &["diff", "secret/login", "-n", ns, "-f", &later])?;
    ensure!(differs.code == Some(1), "{differs}");
    ensure!(differs.stdout.ends_with("- /data/more\n~ /data/password\n+ /data/user\n"), "{differs}");
    ensure!(!differs.to_string().contains("planted") && !differs.to_string().contains(&hash), "{differs}");
    let missing = driftguard(&on.admin, &["diff", "secret/login", "-n", ns])?;
    ensure!(missing.code == Some(0), "its live content is approved: {missing}");
    Ok(())
}

#[test]
fn case_68_new_content_is_approved_and_written_without_a_moment_of_drift() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-approve")?;
    let guard = &guarded(on, ns)?;
    let folder = tempfile::tempdir()?;
    let new = file(folder.path(), "new.json", &config_map(ns, "settings", &json!({"limit": "2000"})))?;
    let approve = |more: &[&str]| {
        driftguard(&on.admin, &[&["approve", guard.as_str(), "-n", ns.as_str()][..], more].concat())
    };
    let before = on.get(ns, &format!("dg/{guard}"))?;
    let unasked = approve(&["-f", &new])?;
    ensure!(unasked.code == Some(2) && unasked.stderr.contains("repeat it with --yes"), "{unasked}");
    ensure!(unasked.stderr.contains("+limit: \"2000\""), "the difference is shown: {unasked}");
    for place in ["client", "server"] {
        approve(&["-f", &new, "--dry-run", place])?.success()?;
    }
    let after = on.get(ns, &format!("dg/{guard}"))?;
    ensure!(before["spec"] == after["spec"], "a dry run changed {after}");

    on.admin.kubectl(&["label", TARGET, "-n", ns, "kept=yes"])?.success()?;
    let said = approve(&["-f", &new, "--yes", "--reason", "release 12"])?.success()?;
    ensure!(said == format!("configmap/settings changed\ndriftguard/{guard} approved\n"), "{said}");
    let map = on.get(ns, TARGET)?;
    ensure!(map["data"]["limit"] == "2000" && map["metadata"]["labels"]["kept"] == "yes", "{map}");
    let now = on.get(ns, &format!("dg/{guard}"))?;
    ensure!(now["spec"]["expectedHash"] == hash_of(&map)?.as_str(), "{now}");
    ensure!(now["spec"]["alsoApproved"].as_array().is_none_or(Vec::is_empty), "{now}");
    ensure!(
        now["metadata"]["annotations"]["driftguard.terrafusion.ai/approved-because"] == "release 12",
        "{now}"
    );
    let now = wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    ensure!(now["status"]["lastDrift"].is_null(), "it drifted in between: {}", now["status"]);
    ensure!(approve(&["-f", &new, "--yes"])?.success()?.ends_with("approves this already\n"));

    // What a refusal named is approved by its hash, and then passes.
    let refused = on.refused(ns, TARGET, || edit(on, ns, "3000"))?;
    let image = refused.lines().find_map(|line| line.strip_prefix("image ")).context("no image")?;
    approve(&["--hash", image, "--yes"])?.success()?;
    until("the approved write passes", LIMIT, || edit(on, ns, "3000")?.success())?;
    on.refused(ns, TARGET, || edit(on, ns, "4000"))?;

    // What is written under an exception is approved as it stands.
    let open = ["exception", "open", TARGET, "-n", ns, "--for", "1h", "--reason", "test", "--name", "night"];
    driftguard(&on.admin, &open)?.success()?;
    edit(on, ns, "4000")?.success()?;
    approve(&["--live", "--yes"])?.success()?;
    driftguard(&on.admin, &["exception", "close", "night", "-n", ns])?.success()?;
    wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
    ensure!(on.get(ns, TARGET)?["data"]["limit"] == "4000");
    let told = driftguard(&on.admin, &["explain", TARGET, "-n", ns])?;
    ensure!(told.stderr.is_empty(), "something could not be read: {told}");
    let told = told.success()?;
    for part in [
        "pins ConfigMap/every-approve/settings.\n",
        "It was approved by administrator at 2",
        "The last approval by command says: release 12.",
        "are refused; that is proved",
        "The content is approved since 2",
    ] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    Ok(())
}

#[test]
fn a_workload_is_approved_with_its_defaults_and_what_is_not_pinned_stays() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-workload")?;
    let web = deployment(ns, "web");
    on.apply(&web)?.success()?;
    let ignore = ["--ignore-path", "/spec/replicas"];
    let guard = driftguard(&on.admin, &[&["guard", "deploy/web", "-n", ns.as_str()][..], &ignore].concat())?
        .success()?;
    on.admin.kubectl_with(&["apply", "-f", "-"], guard)?.success()?;
    on.wait_enforcing(ns, "web-guard")?;
    on.admin.kubectl(&["scale", "deploy/web", "-n", ns, "--replicas=3"])?.success()?;
    let folder = tempfile::tempdir()?;
    let mut next = web;
    next["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/app:2");
    let next = file(folder.path(), "next.json", &next)?;
    let approved = driftguard(&on.admin, &["approve", "deploy/web", "-n", ns, "-f", &next, "--yes"])?;
    let shown: Vec<&str> =
        approved.stderr.lines().filter(|line| line.starts_with(['-', '+'])).skip(2).collect();
    ensure!(
        shown == ["-    - image: registry.example/app:1", "+    - image: registry.example/app:2"],
        "{approved}"
    );
    approved.success()?;
    let live = on.get(ns, "deploy/web")?;
    ensure!(live["spec"]["replicas"] == 3, "what is not pinned was written: {}", live["spec"]);
    ensure!(live["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/app:2", "{live}");
    let seen = wait_for(on, ns, "web-guard", "Drifted", "False", "InSync")?;
    ensure!(seen["status"]["lastDrift"].is_null(), "{}", seen["status"]);
    let verified = driftguard(&on.admin, &["verify", "-f", &next])?;
    ensure!(verified.code == Some(0), "{verified}");
    Ok(())
}

#[test]
fn case_42_no_command_tells_a_value_or_a_hash_of_a_secret() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-secret")?;
    let rights =
        driftguard(&on.admin, &["manifests", "rbac", "--for", "Secret", "--in", ns, "--remediation"])?;
    on.admin.kubectl_with(&["apply", "-f", "-"], rights.success()?)?.success()?;
    let secret = |password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": ns},
            "stringData": {"password": password},
        })
    };
    on.apply(&secret("planted-old-value"))?.success()?;
    let hash = hash_of(&on.get(ns, "secret/login")?)?;
    on.pin(ns, "secret/login", &hash, &json!({}))?;
    let folder = tempfile::tempdir()?;
    let next = file(folder.path(), "next.json", &secret("planted-new-value"))?;
    let mut said = String::new();
    for command in [
        &["verify", "-f", &next][..],
        &["verify", "-f", &next, "-o", "json"],
        &["diff", "secret/login", "-n", ns, "-f", &next],
        &["diff", "secret/login", "-n", ns, "-f", &next, "-o", "json"],
        &["approve", "secret/login", "-n", ns, "-f", &next],
        &["approve", "secret/login", "-n", ns, "-f", &next, "--dry-run", "server"],
        &["approve", "secret/login", "-n", ns, "-f", &next, "--yes"],
        &["diff", "secret/login", "-n", ns],
        &["restore", "secret/login", "-n", ns],
        &["explain", "secret/login", "-n", ns],
    ] {
        let ran = driftguard(&on.admin, command)?;
        said.push_str(&format!("{}{}", ran.stdout, ran.stderr));
    }
    let now = hash_of(&on.get(ns, "secret/login")?)?;
    ensure!(now != hash, "the new content was approved and written: {said}");
    for leak in ["planted", "cGxhbnRlZ", &hash, &now] {
        ensure!(!said.contains(leak), "{leak} is told: {said}");
    }
    ensure!(said.contains("~ /data/password"), "{said}");
    Ok(())
}

#[test]
fn who_lacks_a_right_is_told_in_a_line_and_changes_nothing() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-rights")?;
    let guard = &guarded(on, ns)?;
    let before = on.get(ns, &format!("dg/{guard}"))?["spec"].clone();
    // May change guards of the namespace and look at its objects, and not change these.
    let rule = [
        "create",
        "role",
        "guards",
        "--verb=get,list,patch",
        "--resource=driftguards.terrafusion.ai",
        "-n",
        ns,
    ];
    on.admin.kubectl(&rule)?.success()?;
    let bind = |name: &str, role: &str| {
        on.admin.kubectl(&["create", "rolebinding", name, role, "--user=ivy", "-n", ns])?.success()
    };
    bind("guards", "--role=guards")?;
    bind("view", "--clusterrole=view")?;
    let ivy = on.plane.user("ivy", &[])?;
    let folder = tempfile::tempdir()?;
    let new = file(folder.path(), "new.json", &config_map(ns, "settings", &json!({"limit": "2000"})))?;
    until("the rights are there", LIMIT, || {
        ivy.kubectl(&["get", &format!("dg/{guard}"), "-n", ns])?.success().map(drop)
    })?;
    for command in [
        &["approve", guard, "-n", ns, "-f", &new, "--yes"][..],
        &["approve", TARGET, "-n", ns, "--hash", &"ab".repeat(32), "--yes"],
        &["suspend", guard, "-n", ns, "--for", "1h", "--reason", "why"],
        &["restore", guard, "-n", ns],
        &["exception", "open", guard, "-n", ns, "--for", "1h", "--reason", "why"],
    ] {
        let refused = driftguard(&ivy, command)?;
        ensure!(refused.code == Some(2) && refused.stdout.is_empty(), "{refused}");
        let last = refused.stderr.lines().last().unwrap_or_default();
        ensure!(last.starts_with("error: "), "{refused}");
    }
    ensure!(on.get(ns, &format!("dg/{guard}"))?["spec"] == before, "the guard was changed");
    ensure!(on.get(ns, TARGET)?["data"]["limit"] == "1000", "the object was changed");
    Ok(())
}

#[test]
fn an_approval_that_cannot_be_written_leaves_what_was_approved() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("every-unwritten")?;
    let guard = &guarded(on, ns)?;
    let before = on.get(ns, &format!("dg/{guard}"))?["spec"].clone();
    // Whoever may change the guard's target by the letter of the law, but not this way.
    let folder = tempfile::tempdir()?;
    let new = file(folder.path(), "new.json", &config_map(ns, "settings", &json!({"limit": "2000"})))?;
    on.admin
        .kubectl(&["annotate", &format!("dg/{guard}"), "-n", ns, "argocd.argoproj.io/tracking-id=app"])?
        .success()?;
    let refused = driftguard(&on.admin, &["approve", guard, "-n", ns, "-f", &new, "--yes"])?;
    ensure!(
        refused.code == Some(2) && refused.stderr.contains("Argo CD applies driftguard/settings-guard"),
        "{refused}"
    );
    let manifest = format!(
        "# reviewed by risk\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: {guard}}}\nspec:\n  targetKind: ConfigMap\n  targetName: settings\n  expectedHash: {} # release 11\n",
        before["expectedHash"].as_str().unwrap_or_default()
    );
    let path = folder.path().join("guard.yaml");
    std::fs::write(&path, &manifest)?;
    let write = path.display().to_string();
    let said =
        driftguard(&on.admin, &["approve", guard, "-n", ns, "-f", &new, "--write", &write])?.success()?;
    ensure!(said == format!("{write} edited\n"), "{said}");
    let after = std::fs::read_to_string(&path)?;
    ensure!(
        after.starts_with("# reviewed by risk\n") && after.ends_with(" # release 11\n") && after != manifest,
        "{after}"
    );
    ensure!(on.get(ns, &format!("dg/{guard}"))?["spec"] == before, "the cluster was changed");

    // Refused by another rule of the cluster: the first half is undone.
    let quota = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "every-unwritten"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "object.metadata.namespace != 'every-unwritten'", "message": "frozen"}],
        },
    });
    on.apply(&quota)?.success()?;
    on.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "every-unwritten"},
        "spec": {"policyName": "every-unwritten", "validationActions": ["Deny"]},
    }))?
    .success()?;
    until("the policy is in force", LIMIT, || {
        let said =
            on.admin.kubectl(&["label", TARGET, "-n", ns, "a=b", "--overwrite", "--dry-run=server"])?;
        ensure!(said.stderr.contains("frozen"), "{said}");
        Ok(())
    })?;
    let failed = driftguard(&on.admin, &["approve", guard, "-n", ns, "-f", &new, "--yes", "--force"])?;
    ensure!(failed.code == Some(2) && failed.stderr.contains("frozen"), "{failed}");
    ensure!(failed.stderr.contains("nothing was approved"), "{failed}");
    let spec = on.get(ns, &format!("dg/{guard}"))?["spec"].clone();
    ensure!(spec["expectedHash"] == before["expectedHash"], "{spec}");
    ensure!(spec["alsoApproved"].as_array().is_none_or(Vec::is_empty), "{spec}");
    Ok(())
}
