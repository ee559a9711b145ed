//! Case 68: guard and target changed in one commit, by the layouts of docs/gitops.md, as the tools apply it that people
//! keep manifests in Git with. Helm is Helm's own program; Flux and Argo CD are their libraries (`tests/gitops`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use driftguard_control_plane::{Output, until};
use serde_json::{Value, json};

use crate::auditing::{auditing, condition, wait_for};
use crate::installation::{DRIFTGUARD, Installation, LIMIT, config_map, hash_of};

/// The folder of the tools, as the script says that builds them.
fn tools() -> Result<&'static Path> {
    static TOOLS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || -> Result<PathBuf> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gitops/build");
        let said = Command::new(script).arg("where").output().context("cannot run tests/gitops/build")?;
        Ok(String::from_utf8(said.stdout)?.trim_end().into())
    };
    let found = TOOLS.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

/// Runs a tool as the administrator.
fn run(on: &Installation, tool: &str, arguments: &[&str], input: &str) -> Result<Output> {
    run_with(on, tool, arguments, input, &[])
}

/// The same, with more variables.
fn run_with(
    on: &Installation,
    tool: &str,
    arguments: &[&str],
    input: &str,
    variables: &[(&str, &str)],
) -> Result<Output> {
    let program = tools()?.join(tool);
    ensure!(program.exists(), "{} is missing; run `make gitops-tools`, which builds it", program.display());
    let home = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command.args(arguments).env("KUBECONFIG", on.admin.kubeconfig());
    for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(folder, home.path());
    }
    command.envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    Ok(Output {
        command: format!("{tool} {}", arguments.join(" ")),
        code: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}

fn target(ns: &str, limit: &str) -> Value {
    config_map(ns, "settings", &json!({"limit": limit}))
}

/// The guard of [`target`] that approves this limit.
fn guard(ns: &str, limit: &str) -> Result<Value> {
    Ok(json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "settings-guard", "namespace": ns},
        "spec": {"targetKind": "ConfigMap", "targetName": "settings", "expectedHash": hash_of(&target(ns, limit))?},
    }))
}

/// The same, which lets pass what the next commit brings.
fn announcing(ns: &str, limit: &str, next: &str) -> Result<Value> {
    let mut guard = guard(ns, limit)?;
    guard["spec"]["alsoApproved"] = json!([{"hash": hash_of(&target(ns, next))?}]);
    Ok(guard)
}

fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// Waits until the guard has caught up with its spec, is enforced, and finds this limit where it pins it.
fn settled(on: &Installation, ns: &str, limit: &str) -> Result<()> {
    settled_as(on, ns, "settings-guard", "settings", limit)
}

fn settled_as(on: &Installation, ns: &str, guard: &str, target: &str, limit: &str) -> Result<()> {
    until(&format!("{ns}/{guard} is in sync at {limit}"), LIMIT, || {
        let map = on.get(ns, &format!("configmap/{target}"))?;
        ensure!(map["data"]["limit"] == limit, "stored: {}", map["data"]);
        let seen = on.get(ns, &format!("dg/{guard}"))?;
        ensure!(seen["spec"]["expectedHash"] == hash_of(&map)?.as_str(), "{}", seen["spec"]);
        // A guard that came before its target is proved at a later look only.
        let enforced: &[&str] = &["Proved", "RulesCompared"];
        for (of_type, reasons) in
            [("Enforcing", enforced), ("Drifted", &["InSync"]), ("Ready", &["Guarding"])]
        {
            let said = condition(&seen, of_type).with_context(|| format!("no condition {of_type}"))?;
            ensure!(reasons.iter().any(|reason| said["reason"] == *reason), "{said}");
            ensure!(said["observedGeneration"] == seen["metadata"]["generation"], "{said}");
        }
        // That the target was not there yet names no path.
        let drift = &seen["status"]["lastDrift"];
        ensure!(drift["paths"].is_null() || was_late(on, drift, &seen)?, "it drifted in between: {seen}");
        Ok(())
    })
}

