//! Guards are guarded: who may make one, who is known to have, and what nobody can forge.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{Output, User, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, driftguard, hash_of};

const AUTHOR: &str = "driftguard.terrafusion.ai/author";

fn on() -> Result<&'static Installation> {
    Installation::shared(Via::Url)
}

fn guard(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut all = json!({"targetKind": "ConfigMap", "targetName": "x", "expectedHash": "a".repeat(64)});
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": name, "namespace": namespace}, "spec": all,
    })
}

fn create(user: &User, object: &Value) -> Result<Output> {
    user.kubectl_with(&["create", "-f", "-"], object.to_string())
}

/// What the annotation says, read without its signature being checked.
fn author(on: &Installation, namespace: &str, name: &str) -> Result<Value> {
    let found = on.get(namespace, &format!("dg/{name}"))?;
    let text = found["metadata"]["annotations"][AUTHOR].as_str().context("no author is noted")?;
    Ok(serde_json::from_str(text)?)
}

/// What a guard is but for its status, which we write ourselves.
fn approved(on: &Installation, namespace: &str, name: &str) -> Result<Value> {
    let mut found = on.get(namespace, &format!("dg/{name}"))?;
    let object = found.as_object_mut().context("no object")?;
    object.remove("status");
    object["metadata"].as_object_mut().context("no metadata")?.remove("resourceVersion");
    Ok(found)
}

/// Runs `write`, which must fail, and checks that it has changed nothing of a guard.
fn refused(
    on: &Installation,
    namespace: &str,
    name: &str,
    write: impl FnOnce() -> Result<Output>,
) -> Result<String> {
    let before = approved(on, namespace, name)?;
    let said = write()?.failure()?;
    let after = approved(on, namespace, name)?;
    ensure!(before == after, "refused, yet changed:\n{before}\n{after}");
    Ok(said)
}

/// A user who may write guards in this namespace, and nothing else.
fn writer_of_guards(on: &Installation, namespace: &str, name: &str) -> Result<User> {
    let user = on.plane.user(name, &["team"])?;
    allow(on, namespace, name, "get,list,create,update,patch,delete", "driftguards.terrafusion.ai")?;
    Ok(user)
}

fn allow(on: &Installation, namespace: &str, user: &str, verbs: &str, resource: &str) -> Result<()> {
    let role = format!("{user}-{}", resource.replace(['.', '/'], "-"));
    let verbs = format!("--verb={verbs}");
    let resource = format!("--resource={resource}");
    on.admin.kubectl(&["create", "role", &role, &verbs, &resource, "-n", namespace])?.success()?;
    let (role_flag, user) = (format!("--role={role}"), format!("--user={user}"));
    on.admin
        .kubectl(&["create", "rolebinding", &role, &role_flag, &user, "-n", namespace])?
        .success()
        .map(drop)
}

