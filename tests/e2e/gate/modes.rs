//! The four modes of enforcement, and what a rewrite leaves behind: nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use driftguard_control_plane::Output;
use serde_json::{Value, json};

use crate::installation::{Installation, config_map, deployment, driftguard, hash_of, is_attempt};

const TARGET: &str = "configmap/prices";

fn prices(namespace: &str, price: &str) -> Value {
    config_map(namespace, "prices", &json!({"price": price, "currency": "EUR"}))
}

fn pinned(on: &Installation, namespace: &str, object: &str, enforcement: &str) -> Result<String> {
    let hash = hash_of(&on.get(namespace, object)?)?;
    on.pin(namespace, object, &hash, &json!({"enforcement": enforcement}))
}

/// The whole object, owners of fields included.
fn whole(on: &Installation, namespace: &str, object: &str) -> Result<Value> {
    on.admin.kubectl(&["get", object, "-n", namespace, "-o", "json", "--show-managed-fields"])?.json()
}

fn merge(on: &Installation, namespace: &str, object: &str, patch: &str) -> Result<Output> {
    on.admin.kubectl(&["patch", object, "-n", namespace, "--type=merge", "-p", patch])
}

pub(super) fn case_05_replace_force_with_other_content_makes_nothing(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    for (name, mode) in [("by-deny", "Deny"), ("by-rewrite", "Rewrite")] {
        let object = format!("configmap/{name}");
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
        pinned(on, ns, &object, mode)?;
        let replace = |a: &str| {
            let content = config_map(ns, name, &json!({"a": a})).to_string();
            on.admin.kubectl_with(&["replace", "--force", "-f", "-"], content)
        };
        let said = replace("2")?.failure()?;
        ensure!(said.contains("its content is not the approved one"), "{said}");
        ensure!(mode == "Deny" || said.contains("not put back: there is no stored content"), "{said}");
        on.admin.kubectl(&["get", &object, "-n", ns])?.failure()?;
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
    }
    Ok(())
}

