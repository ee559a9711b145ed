//! One watch: lists what there is, follows what changes, and begins anew when that breaks.
//!
//! What always holds: an object counts as absent only when a complete list did not show it, or a deletion
//! was told. A watch that breaks, whatever the reason, says nothing about any object.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::core::audit::sight::Look;
use crate::core::json::JsonError;

use super::event::{Event, event, meta};
use super::known::Source;
use super::list::List;
use super::pace::{Backoff, jittered};
use super::plan::Place;
use super::poll;
use super::request::{Chunks, Failure, OBJECTS, Purpose};
use super::running::Running;
use super::shared::{Handle, Obstacle, Shared};
use super::status::Mode;
use super::text::Lines;

/// How long an API server shall keep a watch open, up to a twentieth less: near half an hour.
const WATCH_FOR: Duration = Duration::from_secs(1_740);
/// Longest silence of a watch. Bookmarks come about every minute, so that more than four of them are missing.
const SILENCE: Duration = Duration::from_secs(280);
/// How long a refusal must last to be believed: an API server that has just started may not know all roles
/// or kinds yet.
const BELIEVED_AFTER: Duration = Duration::from_secs(10);
/// The same for errors by which an API server tells that it cannot decode an object, and how many of them.
const POLLED_AFTER: Duration = Duration::from_secs(15);
const POLLED_AFTER_FAILURES: u32 = 3;
/// Pause before it is tried again: the API server should not refuse us all the time.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How often it is tried whether what was refused is allowed or served now.
const GIVEN_PAUSE: Duration = Duration::from_secs(45);
/// First and longest pause before a watch is tried again whose objects are read by name.
const POLLED_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// After a list that was waited for, how many times as long no other one begins.
const REST: u32 = 4;
/// A watch that lived for less is not begun again at once.
const SHORT: Duration = Duration::from_secs(5);

/// How a watch came to its end without a failure.
enum End {
    /// The API server closed it.
    Closed,
    /// Everything must be listed, now.
    ListAnew,
}

/// One watch.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    pub(super) handle: Handle,
    /// Tells that the watch was begun again: another API server may answer now.
    pub(super) reconnected: Arc<Notify>,
}

