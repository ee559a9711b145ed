//! The auditor's part of a guard's status, and only what is new in it.
//!
//! By server-side apply under a field manager of its own: registration writes the other part of the same
//! status, and neither has to know what the other says. What is not said again goes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::api::reasons::ConditionType;
use crate::api::status::{Equivalent, LastDrift, LastMatch, LastRemediation, SourceStatus};
use crate::api::{DriftGuard, DriftGuardStatus, names};
use crate::control::lease::Fence;
use crate::core::guard::GuardId;
use crate::store::COMPUTED;

/// Longest one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message of a condition, in characters. Nobody reads more.
const MAX_MESSAGE: usize = 1024;

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Says {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// A stable word.
    pub(super) reason: &'static str,
    /// What it means and what to do.
    pub(super) message: String,
}

/// What is to be said about a guard. What is `None` of the last six stays as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub(super) guard: GuardId,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) drifted: Says,
    /// Absent while nobody fights.
    pub(super) fighting: Option<Says>,
    /// Absent while a watch can be relied upon.
    pub(super) watched: Option<Says>,
    /// Never of a Secret.
    pub(super) current_hash: Option<String>,
    pub(super) hash_match: Option<bool>,
    pub(super) consecutive_failures: u32,
    pub(super) episode: Option<String>,
    pub(super) alerted: bool,
    pub(super) incident: Option<String>,
    pub(super) heeded_restore: Option<String>,
    pub(super) restore_pending: bool,
    pub(super) source_available: Option<Says>,
    pub(super) last_drift: Option<LastDrift>,
    pub(super) last_remediation: Option<LastRemediation>,
    pub(super) sources: Option<Vec<SourceStatus>>,
    pub(super) equivalents: Option<Vec<Equivalent>>,
    pub(super) last_match: Option<LastMatch>,
    pub(super) at: Timestamp,
}

impl Statement {
    /// The auditor's part of a status, built on what stands there.
    #[must_use]
    pub(super) fn status(&self, before: &DriftGuardStatus) -> DriftGuardStatus {
        let mut conditions = Vec::new();
        let mut say = |of_type: ConditionType, says: &Says| {
            let old = find(before, of_type);
            let since = old
                .filter(|old| old.status == says.status)
                .map_or(Time(self.at), |old| old.last_transition_time.clone());
            conditions.push(Condition {
                type_: of_type.as_str().to_owned(),
                status: says.status.to_owned(),
                reason: says.reason.to_owned(),
                message: says.message.chars().take(MAX_MESSAGE).collect(),
                observed_generation: Some(self.generation),
                last_transition_time: since,
            });
        };
        say(ConditionType::Drifted, &self.drifted);
        if let Some(fighting) = &self.fighting {
            say(ConditionType::Fighting, fighting);
        }
        if let Some(watched) = &self.watched {
            say(ConditionType::Watched, watched);
        }
        if let Some(available) = &self.source_available {
            say(ConditionType::SourceAvailable, available);
        } else if let Some(old) = find(before, ConditionType::SourceAvailable) {
            conditions.push(old.clone());
        }
        let failures = i32::try_from(self.consecutive_failures).unwrap_or(i32::MAX);
        let mut status = DriftGuardStatus {
            conditions,
            current_hash: self.current_hash.clone(),
            hash_match: self.hash_match,
            consecutive_failures: Some(failures),
            episode: self.episode.clone(),
            alerted: self.alerted.then_some(true),
            incident: self.incident.clone(),
            heeded_restore: self.heeded_restore.clone().or_else(|| before.heeded_restore.clone()),
            restore_pending: self.restore_pending.then_some(true),
            last_checked: Some(Time(self.at)),
            last_drift: self.last_drift.clone().or_else(|| before.last_drift.clone()),
            last_remediation: self.last_remediation.clone().or_else(|| before.last_remediation.clone()),
            sources: self.sources.clone().unwrap_or_else(|| before.sources.clone()),
            equivalents: self.equivalents.clone().unwrap_or_else(|| {
                // They are signed for one generation: those of another approve nothing, whatever a reader without
                // the key makes of them.
                let drifted = find(before, ConditionType::Drifted);
                let is_same = drifted.is_none_or(|said| said.observed_generation == Some(self.generation));
                if is_same { before.equivalents.clone() } else { Vec::new() }
            }),
            last_match: self.last_match.clone().or_else(|| before.last_match.clone()),
            ..DriftGuardStatus::default()
        };
        // The time of a check alone is no news.
        let old = own(before);
        let checked = status.last_checked.take();
        status.last_checked.clone_from(&old.last_checked);
        if status != old {
            status.last_checked = checked;
        }
        status
    }
}

