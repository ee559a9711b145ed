//! How long to wait before the next attempt.
//!
//! Exponential, so that a receiver that is down is not beaten, and with jitter, so that many senders do
//! not come back together. Chance is an argument; [`chance`] is where it comes from.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Shortest and longest pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure, before jitter.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The pause after this many failures in a row: between half of `first * 2^(failures - 1)` and all of
    /// it, by `chance` of 0 to 1. Never less than half, or a few unlucky draws would make a burst.
    #[must_use]
    pub fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(30));
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// A number from 0 to 1, good enough for jitter: the keys of hash maps are random.
#[must_use]
pub fn chance() -> f64 {
    let drawn = RandomState::new().build_hasher().finish() >> 32;
    // 32 bits fit an f64 exactly.
    u32::try_from(drawn).map_or(0.5, |drawn| f64::from(drawn) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff::default();
        let seconds = |failures| backoff.pause(failures, 1.0).as_secs();
        let pauses: Vec<u64> = (1..=10).map(seconds).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(seconds(u32::MAX), 300);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(4, 0.0), Duration::from_secs(4));
        assert_eq!(backoff.pause(4, 0.5), Duration::from_secs(6));
        assert_eq!(backoff.pause(4, -7.0), Duration::from_secs(4));
    }

    #[test]
    fn chance_differs_from_draw_to_draw() {
        let drawn: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(drawn.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(drawn.iter().any(|number| *number < 0.5) && drawn.iter().any(|number| *number >= 0.5));
    }
}
