//! What many guards cost: the time of a review, and memory, with one guard and with a hundred thousand; and a full
//! audit of the hundred thousand.
//!
//! The guards and what they guard are put straight into etcd, before `serve` starts: with the statuses that it writes, as
//! they stand in a cluster, or without, so that it writes all of them first. It leads, so that what the auditor keeps
//! counts. Two control planes, so that the two take turns within one run.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use driftguard_control_plane::until;

use crate::audit_command;
use crate::cluster::Cluster;
use crate::contender::Contender;
use crate::figures::{Better, Figures};
use crate::full_audit;
use crate::h2load::{Load, Protocol};
use crate::idle::wait_idle;
use crate::median::median;
use crate::process::{self, Memory};
use crate::review::Review;
use crate::seeds::{self, CONFIG_MAP, Said};
use crate::table::Table;

/// How many guards the figures with targets are of.
pub(crate) const MANY: usize = 100_000;
/// How many stand in one namespace.
pub(crate) const IN_ONE: usize = 200;
/// Reviews of one turn.
const REQUESTS: u64 = 5_000;
/// How long `serve` may take until it has read all guards.
const SETTLE: Duration = Duration::from_secs(1200);
/// One review after the other, as p50 is meant.
const ALONE: Load = Load { protocol: Protocol::Http1, connections: 1, streams: 1 };
const MEMORY_TARGET: f64 = 150.0;
/// Most time of a full audit, as a ratio to a raw list.
const AUDIT_TARGET: f64 = 1.2;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How many guards are many.
    pub guards: usize,
    /// Turns of each at least.
    pub rounds: usize,
    /// What the guards say of themselves before `serve` starts.
    pub said: Said,
}

/// Measures both; `review` is of an object that is guarded in either cluster.
pub(crate) async fn run(review: &Review, plan: Plan, figures: &mut Figures) -> anyhow::Result<Vec<Table>> {
    let Plan { guards, rounds, said } = plan;
    eprintln!("starting two control planes, one of them with {guards} guards");
    let (few, many) = (Cluster::noting()?, Cluster::noting()?);
    let few_serve = start(&few, review, 0, said).await?;
    let planted = guards.saturating_sub(1);
    let many_serve = start(&many, review, planted, said).await?;
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
    drop(few_serve);
    drop(few);
    let (times, again) = audit(&many, many_serve, planted, rounds).await?;
    let cells = [String::new(), format!("{:.1}", again.resident), format!("{:.1}", again.peak)];
    table.row([format!("{guards}, started anew")].into_iter().chain(cells).collect());
    let title = format!("a full audit of {planted} ConfigMaps of 2 KiB, and a raw list of them");
    let mut audits = Table::new(&title, &["", "s", "to the raw list"]);
    audits.row(vec!["sweep".to_owned(), format!("{:.2}", times.sweep), format!("{:.2}", times.ratio)]);
    audits.row(vec!["raw list".to_owned(), format!("{:.2}", times.list), "1.00".to_owned()]);
    let command = audit_command::run(&many, guards, rounds, figures).await?;
    let tables = vec![table, audits, command];
    if guards != MANY {
        return Ok(tables);
    }
    figures.with_target("audit-100k", times.ratio, AUDIT_TARGET, Better::Lower, "ratio to a raw list");
    figures.with_target("review-100k-guards", many_p50 / few_p50, 1.1, Better::Lower, "ratio to 1 guard");
    let resident = if said == Said::Nothing { "memory-100k-guards-fresh" } else { "memory-100k-guards" };
    figures.with_target(resident, memory[1], MEMORY_TARGET, Better::Lower, "MiB");
    figures.without_target("memory-100k-guards-anew", again.resident, Better::Lower, "MiB");
    Ok(tables)
}

/// Starts `serve` anew with frequent sweeps, and times them. Gives its memory, too: nothing need be reported.
async fn audit(
    cluster: &Cluster,
    serve: Contender,
    objects: usize,
    rounds: usize,
) -> anyhow::Result<(full_audit::Times, Memory)> {
    let port = serve.end()?;
    let (serve, _) = cluster.start_serve(port, &full_audit::FLAG)?;
    let times = full_audit::run(cluster, &serve, objects, rounds.max(3)).await?;
    Ok((times, process::memory(&serve)?))
}

async fn start(cluster: &Cluster, review: &Review, more: usize, said: Said) -> anyhow::Result<Contender> {
    let port = cluster.install()?;
    seeds::plant(cluster, CONFIG_MAP, more, IN_ONE, said)?;
    cluster.guard(review)?;
    let (process, health) = cluster.start_serve(port, &[])?;
    until("serve is ready", SETTLE, || {
        ensure!(process.exit_code().is_none(), "it has ended; {}", process.log_tail());
        crate::health::get(health, "/readyz")
    })?;
    // Reporting is over: what is measured is not what a start costs.
    let unsaid = if said == Said::Nothing { more } else { 0 };
    wait_idle(cluster, &process, unsaid + 1).await?;
    wait_seen(health, more + 1)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok(Contender::new("driftguard", process, address, "/validate/g1/fail?timeout=10s".to_owned()))
}

/// Waits until the auditor has looked at so many targets.
fn wait_seen(health: u16, targets: usize) -> anyhow::Result<()> {
    until("the auditor has looked at all targets", SETTLE, || {
        let metrics = crate::health::get(health, "/metrics")?;
        let looks = metrics.lines().filter(|line| line.starts_with("driftguard_target_news_total{"));
        let seen: f64 = looks.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        ensure!(seen >= targets as f64, "{seen} of {targets}");
        Ok(())
    })
}