/// The auditor's part of a whole status.
#[must_use]
pub(super) fn own(status: &DriftGuardStatus) -> DriftGuardStatus {
    let is_own = |condition: &&Condition| COMPUTED.iter().all(|of_type| of_type.as_str() != condition.type_);
    DriftGuardStatus {
        conditions: status.conditions.iter().filter(is_own).cloned().collect(),
        observed_generation: None,
        enforcement: None,
        enforce_after_clean: None,
        resolved_target: None,
        canonical_form: None,
        ..status.clone()
    }
}

/// A condition of a status.
pub(super) fn find(status: &DriftGuardStatus, of_type: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == of_type.as_str())
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands there, or stood there already.
    Done,
    /// The guard is gone, or another one of its name has come.
    Gone,
    /// It must be tried again.
    Failed,
}

/// Reads and writes the auditor's part of statuses.
#[derive(Clone)]
pub(super) struct Statuses {
    pub(super) client: kube::Client,
    pub(super) fence: Fence,
}

impl Statuses {
    /// The status of exactly this guard as it stands; `None` when there is no such guard any more.
    ///
    /// # Errors
    /// In words, when the API server does not tell.
    pub(super) async fn read(&self, guard: &GuardId, uid: &str) -> Result<Option<DriftGuardStatus>, String> {
        let api: Api<DriftGuard> = Api::namespaced(self.client.clone(), &guard.namespace);
        // A list of one, which API servers answer like a `get`.
        let only = ListParams::default().fields(&format!("metadata.name={}", guard.name));
        let found = tokio::time::timeout(REQUEST_TIMEOUT, api.list(&only));
        let found = found.await.map_err(|_| "the API server did not answer in time".to_owned())?;
        let found = found.map_err(|error| error.to_string())?.items.into_iter();
        let same = found.into_iter().find(|found| found.metadata.uid.as_deref() == Some(uid));
        Ok(same.map(|found| found.status.unwrap_or_default()))
    }

