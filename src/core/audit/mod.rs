//! What the auditor decides: what a look at a target means, when it is put back, when somebody is told.
//!
//! Nothing here reads, writes or waits. Looks come in through [`book::Book::see`] with the time and new
//! ids as arguments, and out come [`book::Step`]s for whoever does I/O. `docs/design/drift.md` says why
//! the rules are as they are.
//!
//! From the outside in: [`book`] remembers what must be remembered of each guard, [`finding`] says what
//! one look means, [`episode`] counts and holds back, [`breaker`] stops remediation when many guards
//! drift at once, [`attribution`] says who did it. [`sight`] and [`alert`] are the words for what comes
//! in and what goes out.

pub mod alert;
pub mod attribution;
pub mod book;
pub mod breaker;
pub mod episode;
pub mod equivalent;
pub mod finding;
pub mod restore;
pub mod sight;
