//! A certificate from files is served once it is trusted, and what it replaces is trusted until then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use super::*;
use crate::core::rotation::Trust;

/// An authority; its number is its name.
type Id = u64;

const SETTLE: SignedDuration = SignedDuration::from_secs(60);

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn at(seconds: u64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds.try_into().unwrap())
}

/// A certificate that these authorities verify.
fn certificate(trusted_by: &[Id]) -> Supplied<Id> {
    let validity = Validity::starting(start(), SignedDuration::from_hours(24));
    Supplied { trusted_by: trusted_by.to_vec(), validity }
}

fn registered(only: &[Id]) -> Sight<Id> {
    let mut sight = sight(SETTLE);
    sight.registered(Trust::Only(only.to_vec()), start());
    sight
}

#[test]
fn the_first_certificate_is_served_at_once() {
    let found = certificate(&[1]);
    assert_eq!(choose(&sight(SETTLE), None, &found, start()), Choice::Serve);
    assert_eq!(choose(&registered(&[2]), None, &found, start()), Choice::Serve);
}

#[test]
fn a_certificate_of_an_authority_long_registered_is_served_at_once() {
    let sight = registered(&[1]);
    assert_eq!(choose(&sight, Some(&certificate(&[1])), &certificate(&[1]), at(60)), Choice::Serve);
}

#[test]
fn a_certificate_of_a_new_authority_waits_until_that_has_settled() {
    let mut sight = registered(&[1]);
    let (served, found) = (certificate(&[1]), certificate(&[2]));
    assert_eq!(choose(&sight, Some(&served), &found, at(3600)), Choice::Wait);
    sight.registered(Trust::Only(vec![1, 2]), at(3600));
    assert_eq!(choose(&sight, Some(&served), &found, at(3659)), Choice::Wait);
    assert_eq!(choose(&sight, Some(&served), &found, at(3660)), Choice::Serve);
}

#[test]
fn an_authority_that_was_taken_out_meanwhile_settles_anew() {
    let mut sight = registered(&[1, 2]);
    let (served, found) = (certificate(&[1]), certificate(&[2]));
    sight.registered(Trust::Only(vec![1]), at(50));
    sight.registered(Trust::Only(vec![1, 2]), at(55));
    assert_eq!(choose(&sight, Some(&served), &found, at(70)), Choice::Wait);
    assert_eq!(choose(&sight, Some(&served), &found, at(115)), Choice::Serve);
}

#[test]
fn nothing_is_waited_for_when_what_is_served_is_accepted_by_nobody() {
    let (served, found) = (certificate(&[1]), certificate(&[2]));
    assert_eq!(choose(&registered(&[2, 3]), Some(&served), &found, start()), Choice::Serve);
    let ended = at(25 * 3600);
    let mut sight = registered(&[1]);
    sight.registered(Trust::Only(vec![1, 2]), ended);
    assert_eq!(choose(&sight, Some(&served), &found, ended), Choice::Serve);
    sight.registered(Trust::Nobody, start());
    assert_eq!(choose(&sight, Some(&served), &found, start()), Choice::Serve);
}

#[test]
fn nothing_is_given_up_before_it_is_known_what_is_registered() {
    let sight = sight(SETTLE);
    assert_eq!(choose(&sight, Some(&certificate(&[1])), &certificate(&[2]), at(3600)), Choice::Wait);
}

#[test]
fn an_authority_that_left_the_files_is_registered_for_ten_settling_times() {
    let mut sight = sight(SETTLE);
    sight.present([1, 2], start());
    sight.present([2], at(600));
    assert_eq!(sight.bundle().copied().collect::<Vec<_>>(), [1, 2]);
    sight.present([2], at(601));
    assert_eq!(sight.bundle().copied().collect::<Vec<_>>(), [2]);
}

/// A pod that mounts the files and looks at them every five seconds.
struct Replica {
    sight: Sight<Id>,
    served: Option<Supplied<Id>>,
    /// How much later than the first it sees changed files.
    lag: u64,
    /// Whether it has taken over what was registered when it started.
    began: bool,
}

impl Replica {
    fn new(lag: u64) -> Self {
        Self { sight: sight(SETTLE), served: None, lag, began: false }
    }

    /// One look; gives what it would have registered.
    fn look(&mut self, files: Id, trust: Option<&[Id]>, now: Timestamp) -> Vec<Id> {
        let registered = trust.map_or(Trust::Nobody, |ids| Trust::Only(ids.to_vec()));
        self.sight.registered(registered, now);
        if !std::mem::replace(&mut self.began, true) {
            self.sight.present(trust.unwrap_or_default().iter().copied(), now);
        }
        self.sight.present([files], now);
        let found = certificate(&[files]);
        if self.served.as_ref() != Some(&found)
            && choose(&self.sight, self.served.as_ref(), &found, now) == Choice::Serve
        {
            self.served = Some(found);
        }
        let served = self.served.iter().flat_map(|served| served.trusted_by.clone()).collect::<Vec<_>>();
        self.sight.present(served, now);
        self.sight.bundle().copied().collect()
    }
}

/// Files change every hour from one authority to the next without any overlap, and reach three
/// replicas at different times; the lease moves about, and replicas are started anew.
#[test]
fn whatever_is_served_is_registered_although_files_change_without_an_overlap() {
    for leads in 0..3_usize {
        let mut replicas = [Replica::new(0), Replica::new(70), Replica::new(120)];
        let mut trusted: Option<Vec<Id>> = None;
        let mut changes = 0;
        for second in (0..8 * 3600_u64).step_by(5) {
            let holder = (leads + usize::try_from(second / 1000).unwrap()) % 3;
            let mut wanted = Vec::new();
            for (which, replica) in replicas.iter_mut().enumerate() {
                let files = 1 + second.saturating_sub(replica.lag) / 3600;
                let before = replica.served.clone();
                let bundle = replica.look(files, trusted.as_deref(), at(second));
                changes += usize::from(before.is_some() && before != replica.served);
                if which == holder {
                    wanted = bundle;
                }
            }
            trusted = Some(wanted);
            for replica in &replicas {
                let served = replica.served.as_ref().unwrap();
                assert!(
                    served.trusted_by.iter().any(|id| trusted.as_ref().unwrap().contains(id)),
                    "after {second} s {served:?} is served and {trusted:?} registered"
                );
            }
            // While files are under way a fresh replica has them only once others have settled.
            if second % 3600 == 1800 {
                let which = usize::try_from(second / 3600).unwrap() % 3;
                replicas[which] = Replica::new(replicas[which].lag);
            }
        }
        assert!(changes >= 3 * 7 - 3, "{changes} changes");
        assert!(trusted.unwrap().len() == 1, "what left the files hours ago is registered no more");
    }
}
