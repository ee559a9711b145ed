//! Who may write: the rules of the one Lease, as client-go's leader election has them.
//!
//! Clocks of different machines are never compared. A candidate watches whether the Lease *changes*,
//! and counts its duration from when it saw the last change, on its own monotonic clock. A holder
//! counts from before it sent its last successful renewal, and stops earlier than others may start,
//! so that two never write at a time: losing is a matter of time alone, not of hearing from another.

use std::time::Duration;

/// How the Lease is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// After so long without a change, others may take the Lease.
    pub duration: Duration,
    /// A holder that has not renewed for so long has lost it. Shorter than `duration`.
    pub deadline: Duration,
    /// How often the holder renews.
    pub retry: Duration,
    /// How often candidates look, and a holder that could not renew tries again.
    pub look: Duration,
}

impl Default for Terms {
    /// Takeover within 15 s of a kill, time for two failed renewals, and time for a registration that was sent at
    /// the last moment to arrive before another may write. What remediation and statuses send may take longer: it
    /// names the version of what it changes, or says what was seen. A candidate sees the last renewal up to one look
    /// late, and that there was no further one up to one look late again.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(12),
            deadline: Duration::from_secs(8),
            retry: Duration::from_secs(2),
            look: Duration::from_secs(1),
        }
    }
}

/// The Lease as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// `spec.holderIdentity`; empty when it was released.
    pub holder: String,
    /// `metadata.resourceVersion`: another one means that the Lease changed.
    pub version: String,
}

/// What a candidate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours already: renew.
    Renew,
    /// Nobody holds it, or the holder stopped renewing: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// What the candidate `me` may do with a Lease that it saw change `unchanged_for` ago.
#[must_use]
pub fn claim(me: &str, observed: &Observed, unchanged_for: Duration, terms: &Terms) -> Claim {
    if observed.holder == me {
        Claim::Renew
    } else if observed.holder.is_empty() || unchanged_for > terms.duration {
        Claim::Take
    } else {
        Claim::Wait
    }
}

/// Whether a holder whose last successful renewal was sent `ago` is to renew. Half a look early: clocks tick when
/// they do, and one that is missed costs a whole one.
#[must_use]
pub fn is_renewal_due(ago: Duration, terms: &Terms) -> bool {
    ago + terms.look / 2 >= terms.retry
}

/// Whether a holder whose last successful renewal was sent `ago` may still write.
#[must_use]
pub fn holds(ago: Duration, terms: &Terms) -> bool {
    ago < terms.deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(holder: &str) -> Observed {
        Observed { holder: holder.into(), version: "1".into() }
    }

    #[test]
    fn a_lease_that_changes_is_left_to_its_holder() {
        let terms = Terms::default();
        assert_eq!(claim("me", &observed("other"), terms.duration, &terms), Claim::Wait);
        assert_eq!(
            claim("me", &observed("other"), terms.duration + Duration::from_millis(1), &terms),
            Claim::Take
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_our_own_renewed() {
        let terms = Terms::default();
        assert_eq!(claim("me", &observed(""), Duration::ZERO, &terms), Claim::Take);
        assert_eq!(claim("me", &observed("me"), Duration::MAX, &terms), Claim::Renew);
    }

    #[test]
    fn a_holder_stops_writing_before_another_may_start() {
        let terms = Terms::default();
        assert!(holds(Duration::ZERO, &terms));
        assert!(!holds(terms.deadline, &terms));
        assert!(terms.deadline < terms.duration);
    }

    #[test]
    fn a_holder_renews_less_often_than_others_look() {
        let terms = Terms::default();
        assert!(!is_renewal_due(terms.look, &terms));
        assert!(is_renewal_due(terms.retry - Duration::from_millis(50), &terms));
    }

    #[test]
    fn another_replica_takes_over_within_15_s_of_a_kill_however_its_tries_fall() {
        let terms = Terms::default();
        assert!(terms.duration + 2 * terms.look < Duration::from_secs(15));
        assert!(terms.deadline > terms.retry + 2 * terms.look, "time for two renewals that fail");
    }
}
