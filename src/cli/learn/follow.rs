//! The watch of one place: lists what there is, follows what changes, and goes on when that breaks.
//!
//! A watch that could not go on from where it was (410) lists anew: what changed in between is seen as one change.

use std::cell::RefCell;
use std::time::Duration;

use futures::StreamExt as _;

use super::watched::Watched;
use crate::audit::watch::event::{Event, event, meta};
use crate::audit::watch::request::{Failure, Listing, OBJECTS, Purpose, Requests};
use crate::audit::watch::text::Lines;
use crate::cli::subject::request;
use crate::core::kinds::KindEntry;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long an API server shall keep a watch open.
const WATCH_SECONDS: u32 = 1_500;
/// Longest silence of a watch: bookmarks come about every minute.
const SILENCE: Duration = Duration::from_secs(280);
/// Shortest and longest pause before it is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What is watched by one watch.
pub(super) struct Place {
    /// The kind.
    pub(super) entry: KindEntry,
    /// The namespace; `None` for all of them, and for kinds without.
    pub(super) namespace: Option<String>,
    /// One object alone.
    pub(super) name: Option<String>,
    /// Labels, as the API server reads them.
    pub(super) selector: Option<String>,
}

impl Place {
    /// For messages, such as `configmaps in namespace shop`.
    pub(super) fn title(&self) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        match &self.namespace {
            Some(namespace) => format!("{}{name} in namespace {namespace}", self.entry.plural),
            None => format!("{}{name}", self.entry.plural),
        }
    }

    fn uri(&self, query: &str) -> String {
        let mut uri = format!("{}?{query}", request::path(&self.entry, self.namespace.as_deref(), None));
        if let Some(selector) = &self.selector {
            uri.push_str(&format!("&labelSelector={}", request::segment(selector)));
        }
        if let Some(name) = &self.name {
            uri.push_str(&format!("&fieldSelector={}", request::segment(&format!("metadata.name={name}"))));
        }
        uri
    }
}

/// Follows until it is refused for good.
pub(super) async fn follow(requests: &Requests, place: &Place, at: usize, watched: &RefCell<Watched>) {
    let (shortest, longest) = PAUSES;
    let (mut from, mut pause) = (None, shortest);
    loop {
        match session(requests, place, at, watched, &mut from).await {
            Ok(()) => pause = shortest,
            Err(failure) if failure.is_expired() => from = None,
            Err(failure) => {
                if !watched.borrow_mut().failed(at, &failure) {
                    return;
                }
                pause = (pause * 2).min(longest);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Lists where it is not known where to go on, and follows from there until the watch ends.
async fn session(
    requests: &Requests,
    place: &Place,
    at: usize,
    watched: &RefCell<Watched>,
    from: &mut Option<String>,
) -> Result<(), Failure> {
    let revision = match from {
        Some(revision) => revision.clone(),
        None => {
            watched.borrow_mut().begin_list(at);
            let uri = place.uri(&format!("limit={PAGE}"));
            let mut listing = Listing::new(requests, uri, OBJECTS, Purpose::List);
            while let Some(item) = listing.next().await? {
                watched.borrow_mut().see(at, &item).map_err(|error| Failure::unreadable(&error))?;
            }
            listing.revision().to_owned()
        }
    };
    let uri = place.uri(&format!(
        "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={revision}"
    ));
    let mut chunks = requests.open(&uri, OBJECTS, Purpose::Watch).await?;
    watched.borrow_mut().follows(at, from.is_none());
    *from = Some(revision);
    let mut lines = Lines::default();
    loop {
        let Ok(chunk) = tokio::time::timeout(SILENCE, chunks.next()).await else {
            return Err(Failure::silent());
        };
        let Some(chunk) = chunk.transpose()? else { return Ok(()) };
        lines.push(&chunk);
        while let Some(line) = lines.next()? {
            let unreadable = |error| Failure::unreadable(&error);
            match event(&line).map_err(unreadable)? {
                Event::Stands(object) => {
                    watched.borrow_mut().see(at, object).map_err(unreadable)?;
                    *from = Some(meta(object).map_err(unreadable)?.revision.into_owned());
                }
                Event::Deleted(object) => {
                    watched.borrow_mut().see_deleted(at, object).map_err(unreadable)?;
                    *from = Some(meta(object).map_err(unreadable)?.revision.into_owned());
                }
                Event::Bookmark { revision, .. } => *from = Some(revision),
                Event::Error(status) => return Err(Failure::of_status(500, status)),
                Event::Unknown => {}
            }
        }
    }
}
