//! One receiver of messages, over HTTP: where it is, how we prove who we are, and what its answers mean.
//!
//! Credentials are read from their file at each attempt, so that they can be replaced while we run. No URL
//! is ever logged, since those of chat services are secrets themselves, and no body of an answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::{Certificate, Client, Response, Url, redirect};

use super::event::{Event, Kind};
use super::outbox::{Answer, Post};
use super::queue::Fault;
use super::{cloudevents, older, signature};

/// How long one attempt may take in all, and to connect.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer is read, so that its connection can be used again.
const MOST_READ: usize = 16 * 1024;

/// How we prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    None,
    /// A bearer token, in this file.
    Bearer(PathBuf),
    /// A signature over time and body, by the key in this file.
    Hmac(PathBuf),
}

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For alerts the whole address, for telemetry what [`older`]'s paths follow.
    pub url: Url,
    /// Who we are.
    pub credentials: Credentials,
    /// Authorities (PEM) that alone are trusted; those of the system when absent.
    pub authorities: Option<PathBuf>,
}

/// Why a receiver cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {cause}")]
    Unreadable {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the client that delivers alerts: {0}")]
    Client(reqwest::Error),
}

/// A receiver.
#[derive(Debug)]
pub struct Endpoint {
    client: Client,
    url: Url,
    credentials: Credentials,
}

impl Endpoint {
    /// A receiver as configured. Files are read once, so that a mistyped path is an error now.
    ///
    /// # Errors
    /// [`EndpointError`] naming what cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, EndpointError> {
        // A client made before a provider is installed panics. It fails only when there is one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut client = Client::builder()
            .user_agent(concat!("driftguard/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // Whoever answers must not choose who gets our credentials.
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.authorities {
            let pem = read("the authorities of a receiver", path)?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| {
                unreadable("the authorities of a receiver", path, &error.without_url().to_string())
            })?;
            if certificates.is_empty() {
                return Err(unreadable(
                    "the authorities of a receiver",
                    path,
                    "there is no certificate in it",
                ));
            }
            client = client.tls_certs_only(certificates);
        }
        let credentials = settings.credentials.clone();
        credentials.check()?;
        let client = client.build().map_err(EndpointError::Client)?;
        Ok(Self { client, url: settings.url.clone(), credentials })
    }

    fn url_of(&self, kind: Kind) -> Url {
        let below = |path: &str| {
            let mut url = self.url.clone();
            url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
            url
        };
        match kind {
            Kind::Alert => self.url.clone(),
            Kind::Drift => below(older::DRIFT_PATH),
            Kind::Remediation => below(older::REMEDIATION_PATH),
        }
    }

    async fn headers(&self, event: &Event) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "an id is no header".to_owned());
        match event.kind {
            Kind::Alert => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(cloudevents::CONTENT_TYPE));
            }
            Kind::Drift | Kind::Remediation => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(older::EVENT_ID, value(&event.id)?);
                headers.insert(older::TRANSACTION_ID, value(&event.transaction_id)?);
            }
        }
        self.credentials.add(&mut headers, &event.body).await?;
        Ok(headers)
    }
}

impl Post for Endpoint {
    async fn post(&self, event: &Event) -> Answer {
        let headers = match self.headers(event).await {
            Ok(headers) => headers,
            // What is wrong with our files may be mended while we wait.
            Err(why) => return Answer::Failed { fault: Fault::Receiver, asked: None, why },
        };
        let request = self.client.post(self.url_of(event.kind)).headers(headers).body(event.body.clone());
        match request.send().await {
            Ok(response) => {
                let answer = judge(response.status(), response.headers(), Timestamp::now());
                read_out(response).await;
                answer
            }
            Err(error) => {
                Answer::Failed { fault: Fault::Receiver, asked: None, why: said(&error.without_url()) }
            }
        }
    }
}

