//! Writes the status of guards, and only what is new in it.
//!
//! By server-side apply of what is ours, so that an API server keeps whole what other parts of the status
//! belong to others, the auditor's before all. The guard's uid goes along: the status of a deleted guard never lands on its successor.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::api::reasons::ConditionType;
use crate::api::{DriftGuard, DriftGuardStatus, names};
use crate::core::index::Index;
use crate::core::signature::SigningKey;
use crate::store::{Observation, Reported, Seen, resolution};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices::Notice;

use super::agreement::Agreement;
use super::alarm::Alarm;
use super::conditions::{self, Coverage};
use super::lease::Fence;
use super::promotion::Due;
use super::rights::Rights;
use super::standing::Standing;

/// Status writes under way at once: enough for thousands of guards, few enough not to crowd out
/// anybody at the API server.
const CONCURRENCY: usize = 8;
/// Guards whose new status is held in memory at a time.
const BATCH: usize = 256;
/// Longest one write may take. A silent API server must not hold up registration, which waits for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of the statuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// How many could not be written.
    pub(super) failed: usize,
    /// How many guards wait for a replica.
    pub(super) waiting: usize,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.failed += more.failed;
        self.waiting += more.waiting;
    }
}

/// What a status is made of besides its guard.
#[derive(Clone, Copy)]
struct Facts<'a> {
    index: &'a Index,
    standing: &'a Standing,
    agreement: &'a Agreement,
    /// Whether every replica lets pass what the exceptions do, and nothing else.
    are_exceptions_settled: bool,
    due: &'a Due,
    now: Timestamp,
}

impl Facts<'_> {
    fn coverage(&self, seen: &Seen) -> Coverage {
        self.agreement.limit(seen, self.standing.coverage(seen.since, seen.state.target()))
    }
}

/// What became of one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It stands there.
    Taken,
    /// It was about a guard that is gone, or that has changed since.
    Outdated,
    /// It must be tried again.
    Failed,
}

/// Writes statuses for as long as the fence holds.
pub(super) struct StatusWriter<'a> {
    pub(super) client: kube::Client,
    pub(super) fence: Fence,
    pub(super) metrics: Arc<Metrics>,
    pub(super) alarm: &'a Alarm,
    pub(super) rights: &'a Rights,
    /// The key by which what is kept in a status is signed; without it that is left alone.
    pub(super) key: Option<SigningKey>,
}

