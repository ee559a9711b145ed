//! What is told of each source that was asked.

use std::fmt;

use crate::core::audit::candidate::{Candidate, NotACandidate};

/// How it went with one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceResult {
    /// It has the approved content.
    Matched,
    /// It has other content.
    Mismatch,
    /// It did not answer, or has nothing; or what it has could not be checked.
    Unavailable,
    /// It may not be read: by us, or on behalf of the guard's author.
    Forbidden,
    /// What it has cannot be content of the target.
    Invalid,
}

impl SourceReport {
    /// A source that has what is approved.
    pub(super) fn matched(source: &str) -> Self {
        Self {
            source: fit_for_a_status(source),
            result: SourceResult::Matched,
            reason: "Matched",
            sentence: "it has what is approved".to_owned(),
        }
    }
}

impl SourceResult {
    /// As it stands in status, trail and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Mismatch => "mismatch",
            Self::Unavailable => "unavailable",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for SourceResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest sentence or name of a source, in characters. Keys of documents and paths stand in them, and
/// whoever writes a document or a guard chooses those; a status takes 1,024.
const LONGEST: usize = 400;

/// A text of bounded length without control characters.
fn fit_for_a_status(sentence: &str) -> String {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let mut fit: String = sentence.chars().map(plain).take(LONGEST).collect();
    if sentence.chars().nth(LONGEST).is_some() {
        fit.push_str("...");
    }
    fit
}

/// What is told of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Which one, such as `git team/repo config.yaml`.
    pub source: String,
    /// How it went.
    pub result: SourceResult,
    /// A stable word for conditions and metrics, such as `HashMismatch` or `AuthorUnknown`.
    pub reason: &'static str,
    /// One sentence without any value: what, and where it went wrong, how to mend it.
    pub sentence: String,
}

/// What [`Verify`] says of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It is what was approved: of itself, or what a dry run of writing it would store.
    Matched,
    /// It is not; one sentence without any value.
    Mismatch(String),
    /// It could not be told; one sentence.
    Unavailable(String),
    /// It could not be told for want of the right to make a dry run; one sentence.
    CannotDryRun(String),
}

/// Tells whether a candidate is what was approved. A trait and no closure, because the future of an async
/// closure is not known to be `Send`, and whoever puts things back runs in a task.
pub trait Verify: Sync {
    /// Of itself, or by what a dry run of writing it would store.
    fn verify(&self, candidate: &Candidate) -> impl Future<Output = Verified> + Send;
}

/// What all sources of a guard came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The approved content and the source that has it.
    pub found: Option<(Candidate, String)>,
    /// Each source that was asked, in order; none behind the one that has it.
    pub reports: Vec<SourceReport>,
}

impl Outcome {
    /// Whether content was there that could not be checked for want of the right to make dry runs, so
    /// that nobody can say whether a source has what was approved.
    #[must_use]
    pub fn cannot_dry_run(&self) -> bool {
        self.found.is_none() && self.reports.iter().any(|report| report.reason == CANNOT_DRY_RUN)
    }
}

/// Reason of a report: the right to make dry runs is missing.
pub const CANNOT_DRY_RUN: &str = "CannotDryRun";

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

/// Why a source gave nothing, with a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) result: SourceResult,
    pub(super) reason: &'static str,
    pub(super) sentence: String,
}

impl Failed {
    pub(super) fn unavailable(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { result: SourceResult::Unavailable, reason, sentence: sentence.into() }
    }

    pub(super) fn forbidden(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { result: SourceResult::Forbidden, reason, sentence: sentence.into() }
    }

    pub(super) fn invalid(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { result: SourceResult::Invalid, reason, sentence: sentence.into() }
    }

    pub(super) fn mismatch(sentence: impl Into<String>) -> Self {
        Self { result: SourceResult::Mismatch, reason: "HashMismatch", sentence: sentence.into() }
    }

    pub(super) fn report(self, source: &str) -> SourceReport {
        let Self { result, reason, sentence } = self;
        SourceReport {
            source: fit_for_a_status(source),
            result,
            reason,
            sentence: fit_for_a_status(&sentence),
        }
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Unavailable(sentence) => Self::unavailable("Unavailable", sentence),
            SourceError::Forbidden(sentence) => Self::forbidden("Forbidden", sentence),
            SourceError::Invalid(sentence) => Self::invalid("Invalid", sentence),
        }
    }
}

impl From<NotACandidate> for Failed {
    fn from(error: NotACandidate) -> Self {
        Self::invalid(error.reason(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_bounded_whatever_stands_in_a_document() {
        let long = Failed::invalid("x", format!("key \"a\u{1b}[2J\n{}\" is odd", "ä".repeat(10_000)))
            .report("git a/b");
        assert!(long.sentence.starts_with("key \"a [2J ä"), "{long:?}");
        assert!(long.sentence.chars().count() <= LONGEST + 3 && long.sentence.ends_with("ä..."));
        assert!(SourceReport::matched(&"p".repeat(2_000)).source.len() < 1_024);
        assert_eq!(Failed::mismatch("short").report("git a/b").sentence, "short");
    }
}
