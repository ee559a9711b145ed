//! How a receiver knows that a message is ours: an HMAC over the time and the body.
//!
//! The header reads `t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "<t>.<body>">`. The time is part of
//! what is signed, so that a receiver can refuse what somebody recorded and sends again later.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::event::hex;

/// The header with the signature.
pub const HEADER: &str = "x-driftguard-signature";
/// Shortest key: what is shorter can be guessed.
pub const SHORTEST_KEY: usize = 16;

/// The value of the header for `body`, sent at `seconds` since 1970.
#[must_use]
pub fn header(key: &[u8], seconds: i64, body: &str) -> String {
    // HMAC takes a key of any length.
    let Ok(mut code) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    code.update(format!("{seconds}.").as_bytes());
    code.update(body.as_bytes());
    format!("t={seconds},v1={}", hex(&code.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn the_signature_is_what_others_compute() {
        assert_eq!(
            header(b"0123456789abcdef", 1_700_000_000, r#"{"a":1}"#),
            "t=1700000000,v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23"
        );
    }
}
