//! `driftguard explain`: what is known of a guard, in sentences, each with the next step.
//!
//! From what anybody may read who may read the guard and its target: status, Events and managedFields. What is
//! not told there is said to be unknown, never guessed.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards::{self, Found};
use super::output;
use super::pinned::Pinned;
use super::subject::Served;
use super::table::one_line;
use super::terms::moment;

mod sentences;

use sentences::Facts;

/// Most Events and writers that are told.
const MOST: usize = 5;
/// Longest note of an Event that is told, in characters.
const LONGEST_NOTE: usize = 300;

/// Arguments of `driftguard explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It tells from the guard's status, from Events about it and from managedFields of its target, which any \
                        writer can forge.\n\n\
                        Examples:
  driftguard explain market-settings-guard
  driftguard explain deploy/web -n shop"
)]
pub struct ExplainArgs {
    /// A guard: NAME, or KIND/NAME of what it pins
    #[arg(value_name = "GUARD")]
    guard: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Explains.
///
/// # Errors
/// When the guard is not found.
pub async fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let guard = guards::only(&cluster, &args.guard).await?;
    let facts = facts(&cluster, &guard).await;
    let mut text = sentences::tell(&facts).join("\n\n");
    text.push('\n');
    output::data(text.as_bytes())?;
    Ok(Exit::Clean)
}

/// All that can be had; what cannot is said on stderr.
async fn facts<'a>(cluster: &Cluster, guard: &'a Found) -> Facts<'a> {
    let mut facts = Facts {
        guard,
        status: guard.status(),
        target: None,
        is_live: None,
        writers: Vec::new(),
        events: Vec::new(),
    };
    match events(cluster, guard).await {
        Ok(events) => facts.events = events,
        Err(error) => output::message(&format!("note: {error:#}")),
    }
    let looked = async {
        let served = Served::load(cluster).await?;
        let pinned = Pinned::of(guard, &served)?;
        let title = pinned.target.to_string();
        let live = pinned.live(cluster).await;
        anyhow::Ok((title, live))
    };
    match looked.await {
        Ok((title, live)) => {
            facts.target = Some(title);
            match live {
                Ok(live) => {
                    facts.is_live = Some(live.is_some());
                    facts.writers = live.map(|live| writers(&live.json)).unwrap_or_default();
                }
                Err(error) => output::message(&format!("note: {error:#}")),
            }
        }
        Err(error) => output::message(&format!("note: {error:#}")),
    }
    facts
}

/// The last Events about the guard, newest last, a line each.
async fn events(cluster: &Cluster, guard: &Found) -> anyhow::Result<Vec<String>> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), guard.namespace());
    let about =
        ListParams::default().fields(&format!("regarding.kind=DriftGuard,regarding.name={}", guard.name()));
    let found = api.list(&about).await.map_err(|error| cluster.explain("listing Events", &error))?;
    let mut events: Vec<(Timestamp, String)> = found.items.iter().filter_map(told).collect();
    events.sort();
    let from = events.len().saturating_sub(MOST);
    Ok(events.split_off(from).into_iter().map(|(_, line)| line).collect())
}

fn told(event: &Event) -> Option<(Timestamp, String)> {
    let series = event.series.as_ref();
    let at = series
        .map(|series| series.last_observed_time.0)
        .or(event.event_time.as_ref().map(|at| at.0))
        .or(event.metadata.creation_timestamp.as_ref().map(|at| at.0))?;
    let times = series.map_or_else(String::new, |series| format!(" ({} times)", series.count));
    let note = event.note.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
    let note: String = note.chars().take(LONGEST_NOTE).collect();
    let reason = event.reason.as_deref().unwrap_or("no reason");
    // Anybody may write an Event.
    Some((at, one_line(&format!("{} {reason}{times}: {note}", moment(at)))))
}

/// Who wrote the target last, by its managedFields, newest first.
fn writers(object: &[u8]) -> Vec<String> {
    let Ok(object) = serde_json::from_slice::<Value>(object) else { return Vec::new() };
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<(Timestamp, String)> = entries
        .iter()
        .filter(|entry| entry["subresource"] != "status")
        .filter_map(|entry| {
            let at: Timestamp = entry["time"].as_str()?.parse().ok()?;
            let operation = entry["operation"].as_str().unwrap_or_default().to_ascii_lowercase();
            Some((at, format!("{} at {} (by {operation})", entry["manager"].as_str()?, moment(at))))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().take(MOST).map(|(_, line)| line).collect()
}
