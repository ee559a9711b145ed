//! Asking again when the API server says so, as kubectl does.
//!
//! An API server that has too much to do, or is about to stop, answers `429 Too Many Requests` with `Retry-After`
//! before it has done anything: such a request is sent again, whatever it asks for. One that is not ready yet answers
//! 5xx with `Retry-After`; of those only reads are sent again, since a write may have been done. Without
//! `Retry-After` an answer is an answer, and so is a connection that breaks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use tokio::time::{Instant, Sleep};
use tower::ServiceBuilder;
use tower::retry::Policy;

use crate::cli::output;

/// How often one request is sent again: as often as client-go does.
const MOST_RETRIES: usize = 10;
/// How long all waiting for one request may take, where `--request-timeout` does not say. An API server itself gives
/// up requests after as long.
const LONGEST: Duration = Duration::from_secs(60);
/// From when on a person at a terminal wonders what the command does.
const SAID_FROM: Duration = Duration::from_secs(3);
/// How long a message about it counts for what follows.
const SAID_AGAIN: Duration = Duration::from_secs(30);
/// Requests that may stand before the connection; kube's own client has room for as many.
const ROOM: usize = 1024;

/// A client that asks again for at most so long in all for each request.
///
/// # Errors
/// When the configuration describes no connection that can be made.
pub(super) fn client(config: kube::Config, longest: Option<Duration>) -> Result<kube::Client, kube::Error> {
    let layers =
        ServiceBuilder::new().retry(Patience::new(longest.unwrap_or(LONGEST), output::message)).buffer(ROOM);
    Ok(ClientBuilder::try_from(config)?.with_layer(&layers.into_inner()).build())
}

/// What is known of one request, and shared by all of a client.
#[derive(Clone)]
struct Patience {
    longest: Duration,
    retries: usize,
    began: Option<Instant>,
    /// When it was said last that the API server asks to wait, by whichever request.
    said: Arc<Mutex<Option<Instant>>>,
    say: fn(&str),
    is_read: bool,
}

impl Patience {
    fn new(longest: Duration, say: fn(&str)) -> Self {
        Self { longest, retries: 0, began: None, said: Arc::default(), say, is_read: false }
    }

    /// How long to wait before the request is sent again.
    fn pause<B>(&mut self, answer: &Response<B>) -> Option<Duration> {
        let status = answer.status();
        let is_undone = status == http::StatusCode::TOO_MANY_REQUESTS;
        let may_come_twice = is_undone || (status.is_server_error() && self.is_read);
        if !may_come_twice {
            return None;
        }
        // A date, which HTTP allows as well, no API server sends and client-go does not read.
        let asked =
            answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)?;
        let now = Instant::now();
        let waited = now - *self.began.get_or_insert(now);
        let in_all = waited.checked_add(asked)?;
        if self.retries >= MOST_RETRIES || in_all > self.longest {
            return None;
        }
        self.retries += 1;
        if in_all >= SAID_FROM {
            self.say(now, asked, if is_undone { "has too much to do" } else { "is not ready" });
        }
        Some(asked)
    }

    fn say(&self, now: Instant, asked: Duration, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| now >= said + SAID_AGAIN) {
            *said = Some(now);
            (self.say)(&format!(
                "the API server {why} and asks to wait; it is asked again in {} s",
                asked.as_secs()
            ));
        }
    }
}

impl<B, E> Policy<Request<Body>, Response<B>, E> for Patience {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<B>, E>) -> Option<Sleep> {
        self.pause(result.as_ref().ok()?).map(tokio::time::sleep)
    }

    /// The same request once more; `None`, and so no second try, for a body that can be read only once.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        self.is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut again = Request::new(request.body().try_clone()?);
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        again.headers_mut().clone_from(request.headers());
        again.extensions_mut().clone_from(request.extensions());
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A client of a server that gives one answer always, and how often it was asked.
    fn always(status: u16, asks: Option<&'static str>) -> (kube::Client, Arc<AtomicUsize>) {
        after(usize::MAX, status, asks, |_| ())
    }

    fn after(
        refusals: usize,
        status: u16,
        asks: Option<&'static str>,
        say: fn(&str),
    ) -> (kube::Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = tower::service_fn(move |request: Request<Body>| {
            let refuses = count.fetch_add(1, Ordering::Relaxed) < refusals;
            async move {
                assert_eq!(request.headers()["x"], "y", "each try is the whole request");
                let mut answer = Response::builder().status(if refuses { status } else { 200 });
                if let Some(asks) = asks {
                    answer = answer.header(RETRY_AFTER, asks);
                }
                Ok::<_, std::convert::Infallible>(answer.body(Body::empty()).unwrap())
            }
        });
        let service = ServiceBuilder::new().retry(Patience::new(LONGEST, say)).service(server);
        (kube::Client::new(service, "default"), asked)
    }

    async fn answer(client: &kube::Client, method: Method) -> u16 {
        let request = Request::builder().method(method).uri("/a").header("x", "y");
        client.send(request.body(Body::from(b"{}".to_vec())).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_was_not_done_for_too_many_requests_is_asked_again_as_late_as_the_server_says() {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let (client, asked) = after(2, 429, Some("1"), |_| ());
            let start = Instant::now();
            assert_eq!(answer(&client, method).await, 200);
            assert_eq!(asked.load(Ordering::Relaxed), 3);
            assert_eq!(start.elapsed().as_secs(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_ten_times_more_and_no_longer_than_a_minute() {
        let (client, asked) = always(429, Some("1"));
        assert_eq!(answer(&client, Method::GET).await, 429);
        assert_eq!(asked.load(Ordering::Relaxed), 11);
        let (client, asked) = always(429, Some("25"));
        let start = Instant::now();
        assert_eq!(answer(&client, Method::GET).await, 429);
        assert_eq!((asked.load(Ordering::Relaxed), start.elapsed().as_secs()), (3, 50));
        for far in ["61", "18446744073709551615"] {
            let (client, asked) = always(429, Some(far));
            assert_eq!(answer(&client, Method::GET).await, 429);
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_may_have_been_done_is_not_sent_again() {
        for status in [500, 503, 504] {
            let (client, asked) = always(status, Some("1"));
            answer(&client, Method::POST).await;
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
        let (client, asked) = after(1, 503, Some("1"), |_| ());
        assert_eq!(answer(&client, Method::GET).await, 200);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_asks_for_nothing_is_taken_as_it_is() {
        for (status, asks) in [(429, None), (429, Some("soon")), (404, Some("1")), (409, Some("1"))] {
            let (client, asked) = always(status, asks);
            assert_eq!(answer(&client, Method::GET).await, status);
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_wait_of_some_seconds_is_told_and_not_for_each_request() {
        static SAID: AtomicUsize = AtomicUsize::new(0);
        let say: fn(&str) = |_| {
            SAID.fetch_add(1, Ordering::Relaxed);
        };
        let (client, _) = after(2, 429, Some("1"), say);
        answer(&client, Method::GET).await;
        assert_eq!(SAID.load(Ordering::Relaxed), 0);
        let (client, _) = after(usize::MAX, 429, Some("2"), say);
        tokio::join!(answer(&client, Method::GET), answer(&client, Method::GET));
        assert_eq!(SAID.load(Ordering::Relaxed), 1);
        answer(&client, Method::GET).await;
        assert_eq!(SAID.load(Ordering::Relaxed), 2, "half a minute later");
    }
}
