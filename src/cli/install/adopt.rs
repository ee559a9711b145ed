//! `install --adopt`: takes over the guards of the older operator.
//!
//! It was built on Kopf, which put a finalizer on every guard and its notes into annotations. A
//! finalizer that nobody removes keeps guards, and their namespace, from ever being deleted; so both
//! go, once the older operator no longer runs. Nothing but metadata is touched, and running it again
//! finds nothing to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ObjectList;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::apply::DryRun;
use crate::api::{DriftGuard, DriftGuardSpec, names};
use crate::cli::cluster::Cluster;
use crate::cli::output;
use crate::cli::subject::{Served, live_hash};
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;

/// What Kopf's finalizer and annotations begin with.
const KOPF: &str = "kopf.zalando.org/";
/// How often a guard that changes meanwhile is read again.
const TRIES: usize = 5;
/// How long an API server may take to serve guards again after their schema changed.
const STORAGE_WITHIN: Duration = Duration::from_secs(30);

/// Refuses while the older operator has a Deployment with replicas: it would put its finalizer back,
/// and write targets besides us.
///
/// Ours bears `app.kubernetes.io/part-of`, the older one `app` alone, in whatever namespace it is.
pub(super) async fn require_older_gone(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::all(cluster.client.clone());
    let selector = format!("{}={},!{}", names::LABEL_APP, names::OPERATOR, names::LABEL_PART_OF);
    let by_label = deployments
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|error| cluster.explain("looking for the older operator", &error))?;
    // Its own name counts too, for whoever made a manifest without the label.
    let by_name = deployments
        .list(&ListParams::default().fields(&format!("metadata.name={}", names::OPERATOR)))
        .await
        .map_err(|error| cluster.explain("looking for the older operator", &error))?;
    let all = by_label.items.into_iter().chain(by_name.items);
    // Where ours shall stand it is in the way even without replicas: its selector cannot be changed.
    let in_the_way = |deployment: &Deployment| {
        let metadata = &deployment.metadata;
        let ours = metadata.namespace.as_deref() == Some(namespace);
        runs(deployment) || ours && metadata.name.as_deref() == Some(names::OPERATOR)
    };
    match all.filter(is_older).find(in_the_way) {
        None => Ok(()),
        Some(deployment) => {
            let name = deployment.metadata.name.unwrap_or_default();
            let namespace = deployment.metadata.namespace.unwrap_or_default();
            anyhow::bail!(
                "the older operator is there, deployment/{name} in namespace {namespace}, and would act on the guards beside DriftGuard; \
                 stop it with `kubectl delete deployment {name} -n {namespace}` first"
            )
        }
    }
}

fn is_older(deployment: &Deployment) -> bool {
    let labels = deployment.metadata.labels.as_ref();
    !labels.is_some_and(|labels| labels.contains_key(names::LABEL_PART_OF))
}

/// Whether it has, or will have, a pod.
fn runs(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let there = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    wanted > 0 || there > 0
}

/// Takes the older operator's marks off every guard and tells how its target stands.
pub(super) async fn adopt(cluster: &Cluster, dry_run: DryRun) -> anyhow::Result<()> {
    // Not as guards: one that this version cannot read must not keep the others from being adopted.
    let api: Api<DynamicObject> =
        Api::all_with(cluster.client.clone(), &ApiResource::erase::<DriftGuard>(&()));
    let guards = list(&api).await.map_err(|error| cluster.explain("listing guards", &error))?;
    let served = Served::load(cluster).await?;
    let mut differing = Vec::new();
    for guard in &guards.items {
        let title = title(&guard.metadata);
        if unmarked(&guard.metadata).is_some() {
            clean(cluster, &guard.metadata, dry_run).await?;
            let named = format!("driftguard.terrafusion.ai/{title}");
            match dry_run {
                DryRun::None => output::data(format!("{named} adopted\n").as_bytes())?,
                DryRun::Server => {
                    output::data(format!("{named} would be adopted (server dry run)\n").as_bytes())?;
                }
                // Manifests stand on stdout then.
                DryRun::Client => output::message(&format!("{named} would be adopted")),
            }
        }
        if let Some(why) = differs(cluster, &served, guard).await {
            differing.push(format!("  {title}: {why}"));
        }
    }
    if differing.is_empty() {
        output::message(&format!("\n{} DriftGuards; all targets hold what is approved", guards.items.len()));
    } else {
        output::message(&format!(
            "\n{} of {} DriftGuards do not fit what is there:\n{}",
            differing.len(),
            guards.items.len(),
            differing.join("\n")
        ));
    }
    Ok(())
}

/// All guards. An API server that has just been given another schema asks to wait until its storage is
/// made anew (429 or 503).
async fn list(api: &Api<DynamicObject>) -> kube::Result<ObjectList<DynamicObject>> {
    let since = Instant::now();
    loop {
        match api.list(&ListParams::default()).await {
            Err(kube::Error::Api(status))
                if matches!(status.code, 429 | 503) && since.elapsed() < STORAGE_WITHIN =>
            {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            answer => return answer,
        }
    }
}

fn title(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default())
}

