//! Hashes as which another version of the API server reads approved content, kept signed in the status of
//! the guard.

use crate::core::hash::ContentHash;
use crate::core::signature::{Purpose, SigningKey};

/// The signature of a hash that stands for the expected one of exactly this spec of exactly this guard.
#[must_use]
pub fn sign(
    key: &SigningKey,
    uid: &str,
    generation: i64,
    expected: ContentHash,
    hash: ContentHash,
) -> String {
    let (generation, expected, hash) = (generation.to_string(), expected.to_string(), hash.to_string());
    key.sign(
        Purpose::Equivalent,
        &[uid.as_bytes(), generation.as_bytes(), expected.as_bytes(), hash.as_bytes()],
    )
}

/// Whether DriftGuard signed exactly that.
#[must_use]
pub fn verifies(
    key: &SigningKey,
    uid: &str,
    generation: i64,
    expected: ContentHash,
    hash: ContentHash,
    signature: &str,
) -> bool {
    let (generation, expected, hash) = (generation.to_string(), expected.to_string(), hash.to_string());
    let parts = [uid.as_bytes(), generation.as_bytes(), expected.as_bytes(), hash.as_bytes()];
    key.verifies(Purpose::Equivalent, &parts, signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_signature_is_of_one_hash_for_one_spec_of_one_guard() {
        let key = SigningKey::new(&[7; 32]).unwrap();
        let (expected, hash) = (ContentHash::of(b"a"), ContentHash::of(b"b"));
        let signature = sign(&key, "u", 3, expected, hash);
        assert!(verifies(&key, "u", 3, expected, hash, &signature));
        assert!(!verifies(&key, "v", 3, expected, hash, &signature));
        assert!(!verifies(&key, "u", 4, expected, hash, &signature));
        assert!(!verifies(&key, "u", 3, hash, expected, &signature));
    }
}
