//! The loop of the replica that holds the lease: register, prove, report, and begin anew when
//! anything changes.
//!
//! The order is the point. The index of this process is newer than what it registers, the replicas are
//! given a moment to follow, the rules are registered before they are proved, and only what is proved
//! and what every replica has applied is reported as enforcing: at no moment does a guard say more than
//! holds. A replica that lags does not keep a guard from being registered: it reads live what its index
//! does not hold, so that the rules are of use at once.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use crate::core::guard::{Authorship, GuardState, Target};
use crate::core::index::Index;
use crate::store::{Observation, SeenException, Store};
use crate::telemetry::metrics::Metrics;

use super::agreement::Agreement;
use super::alarm::Alarm;
use super::catch_up::caught_up;
use super::conditions::Coverage;
use super::elsewhere::{self, Elsewhere, Finding};
use super::endpoints;
use super::exceptions::{self, ExceptionWriter};
use super::lease::Fence;
use super::promotion::{Due, Promotions, watched_since};
use super::proof::{self, Proof};
use super::registrar::{Registrar, RegistrarError};
use super::rights::Rights;
use super::roll::RollCall;
use super::standing::{Attempt, Standing};
use super::status::{StatusWriter, Written};

/// Shortest time between two writes of the webhook configurations: many guards made at once cost
/// few generations.
const COALESCE: Duration = Duration::from_secs(1);
/// How long a proof is tried before it counts as failed. A configuration takes effect within
/// milliseconds; an API server that is restarting takes longer.
const PROOF_DEADLINE: Duration = Duration::from_secs(10);
/// The same of a group that another API server serves: it is tried again, and others must not wait for it.
const ELSEWHERE_DEADLINE: Duration = Duration::from_secs(2);
/// First pause between two tries of a proof; doubled up to [`PROOF_PAUSE_MAX`].
const PROOF_PAUSE: Duration = Duration::from_millis(20);
const PROOF_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long after an API server has read new rules they are surely in effect: 250 tries of 250 took
/// 5 ms at most.
const SETTLE: Duration = Duration::from_millis(500);
/// How long replicas are waited for before rules are registered, and before it is reported that they
/// lag: they follow within milliseconds.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often it is looked whether a replica that guards wait for still lives.
const LOOK: Duration = Duration::from_secs(1);
/// How long writes are gathered that an `Audit` guard would have refused.
const GATHER: Duration = Duration::from_millis(500);
/// Pause before everything is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);

