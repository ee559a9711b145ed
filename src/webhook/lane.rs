//! One protocol, served by axum-server, and relieved without losing a request.
//!
//! The only way to have a server say GOAWAY on its HTTP/2 connections is to stop it gracefully. So a
//! lane has one server at a time, and [`Lane::relieve`] puts a new one in its place first: new
//! connections go to the new one, the old one finishes what it has. axum-server drops a connection
//! that was handed to it but has not been looked at when it is stopped; therefore the old server is
//! stopped only when it has begun with every connection that it was given.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum_server::accept::Accept;
use axum_server::{Handle, Server};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tower::Service;

use super::connection::{Arrivals, Connection, Peer};
use super::room::Requests;

/// Bytes of one review that may come before any is read. The default of 64 KiB would make a large
/// review wait a round trip for each of them.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of all reviews on one connection: an API server has a single one for everything.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Reviews at once on one connection; as many as Go's own servers allow.
const MOST_STREAMS: u32 = 250;
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an HTTP/1.1 connection may be idle. Longer than the 90 s after which API servers close
/// one themselves: a connection closed by us may just have been chosen for a request, which is lost.
const IDLE: Duration = Duration::from_secs(150);

/// A protocol, as agreed in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves the connections of one protocol.
#[derive(Debug)]
pub(super) struct Lane {
    protocol: Protocol,
    local: SocketAddr,
    router: Router,
    current: Mutex<Serving>,
}

/// One axum-server that runs.
#[derive(Debug)]
struct Serving {
    queue: mpsc::UnboundedSender<(Connection, Peer)>,
    given: usize,
    begun: watch::Receiver<usize>,
    handle: Handle<Peer>,
    task: JoinHandle<io::Result<()>>,
}

impl Lane {
    pub(super) fn new(protocol: Protocol, local: SocketAddr, router: Router) -> Self {
        let current = Mutex::new(Serving::start(protocol, local, router.clone()));
        Self { protocol, local, router, current }
    }

    /// Gives a connection to the server of the moment.
    pub(super) fn give(&self, connection: Connection, peer: SocketAddr) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.queue.send((connection, Peer(peer))).is_ok() {
            current.given += 1;
        }
    }

    /// Whether the server of the moment has connections.
    pub(super) fn is_busy(&self) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.handle.connection_count() > 0 || *current.begun.borrow() < current.given
    }

    /// Closes whatever is open.
    pub(super) fn close(&self) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).handle.shutdown();
    }

    /// Puts a new server in place of the current one and tells that one to finish: it says GOAWAY on
    /// HTTP/2 connections, closes idle HTTP/1.1 ones, and answers what has begun.
    pub(super) async fn relieve(&self) -> Leaving {
        let next = Serving::start(self.protocol, self.local, self.router.clone());
        let before = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, next)
        };
        before.finish().await
    }
}

impl Serving {
    fn start(protocol: Protocol, local: SocketAddr, router: Router) -> Self {
        let (queue, arrivals) = mpsc::unbounded_channel();
        let (counter, begun) = watch::channel(0);
        let handle = Handle::new();
        let server = Server::<Peer>::from_listener(Arrivals::new(local, arrivals));
        let mut server = match protocol {
            Protocol::Http1 => server.http1_only(),
            Protocol::Http2 => server.http2_only(),
        };
        server.http_builder().http1().header_read_timeout(IDLE);
        server
            .http_builder()
            .http2()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MOST_STREAMS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let serving =
            server.acceptor(Begin { counter }).handle(handle.clone()).serve(router.into_make_service());
        Self { queue, given: 0, begun, handle, task: tokio::spawn(serving) }
    }

    async fn finish(mut self) -> Leaving {
        let given = self.given;
        // Fails only when the server is gone, and then there is nothing to wait for.
        let _ = self.begun.wait_for(|begun| *begun >= given).await;
        self.handle.graceful_shutdown(None);
        Leaving { handle: self.handle, task: self.task }
    }
}

/// A server that finishes what it has.
#[derive(Debug)]
pub(super) struct Leaving {
    handle: Handle<Peer>,
    task: JoinHandle<io::Result<()>>,
}

impl Leaving {
    /// Returns when all its connections are closed.
    pub(super) async fn finished(&mut self) {
        // A server that failed has no connections either.
        let _ = (&mut self.task).await;
    }

    /// Closes what is still open.
    pub(super) fn close(&self) {
        self.handle.shutdown();
    }
}

/// Counts the connections that a server has begun with, and has the requests on each counted.
#[derive(Debug, Clone)]
struct Begin {
    counter: watch::Sender<usize>,
}

impl<S: Send + 'static> Accept<Connection, S> for Begin {
    type Stream = Connection;
    type Service = Counted<S>;
    type Future = BoxFuture<'static, io::Result<(Connection, Counted<S>)>>;

    fn accept(&self, stream: Connection, service: S) -> Self::Future {
        let begun = begun(self.counter.clone());
        Box::pin(async move {
            begun.await;
            let requests = stream.requests();
            Ok((stream, Counted { service, requests }))
        })
    }
}

/// Counts a connection when it is polled, not when it is made: axum-server looks in between whether it is to
/// stop, and drops the connection then. One that was counted too early would be lost with the request on it.
async fn begun(counter: watch::Sender<usize>) {
    counter.send_modify(|count| *count += 1);
}

/// Counts the requests of one connection while they are being answered.
#[derive(Debug, Clone)]
struct Counted<S> {
    service: S,
    requests: Requests,
}

impl<S, R> Service<R> for Counted<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let in_flight = self.requests.begin();
        let answering = self.service.call(request);
        Box::pin(async move {
            let answer = answering.await;
            drop(in_flight);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_begun_only_once_its_server_goes_on_with_it() {
        let (counter, count) = watch::channel(0);
        let accepted = begun(counter);
        assert_eq!(*count.borrow(), 0, "the server may still drop it");
        accepted.await;
        assert_eq!(*count.borrow(), 1);
    }
}
