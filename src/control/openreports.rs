//! Reports of `openreports.io`, one for each namespace that has guards (`serve --openreports`).
//!
//! Made of what the statuses of guards say, by the holder of the lease, when that changes; nothing is read of what is
//! pinned. Whoever edits or deletes a report has it put right; a namespace without guards has none. They belong to the
//! definition of DriftGuards, so that they go with it. A report of the same name that somebody else wrote is left
//! alone. What keeps all or one of them from being written is said once. Bounded as `driftguard audit -o openreports`
//! is: both are written by the same code.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::api::names;
use crate::core::guard::{GuardState, url_segment};
use crate::core::report::{Entry, Known, Leading, Sight, invalid, judge};
use crate::report::openreports::{NamespaceReport, SOURCE, Stamp};
use crate::store::facts::{Asked, Words, facts};
use crate::store::{Observation, Reported, Store};
use crate::telemetry::metrics::Metrics;

use super::lease::{Fence, NotHolding};

mod desk;

use desk::{Desk, Digest, Found, Made, Task};

/// Longest one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long changes of guards are gathered before all guards are looked through.
const GATHER: Duration = Duration::from_secs(1);
/// Guards in one page.
const PAGE: u32 = 500;
/// The definition that reports belong to.
const OWNER: &str = "driftguards.terrafusion.ai";

/// Keeps the reports.
pub struct OpenReports {
    /// The client.
    pub client: Client,
    /// What is seen in the cluster.
    pub store: Store,
    /// Whether this replica may write.
    pub fence: Fence,
    /// Counts what is done.
    pub metrics: Arc<Metrics>,
    /// Pause before it is looked again whether reports can be kept.
    pub again: Duration,
}

/// What one report is, as far as it is watched.
type Meta = PartialObjectMeta<DynamicObject>;

/// A page of guards.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    items: Vec<Reported>,
}

#[derive(Deserialize, Default)]
struct PageMeta {
    r#continue: Option<String>,
}

