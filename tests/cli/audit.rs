//! `audit` against a real API server on which no DriftGuard runs.

use std::time::Duration;

use driftguard_control_plane::{ControlPlane, User, Version, until};
use serde_json::{Value, json};

use crate::live::{Cluster, cluster, driftguard_as};
use crate::run::{Live, Ran, command, run_with};

/// A namespace with one guard in each state that needs nobody to run.
const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: calm}
data: {a: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: changed}
data: {a: "1", b: "2"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: geheim-original}
"#;

fn guard(name: &str, kind: &str, spec: &Value, labels: &Value) -> Value {
    let mut all = json!({"targetKind": kind, "targetName": name, "expectedHash": "0".repeat(64)});
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
           "metadata": {"name": format!("{name}-guard"), "labels": labels}, "spec": all})
}

/// Fills a new namespace: `calm` in sync, `changed` and the Secret `keys` drifted, `gone` missing,
/// `paused` missing and suspended.
fn fill(on: &Cluster, namespace: &str) {
    on.namespace(namespace);
    let apply = |text: &str| {
        on.admin.kubectl_with(&["apply", "-n", namespace, "-f", "-"], text).unwrap().success().unwrap();
    };
    apply(OBJECTS);
    let hash = |object: &str| on.hash(&["-n", namespace, object], "");
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let items = [
        guard("calm", "configmap", &json!({"expectedHash": hash("cm/calm")}), &json!({"team": "web"})),
        guard("changed", "ConfigMap", &json!({"expectedHash": hash("cm/changed")}), &json!({})),
        guard("keys", "Secret", &json!({"expectedHash": hash("secret/keys")}), &json!({"team": "web"})),
        guard("gone", "ConfigMap", &json!({}), &json!({})),
        guard("paused", "ConfigMap", &json!({"suspend": {"until": soon, "reason": "why"}}), &json!({})),
    ];
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    let patch = |object: &str, patch: &str| {
        let arguments = ["patch", object, "-n", namespace, "--type=merge", "-p", patch];
        on.admin.kubectl(&arguments).unwrap().success().unwrap();
    };
    patch("configmap/changed", r#"{"data":{"a":"9"}}"#);
    patch("secret/keys", r#"{"stringData":{"password":"geheim-changed"}}"#);
}

fn audit(on: &Cluster, args: &[&str]) -> Ran {
    on.driftguard(&[&["audit"], args].concat(), "")
}

fn audit_as(user: &User, args: &[&str]) -> Ran {
    let mut command = command(&[&["audit"], args].concat());
    command.env("KUBECONFIG", user.kubeconfig());
    run_with(command, "")
}

/// The report in a run with `-o json`, whatever it came to.
#[track_caller]
fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// `NAME STATE` of each guard of a report.
fn states(report: &Value) -> Vec<String> {
    let of = |entry: &Value| {
        format!("{} {}", entry["guard"]["name"].as_str().unwrap(), entry["state"].as_str().unwrap())
    };
    report["guards"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn each_guard_is_told_with_its_state_and_what_is_known() {
    let on = cluster();
    fill(on, "audit-states");
    let ran = audit(on, &["-n", "audit-states", "-o", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let all = report(&ran);
    assert_eq!(
        states(&all),
        [
            "calm-guard InSync",
            "changed-guard Drifted",
            "gone-guard Missing",
            "keys-guard Drifted",
            "paused-guard Missing"
        ]
    );
    assert_eq!(all["apiVersion"], "report.driftguard.terrafusion.ai/v1");
    assert_eq!(all["summary"]["guards"], 5);
    assert_eq!(all["summary"]["states"], json!({"Missing": 2, "Drifted": 2, "InSync": 1}));
    let guards = all["guards"].as_array().unwrap();
    assert_eq!(guards[4]["also"], json!(["Suspended"]));
    assert_eq!(guards[1]["source"]["state"], "NotNamed");
    assert_eq!(guards[1]["by"]["knownBy"], "Unknown", "two managers each own a key: {}", guards[1]);
    fits(&all, &schema(), &schema(), "report");
    assert!(guards[3].get("expectedHash").is_none() && guards[3].get("currentHash").is_none());
    assert!(guards[1]["currentHash"].as_str().unwrap().len() == 64);

    let table = audit(on, &["-n", "audit-states"]);
    assert_eq!(table.code, Some(1));
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("STATE") && lines.len() == 6, "{}", table.stdout);
    assert!(lines[2].starts_with("Missing") && lines[2].ends_with("also Suspended"), "{}", table.stdout);
    assert_eq!(table.stderr, "5 guards: 1 in sync, 2 drifted, 2 missing\n");
}

#[test]
fn no_format_holds_a_value_or_a_hash_of_a_secret() {
    let on = cluster();
    fill(on, "audit-secrets");
    let live = on.hash(&["-n", "audit-secrets", "secret/keys"], "");
    let get = ["get", "dg/keys-guard", "-n", "audit-secrets", "-o", "jsonpath={.spec.expectedHash}"];
    let approved = on.admin.kubectl(&get).unwrap().success().unwrap();
    assert_eq!((live.len(), approved.len()), (64, 64));
    for format in ["table", "wide", "json", "yaml", "csv", "junit", "sarif", "html", "openreports"] {
        let Ran { code, stdout, stderr } = audit(on, &["-n", "audit-secrets", "-o", format]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stdout.contains("keys-guard"), "{format}: {stdout}");
        for word in ["geheim", "Z2VoZWlt", &live, &approved] {
            assert!(!stdout.contains(word) && !stderr.contains(word), "{word} in {format}: {stdout}");
        }
    }
}

/// The published schema of reports.
fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/audit-report-v1.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds a value against a schema, as far as ours use the language; no field may be unknown to it.
#[track_caller]
fn fits(value: &Value, schema: &Value, root: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(value, root.pointer(name.trim_start_matches('#')).unwrap(), root, at);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let of = |choice: &&Value| match &choice["const"] {
                Value::Null => value.is_null() == (choice["type"] == "null"),
                word => word == value,
            };
            let chosen =
                choices.iter().find(of).unwrap_or_else(|| panic!("{at}: {value} is none of {choices:?}"));
            return fits(value, chosen, root, at);
        }
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at} lacks {name}");
            }
            for (name, field) in fields {
                let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
                let known = known.unwrap_or_else(|| panic!("{at}/{name} is not in the schema"));
                fits(field, known, root, &format!("{at}/{name}"));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                fits(item, &schema["items"], root, &format!("{at}/{index}"));
            }
        }
        scalar => {
            let of = match scalar {
                Value::String(_) => "string",
                Value::Bool(_) => "boolean",
                Value::Null => "null",
                _ => "integer",
            };
            let types = &schema["type"];
            let is = types == of || types.as_array().is_some_and(|all| all.iter().any(|one| one == of));
            let is_enum = schema["enum"].as_array().is_none_or(|words| words.contains(scalar));
            assert!((is || schema["const"] == *scalar) && is_enum, "{at}: {scalar} is not {schema}");
        }
    }
}