impl Follower {
    /// Follows for ever. `asked` tells when everything is to be listed anew.
    pub(super) async fn run(self, mut asked: watch::Receiver<(u64, Look)>) {
        let (mut from, mut look) = (None, Look::Watch);
        let mut trouble = Trouble::default();
        let mut poller: Option<Running> = None;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.session(&mut from, look) => ended,
                () = self.interrupted(asked.clone()) => Ok(End::ListAnew),
            };
            self.handle.lists(false);
            look = Look::Watch;
            let long_ago = Instant::now().checked_sub(SHORT);
            if long_ago.is_some_and(|moment| self.handle.status.is_live_since(moment)) {
                trouble = Trouble::default();
                poller = None;
            }
            let pause = match ended {
                Ok(End::ListAnew) => {
                    from = None;
                    Duration::ZERO
                }
                Ok(End::Closed) if began.elapsed() >= SHORT => Duration::ZERO,
                Ok(End::Closed) => trouble.backoff.pause(),
                Err(failure) => {
                    if failure.is_expired() {
                        from = None;
                    }
                    self.after(&failure, &mut trouble, &mut poller).await
                }
            };
            let mut waiting = asked.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = waiting.changed() => {}
            }
            if asked.has_changed().unwrap_or_default() {
                look = asked.borrow_and_update().1;
                from = None;
            }
        }
    }

    /// Returns when a list is asked for and none is under way, nor was just now: it must not take the API
    /// server's time again and again.
    async fn interrupted(&self, mut asked: watch::Receiver<(u64, Look)>) {
        if asked.changed().await.is_err() {
            return std::future::pending().await;
        }
        let began = Instant::now();
        self.handle.listed().await;
        tokio::time::sleep(began.elapsed() * REST).await;
    }

    /// What follows from a failure, and how long to wait.
    async fn after(
        &self,
        failure: &Failure,
        trouble: &mut Trouble,
        poller: &mut Option<Running>,
    ) -> Duration {
        let (status, place) = (&self.handle.status, &self.place);
        let pause = trouble.note(failure, Instant::now());
        if failure.is_expired() {
            tracing::debug!(%place, "the watch cannot go on from where it was; listing");
            return pause;
        }
        tracing::debug!(%place, %failure, "a watch of guarded objects failed; trying again");
        match trouble.verdict(Instant::now()) {
            Some(Obstacle::Undecodable) if status.mode() == Mode::Polled => trouble.polled_pause(),
            Some(Obstacle::Undecodable) => {
                if !self.shared.can_read(place).await {
                    // The API server or its storage is not well: that says nothing about any object.
                    status.enter(Mode::Starting);
                    return pause;
                }
                tracing::warn!(
                    resource = place.resource.word(), namespace = place.namespace.as_deref(), %failure,
                    "guarded objects cannot be watched, as when the API server cannot decode one of the kind; \
                     reading them by name"
                );
                status.enter(Mode::Polled);
                self.distrust_others();
                let polling = poll::poll(Arc::clone(&self.shared), place.clone(), Arc::clone(status));
                *poller = Some(Running::spawn(polling));
                trouble.polled_pause()
            }
            Some(obstacle) => {
                let mode = if obstacle == Obstacle::Forbidden { Mode::Forbidden } else { Mode::Unserved };
                if status.enter(mode) {
                    tracing::warn!(%place, %failure, "guarded objects cannot be watched");
                }
                if obstacle == Obstacle::Forbidden && self.is_of_all_namespaces() {
                    // Closed only when everything ends.
                    let _ = self.shared.narrow.send(place.resource.clone());
                } else {
                    self.shared.tell_obstacle(place, obstacle).await;
                }
                jittered(GIVEN_PAUSE, 0.2)
            }
            None => {
                if status.mode() == Mode::Live {
                    status.enter(Mode::Starting);
                }
                pause
            }
        }
    }

    /// Other watches of the kind may be open still and hear nothing any more.
    fn distrust_others(&self) {
        let handles = self.shared.handles();
        let same = handles.iter().filter(|(place, _)| place.resource == self.place.resource);
        for (_, handle) in same.filter(|(_, handle)| handle.status.mode() == Mode::Live) {
            handle.list_anew(Look::Watch);
        }
    }

    fn is_of_all_namespaces(&self) -> bool {
        let is_namespaced = || {
            let guards = self.shared.known().guards_at(&self.place);
            guards.first().is_some_and(|guard| guard.target.namespace.is_some())
        };
        self.place.namespace.is_none() && is_namespaced()
    }

    /// One watch, with the list before it where there is nothing to go on `from`.
    async fn session(&self, from: &mut Option<String>, look: Look) -> Result<End, Failure> {
        let mut list = None;
        if from.is_none() {
            self.handle.lists(true);
            let list_now = List::begin(&self.shared, &self.place, look);
            if self.shared.streams_lists() {
                list = Some(list_now);
            } else {
                match list_now.take(&self.shared, &self.place).await? {
                    Some(revision) => *from = Some(revision),
                    None => return Ok(End::ListAnew),
                }
            }
        }
        let start = match from {
            Some(revision) => format!("resourceVersion={revision}"),
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let seconds = jittered(WATCH_FOR, 0.025).as_secs();
        let uri = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&{start}{}",
            self.place.path(),
            self.place.selector(),
        );
        let chunks = match self.shared.requests.open(&uri, OBJECTS, Purpose::Watch).await {
            Ok(chunks) => chunks,
            Err(failure) if list.is_some() && matches!(failure.code, 400 | 422) => {
                self.shared.streams_no_lists();
                return Ok(End::ListAnew);
            }
            Err(failure) => return Err(failure),
        };
        if list.is_none() {
            self.is_live();
        }
        self.events(chunks, from, list).await
    }

    fn is_live(&self) {
        self.handle.status.heard();
        if self.handle.status.mode() == Mode::Polled {
            tracing::info!(place = %self.place, "guarded objects can be watched again");
        }
        self.handle.status.enter(Mode::Live);
        self.handle.lists(false);
        self.reconnected.notify_one();
    }

    async fn events(
        &self,
        mut chunks: Chunks,
        from: &mut Option<String>,
        mut list: Option<List>,
    ) -> Result<End, Failure> {
        let mut lines = Lines::default();
        loop {
            let Ok(chunk) = tokio::time::timeout(SILENCE, chunks.next()).await else {
                return Err(Failure::silent());
            };
            let Some(chunk) = chunk.transpose()? else { break };
            self.handle.status.heard();
            lines.push(&chunk);
            while let Some(line) = lines.next()? {
                let read = event(&line).map_err(|error| unreadable(from, &error))?;
                if self.take(read, from, &mut list).await? {
                    return Ok(End::ListAnew);
                }
            }
        }
        if list.is_some() { Err(Failure::cut_off()) } else { Ok(End::Closed) }
    }

    /// Takes one event. Tells whether everything must be listed anew.
    async fn take(
        &self,
        event: Event<'_>,
        from: &mut Option<String>,
        list: &mut Option<List>,
    ) -> Result<bool, Failure> {
        let (shared, resource) = (&self.shared, &self.place.resource);
        match event {
            Event::Stands(object) => {
                let source = list.map_or(Source::EVENT, List::source);
                shared.see(resource, object, source).await.map_err(|error| unreadable(from, &error))?;
                go_on(from, list.as_ref(), object);
            }
            Event::Deleted(object) => {
                shared.see_deleted(resource, object).await.map_err(|error| unreadable(from, &error))?;
                go_on(from, list.as_ref(), object);
            }
            Event::Bookmark { revision, is_list_end } => {
                if is_list_end && let Some(done) = list.take() {
                    if !done.complete(shared, &self.place, &revision).await {
                        return Ok(true);
                    }
                    self.is_live();
                }
                if list.is_none() {
                    *from = Some(revision);
                }
            }
            Event::Error(status) => return Err(Failure::of_status(500, status)),
            Event::Unknown => {}
        }
        Ok(false)
    }
}