/// Whether drift was found by an auditor that had not heard of the guard yet as it is stored: it goes by what its
/// watch has told (docs/design/admission-gate.md).
fn was_late(on: &Installation, drift: &Value, guard: &Value) -> Result<bool> {
    let log = on.serve.log();
    let mut records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let record = records
        .find(|line| line["kind"] == "drift" && line["transactionId"] == drift["transactionId"])
        .with_context(|| format!("no record of {drift}"))?;
    let generation = |of: &Value| of.as_i64().context("no generation");
    Ok(generation(&record["guard"]["generation"])? < generation(&guard["metadata"]["generation"])?)
}

/// How often a guard could not be looked at, or not in time for a review.
fn failed_looks(on: &Installation) -> Result<u64> {
    let metrics = on.health("/metrics")?;
    let of = |result: &str| -> Result<u64> {
        let series = format!(r#"driftguard_guard_looks_total{{result="{result}"}}"#);
        let count = metrics.lines().find_map(|line| line.strip_prefix(&series)).context("no such series")?;
        Ok(count.trim().parse()?)
    };
    Ok(of("failed")? + of("late")?)
}

/// Writes what its guard has just approved. That is refused only where the guard could not be looked at in time, as
/// on a machine that has too much to do; then it is tried again, as docs/gitops.md has it.
fn passes(on: &Installation, write: impl Fn() -> Result<Output>) -> Result<Output> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        let before = failed_looks(on)?;
        let said = write()?;
        if said.succeeded() {
            return Ok(said);
        }
        ensure!(failed_looks(on)? > before, "it was looked at, and yet: {said}");
    }
    let said = write()?;
    ensure!(said.succeeded(), "{said}");
    Ok(said)
}

/// Somebody edits past Git while the tool manages guard and target.
fn edit_is_refused(on: &Installation, ns: &str, target: &str, next: &str) -> Result<()> {
    let object = format!("configmap/{target}");
    let patch = json!({"data": {"limit": "9999"}}).to_string();
    let edit = || on.admin.kubectl(&["patch", &object, "-n", ns, "--type=merge", "-p", &patch]);
    let said = on.refused(ns, &object, edit)?;
    ensure!(said.contains(next), "{said}");
    Ok(())
}

/// What a tool that could not go on must show.
fn says(failed: &Output, next: &str) -> Result<()> {
    ensure!(failed.code.is_some_and(|code| code != 0), "it went on: {failed}");
    let said = format!("{}{}", failed.stdout, failed.stderr);
    ensure!(said.contains("settings-guard pins ConfigMap/") && said.contains(next), "{failed}");
    Ok(())
}

const KUBECTL: &str = "to approve, `driftguard approve ";
const HELM: &str = "to approve, change the guard in Git; Helm must apply it first (docs/gitops.md)";
const FLUX: &str = "to approve, change the guard in Git; Flux must apply it first (docs/gitops.md)";
const ARGO: &str = "to approve, change the guard in Git; Argo CD must apply it first (docs/gitops.md)";

#[test]
fn case_68_kubectl_applies_both_when_the_guard_comes_first_and_otherwise_in_two_runs() -> Result<()> {
    let on = auditing()?;
    for (mode, how) in [("client", &["--server-side=false"][..]), ("server", &["--server-side"])] {
        let ns = &on.namespace(&format!("gitops-kubectl-{mode}"))?;
        let apply = |objects: &[Value]| {
            on.admin.kubectl_with(&[&["apply", "-f", "-"], how].concat(), stream(objects))
        };
        apply(&[guard(ns, "1")?, target(ns, "1")])?.success()?;
        settled(on, ns, "1")?;
        edit_is_refused(on, ns, "settings", KUBECTL)?;
        says(&apply(&[target(ns, "2")])?, KUBECTL)?;

        // Guard first.
        let both = [guard(ns, "2")?, target(ns, "2")];
        passes(on, || apply(&both))?;
        settled(on, ns, "2")?;

        // The other order: the first run gets the guard in, the second one the target.
        let both = [target(ns, "3"), guard(ns, "3")?];
        says(&apply(&both)?, KUBECTL)?;
        passes(on, || apply(&both))?;
        settled(on, ns, "3")?;

        // Any order, when the commit before announced the content.
        apply(&[announcing(ns, "3", "4")?])?.success()?;
        let both = [target(ns, "4"), guard(ns, "4")?];
        passes(on, || apply(&both))?;
        settled(on, ns, "4")?;
    }
    Ok(())
}

