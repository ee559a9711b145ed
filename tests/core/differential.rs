//! The fast canonical form against the oracle, on any bytes whatever. `make fuzz` runs the same
//! function with inputs that a fuzzer finds.

use driftguard::core::canonical::{CanonicalError, canonical_object, hash_object};
use driftguard::core::diff::changed_paths;
use driftguard::core::json::Problem;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde_json::Value;

use crate::oracle;

const KINDS: [(&str, &str, &str); 5] = [
    ("", "v1", "ConfigMap"),
    ("", "v1", "Secret"),
    ("terrafusion.ai", "terrafusion.ai/v1", "GAMAConfig"),
    ("apps", "apps/v1", "Deployment"),
    ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", "Role"),
];

/// Checks one input: the first byte picks a kind, the rest is the text of an object. Panics when the
/// fast form and the oracle disagree.
pub(crate) fn check(input: &[u8]) {
    let Some((&pick, text)) = input.split_first() else { return };
    let (group, api_version, kind) = KINDS[usize::from(pick) % KINDS.len()];
    let scope = Scope::new(group, kind, PathFilter::everything());
    let ours = canonical_object(text, &scope);
    let hash = hash_object(text, &scope);
    assert_eq!(ours.as_ref().err(), hash.as_ref().err(), "bytes and hash disagree about an error");
    // With paths nothing may panic either, and nothing may differ from itself.
    for filter in
        [PathFilter::ignoring(&["/data/a", "/spec/*/0"]), PathFilter::only(&["/spec/[name=a]/b", "/data/*"])]
    {
        let scope = Scope::new(group, kind, filter.unwrap());
        if canonical_object(text, &scope).is_ok()
            && let Ok(changes) = changed_paths(text, text, &scope, 3)
        {
            assert!(changes.paths.is_empty(), "an object differs from itself: {changes:?}");
        }
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(text) else {
        // Ours does not look at what it does not hash, and reads deeper and lone surrogates as Go does.
        return;
    };
    object.insert("apiVersion".into(), Value::from(api_version));
    object.insert("kind".into(), Value::from(kind));
    match ours {
        Ok(ours) => {
            let theirs = oracle::canonical(&Value::Object(object));
            assert_eq!(String::from_utf8_lossy(&ours), theirs);
            assert_eq!(hash.unwrap().to_string(), oracle::hash(&theirs));
        }
        Err(CanonicalError::Json(error)) => {
            assert_eq!(error.problem, Problem::DuplicateKey, "{error} in what another parser reads");
        }
        Err(_) => assert!(matches!(kind, "ConfigMap" | "Secret"), "only maps can have a wrong shape"),
    }
}
