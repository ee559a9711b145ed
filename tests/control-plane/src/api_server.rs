//! One kube-apiserver of a control plane.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::guardian::{Guardian, Process, Program, Signal};
use crate::user::User;
use crate::{Version, assets::Assets, ports, wait};

/// How long a start may take. It takes 4 s on an idle machine of two cores; while something compiles, far more.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a stop may take: after SIGTERM the server drains its connections first.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to say that it is ready.
const READYZ_LIMIT: Duration = Duration::from_secs(5);

/// A kube-apiserver with real RBAC on a port of its own.
#[derive(Debug)]
pub struct ApiServer {
    guardian: Guardian,
    program: Program,
    process: Process,
    version: Version,
    port: u16,
    address: String,
    /// Who asks for `/readyz`; set once users can be made, which takes the address.
    admin: std::sync::OnceLock<User>,
}

/// What all API servers of a control plane share: files of the data folder, and flags.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) etcd: &'a str,
    pub(crate) flags: &'a [String],
}

impl ApiServer {
    /// Starts number `number`, whose files `server.crt`, `server.key`, `authority.crt`, `accounts.key` and
    /// `accounts.pub` lie in the folder. It is not ready yet.
    pub(crate) fn start(
        guardian: &Guardian,
        number: usize,
        version: Version,
        common: &Common<'_>,
    ) -> Result<Self> {
        let port = ports::free_port()?;
        let file = |name: &str| common.folder.join(name).display().to_string();
        let program = Program::new(
            format!("kube-apiserver-{number}"),
            Assets::find(version)?.program("kube-apiserver"),
        )
        .args([
            format!("--etcd-servers={}", common.etcd),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("authority.crt")),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // Its own address is on loopback, which may not be an endpoint.
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--cert-dir={}", file("apiserver-certificates")),
        ])
        .args(common.flags.iter().cloned());
        let process = guardian.start(&program)?;
        Ok(Self {
            guardian: guardian.clone(),
            program,
            process,
            version,
            port,
            address: format!("https://127.0.0.1:{port}"),
            admin: std::sync::OnceLock::new(),
        })
    }

    pub(crate) fn asked_by(&self, admin: User) {
        // It is set once, at the start.
        drop(self.admin.set(admin));
    }

    /// `https://127.0.0.1:PORT`, the same after a restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which Kubernetes it was started as.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The process, for its log and pid.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::Terminate)
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::Kill)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        self.process.wait(STOP_LIMIT).map(|_| ())
    }

    /// Halts it with its connections open; [`ApiServer::resume`] lets it go on.
    ///
    /// # Errors
    /// When the control plane is gone.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// When the control plane is gone.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::Continue)
    }

    /// Starts it again on the same port after [`ApiServer::stop`] or [`ApiServer::kill`], and waits until it is
    /// ready.
    ///
    /// # Errors
    /// When it runs already or does not get ready.
    pub fn start_again(&self) -> Result<()> {
        self.guardian.start(&self.program)?;
        self.wait_ready()
    }

    /// The same as another version of Kubernetes, as an upgrade does; [`ApiServer::version`] goes on telling the
    /// first one.
    ///
    /// # Errors
    /// When it runs already, its program is missing, or it does not get ready.
    pub fn start_again_as(&self, version: Version) -> Result<()> {
        let program = self.program.clone().of(Assets::find(version)?.program("kube-apiserver"));
        self.guardian.start(&program)?;
        self.wait_ready()
    }

    /// Whether it is ready now.
    pub fn is_ready(&self) -> bool {
        self.readyz().is_ok()
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// At the deadline, or as soon as the process has ended, with the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        wait::until(&format!("{} is ready", self.process.name()), START_LIMIT, || {
            if let Some(code) = self.process.exit_code() {
                return Ok(Err(anyhow!("{} ended with code {code}", self.process.name())));
            }
            self.readyz().map(Ok)
        })
        .and_then(|result| result)
        .map_err(|error| anyhow!("{error:#}; {}", self.process.log_tail()))
    }

    fn readyz(&self) -> Result<()> {
        let user = self.admin.get().context("nobody can ask yet")?.clone();
        wait::block_on(async move {
            let client = user.client_here().await?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = tokio::time::timeout(READYZ_LIMIT, client.request_text(request)).await??;
            ensure!(answer == "ok", "/readyz says {answer}");
            Ok(())
        })?
    }
}
