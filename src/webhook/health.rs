//! `/livez`, `/readyz` and `/metrics` on a plain port of their own.
//!
//! Kubelets ask without a certificate, and readiness must be told while the certificate is what is
//! wrong. Like an API server, `/readyz` names each check when one fails or `?verbose` is asked.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum_server::Handle;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::task::JoinHandle;

use crate::telemetry::metrics::Metrics;

/// The content type of the metrics page.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says what is wrong, or nothing.
type Probe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of which readiness consists.
#[derive(Default)]
pub struct Checks {
    checks: Vec<(&'static str, Probe)>,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|(name, _)| name)).finish()
    }
}

impl Checks {
    /// Adds a check. It is asked on every probe, so it only looks at what is known.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        probe: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((name, Box::new(probe)));
        self
    }

    /// Whether all checks pass, and the text that says which.
    fn report(&self) -> (bool, String) {
        let mut ready = true;
        let mut text = String::new();
        for (name, probe) in &self.checks {
            // Writing to a string cannot fail.
            let _ = match probe() {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(problem) => {
                    ready = false;
                    writeln!(text, "[-]{name} failed: {problem}")
                }
            };
        }
        text.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
        (ready, text)
    }
}

#[derive(Debug)]
struct Health {
    checks: Checks,
    metrics: Arc<Metrics>,
}

/// A running health server.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

impl HealthServer {
    /// Listens at `bind` and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(bind: SocketAddr, checks: Checks, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(bind).await?;
        let address = listener.local_addr()?;
        let handle = Handle::new();
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .with_state(Arc::new(Health { checks, metrics }));
        let server = axum_server::Server::<SocketAddr>::from_listener(listener).handle(handle.clone());
        let task = tokio::spawn(server.serve(router.into_make_service()));
        Ok(Self { address, handle, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops at once.
    pub async fn stop(self) {
        self.handle.shutdown();
        let _ = self.task.await;
    }
}

async fn livez() -> &'static str {
    "ok"
}

async fn readyz(State(health): State<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    let (ready, report) = health.checks.report();
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    match (ready, verbose) {
        (true, false) => "ok".into_response(),
        (true, true) => report.into_response(),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, report).into_response(),
    }
}

async fn metrics_page(State(health): State<Arc<Health>>) -> Response {
    health.metrics.ready(health.checks.report().0);
    match health.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test whose server fails should stop.
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let answer = client.get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_not_ok_and_liveness_does_not_care() {
        let synced = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&synced);
        let checks =
            Checks::default()
                .with("guards", move || {
                    if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("not read yet".into()) }
                })
                .with("certificate", || Ok(()));
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = HealthServer::start(bind, checks, Arc::default()).await.unwrap();
        let address = server.address();
        assert_eq!(get(address, "/livez").await, (200, "ok".into()));
        let unready = "[-]guards failed: not read yet\n[+]certificate ok\nreadyz check failed\n";
        assert_eq!(get(address, "/readyz").await, (503, unready.into()));
        synced.store(true, Ordering::Relaxed);
        assert_eq!(get(address, "/readyz").await, (200, "ok".into()));
        let verbose = "[+]guards ok\n[+]certificate ok\nreadyz check passed\n";
        assert_eq!(get(address, "/readyz?verbose").await, (200, verbose.into()));
        assert!(get(address, "/metrics").await.1.contains("driftguard_ready 1"));
        synced.store(false, Ordering::Relaxed);
        assert!(get(address, "/metrics").await.1.contains("driftguard_ready 0"));
        assert_eq!(get(address, "/validate/g1/fail").await.0, 404);
        server.stop().await;
    }
}
