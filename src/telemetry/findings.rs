//! Events about what the auditor finds and does: drift, remediation, alerts and their resolution.
//!
//! Each regards the guard and is related to the target. One Event for each guard, kind and reason, with a
//! series behind it, as for attempts ([`super::events`]); queue, memory and rate are bounded. Alerts and their
//! resolution have bounds of their own, so that no amount of drift crowds them out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::gather::{Episodes, Observed};
use super::metrics::Metrics;
use crate::api::names;
use crate::core::guard::{GuardId, Target};

/// Name under which Events are reported.
const CONTROLLER: &str = "driftguard.terrafusion.ai/auditor";
/// Findings that may wait to be told; alerts and their resolution apart from the others, as for all bounds.
const QUEUE: usize = 4096;
/// Events at once, and per second after that.
const BURST: u32 = 200;
const PER_SECOND: u32 = 10;
/// How often it is looked whether gathered findings are due.
const LOOK: Duration = Duration::from_secs(5);
/// Longest note; the API allows 1,024 characters.
const MAX_NOTE: usize = 1000;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// Content that is not approved was found, or none.
    Drift,
    /// An attempt to restore ended.
    Remediation,
    /// Somebody is alerted.
    Alert,
    /// What they were alerted about is over.
    Resolved,
}

impl Told {
    /// `action` of the Event: what DriftGuard did.
    const fn action(self) -> &'static str {
        match self {
            Self::Drift => "Audit",
            Self::Remediation => "Restore",
            Self::Alert | Self::Resolved => "Alert",
        }
    }

    /// Whether it goes to somebody on call.
    const fn is_alert(self) -> bool {
        matches!(self, Self::Alert | Self::Resolved)
    }
}

/// What an Event tells.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which guard.
    pub guard: GuardId,
    /// Its uid, empty where unknown.
    pub guard_uid: String,
    /// What it pins.
    pub target: Target,
    /// What kind of finding it is.
    pub told: Told,
    /// A stable word.
    pub reason: &'static str,
    /// One sentence; no value of any object.
    pub note: String,
}

/// Takes findings without ever waiting.
#[derive(Debug, Clone)]
pub struct FindingSink {
    alerts: mpsc::Sender<Finding>,
    others: mpsc::Sender<Finding>,
    metrics: Arc<Metrics>,
}

impl FindingSink {
    /// Queues a finding; one too many is dropped and counted, and an alert is named in the log.
    pub fn put(&self, finding: Finding) {
        let queue = if finding.told.is_alert() { &self.alerts } else { &self.others };
        if let Err(mpsc::error::TrySendError::Full(finding) | mpsc::error::TrySendError::Closed(finding)) =
            queue.try_send(finding)
        {
            self.metrics.dropped_event();
            if finding.told.is_alert() {
                say_dropped(&finding);
            }
        }
    }
}

/// Whoever reads the log alone must not miss it.
fn say_dropped(finding: &Finding) {
    tracing::error!(
        namespace = %finding.guard.namespace,
        name = %finding.guard.name,
        reason = reason(finding),
        "no Event tells an alert: too many at once"
    );
}

/// The task that publishes what a sink takes.
#[derive(Debug)]
pub struct Publisher {
    alerts: mpsc::Receiver<Finding>,
    others: mpsc::Receiver<Finding>,
    metrics: Arc<Metrics>,
}

/// A sink and the task behind it, which must be run.
#[must_use]
pub fn channel(metrics: Arc<Metrics>) -> (FindingSink, Publisher) {
    let ((to_alerts, alerts), (to_others, others)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
    let sink = FindingSink { alerts: to_alerts, others: to_others, metrics: Arc::clone(&metrics) };
    (sink, Publisher { alerts, others, metrics })
}

impl Publisher {
    /// Publishes for ever. A failing API server costs Events, nothing else.
    pub async fn run(self, client: kube::Client, replica: String) {
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(replica) };
        // Neither waits while an Event of the other is sent.
        let recorder = || Recorder::new(client.clone(), reporter.clone());
        tokio::join!(
            publish(self.alerts, recorder(), &self.metrics, TooMany::Wait),
            publish(self.others, recorder(), &self.metrics, TooMany::Drop)
        );
    }
}

/// What becomes of an Event that is too many at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooMany {
    /// It waits, and all behind it.
    Wait,
    /// It is dropped.
    Drop,
}

/// Publishes what comes from one queue, within bounds of its own.
async fn publish(
    mut queue: mpsc::Receiver<Finding>,
    recorder: Recorder,
    metrics: &Metrics,
    too_many: TooMany,
) {
    let mut allowance = Allowance::new(BURST, PER_SECOND, std::time::Instant::now());
    let mut episodes = Episodes::default();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        let due = tokio::select! {
            finding = queue.recv() => match finding {
                Some(finding) => {
                    let key = (finding.guard.clone(), finding.told, finding.reason);
                    match episodes.observe(key, finding, Instant::now()) {
                        Observed::Due(finding) => vec![(finding, 1)],
                        Observed::Gathered => Vec::new(),
                        Observed::Dropped => {
                            metrics.dropped_event();
                            Vec::new()
                        }
                    }
                }
                // Whoever finds things is gone only when the process stops.
                None => std::future::pending().await,
            },
            _ = tick.tick() => episodes.due(Instant::now()),
        };
        for (finding, count) in due {
            let mut may = allowance.take(std::time::Instant::now());
            while !may && too_many == TooMany::Wait {
                tokio::time::sleep(Duration::from_secs(1) / PER_SECOND).await;
                may = allowance.take(std::time::Instant::now());
            }
            if !may {
                metrics.dropped_event();
                continue;
            }
            if let Err(error) = recorder.publish(&event(&finding, count), &regarding(&finding)).await {
                metrics.dropped_event();
                tracing::debug!(%error, "an Event could not be published");
            }
        }
    }
}

