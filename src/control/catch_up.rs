//! Before a replica that has just got the lease writes anything, its view must not be an old one.
//!
//! A watch can lag behind by half a minute while calls for the lease work. Rules written from such a
//! view would leave out the newest guards. So the guards are listed once, from a quorum, and writing
//! waits until the watch has shown each of them at least as new: by its own resource version, since
//! labels and a promotion, which the generation does not count, decide too. The newest resource version
//! of all is no measure: it goes away with the guard that bears it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;

use crate::api::DriftGuard;
use crate::core::guard::GuardId;
use crate::store::{Observation, Seen, Store};

/// Guards read at once.
const PAGE: u32 = 500;
/// Longest one page may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// What a guard is known by: its uid, and the resource version that must have been seen.
type Needed = HashMap<String, u64>;

/// Waits until the store has seen every guard that exists now, at least as new as it is now.
pub(super) async fn caught_up(client: &kube::Client, store: &Store) {
    let mut observations = store.observations();
    let mut needed = loop {
        let observation = Arc::clone(&observations.borrow_and_update());
        match list(client, &observation).await {
            Ok(needed) => break needed,
            Err(error) => {
                tracing::warn!(error, "cannot list the guards before taking over; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    // A guard that is deleted meanwhile is never seen, so what is missing is asked for again.
    loop {
        let seen = observations.wait_for(|observation| has_all(observation, &needed));
        if tokio::time::timeout(RETRY, seen).await.is_ok() {
            return;
        }
        let observation = Arc::clone(&observations.borrow_and_update());
        if let Ok(now) = list(client, &observation).await {
            needed.retain(|uid, _| now.contains_key(uid));
        }
    }
}

/// Whether each needed guard was seen, at least as new.
fn has_all(observation: &Observation, needed: &Needed) -> bool {
    if needed.is_empty() {
        return true;
    }
    let seen = observation.guards.iter().filter(|seen| {
        needed.get(seen.stored.uid().as_str()).is_some_and(|revision| seen.stored.revision() >= *revision)
    });
    seen.count() == needed.len()
}

/// The guards that exist and are not in `observation` as they are: none, mostly, so that not all of them
/// need be held.
async fn list(client: &kube::Client, observation: &Observation) -> Result<Needed, String> {
    let api: Api<DriftGuard> = Api::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    let mut needed = Needed::new();
    loop {
        let list = tokio::time::timeout(REQUEST_TIMEOUT, api.list_metadata(&page))
            .await
            .map_err(|_| "the API server did not answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        for guard in list.items {
            let ObjectMeta { namespace, name, uid, resource_version, .. } = guard.metadata;
            let id = GuardId {
                namespace: namespace.unwrap_or_default().into(),
                name: name.unwrap_or_default().into(),
            };
            let uid = uid.unwrap_or_default();
            let revision = resource_version.and_then(|version| version.parse().ok()).unwrap_or_default();
            let is_as_new = |seen: &Seen| *seen.stored.uid() == uid && seen.stored.revision() >= revision;
            if !observation.guard(&id).is_some_and(is_as_new) {
                needed.insert(uid, revision);
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(needed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::guard::{GuardState, InvalidGuard};
    use crate::store::Stored;

    fn observation(guards: &[(&str, u64)]) -> Observation {
        let seen = |(uid, revision): &(&str, u64)| {
            let json = format!(
                r#"{{"metadata":{{"name":"{uid}","namespace":"n","uid":"{uid}","generation":1,"resourceVersion":"{revision}"}}}}"#
            );
            let stored: Stored = serde_json::from_str(&json).unwrap();
            let invalid = InvalidGuard {
                id: stored.id().clone(),
                generation: 1,
                uid: "".into(),
                pauses: Default::default(),
                authorship: crate::core::guard::Authorship::Unknown,
                target: None,
                reason: "Test",
                message: String::new(),
            };
            Arc::new(Seen {
                stored,
                state: GuardState::Invalid(Arc::new(invalid)),
                since: 1,
                found: None,
                kept: None,
                needed: 1,
            })
        };
        Observation { guards: guards.iter().map(seen).collect(), ..Observation::default() }
    }

    #[test]
    fn an_older_view_is_told_from_one_that_is_as_new() {
        let needed = Needed::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert!(!has_all(&observation(&[("a", 2)]), &needed), "b is missing");
        assert!(!has_all(&observation(&[("a", 1), ("b", 1)]), &needed), "a is older, of the same generation");
        assert!(has_all(&observation(&[("a", 2), ("b", 1)]), &needed));
        assert!(has_all(&observation(&[("a", 3), ("b", 1), ("c", 9)]), &needed), "newer is as good");
        assert!(has_all(&observation(&[]), &Needed::new()));
    }
}
