//! The Secret with the key by which authors of guards are signed, shared by all replicas.
//!
//! First writer wins, as for the authority ([`super::secret`]), and nothing here ever overwrites it. A
//! deleted Secret comes back with the key in memory: whoever starts without one gives living replicas the
//! time to put it back ([`Others`]). Only when no replica remembers the key is a new one made; then no
//! signature is valid any more, and guards wait for `driftguard adopt`.
//!
//! Rights needed in the namespace: `get`, `list` and `watch` on this Secret, `create` on Secrets and `list` on
//! Leases.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::changes::{self, Told};
use super::crypto_provider;
use crate::api::names;
use crate::core::signature::{KEY_LENGTH, SigningKey};

/// Key of the Secret's data.
const KEY: &str = "key";
/// Pause between two looks while no watch tells of changes: another replica's key is used after so long at the
/// latest.
const LOOK: Duration = Duration::from_secs(10);
/// The same while one does: a watch may be silent for a reason that nobody knows.
const LOOK_WHEN_TOLD: Duration = Duration::from_secs(600);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Shortest pause between two looks: whoever sends bad signatures must not make us flood the API server.
const SHORTEST: Duration = Duration::from_millis(250);
/// How long paths made with a key are taken after another one has replaced it: until the holder of the
/// lease has seen it, and its registration has reached every API server.
const OVERLAP: Duration = Duration::from_secs(60);

/// Pause between two looks while another replica may put its key back.
const AWAIT: Duration = Duration::from_secs(1);
/// After so long a replica whose Lease has not changed does not live: those that do renew every 3 s.
const SILENT: Duration = Duration::from_secs(10);
/// After so long no living replica has the key: each that had it has looked more than once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest the list of Leases may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The word for a key that another one has replaced.
pub const REPLACED: &str = "SigningKeyReplaced";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The API server did not give or take it.
    #[error("cannot {verb} the Secret {namespace}/{}: {error}", names::SIGNING_SECRET)]
    Api {
        /// `read` or `create`.
        verb: &'static str,
        /// The namespace of the Secret.
        namespace: String,
        /// What the API server says.
        error: Box<kube::Error>,
    },
    /// It is there, but holds no key.
    #[error(
        "the Secret {namespace}/{} holds no key of {KEY_LENGTH} bytes under `{KEY}`; restore it, or delete it so that a new one is made and run `driftguard adopt`",
        names::SIGNING_SECRET
    )]
    Unusable {
        /// The namespace of the Secret.
        namespace: String,
    },
    /// There is none, and nobody tells which other replicas there are.
    #[error(
        "cannot tell whether another replica holds the key of the missing Secret {namespace}/{}: {how}",
        names::SIGNING_SECRET
    )]
    OthersUnknown {
        /// The namespace of the Secret.
        namespace: String,
        /// What the API server says.
        how: String,
    },
    /// There is none, but another replica that lives may put it back.
    #[error(
        "the Secret {namespace}/{} is missing; before a new key is made, other replicas that live may put theirs back",
        names::SIGNING_SECRET
    )]
    Awaited {
        /// The namespace of the Secret.
        namespace: String,
    },
    /// No random bytes.
    #[error("cannot make a signing key: the system gives no random numbers")]
    Random,
}

impl SigningError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "SecretUnavailable",
            Self::Unusable { .. } => "SecretUnusable",
            Self::OthersUnknown { .. } => "ReplicasUnknown",
            Self::Awaited { .. } => "KeyAwaited",
            Self::Random => "NoRandomness",
        }
    }
}

/// Keeps the key up to date.
pub struct SigningKeeper {
    client: kube::Client,
    namespace: String,
    key: watch::Sender<Option<SigningKey>>,
    former: watch::Sender<Option<Former>>,
    looks: watch::Sender<u64>,
    asked: Arc<Notify>,
}

/// A key, and when another one replaced it.
type Former = (SigningKey, Instant);

impl std::fmt::Debug for SigningKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeeper").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The key as it is known; clones share it.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    key: watch::Receiver<Option<SigningKey>>,
    former: watch::Receiver<Option<Former>>,
    looks: watch::Receiver<u64>,
    asked: Arc<Notify>,
}

impl SigningKeys {
    /// The key, once it is known.
    #[must_use]
    pub fn current(&self) -> Option<SigningKey> {
        self.key.borrow().clone()
    }

