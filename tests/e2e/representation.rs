//! Stored objects that read otherwise although nobody has written them: by another version of the API server, which
//! is no drift, or by another definition of their kind, which is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{Backend, Balancer, ControlPlane, Version, free_port, until};
use serde_json::{Value, json};

use crate::auditing::{REMEDIATION, wait_for};
use crate::installation::{Installation, LIMIT, Via, config_map, deployment, driftguard, hash_of};

/// How long it is watched that nothing is written.
const QUIET: Duration = Duration::from_secs(5);

fn stateful_set(namespace: &str, name: &str) -> Value {
    let mut made = deployment(namespace, name);
    made["kind"] = json!("StatefulSet");
    made["spec"]["serviceName"] = json!(name);
    made
}

/// An object that is to be put back when it drifts, known to be in sync.
fn pinned(on: &Installation, namespace: &str, manifest: &Value) -> Result<String> {
    until("it is made", LIMIT, || on.apply(manifest)?.success())?;
    let kind = manifest["kind"].as_str().context("no kind")?.to_lowercase();
    let object = format!("{kind}/{}", manifest["metadata"]["name"].as_str().context("no name")?);
    let hash = hash_of(&on.get(namespace, &object)?)?;
    let guard = on.pin(namespace, &object, &hash, &json!({"autoRemediate": true}))?;
    wait_for(on, namespace, &guard, "Drifted", "False", "InSync")?;
    Ok(guard)
}

/// Lets objects of a kind be watched, as a guard that lacks the rights says.
fn give_rights(on: &Installation, namespace: &str, kind: &str) -> Result<()> {
    let rights =
        driftguard(&on.admin, &["manifests", "rbac", "--for", kind, "--in", namespace])?.success()?;
    on.admin.kubectl_with(&["apply", "-f", "-"], rights)?.success().map(drop)
}

/// Watches for a while that objects are as they were, to the resource version.
fn stay(on: &Installation, namespace: &str, before: &[(&str, Value)]) -> Result<()> {
    let since = std::time::Instant::now();
    until("some time has passed", LIMIT, || {
        for (object, was) in before {
            let now = on.get(namespace, object)?["metadata"]["resourceVersion"].clone();
            ensure!(now == was["metadata"]["resourceVersion"], "{object} was written");
        }
        ensure!(since.elapsed() >= QUIET, "{:?}", since.elapsed());
        Ok(())
    })
}

fn installed(version: Version) -> Result<Installation> {
    let plane = ControlPlane::builder().kubernetes(version).start()?;
    let flags = ["--audit-interval=30s".to_owned()];
    let on = Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    Ok(on)
}

#[test]
fn case_62_objects_that_another_version_of_the_api_server_reads_otherwise_have_not_drifted() -> Result<()> {
    upgraded(true)
}

#[test]
fn case_62_nor_have_they_for_a_leader_that_starts_after_the_api_server_was_replaced() -> Result<()> {
    upgraded(false)
}

