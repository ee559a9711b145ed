//! What the auditor decides: what a look at a target means, when it is put back, when somebody is told.
//!
//! Nothing here reads, writes or waits. Looks come in through [`book::Book::see`] with the time and new
//! ids as arguments, and out come [`step::Step`]s for whoever does I/O. `docs/design/drift.md` says why
//! the rules are as they are.
//!
//! From the outside in: [`book`] remembers what must be remembered of each guard, [`finding`] says what
//! one look means, [`episode`] counts failed checks and alerts, [`fight`] spaces attempts out, [`breaker`]
//! stops remediation when many guards drift at once, [`attribution`] says who did it. [`sight`], [`seen`],
//! [`step`] and [`alert`] are the words for what comes in and what goes out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub mod alert;
pub mod attribution;
pub mod book;
pub mod breaker;
pub mod candidate;
mod course;
pub mod episode;
pub mod equivalent;
pub mod fight;
pub mod finding;
mod last;
mod open;
mod reading;
mod recall;
pub mod restore;
pub mod seen;
pub mod sight;
pub mod step;
mod words;

pub use course::RBAC;
pub use words::{ACKNOWLEDGE, RESTORE, UNDER_WAY, WAITS, restore_asked};

/// `wait` after `time`.
fn after(time: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}
