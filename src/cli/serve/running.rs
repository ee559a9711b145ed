//! Everything that `driftguard serve` runs: wired together here, and stopped in order.
//!
//! Nothing is decided here. The order of starting is free, since each part waits for what it needs and
//! readiness tells when all is there. The order of stopping is not: the lease is let go, then the server
//! drains, then nobody needs to wait for this replica any more; what was recorded is written out by the caller.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Remediation, ServeArgs};
use crate::alert::Delivery;
use crate::audit::auditor::{self, Auditor};
use crate::audit::observed::Observed;
use crate::audit::telling::Telling;
use crate::audit::watch::WatchSettings;
use crate::cert::LeafResolver;
use crate::cert::authority::certificates;
use crate::cert::keep::CertificateKeeper;
use crate::cert::keep_files::FilesKeeper;
use crate::cert::signing::SigningKeeper;
use crate::cert::tls::server_config;
use crate::control::alarm::Alarm;
use crate::control::lease::Keeper;
use crate::control::member::Member;
use crate::control::openreports::OpenReports;
use crate::control::promotion::Promotions;
use crate::control::registrar::{self, Registrar};
use crate::control::rights::Rights;
use crate::control::run::Control;
use crate::control::would_denies::WouldDenies;
use crate::core::tenure::Terms;
use crate::sources::Sources;
use crate::store::{self, Store};
use crate::telemetry::events;
use crate::telemetry::findings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::trail::sink::RecordSink;
use crate::webhook::activity::Activity;
use crate::webhook::drain::DrainTimes;
use crate::webhook::guards::Vouched;
use crate::webhook::health::{Checks, HealthServer};
use crate::webhook::readiness::{CertificateCheck, Readiness};
use crate::webhook::reviews::Voice;
use crate::webhook::server::MOST_CONNECTIONS;
use crate::webhook::{Admission, AdmissionSettings, GuardReviews, Reviews};

/// Longest an API server may be silent on a connection. Watches end by themselves after 290 s.
const SILENCE: Duration = Duration::from_secs(295);

/// Everything that runs.
pub(super) struct Running {
    admission: Admission,
    health: HealthServer,
    keep_lease: watch::Sender<bool>,
    leasing: tokio::task::JoinHandle<()>,
    keep_member: watch::Sender<bool>,
    member: tokio::task::JoinHandle<()>,
    background: tokio::task::JoinSet<()>,
    delivery: Delivery,
}

impl Running {
    /// Starts every part, and returns once both servers listen.
    ///
    /// # Errors
    /// When a flag cannot be used, an address cannot be bound, or there is no cluster to talk to.
    pub(super) async fn start(args: &ServeArgs, records: RecordSink) -> anyhow::Result<Self> {
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
        background.spawn(store::apart(watching));

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
        let notices_of_audit = notices.clone();
        background.spawn(alarm.clone().watch_key(keys.watch()));
        let guard_reviews = GuardReviews {
            client: client.clone(),
            store: store.clone(),
            keys,
            longest_pause: args.max_exception,
            notices,
            room: Default::default(),
        };
        let (finding, finding_publisher) = findings::channel(Arc::clone(&metrics));
        background.spawn(finding_publisher.run(client.clone(), replica.clone()));
        let delivery =
            Delivery::start(&args.alerts.settings()?, finding, Arc::clone(&metrics), &mut background)?;
        let telling = Telling {
            replica: replica.clone(),
            records: records.clone(),
            notices: notices_of_audit,
            delivery: delivery.clone(),
        };
        let observed = Arc::new(Observed::default());
        let voice = Voice {
            replica: replica.clone(),
            authenticated: clients.is_some(),
            observed: Arc::clone(&observed),
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
        let own_authorities = trusted.clone();
        let sources = Sources::new(
            client.clone(),
            args.sources.settings()?,
            Arc::new(move || certificates(&own_authorities.borrow()).unwrap_or_default()),
            Arc::clone(&metrics),
        );
        let auditor = Auditor {
            client: client.clone(),
            store: store.clone(),
            fence: fence.clone(),
            sources: Arc::new(sources),
            settings: auditor::Settings {
                watch: WatchSettings {
                    audit_interval: args.watch.audit_interval,
                    installed: namespace.clone(),
                },
                apply_grace: args.apply_grace,
                remediation: args.remediation == Remediation::On,
            },
            observed,
            telling,
            keys: signing_key.clone(),
            metrics: Arc::clone(&metrics),
        };
        background.spawn(auditor.run());
        if args.openreports {
            let reports = OpenReports {
                client: client.clone(),
                store: store.clone(),
                fence: fence.clone(),
                metrics: Arc::clone(&metrics),
                again: args.openreports_again,
            };
            background.spawn(reports.run());
        }
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
        Ok(Self { admission, health, keep_lease, leasing, keep_member, member, background, delivery })
    }

    /// Returns when a part that runs for ever has ended, which only a bug can cause.
    pub(super) async fn part_ended(&mut self) {
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
    pub(super) async fn stop(mut self, limit: Duration) {
        let until = tokio::time::Instant::now() + limit;
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
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if !self.delivery.drained(left).await {
            tracing::warn!(
                "not every alert could be delivered in time; what a spool holds is sent by the next process"
            );
        }
        self.background.shutdown().await;
        self.health.stop().await;
    }
}
