//! `driftguard doctor`: checks an installation, each finding with its mend. Writes nothing.
//!
//! What is read ([`collect`]) and what it means ([`rules`]) are apart, so that each rule has a test without a
//! cluster.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::output;
use crate::manifests::yaml;

mod collect;
mod facts;
mod finding;
mod rules;

use finding::{Check, Finding, Outcome, Summary};

/// How long a new guard may take to be registered and proved. What is wrong then is wrong.
const SETTLE: Duration = Duration::from_secs(3);

/// Arguments of `driftguard doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It reads, asks what the operator may do, and sends an empty dry-run patch of guarded objects until \
                        one shows whether the webhook is reached. Nothing is changed, and of Secrets only their names \
                        are read. Exit codes: 0 all is well or only worth a look (warn), 1 at least one check failed, \
                        2 a check could not be made, or there is no cluster.\n\n\
                        Examples:\n  driftguard doctor\n  driftguard doctor --no-dry-run\n  driftguard doctor -o json | \
                        jq '.findings[] | select(.outcome == \"fail\")'"
)]
pub struct DoctorArgs {
    /// Leave out dry runs: whether the webhook is reached is then not told
    #[arg(long)]
    no_dry_run: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Yaml,
}

/// For programs.
#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    summary: Summary,
}

/// Checks.
///
/// # Errors
/// When the cluster cannot be reached, or nothing failed and a check could not be made.
pub async fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let namespace = args.cluster.namespace.clone();
    let look = || collect::facts(&cluster, namespace.clone(), !args.no_dry_run);
    let mut findings = rules::findings(&look().await?);
    if findings.iter().any(is_perhaps_passing) {
        tokio::time::sleep(SETTLE).await;
        findings = rules::findings(&look().await?);
    }
    let summary = Summary::of(&findings);
    let report = Report { findings: &findings, summary };
    let text = match args.output {
        Format::Text => finding::text(&findings),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Yaml => yaml::document("the findings", &report)?,
    };
    // Whoever has read enough is not told less by the exit code.
    output::data_while_read(text.as_bytes())?;
    match summary {
        Summary { fail: 1.., .. } => Ok(Exit::Finding),
        Summary { untold: 0, .. } => Ok(Exit::Clean),
        Summary { untold, .. } => {
            let checks = if untold == 1 { "check" } else { "checks" };
            bail!("{untold} {checks} could not be made; each says what mends that")
        }
    }
}

/// Whether a finding may be about nothing but a guard that was made a moment ago.
fn is_perhaps_passing(finding: &Finding) -> bool {
    let follows_guards = [Check::Rules, Check::Reachability, Check::Enforced, Check::Detection];
    follows_guards.contains(&finding.check) && matches!(finding.outcome, Outcome::Warn | Outcome::Fail)
}
