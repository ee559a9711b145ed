//! Least privilege, checked by the API server itself: its audit log says which rights the operator used
//! and whether any was missing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, until};
use serde_json::{Value, json};

use crate::installation::{
    Installation, LIMIT, Via, config_map, deployment, driftguard, gama_config, hash_of,
};

const OPERATOR: &str = "system:serviceaccount:terrafusion-system:driftguard-operator";
const NAMESPACE: &str = "terrafusion-system";

/// Rights that are given and not used by [`STEPS`], each with the reason: group, resource, verb.
const UNUSED: [(&str, &str, &str, &str); 5] = [
    (
        "",
        "configmaps",
        "list",
        "servers without streaming lists, and sweeps each ten minutes; `audit_watch` does it",
    ),
    ("terrafusion.ai", "gamaconfigs", "list", "the same"),
    ("", "services", "get", "a Service that is a source is read when its guard drifts; `sources` does it"),
    (
        "",
        "secrets",
        "update",
        "an authority is replaced after a year; `certificates` does it in seconds, with this account",
    ),
    (
        "coordination.k8s.io",
        "leases",
        "delete",
        "what a dead replica left goes after minutes; `replicas` kills some",
    ),
];

/// One thing done in a namespace of its own.
type Step = fn(&Installation, &str) -> Result<()>;

/// What the operator must have had occasion to do. A feature that needs a right adds a step that uses it.
const STEPS: [(&str, Step); 9] = [
    ("proves a guard by a ConfigMap, and refuses, which becomes an Event", |on, ns| {
        on.apply(&config_map(ns, "settings", &json!({"a": "1"})))?.success()?;
        on.pin_live(ns, "configmap/settings")?;
        let change = ["patch", "configmap/settings", "-n", ns, "--type=merge", "-p", r#"{"data":{"a":"2"}}"#];
        for _ in 0..3 {
            on.refused(ns, "configmap/settings", || on.admin.kubectl(&change))?;
        }
        Ok(())
    }),
    ("proves a guard by a GAMAConfig alone", |on, ns| {
        on.admin.kubectl(&["delete", "driftguards", "--all", "-n", ns])?.success()?;
        on.apply(&gama_config(ns, "model", &json!({"rate": 1})))?.success()?;
        on.pin_live(ns, "gamaconfig/model").map(drop)
    }),
    ("compares rules where nothing may be patched", |on, ns| {
        on.admin.kubectl(&["delete", "driftguards", "--all", "-n", ns])?.success()?;
        on.apply(&deployment(ns, "app"))?.success()?;
        on.pin_live(ns, "deployment/app").map(drop)
    }),
    ("reads the workload whose count a Scale changes", |on, ns| {
        for (kind, group) in [
            ("Deployment", "apps/v1"),
            ("ReplicaSet", "apps/v1"),
            ("StatefulSet", "apps/v1"),
            ("ReplicationController", "v1"),
        ] {
            let name = kind.to_lowercase();
            let mut workload = deployment(ns, &name);
            (workload["apiVersion"], workload["kind"]) = (json!(group), json!(kind));
            if kind == "ReplicationController" {
                workload["spec"]["selector"] = json!({"app": name});
            }
            on.apply(&workload)?.success()?;
            let object = format!("{name}/{name}");
            on.pin_live(ns, &object)?;
            on.refused(ns, &object, || on.admin.kubectl(&["scale", &object, "-n", ns, "--replicas=7"]))?;
        }
        Ok(())
    }),
    ("reads the Pod that is bound to a node", |on, ns| {
        on.admin.kubectl(&["create", "serviceaccount", "default", "-n", ns])?;
        on.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns},
            "spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]}}))?
            .success()?;
        on.pin_live(ns, "pod/p")?;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "namespace": ns},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n"}});
        let place = format!("/api/v1/namespaces/{ns}/pods/p/binding");
        on.refused(ns, "pod/p", || {
            on.admin.kubectl_with(&["create", "--raw", &place, "-f", "-"], binding.to_string())
        })
        .map(drop)
    }),
    ("reads the namespace of a target that may not be deleted", |on, ns| {
        let hash = hash_of(&on.get(ns, "configmap/settings")?)?;
        on.pin(ns, "configmap/settings", &hash, &json!({"deletionPolicy": "Deny"}))?;
        on.refused(ns, "configmap/settings", || on.admin.kubectl(&["delete", "configmap/settings", "-n", ns]))
            .map(drop)
    }),
    ("learns a new kind, and where its count stands", |on, ns| {
        let kind = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "subresources": {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                    "schema": {"openAPIV3Schema": {"type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]},
        });
        on.apply(&kind)?.success()?;
        // Nobody sums up aggregated roles here, so the rights are given in the namespace.
        let rights = ["manifests", "rbac", "--for", "widgets.example.com", "--in", ns];
        let rights = driftguard(&on.admin, &rights)?.success()?;
        on.admin.kubectl_with(&["apply", "-f", "-"], rights)?.success()?;
        let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"size": 1},
            "metadata": {"name": "w", "namespace": ns}});
        until("the kind is served", LIMIT, || on.apply(&widget)?.success())?;
        on.pin_live(ns, "widget/w").map(drop)
    }),
    ("says in the status of an exception what it pauses", |on, ns| {
        let until_then = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30)).to_string();
        on.apply(&json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
            "metadata": {"name": "hotfix", "namespace": ns},
            "spec": {"guards": {"all": true}, "until": until_then, "reason": "why"}}))?
            .success()?;
        let wait = ["wait", "--for=condition=Active", "--timeout=60s", "dge/hotfix", "-n", ns];
        on.admin.kubectl(&wait)?.success()?;
        on.admin.kubectl(&["delete", "dge/hotfix", "-n", ns])?.success().map(drop)
    }),
    ("makes deleted webhook configurations again", |on, ns| {
        for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
            on.admin.kubectl(&["delete", kind, "driftguard"])?.success()?;
            until("it is made again", LIMIT, || on.admin.kubectl(&["get", kind, "driftguard"])?.success())?;
        }
        on.wait_enforcing(ns, "app-guard")
    }),
];

