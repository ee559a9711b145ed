//! When discovery is asked again. Pure; time comes in.

use std::time::{Duration, Instant};

/// Without any sign of change: an API server upgrade may serve other versions.
const REFRESH: Duration = Duration::from_secs(600);
/// After a CRD changed, discovery follows within about a second.
const AFTER_CHANGE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3)];
/// First and longest pause while something is unresolved or discovery fails.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// When the next look at discovery is due.
#[derive(Debug)]
pub(super) struct Schedule {
    last: Instant,
    retry: Option<Duration>,
    extra: Vec<Instant>,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, retry: None, extra: Vec::new() }
    }

    /// Discovery was read at `now`; `wanting` when that did not give all that is needed.
    pub(super) fn done(&mut self, now: Instant, wanting: bool) {
        self.last = now;
        self.extra.retain(|due| *due > now);
        self.retry = wanting.then(|| self.retry.map_or(FIRST_RETRY, |pause| (pause * 2).min(LONGEST_RETRY)));
    }

    /// A CRD changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.extra = AFTER_CHANGE.iter().map(|pause| now + *pause).collect();
    }

    /// Something new cannot be resolved: soon, and often at first.
    pub(super) fn unresolved(&mut self) {
        self.retry = Some(FIRST_RETRY);
    }

    /// Everything is resolved.
    pub(super) fn resolved(&mut self) {
        self.retry = None;
    }

    pub(super) fn due(&self) -> Instant {
        let retry = self.last + self.retry.unwrap_or(REFRESH);
        self.extra.iter().copied().fold(retry, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_nothing_wanting_it_is_asked_again_after_ten_minutes() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.done(start, false);
        assert_eq!(schedule.due(), start + Duration::from_secs(600));
    }

    #[test]
    fn pauses_grow_while_something_is_wanting_and_start_over_for_something_new() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.done(start, true);
            pauses.push(schedule.due() - start);
        }
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], Duration::from_secs(30));
        schedule.unresolved();
        assert_eq!(schedule.due(), start + Duration::from_millis(100));
        schedule.resolved();
        assert_eq!(schedule.due(), start + Duration::from_secs(600));
    }

    #[test]
    fn a_changed_crd_is_looked_at_soon_and_once_more_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.done(start, false);
        schedule.changed(start);
        assert_eq!(schedule.due(), start + Duration::from_millis(100));
        schedule.done(start + Duration::from_millis(100), false);
        assert_eq!(schedule.due(), start + Duration::from_secs(3));
        schedule.done(start + Duration::from_secs(3), false);
        assert_eq!(schedule.due(), start + Duration::from_secs(603));
    }
}
