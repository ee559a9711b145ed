//! Guards by namespace and name, which stand in the guards alone: keys beside them would take as much as the tree.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::core::guard::GuardId;

use super::observation::Seen;

/// Guards in the order of namespace and name, one of each.
#[derive(Default)]
pub(super) struct ById(BTreeSet<Entry>);

struct Entry(Arc<Seen>);

impl ById {
    pub(super) fn get(&self, id: &GuardId) -> Option<&Arc<Seen>> {
        self.0.get(id).map(|entry| &entry.0)
    }

    /// Puts a guard into the place of the one that has its namespace and name.
    pub(super) fn put(&mut self, seen: Arc<Seen>) {
        self.0.replace(Entry(seen));
    }

    pub(super) fn remove(&mut self, id: &GuardId) -> Option<Arc<Seen>> {
        self.0.take(id).map(|entry| entry.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Seen>> {
        self.0.iter().map(|entry| &entry.0)
    }

    /// Those of this namespace and name, and of all that come later.
    pub(super) fn starting_at(&self, id: &GuardId) -> impl Iterator<Item = &Arc<Seen>> {
        self.0.range::<GuardId, _>(id..).map(|entry| &entry.0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Borrow<GuardId> for Entry {
    fn borrow(&self) -> &GuardId {
        self.0.stored.id()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.stored.id().cmp(other.0.stored.id())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