#[test]
fn case_68_what_is_applied_right_after_its_guard_is_neither_refused_nor_put_back_however_often() -> Result<()>
{
    const ROUNDS: usize = 5;
    let on = auditing()?;
    for (mode, how) in [("client", &["--server-side=false"][..]), ("server", &["--server-side"])] {
        for enforcement in ["Deny", "Rewrite"] {
            let ns = &on.namespace(&format!("gitops-often-{mode}-{}", enforcement.to_lowercase()))?;
            for round in 0..ROUNDS {
                let limit = round.to_string();
                let mut guard = guard(ns, &limit)?;
                guard["spec"]["enforcement"] = enforcement.into();
                let both = stream(&[guard, target(ns, &limit)]);
                let apply = || on.admin.kubectl_with(&[&["apply", "-f", "-"], how].concat(), both.clone());
                let said = passes(on, apply).with_context(|| format!("round {round}"))?;
                ensure!(said.stderr.is_empty(), "round {round}: {said}");
                let stored = on.get(ns, "configmap/settings")?;
                ensure!(stored["data"]["limit"] == limit.as_str(), "round {round} was lost: {stored}");
                if round == 0 {
                    on.wait_enforcing(ns, "settings-guard")?;
                }
            }
            wait_for(on, ns, "settings-guard", "Drifted", "False", "InSync")?;
        }
    }
    Ok(())
}

/// A chart of these templates.
fn chart(folder: &Path, name: &str, templates: &[(&str, String)]) -> Result<String> {
    let chart = folder.join(name);
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"))?;
    for (file, text) in templates {
        std::fs::write(chart.join("templates").join(file), text)?;
    }
    Ok(chart.display().to_string())
}

const HELMS: [&str; 2] = ["helm3", "helm4"];

#[test]
fn case_68_helm_applies_a_release_of_guards_and_then_one_of_targets_and_rolls_back_alike() -> Result<()> {
    let on = auditing()?;
    for helm in HELMS {
        let ns = &on.namespace(&format!("gitops-{helm}-two"))?;
        let folder = tempfile::tempdir()?;
        let helm = |arguments: &[&str]| run(on, helm, &[arguments, &["-n", ns]].concat(), "");
        let guards = |limit: &str| -> Result<Output> {
            let path = chart(folder.path(), "guards", &[("guard.yaml", guard(ns, limit)?.to_string())])?;
            helm(&["upgrade", "--install", "guards", &path])
        };
        let shop = |limit: &str| -> Result<Output> {
            let path = chart(folder.path(), "shop", &[("settings.yaml", target(ns, limit).to_string())])?;
            helm(&["upgrade", "--install", "shop", &path])
        };
        for limit in ["1", "2"] {
            guards(limit)?.success()?;
            passes(on, || shop(limit))?;
            settled(on, ns, limit)?;
        }
        edit_is_refused(on, ns, "settings", HELM)?;
        says(&shop("3")?, HELM)?;

        helm(&["rollback", "guards", "1"])?.success()?;
        passes(on, || helm(&["rollback", "shop", "1"]))?;
        settled(on, ns, "1")?;
    }
    Ok(())
}

