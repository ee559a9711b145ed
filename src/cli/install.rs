//! `driftguard install`.

use super::cluster::ClusterArgs;
use super::exit::Exit;

/// Arguments of `driftguard install`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard install")]
pub struct InstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
///
/// # Errors
/// Always, until the command is built.
pub async fn run(args: InstallArgs) -> anyhow::Result<Exit> {
    let InstallArgs { cluster: _ } = args;
    anyhow::bail!("`driftguard install` is not built yet")
}
