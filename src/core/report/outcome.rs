//! What a report comes to.

use super::model::Entry;
use super::state::State;

/// What makes a report one with findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailOn {
    /// Content that is not approved, and fights about it.
    Drift,
    /// Objects that are not there.
    Missing,
    /// Guards that are not enforced although they should be.
    NotEnforcing,
    /// Guards that let writes pass for a while.
    Suspended,
    /// Guards that contradict one another.
    Conflict,
    /// Guards whose sources do not have the approved content.
    Source,
    /// Everything that is not in sync.
    Any,
}

impl FailOn {
    /// What counts unless asked otherwise.
    pub const DEFAULT: [Self; 4] = [Self::Drift, Self::Missing, Self::NotEnforcing, Self::Conflict];

    /// Whether a state counts.
    #[must_use]
    pub const fn covers(self, state: State) -> bool {
        match self {
            Self::Drift => matches!(state, State::Drifted | State::Fighting),
            Self::Missing => matches!(state, State::Missing),
            Self::NotEnforcing => matches!(state, State::NotEnforcing),
            Self::Suspended => matches!(state, State::Suspended),
            Self::Conflict => matches!(state, State::Conflict),
            Self::Source => matches!(state, State::SourceDown),
            Self::Any => !matches!(state, State::InSync | State::Unreadable),
        }
    }
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was found.
    Clean,
    /// Something was found.
    Findings,
    /// Of some guard it could not be told, whatever was found of others.
    CouldNotTell,
}

/// What these entries come to. Trouble goes before findings, as with grep and diff: whoever asked knows
/// least then.
#[must_use]
pub fn outcome(entries: &[Entry], fail_on: &[FailOn]) -> Outcome {
    if entries.iter().any(|entry| entry.holds(State::Unreadable)) {
        return Outcome::CouldNotTell;
    }
    let counts = |entry: &Entry| entry.states().any(|state| fail_on.iter().any(|one| one.covers(state)));
    if entries.iter().any(counts) { Outcome::Findings } else { Outcome::Clean }
}