pub(super) fn case_08_a_rewrite_keeps_the_original_and_warns(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&prices(ns, "100"))?.success()?;
    pinned(on, ns, TARGET, "Rewrite")?;
    let patched = merge(on, ns, TARGET, r#"{"data":{"price":"999","extra":"1"}}"#)?;
    ensure!(patched.stderr.contains("/data/extra, /data/price were put back"), "{patched}");
    patched.success()?;
    ensure!(on.get(ns, TARGET)?["data"] == prices(ns, "100")["data"]);
    // What is not pinned stays.
    merge(on, ns, TARGET, r#"{"metadata":{"labels":{"team":"risk"}},"data":{"price":"999"}}"#)?.success()?;
    let after = on.get(ns, TARGET)?;
    ensure!(after["metadata"]["labels"]["team"] == "risk" && after["data"]["price"] == "100", "{after}");
    // A dry run shows what would be stored.
    let shown = on.admin.kubectl(&[
        "patch",
        TARGET,
        "-n",
        ns,
        "--type=merge",
        "--dry-run=server",
        "-o",
        "json",
        "-p",
        r#"{"data":{"price":"999"}}"#,
    ])?;
    ensure!(shown.json()?["data"]["price"] == "100");
    Ok(())
}

pub(super) fn case_67_a_rewrite_is_no_write_at_all(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&prices(ns, "100"))?.success()?;
    pinned(on, ns, TARGET, "Rewrite")?;
    let model =
        crate::installation::gama_config(ns, "model", &json!({"rate": 0.5, "deep": {"list": [1, 2]}}));
    on.apply(&model)?.success()?;
    pinned(on, ns, "gamaconfig/model", "Rewrite")?;
    on.apply(&deployment(ns, "app"))?.success()?;
    pinned(on, ns, "deployment/app", "Rewrite")?;
    let image = r#"[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"}]"#;
    let mut other = model.clone();
    other["spec"]["parameters"]["rate"] = json!(9);
    let mut scaled = deployment(ns, "app");
    scaled["spec"]["replicas"] = json!(4);
    let replaced = |object: &Value| on.admin.kubectl_with(&["replace", "-f", "-"], object.to_string());
    let writes: [(&str, &dyn Fn() -> Result<Output>); 7] = [
        (TARGET, &|| merge(on, ns, TARGET, r#"{"data":{"price":"999"}}"#)),
        // Leaves its content in the last-applied annotation otherwise.
        (TARGET, &|| on.apply(&prices(ns, "999"))),
        (TARGET, &|| merge(on, ns, TARGET, r#"{"data":null}"#)),
        ("gamaconfig/model", &|| on.apply(&other)),
        ("deployment/app", &|| {
            on.admin.kubectl(&["patch", "deployment/app", "-n", ns, "--type=json", "-p", image])
        }),
        ("deployment/app", &|| on.apply(&scaled)),
        ("gamaconfig/model", &|| {
            merge(on, ns, "gamaconfig/model", r#"{"spec":{"parameters":{"deep":{"list":[9]}}}}"#)
        }),
    ];
    for (number, (object, write)) in writes.into_iter().enumerate() {
        let before = whole(on, ns, object)?;
        let said = write()?;
        ensure!(said.stderr.contains("put back"), "write {number}: {said}");
        said.success()?;
        let after = whole(on, ns, object)?;
        ensure!(before == after, "write {number} was one:\n{before}\n{after}");
    }
    // A replace drops what an apply remembers, and gets it back as well.
    let before = whole(on, ns, TARGET)?;
    replaced(&prices(ns, "999"))?.success()?;
    ensure!(before == whole(on, ns, TARGET)?);
    Ok(())
}

pub(super) fn case_09_nothing_is_put_back_into_a_drifted_object(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&prices(ns, "200"))?.success()?;
    on.pin(ns, TARGET, &hash_of(&prices(ns, "100"))?, &json!({"enforcement": "Rewrite"}))?;
    let said = on.refused(ns, TARGET, || merge(on, ns, TARGET, r#"{"data":{"price":"999"}}"#))?;
    ensure!(said.contains("not put back: what is stored is not what DriftGuard"), "{said}");
    ensure!(!said.contains("100"), "approved content in {said}");
    on.apply(&prices(ns, "100"))?.success()?;
    Ok(())
}

pub(super) fn what_cannot_be_rewritten_is_refused_with_the_reason(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&prices(ns, "100"))?.success()?;
    pinned(on, ns, TARGET, "Rewrite")?;
    let said = on.refused(ns, TARGET, || {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        on.admin.kubectl_with(&arguments, prices(ns, "999").to_string())
    })?;
    ensure!(said.contains("not put back: a server-side apply is refused"), "{said}");
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": ns}, "stringData": {"k": value}});
    on.apply(&secret("old-canary"))?.success()?;
    pinned(on, ns, "secret/s", "Rewrite")?;
    let said =
        on.refused(ns, "secret/s", || merge(on, ns, "secret/s", r#"{"stringData":{"k":"new-canary"}}"#))?;
    ensure!(said.contains("not put back: Secrets are refused") && !said.contains("sha256"), "{said}");
    Ok(())
}

pub(super) fn ignored_paths_are_left_as_a_rewrite_finds_them(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&deployment(ns, "app"))?.success()?;
    let live = on.get(ns, "deployment/app")?;
    let ignored = json!(["/spec/replicas", "/spec/template/spec/containers/[name=app]/image"]);
    let paths: Vec<String> = serde_json::from_value(ignored.clone())?;
    let filter = driftguard::core::paths::PathFilter::ignoring(&paths)?;
    let scope = driftguard::core::scope::Scope::new("apps", "Deployment", filter);
    let hash = driftguard::core::canonical::hash_object(live.to_string().as_bytes(), &scope)?.to_string();
    on.pin(ns, "deployment/app", &hash, &json!({"enforcement": "Rewrite", "ignorePaths": ignored}))?;
    let patch = r#"{"spec":{"replicas":3,"paused":true,"template":{"spec":{"hostNetwork":true,"containers":[{"name":"app","image":"registry.example/app:2","command":["evil"]},{"name":"evil","image":"evil"}]}}}}"#;
    let said = on.admin.kubectl(&["patch", "deployment/app", "-n", ns, "-p", patch])?;
    ensure!(said.stderr.contains("put back"), "{said}");
    said.success()?;
    let mut want = live["spec"].clone();
    want["replicas"] = json!(3);
    want["template"]["spec"]["containers"][0]["image"] = json!("registry.example/app:2");
    let after = on.get(ns, "deployment/app")?;
    ensure!(after["spec"] == want, "{}\n{want}", after["spec"]);
    Ok(())
}

pub(super) fn warn_and_audit_let_through_and_record(on: &Installation, ns: &str) -> Result<()> {
    let mut guards = Vec::new();
    for (name, mode) in [("seen", "Audit"), ("told", "Warn"), ("kept", "Deny")] {
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
        let hash = hash_of(&config_map(ns, name, &json!({"a": "1"})))?;
        let guard = format!("{name}-{}", ns.len());
        on.apply(&json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": format!("{guard}-{ns}").chars().take(60).collect::<String>(), "namespace": ns},
            "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash, "enforcement": mode},
        }))?
        .success()?;
        guards.push(format!("{guard}-{ns}").chars().take(60).collect::<String>());
    }
    on.wait_enforcing(ns, &guards[2])?;
    let change = |name: &str| merge(on, ns, &format!("configmap/{name}"), r#"{"data":{"a":"2"}}"#);
    let audited = change("seen")?;
    ensure!(!audited.stderr.contains("Warning"), "{audited}");
    audited.success()?;
    let warned = change("told")?;
    ensure!(
        warned.stderr.contains("Warning: ConfigMap/") && warned.stderr.contains("/data/a would change"),
        "{warned}"
    );
    warned.success()?;
    for name in ["seen", "told"] {
        let written = on.get(ns, &format!("configmap/{name}"))?;
        ensure!(written["data"]["a"] == "2", "let through, yet not written: {written}");
    }
    on.refused(ns, "configmap/kept", || change("kept"))?;
    for (guard, mode) in guards.iter().zip(["Audit", "Warn"]) {
        let records = on.records_of(guard, &guards[2])?;
        ensure!(
            records.iter().any(|record| record["enforcement"] == mode && record["kind"] == "observation"),
            "{records:?}"
        );
    }
    Ok(())
}

/// What becomes of an unapproved write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    PutBack,
    Warned,
    Silent,
}

pub(super) fn mixed_modes_of_one_object_add_up_and_both_hooks_agree(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    const MODES: [&str; 4] = ["Deny", "Rewrite", "Warn", "Audit"];
    let fate = |pair: [&str; 2]| match MODES.iter().position(|mode| pair.contains(mode)) {
        Some(0) => Fate::Refused,
        Some(1) => Fate::PutBack,
        Some(2) => Fate::Warned,
        _ => Fate::Silent,
    };
    // In either order, since guards are asked in the order of their names.
    let pairs: Vec<[&str; 2]> = MODES.iter().flat_map(|a| MODES.map(|b| [*a, b])).collect();
    let name = |pair: [&str; 2]| format!("{}-{}", pair[0], pair[1]).to_lowercase();
    let list = |items: Vec<Value>| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let approved = json!({"a": "1", "b": "1"});
    let hash = hash_of(&config_map(ns, "any", &approved))?;
    let guard = |target: &str, name: String, mode: &str| {
        json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": ns},
            "spec": {"targetKind": "ConfigMap", "targetName": target, "expectedHash": hash, "enforcement": mode}})
    };
    // Drifted, so that nothing can be put back.
    let drifted = config_map(ns, "drifted", &json!({"a": "0"}));
    let objects = pairs.iter().map(|pair| config_map(ns, &name(*pair), &approved)).chain([drifted]);
    on.apply(&list(objects.collect()))?.success()?;
    let of_pair =
        |pair: &[&str; 2]| [0, 1].map(|at| guard(&name(*pair), format!("{}-{at}", name(*pair)), pair[at]));
    let of_drifted =
        [guard("drifted", "drifted-0".into(), "Audit"), guard("drifted", "drifted-1".into(), "Rewrite")];
    let guards: Vec<Value> = pairs.iter().flat_map(of_pair).chain(of_drifted).collect();
    on.apply(&list(guards))?.success()?;
    on.admin
        .kubectl(&["wait", "dg", "--all", "-n", ns, "--for=condition=Ready", "--timeout=60s"])?
        .success()?;
    let write = |object: &str| merge(on, ns, object, r#"{"data":{"a":"2"}}"#);
    for pair in &pairs {
        let object = format!("configmap/{}", name(*pair));
        let fate = fate(*pair);
        let before = whole(on, ns, &object)?;
        let said = write(&object)?;
        let after = whole(on, ns, &object)?;
        ensure!(said.succeeded() == (fate != Fate::Refused), "{pair:?}: {said}");
        let warned = said.stderr.contains("Warning");
        ensure!(warned == matches!(fate, Fate::PutBack | Fate::Warned), "{pair:?}: {said}");
        ensure!(
            said.stderr.contains("put back") == (fate == Fate::PutBack) || fate == Fate::Refused,
            "{pair:?}: {said}"
        );
        match fate {
            Fate::Refused | Fate::PutBack => ensure!(before == after, "{pair:?}:\n{before}\n{after}"),
            Fate::Warned | Fate::Silent => ensure!(after["data"]["a"] == "2", "{pair:?}: {after}"),
        }
        // What all approve passes, whatever they do with the rest.
        let back = merge(on, ns, &object, r#"{"data":{"a":"1"}}"#)?;
        ensure!(!back.stderr.contains("Warning"), "{pair:?}: {back}");
        back.success()?;
    }
    let said = on.refused(ns, "configmap/drifted", || write("configmap/drifted"))?;
    ensure!(said.contains("not put back: what is stored is not what DriftGuard"), "{said}");

    on.records_of("drifted-1", "drifted-1")?;
    let log = on.serve.log();
    let records: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["guard"]["namespace"] == ns && is_attempt(line))
        .collect();
    for pair in &pairs {
        let of = |at: usize| -> Vec<&str> {
            let guard = format!("{}-{at}", name(*pair));
            let own = records.iter().filter(|record| record["guard"]["name"] == guard.as_str());
            own.filter_map(|record| record["kind"].as_str()).collect()
        };
        let (first, second) = (of(0), of(1));
        match fate(*pair) {
            Fate::Refused => {
                let denials = [&first[..], &second[..]].concat();
                ensure!(denials == ["denial"], "{pair:?}: {first:?} {second:?}");
            }
            Fate::PutBack => ensure!(first.is_empty() && second.is_empty(), "{pair:?}: {first:?} {second:?}"),
            Fate::Warned | Fate::Silent => {
                ensure!(
                    first == ["observation"] && second == ["observation"],
                    "{pair:?}: {first:?} {second:?}"
                );
            }
        }
    }
    Ok(())
}

pub(super) fn case_76_hash_on_the_server_tells_the_true_hash_in_every_mode(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    for mode in ["Deny", "Rewrite", "Warn"] {
        let name = format!("app-{}", mode.to_lowercase());
        let object = format!("deployment/{name}");
        on.apply(&deployment(ns, &name))?.success()?;
        let mut other = deployment(ns, &name);
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/app:2");
        // What the server would make of it, asked for before anything is guarded.
        let stored = on
            .admin
            .kubectl_with(&["replace", "--dry-run=server", "-o", "json", "-f", "-"], other.to_string())?
            .json()?;
        let hash = hash_of(&on.get(ns, &object)?)?;
        if mode == "Warn" {
            on.apply(&json!({
                "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
                "metadata": {"name": format!("{name}-guard"), "namespace": ns},
                "spec": {"targetKind": "Deployment", "targetName": name, "expectedHash": hash, "enforcement": mode},
            }))?.success()?;
        } else {
            on.pin(ns, &object, &hash, &json!({"enforcement": mode}))?;
        }
        let file = on.plane.folder().join(format!("{ns}-{name}.json"));
        std::fs::write(&file, other.to_string())?;
        let said = driftguard(&on.admin, &["hash", "--server", "-f", &file.to_string_lossy()])?.success()?;
        ensure!(said.contains(&hash_of(&stored)?), "{mode}: {said}\n{}", hash_of(&stored)?);
        ensure!(hash_of(&on.get(ns, &object)?)? == hash, "a dry run was stored");
    }
    Ok(())
}

pub(super) fn case_61_eight_writers_store_nothing_that_is_not_approved(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    for (name, mode) in [("raced-deny", "Deny"), ("raced-rewrite", "Rewrite")] {
        let object = format!("configmap/{name}");
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
        pinned(on, ns, &object, mode)?;
        let passed = AtomicUsize::new(0);
        std::thread::scope(|scope| -> Result<()> {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (object, passed) = (&object, &passed);
                    scope.spawn(move || -> Result<()> {
                        for round in 0..4 {
                            // Some change labels, and with that the resourceVersion under all others.
                            let patch = if writer % 2 == 0 {
                                format!(r#"{{"metadata":{{"labels":{{"w{writer}":"{round}"}}}}}}"#)
                            } else {
                                format!(r#"{{"data":{{"a":"{writer}{round}"}},"metadata":{{"labels":{{"w{writer}":"{round}"}}}}}}"#)
                            };
                            if merge(on, ns, object, &patch)?.succeeded() {
                                passed.fetch_add(1, Ordering::Relaxed);
                            }
                            let data = on.get(ns, object)?["data"].clone();
                            ensure!(data == json!({"a": "1"}), "unapproved content was stored: {data}");
                        }
                        Ok(())
                    })
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
        })?;
        let least = if mode == "Deny" { 16 } else { 32 };
        ensure!(
            passed.load(Ordering::Relaxed) >= least,
            "{passed:?} writes of approved content passed under {mode}"
        );
    }
    Ok(())
}
