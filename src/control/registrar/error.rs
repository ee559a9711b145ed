//! What keeps the configurations from being what they should be, and when trying again makes sense.

use std::time::Duration;

use crate::api::names;
use crate::control::lease::NotHolding;

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
