//! Which replicas answer reviews, and how new the view of each is.
//!
//! Every replica keeps a Lease of its own ([`super::member`]); here they are watched. A replica counts
//! from when its Lease is made, which is before it is ready, until the Lease is removed or has not
//! changed for its duration. As for the one Lease of the writer, clocks of two machines are never
//! compared: what counts is when this process saw the last change. A watch that is silent is no sign
//! that somebody died, since it may hang itself: only a list, read from a quorum, shows that.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_resource};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::names;
use crate::core::hash::ContentHash;

use super::said::{DURATION, Said};

/// When the Lease of a dead replica is removed: long after nobody counts it any more.
const FORGET: Duration = Duration::from_secs(120);
/// Longest a list may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// One replica, as its Lease was last seen.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    version: String,
    since: Instant,
    said: Said,
    /// Whether a list showed that it does not renew its Lease any more.
    is_dead: bool,
}

impl Entry {
    fn is_silent(&self, now: Instant) -> bool {
        !self.is_dead && now.duration_since(self.since) >= DURATION
    }
}

/// All replicas, by the names of their Leases.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Roll {
    entries: BTreeMap<String, Entry>,
}

impl Roll {
    /// Notes a Lease as it was seen at `now`. Tells whether it says anything new.
    fn saw(&mut self, lease: &Lease, now: Instant) -> bool {
        let name = lease.metadata.name.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let said = Said::read(lease);
        let before = self.entries.get(&name);
        if before.is_some_and(|before| number(&before.version) >= number(&version)) {
            return false;
        }
        let is_new = before.is_none_or(|before| {
            // A replica that was dead and is back counts anew.
            before.said != said || before.is_dead
        });
        self.entries.insert(name, Entry { version, since: now, said, is_dead: false });
        is_new
    }

    /// Notes all Leases as a list showed them at `now`. Tells whether that says anything new. Which of
    /// them has not changed for its duration is dead.
    fn saw_all(&mut self, leases: &[Lease], now: Instant) -> bool {
        // Not short-circuited: each has to be noted.
        let mut is_new = leases.iter().fold(false, |is_new, lease| self.saw(lease, now) | is_new);
        for entry in self.entries.values_mut().filter(|entry| entry.is_silent(now)) {
            entry.is_dead = true;
            is_new = true;
        }
        is_new
    }

    /// Forgets all but these.
    fn keep(&mut self, names: &HashSet<String>) -> bool {
        let before = self.entries.len();
        self.entries.retain(|name, _| names.contains(name));
        self.entries.len() != before
    }

    fn others(&self, own: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |(name, _)| *name != own).map(|(_, entry)| entry)
    }

    /// What the replicas other than `own` say that are not known to be dead.
    pub(super) fn live(&self, own: &str) -> Views {
        let lives = |entry: &&Entry| !entry.is_dead;
        Views { said: self.others(own).filter(lives).map(|entry| entry.said.clone()).collect() }
    }

    /// What every other replica said last, dead ones included.
    pub(super) fn all(&self, own: &str) -> impl Iterator<Item = &Said> {
        self.others(own).map(|entry| &entry.said)
    }

    /// The Leases to be removed, each with the version in which it was last seen.
    fn left_behind(&self, now: Instant) -> Vec<(String, String)> {
        let is_old = |entry: &Entry| now.duration_since(entry.since) >= FORGET;
        let old = self.entries.iter().filter(|(_, entry)| is_old(entry));
        old.map(|(name, entry)| (name.clone(), entry.version.clone())).collect()
    }
}

/// Resource versions of one kind are numbers that grow.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

/// What replicas should have applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Every guard up to this resourceVersion.
    pub(super) revision: u64,
    /// These exceptions.
    pub(super) exceptions: Option<ContentHash>,
}

/// What the other replicas say at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Views {
    said: Vec<Said>,
}

impl Views {
    /// The replicas that have not applied a guard which stands as it is since `needed`.
    pub(super) fn behind<'a>(&'a self, uid: &'a str, needed: u64) -> impl Iterator<Item = &'a str> + use<'a> {
        self.said.iter().filter(move |said| said.is_behind(uid, needed)).map(|said| said.replica.as_str())
    }

    /// The replicas that let other writes pass than these exceptions do.
    pub(super) fn differing(&self, exceptions: ContentHash) -> impl Iterator<Item = &str> {
        self.said.iter().filter(move |said| said.differs(exceptions)).map(|said| said.replica.as_str())
    }

    /// Whether all have applied what is `wanted`.
    fn reach(&self, wanted: Wanted) -> bool {
        let has = |said: &Said| {
            said.revision >= wanted.revision && wanted.exceptions.is_none_or(|all| !said.differs(all))
        };
        self.said.iter().all(has)
    }

    /// Up to when all of them have told what would have been refused; `None` when one never has.
    pub(super) fn told_until(&self, own: jiff::Timestamp) -> Option<jiff::Timestamp> {
        self.said.iter().try_fold(own, |least, said| Some(least.min(said.told_until?)))
    }
}

