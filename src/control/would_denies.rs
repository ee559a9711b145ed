//! The last write of each guard of enforcement `Audit` that `Deny` would have refused, as this replica
//! has seen it. Noted aside of the answer, bounded, told to others in this replica's Lease.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// Guards that are noted by themselves. Further ones count for every guard, so that none is promoted
/// by being left out.
const MOST: usize = 256;

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// The last such write, by uid of the guard.
    pub(super) by_uid: BTreeMap<String, Timestamp>,
    /// The last one of any guard that found no room.
    pub(super) others: Option<Timestamp>,
}

impl Notes {
    /// When a write was last noted that counts for a guard.
    pub(super) fn of(&self, uid: &str) -> Option<Timestamp> {
        self.by_uid.get(uid).copied().max(self.others)
    }

    pub(super) fn note(&mut self, uid: &str, at: Timestamp) {
        if let Some(last) = self.by_uid.get_mut(uid) {
            *last = at.max(*last);
        } else if self.by_uid.len() < MOST {
            self.by_uid.insert(uid.to_owned(), at);
        } else {
            self.others = Some(at).max(self.others);
        }
    }
}

/// Takes notes. Shared by all requests; only writes that are not approved get here.
#[derive(Debug, Default)]
pub struct WouldDenies {
    notes: Mutex<Notes>,
    changed: watch::Sender<()>,
}

impl WouldDenies {
    /// Notes a write at `at` for the guard with this uid.
    pub fn note(&self, uid: &str, at: Timestamp) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).note(uid, at);
        self.changed.send_replace(());
    }

    /// Everything that was noted of guards of which `matter` is asked; the rest is forgotten.
    pub(super) fn read(&self, matter: impl FnOnce() -> HashSet<String>) -> Notes {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.by_uid.is_empty() {
            let matter = matter();
            notes.by_uid.retain(|uid, _| matter.contains(uid));
        }
        notes.clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_write_counts_whatever_their_order() {
        let denies = WouldDenies::default();
        for second in [5, 9, 7] {
            denies.note("u", at(second));
        }
        let notes = denies.read(|| HashSet::from(["u".to_owned()]));
        assert_eq!((notes.of("u"), notes.of("v")), (Some(at(9)), None));
    }

    #[test]
    fn with_too_many_guards_none_is_taken_for_clean() {
        let denies = WouldDenies::default();
        for number in 0..=MOST {
            denies.note(&number.to_string(), at(3));
        }
        let notes = denies.read(|| (0..MOST).map(|number| number.to_string()).collect());
        assert_eq!(notes.by_uid.len(), MOST);
        assert_eq!(notes.of("never seen"), Some(at(3)));
    }

    #[test]
    fn guards_that_do_not_matter_are_forgotten() {
        let denies = WouldDenies::default();
        denies.note("u", at(1));
        assert_eq!(denies.read(HashSet::new), Notes::default());
    }
}
