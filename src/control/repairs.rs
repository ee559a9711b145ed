//! How soon an altered configuration is repaired. Pure; time comes in.
//!
//! The first repair is made at once. When somebody keeps altering it, pauses grow, so that two
//! controllers do not flood the API server; the condition of every guard then says so.

use std::time::Duration;

use tokio::time::Instant;

/// Pause after the first repair; doubled with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause: writes are unguarded for so long at worst.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long without a repair, the next one is made at once again.
const QUIET: Duration = Duration::from_secs(600);

/// Repairs made so far.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    last: Option<(Instant, Duration)>,
}

impl Repairs {
    /// Allows a repair at `now` and counts it, or says how long to wait.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let pause = match self.last {
            Some((last, pause)) if now < last + pause => return Err(last + pause - now),
            Some((last, pause)) if now < last + QUIET => (pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some((now, pause));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_made_at_once_and_later_ones_wait_longer_and_longer() {
        let mut repairs = Repairs::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(repairs.admit(now), Ok(()));
            let Err(pause) = repairs.admit(now) else { unreachable!("two repairs at one moment") };
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_quiet_time_is_forgiven() {
        let mut repairs = Repairs::default();
        let start = Instant::now();
        for second in [0, 1, 3] {
            assert_eq!(repairs.admit(start + Duration::from_secs(second)), Ok(()));
        }
        let later = start + Duration::from_secs(700);
        assert_eq!(repairs.admit(later), Ok(()));
        assert_eq!(repairs.admit(later), Err(Duration::from_secs(1)));
    }
}
