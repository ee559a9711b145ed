//! What is known of a guard beside its spec and its target: what its status says.

use jiff::Timestamp;

use crate::core::audit::finding::Truth;
use crate::core::few::Few;
use crate::core::guard::{Enforcement, GuardId};
use crate::core::hash::ContentHash;
use crate::core::text::Text;

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it is so.
    pub truth: Truth,
    /// Why, in one word.
    pub reason: Text,
    /// What it means.
    pub message: Text,
    /// Since when it has been so.
    pub since: Timestamp,
    /// The generation of the guard that it is about.
    pub generation: i64,
}

/// How the auditor knows who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// From an admission review.
    Admission,
    /// From managedFields.
    ManagedFields,
}

/// The drift that was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// When.
    pub time: Timestamp,
    /// JSON Pointers to what changed.
    pub paths: Vec<String>,
    /// Who did it, where that is known.
    pub actor: Option<(String, KnownBy)>,
    /// Transaction id.
    pub transaction_id: Option<String>,
}

/// An attempt to put the approved content back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// When.
    pub time: Timestamp,
    /// How it ended.
    pub result: String,
    /// Where the content came from.
    pub source: Option<String>,
    /// Transaction id.
    pub transaction_id: Option<String>,
}

/// What a source said when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which one.
    pub source: String,
    /// In one word.
    pub result: String,
    /// In one sentence.
    pub message: String,
    /// When.
    pub time: Timestamp,
}

/// What is known of a guard; of most of them little. Nothing of it is signed, or checked to be: whoever may write statuses can say
/// anything here, so that it never makes content approved that is not (but see [`Facts::equivalents`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Whether the status is about this generation of the guard.
    pub is_current: bool,
    /// The enforcement in effect, as the status says.
    pub enforcement: Option<Enforcement>,
    /// Whether the spec names one; else it is that of the installation.
    pub names_enforcement: bool,
    /// Condition Enforcing.
    pub enforcing: Option<Said>,
    /// Condition Drifted.
    pub drifted: Option<Said>,
    /// Condition Suspended.
    pub suspended: Option<Box<Said>>,
    /// Condition Conflict.
    pub conflict: Option<Box<Said>>,
    /// Condition Fighting.
    pub fighting: Option<Box<Said>>,
    /// Condition SourceAvailable.
    pub source_available: Option<Box<Said>>,
    /// Condition AuthorUnknown.
    pub author_unknown: Option<Box<Said>>,
    /// Hash of the content that the auditor saw last; never of a Secret.
    pub current_hash: Option<ContentHash>,
    /// Hashes as which the status says that the API server now reads the approved content. Their signatures
    /// can only be checked by who holds the signing key: what matches one of them is said to be approved by
    /// the word of the status.
    pub equivalents: Few<ContentHash>,
    /// When the auditor last noted that it looked.
    pub last_checked: Option<Timestamp>,
    /// The drift that was seen last.
    pub last_drift: Option<Box<Drift>>,
    /// The last attempt to put the approved content back.
    pub last_remediation: Option<Box<Tried>>,
    /// What the sources said.
    pub answers: Few<Answer>,
    /// Whether the spec names a source.
    pub names_source: bool,
    /// The end that `spec.suspend` asks for.
    pub suspend_until: Option<Timestamp>,
    /// Another guard that pins the same target differently.
    pub rival: Option<GuardId>,
}

/// Whether a replica leads an installation, which alone proves that guards are enforced and ends pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leading {
    /// One does, or nothing says that none does.
    Assumed,
    /// None does.
    Nobody {
        /// When the last one said last that it does, where that is known.
        since: Option<Timestamp>,
    },
}

impl Facts {
    /// Those of [`Facts::equivalents`] that were noted for this generation of the guard.
    pub(super) fn equivalents_of(&self, generation: i64) -> &[ContentHash] {
        let is_of = self.drifted.as_ref().is_some_and(|said| said.generation == generation);
        if is_of { &self.equivalents } else { &[] }
    }

    /// Until when or why writes pass, if they do at `now`. The controller knows best how long a pause may
    /// last; without its word about this very spec, or when it ends no pause any more, the guard's own counts.
    pub(super) fn pause(&self, now: Timestamp, leading: Leading) -> Option<Text> {
        if self.is_current && leading == Leading::Assumed {
            let said = self.suspended.as_ref().filter(|said| said.truth == Truth::True);
            return said.map(|said| said.message.clone());
        }
        let until = self.suspend_until.filter(|until| now < *until)?;
        Some(format!("writes pass until {until:.0} by spec.suspend").into())
    }
}
