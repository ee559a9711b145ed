//! The loop of the replica that holds the lease: register, prove, report, and begin anew when
//! anything changes.
//!
//! The order is the point. The index of this process is newer than what it registers, the rules are
//! registered before they are proved, and only what is proved is reported as enforcing: at no moment
//! does a guard say more than holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::guard::{GuardState, Target};
use crate::store::{Observation, Store};
use crate::telemetry::metrics::Metrics;

use super::conditions::Coverage;
use super::endpoints;
use super::lease::Fence;
use super::proof::{self, Proof};
use super::registrar::Registrar;
use super::status::StatusWriter;

/// Shortest time between two writes of the webhook configurations: many guards made at once cost
/// few generations.
const COALESCE: Duration = Duration::from_secs(1);
/// How long a proof is tried before it counts as failed. A configuration takes effect within
/// milliseconds; an API server that is restarting takes longer.
const PROOF_DEADLINE: Duration = Duration::from_secs(10);
/// First pause between two tries of a proof; doubled up to [`PROOF_PAUSE_MAX`].
const PROOF_PAUSE: Duration = Duration::from_millis(20);
const PROOF_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause before everything is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What the loop works with.
pub struct Control {
    /// Configuration of the client, from which clients for single API servers are made.
    pub config: kube::Config,
    /// The client for everything else.
    pub client: kube::Client,
    /// What is seen in the cluster.
    pub store: Store,
    /// Whether this replica may write.
    pub fence: Fence,
    /// Writes the webhook configurations.
    pub registrar: Registrar,
    /// API servers named by a flag.
    pub api_server_endpoints: Vec<String>,
    /// Counts what is done.
    pub metrics: Arc<Metrics>,
}

/// The last thing that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proved {
    generation: u64,
    coverage: Coverage,
}

impl Control {
    /// Runs for ever: waits for the lease, works while it is held, and waits again.
    pub async fn run(mut self) {
        loop {
            self.fence.held().await;
            self.metrics.leader(true);
            let mut lost = self.fence.clone();
            tokio::select! {
                () = self.lead() => {}
                () = lost.lost() => tracing::warn!("the lease was lost; another replica may write now"),
            }
            self.metrics.leader(false);
        }
    }

    /// Works until it is dropped.
    async fn lead(&mut self) {
        self.store.synced().await;
        let mut observations = self.store.observations();
        let mut proved: Option<Proved> = None;
        let mut last_write: Option<Instant> = None;
        loop {
            if let Some(written) = last_write {
                tokio::time::sleep_until(written + COALESCE).await;
            }
            let observation = Arc::clone(&observations.borrow_and_update());
            let settled = self.settle(&observation, &mut proved, &mut last_write).await;
            let wait = if settled { None } else { Some(RETRY) };
            changed(&mut observations, &mut self.registrar, wait).await;
        }
    }

    /// Registers, proves and reports one observation. Tells whether nothing is left to do.
    async fn settle(
        &mut self,
        observation: &Observation,
        proved: &mut Option<Proved>,
        last_write: &mut Option<Instant>,
    ) -> bool {
        let coverage = match self.registrar.apply(observation, &self.fence).await {
            Ok(applied) => {
                if applied.written {
                    *last_write = Some(Instant::now());
                }
                let known = proved.as_ref().filter(|known| known.generation == applied.generation);
                match known {
                    Some(known) => known.coverage.clone(),
                    None => self.prove(observation, applied.generation).await,
                }
                .at(applied.generation, proved)
            }
            Err(error) => {
                self.metrics.registration("failed");
                tracing::warn!(%error, "the webhook configurations could not be written; trying again");
                Coverage::Pending(error.to_string())
            }
        };
        let settled = matches!(coverage, Coverage::Proved | Coverage::Compared);
        let writer = StatusWriter {
            client: self.client.clone(),
            fence: self.fence.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let failed = writer.write_all(observation, &coverage, jiff::Timestamp::now()).await;
        settled && failed == 0
    }

    /// Proves a generation through every API server, trying for a while.
    async fn prove(&self, observation: &Observation, generation: u64) -> Coverage {
        let endpoints = match endpoints::find(&self.config, &self.client, &self.api_server_endpoints).await {
            Ok(endpoints) => endpoints,
            Err(error) => return Coverage::Failed(error.to_string()),
        };
        let targets = targets(observation);
        let deadline = Instant::now() + PROOF_DEADLINE;
        let mut pause = PROOF_PAUSE;
        loop {
            let nonce = || uuid::Uuid::now_v7().simple().to_string();
            let coverage = match proof::prove(&endpoints, &targets, generation, nonce).await {
                Ok(Proof::Proved) => Coverage::Proved,
                Ok(Proof::NothingToAsk) => Coverage::Compared,
                Ok(Proof::NotYet { what }) => Coverage::Pending(what),
                Err(error) => Coverage::Failed(error.to_string()),
            };
            let settled = matches!(coverage, Coverage::Proved | Coverage::Compared);
            if settled || Instant::now() + pause > deadline {
                self.metrics.proof(match coverage {
                    Coverage::Proved => "proved",
                    Coverage::Compared => "compared",
                    _ => "failed",
                });
                return coverage;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROOF_PAUSE_MAX);
        }
    }
}

impl Coverage {
    /// Remembers what was proved of a generation; what was not is tried again.
    fn at(self, generation: u64, proved: &mut Option<Proved>) -> Self {
        *proved = matches!(self, Self::Proved | Self::Compared)
            .then(|| Proved { generation, coverage: self.clone() });
        self
    }
}

/// Targets by which a proof can be made.
fn targets(observation: &Observation) -> Vec<&Target> {
    let valid = observation.index.guards().iter().filter_map(|state| match state {
        GuardState::Valid(guard) => Some(&guard.target),
        GuardState::Invalid(_) => None,
    });
    valid.collect()
}

/// Waits until there is something new, or `retry` has passed.
async fn changed<A>(
    observations: &mut watch::Receiver<A>,
    registrar: &mut Registrar,
    retry: Option<Duration>,
) {
    let retry = async {
        match retry {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = observations.changed() => {}
        () = registrar.changed() => {}
        () = retry => {}
    }
}
