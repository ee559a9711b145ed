//! `driftguard install` and `uninstall` on real API servers. Each test has a control plane of its own:
//! what they change belongs to the whole cluster.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, User, Version, until};
use serde_json::{Value, json};

use crate::installation::LIMIT;
use crate::repository::{older_readme, path};

const NAMESPACE: &str = "terrafusion-system";

/// What a command of ours said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs our binary as `user`, without a terminal.
fn driftguard(user: &User, arguments: &[&str]) -> Result<Said> {
    let output = Command::new(env!("CARGO_BIN_EXE_driftguard"))
        .args(arguments)
        .env("KUBECONFIG", user.kubeconfig())
        .stdin(std::process::Stdio::null())
        .output()?;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

fn done(user: &User, arguments: &[&str]) -> Result<Said> {
    let said = driftguard(user, arguments)?;
    ensure!(said.code == Some(0), "driftguard {arguments:?}: {said:?}");
    Ok(said)
}

fn refused(user: &User, arguments: &[&str]) -> Result<String> {
    let said = driftguard(user, arguments)?;
    ensure!(said.code == Some(2), "driftguard {arguments:?} should have failed: {said:?}");
    ensure!(said.stderr.starts_with("error: ") && said.stderr.trim_end().lines().count() == 1, "{said:?}");
    Ok(said.stderr)
}

fn apply(user: &User, object: &Value) -> Result<()> {
    user.kubectl_with(&["apply", "-f", "-"], object.to_string())?.success().map(drop)
}

fn guard(name: &str) -> Value {
    json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {"name": name, "namespace": "default"},
        "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": "a".repeat(64)}})
}

/// Everything of ours that a cluster may hold, but for CRDs and the namespace.
pub(crate) fn ours(user: &User) -> Result<String> {
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments,poddisruptionbudgets,networkpolicies,leases,secrets";
    let list = user.kubectl(&["get", kinds, "-A", "-o", "name"])?.success()?;
    Ok(list.lines().filter(|name| name.contains("driftguard")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_installation_is_complete_repeatable_and_goes_without_a_trace() -> Result<()> {
    for version in [Version::Newest, Version::Older] {
        let plane = ControlPlane::builder().kubernetes(version).start()?;
        let admin = plane.admin()?;
        let first = done(&admin, &["install"])?;
        ensure!(first.stdout.lines().all(|line| line.ends_with(" created")), "{}", first.stdout);
        ensure!(
            first.stderr.contains("kubectl rollout status deployment/driftguard-operator"),
            "{}",
            first.stderr
        );
        let second = done(&admin, &["install"])?;
        ensure!(second.stdout.lines().all(|line| line.ends_with(" unchanged")), "{}", second.stdout);
        apply(&admin, &guard("kept"))?;

        let gone = done(&admin, &["uninstall"])?;
        let place =
            |what: &str| gone.stdout.lines().position(|line| line.starts_with(what)).context(what.to_owned());
        let webhook = place("validatingwebhookconfiguration")?.max(place("mutatingwebhookconfiguration")?);
        ensure!(place("clusterrolebinding")? < webhook, "replicas could put it back: {}", gone.stdout);
        ensure!(webhook < place("deployment")?.min(place("service/")?), "nobody answers it: {}", gone.stdout);
        ensure!(ours(&admin)?.is_empty(), "left behind: {}", ours(&admin)?);
        ensure!(done(&admin, &["uninstall"])?.stdout.is_empty(), "there was nothing left to delete");
        admin.kubectl(&["get", "driftguard", "kept"])?.success()?;
    }
    Ok(())
}

#[test]
fn installing_again_takes_no_entry_away_that_serve_wrote() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    done(&admin, &["install"])?;
    let entry = json!({"name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1"}});
    let registered = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "driftguard"}, "webhooks": [entry]});
    let as_serve = ["apply", "--server-side", "--field-manager=driftguard", "-f", "-"];
    admin.kubectl_with(&as_serve, registered.to_string())?.success()?;
    done(&admin, &["install", "--force-conflicts"])?;
    let names = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "jsonpath={.webhooks[*].name}"];
    ensure!(admin.kubectl(&names)?.success()? == "a.example.com");
    Ok(())
}

