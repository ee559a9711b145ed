//! `driftguard audit`: the state of every guard, as a report.
//!
//! It reads and never writes: guards by pages, then what they pin, each resource of a namespace in one list
//! where many guards pin there, by name where few do. Objects are hashed as they stream by and dropped, while the
//! next page comes, so that memory goes with the number of guards and not with what they pin; of a guard that is
//! as it should be little is kept, and the report is written guard by guard. What is known beside the content
//! stands in the guards' statuses. Whether it finds anything never depends on a running DriftGuard.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::{SignedDuration, Timestamp};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use super::subject::served::Served;
use crate::core::duration;
use crate::core::report::{self, FailOn, Known, Leading, Origin, Outcome, Report};
use crate::report::{self as written, Format, summary};

mod earlier;
mod files;
mod guards;
mod leading;
mod progress;
mod targets;
mod watch;
mod write;

/// Arguments of `driftguard audit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing was found, 1 something was found (--fail-on says what counts), 2 of some \
                        guard it could not be told, or the command failed.\n\n\
                        Examples:
  driftguard audit
  driftguard audit -A -o wide
  driftguard audit market-settings-guard -n trading
  driftguard audit -A -l team=web --kind deployment --fail-on drift,missing
  driftguard audit -A -o json --output-file today.json
  driftguard audit -A --from-report yesterday.json --since 24h
  driftguard audit -A --watch
  driftguard audit -f guards/ -f manifests/ -o sarif --output-file driftguard.sarif"
)]
pub struct AuditArgs {
    /// Guards to look at [default: all of the namespace]
    #[arg(value_name = "NAME", conflicts_with_all = ["selector", "all_namespaces"])]
    names: Vec<String>,
    /// Check files instead of a cluster, which is not asked: guards, and the objects that they pin; a file, a
    /// directory or - for standard input; may be repeated. -n is the namespace of what names none
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["all_namespaces", "selector"])]
    filename: Vec<String>,
    /// Look at the guards of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only guards with these labels, such as team=web,tier!=test
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only guards of targets of this kind, by any of its names; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Written,
    /// Write the report to this file, whole or not at all, instead of standard output
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// What is a finding, by commas: drift, missing, not-enforcing, suspended, conflict, source, any or none
    #[arg(
        long,
        value_name = "STATE",
        value_delimiter = ',',
        hide_possible_values = true,
        default_values = ["drift", "missing", "not-enforcing", "conflict"]
    )]
    fail_on: Vec<Counted>,
    /// Only states that began within this time, such as 1h or 7d, and those of which nobody knows when
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
    /// Compare with an earlier report, a file written with -o json
    #[arg(long, value_name = "FILE")]
    from_report: Option<PathBuf>,
    /// Go on, and write what changes, until Ctrl-C: as rows, or as a line of JSON each with -o json
    #[arg(short, long, conflicts_with_all = ["filename", "output_file", "since", "from_report"])]
    watch: bool,
    /// With --watch: how often everything is looked at, beside what guards say themselves
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "watch", value_parser = duration::parse_some)]
    interval: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The values of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Written {
    Table,
    Wide,
    Json,
    Yaml,
    Csv,
    Junit,
    Sarif,
    Html,
    Openreports,
}

impl Written {
    fn format(self) -> Format {
        match self {
            Self::Table => Format::Table,
            Self::Wide => Format::Wide,
            Self::Json => Format::Json,
            Self::Yaml => Format::Yaml,
            Self::Csv => Format::Csv,
            Self::Junit => Format::Junit,
            Self::Sarif => Format::Sarif,
            Self::Html => Format::Html,
            Self::Openreports => Format::OpenReports,
        }
    }

    fn is_watched(self) -> bool {
        matches!(self, Self::Table | Self::Json)
    }

    fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// The values of `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Counted {
    Drift,
    Missing,
    NotEnforcing,
    Suspended,
    Conflict,
    Source,
    Any,
    None,
}

