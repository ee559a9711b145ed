//! `driftguard-bench`: what DriftGuard costs.
//!
//! Two floors on the same stack say what a figure means ([`contender`]): a no-op webhook and a naive
//! one. The load is the review of a real update ([`review`]), sent by h2load ([`h2load`]) to each in
//! turn ([`matrix`]); the canonical form is measured against SHA-256 alone ([`canonical`]). Every
//! answer is checked, so that errors are never measured. Read docs/performance.md for the figures.

mod canonical;
mod cluster;
mod contender;
mod content;
mod figures;
mod h2load;
mod health;
mod machine;
mod many;
mod matrix;
mod median;
mod probe;
mod process;
mod review;
mod size;
mod table;
mod writes;

use std::path::Path;

use anyhow::Context as _;
use clap::Parser;

use cluster::Cluster;
use contender::Contender;
use figures::Figures;
use matrix::Plan;

/// Measures DriftGuard against two floors of the same stack.
#[derive(Debug, Parser)]
#[command(name = "driftguard-bench")]
struct Cli {
    /// Measure the canonical form only
    #[arg(long)]
    canonical: bool,
    /// Measure writes through an API server only
    #[arg(long, conflicts_with = "canonical")]
    writes: bool,
    /// Measure a hundred thousand guards only; some ten minutes
    #[arg(long, conflicts_with_all = ["canonical", "writes"])]
    many: bool,
    /// How many guards are many; figures are kept of the default alone
    #[arg(long, default_value_t = many::MANY)]
    guards: usize,
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut figures = Figures::default();
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("this program lies in no target folder")?;
    println!("{}\n", machine::describe());
    if !cli.canonical && !cli.many {
        for table in writes::run(cli.updates, &mut figures).await? {
            println!("{table}");
        }
    }
    if !cli.canonical && !cli.writes && !cli.many {
        println!("{}", h2load::version()?);
        load(&cli, &mut figures).await?;
    }
    if !cli.canonical && !cli.writes {
        h2load::version()?;
        // The file of the review lies in its folder, as long as it lives.
        let source = Cluster::start()?;
        let reviews = source.capture()?;
        println!("{}", many::run(&reviews[0], cli.guards, cli.rounds, &mut figures)?);
    }
    if !cli.writes && !cli.many {
        println!("{}", canonical::run(&mut figures)?);
    }
    let file = target.join("bench.json");
    figures.write(&file)?;
    for line in figures.missed() {
        println!("missed: {line}");
    }
    println!("figures are in {}", file.display());
    Ok(())
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
    for table in matrix::run(&plan, &contenders, &reviews, figures)? {
        println!("{table}");
    }
    println!("{}", matrix::peak(&contenders, figures)?);
    Ok(())
}
