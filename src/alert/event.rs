//! One message that must reach somebody, and the form in which it waits on disk.
//!
//! A file holds a header line with the SHA-256 of all that follows, then one JSON object. What was cut
//! off or altered does not fit its header, and is recognised however the process ended.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the header line starts with; another form of file gets another word.
const HEADER: &str = "driftguard-event v1 ";
/// Bytes of [`Key`]. Ids are of our own making: nobody gains by a collision.
const KEY_LENGTH: usize = 16;

/// What a message is, which decides where and how it is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// An alert, or the notice that it is resolved, as a CloudEvent.
    Alert,
    /// Drift that was found, in the words of the older operator.
    Drift,
    /// An attempt to restore, in the words of the older operator.
    Remediation,
}

/// A message as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Names the message; the same id is never sent on purpose twice.
    pub id: String,
    /// What the message belongs to: messages of one transaction are delivered in order.
    pub transaction_id: String,
    /// What it is.
    pub kind: Kind,
    /// The body, JSON.
    pub body: String,
}

/// A short name of an id or transaction.
pub type Key = [u8; KEY_LENGTH];

/// The short name of `text`.
#[must_use]
pub fn key(text: &str) -> Key {
    let digest = Sha256::digest(text.as_bytes());
    let mut key = [0; KEY_LENGTH];
    key.copy_from_slice(&digest[..KEY_LENGTH]);
    key
}

impl Event {
    /// The bytes of its file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        // Four texts always serialise.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = format!("{HEADER}{}\n", hex(&Sha256::digest(&json))).into_bytes();
        bytes.extend_from_slice(&json);
        bytes
    }

    /// What a file holds; `None` when it is torn, altered or of another form.
    #[must_use]
    pub fn from_file(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(HEADER.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (digest, json) = (&rest[..end], &rest[end + 1..]);
        if digest != hex(&Sha256::digest(json)).as_bytes() {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The short name that [`hex`] wrote; `None` when it is none.
pub(super) fn unhex(text: &str) -> Option<Key> {
    let mut key = [0; KEY_LENGTH];
    if text.len() != 2 * KEY_LENGTH || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn event() -> Event {
        Event {
            id: "019a-firing".into(),
            transaction_id: "019a".into(),
            kind: Kind::Alert,
            body: "{\"text\":\"two\\nlines \u{e9}\"}".into(),
        }
    }

    #[test]
    fn a_short_name_is_read_back_and_nothing_else_is_one() {
        let name = key("a");
        assert_eq!(unhex(&hex(&name)), Some(name));
        for wrong in ["", "ab", "\u{e9}", &"+1".repeat(KEY_LENGTH), &"0".repeat(2 * KEY_LENGTH + 1)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        assert_eq!(Event::from_file(&event().to_file()), Some(event()));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_recognised() {
        let whole = event().to_file();
        for length in 0..whole.len() {
            assert_eq!(Event::from_file(&whole[..length]), None, "cut off after {length} bytes");
            // What a file system shows of blocks that were never written.
            let mut zeroed = whole[..length].to_vec();
            zeroed.resize(whole.len(), 0);
            assert_eq!(Event::from_file(&zeroed), None, "zeroed after {length} bytes");
        }
        let mut longer = whole.clone();
        longer.push(b'x');
        assert_eq!(Event::from_file(&longer), None);
    }

    #[test]
    fn one_altered_byte_is_recognised() {
        let whole = event().to_file();
        for place in 0..whole.len() {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            assert_eq!(Event::from_file(&altered), None, "byte {place}");
        }
    }
}
