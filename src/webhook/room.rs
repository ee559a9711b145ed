//! Room for connections: at most so many at once, and whose is taken when somebody else comes.
//!
//! A client that opens all of them and asks nothing would keep API servers out. So when there is no room,
//! a connection without a request in flight gives way: one of the address that holds the most, and of
//! those the one that has been idle longest. What always holds: no connection is closed while a request is
//! in flight on it, or may be about to be. One place is kept free for whoever comes next.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use crate::telemetry::metrics::Metrics;

/// How long after a connection was opened, after its first byte of a request and after its last answer it
/// is left alone: a request may be half read, or an answer half written.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection can give way while none could.
const LOOK: Duration = Duration::from_millis(50);

/// What a connection is doing.
#[derive(Debug, Clone, Copy)]
struct Doing {
    /// Requests that are being answered.
    in_flight: usize,
    /// When it was opened, or the last of its requests ended.
    idle_since: Instant,
    /// When the first byte after that came.
    begun: Option<Instant>,
    /// Whether it has been told to give way.
    leaving: bool,
}

impl Doing {
    /// Whether it may give way at `now`. Bytes that go on trickling in do not keep it.
    fn may_leave(&self, now: Instant) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= GRACE;
        !self.leaving && self.in_flight == 0 && over(self.idle_since) && self.begun.is_none_or(over)
    }
}

/// Which of these connections gives way at `now`; `None` when none may.
fn gives_way<'a>(open: impl Iterator<Item = (u64, IpAddr, &'a Doing)> + Clone, now: Instant) -> Option<u64> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    for (_, peer, _) in open.clone().filter(|(_, _, doing)| !doing.leaving) {
        *held.entry(peer).or_default() += 1;
    }
    // One that may not leave yet is waited for, rather than to take the place of an address that holds few.
    open.filter(|(_, _, doing)| !doing.leaving && doing.in_flight == 0)
        .min_by_key(|(_, peer, doing)| {
            let held = held.get(peer).copied().unwrap_or_default();
            (std::cmp::Reverse(held), !doing.may_leave(now), doing.idle_since)
        })
        .filter(|(_, _, doing)| doing.may_leave(now))
        .map(|(id, _, _)| id)
}

/// All connections that are open.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    seats: Mutex<Seats>,
    left: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Seat>>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Seat {
    peer: IpAddr,
    doing: Mutex<Doing>,
    /// Wakes whoever reads from it.
    reader: AtomicWaker,
    /// Tells whoever finishes its TLS handshake.
    told: Notify,
}

impl Seat {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { most, seats: Mutex::default(), left: Notify::new(), metrics }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are open.
    pub(super) fn taken(&self) -> usize {
        self.seats().taken.len()
    }

    /// Whether a connection can be taken in; when not, one is told to give way. Those that have been told,
    /// but are not closed yet, count, so that there are never more than the most.
    fn make_room(&self) -> bool {
        let seats = self.seats();
        seats.taken.len() < self.most || {
            self.tell_one(&seats);
            false
        }
    }

    /// Returns when a connection can be taken in.
    pub(super) async fn wait(&self) {
        loop {
            let left = self.left.notified();
            if self.make_room() {
                return;
            }
            // What is in flight now may have ended without anybody leaving.
            let _ = tokio::time::timeout(LOOK, left).await;
        }
    }

    /// Tells the connection whose turn it is to give way, unless one has been told already.
    fn tell_one(&self, seats: &Seats) {
        let all: Vec<(u64, IpAddr, Doing)> =
            seats.taken.iter().map(|(id, seat)| (*id, seat.peer, *seat.doing())).collect();
        if all.iter().any(|(_, _, doing)| doing.leaving) {
            return;
        }
        let now = Instant::now();
        let turn = gives_way(all.iter().map(|(id, peer, doing)| (*id, *peer, doing)), now);
        let Some(seat) = turn.and_then(|id| seats.taken.get(&id)) else { return };
        {
            let mut doing = seat.doing();
            // A request may have come since.
            if !doing.may_leave(now) {
                return;
            }
            doing.leaving = true;
        }
        seat.reader.wake();
        seat.told.notify_one();
        self.metrics.connection_closed_for_room();
        tracing::debug!(peer = %seat.peer, "too many connections: one that is idle gives way");
    }