fn is_unsigned(state: &GuardState) -> bool {
    matches!(state, GuardState::Valid(guard) if guard.authorship == Authorship::Unknown)
}

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
    /// The replicas that answer reviews.
    pub roll: RollCall,
    /// What becomes of guards that ask for `enforceAfterClean`.
    pub promotions: Promotions,
    /// API servers named by a flag.
    pub api_server_endpoints: Vec<String>,
    /// Counts what is done.
    pub metrics: Arc<Metrics>,
    /// Whether what is guarded may be patched.
    pub rights: Rights,
    /// The target by which enforcement was last proved; `None` before the first proof.
    pub worked: Option<Target>,
    /// Tells when somebody altered the registration, and when pauses begin and end.
    pub alarm: Alarm,
    /// How long exceptions may last at most.
    pub longest_pause: SignedDuration,
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
        caught_up(&self.client, &self.store).await;
        // Another replica may have written since this one last did.
        self.registrar.forget();
        let mut observations = self.store.observations();
        let watched_since = watched_since(self.fence.renewed_before(), jiff::Timestamp::now());
        let mut excepted = self.store.exceptions();
        let mut replicas = self.roll.changes();
        let mut denies = self.promotions.would_denies.changes();
        let mut standing = Standing::default();
        let mut agreement = Agreement::default();
        let mut last_write: Option<Instant> = None;
        loop {
            if let Some(written) = last_write {
                tokio::time::sleep_until(written + COALESCE).await;
            }
            let observation = Arc::clone(&observations.borrow_and_update());
            replicas.mark_unchanged();
            denies.mark_unchanged();
            self.count(&observation);
            if let Some(wanted) = agreement.wanted(&observation) {
                self.roll.reach(wanted, FOLLOW).await;
            }
            let attempt = self.attempt(&observation, &mut standing, &mut last_write).await;
            agreement.ask(&self.roll, &observation).await;
            let now = jiff::Timestamp::now();
            let due = self.promotions.due(&observation, &self.roll, watched_since, now);
            let exceptions = Arc::clone(&excepted.borrow_and_update());
            let index = Arc::clone(&observation.index);
            // Statuses of exceptions name guards. Else each guard is let go when its status is written: all of
            // them would be held in two versions.
            let named = (!exceptions.is_empty()).then(|| Arc::clone(&observation));
            let mut reported = self.report(observation, &standing, &agreement, &due).await;
            if reported.failed == 0 && !due.promoted.is_empty() {
                self.promotions.tell(&self.client, &due.promoted).await;
            }
            if let Some(observation) = named {
                reported += self.report_exceptions(&exceptions, &observation, &agreement).await;
            }
            let retry = match (attempt, reported) {
                (Some(pause), _) => Some(Instant::now() + pause),
                (None, Written { failed: 1.., .. }) => Some(Instant::now() + RETRY),
                (None, Written { waiting: 1.., .. }) => Some(Instant::now() + LOOK),
                (None, Written { .. }) => {
                    [standing.next_proof(), self.rights.due()].into_iter().flatten().min()
                }
            };
            let now = jiff::Timestamp::now();
            let ended = exceptions::next_end(&exceptions, self.longest_pause, now).map(instant);
            let wake = [retry, next_end(&index, now).map(instant), ended].into_iter().flatten().min();
            tokio::select! {
                _ = observations.changed() => {}
                _ = excepted.changed() => {}
                _ = replicas.changed() => {}
                () = self.registrar.changed() => {}
                _ = denies.changed() => tokio::time::sleep(GATHER).await,
                () = until(wake) => {}
                () = until(due.next.map(moment)) => {}
            }
        }
    }

    /// Registers and proves one observation. Gives how soon to try again when that failed.
    async fn attempt(
        &mut self,
        observation: &Observation,
        standing: &mut Standing,
        last_write: &mut Option<Instant>,
    ) -> Option<Duration> {
        let applied = match self.registrar.apply(observation, &self.fence).await {
            Ok(applied) => applied,
            Err(error) => {
                self.metrics.registration("failed");
                tracing::warn!(%error, "the webhook configurations are not as the guards need them; trying again");
                let pause = error.retry_after();
                let said = error.to_string();
                let attempt = match error {
                    RegistrarError::Contended { .. } => {
                        self.metrics.contended(true);
                        Attempt::Broken(Coverage::Contended(said))
                    }
                    RegistrarError::Unrepaired { .. } => Attempt::Broken(Coverage::Pending(said)),
                    _ => Attempt::Trouble(Coverage::Pending(said)),
                };
                standing.note(attempt, observation.version, false, Instant::now());
                return Some(pause.unwrap_or(RETRY));
            }
        };
        self.metrics.contended(false);
        if applied.written {
            *last_write = Some(Instant::now());
            self.metrics.registration(if applied.repaired.is_some() { "repaired" } else { "applied" });
        }
        if let Some(altered) = &applied.repaired {
            self.alarm.registration_altered(altered, observation);
        }
        for turn in &applied.glass {
            self.alarm.glass(turn, observation);
        }
        self.metrics.broken_glass(applied.broken.is_some());
        if let Some(broken) = applied.broken {
            let left = broken.until.duration_since(jiff::Timestamp::now());
            standing.note(
                Attempt::Broken(Coverage::BrokenGlass(broken)),
                observation.version,
                false,
                Instant::now(),
            );
            return Some(Duration::try_from(left).unwrap_or_default());
        }
        self.metrics.widened(applied.widened.len());
        standing.note_widened(applied.widened);
        let all: Vec<&Target> = targets(observation).map(|(_, target)| target).collect();
        self.rights.look(&self.client, &all, Instant::now()).await;
        let generation = applied.generation;
        let known = standing.proved(generation, Instant::now());
        let fresh = known.is_none();
        if fresh || standing.elsewhere.is_wanting(Instant::now()) {
            let told = elsewhere::served(&self.client).await;
            if let Err(error) = &told {
                tracing::warn!(error, "cannot list APIServices, which tell what other API servers serve");
            }
            standing.elsewhere.note_served(told, Instant::now());
        }
        let coverage = match known {
            Some(coverage) => coverage,
            None => self.prove(observation, &standing.elsewhere, generation).await,
        };
        let good = matches!(coverage, Coverage::Proved | Coverage::Compared);
        if good {
            self.prove_elsewhere(observation, &mut standing.elsewhere, generation).await;
        }
        let attempt =
            if good { Attempt::Good { generation, how: coverage } } else { Attempt::Trouble(coverage) };
        standing.note(attempt, observation.version, fresh, Instant::now());
        (!good).then_some(RETRY)
    }

    /// Writes what changed in the status of guards.
    async fn report(
        &self,
        observation: Arc<Observation>,
        standing: &Standing,
        agreement: &Agreement,
        due: &Due,
    ) -> Written {
        let writer = StatusWriter {
            client: self.client.clone(),
            fence: self.fence.clone(),
            metrics: Arc::clone(&self.metrics),
            rights: &self.rights,
            key: self.promotions.keys.borrow().clone(),
            alarm: &self.alarm,
        };
        writer.write_all(observation, standing, agreement, due, jiff::Timestamp::now()).await
    }

    /// Writes what changed in the status of exceptions.
    async fn report_exceptions(
        &self,
        exceptions: &[Arc<SeenException>],
        observation: &Observation,
        agreement: &Agreement,
    ) -> Written {
        if !exceptions::are_applied(exceptions, self.longest_pause, observation) {
            // Either is about to change, which wakes us.
            return Written::default();
        }
        let writer = ExceptionWriter {
            client: &self.client,
            fence: &self.fence,
            metrics: &self.metrics,
            longest: self.longest_pause,
            pending: agreement.exceptions_pending(observation),
        };
        writer.write_all(exceptions, observation, jiff::Timestamp::now()).await
    }

    fn count(&self, observation: &Observation) {
        let guards = observation.index.guards();
        let valid = guards.iter().filter(|state| matches!(state, GuardState::Valid(_))).count();
        self.metrics.guards(valid, guards.len() - valid);
        let unsigned = guards.iter().filter(|state| is_unsigned(state)).count();
        self.metrics.unknown_authors(unsigned);
    }

    /// Proves a generation through every API server, trying for a while. By what these servers serve
    /// themselves: a write that others never send to us says nothing of the registration.
    async fn prove(&mut self, observation: &Observation, elsewhere: &Elsewhere, generation: u64) -> Coverage {
        if targets(observation).next().is_none() {
            // Nobody is told anything, and nothing is registered.
            return Coverage::Compared;
        }
        let is_usable =
            |target: &Target| self.rights.may_patch(target) && !elsewhere.has_group(&target.group);
        let usable = targets(observation).filter(|(_, target)| is_usable(target));
        let targets = proof::in_turn(usable, self.worked.as_ref());
        let endpoints = match endpoints::find(&self.config, &self.client, &self.api_server_endpoints).await {
            Ok(endpoints) => endpoints,
            Err(error) => return Coverage::Failed(error.to_string()),
        };
        let deadline = Instant::now() + PROOF_DEADLINE;
        let mut pause = PROOF_PAUSE;
        let mut compared = false;
        loop {
            let nonce = || uuid::Uuid::now_v7().simple().to_string();
            let coverage = match proof::prove(&endpoints, &targets, generation, nonce).await {
                Ok(Proof::Proved { by }) => {
                    self.worked = Some(by);
                    Coverage::Proved
                }
                Ok(Proof::Compared) => Coverage::Compared,
                Ok(Proof::NotYet { what }) => Coverage::Pending(what),
                Err(error) => Coverage::Failed(error.to_string()),
            };
            // Rules that an API server has read take effect a moment later: look twice.
            let settled = coverage == Coverage::Proved || compared && coverage == Coverage::Compared;
            compared = coverage == Coverage::Compared;
            if settled || Instant::now() + pause > deadline {
                self.metrics.proof(match coverage {
                    Coverage::Proved => "proved",
                    Coverage::Compared => "compared",
                    _ => "failed",
                });
                return coverage;
            }
            tokio::time::sleep(if compared { SETTLE } else { pause }).await;
            pause = (pause * 2).min(PROOF_PAUSE_MAX);
        }
    }

    /// Proves each group that another API server serves by objects of its own.
    async fn prove_elsewhere(&self, observation: &Observation, elsewhere: &mut Elsewhere, generation: u64) {
        let all = targets(observation).map(|(_, target)| target);
        let due = elsewhere.due(all, generation, observation.version, Instant::now());
        for group in due {
            let is_usable = |target: &Target| {
                *target.group == *group && elsewhere.serves(target) && self.rights.may_patch(target)
            };
            let usable = targets(observation).filter(|(_, target)| is_usable(target));
            let finding = self.prove_group(&proof::in_turn(usable, None), generation).await;
            if let Finding::NotProved(why) = &finding {
                tracing::warn!(group, why, "another API server serves a guarded group");
            }
            elsewhere.note(group, finding, (generation, observation.version), Instant::now());
        }
    }

    async fn prove_group(&self, targets: &[&Target], generation: u64) -> Finding {
        if targets.is_empty() {
            return Finding::NotProved("it serves no guarded object that we may patch".to_owned());
        }
        let endpoints = match endpoints::find(&self.config, &self.client, &self.api_server_endpoints).await {
            Ok(endpoints) => endpoints,
            Err(error) => return Finding::NotProved(error.to_string()),
        };
        let deadline = Instant::now() + ELSEWHERE_DEADLINE;
        let mut pause = PROOF_PAUSE;
        loop {
            let nonce = || uuid::Uuid::now_v7().simple().to_string();
            let why = match proof::prove(&endpoints, targets, generation, nonce).await {
                Ok(Proof::Proved { .. }) => return Finding::Proved,
                Ok(Proof::Compared) => "no guarded object stands there that may be patched".to_owned(),
                // That server reads the rules by itself, and perhaps later.
                Ok(Proof::NotYet { what }) => what,
                Err(error) => error.to_string(),
            };
            if Instant::now() + pause > deadline {
                return Finding::NotProved(why);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROOF_PAUSE_MAX);
        }
    }
}

