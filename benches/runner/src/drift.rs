//! Drift written straight into etcd, and when the API server told of it and of approved content again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::content;

/// How long one object may take to be put back.
const LONGEST: Duration = Duration::from_secs(60);

/// A ConfigMap of the bench, by namespace and name.
pub(crate) type Place = (String, String);

/// Other content for one object, as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Drift {
    /// The object.
    pub place: Place,
    stored: (String, Vec<u8>),
}

impl Drift {
    /// One letter of what is stored now changed: the stored form holds lengths.
    pub(crate) fn of(cluster: &Cluster, place: Place) -> anyhow::Result<Self> {
        let key = format!("/registry/configmaps/{}/{}", place.0, place.1);
        let mut bytes = cluster.stored(&key)?;
        let word = content::WORD.as_bytes();
        let at = bytes.windows(word.len()).rposition(|window| window == word);
        let at = at.with_context(|| format!("{key} does not hold the word {}", content::WORD))?;
        bytes[at..at + word.len()].copy_from_slice(content::ALTERED.as_bytes());
        Ok(Self { place, stored: (key, bytes) })
    }
}

/// What a watch told of one object.
struct Told {
    place: Place,
    is_approved: bool,
    at: Instant,
}

/// A watch of the bench's own, which tells when content is as approved.
pub(crate) struct Follower {
    told: mpsc::UnboundedReceiver<Told>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Follower {
    /// Follows all ConfigMaps of the cluster from now on; all of interest hold `approved`.
    pub(crate) async fn start(
        client: kube::Client,
        approved: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let api: Api<ConfigMap> = Api::all(client);
        let now = api.list_metadata(&kube::api::ListParams::default().limit(1)).await?;
        let revision = now.metadata.resource_version.unwrap_or_default();
        let (tell, told) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(api, approved, revision, tell));
        Ok(Self { told, task })
    }

    /// Writes drift, and gives how many milliseconds after that each object was as approved again, by place;
    /// the clock starts when the first write does. `meanwhile` is called now and then while that lasts.
    pub(crate) async fn restored(
        &mut self,
        cluster: &Cluster,
        drifts: &[Drift],
        longest: Duration,
        mut meanwhile: impl AsyncFnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<HashMap<Place, f64>> {
        // What was told before is over.
        while self.told.try_recv().is_ok() {}
        let mut drifted: HashMap<&Place, bool> = drifts.iter().map(|drift| (&drift.place, false)).collect();
        let stored: Vec<_> = drifts.iter().map(|drift| drift.stored.clone()).collect();
        let mut restored = HashMap::new();
        let began = Instant::now();
        cluster.seed(&stored)?;
        while restored.len() < drifts.len() {
            ensure!(
                began.elapsed() < longest,
                "{} of {} objects were put back within {longest:?}",
                restored.len(),
                drifts.len()
            );
            let next = tokio::time::timeout(Duration::from_millis(100), self.told.recv()).await;
            let Ok(told) = next else {
                meanwhile().await?;
                continue;
            };
            let Some(told) = told else {
                let ended = (&mut self.task).await?;
                return Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the bench's own watch ended")));
            };
            let Some(is_drifted) = drifted.get_mut(&told.place) else { continue };
            if !told.is_approved {
                *is_drifted = true;
            } else if *is_drifted {
                let took = told.at.duration_since(began).as_secs_f64() * 1e3;
                restored.entry(told.place).or_insert(took);
            }
        }
        Ok(restored)
    }

    /// The same of one object.
    pub(crate) async fn restored_one(&mut self, cluster: &Cluster, drift: &Drift) -> anyhow::Result<f64> {
        let (namespace, name) = &drift.place;
        let restored = self
            .restored(cluster, std::slice::from_ref(drift), LONGEST, async || Ok(()))
            .await
            .with_context(|| format!("{namespace}/{name}"))?;
        restored.into_values().next().context("nothing was put back")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    api: Api<ConfigMap>,
    approved: BTreeMap<String, String>,
    mut revision: String,
    tell: mpsc::UnboundedSender<Told>,
) -> anyhow::Result<()> {
    loop {
        let mut events = std::pin::pin!(api.watch(&WatchParams::default(), &revision).await?);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let at = Instant::now();
                    let place = (object.namespace().unwrap_or_default(), object.name_any());
                    revision = object.resource_version().unwrap_or(revision);
                    let is_approved = object.data.as_ref() == Some(&approved);
                    if tell.send(Told { place, is_approved, at }).is_err() {
                        return Ok(());
                    }
                }
                WatchEvent::Bookmark(bookmark) => revision = bookmark.metadata.resource_version,
                WatchEvent::Deleted(_) => {}
                WatchEvent::Error(error) => bail!("the bench's own watch failed: {error:?}"),
            }
        }
    }
}
