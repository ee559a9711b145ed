//! When certificates are made, and when they are due for renewal.
//!
//! Pure: the time comes in as an argument. What always holds: a leaf never outlives the authority
//! that signed it, and it is renewed long before it ends, so that a renewal that fails can be tried
//! again for hours without anybody noticing.

use jiff::{SignedDuration, Timestamp};

/// How far a certificate is dated back: the clocks of API servers and of this process may differ.
pub const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
/// How long an authority lives. Long, because replacing one means that every API server must have
/// learned the new one before the first leaf is signed by it.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How long a leaf lives. Short, because its key is in the memory of a running process only: a
/// stolen one is worth little, and renewal is practised every day instead of once a year.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Shortest wait between two renewals, so that a leaf cut short by the end of its authority does
/// not turn renewal into a loop.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// The period in which a certificate is valid; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// A period that starts at `now`, dated back for clocks that run late, and lasts `lifetime`.
    #[must_use]
    pub fn starting(now: Timestamp, lifetime: SignedDuration) -> Self {
        Self { not_before: shift(now, -BACKDATED), not_after: shift(now, lifetime) }
    }

    /// Whether `now` lies within.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The validity of a leaf signed at `now` under an authority of this validity; `None` when that
    /// authority is not valid at `now`.
    #[must_use]
    pub fn leaf(&self, now: Timestamp) -> Option<Self> {
        let own = Self::starting(now, LEAF_LIFETIME);
        self.contains(now).then(|| Self {
            not_before: own.not_before.max(self.not_before),
            not_after: own.not_after.min(self.not_after),
        })
    }

    /// When renewal is due: after two thirds of the period.
    #[must_use]
    pub fn renewal_due(&self) -> Timestamp {
        shift(self.not_after, -(self.not_after.duration_since(self.not_before) / 3))
    }

    /// How long to wait at `now` before renewing.
    #[must_use]
    pub fn wait_for_renewal(&self, now: Timestamp) -> SignedDuration {
        self.renewal_due().duration_since(now).max(SHORTEST_WAIT)
    }
}

/// `moment` moved by `by`, held at the ends of what a timestamp can express.
fn shift(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot read its own times should stop.
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn authority() -> Validity {
        Validity::starting(at(NOW), AUTHORITY_LIFETIME)
    }

    #[test]
    fn a_leaf_lives_a_day_and_is_valid_for_clocks_that_run_late() {
        let leaf = authority().leaf(at("2026-06-01T00:00:00Z")).unwrap();
        assert_eq!(leaf.not_before, at("2026-05-31T23:00:00Z"));
        assert_eq!(leaf.not_after, at("2026-06-02T00:00:00Z"));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = authority();
        let leaf = authority.leaf(at("2027-03-01T11:00:00Z")).unwrap();
        assert_eq!(leaf.not_after, authority.not_after);
        assert_eq!(authority.leaf(at("2027-03-01T12:00:01Z")), None);
        assert_eq!(authority.leaf(at("2026-03-01T10:59:59Z")), None);
    }

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let leaf = Validity { not_before: at("2026-06-01T00:00:00Z"), not_after: at("2026-06-02T00:00:00Z") };
        assert_eq!(leaf.renewal_due(), at("2026-06-01T16:00:00Z"));
        assert_eq!(leaf.wait_for_renewal(at("2026-06-01T10:00:00Z")), SignedDuration::from_hours(6));
    }

    #[test]
    fn a_renewal_that_is_overdue_is_not_tried_in_a_loop() {
        let leaf = authority().leaf(at(NOW)).unwrap();
        assert_eq!(leaf.wait_for_renewal(at("2030-01-01T00:00:00Z")), SHORTEST_WAIT);
    }
}
