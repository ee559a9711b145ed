//! What the server is doing: how many requests, since when none, and whether it is stopping.
//!
//! Shared by everything that serves; only atomics, since each request passes through.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts of a running server.
#[derive(Debug)]
pub struct Activity {
    began: Instant,
    draining: AtomicBool,
    in_flight: AtomicUsize,
    /// Milliseconds from `began` to the last moment somebody connected, or a request began or ended.
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// Counts a request for as long as the guard lives.
    #[must_use]
    pub fn enter(&self) -> Entered<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Entered { activity: self }
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How long nobody has connected and no request has begun or ended; zero while one is being answered.
    #[must_use]
    pub fn quiet_for(&self) -> Duration {
        if self.in_flight() > 0 {
            return Duration::ZERO;
        }
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    /// From now on the server is stopping: not ready, and clients are asked to go elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Notes that somebody came, who is about to ask something.
    pub fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Entered<'a> {
    activity: &'a Activity,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_it_is_over() {
        let activity = Activity::default();
        let first = activity.enter();
        let second = activity.enter();
        assert_eq!(activity.in_flight(), 2);
        drop(first);
        assert_eq!((activity.in_flight(), activity.quiet_for()), (1, Duration::ZERO));
        drop(second);
        assert_eq!(activity.in_flight(), 0);
    }
}
