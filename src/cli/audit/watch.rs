//! `--watch`: what changes from one audit to the next, until it is ended.
//!
//! A running DriftGuard says in the status of a guard what it sees, within a second; so the guards are watched,
//! and whatever they say is looked into at once. Below that lies an audit each `--interval`, which needs nobody
//! to run and no right to watch.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use kube::Api;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::Serialize;

use super::{AuditArgs, Written, live, write};
use crate::cli::cluster::Cluster;
use crate::cli::exit::{Exit, is_closed_pipe};
use crate::cli::output;
use crate::cli::signals;
use crate::core::report::{Entry, Moment, Name, Report, outcome};
use crate::report::line;
use crate::store::Reported;

/// Pause between an event and the audit, in which others may come.
const SETTLE: Duration = Duration::from_millis(300);
/// How many times as long as an audit takes nothing is asked after it, however many events come: the API server
/// has other work.
const REST: u32 = 9;

/// One change, as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed<'a> {
    /// `Is` of the first audit, `Became` later, `Gone` of a guard that is no longer there.
    change: &'static str,
    at: Moment,
    guard: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a Entry>,
}

/// Audits over and over.
///
/// # Errors
/// When the first audit cannot be made, or nobody reads any more.
pub(super) async fn run(args: &AuditArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let mut events = std::pin::pin!(events(args, &cluster));
    let mut ending = signals::listen()?;
    let mut known: Option<BTreeMap<Name, Entry>> = None;
    // Nothing is clean before it was read.
    let mut came_to = Exit::CouldNotTell;
    loop {
        let began = Instant::now();
        let audited = tokio::select! {
            audited = live(args, Timestamp::now()) => audited,
            () = signals::heard(&mut ending) => return Ok(came_to),
        };
        match (audited, &known) {
            (Ok(report), _) => {
                came_to = outcome(&report.guards, &args.counted()).into();
                match tell(args, &report, known.as_ref()) {
                    // Whoever has read enough is told by the exit code.
                    Err(error) if is_closed_pipe(&error) => return Ok(came_to),
                    told => told?,
                }
                known = Some(report.guards.into_iter().map(|entry| (entry.guard.clone(), entry)).collect());
            }
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => {
                came_to = Exit::CouldNotTell;
                output::message(&format!("error: {error:#}; trying again"));
            }
        }
        let rest = began.elapsed() * REST;
        tokio::select! {
            () = tokio::time::sleep(args.interval.max(rest)) => {}
            () = next(&mut events, SETTLE.max(rest)) => {}
            () = signals::heard(&mut ending) => return Ok(came_to),
        }
    }
}

/// Something that is worth an audit, after a pause. Never where guards may not be watched.
async fn next(events: &mut (impl Stream<Item = ()> + Unpin), pause: Duration) {
    if events.next().await.is_none() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(pause).await;
    // What came meanwhile is seen by the same audit.
    while let Some(Some(())) = futures::FutureExt::now_or_never(events.next()) {}
}

/// That a guard changed, or its status.
fn events(args: &AuditArgs, cluster: &Cluster) -> impl Stream<Item = ()> {
    let api: Api<Reported> = match args.namespace(cluster) {
        Some(namespace) => Api::namespaced(cluster.client.clone(), &namespace),
        None => Api::all(cluster.client.clone()),
    };
    let mut config = watcher::Config::default();
    config.label_selector.clone_from(&args.selector);
    watcher(api, config).default_backoff().filter_map(|event| {
        // What fails is tried again by the watch itself, and found by the next audit anyhow.
        let is_news = matches!(event, Ok(Event::Apply(_) | Event::Delete(_)));
        futures::future::ready(is_news.then_some(()))
    })
}

/// Tells what is new; all of it where nothing is known.
fn tell(args: &AuditArgs, report: &Report, known: Option<&BTreeMap<Name, Entry>>) -> anyhow::Result<()> {
    let mut lines = String::new();
    let mut add = |change: &'static str, guard: &Name, entry: Option<&Entry>| -> anyhow::Result<()> {
        let at = report.generated_at;
        if args.output == Written::Json {
            lines.push_str(&serde_json::to_string(&Changed { change, at, guard, entry })?);
        } else {
            let screen = write::screen(true, report.origin.namespace.is_none(), at.timestamp());
            lines.push_str(&line(guard, entry, &screen));
        }
        lines.push('\n');
        Ok(())
    };
    for entry in ordered(args, report) {
        match known.map(|known| known.get(&entry.guard)) {
            None => add("Is", &entry.guard, Some(entry))?,
            Some(old) if old.is_none_or(|old| !is_as(old, entry)) => {
                add("Became", &entry.guard, Some(entry))?;
            }
            Some(_) => {}
        }
    }
    let left: HashSet<&Name> = report.guards.iter().map(|entry| &entry.guard).collect();
    for gone in known.into_iter().flatten().map(|(name, _)| name).filter(|name| !left.contains(name)) {
        add("Gone", gone, None)?;
    }
    Ok(output::data(lines.as_bytes())?)
}

/// The guards in the order in which they are told: for people trouble first, as in a table.
fn ordered<'a>(args: &AuditArgs, report: &'a Report) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
    if args.output.is_table() { Box::new(report.worst_first()) } else { Box::new(report.guards.iter()) }
}

/// Whether nothing that matters is new: messages may count seconds.
fn is_as(old: &Entry, new: &Entry) -> bool {
    let of = |entry: &Entry| {
        let hashes = (entry.current_hash.clone(), entry.expected_hash.clone());
        (entry.state, entry.also.clone(), entry.reason.clone(), entry.changed_paths.clone(), hashes)
    };
    of(old) == of(new)
}
