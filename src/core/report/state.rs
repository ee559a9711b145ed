//! The states of a guard, worst first.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A state of a guard. Several may hold; the first of this list is the one that is shown. A word that has
/// been released keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It could not be told: the target could not be read, or the guard cannot be understood.
    Unreadable,
    /// There is no such object.
    Missing,
    /// Its content is not approved.
    Drifted,
    /// Another guard pins the same object differently.
    Conflict,
    /// The guard should refuse unapproved writes, and nothing says that it does.
    NotEnforcing,
    /// Somebody keeps undoing what is put back.
    Fighting,
    /// No source of truth has the approved content.
    SourceDown,
    /// Writes pass for a while, by spec.suspend or an exception.
    Suspended,
    /// Nobody is known to have approved what the guard says.
    AuthorUnknown,
    /// Its content is what the guard approved until it was changed, a moment ago.
    AwaitingApply,
    /// Its content is approved, and nothing else is to be told.
    InSync,
}

impl State {
    /// Every state, worst first.
    pub const ALL: [Self; 11] = [
        Self::Unreadable,
        Self::Missing,
        Self::Drifted,
        Self::Conflict,
        Self::NotEnforcing,
        Self::Fighting,
        Self::SourceDown,
        Self::Suspended,
        Self::AuthorUnknown,
        Self::AwaitingApply,
        Self::InSync,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::Missing => "Missing",
            Self::Drifted => "Drifted",
            Self::Conflict => "Conflict",
            Self::NotEnforcing => "NotEnforcing",
            Self::Fighting => "Fighting",
            Self::SourceDown => "SourceDown",
            Self::Suspended => "Suspended",
            Self::AuthorUnknown => "AuthorUnknown",
            Self::AwaitingApply => "AwaitingApply",
            Self::InSync => "InSync",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unreadable => "It could not be told whether the content is approved.",
            Self::Missing => "There is no such object.",
            Self::Drifted => "The content is not approved.",
            Self::Conflict => "Another guard pins the same object differently.",
            Self::NotEnforcing => "Nothing says that unapproved writes are refused.",
            Self::Fighting => "Somebody keeps undoing what is put back.",
            Self::SourceDown => "No source of truth has the approved content.",
            Self::Suspended => "Writes pass for a while.",
            Self::AuthorUnknown => "Nobody is known to have approved what the guard says.",
            Self::AwaitingApply => "What was approved a moment ago is not applied yet.",
            Self::InSync => "The content is approved.",
        }
    }

    /// Whether the content is known not to be approved.
    #[must_use]
    pub const fn is_drift(self) -> bool {
        matches!(self, Self::Drifted | Self::Missing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
