//! What is kept of a guard while something is open about it: drift, an episode, an attempt to restore.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::guard::GuardId;
use crate::core::hash::ContentHash;

use super::episode::Episode;
use super::fight::Fight;
use super::finding::Reason;
use super::sight::Present;
use super::step::{LastDrift, LastRemediation, Report};

/// An attempt to restore of which nothing is heard for so long is lost.
const LOST: Duration = Duration::from_secs(300);
/// Most approvals that a guard may have had within one grace for each of them to be awaited.
const AWAITED: usize = 4;
/// For how many audit intervals it is said that a watch has missed a change. Within two of them, each longer or
/// shorter by a tenth, a sweep has looked again.
const MISSED_INTERVALS: u32 = 2;

/// What is open about one guard.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Open {
    pub(super) guard: Option<GuardId>,
    pub(super) interval: Duration,
    pub(super) drift: Option<Drift>,
    pub(super) episode: Option<Episode>,
    pub(super) fight: Fight,
    pub(super) awaited: Option<Awaited>,
    /// Hashes that are equivalent, until the guard itself approves them.
    pub(super) equivalents: Vec<ContentHash>,
    /// The generation of the guard for which they were last said to be.
    pub(super) equivalent_for: Option<i64>,
    pub(super) attempt: Option<Attempt>,
    /// The incident that holds remediation back.
    pub(super) incident: Option<String>,
    /// What the last failed attempt said.
    pub(super) trouble: Option<String>,
    pub(super) last_drift: Option<LastDrift>,
    pub(super) last_remediation: Option<LastRemediation>,
    pub(super) said: Option<Report>,
    /// What a person asked for last ([`Report::heeded_restore`]).
    pub(super) heeded: Option<String>,
    /// When the target was last read alone.
    pub(super) read_at: Option<Timestamp>,
    /// Whether no watch tells of the target, so that it must be read again and again.
    pub(super) is_unwatched: bool,
    /// When a sweep last found what a watch should have told, while that is to be said.
    pub(super) missed_at: Option<Timestamp>,
}

/// Content that is not approved.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drift {
    pub(super) content: Content,
    pub(super) reason: Reason,
    /// It changed under a pause: a person decides what becomes of it, even when that has ended.
    pub(super) is_excepted: bool,
    /// A person has asked for it to be put back, whatever the guard says of that by itself.
    pub(super) is_asked: bool,
    /// It began while its namespace was being deleted: should it outlast that, it counts as begun then.
    pub(super) is_uncounted: bool,
    /// From when on it is alerted by its reason alone, where that is alerted at once.
    pub(super) alert_from: Timestamp,
}

/// What was found instead of approved content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Absent,
    Hash(ContentHash),
    /// Another process saw it, and its hash is not to be written down.
    Unknown,
}

impl Content {
    pub(super) fn of(present: Option<&Present>) -> Self {
        present.map_or(Self::Absent, |present| Self::Hash(present.hash))
    }

    pub(super) fn is(self, present: Option<&Present>) -> bool {
        match (self, present) {
            (Self::Absent, None) | (Self::Unknown, Some(_)) => true,
            (Self::Hash(hash), Some(present)) => hash == present.hash,
            _ => false,
        }
    }
}

/// What was approved before the guard was changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Awaited {
    hashes: Vec<ContentHash>,
    /// The content that is seen next counts as approved before: another process knew its hash, which is
    /// not to be written down.
    takes_next: bool,
    pub(super) since: Timestamp,
}

impl Awaited {
    pub(super) fn new(hash: Option<ContentHash>, since: Timestamp) -> Self {
        Self { hashes: hash.into_iter().collect(), takes_next: hash.is_none(), since }
    }

    /// The guard was changed once more.
    pub(super) fn and(mut self, hash: ContentHash, since: Timestamp) -> Self {
        self.hashes.retain(|known| *known != hash);
        self.hashes.push(hash);
        if self.hashes.len() > AWAITED {
            self.hashes.remove(0);
        }
        self.since = since;
        self
    }

    /// Nobody waits for it to be applied any longer.
    pub(super) fn no_longer(&mut self) {
        self.since = Timestamp::MIN;
    }

    pub(super) fn note(&mut self, present: &Present) {
        if std::mem::take(&mut self.takes_next) {
            self.hashes.push(present.hash);
        }
    }

    pub(super) fn holds(&self, hash: ContentHash) -> bool {
        self.takes_next || self.hashes.contains(&hash)
    }
}

/// An attempt to restore that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) transaction_id: String,
    pub(super) generation: i64,
    pub(super) since: Timestamp,
}

impl Attempt {
    /// From when on it is taken to be lost.
    pub(super) fn lost_at(&self) -> Timestamp {
        super::after(self.since, LOST)
    }
}

impl Open {
    /// Whether nothing is open, so that it need not be kept.
    pub(super) fn is_idle(&self) -> bool {
        self.drift.is_none()
            && self.episode.is_none()
            && self.fight == Fight::default()
            && self.awaited.is_none()
            && self.equivalents.is_empty()
            && self.attempt.is_none()
            && !self.is_unwatched
            && self.missed_at.is_none()
    }

    /// Notes whether a look shows what a watch should have told. By and by the sweeps have shown that no more
    /// was missed.
    pub(super) fn note_missed(&mut self, is_missed: bool, now: Timestamp) {
        if is_missed {
            self.missed_at = Some(now);
        } else if self.missed_until().is_some_and(|until| until <= now) {
            self.missed_at = None;
        }
    }

    /// Until when it is said that a watch has missed a change, unless it misses another.
    pub(super) fn missed_until(&self) -> Option<Timestamp> {
        self.missed_at.map(|at| super::after(at, self.interval * MISSED_INTERVALS))
    }

    /// Failed checks in a row.
    pub(super) fn failures(&self) -> u32 {
        self.episode.as_ref().map_or(0, Episode::failures)
    }
}
