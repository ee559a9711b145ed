//! Requests whose answers are taken as raw bytes, counted by what they are for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{Request, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

use crate::core::guard::url_segment;
use crate::core::json::JsonError;
use crate::telemetry::metrics::watches::WatchMetrics;

use super::text::{Items, Part, TextError};

/// Whole objects.
pub(crate) const OBJECTS: &str = "application/json";
/// The metadata of many objects.
pub(super) const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
/// The metadata of one object.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

/// Longest wait for the beginning of an answer. The API server itself gives up after a minute.
const ANSWER_LIMIT: Duration = Duration::from_secs(65);
/// Longest silence within an answer that is no watch.
const SILENCE_LIMIT: Duration = Duration::from_secs(65);
/// Largest object that is read.
const MOST_BYTES: usize = 64 << 20;
/// Largest refusal that is read.
const MOST_REFUSAL: usize = 64 << 10;

/// What a request is for, as metrics tell it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Watch,
    List,
    Sweep,
    Get,
    Version,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::List => "list",
            Self::Sweep => "sweep",
            Self::Get => "get",
            Self::Version => "version",
        }
    }
}

/// Why there is no answer, or not all of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", if *.code == 0 { String::new() } else { format!(" ({})", .code) })]
pub(crate) struct Failure {
    /// HTTP status; 0 when the API server did not answer.
    pub(crate) code: u16,
    /// What the API server, or the client, says.
    pub(crate) message: String,
    /// The object that a 404 is about; `None` when it is the resource that is not there.
    pub(crate) about: Option<String>,
}

impl Failure {
    pub(super) fn no_answer(message: impl std::fmt::Display) -> Self {
        Self { code: 0, message: message.to_string(), about: None }
    }

    /// Nothing came for so long that the connection must be dead.
    pub(crate) fn silent() -> Self {
        Self::no_answer("nothing was heard for minutes, not even a bookmark")
    }

    /// The watch ended before the list was complete that it begins with.
    pub(super) fn cut_off() -> Self {
        Self::no_answer(TextError::CutOff)
    }

    /// The answer makes no sense.
    pub(crate) fn unreadable(error: &JsonError) -> Self {
        Self::no_answer(format!("an object cannot be read: {error}"))
    }

    /// Reads a `Status`; `code` counts where it names none.
    pub(crate) fn of_status(code: u16, body: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        struct Details {
            name: Option<String>,
        }
        #[derive(Deserialize)]
        struct Status {
            code: Option<u16>,
            message: Option<String>,
            reason: Option<String>,
            details: Option<Details>,
        }
        match serde_json::from_slice::<Status>(body) {
            Ok(status) => Self {
                code: status.code.unwrap_or(code),
                message: status.message.or(status.reason).unwrap_or_else(|| "no reason given".to_owned()),
                about: status.details.and_then(|details| details.name),
            },
            Err(_) => Self { code, message: "refused without a reason".to_owned(), about: None },
        }
    }

    /// Whether a watch cannot go on from where it was.
    pub(crate) fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// Whether the API server works but not for this: it may be unable to decode an object.
    pub(crate) fn may_be_undecodable(&self) -> bool {
        matches!(self.code, 429 | 500 | 503 | 504)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        Self::no_answer(error)
    }
}

/// The body of an answer, chunk by chunk.
pub(crate) type Chunks = BoxStream<'static, Result<Bytes, Failure>>;

/// Asks one API server.
#[derive(Clone)]
pub(crate) struct Requests {
    client: Client,
    metrics: WatchMetrics,
}

impl Requests {
    pub(crate) fn new(client: Client, metrics: WatchMetrics) -> Self {
        Self { client, metrics }
    }

