//! `driftguard hash`.

use super::cluster::ClusterArgs;
use super::exit::Exit;

/// Arguments of `driftguard hash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard hash -f market-settings.yaml")]
pub struct HashArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Hash what the API server would store
    #[arg(long)]
    server: bool,
    /// Kind
    kind: Option<String>,
    /// Name
    name: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Always, until the command is built.
pub async fn run(args: HashArgs) -> anyhow::Result<Exit> {
    let HashArgs { cluster: _, server: _, kind: _, name: _ } = args;
    anyhow::bail!("`driftguard hash` is not built yet")
}
