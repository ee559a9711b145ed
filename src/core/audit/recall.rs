//! What a status tells a process that leads anew: it goes on from there.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::guard::Guard;

use super::after;
use super::alert::AlertReason;
use super::episode::Episode;
use super::fight::Fight;
use super::finding::{Reason, Truth};
use super::last::{Last, State};
use super::open::{Awaited, Content, Drift, Open};
use super::seen::Remembered;

/// What is known of a guard's target before this process has looked at it; `None` when its status says
/// nothing of it.
pub(super) fn recall(
    guard: &Guard,
    said: &Remembered,
    apply_grace: Duration,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Option<(Last, Box<Open>)> {
    let (truth, reason, since) = said.drifted?;
    let is_edited = said.generation != guard.generation;
    let state = match (truth, reason) {
        (Truth::False, Reason::AwaitingApply) => State::Awaiting,
        (Truth::False, _) => State::Clean,
        (Truth::True, _) if said.current_hash.is_none() && !guard.scope.is_secret() => State::Absent,
        (Truth::True, _) => State::Drifted,
        (Truth::Unknown, _) => State::Unseen,
    };
    let clean_at = said.last_checked.filter(|_| state == State::Clean);
    let mut last = Last::remembered(state, said.current_hash, clean_at);
    last.is_outdated = is_edited;
    let mut open = Box::new(Open { missed_at: said.missed_at, ..Open::default() });
    if state == State::Awaiting {
        open.awaited = Some(Awaited::new(said.current_hash, since));
    } else if state == State::Clean && is_edited && said.current_hash.is_some() {
        // It was changed while nobody led.
        open.awaited = Some(Awaited::new(said.current_hash, now));
    }
    if truth == Truth::True {
        // Of a target that was never there whoever led before told nobody yet, and neither do we before its time.
        let waits = state == State::Absent && !said.alerted;
        let alert_from = if waits { after(since, apply_grace) } else { now };
        let drift = drift(said, state, reason, alert_from);
        // What a person asked for before the guard was changed may have been of what was approved then, and where
        // nobody knows what stood there, of other content.
        let is_asked = said.restore_pending && !is_edited && drift.content != Content::Unknown;
        open.drift = Some(Drift { is_asked, ..drift });
    }
    if truth == Truth::True || said.consecutive_failures > 0 {
        let episode = episode(said, truth, since, new_id);
        if said.fighting {
            open.fight = Fight::resume(episode.last_failed());
        }
        open.episode = Some(episode);
    }
    Some((last, open))
}

fn drift(said: &Remembered, state: State, reason: Reason, alert_from: Timestamp) -> Drift {
    let content = match (state, said.current_hash) {
        (State::Absent, _) => Content::Absent,
        (_, Some(hash)) => Content::Hash(hash),
        (_, None) => Content::Unknown,
    };
    let excepted = [Reason::Excepted, Reason::SuspendedBySpec, Reason::ExceptionEnded];
    let is_excepted = excepted.contains(&reason);
    Drift { content, reason, is_excepted, is_asked: false, is_uncounted: false, alert_from }
}

fn episode(said: &Remembered, truth: Truth, since: Timestamp, new_id: &mut dyn FnMut() -> String) -> Episode {
    let (drifted, id) = match &said.last_drift {
        Some((time, id)) => (Some(*time), id.clone()),
        None => (None, None),
    };
    // Until the status says otherwise, the checks went on failing.
    let checked = said.last_checked.filter(|_| truth != Truth::False);
    let failed = drifted.max(checked).map_or(since, |failed| failed.max(since));
    let id = said.episode.clone().or(id).unwrap_or_else(new_id);
    // The first reason is not kept; of one that lasts it is most likely this one.
    let alerted = said.alerted.then(|| match said.drifted.map(|(_, reason, _)| reason) {
        Some(Reason::Missing) => AlertReason::Missing,
        Some(Reason::BypassedAdmission) => AlertReason::BypassedAdmission,
        Some(Reason::DefinitionChanged) => AlertReason::DefinitionChanged,
        Some(Reason::Unreadable) => AlertReason::Unreadable,
        _ => AlertReason::Drifted,
    });
    Episode::resume(id, said.consecutive_failures, failed, alerted)
}
