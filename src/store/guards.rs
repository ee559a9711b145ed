//! The watch of guards, and the snapshots made of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_resource};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::reasons;
use crate::core::guard::{GuardId, GuardState, Signer, Target};
use crate::core::index::Index;
use crate::core::kinds::{Catalog, KindEntry};
use crate::core::signature::SigningKey;

use super::Shared;
use super::by_id::ById;
use super::catalog::Unresolved;
use super::convert::{Settings, noted};
use super::exceptions::Exceptions;
use super::observation::{Observation, Seen};
use super::resolution::{self, Resolved, resolve};
use super::stored::{Received, Stored};

/// Most events taken into one snapshot: many changes at once cost one index, yet none waits long.
const MAX_BATCH: usize = 1_000;
/// Pause before all guards are read anew because an answer made no sense.
const RESYNC_PAUSE: Duration = Duration::from_secs(5);

/// How long the first snapshot waits for the key by which authors are verified.
const KEY_WAIT: Duration = Duration::from_secs(10);

/// After a snapshot, how many times as long as it took no other is made: each costs time in proportion
/// to all guards, of which a storm of changes must not take more than this share.
const REST: u32 = 4;

type Events = BoxStream<'static, watcher::Result<Event<Received>>>;

/// Keeps index and observations up to date, for ever.
pub(super) async fn keep(shared: &Shared, unresolved: &watch::Sender<Unresolved>) {
    let mut keeper = Keeper::new(shared.settings.clone());
    let mut catalogs = shared.catalog.subscribe();
    // A receiver is not told of what was sent before it, and a quick answer may have come already.
    catalogs.mark_changed();
    let mut keys = shared.keys.clone();
    // Without the key every guard would be of an unknown author for a moment, and be reported as such.
    let known = tokio::time::timeout(KEY_WAIT, keys.wait_for(Option::is_some)).await;
    drop(known);
    keeper.use_key(keys.borrow_and_update().clone());
    let mut exceptions = shared.exceptions.subscribe();
    // A snapshot that knows no exceptions yet would end them all for a moment.
    let _ = exceptions.wait_for(Option::is_some).await;
    let known = exceptions.borrow_and_update().clone();
    keeper.use_exceptions(known.unwrap_or_default());
    let mut list = InitialList::Streamed;
    let mut events = watch_guards(&shared.client, list);
    loop {
        tokio::select! {
            event = events.next() => {
                let mut next = event;
                let mut taken = 0;
                while let Some(event) = next.take() {
                    match event {
                        Ok(event) => keeper.take(event),
                        Err(error) => {
                            let restart = after(&error, &mut list);
                            if restart == Restart::Later {
                                tokio::time::sleep(RESYNC_PAUSE).await;
                            }
                            if restart != Restart::Never {
                                events = watch_guards(&shared.client, list);
                            }
                            break;
                        }
                    }
                    taken += 1;
                    if taken < MAX_BATCH {
                        next = events.next().now_or_never().flatten();
                    }
                }
            }
            Ok(()) = keys.changed() => {
                let key = keys.borrow_and_update().clone();
                keeper.use_key(key);
            }
            changed = catalogs.changed() => {
                if changed.is_err() {
                    return;
                }
                let catalog = catalogs.borrow_and_update().clone();
                if let Some(catalog) = catalog {
                    keeper.use_catalog(catalog);
                }
            }
            changed = exceptions.changed() => {
                if changed.is_err() {
                    return;
                }
                let new = exceptions.borrow_and_update().clone();
                keeper.use_exceptions(new.unwrap_or_default());
            }
        }
        let began = Instant::now();
        if publish(shared, &mut keeper, unresolved) {
            tokio::time::sleep(began.elapsed() * REST).await;
        }
    }
}

/// Tells whether there was anything to publish.
fn publish(shared: &Shared, keeper: &mut Keeper, unresolved: &watch::Sender<Unresolved>) -> bool {
    let Some(observation) = keeper.observe() else { return false };
    // First what decides, then what reports: nobody must act on a guard that is not yet enforced.
    shared.index.store(Arc::clone(&observation.index));
    shared.observations.send_replace(Arc::new(observation));
    let now = keeper.unresolved();
    unresolved.send_if_modified(|before| std::mem::replace(before, now) != now);
    true
}

