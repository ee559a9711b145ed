//! `driftguard-bench`: what DriftGuard costs.
//!
//! Two floors on the same stack say what a figure means ([`contender`]): a no-op webhook and a naive
//! one. The load is the review of a real update ([`review`]), sent by h2load ([`h2load`]) to each in
//! turn ([`matrix`]); the canonical form is measured against SHA-256 alone ([`canonical`]). Every
//! answer is checked, so that errors are never measured. The auditor is measured against a loop that watches and
//! patches ([`restore`]) and against a raw list ([`full_audit`]), and so is `driftguard audit` ([`audit_command`]).
//! Read docs/performance.md for the figures.

mod audit_command;
mod canonical;
mod cluster;
mod contender;
mod content;
mod drift;
mod figures;
mod full_audit;
mod h2load;
mod health;
mod idle;
mod machine;
mod many;
mod matrix;
mod median;
mod pinned;
mod probe;
mod process;
mod requests;
mod restore;
mod review;
mod seeds;
mod size;
mod table;
mod writes;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use cluster::Cluster;
use contender::Contender;
use figures::Figures;
use matrix::Plan;
use seeds::Said;
use table::Table;

/// Measures DriftGuard against floors of the same stack.
#[derive(Debug, Parser)]
#[command(name = "driftguard-bench")]
struct Cli {
    /// Measure the canonical form only
    #[arg(long, group = "only")]
    canonical: bool,
    /// Measure writes through an API server only
    #[arg(long, group = "only")]
    writes: bool,
    /// Measure how long drift lasts only; some five minutes
    #[arg(long, group = "only")]
    restore: bool,
    /// Measure what is asked of an API server while nothing happens only; some fifteen minutes
    #[arg(long, group = "only")]
    idle: bool,
    /// Measure a hundred thousand guards only, and a full audit of them; half an hour and more
    #[arg(long, group = "only")]
    many: bool,
    /// Measure `driftguard audit` of as many guards only, against a raw list; some minutes
    #[arg(long, group = "only")]
    audit: bool,
    /// Let the many guards say nothing yet, so that `serve` writes all their statuses first; an hour more
    #[arg(long)]
    fresh: bool,
    /// How many guards are many; figures are kept of the default alone
    #[arg(long, default_value_t = many::MANY)]
    guards: usize,
    /// How many guards of each kind are idle; figures are kept of the default alone
    #[arg(long, default_value_t = idle::GUARDS)]
    idle_guards: usize,
    /// How long requests of idle guards are counted
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    idle_seconds: u64,
    /// Drifts of each kind that are made one after the other
    #[arg(long, default_value_t = 200)]
    drifts: usize,
    /// Objects that drift at once
    #[arg(long, default_value_t = 1000)]
    at_once: usize,
    /// Updates of each kind that are made through the API server
    #[arg(long, default_value_t = 1000)]
    updates: usize,
    /// Also measure the decision of DriftGuard without its server
    #[arg(long)]
    core: bool,
    /// Turns of each server at each load
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one turn of the no-op
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    seconds: f64,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50])]
    connections: Vec<u32>,
}

impl Cli {
    /// Whether a part is to be measured, of which `only` asks alone.
    fn wants(&self, only: bool) -> bool {
        only || !(self.canonical || self.writes || self.restore || self.idle || self.many || self.audit)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut figures = Figures::default();
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("this program lies in no target folder")?;
    println!("{}\n", machine::describe());
    if cli.wants(cli.writes) {
        print(writes::run(cli.updates, &mut figures).await?);
    }
    if cli.wants(cli.restore) {
        let plan = restore::Plan { drifts: cli.drifts, at_once: cli.at_once };
        print(restore::run(plan, &mut figures).await?);
    }
    if cli.wants(cli.idle) {
        let window = Duration::from_secs(cli.idle_seconds);
        print([idle::run(cli.idle_guards, window, &mut figures).await?]);
    }
    if cli.wants(false) {
        println!("{}", h2load::version()?);
        load(&cli, &mut figures).await?;
    }
    if cli.wants(cli.many) {
        h2load::version()?;
        // The file of the review lies in its folder, as long as it lives.
        let source = Cluster::start()?;
        let reviews = source.capture()?;
        let said = if cli.fresh { Said::Nothing } else { Said::AllIsWell };
        print(
            many::run(&reviews[0], many::Plan { guards: cli.guards, rounds: cli.rounds, said }, &mut figures)
                .await?,
        );
    }
    if cli.audit {
        // Among all others --many measures it.
        print([audit_command::alone(cli.guards, cli.rounds, &mut figures).await?]);
    }
    if cli.wants(cli.canonical) {
        print([canonical::run(&mut figures)?]);
    }
    let file = target.join("bench.json");
    figures.write(&file)?;
    for line in figures.missed() {
        println!("missed: {line}");
    }
    println!("figures are in {}", file.display());
    Ok(())
}

fn print(tables: impl IntoIterator<Item = Table>) {
    for table in tables {
        println!("{table}");
    }
}

async fn load(cli: &Cli, figures: &mut Figures) -> anyhow::Result<()> {
    eprintln!("starting Kubernetes {} for real reviews and a real DriftGuard", Cluster::kubernetes());
    let cluster = Cluster::start()?;
    let reviews = cluster.capture()?;
    let approved: Vec<String> =
        reviews.iter().map(|review| format!("--approved={}", review.file().display())).collect();
    let floor = |name, arguments: &[String]| Contender::floor(cluster.guardian(), name, arguments.to_vec());
    let mut contenders = vec![floor("noop", &[])?, floor("naive", &approved)?];
    if cli.core {
        contenders.push(floor("core", &approved)?);
    }
    contenders.push(cluster.serve(&reviews)?);
    for contender in &contenders {
        for review in &reviews {
            contender.check(review, contender.name != "noop").await?;
        }
    }
    println!("{}", matrix::memory(&contenders, &reviews, figures)?);
    let plan = Plan { rounds: cli.rounds, seconds: cli.seconds, connections: cli.connections.clone() };
    print(matrix::run(&plan, &contenders, &reviews, figures)?);
    println!("{}", matrix::peak(&contenders, figures)?);
    Ok(())
}