    /// Takes a connection in.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let doing = Doing { in_flight: 0, idle_since: Instant::now(), begun: None, leaving: false };
        let seat = Arc::new(Seat {
            peer: peer.to_canonical(),
            doing: Mutex::new(doing),
            reader: AtomicWaker::new(),
            told: Notify::new(),
        });
        let mut seats = self.seats();
        let id = seats.next;
        seats.next += 1;
        seats.taken.insert(id, Arc::clone(&seat));
        Place { id, seat, room: Arc::clone(self) }
    }
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    seat: Arc<Seat>,
    room: Arc<Room>,
}

impl Place {
    /// Returns when this connection has to give way during its TLS handshake.
    pub(super) async fn told(&self) {
        self.seat.told.notified().await;
    }

    /// Whether this connection has to give way; while it has not, `waker` is woken when it has to.
    pub(super) fn has_to_leave(&self, waker: &std::task::Waker) -> bool {
        self.seat.reader.register(waker);
        self.seat.doing().leaving
    }

    /// Notes that bytes came.
    pub(super) fn read(&self) {
        self.seat.doing().begun.get_or_insert_with(Instant::now);
    }

    /// What requests on it are counted by.
    pub(super) fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.seat))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.seats().taken.remove(&self.id);
        self.room.left.notify_one();
    }
}

/// Counts the requests on one connection.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<Seat>);

impl Requests {
    /// One more, until the result is dropped.
    pub(super) fn begin(&self) -> InFlight {
        let mut doing = self.0.doing();
        doing.in_flight += 1;
        // It was on its way when the connection was told to leave: another one will be told.
        doing.leaving = false;
        drop(doing);
        InFlight(Arc::clone(&self.0))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Seat>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut doing = self.0.doing();
        doing.in_flight = doing.in_flight.saturating_sub(1);
        doing.idle_since = Instant::now();
        doing.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn idle(since: Instant) -> Doing {
        Doing { in_flight: 0, idle_since: since, begun: None, leaving: false }
    }

    fn turn(open: &[(u8, Doing)], now: Instant) -> Option<u64> {
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let all: Vec<_> = (0..).zip(open).map(|(id, (last, doing))| (id, peer(*last), doing)).collect();
        gives_way(all.into_iter(), now)
    }

    #[test]
    fn the_address_that_holds_the_most_gives_way_and_of_those_the_one_that_was_idle_longest() {
        let start = Instant::now();
        let at = |minutes: u32| idle(start + MINUTE * minutes);
        let now = start + MINUTE * 9;
        assert_eq!(turn(&[(1, at(0)), (2, at(3)), (2, at(2)), (2, at(4))], now), Some(2));
        assert_eq!(turn(&[(1, at(5)), (2, at(3))], now), Some(1));
        assert_eq!(turn(&[], now), None);
    }

    #[test]
    fn nobody_gives_way_with_a_request_in_flight() {
        let start = Instant::now();
        let busy = Doing { in_flight: 1, ..idle(start) };
        let now = start + MINUTE;
        assert_eq!(turn(&[(1, busy), (1, busy), (2, idle(start))], now), Some(2));
        assert_eq!(turn(&[(1, busy), (1, busy)], now), None);
    }

    #[test]
    fn what_has_just_begun_or_ended_is_left_alone_and_what_trickles_is_not() {
        let start = Instant::now();
        let now = start + MINUTE;
        let begun = |ago: Duration| Doing { begun: Some(now - ago), ..idle(start) };
        assert_eq!(turn(&[(1, begun(GRACE / 2))], now), None);
        assert_eq!(turn(&[(1, begun(GRACE))], now), Some(0));
        assert_eq!(turn(&[(1, idle(now - GRACE / 2))], now), None);
    }

    #[test]
    fn whoever_comes_again_and_again_pushes_nobody_else_out() {
        let start = Instant::now();
        let now = start + MINUTE;
        assert_eq!(turn(&[(1, idle(start)), (2, idle(now)), (2, idle(now))], now), None);
        assert_eq!(turn(&[(1, idle(start)), (2, idle(now)), (2, idle(now))], now + GRACE), Some(1));
    }

    #[test]
    fn one_that_has_been_told_is_not_told_again() {
        let start = Instant::now();
        let leaving = Doing { leaving: true, ..idle(start) };
        assert_eq!(turn(&[(1, leaving), (2, idle(start))], start + MINUTE), Some(1));
    }
}
