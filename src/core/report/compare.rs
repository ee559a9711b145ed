//! A report beside an earlier one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::core::message::clean;

use super::model::{Change, Comparison, Entry, Gone, Name, Report, Since, SinceKnownBy};
use super::state::State;

/// Longest name that is taken over from an earlier report, in characters.
const MAX_NAME: usize = 253;

/// Says of each guard how it stands to an earlier report. What is as it was goes on since then. Gone is only
/// what was looked for and not found.
#[must_use]
pub fn compare(mut report: Report, earlier: &Report) -> Report {
    let mut before: BTreeMap<&Name, &Entry> =
        earlier.guards.iter().map(|entry| (&entry.guard, entry)).collect();
    let mut comparison = Comparison {
        earlier: earlier.generated_at,
        new: 0,
        changed: 0,
        unchanged: 0,
        resolved: 0,
        gone: Vec::new(),
    };
    for entry in &mut report.guards {
        let old = before.remove(&entry.guard);
        entry.change = change(old, entry);
        let count = match entry.change {
            Some(Change::New) => &mut comparison.new,
            Some(Change::Changed) => &mut comparison.changed,
            Some(Change::Unchanged) => &mut comparison.unchanged,
            Some(Change::Resolved) => &mut comparison.resolved,
            None => continue,
        };
        *count += 1;
        if let Some(old) = old.filter(|_| entry.change == Some(Change::Unchanged)) {
            let so_far = old.since.as_ref().map_or(earlier.generated_at, |since| since.time);
            entry.since.get_or_insert(Since { time: so_far, known_by: SinceKnownBy::EarlierReport });
        }
    }
    let origin = &report.origin;
    let is_part = origin.selector.is_some() || !origin.names.is_empty() || !origin.kinds.is_empty();
    let was_looked_for = |name: &Name| {
        !is_part && origin.namespace.as_ref().is_none_or(|namespace| name.namespace == *namespace)
    };
    comparison.gone = before
        .into_values()
        .filter(|old| was_looked_for(&old.guard))
        .map(|old| Gone {
            guard: Name {
                namespace: clean(&old.guard.namespace, MAX_NAME).into(),
                name: clean(&old.guard.name, MAX_NAME).into(),
            },
            state: old.state,
        })
        .collect();
    report.compared = Some(comparison);
    report
}

fn change(old: Option<&Entry>, new: &Entry) -> Option<Change> {
    let was = old.map_or(State::InSync, |old| old.state);
    match (was, new.state) {
        (State::InSync, State::InSync) => None,
        (State::InSync, _) => Some(Change::New),
        (_, State::InSync) => Some(Change::Resolved),
        (was, is) if was == is => Some(Change::Unchanged),
        _ => Some(Change::Changed),
    }
}

/// The report with only what began at `since` or later. What could not be told stays, and so does what is
/// not in sync since nobody knows when.
#[must_use]
pub fn within(mut report: Report, since: Timestamp) -> Report {
    let began = |entry: &Entry| match &entry.since {
        // Of what holds beside the state that is shown, no time is told.
        Some(known) => known.time.timestamp() >= since || !entry.also.is_empty(),
        None => entry.state != State::InSync,
    };
    let guards = std::mem::take(&mut report.guards);
    let guards = guards.into_iter().filter(|entry| entry.holds(State::Unreadable) || began(entry)).collect();
    report.origin.since = Some(since.into());
    report.with_guards(guards)
}
