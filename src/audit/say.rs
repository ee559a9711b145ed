//! From what the book reports to what the status of a guard says.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::status::{ActorSource, Equivalent, LastDrift, LastMatch, LastRemediation, SourceStatus};
use crate::api::{RemediationResult, SourceResult as ApiSourceResult};
use crate::core::audit::attribution::Attribution;
use crate::core::audit::book::{self, Report};
use crate::core::audit::equivalent;
use crate::core::audit::finding::{Reason, Truth};
use crate::core::guard::Guard;
use crate::core::hash::ContentHash;
use crate::core::signature::SigningKey;
use crate::sources::{CANNOT_DRY_RUN, SourceReport, SourceResult};
use crate::telemetry::metrics::Troubled;

use super::last_match;
use super::remediation::{Attempted, Outcome};
use super::status::{Says, Statement};

/// Condition SourceAvailable is true: a source has the approved content.
const VERIFIED: &str = "Verified";
/// It is false: no source has it.
const NO_VERIFIED_SOURCE: &str = "NoVerifiedSource";
/// Condition Fighting is true: somebody keeps undoing what is put back.
const REMEDIATION_UNDONE: &str = "RemediationUndone";
/// Longest text of one source in a status, in characters.
const MAX_TEXT: usize = 1024;

/// What is said of a guard, all of it: a statement that takes the place of one which was not written yet must
/// say what that one would have said.
#[derive(Debug, Clone)]
pub(super) struct Told {
    guard: Arc<Guard>,
    report: Report,
    /// What each source said, with when it was asked.
    sources: Option<Vec<SourceStatus>>,
    available: Option<Says>,
    equivalents: Option<Vec<Equivalent>>,
    last_match: Option<LastMatch>,
}

impl Told {
    /// A report that takes the place of an earlier one.
    pub(super) fn of(guard: &Arc<Guard>, mut report: Report, before: Option<Self>) -> Self {
        let (mut sources, mut available, mut equivalents, mut last_match) = (None, None, None, None);
        if let Some(before) = before {
            report.last_drift = report.last_drift.or(before.report.last_drift);
            report.last_remediation = report.last_remediation.or(before.report.last_remediation);
            report.heeded_restore = report.heeded_restore.or(before.report.heeded_restore);
            (sources, available) = (before.sources, before.available);
            equivalents = before.equivalents.filter(|_| before.report.generation == report.generation);
            last_match = before.last_match;
        }
        Self { guard: Arc::clone(guard), report, sources, available, equivalents, last_match }
    }

    /// The same in few bytes, where it is what anybody could say who knows the guard and the time. Not what the book
    /// found, which [`Self::matched`] has noted by now.
    pub(super) fn brief(&self) -> Option<Brief> {
        let Self { guard, report, sources, available, equivalents, last_match } = self;
        let is_more = sources.is_some() || available.is_some() || equivalents.is_some();
        let plain = Report { matched: report.matched.clone(), ..Report::in_sync(guard, report.checked_at) };
        (!is_more && *report == plain).then(|| Brief {
            guard: Arc::clone(guard),
            at: report.checked_at,
            last_match: last_match.clone().map(Box::new),
        })
    }

    /// Notes what the sources said that were asked at `now`; none were where there are no reports.
    pub(super) fn asked(&mut self, reports: &[SourceReport], now: Timestamp) {
        if !reports.is_empty() {
            self.available = Some(available(reports));
            self.sources = Some(reports.iter().map(|report| source(report, now)).collect());
        }
    }

    /// Whether there is nothing that a later report would need.
    pub(super) fn is_calm(&self) -> bool {
        let report = &self.report;
        report.drifted == Truth::False
            && report.consecutive_failures == 0
            && report.fighting.is_none()
            && report.unwatched.is_none()
    }

    /// Counts the guard where it is in trouble.
    pub(super) fn count(&self, troubled: &mut Troubled) {
        let report = &self.report;
        troubled.drifted += usize::from(report.drifted == Truth::True);
        troubled.fighting += usize::from(report.fighting.is_some());
        troubled.unreadable += usize::from(report.reason == Reason::Unreadable);
        troubled.stopped += usize::from(report.incident.is_some());
        let remediation = report.last_remediation.as_ref();
        let has_no_source =
            remediation.is_some_and(|last| last.result == book::RemediationResult::NoVerifiedSource);
        troubled.sourceless += usize::from(report.drifted == Truth::True && has_no_source);
    }

    /// Adds a hash as which the API server now reads the approved content.
    pub(super) fn equivalent(&mut self, key: &SigningKey, guard: &Guard, hash: ContentHash, version: &str) {
        let signature = equivalent::sign(key, &guard.uid, guard.generation, guard.expected, hash);
        let one = Equivalent { hash: hash.to_string(), server_version: version.to_owned(), signature };
        // The newest alone: a server that was replaced twice reads by the newer version.
        self.equivalents = Some(vec![one]);
    }