/// One right: group, resource with its subresource, verb, and the name when only that is allowed.
type Right = (String, String, String, Option<String>);

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Every right that the roles of the operator give.
fn granted(on: &Installation) -> Result<BTreeSet<Right>> {
    let mut all = BTreeSet::new();
    for role in [
        &["get", "clusterrole", "driftguard-operator", "-o", "json"][..],
        &["get", "role", "driftguard-operator", "-n", NAMESPACE, "-o", "json"],
        &["get", "role", "driftguard-operator", "-n", "default", "-o", "json"],
    ] {
        let role = on.admin.kubectl(role)?.json()?;
        for rule in role["rules"].as_array().context("a role without rules")? {
            let named = texts(&rule["resourceNames"]);
            let names: Vec<Option<String>> =
                if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        for name in &names {
                            all.insert((group.clone(), resource.clone(), verb.clone(), name.clone()));
                        }
                    }
                }
            }
        }
    }
    Ok(all)
}

/// What the operator asked for, with the code of the answer.
fn asked(on: &Installation) -> Result<Vec<(Right, u64)>> {
    let entries = on.plane.audit_log()?;
    let of_operator = entries.iter().filter(|entry| entry["user"]["username"] == OPERATOR);
    Ok(of_operator
        .filter_map(|entry| {
            let object = entry.get("objectRef")?;
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let resource = match text("subresource") {
                sub if sub.is_empty() => text("resource"),
                sub => format!("{}/{sub}", text("resource")),
            };
            let verb = entry["verb"].as_str().unwrap_or_default().to_owned();
            let code = entry["responseStatus"]["code"].as_u64().unwrap_or_default();
            Some(((text("apiGroup"), resource, verb, object["name"].as_str().map(str::to_owned)), code))
        })
        .collect())
}

