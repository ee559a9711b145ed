//! `driftguard serve`: the admission server on every replica, the controller on the lease holder.
//!
//! Here everything is wired together; nothing is decided. The order of starting is free, since each
//! part waits for what it needs and readiness tells when all is there. The order of stopping is not:
//! the lease is let go, then the server drains, then nobody needs to wait for this replica any more, then
//! what was recorded is written out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use jiff::SignedDuration;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::cluster::ClusterArgs;
use super::exit::Exit;
use crate::api::names;
use crate::cert::authority::certificates;
use crate::cert::files::CertificateFiles;
use crate::cert::keep::CertificateKeeper;
use crate::cert::keep_files::FilesKeeper;
use crate::cert::signing::SigningKeeper;
use crate::cert::tls::server_config;
use crate::cert::trust::BundleKeeper;
use crate::cert::{LeafResolver, ServerIdentity};
use crate::control::alarm::Alarm;
use crate::control::lease::Keeper;
use crate::control::member::Member;
use crate::control::promotion::Promotions;
use crate::control::registrar::{self, Registrar};
use crate::control::rights::Rights;
use crate::control::run::Control;
use crate::control::webhooks::Address;
use crate::control::would_denies::WouldDenies;
use crate::core::guard::Enforcement;
use crate::core::rotation::Lifetimes;
use crate::core::tenure::Terms;
use crate::store::{self, Store};
use crate::telemetry::events;
use crate::telemetry::logging::{self, Format};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::trail::sink::RecordSink;
use crate::webhook::activity::Activity;
use crate::webhook::drain::{DrainTimes, Signals};
use crate::webhook::guards::Vouched;
use crate::webhook::health::{Checks, HealthServer};
use crate::webhook::readiness::{CertificateCheck, Readiness};
use crate::webhook::reviews::Voice;
use crate::webhook::server::MOST_CONNECTIONS;
use crate::webhook::{Admission, AdmissionSettings, GuardReviews, Reviews};

/// Port of a Service that names none.
const SERVICE_PORT: u16 = names::WEBHOOK_SERVICE_PORT;
/// How long records may take to be written out at the end.
const WRITE_OUT: Duration = Duration::from_secs(2);
/// Longest an API server may be silent on a connection. Watches end by themselves after 290 s.
const SILENCE: Duration = Duration::from_secs(295);
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
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = parse_longest)]
    max_exception: SignedDuration,
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

/// A duration as kubectl writes them, longer than nothing.
fn parse_longest(text: &str) -> Result<SignedDuration, String> {
    let wrong = |_| "want a duration such as 8h or 30m".to_owned();
    let longest = SignedDuration::try_from(super::cluster::parse_duration(text)?).map_err(|_| wrong(()))?;
    if longest.is_zero() { Err(wrong(())) } else { Ok(longest) }
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
    logging::start(args.log_format, &args.log_level)?;
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
    tracing::info!("stopped");
    if failed {
        bail!("a part of DriftGuard ended by itself; the log above says which");
    }
    Ok(Exit::Clean)
}

/// Everything that runs.
struct Running {
    admission: Admission,
    health: HealthServer,
    keep_lease: watch::Sender<bool>,
    leasing: tokio::task::JoinHandle<()>,
    keep_member: watch::Sender<bool>,
    member: tokio::task::JoinHandle<()>,
    background: tokio::task::JoinSet<()>,
}

