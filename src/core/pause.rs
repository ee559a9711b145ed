//! Ways through a guard that end by themselves: `spec.suspend` and exceptions.
//!
//! Both end by one rule ([`end`]), whose result is computed anew at every use, so that a long `until`
//! in an old object never counts for more than the installation allows.

use jiff::{SignedDuration, Timestamp};

/// How long a pause may last unless the installation says otherwise (`--max-exception`).
pub const LONGEST: SignedDuration = SignedDuration::from_hours(8);

/// When a pause that was asked for at `since` until `until` ends: never later than `longest` after
/// `since`. `since` is when the guard was signed, or when the object was made.
#[must_use]
pub fn end(until: Timestamp, since: Timestamp, longest: SignedDuration) -> Timestamp {
    until.min(since.checked_add(longest).unwrap_or(Timestamp::MAX))
}

/// What a pause was asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PausedBy {
    /// `spec.suspend` of the guard itself.
    Suspend,
    /// The `DriftGuardException` of this name in the guard's namespace.
    Exception(String),
}

/// A time in which writes pass with a warning and nothing is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// By what.
    pub by: PausedBy,
    /// Why, in the words of whoever asked for it.
    pub reason: String,
    /// When it ends, as [`end`] says. Exclusive: at that very moment it is over.
    pub until: Timestamp,
}

impl Pause {
    /// Whether writes pass at `now`.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// Of several pauses the one in force at `now` that lasts longest.
#[must_use]
pub fn in_force(pauses: &[Pause], now: Timestamp) -> Option<&Pause> {
    pauses.iter().filter(|pause| pause.is_active(now)).max_by_key(|pause| pause.until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn a_pause_ends_when_it_says_but_never_later_than_is_allowed() {
        let longest = SignedDuration::from_secs(100);
        assert_eq!(end(at(50), at(0), longest), at(50));
        assert_eq!(end(at(500), at(0), longest), at(100));
        assert_eq!(end(Timestamp::MAX, Timestamp::MAX, longest), Timestamp::MAX);
    }

    #[test]
    fn at_its_end_it_is_over() {
        let pause = Pause { by: PausedBy::Suspend, reason: String::new(), until: at(10) };
        assert!(pause.is_active(at(9)));
        assert!(!pause.is_active(at(10)));
    }
}
