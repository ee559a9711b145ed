//! Years of rotation, with several replicas whose clocks differ, that restart and lag behind: every
//! leaf that is served verifies against what is registered, at every moment.
#![allow(clippy::unwrap_used, clippy::panic)] // A simulation that cannot go on should stop.

use super::*;

/// One authority; its number is its name.
type Id = usize;

struct Replica {
    skew: SignedDuration,
    sight: Sight<Id>,
    served: Option<Served<Id>>,
    next_known: Option<Id>,
}

#[derive(Clone)]
struct Secret {
    current: Id,
    next: Option<Id>,
    bundle: Vec<Id>,
}

struct World {
    now: Timestamp,
    lifetimes: Lifetimes,
    made: Vec<Validity>,
    secret: Option<Secret>,
    registered: Option<Vec<Id>>,
    replicas: Vec<Replica>,
    random: u64,
    rotations: usize,
}

impl World {
    fn new(skews: &[i64], seed: u64) -> Self {
        let lifetimes = Lifetimes::default();
        let replica = |skew: &i64| Replica {
            skew: SignedDuration::from_secs(*skew),
            sight: Sight::new(lifetimes),
            served: None,
            next_known: None,
        };
        Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            lifetimes,
            made: Vec::new(),
            secret: None,
            registered: None,
            replicas: skews.iter().map(replica).collect(),
            random: seed,
            rotations: 0,
        }
    }

    /// The next of a fixed sequence of numbers below `below`.
    fn roll(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn make(&mut self, now: Timestamp) -> Id {
        self.made.push(Validity::starting(now, self.lifetimes.authority));
        self.made.len() - 1
    }

    /// One look of one replica.
    fn look(&mut self, which: usize) {
        let now = shift(self.now, self.replicas[which].skew);
        let secret = match self.secret.clone() {
            Some(secret) => secret,
            None => {
                let served = self.replicas[which].served.as_ref().map(|served| served.authority);
                let current = served.filter(|id| !self.made[*id].has_ended(now));
                let current = current.unwrap_or_else(|| self.make(now));
                let next = self.replicas[which].next_known.filter(|next| *next != current);
                let bundle = std::iter::once(current).chain(next).collect();
                let secret = Secret { current, next, bundle };
                self.secret = Some(secret.clone());
                secret
            }
        };
        let trust = self.registered.clone().map_or(Trust::Nobody, Trust::Only);
        let (current, next) = (self.made[secret.current], secret.next.map(|next| self.made[next]));
        let replica = &mut self.replicas[which];
        replica.sight.registered(trust, now);
        replica.sight.present(secret.bundle.iter().copied(), now);
        replica.next_known = secret.next;
        let due = replica.sight.due(current, secret.next.as_ref().zip(next), now);
        let step = replica.sight.step(replica.served.as_ref(), &secret.current, current, now);
        self.write(due, &secret, now);
        let replica = &mut self.replicas[which];
        let authority = match step {
            Step::Stay => None,
            Step::Renew => replica.served.as_ref().map(|served| served.authority),
            Step::Follow => Some(secret.current),
        };
        if let Some(authority) = authority
            && let Some(leaf) = self.made[authority].leaf(now, self.lifetimes.leaf)
        {
            replica.served = Some(Served { authority, authority_validity: self.made[authority], leaf });
        }
        let served = replica.served.as_ref().map(|served| served.authority);
        replica.sight.present(served, now);
    }

    fn write(&mut self, due: Due, secret: &Secret, now: Timestamp) {
        let mut bundle: Vec<Id> = secret.bundle.clone();
        bundle.retain(|id| !self.made[*id].has_ended(now));
        self.secret = Some(match due {
            Due::Nothing => return,
            Due::Announce => {
                let next = self.make(now);
                bundle.push(next);
                Secret { current: secret.current, next: Some(next), bundle }
            }
            Due::Promote => {
                self.rotations += 1;
                Secret { current: secret.next.unwrap(), next: None, bundle }
            }
            Due::Replace => {
                let current = self.make(now);
                Secret { current, next: None, bundle: vec![current] }
            }
        });
    }

    /// The replica with the lease registers what it knows.
    fn register(&mut self, leader: usize) {
        let bundle: Vec<Id> = self.replicas[leader].sight.bundle().copied().collect();
        if !bundle.is_empty() {
            self.registered = Some(bundle);
        }
    }

    fn check(&self) {
        let Some(registered) = &self.registered else { return };
        assert!(registered.len() <= 3, "{}: {registered:?}", self.now);
        for (number, replica) in self.replicas.iter().enumerate() {
            let Some(served) = &replica.served else { continue };
            let of =
                || format!("replica {number} at {} serves {served:?}, registered {registered:?}", self.now);
            assert!(served.leaf.contains(self.now), "ended: {}", of());
            assert!(registered.contains(&served.authority), "not trusted: {}", of());
            assert!(served.leaf.not_after <= self.made[served.authority].not_after, "outlives: {}", of());
        }
    }
}

