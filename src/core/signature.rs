//! Signatures of what DriftGuard itself wrote into objects that others may write, too.
//!
//! An HMAC-SHA256 over named parts, each with its length before it, so that no two lists of parts give
//! the same bytes, and under a purpose, so that a signature made for one thing never stands for another.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Who approved the spec of a guard.
    Author,
    /// That a guard of enforcement `Audit` has become one of `Deny`.
    Promotion,
    /// Which resource the kind of a guard was found to mean.
    Resolution,
    /// That another hash is that of the approved content, as the API server now reads it.
    Equivalent,
    /// Which object was found as approved, in which version, and who showed it.
    Match,
    /// That a request came by a path that only readers of our webhook configurations know.
    Path,
}

/// Bytes of a token, two hex digits each.
const TOKEN_LENGTH: usize = 16;

impl Purpose {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Author => b"driftguard author v1",
            Self::Promotion => b"driftguard promotion v1",
            Self::Resolution => b"driftguard resolution v1",
            Self::Equivalent => b"driftguard equivalent v1",
            Self::Match => b"driftguard match v1",
            Self::Path => b"driftguard path v1",
        }
    }
}

/// A key that all replicas share.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey([u8; KEY_LENGTH]);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// A key of exactly [`KEY_LENGTH`] bytes; `None` for any other length.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The signature of these parts, 64 lower-case hex digits.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> String {
        let code = self.code(purpose, parts).finalize().into_bytes();
        code.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `signature` is that of these parts, in constant time.
    #[must_use]
    pub fn verifies(&self, purpose: Purpose, parts: &[&[u8]], signature: &str) -> bool {
        bytes_of(signature).is_some_and(|bytes| self.code(purpose, parts).verify_slice(&bytes).is_ok())
    }

    /// The beginning of the signature of these parts, 32 lower-case hex digits: what nobody guesses.
    #[must_use]
    pub fn token(&self, purpose: Purpose, parts: &[&[u8]]) -> String {
        let mut token = self.sign(purpose, parts);
        token.truncate(2 * TOKEN_LENGTH);
        token
    }

    /// Whether `token` is that of these parts, in constant time.
    #[must_use]
    pub fn is_token(&self, purpose: Purpose, parts: &[&[u8]], token: &str) -> bool {
        bytes_of(token).is_some_and(|bytes| {
            bytes.len() == TOKEN_LENGTH && self.code(purpose, parts).verify_truncated_left(&bytes).is_ok()
        })
    }

    fn code(&self, purpose: Purpose, parts: &[&[u8]]) -> Hmac<Sha256> {
        // Shorter keys are filled up with zeros by the definition of HMAC.
        let mut block = [0; 64];
        block[..KEY_LENGTH].copy_from_slice(&self.0);
        let mut code = <Hmac<Sha256> as Mac>::new(&block.into());
        for part in [purpose.word()].iter().chain(parts) {
            code.update(&(part.len() as u64).to_be_bytes());
            code.update(part);
        }
        code
    }
}

/// What lower-case hex digits stand for; `None` for anything else.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::new(&[byte; KEY_LENGTH]).unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_key_purpose_and_parts_alone() {
        let signature = key(1).sign(Purpose::Author, &[b"ab", b"c"]);
        assert!(key(1).verifies(Purpose::Author, &[b"ab", b"c"], &signature));
        assert!(!key(2).verifies(Purpose::Author, &[b"ab", b"c"], &signature));
        assert!(!key(1).verifies(Purpose::Promotion, &[b"ab", b"c"], &signature));
        assert!(!key(1).verifies(Purpose::Author, &[b"a", b"bc"], &signature));
        assert!(!key(1).verifies(Purpose::Author, &[b"abc"], &signature));
    }

    #[test]
    fn a_token_holds_for_its_key_and_parts_and_is_whole() {
        let token = key(1).token(Purpose::Path, &[b"validate"]);
        assert_eq!(token.len(), 32);
        assert!(key(1).is_token(Purpose::Path, &[b"validate"], &token));
        assert!(!key(2).is_token(Purpose::Path, &[b"validate"], &token));
        assert!(!key(1).is_token(Purpose::Path, &[b"mutate"], &token));
        assert!(!key(1).is_token(Purpose::Author, &[b"validate"], &token));
        for text in ["", &token[..2], &token[..30], &token.to_uppercase(), &format!("{token}00"), "/", "zz"] {
            assert!(!key(1).is_token(Purpose::Path, &[b"validate"], text), "{text}");
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for text in ["", "0", "zz", "00", &"0".repeat(64), &"\u{e9}".repeat(32)] {
            assert!(!key(1).verifies(Purpose::Author, &[], text), "{text}");
        }
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", key(7)), "SigningKey(..)");
        assert!(SigningKey::new(b"short").is_none());
    }
}
