//! Who shares which look.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without a look should stop.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::*;
use crate::core::index::Index;
use crate::core::verdict::{Question, Unguarded};
use crate::store::LiveReadError;
use crate::webhook::test_support::{guard, soon};

/// A look that has begun, which ends as the test says.
struct Begun {
    guard: GuardId,
    end: oneshot::Sender<Look>,
}

/// Guards whose looks the test ends. One that is given up panics.
struct Scripted {
    begun: mpsc::UnboundedSender<Begun>,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl Guards for Scripted {
    fn index(&self) -> Arc<Index> {
        Arc::default()
    }

    fn read<'a>(&'a self, _: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>> {
        Box::pin(std::future::pending())
    }

    fn look<'a>(&'a self, guard: &'a GuardId) -> BoxFuture<'a, Result<Look, LiveReadError>> {
        Box::pin(async move {
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(at_once, Ordering::SeqCst);
            let (end, ended) = oneshot::channel();
            self.begun.send(Begun { guard: guard.clone(), end }).unwrap();
            let look = ended.await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(look.unwrap())
        })
    }

    fn read_object<'a>(&'a self, _: &'a Question) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>> {
        Box::pin(std::future::pending())
    }
}

fn scripted() -> (Arc<Looks>, Arc<Scripted>, mpsc::UnboundedReceiver<Begun>) {
    let (begun, looks) = mpsc::unbounded_channel();
    let guards = Arc::new(Scripted { begun, at_once: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    (Looks::new(Arc::<Scripted>::clone(&guards), Arc::default()), guards, looks)
}

fn named(name: &str) -> GuardId {
    GuardId { namespace: "n".into(), name: name.into() }
}

async fn found(look: oneshot::Receiver<Look>) -> bool {
    match soon(look).await.unwrap() {
        Look::Stands(_) => true,
        Look::Gone => false,
        Look::Unread => panic!("unread"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_counts_for_nobody_who_came_after_it_had_begun() {
    let (looks, _, mut begun) = scripted();
    let before = looks.next_at(&named("a"));
    let first = soon(begun.recv()).await.unwrap();
    let after = looks.next_at(&named("a"));
    let later = looks.next_at(&named("a"));
    first.end.send(Look::Gone).unwrap();
    assert!(!found(before).await);
    let second = soon(begun.recv()).await.unwrap();
    second.end.send(Look::Stands(guard())).unwrap();
    assert!(found(after).await && found(later).await, "they share the next one");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_writes_costs_one_look_at_a_time_and_few_in_all() {
    let (looks, guards, mut begun) = scripted();
    let mut waiting = vec![looks.next_at(&named("a"))];
    let started = tokio::time::Instant::now();
    let mut count: u32 = 0;
    for _ in 0..100 {
        let one = soon(begun.recv()).await.unwrap();
        count += 1;
        waiting.extend((0..100).map(|_| looks.next_at(&named("a"))));
        one.end.send(Look::Gone).unwrap();
    }
    let last = soon(begun.recv()).await.unwrap();
    last.end.send(Look::Gone).unwrap();
    for one in waiting {
        assert!(!found(one).await);
    }
    assert_eq!(guards.most.load(Ordering::SeqCst), 1);
    assert!(started.elapsed() >= REST * count, "{:?} for {count}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn guards_are_looked_at_side_by_side_up_to_a_bound() {
    let (looks, guards, mut begun) = scripted();
    let names: Vec<GuardId> = (0..AT_ONCE + 5).map(|number| named(&number.to_string())).collect();
    let waiting: Vec<_> = names.iter().map(|name| looks.next_at(name)).collect();
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        open.push(soon(begun.recv()).await.unwrap());
    }
    assert!(begun.try_recv().is_err());
    for one in open {
        one.end.send(Look::Gone).unwrap();
    }
    for _ in 0..5 {
        let one = soon(begun.recv()).await.unwrap();
        assert!(names.contains(&one.guard));
        one.end.send(Look::Gone).unwrap();
    }
    for one in waiting {
        assert!(!found(one).await);
    }
    assert_eq!(guards.most.load(Ordering::SeqCst), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_does_not_end_tells_nothing_in_time_and_the_next_one_is_another() {
    let (looks, _, mut begun) = scripted();
    let started = tokio::time::Instant::now();
    let waiting = looks.next_at(&named("a"));
    let hangs = soon(begun.recv()).await.unwrap();
    assert!(matches!(soon(waiting).await.unwrap(), Look::Unread));
    assert!(started.elapsed() <= LIMIT + REST, "{:?}", started.elapsed());
    let next = looks.next_at(&named("a"));
    soon(begun.recv()).await.unwrap().end.send(Look::Gone).unwrap();
    assert!(!found(next).await);
    drop(hangs);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_panics_tells_nothing_and_holds_up_nobody() {
    let (looks, _, mut begun) = scripted();
    let waiting = looks.next_at(&named("a"));
    drop(soon(begun.recv()).await.unwrap());
    assert!(matches!(soon(waiting).await.unwrap(), Look::Unread));
    let next = looks.next_at(&named("a"));
    soon(begun.recv()).await.unwrap().end.send(Look::Gone).unwrap();
    assert!(!found(next).await);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_looked_at_for_whom_nobody_waits_and_nothing_is_kept() {
    let (looks, _, mut begun) = scripted();
    let first = looks.next_at(&named("a"));
    let one = soon(begun.recv()).await.unwrap();
    // Its time is up before its look could begin.
    drop(looks.next_at(&named("a")));
    one.end.send(Look::Gone).unwrap();
    assert!(!found(first).await);
    soon(async {
        while !looks.next().is_empty() {
            tokio::time::sleep(REST).await;
        }
    })
    .await;
    assert!(begun.try_recv().is_err(), "nobody waited");
}
