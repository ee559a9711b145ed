//! When this replica may be sent reviews (DESIGN 4.8).
//!
//! Its guards have been read, and what it serves is what API servers will accept: a fresh handshake
//! with our own listener, under the registered name, against exactly the registered authorities.
//! While it drains it is unready whatever else holds.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use super::activity::Activity;
use super::health::Checks;
use crate::cert::authority::certificates;
use crate::cert::{Registered, self_check};
use crate::control::webhooks::registered_bundle;
use crate::store::{Configurations, Store};
use crate::telemetry::metrics::Metrics;

/// Pause between two checks while the last one failed.
const WHILE_FAILING: Duration = Duration::from_millis(200);
/// Pause between two checks while all is well: a certificate that ends is renewed hours before.
const WHILE_WELL: Duration = Duration::from_secs(30);

/// What the last check of the certificate came to.
type Outcome = Result<(), String>;

/// Checks the served certificate again and again.
pub struct CertificateCheck {
    /// Our own listener.
    pub listener: SocketAddr,
    /// The name that API servers verify.
    pub server_name: ServerName<'static>,
    /// The authorities that are going to be registered; they count until any are.
    pub trusted: watch::Receiver<Bytes>,
    /// What is registered.
    pub configurations: watch::Receiver<Arc<Configurations>>,
    /// Counts the checks.
    pub metrics: Arc<Metrics>,
}

impl CertificateCheck {
    /// The latest outcome, and the task that keeps it so.
    pub fn start(self) -> (watch::Receiver<Outcome>, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = watch::channel(Err("not checked yet".to_owned()));
        (receiver, self.run(sender))
    }

    async fn run(mut self, outcome: watch::Sender<Outcome>) {
        loop {
            let bundle = self.bundle();
            let checked = self.check(&bundle).await;
            self.metrics.self_check(if checked.is_ok() { "ok" } else { "failed" });
            let pause = if checked.is_ok() { WHILE_WELL } else { WHILE_FAILING };
            outcome.send_if_modified(|before| std::mem::replace(before, checked.clone()) != checked);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.configurations.changed() => {}
                _ = self.trusted.changed() => {}
            }
        }
    }

    /// The authorities that API servers trust now, or are going to.
    fn bundle(&mut self) -> Bytes {
        let registered = registered_bundle(&self.configurations.borrow_and_update());
        let trusted = self.trusted.borrow_and_update().clone();
        registered.map_or(trusted, Bytes::from)
    }

    async fn check(&self, bundle: &Bytes) -> Outcome {
        if bundle.is_empty() {
            return Err("the certificate authority is not known yet".to_owned());
        }
        let bundle = certificates(bundle).map_err(|error| error.to_string())?;
        let registered = Registered { server_name: self.server_name.clone(), bundle };
        self_check::handshake(self.listener, &registered).await.map_err(|error| error.to_string())
    }
}

/// Whether this replica may be sent reviews.
#[derive(Clone)]
pub struct Readiness {
    /// Has the guards.
    pub store: Store,
    /// Latest outcome of the certificate's check.
    pub certificate: watch::Receiver<Outcome>,
    /// Knows whether we are stopping.
    pub activity: Arc<Activity>,
}

impl Readiness {
    /// Adds the checks behind `/readyz`.
    #[must_use]
    pub fn checks(&self, checks: Checks) -> Checks {
        let (store, certificate, activity) =
            (self.store.clone(), self.certificate.clone(), Arc::clone(&self.activity));
        checks
            .with("guards", move || {
                if store.is_synced() { Ok(()) } else { Err("the guards have not been read yet".to_owned()) }
            })
            .with("certificate", move || certificate.borrow().clone())
            .with(
                "shutdown",
                move || {
                    if activity.is_draining() { Err("stopping".to_owned()) } else { Ok(()) }
                },
            )
    }

    /// Logs one line when everything is there. Never ends.
    pub async fn announce(mut self, address: SocketAddr) {
        self.store.synced().await;
        if self.certificate.wait_for(Result::is_ok).await.is_ok() {
            tracing::info!(%address, guards = self.store.index().guards().len(), "ready for admission reviews");
        }
        // What runs in the background runs for ever; an end would be taken for a failure.
        std::future::pending::<()>().await;
    }
}
