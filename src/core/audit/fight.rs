//! Attempts to restore, spaced out, and whether somebody keeps undoing them.

use std::time::Duration;

use jiff::Timestamp;

use super::after;

/// For so long a restore that is undone counts.
pub const WINDOW: Duration = Duration::from_secs(600);
/// So many restores undone within [`WINDOW`] are a fight.
pub const UNDONE: usize = 3;
/// The first pause between two attempts; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// What is known of restores of one target, and of who undoes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fight {
    /// When the last restore succeeded that is not undone yet.
    restored_at: Option<Timestamp>,
    /// When restores were found undone, the last [`UNDONE`] of them.
    undone: Vec<Timestamp>,
    /// Restores undone, and attempts that failed, since it was last calm.
    setbacks: u32,
    not_before: Option<Timestamp>,
    fighting: bool,
    rival: Option<String>,
}

impl Fight {
    /// One that another process left open, last touched at `since`.
    #[must_use]
    pub fn resume(since: Timestamp) -> Self {
        Self { undone: vec![since], setbacks: 8, fighting: true, ..Self::default() }
    }

    /// Notes a restore that succeeded.
    pub fn restored(&mut self, now: Timestamp) {
        self.restored_at = Some(now);
    }

    /// Whether a restore succeeded that is not known to be undone.
    #[must_use]
    pub fn has_restored(&self) -> bool {
        self.restored_at.is_some()
    }

    /// Notes an attempt that failed; the next one waits.
    pub fn failed(&mut self, now: Timestamp) {
        self.set_back(now);
    }

    /// Notes unapproved content, written by `rival` as far as is known. True when it has become a fight
    /// by that.
    pub fn drifted(&mut self, rival: Option<&str>, now: Timestamp) -> bool {
        if let Some(rival) = rival {
            self.rival = Some(rival.to_owned());
        }
        let undone = self.restored_at.take().is_some_and(|restored| now < after(restored, WINDOW));
        if !undone {
            return false;
        }
        self.undone.retain(|before| now < after(*before, WINDOW));
        self.undone.push(now);
        if self.undone.len() > UNDONE {
            self.undone.remove(0);
        }
        self.set_back(now);
        let begins = !self.fighting && self.undone.len() >= UNDONE;
        self.fighting |= begins;
        begins
    }

    fn set_back(&mut self, now: Timestamp) {
        let doublings = self.setbacks.min(16);
        self.setbacks = self.setbacks.saturating_add(1);
        self.not_before = Some(after(now, FIRST.saturating_mul(1 << doublings).min(LONGEST)));
    }

    /// When the next attempt may be made, unless at once.
    #[must_use]
    pub fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|until| now < *until)
    }

    /// Somebody approved something else, or asked for another attempt: what failed before says nothing.
    pub fn begin_anew(&mut self) {
        self.setbacks = 0;
        self.not_before = None;
    }

    /// Whether somebody keeps undoing restores.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.fighting
    }

    /// Who, as far as is known.
    #[must_use]
    pub fn rival(&self) -> Option<&str> {
        self.rival.as_deref()
    }

    /// Until when what happened counts; a fight is over then, unless more happens. `None` when nothing did.
    #[must_use]
    pub fn counts_until(&self) -> Option<Timestamp> {
        self.undone.iter().chain(&self.restored_at).max().map(|last| after(*last, WINDOW))
    }

    /// Forgets what no longer counts. To be called while the target is as approved.
    pub fn calm_down(&mut self, now: Timestamp) {
        if self.counts_until().is_none_or(|until| now >= until) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_attempt_is_made_at_once_and_pauses_double_up_to_five_minutes() {
        let mut fight = Fight::default();
        assert_eq!(fight.waits_until(at(0)), None);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            fight.failed(at(0));
            pauses.push(fight.waits_until(at(0)).unwrap().as_second());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn three_restores_undone_within_ten_minutes_are_a_fight() {
        let mut fight = Fight::default();
        for (second, begins) in [(0, false), (60, false), (120, true), (180, false)] {
            fight.restored(at(second));
            assert_eq!(fight.drifted(Some("argocd"), at(second + 1)), begins, "{second}");
        }
        assert!(fight.is_on());
        assert_eq!(fight.rival(), Some("argocd"));
    }

    #[test]
    fn drift_that_undoes_nothing_is_no_fight() {
        let mut fight = Fight::default();
        for second in 0..100 {
            assert!(!fight.drifted(None, at(second)));
        }
        for second in [1_000, 2_000, 3_000, 4_000] {
            fight.restored(at(second));
            assert!(!fight.drifted(None, at(second + 700)), "it stood for more than ten minutes");
        }
        assert_eq!(fight.waits_until(at(4_700)), None);
    }

    #[test]
    fn a_fight_is_over_after_ten_quiet_minutes() {
        let mut fight = Fight::default();
        for second in [0, 10, 20] {
            fight.restored(at(second));
            fight.drifted(None, at(second + 1));
        }
        fight.restored(at(60));
        assert_eq!(fight.counts_until(), Some(at(660)));
        fight.calm_down(at(659));
        assert!(fight.is_on());
        fight.calm_down(at(660));
        assert_eq!(fight, Fight::default());
    }
}
