//! What the kind of a guard means: what discovery says, unless it meant something else before.
//!
//! The rule is in [`crate::core::resolution`] and `docs/design/registration-and-proof.md`.

use crate::api::reasons;
use crate::api::status::ResolvedTarget;
use crate::core::guard::GuardState;
use crate::core::kinds::{Catalog, KindEntry};
use crate::core::resolution;
use crate::core::signature::SigningKey;

use super::convert::{Settings, convert};
use super::stored::Stored;

/// What stands in the status about the resource of a guard, when DriftGuard has written exactly that about
/// exactly this spec of exactly this guard.
#[must_use]
pub fn noted(stored: &Stored, key: &SigningKey) -> Option<KindEntry> {
    if !stored.status_json().contains("resolvedTarget") {
        return None;
    }
    let noted = stored.status().resolved_target?;
    let (group, version) = noted.api_version.rsplit_once('/').unwrap_or(("", &noted.api_version));
    let found = KindEntry {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: noted.kind,
        plural: noted.resource,
        namespaced: noted.namespaced,
        // Alone in a catalog, it must be what a kind without a version means.
        preferred: true,
    };
    resolution::verifies(key, stored.uid(), stored.generation(), &found, &noted.signature).then_some(found)
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
        kind: found.kind,
        resource: found.plural,
        namespaced: found.namespaced,
    })
}

/// Converts a guard whose kind meant `before`, if that is known. Gives also why it goes by that where
/// discovery now finds none or another.
pub(super) fn convert_keeping(
    stored: &Stored,
    catalog: &Catalog,
    settings: &Settings,
    key: Option<&SigningKey>,
    before: Option<&KindEntry>,
) -> (GuardState, Option<String>) {
    let state = convert(stored, catalog, settings, key);
    let Some((before, why)) = before.and_then(|before| Some((before, departure(before, &state)?))) else {
        return (state, None);
    };
    (convert(stored, &only(before, catalog), settings, key), Some(why))
}

/// A catalog of one resource, in the version that is preferred now, if there is one.
fn only(before: &KindEntry, catalog: &Catalog) -> Catalog {
    let is_it = |group: &str, plural: &str| group == before.group && plural == before.plural;
    let served = catalog.entries().iter().find(|entry| {
        is_it(&entry.group, &entry.plural) && entry.preferred && entry.kind.eq_ignore_ascii_case(&before.kind)
    });
    let is_preferred = served.is_none_or(|served| served.version == before.version);
    let entries =
        [KindEntry { preferred: is_preferred, ..before.clone() }].into_iter().chain(served.cloned());
    let paths = catalog.replicas_paths().iter().filter(|((group, _, plural), _)| is_it(group, plural));
    let paths = paths.map(|(key, path)| (key.clone(), path.clone())).collect();
    Catalog::new(entries.collect()).with_replicas_paths(paths)
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
