//! Two replicas behind a balancer: one after the other is stopped and started again while writes go on,
//! and no write fails for want of an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use driftguard_control_plane::guardian::{Process, Program, Signal};
use driftguard_control_plane::{Backend, Balancer, ControlPlane, User, Version, free_port, until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::installation::{DRIFTGUARD, LIMIT, Via, config_map, driftguard, hash_of};

/// Writers at once: more than an API server keeps connections for over HTTP/1.1.
const WRITERS: usize = 32;

/// One replica, which can be started again under its name.
struct Replica {
    program: Program,
    backend: Backend,
}

impl Replica {
    fn new(name: &str, reach: &[String; 2], operator: &User) -> Result<Self> {
        let (port, health) = (free_port()?, free_port()?);
        let program = Program::new(name, DRIFTGUARD)
            .args(["serve".to_owned(), format!("--replica-name={name}")])
            .args(reach.clone())
            .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
            .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
        let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
        Ok(Self {
            program,
            backend: Backend { address, readyz: format!("http://127.0.0.1:{health}/readyz") },
        })
    }
}

/// Writes until told to stop, each write alternately one that must be refused and one that must pass.
async fn write(api: Api<ConfigMap>, stop: Arc<AtomicBool>, written: Arc<AtomicUsize>) -> Result<()> {
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
    let replicas =
        [Replica::new("replica-a", &reach, &operator)?, Replica::new("replica-b", &reach, &operator)?];
    balancer.set_backends(replicas.iter().map(|replica| replica.backend.clone()).collect());
    let start = |replica: &Replica| plane.guardian().start(&replica.program);
    let running: Vec<Process> = replicas.iter().map(start).collect::<Result<_>>()?;
    balancer.wait_ready(2, LIMIT).map_err(|error| anyhow!("{error:#}\n{}", running[0].log_tail()))?;

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
    let client = admin.client()?;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let api = Api::namespaced(client.clone(), "default");
            runtime.spawn(write(api, Arc::clone(&stop), Arc::clone(&written)))
        })
        .collect();
    let more_is_written = || {
        let before = written.load(Ordering::Relaxed);
        until("writes go on", LIMIT, || {
            ensure!(written.load(Ordering::Relaxed) > before + 2 * WRITERS, "no writer comes through");
            Ok(())
        })
    };
    for (replica, process) in replicas.iter().zip(&running) {
        more_is_written()?;
        process.signal(Signal::Terminate)?;
        let code = process.wait(LIMIT)?;
        ensure!(code == 0, "{} ended with {code}\n{}", process.name(), process.log_tail());
        more_is_written()?;
        start(replica)?;
        balancer.wait_ready(2, LIMIT)?;
    }
    more_is_written()?;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let result = runtime.block_on(writer)?;
        result.map_err(|error| anyhow!("{error:#}\n{}\n{}", running[0].log_tail(), running[1].log_tail()))?;
    }
    let live = admin.kubectl(&["get", "configmap", "market-settings", "-o", "json"])?.json()?;
    ensure!(live["data"] == json!({"price": "100"}), "{live}");
    Ok(())
}

#[test]
fn no_write_fails_when_replicas_stop_and_start_behind_a_url() -> Result<()> {
    no_write_fails(Via::Url)
}

#[test]
fn no_write_fails_when_replicas_stop_and_start_behind_a_service() -> Result<()> {
    no_write_fails(Via::Service)
}
