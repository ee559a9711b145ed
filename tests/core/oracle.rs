//! The canonical form written the slow obvious way, on a `serde_json::Value` tree: what the fast
//! code is held against. It shares no line with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Canonical text of an object's scope, without paths.
pub(crate) fn canonical(object: &Value) -> String {
    dump(&scope(object))
}

/// Lower-case hex hash of a text.
pub(crate) fn hash(canonical: &str) -> String {
    Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn scope(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let core = object["apiVersion"] == "v1";
    match kind {
        "ConfigMap" if core => {
            let mut binary = map(&object["binaryData"]);
            for value in binary.values_mut() {
                if let Some(bytes) = value.as_str().and_then(decode) {
                    *value = Value::String(STANDARD.encode(bytes));
                }
            }
            with_binary(&binary, map(&object["data"]))
        }
        "Secret" if core => secret(object),
        "GAMAConfig" => {
            object["spec"].get("parameters").cloned().unwrap_or_else(|| Value::Object(Map::new()))
        }
        _ => {
            let value = match object.get("spec") {
                Some(spec) => spec.clone(),
                None => {
                    let mut rest = object.as_object().cloned().unwrap_or_default();
                    for name in ["apiVersion", "kind", "metadata", "status"] {
                        rest.remove(name);
                    }
                    Value::Object(rest)
                }
            };
            without_null_timestamps(&value, false)
        }
    }
}

/// Base64 with line breaks, as Go reads it.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

fn map(value: &Value) -> Map<String, Value> {
    let mut map = value.as_object().cloned().unwrap_or_default();
    for value in map.values_mut() {
        if value.is_null() {
            *value = Value::String(String::new());
        }
    }
    map
}

fn with_binary(binary: &Map<String, Value>, data: Map<String, Value>) -> Value {
    if binary.is_empty() {
        return Value::Object(data);
    }
    serde_json::json!({"binaryData": binary, "data": data})
}

fn secret(object: &Value) -> Value {
    let (mut binary, mut data) = (Map::new(), Map::new());
    let strings = map(&object["stringData"]);
    for (key, value) in map(&object["data"]) {
        if strings.contains_key(&key) {
            continue;
        }
        let bytes = value.as_str().and_then(decode).unwrap_or_default();
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, Value::String(text)),
            Err(error) => binary.insert(key, Value::String(STANDARD.encode(error.into_bytes()))),
        };
    }
    data.extend(strings);
    with_binary(&binary, data)
}

fn without_null_timestamps(value: &Value, under_metadata: bool) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(key, value)| !(under_metadata && *key == "creationTimestamp" && value.is_null()))
                .map(|(key, value)| (key.clone(), without_null_timestamps(value, key == "metadata")))
                .collect(),
        ),
        Value::Array(items) => items.iter().map(|item| without_null_timestamps(item, false)).collect(),
        other => other.clone(),
    }
}

/// `json.dumps(value, sort_keys=True)`.
fn dump(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => dump_number(number),
        Value::String(text) => dump_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(dump).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort_by_key(|key| key.chars().collect::<Vec<char>>());
            let members = keys.iter().map(|key| format!("{}: {}", dump_text(key), dump(&members[*key])));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn dump_number(number: &serde_json::Number) -> String {
    if let Some(integer) = number.as_i64() {
        return integer.to_string();
    }
    let float = number.as_f64().unwrap();
    let (sign, digits, exponent) = shortest(float);
    if float == 0.0 {
        return "0".into();
    }
    let plain = |digits: &str| match usize::try_from(exponent) {
        Ok(whole) if digits.len() <= whole + 1 => format!("{digits:0<width$}", width = whole + 1),
        Ok(whole) => format!("{}.{}", &digits[..=whole], &digits[whole + 1..]),
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    };
    if (float.fract() == 0.0 && float.abs() < 1e21) || (-4..16).contains(&exponent) {
        return format!("{sign}{}", plain(&digits));
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Sign, digits and exponent of the shortest text that reads back as the float. Of two that are
/// equally near Go and Python take the even one, Rust the upper one.
fn shortest(float: f64) -> (&'static str, String, i32) {
    let upper = format!("{:e}", float.abs());
    let digits = upper.split_once('e').unwrap().0.replace('.', "").len();
    let even = format!("{:.*e}", digits - 1, float.abs());
    let text = if even.parse() == Ok(float.abs()) { even } else { upper };
    let (mantissa, exponent) = text.split_once('e').unwrap();
    (if float < 0.0 { "-" } else { "" }, mantissa.replace('.', ""), exponent.parse().unwrap())
}

fn dump_text(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}