#[test]
fn case_68_helm_applies_one_release_in_two_runs_and_the_first_one_says_why() -> Result<()> {
    let on = auditing()?;
    for helm in HELMS {
        let ns = &on.namespace(&format!("gitops-{helm}-one"))?;
        let folder = tempfile::tempdir()?;
        let helm = |arguments: &[&str]| run(on, helm, &[arguments, &["-n", ns]].concat(), "");
        let upgrade = |approved: &str, limit: &str| -> Result<Output> {
            let templates = [
                ("guard.yaml", guard(ns, approved)?.to_string()),
                ("settings.yaml", target(ns, limit).to_string()),
            ];
            helm(&["upgrade", "--install", "shop", &chart(folder.path(), "shop", &templates)?])
        };
        upgrade("1", "1")?.success()?;
        settled(on, ns, "1")?;
        says(&upgrade("1", "2")?, HELM)?;
        // ConfigMaps go before custom resources, whatever the chart says, and the rest is applied all the same.
        says(&upgrade("2", "2")?, HELM)?;
        passes(on, || upgrade("2", "2"))?;
        settled(on, ns, "2")?;
        says(&helm(&["rollback", "shop", "1"])?, HELM)?;
        passes(on, || helm(&["rollback", "shop", "1"]))?;
        settled(on, ns, "1")?;
    }
    Ok(())
}

