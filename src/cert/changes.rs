//! When a Secret changes, told by a watch of its metadata, so that it need not be read again and again.
//!
//! Rights needed in the namespace: `list` and `watch` on that Secret. Without them, and while the watch fails,
//! whoever waits here has to look by himself.

use futures::{Stream, StreamExt as _, future};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};

/// What a watch tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It watches, and something may have changed before: look.
    Changed,
    /// It does not watch: look again and again.
    Nothing,
}

/// What is told of the Secret `name`, for ever. The stream works only while it is polled.
pub(super) fn of(client: &kube::Client, namespace: &str, name: &'static str) -> impl Stream<Item = Told> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let config = Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => Some(Told::Changed),
            Err(error) => {
                tracing::debug!(%error, name, "a Secret cannot be watched; it is read now and then");
                Some(Told::Nothing)
            }
        })
    })
}
