//! What all watches share: what is known, the way news goes out, and reads of single objects.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::core::audit::sight::{Look, Present, Sight};
use crate::core::canonical::hash_object;
use crate::core::guard::{Guard, GuardState};
use crate::core::json::JsonError;
use crate::manifests::targets::TargetKind;
use crate::telemetry::metrics::watches::WatchMetrics;

use super::event::{Meta, meta, with_type};
use super::known::{KnownTargets, Outcome, Revision, Seen, Source};
use super::plan::{Place, Resource};
use super::request::{Failure, OBJECTS, Purpose, Requests};
use super::settled::Settled;
use super::status::Status;
use super::{Sighting, WatchSettings};

/// Name of an object that does not exist: that the API server says so shows that it can read its storage.
const NOBODY: &str = "driftguard-asks-for-nobody";

/// Why a target cannot be read although the API server works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// We may not list or watch it.
    Forbidden,
    /// Its resource is served no longer.
    Unserved,
    /// What is stored is no object.
    Undecodable,
}

/// How to reach one watch that runs.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) status: Arc<Status>,
    /// Asks for a list; a count, and as what its news are told.
    anew: Arc<watch::Sender<(u64, Look)>>,
    /// Whether a list is under way.
    listing: Arc<watch::Sender<bool>>,
}

impl Handle {
    pub(super) fn new() -> (Self, watch::Receiver<(u64, Look)>) {
        let (anew, asked) = watch::channel((0, Look::Watch));
        (Self { status: Arc::default(), anew: Arc::new(anew), listing: Arc::default() }, asked)
    }

    /// A list begins or ends.
    pub(super) fn lists(&self, is_under_way: bool) {
        self.listing.send_replace(is_under_way);
    }

    /// Returns once no list is under way. One that is asked for again and again must come to its end.
    pub(super) async fn listed(&self) {
        let _ = self.listing.subscribe().wait_for(|is_under_way| !is_under_way).await;
    }

    /// Has everything listed anew, with content.
    pub(super) fn list_anew(&self, look: Look) {
        self.anew.send_modify(|(count, of)| {
            *count += 1;
            *of = look;
        });
    }
}

