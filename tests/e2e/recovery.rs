//! Everything dies and is brought back by `install` and `serve` alone: nothing that is guarded is in the way
//! of that, and until then nothing that is guarded changes.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, until};
use serde_json::{Value, json};

use crate::fleet::{Fleet, SYSTEM, Target};
use crate::installation::{LIMIT, Via, config_map, deployment, gama_config, hash_of, unchanged};

const DATA: &str = r#"{"data":{"a":"2"}}"#;
const STRING_DATA: &str = r#"{"stringData":{"a":"2"}}"#;
const SPEC: &str = r#"{"spec":{"paused":true}}"#;
/// What API servers say when a `Fail` entry is not answered.
pub(crate) const UNANSWERED: &str = "see-driftguard-breakglass";

/// What is guarded: beside DriftGuard in its own namespace, elsewhere, and in no namespace.
pub(crate) const GUARDED: [Target; 9] = [
    Target { namespace: "trading", kind: "configmap", name: "settings", edit: DATA },
    Target { namespace: "trading", kind: "deployment", name: "web", edit: SPEC },
    Target {
        namespace: "trading",
        kind: "gamaconfig",
        name: "model",
        edit: r#"{"spec":{"parameters":{"a":2}}}"#,
    },
    Target { namespace: "billing", kind: "secret", name: "keys", edit: STRING_DATA },
    Target { namespace: SYSTEM, kind: "configmap", name: "market-settings", edit: DATA },
    Target { namespace: SYSTEM, kind: "secret", name: "registry", edit: STRING_DATA },
    Target { namespace: SYSTEM, kind: "deployment", name: "config-service", edit: SPEC },
    Target {
        namespace: SYSTEM,
        kind: "serviceaccount",
        name: "config-service",
        edit: r#"{"secrets":[{"name":"x"}]}"#,
    },
    Target { namespace: "", kind: "clusterrole", name: "auditors", edit: r#"{"rules":[]}"# },
];
/// Whose labels pass while nobody answers; see `docs/design/registration-and-proof.md` for those whose do not.
const LABELLED: [&str; 3] = ["configmap", "deployment", "secret"];
/// The modes that never block anything, as further fields of a guard.
const OPEN: [(&str, &str, &str); 3] = [
    ("warned", "enforcement", "Warn"),
    ("audited", "enforcement", "Audit"),
    ("ignored", "failurePolicy", "Ignore"),
];

fn secret(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": {"a": "1"}})
}

fn service_account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
}

/// Makes what is guarded, and guards it, with a guard in `place` for what has no namespace.
pub(crate) fn guard_all(fleet: &Fleet) -> Result<()> {
    for namespace in ["trading", "billing"] {
        fleet.namespace(namespace)?;
    }
    let data = json!({"a": "1"});
    for object in [
        config_map("trading", "settings", &data),
        deployment("trading", "web"),
        gama_config("trading", "model", &data),
        secret("billing", "keys"),
        config_map(SYSTEM, "market-settings", &data),
        secret(SYSTEM, "registry"),
        deployment(SYSTEM, "config-service"),
        service_account(SYSTEM, "config-service"),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "auditors"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
    ] {
        fleet.apply(&object)?;
    }
    for target in &GUARDED {
        fleet.pin(place(target), target, &json!({}))?;
    }
    for (name, field, value) in OPEN {
        fleet.apply(&config_map("trading", name, &data))?;
        fleet.pin("trading", &open(name), &json!({field: value}))?;
    }
    Ok(())
}

/// The namespace of a target's guard.
fn place(target: &Target) -> &'static str {
    if target.namespace.is_empty() { "billing" } else { target.namespace }
}

/// An object whose guard lets everything pass while nobody answers.
fn open(name: &'static str) -> Target {
    Target { namespace: "trading", kind: "configmap", name, edit: DATA }
}

/// While nobody answers: what is not approved is refused, and what does not touch it passes.
fn nothing_changes_while_dead(fleet: &Fleet, round: &str) -> Result<()> {
    for target in &GUARDED {
        fleet.refused(target, UNANSWERED)?;
        if LABELLED.contains(&target.kind) {
            let label = format!("round={round}");
            fleet.admin.kubectl(&target.with(&["label", "--overwrite", &label]))?.success()?;
        }
    }
    let free = format!("free-{round}");
    fleet.apply(&config_map("trading", &free, &json!({"a": "1"})))?;
    // Guards cannot be loosened unseen, and they can be taken away: that is recorded when they are missed.
    let loosen = r#"{"spec":{"enforcement":"Audit"}}"#;
    let guard = GUARDED[0].guard();
    // Nobody lives who would write its status.
    let said = unchanged(&fleet.admin, "trading", &format!("dg/{guard}"), || {
        fleet
            .admin
            .kubectl(&["patch", "dg", &guard, "-n", "trading", "--type=merge", "-p", loosen])?
            .failure()
    })?;
    ensure!(said.contains(UNANSWERED), "{said}");
    Ok(())
}

