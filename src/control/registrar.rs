//! Writes the webhook entries that the guards need, and puts them back when somebody alters them.
//!
//! Each configuration that is applied has a generation of its own, which stands in the path of every
//! entry and never goes back: an answer that names a generation proves that an API server uses
//! entries at least as new. Nothing is written when what stands there is what is wanted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::names;
use crate::core::breakglass::BrokenGlass;
use crate::core::registration::{self, Hook, Registration, Widened, glass, own};
use crate::core::signature::SigningKey;
use crate::store::configurations::Watched;
use crate::store::{Configurations, Observation};

use super::lease::{Fence, NotHolding};
use super::repairs::Repairs;
pub use super::side::Altered;
use super::side::{CaBundle, Side, generation, mend_glass, read, revision};
use super::webhooks::{Address, Configuration};

/// Longest text taken from an annotation about broken glass, in characters.
const MAX_WORDS: usize = 512;
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

/// Broken glass, as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// When it ends.
    pub until: Timestamp,
    /// Who broke it, as far as is known.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
}

/// What became of the glass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlassTurn {
    /// A replica has seen for the first time that it was broken.
    Broken(BrokenGlass),
    /// It is whole again, and the rules are strict.
    Mended(BrokenGlass),
}

/// Why the configurations are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// Another replica may write now.
    #[error(transparent)]
    NotHolding(#[from] NotHolding),
    /// There is no certificate to be called with.
    #[error("the webhook is not registered: the certificate authority is not known yet")]
    NoAuthority,
    /// There is no key to make the paths of entries for guards with.
    #[error("the webhook is not registered: the signing key is not known yet")]
    NoKey,
    /// The API server did not do it.
    #[error("cannot {verb} {kind} {}: {cause}", names::WEBHOOK_CONFIGURATION)]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Which kind.
        kind: &'static str,
        /// Why it failed.
        cause: String,
        /// Whether somebody else wrote it in between, so that looking again helps.
        conflict: bool,
    },
    /// Whoever keeps `caBundle` has not written it yet.
    #[error(
        "{entries} entries of the webhook configurations have no caBundle yet, and let writes pass until they have: \
         cert-manager's cainjector must run and know Certificate {from}"
    )]
    NotInjected {
        /// How many entries.
        entries: usize,
        /// Where it is to be taken from.
        from: String,
    },
    /// Somebody altered what decides about writes, and it cannot be repaired.
    #[error("the webhook rules were altered by {by} and cannot be repaired: {cause}")]
    Unrepaired {
        /// The field manager that altered them.
        by: String,
        /// Why the repair failed.
        #[source]
        cause: Box<RegistrarError>,
    },
    /// Somebody keeps altering it.
    #[error(
        "{kind} {} was altered by {by}; it is repaired again in {} s: stop what alters it",
        names::WEBHOOK_CONFIGURATION, .wait.as_secs().max(1)
    )]
    Contended {
        /// Which kind.
        kind: &'static str,
        /// The field manager that altered it.
        by: String,
        /// When it is repaired again.
        wait: Duration,
    },
}

impl RegistrarError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotHolding(_) => "NotHolding",
            Self::NoAuthority => "NoAuthority",
            Self::NoKey => "NoSigningKey",
            Self::Api { .. } | Self::Unrepaired { .. } => "RegistrationFailed",
            Self::NotInjected { .. } => "BundleNotInjected",
            Self::Contended { .. } => "RegistrationContended",
        }
    }

    /// How soon trying again makes sense; `None` where the caller knows better.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Contended { wait, .. } => Some(*wait),
            // It is watched, too.
            Self::NotInjected { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// The entries that are wanted, and what they are called with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    validating: Registration,
    mutating: Registration,
    bundle: CaBundle,
    key: SigningKey,
}

impl Wanted {
    /// What is wanted while the glass is broken: the same reviews, so that what passes is recorded, but
    /// nothing that can refuse, or that anybody waits for.
    fn broken(&self) -> Self {
        let open = |wanted: &Registration| Registration {
            entries: wanted.entries.iter().cloned().map(glass::opened).collect(),
            widened: wanted.widened.clone(),
        };
        Self {
            validating: open(&self.validating),
            mutating: open(&self.mutating),
            bundle: self.bundle.clone(),
            key: self.key.clone(),
        }
    }
}

