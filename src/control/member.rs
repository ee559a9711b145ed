//! This replica's own Lease: that it lives, and how new its view is.
//!
//! Made before the replica is ready, and then the guards are read once more from a quorum: so at every
//! moment each guard is either in the view of a replica that answers, or somebody waits for that. A
//! replica that cannot renew stops trusting its index earlier than others stop waiting for it, and
//! begins anew. Published is only what decides already: the index is swapped before anybody hears.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use tokio::time::Instant;

use crate::api::{names, reasons};
use crate::core::guard::GuardState;
use crate::store::{Observation, Seen, Store};

use super::catch_up::caught_up;
use super::promotion::asking;
use super::roll::RollCall;
use super::said::{DURATION, Said, lease_name};
use super::would_denies::WouldDenies;

/// How often the Lease is written when there is nothing new to say.
const RENEW: Duration = Duration::from_secs(3);
/// Without a renewal for so long the index is not trusted any more. Shorter than the duration after
/// which others stop waiting for this replica.
const DEADLINE: Duration = Duration::from_secs(10);
/// Least time between two writes when guards changed, and when only their bookkeeping did: many
/// changes at once cost few writes.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_millis(500);
/// Longest one write may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed write.
const RETRY: Duration = Duration::from_millis(500);

const _: () = assert!(DEADLINE.as_secs() < DURATION.as_secs());

/// Whether this replica's view is known to be as new as others take it to be. Clones share it.
#[derive(Debug, Clone)]
pub struct Vouch {
    began: std::time::Instant,
    /// Milliseconds from `began` to when the last renewal was sent, plus one; 0 for never.
    renewed: Arc<AtomicU64>,
}

impl Default for Vouch {
    fn default() -> Self {
        Self { began: std::time::Instant::now(), renewed: Arc::default() }
    }
}

impl Vouch {
    /// Whether the index may decide. Takes no lock.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let renewed = self.renewed.load(Ordering::Acquire);
        renewed > 0 && self.began.elapsed() < Duration::from_millis(renewed - 1) + DEADLINE
    }

    fn renew(&self, sent: Instant) {
        let since = self.began.elapsed().saturating_sub(sent.elapsed());
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1);
        self.renewed.store(milliseconds.saturating_add(1), Ordering::Release);
    }

    fn withdraw(&self) {
        self.renewed.store(0, Ordering::Release);
    }
}

/// Keeps this replica's own Lease.
pub struct Member {
    client: kube::Client,
    leases: Api<Lease>,
    name: String,
    identity: String,
    replica: String,
    store: Store,
    would_denies: Arc<WouldDenies>,
    vouch: Vouch,
    began: Timestamp,
}

/// Why keeping the Lease has to begin anew.
enum Lapse {
    /// Not renewed in time, or removed by somebody.
    Lost,
    /// The process stops.
    Stopped,
}