impl Running {
    async fn start(args: &ServeArgs, records: RecordSink) -> anyhow::Result<Self> {
        let (namespace, replica) = (args.namespace(), args.replica());
        let (address, identity) = args.address()?;
        let clients = args.client_authorities()?;
        let mut config = args.cluster.config().await?;
        // Watches are silent for minutes; a connection that is silent for longer is dead.
        config.read_timeout.get_or_insert(SILENCE);
        let client = kube::Client::try_from(config.clone()).context("making a client")?;
        let metrics = Arc::new(Metrics::default());
        let activity = Arc::new(Activity::default());
        let mut background = tokio::task::JoinSet::new();

        let settings = store::Settings {
            default_enforcement: args.default_enforcement,
            own_namespace: namespace.clone(),
            longest_pause: args.max_exception,
        };
        let (signing, keys) = SigningKeeper::new(client.clone(), namespace.clone());
        background.spawn(signing.run());
        let signing_key = keys.watch();
        let (store, watching) = Store::verifying(client.clone(), settings, keys.watch());
        background.spawn(watching);

        // Two processes of one name (a pod that was replaced) must never take each other's lease.
        let holder = format!("{replica}_{}", uuid::Uuid::now_v7().simple());
        let would_denies = Arc::new(WouldDenies::default());
        let (member, vouch, roll) = Member::new(
            client.clone(),
            &namespace,
            replica.clone(),
            holder.clone(),
            store.clone(),
            Arc::clone(&would_denies),
        );
        let promotions = Promotions {
            would_denies: Arc::clone(&would_denies),
            keys: keys.watch(),
            replica: replica.clone(),
            records: records.clone(),
        };
        background.spawn(roll.clone().keep());

        let (sink, publisher) = events::channel(Arc::clone(&metrics));
        background.spawn(publisher.run(client.clone(), replica.clone()));

        let resolver = Arc::new(LeafResolver::new());
        let (bundle, trusted) = watch::channel(Bytes::new());
        let lifetimes = args.lifetimes()?;
        match args.certificate_files()? {
            Some(files) => background.spawn(
                FilesKeeper {
                    files,
                    identity: identity.clone(),
                    settle: lifetimes.settle,
                    keeper: args.bundle_keeper(),
                    resolver: Arc::clone(&resolver),
                    bundle,
                    configurations: store.configurations(),
                    metrics: Arc::clone(&metrics),
                }
                .run(),
            ),
            None => background.spawn(
                CertificateKeeper {
                    client: client.clone(),
                    namespace: namespace.clone(),
                    identity: identity.clone(),
                    lifetimes,
                    resolver: Arc::clone(&resolver),
                    bundle,
                    configurations: store.configurations(),
                    metrics: Arc::clone(&metrics),
                }
                .run(),
            ),
        };

        let (notices, announcing) = notices::channel(Arc::clone(&metrics));
        background.spawn(announcing.run(client.clone(), replica.clone()));
        let alarm = Alarm {
            replica: replica.clone(),
            records: records.clone(),
            events: sink.clone(),
            notices: notices.clone(),
        };
        background.spawn(alarm.clone().watch_key(keys.watch()));
        let guard_reviews = GuardReviews {
            client: client.clone(),
            store: store.clone(),
            keys,
            longest_pause: args.max_exception,
            notices,
            room: Default::default(),
        };
        let voice = Voice {
            replica: replica.clone(),
            authenticated: clients.is_some(),
            records,
            events: sink,
            metrics: Arc::clone(&metrics),
            would_denies,
        };
        let tls = server_config(resolver, clients.as_deref())?;
        let admission = Admission::start(
            AdmissionSettings {
                bind: args.bind,
                tls,
                clients_known: clients.is_some(),
                client_names: args.client_name.clone(),
                most_connections: MOST_CONNECTIONS,
                activity: Arc::clone(&activity),
                metrics: Arc::clone(&metrics),
            },
            Reviews::new(Arc::new(Vouched { store: store.clone(), vouch: vouch.clone() }), voice)
                .with_guard_reviews(guard_reviews),
        )
        .await
        .with_context(|| format!("listening on {} (--bind)", args.bind))?;

        let check = CertificateCheck {
            listener: admission.address(),
            server_name: identity.registered().clone(),
            trusted: trusted.clone(),
            configurations: store.configurations(),
            keeper: args.bundle_keeper(),
            metrics: Arc::clone(&metrics),
        };
        let (certificate, checking) = check.start();
        background.spawn(checking);
        let readiness = Readiness { store: store.clone(), vouch, certificate, activity };
        background.spawn(readiness.clone().announce(admission.address()));
        let health =
            HealthServer::start(args.health_bind, readiness.checks(Checks::default()), Arc::clone(&metrics))
                .await
                .with_context(|| format!("listening on {} (--health-bind)", args.health_bind))?;

        let (keep_member, mut leave) = watch::channel(true);
        let member = tokio::spawn(member.run(async move {
            let _ = leave.wait_for(|keep| !keep).await;
        }));
        let (keeper, fence) = Keeper::new(client.clone(), &namespace, holder, Terms::default());
        let (keep_lease, mut let_go) = watch::channel(true);
        let leasing = tokio::spawn(keeper.run(async move {
            // An error means that the sender is gone, which is a stop, too.
            let _ = let_go.wait_for(|keep| !keep).await;
        }));
        let rights = Rights::new(namespace.as_str());
        let registrar = Registrar::new(
            client.clone(),
            registrar::Settings {
                own_namespace: namespace,
                address,
                bundle: trusted,
                injected_from: args.ca_injected_from.clone(),
                key: signing_key,
                longest_pause: args.max_exception,
            },
            store.configurations(),
        );
        let api_server_endpoints = args.api_server_endpoint.clone();
        let control = Control {
            config,
            client,
            store,
            fence,
            registrar,
            roll,
            promotions,
            api_server_endpoints,
            metrics,
            alarm,
            rights,
            longest_pause: args.max_exception,
            worked: None,
        };
        background.spawn(control.run());
        Ok(Self { admission, health, keep_lease, leasing, keep_member, member, background })
    }

    /// Returns when a part that runs for ever has ended, which only a bug can cause.
    async fn part_ended(&mut self) {
        tokio::select! {
            ended = self.background.join_next() => {
                if let Some(Err(error)) = ended {
                    tracing::error!(%error, "a background task failed");
                }
            }
            _ = &mut self.leasing => {}
            _ = &mut self.member => {}
        }
    }

    /// Stops in order: first unready and without the lease, then drained, then gone.
    async fn stop(mut self, limit: Duration) {
        self.keep_lease.send_replace(false);
        let drained = self.admission.drain(DrainTimes::within(limit));
        let released = async {
            // Asking a task twice for its end is an error.
            if !self.leasing.is_finished() {
                let _ = (&mut self.leasing).await;
            }
        };
        let (drained, ()) = tokio::join!(drained, released);
        if !drained {
            tracing::warn!("some connections were still open at the limit (--drain-timeout)");
        }
        // Until the last review is answered, others wait for what this replica has applied.
        self.keep_member.send_replace(false);
        if !self.member.is_finished() {
            let _ = (&mut self.member).await;
        }
        self.background.shutdown().await;
        self.health.stop().await;
    }
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