/// A watch may go on after an object that it has told of; not before its list is complete.
fn go_on(from: &mut Option<String>, list: Option<&List>, object: &[u8]) {
    if list.is_none()
        && let Ok(meta) = meta(object)
        && !meta.revision.is_empty()
    {
        *from = Some(meta.revision.into_owned());
    }
}

/// What cannot be read would come again: everything is listed anew then.
fn unreadable(from: &mut Option<String>, error: &JsonError) -> Failure {
    *from = None;
    Failure::unreadable(error)
}

/// Failures in a row.
#[derive(Default)]
struct Trouble {
    backoff: Backoff,
    kind: Option<Obstacle>,
    since: Option<Instant>,
    count: u32,
    tries_while_polled: u32,
}

impl Trouble {
    /// Takes a failure, and gives the pause after it.
    fn note(&mut self, failure: &Failure, now: Instant) -> Duration {
        let kind = match failure.code {
            403 => Some(Obstacle::Forbidden),
            404 => Some(Obstacle::Unserved),
            _ if failure.may_be_undecodable() => Some(Obstacle::Undecodable),
            _ => None,
        };
        if kind != self.kind || self.since.is_none() {
            (self.kind, self.since, self.count) = (kind, Some(now), 0);
        }
        self.count += 1;
        match kind {
            Some(Obstacle::Forbidden | Obstacle::Unserved) => REFUSED_PAUSE,
            _ => self.backoff.pause(),
        }
    }

    /// What the failures amount to, if they have lasted for long enough.
    fn verdict(&self, now: Instant) -> Option<Obstacle> {
        let lasted = now.duration_since(self.since?);
        let is_believed = match self.kind? {
            Obstacle::Undecodable => lasted >= POLLED_AFTER && self.count >= POLLED_AFTER_FAILURES,
            Obstacle::Forbidden | Obstacle::Unserved => lasted >= BELIEVED_AFTER,
        };
        self.kind.filter(|_| is_believed)
    }

    fn polled_pause(&mut self) -> Duration {
        let (first, longest) = POLLED_PAUSE;
        let pause = first * 2u32.saturating_pow(self.tries_while_polled.min(8));
        self.tries_while_polled += 1;
        jittered(pause.min(longest), 0.1)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
