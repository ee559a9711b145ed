//! The floors that the bench compares DriftGuard with, on the very stack it runs on.
//!
//! `noop` reads the body, finds the uid and allows: what any webhook on this stack must cost.
//! `naive` decides the obvious way, through a tree of the whole review. `core` decides as DriftGuard does, without its
//! server. `capture` allows everything and keeps the updates it sees, so that what the bench replays
//! comes from a real API server. All serve through [`stack`].

mod body;
mod capture;
mod core;
mod naive;
mod noop;
mod response;
mod stack;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Webhooks to compare DriftGuard with.
#[derive(Debug, Parser)]
#[command(name = "driftguard-bench-floors")]
struct Cli {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS")]
    bind: SocketAddr,
    #[command(subcommand)]
    webhook: Webhook,
}

#[derive(Debug, Subcommand)]
enum Webhook {
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let router = match cli.webhook {
        Webhook::Noop { into } => return stack::serve(cli.bind, noop::router(), into.as_deref()).await,
        Webhook::Naive { approved } => naive::router(&approved)?,
        Webhook::Core { approved } => core::router(&approved)?,
        Webhook::Capture { into } => {
            return stack::serve(cli.bind, capture::router(into.clone()), Some(&into)).await;
        }
    };
    stack::serve(cli.bind, router, None).await
}