    /// Notes, by a signature, the version in which the target was found as approved, if it was and is of a
    /// kind of which that is kept.
    pub(super) fn matched(&mut self, key: &SigningKey, guard: &Guard, version: &str) {
        if let Some(matched) = self.report.matched.as_ref().filter(|_| !version.is_empty()) {
            self.last_match = Some(last_match::noted(key, guard, matched, version));
        }
    }

    /// What is to stand in the status.
    pub(super) fn statement(&self) -> Statement {
        let report = &self.report;
        Statement {
            guard: self.guard.id.clone(),
            uid: (&self.guard.uid).into(),
            generation: report.generation,
            drifted: Says {
                status: report.drifted.as_str(),
                reason: report.reason.as_str(),
                message: report.message.clone(),
            },
            fighting: report.fighting.as_ref().map(|message| Says {
                status: "True",
                reason: REMEDIATION_UNDONE,
                message: message.clone(),
            }),
            watched: report.unwatched.as_ref().map(|why| Says {
                status: "False",
                reason: why.reason,
                message: why.message.clone(),
            }),
            current_hash: report.current_hash.map(|hash| hash.to_string()),
            hash_match: report.hash_match,
            consecutive_failures: report.consecutive_failures,
            episode: report.episode.clone(),
            alerted: report.alerted,
            incident: report.incident.clone(),
            heeded_restore: report.heeded_restore.clone(),
            restore_pending: report.restore_pending,
            source_available: self.available.clone(),
            last_drift: report.last_drift.as_ref().map(last_drift),
            last_remediation: report.last_remediation.as_ref().map(last_remediation),
            sources: self.sources.clone(),
            equivalents: self.equivalents.clone(),
            last_match: self.last_match.clone(),
            at: report.checked_at,
        }
    }
}

/// That the target of a guard is as approved, and nothing more.
#[derive(Debug)]
pub(super) struct Brief {
    guard: Arc<Guard>,
    at: Timestamp,
    last_match: Option<Box<LastMatch>>,
}

impl From<&Brief> for Told {
    fn from(brief: &Brief) -> Self {
        let report = Report::in_sync(&brief.guard, brief.at);
        Self { last_match: brief.last_match.as_deref().cloned(), ..Self::of(&brief.guard, report, None) }
    }
}

/// Whether a source has the approved content.
fn available(reports: &[SourceReport]) -> Says {
    if let Some(found) = reports.iter().find(|report| report.result == SourceResult::Matched) {
        let message = format!("{} has the approved content", found.source);
        return Says { status: "True", reason: VERIFIED, message };
    }
    let said = sentences(reports);
    if reports.iter().any(|report| report.reason == CANNOT_DRY_RUN) {
        return Says { status: "Unknown", reason: CANNOT_DRY_RUN, message: said };
    }
    let message = format!("no source has the approved content, so nothing could be put back: {said}");
    Says { status: "False", reason: NO_VERIFIED_SOURCE, message }
}

