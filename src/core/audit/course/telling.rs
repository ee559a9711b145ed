//! What of a course is told: to people, in records, and in the guard's status.

use jiff::Timestamp;

use crate::core::audit::after;
use crate::core::audit::alert::{Alert, AlertReason};
use crate::core::audit::attribution::Attribution;
use crate::core::audit::finding::{Reason, Truth};
use crate::core::audit::last::State;
use crate::core::audit::open::Drift;
use crate::core::audit::seen::{Seen, Terms};
use crate::core::audit::step::{
    NOT_WATCHED, Record, RecordKind, Report, Step, Unwatched, WATCH_MISSED_CHANGE,
};
use crate::core::audit::words::{self, Next};
use crate::core::guard::Guard;
use crate::core::hash::ContentHash;

use super::{Course, hash_of};

impl Report {
    /// What is said of a guard whose target is as approved, while nothing about it is open.
    #[must_use]
    pub fn in_sync(guard: &Guard, checked_at: Timestamp) -> Self {
        Self {
            generation: guard.generation,
            drifted: Truth::False,
            reason: Reason::InSync,
            message: words::in_sync(guard, Reason::InSync, None),
            fighting: None,
            unwatched: None,
            hash_match: Some(true),
            current_hash: (!guard.scope.is_secret()).then_some(guard.expected),
            consecutive_failures: 0,
            last_drift: None,
            last_remediation: None,
            heeded_restore: None,
            restore_pending: false,
            episode: None,
            alerted: false,
            incident: None,
            checked_at,
            matched: None,
        }
    }
}

