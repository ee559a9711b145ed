//! What a guard must be like to be taken, beyond what the schema says, and the words of a refusal.
//!
//! Texts about missing rights depend on the guard and the user alone, so that they tell nothing about
//! objects that the user may not see.

use jiff::{SignedDuration, Timestamp};

use super::author_access::Access;
use super::guard::{GuardId, GuardState, Target};

/// How far a user's clock may be ahead of ours: whoever asks for the longest pause computes its end
/// by their own clock. What counts for longer is cut off at every use.
pub(super) const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Longest first line of a refusal, in bytes: some tools show only that.
const MAX_FIRST_LINE: usize = 200;
/// Most rights named in a refusal.
const MAX_NAMED: usize = 20;

/// Why a guard or a change of one is refused: a stable word for records and metrics, and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The word.
    pub reason: &'static str,
    /// What the user reads.
    pub message: String,
}

impl Refusal {
    /// The refusal of a guard for `why`; what does not fit into the first line goes below it.
    fn of(id: &GuardId, reason: &'static str, why: &str, below: &str) -> Self {
        let mut message = format!("DriftGuard {id} is refused: {why}");
        if message.lines().next().is_some_and(|first| first.len() > MAX_FIRST_LINE) {
            // A name may have 253 characters, so that neither it nor the reason need fit.
            let mut name = id.to_string();
            let room = MAX_FIRST_LINE - "DriftGuard ... is refused:".len();
            if name.len() > room {
                name.truncate(room);
                name.push_str("...");
            }
            message = format!("DriftGuard {name} is refused:\n{why}");
        }
        if !below.is_empty() {
            message.push('\n');
            message.push_str(below);
        }
        Self { reason, message }
    }
}

/// A source of truth, as far as the schema does not say what it needs.
#[derive(Debug, Clone, Copy)]
pub struct SourceFields<'a> {
    /// The field of the spec.
    pub field: &'a str,
    /// Whether it is a git repository.
    pub git: bool,
    /// Whether it is a Service.
    pub service: bool,
    /// Its path.
    pub path: Option<&'a str>,
}

/// The refusal of a guard for what its spec says.
#[must_use]
pub fn invalid(id: &GuardId, reason: &'static str, why: &str) -> Refusal {
    Refusal::of(id, reason, why, "")
}

/// Why a suspension until `until` cannot be asked for at `now`.
///
/// # Errors
/// With one sentence that says how to mend it.
pub fn suspension(until: Timestamp, now: Timestamp, longest: SignedDuration) -> Result<(), String> {
    let latest = super::pause::end(until, now, longest).checked_add(CLOCK_SKEW).unwrap_or(Timestamp::MAX);
    if until <= latest {
        return Ok(());
    }
    let hours = longest.as_secs_f64() / 3600.0;
    Err(format!(
        "spec.suspend.until is {until}, but enforcement may be suspended for {hours} h at most \
         (--max-exception); name an earlier moment and suspend again when it ends"
    ))
}

/// Why a guard that is suspended until `until` cannot be adopted: the suspension would begin anew.
#[must_use]
pub fn adopted_suspension(until: Timestamp) -> String {
    format!(
        "it is suspended until {until}, which adopting would begin anew; remove spec.suspend, which signs it, too"
    )
}

/// Whether a source names all that it needs.
///
/// # Errors
/// With one sentence that says what is missing.
pub fn source(source: &SourceFields<'_>) -> Result<(), String> {
    let SourceFields { field, git, service, path } = *source;
    match path.filter(|path| !path.is_empty()) {
        None if git => Err(format!("{field}.path is missing: name the file of the repository")),
        Some(path) if git && (path.starts_with('/') || path.split('/').any(|segment| segment == "..")) => {
            Err(format!(
                "{field}.path must lead from the root of the repository down to a file, without `..`"
            ))
        }
        Some(path) if service && !path.starts_with('/') => {
            Err(format!("{field}.path must start with `/`: it is the path of a request"))
        }
        _ => Ok(()),
    }
}

