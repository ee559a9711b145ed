//! The safety net below the watches of one resource: sweeps, and noticing that the same objects read
//! otherwise.
//!
//! A sweep lists metadata only and compares versions with what the watches told. It costs the API server
//! little and us no hashing, and it sees whatever was written. What it cannot see is the same version of an
//! object that reads otherwise, because another version of the API server answers or the definition of the
//! kind was edited: so both are asked for, and when one has changed everything is listed with content.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::audit::sight::Look;
use crate::core::guard::{Guard, url_segment};

use super::event::meta;
use super::known::Revision;
use super::pace::jittered;
use super::plan::{Place, Resource};
use super::request::{Failure, Listing, METADATA, METADATA_LIST, OBJECTS, Purpose};
use super::settled::Window;
use super::shared::{Handle, Shared};
use super::status::Mode;

/// Objects in one page of a sweep. Fewer pages are fewer requests; of metadata, so many are some MiB.
pub const SWEEP_PAGE: u32 = 2_000;
/// With more watches than this one list of all namespaces takes the place of a list for each.
const MOST_LISTS: usize = 16;
/// How long a watch has to tell what a sweep has seen before it.
const GRACE: Duration = Duration::from_secs(2);
/// With more differences than this everything is listed, which costs less than to read each.
const MOST_READS: usize = 100;
/// Of so many at once, how many are read alone all the same, so that their guards say what happened: a status for
/// each of very many would be a storm.
const TOLD_OF_MANY: usize = 20;
/// With so many reads of those that fail the API server is not asked for more.
const MOST_FAILED: usize = 3;
/// Pause after a sweep that failed.
const RETRY: Duration = Duration::from_secs(30);
/// Shortest time between two looks at what the API server and the definition are.
const READING_PAUSE: Duration = Duration::from_secs(60);
/// How long an API server may go on reading by the former definition.
const SETTLE: Duration = Duration::from_secs(5);

/// What decides how stored objects read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    /// The version of the API server that answered.
    server: String,
    /// Uid and generation of the definition; empty for built-in kinds.
    definition: String,
}