impl Course<'_> {
    /// Why somebody is to be told of drift, if anybody is.
    pub(super) fn alarming(&self, drift: &Drift, terms: Terms) -> Option<AlertReason> {
        match drift.reason {
            Reason::Missing if self.now >= drift.alert_from => return Some(AlertReason::Missing),
            Reason::BypassedAdmission => return Some(AlertReason::BypassedAdmission),
            Reason::DefinitionChanged => return Some(AlertReason::DefinitionChanged),
            _ => {}
        }
        if self.open.fight.is_on() {
            return Some(AlertReason::Fighting);
        }
        (self.open.failures() >= terms.max_failures_before_alert.max(1)).then_some(AlertReason::Drifted)
    }

    pub(super) fn alert(&mut self, reason: AlertReason, message: &str) {
        let Some(episode) = &mut self.open.episode else { return };
        if episode.alert(reason) {
            let id = episode.id.clone();
            let alert = self.alert_of(id, reason, message);
            self.steps.push(Step::Alert(alert));
        }
    }

    pub(super) fn alert_of(&self, episode: String, reason: AlertReason, message: &str) -> Alert {
        let last = self.open.last_drift.as_ref();
        Alert {
            episode,
            guard: self.guard.id.clone(),
            guard_uid: self.guard.uid.as_str().to_owned(),
            target: self.guard.target.clone(),
            reason,
            resolved: false,
            message: words::alert(self.guard, message),
            paths: last.map(|last| last.paths.clone()).unwrap_or_default(),
            actor: last.and_then(|last| last.attribution.actor()),
            at: self.now,
        }
    }

    /// Tells somebody that an attempt has failed.
    pub(super) fn tell(&mut self, terms: Terms, reason: Option<AlertReason>, is_member: bool) {
        if is_member || self.guard.paused(self.now).is_some() {
            return;
        }
        let Some(drift) = self.open.drift.clone() else { return };
        let Some(reason) = reason.or_else(|| self.alarming(&drift, terms)) else { return };
        let next = self.waits();
        let (last, trouble) = (self.open.last_drift.as_ref(), self.open.trouble.as_deref());
        let message = words::drifted(self.guard, drift.reason, last, &next, trouble);
        self.alert(reason, &message);
    }

    fn waits(&self) -> Next {
        self.open.fight.waits_until(self.now).map_or(Next::UnderWay, Next::Waits)
    }

    pub(super) fn says(&mut self, drifted: Truth, reason: Reason, message: String, hash_match: Option<bool>) {
        (self.drifted, self.reason, self.message, self.hash_match) = (drifted, reason, message, hash_match);
    }

    pub(super) fn record(
        &mut self,
        kind: RecordKind,
        reason: &'static str,
        message: String,
        transaction_id: String,
        hash: Option<ContentHash>,
    ) {
        let last = self.open.last_drift.as_ref();
        let (paths, attribution) = match kind {
            RecordKind::RepresentationChanged => (Vec::new(), Attribution::default()),
            _ => last.map(|last| (last.paths.clone(), last.attribution.clone())).unwrap_or_default(),
        };
        let hash = hash.filter(|_| !self.guard.scope.is_secret());
        self.steps.push(Step::Record(Record {
            kind,
            reason,
            message,
            transaction_id,
            paths,
            attribution,
            hash,
        }));
    }

    /// All that follows from a look, and when the guard is due next. `is_news` tells that even a calm
    /// guard has something to say.
    pub(in crate::core::audit) fn end(
        mut self,
        seen: &Seen<'_>,
        is_news: bool,
    ) -> (Vec<Step>, Option<Timestamp>) {
        if self.state == State::Clean
            && let Some(until) = hash_of(seen).and_then(|hash| approved_until(self.guard, hash))
        {
            self.is_due(until);
        }
        if self.state == State::Clean
            && self.open.equivalent_for != Some(self.guard.generation)
            && let Some(hash) = hash_of(seen).filter(|hash| self.open.equivalents.contains(hash))
        {
            self.equivalent(hash, None);
        }
        if self.open.is_unwatched {
            self.is_due(after(self.now, self.open.interval));
        }
        if let Some(until) = self.open.missed_until() {
            self.is_due(until);
        }
        if is_news || self.open.said.is_some() || !self.open.is_idle() || !self.steps.is_empty() {
            let report = Report {
                generation: self.guard.generation,
                drifted: self.drifted,
                reason: self.reason,
                message: std::mem::take(&mut self.message),
                hash_match: self.hash_match,
                current_hash: hash_of(seen).filter(|_| !self.guard.scope.is_secret()),
                checked_at: self.now,
                matched: self.matched(seen),
                ..self.kept()
            };
            self.report(report);
        }
        (self.steps, self.due)
    }

    /// All that follows from the end of an attempt, and when the guard is due next if that has changed.
    pub(in crate::core::audit) fn end_of_attempt(mut self) -> (Vec<Step>, Option<Timestamp>) {
        if let Some(said) = self.open.said.clone() {
            let mut report = Report {
                generation: said.generation,
                drifted: said.drifted,
                reason: said.reason,
                message: said.message,
                hash_match: said.hash_match,
                current_hash: said.current_hash,
                checked_at: said.checked_at,
                matched: said.matched,
                unwatched: said.unwatched,
                ..self.kept()
            };
            if let Some(drift) = self.open.drift.as_ref().filter(|_| self.open.trouble.is_some()) {
                let (last, trouble) = (self.open.last_drift.as_ref(), self.open.trouble.as_deref());
                report.message = words::drifted(self.guard, drift.reason, last, &self.waits(), trouble);
            }
            self.report(report);
        }
        (self.steps, self.due)
    }

    /// What a report says beyond the look itself.
    fn kept(&self) -> Report {
        Report {
            generation: self.guard.generation,
            drifted: self.drifted,
            reason: self.reason,
            message: String::new(),
            fighting: self.open.fight.is_on().then(|| words::fighting(self.guard, self.open.fight.rival())),
            unwatched: self.unwatched(),
            hash_match: None,
            current_hash: None,
            consecutive_failures: self.open.failures(),
            last_drift: self.open.last_drift.clone(),
            last_remediation: self.open.last_remediation.clone(),
            heeded_restore: self.open.heeded.clone(),
            restore_pending: self.open.drift.as_ref().is_some_and(|drift| drift.is_asked),
            episode: self.open.episode.as_ref().map(|episode| episode.id.clone()),
            alerted: self.open.episode.as_ref().is_some_and(|episode| episode.alerted().is_some()),
            incident: self.open.incident.clone(),
            checked_at: self.now,
            matched: None,
        }
    }

    /// Why no watch can be relied upon. Of what cannot be read at all the look itself says more.
    fn unwatched(&self) -> Option<Unwatched> {
        let (guard, interval) = (self.guard, self.open.interval);
        if self.open.is_unwatched && self.drifted != Truth::Unknown {
            return Some(Unwatched { reason: NOT_WATCHED, message: words::not_watched(guard, interval) });
        }
        self.open.missed_at?;
        Some(Unwatched { reason: WATCH_MISSED_CHANGE, message: words::missed(guard, interval) })
    }

    fn report(&mut self, report: Report) {
        if self.open.said.as_ref().is_none_or(|said| !said.says(&report)) {
            self.open.said = Some(report.clone());
            self.steps.push(Step::Report(Box::new(report)));
        }
    }
}

/// When the approval of a hash ends, if it does.
fn approved_until(guard: &Guard, hash: ContentHash) -> Option<Timestamp> {
    let mut ends = None;
    for also in guard.also_approved.iter().filter(|also| also.hash == hash && hash != guard.expected) {
        ends = Some(also.until?.max(ends.unwrap_or(Timestamp::MIN)));
    }
    ends
}
