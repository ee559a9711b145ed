//! What is known beside a look at a target: read from the guard's status and its kind.

use jiff::Timestamp;

use crate::api::DriftGuardStatus;
use crate::api::reasons::{self, ConditionType};
use crate::core::audit::book::{Remembered, WATCH_MISSED_CHANGE};

use super::status::find;

/// The API groups that the API server defines by itself. A definition may be of no such group, so that an
/// object of one reads otherwise only when the server does.
const BUILT_IN: [&str; 22] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Whether the API server itself defines the kinds of a group.
#[must_use]
pub(super) fn is_built_in(group: &str) -> bool {
    BUILT_IN.contains(&group)
}

/// Since when the status has said that the guard is enforced; `None` while it does not.
#[must_use]
pub(super) fn enforcing_since(status: &DriftGuardStatus) -> Option<Timestamp> {
    let enforcing = find(status, ConditionType::Enforcing).filter(|condition| condition.status == "True")?;
    Some(enforcing.last_transition_time.0)
}

/// When the last pause ended, as far as the status tells.
#[must_use]
pub(super) fn pause_ended(status: &DriftGuardStatus) -> Option<Timestamp> {
    let ended = |condition: &&_| is_end(condition);
    find(status, ConditionType::Suspended).filter(ended).map(|condition| condition.last_transition_time.0)
}

fn is_end(condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> bool {
    condition.status == "False" && condition.reason == reasons::PAUSE_ENDED
}

/// What an earlier leader said of the guard. `asked` is what its annotation asks to be put back now.
#[must_use]
pub(super) fn remembered(status: &DriftGuardStatus, asked: Option<&str>) -> Remembered {
    // Nobody signs a status, and the gate lets authors alone ask by the annotation.
    let is_asked = asked.is_some() && status.heeded_restore.as_deref() == asked;
    let drifted = find(status, ConditionType::Drifted);
    let known = drifted.and_then(|said| {
        Some((said.status.parse().ok()?, said.reason.parse().ok()?, said.last_transition_time.0))
    });
    let unwatched = find(status, ConditionType::Watched).filter(|said| said.status == "False");
    let missed = unwatched.filter(|said| said.reason == WATCH_MISSED_CHANGE);
    Remembered {
        generation: drifted.and_then(|said| said.observed_generation).unwrap_or_default(),
        drifted: known,
        hash_match: status.hash_match,
        current_hash: status.current_hash.as_deref().and_then(|hash| hash.parse().ok()),
        consecutive_failures: status.consecutive_failures.and_then(|n| n.try_into().ok()).unwrap_or_default(),
        last_checked: status.last_checked.as_ref().map(|at| at.0),
        last_drift: status.last_drift.as_ref().map(|drift| (drift.time.0, drift.transaction_id.clone())),
        episode: status.episode.clone(),
        alerted: status.alerted.unwrap_or_default(),
        fighting: find(status, ConditionType::Fighting).is_some_and(|said| said.status == "True"),
        restore_pending: is_asked && status.restore_pending.unwrap_or_default(),
        incident: status.incident.clone(),
        unwatched: unwatched.is_some(),
        missed_at: missed.map(|said| said.last_transition_time.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    fn condition(of_type: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: of_type.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: Some(2),
            last_transition_time: Time(Timestamp::from_second(7).unwrap()),
        }
    }

    #[test]
    fn enforcement_and_the_end_of_a_pause_are_read_from_conditions() {
        let mut status = DriftGuardStatus::default();
        assert_eq!((enforcing_since(&status), pause_ended(&status)), (None, None));
        status.conditions = vec![
            condition("Enforcing", "True", "Proved"),
            condition("Suspended", "False", reasons::PAUSE_ENDED),
        ];
        let at = Timestamp::from_second(7).ok();
        assert_eq!((enforcing_since(&status), pause_ended(&status)), (at, at));
        status.conditions[0].status = "Unknown".into();
        status.conditions[1].status = "True".into();
        assert_eq!((enforcing_since(&status), pause_ended(&status)), (None, None));
    }

    #[test]
    fn what_was_said_of_drift_is_remembered_and_a_strange_word_is_not() {
        let mut status = DriftGuardStatus {
            conditions: vec![condition("Drifted", "True", "Missing")],
            consecutive_failures: Some(3),
            ..DriftGuardStatus::default()
        };
        let known = remembered(&status, None);
        assert_eq!((known.generation, known.consecutive_failures), (2, 3));
        assert!(known.drifted.is_some());
        status.conditions[0].reason = "Whatever".into();
        assert_eq!(remembered(&status, None).drifted, None);
    }

    #[test]
    fn a_status_alone_asks_for_no_restore() {
        let status = DriftGuardStatus {
            conditions: vec![condition("Drifted", "True", "ContentDiffers")],
            restore_pending: Some(true),
            ..DriftGuardStatus::default()
        };
        let heeded = DriftGuardStatus { heeded_restore: Some("1".into()), ..status.clone() };
        assert!(!remembered(&status, None).restore_pending, "nobody asked");
        assert!(
            !remembered(&status, Some("1")).restore_pending,
            "it is yet to be heeded, as a request of its own"
        );
        assert!(!remembered(&heeded, None).restore_pending, "it was forged, or the request was withdrawn");
        assert!(!remembered(&heeded, Some("2")).restore_pending);
        assert!(remembered(&heeded, Some("1")).restore_pending);
    }

    #[test]
    fn kinds_of_the_server_are_told_from_defined_ones() {
        assert!(is_built_in("") && is_built_in("apps"));
        assert!(!is_built_in("terrafusion.ai") && !is_built_in("gateway.networking.k8s.io"));
    }
}
