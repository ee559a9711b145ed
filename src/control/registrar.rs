//! Writes the webhook entries that the guards need, and puts them back when somebody alters them.
//!
//! Each configuration that is applied has a generation of its own, which stands in the path of every
//! entry and never goes back: an answer that names a generation proves that an API server uses
//! entries at least as new. Nothing is written when what stands there is what is wanted ([`wanted`]), and
//! nothing read when that was seen before ([`confirmed`]). What one configuration takes is in [`side`].

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Api;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::breakglass::BrokenGlass;
use crate::core::registration::{Entry, Widened};
use crate::core::signature::SigningKey;
use crate::store::{Configurations, Observation};

use super::lease::Fence;
use super::repairs::Repairs;
use super::webhooks::{Address, Configuration};

mod confirmed;
mod error;
mod glass;
mod side;
mod wanted;

pub use error::RegistrarError;
pub use glass::{Broken, GlassTurn};
pub use side::Altered;

use confirmed::Confirmed;
use glass::Glass;
use side::{CaBundle, Side, generation, mend_glass, read, revision};
use wanted::{Trust, Wanted};

/// How often a write is tried when somebody else writes at the same time.
const TRIES: usize = 4;

/// What registration depends on besides the guards.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of this installation.
    pub own_namespace: String,
    /// Where API servers call us.
    pub address: Address,
    /// The authorities that API servers trust for that, PEM; empty until they are known.
    pub bundle: watch::Receiver<Bytes>,
    /// The Certificate (`NAMESPACE/NAME`) whose authority somebody else, such as cert-manager's cainjector,
    /// writes into the configurations; `None` where `bundle` is written by us.
    pub injected_from: Option<String>,
    /// The key of which the tokens in paths for our own kinds are made.
    pub key: watch::Receiver<Option<SigningKey>>,
    /// How long broken glass may count after it was first seen.
    pub longest_pause: SignedDuration,
}

/// What stands in the cluster after [`Registrar::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The generation in the paths of the validating entries.
    pub generation: u64,
    /// Whether anything had to be written.
    pub written: bool,
    /// What somebody had altered, where that was put back.
    pub repaired: Option<Altered>,
    /// Resources whose entries match more than guarded objects.
    pub widened: Vec<Widened>,
    /// How the glass is broken, if it is: writes pass.
    pub broken: Option<Broken>,
    /// What became of the glass just now, in this order; each is told once, whichever replica writes.
    pub glass: Vec<GlassTurn>,
}

/// What stands there once both configurations are settled.
struct Standing {
    validating: Option<ValidatingWebhookConfiguration>,
    mutating: Option<MutatingWebhookConfiguration>,
    written: bool,
    repaired: Option<Altered>,
}

/// Writes the webhook configurations of this installation.
#[derive(Debug)]
pub struct Registrar {
    settings: Settings,
    configurations: watch::Receiver<Arc<Configurations>>,
    validating: Api<ValidatingWebhookConfiguration>,
    mutating: Api<MutatingWebhookConfiguration>,
    confirmed: Option<Confirmed>,
    /// What was last written or found right: when it differs later, somebody altered it.
    last: Option<Wanted>,
    highest: u64,
    repairs: Repairs,
    /// The broken glass as this replica last saw it, while it counts.
    glass: Option<BrokenGlass>,
}

impl Registrar {
    /// A registrar; `configurations` is what the store watches.
    #[must_use]
    pub fn new(
        client: kube::Client,
        settings: Settings,
        configurations: watch::Receiver<Arc<Configurations>>,
    ) -> Self {
        Self {
            settings,
            configurations,
            validating: Api::all(client.clone()),
            mutating: Api::all(client),
            confirmed: None,
            last: None,
            highest: 0,
            repairs: Repairs::default(),
            glass: None,
        }
    }

    /// Forgets what was seen to be right, so that the next [`Self::apply`] reads what stands there.
    pub fn forget(&mut self) {
        self.confirmed = None;
        self.last = None;
        self.glass = None;
    }

