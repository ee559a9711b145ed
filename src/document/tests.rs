#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use super::error::Problem;
use super::{Document, DocumentError, read, yaml};

/// One text and what `sigs.k8s.io/yaml`, the conversion in kubectl, makes of it.
#[derive(serde::Deserialize)]
struct Vector {
    yaml: String,
    /// The JSON; absent when the conversion refuses.
    json: Option<String>,
    /// We refuse although kubectl takes it: it drops something, or YAML versions disagree.
    #[serde(default)]
    refused_here: bool,
}

const VECTORS: &str = include_str!("../../tests/vectors/yaml.json");

#[test]
fn yaml_becomes_the_json_that_kubectl_makes_of_it() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.len() > 1000, "the table is there");
    for vector in &vectors {
        let ours = yaml::to_json(&vector.yaml, yaml::Limits::NONE)
            .map(|json| json.map_or_else(|| "null".to_owned(), |json| String::from_utf8(json).unwrap()));
        // A document that is no mapping converts, but no kubectl command takes it.
        let wanted = vector.json.as_ref().filter(|json| json.starts_with('{') || *json == "null");
        match (ours, wanted) {
            (Ok(ours), Some(wanted)) if !vector.refused_here => {
                assert_eq!(ours, *wanted, "{:?}", vector.yaml);
            }
            (Err(_), None) => {}
            (Err(_), Some(_)) if vector.refused_here => {}
            (ours, _) => panic!("{:?}\n kubectl {:?}\n we {ours:?}", vector.yaml, vector.json),
        }
    }
}

fn all(text: &str) -> Result<Vec<Document>, DocumentError> {
    read(&["-"], &mut text.as_bytes())
}

fn only(text: &str) -> Document {
    let mut documents = all(text).unwrap();
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0)
}

fn problem(text: &str) -> String {
    all(text).unwrap_err().to_string()
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
}

#[test]
fn a_document_says_what_it_is() {
    let document = only("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\n  namespace: b\n");
    assert_eq!((document.group(), document.kind.as_str()), ("apps", "Deployment"));
    assert_eq!((document.name.as_str(), document.namespace.as_deref()), ("a", Some("b")));
    assert_eq!(only(&config_map("a")).group(), "");
    assert_eq!(only(&config_map("a")).namespace, None);
}

#[test]
fn a_file_holds_several_documents_and_errors_count_them() {
    let text = format!("# head\n---\n{}---\n# nothing\n---   # c\n{}", config_map("a"), config_map("b"));
    let documents = all(&text).unwrap();
    let places: Vec<_> =
        documents.iter().map(|d| (d.name.as_str(), d.origin.number, d.origin.line)).collect();
    assert_eq!(places, [("a", 2, 3), ("b", 4, 9)]);
    let error = problem(&format!("{text}---\nkind: X\nkind: Y\n"));
    assert_eq!(
        error,
        "standard input: document 5, line 14: key \"kind\" stands twice in one mapping, first on line 13; remove one of them"
    );
}

#[test]
fn a_stream_of_json_may_go_on_as_yaml() {
    let json =
        |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    let names = |text: &str| all(text).unwrap().into_iter().map(|d| d.name).collect::<Vec<_>>();
    assert_eq!(names(&format!("{}\n{}{}", json("a"), json("b"), json("c"))), ["a", "b", "c"]);
    assert_eq!(names(&format!("{}\n---\n{}", json("a"), config_map("b"))), ["a", "b"]);
    assert_eq!(names(&format!("{}\n---\n{}\n", config_map("a"), json("b"))), ["a", "b"]);
    assert_eq!(names("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"), ["a"]);
}

#[test]
fn json_is_passed_on_byte_for_byte() {
    let text = r#"{"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "spec": {"n": 1.50, "m": 12345678901234567890}}"#;
    assert_eq!(only(&format!("\n {text}\n")).json, text.as_bytes());
}

#[test]
fn broken_json_is_told_as_json() {
    let error = problem("{\n  \"a\": 1\n  \"b\": 2\n}\n");
    assert_eq!(
        error,
        "standard input: document 1, line 3: not valid JSON: expected `,` or `}`; mend the syntax here"
    );
}

