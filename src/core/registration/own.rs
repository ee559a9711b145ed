//! Entries for our own kinds: reviews of what approves, not of what is guarded.
//!
//! They stand whether or not there is a guard. Making and changing a guard fails closed, since it is an
//! approval; deletion never does, and neither does a write that approves nothing (labels, finalizers):
//! a namespace can be deleted, and `driftguard uninstall` works, with every replica dead.
//!
//! Another label of a guard approves nothing, but may bring it under an exception that goes by labels. An
//! `Ignore` entry of its own brings such writes to whoever lives.
//!
//! Making an exception does not fail closed, either. It is the way through in the hour in which nothing
//! answers, and nothing depends on the review: what cannot be read pauses nothing, and when one ends is
//! computed at every use. The review only spares its maker a surprise, and records who it was.
//!
//! Their paths end with a token that only readers of our webhook configurations know: such a review is
//! signed and answered for the user that it names, which nobody else may ask for. API servers show the
//! path of a `Fail` entry that does not answer, so that each policy of each hook has a token of its own.
//! Broken glass changes the policy of an entry, not its token.

use crate::core::guard::FailurePolicy;
use crate::core::signature::{Purpose, SigningKey};
use crate::core::verdict::Operation;

use super::entry::{Entry, Hook, NAME_PREFIX, policy_word};
use super::selection::{Namespaces, Selection};

/// Group and version of our kinds.
const GROUP: &str = "terrafusion.ai";
const VERSION: &str = "v1";

/// One of our kinds.
struct Own {
    resource: &'static str,
    /// Whether the mutating hook has something to say about it.
    mutated: bool,
    /// What becomes of making and changing one while nobody answers.
    writes: FailurePolicy,
    /// When an update approves something. CEL; it can never fail, since a failing condition under
    /// `Fail` refuses the write. An absent spec and an absent annotation are values like others.
    approves: &'static str,
    /// When an update that approves nothing changes what exceptions mean; `None` where none can.
    relabels: Option<&'static str>,
}

/// The word in the names of entries for changes of labels.
const RELABEL: &str = "relabel";

/// Whether an update of a guard approves something, or asks for something to be done that takes the same rights.
macro_rules! guard_approves {
    () => {
        "object == null || oldObject == null || object.?spec != oldObject.?spec \
         || object.metadata.?annotations[?'driftguard.terrafusion.ai/author'] \
         != oldObject.metadata.?annotations[?'driftguard.terrafusion.ai/author'] \
         || object.metadata.?annotations[?'driftguard.terrafusion.ai/adopt'].hasValue() \
         || object.metadata.?annotations[?'driftguard.terrafusion.ai/restore'] \
         != oldObject.metadata.?annotations[?'driftguard.terrafusion.ai/restore'] \
         || object.metadata.?annotations[?'driftguard.terrafusion.ai/acknowledge'] \
         != oldObject.metadata.?annotations[?'driftguard.terrafusion.ai/acknowledge']"
    };
}

/// Our kinds whose objects are reviewed.
const OWN: [Own; 2] = [
    Own {
        resource: "driftguards",
        mutated: true,
        writes: FailurePolicy::Fail,
        approves: guard_approves!(),
        // One write is reviewed once: labels beside a new spec are looked at with that.
        relabels: Some(concat!(
            "!(",
            guard_approves!(),
            ") && object.metadata.?labels != oldObject.metadata.?labels"
        )),
    },
    Own {
        resource: "driftguardexceptions",
        mutated: false,
        writes: FailurePolicy::Ignore,
        approves: "object == null || oldObject == null || object.?spec != oldObject.?spec",
        relabels: None,
    },
];

/// The entries of one configuration for our own kinds, in a fixed order, with tokens made of `key`.
#[must_use]
pub fn entries(hook: Hook, key: &SigningKey) -> Vec<Entry> {
    OWN.iter()
        .flat_map(|own| {
            let entry = |policy, word: &str, operations: &[Operation]| Entry {
                name: format!(
                    "{NAME_PREFIX}.{word}-{}.{}.{VERSION}.{GROUP}",
                    policy_word(policy),
                    own.resource
                ),
                hook,
                failure_policy: policy,
                group: GROUP.to_owned(),
                version: VERSION.to_owned(),
                resources: vec![own.resource.to_owned()],
                operations: operations.to_vec(),
                namespaced: true,
                selection: Selection { namespaces: Namespaces::All, names: None },
                touch: None,
                broken: false,
                token: Some(token(key, hook, policy, own.resource)),
            };
            let writes = [Operation::Create, Operation::Update];
            match hook {
                Hook::Validate => {
                    let relabel =
                        own.relabels.map(|_| entry(FailurePolicy::Ignore, RELABEL, &[Operation::Update]));
                    let approve = entry(own.writes, "approve", &writes);
                    let retire = entry(FailurePolicy::Ignore, "retire", &[Operation::Delete]);
                    std::iter::once(approve).chain(relabel).chain([retire]).collect()
                }
                Hook::Mutate if own.mutated => vec![entry(FailurePolicy::Ignore, "sign", &writes)],
                Hook::Mutate => Vec::new(),
            }
        })
        .collect()
}

/// The token in the paths of one hook and policy for one of our kinds.
fn token(key: &SigningKey, hook: Hook, policy: FailurePolicy, resource: &str) -> String {
    key.token(Purpose::Path, &token_parts(hook, policy, resource))
}

