//! Where approved content is fetched from. Nothing that a source answers is trusted: whoever asks
//! hashes it, and uses it only when the hash is the approved one.
//!
//! Whatever fails says so in one sentence that goes into a guard's status, where everybody who may read
//! the guard reads it: no credential, no text that repeats one, and no control character is in it.

pub mod address;
pub mod git;

/// Why a source gave nothing. Each holds one sentence, without a full stop, fit for a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It could not be reached, did not answer in time or failed: trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// It refused us, could not prove who it is, or may not be asked at all.
    #[error("{0}")]
    Forbidden(String),
    /// What was asked for cannot be had, or the answer cannot be used: only a change helps.
    #[error("{0}")]
    Invalid(String),
}

impl SourceError {
    /// A stable word for metrics and statuses.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Forbidden(_) => "forbidden",
            Self::Invalid(_) => "invalid",
        }
    }
}
