//! The Secret through which all replicas share one authority, and its successor.
//!
//! First writer wins: it is made with CREATE and changed with the resourceVersion that was read, and
//! whoever comes second reads what the first wrote. Only a Secret that DriftGuard made is ever
//! changed; one of cert-manager or of a person is read, and one of theirs that cannot be used is an
//! error that says what is wrong with it: replacing an authority that API servers trust stops every
//! guarded write.
//!
//! Rights needed in the namespace: `get`, `list`, `watch` and `update` on this Secret, `create` on Secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use rustls::pki_types::CertificateDer;

use super::authority::{Authority, AuthorityError, to_pem, validity_of};
use crate::api::names;

/// Keys of the Secret, as type `kubernetes.io/tls` and cert-manager name them: the signing
/// certificate, its key, and all authorities to be trusted.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
/// The successor of the authority, and its key, while there is one.
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// Why there is no shared authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server did not give or take it.
    #[error("cannot {verb} the Secret {namespace}/{}: {error}", names::CA_SECRET)]
    Api {
        /// `read`, `create` or `update`.
        verb: &'static str,
        /// The namespace of the Secret.
        namespace: String,
        /// What the API server says.
        error: Box<kube::Error>,
    },
    /// It is there, but unusable.
    #[error(
        "the Secret {namespace}/{name} holds no usable certificate authority: {error}; mend it, or delete it so that a new one is made",
        name = names::CA_SECRET
    )]
    Unusable {
        /// The namespace of the Secret.
        namespace: String,
        /// What is wrong with it.
        error: AuthorityError,
    },
    /// A key is missing.
    #[error(
        "the Secret {namespace}/{name} has no {key}; mend it, or delete it so that a new one is made",
        name = names::CA_SECRET
    )]
    Missing {
        /// The namespace of the Secret.
        namespace: String,
        /// Which key of its data.
        key: &'static str,
    },
    /// The API server is silent.
    #[error("cannot read the Secret {}: no answer in time", names::CA_SECRET)]
    TimedOut,
}

impl SecretError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } | Self::TimedOut => "SecretUnavailable",
            Self::Unusable { error, .. } => error.reason(),
            Self::Missing { .. } => "SecretIncomplete",
        }
    }
}

/// What the Secret holds.
#[derive(Debug)]
pub(super) struct Held {
    /// Signs now; may have ended.
    pub(super) current: Authority,
    /// Signs next.
    pub(super) next: Option<Authority>,
    /// Whether we made the Secret, and so may change it.
    pub(super) ours: bool,
    secret: Secret,
}

impl Held {
    /// The authorities to be trusted according to the Secret.
    pub(super) fn bundle(&self) -> Vec<CertificateDer<'static>> {
        let mut all = self.current.bundle().to_vec();
        let next = self.next.as_ref().map(|next| next.certificate().clone());
        all.extend(next.filter(|next| !all.contains(next)));
        all
    }
}

/// What a look at the Secret found.
#[derive(Debug)]
pub(super) enum Found {
    /// It can be used.
    Held(Box<Held>),
    /// It is there, but cannot be used.
    Unusable {
        /// What is wrong.
        error: SecretError,
        /// As it stands, when we made it.
        ours: Option<Box<Secret>>,
    },
}

/// The shared Secret.
#[derive(Debug, Clone)]
pub(super) struct SharedSecret {
    api: Api<Secret>,
    namespace: String,
}

impl SharedSecret {
    pub(super) fn new(client: kube::Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    fn failed(&self, verb: &'static str) -> impl FnOnce(kube::Error) -> SecretError {
        let namespace = self.namespace.clone();
        move |error| SecretError::Api { verb, namespace, error: Box::new(error) }
    }

    /// What stands there; `None` when there is no such Secret.
    pub(super) async fn read(&self) -> Result<Option<Found>, SecretError> {
        let found = self.api.get_opt(names::CA_SECRET).await.map_err(self.failed("read"))?;
        Ok(found.map(|secret| read(secret, &self.namespace)))
    }

    /// Makes it. Somebody else may have been first.
    pub(super) async fn create(
        &self,
        current: &Authority,
        next: Option<&Authority>,
    ) -> Result<(), SecretError> {
        let bundle: Vec<_> =
            current.bundle().iter().chain(next.map(Authority::certificate)).cloned().collect();
        match self.api.create(&PostParams::default(), &secret(&self.namespace, current, next, &bundle)).await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result.map(drop).map_err(self.failed("create")),
        }
    }

