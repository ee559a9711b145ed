//! What a PromQL expression reads: a reader of just that much of the language.

/// A series that an expression selects: its name, and the labels that must have a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
}

/// Words of the language that are no metric although no parenthesis follows; aggregations have theirs behind
/// `by (...)`.
const WORDS: [&str; 16] = [
    "and", "or", "unless", "bool", "offset", "inf", "nan", "sum", "min", "max", "avg", "count", "stddev",
    "topk", "bottomk", "quantile",
];

/// All series that an expression selects.
pub(crate) fn selected(expression: &str) -> Vec<Selected> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            let after = after.trim_start();
            rest = after;
            if ["by", "without", "on", "ignoring"].contains(&word) {
                rest = after
                    .strip_prefix('(')
                    .and_then(|list| list.split_once(')'))
                    .map_or(after, |(_, rest)| rest);
            } else if !after.starts_with('(') && !WORDS.contains(&word) {
                let labels = after.strip_prefix('{').and_then(|list| list.split_once('}'));
                rest = labels.map_or(after, |(_, rest)| rest);
                let labels = labels.map(|(list, _)| equal(list)).unwrap_or_default();
                found.push(Selected { name: word.to_owned(), labels });
            }
        } else if first == '[' {
            rest = rest.split_once(']').map_or("", |(_, rest)| rest);
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            rest = &rest[end.unwrap_or(rest.len())..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// The matchers `label="value"` of a list.
fn equal(list: &str) -> Vec<(String, String)> {
    list.split(',')
        .filter_map(|matcher| matcher.split_once("=\""))
        .filter(|(label, _)| !label.ends_with('!'))
        .map(|(label, value)| (label.trim().to_owned(), value.trim_end_matches('"').to_owned()))
        .collect()
}

#[test]
fn what_an_expression_selects_is_found() {
    let names = |expression: &str| selected(expression).into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names("absent(up == 1)"), ["up"]);
    assert_eq!(names("sum by (a, b) (increase(x_total[15m])) > 0 and on (a) y offset 5m"), ["x_total", "y"]);
    assert_eq!(names("min(z) - time() < 4 * 3600"), ["z"]);
    assert_eq!(
        names("histogram_quantile(0.99, sum by (le) (rate(s_bucket[$__rate_interval])))"),
        ["s_bucket"]
    );
    let one = selected(r#"x{a="b", c!="d",e=~"f"}"#);
    assert_eq!(one, [Selected { name: "x".into(), labels: vec![("a".into(), "b".into())] }]);
}
