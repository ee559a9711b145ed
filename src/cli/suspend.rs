//! `driftguard suspend`: lets writes to the targets of guards pass for a while, by their own `spec.suspend`.

use jiff::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards::{self, Found};
use super::output;
use super::terms::Terms;
use super::wait::{Seen, Waiting};
use super::write;
use crate::api::reasons::{self, ConditionType};

/// Arguments of `driftguard suspend`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Suspending changes the guard: it takes the rights that it takes to make one, and is recorded \
                        with your name. It ends by itself, at the latest after serve's --max-exception (8h unless told \
                        otherwise). What changes meanwhile is not put back afterwards until somebody says so.\n\n\
                        Examples:
  driftguard suspend market-settings-guard --for 30m --reason 'migration 12'
  driftguard suspend deploy/web -n shop --until 2026-11-27T06:00:00Z --reason 'incident 7'"
)]
pub struct SuspendArgs {
    /// Guards: NAME, or KIND/NAME of what they pin
    #[arg(value_name = "GUARD", required = true)]
    guards: Vec<String>,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Suspends.
///
/// # Errors
/// When a guard is not found, may not be changed, or does not let writes pass in time.
pub async fn run(args: SuspendArgs) -> anyhow::Result<Exit> {
    let until = args.terms.end(Timestamp::now())?;
    let cluster = args.cluster.connect().await?;
    let chosen = guards::chosen(&cluster, &args.guards).await?;
    for guard in &chosen {
        tell_manager(guard);
    }
    let suspension =
        Suspension { cluster: &cluster, until: &until, reason: &args.terms.reason, waiting: &args.waiting };
    guards::each(&chosen, |guard| suspension.of(guard)).await?;
    Ok(Exit::Clean)
}

/// Says that a tool which applies the guard may take the change back.
pub(super) fn tell_manager(guard: &Found) {
    if let Some(tool) = guard.managed_by() {
        output::message(&format!(
            "note: {tool} applies {} and may take this back; an exception is not in its way: `driftguard exception open \
             {} --for 1h --reason TEXT`",
            guard.title(),
            guard.name(),
            tool = tool.as_str(),
        ));
    }
}

struct Suspension<'a> {
    cluster: &'a Cluster,
    until: &'a str,
    reason: &'a str,
    waiting: &'a Waiting,
}

impl Suspension<'_> {
    async fn of(&self, guard: &Found) -> anyhow::Result<String> {
        let patch = json!({
            // Of that very guard, whatever else is written meanwhile.
            "metadata": {"uid": guard.object.metadata.uid},
            "spec": {"suspend": {"until": self.until, "reason": self.reason}},
        });
        write::merge(self.cluster, &guard.path(), &patch)
            .await
            .map_err(|error| self.cluster.explain("suspending it", &error))?;
        if self.waiting.wait {
            self.waiting.until(async || self.look(guard).await).await?;
        }
        Ok(format!("suspended until {}", self.until))
    }

    async fn look(&self, guard: &Found) -> anyhow::Result<Seen<()>> {
        let status = guards::read(self.cluster, guard.namespace(), guard.name()).await?.status();
        let says_so = guards::condition(&status, ConditionType::Suspended).is_some_and(|said| {
            // Another pause that lasts longer is the one that is told.
            said.status == "True" && (said.reason == reasons::EXCEPTED || said.message.contains(self.until))
        });
        Ok(if says_so {
            Seen::Done(())
        } else {
            Seen::NotYet("it is written, but no replica of DriftGuard says that writes pass".to_owned())
        })
    }
}
