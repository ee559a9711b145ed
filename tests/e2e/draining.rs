//! Two replicas behind a balancer, one after the other stopped or killed and started again while writes go on:
//! when it is stopped no write fails for want of an answer, and when it is killed nothing unapproved is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fleet::{Fleet, Target};
use crate::installation::{LIMIT, Via, config_map};

/// Writers at once: more than an API server keeps connections for over HTTP/1.1.
const WRITERS: usize = 32;
const TARGET: Target = Target {
    namespace: "default",
    kind: "configmap",
    name: "market-settings",
    edit: r#"{"data":{"price":"999"}}"#,
};

/// What writers have seen.
#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    /// Pairs of writes that were answered as they must be.
    written: AtomicUsize,
    /// Writes, approved or not, that failed for want of an answer.
    unanswered: AtomicUsize,
}

/// Whether a write failed because no replica answered.
fn is_unanswered(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 500 && status.message.contains("failed calling webhook"))
}

/// Writes until told to stop, each write alternately one that must be refused and one that must pass.
async fn write(api: Api<ConfigMap>, tally: Arc<Tally>) -> Result<()> {
    let refused = Patch::Merge(json!({"data": {"price": "999"}}));
    let approved = Patch::Merge(json!({"data": {"price": "100"}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    while !tally.stop.load(Ordering::Relaxed) {
        let unanswered = || tally.unanswered.fetch_add(1, Ordering::Relaxed);
        match api.patch(TARGET.name, &PatchParams::default(), &refused).await {
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("denied the request: DriftGuard ") => {}
            Err(error) if is_unanswered(&error) => {
                unanswered();
                continue;
            }
            other => bail!("a write that is not approved was answered {other:?}"),
        }
        // A dry run always reaches the webhook; an approved write is not registered for one.
        match api.patch(TARGET.name, &dry, &approved).await {
            Ok(_) => _ = tally.written.fetch_add(1, Ordering::Relaxed),
            Err(error) if is_unanswered(&error) => _ = unanswered(),
            Err(error) => bail!("an approved write failed: {error:?}"),
        }
    }
    Ok(())
}

/// Lets writers write while `signal` ends one replica after the other. Gives how many writes failed for want of an
/// answer.
fn write_while_replicas_end(via: Via, signal: Signal) -> Result<usize> {
    let fleet = Fleet::on(ControlPlane::builder().start()?, via)?;
    fleet.apply(&config_map("default", TARGET.name, &json!({"price": "100"})))?;
    fleet.pin("default", &TARGET, &json!({}))?;
    let before = fleet.get(&TARGET)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tally = Arc::new(Tally::default());
    let client = fleet.admin.client()?;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| runtime.spawn(write(Api::namespaced(client.clone(), "default"), Arc::clone(&tally))))
        .collect();
    let more_is_written = || {
        // Far more than there are writers, with every one of them answered: what a killed replica leaves
        // behind is over.
        let mut from = (tally.written.load(Ordering::Relaxed), tally.unanswered.load(Ordering::Relaxed));
        until("writes go on, each of them answered", LIMIT, || {
            let now = (tally.written.load(Ordering::Relaxed), tally.unanswered.load(Ordering::Relaxed));
            if now.1 > from.1 {
                from = now;
            }
            ensure!(now.0 > from.0 + 2 * WRITERS, "{tally:?}");
            Ok(())
        })
        .map_err(|error| fleet.with_logs(&error))
    };
    for (replica, process) in fleet.running.iter().enumerate() {
        more_is_written()?;
        process.signal(signal)?;
        let code = process.wait(LIMIT)?;
        ensure!(
            code == if signal == Signal::Kill { 137 } else { 0 },
            "{} ended with {code}\n{}",
            process.name(),
            process.log_tail()
        );
        more_is_written()?;
        fleet.start_again(replica)?;
    }
    more_is_written()?;
    tally.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer)?.map_err(|error| fleet.with_logs(&error))?;
    }
    let after = fleet.get(&TARGET)?;
    ensure!(after == before, "something was stored: {after}");
    Ok(tally.unanswered.load(Ordering::Relaxed))
}

fn no_write_fails(via: Via) -> Result<()> {
    let unanswered = write_while_replicas_end(via, Signal::Terminate)?;
    ensure!(unanswered == 0, "{unanswered} writes failed");
    Ok(())
}

#[test]
fn case_35_no_write_fails_when_replicas_stop_and_start_behind_a_url() -> Result<()> {
    no_write_fails(Via::Url)
}

#[test]
fn case_35_no_write_fails_when_replicas_stop_and_start_behind_a_service() -> Result<()> {
    no_write_fails(Via::Service)
}

#[test]
fn case_35_nothing_unapproved_is_stored_when_replicas_are_killed_behind_a_url() -> Result<()> {
    write_while_replicas_end(Via::Url, Signal::Kill).map(drop)
}

#[test]
fn case_35_nothing_unapproved_is_stored_when_replicas_are_killed_behind_a_service() -> Result<()> {
    write_while_replicas_end(Via::Service, Signal::Kill).map(drop)
}