impl Member {
    /// The Lease of the process `identity`, which no other may use, what it vouches for, and the roll
    /// of all replicas.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        replica: String,
        identity: String,
        store: Store,
        would_denies: Arc<WouldDenies>,
    ) -> (Self, Vouch, RollCall) {
        let vouch = Vouch::default();
        let name = lease_name(&replica, &identity);
        let roll = RollCall::new(client.clone(), namespace, name.clone());
        let member = Self {
            leases: Api::namespaced(client.clone(), namespace),
            client,
            name,
            identity,
            replica,
            store,
            would_denies,
            vouch: vouch.clone(),
            began: Timestamp::now(),
        };
        (member, vouch, roll)
    }

    /// Keeps the Lease until `stop` is done, then removes it: nobody waits for this replica any more.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let stop = stop.shared();
        tokio::select! {
            () = self.store.synced() => {}
            () = stop.clone() => return,
        }
        loop {
            let mut lapse = std::pin::pin!(self.hold());
            let lapse = tokio::select! {
                lapse = &mut lapse => lapse,
                () = stop.clone() => Lapse::Stopped,
            };
            self.vouch.withdraw();
            match lapse {
                Lapse::Lost => tracing::warn!("the lease of this replica lapsed; its view is checked anew"),
                Lapse::Stopped => break,
            }
        }
        let params = DeleteParams::default();
        let removed = self.leases.delete(&self.name, &params);
        match tokio::time::timeout(REQUEST_TIMEOUT, removed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease of this replica could not be removed; it runs out");
            }
            Err(_) => tracing::warn!("the lease of this replica could not be removed in time; it runs out"),
        }
    }

    /// Makes the Lease, catches up, and keeps both until that fails.
    async fn hold(&self) -> Lapse {
        let mut observations = self.store.observations();
        let mut renewed = loop {
            let sent = Instant::now();
            let observation = Arc::clone(&observations.borrow_and_update());
            if self.write(&observation).await {
                break sent;
            }
            tokio::time::sleep(RETRY).await;
        };
        let mut catching_up = std::pin::pin!(caught_up(&self.client, &self.store));
        let mut is_caught_up = false;
        let mut written = (Instant::now(), observations.borrow().version);
        let mut denies = self.would_denies.changes();
        loop {
            // What came meanwhile and is not said yet decides how soon to write.
            let now = Arc::clone(&observations.borrow());
            let is_news =
                observations.has_changed().unwrap_or(false) || denies.has_changed().unwrap_or(false);
            let pause = match (is_news, now.version == written.1) {
                (true, false) => SOON,
                (true, true) => LATER,
                (false, _) => RENEW,
            };
            tokio::select! {
                () = &mut catching_up, if !is_caught_up => {
                    is_caught_up = true;
                    self.vouch.renew(renewed);
                    continue;
                }
                changed = observations.changed(), if !is_news => {
                    if changed.is_ok() {
                        observations.mark_changed();
                    }
                    continue;
                }
                changed = denies.changed(), if !is_news => {
                    if changed.is_ok() {
                        denies.mark_changed();
                    }
                    continue;
                }
                () = tokio::time::sleep_until(written.0 + pause) => {}
            }
            let sent = Instant::now();
            let observation = Arc::clone(&observations.borrow_and_update());
            denies.mark_unchanged();
            written = (sent, observation.version);
            if self.write(&observation).await {
                renewed = sent;
                if is_caught_up {
                    self.vouch.renew(renewed);
                }
            } else {
                tokio::time::sleep(RETRY).await;
                observations.mark_changed();
            }
            if renewed.elapsed() >= DEADLINE {
                return Lapse::Lost;
            }
        }
    }

    /// Writes the Lease. Tells whether the API server took it.
    async fn write(&self, observation: &Observation) -> bool {
        let said = self.said(observation);
        let lease = said.lease(&self.name, &self.identity, self.began, Timestamp::now());
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        // Made when it is not there; nobody else writes this Lease.
        let patch = Patch::Apply(&lease);
        let written = self.leases.patch(&self.name, &params, &patch);
        match tokio::time::timeout(REQUEST_TIMEOUT, written).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot write the lease of this replica");
                false
            }
            Err(_) => {
                tracing::warn!("the API server did not take the lease of this replica in time");
                false
            }
        }
    }

    /// Whether another replica may already judge by a guard that this one cannot.
    fn is_unsettled(&self, seen: &Seen) -> bool {
        let of_discovery = [reasons::TARGET_UNKNOWN, reasons::TARGET_AMBIGUOUS];
        match &seen.state {
            GuardState::Invalid(invalid) => of_discovery.contains(&invalid.reason),
            GuardState::Valid(_) => {
                let noted = seen.stored.status().enforce_after_clean();
                !self.store.has_key() && noted.is_some_and(|noted| noted.promoted_at.is_some())
            }
        }
    }

    fn said(&self, observation: &Observation) -> Said {
        // Before the notes are read: what comes later is not told yet.
        let told_until = Timestamp::now();
        let notes = self.would_denies.read(|| asking(observation));
        let mut said = Said {
            replica: self.replica.clone(),
            revision: observation.revision,
            exceptions: observation.exceptions.map(|digest| digest.to_string()),
            told_until: Some(told_until),
            would_deny: notes.by_uid,
            would_deny_others: notes.others,
            ..Said::default()
        };
        let unsettled = observation.guards.iter().filter(|seen| self.is_unsettled(seen));
        said.set_unsettled(unsettled.map(|seen| seen.stored.uid().as_str()));
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_vouched_for_from_the_first_renewal_and_not_for_ever() {
        let vouch = Vouch::default();
        assert!(!vouch.is_current(), "nothing was renewed yet");
        vouch.renew(Instant::now());
        assert!(vouch.is_current());
        vouch.withdraw();
        assert!(!vouch.is_current());
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent() {
        let began = std::time::Instant::now().checked_sub(Duration::from_secs(60));
        let Some(began) = began else { return };
        let vouch = Vouch { began, ..Vouch::default() };
        let Some(sent) = Instant::now().checked_sub(DEADLINE) else { return };
        vouch.renew(sent);
        assert!(!vouch.is_current(), "it was sent too long ago, however late it was answered");
    }
}
