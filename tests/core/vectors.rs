//! Hashes that are in clusters today stay valid.

use driftguard::core::canonical::{canonical_object, hash_object};
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    object: String,
    canonical: String,
    hash: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
    #[serde(default)]
    only_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Representation {
    kind: String,
    #[serde(rename = "on 1.33")]
    old: String,
    #[serde(rename = "on 1.37")]
    new: String,
    equal: bool,
    hashes: [String; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

fn scope_of(object: &str, filter: PathFilter) -> Scope {
    // Unknown fields are skipped without recursion, so deep objects can be read here too.
    let head: Head = serde_json::from_str(object).expect("an object with apiVersion and kind");
    let group = head.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    Scope::new(group, &head.kind, filter)
}

#[test]
fn every_canonical_vector_is_reproduced() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../vectors/canonical.json")).unwrap();
    assert!(cases.len() > 200, "only {} vectors", cases.len());
    for case in cases {
        let filter = if case.only_paths.is_empty() {
            PathFilter::ignoring(&case.ignore_paths)
        } else {
            PathFilter::only(&case.only_paths)
        };
        let scope = scope_of(&case.object, filter.unwrap());
        let bytes = canonical_object(case.object.as_bytes(), &scope)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(String::from_utf8(bytes).unwrap(), case.canonical, "{}", case.name);
        let hash = hash_object(case.object.as_bytes(), &scope).unwrap();
        assert_eq!(hash.to_string(), case.hash, "{}", case.name);
    }
}

#[test]
fn what_two_server_versions_return_hashes_as_recorded() {
    let cases: Vec<Representation> =
        serde_json::from_str(include_str!("../vectors/representation.json")).unwrap();
    for case in cases {
        let hashes = [&case.old, &case.new].map(|object| {
            hash_object(object.as_bytes(), &scope_of(object, PathFilter::everything())).unwrap().to_string()
        });
        assert_eq!(hashes, case.hashes, "{}", case.kind);
        assert_eq!(hashes[0] == hashes[1], case.equal, "{}", case.kind);
    }
}
