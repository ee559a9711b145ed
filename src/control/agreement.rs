//! Whether every replica that answers reviews has applied what is about to be reported as enforced.
//!
//! A guard that was registered before can change without any change of the rules, so that a proof by
//! one replica says nothing of another that still holds the former hash. One number tells: the newest
//! resourceVersion of any guard in a replica's index. Exceptions come and go apart from guards; for them
//! it is one digest. See `docs/design/replicas.md`.

use crate::core::guard::GuardState;
use crate::core::hash::ContentHash;
use crate::store::{Observation, Seen};

use super::conditions::Coverage;
use super::roll::{RollCall, Views, Wanted};

/// Replicas that a condition names.
const MOST_NAMED: usize = 3;

/// What is known of the other replicas.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    views: Views,
    /// The newest snapshot about which the replicas were asked by a list.
    asked: u64,
    /// The exceptions in it.
    asked_exceptions: Option<ContentHash>,
    /// Why they could not be asked about a newer one.
    trouble: Option<String>,
}

impl Agreement {
    /// What all replicas should have applied before `observation` is acted upon, when there is anything new
    /// in it.
    pub(super) fn wanted(&self, observation: &Observation) -> Option<Wanted> {
        let is_new = |seen: &&std::sync::Arc<Seen>| seen.since > self.asked;
        let revision = observation.guards.iter().filter(is_new).map(|seen| seen.needed).max();
        let exceptions = observation.exceptions.filter(|now| self.asked_exceptions != Some(*now));
        let is_wanted = revision.is_some() || exceptions.is_some();
        is_wanted.then(|| Wanted { revision: revision.unwrap_or_default(), exceptions })
    }

    /// Asks the replicas how new their views are: by a list when there is something new, since a
    /// watch may not yet tell of a replica that has just begun to answer, and when the watch is silent,
    /// since that does not tell whether a replica has died or the watch hangs.
    pub(super) async fn ask(&mut self, roll: &RollCall, observation: &Observation) {
        let is_old = self.asked == observation.version && self.asked_exceptions == observation.exceptions;
        let is_settled = self.trouble.is_none() && is_old && !roll.is_in_doubt();
        if is_settled {
            self.views = roll.views();
            return;
        }
        match roll.list().await {
            Ok(views) => {
                self.views = views;
                self.asked = observation.version;
                self.asked_exceptions = observation.exceptions;
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
        let what = "this version of the guard yet, so a write may still be judged by the former one";
        Coverage::Replicas(format!("{} {what}", not_applied(&behind)))
    }

    /// Why it cannot be said yet that every replica lets pass what the exceptions of `observation` do, and
    /// nothing else.
    pub(super) fn exceptions_pending(&self, observation: &Observation) -> Option<String> {
        let Some(exceptions) = observation.exceptions else { return Some("nothing is known yet".to_owned()) };
        if let Some(trouble) = self.trouble.as_ref().filter(|_| self.asked_exceptions != Some(exceptions)) {
            return Some(trouble.clone());
        }
        let mut differing: Vec<&str> = self.views.differing(exceptions).collect();
        differing.sort_unstable();
        let what = "the newest exceptions yet, so a write may still be judged without them";
        (!differing.is_empty()).then(|| format!("{} {what}", not_applied(&differing)))
    }
}

/// What a condition says about replicas that lag.
fn not_applied(replicas: &[&str]) -> String {
    let named = replicas.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = match replicas.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("replica {named}{more} has not applied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_replicas_that_lag_are_named() {
        assert!(not_applied(&["a"]).starts_with("replica a has not"));
        assert!(not_applied(&["a", "b", "c", "d", "e"]).starts_with("replica a, b, c and 2 more has not"));
    }
}