/// What the annotations of a configuration say about broken glass; `None` when they say nothing.
fn glass_of(meta: &ObjectMeta) -> Option<BrokenGlass> {
    let annotations = meta.annotations.as_ref()?;
    let any = names::BREAKGLASS_ANNOTATIONS.iter().any(|key| annotations.contains_key(*key));
    let time = |key: &str| annotations.get(key)?.parse().ok();
    let text = |key: &str| {
        let text = annotations.get(key)?;
        let plain = text.chars().map(|one| if one.is_control() { ' ' } else { one });
        Some(plain.take(MAX_WORDS).collect::<String>())
    };
    any.then(|| BrokenGlass {
        until: time(names::ANNOTATION_BREAKGLASS_UNTIL),
        seen: time(names::ANNOTATION_BREAKGLASS_SEEN),
        by: text(names::ANNOTATION_BREAKGLASS_BY).unwrap_or_default(),
        reason: text(names::ANNOTATION_BREAKGLASS_REASON).unwrap_or_default(),
        ended_by: text(names::ANNOTATION_BREAKGLASS_ENDED_BY),
    })
}

/// What was last seen to be right, so that it need not be read again.
#[derive(Debug)]
struct Confirmed {
    version: u64,
    bundle: CaBundle,
    key: SigningKey,
    validating: Option<u64>,
    mutating: Option<u64>,
    applied: Applied,
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
        let bundle = self.settings.bundle.borrow_and_update().clone();
        if bundle.is_empty() {
            return Err(RegistrarError::NoAuthority);
        }
        let Some(key) = self.settings.key.borrow_and_update().clone() else {
            return Err(RegistrarError::NoKey);
        };
        let trusted = self.ca_bundle(bundle.clone());
        if let Some(applied) = self.still_confirmed(observation.version, &trusted, &key) {
            return Ok(applied);
        }
        self.confirmed = None;
        let wanted = self.wanted(observation, bundle, key);
        for _ in 1..TRIES {
            match self.register(observation.version, &wanted, fence).await {
                Err(RegistrarError::Api { conflict: true, .. }) => {}
                result => return result,
            }
        }
        self.register(observation.version, &wanted, fence).await
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
        let now = Timestamp::now();
        let glass = validating.as_ref().and_then(|found| glass_of(&found.metadata));
        let until = glass.as_ref().and_then(|glass| glass.end(now, self.settings.longest_pause));
        let broken = glass.as_ref().zip(until).map(|(glass, until)| Broken {
            until,
            by: glass.by.clone(),
            reason: glass.reason.clone(),
        });
        let seen = glass
            .as_ref()
            .filter(|_| until.is_some())
            .map(|glass| glass.seen.map_or(now, |seen| seen.min(now)).to_string());
        let opened;
        let wanted = if let Some(Broken { until, .. }) = &broken {
            tracing::error!(%until, "the glass is broken: writes to guarded objects pass (driftguard breakglass --end)");
            opened = wanted.broken();
            &opened
        } else {
            wanted
        };
        let found = [generation(validating.as_ref()), generation(mutating.as_ref())];
        self.highest = found.into_iter().fold(self.highest, u64::max);
        let gate = Side {
            api: self.validating.clone(),
            address: self.settings.address.clone(),
            found: validating,
            entries: &wanted.validating.entries,
            bundle: &wanted.bundle,
            seen,
        };
        let convenience = Side {
            api: self.mutating.clone(),
            address: self.settings.address.clone(),
            found: mutating,
            entries: &wanted.mutating.entries,
            bundle: &wanted.bundle,
            seen: None,
        };
        let mut repaired = None;
        if !gate.is_right() || !convenience.is_right() {
            repaired = self.admit(wanted, gate.altered().or_else(|| convenience.altered()))?;
        }
        let next = self.highest + 1;
        // Rules that are merely not new enough still cover whom they covered; altered ones nobody.
        let altered = self.last.as_ref().filter(|_| broken.is_none()).and_then(|last| {
            let as_it_was = Side {
                api: self.validating.clone(),
                address: self.settings.address.clone(),
                found: gate.found.clone(),
                entries: &last.validating.entries,
                bundle: &last.bundle,
                seen: None,
            };
            as_it_was.altered()
        });
        let settled = gate.settle(next, fence).await;
        let (validating, wrote_gate) = settled.map_err(|error| match (error, altered) {
            (cause @ RegistrarError::Api { conflict: false, .. }, Some(altered)) => {
                RegistrarError::Unrepaired { by: altered.by, cause: Box::new(cause) }
            }
            (error, _) => error,
        })?;
        let (mutating, wrote_convenience) = convenience.settle(next, fence).await?;
        let missing = Side::without_bundle(&wanted.bundle, validating.as_ref())
            + Side::without_bundle(&wanted.bundle, mutating.as_ref());
        if let (CaBundle::InjectedFrom(from), 1.., None) = (&wanted.bundle, missing, &broken) {
            // What is written once it is there is no repair.
            self.last = None;
            return Err(RegistrarError::NotInjected { entries: missing, from: from.clone() });
        }
        let (validating, mutating) = if broken.is_some() {
            (validating, mutating)
        } else {
            // Only now, so that whoever finishes this later still finds that it is to be told.
            (
                mend_glass(&self.validating, validating, fence).await?,
                mend_glass(&self.mutating, mutating, fence).await?,
            )
        };
        let turns = self.turns(glass, broken.is_some());
        let generation = validating.as_ref().map_or(0, Configuration::generation);
        self.highest = self.highest.max(generation);
        let applied = Applied {
            generation,
            written: wrote_gate || wrote_convenience,
            repaired,
            widened: wanted.validating.widened.clone(),
            broken,
            glass: turns,
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

    /// What became of the glass, by what was found and whether it counts.
    fn turns(&mut self, found: Option<BrokenGlass>, is_broken: bool) -> Vec<GlassTurn> {
        let before = std::mem::replace(&mut self.glass, found.clone().filter(|_| is_broken));
        match (found, before) {
            (Some(glass), _) if is_broken && glass.seen.is_none() => vec![GlassTurn::Broken(glass)],
            (Some(_), _) if is_broken => Vec::new(),
            // Nobody saw it while it was broken: it is told all the same.
            (Some(glass), _) if glass.seen.is_none() => {
                vec![GlassTurn::Broken(glass.clone()), GlassTurn::Mended(glass)]
            }
            (Some(glass), _) => vec![GlassTurn::Mended(glass)],
            // Somebody took the annotations away, or the whole configuration.
            (None, Some(glass)) => vec![GlassTurn::Mended(glass)],
            (None, None) => Vec::new(),
        }
    }

    fn wanted(&self, observation: &Observation, bundle: Bytes, key: SigningKey) -> Wanted {
        let settings = registration::Settings {
            own_namespace: &self.settings.own_namespace,
            client_weight: bundle.len().div_ceil(3) * 4,
            limits: registration::Limits::default(),
        };
        let mut validating = registration::validating(&observation.index, &settings);
        let mut mutating = registration::mutating(&observation.index, &settings);
        // Reviews of guards themselves are wanted whether or not there is a guard.
        validating.entries.extend(own::entries(Hook::Validate, &key));
        mutating.entries.extend(own::entries(Hook::Mutate, &key));
        Wanted { validating, mutating, bundle: self.ca_bundle(bundle), key }
    }

    /// Who tells API servers whom to trust.
    fn ca_bundle(&self, bundle: Bytes) -> CaBundle {
        self.settings.injected_from.clone().map_or(CaBundle::Ours(bundle), CaBundle::InjectedFrom)
    }

    /// The last result, when neither what is wanted nor what stands there changed since.
    fn still_confirmed(&mut self, version: u64, bundle: &CaBundle, key: &SigningKey) -> Option<Applied> {
        let configurations = self.configurations.borrow_and_update().clone();
        let confirmed = self.confirmed.as_ref()?;
        let over = confirmed.applied.broken.as_ref().is_some_and(|broken| Timestamp::now() >= broken.until);
        let same = !over
            && confirmed.version == version
            && confirmed.bundle == *bundle
            && confirmed.key == *key
            && is_old_news(&configurations.validating, confirmed.validating)
            && is_old_news(&configurations.mutating, confirmed.mutating);
        same.then(|| confirmed.applied.clone())
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

/// Whether a watch tells nothing newer than what was confirmed at a revision (`None`: absent).
fn is_old_news<K: Configuration>(watched: &Watched<K>, confirmed: Option<u64>) -> bool {
    match (watched, confirmed) {
        (Watched::Unknown, _) | (Watched::Absent, None) => true,
        (Watched::Present(object), Some(confirmed)) => revision(object.as_ref()) <= confirmed,
        (Watched::Absent, Some(_)) | (Watched::Present(_), None) => false,
    }
}

#[cfg(test)]
#[path = "registrar_tests.rs"]
mod tests;