/// Targets by which a proof can be made, each with the namespace of the guard.
fn targets(observation: &Observation) -> impl Iterator<Item = (&str, &Target)> {
    observation.index.guards().iter().filter_map(|state| match state {
        GuardState::Valid(guard) => Some((guard.id.namespace.as_str(), &guard.target)),
        GuardState::Invalid(_) => None,
    })
}

/// When to look at what is due at `time`: not before, and not again and again while it is waited for
/// that every replica has told what it has seen.
fn moment(time: jiff::Timestamp) -> Instant {
    let left = Duration::try_from(time.duration_since(jiff::Timestamp::now())).unwrap_or_default();
    Instant::now() + left.max(GATHER)
}

/// When the next pause of a guard ends, which its conditions must tell.
fn next_end(index: &Index, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let pauses = index.guards().iter().flat_map(GuardState::pauses);
    pauses.map(|pause| pause.until).filter(|end| *end > now).min()
}

/// When it is that time, by the other clock.
fn instant(time: jiff::Timestamp) -> Instant {
    let left = Duration::try_from(time.duration_since(jiff::Timestamp::now())).unwrap_or_default();
    let now = Instant::now();
    // What is too far ahead for the clock is as good as never; it is looked again then.
    now.checked_add(left).unwrap_or(now + Duration::from_secs(86_400))
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
