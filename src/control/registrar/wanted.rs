//! What is to be applied: the entries that the guards need, and what they are called with.

use bytes::Bytes;

use super::side::CaBundle;
use crate::core::index::Index;
use crate::core::registration::{self, Hook, Registration, glass, own};
use crate::core::signature::SigningKey;

/// The entries that are wanted, and what they are called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) validating: Registration,
    pub(super) mutating: Registration,
    pub(super) bundle: CaBundle,
    pub(super) key: SigningKey,
}

/// Whom API servers are to trust, and who tells them so.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// The authorities, PEM.
    pub(super) authorities: Bytes,
    /// Who writes them into the entries.
    pub(super) bundle: CaBundle,
}

impl Wanted {
    /// What the guards of an index need, in an installation in `own_namespace`.
    pub(super) fn of(index: &Index, own_namespace: &str, trust: Trust, key: SigningKey) -> Self {
        let settings = registration::Settings {
            own_namespace,
            client_weight: trust.authorities.len().div_ceil(3) * 4,
            limits: registration::Limits::default(),
        };
        let mut validating = registration::validating(index, &settings);
        let mut mutating = registration::mutating(index, &settings);
        // Reviews of guards themselves are wanted whether or not there is a guard.
        validating.entries.extend(own::entries(Hook::Validate, &key));
        mutating.entries.extend(own::entries(Hook::Mutate, &key));
        Self { validating, mutating, bundle: trust.bundle, key }
    }

    /// What is wanted while the glass is broken: the same reviews, so that what passes is recorded, but
    /// nothing that can refuse, or that anybody waits for.
    pub(super) fn broken(&self) -> Self {
        let open = |wanted: &Registration| Registration {
            entries: wanted.entries.iter().cloned().map(glass::opened).collect(),
            widened: wanted.widened.clone(),
        };
        Self {
            validating: open(&self.validating),
            mutating: open(&self.mutating),
            bundle: self.bundle.clone(),
            key: self.key.clone(),
        }
    }
}
