//! What becomes of one guard by one look, or by the end of one attempt to restore.

use jiff::Timestamp;

use crate::core::guard::{Authorship, Guard};
use crate::core::hash::ContentHash;

use super::after;
use super::alert::{Alert, AlertReason};
use super::breaker::Incident;
use super::episode::{Episode, Failure};
use super::finding::{Reason, Truth};
use super::last::State;
use super::open::{Attempt, Content, Drift, Open};
use super::reading::{Found, Progress};
use super::seen::{Outcome, Seen, Terms};
use super::sight::Sight;
use super::step::{LastDrift, LastRemediation, Matched, RecordKind, RemediationResult, Step};
use super::words::{self, Hold, Next};

mod telling;

/// The group whose objects take the rights to escalate and bind to write, which we do not have.
pub const RBAC: &str = "rbac.authorization.k8s.io";
/// Most equivalents of one approved hash that are kept at a time.
const EQUIVALENTS: usize = 4;
/// After so long a restore is looked at, should no watch have told of it.
const LOOK_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// One guard while it is decided about.
pub(super) struct Course<'a> {
    pub(super) guard: &'a Guard,
    open: &'a mut Open,
    pub(super) now: Timestamp,
    pub(super) steps: Vec<Step>,
    /// How the target stands; [`State::Unseen`] when that could not be told.
    pub(super) state: State,
    drifted: Truth,
    reason: Reason,
    message: String,
    hash_match: Option<bool>,
    due: Option<Timestamp>,
    /// Whether a person has asked for the approved content to be put back.
    is_asked: bool,
}

impl<'a> Course<'a> {
    pub(super) fn new(guard: &'a Guard, open: &'a mut Open, now: Timestamp) -> Self {
        open.guard = Some(guard.id.clone());
        Self {
            guard,
            open,
            now,
            steps: Vec::new(),
            state: State::Unseen,
            drifted: Truth::Unknown,
            reason: Reason::Unreadable,
            message: String::new(),
            hash_match: None,
            due: None,
            is_asked: false,
        }
    }

    /// Heeds the request of a person to put the approved content back, or notes alone that it is done with.
    pub(super) fn heed(&mut self, asked: String, acts: bool) {
        self.is_asked = acts;
        self.open.heeded = Some(asked);
    }