/// How the guards are first read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitialList {
    /// As a watch that starts with what there is: the server need not hold the list in memory.
    Streamed,
    /// As a list, for servers with that feature turned off.
    Listed,
}

fn watch_guards(client: &Client, list: InitialList) -> Events {
    let config = match list {
        InitialList::Streamed => watcher::Config::default().streaming_lists(),
        InitialList::Listed => watcher::Config::default(),
    };
    watch_resource(Api::<Received>::all(client.clone()), config).default_backoff().boxed()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// The watch mends itself.
    Never,
    /// Read all anew, the other way.
    Now,
    /// Read all anew after a pause: something was lost.
    Later,
}

fn after(error: &watcher::Error, list: &mut InitialList) -> Restart {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 422 && *list == InitialList::Streamed =>
        {
            tracing::debug!("the API server streams no lists; listing guards instead");
            *list = InitialList::Listed;
            Restart::Now
        }
        watcher::Error::WatchFailed(kube::Error::SerdeError(error)) => {
            tracing::error!(%error, "an event of the watch of DriftGuards cannot be read; reading all anew");
            Restart::Later
        }
        other => {
            tracing::warn!(error = %other, "the watch of DriftGuards failed; trying again");
            Restart::Never
        }
    }
}

/// What has been seen so far. No I/O: events go in, snapshots come out.
struct Keeper {
    settings: Settings,
    key: Option<SigningKey>,
    catalog: Option<Arc<Catalog>>,
    exceptions: Arc<Exceptions>,
    guards: ById,
    /// What the kinds of guards were ever found to mean, each held once.
    kinds: BTreeSet<Arc<KindEntry>>,
    /// Who approved guards, each held once.
    signers: HashSet<Arc<Signer>>,
    /// Guards of a list that is not complete yet; until it is, the old ones stand.
    listing: Option<BTreeMap<GuardId, Stored>>,
    has_listed: bool,
    version: u64,
    index: Arc<Index>,
    is_index_stale: bool,
    is_changed: bool,
    unresolved: Unresolved,
}