    /// Returns when something changed that [`Self::apply`] may have to follow: somebody wrote the
    /// configurations, or there is another authority or key.
    pub async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.configurations.changed() => changed,
            changed = self.settings.bundle.changed() => changed,
            changed = self.settings.key.changed() => changed,
        };
        if changed.is_err() {
            // Whoever told us is gone: nothing will ever change.
            std::future::pending::<()>().await;
        }
    }

    /// Makes the configurations what the guards of `observation` need, and returns once the API server
    /// has acknowledged that.
    ///
    /// # Errors
    /// [`RegistrarError`] when they are not so, or not known to be so.
    pub async fn apply(
        &mut self,
        observation: &Observation,
        fence: &Fence,
    ) -> Result<Applied, RegistrarError> {
        fence.check()?;
        let trust = self.trust()?;
        let Some(key) = self.settings.key.borrow_and_update().clone() else {
            return Err(RegistrarError::NoKey);
        };
        let configurations = self.configurations.borrow_and_update().clone();
        if let Some(confirmed) = &self.confirmed
            && confirmed.holds(observation.version, &trust.bundle, &key, &configurations)
        {
            return Ok(confirmed.applied.clone());
        }
        self.confirmed = None;
        let wanted = Wanted::of(&observation.index, &self.settings.own_namespace, trust, key);
        for _ in 1..TRIES {
            match self.register(observation.version, &wanted, fence).await {
                Err(RegistrarError::Api { conflict: true, .. }) => {}
                result => return result,
            }
        }
        self.register(observation.version, &wanted, fence).await
    }

    /// Whom API servers are to trust now.
    fn trust(&mut self) -> Result<Trust, RegistrarError> {
        let authorities = self.settings.bundle.borrow_and_update().clone();
        if authorities.is_empty() {
            return Err(RegistrarError::NoAuthority);
        }
        let injected = self.settings.injected_from.clone();
        let bundle = injected.map_or_else(|| CaBundle::Ours(authorities.clone()), CaBundle::InjectedFrom);
        Ok(Trust { authorities, bundle })
    }

    /// Reads what stands there, and writes it where that is not what is wanted.
    async fn register(
        &mut self,
        version: u64,
        wanted: &Wanted,
        fence: &Fence,
    ) -> Result<Applied, RegistrarError> {
        let validating = read(&self.validating).await?;
        let mutating = read(&self.mutating).await?;
        let meta = validating.as_ref().map(|found| &found.metadata);
        let glass = Glass::read(meta, Timestamp::now(), self.settings.longest_pause);
        let opened;
        let wanted = if let Some(Broken { until, .. }) = &glass.broken {
            tracing::error!(%until, "the glass is broken: writes to guarded objects pass (driftguard breakglass --end)");
            opened = wanted.broken();
            &opened
        } else {
            wanted
        };
        let found = [generation(validating.as_ref()), generation(mutating.as_ref())];
        self.highest = found.into_iter().fold(self.highest, u64::max);
        let Standing { validating, mutating, written, repaired } =
            self.settle(wanted, &glass, validating, mutating, fence).await?;
        let missing = Side::without_bundle(&wanted.bundle, validating.as_ref())
            + Side::without_bundle(&wanted.bundle, mutating.as_ref());
        if let (CaBundle::InjectedFrom(from), 1.., None) = (&wanted.bundle, missing, &glass.broken) {
            // What is written once it is there is no repair.
            self.last = None;
            return Err(RegistrarError::NotInjected { entries: missing, from: from.clone() });
        }
        let (validating, mutating) = if glass.broken.is_some() {
            (validating, mutating)
        } else {
            // Only now, so that whoever finishes this later still finds that it is to be told.
            (
                mend_glass(&self.validating, validating, fence).await?,
                mend_glass(&self.mutating, mutating, fence).await?,
            )
        };
        let before = std::mem::replace(&mut self.glass, glass.counting());
        let generation = validating.as_ref().map_or(0, Configuration::generation);
        self.highest = self.highest.max(generation);
        let applied = Applied {
            generation,
            written,
            repaired,
            widened: wanted.validating.widened.clone(),
            broken: glass.broken.clone(),
            glass: glass.turns(before),
        };
        self.confirmed = Some(Confirmed {
            version,
            bundle: wanted.bundle.clone(),
            key: wanted.key.clone(),
            validating: validating.as_ref().map(revision),
            mutating: mutating.as_ref().map(revision),
            applied: Applied { written: false, repaired: None, glass: Vec::new(), ..applied.clone() },
        });
        self.last = Some(wanted.clone());
        Ok(applied)
    }

    /// Makes what was found what is wanted, first the gate.
    async fn settle(
        &mut self,
        wanted: &Wanted,
        glass: &Glass,
        validating: Option<ValidatingWebhookConfiguration>,
        mutating: Option<MutatingWebhookConfiguration>,
        fence: &Fence,
    ) -> Result<Standing, RegistrarError> {
        let gate = self.side(&self.validating, validating, &wanted.validating.entries, &wanted.bundle);
        let gate = Side { seen: glass.seen.clone(), ..gate };
        let convenience = self.side(&self.mutating, mutating, &wanted.mutating.entries, &wanted.bundle);
        let mut repaired = None;
        if !gate.is_right() || !convenience.is_right() {
            repaired = self.admit(wanted, gate.altered().or_else(|| convenience.altered()))?;
        }
        let next = self.highest + 1;
        // Rules that are merely not new enough still cover whom they covered; altered ones nobody.
        let altered = self.last.as_ref().filter(|_| glass.broken.is_none()).and_then(|last| {
            let found = gate.found.clone();
            self.side(&self.validating, found, &last.validating.entries, &last.bundle).altered()
        });
        let settled = gate.settle(next, fence).await;
        let (validating, wrote_gate) = settled.map_err(|error| match (error, altered) {
            (cause @ RegistrarError::Api { conflict: false, .. }, Some(altered)) => {
                RegistrarError::Unrepaired { by: altered.by, cause: Box::new(cause) }
            }
            (error, _) => error,
        })?;
        let (mutating, wrote_convenience) = convenience.settle(next, fence).await?;
        Ok(Standing { validating, mutating, written: wrote_gate || wrote_convenience, repaired })
    }

    /// One configuration as it was found, with what should stand there while the glass is whole.
    fn side<'a, K: Configuration>(
        &self,
        api: &Api<K>,
        found: Option<K>,
        entries: &'a [Entry],
        bundle: &'a CaBundle,
    ) -> Side<'a, K> {
        Side { api: api.clone(), address: self.settings.address.clone(), found, entries, bundle, seen: None }
    }

    /// Lets a write pass, unless it would repair what somebody keeps altering. Tells what it repairs.
    fn admit(
        &mut self,
        wanted: &Wanted,
        altered: Option<Altered>,
    ) -> Result<Option<Altered>, RegistrarError> {
        let (Some(altered), Some(last)) = (altered, &self.last) else { return Ok(None) };
        if last != wanted {
            return Ok(None);
        }
        let Altered { kind, by, deleted } = altered;
        match self.repairs.admit(Instant::now()) {
            Ok(()) => {
                tracing::error!(kind, by, deleted, "our webhook configuration was altered; repairing it");
                Ok(Some(Altered { kind, by, deleted }))
            }
            Err(wait) => Err(RegistrarError::Contended { kind, by, wait }),
        }
    }
}

#[cfg(test)]
mod tests;
