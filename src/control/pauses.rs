//! What is told when a guard begins to let writes pass, by `spec.suspend` or an exception, and when that
//! ends: a record and an Event, once an episode.
//!
//! What begins and ends stands in the condition `Suspended`, so that no other replica tells it again.
//! It is told once that condition is written.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use jiff::Timestamp;

use super::alarm::Alarm;
use crate::api::reasons::ConditionType;
use crate::api::{DriftGuardStatus, names};
use crate::core::guard::{Authorship, GuardState};
use crate::core::pause::{Pause, PausedBy};
use crate::store::Seen;
use crate::telemetry::notices::Notice;
use crate::trail::record::{self, Record};

/// Reason of record and Event when writes begin to pass.
const BEGAN: &str = "PauseBegan";
/// The same when they no longer do.
const ENDED: &str = "PauseEnded";

/// What becomes of a pause between two statuses.
#[derive(Debug, PartialEq)]
enum Turn<'a> {
    /// Writes pass, by something that did not let them pass before.
    Began(&'a Condition),
    /// They no longer pass; this is what the guard said while they did.
    Ended(&'a Condition),
}

fn turn<'a>(before: &'a DriftGuardStatus, after: &'a DriftGuardStatus) -> Option<Turn<'a>> {
    fn active(status: &DriftGuardStatus) -> Option<&Condition> {
        let of_type = ConditionType::Suspended.as_str();
        status.conditions.iter().find(|one| one.type_ == of_type && one.status == "True")
    }
    match (active(before), active(after)) {
        (None, Some(now)) => Some(Turn::Began(now)),
        // The message says by what, why and until when: another pause counts from now on.
        (Some(before), Some(now)) if before.message != now.message => Some(Turn::Began(now)),
        (Some(before), None) => Some(Turn::Ended(before)),
        _ => None,
    }
}

impl Alarm {
    /// Tells what became of the pauses of a guard whose status was written.
    pub(super) fn pauses(
        &self,
        seen: &Seen,
        before: &DriftGuardStatus,
        after: &DriftGuardStatus,
        now: Timestamp,
    ) {
        let Some(turn) = turn(before, after) else { return };
        let (state, id) = (&seen.state, seen.state.id());
        let (reason, pause, message) = match turn {
            Turn::Began(condition) => {
                (BEGAN, state.paused(now), format!("{id} is not enforced: {}", condition.message))
            }
            Turn::Ended(condition) => {
                (ENDED, last(state, now), format!("{id} is enforced again; before, {}", condition.message))
            }
        };
        tracing::warn!(namespace = %id.namespace, name = %id.name, reason, "{message}");
        let by = match (pause.map(|pause| &pause.by), state.authorship()) {
            // Whoever changed the spec last said so.
            (Some(PausedBy::Suspend), Authorship::Signed(author)) => author.signer.user.as_str(),
            _ => "",
        };
        let paused = pause.map(|pause| record::Pause {
            exception: exception(pause).unwrap_or_default(),
            until: Some(pause.until),
            reason: &pause.reason,
            by,
        });
        self.records.put(&Record::of_pause(state, reason, paused, self.found(&message, now)));
        let related = pause.and_then(exception).map(|name| ObjectReference {
            api_version: Some(format!("{}/{}", names::GROUP, names::VERSION)),
            kind: Some("DriftGuardException".into()),
            namespace: Some(id.namespace.as_str().into()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        });
        let uid = state.uid().as_str().into();
        let notice = Notice { guard: id.clone(), uid, reason, note: message.clone() };
        self.notices.put_pause(notice, related);
    }
}

/// The pause that ended last, where it still stands in the guard or its exception.
fn last(state: &GuardState, now: Timestamp) -> Option<&Pause> {
    state.pauses().iter().filter(|pause| !pause.is_active(now)).max_by_key(|pause| pause.until)
}

fn exception(pause: &Pause) -> Option<&str> {
    match &pause.by {
        PausedBy::Exception(name) => Some(name),
        PausedBy::Suspend => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn said(value: &str, message: &str) -> DriftGuardStatus {
        let condition = Condition {
            type_: "Suspended".to_owned(),
            status: value.to_owned(),
            message: message.to_owned(),
            reason: "Excepted".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        DriftGuardStatus { conditions: vec![condition], ..DriftGuardStatus::default() }
    }

    #[test]
    fn each_pause_is_told_when_it_begins_and_when_the_last_one_ends() {
        let (never, first, second) =
            (DriftGuardStatus::default(), said("True", "by exception a"), said("True", "by exception b"));
        let over = said("False", "the guard is enforced again");
        assert!(matches!(turn(&never, &first), Some(Turn::Began(_))));
        assert!(matches!(turn(&over, &first), Some(Turn::Began(_))));
        assert_eq!(turn(&first, &first), None, "nothing new");
        assert!(matches!(turn(&first, &second), Some(Turn::Began(now)) if now.message.ends_with('b')));
        assert!(matches!(turn(&second, &over), Some(Turn::Ended(was)) if was.message.ends_with('b')));
        assert_eq!(turn(&over, &over), None);
        assert_eq!(turn(&never, &never), None);
    }
}
