//! The servers that are compared, each in its own process.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use driftguard_control_plane::guardian::{Guardian, Process, Program, Signal};
use driftguard_control_plane::{free_port, until};

use crate::h2load::{self, Load, Outcome};
use crate::probe;
use crate::process::{self, Memory};
use crate::review::Review;

/// How often memory is looked at while requests run.
const GLANCE: Duration = Duration::from_millis(10);
/// How long a server may take to start on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);
/// The path that an API server asks, as DriftGuard registers it.
const PATH: &str = "/validate/g1/fail?timeout=10s";

/// A webhook that runs.
#[derive(Debug)]
pub(crate) struct Contender {
    /// As it stands in tables and figures.
    pub name: &'static str,
    process: Process,
    address: SocketAddr,
    path: String,
}

/// One turn of one contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// What the load generator saw.
    pub outcome: Outcome,
    /// CPU time of the server for one request, in microseconds.
    pub cpu: f64,
    /// The most resident memory seen meanwhile, in MiB.
    pub resident: f64,
}

impl Contender {
    /// A server that answers at `address` and `path`.
    pub(crate) fn new(name: &'static str, process: Process, address: SocketAddr, path: String) -> Self {
        Self { name, process, address, path }
    }

    /// Starts one of the floors.
    pub(crate) fn floor(
        guardian: &Guardian,
        name: &'static str,
        arguments: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<Self> {
        let (process, address) = start_floor(guardian, name, arguments)?;
        Ok(Self::new(name, process, address, PATH.to_owned()))
    }

    /// Fails unless it allows the review, and, when it judges at all, refuses the same one with other
    /// content.
    pub(crate) async fn check(&self, review: &Review, judges: bool) -> anyhow::Result<()> {
        let about = || format!("{} and the review of {}", self.name, review.size);
        let allowed = probe::allows(self.address, &self.path, review.body()).await.with_context(about)?;
        ensure!(allowed, "{} refuses the approved review of {}", self.name, review.size);
        if judges {
            let altered = review.altered()?;
            let allowed = probe::allows(self.address, &self.path, &altered).await.with_context(about)?;
            ensure!(!allowed, "{} allows altered content of {}", self.name, review.size);
        }
        Ok(())
    }

    /// Sends `requests` times the review.
    pub(crate) fn turn(&self, load: Load, review: &Review, requests: u64) -> anyhow::Result<Turn> {
        let url = format!("https://{}{}", self.address, self.path);
        let before = process::cpu_seconds(&self.process)?;
        let (outcome, resident) = std::thread::scope(|scope| {
            let client = scope.spawn(|| h2load::run(load, &url, review.file(), requests));
            let mut resident = 0.0_f64;
            while !client.is_finished() {
                // Once the process has ended, the requests fail and say so.
                resident = resident.max(self.memory().unwrap_or_default().resident);
                std::thread::sleep(GLANCE);
            }
            (client.join(), resident)
        });
        let outcome = outcome
            .map_err(|_| anyhow!("the load generator's thread died"))?
            .with_context(|| format!("{} under load", self.name))?;
        let cpu = (process::cpu_seconds(&self.process)? - before) * 1e6 / requests as f64;
        Ok(Turn { outcome, cpu, resident })
    }

    /// Ends it, and gives the port at which it answered.
    pub(crate) fn end(self) -> anyhow::Result<u16> {
        self.process.signal(Signal::Kill)?;
        self.process.wait(START)?;
        Ok(self.address.port())
    }

    /// Its memory now, and the most since its start.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(&self.process)
    }
}

/// Starts a floor on a free port and waits until it listens.
pub(crate) fn start_floor(
    guardian: &Guardian,
    name: &str,
    arguments: impl IntoIterator<Item = String>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let program = Program::new(name, sibling("driftguard-bench-floors")?)
        .args([format!("--bind={address}"), name.to_owned()])
        .args(arguments);
    let process = guardian.start(&program)?;
    until(&format!("{name} listens"), START, || {
        ensure!(process.exit_code().is_none(), "it has ended; {}", process.log_tail());
        Ok(TcpStream::connect(address).map(drop)?)
    })?;
    Ok((process, address))
}

/// A program of the same build: it lies beside this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let program = own.parent().unwrap_or_else(|| Path::new(".")).join(name);
    ensure!(program.exists(), "{} is missing: run `make bench`, which builds it", program.display());
    Ok(program)
}