#[test]
fn dry_runs_change_nothing() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    let client = done(&admin, &["install", "--dry-run=client"])?;
    let checked = admin.kubectl_with(&["apply", "--dry-run=client", "-f", "-"], client.stdout)?;
    ensure!(checked.stderr.contains("no matches for kind") || checked.succeeded(), "{checked}");
    let server = done(&admin, &["install", "--dry-run=server"])?;
    ensure!(server.stdout.lines().all(|line| line.ends_with("(server dry run)")), "{}", server.stdout);
    ensure!(ours(&admin)?.is_empty(), "{}", ours(&admin)?);
    ensure!(admin.kubectl(&["get", "crds", "-o", "name"])?.success()?.is_empty());
    Ok(())
}

#[test]
fn development_gets_no_deployment_but_the_command_that_starts_serve() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    let by_url = done(&admin, &["install", "--dev", "--url", "https://127.0.0.1:9443"])?;
    ensure!(
        by_url
            .stderr
            .contains("driftguard serve --webhook-url https://127.0.0.1:9443 --bind 127.0.0.1:9443\n"),
        "{}",
        by_url.stderr
    );
    let by_service = done(&admin, &["install", "--dev", "--external-name=9443"])?;
    let command = "driftguard serve --webhook-service terrafusion-system/driftguard-webhook:9443 --bind 127.0.0.1:9443\n";
    ensure!(by_service.stderr.contains(command), "{}", by_service.stderr);
    let address = "jsonpath={.spec.type} {.spec.externalName} {.spec.ports[0].port}";
    let service = ["get", "service", "driftguard-webhook", "-n", NAMESPACE, "-o", address];
    ensure!(admin.kubectl(&service)?.success()? == "ExternalName localhost 9443");
    ensure!(!ours(&admin)?.contains("deployment"), "{}", ours(&admin)?);

    // The same Service becomes an ordinary one, and what would compete is refused.
    done(&admin, &["install"])?;
    ensure!(admin.kubectl(&service)?.success()? == "ClusterIP  443");
    let competing = refused(&admin, &["install", "--dev"])?;
    ensure!(competing.contains("driftguard uninstall -n terrafusion-system"), "{competing}");
    let elsewhere = refused(&admin, &["install", "-n", "elsewhere"])?;
    ensure!(elsewhere.contains("is installed in namespace terrafusion-system already"), "{elsewhere}");
    Ok(())
}

#[test]
fn guards_of_the_older_operator_go_on_without_refusing_anything() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    // Its CRD bears no label of ours.
    let crd = std::fs::read_to_string(path("crds/driftguard.yaml"))?.replace("app.kubernetes.io/", "older/");
    admin.kubectl_with(&["apply", "-f", "-"], crd)?.success()?;
    admin.kubectl(&["wait", "--for=condition=Established", "crd/driftguards.terrafusion.ai"])?.success()?;
    apply(&admin, &guard("old"))?;
    let arguments = || {
        let path = "jsonpath={.spec.template.spec.containers[0].args}";
        admin.kubectl(&["get", "deployment", "driftguard-operator", "-n", NAMESPACE, "-o", path])?.success()
    };

    let first = done(&admin, &["install"])?;
    ensure!(first.stderr.contains("1 DriftGuards of an older operator were found"), "{}", first.stderr);
    ensure!(arguments()?.contains("--default-enforcement=Audit"), "{}", arguments()?);
    let second = done(&admin, &["install"])?;
    ensure!(second.stderr.contains("Audit, as chosen by an earlier install"), "{}", second.stderr);
    ensure!(arguments()?.contains("--default-enforcement=Audit"), "an upgrade turned it around");
    done(&admin, &["install", "--default-enforcement", "deny"])?;
    ensure!(!arguments()?.contains("--default-enforcement"), "{}", arguments()?);
    done(&admin, &["install"])?;
    ensure!(!arguments()?.contains("--default-enforcement"), "what was asked for did not stay");
    Ok(())
}

