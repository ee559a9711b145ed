//! Keeps this replica's certificate in order: the shared authority, a leaf of it, both renewed in time.
//!
//! [`crate::core::rotation`] decides; here it is told what was seen, and its decisions are carried
//! out. What always holds: at no moment is a leaf served that API servers do not trust; a Secret that
//! is deleted or broken is put back from memory; and a leaf is renewed from the authority in memory,
//! so that no outage of the API server can make it run out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::authority::{Authority, AuthorityError};
use super::changes::{self, Told};
use super::leaf::{Leaf, ServerIdentity};
use super::resolver::LeafResolver;
use super::secret::{Found, Held, SecretError, SharedSecret};
use super::trust::{BundleKeeper, in_order, trusted};
use crate::api::names;
use crate::core::rotation::{Due, Lifetimes, Served, Sight, Step};
use crate::store::Configurations;
use crate::telemetry::metrics::Metrics;

/// First pause after a failure; doubled up to the pause between two looks.
const RETRY: Duration = Duration::from_millis(500);
/// Longest a read of the Secret may take: a leaf must be renewed meanwhile.
const REQUEST: Duration = Duration::from_secs(5);

/// What is kept, and where the results go.
pub struct CertificateKeeper {
    /// The client that reads and makes the Secret.
    pub client: kube::Client,
    /// Namespace of this installation.
    pub namespace: String,
    /// The names that the leaf carries.
    pub identity: ServerIdentity,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// Where the leaf is served from.
    pub resolver: Arc<LeafResolver>,
    /// The authorities to be trusted, PEM; empty until they are known.
    pub bundle: watch::Sender<Bytes>,
    /// What is registered, and so trusted.
    pub configurations: watch::Receiver<Arc<Configurations>>,
    /// Tells when the certificate ends.
    pub metrics: Arc<Metrics>,
}

