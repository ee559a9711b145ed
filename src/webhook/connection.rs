//! One accepted connection with TLS finished, and how axum-server gets at it.
//!
//! axum-server takes connections from a listener of ours instead of the socket, so that no TLS
//! handshake is dropped when one server gives way to the next.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum_server::{AddrListener, Address};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::server::TlsStream;

use super::room::{Place, Requests};

/// A TLS connection that counts as open for as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    place: Place,
}

impl Connection {
    pub(super) fn new(stream: TlsStream<TcpStream>, place: Place) -> Self {
        Self { stream, place }
    }

    /// What requests on it are counted by.
    pub(super) fn requests(&self) -> Requests {
        self.place.requests()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.has_to_leave(context.waker()) {
            // As if the peer had closed it: the server then says goodbye.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.place.read();
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Address for Peer {
    type Stream = Connection;
    type Listener = Arrivals;
}

/// Connections that arrive for one server.
pub(super) struct Arrivals {
    local: SocketAddr,
    queue: Mutex<mpsc::UnboundedReceiver<(Connection, Peer)>>,
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Arrivals {
    pub(super) fn new(local: SocketAddr, queue: mpsc::UnboundedReceiver<(Connection, Peer)>) -> Self {
        Self { local, queue: Mutex::new(queue) }
    }
}

impl AddrListener<Connection, Peer> for Arrivals {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    async fn accept_stream(&self) -> io::Result<(Connection, Peer)> {
        match self.queue.lock().await.recv().await {
            Some(arrival) => Ok(arrival),
            // Nothing will arrive any more; the server ends when it is told to.
            None => std::future::pending().await,
        }
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        Ok(Peer(self.local))
    }
}
