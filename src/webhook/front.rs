//! Accepts connections, finishes TLS, and gives each to the lane of its protocol.
//!
//! Handshakes run beside each other, bounded in number and time, and are waited for when accepting
//! stops: a client that has connected gets its answer. When there is no room, [`super::room`] makes some.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::connection::Connection;
use super::lane::{Lane, Protocol};
use super::room::Room;
use crate::cert::tls::{ALPN_H2, is_named};
use crate::telemetry::metrics::Metrics;

/// Connections at once. An API server keeps one over HTTP/2, or some 25 over HTTP/1.1.
pub const MOST_CONNECTIONS: usize = 2048;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after the system could not accept, for instance for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The listening socket and where its connections go.
pub(super) struct Front {
    /// Taken away when accepting stops.
    pub(super) listener: Option<TcpListener>,
    pub(super) tls: TlsAcceptor,
    /// Whether a client must have shown a certificate.
    pub(super) clients_known: bool,
    /// Names of which its certificate must have one; any when empty.
    pub(super) client_names: Arc<[String]>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) room: Arc<Room>,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
}

/// The lanes of both protocols.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) http1: Lane,
    pub(super) http2: Lane,
}

impl Lanes {
    fn of(&self, protocol: Protocol) -> &Lane {
        match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        }
    }
}

impl Front {
    /// Accepts until `stop` says so; then takes what the system has accepted already, closes the
    /// socket, and returns when every handshake is over.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.try_join_next().is_some() {}
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.begin(&mut handshakes, stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.finish(handshakes).await;
    }

    /// Takes the connections that the system has accepted for us; closing the socket would reset
    /// them, and a request on a fresh connection is never sent again.
    async fn finish(mut self, mut handshakes: JoinSet<()>) {
        let Some(listener) = self.listener.take().and_then(|listener| listener.into_std().ok()) else {
            return;
        };
        loop {
            self.room.wait().await;
            let Ok((stream, peer)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.begin(&mut handshakes, stream, peer);
            }
        }
        drop(listener);
        while handshakes.join_next().await.is_some() {}
    }

    /// The next connection. One that has to wait for room is not accepted meanwhile, so that stopping
    /// loses none.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.room.wait().await;
        listener.accept().await
    }

    fn begin(&self, handshakes: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let place = self.room.enter(peer.ip());
        let tls = self.tls.clone();
        let lanes = Arc::clone(&self.lanes);
        let activity = Arc::clone(&self.activity);
        let metrics = Arc::clone(&self.metrics);
        let clients_known = self.clients_known;
        let client_names = Arc::clone(&self.client_names);
        handshakes.spawn(async move {
            // Answers are small and complete: waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => accepted,
                () = place.told() => return metrics.handshake("failed"),
            };
            let stream = match accepted {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, %peer, "a TLS handshake failed");
                    return metrics.handshake("failed");
                }
                Err(_) => return metrics.handshake("failed"),
            };
            let (_, session) = stream.get_ref();
            if clients_known {
                let Some(certificate) = session.peer_certificates().and_then(<[_]>::first) else {
                    return metrics.handshake("anonymous");
                };
                if !client_names.is_empty() && !is_named(certificate, &client_names) {
                    return metrics.handshake("stranger");
                }
            }
            let protocol =
                if session.alpn_protocol() == Some(ALPN_H2) { Protocol::Http2 } else { Protocol::Http1 };
            metrics.handshake("ok");
            // Its request is under way, and would be lost on an HTTP/1.1 connection that is closed as idle.
            activity.touch();
            lanes.of(protocol).give(Connection::new(stream, place), peer);
        });
    }
}
