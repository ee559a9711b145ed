//! What a refused or warned user reads (DESIGN 4.7).
//!
//! The first line stands alone, because Argo CD, Flux and the HPA show only that: the guard, the
//! paths, the next step. No value of any object is ever in it. Commands named here exist:
//! [`commands`] lists their forms, and a test parses each.

use super::diff::Changes;
use super::guard::{Guard, GuardId, InvalidGuard, Target};
use super::hash::ContentHash;
use super::pause::{Pause, PausedBy};
use super::verdict::{Attempt, Operation};

/// Longest first line, in characters.
pub const MAX_FIRST_LINE: usize = 200;
/// Longest warning, in characters: the API server cuts longer ones once there are many.
pub const MAX_WARNING: usize = 256;
/// Longest annotation repeated in a message, in characters.
const MAX_ANNOTATION: usize = 500;

/// How to approve new content, where the guard's own name leaves no room for the rest of the line.
const APPROVE_COMMAND: &str = "driftguard approve GUARD -f FILE";

/// The commands that messages suggest, as a user would type them.
#[must_use]
pub fn commands() -> &'static [&'static str] {
    &[APPROVE_COMMAND]
}

/// The message of a refused write.
#[must_use]
pub fn denial(
    guard: &Guard,
    operation: Operation,
    changes: &Changes,
    image: Option<ContentHash>,
    obstacle: Option<&str>,
) -> String {
    let what = match operation {
        Operation::Create => "its content is not the approved one".to_owned(),
        _ => summary(changes),
    };
    let next = next_step(guard);
    let mut message = named(guard, &what, changes)
        .unwrap_or_else(|| first_line(&guard.id, &guard.target, &what, &next, changes));
    if let Some(image) = image {
        message.push_str(&format!("\nimage sha256:{image}"));
    }
    if let Some(why) = obstacle {
        message.push_str(&format!("\nnot put back: {}", clean(why, MAX_ANNOTATION)));
    }
    whom_to_ask(guard, &mut message);
    message
}

/// Appends contact and runbook, each on a line of its own.
fn whom_to_ask(guard: &Guard, message: &mut String) {
    for (label, text) in [("contact", &guard.contact), ("runbook", &guard.runbook)] {
        if let Some(text) = text {
            message.push_str(&format!("\n{label}: {}", clean(text, MAX_ANNOTATION)));
        }
    }
}

/// The message of a refused deletion.
#[must_use]
pub fn deletion_denied(guard: &Guard) -> String {
    let next = match guard.managed_by {
        Some(tool) => format!("to delete it, change deletionPolicy in Git ({})", tool.as_str()),
        None => "to delete it, set the guard's deletionPolicy to Allow first".to_owned(),
    };
    let what = "it may not be deleted";
    let mut message = first_line(&guard.id, &guard.target, what, &next, &Changes::default());
    whom_to_ask(guard, &mut message);
    message
}

/// The message when what decides about a write could not be read.
#[must_use]
pub fn unread(guard: &Guard, what: &str) -> String {
    // Where a right is missing, trying again helps nobody; the guard's conditions then name it.
    let line = format!(
        "DriftGuard {} cannot judge this: {what} could not be read in time; try again, and see the guard's \
         conditions if that does not help",
        guard.id
    );
    clean(&line, MAX_FIRST_LINE)
}

/// The message when the object whose part is written does not exist.
#[must_use]
pub fn no_target(guard: &Guard) -> String {
    let line = format!("DriftGuard {} cannot judge this: there is no {}", guard.id, guard.target);
    clean(&line, MAX_FIRST_LINE)
}

/// The warning of a paused guard that lets a write through.
#[must_use]
pub fn paused(guard: &Guard, pause: &Pause, changes: &Changes) -> String {
    let by = words(pause);
    let line = format!("DriftGuard {} is {by}: {} in {}; recorded", guard.id, summary(changes), guard.target);
    clean(&line, MAX_WARNING)
}

/// The same of a guard that cannot be evaluated.
#[must_use]
pub fn paused_invalid(guard: &InvalidGuard, target: &Target, pause: &Pause) -> String {
    let by = words(pause);
    let line = format!(
        "DriftGuard {} is {by}: it cannot be evaluated, so any change of {target} passes; recorded",
        guard.id
    );
    clean(&line, MAX_WARNING)
}

fn words(pause: &Pause) -> String {
    let until = pause.until;
    match &pause.by {
        PausedBy::Suspend => format!("suspended until {until:.0}"),
        PausedBy::Exception(name) => format!("paused by exception {name} until {until:.0}"),
    }
}

/// The warning of a write that would have been refused, were the glass not broken.
#[must_use]
pub fn broken_glass(attempt: &Attempt) -> String {
    let paths = match attempt.paths.as_slice() {
        [] => String::new(),
        paths => format!(" ({})", paths.join(", ")),
    };
    let line = format!(
        "DriftGuard {} would refuse this {} of {}{paths}, but the glass is broken: it passes; recorded",
        attempt.guard,
        attempt.operation.as_str(),
        attempt.target
    );
    clean(&line, MAX_WARNING)
}

/// The warning of the mutating hook that put content back.
#[must_use]
pub fn put_back(guard: &Guard, changes: &Changes) -> String {
    let which = match (changes.paths.as_slice(), changes.more) {
        ([], _) => "its content was".to_owned(),
        ([only], false) => format!("{only} was"),
        (some, false) => format!("{} were", some.join(", ")),
        (some, true) => format!("{} and more were", some.join(", ")),
    };
    let whole = format!("{} is pinned by DriftGuard {}: {which} put back", guard.target, guard.id);
    if whole.chars().count() <= MAX_WARNING {
        return clean(&whole, MAX_WARNING);
    }
    // Paths matter more than names that the user knows.
    clean(&format!("DriftGuard put back: {}", changes.paths.join(", ")), MAX_WARNING)
}

