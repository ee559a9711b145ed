//! The hash that pins content: a SHA-256 of the canonical form.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Prefix that a guard may put before the hex digits, as container tools write it.
const PREFIX: &str = "sha256:";

/// SHA-256 of the canonical form of an object's scope.
///
/// `Debug` prints no digits: the unkeyed hash of a weak Secret can be guessed from, so it must not
/// slip into a log by accident. Print with `Display` where it is known not to be a Secret's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 32]);

/// Why a text is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: want 64 hexadecimal digits, with or without `sha256:` before them")]
pub struct InvalidHash;

impl ContentHash {
    /// The hash of these canonical bytes.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(Sha256::digest(canonical).into())
    }

    /// The hash in the spelling of another one: behind `sha256:` when that is.
    #[must_use]
    pub fn respelt(&self, other: &str) -> String {
        if other.starts_with(PREFIX) { format!("{PREFIX}{self}") } else { self.to_string() }
    }

    /// Takes the digest that a hasher computed.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl FromStr for ContentHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(InvalidHash);
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidHash),
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHash(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const EMPTY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn the_hash_prints_as_lower_case_hex() {
        assert_eq!(ContentHash::of(b"{}").to_string(), EMPTY);
    }

    #[test]
    fn any_case_and_the_prefix_mean_the_same_hash() {
        let plain: ContentHash = EMPTY.parse().unwrap();
        assert_eq!(EMPTY.to_uppercase().parse(), Ok(plain));
        assert_eq!(format!("sha256:{EMPTY}").parse(), Ok(plain));
    }

    #[test]
    fn anything_else_is_no_hash() {
        for text in ["", "sha256:", &EMPTY[1..], &format!("{EMPTY}0"), &EMPTY.replace('4', "g"), "SHA256:44"]
        {
            assert_eq!(text.parse::<ContentHash>(), Err(InvalidHash), "{text}");
        }
    }

    #[test]
    fn debug_output_holds_no_digit_of_the_hash() {
        assert_eq!(format!("{:?}", ContentHash::of(b"weak secret")), "ContentHash(..)");
    }
}
