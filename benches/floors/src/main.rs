//! The floors that the bench compares DriftGuard with, on the very stack it runs on.
//!
//! `noop` reads the body, finds the uid and allows: what any webhook on this stack must cost.
//! `naive` decides the obvious way, through a tree of the whole review. `core` decides as DriftGuard does, without its
//! server. `capture` allows everything and keeps the updates it sees, so that what the bench replays
//! comes from a real API server. All these serve through [`stack`]. `restore` is no webhook: it watches and
//! patches back, the least that restores.

mod body;
mod capture;
mod core;
mod naive;
mod noop;
mod response;
mod restore;
mod stack;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// What DriftGuard is compared with.
#[derive(Debug, Parser)]
#[command(name = "driftguard-bench-floors")]
struct Cli {
    /// Where a webhook listens
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<SocketAddr>,
    #[command(subcommand)]
    floor: Floor,
}

#[derive(Debug, Subcommand)]
enum Floor {
    /// Reads the body, finds the uid, allows
    Noop {
        /// Where the certificate that signs what is served goes, as `authority.pem`
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
    },
    /// Decodes the review into a tree, hashes the re-encoded data, compares
    Naive {
        /// Reviews whose new content is approved
        #[arg(long = "approved", value_name = "FILE", required = true)]
        approved: Vec<PathBuf>,
    },
    /// Decides as DriftGuard does, without its server
    Core {
        /// Reviews whose object is guarded and whose new content is approved
        #[arg(long = "approved", value_name = "FILE", required = true)]
        approved: Vec<PathBuf>,
    },
    /// Allows everything, and keeps the last update of each object
    Capture {
        /// Where the reviews go, as `NAME.json`, and the certificate that signs what is served, as
        /// `authority.pem`
        #[arg(long, value_name = "FOLDER")]
        into: PathBuf,
    },
    /// Watches the ConfigMaps of a namespace, and patches back what they held at the start
    Restore {
        /// Who to be
        #[arg(long, value_name = "FILE")]
        kubeconfig: PathBuf,
        /// Where
        #[arg(long, value_name = "NAMESPACE")]
        namespace: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { bind, floor } = Cli::parse();
    let bind = || bind.context("a webhook needs --bind");
    match floor {
        Floor::Noop { into } => stack::serve(bind()?, noop::router(), into.as_deref()).await,
        Floor::Naive { approved } => stack::serve(bind()?, naive::router(&approved)?, None).await,
        Floor::Core { approved } => stack::serve(bind()?, core::router(&approved)?, None).await,
        Floor::Capture { into } => stack::serve(bind()?, capture::router(into.clone()), Some(&into)).await,
        Floor::Restore { kubeconfig, namespace } => restore::run(&kubeconfig, &namespace).await,
    }
}
