//! A second look at guards, before a verdict is given that one of them does not approve a write.
//!
//! Of each guard there is one look at a time, whoever asks: reviews that come while it is on its way share
//! the next one, since only a look that begins after a review came in can tell that review anything. However
//! many writes are refused, the API server is asked a bounded number of times, and nobody waits longer than
//! the time that the API server gives allows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::{Semaphore, oneshot};

use super::live::left;
use super::{Asked, Reviews};
use crate::core::guard::{GuardId, GuardState, Target};
use crate::core::index::Index;
use crate::core::standing::{Look, Standing, standing};
use crate::telemetry::allowance::Allowance;
use crate::telemetry::metrics::Metrics;
use crate::webhook::guards::Guards;

/// Looks at once: each is one read by name.
const AT_ONCE: usize = 32;
/// How long one look may take, waiting for its turn included. A review may have to wait for two of them, and
/// API servers give five seconds.
const LIMIT: Duration = Duration::from_secs(1);
/// Failed looks that are logged: at once, and per second after that.
const LOGGED: u32 = 10;
const LOGGED_PER_SECOND: u32 = 1;
/// Pause between two looks at one guard: a flood of refused writes is no flood of looks.
const REST: Duration = Duration::from_millis(10);

/// Whoever waits for the next look at a guard.
type Waiting = Vec<oneshot::Sender<Look>>;

/// Looks at guards.
pub(super) struct Looks {
    guards: Arc<dyn Guards>,
    metrics: Arc<Metrics>,
    /// By guard that is being looked at, or rests after it.
    next: Mutex<HashMap<GuardId, Waiting>>,
    turns: Semaphore,
    logged: Mutex<Allowance>,
}

impl Looks {
    pub(super) fn new(guards: Arc<dyn Guards>, metrics: Arc<Metrics>) -> Arc<Self> {
        let (next, turns) = (Mutex::default(), Semaphore::new(AT_ONCE));
        let logged = Mutex::new(Allowance::new(LOGGED, LOGGED_PER_SECOND, Instant::now()));
        Arc::new(Self { guards, metrics, next, turns, logged })
    }

    fn next(&self) -> MutexGuard<'_, HashMap<GuardId, Waiting>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next look at a guard: it begins after this call.
    fn next_at(self: &Arc<Self>, guard: &GuardId) -> oneshot::Receiver<Look> {
        let (sender, receiver) = oneshot::channel();
        match self.next().entry(guard.clone()) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push(sender),
            Entry::Vacant(none) => {
                none.insert(vec![sender]);
                // Aside of whoever asked first: others wait for it, too.
                tokio::spawn(Arc::clone(self).look(guard.clone()));
            }
        }
        receiver
    }

    /// Looks for as long as somebody waits.
    async fn look(self: Arc<Self>, guard: GuardId) {
        while let Some(waiting) = self.taken(&guard) {
            let look = self.look_once(&guard).await;
            for one in waiting {
                // Who waits no more has answered by what was known.
                let _ = one.send(look.clone());
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Those who wait; when there are none, the next who comes begins anew.
    fn taken(&self, guard: &GuardId) -> Option<Waiting> {
        let mut next = self.next();
        let mut waiting = std::mem::take(next.get_mut(guard)?);
        waiting.retain(|one| !one.is_closed());
        if waiting.is_empty() {
            next.remove(guard);
            return None;
        }
        Some(waiting)
    }

    async fn look_once(&self, guard: &GuardId) -> Look {
        let looking = async {
            // The semaphore is never closed; without a permit the look would only be unbounded.
            let _turn = self.turns.acquire().await;
            self.guards.look(guard).await
        };
        let looking = tokio::time::timeout(LIMIT, AssertUnwindSafe(looking).catch_unwind());
        let looked = match looking.await {
            Ok(Ok(Ok(look))) => Ok(look),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("it panicked".to_owned()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        };
        let look = looked.unwrap_or_else(|why| {
            self.failed(guard, &why);
            Look::Unread
        });
        self.metrics.guard_look(match look {
            Look::Stands(_) => "found",
            Look::Gone => "none",
            Look::Unread => "failed",
        });
        look
    }

    fn failed(&self, guard: &GuardId, why: &str) {
        if self.logged.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            tracing::warn!(%guard, why, "a guard could not be looked at: what is known of it decides");
        }
    }
}

impl Reviews {
    /// How the guards of an object stand that a review was judged by.
    pub(super) async fn standing(&self, target: &Target, index: &Index, asked: Asked) -> Standing {
        let known: Vec<&GuardState> = index.guards_of(target).collect();
        let looks = known.iter().map(|state| self.looks.next_at(state.id()));
        let Ok(found) = tokio::time::timeout(left(asked), join_all(looks)).await else {
            self.metrics.guard_look("late");
            return Standing::Unknown;
        };
        let found = found.into_iter().map(|look| look.unwrap_or(Look::Unread));
        standing(target, known.into_iter().zip(found))
    }
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
