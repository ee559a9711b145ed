//! `driftguard exception`: opens, lists and closes ways through for several guards at once.
//!
//! An exception is an object of its own, so that the right to make one can be given without the right to
//! change guards (ClusterRole `driftguard-exceptions`).

use clap::Subcommand;

use super::cluster::Cluster;
use super::exit::Exit;
use super::subject::request::segment;
use crate::api::{DriftGuardException, names};

mod close;
mod list;
mod open;
mod selector;

/// Arguments of `driftguard exception`.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  driftguard exception open market-settings-guard --for 1h --reason 'incident 7'
  driftguard exception list -A
  driftguard exception close incident-7"
)]
pub struct ExceptionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let writes to the targets of guards pass for a while
    Open(open::OpenArgs),
    /// List exceptions, with what was changed under each
    List(list::ListArgs),
    /// End exceptions before their time
    Close(close::CloseArgs),
}

/// Does it.
///
/// # Errors
/// When the cluster cannot be reached or refuses.
pub async fn run(args: ExceptionArgs) -> anyhow::Result<Exit> {
    match args.command {
        Command::Open(args) => open::run(args).await,
        Command::List(args) => list::run(args).await,
        Command::Close(args) => close::run(args).await,
    }
}

/// The path of exceptions: of all, of one namespace, or of one of them.
fn path(namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = format!("/apis/{}/{}", names::GROUP, names::VERSION);
    if let Some(namespace) = namespace {
        path.push_str(&format!("/namespaces/{}", segment(namespace)));
    }
    path.push_str(&format!("/{}", names::EXCEPTIONS));
    if let Some(name) = name {
        path.push_str(&format!("/{}", segment(name)));
    }
    path
}

/// An exception as it stands.
async fn read(cluster: &Cluster, name: &str) -> anyhow::Result<DriftGuardException> {
    let api: kube::Api<DriftGuardException> =
        kube::Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let doing = format!("reading DriftGuardException {}/{name}", cluster.namespace);
    Ok(api.get(name).await.map_err(|error| cluster.explain(doing, &error))?)
}
