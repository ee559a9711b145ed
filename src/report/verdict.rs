//! What a state is called by formats that know pass, fail, warn, error and skip alone.

use crate::core::report::{Entry, State};

/// The word of such a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Error,
    Fail,
    Warn,
    Skip,
    Pass,
}

impl Verdict {
    pub(super) fn of(entry: &Entry) -> Self {
        let lets_pass = matches!(entry.enforcement.as_deref(), Some("Warn" | "Audit"));
        match entry.state {
            State::Unreadable => Self::Error,
            // What changes under a pause is somebody's will, for as long as that lasts.
            _ if entry.holds(State::Suspended) => Self::Skip,
            State::Missing | State::Drifted if lets_pass => Self::Warn,
            State::Missing | State::Drifted | State::Conflict | State::Fighting => Self::Fail,
            State::SourceDown => Self::Error,
            State::NotEnforcing | State::AuthorUnknown => Self::Warn,
            State::Suspended => Self::Skip,
            State::AwaitingApply | State::InSync => Self::Pass,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Skip => "skip",
            Self::Pass => "pass",
        }
    }
}
