//! Pauses: with chance in them, so that many watches do not all come back at once, and longer after each
//! failure.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_millis(400);
/// Longest pause, so that drift is seen soon after an outage.
const LONGEST: Duration = Duration::from_secs(10);

/// Between 0 and 1, by chance.
fn chance() -> f64 {
    // Keyed anew each time; no more is asked of it than that replicas differ.
    let drawn = RandomState::new().build_hasher().finish() >> 11;
    drawn as f64 / (1u64 << 53) as f64
}

/// `about`, up to `share` of it longer or shorter.
pub(super) fn jittered(about: Duration, share: f64) -> Duration {
    about.mul_f64(1.0 - share + 2.0 * share * chance())
}

/// Growing pauses.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        jittered(pause.min(LONGEST), 0.25)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= FIRST * 2 && pauses[1] > pauses[0] / 2, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST * 5 / 4), "{pauses:?}");
        assert!(pauses[39] >= LONGEST * 3 / 4, "{pauses:?}");
    }

    #[test]
    fn chance_keeps_within_its_share() {
        let all: Vec<Duration> = (0..200).map(|_| jittered(Duration::from_secs(100), 0.1)).collect();
        assert!(all.iter().all(|pause| (90.0..=110.0).contains(&pause.as_secs_f64())), "{all:?}");
        assert!(all.windows(2).any(|two| two[0] != two[1]));
    }
}