/// Replaces the API server by a newer one, while the auditor runs or while it does not.
fn upgraded(is_running: bool) -> Result<()> {
    let mut on = installed(Version::Older)?;
    let ns = on.namespace("case-62-audited")?;
    for kind in ["statefulsets.apps", "deployments.apps"] {
        give_rights(&on, &ns, kind)?;
    }
    let names = ["statefulset/first", "statefulset/second", "deployment/web", "configmap/settings"];
    let mut guards = Vec::new();
    for manifest in [
        stateful_set(&ns, "first"),
        stateful_set(&ns, "second"),
        deployment(&ns, "web"),
        config_map(&ns, "settings", &json!({"a": "1"})),
    ] {
        guards.push(pinned(&on, &ns, &manifest)?);
    }
    let noted = |on: &Installation, guard: &str| {
        Ok::<_, anyhow::Error>(on.get(&ns, &format!("dg/{guard}"))?["status"].clone())
    };
    let status = noted(&on, &guards[0])?;
    let server = status["lastMatch"]["serverVersion"].as_str().unwrap_or_default();
    ensure!(server.starts_with("v1.33"), "{status}");
    ensure!(noted(&on, &guards[3])?["lastMatch"].is_null(), "a ConfigMap reads the same by every API server");
    let mut before = Vec::new();
    for name in names {
        before.push((name, on.get(&ns, name)?));
    }

    if !is_running {
        on.serve.signal(Signal::Kill)?;
        on.serve.wait(LIMIT)?;
    }
    on.plane.api_server().kill()?;
    on.plane.api_server().start_again_as(Version::Newest)?;
    if !is_running {
        on.start_again()?;
    }
    ensure!(hash_of(&on.get(&ns, names[0])?)? != hash_of(&before[0].1)?, "it reads as it did");
    for guard in &guards[..2] {
        let seen = until(&format!("{guard} says that it reads otherwise"), 3 * LIMIT, || {
            let status = noted(&on, guard)?;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let drifted = conditions.iter().find(|one| one["type"] == "Drifted").cloned().unwrap_or_default();
            let is_so = drifted["status"] == "False" && drifted["reason"] == "RepresentationChanged";
            ensure!(is_so, "{drifted}\n{}", on.serve.log_tail());
            Ok(status)
        })?;
        let equivalent = &seen["equivalents"][0];
        ensure!(equivalent["serverVersion"].as_str().is_some_and(|is| is.starts_with("v1.37")), "{seen}");
        ensure!(seen["hashMatch"] == true && seen["lastDrift"].is_null(), "{seen}");
        ensure!(seen["lastMatch"]["serverVersion"] == equivalent["serverVersion"], "{seen}");
    }
    stay(&on, &ns, &before)?;
    let log = on.serve.log();
    let kinds = |kind: &str| log.lines().filter(|line| line.contains(&format!(r#""kind":"{kind}""#))).count();
    ensure!(kinds("drift") == 0 && kinds("remediation") == 0, "{}", on.serve.log_tail());
    let announced = log.matches("driftguard approve --representation -A").count();
    ensure!(announced == 1, "it is said {announced} times for the cluster");

    // What the gate takes for approved: the new reading, too, although it has no old object to compare with.
    for name in names {
        let label = ["label", name, "-n", &ns, "seen=newer"];
        on.admin.kubectl(&label)?.success()?;
    }
    on.admin
        .kubectl(&[
            "patch",
            &format!("dg/{}", guards[0]),
            "-n",
            &ns,
            "--type=merge",
            "-p",
            r#"{"spec":{"autoRemediate":false}}"#,
        ])?
        .success()?;
    on.wait_enforcing(&ns, &guards[0])?;
    let changed = r#"{"spec":{"template":{"metadata":{"labels":{"evil":"yes"}}}}}"#;
    on.refused(&ns, names[0], || {
        on.admin.kubectl(&["patch", names[0], "-n", &ns, "--type=merge", "-p", changed])
    })?;
    wait_for(&on, &ns, &guards[0], "Drifted", "False", "RepresentationChanged")?;
    on.admin.kubectl(&["delete", names[0], "-n", &ns])?.success()?;
    let again = stateful_set(&ns, "first");
    on.admin.kubectl_with(&["create", "-f", "-"], again.to_string())?.success()?;
    wait_for(&on, &ns, &guards[0], "Drifted", "False", "RepresentationChanged")?;
    approved_anew(&on, &ns, &guards)
}

fn in_ten_minutes() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10)).to_string()
}

