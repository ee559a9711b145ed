//! Many uids in little room: a Bloom filter.
//!
//! It never denies one that was put in, and takes few others for one of them: of 1,000 others one or
//! none when it holds 1,000, and four in a hundred when it holds 10,000.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::hash::ContentHash;

/// As many bits as two bytes of a hash can name.
const BYTES: usize = (1 << 16) / 8;
/// Bits for each uid.
const MARKS: usize = 4;

/// Uids of which it can be told that one is surely not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crowd(Vec<u8>);

impl Crowd {
    /// A crowd of these uids.
    pub(super) fn of<'a>(uids: impl Iterator<Item = &'a str>) -> Self {
        let mut bits = vec![0; BYTES];
        for mark in uids.flat_map(marks) {
            bits[mark / 8] |= 1 << (mark % 8);
        }
        Self(bits)
    }

    /// Whether `uid` may be among them.
    pub(super) fn may_hold(&self, uid: &str) -> bool {
        // One that was cut short says nothing, and so may hold everything.
        marks(uid).into_iter().all(|mark| self.0.get(mark / 8).is_none_or(|byte| byte >> (mark % 8) & 1 == 1))
    }
}

/// The bits of a uid.
fn marks(uid: &str) -> [usize; MARKS] {
    let hash = ContentHash::of(uid.as_bytes()).to_string();
    std::array::from_fn(|number| {
        let digits = &hash[number * 4..][..4];
        // Hexadecimal digits always are a number.
        usize::from_str_radix(digits, 16).unwrap_or_default()
    })
}

impl Serialize for Crowd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Crowd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD_NO_PAD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn every_member_is_found_and_hardly_anybody_else() {
        let uids: Vec<String> = (0..1000).map(|number| format!("member-{number}")).collect();
        let crowd = Crowd::of(uids.iter().map(String::as_str));
        assert!(uids.iter().all(|uid| crowd.may_hold(uid)));
        let strangers = (0..1000).filter(|number| crowd.may_hold(&format!("stranger-{number}"))).count();
        assert!(strangers <= 5, "{strangers}");
    }

    #[test]
    fn it_reads_back_as_it_was_written_and_one_cut_short_holds_everybody() {
        let crowd = Crowd::of(["a"].into_iter());
        let text = serde_json::to_string(&crowd).unwrap();
        assert_eq!(serde_json::from_str::<Crowd>(&text).unwrap(), crowd);
        assert!(!crowd.may_hold("b"));
        assert!(serde_json::from_str::<Crowd>("\"\"").unwrap().may_hold("b"));
    }
}
