//! `control-plane up|down|run`: the control plane of the tests for a person to play with.
//!
//! One process, `run`, owns it. `up` starts that process detached and waits until it is ready; `down` asks it
//! over a socket in the folder to end. The process holds a lock on a file in the folder, so there is never more
//! than one, and nothing depends on a process id that may belong to somebody else by now.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use driftguard_control_plane::{ControlPlane, Version, until};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// Starts take seconds; on a machine that compiles at the same time, minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Held by the process that runs the control plane.
const LOCK: &str = "lock";
/// Where that process is told to end. Relative, because the path of a socket may have 107 bytes only.
const SOCKET: &str = "control.sock";
/// What `up` prints; there once everything is ready.
const SHELL: &str = "environment.sh";

#[derive(Debug, Parser)]
#[command(name = "control-plane", about = "A real etcd and kube-apiserver on this machine")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Where its data lies while it runs
    #[arg(long, global = true, default_value = ".run", value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Starts it in the background and prints what a shell needs to use it
    Up(Kind),
    /// Stops it and removes its data
    Down,
    /// Runs it until Ctrl-C
    Run(Kind),
}

#[derive(Debug, Clone, clap::Args)]
struct Kind {
    /// Minor version of Kubernetes [default: the newest]
    #[arg(long, value_name = "MINOR")]
    kubernetes: Option<Version>,
    /// How many API servers share the etcd
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    api_servers: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.action {
        Action::Up(kind) => up(kind, &arguments.folder),
        Action::Down => down(&arguments.folder),
        Action::Run(kind) => run(kind, &arguments.folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn up(kind: &Kind, folder: &Path) -> Result<()> {
    if let Ok(shell) = running(folder) {
        eprintln!("A control plane is up already; `make down` stops it. To use it:");
        print!("{shell}");
        return Ok(());
    }
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg("--folder").arg(folder).arg(format!("--api-servers={}", kind.api_servers));
    if let Some(version) = kind.kubernetes {
        command.arg(format!("--kubernetes={}", version.minor()));
    }
    // In a process group of its own, with no terminal: it stays when this shell goes.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen()?);
    let mut child = command.spawn().context("cannot start the control plane in the background")?;
    eprintln!("starting etcd and kube-apiserver; a few seconds ...");
    let shell = until("the control plane is up", START_LIMIT, || {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(log.path()).unwrap_or_default();
            return Ok(Err(anyhow!("{} ({status})", said.trim().trim_start_matches("error: "))));
        }
        running(folder).map(Ok)
    })??;
    eprintln!("A control plane is up; `make down` stops it. To use it:");
    print!("{shell}");
    Ok(())
}

/// What to tell the shell about the one that runs and is ready.
fn running(folder: &Path) -> Result<String> {
    connect(folder)?;
    std::fs::read_to_string(folder.join(SHELL)).context("not ready yet")
}

fn connect(folder: &Path) -> Result<UnixStream> {
    let home = std::env::current_dir()?;
    std::env::set_current_dir(folder).with_context(|| format!("nothing in {}", folder.display()))?;
    let stream = UnixStream::connect(SOCKET);
    std::env::set_current_dir(home)?;
    stream.context("nothing runs")
}

fn down(folder: &Path) -> Result<()> {
    let Ok(mut stream) = connect(folder) else {
        eprintln!("no control plane is up");
        return Ok(());
    };
    stream.write_all(b"down\n")?;
    // The other end closes when that process ends, and it ends when everything is stopped and removed.
    stream.set_read_timeout(Some(STOP_LIMIT))?;
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            bail!("the control plane does not stop: {error}")
        }
        _ => {}
    }
    eprintln!("the control plane is stopped and its data removed");
    Ok(())
}

fn run(kind: &Kind, folder: &Path) -> Result<()> {
    let _held = take(folder)?;
    let folder = std::path::absolute(folder)?;
    std::env::set_current_dir(&folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(async { UnixListener::bind(SOCKET) })?;
    let mut builder = ControlPlane::builder().folder(&folder).api_servers(kind.api_servers);
    if let Some(version) = kind.kubernetes {
        builder = builder.kubernetes(version);
    }
    let plane = builder.start()?;
    let kubeconfig = folder.join("kubeconfig");
    std::fs::copy(plane.admin()?.kubeconfig(), &kubeconfig)?;
    let shell = format!(
        "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"\n",
        quoted(&kubeconfig),
        quoted(plane.programs())
    );
    // Written under another name and renamed: whoever sees it sees all of it.
    std::fs::write("environment.part", &shell)?;
    std::fs::rename("environment.part", SHELL)?;
    eprintln!("up at {}; Ctrl-C stops it. To use it from another shell:", plane.api_server().address());
    eprint!("{shell}");
    let asked = runtime.block_on(end(listener))?;
    drop(plane);
    drop(asked); // after everything is gone: `down` waits for this
    Ok(())
}

/// Takes the folder for this process and clears what a former one left.
fn take(folder: &Path) -> Result<File> {
    let foreign = folder.is_dir() && !folder.join(LOCK).exists() && folder.read_dir()?.next().is_some();
    ensure!(!foreign, "{} holds other files; name another folder with --folder", folder.display());
    // The keys of an administrator lie in it.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = File::create(folder.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("a control plane is up already in {}", folder.display()),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    for entry in folder.read_dir()?.flatten().filter(|entry| entry.file_name() != LOCK) {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }?;
    }
    Ok(lock)
}

/// Waits for Ctrl-C, SIGTERM or `down`, and gives the connection of the last.
async fn end(listener: UnixListener) -> Result<Option<tokio::net::UnixStream>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
            _ = hang_up.recv() => {} // the terminal that `up` was typed in is gone
            accepted = listener.accept() => {
                let (mut stream, _) = accepted?;
                if asked_to_end(&mut stream).await {
                    return Ok(Some(stream));
                }
            }
        }
    }
}

/// `up` connects too, only to see whether anybody is there.
async fn asked_to_end(stream: &mut tokio::net::UnixStream) -> bool {
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.is_ok() && word == *b"down\n"
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
