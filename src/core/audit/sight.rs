//! What one look at the target of a guard showed.

use super::super::hash::ContentHash;

/// The target of a guard, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is there.
    Present(Present),
    /// It is not there.
    Absent,
    /// It cannot be read; one sentence says why.
    Unreadable(String),
}

/// A target that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Of what the guard pins.
    pub hash: ContentHash,
    /// Whether its deletion has begun.
    pub terminating: bool,
}

/// How a look came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    /// The first one.
    Initial,
    /// A watch told.
    Watch,
    /// A sweep found what no watch had told.
    Sweep,
    /// The object was read.
    Live,
}