fn event(finding: &Finding, count: usize) -> Event {
    let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
    // The count must survive when the rest is cut.
    let room = MAX_NOTE.saturating_sub(times.len());
    let mut note: String = finding.note.chars().take(room).collect();
    note.push_str(&times);
    let is_good = finding.told == Told::Resolved || finding.reason == RESTORED;
    Event {
        type_: if is_good { EventType::Normal } else { EventType::Warning },
        reason: reason(finding),
        note: Some(note),
        action: finding.told.action().into(),
        secondary: Some(target(&finding.target)),
    }
}

/// The result of a remediation that succeeded.
const RESTORED: &str = "Restored";

/// `reason` of the Event: the finding's own, told apart where an alert or its end says the same.
fn reason(finding: &Finding) -> String {
    match finding.told {
        Told::Drift | Told::Remediation => finding.reason.to_owned(),
        Told::Alert => format!("Alert{}", finding.reason),
        Told::Resolved => format!("Resolved{}", finding.reason),
    }
}

fn regarding(finding: &Finding) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
        kind: Some("DriftGuard".into()),
        namespace: Some(finding.guard.namespace.as_str().into()),
        name: Some(finding.guard.name.as_str().into()),
        uid: (!finding.guard_uid.is_empty()).then(|| finding.guard_uid.clone()),
        ..ObjectReference::default()
    }
}

fn target(target: &Target) -> ObjectReference {
    ObjectReference {
        api_version: Some(target.api_version()),
        kind: Some(target.kind.as_str().into()),
        namespace: target.namespace.as_ref().map(Into::into),
        name: Some(target.name.as_str().into()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(told: Told, reason: &'static str) -> Finding {
        Finding {
            guard: GuardId { namespace: "g".into(), name: "a".into() },
            guard_uid: "u".into(),
            target: Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("n".into()),
                name: "x".into(),
            },
            told,
            reason,
            note: "ConfigMap/n/x is not as approved".into(),
        }
    }

    #[test]
    fn an_event_regards_the_guard_and_is_related_to_the_target() {
        let finding = finding(Told::Drift, "ContentDiffers");
        let event = event(&finding, 1);
        assert_eq!((event.reason.as_str(), event.action.as_str()), ("ContentDiffers", "Audit"));
        assert_eq!(event.note.as_deref(), Some("ConfigMap/n/x is not as approved"));
        assert_eq!(event.secondary.and_then(|target| target.name).as_deref(), Some("x"));
        assert_eq!(regarding(&finding).kind.as_deref(), Some("DriftGuard"));
    }

    #[test]
    fn what_is_good_news_is_no_warning() {
        let kind = |told, reason| event(&finding(told, reason), 1).type_;
        assert!(matches!(kind(Told::Resolved, "Drifted"), EventType::Normal));
        assert!(matches!(kind(Told::Remediation, RESTORED), EventType::Normal));
        assert!(matches!(kind(Told::Remediation, "Failed"), EventType::Warning));
        assert!(matches!(kind(Told::Alert, "Drifted"), EventType::Warning));
    }

    #[test]
    fn no_amount_of_drift_takes_the_room_of_an_alert() {
        let metrics = Arc::new(Metrics::default());
        let (sink, mut publisher) = channel(Arc::clone(&metrics));
        for _ in 0..=QUEUE {
            sink.put(finding(Told::Drift, "ContentDiffers"));
        }
        for told in [Told::Alert, Told::Resolved] {
            sink.put(finding(told, "Drifted"));
            assert_eq!(publisher.alerts.try_recv().map(|finding| finding.told), Ok(told));
        }
        let page = metrics.encode().unwrap_or_default();
        assert!(page.contains("driftguard_dropped_events_total 1"), "{page}");
    }

    #[tokio::test]
    async fn of_many_alerts_at_once_each_has_its_event_in_the_end() {
        let metrics = Arc::new(Metrics::default());
        let (sink, publisher) = channel(Arc::clone(&metrics));
        let (told, mut events) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let told = told.clone();
            async move {
                let _ = told.send(());
                let answer =
                    r#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{},"eventTime":null}"#;
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(
                    answer.as_bytes().to_vec(),
                )))
            }
        });
        tokio::spawn(publisher.run(kube::Client::new(service, "n"), "replica".into()));
        let many = BURST + 3;
        for number in 0..many {
            let mut alert = finding(Told::Alert, "Drifted");
            alert.guard.name = format!("g{number}").into();
            sink.put(alert);
        }
        for _ in 0..many {
            let told = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
            assert!(matches!(told, Ok(Some(()))), "{told:?}");
        }
        let page = metrics.encode().unwrap_or_default();
        assert!(page.contains("driftguard_dropped_events_total 0"), "{page}");
    }

    #[test]
    fn the_count_survives_in_a_long_note() {
        let mut long = finding(Told::Alert, "Drifted");
        long.note = "x".repeat(5000);
        let note = event(&long, 7).note.unwrap_or_default();
        assert_eq!(note.len(), MAX_NOTE);
        assert!(note.ends_with(" (7 times)"));
    }
}
