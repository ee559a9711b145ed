//! Events that concern a guard itself and not a write to its target: deleted, of an unknown author, paused.
//!
//! Whoever tells one sees to it that it is told once an episode; here queue and rate are bounded.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::allowance::Allowance;
use super::metrics::Metrics;
use crate::api::names;
use crate::core::guard::GuardId;

/// Name under which Events are reported.
const CONTROLLER: &str = "driftguard.terrafusion.ai/guards";
/// Notices that may wait.
const QUEUE: usize = 1024;
/// Events at once, and per second after that.
const BURST: u32 = 100;
const PER_SECOND: u32 = 5;
/// Longest note; the API allows 1,024 characters.
const MAX_NOTE: usize = 1000;

/// What is told about a guard.
#[derive(Debug, Clone)]
pub struct Notice {
    /// Which guard.
    pub guard: GuardId,
    /// Its uid, empty where unknown.
    pub uid: String,
    /// A stable word.
    pub reason: &'static str,
    /// One sentence.
    pub note: String,
}

/// A notice with what its Event says besides.
#[derive(Debug)]
struct Queued {
    notice: Notice,
    action: &'static str,
    related: Option<ObjectReference>,
}

/// Takes notices without ever waiting.
#[derive(Debug, Clone)]
pub struct NoticeSink {
    queue: mpsc::Sender<Queued>,
    metrics: Arc<Metrics>,
}

impl NoticeSink {
    /// Queues a notice; one too many is dropped and counted.
    pub fn put(&self, notice: Notice) {
        self.queue(Queued { notice, action: "Approval", related: None });
    }

    /// As [`Self::put`], of a pause that begins or ends; `related` is what asked for it, unless the guard
    /// did so itself.
    pub fn put_pause(&self, notice: Notice, related: Option<ObjectReference>) {
        self.queue(Queued { notice, action: "Pause", related });
    }

    fn queue(&self, queued: Queued) {
        if self.queue.try_send(queued).is_err() {
            self.metrics.dropped_event();
        }
    }
}

/// The task that publishes what a sink takes.
#[derive(Debug)]
pub struct Announcer {
    queue: mpsc::Receiver<Queued>,
    metrics: Arc<Metrics>,
}

/// A sink and the task behind it, which must be run.
#[must_use]
pub fn channel(metrics: Arc<Metrics>) -> (NoticeSink, Announcer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (NoticeSink { queue: sender, metrics: Arc::clone(&metrics) }, Announcer { queue: receiver, metrics })
}

impl Announcer {
    /// Publishes until every sink is gone.
    pub async fn run(mut self, client: kube::Client, replica: String) {
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(replica) };
        let recorder = Recorder::new(client, reporter);
        let mut allowance = Allowance::new(BURST, PER_SECOND, Instant::now());
        while let Some(queued) = self.queue.recv().await {
            if !allowance.take(Instant::now()) {
                self.metrics.dropped_event();
                continue;
            }
            if let Err(error) = recorder.publish(&event(&queued), &regarding(&queued.notice)).await {
                self.metrics.dropped_event();
                tracing::debug!(%error, "an Event could not be published");
            }
        }
        // Whoever tells things is gone only when the process stops.
        std::future::pending::<()>().await;
    }
}

fn event(queued: &Queued) -> Event {
    Event {
        type_: EventType::Warning,
        reason: queued.notice.reason.to_owned(),
        note: Some(queued.notice.note.chars().take(MAX_NOTE).collect()),
        action: queued.action.to_owned(),
        secondary: queued.related.clone(),
    }
}

fn regarding(notice: &Notice) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
        kind: Some("DriftGuard".into()),
        namespace: Some(notice.guard.namespace.as_str().into()),
        name: Some(notice.guard.name.as_str().into()),
        uid: (!notice.uid.is_empty()).then(|| notice.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_regards_the_guard_and_is_cut_to_what_the_api_takes() {
        let notice = Notice {
            guard: GuardId { namespace: "n".into(), name: "g".into() },
            uid: "u".into(),
            reason: "AuthorUnknown",
            note: "x".repeat(5000),
        };
        assert_eq!(regarding(&notice).name.as_deref(), Some("g"));
        let queued = Queued { notice, action: "Approval", related: None };
        assert_eq!(event(&queued).note.map(|note| note.len()), Some(MAX_NOTE));
    }

    #[test]
    fn one_too_many_is_dropped_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let (sink, _announcer) = channel(Arc::clone(&metrics));
        let notice = Notice {
            guard: GuardId { namespace: "n".into(), name: "g".into() },
            uid: String::new(),
            reason: "AuthorUnknown",
            note: String::new(),
        };
        for _ in 0..=QUEUE {
            sink.put(notice.clone());
        }
        let page = metrics.encode().unwrap_or_default();
        assert!(page.contains("driftguard_dropped_events_total 1"), "{page}");
    }
}