/// Runs `years` in steps of `step` seconds; `trouble` happens before each.
fn live(mut world: World, years: i64, step: i64, mut trouble: impl FnMut(&mut World)) -> World {
    let count = years * 365 * 24 * 3600 / step;
    for _ in 0..count {
        trouble(&mut world);
        for which in 0..world.replicas.len() {
            world.look(which);
        }
        let leader = usize::try_from(world.roll(world.replicas.len() as u64)).unwrap();
        world.register(leader);
        world.check();
        world.now = shift(world.now, SignedDuration::from_secs(step));
    }
    world
}

#[test]
fn ten_years_pass_without_a_leaf_that_is_not_trusted() {
    let world = live(World::new(&[0, 240, -240], 1), 10, 3600, |_| {});
    assert!((13..=16).contains(&world.rotations), "{} rotations", world.rotations);
}

#[test]
fn restarts_in_every_state_change_nothing() {
    let world = live(World::new(&[0, 300, -300], 7), 5, 3600, |world| {
        if world.roll(20) == 0 {
            let which = usize::try_from(world.roll(3)).unwrap();
            let replica = &mut world.replicas[which];
            (replica.sight, replica.served, replica.next_known) = (Sight::new(world.lifetimes), None, None);
        }
    });
    assert!(world.rotations >= 6, "{} rotations", world.rotations);
}

#[test]
fn a_secret_that_is_deleted_in_any_state_comes_back() {
    let world = live(World::new(&[0, 60], 3), 5, 3600, |world| {
        if world.roll(50) == 0 {
            world.secret = None;
        }
    });
    assert!(world.rotations >= 5, "{} rotations", world.rotations);
}

#[test]
fn after_two_years_of_nobody_there_a_new_authority_is_made() {
    let mut world = live(World::new(&[0, 60], 3), 1, 3600, |_| {});
    world.now = shift(world.now, SignedDuration::from_hours(2 * 365 * 24));
    for replica in &mut world.replicas {
        (replica.sight, replica.served, replica.next_known) = (Sight::new(world.lifetimes), None, None);
    }
    // The first look finds and replaces it, the next one serves; until then nothing was ready.
    for _ in 0..3 {
        for which in 0..2 {
            world.look(which);
        }
        world.register(0);
    }
    let world = live(world, 2, 3600, |_| {});
    assert!(world.replicas.iter().all(|replica| replica.served.is_some()));
}

#[test]
fn a_successor_signs_only_after_it_stood_registered_for_a_while() {
    let lifetimes = Lifetimes::default();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let old = Validity::starting(start, lifetimes.authority);
    let now = old.renewal_due();
    let next = Validity::starting(now, lifetimes.authority);
    let mut sight: Sight<Id> = Sight::new(lifetimes);
    assert_eq!(sight.due(old, None, shift(now, -SignedDuration::from_secs(1))), Due::Nothing);
    assert_eq!(sight.due(old, None, now), Due::Announce);
    assert_eq!(sight.due(old, Some((&1, next)), now), Due::Nothing, "nothing is known");
    sight.registered(Trust::Only(vec![0]), now);
    assert_eq!(sight.due(old, Some((&1, next)), shift(now, SignedDuration::from_hours(9))), Due::Nothing);
    sight.registered(Trust::Only(vec![0, 1]), now);
    let before = shift(now, SETTLE - SignedDuration::from_secs(1));
    assert_eq!(sight.due(old, Some((&1, next)), before), Due::Nothing);
    assert_eq!(sight.due(old, Some((&1, next)), shift(now, SETTLE)), Due::Promote);
    // Somebody took it away meanwhile: it waits anew.
    sight.registered(Trust::Only(vec![0]), before);
    sight.registered(Trust::Only(vec![0, 1]), before);
    assert_eq!(sight.due(old, Some((&1, next)), shift(now, SETTLE)), Due::Nothing);
}

#[test]
fn a_leaf_is_renewed_while_a_successor_waits_to_be_registered() {
    let lifetimes = Lifetimes::default();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let old = Validity::starting(start, lifetimes.authority);
    let served =
        Served { authority: 0, authority_validity: old, leaf: old.leaf(start, lifetimes.leaf).unwrap() };
    let mut sight: Sight<Id> = Sight::new(lifetimes);
    let due = served.leaf.renewal_due();
    assert_eq!(sight.step(None, &1, old, start), Step::Follow);
    assert_eq!(sight.step(Some(&served), &1, old, start), Step::Stay, "nothing is known");
    assert_eq!(sight.step(Some(&served), &1, old, due), Step::Renew);
    sight.registered(Trust::Only(vec![0]), start);
    assert_eq!(sight.step(Some(&served), &1, old, due), Step::Renew, "not trusted yet");
    sight.registered(Trust::Only(vec![7]), start);
    assert_eq!(sight.step(Some(&served), &1, old, due), Step::Follow, "nobody trusts ours");
    sight.registered(Trust::Nobody, start);
    assert_eq!(sight.step(Some(&served), &1, old, start), Step::Follow, "nobody calls us");
}
