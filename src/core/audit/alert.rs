//! What somebody is woken by.
//!
//! Of one episode there is at most one alert, and at most one notice that it is resolved, which only
//! follows an alert.

use jiff::Timestamp;

use crate::core::guard::{GuardId, Target};

/// An alert, or the notice that what it was about is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What ties an alert and its resolution together: the transaction id of the episode, or the id of
    /// the incident for [`AlertReason::RemediationStopped`].
    pub episode: String,
    /// The guard; for an incident, the one that drifted last before remediation stopped.
    pub guard: GuardId,
    /// `metadata.uid` of the guard.
    pub guard_uid: String,
    /// What it pins.
    pub target: Target,
    /// Why.
    pub reason: AlertReason,
    /// Whether this is the notice that it is over.
    pub resolved: bool,
    /// What happened and what to do, in sentences. No value of any object, and no hash of a Secret.
    pub message: String,
    /// Changed paths, the first few; names only.
    pub paths: Vec<String>,
    /// Who did it, with how that is known; absent where it is not.
    pub actor: Option<String>,
    /// When it was decided.
    pub at: Timestamp,
}

/// Why somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertReason {
    /// Checks failed as often in a row as the guard allows.
    Drifted,
    /// The content changed while admission was enforced: something wrote past it.
    BypassedAdmission,
    /// The target is gone.
    Missing,
    /// Somebody edited the definition of a custom kind, so that stored content reads otherwise.
    DefinitionChanged,
    /// No source has content of the approved hash, so that nothing can be put back.
    NoVerifiedSource,
    /// Somebody keeps undoing what is put back.
    Fighting,
    /// Many guards drifted at once, so that nothing is put back until somebody has looked.
    RemediationStopped,
    /// The target could not be read, as often in a row as the guard allows.
    Unreadable,
}

impl AlertReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 8] = [
        Self::Drifted,
        Self::BypassedAdmission,
        Self::Missing,
        Self::DefinitionChanged,
        Self::NoVerifiedSource,
        Self::Fighting,
        Self::RemediationStopped,
        Self::Unreadable,
    ];

    /// A stable word for events, metrics and receivers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drifted => "Drifted",
            Self::BypassedAdmission => "BypassedAdmission",
            Self::Missing => "Missing",
            Self::DefinitionChanged => "DefinitionChanged",
            Self::NoVerifiedSource => "NoVerifiedSource",
            Self::Fighting => "Fighting",
            Self::RemediationStopped => "RemediationStopped",
            Self::Unreadable => "Unreadable",
        }
    }
}
