//! Kubernetes Events about attempts on guarded objects (`events.k8s.io/v1`).
//!
//! One Event for each guard and reason, with a series behind it: the first attempt is told at once,
//! further ones are gathered and told together. Queue, memory and rate are bounded, since reviews
//! without a client certificate can be forged by any pod.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::gather::Episodes;
use super::metrics::Metrics;
use crate::api::names;
use crate::core::guard::{GuardId, Target};
use crate::core::verdict::{Attempt, Reason};

/// Name under which Events are reported.
const CONTROLLER: &str = "driftguard.terrafusion.ai/admission";
/// Attempts that may wait to be told.
const QUEUE: usize = 256;
/// Longest note; the API allows 1,024 characters.
const MAX_NOTE: usize = 1000;

/// What an Event tells.
#[derive(Debug, Clone)]
struct Told {
    denied: bool,
    attempt: Attempt,
}

impl Told {
    /// Attempts on one guard, for one reason and with one outcome, are one episode.
    fn key(&self) -> (GuardId, Reason, bool) {
        (self.attempt.guard.clone(), self.attempt.reason, self.denied)
    }
}

/// Takes attempts without ever waiting.
#[derive(Debug, Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
}

impl EventSink {
    /// Queues an attempt; one too many is dropped and counted.
    pub fn offer(&self, attempt: &Attempt, denied: bool) {
        if self.queue.try_send(Told { denied, attempt: attempt.clone() }).is_err() {
            self.metrics.dropped_event();
        }
    }
}

/// The task that publishes what a sink takes.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::Receiver<Told>,
    metrics: Arc<Metrics>,
}

/// A sink and the task behind it, which must be run.
#[must_use]
pub fn channel(metrics: Arc<Metrics>) -> (EventSink, Publisher) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (EventSink { queue: sender, metrics: Arc::clone(&metrics) }, Publisher { queue: receiver, metrics })
}

impl Publisher {
    /// Publishes until every sink is gone. A failing API server costs Events, nothing else.
    pub async fn run(mut self, client: kube::Client, replica: String) {
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(replica) };
        let recorder = Recorder::new(client, reporter);
        let mut episodes = Episodes::default();
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            let due = tokio::select! {
                told = self.queue.recv() => match told {
                    Some(told) => episodes.observe(told.key(), told, Instant::now()).into_iter().collect(),
                    None => return,
                },
                _ = tick.tick() => episodes.due(Instant::now()),
            };
            for (told, count) in due {
                if let Err(error) = recorder.publish(&event(&told, count), &regarding(&told.attempt)).await {
                    self.metrics.dropped_event();
                    tracing::debug!(%error, "an Event could not be published");
                }
            }
        }
    }
}

fn event(told: &Told, count: usize) -> Event {
    let attempt = &told.attempt;
    let times = if count > 1 { format!(" ({count} attempts)") } else { String::new() };
    let verb = match (told.denied, attempt.reason) {
        (true, _) => "was refused",
        (false, Reason::RegistrationAltered) => "was put right",
        (false, _) => "was let through",
    };
    let paths =
        if attempt.paths.is_empty() { String::new() } else { format!(": {}", attempt.paths.join(", ")) };
    let note = format!(
        "{} of {} by {} {verb}{paths}{times}",
        attempt.operation.as_str(),
        attempt.target,
        attempt.user.name
    );
    Event {
        type_: EventType::Warning,
        reason: reason(told).to_owned(),
        note: Some(note.chars().take(MAX_NOTE).collect()),
        action: "Admission".into(),
        secondary: Some(reference(&attempt.target, &attempt.target_uid)),
    }
}

fn reason(told: &Told) -> &'static str {
    match (told.attempt.reason, told.denied) {
        (Reason::TargetDeleted, _) => "TargetDeleted",
        (Reason::AlreadyDrifted, _) => "TargetDrifted",
        (Reason::DefinitionDeleted | Reason::DefinitionChanged | Reason::RegistrationAltered, _) => {
            told.attempt.reason.as_str()
        }
        (_, true) => "WriteDenied",
        (_, false) => "UnapprovedWriteAllowed",
    }
}

fn regarding(attempt: &Attempt) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
        kind: Some("DriftGuard".into()),
        namespace: Some(attempt.guard.namespace.as_str().into()),
        name: Some(attempt.guard.name.as_str().into()),
        uid: (!attempt.guard_uid.is_empty()).then(|| attempt.guard_uid.clone()),
        ..ObjectReference::default()
    }
}

fn reference(target: &Target, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(target.api_version()),
        kind: Some(target.kind.as_str().into()),
        namespace: target.namespace.as_ref().map(Into::into),
        name: Some(target.name.as_str().into()),
        uid: (!uid.is_empty()).then(|| uid.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::verdict::{Operation, User};

    fn told(guard: &str) -> Told {
        let attempt = Attempt {
            guard: GuardId { namespace: "g".into(), name: guard.into() },
            guard_uid: "".into(),
            guard_generation: 1,
            target: Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("n".into()),
                name: "x".into(),
            },
            target_uid: "".into(),
            operation: Operation::Update,
            sub_resource: String::new(),
            dry_run: false,
            user: User { name: "alice".into(), ..User::default() },
            field_manager: String::new(),
            image_hash: None,
            paths: vec!["/data/price".into()],
            enforcement: None,
            reason: Reason::HashMismatch,
        };
        Told { denied: true, attempt }
    }

    #[test]
    fn the_note_says_what_was_attempted_by_whom_and_names_the_paths() {
        let event = event(&told("a"), 3);
        assert_eq!(
            event.note.as_deref(),
            Some("UPDATE of ConfigMap/n/x by alice was refused: /data/price (3 attempts)")
        );
        assert_eq!(event.reason, "WriteDenied");
    }
}
