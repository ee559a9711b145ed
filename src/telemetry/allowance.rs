//! A bounded rate: how often something may happen.

use std::time::Instant;

/// A bucket of permissions that fills with time. Time is an argument, so that it can be tested.
#[derive(Debug)]
pub struct Allowance {
    burst: f64,
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Allowance {
    /// A full bucket: `burst` permissions at once, and `per_second` after that.
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { burst, per_second: per_second.into(), left: burst, filled: now }
    }

    fn left(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.left + passed * self.per_second).min(self.burst)
    }

    /// Whether nothing was taken for so long that it is as good as a new one.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.left(now) >= self.burst
    }

    /// Takes one permission at `now`; false when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        self.left = self.left(now);
        self.filled = now;
        let any = self.left >= 1.0;
        if any {
            self.left -= 1.0;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_a_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(10, 4, start);
        let mut taken = |at: Instant| (0..100).filter(|_| allowance.take(at)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + Duration::from_secs(1)), 4);
        assert_eq!(taken(start + Duration::from_secs(1000)), 10);
    }
}