/// The roll as it is kept by one process.
#[derive(Debug, Clone)]
pub struct RollCall {
    leases: Api<Lease>,
    roll: watch::Sender<Roll>,
    own: String,
}

impl RollCall {
    /// The roll of an installation for the replica whose own Lease is `own`; [`Self::keep`] must run.
    #[must_use]
    pub(super) fn new(client: kube::Client, namespace: &str, own: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), roll: watch::Sender::default(), own }
    }

    /// Watches, for ever.
    pub async fn keep(self) {
        let config = watcher::Config::default().labels(names::LABEL_REPLICA);
        let mut events = watch_resource(self.leases.clone(), config).default_backoff().boxed();
        let mut listed = HashSet::new();
        let mut sweep = tokio::time::interval(DURATION);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = sweep.tick() => {
                    self.sweep().await;
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => self.take(event, &mut listed),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the watch of replica leases failed; trying again");
                }
                None => std::future::pending().await,
            }
        }
    }

    fn take(&self, event: Event<Lease>, listed: &mut HashSet<String>) {
        let now = Instant::now();
        self.roll.send_if_modified(|roll| match event {
            Event::Init => {
                listed.clear();
                false
            }
            Event::InitApply(lease) => {
                listed.extend(lease.metadata.name.clone());
                roll.saw(&lease, now)
            }
            Event::InitDone => roll.keep(listed),
            Event::Apply(lease) => roll.saw(&lease, now),
            Event::Delete(lease) => {
                lease.metadata.name.is_some_and(|name| roll.entries.remove(&name).is_some())
            }
        });
    }

    /// Removes what dead replicas left behind. Every replica does, and the first one succeeds. What was
    /// renewed behind the back of a silent watch stays.
    async fn sweep(&self) {
        let dead = self.roll.borrow().left_behind(Instant::now());
        for (name, version) in dead {
            let seen = Preconditions { resource_version: Some(version), uid: None };
            let params = DeleteParams::default().preconditions(seen);
            let removed = self.leases.delete(&name, &params);
            if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIMEOUT, removed).await {
                tracing::debug!(name, %error, "the lease of a dead replica could not be removed");
            }
        }
    }

    /// Lists the Leases, from a quorum: whoever is not in it has not begun to answer, and will have
    /// read everything that exists now before it does.
    ///
    /// # Errors
    /// What to say when they cannot be listed.
    pub(super) async fn list(&self) -> Result<Views, String> {
        let params = ListParams::default().labels(names::LABEL_REPLICA);
        let listed = tokio::time::timeout(REQUEST_TIMEOUT, self.leases.list(&params))
            .await
            .map_err(|_| "the API server did not list the leases of the replicas in time".to_owned())?
            .map_err(|error| format!("cannot list the leases of the replicas: {error}"))?;
        self.roll.send_if_modified(|roll| roll.saw_all(&listed.items, Instant::now()));
        let names = listed.items.into_iter().filter_map(|lease| lease.metadata.name).collect();
        let mut roll = self.roll.borrow().clone();
        roll.keep(&names);
        Ok(roll.live(&self.own))
    }

    /// What the others say as far as the watch has told, and the last list.
    pub(super) fn views(&self) -> Views {
        self.roll.borrow().live(&self.own)
    }

    /// Whether the watch has told nothing of one of the others for so long that a list must show
    /// whether it still lives.
    pub(super) fn is_in_doubt(&self) -> bool {
        let now = Instant::now();
        self.roll.borrow().others(&self.own).any(|entry| entry.is_silent(now))
    }

    /// Everything that others said last.
    pub(super) fn with_all<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = &Said>) -> T) -> T {
        read(&mut self.roll.borrow().all(&self.own))
    }

    /// Waits until all others have applied what is `wanted`, at most for `limit`.
    pub(super) async fn reach(&self, wanted: Wanted, limit: Duration) {
        let mut changes = self.roll.subscribe();
        let reached = changes.wait_for(|roll| roll.live(&self.own).reach(wanted));
        // Whether it was in time is looked at afterwards, by a list.
        let _ = tokio::time::timeout(limit, reached).await;
    }

    /// Tells of changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<Roll> {
        self.roll.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str, version: u64, revision: u64) -> Lease {
        let said = Said { replica: name.into(), revision, ..Said::default() };
        let mut lease = said.lease(name, name, jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH);
        lease.metadata.resource_version = Some(version.to_string());
        lease
    }

    fn behind(roll: &Roll, needed: u64) -> Vec<String> {
        roll.live("own").behind("uid", needed).map(str::to_owned).collect()
    }

    #[test]
    fn a_replica_that_lags_is_named_and_we_ourselves_do_not_count() {
        let (mut roll, now) = (Roll::default(), Instant::now());
        for lease in [lease("own", 1, 0), lease("a", 2, 7), lease("b", 3, 6)] {
            assert!(roll.saw(&lease, now));
        }
        assert_eq!(behind(&roll, 7), ["b"]);
        assert!(roll.saw(&lease("b", 4, 7), now));
        assert!(behind(&roll, 7).is_empty());
    }

    #[test]
    fn a_replica_counts_until_a_list_shows_that_its_lease_has_not_changed_for_its_duration() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.saw(&lease("a", 1, 1), start);
        assert!(!roll.saw(&lease("a", 2, 1), start + DURATION / 2), "renewed, and nothing new said");
        assert!(!roll.saw_all(&[lease("a", 2, 1)], start + DURATION), "its time is not over");
        assert_eq!(behind(&roll, 9), ["a"]);
        assert!(roll.saw_all(&[lease("a", 2, 1)], start + DURATION / 2 + DURATION));
        assert!(behind(&roll, 9).is_empty());
    }

    #[test]
    fn the_silence_of_a_watch_is_not_the_death_of_a_replica() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.saw(&lease("a", 1, 1), start);
        let later = start + DURATION * 3;
        assert!(roll.others("own").any(|entry| entry.is_silent(later)), "it must be looked at");
        assert_eq!(behind(&roll, 9), ["a"], "nobody has looked yet");
        roll.saw_all(&[lease("a", 7, 1)], later);
        assert_eq!(behind(&roll, 9), ["a"], "it has renewed, which the watch did not tell");
        assert!(!roll.others("own").any(|entry| entry.is_silent(later)));
    }

    #[test]
    fn a_replica_that_is_back_counts_anew_and_an_older_list_takes_nothing_back() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.saw(&lease("a", 5, 5), start);
        roll.saw_all(&[lease("a", 4, 9)], start + DURATION);
        assert!(behind(&roll, 9).is_empty(), "it is dead");
        assert!(roll.saw(&lease("a", 6, 5), start + DURATION * 2), "it is back");
        assert_eq!(behind(&roll, 9), ["a"]);
    }

    #[test]
    fn a_replica_that_lets_other_writes_pass_is_named_and_so_is_one_that_does_not_say() {
        let [all, none] = [b"a", b"b"].map(|bytes| ContentHash::of(bytes));
        let said = |replica: &str, exceptions: Option<ContentHash>| Said {
            replica: replica.into(),
            exceptions: exceptions.map(|hash| hash.to_string()),
            ..Said::default()
        };
        let views = Views { said: vec![said("a", Some(all)), said("b", Some(none)), said("c", None)] };
        assert_eq!(views.differing(all).collect::<Vec<_>>(), ["b", "c"]);
        assert!(!views.reach(Wanted { revision: 0, exceptions: Some(all) }));
        assert!(views.reach(Wanted { revision: 0, exceptions: None }));
        let agreed = Views { said: vec![said("a", Some(all))] };
        assert!(agreed.reach(Wanted { revision: 0, exceptions: Some(all) }));
        assert!(!agreed.reach(Wanted { revision: 1, exceptions: Some(all) }));
    }

    #[test]
    fn what_a_replica_left_behind_is_removed_long_after_its_end_if_it_is_as_it_was() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.saw(&lease("a", 1, 1), start);
        assert!(roll.left_behind(start + DURATION).is_empty());
        assert_eq!(roll.left_behind(start + FORGET), [("a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn all_have_told_only_up_to_where_the_last_one_has() {
        let at = |second| jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(second);
        let views = |told: &[Option<u64>]| Views {
            said: told.iter().map(|told| Said { told_until: told.map(at), ..Said::default() }).collect(),
        };
        assert_eq!(views(&[]).told_until(at(9)), Some(at(9)));
        assert_eq!(views(&[Some(7), Some(8)]).told_until(at(9)), Some(at(7)));
        assert_eq!(views(&[Some(7), None]).told_until(at(9)), None);
    }
}
