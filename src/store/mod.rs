//! What the cluster holds that decisions need: guards, kinds, and our own webhook configurations.
//!
//! Watches feed an immutable [`Index`] that is swapped whole, so that readers on the request path
//! take no lock and never see half a change. Whatever cannot be read or resolved is part of the
//! snapshot as an invalid guard; nothing is left out silently. Before the first complete snapshot
//! [`Store::is_synced`] is false, and after that there is always one, however old.

use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use kube::Client;
use tokio::sync::watch;

use crate::core::index::Index;
use crate::core::kinds::Catalog;
use crate::core::signature::SigningKey;

mod apart;
mod by_id;
mod catalog;
pub mod configurations;
pub mod convert;
pub mod exceptions;
pub(crate) mod facts;
mod guards;
mod live;
mod observation;
mod packed;
mod proposed;
mod refused;
pub mod resolution;
mod scales;
mod schedule;
mod stored;
mod summary;

pub use apart::apart;
pub(crate) use catalog::{catalog_of, look as look_at_catalog};
pub use configurations::Configurations;
pub use convert::Settings;
pub use exceptions::{Exceptions, SeenException};
pub(crate) use live::field_value;
pub use live::{Key, LiveReadError};
pub use observation::{Observation, Seen};
pub use proposed::{Proposed, rights, source_object};
pub(crate) use refused::refusal;
pub(crate) use stored::Received as Reported;
pub use stored::Stored;
pub use summary::{Audited, COMPUTED, Summary};

/// A handle on what the watches have seen; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    settings: Settings,
    keys: watch::Receiver<Option<SigningKey>>,
    index: ArcSwap<Index>,
    observations: watch::Sender<Arc<Observation>>,
    configurations: watch::Sender<Arc<Configurations>>,
    catalog: watch::Sender<Option<Arc<Catalog>>>,
    exceptions: watch::Sender<Option<Arc<Exceptions>>>,
    exception_objects: watch::Sender<Arc<Vec<Arc<SeenException>>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Store {
    /// A store, and the future that keeps it up to date for as long as it is polled. It never ends:
    /// failing watches are started again, with growing pauses.
    pub fn new(client: Client, settings: Settings) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::verifying(client, settings, watch::channel(None).1)
    }

    /// As [`Self::new`], with the key by which authors and promotions of guards are verified. Without one
    /// nobody is known to have approved anything, and no guard is promoted.
    pub fn verifying(
        client: Client,
        settings: Settings,
        keys: watch::Receiver<Option<SigningKey>>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            client,
            settings,
            keys,
            index: ArcSwap::default(),
            observations: watch::Sender::default(),
            configurations: watch::Sender::default(),
            catalog: watch::Sender::default(),
            exceptions: watch::Sender::default(),
            exception_objects: watch::Sender::default(),
        });
        let running = run(Arc::clone(&shared));
        (Self { shared }, running)
    }

    /// The newest index. Cheap: no lock, no copy.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        self.shared.index.load_full()
    }

    /// Whether every guard of the cluster has been seen and its kind looked up, at least once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.shared.observations.borrow().version > 0
    }

    /// Whether the key is known by which promotions are verified.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.shared.keys.borrow().is_some()
    }

    /// Returns once [`Self::is_synced`].
    pub async fn synced(&self) {
        // The sender lives as long as this handle, so that waiting cannot fail.
        let _ = self.observations().wait_for(|seen| seen.version > 0).await;
    }

    /// Snapshots as they come, the newest one only. Version 0 is the empty one before the first.
    #[must_use]
    pub fn observations(&self) -> watch::Receiver<Arc<Observation>> {
        self.shared.observations.subscribe()
    }

    /// All exceptions as they stand in the cluster, by namespace and name.
    #[must_use]
    pub fn exceptions(&self) -> watch::Receiver<Arc<Vec<Arc<SeenException>>>> {
        self.shared.exception_objects.subscribe()
    }

    /// The exceptions that can be used, as far as they are known; none before they were read.
    #[must_use]
    pub fn known_exceptions(&self) -> Arc<Exceptions> {
        self.shared.exceptions.borrow().clone().unwrap_or_default()
    }

    /// The two webhook configurations of this installation as they stand in the cluster.
    #[must_use]
    pub fn configurations(&self) -> watch::Receiver<Arc<Configurations>> {
        self.shared.configurations.subscribe()
    }
}

async fn run(shared: Arc<Shared>) {
    let unresolved = watch::Sender::default();
    let kinds = catalog::keep(&shared, unresolved.subscribe());
    let guards = guards::keep(&shared, &unresolved);
    let configurations = configurations::keep(&shared);
    let exceptions = exceptions::keep(&shared);
    futures::join!(kinds, guards, configurations, exceptions);
}
