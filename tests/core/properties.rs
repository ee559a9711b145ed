//! What holds for every object, tried on random ones.

use driftguard::core::canonical::{canonical_object, hash_object};
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::oracle;

fn text() -> impl Strategy<Value = String> {
    // Characters at the borders of every rule: plain, short escapes, controls, DEL, BMP, beyond.
    let character = prop_oneof![
        4 => prop::char::range(' ', '~'),
        1 => prop::sample::select(vec!['\n', '\r', '\t', '\u{8}', '\u{c}', '\u{0}', '\u{1f}', '\u{7f}', '\u{80}']),
        1 => prop::sample::select(vec!['ä', '\u{2028}', '漢', '\u{fffd}', '\u{ffff}', '🦀', '"', '\\', '/', '<']),
    ];
    prop::collection::vec(character, 0..40).prop_map(|characters| characters.into_iter().collect())
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinities", |float| float.is_finite()).prop_map(Value::from),
        (-1000..1000i32, -30..30i32)
            .prop_map(|(mantissa, exponent)| { Value::from(f64::from(mantissa) * 10f64.powi(exponent)) }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => text(),
        1 => prop::sample::select(vec!["metadata", "creationTimestamp", "spec", "name", "a", "b"]).prop_map(str::to_owned),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    let texts = || prop::collection::btree_map(key(), text(), 0..6);
    let bytes = || prop::collection::btree_map(key(), prop::collection::vec(any::<u8>(), 0..12), 0..4);
    prop_oneof![
        (texts(), bytes()).prop_map(|(data, binary)| {
            let binary: serde_json::Map<_, _> = binary.into_iter().map(|(key, value)| (key, encoded(&value))).collect();
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data, "binaryData": binary})
        }),
        (texts(), bytes(), texts()).prop_map(|(data, binary, strings)| {
            let mut all: serde_json::Map<String, Value> =
                data.into_iter().map(|(key, value)| (key, encoded(value.as_bytes()))).collect();
            all.extend(binary.into_iter().map(|(key, value)| (key, encoded(&value))));
            json!({"apiVersion": "v1", "kind": "Secret", "data": all, "stringData": strings, "type": "Opaque"})
        }),
        value().prop_map(|value| json!({"apiVersion": "terrafusion.ai/v1", "kind": "GAMAConfig", "spec": {"parameters": value}})),
        value().prop_map(|value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": value, "status": {"x": 1}})),
        (value(), value()).prop_map(|(rules, more)| {
            json!({"apiVersion": "x.io/v1", "kind": "Role", "rules": rules, "aggregation": more, "metadata": {"name": "r"}})
        }),
    ]
}