/// Keeps one resource for ever. `reconnected` tells when a watch of it has begun again.
pub(super) async fn keep(shared: Arc<Shared>, resource: Resource, reconnected: Arc<Notify>) {
    let interval = shared.settings.audit_interval;
    let mut keeper = Keeper {
        shared,
        resource,
        reading: None,
        read_at: Instant::now(),
        is_narrow: false,
        settled: Window::default(),
    };
    let mut sweep_due = Instant::now() + jittered(interval, 0.1);
    let (mut reading_due, mut again_due) = (Some(Instant::now()), None);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(sweep_due) => {
                let pause = if keeper.net().await { interval } else { interval.min(RETRY) };
                sweep_due = Instant::now() + jittered(pause, 0.1);
            }
            () = until(reading_due) => {
                reading_due = None;
                if keeper.reads_otherwise().await {
                    keeper.list_anew(Look::Watch);
                    again_due = Some(Instant::now() + SETTLE);
                }
            }
            () = until(again_due) => {
                again_due = None;
                keeper.list_anew(Look::Watch);
            }
            () = reconnected.notified() => {
                reading_due = reading_due.or(Some(keeper.read_at + READING_PAUSE));
            }
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Keeper {
    shared: Arc<Shared>,
    resource: Resource,
    reading: Option<Reading>,
    read_at: Instant,
    /// Whether all namespaces may not be listed at once.
    is_narrow: bool,
    settled: Window,
}

/// A guard whose target a sweep saw otherwise than it is known.
struct Suspect {
    place: Place,
    guard: Arc<Guard>,
    /// What the sweep saw; `None` when it did not see the target.
    seen: Option<(String, Revision)>,
}

impl Keeper {
    /// The watches of the resource.
    fn handles(&self) -> Vec<(Place, Handle)> {
        let handles = self.shared.handles();
        let own = handles.iter().filter(|(place, _)| place.resource == self.resource);
        own.map(|(place, handle)| (place.clone(), handle.clone())).collect()
    }

    fn list_anew(&self, look: Look) {
        self.handles().iter().for_each(|(_, handle)| handle.list_anew(look));
    }

    /// Sweeps once, or lists everything where it reads otherwise. Tells whether that is done.
    async fn net(&mut self) -> bool {
        if self.reads_otherwise().await {
            self.list_anew(Look::Watch);
        } else if let Err(failure) = self.sweep().await {
            tracing::debug!(resource = self.resource.word(), %failure, "a sweep failed; trying again");
            return false;
        }
        self.shared.sweeps().insert(self.resource.clone(), Instant::now());
        true
    }

    /// Compares all that is live with what its watches told.
    async fn sweep(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let mut live = self.handles();
        // What is polled or refused is not known by a watch, and what begins is being listed.
        live.retain(|(_, handle)| handle.status.mode() == Mode::Live);
        let pass = self.shared.known().begin();
        let (mut suspects, mut shown) = (Vec::new(), Vec::new());
        if live.len() > MOST_LISTS && !self.is_narrow {
            match self.list(&Place::everywhere(self.resource.clone()), pass, &mut suspects).await {
                Err(failure) if failure.code == 403 => self.is_narrow = true,
                listed => shown.push(listed?),
            }
        }
        if live.len() <= MOST_LISTS || self.is_narrow {
            for (place, _) in &live {
                shown.push(self.list(place, pass, &mut suspects).await?);
            }
        }
        let oldest =
            shown.into_iter().reduce(|one, other| if other.is_older_than(one) { other } else { one });
        if let Some(oldest) = oldest {
            self.settled.swept(oldest);
        }
        for (place, _) in &live {
            let missing = self.shared.known().unswept(place, pass);
            suspects.extend(missing.into_iter().map(|guard| Suspect {
                place: place.clone(),
                guard,
                seen: None,
            }));
        }
        if suspects.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(GRACE).await;
        suspects.retain(|suspect| !self.is_known(suspect, pass));
        let lived =
            |place: &Place| live.iter().any(|(of, handle)| of == place && handle.status.is_live_since(began));
        self.look_at(suspects, lived).await
    }

    /// Lists metadata and notes what is not known. Gives the version that it shows.
    async fn list(&self, place: &Place, pass: u32, suspects: &mut Vec<Suspect>) -> Result<Revision, Failure> {
        let floor = self.shared.known().newest(place);
        let uri = format!("{}?limit={SWEEP_PAGE}{}", place.path(), place.selector());
        let mut listing = Listing::new(&self.shared.requests, uri, METADATA_LIST, Purpose::Sweep);
        while let Some(item) = listing.next().await? {
            let meta = meta(&item).map_err(|error| Failure::unreadable(&error))?;
            let guards = self.shared.guards_of(&self.resource, &meta);
            let revision = Revision::of(&meta.revision);
            for guard in guards {
                if !self.shared.known().compare(&guard, &meta.uid, revision, pass) {
                    let seen = Some((meta.uid.to_string(), revision));
                    let place = self.place_of(&guard).unwrap_or_else(|| place.clone());
                    suspects.push(Suspect { place, guard, seen });
                } else if guard.scope.has_server_defaults() && self.settled.holds(revision) {
                    self.shared.settled(&guard, &meta.uid, &meta.revision).await;
                }
            }
        }
        let shown = Revision::of(listing.revision());
        if shown.is_older_than(floor) {
            // The watch would go on as if nothing had been.
            tracing::warn!(%place, "the history of the API server went back, as when etcd is restored; listing anew");
            self.list_anew(Look::Sweep);
        }
        Ok(shown)
    }

    /// The watch that covers the target of a guard.
    fn place_of(&self, guard: &Guard) -> Option<Place> {
        let handles = self.shared.handles();
        let target = &guard.target;
        let resource = &self.resource;
        let of = |namespace: Option<&_>, name: Option<&_>| Place {
            resource: resource.clone(),
            namespace: namespace.cloned(),
            name: name.cloned(),
        };
        let namespace = target.namespace.as_ref();
        let all = [of(namespace, Some(&target.name)), of(namespace, None), of(None, None)];
        all.into_iter().find(|place| handles.contains_key(place))
    }

    /// Whether a watch has told meanwhile.
    fn is_known(&self, suspect: &Suspect, pass: u32) -> bool {
        let mut known = self.shared.known();
        match &suspect.seen {
            Some((uid, revision)) => known.compare(&suspect.guard, uid, *revision, pass),
            None => known.is_absent(&suspect.guard),
        }
    }

    /// Looks at what a watch should have told and did not: one that `lived` all the time. A watch that was being begun
    /// again has missed nothing, it is about to tell. What is read alone is counted where it is told, as news, and
    /// its guard says so; of very many at once each is counted, and few say so.
    async fn look_at(&self, suspects: Vec<Suspect>, lived: impl Fn(&Place) -> bool) -> Result<(), Failure> {
        if suspects.len() > MOST_READS {
            let (mut read, mut failed) = (0, 0);
            for suspect in suspects.iter().filter(|suspect| lived(&suspect.place)) {
                if read < TOLD_OF_MANY && failed < MOST_FAILED {
                    match self.shared.look(&suspect.guard, Look::Sweep, true).await {
                        Ok(_) => {
                            read += 1;
                            continue;
                        }
                        Err(failure) => {
                            tracing::debug!(target = %suspect.guard.target, %failure, "a missed change could not be read");
                            failed += 1;
                        }
                    }
                }
                // It is told by the list that follows.
                self.shared.note_missed(&suspect.guard);
            }
            let places: HashSet<&Place> = suspects.iter().map(|suspect| &suspect.place).collect();
            for (place, handle) in self.handles() {
                if places.contains(&place) {
                    handle.list_anew(Look::Sweep);
                }
            }
            return Ok(());
        }
        for suspect in &suspects {
            self.shared.look(&suspect.guard, Look::Sweep, lived(&suspect.place)).await?;
        }
        Ok(())
    }

    /// Whether stored objects may read otherwise than when this was last asked.
    async fn reads_otherwise(&mut self) -> bool {
        self.read_at = Instant::now();
        let now = match self.read().await {
            Ok(now) => now,
            Err(failure) => {
                tracing::debug!(%failure, "cannot tell which version the API server is");
                return false;
            }
        };
        self.shared.known().server_is(&now.server);
        let before = self.reading.replace(now.clone());
        let is_other = before.is_some_and(|before| before != now);
        if is_other {
            tracing::info!(
                resource = self.resource.word(),
                server = now.server,
                "the API server or the definition is another one; reading all guarded objects anew"
            );
        }
        is_other
    }

    async fn read(&self) -> Result<Reading, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let requests = &self.shared.requests;
        let version = requests.read("/version", OBJECTS, Purpose::Version).await?;
        let version: Version = serde_json::from_slice(&version).map_err(Failure::no_answer)?;
        Ok(Reading { server: version.git_version, definition: self.definition().await? })
    }

    async fn definition(&self) -> Result<String, Failure> {
        // No built-in group without a dot can be a custom one, and the core group least of all.
        if !self.resource.group.contains('.') {
            return Ok(String::new());
        }
        let name = url_segment(&self.resource.word());
        let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        match self.shared.requests.read(&uri, METADATA, Purpose::Version).await {
            Ok(definition) => {
                let meta = meta(&definition).map_err(|error| Failure::unreadable(&error))?;
                Ok(format!("{}/{}", meta.uid, meta.generation))
            }
            Err(failure) if failure.code == 404 => Ok(String::new()),
            Err(failure) => Err(failure),
        }
    }
}
