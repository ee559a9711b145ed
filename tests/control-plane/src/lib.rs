//! A real control plane for tests, the demo and people: etcd and kube-apiserver on this machine.
//!
//! ```no_run
//! # use driftguard_control_plane::{ControlPlane, Version};
//! # fn main() -> anyhow::Result<()> {
//! let plane = ControlPlane::builder().kubernetes(Version::Older).start()?;
//! let alice = plane.user("alice", &["developers"])?;
//! let refused = alice.kubectl(&["get", "configmaps"])?.failure()?;
//! assert!(refused.contains("forbidden"));
//! # Ok(())
//! # }
//! ```
//!
//! Everything is on free ports of 127.0.0.1 and in a data folder of its own, with real RBAC and real
//! certificates. Whatever was started is stopped and the folder removed when the [`ControlPlane`] is dropped
//! and, thanks to the [`guardian`], also when this process panics, is interrupted or killed.
//!
//! All of it blocks; in async code call it from `spawn_blocking`, or where blocking one thread does no harm.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

mod api_server;
mod assets;
mod audit;
mod balancer;
mod controller_manager;
mod etcd;
pub mod guardian;
mod http;
mod pki;
mod ports;
mod terminal;
mod user;
mod wait;

pub use api_server::ApiServer;
pub use assets::{Version, promtool};
pub use balancer::{Backend, Balancer};
pub use etcd::{Change, Etcd};
pub use ports::free_port;
pub use terminal::Terminal;
pub use user::{Kubectl, Output, User};
pub use wait::until;

use assets::Assets;
use guardian::{Guardian, Process};
use user::{Credential, Place};

/// How often a start is tried when somebody else took a port in the meantime.
const TRIES: usize = 3;

/// The group whose members RBAC lets do everything.
const ADMINISTRATORS: &str = "system:masters";

/// How a control plane shall be.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    version: Version,
    api_servers: Vec<Version>,
    more: usize,
    api_server_flags: Vec<String>,
    etcd_flags: Vec<String>,
    folder: Option<PathBuf>,
    controller_manager: bool,
    workloads: bool,
    audited: Option<audit::Level>,
}