/// Whether `token` is that of a path that [`entries`] made, in constant time.
#[must_use]
pub fn is_token(key: &SigningKey, hook: Hook, resource: &str, token: &str) -> bool {
    let is_of = |policy| key.is_token(Purpose::Path, &token_parts(hook, policy, resource), token);
    is_of(FailurePolicy::Fail) | is_of(FailurePolicy::Ignore)
}

fn token_parts(hook: Hook, policy: FailurePolicy, resource: &str) -> [&[u8]; 3] {
    [hook.word().as_bytes(), policy_word(policy).as_bytes(), resource.as_bytes()]
}

/// The match condition of an entry made by [`entries`]; `None` for entries of guarded objects, and
/// where everything arrives.
#[must_use]
pub fn condition(entry: &Entry) -> Option<&'static str> {
    let own = own(entry)?;
    let is_relabelling = entry.name.starts_with(&format!("{NAME_PREFIX}.{RELABEL}-"));
    if is_relabelling {
        return own.relabels;
    }
    entry.operations.contains(&Operation::Update).then_some(own.approves)
}

/// Our own kinds are never guarded, so that the resource tells the entries apart.
fn own(entry: &Entry) -> Option<&'static Own> {
    let resource = entry.resources.first()?;
    OWN.iter().find(|own| entry.group == GROUP && own.resource == resource)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::new(&[byte; 32]).unwrap()
    }

    fn entries(hook: Hook) -> Vec<Entry> {
        super::entries(hook, &key(1))
    }

    #[test]
    fn approving_fails_closed_and_neither_retiring_nor_making_an_exception_does() {
        let made = entries(Hook::Validate);
        let of_resource = |resource: &str, operation| {
            let of: Vec<FailurePolicy> = made
                .iter()
                .filter(|entry| entry.resources == [resource] && entry.operations.contains(&operation))
                .map(|entry| entry.failure_policy)
                .collect();
            of
        };
        let policy = |operation| of_resource("driftguards", operation);
        assert_eq!(policy(Operation::Create), [FailurePolicy::Fail]);
        assert_eq!(policy(Operation::Update), [FailurePolicy::Fail, FailurePolicy::Ignore]);
        assert_eq!(policy(Operation::Delete), [FailurePolicy::Ignore]);
        for operation in [Operation::Create, Operation::Update, Operation::Delete] {
            assert_eq!(of_resource("driftguardexceptions", operation), [FailurePolicy::Ignore]);
        }
        assert!(entries(Hook::Mutate).iter().all(|entry| entry.failure_policy == FailurePolicy::Ignore));
    }

    #[test]
    fn entries_have_paths_of_their_own_and_distinct_names() {
        let made: Vec<Entry> = [Hook::Validate, Hook::Mutate].into_iter().flat_map(entries).collect();
        let paths: Vec<String> = made.iter().map(|entry| entry.path(17)).collect();
        let (words, tokens): (Vec<&str>, std::collections::BTreeSet<&str>) =
            paths.iter().map(|path| path.rsplit_once('/').unwrap()).unzip();
        assert_eq!(
            words,
            [
                "/validate/g17/fail/driftguards",
                "/validate/g17/ignore/driftguards",
                "/validate/g17/ignore/driftguards",
                "/validate/g17/ignore/driftguardexceptions",
                "/validate/g17/ignore/driftguardexceptions",
                "/mutate/g17/ignore/driftguards",
            ]
        );
        let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
        assert_eq!(tokens.len(), distinct.len(), "what tells of one tells nothing of another");
        assert!(tokens.iter().all(|token| token.len() == 32));
        for path in &paths {
            assert_eq!(super::super::generation_of(path), Some(17));
        }
        let names: std::collections::BTreeSet<&str> = made.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), made.len());
    }

    #[test]
    fn a_token_is_good_for_its_hook_resource_and_key_alone() {
        let made = entries(Hook::Validate);
        let fail = made[0].token.clone().unwrap();
        assert!(is_token(&key(1), Hook::Validate, "driftguards", &fail));
        assert!(
            !is_token(&key(1), Hook::Mutate, "driftguards", &fail),
            "the gate's tells nothing of signing"
        );
        assert!(!is_token(&key(2), Hook::Validate, "driftguards", &fail));
        assert!(!is_token(&key(1), Hook::Validate, "driftguardexceptions", &fail));
        assert!(!is_token(&key(1), Hook::Validate, "driftguards", &fail[1..]));
        for entry in made {
            let resource = entry.resources[0].clone();
            let open = crate::core::registration::glass::opened(entry);
            let token = open.token.as_deref().unwrap();
            assert_eq!(open.path(1), format!("/validate/g1/ignore/{resource}/{token}"));
            assert!(is_token(&key(1), Hook::Validate, &resource, token), "broken glass leaves it as it is");
        }
    }

    #[test]
    fn only_updates_are_looked_at_closer() {
        for entry in entries(Hook::Validate) {
            assert_eq!(condition(&entry).is_some(), entry.operations.contains(&Operation::Update));
        }
    }

    #[test]
    fn an_update_of_a_guard_comes_by_one_entry_at_most() {
        let of_guards: Vec<&str> = entries(Hook::Validate)
            .iter()
            .filter(|entry| entry.resources == ["driftguards"])
            .filter_map(condition)
            .collect();
        let [approves, relabels] = of_guards[..] else { unreachable!("{of_guards:?}") };
        assert!(relabels.starts_with(&format!("!({approves}) && ")), "{relabels}");
    }
}