impl StatusWriter<'_> {
    /// Brings the status of every guard of `observation` up to date, and lets each go with that: what is written comes
    /// back by the watch as another version of the guard.
    pub(super) async fn write_all(
        &self,
        observation: Arc<Observation>,
        standing: &Standing,
        agreement: &Agreement,
        due: &Due,
        now: Timestamp,
    ) -> Written {
        let mut result = Written::default();
        let are_exceptions_settled = agreement.exceptions_pending(&observation).is_none();
        let mut guards = observation.guards.clone().into_iter();
        let index = Arc::clone(&observation.index);
        drop(observation);
        let facts = Facts { index: &index, standing, agreement, are_exceptions_settled, due, now };
        // Some at a time: the new statuses of a hundred thousand guards would fill the memory.
        loop {
            let part: Vec<Arc<Seen>> = guards.by_ref().take(BATCH).collect();
            if part.is_empty() {
                return result;
            }
            // Boxed, since the compiler cannot yet see that a stream of borrowing futures may be sent.
            let mut writes: Vec<BoxFuture<'_, bool>> = Vec::new();
            for seen in &part {
                let coverage = facts.coverage(seen);
                let known = seen.stored.status();
                // Where a pause ended, a replica that lags may not know that yet.
                let may_pass = !facts.are_exceptions_settled
                    && known.was_suspended()
                    && seen.state.paused(now).is_none();
                result.waiting += usize::from(matches!(coverage, Coverage::Replicas(_)) || may_pass);
                if !known.says(&self.wanted(seen, &facts, &coverage, &known.ground())) {
                    writes.push(self.bring(seen, facts, coverage).boxed());
                }
            }
            let mut written = stream::iter(writes).buffer_unordered(CONCURRENCY);
            while let Some(done) = written.next().await {
                result.failed += usize::from(!done);
            }
            // Where nothing is to be written nothing above waits, and reviews want their turn.
            tokio::task::yield_now().await;
        }
    }

    /// The status that a guard should have, built on `before`.
    fn wanted(
        &self,
        seen: &Seen,
        facts: &Facts<'_>,
        coverage: &Coverage,
        before: &DriftGuardStatus,
    ) -> DriftGuardStatus {
        let (index, now) = (facts.index, facts.now);
        let mut status = conditions::status(&seen.state, index, coverage, Some(before), now);
        if !facts.are_exceptions_settled {
            conditions::keep_pause(&mut status, &seen.state, before);
        }
        if let Some(why) = &seen.kept {
            conditions::add_kept(&mut status, &seen.state, why, before, now);
        }
        if let Some(missing) = seen.state.target().and_then(|target| self.rights.missing(target)) {
            conditions::say_missing_right(&mut status, &missing);
        }
        if let Some(key) = &self.key {
            status.resolved_target = resolution::to_note(&seen.state, &seen.stored, key);
        }
        if facts.due.is_known {
            status.enforce_after_clean = facts.due.of.get(seen.stored.uid().as_str()).cloned();
        }
        status
    }

    /// Brings the status of one guard up to date. Tells whether there is nothing left to do for it.
    async fn bring(&self, seen: &Seen, facts: Facts<'_>, coverage: Coverage) -> bool {
        let before = if seen.stored.status().is_empty() {
            DriftGuardStatus::default()
        } else {
            // Only a summary of it is kept.
            match self.read(seen).await {
                Ok(Some(before)) => before,
                // The guard is gone, or changed since it was seen: the watch will tell.
                Ok(None) => return true,
                Err(()) => return false,
            }
        };
        let status = self.wanted(seen, &facts, &coverage, &before);
        status == before || self.settle(seen, before, status, facts.now).await
    }

    /// The status as it stands, of exactly the version that was seen.
    async fn read(&self, seen: &Seen) -> Result<Option<DriftGuardStatus>, ()> {
        let id = seen.stored.id();
        let api: Api<Reported> = Api::namespaced(self.client.clone(), &id.namespace);
        // A list of one, which API servers answer like a `get`.
        let only = ListParams::default().fields(&format!("metadata.name={}", id.name));
        let error = match tokio::time::timeout(REQUEST_TIMEOUT, api.list(&only)).await {
            Ok(Ok(found)) => {
                let same = found.items.into_iter().find(|found| {
                    found.uid() == seen.stored.uid().as_str()
                        && found.resource_version() == seen.stored.resource_version()
                });
                return Ok(same.map(|found| found.status()));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        self.metrics.status_write("failed");
        tracing::warn!(namespace = %id.namespace, name = %id.name, error, "the status of a guard could not be read");
        Err(())
    }

    /// Writes one status, and tells what is new in it. Gives whether there is nothing left to do for it.
    async fn settle(
        &self,
        seen: &Seen,
        before: DriftGuardStatus,
        status: DriftGuardStatus,
        now: Timestamp,
    ) -> bool {
        let sent = self.write(seen, json!(conditions::own(&status))).await;
        if sent == Sent::Taken {
            self.announce(seen, &before, &status);
            self.alarm.pauses(seen, &before, &status, now);
        }
        sent != Sent::Failed
    }

    /// Tells once, when it begins, that nobody is known to have approved a guard. What begins and ends
    /// stands in the status, so that another replica does not tell it again.
    fn announce(&self, seen: &Seen, before: &DriftGuardStatus, after: &DriftGuardStatus) {
        let unknown = |status: &DriftGuardStatus| {
            let of_type = ConditionType::AuthorUnknown.as_str();
            status.conditions.iter().find(|condition| condition.type_ == of_type).cloned()
        };
        let (None, Some(condition)) = (unknown(before), unknown(after)) else { return };
        let id = seen.stored.id();
        tracing::warn!(
            namespace = %id.namespace,
            name = %id.name,
            "no valid signature says who approved a guard"
        );
        self.alarm.notices.put(Notice {
            guard: id.clone(),
            uid: seen.stored.uid().into(),
            reason: "AuthorUnknown",
            note: condition.message,
        });
    }

    async fn write(&self, seen: &Seen, status: serde_json::Value) -> Sent {
        let id = seen.stored.id();
        if self.fence.check().is_err() {
            return Sent::Failed;
        }
        let api: Api<DriftGuard> = Api::namespaced(self.client.clone(), &id.namespace);
        let patch = json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "DriftGuard",
            // Of that very guard, as it was read: a status built on an older one says nothing new.
            "metadata": {
                "name": id.name,
                "namespace": id.namespace,
                "uid": seen.stored.uid(),
                "resourceVersion": seen.stored.resource_version(),
            },
            "status": status,
        });
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let patch = Patch::Apply(&patch);
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, api.patch_status(&id.name, &params, &patch)).await;
        let Ok(answer) = sent else {
            self.metrics.status_write("failed");
            tracing::warn!(
                namespace = %id.namespace,
                name = %id.name,
                "the API server did not take a status in time"
            );
            return Sent::Failed;
        };
        match answer {
            Ok(_) => {
                self.metrics.status_write("written");
                Sent::Taken
            }
            // The guard is gone, or changed since it was read: the watch will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Sent::Outdated,
            Err(error) => {
                self.metrics.status_write("failed");
                tracing::warn!(namespace = %id.namespace, name = %id.name, %error, "the status of a guard could not be written");
                Sent::Failed
            }
        }
    }
}
