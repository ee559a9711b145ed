//! Somebody who talks to the control plane: a kubeconfig, a kubectl, a client.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{pki, wait};

/// How long one kubectl may run. The API server itself gives up on a request after 34 s or 60 s.
const KUBECTL_LIMIT: Duration = Duration::from_secs(120);

/// How a user proves who they are.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Certificate(pki::Pair),
    Token(String),
}

/// A named user of a control plane.
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    cache: PathBuf,
}

/// What a kubeconfig says about where to go.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// The API server, `https://127.0.0.1:PORT`.
    pub(crate) address: &'a str,
    /// Its authority, PEM.
    pub(crate) authority: &'a str,
    /// Folder for the kubeconfig.
    pub(crate) folder: &'a Path,
    /// File name of the kubeconfig.
    pub(crate) file: &'a str,
    pub(crate) kubectl: PathBuf,
}

impl User {
    pub(crate) fn new(name: &str, credential: &Credential, place: &Place<'_>) -> Result<Self> {
        let kubeconfig = place.folder.join(place.file);
        let user = match credential {
            Credential::Certificate(pair) => json!({
                "client-certificate-data": BASE64.encode(&pair.certificate),
                "client-key-data": BASE64.encode(&pair.key),
            }),
            Credential::Token(token) => json!({ "token": token }),
        };
        let text: Value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "driftguard", "cluster": {
                "server": place.address, "certificate-authority-data": BASE64.encode(place.authority)}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "driftguard", "user": name}}],
            "current-context": name,
        });
        // JSON is YAML.
        std::fs::write(&kubeconfig, serde_json::to_vec_pretty(&text)?)
            .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
        let cache = place.folder.join("kubectl-cache");
        Ok(Self { name: name.to_owned(), kubeconfig, kubectl: place.kubectl.clone(), cache })
    }

    /// As the API server knows them.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig with this user's credentials.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with this user's credentials, which tries every request once. It works in the runtime that
    /// it is made in; outside of one, in any.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn client(&self) -> Result<kube::Client> {
        let user = self.clone();
        let config = wait::block_on(async move { user.config().await })??;
        let _entered = wait::here().enter();
        Ok(kube::Client::try_from(config)?)
    }

    /// [`User::client`] for async code of this crate, where nothing may block.
    pub(crate) async fn client_here(&self) -> Result<kube::Client> {
        Ok(kube::Client::try_from(self.config().await?)?)
    }

    async fn config(&self) -> Result<kube::Config> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.default_retry = false;
        Ok(config)
    }

    /// Runs kubectl as this user, to its end.
    ///
    /// # Errors
    /// When it cannot be run or does not end; that it ends with another code than 0 is no error here.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).run()
    }

    /// Runs kubectl as this user with `input` on its stdin.
    ///
    /// # Errors
    /// As [`User::kubectl`].
    pub fn kubectl_with(&self, arguments: &[&str], input: impl Into<Vec<u8>>) -> Result<Output> {
        self.command(arguments).input(input).run()
    }

    /// A kubectl to be run as this user, for those that need more than arguments.
    pub fn command(&self, arguments: &[&str]) -> Kubectl {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            // Kept by address, for hours: ports come again with other API servers behind them.
            .env("KUBECACHEDIR", &self.cache)
            .env("KUBECTL_KUBERC", "false") // a person's own preferences do not belong in a test
            .env_remove("KUBE_EDITOR")
            .env_remove("EDITOR")
            .kill_on_drop(true);
        Kubectl { command, input: Vec::new(), said: format!("kubectl {}", arguments.join(" ")) }
    }
}

/// A kubectl that has not been run yet.
#[derive(Debug)]
pub struct Kubectl {
    command: tokio::process::Command,
    input: Vec<u8>,
    said: String,
}

impl Kubectl {
    /// What it reads from its stdin; nothing otherwise.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Sets an environment variable, such as `KUBE_EDITOR` for `kubectl edit`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, blocking this thread.
    ///
    /// # Errors
    /// When it cannot be run, or does not end within two minutes (it is killed then).
    pub fn run(mut self) -> Result<Output> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let said = self.said.clone();
        let output = wait::block_on(async move {
            let mut child = self.command.spawn()?;
            let stdin = child.stdin.take();
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // A program that does not read its input may close it; its exit code tells more.
                    drop(stdin.write_all(&self.input).await);
                }
            };
            let run = async { tokio::join!(feed, child.wait_with_output()).1 };
            tokio::time::timeout(KUBECTL_LIMIT, run).await.map_err(std::io::Error::from)?
        })?
        .with_context(|| format!("cannot run `{said}` to its end"))?;
        Ok(Output {
            command: said,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with 0.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Stdout of a command that succeeded.
    ///
    /// # Errors
    /// When it did not, with everything it said.
    pub fn success(self) -> Result<String> {
        if !self.succeeded() {
            bail!("{self}");
        }
        Ok(self.stdout)
    }

    /// Stderr of a command that failed.
    ///
    /// # Errors
    /// When it succeeded, with everything it said.
    pub fn failure(self) -> Result<String> {
        ensure!(!self.succeeded(), "should have failed: {self}");
        Ok(self.stderr)
    }

    /// Stdout of a command that succeeded, as JSON.
    ///
    /// # Errors
    /// When it did not succeed or did not print JSON.
    pub fn json(self) -> Result<Value> {
        let said = self.command.clone();
        serde_json::from_str(&self.success()?).with_context(|| format!("`{said}` did not print JSON"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| format!("code {code}"));
        write!(f, "`{}` ended with {code}\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr)
    }
}
