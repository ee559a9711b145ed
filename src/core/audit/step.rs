//! What is to be done after a look. In the order in which they stand.

use jiff::Timestamp;

use crate::core::hash::ContentHash;

use super::alert::Alert;
use super::attribution::Attribution;
use super::finding::{Reason, Truth};
use super::sight::Look;

/// One thing to do about a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Say this in its status. Comes only when it differs from what was said before.
    Report(Box<Report>),
    /// Put the approved content back now, then call [`super::book::Book::restored`], whatever became of
    /// it. Before each write ask [`super::book::Book::may_restore`].
    Restore {
        /// The transaction id under which all of it is recorded.
        transaction_id: String,
    },
    /// Stop the attempt of this transaction id, if it still runs: its guard has changed, or an incident has
    /// begun. It may be of another guard than the one that was looked at.
    GiveUp {
        /// As in [`Step::Restore`].
        transaction_id: String,
    },
    /// Tell somebody.
    Alert(Alert),
    /// Tell them that it is over.
    Resolve(Alert),
    /// Write this into the trail.
    Record(Record),
    /// A drift began, found by this kind of look: for the metric.
    CountDrift(Look),
    /// Read the target alone and call [`super::book::Book::see`] with [`Look::Live`].
    Look,
    /// The API server shows stored content otherwise than before: keep this hash, signed, in the guard's
    /// status as an equivalent, so that [`crate::core::guard::Guard::approves`] it.
    Equivalent {
        /// The new hash of the same stored content.
        hash: ContentHash,
        /// What to tell the people of the cluster, the first time that it happens between two versions.
        announcement: Option<String>,
    },
}

/// What a guard's status is to say of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The generation of the guard that this is about.
    pub generation: i64,
    /// Status of the condition `Drifted`.
    pub drifted: Truth,
    /// Its reason.
    pub reason: Reason,
    /// Its message: what is so, and what becomes of it.
    pub message: String,
    /// The message of the condition `Fighting` while it is true; `None` while nobody fights.
    pub fighting: Option<String>,
    /// Why no watch can be relied upon for the target; `None` while one can.
    pub unwatched: Option<Unwatched>,
    /// Whether the content is approved; `None` when it could not be read.
    pub hash_match: Option<bool>,
    /// Hash of the content; `None` for Secrets, for a missing target, and when it could not be read.
    pub current_hash: Option<ContentHash>,
    /// Checks that failed in a row.
    pub consecutive_failures: u32,
    /// The last drift; `None` leaves what the status says.
    pub last_drift: Option<LastDrift>,
    /// The last attempt to restore; `None` leaves what the status says.
    pub last_remediation: Option<LastRemediation>,
    /// The request of a person to put the content back that was heeded last: kept in the status, so that it is
    /// heeded once. `None` leaves what the status says.
    pub heeded_restore: Option<String>,
    /// Whether what was asked for by it is yet to be done: kept in the status, so that another leader goes on with it.
    pub restore_pending: bool,
    /// Transaction id of the open episode: kept in the status, so that another leader goes on with it. An
    /// episode may be about a target that cannot be read, with no drift at all.
    pub episode: Option<String>,
    /// Whether the open episode has been alerted: kept in the status, so that no other leader alerts it
    /// again.
    pub alerted: bool,
    /// The open incident that holds its remediation back: kept in the status, so that another leader
    /// holds it back as well.
    pub incident: Option<String>,
    /// When the target was looked at.
    pub checked_at: Timestamp,
    /// Which object was found as approved, where another version of the API server or of its definition may
    /// read it otherwise: kept in the status, so that another leader can tell.
    pub matched: Option<Matched>,
}

/// Why drift of a target may be found no sooner than at the next sweep or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwatched {
    /// A stable word: [`WATCH_MISSED_CHANGE`] or [`NOT_WATCHED`].
    pub reason: &'static str,
    /// What that means, in a sentence.
    pub message: String,
}

/// Reason of [`Unwatched`]: a sweep has found what the watch should have told.
pub const WATCH_MISSED_CHANGE: &str = "WatchMissedChange";
/// Reason of [`Unwatched`]: it cannot be watched, and is read instead.
pub const NOT_WATCHED: &str = "NotWatched";

/// An object in one version, found as approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Hash of what the guard pins of it.
    pub hash: ContentHash,
}

impl Report {
    /// Whether it says the same as `other`, but for when it was checked, and in which version: an object is
    /// written far more often than its content changes.
    #[must_use]
    pub fn says(&self, other: &Self) -> bool {
        let same_look = Self { checked_at: other.checked_at, matched: other.matched.clone(), ..self.clone() };
        same_look == *other
    }
}

/// A drift, for `status.lastDrift`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDrift {
    /// When it was seen.
    pub time: Timestamp,
    /// Changed paths, the first few; names only.
    pub paths: Vec<String>,
    /// Who did it.
    pub attribution: Attribution,
    /// Transaction id under which it is recorded.
    pub transaction_id: String,
}

/// An attempt to restore, for `status.lastRemediation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRemediation {
    /// When it ended.
    pub time: Timestamp,
    /// Where the content came from.
    pub source: Option<String>,
    /// How it ended.
    pub result: RemediationResult,
    /// Transaction id under which it is recorded.
    pub transaction_id: String,
}

/// How an attempt to restore ended, as `status.lastRemediation.result` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemediationResult {
    /// The approved content stands again, read back and verified.
    Restored,
    /// No source had content of the approved hash; nothing was changed.
    NoVerifiedSource,
    /// The write failed.
    Failed,
}

impl RemediationResult {
    /// A stable word for records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "Restored",
            Self::NoVerifiedSource => "NoVerifiedSource",
            Self::Failed => "Failed",
        }
    }
}

/// An entry of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: RecordKind,
    /// Why: a stable word.
    pub reason: &'static str,
    /// What happened, in sentences.
    pub message: String,
    /// The transaction id that ties what belongs together.
    pub transaction_id: String,
    /// Changed paths, the first few; names only.
    pub paths: Vec<String>,
    /// Who did it.
    pub attribution: Attribution,
    /// Hash of the content that was found; never of a Secret.
    pub hash: Option<ContentHash>,
}

/// What an entry of the trail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// Content that is not approved, or none, where approved content was or should be.
    Drift,
    /// Unapproved content that changed once more.
    DriftChanged,
    /// An attempt to restore, and how it ended.
    Remediation,
    /// Approved content stands again, restored by us or by somebody else.
    Cleared,
    /// The episode is over: approved content has stood for long enough.
    Closed,
    /// The API server shows the same stored content otherwise.
    RepresentationChanged,
    /// Remediation of many guards stopped.
    IncidentOpened,
    /// It may go on.
    IncidentClosed,
}
