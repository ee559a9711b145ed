//! Reports of `openreports.io`, one for each namespace that has guards (`serve --openreports`).
//!
//! Made of what the statuses of guards say, by the holder of the lease, when that changes; nothing is read of what is
//! pinned. Whoever edits or deletes a report has it put right; a namespace without guards has none. They belong to the
//! definition of DriftGuards, so that they go with it. Without the definition of Reports nothing is written, and that
//! is said once. Bounded as `driftguard audit -o openreports` is: both are written by the same code.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams};
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

use super::lease::Fence;

mod desk;

use desk::{Desk, Task};

/// Longest one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
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
        let owner = match self.owner().await {
            Ok(owner) => owner,
            Err(why) => return format!("the definition {OWNER} cannot be read: {why}"),
        };
        let mut events = pin!(self.events());
        let mut observations = self.store.observations();
        observations.mark_changed();
        let mut desk = Desk::default();
        let (mut listing, mut has_listed) = (BTreeSet::new(), false);
        loop {
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
                            self.metrics.openreports.kept(true);
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
                Ok(()) = observations.changed() => {
                    let observation = Arc::clone(&observations.borrow_and_update());
                    desk.take_guards(observation.guards.iter().map(AsRef::as_ref), Instant::now());
                }
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    let observation = Arc::clone(&observations.borrow());
                    if let Some((namespace, task)) = desk.due(Instant::now()) {
                        self.carry_out(&namespace, task, &observation, &owner, &mut desk).await;
                    }
                }
            }
        }
    }

    async fn carry_out(
        &self,
        namespace: &str,
        task: Task,
        observation: &Observation,
        owner: &Value,
        desk: &mut Desk,
    ) {
        if self.fence.check().is_err() {
            // Whoever waits for that stops us in a moment.
            desk.failed(namespace, Instant::now());
            return;
        }
        let guards = desk.guards(namespace);
        let done = match task {
            Task::Prune => self.prune(namespace).await.map(|()| desk.pruned(namespace)),
            Task::Make => self.make(namespace, observation, owner, desk).await.map(|written| {
                desk.done(namespace, guards, written, Instant::now());
            }),
        };
        if let Err(why) = done {
            self.metrics.openreports.write("failed");
            tracing::warn!(
                namespace,
                why,
                "a report of openreports.io could not be kept; trying again in a minute"
            );
            desk.failed(namespace, Instant::now());
        }
    }

    /// Makes the report of a namespace, and writes it unless it stands there. Gives what was written.
    async fn make(
        &self,
        namespace: &str,
        observation: &Observation,
        owner: &Value,
        desk: &Desk,
    ) -> Result<Option<(desk::Digest, String)>, String> {
        let mut report = self.report(namespace, observation).await?;
        report["metadata"]["ownerReferences"] = json!([owner]);
        let digest: desk::Digest = Sha256::digest(report.to_string().as_bytes()).into();
        if desk.stands(namespace, &digest) {
            return Ok(None);
        }
        self.fence.check().map_err(|error| error.to_string())?;
        let params = PatchParams::apply(names::REPORTS_FIELD_MANAGER).force();
        let reports = self.reports(namespace);
        let patch = Patch::Apply(&report);
        let written = in_time(reports.patch(names::OPENREPORT, &params, &patch)).await?;
        self.metrics.openreports.write("written");
        Ok(Some((digest, written.resource_version().unwrap_or_default())))
    }

    /// What the guards of a namespace say, as a report.
    async fn report(&self, namespace: &str, observation: &Observation) -> Result<Value, String> {
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
            let request = Request::get(&uri).body(Vec::new()).map_err(|error| error.to_string())?;
            let text = in_time(self.client.request_text(request)).await?;
            let page: Page = serde_json::from_str(&text).map_err(|error| error.to_string())?;
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

    async fn prune(&self, namespace: &str) -> Result<(), String> {
        self.fence.check().map_err(|error| error.to_string())?;
        let reports = self.reports(namespace);
        match in_time(reports.delete(names::OPENREPORT, &DeleteParams::default())).await {
            // Gone is gone.
            Err(why) if !why.contains("NotFound") => Err(why),
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
    async fn owner(&self) -> Result<Value, String> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let definition = in_time(api.get_metadata(OWNER)).await?;
        Ok(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "name": OWNER,
            "uid": definition.uid().unwrap_or_default(),
        }))
    }
}

fn take(desk: &mut Desk, report: &Meta, now: Instant) {
    let is_ours = report.labels().get(names::LABEL_MANAGED_BY).is_some_and(|by| by == SOURCE);
    let found = (report.resource_version().unwrap_or_default(), is_ours);
    desk.take_report(&report.namespace().unwrap_or_default(), Some(found), now);
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

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the API server did not answer in time".to_owned()),
    }
}
