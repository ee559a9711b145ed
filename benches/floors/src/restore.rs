//! The least that puts content back: one watch, and one patch for each object that differs from what it held at
//! the start. No rights are asked for, nothing is verified, nothing is told, and nobody is thought of.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, ResourceExt as _};
use serde_json::json;

/// What is said once drift would be seen.
const WATCHING: &str = "watching";

/// What an object held.
type Data = Option<BTreeMap<String, String>>;

/// Restores until killed.
pub(crate) async fn run(kubeconfig: &Path, namespace: &str) -> anyhow::Result<()> {
    let read =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    let api: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config)?, namespace);
    let listed = api.list(&ListParams::default()).await?;
    let mut revision = listed.metadata.resource_version.unwrap_or_default();
    let approved: HashMap<String, Data> =
        listed.items.into_iter().map(|object| (object.name_any(), object.data)).collect();
    println!("{WATCHING}");
    loop {
        let mut events = std::pin::pin!(api.watch(&WatchParams::default(), &revision).await?);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    revision = object.resource_version().unwrap_or(revision);
                    let name = object.name_any();
                    if let Some(data) = approved.get(&name)
                        && *data != object.data
                    {
                        let patch = Patch::Merge(json!({"data": data}));
                        api.patch(&name, &PatchParams::default(), &patch).await?;
                    }
                }
                WatchEvent::Bookmark(bookmark) => revision = bookmark.metadata.resource_version,
                WatchEvent::Deleted(_) => {}
                WatchEvent::Error(error) => bail!("the watch failed: {error:?}"),
            }
        }
    }
}
