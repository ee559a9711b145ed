//! What is known about the target of every guard, and what of a new look is news. Pure.
//!
//! Of a guard whose target is as approved little more is kept than which version of which object that
//! was: a hundred thousand of them must fit. Looks may come in any order and from several requests at
//! once; one that is older than what is known says nothing.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::core::audit::sight::{Look, ReadBefore};
use crate::core::guard::{Guard, GuardState};
use crate::core::hash::ContentHash;
use crate::core::index::Index;

use super::plan::{Place, Plan, Resource, guard_at, plan};

/// A resource version. API servers count with numbers, of which the larger one is newer; anything else can
/// only be told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Revision(u64);

/// Marks what is no number.
const NO_NUMBER: u64 = 1 << 63;

impl Revision {
    pub(super) fn of(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number < NO_NUMBER => Self(number),
            _ => Self(first_eight(&Sha256::digest(text)) | NO_NUMBER),
        }
    }

    /// Whether this is surely older than `other`.
    pub(super) fn is_older_than(self, other: Self) -> bool {
        (self.0 | other.0) & NO_NUMBER == 0 && self.0 < other.0
    }

    /// The newer one of two, `self` where that cannot be told.
    fn newest(self, other: Self) -> Self {
        if self.is_older_than(other) { other } else { self }
    }
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A uid in few bytes.
fn uid(text: &str) -> [u8; 16] {
    uuid::Uuid::parse_str(text).map_or_else(
        |_| {
            let mut short = [0; 16];
            short.copy_from_slice(&Sha256::digest(text)[..16]);
            short
        },
        uuid::Uuid::into_bytes,
    )
}

/// What was last told about a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Absent,
    /// With the beginning of a digest of the sentence.
    Unreadable(u64),
    /// There, with the expected hash.
    Expected {
        terminating: bool,
    },
    /// There, with another one.
    Other {
        hash: Box<ContentHash>,
        terminating: bool,
    },
}

/// What is known about the target of one guard.
#[derive(Debug, Clone, Default)]
struct Known {
    uid: [u8; 16],
    revision: Revision,
    /// The last list that showed the target, or that had begun when the guard was new.
    listed: u32,
    /// The last sweep, likewise.
    swept: u32,
    told: Told,
    /// Which of the known versions of API servers showed it.
    server: u16,
}

/// A look at an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// It is there.
    Present {
        /// `metadata.uid`.
        uid: &'a str,
        /// `metadata.resourceVersion`.
        revision: Revision,
        /// What the guard pins of it.
        hash: ContentHash,
        /// Whether its deletion has begun.
        terminating: bool,
    },
    /// It is not there, as of this revision where one is known.
    Absent(Option<Revision>),
    /// It cannot be read; a sentence.
    Unreadable(&'a str),
}

impl Seen<'_> {
    fn revision(&self) -> Option<Revision> {
        match self {
            Self::Present { revision, .. } => Some(*revision),
            Self::Absent(revision) => *revision,
            Self::Unreadable(_) => None,
        }
    }

    fn as_told(&self, guard: &Guard) -> Told {
        match *self {
            Self::Present { hash, terminating, .. } if hash == guard.expected => {
                Told::Expected { terminating }
            }
            Self::Present { hash, terminating, .. } => Told::Other { hash: Box::new(hash), terminating },
            Self::Absent(_) => Told::Absent,
            Self::Unreadable(sentence) => Told::Unreadable(first_eight(&Sha256::digest(sentence))),
        }
    }
}

/// Where a look comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// How it came about, unless it is the first.
    pub(super) look: Look,
    /// The list that it is part of.
    pub(super) list: Option<u32>,
    /// What was known when a read of the newest state began: an older answer then means that history
    /// itself has gone back, as when etcd was restored.
    pub(super) since: Option<Revision>,
    /// Whether a watch that lived all the time should have told it.
    pub(super) missed: bool,
}

impl Source {
    /// An event of a watch.
    pub(super) const EVENT: Self = Self { look: Look::Watch, list: None, since: None, missed: false };
}

/// What a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No news.
    Known,
    /// News, to be told as such a look.
    News(Look),
}

/// All that is known, for the guards of one index and in its order.
#[derive(Debug, Default)]
pub(super) struct KnownTargets {
    index: Arc<Index>,
    plan: Plan,
    known: Vec<Known>,
    /// The number of the last list or sweep.
    pass: u32,
    /// Versions of the API server so far, the present one last. Few.
    servers: Vec<String>,
}

