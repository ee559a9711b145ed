//! The hash of a file is the hash of the object made from it, whatever is in it.

use driftguard::manifests::yaml;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::live::cluster;

/// Characters at the borders of every rule of YAML, JSON and the canonical form.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        6 => prop::char::range(' ', '~'),
        1 => prop::sample::select(vec!['\n', '\r', '\t', '\u{8}', '\u{c}', '\u{0}', '\u{1f}', '\u{7f}', '\u{80}', '\u{85}']),
        1 => prop::sample::select(vec!['ä', '\u{2028}', '漢', '\u{feff}', '\u{fffd}', '\u{ffff}', '🦀', '"', '\\', '<', '#', ':']),
    ];
    let treacherous = prop::sample::select(vec![
        "",
        "~",
        "null",
        "on",
        "No",
        "y",
        "0644",
        "0x1F",
        "0b1",
        "1_000",
        "1:30",
        "1e3",
        ".5",
        "-.inf",
        ".NaN",
        "2001-12-14",
        "=",
        "<<",
        "- a",
        "a: b",
        "a #b",
        "@a",
        "two\nlines\n",
        " lead",
        "trail ",
        "--- x",
        "...",
    ]);
    prop_oneof![
        3 => prop::collection::vec(character, 0..30).prop_map(|characters| characters.into_iter().collect()),
        1 => treacherous.prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinities", |float| float.is_finite()).prop_map(Value::from),
        (-10_000..10_000i32, -30..30i32)
            .prop_map(|(mantissa, exponent)| Value::from(f64::from(mantissa) * 10f64.powi(exponent))),
        // Halfway between two shortest texts.
        (1u64 << 46..1 << 50).prop_map(|whole| Value::from(whole as f64 + 0.125)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Kind and content of an object.
fn content() -> impl Strategy<Value = (&'static str, Value)> {
    let key = || "[-._a-zA-Z0-9]{1,12}".prop_filter("no path", |key| key != "." && !key.starts_with(".."));
    let texts = move || prop::collection::btree_map(key(), text(), 0..6);
    let bytes = move || prop::collection::btree_map(key(), prop::collection::vec(any::<u8>(), 0..12), 0..4);
    let encoded = |map: std::collections::BTreeMap<String, Vec<u8>>| -> Map<String, Value> {
        map.into_iter().map(|(key, bytes)| (key, base64(&bytes).into())).collect()
    };
    prop_oneof![
        (texts(), bytes()).prop_map(move |(data, mut binary)| {
            // A key may stand in one of the two only.
            binary.retain(|key, _| !data.contains_key(key));
            ("ConfigMap", json!({"apiVersion": "v1", "data": data, "binaryData": encoded(binary)}))
        }),
        (texts(), bytes()).prop_map(move |(plain, data)| {
            ("Secret", json!({"apiVersion": "v1", "stringData": plain, "data": encoded(data)}))
        }),
        prop::collection::btree_map(text(), value(), 0..6).prop_map(|parameters| {
            ("GAMAConfig", json!({"apiVersion": "terrafusion.ai/v1", "spec": {"parameters": parameters}}))
        }),
    ]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * index) & 63) as usize];
            out.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// JSON as a YAML document: without raw characters that YAML 1.1 reads otherwise or refuses.
fn flow(json: &str) -> String {
    let is_plain = |c: char| c == '\n' || (' '..='~').contains(&c) || c > '\u{ffff}';
    json.chars().map(|c| if is_plain(c) { c.into() } else { format!("\\u{:04x}", u32::from(c)) }).collect()
}

/// One file of all objects: a stream of JSON values, or YAML documents in block and flow style.
fn file(objects: &[(Value, bool)], is_stream: bool) -> String {
    let document = |(object, is_block): &(Value, bool)| match (is_stream, is_block) {
        (true, false) => object.to_string(),
        (true, true) => format!("{object:#}\n"),
        (false, false) => format!("---\n{}\n", flow(&format!("{object:#}"))),
        (false, true) => format!("---\n{}", yaml::document("it", object).unwrap()),
    };
    objects.iter().map(document).collect()
}

#[test]
fn any_file_hashes_as_the_object_read_back_from_the_server() {
    let cluster = cluster().namespace("any-file");
    let mut runner = TestRunner::new(Config {
        cases: 6,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let rounds = std::cell::Cell::new(0);
    let objects = prop::collection::vec((content(), any::<bool>()), 40);
    runner
        .run(&(objects, any::<bool>()), |(objects, is_stream)| {
            let round = rounds.replace(rounds.get() + 1);
            let mut names = Vec::new();
            let objects: Vec<(Value, bool)> = objects
                .into_iter()
                .enumerate()
                .map(|(index, ((kind, mut object), is_block))| {
                    let name = format!("r{round}-{index}");
                    names.push(format!("{kind}/{name}"));
                    object["kind"] = kind.into();
                    object["metadata"] = json!({"name": name, "namespace": "any-file"});
                    (object, is_block)
                })
                .collect();
            let file = file(&objects, is_stream);
            let ran = cluster.driftguard(&["hash", "-f", "-"], &file);
            prop_assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, file);
            // `create` and not `apply`, which leaves nulls out.
            let made = cluster.admin.kubectl_with(&["create", "-f", "-"], file.clone()).unwrap();
            prop_assert!(made.succeeded(), "{:?}\n{}", made, file);
            let mut live = vec!["hash", "-n", "any-file"];
            live.extend(names.iter().map(String::as_str));
            let live = cluster.driftguard(&live, "").success();
            for (from_file, live) in ran.stdout.lines().zip(live.lines()) {
                prop_assert_eq!(from_file, live, "{}", file);
            }
            prop_assert_eq!(live.lines().count(), names.len());
            Ok(())
        })
        .unwrap();
}