/// The patch that takes Kopf's marks off; `None` when there are none.
fn unmarked(metadata: &ObjectMeta) -> Option<Value> {
    let of_kopf = |name: &str| name.starts_with(KOPF);
    let finalizers: Vec<&String> = metadata.finalizers.iter().flatten().collect();
    let kept: Vec<&String> = finalizers.iter().copied().filter(|name| !of_kopf(name)).collect();
    let annotations: BTreeMap<&String, Option<()>> = metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(name, _)| of_kopf(name))
        .map(|(name, _)| (name, None))
        .collect();
    if kept.len() == finalizers.len() && annotations.is_empty() {
        return None;
    }
    // Only of the very object that was read: a finalizer that came meanwhile must not be lost.
    Some(json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": kept,
        "annotations": annotations,
    }}))
}

async fn clean(cluster: &Cluster, metadata: &ObjectMeta, dry_run: DryRun) -> anyhow::Result<()> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<DriftGuard> = Api::namespaced(cluster.client.clone(), namespace);
    let params = PatchParams { dry_run: dry_run == DryRun::Server, ..PatchParams::default() };
    let mut metadata = metadata.clone();
    for _ in 0..TRIES {
        let Some(patch) = unmarked(&metadata) else { return Ok(()) };
        match api.patch_metadata(name, &params, &Patch::Merge(&patch)).await {
            // Gone: its last finalizer was the older operator's, or somebody was faster.
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => Err(cluster.explain(format!("adopting {}", title(&metadata)), &error))?,
        }
        let Some(found) = api
            .get_metadata_opt(name)
            .await
            .map_err(|error| cluster.explain(format!("reading {}", title(&metadata)), &error))?
        else {
            return Ok(());
        };
        metadata = found.metadata;
    }
    anyhow::bail!("{} changes all the time; run it again", title(&metadata))
}

/// How a guard does not fit its target. Never a hash: that of a Secret could be guessed from.
async fn differs(cluster: &Cluster, served: &Served, guard: &DynamicObject) -> Option<String> {
    let spec = match DriftGuardSpec::deserialize(&guard.data["spec"]) {
        Ok(spec) => spec,
        Err(error) => return Some(format!("its spec cannot be read: {error}")),
    };
    let target = format!("{} {}", spec.target_kind, spec.target_name);
    let entry = match served.catalog().resolve(&spec.target_kind, spec.target_api_version.as_deref()) {
        Ok(entry) => entry,
        Err(error) => return Some(error.to_string()),
    };
    let Ok(expected) = spec.expected_hash.parse::<ContentHash>() else {
        return Some("its expectedHash is no SHA-256".to_owned());
    };
    let filter = match (spec.ignore_paths.as_slice(), spec.only_paths.as_slice()) {
        ([], []) => Ok(PathFilter::everything()),
        (ignored, []) => PathFilter::ignoring(ignored),
        (_, only) => PathFilter::only(only),
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return Some(error.to_string()),
    };
    let namespace = spec.target_namespace.as_deref().or(guard.metadata.namespace.as_deref());
    match live_hash(cluster, entry, namespace, &spec.target_name, filter).await {
        Ok(Some(hash)) if hash == expected => None,
        Ok(Some(_)) => Some(format!("{target} holds something else than it approves")),
        Ok(None) => Some(format!("{target} does not exist")),
        Err(error) => Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn only_kopfs_marks_are_taken_off() {
        let metadata = ObjectMeta {
            finalizers: Some(vec!["kopf.zalando.org/KopfFinalizerMarker".into(), "other.io/keep".into()]),
            annotations: Some(
                [("kopf.zalando.org/last-handled-configuration", "{}"), ("team", "valuation")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        };
        let patch = unmarked(&metadata).unwrap();
        assert_eq!(patch["metadata"]["finalizers"], json!(["other.io/keep"]));
        let gone = json!({"kopf.zalando.org/last-handled-configuration": null});
        assert_eq!(patch["metadata"]["annotations"], gone);
        let kept = ObjectMeta { finalizers: Some(vec!["other.io/keep".into()]), ..ObjectMeta::default() };
        assert_eq!(unmarked(&kept), None, "there is nothing to do a second time");
    }

    #[test]
    fn the_older_operator_is_told_apart_from_ours() {
        let ours = crate::manifests::deploy::deployment(&crate::manifests::Settings::default());
        assert!(!is_older(&ours));
        let mut older = ours;
        older.metadata.labels = Some([("app".to_owned(), "driftguard-operator".to_owned())].into());
        assert!(is_older(&older) && runs(&older));
        older.spec.as_mut().unwrap().replicas = Some(0);
        assert!(!runs(&older));
    }
}
