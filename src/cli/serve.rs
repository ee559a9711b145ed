//! `driftguard serve`: the admission server on every replica, the controller on the lease holder.
//!
//! Here are its flags and what they come to; [`running`] wires the parts together and stops them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use rustls::pki_types::CertificateDer;

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::terms::parse_duration;
use crate::alert::AlertArgs;
use crate::api::names;
use crate::audit::watch::WatchArgs;
use crate::cert::ServerIdentity;
use crate::cert::authority::certificates;
use crate::cert::files::CertificateFiles;
use crate::cert::trust::BundleKeeper;
use crate::control::webhooks::Address;
use crate::core::duration;
use crate::core::guard::Enforcement;
use crate::core::rotation::Lifetimes;
use crate::sources::SourceArgs;
use crate::telemetry::logging::{self, Format};
use crate::telemetry::traces::Traces;
use crate::trail::sink::RecordSink;
use crate::webhook::drain::Signals;

mod running;

use running::Running;

/// Port of a Service that names none.
const SERVICE_PORT: u16 = names::WEBHOOK_SERVICE_PORT;
/// How long records may take to be written out at the end, and spans to be sent.
const WRITE_OUT: Duration = Duration::from_secs(2);
/// Exit code when a second signal ends the process at once, as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// Arguments of `driftguard serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard serve --webhook-service terrafusion-system/driftguard-webhook\n  \
                  driftguard serve --webhook-url https://127.0.0.1:8443 --bind 127.0.0.1:8443"
)]
pub struct ServeArgs {
    /// Where to answer admission reviews, by HTTPS; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    bind: SocketAddr,
    /// Where to answer /livez, /readyz and /metrics, by plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    health_bind: SocketAddr,
    /// Address at which API servers call this process, such as https://127.0.0.1:8443
    #[arg(long, value_name = "URL", conflicts_with = "webhook_service", value_parser = super::install::webhook_url)]
    webhook_url: Option<String>,
    /// Service at which API servers call this process [default: driftguard-webhook of the installation]
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]", value_parser = parse_service)]
    webhook_service: Option<Service>,
    /// Authorities (PEM) of the client certificates that API servers show; whoever shows none is refused
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Name (common name or DNS name) that such a certificate must have; may be repeated [default: any]
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    client_name: Vec<String>,
    /// Certificate (PEM, with those between it and an authority) to serve, made by somebody else and read again when
    /// it changes [default: one of DriftGuard's own authority]
    #[arg(long, value_name = "FILE", requires_all = ["tls_key_file", "tls_ca_file"])]
    tls_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert_file", "tls_ca_file"])]
    tls_key_file: Option<PathBuf>,
    /// Authorities (PEM) that API servers are told to trust for it
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert_file", "tls_key_file"])]
    tls_ca_file: Option<PathBuf>,
    /// Leave caBundle to cert-manager's cainjector, which takes it from this Certificate
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "tls_cert_file", value_parser = parse_certificate)]
    ca_injected_from: Option<String>,
    /// What guards without an enforcement of their own do with unapproved writes
    #[arg(long, value_name = "MODE", default_value = "Deny", value_parser = parse_enforcement)]
    default_enforcement: Enforcement,
    /// How long exceptions and suspensions may last at most, such as 8h or 30m
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = parse_duration)]
    max_exception: SignedDuration,
    /// Whether approved content is put back for guards that ask for it; off finds and tells only
    #[arg(long, value_name = "WHETHER", value_enum, default_value_t = Remediation::On)]
    remediation: Remediation,
    /// How long newly approved content may wait to be applied before its absence is drift, such as 10m
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    apply_grace: Duration,
    /// Keep reports of openreports.io, one for each namespace that has guards; needs that API and rights on it
    /// (driftguard manifests openreports)
    #[arg(long)]
    openreports: bool,
    /// Pause before it is looked again whether that API and the rights are there; for tests
    #[arg(long, value_name = "DURATION", default_value = "10m", hide = true, value_parser = duration::parse)]
    openreports_again: Duration,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    alerts: AlertArgs,
    /// API server through which enforcement is proved; may be repeated [default: all of the cluster]
    #[arg(long, value_name = "URL")]
    api_server_endpoint: Vec<String>,
    /// Name of this replica in records [default: the host name]
    #[arg(long, value_name = "NAME")]
    replica_name: Option<String>,
    /// Longest time to finish what has begun after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    drain_timeout: u64,
    /// How long the certificate authority lives, such as 8760h; for tests of rotation
    #[arg(long, value_name = "DURATION", default_value = "8760h", hide = true)]
    ca_lifetime: jiff::SignedDuration,
    /// How long the certificate that is served lives; for tests of rotation
    #[arg(long, value_name = "DURATION", default_value = "24h", hide = true)]
    leaf_lifetime: jiff::SignedDuration,
    /// How long a new authority must have been registered before it signs
    #[arg(long, value_name = "DURATION", default_value = "60s", hide = true)]
    ca_settle: jiff::SignedDuration,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Auto)]
    log_format: Format,
    /// error, warn, info, debug or trace; or module=level, separated by commas
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Whether approved content is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Remediation {
    On,
    Off,
}

/// A Service with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    namespace: String,
    name: String,
    port: u16,
}

fn parse_service(text: &str) -> Result<Service, String> {
    let wrong = || "want NAMESPACE/NAME or NAMESPACE/NAME:PORT".to_owned();
    let (namespace, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_| wrong())?),
        None => (rest, SERVICE_PORT),
    };
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(wrong());
    }
    Ok(Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
}

/// A Certificate of cert-manager, as its annotation names it.
fn parse_certificate(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err("want NAMESPACE/NAME of a Certificate".to_owned()),
    }
}