    /// The key as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<SigningKey>> {
        self.key.clone()
    }

    /// The keys by which registered paths may be made: the key, and for a while the one before it.
    #[must_use]
    pub fn accepted(&self) -> Vec<SigningKey> {
        let former = self.former.borrow().clone().filter(|(_, replaced)| replaced.elapsed() < OVERLAP);
        self.current().into_iter().chain(former.map(|(key, _)| key)).collect()
    }

    /// The key after one more look at the Secret. The caller bounds how long this may take.
    pub async fn looked_up_again(&self) -> Option<SigningKey> {
        let mut looks = self.looks.clone();
        let before = *looks.borrow_and_update();
        self.asked.notify_one();
        // An error means that the process is stopping: what is known has to do.
        let _ = looks.wait_for(|looks| *looks > before).await;
        self.current()
    }
}

/// A key in memory, in the form in which it can be put back.
struct Held {
    bytes: [u8; KEY_LENGTH],
    key: SigningKey,
}

/// The other replicas, as their Leases tell whoever starts without a key. Clocks of two machines are not
/// compared: who renews lives.
#[derive(Debug, Default)]
struct Others {
    /// When they were first seen, and their Leases by name, each with its version. Whoever comes later has
    /// no older key than we.
    first: Option<(Instant, BTreeMap<String, String>)>,
    is_one_alive: bool,
}

impl Others {
    /// Whether one of them may still put the key back, by the Leases as they stand at `now`.
    fn may_hold_the_key(&mut self, leases: &BTreeMap<String, String>, now: Instant) -> bool {
        let (since, first) = self.first.get_or_insert_with(|| (now, leases.clone()));
        let waited = now.duration_since(*since);
        let renewed =
            |(name, version): (&String, &String)| first.get(name).is_some_and(|before| before != version);
        self.is_one_alive |= leases.iter().any(renewed);
        let is_one_left = leases.keys().any(|name| first.contains_key(name));
        is_one_left && waited < if self.is_one_alive { PATIENCE } else { SILENT }
    }
}

impl SigningKeeper {
    /// A keeper, which must be run, and a handle on what it keeps.
    #[must_use]
    pub fn new(client: kube::Client, namespace: String) -> (Self, SigningKeys) {
        let (key, keys) = watch::channel(None);
        let (former, before) = watch::channel(None);
        let (looks, looked) = watch::channel(0);
        let asked = Arc::new(Notify::new());
        let handle = SigningKeys { key: keys, former: before, looks: looked, asked: Arc::clone(&asked) };
        (Self { client, namespace, key, former, looks, asked }, handle)
    }

    /// Runs for ever.
    pub async fn run(self) {
        let mut held: Option<Held> = None;
        let mut others = Others::default();
        let mut changes = pin!(changes::of(&self.client, &self.namespace, names::SIGNING_SECRET));
        let mut told = Told::Nothing;
        loop {
            let pause = match self.look(held.as_ref(), &mut others).await {
                Ok(found) => {
                    if let Some(held) = held.as_ref().filter(|held| held.key != found.key) {
                        self.former.send_replace(Some((held.key.clone(), Instant::now())));
                        tracing::error!(
                            reason = REPLACED,
                            "the Secret holds another signing key; guards signed by the former one wait for `driftguard adopt`"
                        );
                    }
                    self.key.send_if_modified(|key| {
                        let changed = key.as_ref() != Some(&found.key);
                        *key = Some(found.key.clone());
                        changed
                    });
                    held = Some(found);
                    if told == Told::Changed { LOOK_WHEN_TOLD } else { LOOK }
                }
                Err(error @ SigningError::Awaited { .. }) => {
                    tracing::info!(reason = error.reason(), "{error}");
                    AWAIT
                }
                Err(error) => {
                    tracing::warn!(%error, reason = error.reason(), "the signing key could not be looked up; trying again");
                    RETRY
                }
            };
            self.looks.send_modify(|looks| *looks += 1);
            tokio::time::sleep(SHORTEST).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
                Some(now) = changes.next() => told = now,
            }
        }
    }

    /// The key in the Secret. When there is none, that in memory is put there, or else a new one, unless one
    /// of the others may have the former one.
    async fn look(&self, held: Option<&Held>, others: &mut Others) -> Result<Held, SigningError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = |verb| {
            let namespace = self.namespace.clone();
            move |error| SigningError::Api { verb, namespace, error: Box::new(error) }
        };
        if let Some(found) = api.get_opt(names::SIGNING_SECRET).await.map_err(failed("read"))? {
            return self.read(&found);
        }
        let bytes = match held {
            Some(held) => held.bytes,
            None => {
                // Ours is not among them: it is made once guards are known, which waits for the key.
                if others.may_hold_the_key(&self.leases().await?, Instant::now()) {
                    return Err(SigningError::Awaited { namespace: self.namespace.clone() });
                }
                let mut bytes = [0; KEY_LENGTH];
                crypto_provider().secure_random.fill(&mut bytes).map_err(|_| SigningError::Random)?;
                bytes
            }
        };
        match api.create(&PostParams::default(), &secret(&self.namespace, &bytes)).await {
            Ok(made) => {
                if held.is_some() {
                    tracing::warn!("the Secret with the signing key was deleted; it is put back");
                } else {
                    tracing::info!("made a new signing key");
                }
                self.read(&made)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.read(&api.get(names::SIGNING_SECRET).await.map_err(failed("read"))?)
            }
            Err(error) => Err(failed("create")(error)),
        }
    }

    /// The Leases of replicas by name, each with its version.
    async fn leases(&self) -> Result<BTreeMap<String, String>, SigningError> {
        let unknown = |how: String| SigningError::OthersUnknown { namespace: self.namespace.clone(), how };
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(names::LABEL_REPLICA);
        let listed = tokio::time::timeout(REQUEST_TIMEOUT, api.list_metadata(&params))
            .await
            .map_err(|_| unknown("it did not list the leases of the replicas in time".to_owned()))?
            .map_err(|error| unknown(error.to_string()))?;
        let of = |lease: PartialObjectMeta<Lease>| {
            (lease.metadata.name.unwrap_or_default(), lease.metadata.resource_version.unwrap_or_default())
        };
        Ok(listed.items.into_iter().map(of).collect())
    }

    fn read(&self, secret: &Secret) -> Result<Held, SigningError> {
        let unusable = || SigningError::Unusable { namespace: self.namespace.clone() };
        let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).ok_or_else(unusable)?;
        let bytes: [u8; KEY_LENGTH] = bytes.0.as_slice().try_into().map_err(|_| unusable())?;
        let key = SigningKey::new(&bytes).ok_or_else(unusable)?;
        Ok(Held { bytes, key })
    }
}

