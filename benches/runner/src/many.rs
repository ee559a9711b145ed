//! What many guards cost: the time of a review, and memory, with one guard and with a hundred thousand.
//!
//! The guards are put straight into etcd, before `serve` starts. Two control planes, so that the two
//! take turns within one run.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use driftguard_control_plane::until;
use serde_json::json;

use crate::cluster::Cluster;
use crate::contender::Contender;
use crate::figures::{Better, Figures};
use crate::h2load::{Load, Protocol};
use crate::median::median;
use crate::review::Review;
use crate::table::Table;

/// How many guards the figures with targets are of.
pub(crate) const MANY: usize = 100_000;
/// How many stand in one namespace.
const IN_ONE: usize = 200;
/// Reviews of one turn.
const REQUESTS: u64 = 5_000;
/// How long `serve` may take until it has read and reported all guards.
const SETTLE: Duration = Duration::from_secs(1200);
/// One review after the other, as p50 is meant.
const ALONE: Load = Load { protocol: Protocol::Http1, connections: 1, streams: 1 };
const MEMORY_TARGET: f64 = 150.0;

/// Measures both; `review` is of an object that is guarded in either cluster.
pub(crate) fn run(
    review: &Review,
    guards: usize,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    eprintln!("starting two control planes, one of them with {guards} guards");
    let (few, many) = (Cluster::start()?, Cluster::start()?);
    let few_serve = start(&few, review, 0)?;
    let many_serve = start(&many, review, guards.saturating_sub(1))?;
    let mut times = [const { Vec::new() }; 2];
    for round in 0..rounds.max(3) {
        for offset in 0..2 {
            let place = (round + offset) % 2;
            let contender = [&few_serve, &many_serve][place];
            times[place].push(contender.turn(ALONE, review, REQUESTS)?.outcome.p50);
        }
    }
    let [few_p50, many_p50] = times.each_mut().map(|times| median(times));
    let memory = [few_serve.memory()?.resident, many_serve.memory()?.resident];
    let title = "a review of 2 KiB, one after the other";
    let mut table = Table::new(title, &["guards", "p50 ms", "RSS MiB", "most MiB"]);
    for (count, p50, serve) in [(1, few_p50, &few_serve), (guards, many_p50, &many_serve)] {
        let memory = serve.memory()?;
        let cells = [format!("{p50:.3}"), format!("{:.1}", memory.resident), format!("{:.1}", memory.peak)];
        table.row([count.to_string()].into_iter().chain(cells).collect());
    }
    if guards != MANY {
        return Ok(table);
    }
    figures.with_target("review-100k-guards", many_p50 / few_p50, 1.1, Better::Lower, "ratio to 1 guard");
    figures.with_target("memory-100k-guards", memory[1], MEMORY_TARGET, Better::Lower, "MiB");
    Ok(table)
}

fn start(cluster: &Cluster, review: &Review, more: usize) -> anyhow::Result<Contender> {
    let port = cluster.install()?;
    cluster.seed(&guards(more))?;
    cluster.guard(review)?;
    let (process, health) = cluster.start_serve(port)?;
    until("serve is ready", SETTLE, || {
        ensure!(process.exit_code().is_none(), "it has ended; {}", process.log_tail());
        crate::health::get(health, "/readyz")
    })?;
    // Reporting is over: what is measured is not what a start costs.
    until("every guard has been reported", SETTLE, || {
        let metrics = crate::health::get(health, "/metrics")?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("driftguard_status_writes_total") && line.contains("\"written\""));
        let written = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default();
        ensure!(written >= (more + 1) as f64, "{written} of {} are", more + 1);
        Ok(())
    })?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok(Contender::new("driftguard", process, address, "/validate/g1/fail?timeout=10s".to_owned()))
}

/// Guards as an API server stores them, of ConfigMaps that do not exist.
fn guards(count: usize) -> Vec<(String, Vec<u8>)> {
    let guard = |number: usize| {
        let namespace = format!("team-{:03}", number / IN_ONE);
        let name = format!("settings-{number:06}");
        let object = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {
                "name": name, "namespace": namespace, "generation": 1,
                "uid": format!("00000000-0000-4000-8000-{number:012}"),
                "creationTimestamp": "2026-01-05T09:30:00Z",
            },
            "spec": {
                "targetKind": "ConfigMap", "targetName": name, "autoRemediate": false,
                "deletionPolicy": "Allow", "maxFailuresBeforeAlert": 3,
                "expectedHash": format!("{number:064x}"),
            },
        });
        let key = format!("/registry/terrafusion.ai/driftguards/{namespace}/{name}");
        (key, object.to_string().into_bytes())
    };
    (0..count).map(guard).collect()
}
