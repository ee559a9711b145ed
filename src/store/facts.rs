//! What a guard's spec and status say, as reports take it. Pure.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::reasons::ConditionType;
use crate::api::status::{ActorSource, RemediationResult, SourceResult};
use crate::api::{self, DriftGuardStatus};
use crate::core::audit::finding::{Reason, Truth};
use crate::core::guard::Enforcement;
use crate::core::report::{Answer, Drift, Facts, KnownBy, Said, Tried};
use crate::core::text::Text;

/// Most words that are held once: those of conditions are few, but a status may hold anything.
const MOST_WORDS: usize = 256;

/// The fields of a spec that the report names, read leniently.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Asked {
    /// `spec.targetKind`, as it is spelled.
    pub(crate) target_kind: String,
    /// `spec.targetName`.
    pub(crate) target_name: String,
    source_of_truth_ref: Option<IgnoredAny>,
    fallback_source_refs: Vec<IgnoredAny>,
    suspend: Option<api::Suspend>,
    enforcement: Option<IgnoredAny>,
}

impl Asked {
    /// Reads a spec; what cannot be read is as if it were not there.
    pub(crate) fn read(spec: &str) -> Self {
        serde_json::from_str(spec).unwrap_or_default()
    }
}

/// Words that many statuses hold, each held once.
#[derive(Debug, Default)]
pub(crate) struct Words(HashSet<Text>);

impl Words {
    fn of(&mut self, word: &str) -> Text {
        if let Some(known) = self.0.get(word) {
            return known.clone();
        }
        let word = Text::from(word);
        if self.0.len() < MOST_WORDS {
            self.0.insert(word.clone());
        }
        word
    }
}

/// What is known of a guard of this generation. Sentences that no report tells are left out: of a calm guard that
/// is nearly all of its status.
pub(crate) fn facts(status: &DriftGuardStatus, asked: &Asked, generation: i64, words: &mut Words) -> Facts {
    let mut said = |of_type: ConditionType, is_told: fn(&Condition) -> bool| {
        let found = status.conditions.iter().find(|condition| condition.type_ == of_type.as_str());
        found.and_then(|condition| said(condition, is_told(condition), words))
    };
    let mut warning = |of_type| {
        let said = said(of_type, |_| true);
        said.filter(|said| said.truth == Truth::True).map(Box::new)
    };
    let (conflict, fighting) = (warning(ConditionType::Conflict), warning(ConditionType::Fighting));
    let author_unknown = warning(ConditionType::AuthorUnknown);
    Facts {
        is_current: status.observed_generation == Some(generation),
        enforcement: status.enforcement.map(enforcement),
        names_enforcement: asked.enforcement.is_some(),
        enforcing: said(ConditionType::Enforcing, |condition| condition.status != Truth::True.as_str()),
        drifted: said(ConditionType::Drifted, |condition| {
            condition.status != Truth::False.as_str() || condition.reason == Reason::AwaitingApply.as_str()
        }),
        suspended: said(ConditionType::Suspended, |condition| condition.status == Truth::True.as_str())
            .map(Box::new),
        conflict,
        fighting,
        source_available: said(ConditionType::SourceAvailable, |_| true).map(Box::new),
        author_unknown,
        current_hash: status.current_hash.as_deref().and_then(|hash| hash.parse().ok()),
        equivalents: status.equivalents.iter().filter_map(|one| one.hash.parse().ok()).collect(),
        last_checked: status.last_checked.as_ref().map(|at| at.0),
        last_drift: status.last_drift.as_ref().map(drift).map(Box::new),
        last_remediation: status.last_remediation.as_ref().map(tried).map(Box::new),
        answers: status.sources.iter().map(answer).collect(),
        names_source: asked.source_of_truth_ref.is_some() || !asked.fallback_source_refs.is_empty(),
        suspend_until: asked.suspend.as_ref().map(|suspend| suspend.until.0),
        rival: None,
    }
}

fn said(condition: &Condition, is_told: bool, words: &mut Words) -> Option<Said> {
    Some(Said {
        truth: condition.status.parse().ok()?,
        reason: words.of(&condition.reason),
        message: if is_told { condition.message.as_str().into() } else { Text::default() },
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
