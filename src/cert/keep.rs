//! Keeps this replica's certificate in order: the shared authority, a leaf of it, renewed in time.
//!
//! The Secret is looked at every minute. When it was deleted, the authority in use is put back; when
//! it holds another one, both are to be trusted first, and ours gives way only once the other one is
//! registered: at no moment is a leaf served that API servers do not trust. A leaf is renewed from
//! the authority in memory, so that no outage of the API server can make it run out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::authority::{Authority, AuthorityError, certificates, to_pem};
use super::leaf::{Leaf, ServerIdentity};
use super::resolver::LeafResolver;
use super::secret::shared_authority;
use crate::control::webhooks::registered_clients;
use crate::core::rotation::Validity;
use crate::store::Configurations;
use crate::telemetry::metrics::Metrics;

/// First pause after a failure; doubled up to [`LOOK`].
const RETRY: Duration = Duration::from_millis(500);
/// Pause between two looks at the Secret and the clock. By the clock, and not one long sleep until
/// renewal is due, because a machine that was suspended must not sleep on.
const LOOK: Duration = Duration::from_secs(60);
/// How long an authority that gave way goes on being trusted: other replicas may still serve it.
const OVERLAP: SignedDuration = SignedDuration::from_hours(1);

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
    /// What is registered, and so trusted.
    pub configurations: watch::Receiver<Arc<Configurations>>,
    /// Tells when the certificate ends.
    pub metrics: Arc<Metrics>,
}

/// What is served.
struct Serving {
    authority: Authority,
    leaf: Validity,
    /// The authority before, and until when it is trusted.
    former: Option<(CertificateDer<'static>, Timestamp)>,
}

/// What is known to be registered.
#[derive(Debug, PartialEq, Eq)]
enum Trusted {
    /// Nothing is known yet.
    Unknown,
    /// No entry: no API server calls us.
    Nothing,
    /// These authorities.
    Only(Vec<CertificateDer<'static>>),
}

/// What to do about the authority that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Ours still; the leaf is good.
    Stay,
    /// Sign a new leaf with the one that was found.
    Take,
    /// Have both trusted, and go on with ours until then.
    Announce,
}

impl CertificateKeeper {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut serving: Option<Serving> = None;
        let mut retry = RETRY;
        loop {
            self.configurations.mark_unchanged();
            let (pause, announced) = match self.look(&mut serving).await {
                Ok(moved) => {
                    retry = RETRY;
                    (LOOK, moved == Move::Announce)
                }
                Err(error) => {
                    tracing::warn!(error, "the certificate authority could not be read; trying again");
                    let pause = retry;
                    retry = (retry * 2).min(LOOK);
                    (pause, false)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.configurations.changed(), if announced => {}
            }
        }
    }

    /// One look at the Secret, the registration and the clock.
    async fn look(&self, serving: &mut Option<Serving>) -> Result<Move, String> {
        let now = Timestamp::now();
        let ours = serving.as_ref().map(|serving| &serving.authority);
        let found = shared_authority(self.client.clone(), &self.namespace, ours, now).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if let Some(serving) = serving.as_mut().filter(|serving| serving.leaf.renewal_due() <= now) {
                    serving.leaf = self.serve(&serving.authority, now).map_err(|error| error.to_string())?;
                }
                return Err(error.to_string());
            }
        };
        let next = next_move(serving.as_ref(), &found, &self.trusted(), now);
        if next == Move::Announce {
            tracing::warn!("another certificate authority is in the Secret; used once it is registered");
        }
        self.publish(found.bundle(), serving.as_ref(), now);
        if next == Move::Take {
            let leaf = self.serve(&found, now).map_err(|error| error.to_string())?;
            let former = serving.take().and_then(|before| before.succeeded_by(&found, now));
            *serving = Some(Serving { authority: found, leaf, former });
        }
        Ok(next)
    }

    /// Serves a new leaf of `authority`.
    fn serve(&self, authority: &Authority, now: Timestamp) -> Result<Validity, AuthorityError> {
        let leaf = Leaf::issue(authority, &self.identity, now)?;
        let validity = leaf.validity();
        self.resolver.replace(leaf);
        self.metrics.certificate_end(validity.not_after.as_second());
        tracing::info!(until = %validity.not_after, "serving a new certificate");
        Ok(validity)
    }

    /// The authorities that API servers trust.
    fn trusted(&self) -> Trusted {
        let configurations = self.configurations.borrow();
        if !configurations.are_known() {
            return Trusted::Unknown;
        }
        // Trusted is what every entry trusts: one that does not would refuse.
        let bundle = |client: &WebhookClientConfig| {
            let pem = client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
            certificates(pem).unwrap_or_default()
        };
        let common = |all: Vec<_>, next: Vec<_>| all.into_iter().filter(|one| next.contains(one)).collect();
        match registered_clients(&configurations).into_iter().map(bundle).reduce(common) {
            None => Trusted::Nothing,
            Some(common) => Trusted::Only(common),
        }
    }

    /// Has `bundle`, what is served, and what was served shortly before, trusted.
    fn publish(&self, bundle: &[CertificateDer<'static>], serving: Option<&Serving>, now: Timestamp) {
        let mut all = bundle.to_vec();
        for further in serving.into_iter().flat_map(|serving| serving.to_be_trusted(now)) {
            if !all.contains(further) {
                all.push(further.clone());
            }
        }
        let pem = Bytes::from(to_pem(&all));
        self.bundle.send_if_modified(|before| std::mem::replace(before, pem.clone()) != pem);
    }
}

impl Serving {
    /// Authorities that must go on being trusted.
    fn to_be_trusted(&self, now: Timestamp) -> impl Iterator<Item = &CertificateDer<'static>> {
        let former = self.former.iter().filter(move |(_, until)| now < *until).map(|(former, _)| former);
        std::iter::once(self.authority.certificate()).chain(former)
    }

    /// What is to be remembered once `next` is served.
    fn succeeded_by(self, next: &Authority, now: Timestamp) -> Option<(CertificateDer<'static>, Timestamp)> {
        if next.certificate() == self.authority.certificate() {
            return self.former;
        }
        let until = now.checked_add(OVERLAP).unwrap_or(Timestamp::MAX);
        Some((self.authority.certificate().clone(), until))
    }
}

/// The rule: see the module's header.
fn next_move(serving: Option<&Serving>, found: &Authority, trusted: &Trusted, now: Timestamp) -> Move {
    let Some(serving) = serving else { return Move::Take };
    let ours = serving.authority.certificate();
    if found.certificate() == ours {
        return if serving.leaf.renewal_due() <= now { Move::Take } else { Move::Stay };
    }
    match trusted {
        Trusted::Unknown => Move::Announce,
        Trusted::Nothing => Move::Take,
        // Where API servers do not trust ours either, there is nothing to lose.
        Trusted::Only(all) if all.contains(found.certificate()) || !all.contains(ours) => Move::Take,
        Trusted::Only(_) => Move::Announce,
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