#[test]
fn fields_that_another_tool_set_are_taken_over_only_when_asked() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    done(&admin, &["install"])?;
    let scale = ["scale", "deployment", "driftguard-operator", "--replicas=5", "-n", NAMESPACE];
    admin.kubectl(&scale)?.success()?;
    let conflict = refused(&admin, &["install"])?;
    ensure!(conflict.contains(".spec.replicas") && conflict.contains("--force-conflicts"), "{conflict}");
    done(&admin, &["install", "--force-conflicts"])?;
    let replicas =
        ["get", "deployment", "driftguard-operator", "-n", NAMESPACE, "-o", "jsonpath={.spec.replicas}"];
    ensure!(admin.kubectl(&replicas)?.success()? == "2");
    Ok(())
}

#[test]
fn whoever_may_not_install_is_told_which_right_is_missing() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let alice = plane.user("alice", &["developers"])?;
    for command in ["install", "uninstall"] {
        let said = refused(&alice, &[command])?;
        ensure!(said.contains("User \"alice\" cannot"), "{said}");
    }
    Ok(())
}

/// A lease as a running `serve` keeps it.
fn lease(holder: &str, renewed: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "driftguard", "namespace": NAMESPACE},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}})
}

#[test]
fn uninstall_stops_before_a_serve_outside_the_cluster_that_would_register_again() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    done(&admin, &["install", "--dev"])?;
    apply(&admin, &lease("laptop", "2999-01-01T00:00:00.000000Z"))?;
    let said = refused(&admin, &["uninstall"])?;
    ensure!(said.contains("runs outside the cluster (laptop"), "{said}");
    ensure!(ours(&admin)?.contains("validatingwebhookconfiguration"), "nothing may be removed then");
    apply(&admin, &lease("laptop", "2020-01-01T00:00:00.000000Z"))?;
    done(&admin, &["uninstall"])?;
    ensure!(ours(&admin)?.is_empty(), "{}", ours(&admin)?);
    Ok(())
}

#[test]
fn uninstall_removes_no_other_installation_and_begins_nothing_that_it_may_not_finish() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    done(&admin, &["install", "-n", "platform"])?;
    let before = ours(&admin)?;
    let said = refused(&admin, &["uninstall"])?;
    ensure!(said.contains("driftguard uninstall -n platform"), "{said}");
    ensure!(ours(&admin)? == before, "{}", ours(&admin)?);

    // Of the rights that it takes, this user has all but one.
    let bob = plane.user("bob", &[])?;
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["delete"]},
        {"apiGroups": ["apps", ""], "resources": ["*"], "verbs": ["delete"]},
    ]);
    let rbac = "rbac.authorization.k8s.io";
    apply(
        &admin,
        &json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "ops"}, "rules": rules}),
    )?;
    let bind = ["create", "clusterrolebinding", "ops", "--clusterrole=ops", "--user=bob"];
    admin.kubectl(&bind)?.success()?;
    until("bob may read", LIMIT, || {
        let may = bob.kubectl(&["auth", "can-i", "delete", "validatingwebhookconfigurations"])?;
        may.success()
    })?;
    let said = refused(&bob, &["uninstall", "-n", "platform"])?;
    ensure!(said.contains("nothing was removed: you may not delete clusterrolebinding"), "{said}");
    ensure!(ours(&admin)? == before, "{}", ours(&admin)?);

    // A kind's rights go along, wherever they were given.
    for more in [&["--for", "Deployment"][..], &["--for", "Secret", "--in", "default"]] {
        let printed = done(&admin, &[&["manifests", "rbac", "-n", "platform"], more].concat())?.stdout;
        admin.kubectl_with(&["apply", "-f", "-"], printed)?.success()?;
    }
    done(&admin, &["uninstall", "-n", "platform"])?;
    ensure!(ours(&admin)?.is_empty(), "{}", ours(&admin)?);
    Ok(())
}

#[test]
fn uninstall_leaves_alone_what_bears_our_name_but_is_not_ours() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    admin.kubectl(&["create", "namespace", NAMESPACE])?.success()?;
    let authority = ["create", "secret", "generic", "driftguard-ca", "-n", NAMESPACE, "--from-literal=a=b"];
    admin.kubectl(&authority)?.success()?;
    admin
        .kubectl(&["create", "clusterrole", "driftguard-operator", "--verb=get", "--resource=pods"])?
        .success()?;
    let said = done(&admin, &["uninstall"])?;
    ensure!(said.stderr.contains("was not made by DriftGuard; it stays"), "{}", said.stderr);
    admin.kubectl(&["get", "clusterrole", "driftguard-operator"])?.success()?;
    ensure!(said.stderr.contains("secret/driftguard-ca was not made by DriftGuard"), "{}", said.stderr);
    admin.kubectl(&["get", "secret", "driftguard-ca", "-n", NAMESPACE])?.success()?;
    Ok(())
}