impl Builder {
    /// Which Kubernetes; the newest unless said.
    #[must_use]
    pub fn kubernetes(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// How many API servers of that version share the etcd; one unless said.
    #[must_use]
    pub fn api_servers(mut self, count: usize) -> Self {
        self.more = count.saturating_sub(1);
        self
    }

    /// One more API server, of this version.
    #[must_use]
    pub fn and_api_server_of(mut self, version: Version) -> Self {
        self.api_servers.push(version);
        self
    }

    /// A further flag for every kube-apiserver; of flags given twice the last one counts.
    #[must_use]
    pub fn api_server_flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// A further flag for etcd.
    #[must_use]
    pub fn etcd_flag(mut self, flag: impl Into<String>) -> Self {
        self.etcd_flags.push(flag.into());
        self
    }

    /// With kube-controller-manager: garbage collection, ends of namespaces, accounts, aggregated roles. It is
    /// built for the newest Kubernetes only, and `KUBEBUILDER_ASSETS` does not hold it: [`Builder::start`]
    /// fails then and says so.
    #[must_use]
    pub fn controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// With kube-controller-manager, which also makes the Pods of Deployments. Nobody runs them.
    #[must_use]
    pub fn workloads(self) -> Self {
        Self { workloads: true, ..self.controller_manager() }
    }

    /// With an audit log of every request, metadata only; [`ControlPlane::audit_log`] reads it.
    #[must_use]
    pub fn audited(mut self) -> Self {
        self.audited = Some(audit::Level::Metadata);
        self
    }

    /// As [`Builder::audited`], with what was sent and what webhooks changed of it.
    #[must_use]
    pub fn audited_with_requests(mut self) -> Self {
        self.audited = Some(audit::Level::Request);
        self
    }

    /// The data folder, which must exist and is removed at the end; a temporary one unless said.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts everything and returns when it is ready.
    ///
    /// # Errors
    /// When a program is missing or does not get ready; the message holds the end of its log and says where
    /// the log is, which is kept then.
    pub fn start(&self) -> Result<ControlPlane> {
        let mut tries = 1;
        loop {
            let folder = self.data_folder()?;
            let guardian = Guardian::new(&folder)?;
            let started = self.start_in(&folder, &guardian).and_then(|plane| {
                // A log that explains the failure must outlive the control plane.
                plane.wait_ready().inspect_err(|_| guardian.keep_folder())?;
                Ok(plane)
            });
            match started {
                Ok(plane) => return Ok(plane),
                Err(error) if tries < TRIES && format!("{error:#}").contains("address already in use") => {
                    tries += 1;
                    std::fs::remove_dir_all(&folder)?;
                }
                Err(error) => return Err(error.context("the control plane did not start")),
            }
        }
    }

    fn data_folder(&self) -> Result<PathBuf> {
        let folder = match &self.folder {
            Some(folder) => std::fs::create_dir_all(folder).and_then(|()| std::path::absolute(folder)),
            None => tempfile::Builder::new()
                .prefix("driftguard-control-plane-")
                .tempdir()
                .map(tempfile::TempDir::keep),
        };
        folder.context("no folder for the data of the control plane")
    }

    fn start_in(&self, folder: &Path, guardian: &Guardian) -> Result<ControlPlane> {
        let assets = Assets::find(self.version)?;
        let authority = pki::Authority::new()?;
        let server = authority.server(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
        let (accounts_key, accounts_public) = pki::signing_key()?;
        for (name, text) in [
            ("authority.crt", authority.certificate()),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("accounts.key", &accounts_key),
            ("accounts.pub", &accounts_public),
        ] {
            std::fs::write(folder.join(name), text)?;
        }
        let etcd = Etcd::start(guardian, &assets, &self.etcd_flags)?;
        let mut flags = self.api_server_flags.clone();
        if let Some(level) = self.audited {
            flags.extend(audit::flags(folder, level)?);
        }
        let common = api_server::Common { folder, etcd: etcd.address(), flags: &flags };
        let versions =
            std::iter::repeat_n(self.version, 1 + self.more).chain(self.api_servers.iter().copied());
        let api_servers = versions
            .enumerate()
            .map(|(number, version)| ApiServer::start(guardian, number, version, &common))
            .collect::<Result<Vec<_>>>()?;
        let mut plane = ControlPlane {
            folder: folder.to_owned(),
            assets,
            authority,
            etcd,
            api_servers,
            controller_manager: None,
            guardian: guardian.clone(),
        };
        for api_server in &plane.api_servers {
            api_server.asked_by(plane.user_at(api_server, "administrator", &[ADMINISTRATORS])?);
        }
        if self.controller_manager {
            let admin = plane.admin()?;
            let process = controller_manager::start(guardian, self.version, folder, &admin, self.workloads)?;
            plane.controller_manager = Some(process);
        }
        Ok(plane)
    }
}

/// An etcd and one or more API servers, running.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    assets: Assets,
    authority: pki::Authority,
    etcd: Etcd,
    api_servers: Vec<ApiServer>,
    controller_manager: Option<Process>,
    guardian: Guardian,
}

impl ControlPlane {
    /// One API server of the newest Kubernetes, unless said otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The control plane of this version that all tests of this process share, started by the first that asks.
    /// Each test keeps to namespaces of its own.
    ///
    /// # Panics
    /// When it does not start: no test that needs it can say anything then.
    #[allow(clippy::panic, reason = "the first line of every test that uses it; there is nothing to recover")]
    pub fn shared(version: Version) -> &'static Self {
        static NEWEST: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        static OLDER: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        let shared = match version {
            Version::Newest => &NEWEST,
            Version::Older => &OLDER,
        };
        let start = || Self::builder().kubernetes(version).start().map_err(|error| format!("{error:#}"));
        match shared.get_or_init(start) {
            Ok(plane) => plane,
            Err(error) => panic!("{error}"),
        }
    }

