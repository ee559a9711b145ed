//! Whether every replica that answers reviews has applied what is about to be reported as enforced.
//!
//! A guard that was registered before can change without any change of the rules, so that a proof by
//! one replica says nothing of another that still holds the former hash. One number tells: the newest
//! resourceVersion of any guard in a replica's index. See `docs/design/replicas.md`.

use crate::core::guard::GuardState;
use crate::store::{Observation, Seen};

use super::conditions::Coverage;
use super::roll::{RollCall, Views};

/// Replicas that a condition names.
const MOST_NAMED: usize = 3;

/// What is known of the other replicas.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    views: Views,
    /// The newest snapshot about which the replicas were asked by a list.
    asked: u64,
    /// Why they could not be asked about a newer one.
    trouble: Option<String>,
}

impl Agreement {
    /// The revision that all replicas should have applied before `observation` is acted upon, when
    /// there is anything new in it.
    pub(super) fn wanted(&self, observation: &Observation) -> Option<u64> {
        let is_new = |seen: &&std::sync::Arc<Seen>| seen.since > self.asked;
        observation.guards.iter().filter(is_new).map(|seen| seen.needed).max()
    }

    /// Asks the replicas how new their views are: by a list when there is something new, since a
    /// watch may not yet tell of a replica that has just begun to answer, and when the watch is silent,
    /// since that does not tell whether a replica has died or the watch hangs.
    pub(super) async fn ask(&mut self, roll: &RollCall, observation: &Observation) {
        let is_settled = self.trouble.is_none() && self.asked == observation.version && !roll.is_in_doubt();
        if is_settled {
            self.views = roll.views();
            return;
        }
        match roll.list().await {
            Ok(views) => {
                self.views = views;
                self.asked = observation.version;
                self.trouble = None;
            }
            Err(trouble) => {
                tracing::warn!(trouble, "it cannot be told how new the view of each replica is");
                self.views = roll.views();
                self.trouble = Some(trouble);
            }
        }
    }

    /// What may be said of a guard that registration and proof cover as `coverage` says.
    pub(super) fn limit(&self, seen: &Seen, coverage: Coverage) -> Coverage {
        let is_covered = matches!(coverage, Coverage::Proved | Coverage::Compared | Coverage::Widened(_));
        if !is_covered || matches!(seen.state, GuardState::Invalid(_)) {
            return coverage;
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|_| seen.since > self.asked) {
            return Coverage::Replicas(trouble.clone());
        }
        let mut behind: Vec<&str> = self.views.behind(seen.stored.uid(), seen.needed).collect();
        if behind.is_empty() {
            return coverage;
        }
        behind.sort_unstable();
        Coverage::Replicas(waiting_for(&behind))
    }
}

/// What a condition says about replicas that lag.
fn waiting_for(replicas: &[&str]) -> String {
    let named = replicas.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = match replicas.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "replica {named}{more} has not applied this version of the guard yet, so a write may still be judged by the former one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_replicas_that_lag_are_named() {
        assert!(waiting_for(&["a"]).starts_with("replica a has not"));
        assert!(waiting_for(&["a", "b", "c", "d", "e"]).starts_with("replica a, b, c and 2 more has not"));
    }
}