fn parse_enforcement(text: &str) -> Result<Enforcement, String> {
    [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Warn, Enforcement::Audit]
        .into_iter()
        .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "want Deny, Rewrite, Warn or Audit".to_owned())
}

impl ServeArgs {
    /// Namespace of this installation: where Lease and authority lie.
    fn namespace(&self) -> String {
        let of_service = self.webhook_service.as_ref().map(|service| service.namespace.clone());
        self.cluster.namespace.clone().or(of_service).unwrap_or_else(|| names::NAMESPACE.to_owned())
    }

    /// Where API servers call us, and the name that they then verify.
    fn address(&self) -> anyhow::Result<(Address, ServerIdentity)> {
        if let Some(url) = &self.webhook_url {
            let uri: http::Uri = url.parse().context("reading --webhook-url")?;
            let Some(host) = uri.host() else { bail!("--webhook-url {url} has no host") };
            let identity = ServerIdentity::host(host.trim_start_matches('[').trim_end_matches(']'))?;
            return Ok((Address::Url(url.clone()), identity));
        }
        let service = self.webhook_service.clone().unwrap_or_else(|| Service {
            namespace: self.namespace(),
            name: names::WEBHOOK_SERVICE.to_owned(),
            port: SERVICE_PORT,
        });
        let identity = ServerIdentity::service(&service.namespace, &service.name)?;
        let Service { namespace, name, port } = service;
        Ok((Address::Service { namespace, name, port }, identity))
    }

    /// Who signs the certificates of clients, when they must show one.
    fn client_authorities(&self) -> anyhow::Result<Option<Vec<CertificateDer<'static>>>> {
        let Some(file) = &self.client_ca else { return Ok(None) };
        let reading = || format!("reading --client-ca {}", file.display());
        let pem = std::fs::read(file).with_context(reading)?;
        certificates(&pem).map(Some).with_context(reading)
    }

    /// The files of a certificate that somebody else makes, when there are any. Read once, so that a
    /// mistyped path is an error now; what is wrong with their contents may be mended while we wait.
    fn certificate_files(&self) -> anyhow::Result<Option<CertificateFiles>> {
        let (Some(certificate), Some(key), Some(authorities)) =
            (&self.tls_cert_file, &self.tls_key_file, &self.tls_ca_file)
        else {
            return Ok(None);
        };
        let files = CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
        };
        files.read().context("reading --tls-cert-file, --tls-key-file and --tls-ca-file")?;
        Ok(Some(files))
    }

    /// Who writes the authorities into the registration.
    fn bundle_keeper(&self) -> BundleKeeper {
        if self.ca_injected_from.is_some() { BundleKeeper::Injector } else { BundleKeeper::Ourselves }
    }

    /// How long certificates live.
    fn lifetimes(&self) -> anyhow::Result<Lifetimes> {
        let Self { ca_lifetime: authority, leaf_lifetime: leaf, ca_settle: settle, .. } = *self;
        let second = jiff::SignedDuration::from_secs(1);
        // What is left of an authority after two thirds must be enough to register its successor.
        if leaf < second * 3 || settle < second || authority / 6 < settle || authority < leaf * 2 {
            bail!(
                "--ca-lifetime must be six times --ca-settle and twice --leaf-lifetime, these at least 1s and 3s"
            );
        }
        Ok(Lifetimes { authority, leaf, settle })
    }

    fn replica(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
        self.replica_name.clone().or_else(|| host().ok()).unwrap_or_else(|| "driftguard".to_owned())
    }
}

/// Runs the command until a signal stops it.
///
/// # Errors
/// When a flag cannot be used, an address cannot be bound, or there is no cluster to talk to.
pub async fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("listening for signals")?;
    let traces = Traces::from_environment(tokio::runtime::Handle::current())?;
    logging::start(args.log_format, &args.log_level, traces.as_ref())?;
    let (records, writer) = RecordSink::start(std::io::stdout()).context("starting the record writer")?;
    let mut running = Running::start(&args, records).await?;
    let failed = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping: a second signal stops at once");
            false
        }
        () = running.part_ended() => {
            // Half a DriftGuard would look alive and follow nothing: a fresh start is safer.
            tracing::error!("a part of DriftGuard ended by itself; stopping, to be started anew");
            true
        }
    };
    tokio::select! {
        () = running.stop(Duration::from_secs(args.drain_timeout)) => {}
        _ = signals.next() => std::process::exit(INTERRUPTED),
    }
    // The writer ends once the last sink is gone; what holds one may still be unwinding.
    let written = tokio::task::spawn_blocking(move || writer.join().is_ok());
    if tokio::time::timeout(WRITE_OUT, written).await.is_err() {
        tracing::warn!("not every record could be written in time");
    }
    if let Some(traces) = traces {
        traces.stop(WRITE_OUT).await;
    }
    tracing::info!("stopped");
    if failed {
        bail!("a part of DriftGuard ended by itself; the log above says which");
    }
    Ok(Exit::Clean)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_service_is_named_with_or_without_its_port() {
        let service = |port| Service { namespace: "ns".into(), name: "hook".into(), port };
        assert_eq!(parse_service("ns/hook").unwrap(), service(443));
        assert_eq!(parse_service("ns/hook:8443").unwrap(), service(8443));
        for text in ["hook", "ns/", "/hook", "ns/hook:", "ns/hook:99999", "a/b/c"] {
            assert!(parse_service(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_enforcement_is_read_in_any_case() {
        assert_eq!(parse_enforcement("audit"), Ok(Enforcement::Audit));
        assert!(parse_enforcement("none").is_err());
    }
}
