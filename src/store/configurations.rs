//! Our two webhook configurations as they stand in the cluster.
//!
//! Every replica watches them: readiness depends on what is registered, and the writer repairs what
//! somebody alters.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::core::ClusterResourceScope;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::api::names;

use super::Shared;

/// The two configurations; absent ones are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configurations {
    /// The gate.
    pub validating: Watched<ValidatingWebhookConfiguration>,
    /// The convenience.
    pub mutating: Watched<MutatingWebhookConfiguration>,
}

impl Configurations {
    /// Whether both are known.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.validating != Watched::Unknown && self.mutating != Watched::Unknown
    }
}

/// An object that a watch follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Watched<K> {
    /// The watch has not said yet.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// As it stands, without `managedFields`.
    Present(Arc<K>),
}

impl<K> Watched<K> {
    /// The object, when it exists.
    #[must_use]
    pub fn get(&self) -> Option<&K> {
        match self {
            Self::Present(object) => Some(object),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// Keeps the configurations up to date, for ever.
pub(super) async fn keep(shared: &Shared) {
    let update = |change: &dyn Fn(&mut Configurations)| {
        shared.configurations.send_modify(|current| change(Arc::make_mut(current)));
    };
    futures::join!(
        follow(shared, |watched| update(&|all| all.validating = watched.clone())),
        follow(shared, |watched| update(&|all| all.mutating = watched.clone())),
    );
}

async fn follow<K>(shared: &Shared, mut tell: impl FnMut(Watched<K>))
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = Api::all(shared.client.clone());
    let config =
        watcher::Config::default().fields(&format!("metadata.name={}", names::WEBHOOK_CONFIGURATION));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = Some(object),
            Ok(Event::InitDone) => tell(listed.take().map_or(Watched::Absent, present)),
            Ok(Event::Apply(object)) => tell(present(object)),
            Ok(Event::Delete(_)) => tell(Watched::Absent),
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "the watch of our webhook configuration failed; trying again");
            }
        }
    }
}

fn present<K: Resource>(mut object: K) -> Watched<K> {
    object.managed_fields_mut().clear();
    Watched::Present(Arc::new(object))
}
