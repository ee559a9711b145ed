//! A leaf that API servers trust is served at every moment.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its certificates should stop.

use std::sync::Mutex;

use k8s_openapi::ByteString;

use super::*;
use crate::cert::authority::{certificates, to_pem};
use crate::cert::secret::secret;
use crate::cert::test_support::{Server, client};

const NAMESPACE: &str = "terrafusion-system";
/// Longer than the pause between two looks.
const LOOK: Duration = Duration::from_secs(60);

fn authority() -> Authority {
    Authority::generate(Timestamp::now()).unwrap()
}

/// A keeper that runs on an API server of its own.
struct Running {
    server: Arc<Mutex<Server>>,
    resolver: Arc<LeafResolver>,
    trusted: watch::Receiver<Bytes>,
    _configurations: watch::Sender<Arc<Configurations>>,
}

fn keep(server: Server) -> Running {
    let server = Arc::new(Mutex::new(server));
    let resolver = Arc::new(LeafResolver::new());
    let (bundle, trusted) = watch::channel(Bytes::new());
    let (sender, configurations) = watch::channel(Arc::default());
    let keeper = CertificateKeeper {
        client: client(&server),
        namespace: NAMESPACE.into(),
        identity: ServerIdentity::host("localhost").unwrap(),
        lifetimes: Lifetimes::default(),
        resolver: Arc::clone(&resolver),
        bundle,
        configurations,
        metrics: Arc::default(),
    };
    tokio::spawn(keeper.run());
    Running { server, resolver, trusted, _configurations: sender }
}

impl Running {
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
async fn where_the_secret_can_be_watched_it_is_read_rarely_while_nothing_is_under_way() {
    let kept = keep(Server { watchers: Some(Vec::new()), ..Server::default() });
    kept.until(|_| kept.resolver.current().is_some()).await;
    // The clock stands still but for this: nobody waits for it.
    tokio::time::sleep(LOOK * 5).await;
    let reads = || kept.server.lock().unwrap().reads;
    let before = reads();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(reads() - before <= 8, "{} reads in an hour", reads() - before);
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
async fn a_broken_secret_of_ours_is_put_back_and_what_is_served_stays() {
    let kept = keep(Server::default());
    kept.until(|_| kept.resolver.current().is_some()).await;
    let leaf = kept.resolver.current().unwrap();
    let break_it = |server: &mut Server| {
        let data = server.stored.as_mut().unwrap().data.as_mut().unwrap();
        let before = data.clone();
        data.insert("tls.key".into(), ByteString(b"broken".to_vec()));
        before
    };
    let before = break_it(&mut kept.server.lock().unwrap());
    kept.until(|server| server.stored.as_ref().unwrap().data.as_ref() == Some(&before)).await;
    assert!(Arc::ptr_eq(&leaf, &kept.resolver.current().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_broken_secret_of_somebody_else_is_left_alone() {
    let mut foreign = secret(NAMESPACE, &authority(), None, authority().bundle());
    foreign.metadata.labels = None;
    let kept = keep(Server { stored: Some(foreign.clone()), ..Server::default() });
    kept.until(|server| server.reads > 5).await;
    assert!(kept.resolver.current().is_none(), "its bundle lacks the authority that signs");
    assert_eq!(kept.server.lock().unwrap().stored.as_ref(), Some(&foreign));
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_has_ended_is_followed_by_a_new_one() {
    let ended = Authority::generate("2020-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let stored = secret(NAMESPACE, &ended, None, ended.bundle());
    let kept = keep(Server { stored: Some(stored), ..Server::default() });
    kept.until(|_| kept.resolver.current().is_some()).await;
    let leaf = kept.resolver.current().unwrap();
    assert!(leaf.validity().contains(Timestamp::now()));
}

#[tokio::test(start_paused = true)]
async fn another_authority_is_announced_beside_ours_before_it_is_used() {
    let mut kept = keep(Server::default());
    kept.until(|_| kept.resolver.current().is_some()).await;
    let leaf = kept.resolver.current().unwrap();
    let other = authority();
    kept.server.lock().unwrap().stored = Some(secret(NAMESPACE, &other, None, other.bundle()));
    tokio::time::advance(LOOK).await;
    let bundle = kept.trusted.wait_for(|bundle| certificates(bundle).is_ok_and(|all| all.len() == 2));
    let both = certificates(&bundle.await.unwrap()).unwrap();
    assert!(both.contains(other.certificate()));
    assert!(Arc::ptr_eq(&leaf, &kept.resolver.current().unwrap()), "not registered yet");
}
