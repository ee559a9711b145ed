//! Verdicts in words for the API server, in the trail, in Events and in metrics.

use std::sync::PoisonError;
use std::time::Instant;

use http::StatusCode;
use jiff::Timestamp;

use super::judging::{Judged, is_dry_run};
use super::{Asked, Reply, Reviews};
use crate::control::proof;
use crate::core::breakglass;
use crate::core::guard::{Enforcement, FailurePolicy, GuardState};
use crate::core::verdict::{Attempt, Judgement, Reason, ReviewError, Unguarded, Verdict};
use crate::telemetry::traces;
use crate::trail::record::{Circumstances, Record, new_transaction_id};
use crate::webhook::notes::Notes;
use crate::webhook::response;

/// Longest text of an attempt that is kept, in bytes. A forged review may hold megabytes.
const MAX_TEXT: usize = 512;
/// What a live read that failed is recorded as.
const GUARDS_UNREAD: &str = "GuardsUnread";
/// What a review that cannot be read is recorded as.
pub(super) const UNDECODABLE: &str = "Undecodable";

impl Reviews {
    /// Counts a request that got no answer.
    pub(in crate::webhook) fn unanswered(&self, reason: &'static str, asked: Asked) {
        self.count("unanswered", reason, asked);
    }

    /// Whether something may be logged as an error and counted as one: always when clients are known, else
    /// at a bounded rate.
    pub(in crate::webhook) fn may_alarm(&self) -> bool {
        self.authenticated || self.alarms.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    /// Counts a write to the definition of a guarded kind.
    pub(in crate::webhook) fn count_definition(&self, result: &'static str) {
        self.metrics.definition_change(result);
    }

    pub(in crate::webhook) fn count(&self, verdict: &'static str, reason: &'static str, asked: Asked) {
        self.metrics.review(verdict, reason, asked.since.elapsed());
        traces::judged(verdict, reason);
    }

    pub(super) fn answer(&self, judgement: Judgement, asked: Asked, now: Timestamp) -> Reply {
        let Judgement { uid, verdict, proof } = judgement;
        let verdict = if asked.is_broken() { breakglass::pass(verdict) } else { verdict };
        let mut warnings = proof
            .map_or_else(Vec::new, |proof| proof::warnings(&proof, &self.replica, asked.route.generation));
        match verdict {
            Verdict::Allow => self.count("allow", "Approved", asked),
            Verdict::NotGuarded(_) => self.count("allow", "NotGuarded", asked),
            // The question was answered; were it not, what is not known must not pass for approved.
            Verdict::Ask(_) => {
                self.count("unanswered", "Unsettled", asked);
                return Reply::Failed(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "DriftGuard failed: a bug, see its log",
                );
            }
            Verdict::AllowWith { warnings: words, attempts } => {
                let reason = attempts.first().map_or("Approved", |attempt| attempt.reason.as_str());
                let verdict = if words.is_empty() { "audit" } else { "warn" };
                self.count(verdict, reason, asked);
                self.note_would_denies(&attempts, now);
                let message = words.first().map_or("", String::as_str);
                let mut notes = Notes::of(verdict, reason);
                for attempt in attempts {
                    self.tell(attempt, false, message, &uid, now, &mut notes);
                }
                warnings.extend(words);
                return Reply::Review(response::allow_noted(&uid, &warnings, &notes));
            }
            Verdict::Deny { message, attempt } => {
                let reason = attempt.reason.as_str();
                self.count("deny", reason, asked);
                self.note_would_denies(std::slice::from_ref(&*attempt), now);
                let mut notes = Notes::of("deny", reason);
                self.tell(*attempt, true, &message, &uid, now, &mut notes);
                return Reply::Review(response::deny(&uid, &message, &warnings, &notes));
            }
        }
        Reply::Review(response::allow(&uid, &warnings))
    }

    /// Records an attempt and makes an Event of it; a dry run is neither. Notes which guard it was, and which
    /// record.
    pub(in crate::webhook) fn tell(
        &self,
        mut attempt: Attempt,
        denied: bool,
        message: &str,
        uid: &str,
        now: Timestamp,
        notes: &mut Notes,
    ) {
        if attempt.dry_run {
            notes.note(&attempt.guard, None);
            return;
        }
        bound(&mut attempt);
        self.observed.note(&attempt, !denied, self.authenticated, now);
        self.events.offer(&attempt, denied);
        let circumstances = self.circumstances(denied, message, uid, now);
        notes.note(&attempt.guard, Some(&circumstances.transaction_id));
        self.records.put(&Record::of(&attempt, circumstances));
    }

    /// Makes an Event of an attempt that is recorded once for several guards.
    pub(in crate::webhook) fn event(&self, mut attempt: Attempt, denied: bool) {
        bound(&mut attempt);
        self.events.offer(&attempt, denied);
    }

    /// Notes what keeps `Audit` guards of a target from being promoted. Of all of them, since a refusal
    /// names but one; a dry run is no attempt.
    pub(in crate::webhook) fn note_would_denies(&self, attempts: &[Attempt], now: Timestamp) {
        let would_deny = |attempt: &&Attempt| {
            !attempt.dry_run && !matches!(attempt.reason, Reason::AlreadyDrifted | Reason::TargetDeleted)
        };
        let Some(first) = attempts.iter().find(would_deny) else { return };
        for attempt in attempts.iter().filter(would_deny) {
            if attempt.enforcement == Some(Enforcement::Audit) {
                self.would_denies.note(&attempt.guard_uid, now);
            }
        }
        for state in self.guards.index().guards_of(&first.target) {
            if let GuardState::Valid(guard) = state
                && guard.enforcement == Enforcement::Audit
            {
                self.would_denies.note(&guard.uid, now);
            }
        }
    }

    pub(super) fn circumstances<'a>(
        &'a self,
        denied: bool,
        message: &'a str,
        review_uid: &'a str,
        time: Timestamp,
    ) -> Circumstances<'a> {
        Circumstances {
            transaction_id: new_transaction_id(),
            time,
            denied,
            review_uid,
            replica: &self.replica,
            authenticated: self.authenticated,
            message,
        }
    }

    pub(super) fn unjudged(&self, judged: Judged, asked: Asked, now: Timestamp) -> Reply {
        match judged {
            Judged::Unreadable(error) => self.undecodable(&error, asked, now),
            Judged::Panicked | Judged::Verdict(_) => {
                self.count("unanswered", "Panic", asked);
                Reply::Failed(StatusCode::INTERNAL_SERVER_ERROR, "DriftGuard failed: a bug, see its log")
            }
        }
    }

    pub(super) fn undecodable(&self, error: &ReviewError, asked: Asked, now: Timestamp) -> Reply {
        let Some(uid) = &error.uid else {
            self.count("unanswered", UNDECODABLE, asked);
            return Reply::Failed(StatusCode::BAD_REQUEST, "this is no admission review");
        };
        let denied = !asked.is_broken();
        let verdict = if denied { "deny" } else { "warn" };
        self.count(verdict, UNDECODABLE, asked);
        let message = if denied {
            format!("DriftGuard refuses a write that it cannot read: {}", error.message)
        } else {
            format!(
                "DriftGuard cannot read this write, which passes since the glass is broken: {}",
                error.message
            )
        };
        let circumstances = self.circumstances(denied, &message, uid, now);
        let mut notes = Notes::of(verdict, UNDECODABLE);
        notes.record(Some(&circumstances.transaction_id));
        self.records.put(&Record::unjudged(UNDECODABLE, None, circumstances));
        Reply::Review(if denied {
            response::deny(uid, &message, &[], &notes)
        } else {
            response::allow_noted(uid, &[message], &notes)
        })
    }

    /// The guards of an object are not known: refuse where the failure policy says so.
    pub(super) fn unread(
        &self,
        judgement: &Judgement,
        object: &Unguarded,
        body: &[u8],
        asked: Asked,
        now: Timestamp,
    ) -> Reply {
        let denied = asked.route.failure_policy == FailurePolicy::Fail;
        let verdict = if denied { "deny" } else { "warn" };
        self.count(verdict, GUARDS_UNREAD, asked);
        let mut notes = Notes::of(verdict, GUARDS_UNREAD);
        let message = if denied {
            "DriftGuard cannot tell whether this object is guarded, since its guards could not be read \
             in time; try again"
        } else {
            "DriftGuard could not read its guards in time, so this write passed unchecked"
        };
        if !is_dry_run(body) {
            let circumstances = self.circumstances(denied, message, &judgement.uid, now);
            notes.record(Some(&circumstances.transaction_id));
            self.records.put(&Record::unjudged(GUARDS_UNREAD, Some(object), circumstances));
        }
        if denied {
            Reply::Review(response::deny(&judgement.uid, message, &[], &notes))
        } else {
            Reply::Review(response::allow_noted(&judgement.uid, &[message.to_owned()], &notes))
        }
    }
}

/// Cuts what a forged review could make large; names of guard and target are from the guard.
pub(super) fn bound(attempt: &mut Attempt) {
    let user = &mut attempt.user;
    let texts = [
        &mut user.name,
        &mut user.uid,
        &mut attempt.field_manager,
        &mut attempt.sub_resource,
        &mut attempt.target_uid,
    ];
    for text in texts.into_iter().chain(&mut user.groups).chain(&mut attempt.paths) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
