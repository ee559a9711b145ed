//! The API on real API servers, the newest and the oldest one: what installs, what is refused and how.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, User, Version};
use serde_json::{Value, json};

use crate::repository::path;

/// Every version that is tested.
const VERSIONS: [Version; 2] = [Version::Newest, Version::Older];

/// An administrator of a control plane with both CRDs. Kept apart from the shared ones, because
/// these tests need no admission server and others remove CRDs.
fn administrator(version: Version) -> Result<User> {
    static PLANES: [OnceLock<Result<ControlPlane, String>>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = match version {
        Version::Newest => &PLANES[0],
        Version::Older => &PLANES[1],
    };
    let start = || with_crds(version).map_err(|error| format!("{error:#}"));
    let plane = slot.get_or_init(start).as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    plane.admin()
}

fn with_crds(version: Version) -> Result<ControlPlane> {
    let plane = ControlPlane::builder().kubernetes(version).start()?;
    let admin = plane.admin()?;
    let applied = admin.kubectl(&["apply", "-k", &path("crds")])?;
    ensure!(!applied.stderr.contains("Warning"), "the API server warns about a CRD: {}", applied.stderr);
    applied.success()?;
    let crds = ["crd/driftguards.terrafusion.ai", "crd/gamaconfigs.terrafusion.ai"];
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    admin.kubectl(&[&wait[..], &crds].concat())?.success()?;
    admin.kubectl(&["create", "namespace", "terrafusion-system"])?.success()?;
    Ok(plane)
}

/// A guard with these fields over the least that is required; `null` takes a field away.
fn guard(fields: &Value) -> String {
    let mut spec =
        json!({"targetKind": "ConfigMap", "targetName": "settings", "expectedHash": "a".repeat(64)});
    for (name, value) in fields.as_object().into_iter().flatten() {
        if value.is_null() {
            spec.as_object_mut().map(|spec| spec.remove(name));
        } else {
            spec[name] = value.clone();
        }
    }
    let kind = json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard"});
    json!({"apiVersion": kind["apiVersion"], "kind": kind["kind"], "metadata": {"name": "guard"}, "spec": spec})
        .to_string()
}

/// Guards that are refused, and a part of what the API server then says.
fn bad_guards() -> Vec<(Value, &'static str)> {
    let hash = "a".repeat(64);
    let required = "Required value";
    let pattern = "should match";
    let moment = |until: &str| json!({"suspend": {"until": until, "reason": "r"}});
    vec![
        (json!({"targetKind": null}), "spec.targetKind: Required value"),
        (json!({"targetName": null}), "spec.targetName: Required value"),
        (json!({"expectedHash": null}), "spec.expectedHash: Required value"),
        (json!({"targetKind": "Config Map"}), pattern),
        (json!({"targetName": ".."}), "must be the name of an object; no object is named . or .."),
        (json!({"targetName": "a/b"}), pattern),
        (json!({"targetName": "a".repeat(254)}), "spec.targetName: Too long"),
        (json!({"targetNamespace": "Default"}), pattern),
        (json!({"targetNamespace": "a".repeat(64)}), "spec.targetNamespace: Too long"),
        (json!({"targetApiVersion": "apps/v1/deployments"}), pattern),
        (json!({"expectedHash": "a".repeat(63)}), pattern),
        (json!({"expectedHash": "g".repeat(64)}), pattern),
        (json!({"expectedHash": format!("md5:{hash}")}), pattern),
        (json!({"maxFailuresBeforeAlert": 0}), "greater than or equal to 1"),
        (json!({"maxFailuresBeforeAlert": "3"}), "must be of type integer"),
        (json!({"enforcement": "deny"}), r#"supported values: "Deny", "Rewrite", "Warn", "Audit""#),
        (json!({"failurePolicy": "fail"}), r#"supported values: "Fail", "Ignore""#),
        (json!({"deletionPolicy": "Never"}), r#"supported values: "Allow", "Deny""#),
        (json!({"enforceAfterClean": "3 days"}), pattern),
        (json!({"enforceAfterClean": "0s"}), "must be longer than nothing, for example 72h"),
        (json!({"suspend": {"reason": "r"}}), required),
        (json!({"suspend": {"until": "2026-12-01T00:00:00Z"}}), required),
        (moment("tomorrow"), "must be of type date-time"),
        (moment("2026-02-30T00:00:00Z"), "must be of type date-time"),
        (moment("2026-02-20T00:00:00+99:00"), pattern),
        (json!({"alsoApproved": vec![json!({"hash": hash}); 11]}), "must have at most 10 items"),
        (json!({"alsoApproved": [{"hash": "x"}]}), pattern),
        (json!({"alsoApproved": [{"hash": hash, "until": "soon"}]}), "must be of type date-time"),
        (
            json!({"sourceOfTruthRef": {"kind": "Git", "name": "a"}}),
            r#""git", "configmap", "secret", "service""#,
        ),
        (json!({"sourceOfTruthRef": {"kind": "git"}}), "spec.sourceOfTruthRef.name: Required value"),
        (json!({"sourceOfTruthRef": {"kind": "service", "name": "evil.example.com/"}}), pattern),
        (
            json!({"fallbackSourceRefs": vec![json!({"kind": "git", "name": "a"}); 9]}),
            "must have at most 8 items",
        ),
        (json!({"ignorePaths": ["data"]}), pattern),
        (json!({"onlyPaths": ["/a~2"]}), pattern),
        (json!({"onlyPaths": ["/a~"]}), pattern),
        (json!({"onlyPaths": [""]}), "at least 1 chars long"),
        (json!({"ignorePaths": vec!["/a"; 65]}), "must have at most 64 items"),
        (json!({"ignorePaths": [format!("/{}", "a".repeat(1024))]}), "Too long"),
        (json!({"ignorePaths": ["/a"], "onlyPaths": ["/b"]}), "ignorePaths and onlyPaths exclude each other"),
    ]
}

#[test]
fn bad_guards_are_refused_with_the_field_and_the_reason() -> Result<()> {
    for version in VERSIONS {
        let admin = administrator(version)?;
        for (fields, expected) in bad_guards() {
            let refused = admin.kubectl_with(&["create", "--dry-run=server", "-f", "-"], guard(&fields))?;
            let said = refused.failure().with_context(|| format!("{fields} was accepted"))?;
            ensure!(said.contains(expected), "{fields}: no {expected:?} in {said}");
            // A rule about two fields belongs to neither and names both.
            let fields = fields.as_object().context("fields")?;
            let named = fields.keys().all(|field| said.contains(&format!("spec.{field}")));
            ensure!(named || fields.len() == 2, "{fields:?} are not named in {said}");
        }
    }
    Ok(())
}

#[test]
fn guards_at_every_bound_are_accepted() -> Result<()> {
    let hash = format!("sha256:{}", "A".repeat(64));
    let longest = format!("/{}", "a".repeat(1023));
    let approved = json!({"hash": hash, "until": "2026-12-01T00:00:00.123+02:00", "reason": "r".repeat(512)});
    let full = json!({
        "targetKind": "clusterrolebinding",
        "targetName": format!("system:it's-{}", "a".repeat(241)),
        "targetApiVersion": "rbac.authorization.k8s.io/v1",
        "expectedHash": hash,
        "alsoApproved": vec![approved; 10],
        "enforcement": "Audit",
        "enforceAfterClean": "1h30m",
        "ignorePaths": vec![longest; 64],
        "onlyPaths": [],
        "sourceOfTruthRef": {"kind": "git", "name": "a", "namespace": "b", "path": "c.yaml"},
        "fallbackSourceRefs": vec![json!({"kind": "service", "name": "a"}); 8],
        "suspend": {"until": "2026-12-01t00:00:00z", "reason": "r"},
    });
    let only = json!({"onlyPaths": ["/spec/template/spec/containers/[name=app]/image", "/a\nb/*/~0~1", "/"]});
    for version in VERSIONS {
        let admin = administrator(version)?;
        for fields in [&full, &only] {
            admin.kubectl_with(&["create", "--dry-run=server", "-f", "-"], guard(fields))?.success()?;
        }
    }
    Ok(())
}

#[test]
fn an_explicit_null_means_absent() -> Result<()> {
    let text = guard(&json!({})).replace(
        r#""targetName""#,
        r#""autoRemediate":null,"maxFailuresBeforeAlert":null,"enforcement":null,"sourceOfTruthRef":null,"targetName""#,
    );
    for version in VERSIONS {
        let stored = administrator(version)?
            .kubectl_with(&["create", "--dry-run=server", "-o=json", "-f", "-"], text.clone())?;
        let spec = stored.json()?["spec"].clone();
        ensure!(spec["autoRemediate"] == false && spec["maxFailuresBeforeAlert"] == 3, "{spec}");
        ensure!(spec.get("enforcement").is_none() && spec.get("sourceOfTruthRef").is_none(), "{spec}");
    }
    Ok(())
}

#[test]
fn guards_are_found_by_short_name_category_and_the_name_of_their_target() -> Result<()> {
    for version in VERSIONS {
        let admin = administrator(version)?;
        for (name, target) in [("first", "one"), ("second", "two")] {
            let text = guard(&json!({"targetName": target}))
                .replace(r#""name":"guard""#, &format!(r#""name":"{name}""#));
            admin.kubectl_with(&["apply", "-f", "-"], text)?.success()?;
        }
        let of = |arguments: &[&str]| admin.kubectl(arguments)?.success();
        let selected = of(&["get", "dg", "--field-selector=spec.targetName=two", "-o", "name"])?;
        ensure!(selected == "driftguard.terrafusion.ai/second\n", "{selected}");
        ensure!(of(&["get", "terrafusion", "-o", "name"])?.contains("driftguard.terrafusion.ai/first"));
        let columns = of(&["get", "dg", "first"])?;
        let head: Vec<&str> = columns.lines().next().unwrap_or_default().split("  ").collect();
        let head: Vec<&str> = head.into_iter().map(str::trim).filter(|name| !name.is_empty()).collect();
        ensure!(
            head == ["NAME", "TARGET", "READY", "DRIFTED", "ENFORCEMENT", "LAST DRIFT", "AGE"],
            "the columns are {head:?}"
        );
        ensure!(of(&["explain", "driftguard.spec.ignorePaths"])?.contains("JSON Pointers"));
    }
    Ok(())
}

#[test]
fn status_is_written_by_its_own_endpoint_only() -> Result<()> {
    for version in VERSIONS {
        let admin = administrator(version)?;
        let text = guard(&json!({})).replace(r#""name":"guard""#, r#""name":"with-status""#);
        admin.kubectl_with(&["apply", "-f", "-"], text)?.success()?;
        let condition = json!({"type": "Ready", "status": "True", "reason": "Guarding", "message": "",
            "lastTransitionTime": "2026-11-23T00:00:00Z"});
        let patch = json!({"status": {"observedGeneration": 1, "conditions": [condition]}}).to_string();
        let merge = ["patch", "dg", "with-status", "--type=merge", "-p", &patch];
        admin.kubectl(&merge)?.success()?;
        let status = |admin: &User| -> Result<Value> {
            Ok(admin.kubectl(&["get", "dg", "with-status", "-o", "json"])?.json()?["status"].clone())
        };
        ensure!(status(&admin)?.is_null(), "the main endpoint wrote the status");
        admin.kubectl(&[&merge[..], &["--subresource=status"]].concat())?.success()?;
        ensure!(status(&admin)?["conditions"][0]["reason"] == "Guarding");
        let twice = json!({"status": {"conditions": [condition, condition]}}).to_string();
        let merge = ["patch", "dg", "with-status", "--type=merge", "--subresource=status", "-p", &twice];
        let refused = admin.kubectl(&merge)?.failure()?;
        ensure!(refused.contains("Duplicate value"), "{refused}");
    }
    Ok(())
}

#[test]
fn examples_apply_and_a_second_time_change_nothing() -> Result<()> {
    for version in VERSIONS {
        let admin = administrator(version)?;
        admin.kubectl(&["apply", "--server-side", "-f", &path("examples")])?.success()?;
        let versions =
            ["get", "-f", &path("examples"), "-o", "jsonpath={.items[*].metadata.resourceVersion}"];
        let before = admin.kubectl(&versions)?.success()?;
        ensure!(before.split(' ').count() == 6, "three guards and three objects, not {before}");
        admin.kubectl(&["apply", "--server-side", "-f", &path("examples")])?.success()?;
        ensure!(admin.kubectl(&versions)?.success()? == before);
    }
    Ok(())
}

#[test]
fn a_gama_config_keeps_whatever_its_spec_holds_but_needs_parameters() -> Result<()> {
    let config = |spec: Value| {
        json!({"apiVersion": "terrafusion.ai/v1", "kind": "GAMAConfig", "metadata": {"name": "g"}, "spec": spec})
            .to_string()
    };
    let spec = json!({"parameters": {"deep": {"list": [1, 2.5, null, {"a": {}}]}}, "kept": {"by": "others"}});
    for version in VERSIONS {
        let admin = administrator(version)?;
        let create = ["create", "--dry-run=server", "-o=json", "-f", "-"];
        let stored = admin.kubectl_with(&create, config(spec.clone()))?.json()?;
        ensure!(stored["spec"] == spec, "{}", stored["spec"]);
        for bad in [json!({}), json!({"parameters": [1]}), json!({"parameters": null})] {
            let refused = admin.kubectl_with(&create, config(bad))?.failure()?;
            ensure!(refused.contains("spec.parameters"), "{refused}");
        }
    }
    Ok(())
}