impl Counted {
    fn fail_on(self) -> Option<FailOn> {
        Some(match self {
            Self::Drift => FailOn::Drift,
            Self::Missing => FailOn::Missing,
            Self::NotEnforcing => FailOn::NotEnforcing,
            Self::Suspended => FailOn::Suspended,
            Self::Conflict => FailOn::Conflict,
            Self::Source => FailOn::Source,
            Self::Any => FailOn::Any,
            Self::None => return None,
        })
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Clean => Self::Clean,
            Outcome::Findings => Self::Finding,
            Outcome::CouldNotTell => Self::CouldNotTell,
        }
    }
}

/// Reports.
///
/// # Errors
/// When the guards cannot be listed, a guard that was named does not exist, or the report cannot be written.
pub async fn run(args: AuditArgs) -> anyhow::Result<Exit> {
    if args.watch {
        ensure!(args.output.is_watched(), "--watch writes rows or JSON; leave out -o, or use -o json");
        return watch::run(&args).await;
    }
    let now = Timestamp::now();
    // Before anything is asked: a wrong file should not cost minutes.
    let earlier = args.from_report.as_deref().map(earlier::read).transpose()?;
    let mut report =
        if args.filename.is_empty() { live(&args, now).await? } else { files::report(&args, now)? };
    if let Some(earlier) = &earlier {
        report = report::compare(report, earlier);
    }
    if let Some(length) = args.since {
        let length = SignedDuration::try_from(length).context("--since is too long")?;
        report = report::within(report, now.checked_sub(length).unwrap_or(Timestamp::MIN));
    }
    args.write(&report, now)?;
    let outcome = report::outcome(&report.guards, &args.counted());
    let is_told = args.output.is_table() && !report.guards.is_empty();
    if is_told || outcome != Outcome::Clean {
        output::message(&summary(&report));
    }
    Ok(outcome.into())
}

/// The report on a cluster.
async fn live(args: &AuditArgs, now: Timestamp) -> anyhow::Result<Report> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let found = guards::find(args, &cluster, &served).await?;
    if found.guards.is_empty() && !args.watch {
        let place = args.namespace(&cluster).map_or_else(String::new, |name| format!(" in namespace {name}"));
        output::message(&format!("no DriftGuard{place} was found to audit"));
    }
    let leading = if found.is_installed { leading::leading(&cluster, now).await } else { Leading::Assumed };
    let known = Known { now, is_installed: found.is_installed, leading };
    let entries = targets::read(&cluster, &found.guards, &known, !args.watch).await;
    let origin = Origin {
        cluster: Some(cluster.address.clone()),
        namespace: args.namespace(&cluster),
        selector: args.selector.clone(),
        names: args.names.clone(),
        kinds: args.kind.clone(),
        ..Origin::default()
    };
    Ok(Report::new(entries, origin, now.into()))
}

impl AuditArgs {
    /// What is a finding.
    fn counted(&self) -> Vec<FailOn> {
        self.fail_on.iter().filter_map(|counted| counted.fail_on()).collect()
    }

    /// The namespace of the guards; `None` for all.
    fn namespace(&self, cluster: &Cluster) -> Option<String> {
        (!self.all_namespaces).then(|| cluster.namespace.clone())
    }

    /// Writes the report where it was asked for.
    fn write(&self, report: &Report, now: Timestamp) -> anyhow::Result<()> {
        let screen = write::screen(self.output_file.is_none(), report.origin.namespace.is_none(), now);
        let format = self.output.format();
        output::streamed(self.output_file.as_deref(), |out| written::write(report, format, &screen, out))
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn what_counts_by_default_is_what_the_core_says() {
        let counted: Vec<FailOn> = ["drift", "missing", "not-enforcing", "conflict"]
            .iter()
            .filter_map(|word| Counted::from_str(word, false).ok()?.fail_on())
            .collect();
        assert_eq!(counted, FailOn::DEFAULT);
    }
}
