//! What a guard's spec and status say, as the report takes it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::reasons::ConditionType;
use crate::api::status::{ActorSource, RemediationResult, SourceResult};
use crate::api::{self, DriftGuardStatus};
use crate::core::guard::Enforcement;
use crate::core::report::{Answer, Drift, Facts, KnownBy, Said, Tried};

/// The fields of a spec that the report names, read leniently.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Asked {
    /// `spec.targetKind`, as it is spelled.
    pub(super) target_kind: String,
    /// `spec.targetName`.
    pub(super) target_name: String,
    source_of_truth_ref: Option<IgnoredAny>,
    fallback_source_refs: Vec<IgnoredAny>,
    suspend: Option<api::Suspend>,
    enforcement: Option<IgnoredAny>,
}

impl Asked {
    /// Reads a spec; what cannot be read is as if it were not there.
    pub(super) fn read(spec: &str) -> Self {
        serde_json::from_str(spec).unwrap_or_default()
    }
}

/// What is known of a guard of this generation.
pub(super) fn facts(status: &DriftGuardStatus, asked: &Asked, generation: i64) -> Facts {
    let said = |of_type: ConditionType| {
        let found = status.conditions.iter().find(|condition| condition.type_ == of_type.as_str());
        found.and_then(said)
    };
    Facts {
        is_current: status.observed_generation == Some(generation),
        enforcement: status.enforcement.map(enforcement),
        names_enforcement: asked.enforcement.is_some(),
        enforcing: said(ConditionType::Enforcing),
        drifted: said(ConditionType::Drifted),
        suspended: said(ConditionType::Suspended),
        conflict: said(ConditionType::Conflict),
        fighting: said(ConditionType::Fighting),
        source_available: said(ConditionType::SourceAvailable),
        author_unknown: said(ConditionType::AuthorUnknown),
        current_hash: status.current_hash.as_deref().and_then(|hash| hash.parse().ok()),
        equivalents: status.equivalents.iter().filter_map(|one| one.hash.parse().ok()).collect(),
        last_checked: status.last_checked.as_ref().map(|at| at.0),
        last_drift: status.last_drift.as_ref().map(drift),
        last_remediation: status.last_remediation.as_ref().map(tried),
        answers: status.sources.iter().map(answer).collect(),
        names_source: asked.source_of_truth_ref.is_some() || !asked.fallback_source_refs.is_empty(),
        suspend_until: asked.suspend.as_ref().map(|suspend| suspend.until.0),
        rival: None,
    }
}

fn said(condition: &Condition) -> Option<Said> {
    Some(Said {
        truth: condition.status.parse().ok()?,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time.0,
        generation: condition.observed_generation.unwrap_or_default(),
    })
}

fn enforcement(given: api::Enforcement) -> Enforcement {
    match given {
        api::Enforcement::Deny => Enforcement::Deny,
        api::Enforcement::Rewrite => Enforcement::Rewrite,
        api::Enforcement::Warn => Enforcement::Warn,
        api::Enforcement::Audit => Enforcement::Audit,
    }
}

fn drift(last: &api::LastDrift) -> Drift {
    let known_by = match last.actor_source {
        Some(ActorSource::Admission) => KnownBy::Admission,
        Some(ActorSource::ManagedFields) | None => KnownBy::ManagedFields,
    };
    Drift {
        time: last.time.0,
        paths: last.paths.clone(),
        actor: last.actor.clone().map(|actor| (actor, known_by)),
        transaction_id: last.transaction_id.clone(),
    }
}

fn tried(last: &api::LastRemediation) -> Tried {
    let result = match last.result {
        RemediationResult::Restored => "Restored",
        RemediationResult::NoVerifiedSource => "NoVerifiedSource",
        RemediationResult::Failed => "Failed",
        RemediationResult::GivenUp => "GivenUp",
        RemediationResult::NotAllowed => "NotAllowed",
    };
    Tried {
        time: last.time.0,
        result: result.to_owned(),
        source: last.source.clone(),
        transaction_id: last.transaction_id.clone(),
    }
}

fn answer(source: &api::SourceStatus) -> Answer {
    let result = match source.result {
        SourceResult::Matched => "Matched",
        SourceResult::Mismatch => "Mismatch",
        SourceResult::Unavailable => "Unavailable",
        SourceResult::Forbidden => "Forbidden",
        SourceResult::Invalid => "Invalid",
    };
    let time: Timestamp = source.time.0;
    Answer { source: source.source.clone(), result: result.to_owned(), message: source.message.clone(), time }
}
