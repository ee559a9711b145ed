//! What comes in with a look: what the guard wants, what else is known, and what was known before.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::hash::ContentHash;

use super::attribution::Attribution;
use super::finding::{Reason, Truth};
use super::sight::{Look, ReadBefore, Sight};

/// One look at a guard's target, with all that decides what it means.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// How the target stands.
    pub sight: &'a Sight,
    /// How the look came about.
    pub look: Look,
    /// What changed and by whom; asked for where [`super::book::Book::wants_details`] says so.
    pub details: Option<&'a Details>,
    /// What the guard wants done.
    pub terms: Terms,
    /// What else is known.
    pub context: &'a Context<'a>,
}

/// The part of a guard's spec that only the auditor reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// `spec.autoRemediate`.
    pub auto_remediate: bool,
    /// `spec.maxFailuresBeforeAlert`, at least 1.
    pub max_failures_before_alert: u32,
}

/// What is known beside the guard and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context<'a> {
    /// Since when `Enforcing` has been true without a break; `None` while it is not.
    pub enforcing_since: Option<Timestamp>,
    /// Whether the API server itself defines the target's kind; false for kinds of a CRD, and for kinds
    /// of an aggregated API server, whose version is not the one below.
    pub built_in: bool,
    /// `gitVersion` of the API server that showed the object, such as `v1.37.2`; empty when unknown.
    pub server_version: &'a str,
    /// `--audit-interval`.
    pub audit_interval: Duration,
    /// `--apply-grace`.
    pub apply_grace: Duration,
    /// When the last pause of the guard ended, where that is known although nothing stands in
    /// `Guard::pauses` any more, such as after an exception was deleted.
    pub pause_ended: Option<Timestamp>,
    /// Whether another guard pins the same target differently.
    pub conflict: bool,
    /// Whether the target's namespace is being deleted.
    pub namespace_terminating: bool,
    /// Whether our own attempt to restore has deleted the target, which it makes again at once.
    pub being_replaced: bool,
    /// Whether a watch should have told what this look shows, and a sweep has found it.
    pub missed: bool,
    /// As what exactly this version of the object was read before, where that is known although the last
    /// look that the book was told of showed an earlier one, or none: writes that leave the hash as it is
    /// are not told.
    pub read_before: Option<ReadBefore>,
    /// What the status of the guard said before this process had looked at its target; asked for where
    /// [`super::book::Book::knows`] says no, and read only then.
    pub remembered: Option<Remembered>,
}

/// What changed, and who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// JSON Pointers to what changed, the first few; names only.
    pub paths: Vec<String>,
    /// Who did it.
    pub attribution: Attribution,
}

/// What the status of a guard says of its target: a new leader goes on from there and tells nothing twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// `status.observedGeneration`.
    pub generation: i64,
    /// The condition `Drifted`: its status, its reason, and since when it has that status.
    pub drifted: Option<(Truth, Reason, Timestamp)>,
    /// `status.hashMatch`.
    pub hash_match: Option<bool>,
    /// `status.currentHash`; never there for Secrets.
    pub current_hash: Option<ContentHash>,
    /// `status.consecutiveFailures`.
    pub consecutive_failures: u32,
    /// `status.lastChecked`.
    pub last_checked: Option<Timestamp>,
    /// `status.lastDrift`: its time and transaction id.
    pub last_drift: Option<(Timestamp, Option<String>)>,
    /// Transaction id of the open episode ([`super::step::Report::episode`]); that of the last drift is
    /// taken where it is absent.
    pub episode: Option<String>,
    /// Whether the open episode has been alerted ([`super::step::Report::alerted`]).
    pub alerted: bool,
    /// Whether the condition `Fighting` is true.
    pub fighting: bool,
    /// Whether a person has asked for the drifted content to be put back, and it was not yet
    /// ([`super::step::Report::restore_pending`]). True only while the guard itself still asks for it: nobody
    /// signs a status.
    pub restore_pending: bool,
    /// The incident that held remediation back ([`super::step::Report::incident`]).
    pub incident: Option<String>,
    /// Whether it says that no watch can be relied upon for the target ([`super::step::Report::unwatched`]).
    pub unwatched: bool,
    /// Since when it says that a watch has not told of a change; `None` where it does not.
    pub missed_at: Option<Timestamp>,
}

/// How an attempt to put the approved content back ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It stands again, read back and verified. What is said is where it came from.
    Restored {
        /// The source, for example `git team/repo config.yaml`.
        source: String,
    },
    /// A look right before the write showed approved content: there was nothing to do.
    NothingToDo,
    /// No source has content of the approved hash; nothing was changed. One sentence for each source.
    NoVerifiedSource {
        /// What the sources said.
        message: String,
    },
    /// The write failed, or what was read back is not what was written.
    Failed {
        /// Where the content came from, as far as it got.
        source: Option<String>,
        /// One sentence: what failed.
        message: String,
    },
    /// It was not tried: the Lease was lost, the guard was edited, or [`super::book::Book::may_restore`]
    /// said no right before the write. Counts as nothing.
    GivenUp,
}
