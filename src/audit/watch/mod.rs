//! Watches on exactly what is guarded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::core::audit::sight::{Look, Sight};
use crate::core::guard::GuardId;
use crate::core::text::Text;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// How targets are watched.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// How often everything is compared with what the watches told.
    pub audit_interval: Duration,
    /// Namespace of the installation, which the commands that add rights name.
    pub installed: String,
}

/// News about the target of one guard.
#[derive(Clone)]
pub struct Sighting {
    /// Whose target.
    pub guard: GuardId,
    /// `metadata.uid` of that guard.
    pub guard_uid: Text,
    /// What was seen.
    pub sight: Sight,
    /// How the look came about.
    pub how: Look,
    /// Raw JSON of the object, with `apiVersion` and `kind`, when it is there.
    pub object: Option<Bytes>,
    /// When.
    pub seen_at: Timestamp,
}

impl std::fmt::Debug for Sighting {
    /// Without the object: it may be a Secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sighting")
            .field("guard", &self.guard)
            .field("sight", &self.sight)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}

/// Whether the watches can be relied upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchHealth {
    /// What sweeps found that a watch should have told, since the start.
    pub missed: u64,
    /// How long the quietest watch has heard nothing, not even a bookmark. Rounded down to half minutes.
    pub oldest: Duration,
    /// Kinds of which an object cannot be decoded, so that they are read name by name: `plural.group`.
    pub polled: Vec<String>,
}

/// Watches of the targets of all guards.
pub struct Watches {
    health: watch::Receiver<WatchHealth>,
}

impl Watches {
    /// Watches of what `store` sees guarded, and the receiver of news. Nothing is asked for before
    /// [`Watches::run`].
    #[must_use]
    pub fn new(
        client: Client,
        store: Store,
        settings: WatchSettings,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Sighting>) {
        drop((client, store, settings, metrics));
        let (_, news) = mpsc::channel(1);
        (Self { health: watch::channel(WatchHealth::default()).1 }, news)
    }

    /// Whether the watches can be relied upon, as it changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<WatchHealth> {
        self.health.clone()
    }

    /// Watches until it is dropped.
    pub async fn run(self) {
        std::future::pending::<()>().await;
    }
}
