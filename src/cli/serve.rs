//! `driftguard serve`.

use super::cluster::ClusterArgs;
use super::exit::Exit;

/// Arguments of `driftguard serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard serve")]
pub struct ServeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
///
/// # Errors
/// Always, until the command is built.
pub async fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let ServeArgs { cluster: _ } = args;
    anyhow::bail!("`driftguard serve` is not built yet")
}
