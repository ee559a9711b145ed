//! One snapshot of all guards, for those who register and report them.

use std::sync::Arc;

use crate::core::exceptions::Terms;
use crate::core::guard::{GuardId, GuardState};
use crate::core::hash::ContentHash;
use crate::core::index::Index;
use crate::core::kinds::KindEntry;
use crate::core::text::Text;

use super::stored::Stored;

/// All guards at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Counts changes of what decides about writes; a change of a status alone leaves it. 0 before
    /// the first complete snapshot.
    pub version: u64,
    /// The index of that version.
    pub index: Arc<Index>,
    /// The guards in the order of the index.
    pub guards: Vec<Arc<Seen>>,
    /// The newest resource version of any guard in it, as a number.
    pub revision: u64,
    /// The exceptions that the index holds pauses of ([`crate::core::exceptions::digest`]); `None` before any
    /// snapshot.
    pub exceptions: Option<ContentHash>,
}

impl Observation {
    /// The guards of a namespace that an exception of these terms means, usable or not.
    pub fn meant_by<'a>(
        &'a self,
        namespace: &'a str,
        terms: &'a Terms,
    ) -> impl Iterator<Item = &'a Arc<Seen>> {
        let first = self.guards.partition_point(|seen| seen.stored.namespace() < namespace);
        self.guards[first..]
            .iter()
            .take_while(move |seen| seen.stored.namespace() == namespace)
            .filter(move |seen| terms.covers(seen.stored.name(), |key| seen.stored.label(key)))
    }

    /// A guard, by namespace and name.
    #[must_use]
    pub fn guard(&self, id: &GuardId) -> Option<&Seen> {
        let at = self.guards.binary_search_by(|seen| seen.stored.id().cmp(id)).ok()?;
        self.guards.get(at).map(AsRef::as_ref)
    }
}

/// One guard of a snapshot.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the API server sent.
    pub stored: Stored,
    /// As the index holds it.
    pub state: GuardState,
    /// The version of the first snapshot that holds it as it is.
    pub since: u64,
    /// What its kind was found to mean.
    pub found: Option<Arc<KindEntry>>,
    /// Why it goes by a kind that was found before, where discovery now finds none or another.
    pub kept: Option<Text>,
    /// The resource version at which it was first seen as it is: whoever has applied that much judges
    /// by it.
    pub needed: u64,
}