    /// Opens an answer.
    ///
    /// # Errors
    /// [`Failure`] when there is none, or it is a refusal.
    pub(crate) async fn open(&self, uri: &str, accept: &str, purpose: Purpose) -> Result<Chunks, Failure> {
        self.metrics.request(purpose.as_str());
        let request = Request::get(uri)
            .header(header::ACCEPT, accept)
            // Newer API servers compress each event of a watch by itself, which few decoders take.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(Failure::no_answer)?;
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.client.send(request))
            .await
            .map_err(|_| Failure::no_answer("the API server did not answer in time"))?
            .map_err(Failure::no_answer)?;
        let status = answer.status();
        let mut chunks =
            answer.into_body().into_data_stream().map(|chunk| chunk.map_err(Failure::no_answer)).boxed();
        if status.is_success() {
            return Ok(chunks);
        }
        let body = collect(&mut chunks, MOST_REFUSAL).await.unwrap_or_default();
        Err(Failure::of_status(status.as_u16(), &body))
    }

    /// Reads a whole answer of one object.
    ///
    /// # Errors
    /// As [`Requests::open`], and when it breaks off.
    pub(crate) async fn read(&self, uri: &str, accept: &str, purpose: Purpose) -> Result<Bytes, Failure> {
        let mut chunks = self.open(uri, accept, purpose).await?;
        collect(&mut chunks, MOST_BYTES).await
    }
}

async fn collect(chunks: &mut Chunks, most: usize) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = next_chunk(chunks).await? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            return Err(TextError::TooLong.into());
        }
    }
    Ok(body.freeze())
}

/// The next chunk of an answer that is no watch.
///
/// # Errors
/// When it breaks off, or nothing comes for long.
async fn next_chunk(chunks: &mut Chunks) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(SILENCE_LIMIT, chunks.next()).await {
        Ok(chunk) => chunk.transpose(),
        Err(_) => Err(Failure::no_answer("the API server stopped in the middle of an answer")),
    }
}

/// A collection, page by page and item by item: one item at a time is held.
pub(crate) struct Listing {
    requests: Requests,
    uri: String,
    accept: &'static str,
    purpose: Purpose,
    page: Option<Page>,
    /// Of the first page: all pages show the same moment.
    revision: Option<String>,
    next_page: Option<String>,
}

struct Page {
    chunks: Chunks,
    items: Items,
    has_ended: bool,
}

impl Listing {
    /// A list of the newest state; `uri` has a query already.
    pub(crate) fn new(requests: &Requests, uri: String, accept: &'static str, purpose: Purpose) -> Self {
        let requests = requests.clone();
        Self { requests, uri, accept, purpose, page: None, revision: None, next_page: Some(String::new()) }
    }

    /// The next item; `None` when the list is complete.
    ///
    /// # Errors
    /// When the API server refuses, or an answer breaks off: then the list is not complete.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let page = match &mut self.page {
                Some(page) => page,
                None => {
                    let Some(token) = self.next_page.take() else { return Ok(None) };
                    let uri = match token.as_str() {
                        "" => self.uri.clone(),
                        token => format!("{}&continue={}", self.uri, url_segment(token)),
                    };
                    let chunks = self.requests.open(&uri, self.accept, self.purpose).await?;
                    self.page.insert(Page { chunks, items: Items::default(), has_ended: false })
                }
            };
            match page.next().await? {
                Some(Part::Item(item)) => return Ok(Some(item)),
                Some(Part::Head(head)) => {
                    self.revision.get_or_insert(head.revision);
                    self.next_page = Some(head.next_page).filter(|token| !token.is_empty());
                }
                None => self.page = None,
            }
        }
    }

    /// `metadata.resourceVersion` of the list; empty before its beginning has come.
    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or_default()
    }
}

impl Page {
    async fn next(&mut self) -> Result<Option<Part>, Failure> {
        loop {
            let part = if self.has_ended { self.items.last()? } else { self.items.next()? };
            if part.is_some() || self.has_ended {
                return Ok(part);
            }
            match next_chunk(&mut self.chunks).await? {
                Some(chunk) => self.items.push(&chunk),
                None => self.has_ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_whether_the_object_or_the_resource_is_not_there() {
        let object =
            Failure::of_status(404, br#"{"kind":"Status","code":404,"message":"m","details":{"name":"x"}}"#);
        assert_eq!(object.about.as_deref(), Some("x"));
        assert_eq!(object.to_string(), "m (404)");
        let resource = Failure::of_status(404, b"404 page not found\n");
        assert_eq!((resource.code, resource.about), (404, None));
        assert!(Failure::of_status(200, br#"{"code":410,"reason":"Expired"}"#).is_expired());
    }
}
