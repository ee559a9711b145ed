//! Who changed a target, as far as that is known. Never a guess.

use jiff::Timestamp;

use crate::core::hash::ContentHash;

/// Who did it, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// The admission webhook saw a write with exactly this content.
    ObservedAtAdmission {
        /// User name, as the API server authenticated it.
        user: String,
        /// `options.fieldManager`, empty when absent.
        manager: String,
        /// When it was seen.
        at: Timestamp,
        /// Whether that write was let through. When it was refused, the same content came otherwise,
        /// not necessarily by the same user.
        allowed: bool,
    },
    /// An entry of `managedFields` owns every changed path, and is newest of those that own any. Any
    /// writer can give any name.
    FieldManager {
        /// The manager.
        manager: String,
        /// `Apply` or `Update`.
        operation: String,
        /// Subresource through which it wrote, empty for the object itself.
        subresource: String,
        /// When, as the API server noted it, to the second.
        at: Timestamp,
        /// Whether that is known to lie after the last look that showed approved content.
        sure: bool,
    },
    /// It is not known.
    Unknown {
        /// Why not: a clause that follows "by nobody known:".
        why: String,
    },
}

impl Default for Attribution {
    fn default() -> Self {
        Self::Unknown { why: "nothing was read that could tell".to_owned() }
    }
}

/// A write that the admission webhook saw, of those that are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// User name, as the API server authenticated it.
    pub user: String,
    /// `options.fieldManager`, empty when absent.
    pub manager: String,
    /// Hash of the content that would be stored.
    pub image: ContentHash,
    /// When it was seen.
    pub at: Timestamp,
    /// Whether it was let through.
    pub allowed: bool,
    /// Whether the review came from the API server for certain.
    pub authenticated: bool,
}

/// What is known about a change of an object, to find out who made it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The object as it is now, as the API server wrote it; `None` when it is gone.
    pub object: Option<&'a [u8]>,
    /// JSON Pointers to what changed, from the object's root.
    pub paths: &'a [String],
    /// Whether there are more changed paths than these.
    pub more: bool,
    /// Hash of the content as it is now; `None` when the object is gone, and for Secrets.
    pub hash: Option<ContentHash>,
    /// Writes to this object that the admission webhook saw, in any order.
    pub observed: &'a [Observed],
    /// When the content was last seen as approved.
    pub last_clean: Option<Timestamp>,
}

/// Who made the change.
#[must_use]
pub fn attribute(evidence: &Evidence<'_>) -> Attribution;
