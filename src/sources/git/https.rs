//! Git's smart HTTP, by the client that everything else here uses.
//!
//! The client knows no name but the one that was checked, follows no redirect by itself, and uses no proxy,
//! which would connect to addresses that nobody checked.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse, Transport,
};
use gix::protocol::transport::client::{Account, TransportWithoutIO as _};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, Method, Request, Response, StatusCode, Url, redirect};
use rustls::CertificateError;

use super::super::SourceError;
use super::SERVER;
use super::location::{Location, Scheme};
use super::wire::Wire;

/// Redirects that are followed, all on one server.
const REDIRECTS: usize = 3;
/// What the URL of git's first question ends with.
const QUESTION: &str = "/info/refs?service=git-upload-pack";

/// Makes git's transport to a repository, which connects when it is used.
///
/// `credentials` are a user and a password.
pub(super) fn transport(
    location: &Location,
    credentials: Option<(String, String)>,
    addresses: Vec<SocketAddr>,
    authorities: &[Certificate],
    wire: Arc<Wire>,
) -> Result<Transport<Https>, SourceError> {
    let unusable = || SourceError::Invalid("the url of the Secret cannot be used for https".to_owned());
    let base = Url::parse(&location.to_string()).map_err(|_| unusable())?;
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .https_only(location.scheme == Scheme::Https)
        .dns_resolver(Arc::new(Checked { host: base.host_str().unwrap_or_default().to_owned(), addresses }))
        .tls_certs_merge(authorities.iter().cloned())
        .build()
        .map_err(|_| SourceError::Unavailable("cannot set up https; are authorities installed".to_owned()))?;
    let url = gix::url::parse(base.as_str()).map_err(|_| unusable())?;
    let caller = Caller { base, client, authenticated: credentials.is_some(), wire };
    let https = Https { caller: Rc::new(caller), redirected: None };
    let mut transport = Transport::new_http(https, url, Protocol::V2, false);
    if let Some((username, password)) = credentials {
        let account = Account { username, password, oauth_refresh_token: None };
        transport.set_identity(account).map_err(|_| unusable())?;
    }
    Ok(transport)
}

/// The addresses of one name, as they were checked.
struct Checked {
    host: String,
    addresses: Vec<SocketAddr>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let answer = if name.as_str() == self.host {
            Ok(Box::new(self.addresses.clone().into_iter()) as Addrs)
        } else {
            Err("a name that was not checked".into())
        };
        Box::pin(std::future::ready(answer))
    }
}

/// One fetch's client and server.
struct Caller {
    client: Client,
    /// The repository, on the one server that anything is sent to.
    base: Url,
    authenticated: bool,
    wire: Arc<Wire>,
}

impl Caller {
    fn send(&self, request: Request) -> io::Result<Response> {
        if request.url().origin() != self.base.origin() {
            return Err(self.wire.fail(SourceError::Forbidden(format!(
                "{SERVER} redirects to another server, which is not followed; if it is the right one, write its url into \
                 the Secret"
            ))));
        }
        let answer = self.wire.wait(self.client.execute(request))?;
        answer.map_err(|error| self.wire.fail(failure(&error)))
    }

    /// Asks, following redirects on the same server.
    fn ask(&self, mut request: Request) -> io::Result<Response> {
        for _ in 0..=REDIRECTS {
            let again = request.try_clone();
            let response = self.send(request)?;
            if !response.status().is_redirection() {
                return self.accepted(response);
            }
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target = target.and_then(|target| response.url().join(target).ok());
            let Some((target, mut next)) = target.zip(again) else { break };
            *next.url_mut() = target;
            request = next;
        }
        Err(self.wire.fail(SourceError::Invalid(format!("{SERVER} redirects without an end"))))
    }

    fn accepted(&self, response: Response) -> io::Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.wire.fail(match status {
            StatusCode::UNAUTHORIZED if self.authenticated => {
                SourceError::Forbidden(format!("{SERVER} refused username and password of the Secret (401)"))
            }
            StatusCode::UNAUTHORIZED => SourceError::Forbidden(format!(
                "{SERVER} asks for a password (401); give the Secret username and password"
            )),
            StatusCode::FORBIDDEN => SourceError::Forbidden(format!("{SERVER} refused access (403)")),
            StatusCode::NOT_FOUND => SourceError::Invalid(format!(
                "{SERVER} has no such repository, or none that these credentials may read (404)"
            )),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                SourceError::Unavailable(format!("{SERVER} is overloaded ({})", status.as_u16()))
            }
            status if status.is_server_error() => {
                SourceError::Unavailable(format!("{SERVER} failed ({})", status.as_u16()))
            }
            status => SourceError::Invalid(format!("{SERVER} answered {}", status.as_u16())),
        }))
    }
}

/// What went wrong between us and a server, without what a server can put into it.
fn failure(error: &reqwest::Error) -> SourceError {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(why)) => {
                let why = objection(why);
                return SourceError::Forbidden(format!("the certificate of {SERVER} is not accepted: {why}"));
            }
            Some(_) => return SourceError::Unavailable(format!("{SERVER} does not speak TLS as we do")),
            None => {}
        }
        source = match cause.downcast_ref::<io::Error>() {
            // What an I/O error wraps is not its source.
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner),
                None => {
                    return SourceError::Unavailable(format!("{SERVER} cannot be reached: {}", io.kind()));
                }
            },
            None => cause.source(),
        };
    }
    SourceError::Unavailable(format!("{SERVER} cannot be reached, or does not speak HTTP"))
}

/// What is wrong with a certificate, without the names that it was checked for.
fn objection(why: &CertificateError) -> String {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for other names".to_owned()
        }
        why => why.to_string(),
    }
}

