//! A real control plane that gives the reviews, and the real `driftguard serve` on it.
//!
//! Each ConfigMap is stored with earlier content and then replaced by what is approved; what the API
//! server asked its webhook about that update is what the bench replays. DriftGuard is installed as a
//! person installs it, and learns from a DriftGuard object what is approved.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard_control_plane::guardian::{Guardian, Process, Program, Signal};
use driftguard_control_plane::{Builder, ControlPlane, User, Version, free_port, until};
use serde_json::{Value, json};

use crate::contender::{Contender, START, sibling, start_floor};
use crate::content::{self, Shape};
use crate::requests::Request;
use crate::review::Review;
use crate::size::Size;

/// Where what is guarded lies.
pub(crate) const NAMESPACE: &str = "bench";
const CAPTURE: &str = "bench-capture";
/// Rights to put back what is guarded, as a person gives them.
const REMEDIATION: &str = include_str!("../../../deploy/remediation/remediation.yaml");

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Cluster {
    plane: ControlPlane,
    admin: User,
    /// Where reviews lie; removed with the control plane.
    folder: PathBuf,
}

impl Cluster {
    /// Starts one of the newest Kubernetes.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::of(&ControlPlane::builder())
    }

    /// One that notes who asks for what ([`Cluster::requests_since`]), with room for very many objects.
    pub(crate) fn noting() -> anyhow::Result<Self> {
        Self::of(&ControlPlane::builder().audited().etcd_flag("--quota-backend-bytes=8589934592"))
    }

    fn of(builder: &Builder) -> anyhow::Result<Self> {
        let plane = builder.start()?;
        let admin = plane.admin()?;
        admin.kubectl(&["create", "namespace", NAMESPACE])?.success()?;
        let folder = plane.folder().join("reviews");
        std::fs::create_dir(&folder).context("cannot make a folder for reviews")?;
        Ok(Self { plane, admin, folder })
    }

    /// The version of Kubernetes.
    pub(crate) fn kubernetes() -> &'static str {
        Version::Newest.pinned()
    }

    /// Starts further processes that end with the control plane.
    pub(crate) fn guardian(&self) -> &Guardian {
        self.plane.guardian()
    }

    /// The review of a real update for each size, as the API server sends it.
    pub(crate) fn capture(&self) -> anyhow::Result<Vec<Review>> {
        let into = format!("--into={}", self.folder.display());
        let (capture, address) = start_floor(self.guardian(), "capture", [into])?;
        self.register(CAPTURE, NAMESPACE, address)?;
        let reviews: anyhow::Result<Vec<Review>> =
            Size::ALL.into_iter().map(|size| self.capture_one(size)).collect();
        self.admin.kubectl(&["delete", "validatingwebhookconfiguration", CAPTURE])?.success()?;
        capture.signal(Signal::Kill)?;
        reviews
    }

    /// Has the API server ask a floor about the ConfigMaps of a namespace.
    fn register(&self, name: &str, namespace: &str, address: SocketAddr) -> anyhow::Result<()> {
        let authority = std::fs::read(self.folder.join("authority.pem"))?;
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": format!("{name}.driftguard.terrafusion.ai"),
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "url": format!("https://{address}/"),
                    "caBundle": k8s_openapi::ByteString(authority),
                },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
                    "resources": ["configmaps"], "scope": "Namespaced",
                }],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }],
        });
        self.admin.kubectl_with(&["create", "-f", "-"], configuration.to_string())?.success()?;
        Ok(())
    }

    fn capture_one(&self, size: Size) -> anyhow::Result<Review> {
        let name = name(size);
        let files = content::files(&Shape::MIX, size.bytes());
        let earlier = content::earlier(&files)?;
        let manifest = |files: &[(String, String)]| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}},
                "data": files.iter().cloned().collect::<HashMap<_, _>>(),
            })
            .to_string()
        };
        let write = |verb: &str, files: &[(String, String)]| {
            self.admin.kubectl_with(&[verb, "-f", "-"], manifest(files))?.success()
        };
        write("create", &earlier)?;
        let file = self.folder.join(format!("{name}.json"));
        // The configuration takes effect some milliseconds after it is made.
        until(&format!("the update of {name} is captured"), START, || {
            write("replace", &earlier)?;
            write("replace", &files)?;
            let review = Review::read(size, &file)?;
            let value: Value = serde_json::from_slice(review.body())?;
            let data = |object: &str| value["request"][object]["data"].clone();
            ensure!(
                data("object") == json!(files.iter().cloned().collect::<HashMap<_, _>>()),
                "other content"
            );
            ensure!(data("object") != data("oldObject"), "the review changes nothing");
            Ok(review)
        })
    }

    /// The administrator.
    pub(crate) fn admin(&self) -> &User {
        &self.admin
    }

    /// Stores objects straight into etcd: through the API server many of them take minutes.
    pub(crate) fn seed(&self, pairs: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        self.plane.etcd().put_many(pairs)
    }

    /// What is stored under a key of etcd.
    pub(crate) fn stored(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        self.plane.etcd().get(key)?.with_context(|| format!("nothing is stored at {key}"))
    }

    /// Where a file may lie that goes with the control plane.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A moment in what is noted.
    pub(crate) fn moment(&self) -> anyhow::Result<u64> {
        self.plane.audit_log_size()
    }

    /// The requests that were noted since a moment.
    pub(crate) fn requests_since(&self, moment: u64) -> anyhow::Result<Vec<Request>> {
        Ok(self.plane.audit_log_since(moment)?.iter().filter_map(Request::read).collect())
    }

    /// Has the API server ask the no-op about the ConfigMaps of a namespace.
    pub(crate) fn ask_noop(&self, namespace: &str) -> anyhow::Result<Process> {
        let into = format!("--into={}", self.folder.display());
        let (noop, address) = start_floor(self.guardian(), "noop", [into])?;
        self.register("bench-noop", namespace, address)?;
        Ok(noop)
    }

    /// Installs what `serve` needs. Gives the port on which it is to answer.
    pub(crate) fn install(&self) -> anyhow::Result<u16> {
        let port = free_port()?;
        let installed = Command::new(sibling("driftguard")?)
            .args(["install", "--dev", "--external-name", &port.to_string()])
            .env("KUBECONFIG", self.admin.kubeconfig())
            .output()
            .context("cannot run driftguard")?;
        ensure!(
            installed.status.success(),
            "driftguard install failed: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
        Ok(port)
    }

    /// Gives `serve` the rights to put ConfigMaps back.
    pub(crate) fn allow_remediation(&self) -> anyhow::Result<()> {
        self.admin.kubectl_with(&["apply", "-f", "-"], REMEDIATION)?.success()?;
        Ok(())
    }

    /// Waits until `serve` is ready, and signs who makes a guard.
    pub(crate) fn wait_ready(&self, serve: &Process, health: u16) -> anyhow::Result<()> {
        until("serve is ready", START, || {
            ensure!(serve.exit_code().is_none(), "it has ended; {}", serve.log_tail());
            crate::health::get(health, "/readyz")?;
            let signing = ["get", "mutatingwebhookconfiguration/driftguard", "-o", "yaml"];
            let signing = self.admin.kubectl(&signing)?.success()?;
            ensure!(signing.contains("/driftguards"), "guards are not reviewed yet");
            Ok(())
        })
    }

    /// Starts `serve` on the port that was installed, with further flags. Gives it with its health port.
    pub(crate) fn start_serve(&self, port: u16, flags: &[&str]) -> anyhow::Result<(Process, u16)> {
        let health = free_port()?;
        let operator = self.plane.service_account("terrafusion-system", "driftguard-operator")?;
        let program = Program::new("driftguard", sibling("driftguard")?)
            .arg("serve")
            .args(flags.iter().copied())
            .args(["--webhook-service".to_owned(), format!("terrafusion-system/driftguard-webhook:{port}")])
            .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
            .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
        Ok((self.guardian().start(&program)?, health))
    }

    /// Installs DriftGuard, starts it, and guards the ConfigMap of each review.
    pub(crate) fn serve(&self, reviews: &[Review]) -> anyhow::Result<Contender> {
        let port = self.install()?;
        let (process, _) = self.start_serve(port, &[])?;
        for review in reviews {
            self.guard(review)?;
        }
        for review in reviews {
            let guard = format!("driftguard/{}", name(review.size));
            let waited = self.admin.kubectl(&[
                "wait",
                "--for=condition=Enforcing",
                &format!("--timeout={}s", START.as_secs()),
                "-n",
                NAMESPACE,
                &guard,
            ])?;
            ensure!(waited.succeeded(), "{guard} is not enforced: {waited}\n{}", process.log_tail());
        }
        let path = self.registered_path()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Contender::new("driftguard", process, address, format!("{path}?timeout=10s")))
    }

    /// A DriftGuard that approves the new content of the review.
    pub(crate) fn guard(&self, review: &Review) -> anyhow::Result<()> {
        let scope = Scope::new("", "ConfigMap", PathFilter::everything());
        let guard = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name(review.size), "namespace": NAMESPACE},
            "spec": {
                "targetKind": "ConfigMap", "targetName": name(review.size),
                "expectedHash": hash_object(review.object()?.as_bytes(), &scope)?.to_string(),
            },
        });
        self.admin.kubectl_with(&["create", "-f", "-"], guard.to_string())?.success()?;
        Ok(())
    }

    /// The path at which API servers ask about ConfigMaps, as registered.
    fn registered_path(&self) -> anyhow::Result<String> {
        let found = self.admin.kubectl(&["get", "validatingwebhookconfigurations", "-o", "json"])?.json()?;
        let webhooks = found["items"].as_array().into_iter().flatten();
        webhooks
            .flat_map(|configuration| configuration["webhooks"].as_array().into_iter().flatten())
            .filter(|webhook| webhook["rules"].to_string().contains("\"configmaps\""))
            .find_map(|webhook| webhook["clientConfig"]["service"]["path"].as_str())
            .map(str::to_owned)
            .with_context(|| format!("no webhook is registered for ConfigMaps: {found}"))
    }
}

/// Name of the ConfigMap and of its guard.
fn name(size: Size) -> String {
    format!("settings-{size}").to_lowercase()
}
