//! Approved content that was seen live, kept for the day when every source is down.
//!
//! Kept by guard and hash, so that it is given back to that guard alone and only while it is what that
//! guard approves. Never of a Secret: its values would lie in memory for as long as the process lives.
//! Bounded in bytes; what was used longest ago goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::hash::ContentHash;
use crate::core::json::{Cursor, JsonError};
use crate::core::scope::Scope;
use crate::core::text::Text;

/// Most bytes in all: no more than leaves room for a hundred thousand guards in 150 MiB.
const MOST_BYTES: usize = 8 << 20;
/// Most bytes of one object. What is larger is rare, and would push out many others.
const MOST_OF_ONE: usize = 1 << 20;
/// What an entry costs beside its bytes: keys in both maps, and their nodes.
const OVERHEAD: usize = 256;

/// A guard's uid and the hash that it approves.
type Key = (Text, ContentHash);

/// Approved content seen live.
#[derive(Debug)]
pub struct LastGood {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    /// When each was used last; the smallest first.
    order: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

struct Entry {
    object: Box<[u8]>,
    used: u64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects, {} bytes", self.entries.len(), self.bytes)
    }
}

impl Default for LastGood {
    fn default() -> Self {
        Self::holding(MOST_BYTES)
    }
}

impl LastGood {
    /// Keeps at most so many bytes.
    #[must_use]
    pub fn holding(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// Keeps an object as the API server sent it, whose scope hashes to `hash`, which the guard approves.
    /// Not that of a Secret, nor one that is too large. Whether it was kept.
    pub fn put(&self, guard_uid: &Text, scope: &Scope, hash: ContentHash, object: &[u8]) -> bool {
        if scope.is_secret() {
            return false;
        }
        let Ok(object) = essence(object) else { return false };
        let cost = object.len() + OVERHEAD;
        if object.len() > MOST_OF_ONE || cost > self.most {
            return false;
        }
        let key = (guard_uid.clone(), hash);
        let mut kept = self.lock();
        kept.remove(&key);
        while kept.bytes + cost > self.most {
            let Some((_, oldest)) = kept.order.pop_first() else { break };
            kept.remove(&oldest);
        }
        let used = kept.tick();
        kept.order.insert(used, key.clone());
        kept.bytes += cost;
        kept.entries.insert(key, Entry { object: object.into(), used });
        true
    }

    /// The object that was kept for a guard and a hash: a whole manifest without status, and of its
    /// metadata only name and namespace.
    #[must_use]
    pub fn get(&self, guard_uid: &Text, hash: ContentHash) -> Option<Vec<u8>> {
        let key = (guard_uid.clone(), hash);
        let mut kept = self.lock();
        let now = kept.tick();
        let entry = kept.entries.get_mut(&key)?;
        let before = std::mem::replace(&mut entry.used, now);
        let object = entry.object.to_vec();
        kept.order.remove(&before);
        kept.order.insert(now, key);
        Some(object)
    }

    /// Bytes that are kept, with what keeping them costs.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing between two statements leaves it out of step but for bytes that are counted too many.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.object.len() + OVERHEAD;
        }
    }
}

/// An object without `status` and what of its metadata does not name it: managedFields can be larger than
/// all the rest, and nothing of it was approved.
fn essence(object: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(object.len());
    let mut cursor = Cursor::new(object);
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let at = cursor;
        let span = cursor.skip_value()?;
        if key.is(object, "status") {
            continue;
        }
        member(&mut out, key.span.of(object));
        if key.is(object, "metadata") {
            names(at, &mut out)?;
        } else {
            out.extend_from_slice(span.of(object));
        }
    }
    cursor.finish()?;
    close(&mut out);
    Ok(out)
}

fn names(mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let text = cursor.text;
    let mut members = cursor.enter_object()?;
    let mut named = Vec::new();
    while let Some(key) = cursor.next_member(&mut members)? {
        let span = cursor.skip_value()?;
        if ["name", "namespace"].into_iter().any(|name| key.is(text, name)) {
            member(&mut named, key.span.of(text));
            named.extend_from_slice(span.of(text));
        }
    }
    close(&mut named);
    out.extend_from_slice(&named);
    Ok(())
}

/// Begins a member, with the brace or comma before it.
fn member(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

fn close(out: &mut Vec<u8>) {
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::paths::PathFilter;

    fn scope(kind: &str) -> Scope {
        Scope::new("", kind, PathFilter::everything())
    }

    fn hash(text: &str) -> ContentHash {
        ContentHash::of(text.as_bytes())
    }

    fn object(size: usize) -> Vec<u8> {
        format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(size)).into_bytes()
    }

    #[test]
    fn what_names_and_what_is_content_is_kept_and_nothing_else() {
        let live = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"uid":"u","namespace":"n","managedFields":[{"a":{}}],"name":"x"},"data":{"n":"1"},"status":{"a":1}}"#;
        let good = LastGood::default();
        assert!(good.put(&"g".into(), &scope("ConfigMap"), hash("1"), live));
        let kept = String::from_utf8(good.get(&"g".into(), hash("1")).unwrap()).unwrap();
        assert_eq!(
            kept,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"n","name":"x"},"data":{"n":"1"}}"#
        );
        assert_eq!(good.get(&"g".into(), hash("2")), None);
        assert_eq!(good.get(&"other".into(), hash("1")), None, "another guard's");
    }

    #[test]
    fn nothing_of_a_secret_is_kept() {
        let good = LastGood::default();
        assert!(!good.put(&"g".into(), &scope("Secret"), hash("1"), &object(1)));
        assert_eq!((good.get(&"g".into(), hash("1")), good.bytes()), (None, 0));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_bytes_stay_bounded() {
        let cost = object(1000).len() + OVERHEAD;
        let good = LastGood::holding(3 * cost);
        let put = |guard: &str| good.put(&guard.into(), &scope("ConfigMap"), hash("1"), &object(1000));
        let has = |guard: &str| good.get(&guard.into(), hash("1")).is_some();
        for guard in ["a", "b", "c"] {
            assert!(put(guard));
        }
        assert!(has("a"), "used again");
        assert!(put("d"));
        assert!(!has("b") && has("a") && has("c") && has("d"));
        assert!(put("d") && good.bytes() == 3 * cost, "the same again costs nothing more");
        for number in 0..1000 {
            put(&format!("g{number}"));
            assert!(good.bytes() <= 3 * cost);
        }
    }

    #[test]
    fn what_is_too_large_or_no_object_is_left_alone() {
        let good = LastGood::default();
        let put = |object: &[u8]| good.put(&"g".into(), &scope("ConfigMap"), hash("1"), object);
        assert!(!put(&object(MOST_OF_ONE)) && !put(b"[]") && !put(b"{\"metadata\":{") && !put(b""));
        assert!(put(&object(MOST_OF_ONE - 100)));
        assert!(!LastGood::holding(100).put(&"g".into(), &scope("ConfigMap"), hash("1"), &object(1)));
    }
}
