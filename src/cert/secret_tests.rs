//! Of two writers the first wins, and nobody else's Secret is touched.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its certificates should stop.

use std::sync::{Arc, Mutex};

use super::*;
use crate::cert::test_support::{Server, client};

const NAMESPACE: &str = "terrafusion-system";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    Authority::generate(now()).unwrap()
}

fn stored(authority: &Authority) -> Secret {
    secret(NAMESPACE, authority, None, authority.bundle())
}

fn share(server: &Arc<Mutex<Server>>) -> SharedSecret {
    SharedSecret::new(client(server), NAMESPACE)
}

async fn held(shared: &SharedSecret) -> Held {
    match shared.read().await.unwrap() {
        Some(Found::Held(held)) => *held,
        other => panic!("{other:?}"),
    }
}

async fn problem(secret: Secret) -> SecretError {
    let server = Arc::new(Mutex::new(Server { stored: Some(secret), ..Server::default() }));
    match share(&server).read().await.unwrap() {
        Some(Found::Unusable { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_loses_the_race_takes_what_the_winner_wrote() {
    let winner = authority();
    let server = Arc::new(Mutex::new(Server { wins_the_race: Some(stored(&winner)), ..Server::default() }));
    let shared = share(&server);
    shared.create(&authority(), None).await.unwrap();
    assert_eq!(held(&shared).await.current.certificate(), winner.certificate());
    assert_eq!(server.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn of_two_successors_the_first_wins() {
    let server = Arc::new(Mutex::new(Server::default()));
    let shared = share(&server);
    shared.create(&authority(), None).await.unwrap();
    let (one, other) = (held(&shared).await, held(&shared).await);
    let (first, second) = (authority(), authority());
    shared.announce(&one, &first, now()).await.unwrap();
    shared.announce(&other, &second, now()).await.unwrap();
    let after = held(&shared).await;
    assert_eq!(after.next.as_ref().unwrap().certificate(), first.certificate());
    assert_eq!(after.bundle().len(), 2);
    shared.promote(&after, now()).await.unwrap();
    let promoted = held(&shared).await;
    assert_eq!(promoted.current.certificate(), first.certificate());
    assert!(promoted.next.is_none());
    assert_eq!(promoted.bundle(), after.bundle(), "leaves of the former one live on");
}

#[tokio::test]
async fn an_authority_leaves_the_bundle_when_it_has_ended() {
    let server = Arc::new(Mutex::new(Server::default()));
    let shared = share(&server);
    shared.create(&authority(), None).await.unwrap();
    let later = "2027-06-01T00:00:00Z".parse().unwrap();
    let next = Authority::generate("2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
    shared.announce(&held(&shared).await, &next, now()).await.unwrap();
    shared.promote(&held(&shared).await, later).await.unwrap();
    assert_eq!(held(&shared).await.bundle(), [next.certificate().clone()]);
}

#[tokio::test]
async fn a_broken_secret_is_one_clear_error_that_repeats_nothing_of_it() {
    let mut broken = stored(&authority());
    broken.data.as_mut().unwrap().insert(KEY.into(), ByteString(b"hunter2".to_vec()));
    let error = problem(broken).await;
    assert_eq!(
        error.to_string(),
        "the Secret terrafusion-system/driftguard-ca holds no usable certificate authority: the \
         private key is no PKCS #8 key in PEM; mend it, or delete it so that a new one is made"
    );
    assert_eq!(error.reason(), "KeyUnreadable");
}

#[tokio::test]
async fn a_secret_without_a_key_says_which() {
    let mut incomplete = stored(&authority());
    incomplete.data.as_mut().unwrap().remove(CERTIFICATE);
    assert!(matches!(problem(incomplete).await, SecretError::Missing { key: CERTIFICATE, .. }));
}

#[tokio::test]
async fn a_broken_successor_is_none() {
    let server = Arc::new(Mutex::new(Server::default()));
    let shared = share(&server);
    shared.create(&authority(), Some(&authority())).await.unwrap();
    assert!(held(&shared).await.next.is_some());
    let broken = |server: &mut Server| {
        let data = server.stored.as_mut().unwrap().data.as_mut().unwrap();
        data.insert(NEXT_KEY.into(), ByteString(b"hunter2".to_vec()));
    };
    broken(&mut server.lock().unwrap());
    assert!(held(&shared).await.next.is_none());
}
