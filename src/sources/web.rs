//! One GET to a source that is called over the network, within bounds.
//!
//! A client is made for each: a kept connection would go on to an address that is no longer checked, and
//! with authorities that are no longer trusted. No proxy is used, since it would call what we must not.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::address::{AddressPolicy, CheckedResolver, Lookup, NoAddress, check_host};
use super::report::Failed;
use crate::cert::crypto_provider;

/// Redirects that are followed on one host.
const MOST_REDIRECTS: usize = 3;
/// Longest time to a connection: a host that drops packets must not use up all that the answer may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How much a source may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest answer, in bytes. An object that etcd takes has at most some 1.5 MiB.
    pub bytes: usize,
    /// Longest time for one source, from looking its name up to the last byte.
    pub time: Duration,
    /// Longest time for all sources of a guard that are called: Services, git, the Configuration Service.
    pub total: Duration,
}

impl Limits {
    /// Longest time for a source of the cluster's own: to ask for the author's right, to read it, and to verify it.
    pub(super) fn own(&self) -> Duration {
        self.time * 3
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 20, time: Duration::from_secs(10), total: Duration::from_secs(60) }
    }
}

/// What is asked for.
pub(super) struct Request {
    pub(super) url: Url,
    /// Who may have signed the server's certificate.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Credentials, where there are any.
    pub(super) headers: HeaderMap,
    /// Whether the answer may go over the wire in clear.
    pub(super) may_be_plain: bool,
}

/// Fetches content over HTTP.
#[derive(Clone)]
pub(super) struct Web {
    pub(super) resolver: CheckedResolver,
    pub(super) limits: Limits,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Web {
    pub(super) fn new(lookup: Arc<dyn Lookup>, policy: AddressPolicy, limits: Limits) -> Self {
        Self { resolver: CheckedResolver { lookup, policy: Arc::new(policy) }, limits }
    }

    /// The body of the answer.
    pub(super) async fn get(&self, request: Request) -> Result<Vec<u8>, Failed> {
        let within = self.limits.time;
        tokio::time::timeout(within, self.follow(request)).await.unwrap_or_else(|_| {
            let seconds = within.as_secs_f64();
            Err(Failed::unavailable("Timeout", format!("it did not answer in full within {seconds} s")))
        })
    }

    async fn follow(&self, request: Request) -> Result<Vec<u8>, Failed> {
        let Request { mut url, authorities, headers, may_be_plain } = request;
        check_scheme(&url, may_be_plain)?;
        let client = self.client(&authorities)?;
        for _ in 0..=MOST_REDIRECTS {
            let host = url.host_str().unwrap_or_default();
            check_host(host, &self.resolver.policy).map_err(|error| refused(&error))?;
            let sent = client.get(url.clone()).headers(headers.clone()).send().await;
            let response = sent.map_err(|error| told(&error))?;
            if !response.status().is_redirection() {
                return self.content(response).await;
            }
            url = redirected(&url, response.headers())?;
        }
        Err(Failed::unavailable("TooManyRedirects", format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    fn client(&self, authorities: &[CertificateDer<'static>]) -> Result<Client, Failed> {
        let unusable =
            |error: String| Failed::unavailable("TlsSettings", format!("TLS cannot be set up: {error}"));
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(|error| unusable(error.to_string()))?;
        }
        let tls = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let fixed = [
            (ACCEPT, "application/json, application/yaml;q=0.9, */*;q=0.1"),
            // What is not compressed cannot blow up.
            (ACCEPT_ENCODING, "identity"),
        ];
        Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(self.resolver.clone()))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .http1_only()
            .connect_timeout(CONNECT)
            .user_agent(concat!("driftguard/", env!("CARGO_PKG_VERSION")))
            .default_headers(
                fixed.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect(),
            )
            .build()
            .map_err(|error| unusable(root(&error)))
    }

    /// The body, read no further than may be.
    async fn content(&self, mut response: Response) -> Result<Vec<u8>, Failed> {
        check_status(response.status())?;
        if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let why = "it sent its content compressed, which was not asked for";
            return Err(Failed::invalid("ContentEncoded", why));
        }
        let most = self.limits.bytes;
        let too_large = || {
            Failed::invalid("TooLarge", format!("it sent more than {most} bytes, which no object may have"))
        };
        if response.content_length().is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
            if chunk.len() > most - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn refused(why: &dyn fmt::Display) -> Failed {
    Failed::forbidden("AddressRefused", format!("it is not called: {why}"))
}

fn check_scheme(url: &Url, may_be_plain: bool) -> Result<(), Failed> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if may_be_plain => Ok(()),
        "http" => Err(plain_http()),
        scheme => {
            let why = format!("its address begins with {scheme}:, but only https and http are called");
            Err(Failed::forbidden("SchemeRefused", why))
        }
    }
}

/// The content of a Secret is not fetched in clear.
pub(super) fn plain_http() -> Failed {
    let why = "it is called over plain http, over which the content of a Secret is not fetched; serve it by https \
               (--allow-plain-http-secrets allows http)";
    Failed::forbidden("PlainHttp", why)
}

fn check_status(status: StatusCode) -> Result<(), Failed> {
    let answered = format!("it answered {status}");
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failed::forbidden("HttpStatus", answered)),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failed::unavailable("NotFound", answered)),
        _ => Err(Failed::unavailable("HttpStatus", answered)),
    }
}

/// Where a redirect leads: only to the same scheme, host and port.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, Failed> {
    let wrong = |why: String| Failed::unavailable("BadRedirect", why);
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| wrong("it redirects without saying where".to_owned()))?;
    let to = from.join(location).map_err(|_| wrong("it redirects to what is no address".to_owned()))?;
    if to.origin() == from.origin() {
        return Ok(to);
    }
    let place = to.origin().ascii_serialization();
    let why =
        format!("it redirects to {place}; only redirects within its own host, port and scheme are followed");
    Err(Failed::forbidden("RedirectRefused", why))
}

/// What went wrong with a request, without its URL.
fn told(error: &reqwest::Error) -> Failed {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(why @ NoAddress::Refused(..)) = inner.downcast_ref() {
            return refused(why);
        }
        cause = inner.source();
    }
    let what = if error.is_connect() { "it cannot be reached" } else { "its answer broke off" };
    Failed::unavailable("Unreachable", format!("{what}: {}", root(error)))
}

/// The innermost cause, which names no URL.
fn root(error: &reqwest::Error) -> String {
    let Some(mut cause) = error.source() else { return "the request failed".to_owned() };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
#[path = "web_tests.rs"]
mod tests;