fn encoded(bytes: &[u8]) -> Value {
    use base64::Engine;
    Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn scope(object: &Value, filter: PathFilter) -> Scope {
    let api_version = object["apiVersion"].as_str().unwrap();
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    Scope::new(group, object["kind"].as_str().unwrap(), filter)
}

fn whole(object: &Value) -> Scope {
    scope(object, PathFilter::everything())
}

/// Writes a value as JSON in another way than `serde_json` would: keys turned about, white space
/// everywhere, every character of some strings as `\u` escapes.
fn written_otherwise(value: &Value, seed: &mut u64, out: &mut String) {
    let mut roll = |sides: u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % sides
    };
    let space = [" ", "\n", "", "\t", "", " \r\n "][usize::try_from(roll(6)).unwrap()];
    out.push_str(space);
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if roll(2) == 0 {
                members.reverse();
            }
            if members.len() > 2 && roll(2) == 0 {
                members.swap(0, 1);
            }
            out.push('{');
            for (place, (key, value)) in members.into_iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                written_otherwise(&Value::from(key.as_str()), seed, out);
                out.push(':');
                written_otherwise(value, seed, out);
            }
            out.push_str(space);
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                written_otherwise(item, seed, out);
            }
            out.push_str(space);
            out.push(']');
        }
        Value::String(text) if roll(3) == 0 => {
            out.push('"');
            for unit in text.encode_utf16() {
                out.push_str(&format!("\\u{unit:04X}"));
            }
            out.push('"');
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(space);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_canonical_form_is_what_the_oracle_says(object in object()) {
        let json = serde_json::to_vec(&object).unwrap();
        let canonical = String::from_utf8(canonical_object(&json, &whole(&object)).unwrap()).unwrap();
        prop_assert_eq!(&canonical, &oracle::canonical(&object));
        prop_assert_eq!(hash_object(&json, &whole(&object)).unwrap().to_string(), oracle::hash(&canonical));
    }

    #[test]
    fn key_order_white_space_and_escapes_never_matter(object in object(), seed in any::<u64>()) {
        let plain = serde_json::to_vec(&object).unwrap();
        let mut other = String::new();
        written_otherwise(&object, &mut { seed }, &mut other);
        prop_assert_eq!(
            hash_object(&plain, &whole(&object)).unwrap(),
            hash_object(other.as_bytes(), &whole(&object)).unwrap(),
            "{}", other
        );
    }

    #[test]
    fn objects_hash_alike_exactly_when_their_scopes_are_alike(left in object(), right in object()) {
        let hash = |object: &Value| hash_object(&serde_json::to_vec(object).unwrap(), &whole(object)).unwrap();
        prop_assert_eq!(hash(&left) == hash(&right), oracle::canonical(&left) == oracle::canonical(&right));
    }

    #[test]
    fn any_change_of_a_pinned_value_changes_the_hash(
        data in prop::collection::btree_map("[a-z]{1,8}", text(), 1..6),
        pick in any::<prop::sample::Index>(),
        added in prop::char::range('!', '~'),
    ) {
        let before = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data});
        let mut changed = data.clone();
        let key = data.keys().nth(pick.index(data.len())).unwrap();
        changed.get_mut(key).unwrap().push(added);
        let after = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": changed});
        let hash = |object: &Value| hash_object(&serde_json::to_vec(object).unwrap(), &whole(object)).unwrap();
        prop_assert_ne!(hash(&before), hash(&after));
    }

    #[test]
    fn ignored_paths_never_matter(
        parameters in prop::collection::btree_map("[a-z/~]{1,4}", value(), 1..6),
        pick in any::<prop::sample::Index>(),
        other in value(),
    ) {
        let key = parameters.keys().nth(pick.index(parameters.len())).unwrap();
        let path = format!("/spec/parameters/{}", key.replace('~', "~0").replace('/', "~1"));
        let wrap = |parameters: &std::collections::BTreeMap<String, Value>| {
            json!({"apiVersion": "terrafusion.ai/v1", "kind": "GAMAConfig", "spec": {"parameters": parameters}})
        };
        let mut changed = parameters.clone();
        changed.insert(key.clone(), other);
        let mut removed = parameters.clone();
        removed.remove(key);
        let hash = |parameters| {
            let object = wrap(parameters);
            let scope = scope(&object, PathFilter::ignoring(&[&path]).unwrap());
            hash_object(&serde_json::to_vec(&object).unwrap(), &scope).unwrap()
        };
        prop_assert_eq!(hash(&parameters), hash(&changed));
        prop_assert_eq!(hash(&parameters), hash(&removed));
    }

    #[test]
    fn damaged_json_is_an_error_or_a_value_but_never_a_panic(
        object in object(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut json = serde_json::to_vec(&object).unwrap();
        let place = at.index(json.len());
        json[place] = byte;
        let _ = hash_object(&json, &whole(&object));
        json.truncate(place);
        prop_assert!(hash_object(&json, &whole(&object)).is_err());
    }
}

#[test]
fn nesting_to_the_depth_of_the_api_server_is_hashed_without_recursion() {
    for (open, close) in [("{\"b\":1,\"a\":", "}"), ("{\"a\":", "}"), ("[", "]")] {
        let depth = 9_998;
        let value = format!("{}{}{}", open.repeat(depth), 1, close.repeat(depth));
        let object = format!(r#"{{"apiVersion":"x.io/v1","kind":"Deep","spec":{value}}}"#);
        let scope = Scope::new("x.io", "Deep", PathFilter::everything());
        let hash = hash_object(object.as_bytes(), &scope).unwrap();
        let other = object.replacen('1', "1.0", 1);
        assert_eq!(hash_object(other.as_bytes(), &scope).unwrap(), hash);
    }
}

#[test]
fn deeper_nesting_than_any_server_stores_is_refused() {
    let object = format!(r#"{{"kind":"Deep","spec":{}1{}}}"#, "[".repeat(10_100), "]".repeat(10_100));
    let scope = Scope::new("x.io", "Deep", PathFilter::everything());
    let error = hash_object(object.as_bytes(), &scope).unwrap_err().to_string();
    assert!(error.contains("10,000 levels"), "{error}");
}
