//! The HTTPS server as a whole: bound, served, drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::drain::{DrainTimes, Progress, Step};
use super::front::{Front, Lanes};
use super::handlers::{Desk, router};
use super::lane::{Lane, Leaving, Protocol};
use super::reviews::Reviews;
use super::room::Room;
use crate::telemetry::metrics::Metrics;

/// How often connections that were opened meanwhile are told to go while draining.
const SWEEP: Duration = Duration::from_secs(1);
/// How often it is looked whether draining is over.
const LOOK: Duration = Duration::from_millis(50);

pub use super::front::MOST_CONNECTIONS;

/// What a server needs.
#[derive(Debug)]
pub struct AdmissionSettings {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// TLS with the leaf and the protocols.
    pub tls: ServerConfig,
    /// Whether only clients that show a certificate, which `tls` verifies, are served.
    pub clients_known: bool,
    /// Names of which such a certificate must have one; any when empty.
    pub client_names: Vec<String>,
    /// How many connections at most; [`MOST_CONNECTIONS`] but in tests.
    pub most_connections: usize,
    /// Counts shared with readiness.
    pub activity: Arc<Activity>,
    /// What is counted for Prometheus.
    pub metrics: Arc<Metrics>,
}

/// A running admission server.
#[derive(Debug)]
pub struct Admission {
    address: SocketAddr,
    lanes: Arc<Lanes>,
    room: Arc<Room>,
    activity: Arc<Activity>,
    stop: watch::Sender<bool>,
    front: JoinHandle<()>,
}

impl Admission {
    /// Listens and serves `reviews`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(settings: AdmissionSettings, reviews: Reviews) -> io::Result<Self> {
        let AdmissionSettings { bind, tls, clients_known, client_names, most_connections, activity, metrics } =
            settings;
        let listener = TcpListener::bind(bind).await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk::new(reviews, Arc::clone(&activity), Arc::clone(&metrics)));
        let lanes = Arc::new(Lanes {
            http1: Lane::new(Protocol::Http1, address, router(Arc::clone(&desk))),
            http2: Lane::new(Protocol::Http2, address, router(desk)),
        });
        let room = Arc::new(Room::new(most_connections, Arc::clone(&metrics)));
        let front = Front {
            listener: Some(listener),
            tls: TlsAcceptor::from(Arc::new(tls)),
            clients_known,
            client_names: client_names.into(),
            lanes: Arc::clone(&lanes),
            room: Arc::clone(&room),
            activity: Arc::clone(&activity),
            metrics,
        };
        let (stop, stopped) = watch::channel(false);
        let front = tokio::spawn(front.run(stopped));
        Ok(Self { address, lanes, room, activity, stop, front })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.room.taken()
    }

    /// Stops as [`super::drain`] says. Returns whether every connection was closed in time.
    pub async fn drain(mut self, times: DrainTimes) -> bool {
        let began = Instant::now();
        self.activity.drain();
        let mut leaving = vec![self.lanes.http2.relieve().await];
        let mut swept = Instant::now();
        loop {
            let progress = Progress {
                elapsed: began.elapsed(),
                open: self.open(),
                quiet_for: self.activity.quiet_for(),
            };
            if times.step(progress) == Step::Close {
                break;
            }
            tokio::time::sleep(LOOK).await;
            if swept.elapsed() >= SWEEP && self.lanes.http2.is_busy() {
                leaving.push(self.lanes.http2.relieve().await);
                swept = Instant::now();
            }
        }
        let left = times.limit.saturating_sub(began.elapsed());
        let finished = tokio::time::timeout(left, self.close(&mut leaving, times, began)).await.is_ok();
        for server in &leaving {
            server.close();
        }
        // A handshake that is never finished keeps the last servers from being told to.
        self.lanes.http1.close();
        self.lanes.http2.close();
        finished
    }

    /// Closes the socket and waits for what has begun.
    async fn close(&mut self, leaving: &mut Vec<Leaving>, times: DrainTimes, began: Instant) {
        self.stop.send_replace(true);
        // A front that panicked accepts nothing any more either.
        let _ = (&mut self.front).await;
        leaving.push(self.lanes.http2.relieve().await);
        // HTTP/1.1 has no way to say that a request was not looked at: on a connection that is closed
        // while idle a request may be under way. So each goes by its own last answer, as long as
        // there is time or requests come.
        while self.lanes.http1.is_busy() && times.keeps_idle(began.elapsed(), self.activity.quiet_for()) {
            tokio::time::sleep(LOOK).await;
        }
        leaving.push(self.lanes.http1.relieve().await);
        for server in leaving {
            server.finished().await;
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
