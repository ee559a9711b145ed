//! Whether the guards of an object still stand as a review was judged by them.
//!
//! An index follows what is stored, and so lags behind it by moments. Before a write is refused, put back or
//! recorded by it, each guard of the object is looked at once, and what was stored meanwhile takes the
//! place of what was known. A look that failed tells nothing: then what is known decides.

use super::guard::{GuardState, Target};
use super::index::Index;
use super::verdict::{Attempt, Reason, Verdict};

/// What one look at a guard has found.
#[derive(Debug, Clone)]
pub enum Look {
    /// It stands like this: as it was known, or newer than that.
    Stands(GuardState),
    /// There is no such guard any more.
    Gone,
    /// It could not be read.
    Unread,
}

/// What looks at all guards of an object come to.
#[derive(Debug)]
pub enum Standing {
    /// They stand as they were known.
    Same,
    /// At least one could not be read.
    Unknown,
    /// They stand like this.
    Changed(Index),
    /// At least one is gone or pins another object now; the others, if any, stand like this. Another guard may
    /// have come in its place, of which only all guards of the object tell.
    Fewer(Index),
}

/// What looks at the known guards of `target` come to.
#[must_use]
pub fn standing<'a>(target: &Target, looks: impl IntoIterator<Item = (&'a GuardState, Look)>) -> Standing {
    let (mut states, mut is_changed, mut is_left) = (Vec::new(), false, false);
    for (known, look) in looks {
        match look {
            Look::Unread => return Standing::Unknown,
            Look::Stands(now) if pins(&now, target) => {
                is_changed |= !known.is_identical(&now);
                states.push(now);
            }
            Look::Stands(_) | Look::Gone => is_left = true,
        }
    }
    match (is_left, is_changed) {
        (true, _) => Standing::Fewer(Index::build(states)),
        (false, true) => Standing::Changed(Index::build(states)),
        (false, false) => Standing::Same,
    }
}

/// Whether a refusal by what was known stays: what is stored now would let the write pass, but only since
/// something else could not be read.
#[must_use]
pub fn stays(known: &Verdict, now: &Verdict) -> bool {
    let is_unread = |attempts: &[Attempt]| attempts.iter().any(|one| one.reason == Reason::TargetUnread);
    matches!(known, Verdict::Deny { .. })
        && matches!(now, Verdict::AllowWith { attempts, .. } if is_unread(attempts))
}

/// Whether a guard pins this object, in whatever version.
fn pins(state: &GuardState, target: &Target) -> bool {
    state.target().is_some_and(|now| {
        (&now.group, &now.resource, &now.namespace, &now.name)
            == (&target.group, &target.resource, &target.namespace, &target.name)
    })
}

