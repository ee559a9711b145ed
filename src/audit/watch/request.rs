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
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
/// From so many bytes on, items that were read ahead are handed over.
const HANDFUL: usize = 256 << 10;
/// Most handfuls that wait to be taken.
const WAITING: usize = 4;

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
    /// Whether the next page is asked for as soon as it is known to exist.
    is_eager: bool,
    asked: Option<Task<Result<Chunks, Failure>>>,
}

/// A task that goes with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        let next_page = Some(String::new());
        Self {
            requests,
            uri,
            accept,
            purpose,
            page: None,
            revision: None,
            next_page,
            is_eager: false,
            asked: None,
        }
    }

    /// The same, read ahead of whoever takes it: for somebody who waits, and takes it once. Some items are held,
    /// however many there are, and the next page is asked for while one is read.
    pub(crate) fn ahead(mut self) -> Ahead {
        self.is_eager = true;
        let (sender, receiver) = mpsc::channel(WAITING);
        let reader = tokio::spawn(self.hand_over(sender));
        Ahead { receiver, held: Vec::new().into_iter(), _reader: Task(reader) }
    }

    /// Sends all items, and last how that ended. Who has gone wants no more.
    async fn hand_over(mut self, sender: mpsc::Sender<Handed>) {
        let (mut items, mut size) = (Vec::new(), 0);
        let end = loop {
            match self.next().await {
                Ok(Some(item)) => {
                    size += item.len();
                    items.push(item);
                }
                Ok(None) => break Handed::End(Ok(())),
                Err(failure) => break Handed::End(Err(failure)),
            }
            if size >= HANDFUL {
                size = 0;
                if sender.send(Handed::Items(std::mem::take(&mut items))).await.is_err() {
                    return;
                }
            }
        };
        if sender.send(Handed::Items(items)).await.is_ok() {
            let _ = sender.send(end).await;
        }
    }

    fn page_uri(&self, token: &str) -> String {
        match token {
            "" => self.uri.clone(),
            token => format!("{}&continue={}", self.uri, url_segment(token)),
        }
    }

    /// Opens the next page, or takes it where it has been asked for.
    async fn open(&mut self, token: &str) -> Result<Chunks, Failure> {
        match self.asked.take() {
            Some(mut asked) => (&mut asked.0).await.map_err(Failure::no_answer)?,
            None => self.requests.open(&self.page_uri(token), self.accept, self.purpose).await,
        }
    }

    /// Asks for the next page while this one comes.
    fn ask(&mut self) {
        let Some(token) = self.next_page.as_deref().filter(|_| self.is_eager && self.asked.is_none()) else {
            return;
        };
        let (requests, uri) = (self.requests.clone(), self.page_uri(token));
        let (accept, purpose) = (self.accept, self.purpose);
        self.asked = Some(Task(tokio::spawn(async move { requests.open(&uri, accept, purpose).await })));
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
                    let chunks = self.open(&token).await?;
                    self.page.insert(Page { chunks, items: Items::default(), has_ended: false })
                }
            };
            match page.next().await? {
                Some(Part::Item(item)) => return Ok(Some(item)),
                Some(Part::Head(head)) => {
                    self.revision.get_or_insert(head.revision);
                    self.next_page = Some(head.next_page).filter(|token| !token.is_empty());
                    self.ask();
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

/// What comes of a list that is read ahead.
enum Handed {
    Items(Vec<Bytes>),
    /// Told outright: silence is no end.
    End(Result<(), Failure>),
}

/// A list that is read ahead.
pub(crate) struct Ahead {
    receiver: mpsc::Receiver<Handed>,
    held: std::vec::IntoIter<Bytes>,
    _reader: Task<()>,
}

impl Ahead {
    /// The next item; `None` when the list is complete.
    ///
    /// # Errors
    /// As [`Listing::next`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(item) = self.held.next() {
                return Ok(Some(item));
            }
            match self.receiver.recv().await {
                Some(Handed::Items(items)) => self.held = items.into_iter(),
                Some(Handed::End(end)) => return end.map(|()| None),
                None => return Err(TextError::CutOff.into()),
            }
        }
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
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An API server that answers so, and what it was asked for.
    fn server(answer: fn(&str) -> (u16, String)) -> (Requests, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let uri = request.uri().to_string();
            let (code, body) = answer(&uri);
            noted.lock().unwrap().push(uri);
            let answer = http::Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        (Requests::new(Client::new(service, "default"), WatchMetrics::default()), asked)
    }

    /// Everything of a list that is read ahead, and how it ended.
    async fn ahead(requests: &Requests) -> (Vec<Bytes>, Result<(), Failure>) {
        let mut list = Listing::new(requests, "/list?limit=2".to_owned(), OBJECTS, Purpose::List).ahead();
        let mut items = Vec::new();
        loop {
            match list.next().await {
                Ok(Some(item)) => items.push(item),
                Ok(None) => return (items, Ok(())),
                Err(failure) => return (items, Err(failure)),
            }
        }
    }

    const FIRST: &str = r#"{"metadata":{"continue":"t="},"items":[{"a":1},{"a":2}]}"#;

    #[tokio::test]
    async fn a_list_that_is_read_ahead_gives_every_item_and_asks_for_each_page_once() {
        let (requests, asked) = server(|uri| {
            let last = r#"{"items":[{"a":3}],"metadata":{}}"#;
            (200, if uri.contains("continue=t%3D") { last.to_owned() } else { FIRST.to_owned() })
        });
        let (items, end) = ahead(&requests).await;
        assert_eq!(items, [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
        assert_eq!(end, Ok(()));
        assert_eq!(*asked.lock().unwrap(), ["/list?limit=2", "/list?limit=2&continue=t%3D"]);
    }

    #[tokio::test]
    async fn a_list_that_is_read_ahead_and_breaks_off_is_never_taken_for_a_whole_one() {
        let (requests, _) = server(|uri| {
            let cut = r#"{"items":[{"a":3}"#;
            (200, if uri.contains("continue") { cut.to_owned() } else { FIRST.to_owned() })
        });
        let (items, end) = ahead(&requests).await;
        assert_eq!(items.len(), 3);
        assert_eq!(end, Err(TextError::CutOff.into()));
        let (requests, _) = server(|uri| {
            if uri.contains("continue") {
                (410, r#"{"code":410}"#.to_owned())
            } else {
                (200, FIRST.to_owned())
            }
        });
        let (items, end) = ahead(&requests).await;
        assert_eq!(items.len(), 2);
        assert!(end.unwrap_err().is_expired());
    }

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
