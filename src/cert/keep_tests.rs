//! A leaf that API servers trust is served at every moment.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its certificates should stop.

use std::sync::Mutex;

use k8s_openapi::ByteString;

use super::*;
use crate::cert::secret::secret;
use crate::cert::test_support::{Server, client};

const NAMESPACE: &str = "terrafusion-system";

fn authority() -> Authority {
    Authority::generate(Timestamp::now()).unwrap()
}

fn serving(authority: &Authority) -> Serving {
    let key = authority.key_pem();
    let certificate = authority.certificate_pem();
    let now = Timestamp::now();
    let authority = Authority::from_pem(certificate.as_bytes(), key.as_bytes(), None, now).unwrap();
    let leaf = authority.validity().leaf(now).unwrap();
    Serving { authority, leaf, former: None }
}

fn only(authorities: &[&Authority]) -> Trusted {
    Trusted::Only(authorities.iter().map(|authority| authority.certificate().clone()).collect())
}

#[test]
fn another_authority_is_taken_only_once_it_is_trusted() {
    let (ours, other) = (authority(), authority());
    let serving = serving(&ours);
    let next = |trusted: &Trusted| next_move(Some(&serving), &other, trusted, Timestamp::now());
    assert_eq!(next(&Trusted::Unknown), Move::Announce);
    assert_eq!(next(&only(&[&ours])), Move::Announce);
    assert_eq!(next(&only(&[&ours, &other])), Move::Take);
    assert_eq!(next(&Trusted::Nothing), Move::Take, "nobody calls us");
    assert_eq!(next(&only(&[&authority()])), Move::Take, "nobody trusts ours");
}

#[test]
fn a_leaf_is_renewed_when_it_is_due_and_not_before() {
    let ours = authority();
    let serving = serving(&ours);
    let next = |now| next_move(Some(&serving), &ours, &Trusted::Unknown, now);
    assert_eq!(next(Timestamp::now()), Move::Stay);
    assert_eq!(next(serving.leaf.renewal_due()), Move::Take);
    assert_eq!(next_move(None, &ours, &Trusted::Unknown, Timestamp::now()), Move::Take);
}

#[test]
fn an_authority_that_gave_way_is_trusted_for_a_while() {
    let (ours, other) = (authority(), authority());
    let now = Timestamp::now();
    let former = serving(&ours).succeeded_by(&other, now);
    let serving = Serving { former, ..serving(&other) };
    assert_eq!(serving.to_be_trusted(now).count(), 2);
    assert_eq!(serving.to_be_trusted(now.checked_add(OVERLAP).unwrap()).count(), 1);
    let renewed = serving.succeeded_by(&other, now);
    assert!(renewed.is_some(), "a renewal does not end the overlap");
}

/// A keeper that runs on an API server of its own.
struct Kept {
    server: Arc<Mutex<Server>>,
    resolver: Arc<LeafResolver>,
    trusted: watch::Receiver<Bytes>,
    _configurations: watch::Sender<Arc<Configurations>>,
}

fn keep(server: Server) -> Kept {
    let server = Arc::new(Mutex::new(server));
    let resolver = Arc::new(LeafResolver::new());
    let (bundle, trusted) = watch::channel(Bytes::new());
    let (sender, configurations) = watch::channel(Arc::default());
    let keeper = CertificateKeeper {
        client: client(&server),
        namespace: NAMESPACE.into(),
        identity: ServerIdentity::host("localhost").unwrap(),
        resolver: Arc::clone(&resolver),
        bundle,
        configurations,
        metrics: Arc::default(),
    };
    tokio::spawn(keeper.run());
    Kept { server, resolver, trusted, _configurations: sender }
}

impl Kept {
    /// Lets the keeper look again, and waits until `condition` holds.
    async fn until(&self, mut condition: impl FnMut(&Server) -> bool) {
        for _ in 0..1000 {
            if condition(&self.server.lock().unwrap()) {
                return;
            }
            tokio::time::advance(LOOK).await;
            tokio::task::yield_now().await;
        }
        panic!("it never happened");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_look_serves_a_leaf_and_tells_whom_to_trust() {
    let mut kept = keep(Server::default());
    let bundle = kept.trusted.wait_for(|bundle| !bundle.is_empty()).await.unwrap().clone();
    kept.until(|_| kept.resolver.current().is_some()).await;
    let authorities = certificates(&bundle).unwrap();
    assert_eq!(authorities.len(), 1);
    let stored = kept.server.lock().unwrap().stored.clone().unwrap();
    assert_eq!(stored.data.unwrap()["ca.crt"].0, to_pem(&authorities).into_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_secret_is_put_back_and_nothing_else_changes() {
    let kept = keep(Server::default());
    kept.until(|server| server.stored.is_some() && kept.resolver.current().is_some()).await;
    let before = kept.server.lock().unwrap().stored.take().unwrap();
    let leaf = kept.resolver.current().unwrap();
    kept.until(|server| server.stored.is_some()).await;
    assert_eq!(kept.server.lock().unwrap().stored.as_ref().unwrap().data, before.data);
    assert!(Arc::ptr_eq(&leaf, &kept.resolver.current().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_broken_secret_does_not_stop_what_is_served() {
    let kept = keep(Server::default());
    kept.until(|_| kept.resolver.current().is_some()).await;
    let broken = |server: &mut Server| {
        let data = server.stored.as_mut().unwrap().data.as_mut().unwrap();
        data.insert("tls.key".into(), ByteString(b"broken".to_vec()));
    };
    broken(&mut kept.server.lock().unwrap());
    let reads = kept.server.lock().unwrap().reads;
    kept.until(|server| server.reads > reads + 3).await;
    assert!(kept.resolver.current().is_some());
    assert_eq!(kept.server.lock().unwrap().writes, 1);
}

#[tokio::test(start_paused = true)]
async fn another_authority_is_announced_beside_ours_before_it_is_used() {
    let mut kept = keep(Server::default());
    kept.until(|_| kept.resolver.current().is_some()).await;
    let leaf = kept.resolver.current().unwrap();
    let other = authority();
    kept.server.lock().unwrap().stored = Some(secret(NAMESPACE, &other));
    tokio::time::advance(LOOK).await;
    let bundle = kept.trusted.wait_for(|bundle| certificates(bundle).is_ok_and(|all| all.len() == 2));
    let both = certificates(&bundle.await.unwrap()).unwrap();
    assert!(both.contains(other.certificate()));
    assert!(Arc::ptr_eq(&leaf, &kept.resolver.current().unwrap()), "not registered yet");
}
