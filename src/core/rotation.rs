//! When certificates are made, and when they are due for renewal.
//!
//! Pure: the time comes in as an argument. What always holds: a leaf never outlives the authority
//! that signed it, and it is renewed long before it ends, so that a renewal that fails can be tried
//! again for hours without anybody noticing. An authority gives way in four steps, and each replica
//! takes each by what it sees for itself: a successor is put into the Secret at two thirds of the
//! life; all register old and new; once that stood registered for a while the successor signs; the
//! old one is trusted until it has ended, or until every leaf it can have signed has.

use jiff::{SignedDuration, Timestamp};

/// How far a certificate is dated back: the clocks of API servers and of this process may differ.
pub const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
/// How long an authority lives. Long, because replacing one means that every API server must have
/// learned the new one before the first leaf is signed by it.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How long a leaf lives. Short, because its key is in the memory of a running process only: a
/// stolen one is worth little, and renewal is practised every day instead of once a year.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// How long the registration must have named an authority before a leaf of it is served. API servers
/// follow within milliseconds of the write; one that lags is given this long.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(60);
/// How much longer than its leaves an authority is trusted that is in the Secret no more: clocks
/// differ, and a leaf may have been signed just before.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// Longest and shortest pause between two looks at the Secret and the clock.
const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(60);
const LONGEST_LOOK_WHEN_TOLD: SignedDuration = SignedDuration::from_secs(600);
const SHORTEST_LOOK: SignedDuration = SignedDuration::from_millis(200);

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// An authority.
    pub authority: SignedDuration,
    /// A leaf.
    pub leaf: SignedDuration,
    /// From the registration of an authority to the first leaf of it.
    pub settle: SignedDuration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { authority: AUTHORITY_LIFETIME, leaf: LEAF_LIFETIME, settle: SETTLE }
    }
}

impl Lifetimes {
    /// Pause between two looks. A successor must be seen by every replica before anybody serves it,
    /// and no third of a leaf may pass unseen.
    #[must_use]
    pub fn look(&self) -> SignedDuration {
        (self.settle / 3).min(self.leaf / 12).min(LONGEST_LOOK).max(SHORTEST_LOOK)
    }

    /// The same while nothing is under way and a watch tells of changes of the Secret at once. Watches fall silent,
    /// too.
    #[must_use]
    pub fn look_when_told(&self) -> SignedDuration {
        (self.leaf / 12).min(LONGEST_LOOK_WHEN_TOLD).max(SHORTEST_LOOK)
    }
}

/// What to do about the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Put a successor beside the authority that signs.
    Announce,
    /// Let the successor sign from now on.
    Promote,
    /// Put a new authority in place of one that has ended without a successor.
    Replace,
}

/// What to do about the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is good.
    Stay,
    /// Sign a new one with the authority that is served already.
    Renew,
    /// Sign one with the authority in the Secret.
    Follow,
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served<Id> {
    /// The authority of the leaf.
    pub authority: Id,
    /// When that authority is valid.
    pub authority_validity: Validity,
    /// When the leaf is valid.
    pub leaf: Validity,
}

/// What is registered, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust<Id> {
    /// Nothing is known yet.
    Unknown,
    /// No entry: no API server calls us.
    Nobody,
    /// These authorities, by every entry.
    Only(Vec<Id>),
}

/// What one replica has seen, with since when.
#[derive(Debug, Clone)]
pub struct Sight<Id> {
    /// From the registration of an authority to the first leaf of it.
    settle: SignedDuration,
    /// For how long an authority that was last seen is registered.
    keep: SignedDuration,
    trust: Trust<Id>,
    /// Since when each trusted authority has been without a break.
    since: Vec<(Id, Timestamp)>,
    /// Authorities that were in the Secret or served, and when last.
    known: Vec<(Id, Timestamp)>,
}

impl<Id: Clone + PartialEq> Sight<Id> {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(lifetimes: Lifetimes) -> Self {
        Self::keeping(lifetimes.settle, lifetimes.leaf + MARGIN.min(lifetimes.leaf))
    }

    /// The same where an authority is registered for `keep` after it was last seen.
    pub(super) fn keeping(settle: SignedDuration, keep: SignedDuration) -> Self {
        Self { settle, keep, trust: Trust::Unknown, since: Vec::new(), known: Vec::new() }
    }

    /// Takes in what is registered at `now`.
    pub fn registered(&mut self, trust: Trust<Id>, now: Timestamp) {
        let ids: &[Id] = if let Trust::Only(ids) = &trust { ids } else { &[] };
        self.since.retain(|(id, _)| ids.contains(id));
        for id in ids {
            match self.since.iter_mut().find(|(seen, _)| seen == id) {
                // A clock that was set back must not make it wait for what it has seen.
                Some((_, since)) => *since = (*since).min(now),
                None => self.since.push((id.clone(), now)),
            }
        }
        self.trust = trust;
    }