impl Credentials {
    /// Whether the file can be used now.
    fn check(&self) -> Result<(), EndpointError> {
        let (what, path) = match self {
            Self::None => return Ok(()),
            Self::Bearer(path) => ("the bearer token", path),
            Self::Hmac(path) => ("the HMAC key", path),
        };
        let secret = read(what, path)?;
        self.usable(secret).map(drop).map_err(|cause| unreadable(what, path, cause))
    }

    /// What a file holds, without the line break that editors put at its end.
    fn usable(&self, mut secret: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        match self {
            Self::Bearer(_) if secret.is_empty() => Err("it is empty"),
            Self::Bearer(_) if HeaderValue::from_bytes(&secret).is_err() => {
                Err("it holds characters that no header may have")
            }
            Self::Hmac(_) if secret.len() < signature::SHORTEST_KEY => {
                Err("a key of fewer than 16 bytes can be guessed; make one with `openssl rand -hex 32`")
            }
            _ => Ok(secret),
        }
    }

    async fn add(&self, headers: &mut HeaderMap, body: &str) -> Result<(), String> {
        let (what, path) = match self {
            Self::None => return Ok(()),
            Self::Bearer(path) => ("the bearer token", path),
            Self::Hmac(path) => ("the HMAC key", path),
        };
        let bad = |cause: &str| format!("{what} cannot be read: {cause}");
        let secret = tokio::fs::read(path).await.map_err(|error| bad(&error.to_string()))?;
        let secret = self.usable(secret).map_err(bad)?;
        let (name, value) = match self {
            Self::Hmac(_) => {
                let seconds = Timestamp::now().as_second();
                let name = http::HeaderName::from_static(signature::HEADER);
                (name, signature::header(&secret, seconds, body).into_bytes())
            }
            _ => (AUTHORIZATION, [b"Bearer ".as_slice(), &secret].concat()),
        };
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| bad("it is no header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }
}

/// What an answer means.
///
/// Refused for good is what says that this very message is wrong: a 4xx. Answers about us (401, 403,
/// 407), about a wrong or not yet served address (404, 421) and about the moment (408, 409, 423, 425, 429) are mended
/// without the message, which therefore waits. Nothing is lost to a 5xx. Only what says that the receiver
/// as a whole takes nothing now holds up all: whoever filters by what messages hold answers 403 and 404
/// to some of them, and must not silence the others.
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Answer {
    let why = format!("it answers {}", status.as_u16());
    let asked = headers.get(RETRY_AFTER).and_then(|value| retry_after(value, now));
    let fault = match status.as_u16() {
        200..300 => return Answer::Delivered,
        300..400 => {
            let why = format!("it answers {} and redirects are not followed", status.as_u16());
            return Answer::Failed { fault: Fault::Receiver, asked, why };
        }
        407 | 408 | 425 | 429 | 502 | 503 | 504 => Fault::Receiver,
        401 | 403 | 404 | 409 | 421 | 423 => Fault::Message,
        400..500 => return Answer::Refused { why },
        _ => Fault::Message,
    };
    Answer::Failed { fault, asked, why }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    // RFC 9110 writes dates as RFC 2822 does, but for the name of the zone.
    let date = text.strip_suffix("GMT").map(|rest| format!("{rest}+0000"))?;
    let then = DateTimeParser::new().parse_timestamp(&date).ok()?;
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

/// Reads an answer, within bounds, so that its connection can be used again.
async fn read_out(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MOST_READ {
            return;
        }
    }
}

/// An error with its causes, in one line.
fn said(error: &reqwest::Error) -> String {
    let mut text =
        if error.is_timeout() { "it does not answer in time".to_owned() } else { error.to_string() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, EndpointError> {
    std::fs::read(path).map_err(|error| unreadable(what, path, &error.to_string()))
}

fn unreadable(what: &'static str, path: &Path, cause: &str) -> EndpointError {
    EndpointError::Unreadable { what, path: path.to_owned(), cause: cause.to_owned() }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
