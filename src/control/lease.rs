//! Holding the one Lease, and the fence that every write of the holder passes.
//!
//! The rules are in [`crate::core::tenure`]; here they meet the API server and the monotonic clock.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::names;
use crate::core::tenure::{self, Claim, Observed, Terms};

/// Proof that this replica holds the Lease, checked before each write.
#[derive(Debug, Clone)]
pub struct Fence {
    renewed: watch::Receiver<Option<Instant>>,
    before: watch::Receiver<Option<jiff::Timestamp>>,
    terms: Terms,
}

/// The Lease is not, or no longer, ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not hold the lease, so it must not write")]
pub struct NotHolding;

impl Fence {
    /// Fails unless the Lease is held at this moment.
    ///
    /// # Errors
    /// [`NotHolding`].
    pub fn check(&self) -> Result<(), NotHolding> {
        let renewed = *self.renewed.borrow();
        match renewed {
            Some(renewed) if tenure::holds(renewed.elapsed(), &self.terms) => Ok(()),
            _ => Err(NotHolding),
        }
    }

    /// When the Lease was last renewed by whoever held it before this replica took it, by their clock;
    /// `None` when there was no Lease.
    #[must_use]
    pub fn renewed_before(&self) -> Option<jiff::Timestamp> {
        *self.before.borrow()
    }

    /// Waits until the Lease is held.
    pub async fn held(&mut self) {
        while self.check().is_err() {
            if self.renewed.changed().await.is_err() {
                // The keeper is gone: it will never be held again.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the Lease is not held, be it that renewing failed for too long.
    pub async fn lost(&mut self) {
        loop {
            let renewed = *self.renewed.borrow_and_update();
            let Some(renewed) = renewed else { return };
            let ends = renewed + self.terms.deadline;
            tokio::select! {
                () = tokio::time::sleep_until(ends) => if self.check().is_err() { return },
                changed = self.renewed.changed() => if changed.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
impl Fence {
    /// A fence that holds until something else is sent, or the usual terms are over.
    pub(super) fn held_by_hand() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, renewed) = watch::channel(Some(Instant::now()));
        (sender, Self { renewed, before: watch::channel(None).1, terms: Terms::default() })
    }
}

/// Keeps trying to hold the Lease.
pub struct Keeper {
    leases: Api<Lease>,
    identity: String,
    terms: Terms,
    renewed: Arc<watch::Sender<Option<Instant>>>,
    before: watch::Sender<Option<jiff::Timestamp>>,
    seen: Option<(Observed, Instant)>,
}

impl Keeper {
    /// A keeper for `identity`, which no other process may use, and the fence that it feeds.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, identity: String, terms: Terms) -> (Self, Fence) {
        let (sender, receiver) = watch::channel(None);
        let (before, renewed_before) = watch::channel(None);
        let keeper = Self {
            leases: Api::namespaced(client, namespace),
            identity,
            terms,
            renewed: Arc::new(sender),
            before,
            seen: None,
        };
        (keeper, Fence { renewed: receiver, before: renewed_before, terms })
    }

    /// Holds or waits for the Lease until `stop` is done, then lets it go so that another replica
    /// takes it at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(self.terms.look);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = ticks.tick() => {}
            }
            let renewed = *self.renewed.borrow();
            if renewed.is_some_and(|at| !tenure::is_renewal_due(at.elapsed(), &self.terms)) {
                continue;
            }
            // A try that hangs must not outlast the tenure that it would renew.
            tokio::select! {
                () = &mut stop => break,
                tried = tokio::time::timeout(self.terms.deadline / 2, self.try_once()) => match tried {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "cannot hold the lease"),
                    Err(_) => tracing::warn!("the API server did not answer in time for the lease"),
                },
            }
        }
        self.release().await;
    }

    /// Reads the Lease and takes or renews it when that is due.
    async fn try_once(&mut self) -> Result<(), kube::Error> {
        let sent = Instant::now();
        let Some(lease) = self.leases.get_opt(names::LEASE).await? else {
            let lease = self.written(None);
            let created = self.leases.create(&PostParams::default(), &lease).await;
            return self.note(created, sent, "created");
        };
        let observed = observed(&lease);
        let unchanged_since = match &self.seen {
            Some((before, since)) if *before == observed => *since,
            _ => sent,
        };
        self.seen = Some((observed.clone(), unchanged_since));
        match tenure::claim(&self.identity, &observed, sent - unchanged_since, &self.terms) {
            Claim::Wait => {
                self.renewed.send_if_modified(|renewed| renewed.take().is_some());
                Ok(())
            }
            claim => {
                if claim == Claim::Take {
                    let spec = lease.spec.as_ref();
                    self.before.send_replace(spec.and_then(|spec| Some(spec.renew_time.as_ref()?.0)));
                }
                let lease = self.written(Some(lease));
                let replaced = self.leases.replace(names::LEASE, &PostParams::default(), &lease).await;
                self.note(replaced, sent, if claim == Claim::Take { "taken" } else { "renewed" })
            }
        }
    }

    /// Notes a write of the Lease. Losing a race for it is no failure.
    fn note(
        &mut self,
        written: Result<Lease, kube::Error>,
        sent: Instant,
        how: &str,
    ) -> Result<(), kube::Error> {
        match written {
            Ok(lease) => {
                self.seen = Some((observed(&lease), sent));
                let newly = self.renewed.send_replace(Some(sent)).is_none();
                if newly {
                    tracing::info!(
                        identity = self.identity,
                        how,
                        "this replica now writes registration and status"
                    );
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The Lease as held by us from now on. Its resourceVersion makes a race end with one winner.
    fn written(&self, before: Option<Lease>) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let before_spec = before.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = before_spec.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = before_spec.lease_transitions.unwrap_or(0) + i32::from(before.is_some() && !ours);
        let metadata = before.map_or_else(
            || ObjectMeta { name: Some(names::LEASE.to_owned()), ..ObjectMeta::default() },
            |lease| lease.metadata,
        );
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
                acquire_time: if ours { before_spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Lets the Lease go, when it is ours. Writing stops before the API server is told.
    async fn release(&self) {
        if self.renewed.send_replace(None).is_none() {
            return;
        }
        let released = async {
            let Some(mut lease) = self.leases.get_opt(names::LEASE).await? else { return Ok(()) };
            if observed(&lease).holder != self.identity {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            self.leases.replace(names::LEASE, &PostParams::default(), &lease).await.map(drop)
        };
        match tokio::time::timeout(Duration::from_secs(3), released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease could not be released; it runs out by itself");
            }
            Err(_) => tracing::warn!("the lease could not be released in time; it runs out by itself"),
        }
    }
}

fn observed(lease: &Lease) -> Observed {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    Observed { holder, version: lease.metadata.resource_version.clone().unwrap_or_default() }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
