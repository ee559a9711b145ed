//! The report of an audit: the state of each guard, what is known about it, and what that comes to.
//!
//! Pure: whoever asks the API server, or reads files, hands in how the target stands ([`judge::Sight`])
//! and what the guard's status says ([`facts::Facts`]), and gets an [`Entry`]. No value of any object and
//! no hash of a Secret is in a report; names of keys may be. A target that could not be read is never in
//! sync: it is [`State::Unreadable`], and so is the guard that cannot be understood.

mod compare;
mod facts;
mod judge;
mod model;
mod moment;
mod outcome;
mod state;

pub use compare::{compare, within};
pub use facts::{Answer, Drift, Facts, KnownBy, Leading, Said, Tried};
pub use judge::{Known, Sight, invalid, judge};
pub use model::{
    API_VERSION, Actor, ActorKnownBy, Change, Comparison, Entry, Gone, KIND, Name, Origin, Place,
    Remediation, Report, Since, SinceKnownBy, Source, SourceAnswer, SourceState, Summary, TargetName,
};
pub use moment::Moment;
pub use outcome::{FailOn, Outcome, outcome};
pub use state::State;
