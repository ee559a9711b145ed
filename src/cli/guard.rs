//! `driftguard guard`.

use super::cluster::ClusterArgs;
use super::exit::Exit;

/// Arguments of `driftguard guard`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard guard configmap market-settings | kubectl apply -f -")]
pub struct GuardArgs {
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
pub async fn run(args: GuardArgs) -> anyhow::Result<Exit> {
    let GuardArgs { cluster: _, server: _, kind: _, name: _ } = args;
    anyhow::bail!("`driftguard guard` is not built yet")
}
