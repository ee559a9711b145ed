//! The auditor's memory: what must be known of a guard beyond one look, and what follows from a look.
//!
//! Of a guard whose target is in sync and calm it keeps a few bytes; all else is kept while an episode
//! is open. It lives as long as this process leads: a new leader starts with an empty book and goes on
//! from what statuses say ([`Remembered`]).

use jiff::Timestamp;

use crate::core::guard::Guard;
use crate::core::text::Text;

pub use super::breaker::Limits;
pub use super::seen::{Context, Details, Outcome, Remembered, Seen, Terms};
use super::sight::Sight;
pub use super::step::{LastDrift, LastRemediation, Record, RecordKind, RemediationResult, Report, Step};

/// New transaction ids, from whoever has a clock and chance.
pub type NewId<'a> = &'a mut dyn FnMut() -> String;

/// How the installation wants the auditor to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `--remediation`: whether anything is put back at all.
    pub remediation: bool,
    /// When remediation stops because too many guards drift at once.
    pub limits: Limits,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(settings: Settings) -> Self;

    /// How many guards there are in each namespace of guards: what a share of them is counted against.
    /// To be called whenever guards came or went, before looks at them.
    pub fn census(&mut self, guards: impl IntoIterator<Item = (Text, usize)>);

    /// Whether this guard's target has been looked at by this process: if not, [`Context::remembered`]
    /// is wanted with the first look.
    #[must_use]
    pub fn knows(&self, guard_uid: &str) -> bool;

    /// Whether [`Seen::details`] are wanted with this look: it shows drift that is news.
    #[must_use]
    pub fn wants_details(&self, guard: &Guard, sight: &Sight, now: Timestamp) -> bool;

    /// When the guard's target was last seen as approved, to the second: nothing that changed it can be
    /// older. `None` when it was not, or not by this process.
    #[must_use]
    pub fn last_clean(&self, guard_uid: &str) -> Option<Timestamp>;

    /// What follows from a look at a guard's target.
    pub fn see(&mut self, guard: &Guard, seen: &Seen<'_>, now: Timestamp, new_id: NewId<'_>) -> Vec<Step>;

    /// What follows from the end of an attempt to restore. A look usually follows by the watch.
    pub fn restored(
        &mut self,
        guard: &Guard,
        terms: Terms,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Vec<Step>;

    /// Whether an attempt to restore may still write: its guard stands as it did, and nothing has
    /// stopped remediation since.
    #[must_use]
    pub fn may_restore(&self, guard: &Guard, transaction_id: &str, now: Timestamp) -> bool;

    /// What follows when a guard changed in anything (its spec, what pauses it, who is known to have
    /// approved it), or was deleted (`after` is `None`).
    pub fn guard_changed(&mut self, before: &Guard, after: Option<&Guard>, now: Timestamp) -> Vec<Step>;

    /// A person acknowledges an incident: what it held back may go on. Unknown ids do nothing.
    pub fn acknowledge(&mut self, incident: &str, now: Timestamp) -> Vec<(Text, Step)>;

    /// A person asks for the guard's target to be put back, although it changed under a pause.
    pub fn restore_asked(&mut self, guard_uid: &str, now: Timestamp) -> Vec<Step>;

    /// What is due: guards to look at, by uid. A guard for which no look can be had is due again later.
    pub fn tick(&mut self, now: Timestamp) -> Vec<(Text, Step)>;

    /// When [`Self::tick`] is to be called next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp>;
}
