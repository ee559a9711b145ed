//! Keeps this replica's certificate in order: the shared authority, a leaf of it, renewed in time.
//!
//! The authority is read anew at each renewal and after a failure, never made anew while one is
//! there. What API servers are to trust is told through a channel, and written by whoever registers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::authority::{Authority, to_pem};
use super::leaf::{Leaf, ServerIdentity};
use super::resolver::LeafResolver;
use super::secret::shared_authority;
use crate::telemetry::metrics::Metrics;

/// First pause after a failure; doubled up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest wait between two looks at the clock: a machine that slept must not sleep on.
const LOOK: Duration = Duration::from_secs(60);

/// What is kept, and where the results go.
pub struct CertificateKeeper {
    /// The client that reads and makes the Secret.
    pub client: kube::Client,
    /// Namespace of this installation.
    pub namespace: String,
    /// The names that the leaf carries.
    pub identity: ServerIdentity,
    /// Where the leaf is served from.
    pub resolver: Arc<LeafResolver>,
    /// The authorities to be trusted, PEM; empty until they are known.
    pub bundle: watch::Sender<Bytes>,
    /// Tells when the certificate ends.
    pub metrics: Arc<Metrics>,
}

impl CertificateKeeper {
    /// Runs for ever.
    pub async fn run(self) {
        let mut authority: Option<Authority> = None;
        let mut pause = RETRY;
        loop {
            match self.renew(authority.as_ref()).await {
                Ok((read, leaf)) => {
                    pause = RETRY;
                    self.publish(&read, &leaf);
                    authority = Some(read);
                    let validity = leaf.validity();
                    self.resolver.replace(leaf);
                    while Timestamp::now() < validity.renewal_due() {
                        let left = validity.wait_for_renewal(Timestamp::now());
                        tokio::time::sleep(LOOK.min(left.unsigned_abs())).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(error, "no certificate could be made; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn renew(&self, ours: Option<&Authority>) -> Result<(Authority, Leaf), String> {
        let now = Timestamp::now();
        let authority = shared_authority(self.client.clone(), &self.namespace, ours, now)
            .await
            .map_err(|error| error.to_string())?;
        let leaf = Leaf::issue(&authority, &self.identity, now).map_err(|error| error.to_string())?;
        Ok((authority, leaf))
    }

    fn publish(&self, authority: &Authority, leaf: &Leaf) {
        let bundle = Bytes::from(to_pem(authority.bundle()));
        self.bundle.send_if_modified(|before| std::mem::replace(before, bundle.clone()) != bundle);
        self.metrics.certificate_end(leaf.validity().not_after.as_second());
        tracing::info!(until = %leaf.validity().not_after, "serving a new certificate");
    }
}