    fn is_due(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The content is approved.
    pub(super) fn clean(&mut self, reason: Reason) {
        let now = self.now;
        self.settle();
        self.open.awaited = None;
        self.open.fight.calm_down(now);
        let counts_until = self.open.fight.counts_until();
        let mut calm_at = None;
        if let Some(episode) = &self.open.episode {
            let closes_at = episode.closes_at(self.open.interval);
            let fight = counts_until.filter(|_| self.open.fight.is_on());
            calm_at = Some(fight.map_or(closes_at, |until| until.max(closes_at))).filter(|at| now < *at);
            if calm_at.is_none() {
                self.close();
            }
        }
        if let Some(at) = calm_at.or(counts_until) {
            self.is_due(at);
        }
        self.state = State::Clean;
        self.says(Truth::False, reason, words::in_sync(self.guard, reason, calm_at), Some(true));
    }

    /// What is stored is approved and reads otherwise; `announcement` is for the people of the cluster.
    pub(super) fn represented(
        &mut self,
        hash: ContentHash,
        announcement: Option<String>,
        new_id: &mut dyn FnMut() -> String,
    ) {
        self.open.equivalents.push(hash);
        if self.open.equivalents.len() > EQUIVALENTS {
            self.open.equivalents.remove(0);
        }
        let reason = Reason::RepresentationChanged;
        let message = words::in_sync(self.guard, reason, None);
        self.record(RecordKind::RepresentationChanged, reason.as_str(), message, new_id(), Some(hash));
        self.equivalent(hash, announcement);
        self.clean(reason);
    }

    fn equivalent(&mut self, hash: ContentHash, announcement: Option<String>) {
        self.open.equivalent_for = Some(self.guard.generation);
        self.steps.push(Step::Equivalent { hash, announcement });
    }

    /// The content is what was approved before the guard was changed, which is no drift until then.
    pub(super) fn awaiting(&mut self, until: Timestamp, sight: &Sight) {
        if let (Some(awaited), Sight::Present(present)) = (&mut self.open.awaited, sight) {
            awaited.note(present);
        }
        self.settle();
        self.give_up();
        self.state = State::Awaiting;
        self.is_due(until);
        self.says(Truth::False, Reason::AwaitingApply, words::awaiting(self.guard, until), Some(false));
    }

    /// It is no drift any more.
    fn settle(&mut self) {
        let was_drifted = self.open.drift.take();
        self.open.trouble = None;
        self.open.incident = None;
        let Some(episode) = self.open.episode.as_mut().filter(|_| was_drifted.is_some()) else { return };
        if episode.records(self.now) {
            let id = episode.id.clone();
            let message = words::in_sync(self.guard, Reason::InSync, None);
            self.record(RecordKind::Cleared, Reason::InSync.as_str(), message, id, None);
        }
    }

    fn close(&mut self) {
        let Some(episode) = self.open.episode.take() else { return };
        let message = words::closed(self.guard, self.open.interval);
        self.record(RecordKind::Closed, Reason::InSync.as_str(), message.clone(), episode.id.clone(), None);
        if let Some(reason) = episode.alerted() {
            let alert = self.alert_of(episode.id, reason, &message);
            self.steps.push(Step::Resolve(Alert { resolved: true, ..alert }));
        }
    }

    /// The content is not approved. [`Self::decide`] says what becomes of it. Tells whether it counts as drifted
    /// anew where many guards drift at once.
    pub(super) fn drifted(
        &mut self,
        found: &Found,
        seen: &Seen<'_>,
        new_id: &mut dyn FnMut() -> String,
    ) -> bool {
        let (now, interval) = (self.now, self.open.interval);
        let is_excused = self.is_excused(seen);
        let episode = self.open.episode.get_or_insert_with(|| Episode::begin(new_id(), now));
        let failure = match found.progress {
            Progress::Begun => Failure::New,
            Progress::Changed => Failure::Changed,
            Progress::Lasting => Failure::Lasting,
        };
        if is_excused {
            episode.touch(now);
        } else {
            episode.failed(failure, interval, now);
        }
        let before = self.open.drift.as_ref();
        let is_lasting = failure == Failure::Lasting;
        let is_asked = self.is_asked || before.is_some_and(|drift| drift.is_asked && is_lasting);
        let reason = match (self.is_asked && found.is_excepted, found.content) {
            (false, _) => found.reason,
            // Whoever asks has decided what becomes of it.
            (true, Content::Absent) => Reason::Missing,
            (true, Content::Hash(_) | Content::Unknown) => Reason::ContentDiffers,
        };
        let is_news = before.is_none_or(|drift| drift.reason != reason) || failure != Failure::Lasting;
        let is_recorded = is_news && episode.records(now);
        let id = episode.id.clone();
        let details = seen.details.cloned().unwrap_or_default();
        let alert_from = match before.filter(|_| failure == Failure::Lasting) {
            Some(drift) => drift.alert_from,
            None if reason == Reason::Missing && !found.was_there => after(now, seen.context.apply_grace),
            None => now,
        };
        let counts = found.counts || before.is_some_and(|drift| drift.is_uncounted);
        let is_paused = found.is_excepted || self.guard.paused(now).is_some();
        let is_uncounted = counts && (seen.context.namespace_terminating || is_paused);
        self.open.fight.drifted(details.attribution.name(), now);
        if failure == Failure::New {
            self.steps.push(Step::CountDrift(seen.look));
        }
        if failure == Failure::New || (failure == Failure::Changed && is_recorded) {
            let (paths, attribution) = (details.paths, details.attribution);
            let transaction_id = id.clone();
            self.open.last_drift = Some(LastDrift { time: now, paths, attribution, transaction_id });
        }
        self.open.drift = Some(Drift {
            content: found.content,
            reason,
            is_excepted: found.is_excepted && !self.is_asked,
            is_asked,
            is_uncounted,
            alert_from,
        });
        self.state = if *seen.sight == Sight::Absent { State::Absent } else { State::Drifted };
        if is_recorded {
            let begun = failure == Failure::New;
            let kind = if begun { RecordKind::Drift } else { RecordKind::DriftChanged };
            let message = words::what(self.guard, reason, self.open.last_drift.as_ref());
            self.record(kind, reason.as_str(), message, id, hash_of(seen));
        }
        counts && !is_uncounted
    }

    /// Whether nobody is to be told, and nothing counts as a failed check.
    fn is_excused(&self, seen: &Seen<'_>) -> bool {
        self.guard.paused(self.now).is_some() || seen.context.namespace_terminating
    }

    /// What becomes of drift: it is put back now, later or not at all, and somebody is told or not.
    pub(super) fn decide(&mut self, seen: &Seen<'_>, remediation: bool, incident: Option<&Incident>) {
        let Some(drift) = self.open.drift.clone() else { return };
        let hold = self.hold(&drift, seen, remediation, incident);
        let is_member = incident.is_some_and(|incident| incident.drifted.contains(&self.guard.uid));
        let is_held = matches!(hold, Some(Hold::Incident { .. }));
        self.open.incident = incident.filter(|_| is_held || is_member).map(|incident| incident.id.clone());
        let next = match hold {
            Some(hold) => self.held(hold),
            None => self.put_back(),
        };
        let (last, trouble) = (self.open.last_drift.as_ref(), self.open.trouble.as_deref());
        let message = words::drifted(self.guard, drift.reason, last, &next, trouble);
        if !self.is_excused(seen) && !is_member {
            if self.now < drift.alert_from {
                self.is_due(drift.alert_from);
            }
            if let Some(reason) = self.alarming(&drift, seen.terms) {
                self.alert(reason, &message);
            }
        }
        self.says(Truth::True, drift.reason, message, Some(false));
    }

    fn give_up(&mut self) {
        if let Some(attempt) = self.open.attempt.take() {
            self.steps.push(Step::GiveUp { transaction_id: attempt.transaction_id });
        }
    }

    fn held(&mut self, hold: Hold) -> Next {
        self.give_up();
        // No watch tells of what stays as it is, nor of what holds it back.
        self.is_due(match hold {
            Hold::Paused { until } => until,
            _ => after(self.now, self.open.interval),
        });
        Next::Held(hold)
    }

    fn put_back(&mut self) -> Next {
        if let Some(attempt) = self.open.attempt.as_ref().filter(|attempt| self.now < attempt.lost_at()) {
            let lost_at = attempt.lost_at();
            self.is_due(lost_at);
            return Next::UnderWay;
        }
        self.give_up();
        if let Some(until) = self.open.fight.waits_until(self.now) {
            self.is_due(until);
            return Next::Waits(until);
        }
        let Some(episode) = &self.open.episode else { return Next::UnderWay };
        let attempt = Attempt {
            transaction_id: episode.id.clone(),
            generation: self.guard.generation,
            since: self.now,
        };
        self.is_due(attempt.lost_at());
        self.steps.push(Step::Restore { transaction_id: attempt.transaction_id.clone() });
        self.open.attempt = Some(attempt);
        Next::UnderWay
    }

    fn hold(
        &self,
        drift: &Drift,
        seen: &Seen<'_>,
        remediation: bool,
        incident: Option<&Incident>,
    ) -> Option<Hold> {
        let is_terminating = matches!(seen.sight, Sight::Present(present) if present.terminating);
        if let Some(pause) = self.guard.paused(self.now) {
            return Some(Hold::Paused { until: pause.until });
        }
        let holds = [
            (drift.is_excepted, Hold::ExceptionEnded),
            (drift.reason == Reason::DefinitionChanged, Hold::DefinitionChanged),
            (seen.context.conflict, Hold::Conflict),
            (!remediation, Hold::RemediationOff),
            (matches!(self.guard.authorship, Authorship::Unknown), Hold::AuthorUnknown),
            (self.guard.target.group == RBAC, Hold::Rbac),
            // Behind those that a person's request does not lift: the words name it.
            (!seen.terms.auto_remediate && !drift.is_asked, Hold::AutoRemediateOff),
            (seen.context.namespace_terminating, Hold::NamespaceTerminating),
            (is_terminating, Hold::Terminating),
        ];
        let held = holds.into_iter().find(|(is_so, _)| *is_so).map(|(_, hold)| hold);
        held.or_else(|| incident.map(|incident| Hold::Incident { id: incident.id.clone() }))
    }

    /// Nobody can tell how the target stands.
    pub(super) fn unreadable(&mut self, why: &str, seen: &Seen<'_>, new_id: &mut dyn FnMut() -> String) {
        let (now, interval) = (self.now, self.open.interval);
        let is_excused = self.is_excused(seen);
        let episode = self.open.episode.get_or_insert_with(|| Episode::begin(new_id(), now));
        if is_excused {
            episode.touch(now);
        } else {
            episode.failed(Failure::Lasting, interval, now);
        }
        let message = words::unreadable(self.guard, why);
        if !is_excused && self.open.failures() >= seen.terms.max_failures_before_alert.max(1) {
            self.alert(AlertReason::Unreadable, &message);
        }
        self.is_due(after(now, interval));
        self.says(Truth::Unknown, Reason::Unreadable, message, None);
    }

    /// An attempt to restore has ended. `is_member` tells that an incident speaks for the guard.
    pub(super) fn restored(&mut self, terms: Terms, outcome: &Outcome, is_member: bool) {
        let attempt = self.open.attempt.take().map(|attempt| attempt.transaction_id);
        let is_ours = attempt.is_some();
        let Some(id) = attempt.or_else(|| self.open.episode.as_ref().map(|episode| episode.id.clone()))
        else {
            return;
        };
        let now = self.now;
        match outcome {
            // Whatever stands in the way may do so for long, such as a namespace that is being deleted.
            Outcome::GivenUp if is_ours => self.open.fight.failed(now),
            Outcome::GivenUp | Outcome::NothingToDo => {}
            Outcome::Restored { source } => {
                self.open.fight.restored(now);
                self.open.trouble = None;
                let message = words::restored(self.guard, source);
                self.remember(Some(source.clone()), RemediationResult::Restored, id, message);
            }
            Outcome::NoVerifiedSource { message } => {
                self.failed(message);
                self.remember(None, RemediationResult::NoVerifiedSource, id, message.clone());
                self.tell(terms, Some(AlertReason::NoVerifiedSource), is_member);
            }
            Outcome::Failed { source, message } => {
                self.failed(message);
                self.remember(source.clone(), RemediationResult::Failed, id, message.clone());
                self.tell(terms, None, is_member);
            }
        }
        if self.open.drift.is_some() {
            let due = self.open.fight.waits_until(now).unwrap_or_else(|| after(now, LOOK_AFTER));
            self.is_due(due);
            return;
        }
        self.open.fight.calm_down(now);
        if let Some(until) = self.open.fight.counts_until() {
            self.is_due(until);
        }
    }

    fn failed(&mut self, message: &str) {
        let (now, interval) = (self.now, self.open.interval);
        self.open.fight.failed(now);
        self.open.trouble = Some(message.to_owned());
        // Approved content that somebody else has put there meanwhile is no failed check.
        if let Some(episode) = self.open.episode.as_mut().filter(|_| self.open.drift.is_some()) {
            episode.failed(Failure::New, interval, now);
        }
    }

    fn remember(&mut self, source: Option<String>, result: RemediationResult, id: String, message: String) {
        self.open.last_remediation =
            Some(LastRemediation { time: self.now, source, result, transaction_id: id.clone() });
        self.record(RecordKind::Remediation, result.as_str(), message, id, None);
    }

    /// The object as approved, of a kind that may read otherwise. Of others, such as Secrets, nothing is kept.
    fn matched(&self, seen: &Seen<'_>) -> Option<Matched> {
        let Sight::Present(present) = seen.sight else { return None };
        let is_kept = self.state == State::Clean && self.guard.scope.has_server_defaults();
        is_kept.then(|| Matched {
            uid: present.uid.clone(),
            resource_version: present.resource_version.clone(),
            hash: present.hash,
        })
    }
}

fn hash_of(seen: &Seen<'_>) -> Option<ContentHash> {
    match seen.sight {
        Sight::Present(present) => Some(present.hash),
        Sight::Absent | Sight::Unreadable(_) => None,
    }
}