/// The message when the guard itself cannot be evaluated.
#[must_use]
pub fn invalid_guard(guard: &InvalidGuard) -> String {
    let line =
        format!("DriftGuard {} cannot be evaluated, so its target stays as it is: mend the guard", guard.id);
    format!("{}\n{}", clean(&line, MAX_FIRST_LINE), clean(&guard.message, MAX_ANNOTATION))
}

/// The message when the object under review cannot be read.
#[must_use]
pub fn undecodable(guard: &GuardId, problem: &str) -> String {
    let line = format!("DriftGuard {guard} cannot hash this object: {problem}");
    clean(&line, MAX_FIRST_LINE)
}

/// The message when an object arrives in a version that the guard does not hash.
#[must_use]
pub fn other_version(guard: &Guard, version: &str) -> String {
    let hashed = &guard.target.version;
    let next = if guard.versions.is_gone {
        format!("{hashed} is no longer served, so set the guard's targetApiVersion anew")
    } else {
        format!("try again in some seconds, or through {hashed}")
    };
    let line = format!(
        "DriftGuard {} hashes {} in version {hashed}, and this write came in {version}: {next}",
        guard.id, guard.target.kind
    );
    clean(&line, MAX_FIRST_LINE)
}

/// The message when the hash is an approved one but does not say what is pinned.
#[must_use]
pub fn unclear_shape(guard: &Guard, operation: Operation) -> String {
    let why = match operation {
        Operation::Create => {
            "with spec and other fields its hash is unclear: leave these out, or add them to ignorePaths"
        }
        _ => "content may not move between spec and the top level, where its hash is the same",
    };
    let line = format!("DriftGuard {} refuses this: {why}", guard.id);
    let mut message = clean(&line, MAX_FIRST_LINE);
    whom_to_ask(guard, &mut message);
    message
}

/// The warning of a `Warn` guard that lets a change through.
#[must_use]
pub fn would_deny(guard: &Guard, changes: &Changes) -> String {
    let line =
        format!("{} is pinned by DriftGuard {}: {}; recorded", guard.target, guard.id, summary(changes));
    clean(&line, MAX_WARNING)
}

/// The warning when an object stays as it is but is not what is approved.
#[must_use]
pub fn already_drifted(guard: &Guard) -> String {
    let line = format!(
        "{} has drifted from what DriftGuard {} approves; this write leaves it so",
        guard.target, guard.id
    );
    clean(&line, MAX_WARNING)
}

/// The warning at the deletion of a guarded object.
#[must_use]
pub fn deleted(guard: &GuardId, target: &Target) -> String {
    let line = format!("{target} is pinned by DriftGuard {guard}: its deletion counts as drift");
    clean(&line, MAX_WARNING)
}

fn next_step(guard: &Guard) -> String {
    match guard.managed_by {
        // Also for a commit that has both: the tool wrote the target first.
        Some(tool) => {
            format!(
                "to approve, change the guard in Git; {} must apply it first (docs/gitops.md)",
                tool.as_str()
            )
        }
        None => format!("to approve, `{APPROVE_COMMAND}`"),
    }
}

fn summary(changes: &Changes) -> String {
    match changes.paths.as_slice() {
        [] => "its content is not the approved one".to_owned(),
        [only] if !changes.more => format!("{only} would change"),
        [first, ..] => format!("{first} and others would change"),
    }
}

/// The whole line with the command that approves this very guard, where there is room for it.
fn named(guard: &Guard, what: &str, changes: &Changes) -> Option<String> {
    let id = &guard.id;
    let next = format!("to approve, `driftguard approve {} -n {} -f FILE`", id.name, id.namespace);
    let line = whole(id, &guard.target, what, &next, changes);
    (guard.managed_by.is_none() && line.chars().count() <= MAX_FIRST_LINE)
        .then(|| clean(&line, MAX_FIRST_LINE))
}

/// The line with everything that it may say.
fn whole(guard: &GuardId, target: &Target, what: &str, next: &str, changes: &Changes) -> String {
    let named = match (changes.paths.as_slice(), changes.more) {
        ([], _) => what.to_owned(),
        (all, false) => format!("{} would change", all.join(", ")),
        (some, true) => format!("{} and more would change", some.join(", ")),
    };
    format!("DriftGuard {guard} pins {target}: {named}; {next}")
}

/// Puts the line together, giving up detail until it fits.
fn first_line(guard: &GuardId, target: &Target, what: &str, next: &str, changes: &Changes) -> String {
    let candidates = [
        whole(guard, target, what, next, changes),
        format!("DriftGuard {guard} pins {target}: {what}; {next}"),
        format!("DriftGuard {guard} refuses this: {what}; {next}"),
        format!("DriftGuard {guard} refuses this; {next}"),
    ];
    let fits = candidates.iter().find(|line| line.chars().count() <= MAX_FIRST_LINE);
    let line = fits.cloned().unwrap_or_else(|| {
        // The next step stays whole: a cut guard name can still be recognised.
        let room = MAX_FIRST_LINE.saturating_sub(next.chars().count() + 2);
        format!("{}; {next}", clean(&format!("DriftGuard {guard}"), room))
    });
    clean(&line, MAX_FIRST_LINE)
}

/// A text without control characters, cut to so many characters.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    let safe = |character: char| if character.is_control() { ' ' } else { character };
    if text.chars().count() <= limit {
        return text.chars().map(safe).collect();
    }
    text.chars().take(limit.saturating_sub(3)).map(safe).chain("...".chars()).collect()
}