impl KnownTargets {
    /// The index.
    pub(super) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index)
    }

    /// The watches that its guards need.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Goes over to another index. Gives the guards whose targets must be looked at anew, each with the
    /// place that covers it: those that are new or pin something else.
    pub(super) fn follow(
        &mut self,
        index: &Arc<Index>,
        narrow: &HashSet<Resource>,
    ) -> Vec<(Place, Arc<Guard>)> {
        let old = std::mem::replace(&mut self.index, Arc::clone(index));
        let mut before = old.guards().iter().zip(std::mem::take(&mut self.known)).peekable();
        let mut fresh = HashSet::new();
        // Of very many guards half as much again would stay unused.
        self.known.reserve_exact(index.guards().len());
        for (position, state) in (0..).zip(index.guards()) {
            while before.next_if(|(earlier, _)| earlier.id() < state.id()).is_some() {}
            let known = match before.next_if(|(earlier, _)| earlier.id() == state.id()) {
                Some((earlier, known)) if pins_the_same(earlier, state) => known,
                earlier => {
                    fresh.insert(position);
                    let same_object = earlier.filter(|(earlier, _)| earlier.target() == state.target());
                    let Known { uid, revision, .. } = same_object.map(|(_, known)| known).unwrap_or_default();
                    let (listed, swept) = (self.pass, self.pass);
                    Known { uid, revision, listed, swept, told: Told::Nothing, server: 0 }
                }
            };
            self.known.push(known);
        }
        self.plan = plan(index, narrow);
        let mut found = Vec::new();
        for (place, positions) in &self.plan {
            for position in positions.iter().filter(|position| fresh.contains(*position)) {
                found.extend(guard_at(index, *position).map(|guard| (place.clone(), Arc::clone(guard))));
            }
        }
        found
    }

    /// Which version the API server has from now on, as it says. What was seen before it first said so was
    /// shown by that very one, as far as anybody knows.
    pub(super) fn server_is(&mut self, version: &str) {
        if self.servers.last().is_none_or(|last| last != version) {
            self.servers.push(version.to_owned());
        }
    }

    /// As what exactly this version of a guard's target was seen before, when that was otherwise. Without
    /// news of a write: most of them leave the hash as it is.
    pub(super) fn read_before(&self, guard: &Guard, seen: &Seen<'_>) -> Option<ReadBefore> {
        let Seen::Present { uid, revision, hash, .. } = seen else { return None };
        let (before, server) = self.content(guard, uid, *revision)?;
        (before != *hash).then_some(ReadBefore { hash: before, server })
    }

    /// What a guard's target holds in exactly this version, and which version of the API server showed it.
    pub(super) fn content(
        &self,
        guard: &Guard,
        uid_text: &str,
        revision: Revision,
    ) -> Option<(ContentHash, String)> {
        let known = self.known.get(self.find(guard)?)?;
        let hash = match &known.told {
            Told::Expected { .. } => guard.expected,
            Told::Other { hash, .. } => **hash,
            Told::Nothing | Told::Absent | Told::Unreadable(_) => return None,
        };
        let server = self.servers.get(usize::from(known.server)).cloned().unwrap_or_default();
        (known.uid == uid(uid_text) && known.revision == revision).then_some((hash, server))
    }

    /// The number of a list or sweep that begins now.
    pub(super) fn begin(&mut self) -> u32 {
        self.pass += 1;
        self.pass
    }

    /// The guards of a place.
    pub(super) fn guards_at(&self, place: &Place) -> Vec<Arc<Guard>> {
        self.positions(place).filter_map(|position| guard_at(&self.index, position)).cloned().collect()
    }

    /// The newest revision that is known in a place.
    pub(super) fn newest(&self, place: &Place) -> Revision {
        let known = self.positions(place).filter_map(|position| self.at(position));
        known.fold(Revision::default(), |newest, known| newest.newest(known.revision))
    }

    /// What is known about the guard's target was learned from a history that is no more.
    pub(super) fn forget_revisions(&mut self, place: &Place) {
        for position in self.positions(place).collect::<Vec<_>>() {
            if let Some(known) = usize::try_from(position).ok().and_then(|at| self.known.get_mut(at)) {
                known.revision = Revision::default();
            }
        }
    }

    /// The revision known of a guard's target; `None` when the guard is not, or not any more, one of the
    /// index.
    pub(super) fn revision(&self, guard: &Guard) -> Option<Revision> {
        self.find(guard).and_then(|at| self.known.get(at)).map(|known| known.revision)
    }

    /// Whether nothing has been told about a guard of the index yet.
    pub(super) fn is_untold(&self, guard: &Guard) -> bool {
        self.find(guard).and_then(|at| self.known.get(at)).is_some_and(|known| known.told == Told::Nothing)
    }

    /// Whether it is known that the target of a guard is not there.
    pub(super) fn is_absent(&self, guard: &Guard) -> bool {
        self.find(guard).and_then(|at| self.known.get(at)).is_none_or(|known| known.told == Told::Absent)
    }

    /// Takes a look at the target of a guard. With `telling` it is known from now on; without, news
    /// changes nothing, so that it can be asked for again.
    pub(super) fn see(&mut self, guard: &Guard, seen: &Seen<'_>, source: Source, telling: bool) -> Outcome {
        let server = u16::try_from(self.servers.len().saturating_sub(1)).unwrap_or(u16::MAX);
        let Some(known) = self.find(guard).and_then(|at| self.known.get_mut(at)) else {
            return Outcome::Known;
        };
        if let Some(list) = source.list
            && !matches!(seen, Seen::Absent(_))
        {
            known.listed = known.listed.max(list);
        }
        if is_stale(known.revision, seen.revision(), source.since) {
            return Outcome::Known;
        }
        let is_same = match seen {
            Seen::Present { uid: seen_uid, hash, terminating, .. } => {
                known.uid == uid(seen_uid) && is_as_told(&known.told, *hash, *terminating, guard)
            }
            Seen::Absent(_) | Seen::Unreadable(_) => known.told == seen.as_told(guard),
        };
        if is_same || telling {
            // Not stale, so that it is as new, or history went back.
            known.revision = seen.revision().unwrap_or(known.revision);
            known.server = server;
        }
        if is_same {
            return Outcome::Known;
        }
        let look = if known.told == Told::Nothing { Look::Initial } else { source.look };
        if telling {
            known.told = seen.as_told(guard);
            if let Seen::Present { uid: seen_uid, .. } = seen {
                known.uid = uid(seen_uid);
            }
        }
        Outcome::News(look)
    }

    /// The guards of a place whose targets a complete list did not show.
    pub(super) fn unlisted(&self, place: &Place, list: u32) -> Vec<Arc<Guard>> {
        self.missing(place, |known| known.listed < list)
    }

    /// The same for a sweep, which compares only with what is known.
    pub(super) fn unswept(&self, place: &Place, sweep: u32) -> Vec<Arc<Guard>> {
        self.missing(place, |known| known.swept < sweep && known.told != Told::Nothing)
    }

    /// Takes what a sweep shows of the target of a guard, and tells whether that is known already.
    pub(super) fn compare(&mut self, guard: &Guard, uid_text: &str, revision: Revision, sweep: u32) -> bool {
        let Some(known) = self.find(guard).and_then(|at| self.known.get_mut(at)) else { return true };
        known.swept = known.swept.max(sweep);
        match known.told {
            // Somebody is about to tell; the version of what cannot be read is not known.
            Told::Nothing | Told::Unreadable(_) => true,
            Told::Absent => revision.is_older_than(known.revision),
            Told::Expected { .. } | Told::Other { .. } => {
                revision.is_older_than(known.revision)
                    || known.revision == revision && known.uid == uid(uid_text)
            }
        }
    }

    fn missing(&self, place: &Place, is_missing: impl Fn(&Known) -> bool) -> Vec<Arc<Guard>> {
        self.positions(place)
            .filter(|position| {
                self.at(*position).is_some_and(|known| known.told != Told::Absent && is_missing(known))
            })
            .filter_map(|position| guard_at(&self.index, position).cloned())
            .collect()
    }

    fn positions(&self, place: &Place) -> impl Iterator<Item = u32> {
        self.plan.get(place).into_iter().flatten().copied()
    }

    fn at(&self, position: u32) -> Option<&Known> {
        self.known.get(usize::try_from(position).ok()?)
    }

    /// The position of a guard, while the index holds one that pins the same.
    fn find(&self, guard: &Guard) -> Option<usize> {
        let guards = self.index.guards();
        let at = guards.binary_search_by(|state| state.id().cmp(&guard.id)).ok()?;
        match &guards[at] {
            GuardState::Valid(now) if is_same_pin(now, guard) => Some(at),
            _ => None,
        }
    }
}