/// The object whose guards are looked at before a verdict is given: where it refuses, or says that a guard
/// does not approve what passes.
#[must_use]
pub fn in_question(verdict: &Verdict) -> Option<&Target> {
    match verdict {
        // The API server was just asked, and did not answer.
        Verdict::Deny { attempt, .. } if attempt.reason == Reason::TargetUnread => None,
        Verdict::Deny { attempt, .. } => Some(&attempt.target),
        Verdict::AllowWith { attempts, .. } => {
            attempts.iter().find(|attempt| attempt.reason.is_disapproval()).map(|attempt| &attempt.target)
        }
        Verdict::Allow | Verdict::NotGuarded(_) | Verdict::Ask(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::guard::{Authorship, GuardId, InvalidGuard};
    use super::super::verdict::{Operation, User};
    use super::*;

    fn target(name: &str) -> Target {
        Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: name.into(),
        }
    }

    fn guard(name: &str, pinned: &str, generation: i64) -> GuardState {
        GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "n".into(), name: name.into() },
            uid: name.into(),
            generation,
            target: Some(target(pinned)),
            pauses: Default::default(),
            authorship: Authorship::Unknown,
            reason: "Test",
            message: String::new(),
        }))
    }

    fn generations(standing: &Standing) -> Option<Vec<i64>> {
        match standing {
            Standing::Changed(index) | Standing::Fewer(index) => {
                Some(index.guards().iter().map(GuardState::generation).collect())
            }
            Standing::Same | Standing::Unknown => None,
        }
    }

    #[test]
    fn guards_that_stand_as_they_were_known_change_nothing() {
        let (a, b) = (guard("a", "x", 1), guard("b", "x", 1));
        let looks = [(&a, Look::Stands(a.clone())), (&b, Look::Stands(b.clone()))];
        assert!(matches!(standing(&target("x"), looks), Standing::Same));
    }

    #[test]
    fn a_guard_that_was_stored_since_takes_the_place_of_the_one_that_was_known_and_others_stay() {
        let (a, b) = (guard("a", "x", 1), guard("b", "x", 7));
        let looks = [(&a, Look::Stands(guard("a", "x", 2))), (&b, Look::Stands(b.clone()))];
        assert_eq!(generations(&standing(&target("x"), looks)), Some(vec![2, 7]));
    }

    #[test]
    fn one_guard_that_could_not_be_read_leaves_all_as_they_were_known() {
        let (a, b) = (guard("a", "x", 1), guard("b", "x", 1));
        for other in [Look::Gone, Look::Stands(guard("b", "x", 2))] {
            let looks = [(&b, other.clone()), (&a, Look::Unread)];
            assert!(matches!(standing(&target("x"), looks), Standing::Unknown));
            let looks = [(&a, Look::Unread), (&b, other)];
            assert!(matches!(standing(&target("x"), looks), Standing::Unknown));
        }
    }

    #[test]
    fn where_a_guard_is_gone_or_pins_another_object_the_others_stand_and_more_may_have_come() {
        let (a, b) = (guard("a", "x", 1), guard("b", "x", 1));
        for left in [Look::Gone, Look::Stands(guard("a", "y", 2))] {
            let looks = [(&a, left), (&b, Look::Stands(guard("b", "x", 2)))];
            let stand = standing(&target("x"), looks);
            assert!(matches!(stand, Standing::Fewer(_)), "{stand:?}");
            assert_eq!(generations(&stand), Some(vec![2]));
        }
    }

    #[test]
    fn a_guard_that_hashes_another_version_now_pins_the_same_object() {
        let known = guard("a", "x", 1);
        let GuardState::Invalid(mut now) = guard("a", "x", 2) else { return };
        Arc::make_mut(&mut now).target = Some(Target { version: "v2".into(), ..target("x") });
        let looks = [(&known, Look::Stands(GuardState::Invalid(now)))];
        assert_eq!(generations(&standing(&target("x"), looks)), Some(vec![2]));
    }

    fn attempt(reason: Reason) -> Attempt {
        Attempt {
            guard: GuardId { namespace: "n".into(), name: "a".into() },
            guard_uid: String::new(),
            guard_generation: 1,
            target: target("x"),
            target_uid: String::new(),
            operation: Operation::Update,
            sub_resource: String::new(),
            dry_run: false,
            user: User::default(),
            field_manager: String::new(),
            image_hash: None,
            paths: Vec::new(),
            enforcement: None,
            reason,
        }
    }

    #[test]
    fn a_refusal_stays_where_the_write_would_pass_only_for_what_could_not_be_read() {
        let passes = |reason| Verdict::AllowWith { warnings: Vec::new(), attempts: vec![attempt(reason)] };
        let denies = |reason| Verdict::Deny { message: String::new(), attempt: Box::new(attempt(reason)) };
        let refused = denies(Reason::HashMismatch);
        assert!(stays(&refused, &passes(Reason::TargetUnread)));
        for now in [Verdict::Allow, passes(Reason::HashMismatch), denies(Reason::TargetUnread)] {
            assert!(!stays(&refused, &now), "{now:?}");
        }
        assert!(!stays(&passes(Reason::HashMismatch), &passes(Reason::TargetUnread)));
    }

    #[test]
    fn a_verdict_is_in_question_where_it_refuses_or_says_that_something_is_not_approved() {
        let passes = |reason| Verdict::AllowWith { warnings: Vec::new(), attempts: vec![attempt(reason)] };
        let denies = |reason| Verdict::Deny { message: String::new(), attempt: Box::new(attempt(reason)) };
        let asks = |verdict: &Verdict| in_question(verdict).is_some();
        assert!(!asks(&Verdict::Allow));
        for reason in [Reason::HashMismatch, Reason::GuardInvalid, Reason::Paused, Reason::OtherVersion] {
            assert!(asks(&passes(reason)) && asks(&denies(reason)), "{reason:?}");
        }
        assert!(asks(&denies(Reason::TargetDeleted)));
        for reason in [Reason::AlreadyDrifted, Reason::TargetDeleted, Reason::TargetUnread] {
            assert!(!asks(&passes(reason)), "{reason:?}");
        }
        assert!(!asks(&denies(Reason::TargetUnread)), "it would only wait once more");
        let several = Verdict::AllowWith {
            warnings: Vec::new(),
            attempts: vec![attempt(Reason::AlreadyDrifted), attempt(Reason::HashMismatch)],
        };
        assert!(asks(&several));
    }
}
