//! `driftguard manifests`.

use super::exit::Exit;

/// Arguments of `driftguard manifests`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard manifests crds | kubectl apply --server-side -f -")]
pub struct ManifestsArgs {}

/// Runs the command.
///
/// # Errors
/// Always, until the command is built.
pub fn run(args: &ManifestsArgs) -> anyhow::Result<Exit> {
    let ManifestsArgs {} = args;
    anyhow::bail!("`driftguard manifests` is not built yet")
}
