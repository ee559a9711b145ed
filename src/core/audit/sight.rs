//! What somebody saw of a guarded object, and by which kind of look.

use crate::core::hash::ContentHash;

/// How a target stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It exists and could be hashed.
    Present(Present),
    /// There is no such object.
    Absent,
    /// Whether it exists, or what it holds, cannot be told; one sentence says why.
    Unreadable(String),
}

/// An object that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Hash of what the guard pins of it.
    pub hash: ContentHash,
    /// Whether its deletion has begun.
    pub terminating: bool,
}

/// As what exactly this version of an object, by uid and resource version, was read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBefore {
    /// Hash of what the guard pins of it.
    pub hash: ContentHash,
    /// `gitVersion` of the API server that showed it so, such as `v1.37.2`; empty when unknown.
    pub server: String,
}

/// How a look came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Look {
    /// The first of this process, from a list: how long it has been so is unknown.
    Initial,
    /// A watch told of a change.
    Watch,
    /// The full sweep; what it finds a watch should have told.
    Sweep,
    /// A read of this object alone, because somebody asked.
    Live,
}

impl Look {
    /// Every kind, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Initial, Self::Watch, Self::Sweep, Self::Live];

    /// A stable word for metrics and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Watch => "watch",
            Self::Sweep => "sweep",
            Self::Live => "live",
        }
    }
}
