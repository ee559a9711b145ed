//! `driftguard resume`: ends the suspension of guards before its time.

use serde_json::json;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards::{self, Found};
use super::output;
use super::wait::{Seen, Waiting};
use super::write;
use crate::api::reasons::{self, ConditionType};

/// Arguments of `driftguard resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "An exception that pauses a guard is ended by closing it, not by this.\n\n\
                        Examples:
  driftguard resume market-settings-guard
  driftguard resume deploy/web -n shop")]
pub struct ResumeArgs {
    /// Guards: NAME, or KIND/NAME of what they pin
    #[arg(value_name = "GUARD", required = true)]
    guards: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Resumes.
///
/// # Errors
/// When a guard is not found, may not be changed, or is not enforced again in time.
pub async fn run(args: ResumeArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let chosen = guards::chosen(&cluster, &args.guards).await?;
    guards::each(&chosen, |guard| resume(&cluster, guard, &args.waiting)).await?;
    Ok(Exit::Clean)
}

async fn resume(cluster: &Cluster, guard: &Found, waiting: &Waiting) -> anyhow::Result<String> {
    if guard.object.spec.suspend.is_none() {
        tell_exception(guard);
        return Ok("is not suspended".to_owned());
    }
    super::suspend::tell_manager(guard);
    let patch = json!({
        "metadata": {"uid": guard.object.metadata.uid},
        "spec": {"suspend": null},
    });
    write::merge(cluster, &guard.path(), &patch)
        .await
        .map_err(|error| cluster.explain("resuming it", &error))?;
    if waiting.wait {
        let after = waiting.until(async || look(cluster, guard).await).await?;
        tell_exception(&after);
    }
    Ok("resumed".to_owned())
}

async fn look(cluster: &Cluster, guard: &Found) -> anyhow::Result<Seen<Found>> {
    let after = guards::read(cluster, guard.namespace(), guard.name()).await?;
    let status = after.status();
    let is_suspended = guards::condition(&status, ConditionType::Suspended)
        .is_some_and(|said| said.status == "True" && said.reason != reasons::EXCEPTED);
    Ok(if is_suspended {
        Seen::NotYet(
            "it is written, but not every replica of DriftGuard says that it is enforced again".to_owned(),
        )
    } else {
        Seen::Done(after)
    })
}

/// Says that an exception goes on pausing the guard.
fn tell_exception(guard: &Found) {
    let status = guard.status();
    let paused = guards::condition(&status, ConditionType::Suspended)
        .filter(|said| said.status == "True" && said.reason == reasons::EXCEPTED);
    if let Some(said) = paused {
        output::message(&format!(
            "note: {} stays paused, {}; end that by `driftguard exception close NAME -n {}`",
            guard.title(),
            said.message,
            guard.namespace()
        ));
    }
}
