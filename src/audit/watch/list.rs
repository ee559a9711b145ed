//! A list of what there is: which targets it showed, and which are not there since it did not.

use crate::core::audit::sight::Look;

use super::known::{Revision, Seen, Source};
use super::plan::Place;
use super::request::{Failure, Listing, OBJECTS, Purpose};
use super::shared::Shared;

/// Objects in one page.
const PAGE: u32 = 500;

/// A list under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pass: u32,
    /// The newest that was known when it began: a list that is older than that tells of history gone back.
    floor: Revision,
    look: Look,
}

impl List {
    /// A list that begins now.
    pub(super) fn begin(shared: &Shared, place: &Place, look: Look) -> Self {
        let mut known = shared.known();
        Self { pass: known.begin(), floor: known.newest(place), look }
    }

    /// Where its items come from.
    pub(super) fn source(self) -> Source {
        Source { look: self.look, list: Some(self.pass), since: None, missed: false }
    }

    /// Takes it page by page. Gives where a watch may go on; `None` when everything must be listed once
    /// more.
    ///
    /// # Errors
    /// When the list is not complete.
    pub(super) async fn take(self, shared: &Shared, place: &Place) -> Result<Option<String>, Failure> {
        let uri = format!("{}?limit={PAGE}{}", place.path(), place.selector());
        let mut listing = Listing::new(&shared.requests, uri, OBJECTS, Purpose::List);
        while let Some(item) = listing.next().await? {
            let seen = shared.see(&place.resource, &item, self.source()).await;
            seen.map_err(|error| Failure::unreadable(&error))?;
        }
        let revision = listing.revision().to_owned();
        Ok(self.complete(shared, place, &revision).await.then_some(revision))
    }

    /// It is complete: what it did not show is not there. `false` when that cannot be said, since it is
    /// older than what was known before it.
    pub(super) async fn complete(self, shared: &Shared, place: &Place, revision: &str) -> bool {
        let revision = Revision::of(revision);
        if revision.is_older_than(self.floor) {
            tracing::warn!(%place, "the history of the API server went back, as when etcd is restored; listing anew");
            shared.known().forget_revisions(place);
            return false;
        }
        let missing = shared.known().unlisted(place, self.pass);
        for guard in missing {
            let source = Source { look: self.look, list: None, since: None, missed: false };
            shared.tell(&guard, Seen::Absent(Some(revision)), source, None).await;
        }
        true
    }
}
