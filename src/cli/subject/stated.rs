//! Whether a manifest alone tells what is pinned of a kind that gets defaults: where every pinned path ends in a value
//! that the manifest states, and that the API server stores as it is written.
//!
//! Below a mapping or list it may add fields, and some values it spells in its own way: quantities, and empty ones,
//! which it often leaves out. What is not sure is not told.

use serde_json::Value;

use crate::core::paths::{PathFilter, Position, Step};

/// Fields of built-in kinds that hold quantities, themselves or below, which the API server makes texts of.
const QUANTITIES: [&str; 13] = [
    "averageValue",
    "capacity",
    "default",
    "defaultRequest",
    "divisor",
    "hard",
    "limits",
    "max",
    "maxLimitRequestRatio",
    "min",
    "podFixed",
    "requests",
    "sizeLimit",
];
/// A key that only a star matches.
const NO_KEY: &str = "\0";
/// Suffixes of quantities with their step: so many of one are one of the next.
const SUFFIXES: [(&str, u64); 16] = [
    ("Ki", 1024),
    ("Mi", 1024),
    ("Gi", 1024),
    ("Ti", 1024),
    ("Pi", 1024),
    ("Ei", u64::MAX),
    ("n", 1000),
    ("u", 1000),
    ("m", 1000),
    ("k", 1000),
    ("M", 1000),
    ("G", 1000),
    ("T", 1000),
    ("P", 1000),
    ("E", u64::MAX),
    ("", 1000),
];

/// Whether an object of a file states all that the paths of `filter` pin; never without `onlyPaths`.
pub(crate) fn states_all(json: &[u8], filter: &PathFilter) -> bool {
    let Ok(object) = serde_json::from_slice::<Value>(json) else { return false };
    let mut paths = filter.each_only().peekable();
    paths.peek().is_some() && paths.all(|path| states(&object, &path, path.root(), false))
}

/// Whether every place to which the rest of one path leads from here holds a value that is sure, and there is one.
fn states(value: &Value, path: &PathFilter, position: Position, is_quantity: bool) -> bool {
    match (position, value) {
        (Position::Inside, value) => is_sure(value, is_quantity),
        // A star takes what is added along.
        (_, Value::Object(_)) if path.descend(position, Step::Member(NO_KEY)) != Position::Outside => false,
        (_, Value::Object(members)) => {
            let below = members.iter().map(|(key, value)| {
                let is_quantity = is_quantity || QUANTITIES.contains(&key.as_str());
                (path.descend(position, Step::Member(key)), value, is_quantity)
            });
            all_met(below, path)
        }
        (_, Value::Array(items)) => {
            let below = items.iter().enumerate().map(|(index, item)| {
                let text = |field: &str| text(item.get(field)?);
                (path.descend(position, Step::Item(index, &text)), item, is_quantity)
            });
            all_met(below, path)
        }
        _ => false,
    }
}

fn all_met<'a>(below: impl Iterator<Item = (Position, &'a Value, bool)>, path: &PathFilter) -> bool {
    let mut met = below.filter(|(position, ..)| *position != Position::Outside).peekable();
    met.peek().is_some()
        && met.all(|(position, value, is_quantity)| states(value, path, position, is_quantity))
}

/// A scalar as `[field=value]` compares it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Whether the API server stores a value as it stands.
fn is_sure(value: &Value, is_quantity: bool) -> bool {
    match value {
        Value::String(text) => !text.is_empty() && !is_respelt(text),
        Value::Number(number) => !is_quantity && number.as_i64().is_some_and(|number| number != 0),
        Value::Bool(is) => *is,
        _ => false,
    }
}

/// Whether a text is a quantity that the API server may spell in another way: `1000m` is `1`, and `0.5` is `500m`.
fn is_respelt(text: &str) -> bool {
    let rest = text.trim_start_matches(['+', '-']);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    if number.is_empty() || number.matches('.').count() > 1 || number == "." {
        return false;
    }
    let exponent = suffix.strip_prefix(['e', 'E']).map(|digits| digits.trim_start_matches(['+', '-']));
    if exponent.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
    {
        return true;
    }
    let Some((_, step)) = SUFFIXES.iter().find(|(known, _)| *known == suffix) else { return false };
    let is_plain = rest == text && !number.starts_with('0');
    !number.parse::<u64>().is_ok_and(|number| is_plain && number % step != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const WEB: &str = r#"{"spec": {
        "replicas": 2, "paused": false, "hostNetwork": true, "empty": "", "none": {},
        "containers": [{"name": "app", "image": "nginx:1.27", "args": ["a", "b"],
                        "resources": {"limits": {"cpu": "1000m", "memory": "512Mi", "gpu": 1}}},
                       {"name": "side", "image": "envoy"}]}}"#;

    fn told(paths: &[&str]) -> bool {
        states_all(WEB.as_bytes(), &PathFilter::only(paths).unwrap())
    }

    #[test]
    fn values_that_a_manifest_states_are_told() {
        for path in [
            "/spec/replicas",
            "/spec/hostNetwork",
            "/spec/containers/*/image",
            "/spec/containers/[name=app]/image",
            "/spec/containers/0/args/*",
            "/spec/containers/[name=app]/resources/limits/memory",
        ] {
            assert!(told(&[path]), "{path}");
        }
        assert!(told(&["/spec/replicas", "/spec/containers/*/name"]));
    }

    #[test]
    fn what_the_api_server_may_add_to_leave_out_or_spell_otherwise_is_not() {
        for path in [
            "/spec",
            "/spec/containers",
            "/spec/containers/*",
            "/spec/containers/0/args",
            "/spec/none",
            "/spec/none/*",
            "/*/replicas",
            "/spec/absent",
            "/spec/replicas/x",
            "/spec/paused",
            "/spec/empty",
            "/spec/containers/*/resources/limits/memory",
            "/spec/containers/[name=app]/resources/limits/cpu",
            "/spec/containers/[name=app]/resources/limits/gpu",
            "/spec/containers/[name=none]/image",
            "/spec/containers/2/image",
        ] {
            assert!(!told(&[path]), "{path}");
            assert!(!told(&["/spec/replicas", path]), "{path}");
        }
        assert!(!states_all(WEB.as_bytes(), &PathFilter::everything()));
        assert!(!states_all(WEB.as_bytes(), &PathFilter::ignoring(&["/spec/none"]).unwrap()));
    }

    #[test]
    fn quantities_are_sure_in_the_spelling_of_the_api_server_alone() {
        for text in
            ["500m", "1500m", "2", "1Gi", "1000Mi", "999k", "nginx", "1.27-alpine", "10m0s", "v1", "1x"]
        {
            assert!(!is_respelt(text), "{text}");
        }
        for text in
            ["1000m", "1024Mi", "0.5", "1.20", ".5", "1e3", "1E3", "+1", "-5", "007", "3000", "0", "1."]
        {
            assert!(is_respelt(text), "{text}");
        }
    }
}
