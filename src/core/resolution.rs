//! Which resource the kind of a guard was found to mean, kept in the guard's status.
//!
//! While its spec stays, a guard goes by the resource that its kind was first found to mean: whoever may
//! make CRDs must not turn it to another one, not even over a restart of every replica. Whoever may
//! write statuses must not either, so that it is signed over the guard's uid and generation.

use super::guard::Target;
use super::kinds::KindEntry;
use super::signature::{Purpose, SigningKey};

/// Whether a resource can ever be pushed aside by another one. The core group goes first, and no kind of
/// it goes away.
#[must_use]
pub fn can_be_lost(target: &Target) -> bool {
    !target.group.is_empty()
}

/// The entry of discovery by which a target was found.
#[must_use]
pub fn entry(target: &Target) -> KindEntry {
    KindEntry {
        group: target.group.clone(),
        version: target.version.clone(),
        kind: target.kind.clone(),
        plural: target.resource.clone(),
        namespaced: target.namespace.is_some(),
        preferred: true,
    }
}

/// The signature of what the kind of a guard was found to mean.
#[must_use]
pub fn sign(key: &SigningKey, uid: &str, generation: i64, found: &KindEntry) -> String {
    with_parts(uid, generation, found, |parts| key.sign(Purpose::Resolution, parts))
}

/// Whether `signature` is that of exactly this, for exactly this guard and generation.
#[must_use]
pub fn verifies(key: &SigningKey, uid: &str, generation: i64, found: &KindEntry, signature: &str) -> bool {
    // A guard without a uid stands in no cluster.
    !uid.is_empty()
        && with_parts(uid, generation, found, |parts| key.verifies(Purpose::Resolution, parts, signature))
}

fn with_parts<T>(uid: &str, generation: i64, found: &KindEntry, use_parts: impl FnOnce(&[&[u8]]) -> T) -> T {
    use_parts(&[
        uid.as_bytes(),
        &generation.to_be_bytes(),
        found.group.as_bytes(),
        found.version.as_bytes(),
        found.kind.as_bytes(),
        found.plural.as_bytes(),
        &[found.namespaced.into()],
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::signature::KEY_LENGTH;

    fn target() -> Target {
        Target {
            group: "a.io".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            resource: "widgets".into(),
            namespace: Some("n".into()),
            name: "w".into(),
        }
    }

    #[test]
    fn a_signature_holds_for_one_guard_one_spec_and_one_resource() {
        let key = SigningKey::new(&[7; KEY_LENGTH]).unwrap();
        let found = entry(&target());
        let signature = sign(&key, "u", 3, &found);
        assert!(verifies(&key, "u", 3, &found, &signature));
        assert!(!verifies(&key, "v", 3, &found, &signature), "another guard");
        assert!(!verifies(&key, "u", 4, &found, &signature), "another spec");
        assert!(!verifies(&key, "", 3, &found, &sign(&key, "", 3, &found)));
        for other in [
            KindEntry { group: "b.io".into(), ..found.clone() },
            KindEntry { version: "v2".into(), ..found.clone() },
            KindEntry { kind: "widget".into(), ..found.clone() },
            KindEntry { plural: "others".into(), ..found.clone() },
            KindEntry { namespaced: false, ..found.clone() },
        ] {
            assert!(!verifies(&key, "u", 3, &other, &signature), "{other:?}");
        }
        assert!(!verifies(&SigningKey::new(&[8; KEY_LENGTH]).unwrap(), "u", 3, &found, &signature));
    }

    #[test]
    fn only_what_may_be_pushed_aside_needs_remembering() {
        assert!(can_be_lost(&target()));
        assert!(!can_be_lost(&Target { group: "".into(), ..target() }));
    }
}