    fn wait_ready(&self) -> Result<()> {
        self.etcd.wait_healthy()?;
        self.api_servers.iter().try_for_each(ApiServer::wait_ready)?;
        match &self.controller_manager {
            Some(process) => controller_manager::wait_ready(process, &self.admin()?),
            None => Ok(()),
        }
    }

    /// What the API servers of an [`Builder::audited`] control plane have answered so far, one entry a request.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn audit_log(&self) -> Result<Vec<serde_json::Value>> {
        audit::read(&self.folder, 0)
    }

    /// As [`ControlPlane::audit_log`], of what was answered since the log had so many bytes.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn audit_log_since(&self, size: u64) -> Result<Vec<serde_json::Value>> {
        audit::read(&self.folder, size)
    }

    /// How many bytes the audit log has now.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn audit_log_size(&self) -> Result<u64> {
        audit::size(&self.folder)
    }

    /// The data folder, removed at the end. The logs lie in it, and there is room for files of the caller.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with `etcd`, `kube-apiserver` and `kubectl`.
    pub fn programs(&self) -> &Path {
        self.assets.folder()
    }

    /// The etcd.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The first API server.
    pub fn api_server(&self) -> &ApiServer {
        &self.api_servers[0]
    }

    /// All API servers; there is always one.
    pub fn api_servers(&self) -> &[ApiServer] {
        &self.api_servers
    }

    /// The authority of the API servers and the users, PEM.
    pub fn authority(&self) -> &str {
        self.authority.certificate()
    }

    /// Starts further programs that end with the control plane at the latest.
    pub fn guardian(&self) -> &Guardian {
        &self.guardian
    }

    /// Somebody who may do everything, at the first API server.
    ///
    /// # Errors
    /// When no kubeconfig can be written.
    pub fn admin(&self) -> Result<User> {
        self.user("administrator", &[ADMINISTRATORS])
    }

    /// A user in these groups (two at most), at the first API server; without a binding they may do nothing.
    ///
    /// # Errors
    /// When no kubeconfig can be written.
    pub fn user(&self, name: &str, groups: &[&str]) -> Result<User> {
        self.user_at(self.api_server(), name, groups)
    }

    /// A user at another API server.
    ///
    /// # Errors
    /// When no kubeconfig can be written.
    pub fn user_at(&self, api_server: &ApiServer, name: &str, groups: &[&str]) -> Result<User> {
        let credential = Credential::Certificate(self.authority.client(name, groups)?);
        self.credentialed(api_server, name, &credential)
    }

    /// A service account with a token of its own (made when there is none of that name), at the first API
    /// server. Its namespace must exist.
    ///
    /// # Errors
    /// When the API server makes no account or no token.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<User> {
        let admin = self.admin()?;
        let known = admin.kubectl(&[
            "get",
            "serviceaccount",
            name,
            "-n",
            namespace,
            "--ignore-not-found",
            "-o",
            "name",
        ])?;
        if known.success()?.is_empty() {
            admin.kubectl(&["create", "serviceaccount", name, "-n", namespace])?.success()?;
        }
        let token = admin.kubectl(&["create", "token", name, "-n", namespace, "--duration=4h"])?.success()?;
        let credential = Credential::Token(token.trim().to_owned());
        self.credentialed(
            self.api_server(),
            &format!("system:serviceaccount:{namespace}:{name}"),
            &credential,
        )
    }

    fn credentialed(&self, api_server: &ApiServer, name: &str, credential: &Credential) -> Result<User> {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        ensure!(!name.is_empty(), "a user needs a name");
        // Two tests may ask for the same user at once: each gets a file of their own.
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        User::new(
            name,
            credential,
            &Place {
                address: api_server.address(),
                authority: self.authority(),
                folder: &self.folder,
                file: &format!("{plain}-{number}.kubeconfig"),
                kubectl: self.assets.program("kubectl"),
            },
        )
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.guardian.end();
    }
}
