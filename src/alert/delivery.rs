//! All ways by which somebody is told, behind one handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::args::Settings;
use super::cloudevents;
use super::endpoint::{self, Endpoint, EndpointError};
use super::older::{self, About};
use super::outbox::{self, Outbox, OutboxError};
use crate::core::audit::alert::Alert;
use crate::telemetry::findings::{Finding, FindingSink, Told};
use crate::telemetry::metrics::{Destination, Metrics};

/// Why nothing can be delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The spool cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A receiver cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Takes alerts, drift and remediations without ever waiting, and tells them: as Events and metrics, and
/// to the receivers that are configured. Clones share all of it.
#[derive(Debug, Clone)]
pub struct Delivery {
    alerts: Option<Outbox>,
    telemetry: Option<Outbox>,
    source: Arc<str>,
    findings: FindingSink,
    metrics: Arc<Metrics>,
}

impl Delivery {
    /// Begins to deliver what is put, and what an earlier process left in the spool, by tasks of
    /// `background`. Every replica does so, whoever holds the lease: what one has spooled no other can see.
    ///
    /// # Errors
    /// [`DeliveryError`] when a file or folder of the settings cannot be used.
    pub fn start(
        settings: &Settings,
        findings: FindingSink,
        metrics: Arc<Metrics>,
        background: &mut JoinSet<()>,
    ) -> Result<Self, DeliveryError> {
        let mut open = |destination: Destination, receiver: &Option<endpoint::Settings>| {
            let Some(receiver) = receiver else { return Ok(None) };
            let endpoint = Endpoint::new(receiver)?;
            let folder = settings.spool.as_ref().map(|spool| spool.join(destination.as_str()));
            let metrics = Arc::clone(&metrics);
            let (outbox, courier) = outbox::open(destination, folder.as_deref(), settings.limits, metrics)?;
            background.spawn(courier.run(endpoint));
            Ok::<_, DeliveryError>(Some(outbox))
        };
        Ok(Self {
            alerts: open(Destination::Alerts, &settings.alerts)?,
            telemetry: open(Destination::Telemetry, &settings.telemetry)?,
            source: settings.source.as_str().into(),
            findings,
            metrics,
        })
    }

    /// Tells an alert, or that it is over. The same one told twice is delivered once.
    pub fn put(&self, alert: &Alert) {
        self.metrics.alerts.alert(alert.reason.as_str(), cloudevents::state(alert));
        self.findings.put(Finding {
            guard: alert.guard.clone(),
            guard_uid: alert.guard_uid.clone(),
            target: alert.target.clone(),
            told: if alert.resolved { Told::Resolved } else { Told::Alert },
            reason: alert.reason.as_str(),
            note: alert.message.clone(),
        });
        if let Some(outbox) = &self.alerts {
            outbox.put(cloudevents::event(alert, &self.source));
        }
    }

    /// Tells of drift that was found, with `note` as one sentence and `reason` as a stable word.
    pub fn drift(&self, about: &About<'_>, reason: &'static str, note: &str) {
        self.find(about, Told::Drift, reason, note);
        if let Some(outbox) = &self.telemetry {
            outbox.put(older::drift(about));
        }
    }

    /// Tells of an attempt to restore: `result` is a stable word and `source` where the content came from.
    pub fn remediation(&self, about: &About<'_>, result: &'static str, source: Option<&str>, note: &str) {
        self.find(about, Told::Remediation, result, note);
        if let Some(outbox) = &self.telemetry {
            outbox.put(older::remediation(about, result, source));
        }
    }

    fn find(&self, about: &About<'_>, told: Told, reason: &'static str, note: &str) {
        self.findings.put(Finding {
            guard: about.guard.clone(),
            guard_uid: about.guard_uid.to_owned(),
            target: about.target.clone(),
            told,
            reason,
            note: note.to_owned(),
        });
    }

    /// Waits until all that was put before is on disk, as far as there is a spool, for ten seconds at the
    /// most. Returns whether it is. Whoever writes down that an alert was told waits for this first, or a
    /// crash in between would lose it.
    pub async fn settled(&self) -> bool {
        let settle = async |outbox: &Option<Outbox>| match outbox {
            Some(outbox) => outbox.settled().await,
            None => true,
        };
        let (alerts, telemetry) = tokio::join!(settle(&self.alerts), settle(&self.telemetry));
        alerts && telemetry
    }

    /// Waits until all is delivered, for at most `limit`, and no longer than receivers take what they get:
    /// what is left goes with the pod, and its spool with it. Returns whether nothing waits any more.
    pub async fn drained(&self, limit: Duration) -> bool {
        let drain = async |outbox: &Option<Outbox>| match outbox {
            Some(outbox) => outbox.drained(limit).await,
            None => true,
        };
        let (alerts, telemetry) = tokio::join!(drain(&self.alerts), drain(&self.telemetry));
        alerts && telemetry
    }
}