#[test]
fn a_key_that_stands_twice_in_json_is_refused() {
    let error = problem("{\"a\":\n {\"x\": 1,\n \"y\": [{}],\n \"\\u0078\": 2}}");
    assert!(error.contains("line 4: key \"x\" stands twice in one mapping, first on line 2"), "{error}");
    assert!(!problem(r#"{"a": [{"x": 1}, {"x": 1}], "x": {"a": 1}}"#).contains("twice"));
}

#[test]
fn lists_are_expanded() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- apiVersion: v1\n  kind: SecretList\n  items:\n  - metadata: {name: b}\n  - {kind: Other, apiVersion: x/v1, metadata: {name: c}}\n";
    let found: Vec<_> = all(text).unwrap().into_iter().map(|d| (d.kind, d.api_version, d.name)).collect();
    let want = [("ConfigMap", "v1", "a"), ("Secret", "v1", "b"), ("Other", "x/v1", "c")];
    assert_eq!(found, want.map(|(kind, version, name)| (kind.into(), version.into(), name.into())));
    assert!(all("apiVersion: v1\nkind: List\nitems: []\n").unwrap().is_empty());
    assert!(problem("apiVersion: v1\nkind: List\nitems: [5]\n").contains("item 1 of this list is no object"));
}

#[test]
fn what_is_no_object_is_refused_with_its_nature() {
    for (text, what) in
        [("- a\n", "a list"), ("hello\n", "a text"), ("5\n", "a number"), ("on\n", "a yes or no")]
    {
        assert!(problem(text).contains(&format!("this is {what}")), "{text}");
    }
    for (text, field) in [
        ("kind: A\nmetadata: {name: a}\n", "apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "kind"),
        ("apiVersion: v1\nkind: A\nmetadata: {generateName: a-}\n", "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: ~}\n", "metadata.name"),
    ] {
        assert!(problem(text).contains(&format!("{field} is missing")), "{text}");
    }
    for (text, field) in [
        ("apiVersion: v1\nkind: A\nmetadata: {name: 5}\n", "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: n}\n", "metadata.namespace"),
        ("apiVersion: 1\nkind: A\nmetadata: {name: a}\n", "apiVersion"),
    ] {
        assert!(problem(text).contains(&format!("{field} is no text; quote its value")), "{text}");
    }
}

#[test]
fn separators_with_text_and_text_after_the_end_are_refused() {
    assert!(problem("--- {a: b}\n").contains("line 1: text after `---`"));
    assert!(problem("a: 1\n---x\n").contains("line 2: text after `---`"));
    let error = problem(&format!("{}...\n{}", config_map("a"), config_map("b")));
    assert!(error.contains("line 5: text after `...`"), "{error}");
}

#[test]
fn errors_of_syntax_name_the_line() {
    let error = problem("a: 1\n---\nb:\n  c: [1, 2\nd: 3\n");
    assert!(error.starts_with("standard input: document 2, line "), "{error}");
    assert!(error.contains("not valid YAML"), "{error}");
}

#[test]
fn no_error_quotes_a_value() {
    for text in [
        "data:\n  a: !!int geheim\n",
        "data:\n  a: \"geheim\n",
        "data:\n  a: geheim: geheim\n",
        "data: {a: geheim\n",
        "data:\n  a: 'geheim'geheim\n",
        "data:\n  a: |\n geheim\n",
        "{\"data\": {\"a\": \"geheim}}",
        "{\"data\": {\"a\": geheim}}",
        "{\"data\": {\"a\": \"x\"}} geheim",
        "geheim",
    ] {
        let error = problem(text);
        assert!(!error.contains("geheim"), "{text:?}: {error}");
    }
}

#[test]
fn depth_is_bounded_by_a_rule_and_not_by_the_stack() {
    let nested = |levels: usize| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"X\",\"metadata\":{{\"name\":\"a\"}},\"spec\":{}1{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    for prefix in ["", "# yaml\n"] {
        let fits = format!("{prefix}{}", nested(10_000));
        assert_eq!(only(&fits).name, "a");
        for levels in [10_010, 500_000] {
            let error = problem(&format!("{prefix}{}", nested(levels)));
            assert!(error.contains("deeper than"), "{levels}: {error}");
        }
    }
    let block: String = (0..5_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(only(&format!("{}spec:\n {}", config_map("a"), block.replace('\n', "\n "))).name, "a");
}

#[test]
fn aliases_cannot_blow_a_document_up() {
    let mut laughs = format!("{}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n", config_map("a"));
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(problem(&laughs).contains("aliases expand to too much"));
    let long = format!("{}a: &a {}\nb: [{}]\n", config_map("a"), "x".repeat(1 << 20), "*a, ".repeat(100));
    assert!(problem(&long).contains("aliases expand to too much"));
    let mut merges = format!("{}m0: &m0 {{}}\n", config_map("a"));
    for level in 1..12 {
        merges.push_str(&format!(
            "m{level}: &m{level} {{<<: [{}]}}\n",
            format!("*m{}, ", level - 1).repeat(20)
        ));
    }
    assert!(problem(&merges).contains("aliases expand to too much"));
    let fine = format!("{}a: &a {{x: 1}}\nb: [{}]\n", config_map("a"), "*a, ".repeat(500));
    assert_eq!(only(&fine).name, "a");
}

#[test]
fn debug_output_holds_no_content() {
    let document = only("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {p: geheim}\n");
    assert!(!format!("{document:?}").contains("geheim"));
}

#[test]
fn every_problem_has_a_stable_reason() {
    let reasons: Vec<_> =
        ["a: 1\na: 2\n", "- a\n", "a: [\n", "\u{1}"].map(|text| all(text).unwrap_err().reason()).into();
    assert_eq!(reasons, ["DuplicateKey", "NotAnObject", "BadSyntax", "BadSyntax"]);
    assert!(matches!(all("a: .inf\n").unwrap_err().problem, Problem::NotFinite));
}
