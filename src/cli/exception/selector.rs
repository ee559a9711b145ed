//! Label selectors as kubectl writes them: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Reads a selector.
pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    for requirement in requirements(text) {
        let requirement = requirement.trim();
        if requirement.is_empty() {
            return Err("has an empty requirement; want such as team=risk".to_owned());
        }
        match read(requirement)? {
            Requirement::Equals(key, value) => {
                let labels = selector.match_labels.get_or_insert_default();
                if labels.insert(key.clone(), value.clone()).is_some_and(|before| before != value) {
                    return Err(format!("wants {key} to have two values"));
                }
            }
            Requirement::Expression(expression) => {
                selector.match_expressions.get_or_insert_default().push(expression);
            }
        }
    }
    Ok(selector)
}

enum Requirement {
    Equals(String, String),
    Expression(LabelSelectorRequirement),
}

/// The parts between commas outside parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn read(text: &str) -> Result<Requirement, String> {
    let expression = |key: &str, operator: &str, values: Option<Vec<String>>| {
        Ok(Requirement::Expression(LabelSelectorRequirement {
            key: name(key)?,
            operator: operator.to_owned(),
            values,
        }))
    };
    if let Some(key) = text.strip_prefix('!') {
        return expression(key, "DoesNotExist", None);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return expression(key, "NotIn", Some(vec![label(value)?]));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Requirement::Equals(name(key)?, label(value)?));
    }
    let words: Vec<&str> = text.splitn(3, char::is_whitespace).collect();
    match words.as_slice() {
        [key] => expression(key, "Exists", None),
        _ => {
            let (key, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let rest = rest.trim_start();
            let of = |word: &str| {
                rest.strip_prefix(word).map(str::trim_start).filter(|rest| rest.starts_with('('))
            };
            match (of("in"), of("notin")) {
                (Some(set), _) => expression(key, "In", Some(values(set)?)),
                (_, Some(set)) => expression(key, "NotIn", Some(values(set)?)),
                (None, None) => {
                    Err(format!("{text:?} is no requirement; want such as team=risk or 'tier in (a,b)'"))
                }
            }
        }
    }
}

fn values(set: &str) -> Result<Vec<String>, String> {
    let inner = set.trim_end().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("{set:?} is no list of values; want such as (a,b)"))?;
    inner.split(',').map(label).collect()
}

/// The key of a label, as far as it must be told from syntax; the API server checks the rest.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no key of a label"))
    }
}

/// The value of a label, which may be empty.
fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if text.chars().all(fits) { Ok(text.to_owned()) } else { Err(format!("{text:?} is no value of a label")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> serde_json::Value {
        serde_json::to_value(parse(text).unwrap()).unwrap()
    }

    #[test]
    fn it_reads_what_kubectl_reads() {
        assert_eq!(read("team=risk, tier==a"), json!({"matchLabels": {"team": "risk", "tier": "a"}}));
        assert_eq!(
            read("a!=b,c in (x, y),d notin (z),e,!f"),
            json!({"matchExpressions": [
                {"key": "a", "operator": "NotIn", "values": ["b"]},
                {"key": "c", "operator": "In", "values": ["x", "y"]},
                {"key": "d", "operator": "NotIn", "values": ["z"]},
                {"key": "e", "operator": "Exists"},
                {"key": "f", "operator": "DoesNotExist"},
            ]})
        );
        assert_eq!(read("example.com/team="), json!({"matchLabels": {"example.com/team": ""}}));
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for text in ["", "a=b,,c", "a=b,a=c", "a in x", "a in (x", "a b", "=b", "!", "a=b c"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