/// Why a report could not be made, written or deleted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Another replica may write now.
    #[error(transparent)]
    NotHolding(#[from] NotHolding),
    /// The API server refused it, or could not be reached.
    #[error("{doing}: {error}")]
    Asking { doing: &'static str, error: Box<kube::Error> },
    /// There was no answer.
    #[error("{doing}: the API server did not answer within {REQUEST_TIMEOUT:?}")]
    Late { doing: &'static str },
    /// What came is no list of guards.
    #[error("listing the guards of the namespace: {0}")]
    NoList(#[from] serde_json::Error),
}

impl Failure {
    /// The status that the API server answered with; 0 where it gave none.
    fn status(&self) -> u16 {
        match self {
            Self::Asking { error, .. } => match error.as_ref() {
                kube::Error::Api(status) => status.code,
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// Reports, as URLs need them.
pub(crate) fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report"),
        "reports",
    )
}

impl OpenReports {
    /// Runs for ever: works while the lease is held.
    pub async fn run(self) {
        let mut fence = self.fence.clone();
        loop {
            fence.held().await;
            tokio::select! {
                () = self.lead() => {}
                () = fence.lost() => {}
            }
            self.metrics.openreports.kept(false);
        }
    }

    /// Works until it is dropped.
    async fn lead(&self) {
        self.store.synced().await;
        let mut said = String::new();
        loop {
            let why = self.keep().await;
            self.metrics.openreports.kept(false);
            if said != why {
                tracing::warn!(
                    why,
                    again = self.again.as_secs(),
                    "no reports of openreports.io are kept; looking again, that many seconds from now and on"
                );
                said = why;
            }
            tokio::time::sleep(self.again).await;
        }
    }

    /// Keeps the reports for as long as that can be done. Gives why it cannot.
    async fn keep(&self) -> String {
        let mut events = pin!(self.events());
        let mut observations = self.store.observations();
        observations.mark_changed();
        let mut desk = Desk::default();
        let (mut listing, mut has_listed) = (BTreeSet::new(), false);
        let mut gathered_at = None;
        loop {
            self.metrics.openreports.kept(has_listed && desk.keeps_all());
            // Nothing is written before it is known what stands there.
            let wake = desk.wake().filter(|_| has_listed);
            tokio::select! {
                event = events.next() => {
                    let now = Instant::now();
                    match event {
                        Some(Ok(Event::Init)) => listing.clear(),
                        Some(Ok(Event::InitApply(report))) => {
                            take(&mut desk, &report, now);
                            listing.extend(report.namespace());
                        }
                        Some(Ok(Event::InitDone)) => {
                            desk.retain_reports(|namespace| listing.contains(namespace), now);
                            has_listed = true;
                        }
                        Some(Ok(Event::Apply(report))) => take(&mut desk, &report, now),
                        Some(Ok(Event::Delete(report))) => {
                            desk.take_report(&report.namespace().unwrap_or_default(), None, now);
                        }
                        Some(Err(error)) => match hopeless(&error) {
                            Some(why) => return why,
                            None => tracing::debug!(%error, "the watch of reports failed; trying again"),
                        },
                        None => return "the watch of reports ended".to_owned(),
                    }
                }
                Ok(()) = observations.changed(), if gathered_at.is_none() => {
                    gathered_at = Some(Instant::now() + GATHER);
                }
                () = until(gathered_at), if gathered_at.is_some() => {
                    gathered_at = None;
                    let observation = Arc::clone(&observations.borrow_and_update());
                    desk.take_guards(observation.guards.iter().map(AsRef::as_ref), Instant::now());
                }
                () = until(wake), if wake.is_some() => {
                    let observation = Arc::clone(&observations.borrow());
                    if let Some((namespace, task)) = desk.due(Instant::now()) {
                        self.carry_out(&namespace, task, &observation, &mut desk).await;
                    }
                }
            }
        }
    }

    async fn carry_out(&self, namespace: &str, task: Task, observation: &Observation, desk: &mut Desk) {
        let done = match task {
            Task::Tell => {
                tracing::warn!(
                    namespace,
                    "somebody else's report of openreports.io stands where ours would: it is left alone, and what the \
                     guards of the namespace say is not reported until it is deleted"
                );
                desk.told(namespace, Instant::now());
                Ok(())
            }
            Task::Prune => {
                self.prune(namespace, desk.standing(namespace)).await.map(|()| desk.pruned(namespace))
            }
            Task::Make => self
                .make(namespace, observation, desk)
                .await
                .map(|made| desk.done(namespace, made, Instant::now())),
        };
        match done {
            Ok(()) => {}
            // Whoever waits for that stops us in a moment.
            Err(Failure::NotHolding(_)) => desk.overtaken(namespace, Instant::now()),
            Err(failure) if failure.status() == 409 => {
                tracing::debug!(namespace, error = %failure, "a report of openreports.io has just changed");
                desk.overtaken(namespace, Instant::now());
            }
            Err(failure) => {
                self.metrics.openreports.write("failed");
                if desk.failed(namespace, failure.status(), Instant::now()) {
                    tracing::warn!(
                        namespace,
                        error = %failure,
                        "a report of openreports.io cannot be kept; it is tried again, ever more rarely, and told once \
                         for all namespaces where that is so"
                    );
                } else {
                    tracing::debug!(namespace, error = %failure, "a report of openreports.io cannot be kept");
                }
            }
        }
    }

    /// Makes the report of a namespace, and writes it unless it stands there.
    async fn make(&self, namespace: &str, observation: &Observation, desk: &Desk) -> Result<Made, Failure> {
        self.fence.check()?;
        let (guards, begun) = (desk.guards(namespace), Instant::now());
        // Read each time: whoever deletes the definition and makes it anew gives it another uid.
        let owner = self.owner().await?;
        let mut report = self.report(namespace, observation).await?;
        let took = begun.elapsed();
        report["metadata"]["ownerReferences"] = json!([owner]);
        let digest: Digest = Sha256::digest(report.to_string().as_bytes()).into();
        if desk.stands(namespace, &digest) {
            return Ok(Made { guards, written: None, took });
        }
        self.fence.check()?;
        let mut params = PatchParams::apply(names::REPORTS_FIELD_MANAGER);
        // Only what is ours is written over, and nothing that has taken its place since.
        if let Some(ours) = desk.standing(namespace) {
            params = params.force();
            report["metadata"]["uid"] = ours.uid.as_str().into();
        }
        let (reports, patch) = (self.reports(namespace), Patch::Apply(&report));
        let written = reports.patch(names::OPENREPORT, &params, &patch);
        let written = in_time("writing the report", written).await?;
        self.metrics.openreports.write("written");
        let version = written.resource_version().unwrap_or_default();
        let found = Found { version, uid: written.uid().unwrap_or_default(), is_ours: true };
        Ok(Made { guards, written: Some((digest, found)), took })
    }

    /// What the guards of a namespace say, as a report.
    async fn report(&self, namespace: &str, observation: &Observation) -> Result<Value, Failure> {
        let mut report = NamespaceReport::new(namespace);
        let mut words = Words::default();
        let known = Known { now: Timestamp::now(), is_installed: true, leading: Leading::Assumed };
        let path = format!(
            "/apis/{}/{}/namespaces/{}/{}?limit={PAGE}",
            names::GROUP,
            names::VERSION,
            url_segment(namespace),
            names::DRIFTGUARDS
        );
        let mut uri = path.clone();
        loop {
            let request = Request::get(&uri).body(Vec::new()).map_err(kube::Error::HttpError);
            let text = async { self.client.request_text(request?).await };
            let text = in_time("listing the guards of the namespace", text).await?;
            let page: Page = serde_json::from_str(&text)?;
            for guard in page.items {
                if let Some(entry) = entry(guard, observation, &known, &mut words) {
                    report.add(entry);
                }
            }
            match page.metadata.r#continue.filter(|token| !token.is_empty()) {
                Some(token) => uri = format!("{path}&continue={}", url_segment(&token)),
                None => return Ok(report.finish(names::OPENREPORT, Stamp::Since)),
            }
        }
    }

    /// Deletes a report as it was seen: neither one that has taken its place since, nor one that was changed since.
    async fn prune(&self, namespace: &str, seen: Option<&Found>) -> Result<(), Failure> {
        self.fence.check()?;
        let exactly = seen.map(|found| Preconditions {
            uid: Some(found.uid.clone()),
            resource_version: Some(found.version.clone()),
        });
        let params = DeleteParams { preconditions: exactly, ..DeleteParams::default() };
        let reports = self.reports(namespace);
        match in_time("deleting the report", reports.delete(names::OPENREPORT, &params)).await {
            // Gone is gone.
            Err(failure) if failure.status() != 404 => Err(failure),
            _ => {
                self.metrics.openreports.write("deleted");
                Ok(())
            }
        }
    }

    fn reports(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }

    /// Metadata of all reports of our name: what they hold is known from writing it.
    fn events(&self) -> impl Stream<Item = watcher::Result<Event<Meta>>> {
        let api: Api<Meta> = Api::all_with(self.client.clone(), &resource());
        let config = watcher::Config::default().fields(&format!("metadata.name={}", names::OPENREPORT));
        watcher(api, config).default_backoff()
    }

    /// What reports belong to.
    async fn owner(&self) -> Result<Value, Failure> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let definition =
            in_time("reading the definition driftguards.terrafusion.ai", api.get_metadata(OWNER)).await?;
        Ok(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "name": OWNER,
            "uid": definition.uid().unwrap_or_default(),
        }))
    }
}

fn take(desk: &mut Desk, report: &Meta, now: Instant) {
    let version = report.resource_version().unwrap_or_default();
    let found = Found { version, uid: report.uid().unwrap_or_default(), is_ours: is_ours(report) };
    desk.take_report(&report.namespace().unwrap_or_default(), Some(found), now);
}

/// Whether a report says that we wrote it, by its label or by its field managers.
fn is_ours(report: &Meta) -> bool {
    report.labels().get(names::LABEL_MANAGED_BY).is_some_and(|by| by == SOURCE)
        || report
            .managed_fields()
            .iter()
            .any(|entry| entry.manager.as_deref() == Some(names::REPORTS_FIELD_MANAGER))
}

/// What a guard says of itself; `None` of one that has not been seen yet, and will be in a moment.
fn entry(guard: Reported, observation: &Observation, known: &Known, words: &mut Words) -> Option<Entry> {
    let (stored, status) = guard.apart();
    let seen = observation.guard(stored.id())?;
    let asked = Asked::read(&stored.spec());
    let facts = facts(&status, &asked, stored.generation(), words);
    Some(match &seen.state {
        GuardState::Valid(guard) => judge(guard, &facts, Sight::Said, known),
        GuardState::Invalid(state) => invalid(state, &asked.target_kind, &asked.target_name, &facts, known),
    })
}

/// Why the watch of reports cannot work before somebody does something.
fn hopeless(error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    match status.code {
        404 => Some("the definition reports.openreports.io is not installed".to_owned()),
        401 | 403 => Some(
            "reports.openreports.io may not be listed and watched; `driftguard manifests openreports | kubectl apply -f -` gives the rights"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Waits for a moment; not at all without one.
async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

async fn in_time<T>(
    doing: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| Failure::Asking { doing, error: Box::new(error) }),
        Err(_) => Err(Failure::Late { doing }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn meta(metadata: &Value) -> Meta {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": metadata,
        }))
        .unwrap()
    }

    #[test]
    fn a_report_is_ours_by_its_label_or_by_its_field_managers_and_not_by_its_name() {
        assert!(is_ours(&meta(&json!({"labels": {"app.kubernetes.io/managed-by": "driftguard"}}))));
        assert!(is_ours(&meta(
            &json!({"managedFields": [{"manager": "a"}, {"manager": "driftguard-reports"}]})
        )));
        assert!(!is_ours(&meta(&json!({"name": "driftguard", "managedFields": [{"manager": "kubectl"}]}))));
        assert!(!is_ours(&meta(&json!({"labels": {"app.kubernetes.io/managed-by": "kyverno"}}))));
    }

    #[test]
    fn a_failure_keeps_the_status_of_the_answer() {
        let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
        let error = Box::new(kube::Error::Api(Box::new(status)));
        assert_eq!(Failure::Asking { doing: "writing", error }.status(), 403);
        assert_eq!(Failure::Late { doing: "writing" }.status(), 0);
    }
}
