//! DriftGuard installed on a control plane of its own, as a person would install it: `install`, then
//! `serve` with exactly the rights that `install` gave it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard_control_plane::guardian::{Process, Program, Signal};
use driftguard_control_plane::{ControlPlane, Output, User, Version, free_port, until};
use serde_json::{Value, json};

/// The program under test.
pub(crate) const DRIFTGUARD: &str = env!("CARGO_BIN_EXE_driftguard");
/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How API servers reach `serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// A loopback URL: HTTP/2, one connection.
    Url,
    /// A Service of type ExternalName: HTTP/1.1, many connections, as in a cluster.
    Service,
}

/// A running installation.
pub(crate) struct Installation {
    pub(crate) plane: ControlPlane,
    pub(crate) admin: User,
    pub(crate) serve: Process,
    operator: User,
    program: Program,
    health_port: u16,
}

impl Installation {
    /// The installation that the tests of this process share, started by the first that asks.
    pub(crate) fn shared(via: Via) -> Result<&'static Self> {
        static URL: OnceLock<Result<Installation, String>> = OnceLock::new();
        static SERVICE: OnceLock<Result<Installation, String>> = OnceLock::new();
        let shared = if via == Via::Url { &URL } else { &SERVICE };
        let start = || Self::start(via, Version::Newest).map_err(|error| format!("{error:#}"));
        shared.get_or_init(start).as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// The shared installation on the older Kubernetes.
    pub(crate) fn shared_older() -> Result<&'static Self> {
        static OLDER: OnceLock<Result<Installation, String>> = OnceLock::new();
        let start = || Self::start(Via::Url, Version::Older).map_err(|error| format!("{error:#}"));
        OLDER.get_or_init(start).as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// A fresh control plane with DriftGuard on it.
    pub(crate) fn start(via: Via, version: Version) -> Result<Self> {
        Self::on(ControlPlane::builder().kubernetes(version).start()?, via)
    }

    /// DriftGuard on a control plane that runs.
    pub(crate) fn on(plane: ControlPlane, via: Via) -> Result<Self> {
        Self::start_on(plane, free_port()?, via, &["--log-level=info".to_owned()])
    }

    /// DriftGuard on this control plane, at this port, with further flags of `serve`.
    pub(crate) fn start_on(plane: ControlPlane, port: u16, via: Via, flags: &[String]) -> Result<Self> {
        let admin = plane.admin()?;
        let health_port = free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let address = match via {
            Via::Url => format!("--url={url}"),
            Via::Service => format!("--external-name={port}"),
        };
        driftguard(&admin, &["install", "--dev", &address])?.success()?;
        let operator = plane.service_account("terrafusion-system", "driftguard-operator")?;
        let reach = match via {
            Via::Url => ["--webhook-url".to_owned(), url],
            Via::Service => {
                ["--webhook-service".to_owned(), format!("terrafusion-system/driftguard-webhook:{port}")]
            }
        };
        let program = Program::new("driftguard", DRIFTGUARD)
            .arg("serve")
            .args(flags.iter().cloned())
            .args(reach)
            .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health_port}")])
            .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
        let serve = plane.guardian().start(&program)?;
        let installation = Self { plane, admin, serve, operator, program, health_port };
        installation.wait_ready()?;
        Ok(installation)
    }

    /// Starts `serve` anew, after whoever asks has ended it.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.serve = self.plane.guardian().start(&self.program)?;
        self.wait_ready()
    }

    /// Kills `serve` and starts it anew, with further flags.
    pub(crate) fn restart(&mut self, flags: &[&str]) -> Result<()> {
        self.serve.signal(Signal::Kill)?;
        self.serve.wait(LIMIT)?;
        let program = self.program.clone().args(flags.iter().map(|&flag| flag.to_owned()));
        self.serve = self.plane.guardian().start(&program)?;
        self.wait_ready()
    }

    /// The token by which `serve` is known to the API server.
    pub(crate) fn token(&self) -> Result<String> {
        let config: Value = serde_json::from_slice(&std::fs::read(self.operator.kubeconfig())?)?;
        Ok(config["users"][0]["user"]["token"].as_str().context("serve has no token")?.to_owned())
    }

    fn wait_ready(&self) -> Result<()> {
        until("serve is ready", LIMIT, || {
            ensure!(self.serve.exit_code().is_none(), "serve has ended");
            let ready = self.health("/readyz")?;
            // From here on guards are signed.
            let signing =
                self.admin.kubectl(&["get", "mutatingwebhookconfiguration/driftguard", "-o", "yaml"])?;
            ensure!(signing.success()?.contains("/driftguards"), "guards are not reviewed yet");
            Ok(ready)
        })
        .map(drop)
        .map_err(|error| anyhow!("{error:#}\n{}", self.serve.log_tail()))
    }

    /// What the health port answers with 200.
    pub(crate) fn health(&self, path: &str) -> Result<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.health_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path} says {head}\n{body}");
        Ok(body.to_owned())
    }

    /// How many reviews have been judged.
    pub(crate) fn reviews(&self) -> Result<u64> {
        let metrics = self.health("/metrics")?;
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        let lines = metrics.lines().filter(|line| line.starts_with("driftguard_admission_reviews_total"));
        Ok(lines.filter_map(count).sum())
    }

    /// A new namespace.
    pub(crate) fn namespace(&self, name: &str) -> Result<String> {
        self.admin.kubectl(&["create", "namespace", name])?.success()?;
        Ok(name.to_owned())
    }

    /// Applies a manifest as the administrator, client-side.
    pub(crate) fn apply(&self, manifest: &Value) -> Result<Output> {
        self.admin.kubectl_with(&["apply", "-f", "-"], manifest.to_string())
    }

    /// An object as it stands.
    pub(crate) fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        self.admin.kubectl(&["get", object, "-n", namespace, "-o", "json"])?.json()
    }

    /// Makes a guard for `kind/name` that approves `hash`, and waits until it is enforced.
    pub(crate) fn pin(&self, namespace: &str, object: &str, hash: &str, more: &Value) -> Result<String> {
        let (kind, name) = object.split_once('/').context("want kind/name")?;
        let guard = format!("{name}-guard");
        let mut spec = json!({"targetKind": kind, "targetName": name, "expectedHash": hash});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        self.apply(&json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": guard, "namespace": namespace}, "spec": spec,
        }))?
        .success()?;
        self.wait_enforcing(namespace, &guard)?;
        Ok(guard)
    }

    /// Where it says that it is ready.
    pub(crate) fn readyz(&self) -> String {
        format!("http://127.0.0.1:{}/readyz", self.health_port)
    }

    /// Waits as a person would.
    pub(crate) fn wait_enforcing(&self, namespace: &str, guard: &str) -> Result<()> {
        let waited = self.admin.kubectl(&[
            "wait",
            "--for=condition=Enforcing",
            "--timeout=60s",
            "-n",
            namespace,
            &format!("dg/{guard}"),
        ])?;
        if !waited.succeeded() {
            let seen = self.get(namespace, &format!("dg/{guard}"));
            bail!("{waited}\n{seen:?}\n{}", self.serve.log_tail());
        }
        Ok(())
    }

    /// Pins an object to what it holds now.
    pub(crate) fn pin_live(&self, namespace: &str, object: &str) -> Result<String> {
        let hash = hash_of(&self.get(namespace, object)?)?;
        self.pin(namespace, object, &hash, &json!({}))
    }

    /// Runs `write`, which must be refused by DriftGuard, and checks that the object stands as before to
    /// the resourceVersion. Gives what the user was told.
    pub(crate) fn refused(
        &self,
        namespace: &str,
        object: &str,
        write: impl FnOnce() -> Result<Output>,
    ) -> Result<String> {
        let said = unchanged(&self.admin, namespace, object, || write()?.failure())?;
        ensure!(said.contains("DriftGuard "), "refused, but not by DriftGuard: {said}");
        Ok(said)
    }

    /// Runs `write`, which must be refused by DriftGuard, and checks that the object, which does not exist,
    /// does not exist afterwards either. Gives what the user was told.
    pub(crate) fn not_made(
        &self,
        namespace: &str,
        object: &str,
        write: impl FnOnce() -> Result<Output>,
    ) -> Result<String> {
        let said = write()?.failure()?;
        ensure!(said.contains("denied the request: DriftGuard"), "refused, but not by DriftGuard: {said}");
        let found =
            self.admin.kubectl(&["get", object, "-n", namespace, "--ignore-not-found", "-o", "name"])?;
        ensure!(found.clone().success()?.is_empty(), "refused, yet made: {found}");
        Ok(said)
    }

    /// Records of writes to the target of this guard, once `marker` has been recorded too: records are written behind the
    /// answer.
    pub(crate) fn records_of(&self, guard: &str, marker: &str) -> Result<Vec<Value>> {
        let of = |name: &str| -> Vec<Value> {
            let log = self.serve.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter(|line| line["guard"]["name"] == name && is_attempt(line)).collect()
        };
        until("the marker is recorded", LIMIT, || {
            ensure!(!of(marker).is_empty(), "no record of {marker}\n{}", self.serve.log_tail());
            Ok(())
        })?;
        Ok(of(guard))
    }
}

/// Does something, and checks that an object then stands as before, to the resourceVersion.
pub(crate) fn unchanged<T>(
    admin: &User,
    namespace: &str,
    object: &str,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stored = || admin.kubectl(&["get", object, "-n", namespace, "-o", "json"])?.json();
    let before = stored()?;
    let done = act()?;
    let after = stored()?;
    ensure!(before == after, "{object} has changed:\n{before}\n{after}");
    Ok(done)
}

/// Whether a line of a log is the record of an attempt to write a target: not of one on a guard, and not of what
/// the auditor finds, which comes when it comes.
pub(crate) fn is_attempt(line: &Value) -> bool {
    const OTHERS: [&str; 5] = ["guardChange", "drift", "driftEnd", "remediation", "incident"];
    line["schema"].is_string() && !OTHERS.iter().any(|other| line["kind"] == *other)
}

/// Runs the program under test as a user.
pub(crate) fn driftguard(user: &User, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(DRIFTGUARD)
        .args(arguments)
        .env("KUBECONFIG", user.kubeconfig())
        .output()
        .context("cannot run driftguard")?;
    Ok(Output {
        command: format!("driftguard {}", arguments.join(" ")),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The hash of an object's pinned content.
pub(crate) fn hash_of(object: &Value) -> Result<String> {
    let api_version = object["apiVersion"].as_str().context("no apiVersion")?;
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let scope = Scope::new(group, object["kind"].as_str().context("no kind")?, PathFilter::everything());
    Ok(hash_object(&serde_json::to_vec(object)?, &scope)?.to_string())
}

/// A ConfigMap.
pub(crate) fn config_map(namespace: &str, name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": data,
    })
}

/// A GAMAConfig.
pub(crate) fn gama_config(namespace: &str, name: &str, parameters: &Value) -> Value {
    json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "GAMAConfig",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"parameters": parameters},
    })
}

/// A Deployment.
pub(crate) fn deployment(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]},
            },
        },
    })
}

/// A script for `KUBE_EDITOR` that replaces one text by another in the file that it is given.
pub(crate) fn editor(folder: &Path, name: &str, from: &str, to: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\nexec sed -i 's/{from}/{to}/' \"$1\"\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
