//! `driftguard uninstall`.

use super::cluster::ClusterArgs;
use super::exit::Exit;

/// Arguments of `driftguard uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard uninstall")]
pub struct UninstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
///
/// # Errors
/// Always, until the command is built.
pub async fn run(args: UninstallArgs) -> anyhow::Result<Exit> {
    let UninstallArgs { cluster: _ } = args;
    anyhow::bail!("`driftguard uninstall` is not built yet")
}
