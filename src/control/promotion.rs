//! Guards of enforcement `Audit` that become `Deny` once nothing would have been refused for a while.
//!
//! The rule is [`crate::core::promotion`]. Here the holder of the lease gathers what all replicas have
//! seen and keeps what is known in the signed status of each guard, from which every replica reads it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde::Deserialize;
use tokio::sync::watch;

use crate::api::names;
use crate::api::status::EnforceAfterClean;
use crate::core::guard::{Enforcement, Guard, GuardState};
use crate::core::promotion::{self, Promotion, UNWATCHED};
use crate::core::signature::SigningKey;
use crate::store::{Observation, Seen, convert};
use crate::trail::record::Record;
use crate::trail::sink::RecordSink;

use super::roll::RollCall;
use super::would_denies::{Notes, WouldDenies};

/// Name under which Events are reported.
const CONTROLLER: &str = "driftguard.terrafusion.ai/controller";
/// Reason of the Event.
const PROMOTED: &str = "Promoted";
/// Longest an Event may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What promotions are made of and told by.
pub struct Promotions {
    /// What this replica has seen.
    pub would_denies: Arc<WouldDenies>,
    /// The key by which what is known is signed; nothing is promoted without it.
    pub keys: watch::Receiver<Option<SigningKey>>,
    /// Name of this replica.
    pub replica: String,
    /// Where records go.
    pub records: RecordSink,
}

/// What is to be written down.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// For each guard that asks for it, by uid.
    pub(super) of: HashMap<String, EnforceAfterClean>,
    /// Whether the key is known: without it what stands there is left alone.
    pub(super) is_known: bool,
    /// When the next guard is due.
    pub(super) next: Option<Timestamp>,
    /// Guards that have just been promoted.
    pub(super) promoted: Vec<Arc<Guard>>,
}

/// What a spec says about it, whatever else it holds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asks {
    enforce_after_clean: Option<String>,
}

/// The time that a guard asks for.
fn asked(seen: &Seen) -> Option<Duration> {
    if !seen.stored.asks_for_promotion() {
        return None;
    }
    let asks: Asks = serde_json::from_str(&seen.stored.spec()).ok()?;
    promotion::duration(&asks.enforce_after_clean?)
}

/// Uids of the guards that ask for it.
pub(super) fn asking(observation: &Observation) -> HashSet<String> {
    let asking = observation.guards.iter().filter(|seen| asked(seen).is_some());
    asking.map(|seen| seen.stored.uid().into()).collect()
}

impl Promotions {
    /// What is known now. `unwatched` is when the lease was last renewed before this replica took it.
    pub(super) fn due(
        &self,
        observation: &Observation,
        roll: &RollCall,
        watched_since: Option<Timestamp>,
        now: Timestamp,
    ) -> Due {
        let Some(key) = self.keys.borrow().clone() else { return Due::default() };
        let mut due = Due { is_known: true, ..Due::default() };
        let mut gathered: Option<(Notes, Option<Timestamp>)> = None;
        for seen in &observation.guards {
            let (GuardState::Valid(guard), Some(after)) = (&seen.state, asked(seen)) else { continue };
            let before = convert::promotion(&seen.stored, &key);
            let is_promoted = before.is_some_and(|before| before.promoted_at.is_some());
            if guard.enforcement != Enforcement::Audit && !is_promoted {
                continue;
            }
            let (notes, told_until) = gathered
                .get_or_insert_with(|| (self.gather(observation, roll), roll.views().told_until(now)));
            let facts = promotion::Seen {
                would_deny: notes.of(&guard.uid),
                watched_since: watched_since.filter(|_| before.is_some()),
                told_until: *told_until,
            };
            let known = promotion::advance(before, after, facts, now);
            if !is_promoted && known.promoted_at.is_some() {
                due.promoted.push(Arc::clone(guard));
            }
            due.next = [due.next, promotion::due(&known, after)].into_iter().flatten().min();
            due.of.insert(guard.uid.as_str().to_owned(), noted(&known, guard, &key));
        }
        due
    }

    /// What all replicas have seen.
    fn gather(&self, observation: &Observation, roll: &RollCall) -> Notes {
        let mut notes = self.would_denies.read(|| asking(observation));
        roll.with_all(|all| {
            for said in all {
                said.would_deny.iter().for_each(|(uid, at)| {
                    let last = notes.by_uid.entry(uid.clone()).or_insert(*at);
                    *last = (*last).max(*at);
                });
                notes.others = notes.others.max(said.would_deny_others);
            }
        });
        notes
    }

    /// Tells of guards that have been promoted.
    pub(super) async fn tell(&self, client: &kube::Client, guards: &[Arc<Guard>]) {
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(self.replica.clone()) };
        let recorder = Recorder::new(client.clone(), reporter);
        for guard in guards {
            let message = format!(
                "nothing would have been refused for as long as enforceAfterClean asks, so {} now refuses unapproved writes to {}",
                guard.id, guard.target
            );
            tracing::info!(namespace = %guard.id.namespace, name = %guard.id.name, "a guard now denies");
            let id = uuid::Uuid::now_v7().to_string();
            self.records.put(&Record::promoted(guard, id, Timestamp::now(), &message, &self.replica));
            let event = Event {
                type_: EventType::Normal,
                reason: PROMOTED.into(),
                note: Some(message),
                action: "Promotion".into(),
                secondary: None,
            };
            let regarding = regarding(guard);
            let told = recorder.publish(&event, &regarding);
            if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIMEOUT, told).await {
                tracing::debug!(%error, "an Event could not be published");
            }
        }
    }
}

fn regarding(guard: &Guard) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
        kind: Some("DriftGuard".into()),
        namespace: Some(guard.id.namespace.as_str().into()),
        name: Some(guard.id.name.as_str().into()),
        uid: Some(guard.uid.as_str().into()),
        ..ObjectReference::default()
    }
}

fn noted(known: &Promotion, guard: &Guard, key: &SigningKey) -> EnforceAfterClean {
    EnforceAfterClean {
        clean_since: Time(known.clean_since),
        promoted_at: known.promoted_at.map(Time),
        signature: promotion::sign(key, &guard.uid, guard.generation, known),
    }
}

/// When watching began again after nobody had for too long, `idle` being when a holder last renewed
/// the lease before it was taken at `taken`.
pub(super) fn watched_since(idle: Option<Timestamp>, taken: Timestamp) -> Option<Timestamp> {
    let is_gap = idle.is_none_or(|idle| {
        Duration::try_from(taken.duration_since(idle)).is_ok_and(|unwatched| unwatched > UNWATCHED)
    });
    is_gap.then_some(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_lease_that_nobody_renewed_for_long_or_that_was_not_there_is_a_gap() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(watched_since(Some(at(1000)), at(1050)), None);
        assert_eq!(watched_since(Some(at(1000)), at(1061)), Some(at(1061)));
        assert_eq!(watched_since(Some(at(1000)), at(900)), None, "another clock is ahead");
        assert_eq!(watched_since(None, at(1000)), Some(at(1000)));
    }
}