/// Approves what reads otherwise by one command, and nothing that only a forged status says to read so.
fn approved_anew(on: &Installation, ns: &str, guards: &[String]) -> Result<()> {
    let expected = |guard: &str| {
        let hash = on.get(ns, &format!("dg/{guard}"))?["spec"]["expectedHash"].clone();
        Ok::<_, anyhow::Error>(hash.as_str().unwrap_or_default().to_owned())
    };
    let approve = |more: &[&str]| {
        driftguard(&on.admin, &[&["approve", "--representation", "-n", ns][..], more].concat())
    };
    let old = expected(&guards[0])?;
    let new = hash_of(&on.get(ns, "statefulset/first")?)?;
    let shown = approve(&["--dry-run", "server"])?;
    for word in [&guards[0], &guards[1], &old[..16].to_owned(), &new[..16].to_owned()] {
        ensure!(shown.stderr.contains(word.as_str()), "no {word} in {shown}");
    }
    ensure!(shown.success()?.contains(&format!("driftguard/{} would be changed", guards[1])));
    ensure!(expected(&guards[0])? == old, "a dry run has changed it");
    let unasked = approve(&[])?;
    ensure!(unasked.code == Some(2) && unasked.stderr.contains("--yes"), "{unasked}");

    // Whoever may write statuses would else have their own content approved.
    until("a deployment is made", LIMIT, || on.apply(&deployment(ns, "forged"))?.success())?;
    // It only tells, so that it is never said to be enforced.
    let forged = "forged-guard".to_owned();
    on.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": forged, "namespace": ns},
        "spec": {"targetKind": "deployment", "targetName": "forged", "expectedHash": "ab".repeat(32),
            "enforcement": "Audit"},
    }))?
    .success()?;
    let evil = hash_of(&on.get(ns, "deployment/forged")?)?;
    until("the gate is believed, and not the status", LIMIT, || {
        let generation = on.get(ns, &format!("dg/{forged}"))?["metadata"]["generation"].clone();
        let status = json!({"status": {
            "currentHash": evil,
            "equivalents": [{"hash": evil, "serverVersion": "v1.37.0", "signature": "c2lnbmVk"}],
            "conditions": [{"type": "Drifted", "status": "False", "reason": "RepresentationChanged",
                "message": "forged", "observedGeneration": generation,
                "lastTransitionTime": "2026-11-27T00:00:00Z"}],
        }});
        let patch =
            ["patch", &format!("dg/{forged}"), "-n", ns, "--subresource=status", "--type=merge", "-p"];
        on.admin.kubectl(&[&patch[..], &[&status.to_string()]].concat())?.success()?;
        let refused = approve(&["--yes", &forged])?;
        let is_told = refused.code == Some(2) && refused.stderr.contains("is not approved: compare it");
        ensure!(is_told, "{refused}");
        Ok(())
    })?;
    // Nor what was approved for a while only, or what a definition is said to have changed.
    let object = format!("dg/{forged}");
    let also =
        json!({"spec": {"alsoApproved": [{"hash": evil, "until": in_ten_minutes(), "reason": "a moment"}]}});
    on.admin.kubectl(&["patch", &object, "-n", ns, "--type=merge", "-p", &also.to_string()])?.success()?;
    for (reason, told) in [
        ("RepresentationChanged", "is approved by the guard itself, and not as another reading"),
        ("DefinitionChanged", "somebody edited the definition of its kind"),
    ] {
        until("it is left all the same", LIMIT, || {
            let guard = on.get(ns, &object)?;
            let live = on.get(ns, "deployment/forged")?;
            let condition = json!({"type": "Drifted", "status": "False", "reason": reason, "message": "forged",
                "observedGeneration": guard["metadata"]["generation"],
                "lastTransitionTime": "2026-11-27T00:00:00Z"});
            let status = json!({"status": {
                "equivalents": [{"hash": evil, "serverVersion": "v1.37.0", "signature": "c2lnbmVk"}],
                "lastMatch": {"hash": evil, "uid": live["metadata"]["uid"],
                    "resourceVersion": live["metadata"]["resourceVersion"], "serverVersion": "v1.33.0",
                    "signature": "c2lnbmVk"},
                "conditions": [condition],
            }});
            let patch = ["patch", &object, "-n", ns, "--subresource=status", "--type=merge", "-p"];
            on.admin.kubectl(&[&patch[..], &[&status.to_string()]].concat())?.success()?;
            let refused = approve(&["--yes", &forged])?;
            ensure!(refused.code == Some(2) && refused.stderr.contains(told), "{refused}");
            Ok(())
        })?;
    }
    ensure!(expected(&forged)? == "ab".repeat(32), "it was approved");
    on.admin.kubectl(&["delete", &format!("dg/{forged}"), "-n", ns])?.success()?;

    // What a tool applies is left to it, and holds up nothing else.
    let tool = format!("dg/{}", guards[1]);
    on.admin.kubectl(&["label", &tool, "-n", ns, "app.kubernetes.io/managed-by=Helm"])?.success()?;
    on.admin.kubectl(&["annotate", &tool, "-n", ns, "meta.helm.sh/release-name=shop"])?.success()?;
    let done = approve(&["--yes", "--reason", "Kubernetes 1.37"])?;
    ensure!(done.code == Some(2), "{done}");
    ensure!(done.stdout == format!("driftguard/{} approved\n", guards[0]), "{done}");
    let left = format!("not approved: driftguard/{}: Helm applies", guards[1]);
    ensure!(done.stderr.contains(&left), "{done}");
    ensure!(expected(&guards[0])? == new, "it was not approved");
    wait_for(on, ns, &guards[0], "Drifted", "False", "InSync")?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("guard.yaml");
    let manifest = on.get(ns, &tool)?;
    let manifest = json!({"apiVersion": manifest["apiVersion"], "kind": manifest["kind"],
        "metadata": {"name": guards[1]}, "spec": manifest["spec"]});
    std::fs::write(&file, manifest.to_string())?;
    let file = file.display().to_string();
    approve(&["--yes", "--write", &file])?.success()?;
    let written = std::fs::read_to_string(&file)?;
    ensure!(written.contains(&hash_of(&on.get(ns, "statefulset/second")?)?), "{written}");
    approve(&["--yes", "--force"])?.success()?;
    wait_for(on, ns, &guards[1], "Drifted", "False", "InSync")?;
    let again = approve(&[])?;
    ensure!(again.success()?.starts_with("nothing to approve"));
    Ok(())
}