impl Keeper {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            key: None,
            catalog: None,
            exceptions: Arc::default(),
            guards: ById::default(),
            kinds: BTreeSet::new(),
            signers: HashSet::new(),
            listing: None,
            has_listed: false,
            version: 0,
            index: Arc::default(),
            is_index_stale: true,
            is_changed: false,
            unresolved: Unresolved::default(),
        }
    }

    fn take(&mut self, event: Event<Received>) {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(received) => {
                let listing = self.listing.get_or_insert_default();
                let stored = Stored::from(received);
                let old = self.guards.get(stored.id()).map(|seen| &seen.stored);
                // Before it in the list stands one of the same namespace, mostly.
                let stored =
                    match old.or_else(|| listing.range(..stored.id()).next_back().map(|(_, near)| near)) {
                        Some(other) => stored.sharing(other),
                        None => stored,
                    };
                listing.insert(stored.id().clone(), stored);
            }
            Event::InitDone => self.finish_listing(),
            Event::Apply(received) => self.apply(received.into()),
            Event::Delete(received) => self.remove(&received.id()),
        }
    }

    fn finish_listing(&mut self) {
        let listed = self.listing.take().unwrap_or_default();
        let ids = self.guards.iter().map(|seen| seen.stored.id());
        let gone: Vec<GuardId> = ids.filter(|id| !listed.contains_key(*id)).cloned().collect();
        gone.iter().for_each(|id| self.remove(id));
        listed.into_values().for_each(|stored| self.apply(stored));
        self.has_listed = true;
        self.is_changed = true;
    }

    fn remove(&mut self, id: &GuardId) {
        if let Some(gone) = self.guards.remove(id) {
            // Told by state and not by the review, which does not come while nobody answers.
            let target = gone.state.target().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                namespace = %id.namespace,
                name = %id.name,
                target,
                "a guard was deleted: nothing pins its target any more"
            );
            self.is_index_stale = true;
            self.is_changed = true;
        }
    }

    fn apply(&mut self, stored: Stored) {
        self.is_changed = true;
        let old = self.guards.get(stored.id()).map(Arc::clone);
        let stored = match &old {
            Some(old) => remembering(stored, &old.stored, self.key.as_ref()).sharing(&old.stored),
            None => stored,
        };
        let stored = stored.holding(&self.kinds);
        if let Some(old) = &old
            && is_same(old, &stored, self.key.as_ref())
        {
            self.guards.put(Arc::new(Seen { stored, ..Seen::clone(old) }));
            return;
        }
        let seen = self.convert(&stored, old.as_deref());
        if is_unresolved(&seen.state) {
            self.unresolved.count += 1;
        }
        self.guards.put(Arc::new(seen));
        self.is_index_stale = true;
    }

    /// Converts a guard. `old` is what it was before.
    fn convert(&mut self, stored: &Stored, old: Option<&Seen>) -> Seen {
        let none = Catalog::default();
        let catalog = self.catalog.as_deref().unwrap_or(&none);
        let Resolved { state, found, kept } =
            resolve(stored, old, catalog, &self.settings, self.key.as_ref());
        let mut state = self.exceptions.apply(state, stored, self.settings.longest_pause);
        if let Some(author) = state.author_mut() {
            author.signer = self.signer(&author.signer);
        }
        let (since, needed) = (self.version + 1, stored.revision());
        let found = found.map(|entry| self.shared(entry));
        Seen { stored: stored.clone(), state, since, needed, found, kept: kept.map(Into::into) }
    }

    /// The same entry, held once for all guards of the kind.
    fn shared(&mut self, entry: KindEntry) -> Arc<KindEntry> {
        // As in statuses, which share it: alone in a catalog, it must be what a kind without a version means.
        let entry = KindEntry { preferred: true, ..entry };
        if let Some(known) = self.kinds.get(&entry) {
            return Arc::clone(known);
        }
        let entry = Arc::new(entry);
        self.kinds.insert(Arc::clone(&entry));
        entry
    }

    /// The same signer, held once for all guards that they approved.
    fn signer(&mut self, signer: &Arc<Signer>) -> Arc<Signer> {
        if let Some(known) = self.signers.get(signer) {
            return Arc::clone(known);
        }
        self.signers.insert(Arc::clone(signer));
        Arc::clone(signer)
    }

    /// Looks up every kind anew.
    fn use_catalog(&mut self, catalog: Arc<Catalog>) {
        self.catalog = Some(catalog);
        self.convert_all();
    }

    /// Verifies anew what was signed: authors, and promotions.
    fn use_key(&mut self, key: Option<SigningKey>) {
        self.key = key;
        for old in self.all() {
            let new = self.convert(&old.stored, Some(&old));
            // A guard counts as new only when another enforcement is in effect, not for its author.
            let (since, needed) = if is_same_resolution(&old.state, &new.state) {
                (old.since, old.needed)
            } else {
                (new.since, new.needed)
            };
            self.guards.put(Arc::new(Seen { since, needed, ..new }));
        }
        self.is_changed = true;
        self.is_index_stale |= self.guards.len() > 0;
    }

    fn convert_all(&mut self) {
        for old in self.all() {
            let new = self.convert(&old.stored, Some(&old));
            if !is_same_resolution(&old.state, &new.state) || old.kept != new.kept {
                self.guards.put(Arc::new(new));
                self.is_index_stale = true;
            }
        }
        self.is_changed = true;
    }

    /// Pauses guards as these exceptions say, and no longer as former ones did.
    fn use_exceptions(&mut self, exceptions: Arc<Exceptions>) {
        let before = std::mem::replace(&mut self.exceptions, exceptions);
        for old in self.concerned(&before).into_values() {
            let new = self.convert(&old.stored, Some(&old));
            if old.state.pauses() != new.state.pauses() {
                // What is registered and proved for it does not depend on pauses.
                let new = Seen { since: old.since, ..new };
                self.guards.put(Arc::new(new));
                self.is_index_stale = true;
            }
        }
        self.is_changed = true;
    }

    /// The guards that exceptions mean which came, went or changed since `before`: none but these need be
    /// looked at anew, of a hundred thousand.
    fn concerned(&self, before: &Exceptions) -> BTreeMap<GuardId, Arc<Seen>> {
        let mut concerned = BTreeMap::new();
        let entry = |seen: &Arc<Seen>| (seen.stored.id().clone(), Arc::clone(seen));
        for exception in before.differing(&self.exceptions) {
            let id =
                |name: &str| GuardId { namespace: exception.namespace.as_str().into(), name: name.into() };
            if let Some(names) = exception.terms.names() {
                let found = names.iter().filter_map(|name| self.guards.get(&id(name)));
                concerned.extend(found.map(entry));
                continue;
            }
            let first = id("");
            let of_namespace = self
                .guards
                .starting_at(&first)
                .take_while(|seen| seen.stored.namespace() == exception.namespace.as_str());
            let meant = of_namespace
                .filter(|seen| exception.terms.covers(seen.stored.name(), |key| seen.stored.label(key)));
            concerned.extend(meant.map(entry));
        }
        concerned
    }

    /// The guards as they stand, to go through while they are replaced.
    fn all(&self) -> Vec<Arc<Seen>> {
        self.guards.iter().cloned().collect()
    }

    /// The snapshot, when something changed since the last one and all is known that it needs.
    fn observe(&mut self) -> Option<Observation> {
        let is_complete = self.has_listed && self.catalog.is_some();
        if !is_complete || !std::mem::take(&mut self.is_changed) {
            return None;
        }
        if std::mem::take(&mut self.is_index_stale) {
            self.version += 1;
            self.signers.retain(|signer| Arc::strong_count(signer) > 1);
            self.index = Arc::new(Index::build(self.guards.iter().map(|seen| seen.state.clone()).collect()));
        }
        self.unresolved.any = self.guards.iter().any(|seen| is_unresolved(&seen.state));
        Some(Observation {
            version: self.version,
            index: Arc::clone(&self.index),
            guards: self.guards.iter().cloned().collect(),
            revision: self.guards.iter().map(|seen| seen.stored.revision()).max().unwrap_or_default(),
            exceptions: Some(self.exceptions.digest(self.settings.longest_pause)),
        })
    }

    fn unresolved(&self) -> Unresolved {
        self.unresolved
    }
}

