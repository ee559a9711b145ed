//! An episode: from the first failed check of a guard until its target has been as approved for a while.
//!
//! Content that flaps is one episode, so that it is alerted once and resolved once, however often it
//! changes. What counts as a failed check, and when the count begins anew, DESIGN section 6 says.

use std::time::Duration;

use jiff::Timestamp;

use super::after;
use super::alert::AlertReason;

/// Changes of unapproved content within less are one check: a writer in a loop is no proof of anything
/// that lasts.
const CHECKS_APART: Duration = Duration::from_secs(1);
/// So many drifts of one episode are all recorded.
const RECORDED: u32 = 20;
/// Of further ones, one in so long.
const RECORDS_APART: Duration = Duration::from_secs(60);

/// Failed checks of one guard that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// Its transaction id: drift, attempts to restore and alerts are recorded under it.
    pub id: String,
    failures: u32,
    counted_at: Option<Timestamp>,
    last_failed: Timestamp,
    alerted: Option<AlertReason>,
    recorded: u32,
    recorded_at: Option<Timestamp>,
}

/// What made a check fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Approved content is approved no more, or an attempt to restore it failed.
    New,
    /// Unapproved content changed once more.
    Changed,
    /// It is as it was at the last check.
    Lasting,
}

impl Episode {
    /// One that begins at `now`, with no check counted yet.
    #[must_use]
    pub fn begin(id: String, now: Timestamp) -> Self {
        Self {
            id,
            failures: 0,
            counted_at: None,
            last_failed: now,
            alerted: None,
            recorded: 0,
            recorded_at: None,
        }
    }

    /// One that another process left open.
    #[must_use]
    pub fn resume(id: String, failures: u32, last_failed: Timestamp, alerted: Option<AlertReason>) -> Self {
        let counted_at = (failures > 0).then_some(last_failed);
        Self { failures, counted_at, alerted, ..Self::begin(id, last_failed) }
    }

    /// Checks that failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failed check, when it is one more.
    pub fn failed(&mut self, failure: Failure, audit_interval: Duration, now: Timestamp) {
        let apart = match failure {
            Failure::New => Duration::ZERO,
            Failure::Changed => CHECKS_APART,
            // Sweeps come at the interval with jitter, and lists begun anew come in between.
            Failure::Lasting => audit_interval / 2,
        };
        if self.counted_at.is_none_or(|counted| now >= after(counted, apart)) {
            self.failures = self.failures.saturating_add(1);
            self.counted_at = Some(now);
        }
        self.touch(now);
    }

    /// Notes that the target is not as approved, without counting that as a failed check.
    pub fn touch(&mut self, now: Timestamp) {
        self.last_failed = self.last_failed.max(now);
    }

    /// When a clean look ends it.
    #[must_use]
    pub fn closes_at(&self, audit_interval: Duration) -> Timestamp {
        after(self.last_failed, audit_interval)
    }

    /// When a check last failed.
    #[must_use]
    pub fn last_failed(&self) -> Timestamp {
        self.last_failed
    }

    /// What was alerted of it.
    #[must_use]
    pub fn alerted(&self) -> Option<AlertReason> {
        self.alerted
    }

    /// Whether to alert: true once.
    pub fn alert(&mut self, reason: AlertReason) -> bool {
        let first = self.alerted.is_none();
        self.alerted.get_or_insert(reason);
        first
    }

    /// Whether one more drift of it is recorded, or its end. A controller that keeps flapping would
    /// otherwise fill the trail.
    pub fn records(&mut self, now: Timestamp) -> bool {
        let due = self.recorded_at.is_none_or(|last| now >= after(last, RECORDS_APART));
        let records = due || self.recorded < RECORDED;
        if records {
            self.recorded = self.recorded.saturating_add(1);
            self.recorded_at = Some(now);
        }
        records
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn drift_that_lasts_counts_once_a_sweep_however_often_it_is_looked_at() {
        let mut episode = Episode::begin("t".into(), at(0));
        episode.failed(Failure::New, INTERVAL, at(0));
        for second in 1..300 {
            episode.failed(Failure::Lasting, INTERVAL, at(second));
        }
        assert_eq!(episode.failures(), 1);
        episode.failed(Failure::Lasting, INTERVAL, at(580));
        assert_eq!(episode.failures(), 2, "a sweep comes a little early by jitter");
    }

    #[test]
    fn a_writer_in_a_loop_counts_once_a_second() {
        let mut episode = Episode::begin("t".into(), at(0));
        let start = at(0);
        for millisecond in 0..3_000 {
            episode.failed(Failure::Changed, INTERVAL, after(start, Duration::from_millis(millisecond)));
        }
        assert_eq!(episode.failures(), 3);
    }

    #[test]
    fn it_closes_an_interval_after_the_last_failed_look() {
        let mut episode = Episode::begin("t".into(), at(0));
        episode.failed(Failure::New, INTERVAL, at(0));
        episode.failed(Failure::Lasting, INTERVAL, at(100));
        assert_eq!(episode.closes_at(INTERVAL), at(700));
    }

    #[test]
    fn it_is_alerted_once_and_keeps_the_first_reason() {
        let mut episode = Episode::begin("t".into(), at(0));
        assert!(episode.alert(AlertReason::Missing));
        assert!(!episode.alert(AlertReason::Drifted));
        assert_eq!(episode.alerted(), Some(AlertReason::Missing));
    }

    #[test]
    fn of_a_target_that_flaps_the_first_drifts_are_recorded_and_then_one_a_minute() {
        let mut episode = Episode::begin("t".into(), at(0));
        let recorded = (0..600).filter(|second| episode.records(at(*second))).count();
        assert_eq!(recorded, 20 + 9);
    }
}
