//! What DriftGuard asks of an API server while nothing happens: 10,000 guards of two kinds, all as approved.
//!
//! Counted by the API server's own log. Sweeps are made more often than they are by default, so that several fall
//! into a few minutes, and count for as much less.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use driftguard_control_plane::guardian::Process;

use crate::cluster::Cluster;
use crate::figures::{Better, Figures};
use crate::requests::{Purpose, Request};
use crate::seeds::{self, CONFIG_MAP, GAMA_CONFIG, Kind, Said};
use crate::table::Table;

const KINDS: [Kind; 2] = [CONFIG_MAP, GAMA_CONFIG];
/// Guards of each kind.
pub(crate) const GUARDS: usize = 5_000;
/// How many stand in one namespace: there are fifty, and one watch of each kind in each.
const IN_ONE: usize = 100;
/// Time from sweep to sweep here, and by default.
const INTERVAL: (&str, f64) = ("60s", 60.0);
const DEFAULT_INTERVAL: f64 = 600.0;
/// How long an API server keeps a watch open that `serve` begins.
const WATCH_SECONDS: f64 = 1_740.0;
const HOUR: f64 = 3_600.0;
/// Most requests an hour for each guarded kind, beyond Leases and watches that begin again.
const TARGET: f64 = 120.0;
/// How long nothing may have been written until it is idle, and how long that may take to come.
const CALM: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_secs(3_600);

/// Measures for so long, with so many guards of each kind.
pub(crate) async fn run(guards: usize, window: Duration, figures: &mut Figures) -> anyhow::Result<Table> {
    eprintln!("starting a control plane with {guards} guards of each of {} kinds", KINDS.len());
    let cluster = Cluster::noting()?;
    let port = cluster.install()?;
    for kind in KINDS {
        seeds::plant(&cluster, kind, guards, IN_ONE, Said::Nothing)?;
    }
    let (serve, health) = cluster.start_serve(port, &["--audit-interval", INTERVAL.0])?;
    wait_idle(&cluster, &serve, KINDS.len() * guards).await?;
    eprintln!("idle; counting for {} s", window.as_secs());
    let moment = cluster.moment()?;
    tokio::time::sleep(window).await;
    let requests: Vec<Request> =
        cluster.requests_since(moment)?.into_iter().filter(Request::is_ours).collect();
    let metrics = crate::health::get(health, "/metrics")?;
    let live = metrics.lines().find(|line| line.starts_with("driftguard_watches{state=\"live\"}"));
    let live: f64 =
        live.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("no watch is live")?;
    let mut counts: BTreeMap<Purpose, usize> = BTreeMap::new();
    let mut others: BTreeMap<(String, String), usize> = BTreeMap::new();
    for request in &requests {
        *counts.entry(request.purpose()).or_default() += 1;
        if request.purpose() == Purpose::Other {
            *others.entry((request.verb.clone(), request.resource.clone())).or_default() += 1;
        }
    }
    let count = |purpose| counts.get(&purpose).copied().unwrap_or_default() as f64;
    ensure!(count(Purpose::Sweep) > 0.0, "nothing was swept within {window:?}");
    let an_hour = HOUR / window.as_secs_f64();
    let sweeps = count(Purpose::Sweep) * an_hour * INTERVAL.1 / DEFAULT_INTERVAL;
    let other = count(Purpose::Other) * an_hour;
    let again = live * HOUR / WATCH_SECONDS;
    let title = format!("{} idle guards of {} kinds, requests of serve", KINDS.len() * guards, KINDS.len());
    let mut table = Table::new(&title, &["for", "seen", "an hour", "an hour and kind"]);
    let mut row = |what: &str, seen: f64, hourly: f64| {
        let kinds = hourly / KINDS.len() as f64;
        table.row(vec![what.to_owned(), seen.to_string(), format!("{hourly:.1}"), format!("{kinds:.1}")]);
    };
    row("sweeps, with what is asked before them", count(Purpose::Sweep), sweeps);
    row("all else", count(Purpose::Other), other);
    for ((verb, resource), seen) in &others {
        row(&format!("  {verb} {resource}"), *seen as f64, *seen as f64 * an_hour);
    }
    row("apart: Leases", count(Purpose::Lease), count(Purpose::Lease) * an_hour);
    row("apart: watches that begin again (from their length)", count(Purpose::Watch), again);
    let kinds = KINDS.len() as f64;
    let unit = "requests an hour and kind";
    if guards == GUARDS {
        figures.with_target("idle-requests-per-hour", (sweeps + other) / kinds, TARGET, Better::Lower, unit);
        figures.without_target(
            "idle-leases-per-hour",
            count(Purpose::Lease) * an_hour,
            Better::Lower,
            "requests an hour",
        );
        figures.without_target("idle-watches-per-hour", again / kinds, Better::Lower, unit);
    }
    Ok(table)
}

/// Waits until statuses have been written for so many guards and nothing is any more.
pub(crate) async fn wait_idle(cluster: &Cluster, serve: &Process, guards: usize) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let mut written = 0;
    let mut moment = cluster.moment()?;
    loop {
        tokio::time::sleep(CALM).await;
        ensure!(serve.exit_code().is_none(), "serve has ended; {}", serve.log_tail());
        let now = cluster.moment()?;
        let requests = cluster.requests_since(moment)?;
        moment = now;
        let is_write = |request: &&Request| {
            request.is_ours() && request.verb == "patch" && request.resource == "driftguards"
        };
        let new = requests.iter().filter(is_write).count();
        written += new;
        // The controller and the auditor each write their part.
        if new == 0 && written >= guards {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLE, "{written} statuses were written; {}", serve.log_tail());
    }
}