#[test]
fn a_purge_must_be_confirmed_and_spares_configurations_of_others() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    done(&admin, &["install"])?;
    for name in ["one", "two"] {
        apply(&admin, &guard(name))?;
    }
    let config = json!({"apiVersion": "terrafusion.ai/v1", "kind": "GAMAConfig",
        "metadata": {"name": "kept", "namespace": "default"}, "spec": {"parameters": {}}});
    apply(&admin, &config)?;
    let asked = refused(&admin, &["uninstall", "--purge"])?;
    ensure!(asked.contains("deletes all 2 DriftGuards") && asked.contains("--yes"), "{asked}");
    ensure!(ours(&admin)?.contains("deployment"), "nothing may be removed before it is confirmed");
    let said = done(&admin, &["uninstall", "--purge", "--yes"])?;
    ensure!(said.stderr.contains("1 GAMAConfigs are kept"), "{}", said.stderr);
    let gone = ["wait", "--for=delete", "crd/driftguards.terrafusion.ai", "--timeout=60s"];
    admin.kubectl(&gone)?.success()?;
    admin.kubectl(&["get", "gamaconfig", "kept"])?.success()?;
    Ok(())
}

#[test]
fn the_commands_of_the_older_operators_readme_work_and_its_guard_applies_unchanged() -> Result<()> {
    for version in [Version::Newest, Version::Older] {
        let plane = ControlPlane::builder().kubernetes(version).start()?;
        let admin = plane.admin()?;
        for block in older_readme() {
            match block.language.as_str() {
                "yaml" => apply_unchanged(&admin, &block.text)?,
                _ => run_script(&plane, &admin, &block.text)?,
            }
        }
        let rights = admin.kubectl(&["describe", "clusterrole", "driftguard-operator"])?.success()?;
        ensure!(rights.contains("driftguards.terrafusion.ai/status"), "{rights}");
        // What kubectl applied from the same manifests is no conflict.
        done(&admin, &["install"])?;
    }
    Ok(())
}

/// Runs commands of the README where it says, with `kubectl` of the control plane.
fn run_script(plane: &ControlPlane, user: &User, script: &str) -> Result<()> {
    let before = std::env::var_os("PATH").context("no PATH")?;
    let folders = std::iter::once(plane.programs().to_owned()).chain(std::env::split_paths(&before));
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(path("deploy"))
        .env("PATH", std::env::join_paths(folders)?)
        .env("KUBECONFIG", user.kubeconfig())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}\n{stderr}");
    Ok(())
}