#[test]
fn every_right_is_used_and_none_is_missing() -> Result<()> {
    let on = Installation::on(ControlPlane::builder().audited().start()?, Via::Url)?;
    let ns = on.namespace("rights")?;
    for (what, step) in STEPS {
        step(&on, &ns).with_context(|| format!("the operator {what}"))?;
    }
    let granted = granted(&on)?;
    ensure!(granted.len() > 20, "{granted:?}");
    let excused = |right: &Right| {
        UNUSED
            .iter()
            .any(|(group, resource, verb, _)| (*group, *resource, *verb) == (&right.0, &right.1, &right.2))
    };
    for (group, resource, verb, why) in UNUSED {
        let given =
            |right: &Right| (right.0.as_str(), right.1.as_str(), right.2.as_str()) == (group, resource, verb);
        ensure!(
            granted.iter().any(given),
            "no longer given, so that it needs no excuse: {verb} {resource} ({why})"
        );
    }
    // Events and statuses are written behind the answers.
    until("every right has been used", LIMIT, || {
        let asked = asked(&on)?;
        let used = |right: &Right| {
            asked.iter().any(|(use_, code)| {
                (&use_.0, &use_.1, &use_.2) == (&right.0, &right.1, &right.2)
                    // An apply that makes what it names is let in by the right to create.
                    && (right.3.is_none() || use_.3 == right.3)
                    && *code != 403
            }) || right.2 == "create"
                && asked.iter().any(|(use_, code)| {
                    (&use_.0, &use_.1) == (&right.0, &right.1) && use_.2 == "patch" && *code == 201
                })
        };
        let unused: Vec<&Right> = granted.iter().filter(|right| !used(right) && !excused(right)).collect();
        ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
        Ok(())
    })?;
    // A kind that is guarded and that nobody gave rights to watch is asked for all the same, and its guard says so.
    let is_ungiven = |right: &Right| {
        matches!(right.2.as_str(), "list" | "watch")
            && !granted.iter().any(|given| (&given.0, &given.1, &given.2) == (&right.0, &right.1, &right.2))
    };
    let forbidden: Vec<Right> = asked(&on)?
        .into_iter()
        .filter(|(right, code)| *code == 403 && !is_ungiven(right))
        .map(|(right, _)| right)
        .collect();
    ensure!(forbidden.is_empty(), "asked for without the right: {forbidden:#?}");
    Ok(())
}

/// Waits until a guard is ready for this reason, and gives what it says.
fn ready(on: &Installation, ns: &str, guard: &str, reason: &str) -> Result<String> {
    until(&format!("Ready is {reason}"), 2 * LIMIT, || {
        let guard = on.get(ns, &format!("dg/{guard}"))?;
        let conditions = guard["status"]["conditions"].as_array().context("no conditions")?;
        let ready = conditions.iter().find(|one| one["type"] == "Ready").context("not Ready yet")?;
        ensure!(ready["status"] == "True" && ready["reason"] == reason, "{ready}");
        Ok(ready["message"].as_str().unwrap_or_default().to_owned())
    })
}

/// Does what a condition says, to the letter.
fn follow(on: &Installation, said: &str) -> Result<()> {
    let command = said.split('`').nth(1).context("no command")?;
    let (print, apply) = command.split_once(" | ").context("no pipe")?;
    let print: Vec<&str> = print.strip_prefix("driftguard ").context("another program")?.split(' ').collect();
    let apply: Vec<&str> = apply.strip_prefix("kubectl ").context("another program")?.split(' ').collect();
    let rule = driftguard(&on.admin, &print)?.success()?;
    on.admin.kubectl_with(&apply, rule)?.success().map(drop)
}