/// A request with header lines as git writes them.
fn request(
    method: Method,
    url: &str,
    headers: impl IntoIterator<Item = impl AsRef<str>>,
) -> io::Result<Request> {
    let unusable = || io::Error::other("a request cannot be made");
    let mut request = Request::new(method, Url::parse(url).map_err(|_| unusable())?);
    for line in headers {
        let (name, value) = line.as_ref().split_once(':').ok_or_else(unusable)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| unusable())?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| unusable())?;
        value.set_sensitive(name == reqwest::header::AUTHORIZATION);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// What git's transport asks through.
pub(super) struct Https {
    caller: Rc<Caller>,
    /// Where the repository turned out to be, on the same server.
    redirected: Option<String>,
}

impl Https {
    fn first(&mut self, request: Request) -> io::Result<Shared> {
        let asked = request.url().clone();
        let response = self.caller.ask(request)?;
        if *response.url() != asked {
            let base = response.url().as_str().strip_suffix(QUESTION).ok_or_else(|| {
                let why = format!("{SERVER} redirects to a page that is no git repository");
                self.caller.wire.fail(SourceError::Invalid(why))
            })?;
            self.redirected = Some(base.to_owned());
        }
        Ok(self.exchange(State::Answered(response)))
    }

    fn exchange(&self, state: State) -> Shared {
        Rc::new(RefCell::new(Exchange { caller: Rc::clone(&self.caller), state }))
    }
}

impl Http for Https {
    type Headers = Headers;
    type ResponseBody = Body;
    type PostBody = Question;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Headers, Body>> {
        let request = request(Method::GET, url, headers).map_err(gix::Error::from_error)?;
        let exchange = self.first(request).map_err(gix::Error::from_error)?;
        Ok(GetResponse { headers: Headers::of(&exchange), body: Body::of(&exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Headers, Body, Question>> {
        let request = request(Method::POST, url, headers).map_err(gix::Error::from_error)?;
        let exchange = self.exchange(State::Open(request, Vec::new()));
        Ok(PostResponse {
            headers: Headers::of(&exchange),
            body: Body::of(&exchange),
            post_body: Question(exchange),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

type Shared = Rc<RefCell<Exchange>>;

/// A question and its answer. Git writes the question in pieces, drops the writer, and only then reads.
struct Exchange {
    caller: Rc<Caller>,
    state: State,
}

enum State {
    Open(Request, Vec<u8>),
    Answered(Response),
    Failed,
}

impl Exchange {
    /// The answer, asked for when it is first needed.
    fn answer(&mut self) -> io::Result<&mut Response> {
        if let State::Open(..) = self.state
            && let State::Open(mut request, body) = std::mem::replace(&mut self.state, State::Failed)
        {
            *request.body_mut() = Some(body.into());
            let response = self.caller.send(request)?;
            // A redirect of the second question is answered as what it is: not success.
            self.state = State::Answered(self.caller.accepted(response)?);
        }
        match &mut self.state {
            State::Answered(response) => Ok(response),
            State::Open(..) | State::Failed => Err(io::Error::other("there is no answer")),
        }
    }

    /// The next piece of the body, never empty; none at its end.
    fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let caller = Rc::clone(&self.caller);
        let response = self.answer()?;
        loop {
            match caller.wire.wait(response.chunk())? {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(chunk) => {
                    caller.wire.received(chunk.as_ref().map_or(0, Bytes::len))?;
                    return Ok(chunk);
                }
                Err(error) => return Err(caller.wire.fail(failure(&error))),
            }
        }
    }
}

/// Takes git's question.
pub(super) struct Question(Shared);

impl Write for Question {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.borrow_mut().state {
            State::Open(_, body) => body.write(bytes),
            State::Answered(_) | State::Failed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The headers of an answer, one a line.
pub(super) struct Headers {
    exchange: Shared,
    lines: Option<Cursor<Vec<u8>>>,
}

impl Headers {
    fn of(exchange: &Shared) -> Self {
        Self { exchange: Rc::clone(exchange), lines: None }
    }
}

fn lines(headers: &HeaderMap) -> Vec<u8> {
    headers
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"])
        .flatten()
        .copied()
        .collect()
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.lines.is_none() {
            self.lines = Some(Cursor::new(lines(self.exchange.borrow_mut().answer()?.headers())));
        }
        self.lines.as_mut().map_or(Ok(&[]), BufRead::fill_buf)
    }

    fn consume(&mut self, count: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(count);
        }
    }
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        copied(self, buffer)
    }
}

/// The body of an answer.
pub(super) struct Body {
    exchange: Shared,
    chunk: Bytes,
    ended: bool,
}

impl Body {
    fn of(exchange: &Shared) -> Self {
        Self { exchange: Rc::clone(exchange), chunk: Bytes::new(), ended: false }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() && !self.ended {
            let chunk = self.exchange.borrow_mut().chunk()?;
            self.ended = chunk.is_none();
            self.chunk = chunk.unwrap_or_default();
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count.min(self.chunk.len()));
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        copied(self, buffer)
    }
}

fn copied(from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let mut ready = from.fill_buf()?;
    let count = ready.read(buffer)?;
    from.consume(count);
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[tokio::test]
    async fn no_name_but_the_checked_one_has_an_address() {
        let address: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let checked = Checked { host: "git.example.com".to_owned(), addresses: vec![address] };
        let found = checked.resolve("git.example.com".parse().unwrap()).await.unwrap();
        assert_eq!(found.collect::<Vec<_>>(), [address]);
        assert!(checked.resolve("example.com".parse().unwrap()).await.is_err());
    }
}
