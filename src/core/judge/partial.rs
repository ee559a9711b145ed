//! Writes that show only a part of the object: a Scale, a Binding.
//!
//! The object itself is read live, once, gets the part that is written, and is then judged as if it had
//! been written whole. Nothing is read when the part is not pinned or does not change.

use jiff::Timestamp;

use super::{Finding, Form, Opinion, act, against_invalid, in_another_version, left_drifted, sum_up};
use crate::core::canonical::hash_object;
use crate::core::canonical::object::Object;
use crate::core::diff;
use crate::core::guard::{Count, Enforcement, FailurePolicy, Guard, GuardState};
use crate::core::images::MAX_PATHS;
use crate::core::message;
use crate::core::review::{Review, value_at};
use crate::core::rewrite::Obstacle;
use crate::core::rewrite::edit::Edits;
use crate::core::verdict::{Fact, Operation, Question, Reason, Verdict};

const NODE_NAME: [&str; 2] = ["spec", "nodeName"];

/// The part that is written.
enum Part {
    /// Where it stands in the object, and its new value as raw JSON.
    Known { keys: Vec<String>, value: Vec<u8> },
    /// It stands somewhere else in the version that is hashed, or it is not known where.
    Elsewhere,
}

pub(super) fn judge(
    review: &Review<'_>,
    form: Form,
    guards: &[&GuardState],
    now: Timestamp,
    fact: Option<Fact<'_>>,
) -> Verdict {
    let concerned = guards.iter().find_map(|state| match state {
        GuardState::Valid(guard) if matches!(part(review, form, guard), Some(Part::Known { .. })) => {
            Some(&guard.target)
        }
        _ => None,
    });
    if let Some(target) = concerned
        && fact.is_none()
    {
        return Verdict::Ask(Question::Target(target.clone()));
    }
    sum_up(review, guards, |state, target| match state {
        GuardState::Invalid(invalid) => against_invalid(review, invalid, target, now),
        GuardState::Valid(guard) => match (part(review, form, guard), fact, concerned) {
            (Some(Part::Elsewhere), _, _) => in_another_version(guard, review.written_in(), now),
            (Some(_), Some(_), Some(read)) if read.version != guard.target.version => {
                in_another_version(guard, &read.version, now)
            }
            (Some(Part::Known { keys, value }), Some(fact), _) => {
                against(review, guard, (&keys, &value), fact, now)
            }
            _ => Opinion::Fine,
        },
    })
}

/// What is written of what the guard pins; `None` when that is nothing.
fn part(review: &Review<'_>, form: Form, guard: &Guard) -> Option<Part> {
    let object = review.object.as_ref()?;
    match form {
        Form::Scale => {
            let new = count(object);
            if review.old_object.as_ref().map(count).as_ref() == Some(&new) {
                return None;
            }
            match guard.count_in(review.written_in()) {
                Count::Free => None,
                Count::At(keys) => Some(Part::Known { keys: keys.to_vec(), value: new }),
                Count::Elsewhere => Some(Part::Elsewhere),
            }
        }
        Form::Binding if guard.scope.covers(&NODE_NAME) => {
            let keys = NODE_NAME.map(str::to_owned).to_vec();
            let value = value_at(object, &["target", "name"]).unwrap_or(b"\"\"").to_vec();
            Some(Part::Known { keys, value })
        }
        _ => None,
    }
}

/// The count of a Scale. The API server leaves 0 out.
fn count(scale: &Object<'_>) -> Vec<u8> {
    value_at(scale, &["spec", "replicas"]).unwrap_or(b"0").to_vec()
}

fn against(
    review: &Review<'_>,
    guard: &Guard,
    (keys, value): (&[String], &[u8]),
    fact: Fact<'_>,
    now: Timestamp,
) -> Opinion {
    let open = |message: &dyn Fn() -> String| {
        act(guard, now, Finding::bare(Reason::TargetUnread), |_| message(), |_| message())
    };
    let live = match fact {
        Fact::Object(live) => live,
        Fact::Absent => return open(&|| message::no_target(guard)),
        Fact::Unread(FailurePolicy::Fail) => return open(&|| message::unread(guard, "the object")),
        Fact::Unread(FailurePolicy::Ignore) => {
            let warning = message::unread(guard, "the object");
            return Opinion::Says(Finding::bare(Reason::TargetUnread), super::Answer::Warn(warning));
        }
    };
    let spliced = Edits::setting(keys, value).apply(live).unwrap_or_default();
    let new = match hash_object(&spliced, &guard.scope) {
        Ok(hash) => hash,
        Err(error) => return super::against_undecodable(guard, &error, now),
    };
    if guard.approves(new, now) {
        return Opinion::Fine;
    }
    if hash_object(live, &guard.scope).is_ok_and(|old| old == new) {
        return left_drifted(guard, Some(new));
    }
    let changes = diff::changed_paths(live, &spliced, &guard.scope, MAX_PATHS).unwrap_or_default();
    let finding = Finding { reason: Reason::HashMismatch, image: Some(new), changes };
    let operation = review.operation.unwrap_or(Operation::Update);
    // A Binding is a CREATE, but the Pod that it changes is there.
    let operation = if operation == Operation::Create { Operation::Update } else { operation };
    let denial = |finding: &Finding| {
        let obstacle = (guard.enforcement == Enforcement::Rewrite).then(|| Obstacle::Partial.to_string());
        message::denial(guard, operation, &finding.changes, Some(new), obstacle.as_deref())
    };
    act(guard, now, finding, denial, |finding| message::would_deny(guard, &finding.changes))
}
