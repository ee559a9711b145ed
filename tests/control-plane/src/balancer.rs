//! A TCP balancer before several replicas, standing for a Service and kube-proxy.
//!
//! A new connection goes to the next replica whose `/readyz` answers 200; a connection that exists stays
//! where it is, whatever its replica says later. With no ready replica, connections are closed at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{http, wait};

/// How often every replica is asked. A cluster's endpoints follow within about a second; tests need not wait
/// that long.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer may take: a halted replica counts as not ready.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// One replica.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Where connections go.
    pub address: SocketAddr,
    /// What is asked, such as `http://127.0.0.1:PORT/readyz`.
    pub readyz: String,
}

#[derive(Debug)]
struct Replica {
    backend: Backend,
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Pool {
    replicas: Mutex<Vec<Arc<Replica>>>,
    next: AtomicUsize,
}

impl Pool {
    fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ready(&self) -> Vec<SocketAddr> {
        let replicas = self.replicas();
        let ready = replicas.iter().filter(|replica| replica.ready.load(Ordering::Acquire));
        ready.map(|replica| replica.backend.address).collect()
    }

    fn choose(&self) -> Option<SocketAddr> {
        let ready = self.ready();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        ready.get(turn % ready.len().max(1)).copied()
    }
}

/// Listens on a port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
    pool: Arc<Pool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Balancer {
    /// Starts to listen and to ask the replicas.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(backends: Vec<Backend>) -> Result<Self> {
        let listener = wait::block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, crate::free_port()?)))?
            .context("the balancer has no port")?;
        let port = listener.local_addr()?.port();
        let pool = Arc::new(Pool::default());
        let tasks = vec![
            wait::runtime().spawn(accept(listener, Arc::clone(&pool))),
            wait::runtime().spawn(probe(Arc::clone(&pool))),
        ];
        let balancer = Self { port, pool, tasks };
        balancer.set_backends(backends);
        Ok(balancer)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts these replicas in the place of the former ones, none of them ready until it has said so.
    pub fn set_backends(&self, backends: Vec<Backend>) {
        let replicas = backends.into_iter().map(|backend| Replica { backend, ready: AtomicBool::new(false) });
        *self.pool.replicas.lock().unwrap_or_else(PoisonError::into_inner) = replicas.map(Arc::new).collect();
    }

    /// The addresses that new connections go to now.
    pub fn ready(&self) -> Vec<SocketAddr> {
        self.pool.ready()
    }

    /// Waits until exactly `count` replicas are ready.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_ready(&self, count: usize, limit: Duration) -> Result<()> {
        wait::until(&format!("{count} replicas are ready"), limit, || {
            let ready = self.ready();
            anyhow::ensure!(ready.len() == count, "ready: {ready:?}");
            Ok(())
        })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, pool: Arc<Pool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(address) = pool.choose() else { continue };
        tokio::spawn(async move {
            // A replica that is gone but not yet unready: the client sees its connection close, as in a cluster.
            let Ok(mut replica) = TcpStream::connect(address).await else { return };
            // Without this, small messages wait for each other's acknowledgement.
            drop((client.set_nodelay(true), replica.set_nodelay(true)));
            drop(tokio::io::copy_bidirectional(&mut client, &mut replica).await);
        });
    }
}

async fn probe(pool: Arc<Pool>) {
    let mut interval = tokio::time::interval(PROBE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let mut probes = tokio::task::JoinSet::new();
        for replica in pool.replicas() {
            probes.spawn(async move {
                let answer = http::status(&replica.backend.readyz, PROBE_LIMIT).await;
                replica.ready.store(answer.is_ok_and(|status| status == 200), Ordering::Release);
            });
        }
        while probes.join_next().await.is_some() {}
    }
}