fn apply_unchanged(admin: &User, manifest: &str) -> Result<()> {
    // kubectl applies the CRD and goes on at once; a person takes longer to the next command.
    admin.kubectl(&["wait", "--for=condition=Established", "crd/driftguards.terrafusion.ai"])?.success()?;
    let applied = admin.kubectl_with(&["apply", "-f", "-"], manifest)?;
    ensure!(applied.stderr.is_empty(), "{}", applied.stderr);
    applied.success()?;
    let get = ["get", "driftguard", "gama-valuation-model-guard", "-n", NAMESPACE, "-o", "json"];
    let stored = admin.kubectl(&get)?.json()?;
    let annotation = &stored["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    let written: Value =
        serde_json::from_str(annotation.as_str().context("no annotation of kubectl apply")?)?;
    let fields = written["spec"].as_object().context("no spec")?;
    ensure!(fields.len() == 7, "every field of the older operator: {fields:?}");
    for (field, value) in fields {
        ensure!(stored["spec"][field] == *value, "{field} became {}", stored["spec"][field]);
    }
    Ok(())
}

#[test]
fn the_kustomize_base_holds_what_the_command_prints() -> Result<()> {
    let plane = ControlPlane::shared(Version::Newest);
    let admin = plane.admin()?;
    let objects = |yaml: String| -> Result<std::collections::BTreeMap<String, Value>> {
        // kubectl reads both, so that only what they say counts.
        let list = admin.kubectl_with(
            &["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"],
            yaml,
        )?;
        let list = list.stdout;
        let read =
            serde_json::Deserializer::from_str(&list).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
        let items = read.into_iter().flat_map(|one| match one["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![one],
        });
        Ok(items.map(|one| (format!("{} {}", one["kind"], one["metadata"]), one)).collect())
    };
    let built = admin.kubectl(&["kustomize", &path("deploy")])?.success()?;
    let printed =
        [done(&admin, &["manifests", "crds"])?.stdout, done(&admin, &["manifests", "deploy"])?.stdout];
    let (built, printed) = (objects(built)?, objects(printed.join("---\n"))?);
    ensure!(printed.len() > 10, "{printed:?}");
    ensure!(built == printed, "{built:?}\n{printed:?}");

    let folder = tempfile::tempdir()?;
    let with = json!({"resources": [path("deploy")], "components": [path("deploy/remediation"), path("deploy/monitoring")]});
    let relative = |text: String| text.replace(env!("CARGO_MANIFEST_DIR"), "base");
    std::os::unix::fs::symlink(env!("CARGO_MANIFEST_DIR"), folder.path().join("base"))?;
    std::fs::write(folder.path().join("kustomization.yaml"), relative(with.to_string()))?;
    let with = admin.kubectl(&["kustomize", &folder.path().display().to_string()])?;
    for held in ["name: driftguard-remediation", "kind: PrometheusRule", "grafana_dashboard: \"1\""] {
        ensure!(with.clone().success()?.contains(held), "no {held} in {with}");
    }
    Ok(())
}

#[test]
fn rights_on_a_kind_are_printed_ready_to_apply() -> Result<()> {
    let plane = ControlPlane::shared(Version::Newest);
    let admin = plane.admin()?;
    let known = done(&admin, &["manifests", "rbac", "--for", "Deployment"])?.stdout;
    ensure!(known.contains("driftguard.terrafusion.ai/aggregate-to-targets: \"true\""), "{known}");
    // Not in the table: the cluster is asked.
    let asked = done(&admin, &["manifests", "rbac", "--for", "priorityclass"])?.stdout;
    ensure!(asked.contains("scheduling.k8s.io"), "{asked}");
    let discovered = done(&admin, &["manifests", "rbac", "--for", "RuntimeClass"])?.stdout;
    ensure!(discovered.contains("- runtimeclasses"), "{discovered}");
    for yaml in [known, asked, discovered] {
        admin.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], yaml)?.success()?;
    }
    let secrets = refused(&admin, &["manifests", "rbac", "--for", "Secret"])?;
    ensure!(secrets.contains("--in NAMESPACE"), "{secrets}");
    Ok(())
}

#[test]
fn rights_on_secrets_are_given_in_the_namespaces_asked_for_and_go_with_the_rest() -> Result<()> {
    let plane = ControlPlane::builder().start()?;
    let admin = plane.admin()?;
    for namespace in ["trading", "billing"] {
        admin.kubectl(&["create", "namespace", namespace])?.success()?;
    }
    done(&admin, &["install", "--secrets-namespaces", "trading,billing"])?;
    let may = |place: &[&str]| -> Result<bool> {
        let account = "system:serviceaccount:terrafusion-system:driftguard-operator";
        let asked = [&["auth", "can-i", "patch", "secrets", "--as", account][..], place].concat();
        Ok(admin.kubectl(&asked)?.succeeded())
    };
    ensure!(may(&["-n", "trading"])? && may(&["-n", "billing"])?);
    ensure!(!may(&["-n", "default"])? && !may(&["-A"])?, "a right on Secrets that nobody gave");
    let further = done(&admin, &["manifests", "rbac", "--for", "Deployment"])?.stdout;
    admin.kubectl_with(&["apply", "-f", "-"], further)?.success()?;
    let said = done(&admin, &["uninstall"])?.stderr;
    ensure!(said.contains("namespace terrafusion-system stay"), "{said}");
    ensure!(!may(&["-n", "trading"])? && ours(&admin)?.is_empty(), "left behind: {}", ours(&admin)?);
    Ok(())
}
