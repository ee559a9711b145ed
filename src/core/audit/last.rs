//! What is kept of the last look at every target, calm or not: few bytes, since there are many.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use crate::core::hash::ContentHash;

use super::sight::Present;

/// The version of a server that nobody knows.
pub(super) const UNKNOWN_SERVER: u16 = u16::MAX;

/// How a target stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It could never be read yet.
    Unseen,
    /// Its content was approved.
    Clean,
    /// Its content was what had been approved before.
    Awaiting,
    /// Its content was not approved.
    Drifted,
    /// It was not there.
    Absent,
}

/// The last look at one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    /// The resource version as a number; 0 when unknown.
    revision: u64,
    /// Of the content; equal for equal hashes. 0 when unknown.
    hash: u64,
    /// Of the object's uid; 0 when unknown.
    uid: u32,
    /// Seconds since 1970 of the last look at approved content; 0 when there was none.
    clean_at: u32,
    /// Index of the server's version, of those that the book has met.
    pub(super) server: u16,
    /// How it stood.
    pub(super) state: State,
    /// Whether what is approved has changed since.
    pub(super) is_outdated: bool,
}

impl Last {
    /// Nothing was seen.
    pub(super) const UNSEEN: Self = Self {
        revision: 0,
        hash: 0,
        uid: 0,
        clean_at: 0,
        server: UNKNOWN_SERVER,
        state: State::Unseen,
        is_outdated: false,
    };

    /// What a status says, of which the object is unknown.
    pub(super) fn remembered(state: State, hash: Option<ContentHash>, clean_at: Option<Timestamp>) -> Self {
        let clean_at = clean_at.map_or(0, seconds);
        Self { hash: hash.map_or(0, of_hash), clean_at, state, ..Self::UNSEEN }
    }

    /// The look after `self`.
    pub(super) fn then(self, state: State, present: Option<&Present>, server: u16, now: Timestamp) -> Self {
        Self {
            revision: present.map_or(0, |present| revision(&present.resource_version)),
            hash: present.map_or(0, |present| of_hash(present.hash)),
            uid: present.map_or(0, |present| short(digest(&present.uid))),
            clean_at: if state == State::Clean { seconds(now) } else { self.clean_at },
            server,
            state,
            is_outdated: false,
        }
    }

    /// When approved content was last seen.
    pub(super) fn clean_at(&self) -> Option<Timestamp> {
        (self.clean_at > 0).then(|| Timestamp::from_second(self.clean_at.into()).ok()).flatten()
    }

    /// Whether the object was there and held this content.
    pub(super) fn held(&self, hash: ContentHash) -> bool {
        self.hash == of_hash(hash)
    }

    /// Whether the object is known to have been there.
    pub(super) fn was_there(&self) -> bool {
        matches!(self.state, State::Clean | State::Awaiting | State::Drifted)
    }

    /// Whether the object was there at the last look.
    pub(super) fn is_there(&self) -> bool {
        self.uid != 0
    }

    /// Whether it is the same object, and nobody has written it since.
    pub(super) fn is_unwritten(&self, present: &Present) -> bool {
        self.is_same_object(present) && self.revision == revision(&present.resource_version)
    }

    /// Whether the object is older than what was seen before: a look that was overtaken by another.
    pub(super) fn overtook(&self, present: &Present) -> bool {
        let revision = revision(&present.resource_version);
        self.is_same_object(present) && revision != 0 && revision < self.revision
    }

    fn is_same_object(&self, present: &Present) -> bool {
        self.uid != 0 && self.revision != 0 && self.uid == short(digest(&present.uid))
    }
}

/// API servers count resource versions; a text that is no number is as good as none.
fn revision(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_second()).unwrap_or_default()
}

fn of_hash(hash: ContentHash) -> u64 {
    digest(&hash)
}

/// Two contents of one digest can be found by whoever tries for long. They would gain another reason for
/// the same drift and no more: what is approved the whole hash decides.
fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish().max(1)
}

fn short(digest: u64) -> u32 {
    ((digest >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(uid: &str, revision: &str, content: &[u8]) -> Present {
        Present {
            uid: uid.to_owned(),
            resource_version: revision.to_owned(),
            hash: ContentHash::of(content),
            terminating: false,
        }
    }

    #[test]
    fn a_calm_guard_costs_few_bytes() {
        assert!(size_of::<Last>() <= 32, "{}", size_of::<Last>());
    }

    #[test]
    fn a_write_is_told_from_another_reading_of_the_same_object() {
        let first = present("u", "7", b"a");
        let last = Last::UNSEEN.then(State::Clean, Some(&first), 0, Timestamp::UNIX_EPOCH);
        assert!(last.is_unwritten(&present("u", "7", b"b")));
        assert!(!last.is_unwritten(&present("u", "8", b"b")));
        assert!(!last.is_unwritten(&present("v", "7", b"b")));
        assert!(last.held(ContentHash::of(b"a")) && !last.held(ContentHash::of(b"b")));
    }

    #[test]
    fn a_look_that_was_overtaken_is_recognised() {
        let last = Last::UNSEEN.then(State::Clean, Some(&present("u", "7", b"a")), 0, Timestamp::UNIX_EPOCH);
        assert!(last.overtook(&present("u", "6", b"a")));
        assert!(!last.overtook(&present("u", "7", b"a")));
        assert!(!last.overtook(&present("v", "6", b"a")), "another object counts anew");
        assert!(!Last::UNSEEN.overtook(&present("u", "6", b"a")));
    }
}
