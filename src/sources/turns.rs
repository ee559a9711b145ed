//! Who may work now: so many at once, and for one namespace no more than a share of them, so that servers
//! which never answer hold up nobody of another namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::text::Text;

/// Places to work, shared fairly between namespaces.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// Most places for one namespace.
    each: usize,
    /// Of the namespaces for which somebody works or waits.
    namespaces: Mutex<HashMap<Text, Arc<Semaphore>>>,
    /// Of the servers that somebody asks or waits to ask, by [`Self::turn_at`].
    servers: Mutex<HashMap<Text, Arc<Semaphore>>>,
}

/// Most places for one server: where each namespace that it keeps waiting took another one, few were enough for all.
/// More than one, for many installations have one server for everything, and one large repository of it is not to hold
/// up all others.
const FOR_A_SERVER: usize = 2;

/// A place to work, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _of_server: Option<OwnedSemaphorePermit>,
    _of_namespace: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// `all` places, at most `each` of them for one namespace.
    pub(crate) fn new(all: usize, each: usize) -> Self {
        let (namespaces, servers) = Default::default();
        Self { all: Arc::new(Semaphore::new(all)), each, namespaces, servers }
    }

    /// Waits for a place.
    pub(crate) async fn turn(&self, namespace: &Text) -> Turn {
        let own = self.namespace(namespace);
        // None is ever closed. Its namespace's first: who waits for that takes nobody's place.
        let of_namespace = own.acquire_owned().await.ok();
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _of_server: None, _of_namespace: of_namespace, _of_all: of_all }
    }

    /// Waits for a place to ask a server, which few ask at once.
    pub(crate) async fn turn_at(&self, namespace: &Text, server: &Text) -> Turn {
        let own = self.namespace(namespace);
        let of_namespace = own.acquire_owned().await.ok();
        // Behind the namespace's: else who waits for that would keep others from the server.
        let of_server = place(&self.servers, server, FOR_A_SERVER).acquire_owned().await.ok();
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _of_server: of_server, _of_namespace: of_namespace, _of_all: of_all }
    }

    /// A place, if one is free.
    pub(crate) fn turn_now(&self, namespace: &Text) -> Option<Turn> {
        let of_namespace = self.namespace(namespace).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Turn { _of_server: None, _of_namespace: Some(of_namespace), _of_all: Some(of_all) })
    }

    fn namespace(&self, namespace: &Text) -> Arc<Semaphore> {
        place(&self.namespaces, namespace, self.each)
    }
}

/// The places of one name, of which there are `each`.
fn place(known: &Mutex<HashMap<Text, Arc<Semaphore>>>, name: &Text, each: usize) -> Arc<Semaphore> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever works or waits there holds it too.
    known.retain(|other, places| other == name || Arc::strong_count(places) > 1);
    Arc::clone(known.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(each))))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn now(turns: &Turns, namespace: &str) -> Option<Turn> {
        turns.turn(&namespace.into()).now_or_never()
    }

    #[test]
    fn a_namespace_whose_work_never_ends_leaves_places_for_others() {
        let turns = Turns::new(3, 2);
        let hanging = [now(&turns, "slow"), now(&turns, "slow")];
        assert!(hanging.iter().all(Option::is_some));
        assert!(now(&turns, "slow").is_none(), "it has its share");
        let other = now(&turns, "other");
        assert!(other.is_some());
        assert!(now(&turns, "third").is_none(), "there are no more");
        drop(other);
        assert!(now(&turns, "third").is_some());
    }

    #[test]
    fn a_server_that_keeps_several_namespaces_waiting_leaves_places_for_other_servers() {
        let turns = Turns::new(3, 1);
        let at =
            |namespace: &str, server: &str| turns.turn_at(&namespace.into(), &server.into()).now_or_never();
        let hanging = at("a", "slow");
        assert!(hanging.is_some());
        assert!(at("a", "slow").is_none(), "the namespace has its share");
        let another = at("b", "slow");
        assert!(another.is_some(), "one repository that takes long holds up no other namespace");
        assert!(at("c", "slow").is_none(), "the server has its places");
        let other = at("c", "quick");
        assert!(other.is_some());
        drop(hanging);
        assert!(at("a", "slow").is_some());
    }

    #[test]
    fn who_cannot_wait_gets_a_place_only_where_one_is_free() {
        let turns = Turns::new(2, 1);
        let working = turns.turn_now(&"a".into());
        assert!(working.is_some());
        assert!(turns.turn_now(&"a".into()).is_none(), "it has its share");
        let other = turns.turn_now(&"b".into());
        assert!(other.is_some());
        assert!(turns.turn_now(&"c".into()).is_none(), "there are no more");
        drop(working);
        assert!(turns.turn_now(&"c".into()).is_some());
    }

    #[test]
    fn of_namespaces_for_which_nobody_works_nothing_is_kept() {
        let turns = Turns::new(3, 2);
        let working = now(&turns, "a");
        for namespace in ["b", "c", "d"] {
            drop(now(&turns, namespace));
        }
        drop(now(&turns, "e"));
        let kept = || turns.namespaces.lock().unwrap_or_else(PoisonError::into_inner).len();
        assert_eq!(kept(), 2, "the one that works, and the last");
        drop(working);
    }
}
