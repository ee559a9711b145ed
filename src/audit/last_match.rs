//! The look that last found approved content, kept in the status of the guard: a leader that begins after the API
//! server was replaced, or a definition edited, knows by it that nobody has written what reads otherwise now.

use crate::api::status::LastMatch;
use crate::core::audit::book::Matched;
use crate::core::audit::sight::{Present, ReadBefore};
use crate::core::guard::Guard;
use crate::core::signature::{Purpose, SigningKey};

/// What is to stand in the status. `server` is the `gitVersion` of the API server that showed the object.
pub(super) fn noted(key: &SigningKey, guard: &Guard, matched: &Matched, server: &str) -> LastMatch {
    let mut noted = LastMatch {
        hash: matched.hash.to_string(),
        uid: matched.uid.clone(),
        resource_version: matched.resource_version.clone(),
        server_version: server.to_owned(),
        signature: String::new(),
    };
    noted.signature = with_parts(guard, &noted, |parts| key.sign(Purpose::Match, parts));
    noted
}

/// As what the very version that is `present` was read before, when DriftGuard itself has noted it for this guard as
/// it is.
pub(super) fn read_before(
    key: Option<&SigningKey>,
    guard: &Guard,
    noted: Option<&LastMatch>,
    present: &Present,
) -> Option<ReadBefore> {
    let noted = noted?;
    let hash = noted.hash.parse().ok()?;
    let is_unwritten = noted.uid == present.uid && noted.resource_version == present.resource_version;
    let is_ours = with_parts(guard, noted, |parts| {
        key?.verifies(Purpose::Match, parts, &noted.signature).then_some(())
    });
    (is_unwritten && hash != present.hash && is_ours.is_some())
        .then(|| ReadBefore { hash, server: noted.server_version.clone() })
}

fn with_parts<T>(guard: &Guard, noted: &LastMatch, give: impl FnOnce(&[&[u8]]) -> T) -> T {
    let generation = guard.generation.to_string();
    give(&[
        guard.uid.as_str().as_bytes(),
        generation.as_bytes(),
        noted.hash.as_bytes(),
        noted.uid.as_bytes(),
        noted.resource_version.as_bytes(),
        noted.server_version.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::audit::watch::test_support::guard;
    use crate::core::hash::ContentHash;

    fn present(revision: &str, content: &[u8]) -> Present {
        Present {
            uid: "object".into(),
            resource_version: revision.into(),
            hash: ContentHash::of(content),
            terminating: false,
        }
    }

    #[test]
    fn another_reading_is_known_of_the_very_version_that_was_noted() {
        let key = SigningKey::new(&[7; 32]).unwrap();
        let guard = guard("g", Some("n"), "x");
        let hash = ContentHash::of(b"a");
        let matched = Matched { uid: "object".into(), resource_version: "7".into(), hash };
        let noted = noted(&key, &guard, &matched, "v1.33.0");
        let read = |guard, noted, seen| read_before(Some(&key), guard, Some(noted), &seen);
        let before = ReadBefore { hash, server: "v1.33.0".into() };
        assert_eq!(read(&guard, &noted, present("7", b"b")), Some(before));
        assert_eq!(read(&guard, &noted, present("7", b"a")), None, "it reads as it did");
        assert_eq!(read(&guard, &noted, present("8", b"b")), None, "it was written");
        let edited = Guard { generation: 2, ..guard.clone() };
        assert_eq!(read(&edited, &noted, present("7", b"b")), None);
        // Whoever may write a status could else have their own content approved.
        let forged = LastMatch { resource_version: "9".into(), ..noted.clone() };
        assert_eq!(read(&guard, &forged, present("9", b"evil")), None);
        assert_eq!(read_before(None, &guard, Some(&noted), &present("7", b"b")), None);
    }
}