    /// Notes that the target of a guard was seen as approved, where its status says that of this generation, and in
    /// which version where that is kept. Without `is_new` only another version is worth a write.
    ///
    /// # Errors
    /// In words, when it is not written and may be tried again.
    pub(super) async fn note(
        &self,
        guard: &GuardId,
        uid: &str,
        generation: i64,
        matched: Option<LastMatch>,
        is_new: bool,
        at: Timestamp,
    ) -> Result<(), String> {
        let api: Api<DriftGuard> = Api::namespaced(self.client.clone(), &guard.namespace);
        let only = ListParams::default().fields(&format!("metadata.name={}", guard.name));
        let found = tokio::time::timeout(REQUEST_TIMEOUT, api.list(&only));
        let found = found.await.map_err(|_| "the API server did not answer in time".to_owned())?;
        let found = found.map_err(|error| error.to_string())?.items.into_iter();
        let Some(found) = found.into_iter().find(|found| found.metadata.uid.as_deref() == Some(uid)) else {
            return Ok(());
        };
        let before = found.status.unwrap_or_default();
        let says_so = find(&before, ConditionType::Drifted)
            .is_some_and(|said| said.status == "False" && said.observed_generation == Some(generation));
        let is_said = !is_new && before.last_match == matched;
        if !says_so || before.hash_match != Some(true) || is_said {
            return Ok(());
        }
        let mut status = own(&before);
        status.last_match = matched.or(status.last_match);
        status.last_checked = Some(Time(at));
        self.fence.check().map_err(|error| error.to_string())?;
        let patch = json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "DriftGuard",
            // In that very version: what is said meanwhile must not be said back.
            "metadata": {"name": guard.name, "namespace": guard.namespace, "uid": uid,
                "resourceVersion": found.metadata.resource_version},
            "status": status,
        });
        let params = PatchParams::apply(names::AUDIT_FIELD_MANAGER).force();
        let patch = Patch::Apply(&patch);
        match tokio::time::timeout(REQUEST_TIMEOUT, api.patch_status(&guard.name, &params, &patch)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server did not take it in time".to_owned()),
        }
    }

    /// Says it, unless it is said already.
    pub(super) async fn write(&self, statement: &Statement) -> Written {
        let (guard, uid) = (&statement.guard, statement.uid.as_str());
        let failed = |error: String| {
            tracing::warn!(namespace = %guard.namespace, name = %guard.name, error, "what the audit found could not be written");
            Written::Failed
        };
        let before = match self.read(guard, uid).await {
            Ok(Some(before)) => before,
            Ok(None) => return Written::Gone,
            Err(error) => return failed(error),
        };
        let status = statement.status(&before);
        if status == own(&before) {
            return Written::Done;
        }
        if self.fence.check().is_err() {
            return Written::Failed;
        }
        let api: Api<DriftGuard> = Api::namespaced(self.client.clone(), &guard.namespace);
        let patch = json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "DriftGuard",
            // Of that very guard: what was found for one that is gone says nothing of its successor.
            "metadata": {"name": guard.name, "namespace": guard.namespace, "uid": uid},
            "status": status,
        });
        let params = PatchParams::apply(names::AUDIT_FIELD_MANAGER).force();
        let patch = Patch::Apply(&patch);
        match tokio::time::timeout(REQUEST_TIMEOUT, api.patch_status(&guard.name, &params, &patch)).await {
            Ok(Ok(_)) => Written::Done,
            // Not of a conflict: the next try reads first, and tells whether that guard is still there.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Written::Gone,
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed("the API server did not take it in time".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn statement(status: &'static str, second: i64) -> Statement {
        Statement {
            guard: GuardId { namespace: "n".into(), name: "g".into() },
            uid: "u".into(),
            generation: 3,
            drifted: Says { status, reason: "InSync", message: "as approved".into() },
            fighting: None,
            watched: None,
            current_hash: Some("h".into()),
            hash_match: Some(status == "False"),
            consecutive_failures: 0,
            episode: None,
            alerted: false,
            incident: None,
            heeded_restore: None,
            restore_pending: false,
            source_available: None,
            last_drift: None,
            last_remediation: None,
            sources: None,
            equivalents: None,
            last_match: None,
            at: at(second),
        }
    }

    #[test]
    fn the_time_of_a_check_alone_is_no_news() {
        let first = statement("False", 1).status(&DriftGuardStatus::default());
        assert_eq!(first.last_checked, Some(Time(at(1))));
        let second = statement("False", 2).status(&first);
        assert_eq!(second, first);
        let third = statement("True", 3).status(&second);
        assert_eq!(third.last_checked, Some(Time(at(3))));
        assert_eq!(third.conditions[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn a_watch_is_told_of_while_it_cannot_be_relied_upon_and_no_longer() {
        let mut missed = statement("False", 1);
        let why = "a sweep found a change".to_owned();
        missed.watched = Some(Says { status: "False", reason: "WatchMissedChange", message: why });
        let first = missed.status(&DriftGuardStatus::default());
        let said = find(&first, ConditionType::Watched).unwrap();
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "WatchMissedChange"));
        assert_eq!(own(&first), first, "it is the auditor's");
        missed.at = at(2);
        assert_eq!(missed.status(&first), first, "it is said already");
        let over = statement("False", 3).status(&first);
        assert_eq!(find(&over, ConditionType::Watched), None);
        assert_eq!(over.last_checked, Some(Time(at(3))));
    }

    #[test]
    fn what_others_say_is_neither_repeated_nor_compared() {
        let first = statement("False", 1).status(&DriftGuardStatus::default());
        let mut whole = first.clone();
        whole.observed_generation = Some(3);
        let ready = Condition { type_: "Ready".into(), ..first.conditions[0].clone() };
        whole.conditions.insert(0, ready);
        assert_eq!(own(&whole), first);
        assert_eq!(statement("False", 2).status(&whole), first);
    }

    #[test]
    fn what_is_not_said_anew_stays() {
        let mut drifted = statement("True", 1);
        drifted.sources = Some(vec![]);
        let drift = LastDrift {
            time: Time(at(1)),
            paths: vec!["/data/a".into()],
            actor: None,
            actor_source: None,
            transaction_id: Some("t".into()),
        };
        drifted.last_drift = Some(drift.clone());
        let before = drifted.status(&DriftGuardStatus::default());
        let after = statement("False", 2).status(&before);
        assert_eq!(after.last_drift, Some(drift));
    }
}