/// What this replica knows and serves.
struct Kept {
    sight: Sight<CertificateDer<'static>>,
    serving: Option<(Authority, Served<CertificateDer<'static>>)>,
    /// The successor that was last seen in the Secret.
    next: Option<Authority>,
    /// Whether the leaf is of the authority in the Secret, which has no successor: nothing is under way.
    is_calm: bool,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot sign a certificate: {0}")]
    Sign(#[from] AuthorityError),
}

impl CertificateKeeper {
    /// Runs for ever.
    pub async fn run(mut self) {
        let shared = SharedSecret::new(self.client.clone(), &self.namespace);
        let look = Duration::try_from(self.lifetimes.look()).unwrap_or(Duration::from_secs(60));
        let mut kept = Kept { sight: Sight::new(self.lifetimes), serving: None, next: None, is_calm: false };
        let mut changes = pin!(changes::of(&self.client, &self.namespace, names::CA_SECRET));
        let mut told = Told::Nothing;
        let rarely = Duration::try_from(self.lifetimes.look_when_told()).unwrap_or(look);
        let mut retry = RETRY.min(look);
        loop {
            self.configurations.mark_unchanged();
            let pause = match self.look(&shared, &mut kept).await {
                // What was written is read back at once.
                Ok(true) => continue,
                Ok(false) => {
                    retry = RETRY.min(look);
                    if told == Told::Changed && kept.is_calm { rarely } else { look }
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificates are not in order; trying again");
                    let pause = retry;
                    retry = (retry * 2).min(look);
                    pause
                }
            };
            // By the clock, and not one long sleep until something is due, because a machine that was
            // suspended must not sleep on.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.configurations.changed() => {}
                Some(now) = changes.next() => told = now,
            }
        }
    }

    /// One look at the registration, the Secret and the clock. Tells whether the Secret was written.
    async fn look(&self, shared: &SharedSecret, kept: &mut Kept) -> Result<bool, LookError> {
        let now = Timestamp::now();
        kept.sight.registered(trusted(&self.configurations.borrow(), BundleKeeper::Ourselves), now);
        let found = tokio::time::timeout(REQUEST, shared.read()).await.unwrap_or(Err(SecretError::TimedOut));
        let held = match found {
            Ok(Some(Found::Held(held))) => held,
            other => {
                kept.is_calm = false;
                self.renew(kept, now)?;
                return self.mend(shared, kept, other, now).await;
            }
        };
        kept.sight.present(held.bundle(), now);
        kept.next = held.next.as_ref().map(Authority::copy).transpose()?;
        self.follow(kept, &held, now)?;
        let is_of = |(_, served): &(Authority, Served<_>)| served.authority == *held.current.certificate();
        kept.is_calm = kept.next.is_none() && kept.serving.as_ref().is_some_and(is_of);
        self.publish(kept, now);
        if !held.ours {
            // Whoever made it renews it.
            if held.current.validity().has_ended(now) {
                let error = AuthorityError::NotValid(held.current.validity());
                return Err(SecretError::Unusable { namespace: self.namespace.clone(), error }.into());
            }
            return Ok(false);
        }
        self.carry_out(shared, kept, &held, now).await
    }

    /// Does what is due in the Secret.
    async fn carry_out(
        &self,
        shared: &SharedSecret,
        kept: &Kept,
        held: &Held,
        now: Timestamp,
    ) -> Result<bool, LookError> {
        let next = held.next.as_ref().map(|next| (next.certificate(), next.validity()));
        match kept.sight.due(held.current.validity(), next, now) {
            Due::Nothing => return Ok(false),
            Due::Announce => {
                let next = Authority::generate_for(now, self.lifetimes.authority)?;
                tracing::info!("the certificate authority gets a successor; it signs once it is registered");
                shared.announce(held, &next, now).await?;
            }
            Due::Promote => {
                tracing::info!("the successor of the certificate authority signs from now on");
                shared.promote(held, now).await?;
            }
            Due::Replace => {
                let new = Authority::generate_for(now, self.lifetimes.authority)?;
                tracing::warn!("the certificate authority has ended without a successor; making a new one");
                shared.restart(held, &new).await?;
            }
        }
        Ok(true)
    }

    /// Puts back what is missing or broken. Tells whether it was.
    async fn mend(
        &self,
        shared: &SharedSecret,
        kept: &Kept,
        found: Result<Option<Found>, SecretError>,
        now: Timestamp,
    ) -> Result<bool, LookError> {
        let ours = kept.serving.as_ref().map(|(authority, _)| authority);
        let ours = ours.filter(|ours| !ours.validity().has_ended(now));
        let next = kept
            .next
            .as_ref()
            .filter(|next| ours.is_some_and(|ours| ours.certificate() != next.certificate()));
        match (found?, ours) {
            (None, Some(ours)) => {
                tracing::warn!("the Secret of the certificate authority is gone; putting it back");
                shared.create(ours, next).await?;
            }
            (None, None) => {
                let new = Authority::generate_for(now, self.lifetimes.authority)?;
                shared.create(&new, None).await?;
            }
            (Some(Found::Unusable { error, ours: Some(secret) }), Some(ours)) => {
                tracing::warn!(%error, "the Secret of the certificate authority is broken; putting it back");
                let bundle: Vec<_> = kept.sight.bundle().cloned().collect();
                shared.update(&secret, ours, next, &bundle).await?;
            }
            (Some(Found::Unusable { error, .. }), _) => return Err(error.into()),
            // Not called for it.
            (Some(Found::Held(_)), _) => return Ok(false),
        }
        Ok(true)
    }

    /// Serves a leaf of the authority in the Secret, or a new one of ours, where that is due.
    fn follow(&self, kept: &mut Kept, held: &Held, now: Timestamp) -> Result<(), LookError> {
        let served = kept.serving.as_ref().map(|(_, served)| served);
        let step = kept.sight.step(served, held.current.certificate(), held.current.validity(), now);
        match step {
            Step::Stay => Ok(()),
            Step::Renew => self.renew(kept, now),
            // It is replaced first; until then there is nothing to sign with.
            Step::Follow if !held.current.validity().contains(now) => Ok(()),
            Step::Follow => self.serve(kept, held.current.copy()?, now),
        }
    }

    /// Renews the leaf from the authority in memory, where that is due.
    fn renew(&self, kept: &mut Kept, now: Timestamp) -> Result<(), LookError> {
        let due = kept.serving.as_ref().filter(|(authority, served)| {
            served.leaf.renewal_due() <= now && authority.validity().contains(now)
        });
        let Some((authority, _)) = due else { return Ok(()) };
        let authority = authority.copy()?;
        self.serve(kept, authority, now)
    }

    /// Serves a new leaf of `authority`.
    fn serve(&self, kept: &mut Kept, authority: Authority, now: Timestamp) -> Result<(), LookError> {
        let leaf = Leaf::issue_for(&authority, &self.identity, now, self.lifetimes.leaf)?;
        let validity = leaf.validity();
        kept.sight.present([authority.certificate().clone()], now);
        self.resolver.replace(leaf);
        self.metrics.certificate_end(validity.not_after.as_second());
        tracing::info!(until = %validity.not_after, "serving a new certificate");
        let served = Served {
            authority: authority.certificate().clone(),
            authority_validity: authority.validity(),
            leaf: validity,
        };
        kept.serving = Some((authority, served));
        Ok(())
    }

    /// Has all that may be served by any replica registered.
    fn publish(&self, kept: &mut Kept, now: Timestamp) {
        let serving = kept.serving.as_ref().map(|(authority, _)| authority.certificate().clone());
        kept.sight.present(serving, now);
        let pem = Bytes::from(in_order(kept.sight.bundle()));
        self.bundle.send_if_modified(|before| std::mem::replace(before, pem.clone()) != pem);
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