/// A name that the API server would make up cannot be signed: it is not known when the author is.
#[must_use]
pub fn generated_name(namespace: &str) -> Refusal {
    let message = format!(
        "DriftGuard in namespace {namespace} is refused: metadata.generateName cannot be used, since a guard \
         is signed with its name; set metadata.name"
    );
    Refusal { reason: "GeneratedName", message }
}

/// The author lacks rights. The same text whether or not any of the objects exists.
#[must_use]
pub fn missing_rights(id: &GuardId, user: &str, missing: &[Access]) -> Refusal {
    let named: Vec<String> = missing.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = missing.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!("\n- and {more} more") } else { String::new() };
    let below = format!("User {user:?} may not:\n- {}{more}", named.join("\n- "));
    let why = "its author must have every right that it is made for";
    Refusal::of(id, "AuthorLacksRights", why, &below)
}

/// The rights of the author could not be asked for.
#[must_use]
pub fn rights_unknown(id: &GuardId) -> Refusal {
    let why = "the rights of its author could not be checked in time; try again";
    Refusal::of(id, "RightsUnknown", why, "")
}

/// The annotation is not the signature of this user.
#[must_use]
pub fn unsigned(id: &GuardId, user: &str) -> Refusal {
    let why = format!("it is not signed as approved by {user:?}");
    let below = "The mutating webhook of DriftGuard signs whatever is written; it was not called, or something \
                 changed the guard after it. Try again. When that does not help, see `kubectl get \
                 mutatingwebhookconfiguration driftguard` and the log of `driftguard serve`.";
    Refusal::of(id, "AuthorNotSigned", &why, below)
}

/// The key is not known yet, or kinds or guards could not be read.
#[must_use]
pub fn not_ready(id: &GuardId, what: &str) -> Refusal {
    Refusal::of(id, "GuardUnchecked", &format!("{what} could not be read in time; try again"), "")
}

/// Another guard of the same target that pins it otherwise.
#[must_use]
pub fn conflict(id: &GuardId, other: &GuardId, target: &Target) -> Refusal {
    let why = format!("{other} pins {target} already, and pins it differently");
    let below = "Change that one, or delete it first. To rename a guard, make the new one with the same hash \
                 and paths, then delete the old one.";
    Refusal::of(id, "ConflictingGuards", &why, below)
}

/// Most guards of one target. Renaming needs two; each further one makes every write of the target
/// dearer, and they are all of one opinion.
pub const MAX_GUARDS_OF_TARGET: usize = 8;

/// Why a guard may not join `others`, the guards of its target: one of them pins it otherwise, or
/// there are enough.
///
/// # Errors
/// The refusal.
pub fn joins<'a>(
    state: &GuardState,
    target: &Target,
    others: impl Iterator<Item = &'a GuardState> + Clone,
) -> Result<(), Refusal> {
    if let Some(other) = rival(state, others.clone()) {
        return Err(conflict(state.id(), other, target));
    }
    if others.filter(|other| other.id() != state.id()).count() >= MAX_GUARDS_OF_TARGET {
        return Err(crowded(state.id(), target));
    }
    Ok(())
}

fn crowded(id: &GuardId, target: &Target) -> Refusal {
    let why = format!("{target} has {MAX_GUARDS_OF_TARGET} guards already");
    Refusal::of(id, "TooManyGuards", &why, "One is enough; delete those that are not needed.")
}

/// The first other guard among `others` that pins the target of `state` differently.
#[must_use]
pub fn rival<'a>(
    state: &GuardState,
    others: impl IntoIterator<Item = &'a GuardState>,
) -> Option<&'a GuardId> {
    others.into_iter().find(|other| other.id() != state.id() && !same_rules(state, other)).map(GuardState::id)
}

