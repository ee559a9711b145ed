//! Entries while the glass is broken: nothing can be refused, and who answers is told so by the path.
//!
//! The path says it, and not only what a replica knows, so that even one that is cut off from the API
//! server lets pass what it is asked about. `driftguard breakglass` rewrites stored entries by their paths
//! and names alone, since no replica need live; what it makes of them is what `serve` wants meanwhile.

use crate::core::guard::FailurePolicy;

pub use super::entry::BROKEN;
use super::entry::{Entry, NAME_PREFIX, policy_word};

/// The entry as it is wanted while the glass is broken. Reviews of our own kinds go on, since approving
/// is not what the glass was broken for; but nobody waits for them.
#[must_use]
pub fn opened(entry: Entry) -> Entry {
    let broken = entry.token.is_none();
    Entry { failure_policy: FailurePolicy::Ignore, broken, ..entry }
}

/// The path of a stored entry while the glass is broken; `None` when it is not one of ours, or is so
/// already.
#[must_use]
pub fn opened_path(path: &str) -> Option<String> {
    let (head, rest) = split(path)?;
    let open = match rest {
        "fail" | "ignore" => format!("ignore/{BROKEN}"),
        other => format!("ignore/{}", other.strip_prefix("fail/")?),
    };
    Some(format!("{head}/{open}"))
}

/// The path of a stored entry once the glass is whole again, by the failure policy that it has then;
/// `None` when that is what it is.
#[must_use]
pub fn closed_path(path: &str, policy: FailurePolicy) -> Option<String> {
    let (head, rest) = split(path)?;
    let (_, subject) = rest.split_once('/').unwrap_or((rest, ""));
    let closed = match subject {
        "" | BROKEN => format!("{head}/{}", policy_word(policy)),
        own => format!("{head}/{}/{own}", policy_word(policy)),
    };
    (closed != path).then_some(closed)
}

/// The failure policy that the name of an entry tells; `None` when it is not one of ours.
#[must_use]
pub fn policy_of(name: &str) -> Option<FailurePolicy> {
    let word = name.strip_prefix(NAME_PREFIX)?.strip_prefix('.')?.split('.').next()?;
    match word.split('-').nth(1)? {
        "fail" => Some(FailurePolicy::Fail),
        "ignore" => Some(FailurePolicy::Ignore),
        _ => None,
    }
}

/// `/validate/g17` and what follows.
fn split(path: &str) -> Option<(&str, &str)> {
    super::generation_of(path)?;
    let at = path.match_indices('/').nth(2)?.0;
    Some((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::registration::entry::tests::entry_for_configmaps;
    use crate::core::registration::{Hook, own};
    use crate::core::signature::SigningKey;

    #[test]
    fn what_the_command_makes_of_an_entry_is_what_is_wanted_and_goes_back_to_what_it_was() {
        let key = SigningKey::new(&[1; 32]).unwrap();
        let own = [Hook::Validate, Hook::Mutate].into_iter().flat_map(|hook| own::entries(hook, &key));
        let targets = [FailurePolicy::Fail, FailurePolicy::Ignore].map(entry_for_configmaps);
        for entry in own.chain(targets) {
            let before = entry.path(17);
            let open = opened(entry.clone());
            assert_eq!(open.failure_policy, FailurePolicy::Ignore);
            assert_eq!(opened_path(&before).unwrap_or_else(|| before.clone()), open.path(17));
            assert_eq!(opened_path(&open.path(17)), None, "once is enough");
            assert_eq!(policy_of(&entry.name), Some(entry.failure_policy), "{}", entry.name);
            let closed = closed_path(&open.path(17), entry.failure_policy);
            assert_eq!(closed.unwrap_or_else(|| open.path(17)), before);
            assert_eq!(closed_path(&before, entry.failure_policy), None);
        }
    }

    #[test]
    fn guarded_objects_are_told_apart_by_the_path() {
        let open = opened(entry_for_configmaps(FailurePolicy::Fail));
        assert_eq!(open.path(3), "/validate/g3/ignore/broken");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for path in ["", "/", "/validate", "/validate/g17", "/other/g17/fail", "/validate/17/fail"] {
            assert_eq!(opened_path(path), None, "{path}");
            assert_eq!(closed_path(path, FailurePolicy::Fail), None, "{path}");
        }
        for name in ["", "theirs.example.com", "see-driftguard-breakglass.x.y", "see-driftguard-breakglass"] {
            assert_eq!(policy_of(name), None, "{name}");
        }
    }
}
