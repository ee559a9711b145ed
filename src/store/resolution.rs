//! What the kind of a guard means: what discovery says, unless it meant something else before.
//!
//! The rule is in [`crate::core::resolution`] and `docs/design/registration-and-proof.md`.

use crate::api::reasons;
use crate::api::status::ResolvedTarget;
use crate::core::guard::GuardState;
use crate::core::kinds::{Catalog, KindEntry};
use crate::core::resolution;
use crate::core::signature::SigningKey;

use super::convert::{Settings, convert, convert_as};
use super::observation::Seen;
use super::stored::Stored;

/// What stands in the status about the resource of a guard, when DriftGuard has written exactly that about
/// exactly this spec of exactly this guard.
#[must_use]
pub fn noted(stored: &Stored, key: &SigningKey) -> Option<KindEntry> {
    let (found, signature) = stored.status().resolved_target()?;
    resolution::verifies(key, stored.uid(), stored.generation(), found, signature)
        .then(|| KindEntry::clone(found))
}

/// What is to stand there. A guard that cannot be used keeps what is known of it.
#[must_use]
pub fn to_note(state: &GuardState, stored: &Stored, key: &SigningKey) -> Option<ResolvedTarget> {
    let found = match state {
        GuardState::Valid(guard) => {
            resolution::can_be_lost(&guard.target).then(|| resolution::entry(&guard.target))?
        }
        GuardState::Invalid(_) => noted(stored, key)?,
    };
    Some(ResolvedTarget {
        signature: resolution::sign(key, stored.uid(), stored.generation(), &found),
        api_version: found.api_version(),
        kind: found.kind.into(),
        resource: found.plural.into(),
        namespaced: found.namespaced,
    })
}

/// A converted guard.
pub(super) struct Resolved {
    pub(super) state: GuardState,
    /// What its kind means.
    pub(super) found: Option<KindEntry>,
    /// Why it goes by what was found before, where discovery now finds something else.
    pub(super) kept: Option<String>,
}

/// Converts a guard that was `old` before. While its spec stays, so does the resource that its kind was
/// found to mean, whatever discovery says later: whoever takes a CRD away, or adds one of the same kind,
/// must not turn a guard to another resource or to none.
///
/// What the holder of the lease has signed goes before what this process remembers, so that all
/// replicas go by the same, and one that had no key at first, too.
pub(super) fn resolve(
    stored: &Stored,
    old: Option<&Seen>,
    catalog: &Catalog,
    settings: &Settings,
    key: Option<&SigningKey>,
) -> Resolved {
    let state = convert(stored, catalog, settings, key);
    let same = old.filter(|old| old.stored.uid() == stored.uid() && old.stored.has_spec_of(stored));
    let noted = key.and_then(|key| noted(stored, key));
    let before = noted.as_ref().or_else(|| same.and_then(|old| old.found.as_deref()));
    match before.and_then(|entry| Some((entry, departure(entry, &state)?))) {
        Some((before, why)) => Resolved {
            state: convert_as(stored, Some(before), catalog, settings, key),
            found: Some(before.clone()),
            kept: Some(why),
        },
        None => Resolved { found: found(&state, catalog), state, kept: None },
    }
}

/// The entry by which a guard was converted.
fn found(state: &GuardState, catalog: &Catalog) -> Option<KindEntry> {
    let target = state.target()?;
    catalog
        .versions_of(&target.group, &target.resource)
        .find(|entry| entry.version == target.version)
        .cloned()
}

/// Why discovery no longer finds the resource that a guard goes by; `None` where it does, in whatever
/// version.
fn departure(before: &KindEntry, now: &GuardState) -> Option<String> {
    let meant = format!("{}.{}", before.plural, before.group);
    let goes_on = "the guard goes on for the resource that it was made for";
    match now {
        GuardState::Invalid(invalid)
            if matches!(invalid.reason, reasons::TARGET_UNKNOWN | reasons::TARGET_AMBIGUOUS) =>
        {
            Some(format!("{}; {goes_on}, {}", invalid.message, meant.trim_end_matches('.')))
        }
        other => {
            let target = other.target()?;
            (target.group != before.group || target.resource != before.plural).then(|| {
                format!(
                    "{} now means {}; {goes_on}, {}: set targetApiVersion to the one that is meant",
                    before.kind,
                    target.api_version(),
                    meant.trim_end_matches('.')
                )
            })
        }
    }
}