    /// Takes in what is in the Secret, or served, at `now`.
    pub fn present(&mut self, ids: impl IntoIterator<Item = Id>, now: Timestamp) {
        for id in ids {
            match self.known.iter_mut().find(|(known, _)| *known == id) {
                Some((_, last)) => *last = now,
                None => self.known.push((id, now)),
            }
        }
        self.known.retain(|(_, last)| now <= shift(*last, self.keep));
    }

    /// The authorities to be registered, in no order that means anything.
    pub fn bundle(&self) -> impl Iterator<Item = &Id> {
        self.known.iter().map(|(id, _)| id)
    }

    /// Whether every API server has known `id` for long enough, or none calls us.
    pub(super) fn settled(&self, id: &Id, now: Timestamp) -> bool {
        match self.trust {
            Trust::Unknown => false,
            Trust::Nobody => true,
            Trust::Only(_) => {
                self.since.iter().any(|(seen, since)| seen == id && shift(*since, self.settle) <= now)
            }
        }
    }

    /// Whether no API server accepts a leaf that only `ids` verify.
    pub(super) fn distrusts(&self, ids: &[Id]) -> bool {
        matches!(&self.trust, Trust::Only(all) if !ids.iter().any(|id| all.contains(id)))
    }

    /// What is due in the Secret, whose authority is valid as `current` says and has `next` beside it.
    #[must_use]
    pub fn due(&self, current: Validity, next: Option<(&Id, Validity)>, now: Timestamp) -> Due {
        let next = next.filter(|(_, validity)| !validity.has_ended(now));
        match next {
            // Nobody can be served by the old one any more: there is nothing to wait for.
            Some((_, validity)) if current.has_ended(now) && validity.contains(now) => Due::Promote,
            Some((id, validity)) if validity.contains(now) && self.settled(id, now) => Due::Promote,
            Some(_) => Due::Nothing,
            None if current.has_ended(now) => Due::Replace,
            None if current.renewal_due() <= now => Due::Announce,
            None => Due::Nothing,
        }
    }

    /// What to do about the leaf while `found` signs according to the Secret.
    #[must_use]
    pub fn step(
        &self,
        served: Option<&Served<Id>>,
        found: &Id,
        found_validity: Validity,
        now: Timestamp,
    ) -> Step {
        let Some(served) = served else { return Step::Follow };
        let ours_ended = served.authority_validity.has_ended(now);
        if served.authority != *found && found_validity.contains(now) {
            let distrusted = self.distrusts(std::slice::from_ref(&served.authority));
            // Where nobody accepts what is served, there is nothing to lose.
            if ours_ended || distrusted || self.settled(found, now) {
                return Step::Follow;
            }
        }
        if served.leaf.renewal_due() <= now && !ours_ended { Step::Renew } else { Step::Stay }
    }
}

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
        // Not by more than a part of the life: renewal is due by the dates in the certificate.
        let backdated = BACKDATED.min(lifetime / 24);
        Self { not_before: shift(now, -backdated), not_after: shift(now, lifetime) }
    }

    /// Whether `now` lies within.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether it is over at `now`.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.not_after < now
    }

    /// The validity of a leaf signed at `now` to live for `lifetime`, under an authority of this
    /// validity; `None` when that authority is not valid at `now`.
    #[must_use]
    pub fn leaf(&self, now: Timestamp, lifetime: SignedDuration) -> Option<Self> {
        let own = Self::starting(now, lifetime);
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
        let leaf = authority().leaf(at("2026-06-01T00:00:00Z"), LEAF_LIFETIME).unwrap();
        assert_eq!(leaf.not_before, at("2026-05-31T23:00:00Z"));
        assert_eq!(leaf.not_after, at("2026-06-02T00:00:00Z"));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = authority();
        let leaf = authority.leaf(at("2027-03-01T11:00:00Z"), LEAF_LIFETIME).unwrap();
        assert_eq!(leaf.not_after, authority.not_after);
        assert_eq!(authority.leaf(at("2027-03-01T12:00:01Z"), LEAF_LIFETIME), None);
        assert_eq!(authority.leaf(at("2026-03-01T10:59:59Z"), LEAF_LIFETIME), None);
    }

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let leaf = Validity { not_before: at("2026-06-01T00:00:00Z"), not_after: at("2026-06-02T00:00:00Z") };
        assert_eq!(leaf.renewal_due(), at("2026-06-01T16:00:00Z"));
    }

    #[test]
    fn a_short_life_is_not_dated_back_beyond_its_own_renewal() {
        let short = Validity::starting(at(NOW), SignedDuration::from_secs(24));
        assert!(short.renewal_due() > at("2026-03-01T12:00:15Z"));
        assert!(short.renewal_due() < at("2026-03-01T12:00:17Z"));
    }
}

#[cfg(test)]
#[path = "rotation_simulation.rs"]
mod simulation;