#[test]
fn case_38_only_who_may_change_the_target_may_change_its_guard() -> Result<()> {
    let (on, ns) = (on()?, "authors-38");
    on.namespace(ns)?;
    on.apply(&config_map(ns, "x", &json!({"a": "1"})))?.success()?;
    create(&on.admin, &guard(ns, "g", &json!({})))?.success()?;
    let eve = writer_of_guards(on, ns, "eve")?;
    let patch =
        |user: &User, patch: &str| user.kubectl(&["patch", "dg/g", "-n", ns, "--type=merge", "-p", patch]);
    let spec = format!(r#"{{"spec":{{"expectedHash":"{}"}}}}"#, "b".repeat(64));
    until("its status stands", LIMIT, || {
        let conditions = on.get(ns, "dg/g")?["status"]["conditions"].to_string();
        ensure!(conditions.contains("Enforcing"), "{conditions}");
        Ok(())
    })?;
    let said = refused(on, ns, "g", || patch(&eve, &spec))?;
    ensure!(said.contains("update configmaps x in namespace authors-38"), "{said}");
    // Labels approve nothing.
    patch(&eve, r#"{"metadata":{"labels":{"by":"eve"}}}"#)?.success()?;
    ensure!(author(on, ns, "g")?["user"] == on.admin.name(), "a label is no approval");
    // A forged author is put back, whoever forges it.
    let before = author(on, ns, "g")?;
    let forged = json!({"metadata": {"annotations": {AUTHOR: r#"{"user":"root"}"#}}}).to_string();
    patch(&on.admin, &forged)?.success()?;
    let gone = json!({"metadata": {"annotations": {AUTHOR: null}}}).to_string();
    patch(&on.admin, &gone)?.success()?;
    ensure!(author(on, ns, "g")? == before, "the annotation was edited");
    allow(on, ns, "eve", "update", "configmaps")?;
    until("the right has arrived", LIMIT, || patch(&eve, &spec)?.success())?;
    ensure!(author(on, ns, "g")?["user"] == "eve", "a change is signed by whoever makes it");
    // Deletion is never refused, only recorded.
    eve.kubectl(&["delete", "dg/g", "-n", ns])?.success()?;
    let log = until("it is recorded", LIMIT, || {
        let log = on.serve.log();
        ensure!(log.contains("GuardDeleted"));
        Ok(log)
    })?;
    let records: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record["schema"].is_string() && record["guard"]["namespace"] == ns)
        .collect();
    let of = |reason: &str| records.iter().find(|record| record["reason"] == reason);
    for (reason, user) in [
        ("GuardCreated", on.admin.name()),
        ("AuthorLacksRights", "eve"),
        ("GuardChanged", "eve"),
        ("GuardDeleted", "eve"),
    ] {
        let record = of(reason).with_context(|| format!("no record {reason} in {records:?}"))?;
        ensure!(record["user"]["name"] == user, "{record}");
    }
    Ok(())
}

#[test]
fn case_40_who_lacks_rights_learns_nothing_about_the_target() -> Result<()> {
    let (on, ns, other) = (on()?, "authors-40", "authors-40-other");
    on.namespace(ns)?;
    on.namespace(other)?;
    let user = writer_of_guards(on, ns, "spy")?;
    let ask = || -> Result<String> {
        let secret = json!({"targetKind": "Secret", "targetNamespace": other, "autoRemediate": true,
            "sourceOfTruthRef": {"kind": "git", "name": "repo", "namespace": other, "path": "x.yaml"},
            "fallbackSourceRefs": [{"kind": "service", "name": "web", "namespace": other}]});
        on.not_made(ns, "dg/g", || create(&user, &guard(ns, "g", &secret)))
    };
    let missing = ask()?;
    create(
        &on.admin,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": other}}),
    )?
    .success()?;
    ensure!(missing == ask()?, "it tells whether the Secret exists");
    for right in [
        "get secrets x in",
        "update secrets x in",
        "create secrets in",
        "delete secrets x in",
        "get secrets repo in",
        "get services/proxy web in",
    ] {
        ensure!(missing.contains(right), "{right} is not in {missing}");
    }
    Ok(())
}

#[test]
fn case_50_a_second_guard_of_one_target_is_refused_and_case_72_a_renamed_one_taken() -> Result<()> {
    let (on, ns) = (on()?, "authors-50");
    on.namespace(ns)?;
    create(&on.admin, &guard(ns, "first", &json!({})))?.success()?;
    let second = guard(ns, "second", &json!({"expectedHash": "b".repeat(64)}));
    let said = on.not_made(ns, "dg/second", || create(&on.admin, &second))?;
    ensure!(said.contains("authors-50/first pins ConfigMap/authors-50/x already"), "{said}");
    let same = guard(ns, "renamed", &json!({"expectedHash": format!("sha256:{}", "A".repeat(64))}));
    create(&on.admin, &same)?.success()?;
    // Of two that agree, one cannot come to differ while the other stands.
    let patch = format!(r#"{{"spec":{{"expectedHash":"{}"}}}}"#, "b".repeat(64));
    let change = || on.admin.kubectl(&["patch", "dg/renamed", "-n", ns, "--type=merge", "-p", &patch]);
    let said = refused(on, ns, "renamed", change)?;
    ensure!(said.contains("authors-50/first pins"), "{said}");
    // Nor can a guard of something else be turned upon it.
    let elsewhere = json!({"targetName": "y", "expectedHash": "b".repeat(64)});
    create(&on.admin, &guard(ns, "elsewhere", &elsewhere))?.success()?;
    let turn = r#"{"spec":{"targetName":"x"}}"#;
    let said = refused(on, ns, "elsewhere", || {
        on.admin.kubectl(&["patch", "dg/elsewhere", "-n", ns, "--type=merge", "-p", turn])
    })?;
    ensure!(said.contains("pins ConfigMap/authors-50/x already"), "{said}");
    on.admin.kubectl(&["delete", "dg/first", "-n", ns])?.success()?;
    until("the first is forgotten", LIMIT, || change()?.success())?;
    Ok(())
}

#[test]
fn case_51_our_own_objects_and_hopeless_specs_are_refused_with_the_reason() -> Result<()> {
    let (on, own) = (on()?, "terrafusion-system");
    let far = "2099-01-01T00:00:00Z";
    for (spec, reason) in [
        (json!({"targetKind": "Lease", "targetName": "driftguard"}), "is never guarded"),
        (
            json!({"targetKind": "Deployment", "targetName": "driftguard-operator"}),
            "belongs to DriftGuard itself",
        ),
        (json!({"targetKind": "Node", "targetName": "n"}), "is never guarded"),
        (json!({"suspend": {"until": far, "reason": "r"}}), "8 h at most"),
        (
            json!({"sourceOfTruthRef": {"kind": "git", "name": "repo"}}),
            "spec.sourceOfTruthRef.path is missing",
        ),
    ] {
        let hopeless = guard(own, "hopeless", &spec);
        let said = on.not_made(own, "dg/hopeless", || create(&on.admin, &hopeless))?;
        ensure!(said.contains(reason), "{spec}: {said}");
    }
    let mut generated = guard(own, "", &json!({}));
    generated["metadata"] = json!({"generateName": "g-", "namespace": own});
    let said = create(&on.admin, &generated)?.failure()?;
    ensure!(said.contains("generateName cannot be used"), "{said}");
    let made = on.admin.kubectl(&["get", "dg", "-n", own, "-o", "name"])?.success()?;
    ensure!(!made.contains("/g-"), "refused, yet made: {made}");
    Ok(())
}

#[test]
fn a_guard_may_come_before_the_crd_of_its_kind_by_who_may_do_everything() -> Result<()> {
    let (on, ns) = (on()?, "authors-early");
    on.namespace(ns)?;
    let early =
        guard(ns, "early", &json!({"targetKind": "Gizmo", "targetApiVersion": "early.example.com/v1"}));
    let made = create(&on.admin, &early)?;
    ensure!(made.stderr.contains("pins nothing yet"), "{made}");
    made.success()?;
    let user = writer_of_guards(on, ns, "early-bird")?;
    let later =
        guard(ns, "later", &json!({"targetKind": "Gizmo", "targetApiVersion": "early.example.com/v1"}));
    let said = on.not_made(ns, "dg/later", || create(&user, &later))?;
    ensure!(said.contains("update *.early.example.com"), "{said}");
    Ok(())
}

#[test]
fn dry_runs_and_repeated_applies_are_stable() -> Result<()> {
    let (on, ns) = (on()?, "authors-stable");
    on.namespace(ns)?;
    let object = guard(ns, "g", &json!({}));
    on.apply(&object)?.success()?;
    let version = || Ok::<_, anyhow::Error>(on.get(ns, "dg/g")?["metadata"]["annotations"][AUTHOR].clone());
    let before = version()?;
    for arguments in [
        &["apply", "-f", "-"][..],
        &["apply", "--dry-run=server", "-f", "-"],
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &["replace", "-f", "-"],
    ] {
        let said = on.admin.kubectl_with(arguments, object.to_string())?.success()?;
        ensure!(version()? == before, "{arguments:?} signs anew: {said}");
    }
    let diff = on.admin.kubectl_with(&["diff", "-f", "-"], object.to_string())?;
    ensure!(!diff.stdout.contains(AUTHOR), "{diff}");
    // A dry run is judged alike and recorded nowhere.
    let dry = ["create", "--dry-run=server", "-f", "-"];
    let refused = guard(ns, "dry-second", &json!({"expectedHash": "b".repeat(64)}));
    on.not_made(ns, "dg/dry-second", || on.admin.kubectl_with(&dry, refused.to_string()))?;
    // Records are written in order: once what came after it is recorded, so would it be.
    let marker = guard(ns, "real-second", &json!({"expectedHash": "b".repeat(64)}));
    on.not_made(ns, "dg/real-second", || create(&on.admin, &marker))?;
    let log = until("what is no dry run is recorded", LIMIT, || {
        let log = on.serve.log();
        ensure!(log.contains("real-second"));
        Ok(log)
    })?;
    ensure!(!log.contains("dry-second"), "a dry run was recorded");
    Ok(())
}

#[test]
fn who_else_writes_the_target_is_named_in_a_warning() -> Result<()> {
    let (on, ns) = (on()?, "authors-rivals");
    on.namespace(ns)?;
    let object = config_map(ns, "x", &json!({"a": "1"})).to_string();
    on.admin
        .kubectl_with(&["apply", "--server-side", "--field-manager=some-operator", "-f", "-"], object)?
        .success()?;
    let made = create(&on.admin, &guard(ns, "g", &json!({})))?;
    ensure!(made.stderr.contains("also written by field manager some-operator"), "{made}");
    Ok(())
}

/// A guard that stands as a backup, or a time without a webhook, would have left it: written while the
/// mutating webhook is away, then with the webhooks back. On an installation of its own.
#[test]
fn case_71_a_guard_of_an_unknown_author_is_enforced_until_it_is_adopted() -> Result<()> {
    let on = Installation::start(Via::Url, driftguard_control_plane::Version::Newest)?;
    let ns = on.namespace("authors-71")?;
    on.apply(&config_map(&ns, "x", &json!({"a": "1"})))?.success()?;
    let hash = hash_of(&on.get(&ns, "configmap/x")?)?;
    on.apply(&guard(&ns, "g", &json!({"expectedHash": hash})))?.success()?;
    on.wait_enforcing(&ns, "g")?;
    let unknown = |wanted: bool| {
        until("the status tells of the author", LIMIT, || {
            let conditions = on.get(&ns, "dg/g")?["status"]["conditions"].to_string();
            ensure!(conditions.contains("NoValidSignature") == wanted, "{conditions}");
            Ok(())
        })
    };
    unknown(false)?;

    // Another key in place of ours: what a restore into another cluster, or a lost key, comes to.
    let key = "A".repeat(43) + "=";
    let patch = json!({"data": {"key": key}}).to_string();
    on.admin
        .kubectl(&[
            "patch",
            "secret/driftguard-signing",
            "-n",
            "terrafusion-system",
            "--type=merge",
            "-p",
            &patch,
        ])?
        .success()?;
    unknown(true)?;
    on.refused(&ns, "configmap/x", || {
        on.admin.kubectl(&["patch", "configmap/x", "-n", &ns, "--type=merge", "-p", r#"{"data":{"a":"2"}}"#])
    })?;
    until("it is told as an Event", LIMIT, || {
        let events = on.admin.kubectl(&["get", "events.events.k8s.io", "-n", &ns, "-o", "json"])?.json()?;
        let told = events["items"].as_array().into_iter().flatten();
        ensure!(told.filter(|event| event["reason"] == "AuthorUnknown").count() == 1, "{events}");
        Ok(())
    })?;
    ensure!(on.health("/metrics")?.contains("driftguard_guards_of_unknown_author 1"));
    let said = driftguard(&on.admin, &["adopt", "--all", "-n", &ns])?.success()?;
    ensure!(said.contains(&format!("adopted: ConfigMap x in {ns}")), "{said}");
    unknown(false)?;
    ensure!(author(&on, &ns, "g")?["user"] == on.admin.name());

    // Whoever adopts must have the rights.
    let eve = writer_of_guards(&on, &ns, "eve")?;
    let said = refused(&on, &ns, "g", || driftguard(&eve, &["adopt", "g", "-n", &ns]))?;
    ensure!(said.contains("update configmaps x"), "{said}");

    // With the mutating webhook away the gate takes nothing unsigned.
    let said = until("a guard is made while nothing signs", LIMIT, || {
        // It is put back within a second or so, and ever later the more often it is taken away.
        let gone = ["delete", "mutatingwebhookconfiguration", "driftguard", "--ignore-not-found"];
        on.admin.kubectl(&gone)?.success()?;
        let made = create(&on.admin, &guard(&ns, "unsigned", &json!({"targetName": "y"})))?;
        if made.succeeded() {
            on.admin.kubectl(&["delete", "dg/unsigned", "-n", &ns])?.success()?;
        }
        made.failure()
    })?;
    ensure!(said.contains("is not signed as approved by"), "{said}");

    // The race of two guards, as it looks when neither review saw the other one.
    let rival = guard(&ns, "rival", &json!({"expectedHash": "b".repeat(64)}));
    until("two guards stand that differ", LIMIT, || {
        let gone = ["delete", "validatingwebhookconfiguration", "driftguard", "--ignore-not-found"];
        on.admin.kubectl(&gone)?.success()?;
        create(&on.admin, &rival)?.success()
    })?;
    for name in ["g", "rival"] {
        let wait = ["wait", "--for=condition=Conflict", "--timeout=60s", "-n", &ns, &format!("dg/{name}")];
        on.admin.kubectl(&wait)?.success()?;
    }
    on.admin.kubectl(&["delete", "dg/rival", "-n", &ns])?.success()?;
    let wait = ["wait", "--for=condition=Ready", "--timeout=60s", "-n", &ns, "dg/g"];
    on.admin.kubectl(&wait)?.success()?;
    ensure!(!on.get(&ns, "dg/g")?["status"]["conditions"].to_string().contains("ConflictingGuards"));
    Ok(())
}

#[test]
fn with_every_replica_dead_labels_and_deletion_pass_and_approvals_do_not() -> Result<()> {
    let on = Installation::start(Via::Url, driftguard_control_plane::Version::Older)?;
    let ns = on.namespace("authors-dead")?;
    on.apply(&guard(&ns, "g", &json!({})))?.success()?;
    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT)?;
    let patch = |patch: &str| on.admin.kubectl(&["patch", "dg/g", "-n", &ns, "--type=merge", "-p", patch]);
    patch(r#"{"metadata":{"labels":{"a":"b"},"finalizers":["example.com/hold"]}}"#)?.success()?;
    patch(r#"{"metadata":{"finalizers":null}}"#)?.success()?;
    let said = refused(&on, &ns, "g", || patch(r#"{"spec":{"autoRemediate":true}}"#))?;
    ensure!(said.contains("see-driftguard-breakglass"), "{said}");
    let forged = json!({"metadata": {"annotations": {AUTHOR: "{}"}}}).to_string();
    refused(&on, &ns, "g", || patch(&forged))?;
    let said = refused(&on, &ns, "g", || driftguard(&on.admin, &["adopt", "g", "-n", &ns]))?;
    ensure!(said.contains("adopting the guard"), "{said}");
    on.admin.kubectl(&["delete", "dg/g", "-n", &ns])?.success()?;
    Ok(())
}

#[test]
fn a_guard_as_large_as_they_get_is_made_changed_and_labelled() -> Result<()> {
    let (on, ns) = (on()?, "authors-large");
    on.namespace(ns)?;
    let path = |number: usize| format!("/data/{number:02}{}", "p".repeat(1024 - 8));
    let paths: Vec<String> = (0..64).map(path).collect();
    let source = json!({"kind": "configmap", "name": "s", "path": "k".repeat(1024)});
    let also = json!({"hash": "c".repeat(64), "reason": "r".repeat(200)});
    let spec = json!({
        "ignorePaths": paths, "alsoApproved": vec![also; 10],
        "sourceOfTruthRef": source, "fallbackSourceRefs": vec![source.clone(); 8],
    });
    // The condition that tells approvals from other writes must stay within CEL's cost.
    create(&on.admin, &guard(ns, "g", &spec))?.success()?;
    let before = author(on, ns, "g")?;
    on.admin.kubectl(&["label", "dg/g", "-n", ns, "a=b"])?.success()?;
    ensure!(author(on, ns, "g")? == before);
    let patch = r#"{"spec":{"autoRemediate":true}}"#;
    on.admin.kubectl(&["patch", "dg/g", "-n", ns, "--type=merge", "-p", patch])?.success()?;
    ensure!(author(on, ns, "g")? != before);
    Ok(())
}
