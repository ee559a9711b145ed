//! What waits for one receiver: its bounds, its order, and when the next attempt is due.
//!
//! No file and no clock: time and chance are arguments. Messages go in the order in which they came. One
//! that its receiver cannot take waits by itself and the others pass it, but for those of the same
//! transaction: a resolved notice never overtakes its alert.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::event::{Event, Key};

/// Ids of messages that are done with which are remembered, so that none is taken twice.
const REMEMBERED: usize = 4096;
/// Longest that one message which cannot be delivered holds up the others.
const LONGEST_DETOUR: Duration = Duration::from_secs(10);
/// Longest that a receiver may ask to be left alone: it must not silence alerts for a day.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub events: usize,
    /// Bytes of all of them, as they lie on disk.
    pub bytes: u64,
}

/// What an attempt failed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The receiver: nothing else would get through either.
    Receiver,
    /// Perhaps this message alone: others are tried meanwhile.
    Message,
}

/// One message that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Short name of its id.
    pub key: Key,
    /// Short name of its transaction.
    pub transaction: Key,
    /// Size on disk.
    pub bytes: u64,
    /// The message itself, where it is not on disk.
    pub held: Option<Arc<Event>>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Waiting {
    /// A message of which nothing was tried yet.
    #[must_use]
    pub fn new(key: Key, transaction: Key, bytes: u64, held: Option<Arc<Event>>) -> Self {
        Self { key, transaction, bytes, held, failures: 0, not_before: None }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Deliver the message of this place.
    Deliver(u64),
    /// Nothing before then.
    At(Instant),
    /// Nothing waits.
    Nothing,
}

/// All that waits for one receiver.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    backoff: Backoff,
    waiting: BTreeMap<u64, Waiting>,
    keys: HashSet<Key>,
    done: VecDeque<Key>,
    bytes: u64,
    next_place: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits, backoff: Backoff) -> Self {
        Self {
            limits,
            backoff,
            waiting: BTreeMap::new(),
            keys: HashSet::new(),
            done: VecDeque::new(),
            bytes: 0,
            next_place: 1,
            failures: 0,
            not_before: None,
        }
    }

    /// How many messages wait, and their bytes.
    #[must_use]
    pub fn depth(&self) -> (usize, u64) {
        (self.waiting.len(), self.bytes)
    }

    /// How full it is, from 0 to 1.
    #[must_use]
    pub fn fill(&self) -> f64 {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        // Far below 2^52, where an f64 would be inexact.
        let events = share(self.waiting.len() as f64, self.limits.events as f64);
        events.max(share(self.bytes as f64, self.limits.bytes as f64))
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// A place behind all others for a new message; `None` when one of this key waits or was done with
    /// not long ago.
    pub fn place(&mut self, key: Key) -> Option<u64> {
        if self.keys.contains(&key) {
            return None;
        }
        let place = self.next_place;
        self.next_place += 1;
        Some(place)
    }

    /// Takes a message, and gives back the oldest ones that have to go for it.
    pub fn insert(&mut self, place: u64, message: Waiting) -> Vec<(u64, Waiting)> {
        self.next_place = self.next_place.max(place + 1);
        self.keys.insert(message.key);
        self.bytes += message.bytes;
        if let Some(replaced) = self.waiting.insert(place, message) {
            self.bytes -= replaced.bytes;
        }
        let mut dropped = Vec::new();
        while self.waiting.len() > self.limits.events.max(1) || self.bytes > self.limits.bytes {
            let Some((place, oldest)) = self.waiting.pop_first() else { break };
            self.bytes -= oldest.bytes;
            self.keys.remove(&oldest.key);
            dropped.push((place, oldest));
        }
        dropped
    }

    /// The message of a place; `None` when it has been dropped meanwhile.
    #[must_use]
    pub fn message(&self, place: u64) -> Option<&Waiting> {
        self.waiting.get(&place)
    }

    /// What to do at `now`.
    #[must_use]
    pub fn next(&self, now: Instant) -> Next {
        if self.waiting.is_empty() {
            return Next::Nothing;
        }
        if let Some(then) = self.not_before.filter(|then| *then > now) {
            return Next::At(then);
        }
        let mut held_up = HashSet::new();
        let mut earliest: Option<Instant> = None;
        let mut again: Option<(u32, u64)> = None;
        for (place, message) in &self.waiting {
            if held_up.contains(&message.transaction) {
                continue;
            }
            match message.not_before {
                None => return Next::Deliver(*place),
                Some(then) => {
                    held_up.insert(message.transaction);
                    if then > now {
                        earliest = Some(earliest.map_or(then, |before| before.min(then)));
                    } else {
                        // Those that did not fail by themselves go first, and then who did so least.
                        let tried = (message.failures, *place);
                        again = Some(again.map_or(tried, |before| before.min(tried)));
                    }
                }
            }
        }
        match (again, earliest) {
            (Some((_, place)), _) => Next::Deliver(place),
            (None, Some(then)) => Next::At(then),
            (None, None) => Next::Nothing,
        }
    }

    /// Takes away a message that arrived.
    pub fn delivered(&mut self, place: u64) -> Option<Waiting> {
        self.failures = 0;
        self.not_before = None;
        self.remove(place)
    }

    /// Takes away a message that will never be taken. Its receiver works, so that others go on.
    pub fn refused(&mut self, place: u64) -> Option<Waiting> {
        self.delivered(place)
    }

    /// Takes away a message that cannot be read any more.
    pub fn lost(&mut self, place: u64) -> Option<Waiting> {
        let message = self.remove(place)?;
        // What was never delivered may come again.
        self.done.pop_back();
        self.keys.remove(&message.key);
        Some(message)
    }

    /// Notes that an attempt failed at `now`; `asked` is how long the receiver asked to be left alone.
    /// Returns the pause until anything is tried again.
    pub fn failed(
        &mut self,
        place: u64,
        fault: Fault,
        asked: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let mut pause = self.backoff.pause(self.failures, chance);
        if fault == Fault::Message
            && let Some(message) = self.waiting.get_mut(&place)
        {
            message.failures = message.failures.saturating_add(1);
            message.not_before = Some(now + self.backoff.pause(message.failures, chance));
            pause = pause.min(LONGEST_DETOUR);
        }
        if let Some(asked) = asked {
            pause = pause.max(asked.min(LONGEST_ASKED));
        }
        self.not_before = Some(now + pause);
        pause
    }

    fn remove(&mut self, place: u64) -> Option<Waiting> {
        let message = self.waiting.remove(&place)?;
        self.bytes -= message.bytes;
        self.done.push_back(message.key);
        if self.done.len() > REMEMBERED
            && let Some(forgotten) = self.done.pop_front()
        {
            self.keys.remove(&forgotten);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::super::event::key;
    use super::*;

    const LIMITS: Limits = Limits { events: 10, bytes: 1000 };

    fn queue() -> Queue {
        Queue::new(LIMITS, Backoff::default())
    }

    fn put(queue: &mut Queue, id: &str, transaction: &str, bytes: u64) -> Option<Vec<u64>> {
        let place = queue.place(key(id))?;
        let dropped = queue.insert(place, Waiting::new(key(id), key(transaction), bytes, None));
        Some(dropped.into_iter().map(|(place, _)| place).collect())
    }

    #[test]
    fn messages_go_in_the_order_in_which_they_came() {
        let (mut queue, now) = (queue(), Instant::now());
        for id in ["a", "b"] {
            put(&mut queue, id, id, 10).unwrap();
        }
        assert_eq!(queue.next(now), Next::Deliver(1));
        queue.delivered(1);
        assert_eq!(queue.next(now), Next::Deliver(2));
        queue.delivered(2);
        assert_eq!((queue.next(now), queue.depth()), (Next::Nothing, (0, 0)));
    }

    #[test]
    fn an_id_is_taken_once_while_it_waits_and_after_it_was_delivered() {
        let mut queue = queue();
        assert!(put(&mut queue, "a", "a", 10).is_some());
        assert!(put(&mut queue, "a", "a", 10).is_none());
        queue.delivered(1);
        assert!(put(&mut queue, "a", "a", 10).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut queue = queue();
        for number in 0..REMEMBERED + 100 {
            put(&mut queue, &number.to_string(), "t", 1).unwrap();
            queue.delivered(u64::try_from(number + 1).unwrap());
        }
        assert_eq!((queue.done.len(), queue.keys.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_large_ones() {
        let mut queue = queue();
        for number in 0..10 {
            assert!(put(&mut queue, &number.to_string(), "t", 10).unwrap().is_empty());
        }
        assert!((queue.fill() - 1.0).abs() < 1e-9);
        assert_eq!(put(&mut queue, "one more", "t", 10).unwrap(), [1]);
        assert_eq!(put(&mut queue, "large", "t", 950).unwrap(), [2, 3, 4, 5, 6]);
        assert_eq!(queue.depth(), (6, 1000));
        // What was dropped was never delivered, so that it may come again.
        assert!(put(&mut queue, "0", "t", 1).is_some());
    }

    #[test]
    fn a_receiver_that_is_down_is_left_alone_for_longer_each_time() {
        let (mut queue, mut now) = (queue(), Instant::now());
        put(&mut queue, "a", "a", 10).unwrap();
        for seconds in [1, 2, 4, 8] {
            queue.failed(1, Fault::Receiver, None, now, 1.0);
            let then = now + Duration::from_secs(seconds);
            assert_eq!(queue.next(now), Next::At(then));
            now = then;
            assert_eq!(queue.next(now), Next::Deliver(1), "the same first, so that order is kept");
        }
        assert!(queue.is_failing());
        queue.delivered(1);
        assert!(!queue.is_failing());
    }

    #[test]
    fn a_receiver_is_left_alone_as_long_as_it_asks_within_reason() {
        let (mut queue, now) = (queue(), Instant::now());
        put(&mut queue, "a", "a", 10).unwrap();
        let asked = Duration::from_secs(120);
        queue.failed(1, Fault::Receiver, Some(asked), now, 1.0);
        assert_eq!(queue.next(now), Next::At(now + asked));
        queue.failed(1, Fault::Receiver, Some(Duration::from_secs(1_000_000)), now, 1.0);
        assert_eq!(queue.next(now), Next::At(now + LONGEST_ASKED));
        // Less than our own pause is no reason to hurry.
        queue.failed(1, Fault::Receiver, Some(Duration::ZERO), now, 1.0);
        assert_eq!(queue.next(now), Next::At(now + Duration::from_secs(4)));
    }

    #[test]
    fn others_pass_a_message_that_its_receiver_cannot_take_but_not_its_own_resolved_notice() {
        let (mut queue, now) = (queue(), Instant::now());
        put(&mut queue, "a-firing", "a", 10).unwrap();
        put(&mut queue, "a-resolved", "a", 10).unwrap();
        put(&mut queue, "b-firing", "b", 10).unwrap();
        queue.failed(1, Fault::Message, None, now, 1.0);
        let second = now + Duration::from_secs(1);
        assert_eq!(queue.next(now), Next::At(second));
        queue.failed(1, Fault::Message, None, second, 1.0);
        let third = second + Duration::from_secs(2);
        queue.delivered(99);
        assert_eq!(queue.next(second), Next::Deliver(3), "b passes a");
        queue.delivered(3);
        assert_eq!(queue.next(second), Next::At(third), "the notice waits behind its alert");
        assert_eq!(queue.next(third), Next::Deliver(1));
        queue.delivered(1);
        assert_eq!(queue.next(third), Next::Deliver(2));
    }

    #[test]
    fn a_message_that_failed_by_itself_is_tried_again_after_the_others() {
        let (mut queue, now) = (queue(), Instant::now());
        for id in ["a", "b", "c"] {
            put(&mut queue, id, id, 10).unwrap();
        }
        queue.failed(1, Fault::Message, None, now, 1.0);
        let second = now + Duration::from_secs(1);
        assert_eq!(queue.next(second), Next::Deliver(2), "both are due");
        queue.failed(2, Fault::Message, None, second, 1.0);
        let later = second + Duration::from_secs(10);
        assert_eq!(queue.next(later), Next::Deliver(3));
        queue.failed(1, Fault::Message, None, later, 1.0);
        queue.delivered(3);
        let last = later + Duration::from_secs(10);
        assert_eq!(queue.next(last), Next::Deliver(2), "it failed less often");
        queue.delivered(2);
        assert_eq!(queue.next(last), Next::Deliver(1));
    }

    #[test]
    fn one_message_holds_up_the_others_for_seconds_only() {
        let (mut queue, now) = (queue(), Instant::now());
        put(&mut queue, "poison", "a", 10).unwrap();
        for _ in 0..20 {
            queue.failed(1, Fault::Message, None, now, 1.0);
        }
        put(&mut queue, "b", "b", 10).unwrap();
        assert_eq!(queue.next(now), Next::At(now + LONGEST_DETOUR));
        assert_eq!(queue.next(now + LONGEST_DETOUR), Next::Deliver(2));
    }
}
