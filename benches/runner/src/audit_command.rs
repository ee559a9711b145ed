//! `driftguard audit` against a raw list: how long the command takes over all guards and what they pin, and how long it
//! takes to list the same objects by as many pages and look at nothing.
//!
//! By the clock, from the start of the process to its end, so that what a person waits for is measured; and the most
//! memory that the command took.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::cluster::Cluster;
use crate::contender::sibling;
use crate::figures::{Better, Figures};
use crate::full_audit::list;
use crate::many::{IN_ONE, MANY};
use crate::median::median;
use crate::process::peak_of;
use crate::seeds::{self, CONFIG_MAP, Said};
use crate::table::Table;

/// Most time of the command, as a ratio to the raw list.
const TARGET: f64 = 1.2;
/// Objects in one page of either.
const PAGE: usize = 500;
/// How often the memory of the command is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// What is listed.
const LISTED: [&str; 2] = ["/apis/terrafusion.ai/v1/driftguards", "/api/v1/configmaps"];
/// Ways of writing the report: the default, and the one that says most.
const WRITTEN: [&str; 2] = ["table", "json"];

/// Measures on a control plane of its own, without `serve`: the guards say that all is well.
pub(crate) async fn alone(guards: usize, rounds: usize, figures: &mut Figures) -> anyhow::Result<Table> {
    eprintln!("starting a control plane with {guards} guards to audit");
    let cluster = Cluster::noting()?;
    cluster.install()?;
    seeds::plant(&cluster, CONFIG_MAP, guards, IN_ONE, Said::AllIsWell)?;
    run(&cluster, guards, rounds, figures).await
}

/// Measures on a control plane that has so many guards.
pub(crate) async fn run(
    cluster: &Cluster,
    guards: usize,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let client = cluster.admin().client()?;
    let (mut lists, mut took, mut ratios) = (Vec::new(), [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut peaks = [0.0_f64; 2];
    // Once before it counts: the API server's own cache is filled then.
    raw_list(&client, guards).await?;
    for _ in 0..rounds.max(3) {
        let raw = raw_list(&client, guards).await?;
        lists.push(raw);
        for (place, format) in WRITTEN.into_iter().enumerate() {
            let (seconds, peak) = audit(cluster, format, guards)?;
            took[place].push(seconds);
            ratios[place].push(seconds / raw);
            peaks[place] = peaks[place].max(peak);
        }
    }
    let title = format!("driftguard audit of {guards} guards of ConfigMaps of 2 KiB, and a raw list of both");
    let mut table = Table::new(&title, &["", "s", "to the raw list", "most MiB"]);
    let ratios = ratios.each_mut().map(|ratios| median(ratios));
    for (place, format) in WRITTEN.into_iter().enumerate() {
        let cells = [median(&mut took[place]), ratios[place]].map(|figure| format!("{figure:.2}"));
        let peak = format!("{:.1}", peaks[place]);
        table.row([format!("-o {format}")].into_iter().chain(cells).chain([peak]).collect());
    }
    table.row(vec![
        "raw list".to_owned(),
        format!("{:.2}", median(&mut lists)),
        "1.00".to_owned(),
        String::new(),
    ]);
    if guards == MANY {
        figures.with_target("audit-command-100k", ratios[0], TARGET, Better::Lower, "ratio to a raw list");
        figures.without_target("audit-command-100k-json", ratios[1], Better::Lower, "ratio to a raw list");
        figures.without_target("audit-command-100k-memory", peaks[0], Better::Lower, "MiB");
        figures.without_target("audit-command-100k-json-memory", peaks[1], Better::Lower, "MiB");
    }
    Ok(table)
}

/// Seconds of a raw list of guards and what they pin.
async fn raw_list(client: &kube::Client, guards: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    for path in LISTED {
        let listed = list(client, path, PAGE).await?;
        ensure!(listed >= guards, "the raw list of {path} holds {listed} of {guards} objects");
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Runs the command. Gives its seconds, and the most memory that it took in MiB.
fn audit(cluster: &Cluster, format: &str, guards: usize) -> anyhow::Result<(f64, f64)> {
    let report = cluster.scratch("report");
    let began = Instant::now();
    let mut child = Command::new(sibling("driftguard")?)
        .args(["audit", "--all-namespaces", "--fail-on", "drift,missing", "--output", format])
        .arg("--output-file")
        .arg(&report)
        .env("KUBECONFIG", cluster.admin().kubeconfig())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run driftguard")?;
    let mut peak = 0.0_f64;
    let status = loop {
        peak = peak.max(peak_of(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(GLANCE);
    };
    let seconds = began.elapsed().as_secs_f64();
    let said = std::io::read_to_string(child.stderr.take().context("it has no stderr")?)?;
    ensure!(status.success(), "driftguard audit ended with {status}: {said}");
    let written = std::fs::read_to_string(&report)?;
    let shown = written.lines().filter(|line| line.contains(CONFIG_MAP.kind)).count();
    ensure!(shown >= guards, "the report shows {shown} of {guards} guards");
    Ok((seconds, peak))
}
