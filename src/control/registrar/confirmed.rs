//! What was last seen to be right, so that it need not be read again.

use jiff::Timestamp;

use super::Applied;
use super::side::{CaBundle, revision};
use crate::control::webhooks::Configuration;
use crate::core::signature::SigningKey;
use crate::store::Configurations;
use crate::store::configurations::Watched;

/// What was seen to be right, and for what.
#[derive(Debug)]
pub(super) struct Confirmed {
    /// Of which observation.
    pub(super) version: u64,
    pub(super) bundle: CaBundle,
    pub(super) key: SigningKey,
    /// The revision of the validating configuration; `None` when there is none.
    pub(super) validating: Option<u64>,
    /// That of the mutating one.
    pub(super) mutating: Option<u64>,
    pub(super) applied: Applied,
}

impl Confirmed {
    /// Whether neither what is wanted nor what stands there, as far as a watch tells, has changed since.
    pub(super) fn holds(
        &self,
        version: u64,
        bundle: &CaBundle,
        key: &SigningKey,
        configurations: &Configurations,
    ) -> bool {
        let over = self.applied.broken.as_ref().is_some_and(|broken| Timestamp::now() >= broken.until);
        !over
            && self.version == version
            && self.bundle == *bundle
            && self.key == *key
            && is_old_news(&configurations.validating, self.validating)
            && is_old_news(&configurations.mutating, self.mutating)
    }
}

/// Whether a watch tells nothing newer than what was confirmed at a revision (`None`: absent).
fn is_old_news<K: Configuration>(watched: &Watched<K>, confirmed: Option<u64>) -> bool {
    match (watched, confirmed) {
        (Watched::Unknown, _) | (Watched::Absent, None) => true,
        (Watched::Present(object), Some(confirmed)) => revision(object.as_ref()) <= confirmed,
        (Watched::Absent, Some(_)) | (Watched::Present(_), None) => false,
    }
}
