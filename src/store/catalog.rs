//! Which kinds the API server serves, from aggregated discovery.
//!
//! Read again when a CRD changes and while a guard names a kind that is not found. A part of the
//! API that is down for a moment keeps the kinds it had: their guards stay as they are.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::core::discovery::v2::{APIGroupDiscovery, APIGroupDiscoveryList, APIVersionDiscovery};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;

use crate::core::kinds::{Catalog, KindEntry};

use super::Shared;
use super::scales;
use super::schedule::Schedule;

/// Whether guards name kinds that are not found. The number changes when another one does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) any: bool,
    pub(super) count: u64,
}

/// Keeps the catalog up to date, for ever.
pub(super) async fn keep(shared: &Shared, mut unresolved: watch::Receiver<Unresolved>) {
    let crds: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(shared.client.clone());
    let config = watcher::Config::default().any_semantic();
    let mut changes = std::pin::pin!(watcher(crds, config).default_backoff());
    let mut schedule = Schedule::new(Instant::now());
    loop {
        let failed = match load(shared).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot read which kinds the API server serves; trying again");
                true
            }
        };
        let wanting = failed || unresolved.borrow_and_update().any;
        schedule.done(Instant::now(), wanting);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(schedule.due().into()) => break,
                event = changes.next() => match event {
                    Some(Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone)) => {
                        schedule.changed(Instant::now());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "the watch of CRDs failed; trying again"),
                    None => break,
                },
                changed = unresolved.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if unresolved.borrow_and_update().any { schedule.unresolved() } else { schedule.resolved() }
                }
            }
        }
    }
}

async fn load(shared: &Shared) -> kube::Result<()> {
    let core = shared.client.list_core_api_versions_aggregated().await?;
    let groups = shared.client.list_api_groups_aggregated().await?;
    let previous = shared.catalog.borrow().clone();
    let (scales, unread) =
        scales::read(&shared.client, scales::scalable(&core, &groups), previous.as_deref()).await;
    shared.catalog.send_if_modified(|catalog| {
        let loaded = catalog_of(&core, &groups, catalog.as_deref()).with_replicas_paths(scales);
        let changed = catalog.as_deref() != Some(&loaded);
        if changed {
            *catalog = Some(Arc::new(loaded));
        }
        changed
    });
    unread.map_or(Ok(()), Err)
}

/// What the API server serves now, with where counts stand that a Scale changes, for whoever looks once.
///
/// # Errors
/// When discovery or a CRD cannot be read.
pub(crate) async fn look(client: &kube::Client) -> kube::Result<Catalog> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    let (scales, unread) = scales::read(client, scales::scalable(&core, &groups), None).await;
    match unread {
        None => Ok(catalog_of(&core, &groups, None).with_replicas_paths(scales)),
        Some(error) => Err(error),
    }
}

/// The catalog in two discovery documents. What is stale and empty stands as in `previous`.
pub(crate) fn catalog_of(
    core: &APIGroupDiscoveryList,
    groups: &APIGroupDiscoveryList,
    previous: Option<&Catalog>,
) -> Catalog {
    let mut entries = Vec::new();
    for group in core.items.iter().chain(&groups.items) {
        add_group(group, previous, &mut entries);
    }
    Catalog::new(entries)
}

fn add_group(group: &APIGroupDiscovery, previous: Option<&Catalog>, entries: &mut Vec<KindEntry>) {
    // The core group has no name.
    let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
    let mut found: Vec<KindEntry> = Vec::new();
    // Versions stand in the server's order of preference.
    for version in &group.versions {
        let Some(version_name) = version.version.as_deref() else { continue };
        let is_stale = version.freshness.as_deref() == Some("Stale");
        if is_stale && version.resources.is_empty() {
            let kept = previous.map_or(&[] as &[KindEntry], Catalog::entries).iter();
            found.extend(kept.filter(|old| old.group == name && old.version == version_name).cloned());
            continue;
        }
        for entry in served(&name, version_name, version) {
            let preferred = !found.iter().any(|earlier| earlier.kind == entry.kind);
            found.push(KindEntry { preferred, ..entry });
        }
    }
    entries.extend(found);
}

/// The resources of one version whose objects can be read. Reviews and bindings are only sent.
fn served(group: &str, version_name: &str, version: &APIVersionDiscovery) -> impl Iterator<Item = KindEntry> {
    version.resources.iter().filter_map(move |resource| {
        let readable = resource.verbs.iter().any(|verb| verb == "get");
        let kind = resource.response_kind.as_ref()?.kind.clone()?;
        let plural = resource.resource.clone()?;
        readable.then(|| KindEntry {
            group: group.into(),
            version: version_name.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: resource.scope.as_deref() == Some("Namespaced"),
            preferred: false,
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::{Value, json};

    use super::*;

    fn resource(plural: &str, kind: &str, scope: &str) -> Value {
        json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind},
               "scope": scope, "verbs": ["get", "update"]})
    }

    fn list(groups: &Value) -> APIGroupDiscoveryList {
        serde_json::from_value(json!({"items": groups})).unwrap()
    }

    fn core() -> APIGroupDiscoveryList {
        let mut binding = resource("bindings", "Binding", "Namespaced");
        binding["verbs"] = json!(["create"]);
        list(&json!([{"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": [
            resource("configmaps", "ConfigMap", "Namespaced"), resource("nodes", "Node", "Cluster"), binding,
        ]}]}]))
    }

    fn widgets(freshness: &str, resources: &Value) -> APIGroupDiscoveryList {
        list(&json!([{"metadata": {"name": "a.io"}, "versions": [
            {"version": "v2", "freshness": freshness, "resources": resources},
            {"version": "v1", "resources": [resource("widgets", "Widget", "Namespaced"), resource("olds", "Old", "Cluster")]},
        ]}]))
    }

    #[test]
    fn kinds_of_the_core_group_and_of_others_are_found() {
        let catalog = catalog_of(&core(), &widgets("Current", &json!([])), None);
        let config_map = catalog.resolve("configmap", None).unwrap();
        assert_eq!((config_map.api_version().as_str(), config_map.namespaced), ("v1", true));
        assert!(!catalog.resolve("node", None).unwrap().namespaced);
        assert_eq!(catalog.resolve("widget", None).unwrap().api_version(), "a.io/v1");
    }

    #[test]
    fn what_cannot_be_read_is_no_kind_to_guard() {
        assert!(catalog_of(&core(), &list(&json!([])), None).resolve("binding", None).is_err());
    }

    #[test]
    fn the_first_version_that_serves_a_kind_is_the_preferred_one() {
        let both = widgets("Current", &json!([resource("widgets", "Widget", "Namespaced")]));
        let catalog = catalog_of(&core(), &both, None);
        assert_eq!(catalog.resolve("widget", None).unwrap().version, "v2");
        assert_eq!(catalog.resolve("widget", Some("a.io/v1")).unwrap().version, "v1");
        assert_eq!(catalog.resolve("old", None).unwrap().version, "v1");
    }

    #[test]
    fn a_stale_version_keeps_the_kinds_it_had() {
        let before = catalog_of(
            &core(),
            &widgets("Current", &json!([resource("widgets", "Widget", "Namespaced")])),
            None,
        );
        let stale = catalog_of(&core(), &widgets("Stale", &json!([])), Some(&before));
        assert_eq!(stale, before);
        let gone = catalog_of(&core(), &widgets("Current", &json!([])), Some(&before));
        assert_eq!(gone.resolve("widget", None).unwrap().version, "v1");
    }
}