fn sentences(reports: &[SourceReport]) -> String {
    let one = |report: &SourceReport| format!("{}: {}", report.source, report.sentence);
    reports.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn source(report: &SourceReport, now: Timestamp) -> SourceStatus {
    let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
    SourceStatus {
        source: cut(&report.source),
        result: match report.result {
            SourceResult::Matched => ApiSourceResult::Matched,
            SourceResult::Mismatch => ApiSourceResult::Mismatch,
            SourceResult::Unavailable => ApiSourceResult::Unavailable,
            SourceResult::Forbidden => ApiSourceResult::Forbidden,
            SourceResult::Invalid => ApiSourceResult::Invalid,
        },
        message: cut(&report.sentence),
        time: Time(now),
    }
}

fn last_drift(drift: &book::LastDrift) -> LastDrift {
    let (actor, actor_source) = actor(&drift.attribution);
    LastDrift {
        time: Time(drift.time),
        paths: drift.paths.clone(),
        actor: actor.map(|actor| actor.chars().take(MAX_TEXT).collect()),
        actor_source,
        transaction_id: Some(drift.transaction_id.clone()),
    }
}

/// Who did it, when that is known, and how.
pub(super) fn actor(attribution: &Attribution) -> (Option<String>, Option<ActorSource>) {
    match attribution {
        Attribution::ObservedAtAdmission { user, allowed: true, .. } => {
            (Some(user.clone()), Some(ActorSource::Admission))
        }
        // Refused to that user, it came otherwise: by whom is not known.
        Attribution::ObservedAtAdmission { .. } => (None, None),
        Attribution::FieldManager { manager, .. } => {
            (Some(manager.clone()), Some(ActorSource::ManagedFields))
        }
        Attribution::Unknown { .. } => (None, None),
    }
}

fn last_remediation(attempt: &book::LastRemediation) -> LastRemediation {
    LastRemediation {
        time: Time(attempt.time),
        source: attempt.source.as_ref().map(|source| source.chars().take(512).collect()),
        result: match attempt.result {
            book::RemediationResult::Restored => RemediationResult::Restored,
            book::RemediationResult::NoVerifiedSource => RemediationResult::NoVerifiedSource,
            book::RemediationResult::Failed => RemediationResult::Failed,
        },
        transaction_id: Some(attempt.transaction_id.clone()),
    }
}

/// What the book is told of an attempt to restore.
pub(super) fn outcome(attempted: &Attempted) -> book::Outcome {
    match &attempted.outcome {
        Outcome::Restored { source } => book::Outcome::Restored { source: source.clone() },
        Outcome::AlreadyRight => book::Outcome::NothingToDo,
        Outcome::NoVerifiedSource if attempted.sources.is_empty() => book::Outcome::NoVerifiedSource {
            message: "the guard names no source, and nothing was seen live that could be put back".into(),
        },
        Outcome::NoVerifiedSource => {
            book::Outcome::NoVerifiedSource { message: sentences(&attempted.sources) }
        }
        // Nothing is written where all is being deleted, which is no failure; nor is it one that somebody else
        // is faster.
        Outcome::GivenUp(_) | Outcome::Terminating | Outcome::Overtaken => book::Outcome::GivenUp,
        Outcome::NotAllowed(message) | Outcome::Failed(message) => {
            book::Outcome::Failed { source: None, message: message.clone() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_somebody_else_was_faster_is_no_failure() {
        let overtaken = Attempted { outcome: Outcome::Overtaken, sources: Vec::new() };
        assert_eq!(outcome(&overtaken), book::Outcome::GivenUp);
    }

    fn source_report(result: SourceResult, reason: &'static str) -> SourceReport {
        SourceReport {
            source: "configmap team/approved".into(),
            result,
            reason,
            sentence: "its content is not what is approved".into(),
        }
    }

    #[test]
    fn whoever_was_refused_is_not_named_for_what_came_otherwise() {
        let seen = |allowed| Attribution::ObservedAtAdmission {
            user: "alice".into(),
            manager: "kubectl-edit".into(),
            at: Timestamp::UNIX_EPOCH,
            allowed,
        };
        assert_eq!(actor(&seen(true)), (Some("alice".into()), Some(ActorSource::Admission)));
        assert_eq!(actor(&seen(false)), (None, None));
    }

    #[test]
    fn one_source_that_matches_is_enough() {
        let reports = [
            source_report(SourceResult::Mismatch, "HashMismatch"),
            source_report(SourceResult::Matched, "Verified"),
        ];
        let says = available(&reports);
        assert_eq!((says.status, says.reason), ("True", VERIFIED));
        assert_eq!(says.message, "configmap team/approved has the approved content");
    }

    #[test]
    fn without_any_each_is_named_with_what_it_said() {
        let says = available(&[source_report(SourceResult::Mismatch, "HashMismatch")]);
        assert_eq!((says.status, says.reason), ("False", NO_VERIFIED_SOURCE));
        assert!(says.message.ends_with("configmap team/approved: its content is not what is approved"));
    }

    #[test]
    fn content_that_could_not_be_tried_leaves_it_open() {
        let says = available(&[source_report(SourceResult::Unavailable, CANNOT_DRY_RUN)]);
        assert_eq!((says.status, says.reason), ("Unknown", CANNOT_DRY_RUN));
    }

    fn report(last_remediation: Option<book::LastRemediation>) -> Report {
        Report {
            generation: 1,
            drifted: Truth::False,
            reason: Reason::InSync,
            message: "as approved".into(),
            fighting: None,
            unwatched: None,
            hash_match: Some(true),
            current_hash: None,
            consecutive_failures: 0,
            last_drift: None,
            last_remediation,
            heeded_restore: None,
            restore_pending: false,
            episode: None,
            alerted: false,
            incident: None,
            checked_at: Timestamp::UNIX_EPOCH,
            matched: None,
        }
    }

    #[test]
    fn what_was_not_written_yet_is_said_by_the_statement_that_takes_its_place() {
        let guard = Arc::new(crate::audit::watch::test_support::guard("g", Some("n"), "x"));
        let told = |report, before| Told::of(&guard, report, before);
        let restored = book::LastRemediation {
            time: Timestamp::UNIX_EPOCH,
            source: Some("configmap n/approved".into()),
            result: book::RemediationResult::Restored,
            transaction_id: "t".into(),
        };
        let mut first = told(report(Some(restored)), None);
        first.asked(&[source_report(SourceResult::Matched, "Matched")], Timestamp::UNIX_EPOCH);
        let second = told(report(None), Some(first)).statement();
        assert_eq!(second.last_remediation.map(|last| last.result), Some(RemediationResult::Restored));
        assert_eq!(second.source_available.map(|says| says.status), Some("True"));
        assert_eq!(second.sources.map(|sources| sources.len()), Some(1));
    }
}