/// After `install` and `serve`: every guard is enforced, by us and not for want of an answer, and a new one too.
fn all_is_enforced_again(fleet: &Fleet, round: &str) -> Result<()> {
    let fresh = config_map("trading", &format!("free-{round}"), &json!({"a": "1"}));
    let guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": format!("fresh-{round}"), "namespace": "trading"},
        "spec": {"targetKind": "ConfigMap", "targetName": fresh["metadata"]["name"],
            "expectedHash": hash_of(&fresh)?},
    });
    // With another signing key no guard is taken until the next holder of the lease has registered.
    until("a guard is taken", LIMIT, || fleet.apply(&guard))?;
    fleet.wait_enforcing("trading", &format!("fresh-{round}"))?;
    for target in &GUARDED {
        let guard = target.guard();
        fleet.wait_enforcing(place(target), &guard)?;
        fleet.refused(target, &format!("DriftGuard {}/{guard}", place(target)))?;
    }
    Ok(())
}

/// What is lost beside every process, as arguments of `kubectl delete`.
type Loss = &'static [&'static [&'static str]];

const LEASE: &[&str] = &["lease/driftguard", "-n", SYSTEM];
const REPLICAS: &[&str] = &["leases", "-n", SYSTEM, "-l", "driftguard.terrafusion.ai/replica"];
const AUTHORITY: &[&str] = &["secret/driftguard-ca", "-n", SYSTEM];
const SIGNING: &[&str] = &["secret/driftguard-signing", "-n", SYSTEM];
const RIGHTS: &[&str] = &[
    "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts",
    "-A",
    "-l",
    "app.kubernetes.io/part-of=driftguard",
];
const SERVICE: &[&str] = &["service/driftguard-webhook", "-n", SYSTEM];

/// Loses `lost` with every process, and brings the cluster back.
fn lose(fleet: &mut Fleet, round: &str, lost: Loss) -> Result<()> {
    fleet.kill()?;
    nothing_changes_while_dead(fleet, round)?;
    for what in lost {
        let delete = [&["delete", "--wait=false"], *what].concat();
        // kubectl takes no name together with -A.
        fleet.admin.kubectl(&delete)?.success()?;
    }
    fleet.install()?;
    fleet.start()?;
    all_is_enforced_again(fleet, round)
}

fn comes_back(via: Via, losses: &[(&str, Loss)]) -> Result<()> {
    let mut fleet = Fleet::on(ControlPlane::builder().start()?, via)?;
    guard_all(&fleet)?;
    for (round, lost) in losses {
        lose(&mut fleet, round, lost).with_context(|| format!("after the loss of {round}"))?;
    }
    Ok(())
}

#[test]
fn case_36_guards_hold_while_every_replica_is_dead_and_are_enforced_by_the_next() -> Result<()> {
    let mut fleet = Fleet::on(ControlPlane::builder().start()?, Via::Service)?;
    guard_all(&fleet)?;
    fleet.kill()?;
    nothing_changes_while_dead(&fleet, "dead")?;
    // Case 69: guards that do not block keep quiet.
    for (name, ..) in OPEN {
        fleet.edit(&open(name))?.success()?;
    }
    // With the whole control plane stopped as well.
    fleet.plane.api_server().kill()?;
    fleet.plane.etcd().restart()?;
    fleet.plane.api_server().start_again()?;
    nothing_changes_while_dead(&fleet, "restarted")?;
    fleet.start()?;
    all_is_enforced_again(&fleet, "restarted")?;
    // What is approved now passes.
    let guard = GUARDED[0].guard();
    let hash = hash_of(&config_map("trading", "settings", &json!({"a": "2"})))?;
    let approve = json!({"spec": {"expectedHash": hash}}).to_string();
    fleet
        .admin
        .kubectl(&["patch", "dg", &guard, "-n", "trading", "--type=merge", "-p", &approve])?
        .success()?;
    until("what is approved passes", LIMIT, || fleet.edit(&GUARDED[0])?.success())?;
    Ok(())
}

#[test]
fn a_cluster_comes_back_without_its_leases_and_its_authority() -> Result<()> {
    comes_back(Via::Url, &[("lease", &[LEASE]), ("replicas", &[REPLICAS]), ("authority", &[AUTHORITY])])
}

#[test]
fn a_cluster_comes_back_without_its_signing_key_its_rights_and_everything_at_once() -> Result<()> {
    let everything: Loss = &[LEASE, REPLICAS, AUTHORITY, SIGNING, SERVICE, RIGHTS];
    comes_back(Via::Service, &[("signing", &[SIGNING]), ("rights", &[RIGHTS]), ("everything", everything)])
}