fn is_stale(known: Revision, seen: Option<Revision>, since: Option<Revision>) -> bool {
    match (seen, since) {
        (Some(seen), None) => seen.is_older_than(known),
        (Some(seen), Some(since)) => seen.is_older_than(known) && known != since,
        // Without a revision: unless something else was learned meanwhile.
        (None, Some(since)) => known != since,
        (None, None) => false,
    }
}

fn is_as_told(told: &Told, hash: ContentHash, terminating: bool, guard: &Guard) -> bool {
    match told {
        Told::Expected { terminating: was } => *was == terminating && hash == guard.expected,
        Told::Other { hash: other, terminating: was } => *was == terminating && hash == **other,
        Told::Nothing | Told::Absent | Told::Unreadable(_) => false,
    }
}

fn pins_the_same(old: &GuardState, new: &GuardState) -> bool {
    match (old, new) {
        (GuardState::Valid(old), GuardState::Valid(new)) => Arc::ptr_eq(old, new) || is_same_pin(old, new),
        // Nothing is known of either.
        (GuardState::Invalid(old), GuardState::Invalid(new)) => old.id == new.id,
        _ => false,
    }
}

/// Whether what is known about the target of one is known about that of the other.
fn is_same_pin(one: &Guard, other: &Guard) -> bool {
    std::ptr::eq(one, other)
        || one.id == other.id
            && one.uid == other.uid
            && one.target == other.target
            && one.expected == other.expected
            && one.scope == other.scope
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
