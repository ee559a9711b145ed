//! The hash that kustomize adds to the names of ConfigMaps and Secrets, computed again: an ending that only looks like
//! one is part of a name.
//!
//! <https://github.com/kubernetes-sigs/kustomize/blob/master/api/hasher/hasher.go>

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::hash::ContentHash;
use crate::core::scope::ScopeKind;
use crate::document::Document;

/// Length and letters of the hash: the first hexadecimal digits of a SHA-256, of which some are spelt as other letters
/// so that no words come up.
const LENGTH: usize = 10;
const LETTERS: &str = "2456789bcdfghkmt";

/// The name of an object without what looks like the hash of kustomize; `None` when it does not end in one.
pub(super) fn stem(document: &Document) -> Option<&str> {
    let (stem, suffix) = document.name.rsplit_once('-')?;
    let is_suffix = suffix.len() == LENGTH && suffix.chars().all(|letter| LETTERS.contains(letter));
    (is_suffix && !stem.is_empty() && kind(document).is_some()).then_some(stem)
}

/// Whether the name of an object ends in the hash that kustomize makes of its content.
pub(super) fn is_right(document: &Document) -> bool {
    hash(document).is_some_and(|hash| document.name.ends_with(&hash))
}

fn kind(document: &Document) -> Option<ScopeKind> {
    let kind = ScopeKind::of(document.group(), &document.kind);
    matches!(kind, ScopeKind::ConfigMap | ScopeKind::Secret).then_some(kind)
}

/// The hash; `None` when the content is none that the API server takes.
fn hash(document: &Document) -> Option<String> {
    let object: Value = serde_json::from_slice(&document.json).ok()?;
    // Strings alone, so that no spelling of numbers has to be followed; in the order of bytes, as Go sorts.
    let map = |field: &str| match &object[field] {
        Value::Null => Some(None),
        Value::Object(members) => {
            let members: Option<BTreeMap<&str, &str>> =
                members.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
            members.map(Some)
        }
        _ => None,
    };
    let kind = kind(document)?;
    let data = map("data")?.map_or_else(|| json!(""), |data| json!(data));
    // The name is left empty, and what is absent is either an empty text or not there.
    let mut hashed = BTreeMap::from([("data", data), ("name", json!(""))]);
    let more = match kind {
        ScopeKind::Secret => {
            hashed.insert("kind", json!("Secret"));
            hashed.insert("type", json!(object["type"].as_str().unwrap_or_default()));
            "stringData"
        }
        _ => {
            hashed.insert("kind", json!("ConfigMap"));
            "binaryData"
        }
    };
    if let Some(members) = map(more)? {
        hashed.insert(more, json!(members));
    }
    let digest = ContentHash::of(as_go(&serde_json::to_string(&hashed).ok()?).as_bytes()).to_string();
    let spelt = digest.chars().take(LENGTH).map(|digit| match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    });
    Some(spelt.collect())
}

/// JSON as Go writes it: with escapes for what would be markup or a line end elsewhere. All of these stand in strings.
fn as_go(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn document(text: &str) -> Document {
        crate::document::read(&["-"], &mut text.as_bytes()).unwrap().remove(0)
    }

    fn named(kind: &str, name: &str) -> Document {
        document(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"))
    }

    #[test]
    fn an_ending_that_may_be_a_hash_is_known_by_length_and_letters() {
        assert_eq!(stem(&named("ConfigMap", "settings-5h2k9f7g8h")), Some("settings"));
        assert_eq!(stem(&named("Secret", "a-b-mmtbfcgdhk")), Some("a-b"));
        for other in
            ["settings", "settings-5h2k9f7g8", "settings-5h2k9f7g8a", "settings-5h2k9f7g83", "x5h2k9f7g8h"]
        {
            assert_eq!(stem(&named("ConfigMap", other)), None, "{other}");
        }
        assert_eq!(stem(&named("GAMAConfig", "fees-2456789245")), None);
        assert_eq!(
            stem(&document("apiVersion: x.io/v1\nkind: Secret\nmetadata: {name: s-5h2k9f7g8h}\n")),
            None
        );
    }

    /// What `kustomize build` (5.7.1) made of generators.
    #[test]
    fn the_hash_is_the_one_that_kustomize_makes() {
        let vectors = include_str!("../../../tests/vectors/kustomize-names.yaml");
        let made = crate::document::read(&["-"], &mut vectors.as_bytes()).unwrap();
        assert!(made.len() >= 10, "the table is there");
        for document in made {
            assert!(stem(&document).is_some() && is_right(&document), "{}", document.name);
        }
    }

    #[test]
    fn other_content_has_another_hash() {
        let object = |data: &str| {
            document(&format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: s-9g67k2htb6}}\ndata: {data}\n"
            ))
        };
        assert!(is_right(&object("{one: ''}")));
        assert!(!is_right(&object("{one: ' '}")));
        assert!(!is_right(&object("{one: 1}")), "no such object can be");
    }
}
