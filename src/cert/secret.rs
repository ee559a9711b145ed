//! The Secret through which all replicas share one authority.
//!
//! First writer wins: it is made with CREATE, and whoever comes second reads what the first wrote.
//! Nothing here ever overwrites a Secret: one that cannot be used is an error that says what is
//! wrong with it, because replacing an authority that API servers trust stops every guarded write.
//!
//! Rights needed in the namespace: `get` and `create` on Secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};

use super::authority::{Authority, AuthorityError, to_pem};
use crate::api::names;

/// Keys of the Secret, as type `kubernetes.io/tls` and cert-manager name them: the signing
/// certificate, its key, and all authorities to be trusted.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";

/// Why there is no shared authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server did not give or take it.
    #[error("cannot {verb} the Secret {namespace}/{}: {error}", names::CA_SECRET)]
    Api {
        /// `read` or `create`.
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
    /// No authority can be made.
    #[error("cannot make a certificate authority: {0}")]
    Generate(AuthorityError),
}

impl SecretError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "SecretUnavailable",
            Self::Unusable { error, .. } | Self::Generate(error) => error.reason(),
            Self::Missing { .. } => "SecretIncomplete",
        }
    }
}

/// The authority in the Secret of `namespace`.
///
/// When there is none, `ours` is put there: the authority this replica already serves with, so that
/// a deleted Secret comes back as it was, or else a new one.
///
/// # Errors
/// [`SecretError`] when it cannot be read or made, or when what is there cannot be used.
pub async fn shared_authority(
    client: kube::Client,
    namespace: &str,
    ours: Option<&Authority>,
    now: Timestamp,
) -> Result<Authority, SecretError> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let failed = |verb| {
        move |error| SecretError::Api { verb, namespace: namespace.to_owned(), error: Box::new(error) }
    };
    if let Some(found) = api.get_opt(names::CA_SECRET).await.map_err(failed("read"))? {
        return read(&found, namespace, now);
    }
    let new;
    // One that has ended would only be refused again: the way out is a new one.
    let authority = match ours.filter(|ours| ours.validity().contains(now)) {
        Some(ours) => ours,
        None => {
            new = Authority::generate(now).map_err(SecretError::Generate)?;
            &new
        }
    };
    match api.create(&PostParams::default(), &secret(namespace, authority)).await {
        Ok(made) => read(&made, namespace, now),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let winner = api.get(names::CA_SECRET).await.map_err(failed("read"))?;
            read(&winner, namespace, now)
        }
        Err(error) => Err(failed("create")(error)),
    }
}

pub(super) fn secret(namespace: &str, authority: &Authority) -> Secret {
    let bytes = |text: String| ByteString(text.into_bytes());
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
        data: Some(BTreeMap::from([
            (CERTIFICATE.to_owned(), bytes(authority.certificate_pem())),
            (KEY.to_owned(), bytes(authority.key_pem())),
            (BUNDLE.to_owned(), bytes(to_pem(authority.bundle()))),
        ])),
        ..Secret::default()
    }
}

fn read(secret: &Secret, namespace: &str, now: Timestamp) -> Result<Authority, SecretError> {
    let value = |key: &'static str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|bytes| bytes.0.as_slice())
            .filter(|bytes| !bytes.is_empty())
    };
    let needed = |key| value(key).ok_or(SecretError::Missing { namespace: namespace.to_owned(), key });
    Authority::from_pem(needed(CERTIFICATE)?, needed(KEY)?, value(BUNDLE), now)
        .map_err(|error| SecretError::Unusable { namespace: namespace.to_owned(), error })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test without its certificates should stop.
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::cert::test_support::{Server, client};

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    async fn share(server: &Arc<Mutex<Server>>, ours: Option<&Authority>) -> Result<Authority, SecretError> {
        shared_authority(client(server), "terrafusion-system", ours, now()).await
    }

    #[tokio::test]
    async fn all_replicas_get_the_authority_that_the_first_one_made() {
        let server = Arc::new(Mutex::new(Server::default()));
        let first = share(&server, None).await.unwrap();
        let second = share(&server, None).await.unwrap();
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(server.lock().unwrap().writes, 1);
    }

    #[tokio::test]
    async fn who_loses_the_race_takes_what_the_winner_wrote() {
        let winner = Authority::generate(now()).unwrap();
        let server = Arc::new(Mutex::new(Server {
            wins_the_race: Some(secret("terrafusion-system", &winner)),
            ..Server::default()
        }));
        let loser = share(&server, None).await.unwrap();
        assert_eq!(loser.certificate(), winner.certificate());
        assert_eq!(server.lock().unwrap().writes, 0);
    }

    #[tokio::test]
    async fn a_broken_secret_is_one_clear_error_and_never_overwritten() {
        let mut broken = secret("terrafusion-system", &Authority::generate(now()).unwrap());
        broken.data.as_mut().unwrap().insert(KEY.into(), ByteString(b"hunter2".to_vec()));
        let server = Arc::new(Mutex::new(Server { stored: Some(broken), ..Server::default() }));
        let error = share(&server, None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the Secret terrafusion-system/driftguard-ca holds no usable certificate authority: the \
             private key is no PKCS #8 key in PEM; mend it, or delete it so that a new one is made"
        );
        assert_eq!(error.reason(), "KeyUnreadable");
        assert_eq!(server.lock().unwrap().writes, 0);
    }

    #[tokio::test]
    async fn a_secret_without_a_key_says_which() {
        let mut incomplete = secret("terrafusion-system", &Authority::generate(now()).unwrap());
        incomplete.data.as_mut().unwrap().remove(CERTIFICATE);
        let server = Arc::new(Mutex::new(Server { stored: Some(incomplete), ..Server::default() }));
        let error = share(&server, None).await.unwrap_err();
        assert!(matches!(error, SecretError::Missing { key: CERTIFICATE, .. }));
    }

    #[tokio::test]
    async fn an_authority_that_has_ended_is_not_put_back_but_followed_by_a_new_one() {
        let ended = Authority::generate("2020-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let server = Arc::new(Mutex::new(Server::default()));
        let made = share(&server, Some(&ended)).await.unwrap();
        assert_ne!(made.certificate(), ended.certificate());
        assert!(made.validity().contains(now()));
    }

    #[tokio::test]
    async fn a_deleted_secret_comes_back_as_it_was() {
        let server = Arc::new(Mutex::new(Server::default()));
        let before = share(&server, None).await.unwrap();
        server.lock().unwrap().stored = None;
        let after = share(&server, Some(&before)).await.unwrap();
        assert_eq!(after.certificate(), before.certificate());
        assert_eq!(after.key_pem(), before.key_pem());
    }
}
