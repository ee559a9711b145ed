//! One of the two webhook configurations: what stands there, and what should.
//!
//! Where somebody else keeps `caBundle`, it is neither applied nor compared, and what stands there is
//! kept. An entry that is new has none until it is injected, and would refuse every write that it is
//! about if it were `Fail` already: so it begins as `Ignore`.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::error::RegistrarError;
use crate::api::names;
use crate::control::lease::Fence;
use crate::control::webhooks::{Address, Client, Configuration};
use crate::core::guard::FailurePolicy;
use crate::core::registration::Entry;

/// Longest a request may take. Well below what is left of a tenure when the fence is checked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Somebody altered a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// Which kind.
    pub kind: &'static str,
    /// The field manager that wrote it last, as far as is known.
    pub by: String,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Whom API servers trust, and who tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CaBundle {
    /// We do: PEM.
    Ours(Bytes),
    /// Somebody else does, as this value of the annotation asks.
    InjectedFrom(String),
}

/// One configuration: what stands there, and what should.
pub(super) struct Side<'a, K> {
    pub(super) api: Api<K>,
    pub(super) address: Address,
    pub(super) found: Option<K>,
    pub(super) entries: &'a [Entry],
    pub(super) bundle: &'a CaBundle,
    /// When broken glass was first seen, to be noted; `None` while it is whole.
    pub(super) seen: Option<String>,
}

impl<K: Configuration> Side<'_, K> {
    /// Whether what stands there is what is wanted, under whatever generation.
    pub(super) fn is_right(&self) -> bool {
        let noted = || self.found.as_ref().and_then(noted) == self.seen.as_ref();
        self.is_unaltered() && (self.seen.is_none() || noted())
    }

    /// Whether the entries are.
    fn is_unaltered(&self) -> bool {
        let wanted = self.render(generation(self.found.as_ref()));
        self.found
            .as_ref()
            .map_or(wanted.is_empty(), |found| self.holds(found, &wanted) && self.asks_for_injection(found))
    }

    pub(super) fn altered(&self) -> Option<Altered> {
        let by = self.found.as_ref().map_or("whoever deleted it".to_owned(), |found| {
            writer(found.managed_fields()).unwrap_or("somebody").to_owned()
        });
        let deleted = self.found.is_none();
        (!self.is_unaltered()).then(|| Altered { kind: kind::<K>(), by, deleted })
    }

    fn render(&self, generation: u64) -> Vec<K::Webhook> {
        let bundle = match self.bundle {
            CaBundle::Ours(bundle) => Some(bundle.as_ref()),
            CaBundle::InjectedFrom(_) => None,
        };
        let client = Client { address: &self.address, bundle, generation };
        let render = |entry: &Entry| {
            let found = self.found.as_ref().and_then(|found| found.entry(&entry.name));
            let injected = found.is_some_and(K::has_bundle);
            // One that has lost its bundle goes on refusing: it may be what somebody wanted.
            let refuses = found.is_some_and(|found| K::policy_of(found) == Some("Fail"));
            let mut entry = entry.clone();
            if bundle.is_none() && !injected && !refuses {
                entry.failure_policy = FailurePolicy::Ignore;
            }
            K::render(&entry, &client)
        };
        self.entries.iter().map(render).collect()
    }

    /// Whether our entries in `found` are exactly `wanted`. Their order means nothing: the API server
    /// calls all of them.
    fn holds(&self, found: &K, wanted: &[K::Webhook]) -> bool {
        let comparable = |webhook: &K::Webhook| {
            let mut webhook = webhook.clone();
            if matches!(self.bundle, CaBundle::InjectedFrom(_)) {
                K::client_of_mut(&mut webhook).ca_bundle = None;
            }
            webhook
        };
        let ours: Vec<K::Webhook> = found.ours().map(comparable).collect();
        ours.len() == wanted.len() && wanted.iter().all(|entry| ours.contains(entry))
    }

    fn asks_for_injection(&self, found: &K) -> bool {
        match self.bundle {
            CaBundle::Ours(_) => true,
            CaBundle::InjectedFrom(from) => {
                found.annotations().get(names::ANNOTATION_INJECT_CA_FROM) == Some(from)
            }
        }
    }

    /// How many of our entries in `found` API servers cannot call yet, for want of a bundle.
    pub(super) fn without_bundle(bundle: &CaBundle, found: Option<&K>) -> usize {
        match (bundle, found) {
            (CaBundle::InjectedFrom(_), Some(found)) => {
                found.ours().filter(|webhook| !K::has_bundle(webhook)).count()
            }
            _ => 0,
        }
    }

    /// Writes it when it is not right, and gives what stands there then and whether it was written.
    pub(super) async fn settle(
        self,
        generation: u64,
        fence: &Fence,
    ) -> Result<(Option<K>, bool), RegistrarError> {
        if self.is_right() {
            return Ok((self.found, false));
        }
        let wanted = self.render(generation);
        fence.check()?;
        let applied = self.apply(&wanted, generation).await?;
        if self.holds(&applied, &wanted) {
            return Ok((Some(applied), true));
        }
        // An apply leaves what others put beside our fields, such as one more condition in an entry.
        fence.check()?;
        let replaced = self.replace(&applied, &wanted).await?;
        if self.holds(&replaced, &wanted) {
            return Ok((Some(replaced), true));
        }
        let cause = "it reads back otherwise than it was written".to_owned();
        Err(RegistrarError::Api { verb: "write", kind: kind::<K>(), cause, conflict: false })
    }

    async fn apply(&self, wanted: &[K::Webhook], generation: u64) -> Result<K, RegistrarError> {
        let mut patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": names::WEBHOOK_CONFIGURATION,
                "annotations": {names::ANNOTATION_GENERATION: generation.to_string()},
            },
            "webhooks": wanted,
        });
        if let Some(seen) = &self.seen {
            patch["metadata"]["annotations"][names::ANNOTATION_BREAKGLASS_SEEN] = seen.as_str().into();
        }
        if let CaBundle::InjectedFrom(from) = self.bundle {
            patch["metadata"]["annotations"][names::ANNOTATION_INJECT_CA_FROM] = from.as_str().into();
        }
        if let Some(version) = self.found.as_ref().and_then(|found| found.resource_version()) {
            // Whoever wrote in between is looked at first.
            patch["metadata"]["resourceVersion"] = version.into();
        }
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        request::<K, _>("apply", self.api.patch(names::WEBHOOK_CONFIGURATION, &params, &Patch::Apply(&patch)))
            .await
    }

    async fn replace(&self, applied: &K, wanted: &[K::Webhook]) -> Result<K, RegistrarError> {
        let foreign = applied.webhooks().iter().filter(|webhook| !K::is_ours(webhook));
        // A list is replaced as a whole: what somebody else keeps in it must be said again.
        let kept = wanted.iter().cloned().map(|mut entry| {
            if matches!(self.bundle, CaBundle::InjectedFrom(_)) {
                let found = applied.entry(K::name_of(&entry));
                let bundle = found.and_then(|found| K::client_of(found).ca_bundle.clone());
                K::client_of_mut(&mut entry).ca_bundle = bundle;
            }
            entry
        });
        let all: Vec<K::Webhook> = kept.chain(foreign.cloned()).collect();
        let patch = json!({
            "metadata": {"resourceVersion": applied.resource_version()},
            "webhooks": all,
        });
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        request::<K, _>(
            "repair",
            self.api.patch(names::WEBHOOK_CONFIGURATION, &params, &Patch::Merge(&patch)),
        )
        .await
    }
}