/// What all watches share.
pub(super) struct Shared {
    pub(super) requests: Requests,
    pub(super) settings: WatchSettings,
    pub(super) metrics: WatchMetrics,
    known: Mutex<KnownTargets>,
    news: mpsc::Sender<Sighting>,
    resting: mpsc::Sender<Settled>,
    /// Whether the API server begins a watch with what there is.
    streams: AtomicBool,
    /// The watches that run.
    handles: Mutex<BTreeMap<Place, Handle>>,
    /// When each resource was last compared with what its watches told.
    sweeps: Mutex<HashMap<Resource, Instant>>,
    /// Resources that may not be watched in all namespaces at once.
    pub(super) narrow: mpsc::UnboundedSender<Resource>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        requests: Requests,
        settings: WatchSettings,
        metrics: WatchMetrics,
        news: mpsc::Sender<Sighting>,
        resting: mpsc::Sender<Settled>,
        narrow: mpsc::UnboundedSender<Resource>,
    ) -> Self {
        Self {
            requests,
            settings,
            metrics,
            known: Mutex::default(),
            news,
            resting,
            streams: AtomicBool::new(true),
            handles: Mutex::default(),
            sweeps: Mutex::default(),
            narrow,
        }
    }

    /// What is known. Never held while anything is waited for.
    pub(super) fn known(&self) -> MutexGuard<'_, KnownTargets> {
        locked(&self.known)
    }

    /// The watches that run.
    pub(super) fn handles(&self) -> MutexGuard<'_, BTreeMap<Place, Handle>> {
        locked(&self.handles)
    }

    /// The last sweeps.
    pub(super) fn sweeps(&self) -> MutexGuard<'_, HashMap<Resource, Instant>> {
        locked(&self.sweeps)
    }

    pub(super) fn streams_lists(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn streams_no_lists(&self) {
        tracing::debug!("the API server streams no lists; listing guarded objects instead");
        self.streams.store(false, Ordering::Relaxed);
    }

    /// Takes an object of a resource for all guards that pin it in this version.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub(super) async fn see(
        &self,
        resource: &Resource,
        object: &[u8],
        source: Source,
    ) -> Result<(), JsonError> {
        let meta = meta(object)?;
        for guard in self.guards_of(resource, &meta) {
            self.see_for(&guard, object, &meta, source).await;
        }
        Ok(())
    }

    /// Takes the deletion of an object.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub(super) async fn see_deleted(&self, resource: &Resource, object: &[u8]) -> Result<(), JsonError> {
        let meta = meta(object)?;
        for guard in self.guards_of(resource, &meta) {
            let seen = Seen::Absent(Some(Revision::of(&meta.revision)));
            self.tell(&guard, seen, Source::EVENT, None).await;
        }
        Ok(())
    }

    /// The guards that pin an object in the version of the resource; none, mostly.
    pub(super) fn guards_of(&self, resource: &Resource, meta: &Meta<'_>) -> Vec<Arc<Guard>> {
        let index = self.known().index();
        let states = index.lookup(&resource.group, &resource.plural, &meta.namespace, &meta.name);
        states
            .filter_map(|state| match state {
                GuardState::Valid(guard) if resource.is_of(&guard.target) => Some(Arc::clone(guard)),
                _ => None,
            })
            .collect()
    }

    /// Takes an object for one guard. Tells whether that was news.
    async fn see_for(&self, guard: &Arc<Guard>, object: &[u8], meta: &Meta<'_>, source: Source) -> bool {
        match hash_object(object, &guard.scope) {
            Ok(hash) => {
                let revision = Revision::of(&meta.revision);
                let seen = Seen::Present { uid: &meta.uid, revision, hash, terminating: meta.terminating };
                self.tell(guard, seen, source, Some((object, meta))).await
            }
            Err(error) => {
                let sentence = format!("the object has no hash: {error}");
                self.tell(guard, Seen::Unreadable(&sentence), source, None).await
            }
        }
    }

    /// Tells what was seen, if that is news, and whether it is. Waits while nobody takes news.
    pub(super) async fn tell(
        &self,
        guard: &Arc<Guard>,
        seen: Seen<'_>,
        source: Source,
        object: Option<(&[u8], &Meta<'_>)>,
    ) -> bool {
        if self.known().see(guard, &seen, source, false) == Outcome::Known {
            return false;
        }
        let raw = object.and_then(|(object, _)| {
            with_type(object, &guard.target.api_version(), &guard.target.kind).ok().map(Bytes::from)
        });
        let sight = sight(seen, object.map(|(_, meta)| meta));
        // News of one guard go out in the order in which they become known, so there must be room first.
        let Ok(room) = self.news.reserve().await else { return false };
        let mut known = self.known();
        let read_before = known.read_before(guard, &seen);
        let Outcome::News(how) = known.see(guard, &seen, source, true) else { return false };
        self.metrics.news(how.as_str());
        let missed = source.missed && how == Look::Sweep;
        if missed {
            self.note_missed(guard);
        }
        room.send(Sighting {
            guard: guard.id.clone(),
            guard_uid: guard.uid.clone(),
            of: Arc::clone(guard),
            sight,
            how,
            missed,
            read_before,
            object: raw,
            seen_at: Timestamp::now(),
        });
        true
    }

    /// That a watch had not told of a change.
    pub(super) fn note_missed(&self, guard: &Guard) {
        self.metrics.missed();
        let Guard { id, target, .. } = guard;
        tracing::error!(
            namespace = %id.namespace, name = %id.name, %target,
            "a sweep found a change that the watch had not told"
        );
    }

    /// Tells that the target of a guard has stood in this version for a while. Nobody has to listen.
    pub(super) async fn settled(&self, guard: &Arc<Guard>, uid: &str, resource_version: &str) {
        let content = self.known().content(guard, uid, Revision::of(resource_version));
        let Some((hash, server)) = content else { return };
        let (guard, uid, resource_version) = (Arc::clone(guard), uid.to_owned(), resource_version.to_owned());
        drop(self.resting.send(Settled { guard, uid, resource_version, hash, server }).await);
    }

    /// Tells the guards of a place why their targets cannot be read.
    pub(super) async fn tell_obstacle(&self, place: &Place, obstacle: Obstacle) {
        let guards = self.known().guards_at(place);
        for guard in guards {
            self.tell_unreadable(&guard, obstacle, Source::EVENT).await;
        }
    }

    pub(super) async fn tell_unreadable(&self, guard: &Arc<Guard>, obstacle: Obstacle, source: Source) {
        let sentence = self.sentence(guard, obstacle);
        self.tell(guard, Seen::Unreadable(&sentence), source, None).await;
    }

    fn sentence(&self, guard: &Guard, obstacle: Obstacle) -> String {
        let target = &guard.target;
        match obstacle {
            Obstacle::Forbidden => {
                let kind = TargetKind { group: (&target.group).into(), plural: (&target.resource).into() };
                let place = target.namespace.as_deref();
                let within = place.map(|place| format!(" in namespace {place}")).unwrap_or_default();
                format!(
                    "DriftGuard may not list and watch {}{within}, so drift that passes admission by is not \
                     found; `{}` adds the rule",
                    kind.word(),
                    kind.rights_command(place, &self.settings.installed),
                )
            }
            Obstacle::Unserved => format!(
                "the API server serves no {} in {}, so that {target} cannot be read; bring its definition \
                 back, or delete the guard",
                target.resource,
                target.api_version(),
            ),
            Obstacle::Undecodable => format!(
                "the API server cannot decode what it has stored as {target}; nobody can read it until it is \
                 put back or deleted in etcd itself"
            ),
        }
    }

    /// Reads the target of a guard and takes what is found. Tells whether that was news.
    ///
    /// # Errors
    /// When the API server does not say whether there is one.
    pub(super) async fn look(&self, guard: &Arc<Guard>, look: Look, missed: bool) -> Result<bool, Failure> {
        let Some(since) = self.known().revision(guard) else { return Ok(false) };
        let source = Source { look, list: None, since: Some(since), missed };
        match self.requests.read(&guard.target.url_path(), OBJECTS, Purpose::Get).await {
            Ok(object) => {
                let meta = meta(&object).map_err(|error| Failure::unreadable(&error))?;
                Ok(self.see_for(guard, &object, &meta, source).await)
            }
            Err(failure) if failure.code == 404 && failure.about.as_deref() == Some(&*guard.target.name) => {
                Ok(self.tell(guard, Seen::Absent(None), source, None).await)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether the API server can read what is stored of a resource, as it shows by not finding an object.
    pub(super) async fn can_read(&self, place: &Place) -> bool {
        let uri = format!("{}/{NOBODY}", place.path());
        let place_of_one = self.requests.read(&uri, OBJECTS, Purpose::Get).await;
        place_of_one.is_err_and(|failure| failure.code == 404 && failure.about.as_deref() == Some(NOBODY))
    }
}

fn sight(seen: Seen<'_>, meta: Option<&Meta<'_>>) -> Sight {
    match seen {
        Seen::Present { uid, hash, terminating, .. } => Sight::Present(Present {
            uid: uid.to_owned(),
            resource_version: meta.map(|meta| meta.revision.to_string()).unwrap_or_default(),
            hash,
            terminating,
        }),
        Seen::Absent(_) => Sight::Absent,
        Seen::Unreadable(sentence) => Sight::Unreadable(sentence.to_owned()),
    }
}