/// Whether two guards approve exactly the same, as while one is being renamed.
#[must_use]
pub fn same_rules(left: &GuardState, right: &GuardState) -> bool {
    match (left, right) {
        (GuardState::Valid(left), GuardState::Valid(right)) => {
            left.expected == right.expected
                && left.also_approved == right.also_approved
                && left.scope == right.scope
                && left.target == right.target
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::Arc;

    use super::*;
    use crate::core::guard::{Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard};
    use crate::core::hash::ContentHash;
    use crate::core::paths::PathFilter;
    use crate::core::scope::Scope;

    fn id() -> GuardId {
        GuardId { namespace: "team".into(), name: "g".into() }
    }

    #[test]
    fn a_suspension_longer_than_is_allowed_is_refused_but_for_clocks_that_differ() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let hours = SignedDuration::from_hours;
        assert!(suspension(now + hours(8) + SignedDuration::from_secs(30), now, hours(8)).is_ok());
        let error = suspension(now + hours(9), now, hours(8)).unwrap_err();
        assert!(error.contains("8 h at most (--max-exception)"), "{error}");
        assert!(suspension(Timestamp::MAX, now, hours(8)).is_err());
        assert!(suspension(now - hours(1), now, hours(8)).is_ok(), "it has ended already");
    }

    #[test]
    fn sources_must_name_what_they_are_read_by() {
        let of = |git, service, path| source(&SourceFields { field: "spec.s", git, service, path });
        assert!(of(true, false, None).unwrap_err().starts_with("spec.s.path is missing"));
        for path in ["/a", "a/../b", ".."] {
            assert!(of(true, false, Some(path)).is_err(), "{path}");
        }
        assert!(of(true, false, Some("a/b..c.yaml")).is_ok());
        assert!(of(false, true, Some("a")).is_err());
        assert!(of(false, true, Some("/a")).is_ok() && of(false, true, None).is_ok());
        assert!(of(false, false, None).is_ok() && of(false, false, Some("key")).is_ok());
    }

    #[test]
    fn a_target_has_eight_guards_at_most_and_the_ones_it_has_may_change() {
        let target = Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        let of = |number: usize| {
            let id = GuardId { namespace: "n".into(), name: format!("g{number}").into() };
            GuardState::Valid(Arc::new(Guard {
                id,
                uid: "".into(),
                generation: 1,
                target: target.clone(),
                expected: ContentHash::of(b"{}"),
                scope: Scope::new("", "ConfigMap", PathFilter::everything()),
                also_approved: Default::default(),
                equivalents: Default::default(),
                enforcement: Enforcement::Audit,
                failure_policy: FailurePolicy::Fail,
                deletion_policy: DeletionPolicy::Allow,
                pauses: Default::default(),
                authorship: Authorship::Unknown,
                replicas_path: None,
                versions: crate::core::guard::Versions::default(),
                managed_by: None,
                contact: None,
                runbook: None,
            }))
        };
        let there: Vec<GuardState> = (0..MAX_GUARDS_OF_TARGET).map(of).collect();
        assert_eq!(
            joins(&of(MAX_GUARDS_OF_TARGET), &target, there.iter()).unwrap_err().reason,
            "TooManyGuards"
        );
        assert!(joins(&of(0), &target, there.iter()).is_ok());
        assert!(joins(&of(MAX_GUARDS_OF_TARGET), &target, there[1..].iter()).is_ok());
    }

    #[test]
    fn the_first_line_of_a_refusal_stands_alone() {
        let access = Access {
            group: "".into(),
            resource: "configmaps".into(),
            subresource: String::new(),
            namespace: "n".into(),
            name: "x".into(),
            verb: "update",
        };
        let target = Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        let long = GuardId { namespace: "n".repeat(63).into(), name: "g".repeat(253).into() };
        let middle = GuardId { namespace: "n".repeat(63).into(), name: "g".repeat(80).into() };
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let why = suspension(Timestamp::MAX, now, SignedDuration::from_hours(8)).unwrap_err();
        for id in [id(), middle, long] {
            for refusal in [
                invalid(&id, "InvalidSpec", &why),
                missing_rights(&id, "alice", &vec![access.clone(); 30]),
                unsigned(&id, &"u".repeat(300)),
                conflict(&id, &id, &target),
                generated_name(&id.namespace),
                rights_unknown(&id),
                not_ready(&id, "the kinds that the API server serves"),
            ] {
                let first = refusal.message.lines().next().unwrap();
                assert!(first.len() <= 200 && first.starts_with("DriftGuard "), "{first}");
            }
        }
        assert!(invalid(&id(), "InvalidSpec", &why).message.ends_with(&why), "nothing of it is lost");
        let message = missing_rights(&id(), "alice", &[]).message;
        assert!(message.contains("\"alice\""), "{message}");
    }
}
