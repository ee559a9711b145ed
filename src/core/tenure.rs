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
    /// How often holder and candidates try.
    pub retry: Duration,
}

impl Default for Terms {
    /// Takeover within 15 s of a kill, and time for two failed renewals.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
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
}