#[test]
fn no_other_reading_is_approved_while_api_servers_of_two_versions_answer() -> Result<()> {
    let plane =
        ControlPlane::builder().kubernetes(Version::Older).and_api_server_of(Version::Newest).start()?;
    let on = Installation::start_on(plane, free_port()?, Via::Url, &[])?;
    // Both count as ready for as long as DriftGuard is.
    let backends = on
        .plane
        .api_servers()
        .iter()
        .map(|server| Backend { address: ([127, 0, 0, 1], server.port()).into(), readyz: on.readyz() });
    let balancer = Balancer::start(backends.collect())?;
    balancer.wait_ready(2, LIMIT)?;
    let address = format!("https://127.0.0.1:{}", balancer.port());
    let ns = on.namespace("two-versions")?;
    until("it is made", LIMIT, || on.apply(&stateful_set(&ns, "first"))?.success())?;
    let hash = hash_of(&on.get(&ns, "statefulset/first")?)?;
    let guard = on.pin(&ns, "statefulset/first", &hash, &json!({}))?;
    let patch = ["patch", &format!("dg/{guard}"), "-n", &ns, "--subresource=status", "--type=merge", "-p"];
    let mixed = until("the mix is seen", LIMIT, || {
        let generation = on.get(&ns, &format!("dg/{guard}"))?["metadata"]["generation"].clone();
        let status = json!({"status": {"conditions": [{"type": "Drifted", "status": "False",
            "reason": "RepresentationChanged", "message": "", "observedGeneration": generation,
            "lastTransitionTime": "2026-11-27T00:00:00Z"}]}});
        on.admin.kubectl(&[&patch[..], &[&status.to_string()]].concat())?.success()?;
        let refused = driftguard(
            &on.admin,
            &["approve", "--representation", "-n", &ns, "--yes", "--api-server", &address],
        )?;
        ensure!(refused.code == Some(2) && refused.stderr.contains("several versions answer"), "{refused}");
        Ok(refused)
    })?;
    for version in ["v1.33", "v1.37"] {
        ensure!(mixed.stderr.contains(version), "{mixed}");
    }
    Ok(())
}

#[test]
fn case_75_an_object_that_reads_otherwise_by_an_edited_definition_has_drifted_and_is_left_alone() -> Result<()>
{
    let on = installed(Version::Newest)?;
    let ns = on.namespace("case-75-audited")?;
    on.apply(&gadgets(&json!({"size": {"type": "integer"}})))?.success()?;
    give_rights(&on, &ns, "gadgets.example.com")?;
    let gadget = json!({
        "apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g", "namespace": ns},
        "spec": {"size": 1},
    });
    let guard = pinned(&on, &ns, &gadget)?;
    let mut other = gadget.clone();
    other["metadata"]["name"] = json!("h");
    let rested = pinned(&on, &ns, &other)?;
    // Written since it was last told, which leaves the content alone.
    on.admin.kubectl(&["label", "gadget/g", "-n", &ns, "a=b"])?.success()?;
    let before = [("gadget/g", on.get(&ns, "gadget/g")?)];
    let more = json!({"size": {"type": "integer"}, "colour": {"type": "string", "default": "red"}});
    on.apply(&gadgets(&more))?.success()?;
    let seen = until("it says that the definition was edited", 3 * LIMIT, || {
        let seen = on.get(&ns, &format!("dg/{guard}"))?;
        let drifted = crate::auditing::condition(&seen, "Drifted").unwrap_or_default();
        let is_so = drifted["status"] == "True" && drifted["reason"] == "DefinitionChanged";
        ensure!(is_so, "{drifted}\n{}", on.serve.log_tail());
        Ok(seen)
    })?;
    ensure!(seen["status"]["equivalents"].is_null(), "{}", seen["status"]);
    until("it is alerted at once", LIMIT, || {
        let seen = on.get(&ns, &format!("dg/{guard}"))?;
        ensure!(seen["status"]["alerted"] == true, "{}", seen["status"]);
        Ok(())
    })?;
    stay(&on, &ns, &before)?;

    // Nobody signs it, so that it is left, named or not, until somebody has looked.
    wait_for(&on, &ns, &rested, "Drifted", "True", "DefinitionChanged")?;
    let approve = ["approve", "--representation", "-n", &ns, "--yes"];
    for more in
        [&[][..], &["--kind", "gadgets"], &[rested.as_str()], &["--kind", "deployments", rested.as_str()]]
    {
        let left = driftguard(&on.admin, &[&approve[..], more].concat())?;
        let why = if more.len() == 3 {
            "of no kind that --kind names"
        } else {
            "edited the definition of its kind"
        };
        ensure!(left.code == Some(2) && left.stdout.is_empty() && left.stderr.contains(why), "{left}");
    }
    driftguard(&on.admin, &["approve", "-n", &ns, &rested, "--live", "--yes"])?.success()?;
    wait_for(&on, &ns, &rested, "Drifted", "False", "InSync").map(drop)
}

/// The definition of Gadgets whose spec has these properties.
pub(crate) fn gadgets(spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}}]},
    })
}
