//! The examples are what they say: each guard pins the object beside it, by its real hash.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

use driftguard::api::{DriftGuard, names};
use driftguard::core::canonical::hash_object;
use driftguard::core::hash::ContentHash;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde_json::Value;

/// Guard and guarded object, by the file names of the older operator's README.
const PAIRS: [(&str, &str); 3] = [
    ("gama-config-guard.yaml", "gama-config.yaml"),
    ("configmap-guard.yaml", "configmap.yaml"),
    ("secret-guard.yaml", "secret.yaml"),
];

fn example(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_example_guard_approves_the_object_beside_it() {
    for (guard, object) in PAIRS {
        let guard: DriftGuard = serde_json::from_value(example(guard)).unwrap();
        let object = example(object);
        let text = |pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        assert_eq!(guard.spec.target_kind, text("/kind"));
        assert_eq!(guard.spec.target_name, text("/metadata/name"));
        assert_eq!(guard.spec.target_namespace.unwrap(), text("/metadata/namespace"));
        let version = text("/apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let scope = Scope::new(group, &guard.spec.target_kind, PathFilter::everything());
        let hash = hash_object(&serde_json::to_vec(&object).unwrap(), &scope).unwrap();
        let expected: ContentHash = guard.spec.expected_hash.parse().unwrap();
        assert!(hash == expected, "{}: the content hashes to {hash}", guard.metadata.name.unwrap());
    }
}

#[test]
fn examples_are_pairs_of_guard_and_object() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.sort();
    let mut known: Vec<&str> = PAIRS.iter().flat_map(|(guard, object)| [*guard, *object]).collect();
    known.sort_unstable();
    assert_eq!(found, known, "a new example needs its place in the test");
}

#[test]
fn examples_live_where_the_product_is_installed_and_tell_whom_to_ask() {
    for (guard, object) in PAIRS {
        assert_eq!(example(guard)["metadata"]["namespace"], names::NAMESPACE);
        assert_eq!(example(object)["metadata"]["namespace"], names::NAMESPACE);
    }
    let annotations = &example(PAIRS[0].0)["metadata"]["annotations"];
    assert!(annotations[names::ANNOTATION_CONTACT].is_string());
    assert!(annotations[names::ANNOTATION_RUNBOOK].is_string());
}