#[test]
fn every_field_that_a_report_can_have_is_in_the_published_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/report/snapshots/report.json");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    fits(&report, &schema(), &schema(), "report");
}

#[test]
fn guards_are_chosen_by_name_label_and_kind_of_their_target() {
    let on = cluster();
    fill(on, "audit-chosen");
    let chosen = |args: &[&str]| {
        let ran = audit(on, &[&["-n", "audit-chosen", "-o", "json"], args].concat());
        (states(&report(&ran)), ran.code)
    };
    assert_eq!(chosen(&["calm-guard"]), (vec!["calm-guard InSync".into()], Some(0)));
    let labelled = vec!["calm-guard InSync".to_owned(), "keys-guard Drifted".to_owned()];
    assert_eq!(chosen(&["-l", "team=web"]), (labelled, Some(1)));
    assert_eq!(chosen(&["--kind", "secrets"]), (vec!["keys-guard Drifted".into()], Some(1)));
    assert_eq!(chosen(&["--kind", "secret", "--fail-on", "missing,conflict"]).1, Some(0));
    assert_eq!(chosen(&["paused-guard", "--fail-on", "suspended"]).1, Some(1));
    assert_eq!(chosen(&["calm-guard", "--fail-on", "any"]).1, Some(0));
    assert_eq!(chosen(&["--fail-on", "none"]).1, Some(0));
    let ran = audit(on, &["-n", "audit-chosen", "nobody", "calm-guard"]);
    assert_eq!(
        ran.failure(),
        "error: there is no DriftGuard nobody in namespace audit-chosen; `kubectl get driftguards -A` lists those there are\n"
    );
    let ran = audit(on, &["-n", "audit-chosen", "--kind", "gizmo"]);
    assert!(ran.failure().contains("serves no kind gizmo"));
    let ran = audit(on, &["-n", "no-such-namespace"]);
    let said = "no DriftGuard in namespace no-such-namespace was found to audit\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", said));
    let everywhere = audit(on, &["-A", "-o", "json"]);
    assert!(states(&report(&everywhere)).len() >= 5);
}