/// As docs/gitops.md has it.
const NAMED: &str = r#"
{{- $name := printf "settings-%s" (.Values.settings | toJson | sha256sum | trunc 8) }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
data: {{ .Values.settings | toJson }}
---
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata:
  name: {{ $name }}
spec:
  targetKind: ConfigMap
  targetName: {{ $name }}
  expectedHash: ""  # by `driftguard stamp` as post-renderer
"#;

#[test]
fn case_68_helm_applies_one_release_in_one_run_when_names_follow_content() -> Result<()> {
    let on = auditing()?;
    for helm in HELMS {
        let ns = &on.namespace(&format!("gitops-{helm}-named"))?;
        let folder = tempfile::tempdir()?;
        // Helm 3 takes a path, Helm 4 the name of a plugin.
        let plugin = folder.path().join("plugins/driftguard");
        std::fs::create_dir_all(&plugin)?;
        let descriptor = format!(
            "apiVersion: v1\nname: driftguard\nversion: 1.0.0\ntype: postrenderer/v1\nruntime: subprocess\n\
             runtimeConfig:\n  platformCommand:\n  - command: {DRIFTGUARD}\n"
        );
        std::fs::write(plugin.join("plugin.yaml"), descriptor)?;
        let plugins = plugin.parent().context("no folder")?.display().to_string();
        let renderer = if helm == "helm3" { DRIFTGUARD } else { "driftguard" };
        let helm = |arguments: &[&str]| -> Result<Output> {
            let tool = [("HELM_PLUGINS", plugins.as_str())];
            run_with(on, helm, &[arguments, &["-n", ns]].concat(), "", &tool)
        };
        let chart = &chart(folder.path(), "shop", &[("settings.yaml", NAMED.to_owned())])?;
        let stamp: Vec<&str> = ["stamp", "--strict", "-n", ns]
            .into_iter()
            .flat_map(|argument| ["--post-renderer-args", argument])
            .collect();
        let upgrade = |limit: &str| -> Result<Output> {
            let value = format!("settings.limit={limit}");
            let upgrade =
                ["upgrade", "--install", "shop", chart, "--set-string", &value, "--post-renderer", renderer];
            helm(&[&upgrade[..], &stamp].concat())
        };
        // The one there is.
        let current = || -> Result<String> {
            let names = on.admin.kubectl(&["get", "dg", "-n", ns, "-o", "name"])?.success()?;
            let names: Vec<&str> = names.lines().collect();
            ensure!(names.len() == 1, "{names:?}");
            Ok(names[0].rsplit('/').next().unwrap_or_default().to_owned())
        };
        upgrade("1")?.success()?;
        let first = current()?;
        settled_as(on, ns, &first, &first, "1")?;
        upgrade("2")?.success()?;
        let second = current()?;
        ensure!(first != second, "{second}");
        settled_as(on, ns, &second, &second, "2")?;
        edit_is_refused(on, ns, &second, HELM)?;
        helm(&["rollback", "shop", "1"])?.success()?;
        ensure!(current()? == first);
        settled_as(on, ns, &first, &first, "1")?;
    }
    Ok(())
}

#[test]
fn case_68_flux_applies_guards_in_a_stage_or_a_kustomization_of_their_own() -> Result<()> {
    let on = auditing()?;
    let flux = |ns: &str, name: &str, more: &[&str], objects: &[Value]| {
        run(on, "flux", &[&["-name", name, "-namespace", ns], more].concat(), &stream(objects))
    };

    // Two Kustomizations, of which one depends on the other and that one waits.
    let ns = &on.namespace("gitops-flux-two")?;
    for limit in ["1", "2", "1"] {
        flux(ns, "guards", &["-wait"], &[guard(ns, limit)?])?.success()?;
        passes(on, || flux(ns, "shop", &["-wait"], &[target(ns, limit)]))?;
        settled(on, ns, limit)?;
    }
    edit_is_refused(on, ns, "settings", FLUX)?;
    says(&flux(ns, "shop", &[], &[target(ns, "3")])?, FLUX)?;

    // One, with a stage for guards.
    let ns = &on.namespace("gitops-flux-stage")?;
    let stage = ["-stage", "terrafusion.ai/DriftGuard"];
    for limit in ["1", "2"] {
        let both = [target(ns, limit), guard(ns, limit)?];
        passes(on, || flux(ns, "shop", &stage, &both))?;
        settled(on, ns, limit)?;
    }
    says(&flux(ns, "shop", &stage, &[target(ns, "3"), guard(ns, "2")?])?, FLUX)?;

    // One without: Flux tries everything before it applies anything, so that nothing is.
    let both = [target(ns, "3"), guard(ns, "3")?];
    says(&flux(ns, "shop", &[], &both)?, FLUX)?;
    settled(on, ns, "2")?;
    // Announced by the commit before, it passes in any order.
    flux(ns, "shop", &["-wait"], &[target(ns, "2"), announcing(ns, "2", "3")?])?.success()?;
    passes(on, || flux(ns, "shop", &["-wait"], &both))?;
    settled(on, ns, "3")?;
    Ok(())
}

#[test]
fn case_68_argo_cd_applies_guards_in_an_earlier_wave() -> Result<()> {
    argo_cd("gitops-argo", &[])
}

#[test]
fn case_68_argo_cd_applies_guards_in_an_earlier_wave_server_side() -> Result<()> {
    argo_cd("gitops-argo-ssa", &["-server-side"])
}

fn argo_cd(ns: &str, how: &[&str]) -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace(ns)?;
    let sync = |objects: &[Value]| {
        run(on, "argo", &[&["-name", "shop", "-namespace", ns.as_str()], how].concat(), &stream(objects))
    };
    let first = |limit: &str| -> Result<Value> {
        let mut guard = guard(ns, limit)?;
        guard["metadata"]["annotations"] = json!({"argocd.argoproj.io/sync-wave": "-1"});
        Ok(guard)
    };
    for limit in ["1", "2"] {
        let both = [target(ns, limit), first(limit)?];
        passes(on, || sync(&both))?;
        settled(on, ns, limit)?;
    }
    edit_is_refused(on, ns, "settings", ARGO)?;
    says(&sync(&[target(ns, "3"), first("2")?])?, ARGO)?;

    // Without waves the sync fails, and the next one finds the guard.
    says(&sync(&[target(ns, "3"), guard(ns, "3")?])?, ARGO)?;
    let both = [target(ns, "3"), guard(ns, "3")?];
    passes(on, || sync(&both))?;
    settled(on, ns, "3")
}