    /// Changes what `found` holds. Somebody else may have been first.
    pub(super) async fn update(
        &self,
        found: &Secret,
        current: &Authority,
        next: Option<&Authority>,
        bundle: &[CertificateDer<'static>],
    ) -> Result<(), SecretError> {
        let mut changed = found.clone();
        // Its resourceVersion stays, so that only one of two writers succeeds.
        changed.metadata.managed_fields = None;
        changed.data = secret(&self.namespace, current, next, bundle).data;
        match self.api.replace(names::CA_SECRET, &PostParams::default(), &changed).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result.map(drop).map_err(self.failed("update")),
        }
    }

    /// Puts a new authority beside `held`'s.
    pub(super) async fn announce(
        &self,
        held: &Held,
        next: &Authority,
        now: Timestamp,
    ) -> Result<(), SecretError> {
        let mut bundle = current_of(held.current.bundle(), now);
        bundle.push(next.certificate().clone());
        self.update(&held.secret, &held.current, Some(next), &bundle).await
    }

    /// Lets the successor of `held` sign.
    pub(super) async fn promote(&self, held: &Held, now: Timestamp) -> Result<(), SecretError> {
        let Some(next) = &held.next else { return Ok(()) };
        let bundle = current_of(&held.bundle(), now);
        self.update(&held.secret, next, None, &bundle).await
    }

    /// Puts `new` in place of everything: what was there has ended.
    pub(super) async fn restart(&self, held: &Held, new: &Authority) -> Result<(), SecretError> {
        self.update(&held.secret, new, None, new.bundle()).await
    }
}

/// Those that have not ended: no leaf of the others can be valid.
fn current_of(bundle: &[CertificateDer<'static>], now: Timestamp) -> Vec<CertificateDer<'static>> {
    let lives =
        |one: &&CertificateDer<'static>| validity_of(one).is_some_and(|validity| !validity.has_ended(now));
    bundle.iter().filter(lives).cloned().collect()
}

pub(super) fn secret(
    namespace: &str,
    authority: &Authority,
    next: Option<&Authority>,
    bundle: &[CertificateDer<'static>],
) -> Secret {
    let bytes = |text: String| ByteString(text.into_bytes());
    let mut data = BTreeMap::from([
        (CERTIFICATE.to_owned(), bytes(authority.certificate_pem())),
        (KEY.to_owned(), bytes(authority.key_pem())),
        (BUNDLE.to_owned(), bytes(to_pem(bundle))),
    ]);
    if let Some(next) = next {
        data.insert(NEXT_CERTIFICATE.to_owned(), bytes(next.certificate_pem()));
        data.insert(NEXT_KEY.to_owned(), bytes(next.key_pem()));
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(names::CA_SECRET.into()),
            namespace: Some(namespace.into()),
            labels: Some(BTreeMap::from([
                (names::LABEL_NAME.to_owned(), "driftguard".to_owned()),
                (names::LABEL_COMPONENT.to_owned(), "webhook".to_owned()),
                (names::LABEL_MANAGED_BY.to_owned(), "driftguard".to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data),
        ..Secret::default()
    }
}

fn read(secret: Secret, namespace: &str) -> Found {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_MANAGED_BY));
    let ours = label.is_some_and(|by| by == "driftguard");
    match authorities(&secret, namespace) {
        Ok((current, next)) => Found::Held(Box::new(Held { current, next, ours, secret })),
        Err(error) => Found::Unusable { error, ours: ours.then(|| Box::new(secret)) },
    }
}

fn authorities(secret: &Secret, namespace: &str) -> Result<(Authority, Option<Authority>), SecretError> {
    read_data(secret.data.as_ref().unwrap_or(&BTreeMap::new()), namespace)
}

/// The authority that the data of a Secret holds, and its successor.
///
/// # Errors
/// [`SecretError`] says which key is missing or wrong.
pub fn read_data(
    data: &BTreeMap<String, ByteString>,
    namespace: &str,
) -> Result<(Authority, Option<Authority>), SecretError> {
    let value =
        |key: &'static str| data.get(key).map(|bytes| bytes.0.as_slice()).filter(|bytes| !bytes.is_empty());
    let needed = |key| value(key).ok_or(SecretError::Missing { namespace: namespace.to_owned(), key });
    let current = Authority::from_pem_of_any_time(needed(CERTIFICATE)?, needed(KEY)?, value(BUNDLE))
        .map_err(|error| SecretError::Unusable { namespace: namespace.to_owned(), error })?;
    // A successor that cannot be read is none: it signs nothing yet, and another one is made.
    let next = value(NEXT_CERTIFICATE).zip(value(NEXT_KEY));
    let next =
        next.and_then(|(certificate, key)| Authority::from_pem_of_any_time(certificate, key, None).ok());
    Ok((current, next))
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
