//! Does what the book has decided.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::audit::remediation::{Attempted, Attempting, Job, Outcome, Prepared};
use crate::audit::say::Told;
use crate::core::audit::book::{Step, Terms};
use crate::core::guard::Guard;
use crate::core::text::Text;
use crate::sources::SourceReport;
use crate::telemetry::metrics::Restored;
use crate::telemetry::traces;

use super::{Ended, Leading, NO_TERMS, spec, valid};

/// How long drift is kept from its guard's status while it is put back: mostly one status then tells of both.
const RESTORED_FIRST: Duration = Duration::from_secs(1);

/// An attempt to restore that runs.
pub(super) struct Attempt {
    /// Tells it from another one of the same transaction.
    pub(super) number: u64,
    pub(super) begun: Instant,
    /// The uid of its guard.
    pub(super) guard_uid: Text,
    pub(super) state: Arc<Attempting>,
}

/// What is known beside the steps that are taken.
#[derive(Default)]
pub(super) struct Beside<'a> {
    /// What sources have answered.
    pub(super) sources: Option<&'a [SourceReport]>,
    /// What an attempt to restore need not ask again.
    pub(super) prepared: Option<Prepared>,
}

impl Leading<'_> {
    /// Steps of guards that are named by uid alone.
    pub(super) fn take_all(&mut self, steps: Vec<(Text, Step)>) {
        if steps.is_empty() {
            return;
        }
        let mut by_uid: HashMap<Text, Vec<Step>> = HashMap::new();
        for (uid, step) in steps {
            by_uid.entry(uid).or_default().push(step);
        }
        let observation = Arc::clone(&self.observation);
        for seen in &observation.guards {
            if let Some(steps) = by_uid.remove(seen.stored.uid())
                && let Some(guard) = valid(&seen.state)
            {
                self.take(guard, steps, Beside::default());
            }
        }
        // That of a guard which is gone is over all the same.
        for step in by_uid.into_values().flatten() {
            if let Step::Alert(alert) | Step::Resolve(alert) = step {
                self.auditor.telling.alert(&alert);
            }
        }
    }

    /// Does what the book has decided about a guard, in its order.
    pub(super) fn take(&mut self, guard: &Arc<Guard>, steps: Vec<Step>, beside: Beside<'_>) {
        let Beside { sources, mut prepared } = beside;
        let mut said = false;
        let restores = steps.iter().any(|step| matches!(step, Step::Restore { .. }));
        let mut equivalents = Vec::new();
        for step in steps {
            match step {
                Step::Report(report) => {
                    said = true;
                    self.is_news = true;
                    let (key, version) = (self.auditor.keys.borrow(), &self.version.0);
                    self.saying.tell(&guard.uid, |before| {
                        let mut told = Told::of(guard, *report, before);
                        if let Some(key) = key.as_ref() {
                            told.matched(key, guard, version);
                        }
                        told
                    });
                }
                Step::Restore { transaction_id } => self.restore(guard, transaction_id, prepared.take()),
                Step::GiveUp { transaction_id } => {
                    if let Some(attempt) = self.attempts.get(&transaction_id) {
                        attempt.state.give_up();
                    }
                }
                Step::Alert(alert) | Step::Resolve(alert) => self.auditor.telling.alert(&alert),
                Step::Record(record) => {
                    let terms = self.job(guard).map_or(NO_TERMS, |(_, terms)| terms);
                    let (asked, now) = (sources.unwrap_or_default(), Timestamp::now());
                    self.auditor.telling.record(guard, terms, &record, asked, now);
                }
                Step::CountDrift(look) => self.auditor.metrics.audit.drift(look.as_str()),
                Step::Look => self.looks.join(guard),
                Step::Equivalent { hash, announcement } => {
                    if let Some(announcement) = &announcement {
                        self.auditor.telling.announce(guard, announcement);
                    }
                    // Of a Secret no hash stands in a status.
                    equivalents.extend(Some(hash).filter(|_| !guard.scope.is_secret()));
                }
            }
        }
        // Behind all reports: what is kept of a guard begins with its first one.
        if let Some(reports) = sources.filter(|reports| !reports.is_empty()) {
            said |= self.saying.add(&guard.uid, |told| told.asked(reports, Timestamp::now()));
        }
        if let (false, Some(key)) = (equivalents.is_empty(), self.auditor.keys.borrow().as_ref()) {
            said |= self.saying.add(&guard.uid, |told| {
                for hash in equivalents {
                    told.equivalent(key, guard, hash, &self.version.0);
                }
            });
        }
        match (said, restores) {
            (false, _) => {}
            // To write a status costs an API server more than to restore does.
            (true, true) => self.saying.say_at(&guard.uid, Instant::now() + RESTORED_FIRST),
            (true, false) => self.saying.say(&guard.uid),
        }
    }

    fn job(&self, guard: &Arc<Guard>) -> Option<(Job, Terms)> {
        let (spec, terms) = spec(self.observation.guard(&guard.id)?)?;
        Some((Job { guard: Arc::clone(guard), spec: Arc::new(spec) }, terms))
    }

    fn restore(&mut self, guard: &Arc<Guard>, transaction_id: String, prepared: Option<Prepared>) {
        let Some((job, terms)) = self.job(guard) else { return };
        let (remediation, restores) = (Arc::clone(&self.remediation), Arc::clone(&self.restores));
        let state = Arc::new(Attempting::default());
        self.numbers += 1;
        let number = self.numbers;
        let guard_uid = guard.uid.clone();
        let attempt = Attempt { number, begun: Instant::now(), guard_uid, state: Arc::clone(&state) };
        if let Some(before) = self.attempts.insert(transaction_id.clone(), attempt) {
            before.state.give_up();
        }
        self.auditor.metrics.audit.queue(self.attempts.len());
        let turn = restores.turn_now(&job.guard.id.namespace);
        // Nor need whole objects be held for those that wait for a turn.
        let prepared = prepared.filter(|_| turn.is_some());
        let ended = move |guard, transaction_id, attempted| Ended::Restored {
            guard,
            terms,
            transaction_id,
            number,
            attempted,
        };
        let failed = Attempted {
            outcome: Outcome::Failed("it failed within DriftGuard".to_owned()),
            sources: Vec::new(),
        };
        let failed = ended(Arc::clone(&job.guard), transaction_id.clone(), failed);
        self.tasks.begin(failed, async move {
            let _turn = match turn {
                Some(turn) => turn,
                None => restores.turn(&job.guard.id.namespace).await,
            };
            let span = traces::remediation(&job.guard.id, &transaction_id);
            let attempted = remediation.restore(&job, &state, prepared).instrument(span).await;
            ended(job.guard, transaction_id, attempted)
        });
    }

    /// Has the sources of a guard that is new asked whether they have what is approved, so that its status tells
    /// before they are needed.
    pub(super) fn have_sources_asked(&mut self, guard: &Arc<Guard>) {
        let Some((job, _)) = self.job(guard) else { return };
        if job.spec.source_of_truth_ref.is_some() || !job.spec.fallback_source_refs.is_empty() {
            self.asked.join(guard);
        }
    }

    /// Asks the sources of a guard whose turn it is.
    pub(super) fn ask_sources(&mut self, guard: &Arc<Guard>) {
        let now = self.now(guard).map(|(_, now)| Arc::clone(now));
        let Some((job, _)) = now.and_then(|guard| self.job(&guard)) else {
            self.asked.done(&guard.uid);
            self.saying.needs_no_more(&guard.uid);
            return;
        };
        let (remediation, questions) = (Arc::clone(&self.remediation), Arc::clone(&self.questions));
        self.tasks.begin(Ended::Asked(job.guard.uid.clone(), Vec::new()), async move {
            let _turn = questions.acquire().await;
            Ended::Asked(job.guard.uid.clone(), remediation.ask_sources(&job).await)
        });
    }
}

/// How the end of an attempt is counted; one that found nothing to do is none.
pub(super) fn counted(outcome: &Outcome) -> Option<Restored> {
    match outcome {
        Outcome::Restored { .. } => Some(Restored::Restored),
        Outcome::NoVerifiedSource => Some(Restored::NoVerifiedSource),
        Outcome::NotAllowed(_) | Outcome::Terminating | Outcome::Failed(_) => Some(Restored::Failed),
        Outcome::GivenUp(_) | Outcome::Overtaken => Some(Restored::GivenUp),
        Outcome::AlreadyRight => None,
    }
}