#[test]
fn a_guard_of_a_kind_without_rights_says_so_and_holds_up_nobody() -> Result<()> {
    let on = Installation::on(ControlPlane::builder().audited().start()?, Via::Url)?;
    let ns = on.namespace("rights-of-a-kind")?;
    let kind = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "engines.rights.example.com"},
        "spec": {"group": "rights.example.com", "scope": "Namespaced",
            "names": {"kind": "Engine", "plural": "engines", "singular": "engine", "listKind": "EngineList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]},
    });
    on.apply(&kind)?.success()?;
    let engine = json!({"apiVersion": "rights.example.com/v1", "kind": "Engine", "spec": {"size": 1},
        "metadata": {"name": "e", "namespace": ns}});
    until("the kind is served", LIMIT, || on.apply(&engine)?.success())?;
    let guard = on.pin_live(&ns, "engine/e")?;
    let said = ready(&on, &ns, &guard, "RightsMissing")?;
    ensure!(
        said.contains("may not get, list, watch or patch engines.rights.example.com in namespace"),
        "{said}"
    );
    // It is enforced all the same; only what must be read cannot be judged, and is refused.
    let grow = ["patch", "engine/e", "-n", &ns, "--type=merge", "-p", r#"{"spec":{"size":2}}"#];
    on.refused(&ns, "engine/e", || on.admin.kubectl(&grow))?;
    let scaled = ["scale", "engine/e", "-n", &ns, "--replicas=5"];
    let said = on.refused(&ns, "engine/e", || on.admin.kubectl(&scaled))?;
    ensure!(said.contains("could not be read"), "{said}");
    on.admin.kubectl(&["label", "engine/e", "-n", &ns, "a=b"])?.success()?;
    // Others are registered, proved and told as ever.
    on.apply(&config_map(&ns, "settings", &json!({"a": "1"})))?.success()?;
    let other = on.pin_live(&ns, "configmap/settings")?;
    ready(&on, &ns, &other, "Guarding")?;
    let proved = on.get(&ns, &format!("dg/{other}"))?["status"]["conditions"].to_string();
    ensure!(proved.contains(r#""reason":"Proved""#), "{proved}");
    // Nor is the API server asked again and again for what it refuses: once each for the guard that was
    // made and the Scale that came, and to watch after pauses that grow.
    let refused = || -> Result<Vec<Right>> {
        Ok(asked(&on)?.into_iter().filter(|(_, code)| *code == 403).map(|(right, _)| right).collect())
    };
    let reviews = || -> Result<usize> {
        Ok(asked(&on)?.iter().filter(|(right, _)| right.1 == "selfsubjectaccessreviews").count())
    };
    let (before, asked_before) = (refused()?, reviews()?);
    let watched = before.iter().filter(|right| right.2 == "watch").count();
    ensure!(before.len() - watched <= 4 && watched <= 12, "{before:#?}");
    ready(&on, &ns, &guard, "RightsMissing").and_then(|said| follow(&on, &said))?;
    ready(&on, &ns, &guard, "Guarding")?;
    let asked_after = reviews()?;
    ensure!(asked_after - asked_before < 40, "{asked_before} and then {asked_after} questions");
    let said = on.refused(&ns, "engine/e", || on.admin.kubectl(&scaled))?;
    ensure!(!said.contains("could not be read"), "{said}");
    Ok(())
}

#[test]
fn a_guard_on_a_secret_names_the_missing_right_until_the_namespace_has_it() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("rights-of-secrets")?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"password": "canary"},
        "metadata": {"name": "credentials", "namespace": ns}});
    on.apply(&secret)?.success()?;
    let hash = hash_of(&on.get(&ns, "secret/credentials")?)?;
    let guard = on.pin(&ns, "secret/credentials", &hash, &json!({}))?;
    let said = ready(on, &ns, &guard, "RightsMissing")?;
    ensure!(said.contains("resources [secrets], verbs [get, list, watch, patch]"), "{said}");
    let change = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"password": "other"},
        "metadata": {"name": "credentials", "namespace": ns}});
    on.refused(&ns, "secret/credentials", || on.apply(&change))?;

    let operator = ["auth", "can-i", "patch", "secrets", "--as", OPERATOR, "-n"];
    let may =
        |place: &str| on.admin.kubectl(&[&operator[..], &[place]].concat()).map(|said| said.succeeded());
    ensure!(!may(&ns)?, "a right on Secrets that nobody gave");
    follow(on, &said)?;
    ensure!(may(&ns)? && !may("default")?, "the right must hold in that namespace and nowhere else");
    // Asked again within a minute.
    ready(on, &ns, &guard, "Guarding").map(drop)
}