fn secret(namespace: &str, bytes: &[u8]) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(names::SIGNING_SECRET.into()),
            namespace: Some(namespace.into()),
            labels: Some(BTreeMap::from([
                (names::LABEL_NAME.to_owned(), "driftguard".to_owned()),
                (names::LABEL_COMPONENT.to_owned(), "webhook".to_owned()),
                (names::LABEL_MANAGED_BY.to_owned(), "driftguard".to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(bytes.to_vec()))])),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::Mutex;

    use super::*;
    use crate::cert::test_support::{Server, client};

    async fn look(server: &Arc<Mutex<Server>>, held: Option<&Held>) -> Result<Held, SigningError> {
        let (keeper, _) = SigningKeeper::new(client(server), "terrafusion-system".into());
        keeper.look(held, &mut Others::default()).await
    }

    #[test]
    fn the_key_is_waited_for_while_one_that_may_hold_it_lives_and_not_for_ever() {
        let start = Instant::now();
        let leases = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
        };
        let mut dead = Others::default();
        let mut alive = Others::default();
        for others in [&mut dead, &mut alive] {
            assert!(others.may_hold_the_key(&leases(&[("a", "1"), ("b", "2")]), start));
        }
        let later = start + SILENT;
        assert!(dead.may_hold_the_key(&leases(&[("a", "1"), ("b", "2")]), later - AWAIT));
        assert!(!dead.may_hold_the_key(&leases(&[("a", "1"), ("b", "2"), ("new", "9")]), later));
        assert!(alive.may_hold_the_key(&leases(&[("a", "1"), ("b", "3")]), later - AWAIT));
        assert!(alive.may_hold_the_key(&leases(&[("a", "1"), ("b", "4")]), later));
        assert!(!alive.may_hold_the_key(&leases(&[("b", "9")]), start + PATIENCE), "it has none");
        assert!(!alive.may_hold_the_key(&leases(&[("new", "9")]), later), "those that were there have ended");
        assert!(!Others::default().may_hold_the_key(&leases(&[]), start), "we are the first");
    }

    #[tokio::test(start_paused = true)]
    async fn who_starts_without_a_key_takes_the_one_that_another_replica_puts_back() {
        let lease = ("driftguard-replica-a".to_owned(), "1".to_owned());
        let server = Arc::new(Mutex::new(Server { leases: vec![lease], ..Server::default() }));
        let (keeper, keys) = SigningKeeper::new(client(&server), "terrafusion-system".into());
        let running = tokio::spawn(keeper.run());
        assert!(keys.looked_up_again().await.is_none(), "it is waited for");
        server.lock().unwrap().stored = Some(secret("terrafusion-system", &[7; KEY_LENGTH]));
        assert!(keys.looked_up_again().await == SigningKey::new(&[7; KEY_LENGTH]));
        assert_eq!(server.lock().unwrap().writes, 0);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_dead_replicas_left_behind_keeps_nobody_from_making_a_key() {
        let lease = ("driftguard-replica-a".to_owned(), "1".to_owned());
        let server = Arc::new(Mutex::new(Server { leases: vec![lease], ..Server::default() }));
        let (keeper, keys) = SigningKeeper::new(client(&server), "terrafusion-system".into());
        let running = tokio::spawn(keeper.run());
        let mut key = keys.watch();
        let made = tokio::time::timeout(SILENT * 2, key.wait_for(Option::is_some)).await;
        assert!(made.is_ok_and(|made| made.is_ok()));
        running.abort();
    }

    #[tokio::test]
    async fn all_replicas_get_the_key_that_the_first_one_made() {
        let server = Arc::new(Mutex::new(Server::default()));
        let first = look(&server, None).await.unwrap();
        let second = look(&server, None).await.unwrap();
        assert!(first.key == second.key);
        assert_eq!(server.lock().unwrap().writes, 1);
    }

    #[tokio::test]
    async fn who_loses_the_race_takes_what_the_winner_wrote() {
        let winner = secret("terrafusion-system", &[7; KEY_LENGTH]);
        let server = Arc::new(Mutex::new(Server { wins_the_race: Some(winner), ..Server::default() }));
        assert_eq!(look(&server, None).await.unwrap().bytes, [7; KEY_LENGTH]);
    }

    #[tokio::test]
    async fn a_deleted_secret_comes_back_and_a_lost_key_is_followed_by_another() {
        let server = Arc::new(Mutex::new(Server::default()));
        let before = look(&server, None).await.unwrap();
        server.lock().unwrap().stored = None;
        assert_eq!(look(&server, Some(&before)).await.unwrap().bytes, before.bytes);
        server.lock().unwrap().stored = None;
        assert_ne!(look(&server, None).await.unwrap().bytes, before.bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_key_is_accepted_for_a_while_longer() {
        let server = Arc::new(Mutex::new(Server::default()));
        let (keeper, keys) = SigningKeeper::new(client(&server), "terrafusion-system".into());
        assert!(keys.accepted().is_empty());
        let running = tokio::spawn(keeper.run());
        let first = keys.looked_up_again().await.unwrap();
        assert!(keys.accepted() == [first.clone()]);
        server.lock().unwrap().stored = Some(secret("terrafusion-system", &[7; KEY_LENGTH]));
        let second = keys.looked_up_again().await.unwrap();
        assert!(first != second && keys.accepted() == [second.clone(), first]);
        tokio::time::advance(OVERLAP).await;
        assert!(keys.accepted() == [second]);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_secret_can_be_watched_it_is_read_rarely_and_another_key_is_seen_at_once() {
        let first = secret("terrafusion-system", &[5; KEY_LENGTH]);
        let server = Server { stored: Some(first), watchers: Some(Vec::new()), ..Server::default() };
        let server = Arc::new(Mutex::new(server));
        let (keeper, keys) = SigningKeeper::new(client(&server), "terrafusion-system".into());
        let running = tokio::spawn(keeper.run());
        let mut key = keys.watch();
        key.wait_for(Option::is_some).await.unwrap();
        let reads = || server.lock().unwrap().reads;
        let before = reads();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!((5..=8).contains(&(reads() - before)), "{} reads in an hour", reads() - before);
        server.lock().unwrap().replace(secret("terrafusion-system", &[7; KEY_LENGTH]));
        let second = SigningKey::new(&[7; KEY_LENGTH]);
        tokio::time::timeout(Duration::from_secs(1), key.wait_for(|key| *key == second))
            .await
            .unwrap()
            .unwrap();
        running.abort();
    }

    #[tokio::test]
    async fn a_secret_without_a_key_is_an_error_and_stays() {
        let broken = secret("terrafusion-system", b"hunter2");
        let server = Arc::new(Mutex::new(Server { stored: Some(broken), ..Server::default() }));
        let error = look(&server, None).await.err().unwrap();
        assert_eq!(error.reason(), "SecretUnusable");
        assert!(!error.to_string().contains("hunter2"));
        assert_eq!(server.lock().unwrap().writes, 0);
    }
}
