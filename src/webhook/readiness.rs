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
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use super::activity::Activity;
use super::health::Checks;
use crate::cert::authority::certificates;
use crate::cert::trust::{BundleKeeper, trusting};
use crate::cert::{Registered, self_check};
use crate::control::member::Vouch;
use crate::control::webhooks::{registered_clients, server_name};
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
    /// The name under which we are going to be registered.
    pub server_name: ServerName<'static>,
    /// The authorities that are going to be registered; they count until any are.
    pub trusted: watch::Receiver<Bytes>,
    /// What is registered.
    pub configurations: watch::Receiver<Arc<Configurations>>,
    /// Who writes the authorities into the registration.
    pub keeper: BundleKeeper,
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
            let checked = match self.registered() {
                Ok(registered) => self.check(&registered).await,
                Err(problem) => Err(problem),
            };
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

    /// What API servers expect of us now; while nothing is registered, what they are going to.
    fn registered(&mut self) -> Result<Vec<Registered>, String> {
        let configurations = self.configurations.borrow_and_update();
        let trusted = self.trusted.borrow_and_update();
        if !configurations.are_known() {
            return Err("the registered webhook configurations have not been read yet".to_owned());
        }
        let clients = trusting(&configurations, self.keeper);
        if !clients.is_empty() {
            return clients.into_iter().map(expected).collect();
        }
        if !registered_clients(&configurations).is_empty() {
            return Err("the registered webhook configurations have no caBundle yet".to_owned());
        }
        if trusted.is_empty() {
            return Err("the certificate authority is not known yet".to_owned());
        }
        let bundle = certificates(&trusted).map_err(|error| error.to_string())?;
        Ok(vec![Registered { server_name: self.server_name.clone(), bundle }])
    }

    async fn check(&self, registered: &[Registered]) -> Outcome {
        for registered in registered {
            self_check::handshake(self.listener, registered).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// What an API server expects that calls us as `client` says.
fn expected(client: &WebhookClientConfig) -> Result<Registered, String> {
    let unusable = || "our registered webhook configuration names no usable server".to_owned();
    let server_name = server_name(client).and_then(|name| name.try_into().ok()).ok_or_else(unusable)?;
    let bundle = client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    let bundle = certificates(bundle).map_err(|error| format!("the registered caBundle: {error}"))?;
    Ok(Registered { server_name, bundle })
}

/// Whether this replica may be sent reviews.
#[derive(Clone)]
pub struct Readiness {
    /// Has the guards.
    pub store: Store,
    /// Whether they are as new as others take them to be.
    pub vouch: Vouch,
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
        let vouch = self.vouch.clone();
        checks
            .with("guards", move || {
                if store.is_synced() { Ok(()) } else { Err("the guards have not been read yet".to_owned()) }
            })
            .with("agreement", move || {
                let lapsed =
                    || "the other replicas have not been told how new the guards here are".to_owned();
                if vouch.is_current() { Ok(()) } else { Err(lapsed()) }
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

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
