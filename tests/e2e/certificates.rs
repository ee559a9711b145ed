//! Certificates that live for seconds, renewed again and again under load: no write fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use driftguard_control_plane::guardian::{Process, Program};
use driftguard_control_plane::{Backend, Balancer, ControlPlane, User, Version, free_port, until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::installation::{DRIFTGUARD, LIMIT, Via, config_map, driftguard, hash_of};

/// Writers at once, each on a client of its own.
const WRITERS: usize = 4;
/// How often the authority must have changed.
const ROTATIONS: usize = 2;
/// Lives of certificates in this test.
const LIVES: [&str; 3] = ["--ca-lifetime=24s", "--leaf-lifetime=6s", "--ca-settle=1s"];

fn replica(name: &str, reach: &[String; 2], operator: &User) -> Result<(Program, Backend)> {
    let (port, health) = (free_port()?, free_port()?);
    let program = Program::new(name, DRIFTGUARD)
        .args(["serve".to_owned(), format!("--replica-name={name}")])
        .args(reach.clone())
        .args(LIVES)
        .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
        .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    Ok((program, Backend { address, readyz: format!("http://127.0.0.1:{health}/readyz") }))
}

/// Writes until told to stop: one write that must be refused and one that must pass, in turn.
pub(crate) async fn write(
    api: Api<ConfigMap>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> Result<()> {
    let refused = Patch::Merge(json!({"data": {"price": "999"}}));
    let approved = Patch::Merge(json!({"data": {"price": "100"}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    while !stop.load(Ordering::Relaxed) {
        match api.patch("market-settings", &PatchParams::default(), &refused).await {
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("denied the request: DriftGuard ") => {}
            other => bail!("a write that is not approved was answered {other:?}"),
        }
        // A dry run always reaches the webhook; an approved write is not registered for one.
        api.patch("market-settings", &dry, &approved).await.context("an approved write failed")?;
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub(crate) fn registered(admin: &User) -> Result<String> {
    let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    admin.kubectl(&["get", "validatingwebhookconfiguration", "driftguard", "-o", path])?.success()
}

fn signing(admin: &User) -> Result<String> {
    let arguments =
        ["get", "secret", "driftguard-ca", "-n", "terrafusion-system", "-o", r"jsonpath={.data.tls\.crt}"];
    admin.kubectl(&arguments)?.success()
}

/// Waits until the authority has changed `ROTATIONS` times, watching that writes go on meanwhile.
fn watch_rotations(admin: &User, written: &AtomicUsize) -> Result<()> {
    let mut seen = signing(admin)?;
    let mut bundles = vec![registered(admin)?];
    for _ in 0..ROTATIONS {
        seen = until("another authority signs", LIMIT, || {
            let bundle = registered(admin)?;
            if bundles.last() != Some(&bundle) {
                bundles.push(bundle);
            }
            let now = signing(admin)?;
            ensure!(now != seen, "still the same");
            Ok(now)
        })?;
        let before = written.load(Ordering::Relaxed);
        until("writes go on", LIMIT, || {
            ensure!(written.load(Ordering::Relaxed) > before + 4 * WRITERS, "no writer comes through");
            Ok(())
        })?;
    }
    ensure!(bundles.len() > ROTATIONS, "the registration followed {} times only", bundles.len() - 1);
    Ok(())
}

fn no_write_fails(via: Via) -> Result<()> {
    let plane = ControlPlane::builder().kubernetes(Version::Newest).start()?;
    let admin = plane.admin()?;
    let balancer = Balancer::start(Vec::new())?;
    let port = balancer.port();
    let url = format!("https://127.0.0.1:{port}");
    let (installed, reach) = match via {
        Via::Url => (format!("--url={url}"), ["--webhook-url".to_owned(), url]),
        Via::Service => (
            format!("--external-name={port}"),
            ["--webhook-service".to_owned(), format!("terrafusion-system/driftguard-webhook:{port}")],
        ),
    };
    driftguard(&admin, &["install", "--dev", &installed])?.success()?;
    let operator = plane.service_account("terrafusion-system", "driftguard-operator")?;
    let replicas = [replica("replica-a", &reach, &operator)?, replica("replica-b", &reach, &operator)?];
    balancer.set_backends(replicas.iter().map(|(_, backend)| backend.clone()).collect());
    let running: Vec<Process> =
        replicas.iter().map(|(program, _)| plane.guardian().start(program)).collect::<Result<_>>()?;
    let logs = || format!("{}\n{}", running[0].log_tail(), running[1].log_tail());
    balancer.wait_ready(2, LIMIT).map_err(|error| anyhow!("{error:#}\n{}", logs()))?;

    let target = config_map("default", "market-settings", &json!({"price": "100"}));
    admin.kubectl_with(&["apply", "-f", "-"], target.to_string())?.success()?;
    let guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "market-settings-guard", "namespace": "default"},
        "spec": {"targetKind": "ConfigMap", "targetName": "market-settings", "expectedHash": hash_of(&target)?},
    });
    admin.kubectl_with(&["apply", "-f", "-"], guard.to_string())?.success()?;
    let enforcing = ["wait", "--for=condition=Enforcing", "--timeout=60s", "dg/market-settings-guard"];
    admin.kubectl(&enforcing)?.success()?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let api = Api::namespaced(admin.client()?, "default");
            Ok(runtime.spawn(write(api, Arc::clone(&stop), Arc::clone(&written))))
        })
        .collect::<Result<_>>()?;
    let rotated = watch_rotations(&admin, &written);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer)?.map_err(|error| anyhow!("{error:#}\n{}", logs()))?;
    }
    rotated.map_err(|error| anyhow!("{error:#}\n{}", logs()))?;
    let live = admin.kubectl(&["get", "configmap", "market-settings", "-o", "json"])?.json()?;
    ensure!(live["data"] == json!({"price": "100"}), "{live}");
    Ok(())
}

#[test]
fn no_write_fails_while_authorities_change_behind_a_url() -> Result<()> {
    no_write_fails(Via::Url)
}

#[test]
fn no_write_fails_while_authorities_change_behind_a_service() -> Result<()> {
    no_write_fails(Via::Service)
}