fn noted<K: Configuration>(found: &K) -> Option<&String> {
    found.annotations().get(names::ANNOTATION_BREAKGLASS_SEEN)
}

/// Takes away what asked for broken glass, where it stands. Gives what stands there then.
pub(super) async fn mend_glass<K: Configuration>(
    api: &Api<K>,
    found: Option<K>,
    fence: &Fence,
) -> Result<Option<K>, RegistrarError> {
    let keys = names::BREAKGLASS_ANNOTATIONS;
    let Some(object) =
        found.as_ref().filter(|found| keys.iter().any(|key| found.annotations().contains_key(*key)))
    else {
        return Ok(found);
    };
    fence.check()?;
    let none: std::collections::BTreeMap<&str, Option<&str>> =
        keys.into_iter().map(|key| (key, None)).collect();
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "annotations": none}});
    let params =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    request::<K, _>("mend", api.patch(names::WEBHOOK_CONFIGURATION, &params, &patch)).await.map(Some)
}

pub(super) fn generation<K: Configuration>(found: Option<&K>) -> u64 {
    found.map_or(0, Configuration::generation)
}

pub(super) fn revision<K: Configuration>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn kind<K: Configuration>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "webhook configuration",
    }
}

/// The field manager other than ours that wrote last.
fn writer(managed: &[ManagedFieldsEntry]) -> Option<&str> {
    let others = managed.iter().filter(|entry| entry.manager.as_deref() != Some(names::FIELD_MANAGER));
    others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?.manager.as_deref()
}

pub(super) async fn read<K: Configuration>(api: &Api<K>) -> Result<Option<K>, RegistrarError> {
    request::<K, _>("read", api.get_opt(names::WEBHOOK_CONFIGURATION)).await
}

async fn request<K: Configuration, T>(
    verb: &'static str,
    sent: impl Future<Output = kube::Result<T>>,
) -> Result<T, RegistrarError> {
    let failed =
        |cause: String, conflict: bool| RegistrarError::Api { verb, kind: kind::<K>(), cause, conflict };
    match tokio::time::timeout(REQUEST_TIMEOUT, sent).await {
        Ok(answer) => answer.map_err(|error| {
            let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
            failed(error.to_string(), conflict)
        }),
        Err(_) => Err(failed(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()), false)),
    }
}