/// A guard with what its former status said of its promotion: the holder of the lease writes it back.
pub(super) fn remembering(stored: Stored, old: &Stored, key: Option<&SigningKey>) -> Stored {
    if old.uid() != stored.uid() || old.generation() != stored.generation() {
        return stored;
    }
    match noted(old, key) {
        Some(noted) => stored.remembering(noted),
        None => stored,
    }
}

/// Whether a guard decides as it did before: what differs is told by its status alone, and is nothing that
/// counts there.
pub(super) fn is_same(old: &Seen, stored: &Stored, key: Option<&SigningKey>) -> bool {
    old.stored.means_the_same(stored)
        && is_promotion_same(old, stored, key)
        && old.stored.status().equivalents() == stored.status().equivalents()
        && !is_turned(old, stored, key)
}

/// Whether a status makes as much of the guard as the one before.
fn is_promotion_same(old: &Seen, stored: &Stored, key: Option<&SigningKey>) -> bool {
    let at = |stored: &Stored| noted(stored, key).and_then(|noted| noted.promoted_at);
    old.stored.status().enforce_after_clean() == stored.status().enforce_after_clean()
        || at(&old.stored) == at(stored)
}

/// Whether a status names, signed, another resource than the guard goes by.
fn is_turned(old: &Seen, stored: &Stored, key: Option<&SigningKey>) -> bool {
    let Some(key) = key else { return false };
    old.stored.status().resolved_target() != stored.status().resolved_target()
        && resolution::noted(stored, key).is_some_and(|noted| {
            let is_it = |target: &Target| target.group == noted.group && target.resource == noted.plural;
            !old.state.target().is_some_and(is_it)
        })
}

fn is_unresolved(state: &GuardState) -> bool {
    matches!(state, GuardState::Invalid(invalid) if invalid.reason == reasons::TARGET_UNKNOWN)
}

/// Whether another catalog has made no difference to a guard of the same spec.
fn is_same_resolution(old: &GuardState, new: &GuardState) -> bool {
    match (old, new) {
        (GuardState::Valid(old), GuardState::Valid(new)) => {
            old.target == new.target
                && old.enforcement == new.enforcement
                && old.replicas_path == new.replicas_path
                && old.versions == new.versions
        }
        (GuardState::Invalid(old), GuardState::Invalid(new)) => old == new,
        _ => false,
    }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