#[test]
fn a_target_that_could_not_be_read_is_never_clean() {
    let on = cluster();
    fill(on, "audit-forbidden");
    on.namespace("audit-forbidden-targets");
    let elsewhere =
        guard("a", "ConfigMap", &json!({"targetNamespace": "audit-forbidden-targets"}), &json!({}));
    let unknown = guard("b", "Gizmo", &json!({}), &json!({}));
    for one in [&elsewhere, &unknown] {
        let apply = ["apply", "-n", "audit-forbidden", "-f", "-"];
        on.admin.kubectl_with(&apply, one.to_string()).unwrap().success().unwrap();
    }
    on.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: audit-forbidden}
rules:
- {apiGroups: [terrafusion.ai], resources: [driftguards], verbs: [get, list]}
- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: audit-forbidden}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: auditor}]
",
    );
    let user = on.plane.user("auditor", &[]).unwrap();
    let ran = audit_as(&user, &["-n", "audit-forbidden", "-o", "json"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let all = report(&ran);
    let of = |name: &str| {
        let guards = all["guards"].as_array().unwrap();
        guards.iter().find(|entry| entry["guard"]["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (&of("a-guard")["state"], &of("a-guard")["reason"]),
        (&json!("Unreadable"), &json!("Forbidden"))
    );
    assert_eq!(of("keys-guard")["reason"], "Forbidden");
    assert_eq!(of("b-guard")["reason"], "TargetUnknown");
    assert_eq!(of("calm-guard")["state"], "InSync");
    assert!(ran.stderr.contains("3 could not be told"), "{}", ran.stderr);
    let ran = audit_as(&user, &["-n", "audit-forbidden", "calm-guard"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = audit_as(&user, &["-A"]);
    assert!(ran.failure().starts_with("error: listing DriftGuards: "));
}

#[test]
fn many_targets_are_listed_and_missing_ones_among_them_found() {
    let on = cluster();
    on.namespace("audit-many");
    let objects: Vec<Value> = (0..60)
        .map(|n| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n:02}")},
                   "data": {"n": n.to_string()}})
        })
        .collect();
    let list = |items: &[Value]| json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let create = ["create", "-n", "audit-many", "-f", "-"];
    on.admin.kubectl_with(&create, list(&objects)).unwrap().success().unwrap();
    let guards = on.driftguard(&["guard", "-f", "-", "-n", "audit-many"], &list(&objects)).success();
    on.admin.kubectl_with(&create, guards).unwrap().success().unwrap();
    let delete = ["delete", "configmap", "m07", "-n", "audit-many"];
    on.admin.kubectl(&delete).unwrap().success().unwrap();
    let ran = audit(on, &["-n", "audit-many", "-o", "json"]);
    assert_eq!(report(&ran)["summary"]["states"], json!({"Missing": 1, "InSync": 59}), "{ran:?}");
    assert_eq!(ran.code, Some(1));
}

#[test]
fn a_report_is_written_to_a_file_and_compared_with_later() {
    let on = cluster();
    fill(on, "audit-compared");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("first.json");
    let file = file.to_str().unwrap();
    let ran = audit(on, &["-n", "audit-compared", "-o", "json", "--output-file", file]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let patch =
        ["patch", "configmap/changed", "-n", "audit-compared", "--type=merge", "-p", r#"{"data":{"a":"1"}}"#];
    on.admin.kubectl(&patch).unwrap().success().unwrap();
    for object in ["configmap/calm", "driftguard/gone-guard"] {
        on.admin.kubectl(&["delete", object, "-n", "audit-compared"]).unwrap().success().unwrap();
    }
    let ran = audit(on, &["-n", "audit-compared", "-o", "json", "--from-report", file]);
    let compared = report(&ran)["compared"].clone();
    let count = |field: &str| compared[field].as_u64().unwrap();
    assert_eq!(
        (count("new"), count("changed"), count("unchanged"), count("resolved")),
        (1, 0, 2, 1),
        "{compared}"
    );
    assert_eq!(compared["gone"][0]["guard"]["name"], "gone-guard");
    let ran = audit(on, &["-n", "audit-compared", "--from-report", file, "--since", "1h"]);
    assert!(ran.stdout.starts_with("STATE") && ran.stdout.contains("CHANGE"), "{}", ran.stdout);
    std::fs::write(folder.path().join("other.json"), "{}").unwrap();
    let other = folder.path().join("other.json");
    let ran = audit(on, &["-n", "audit-compared", "--from-report", other.to_str().unwrap()]);
    assert!(
        ran.failure()
            .contains("other.json holds no report; want a file written by `driftguard audit -o json`")
    );
}

#[test]
fn a_cluster_that_knows_no_guards_is_told_in_one_line() {
    let admin = ControlPlane::shared(Version::Older).admin().unwrap();
    for args in [["-A"].as_slice(), &["some-guard"]] {
        let said = audit_as(&admin, args).failure();
        assert!(said.starts_with("error: this cluster knows no DriftGuards"), "{said}");
        assert!(said.contains("driftguard install") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn what_changes_is_told_for_as_long_as_somebody_watches() {
    let on = cluster();
    fill(on, "audit-watched");
    let mut command =
        command(&["audit", "-n", "audit-watched", "--watch", "--interval", "200ms", "-o", "json"]);
    command.env("KUBECONFIG", on.admin.kubeconfig());
    let live = Live::start(command, |child| child.stdout.take());
    let next = || -> Value { serde_json::from_str(&live.line()).unwrap() };
    for _ in 0..5 {
        assert_eq!(next()["change"], "Is");
    }
    let kubectl = |arguments: &[&str]| on.admin.kubectl(arguments).unwrap().success().unwrap();
    let patch = r#"{"data":{"a":"7"}}"#;
    kubectl(&["patch", "configmap/calm", "-n", "audit-watched", "--type=merge", "-p", patch]);
    let drifted = next();
    assert_eq!((&drifted["change"], &drifted["entry"]["state"]), (&json!("Became"), &json!("Drifted")));
    assert_eq!(drifted["guard"]["name"], "calm-guard");
    kubectl(&["delete", "driftguard/gone-guard", "-n", "audit-watched"]);
    let gone = next();
    assert_eq!((&gone["change"], &gone["guard"]["name"]), (&json!("Gone"), &json!("gone-guard")));
    assert_eq!(live.end().code(), Some(1), "it ends with what it came to last");
}

#[test]
fn files_tell_of_a_workload_only_what_they_state() {
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                     "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "app", "image": "nginx"}]}}}});
    let told = |path: &str| {
        let guard = guard("web", "Deployment", &json!({"onlyPaths": [path]}), &json!({}));
        let ran =
            run_with(command(&["audit", "-n", "shop", "-f", "-", "-o", "json"]), &format!("{guard}\n{web}"));
        report(&ran)["guards"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(told("/spec/replicas"), "Drifted");
    assert_eq!(told("/spec/template/spec/containers/*/image"), "Drifted");
    assert_eq!(told("/spec/template"), "Unreadable", "the API server may store what is approved");
}

#[test]
fn an_audit_does_not_believe_statuses_of_an_installation_that_nobody_leads() {
    let cluster = cluster().namespace("dead").namespace("terrafusion-system");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: dead}, data: {x: z}}");
    cluster.apply(&cluster.driftguard(&["guard", "cm", "a", "-n", "dead"], "").success());
    let enforcing = json!({"status": {"observedGeneration": 1, "enforcement": "Deny", "conditions": [{
        "type": "Enforcing", "status": "True", "reason": "Proved", "message": "it is",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }]}});
    let patch = enforcing.to_string();
    cluster.kubectl(&[
        "patch",
        "dg/a-guard",
        "-n",
        "dead",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let lease = |renewed: &str| {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "driftguard", "namespace": "terrafusion-system"},
            "spec": {"holderIdentity": "a-replica", "leaseDurationSeconds": 12, "renewTime": renewed},
        });
        cluster.apply(&lease.to_string());
        cluster.driftguard(&["audit", "-n", "dead"], "")
    };
    let told = lease("2026-01-01T00:00:00.000000Z");
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(told.stdout.contains("NotEnforcing") && told.stdout.contains("no replica of DriftGuard leads"));
    let told = lease(&jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
    assert_eq!(told.code, Some(0), "{}", told.stdout);
    assert_eq!(told.stderr, "1 guard: 1 in sync\n");

    // Uninstalled, the Lease is gone and statuses stay. Who may not read Leases is told so.
    cluster.kubectl(&["delete", "lease", "driftguard", "-n", "terrafusion-system"]);
    let told = cluster.driftguard(&["audit", "-n", "dead"], "");
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(told.stdout.contains("NotEnforcing"), "{}", told.stdout);
    let auditor = cluster.plane.user("auditor-of-dead", &[]).unwrap();
    let role = ["create", "role", "auditor", "-n", "dead", "--verb=get,list"];
    let of = "--resource=driftguards.terrafusion.ai,configmaps";
    cluster.kubectl(&[&role[..], &[of]].concat());
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "auditor",
        "-n",
        "dead",
        "--role=auditor",
        "--user=auditor-of-dead",
    ]);
    until("the right is known", Duration::from_secs(60), || {
        let told = driftguard_as(&auditor, &["audit", "-n", "dead"], "");
        anyhow::ensure!(told.code == Some(0), "{}{}", told.stdout, told.stderr);
        anyhow::ensure!(
            told.stderr.starts_with("note: whether a replica of DriftGuard leads is not known"),
            "{}",
            told.stderr
        );
        Ok(())
    })
    .unwrap();
}
