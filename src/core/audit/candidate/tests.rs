#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use super::*;
use crate::core::paths::PathFilter;

fn target(group: &str, kind: &str) -> Target {
    Target {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        resource: "x".into(),
        namespace: Some("n".into()),
        name: "x".into(),
    }
}

fn scope(target: &Target) -> Scope {
    Scope::new(&target.group, &target.kind, PathFilter::everything())
}

fn read_as(document: &str, form: Form, target: &Target) -> Result<Vec<Candidate>, NotACandidate> {
    candidates(document.as_bytes(), form, target, &scope(target))
}

fn config_map() -> Target {
    target("", "ConfigMap")
}

fn secret() -> Target {
    target("", "Secret")
}

fn gama() -> Target {
    target("terrafusion.ai", "GAMAConfig")
}

/// The objects that a document may mean, as text.
fn objects(document: &str, form: Form, target: &Target) -> Vec<String> {
    let readings = read_as(document, form, target).unwrap();
    readings.into_iter().map(|reading| String::from_utf8(reading.object).unwrap()).collect()
}

fn only(document: &str, form: Form, target: &Target) -> String {
    let mut all = objects(document, form, target);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn refusal(document: &str, target: &Target) -> String {
    read_as(document, Form::Document, target).unwrap_err().to_string()
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    name: String,
    object: String,
    canonical: String,
    hash: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
    #[serde(default)]
    only_paths: Vec<String>,
}

/// The target that an object would be, read as text, since objects may be deep.
fn target_of(object: &str) -> Target {
    let object = read(object.as_bytes()).unwrap();
    let field = |name| text(&object, object.field(name), name).unwrap().unwrap().into_owned();
    let named = |name| metadata(&object, name, "metadata").unwrap();
    let version = field("apiVersion");
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    Target {
        group: group.into(),
        version: version.into(),
        kind: field("kind").as_str().into(),
        resource: "x".into(),
        namespace: named("namespace").map(|name| name.as_ref().into()),
        name: named("name").unwrap_or_default().as_ref().into(),
    }
}

#[test]
fn what_is_approved_hashes_alike_as_a_manifest_as_its_data_and_as_the_pinned_value() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../../tests/vectors/canonical.json")).unwrap();
    let mut bare_ones = 0;
    for Vector { name, object, canonical, hash, ignore_paths, only_paths } in &vectors {
        let target = target_of(object);
        let filter = if only_paths.is_empty() {
            PathFilter::ignoring(ignore_paths)
        } else {
            PathFilter::only(only_paths)
        };
        let scope = Scope::new(&target.group, &target.kind, filter.unwrap());
        let hash: ContentHash = hash.parse().unwrap();
        let reads = |document: &[u8], form| {
            let readings = candidates(document, form, &target, &scope);
            readings.unwrap_or_else(|error| panic!("{name}: {form:?}: {error}"))
        };
        let matching = |readings: Vec<Candidate>| readings.into_iter().find(|reading| reading.hash == hash);
        let manifest = matching(reads(object.as_bytes(), Form::Document)).unwrap_or_else(|| panic!("{name}"));
        assert!(manifest.whole, "{name}");
        assert_eq!(hash_object(&manifest.object, &scope).unwrap(), hash, "{name}");
        let again = reads(&manifest.object, Form::Live);
        assert_eq!((again.len(), again[0].hash), (1, hash), "{name}: read once more");
        let own_data = match scope.kind() {
            ScopeKind::ConfigMap => Some(Form::ConfigMap),
            ScopeKind::Secret => Some(Form::Secret),
            _ => None,
        };
        if let Some(form) = own_data {
            let found =
                matching(reads(object.as_bytes(), form)).unwrap_or_else(|| panic!("{name}: own data"));
            assert!(!found.whole);
        }
        if ignore_paths.is_empty() && only_paths.is_empty() {
            bare_ones += 1;
            let bare = matching(reads(canonical.as_bytes(), Form::Document));
            let bare = bare.unwrap_or_else(|| panic!("{name}: the pinned value alone"));
            assert!(!bare.whole, "{name}");
        }
    }
    assert!(vectors.len() > 200 && bare_ones > 100, "the vectors are there");
}

#[test]
fn a_manifest_is_of_the_target_or_refused_with_what_differs() {
    let target = config_map();
    let of = |head: &str| format!(r#"{{{head},"data":{{"a":"1"}}}}"#);
    let whole =
        r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"n","labels":{"l":"1"}}"#;
    assert_eq!(only(&of(whole), Form::Document, &target), of(whole));
    for lacking in [
        r#""apiVersion":"v1","kind":"ConfigMap""#,
        r#""apiVersion":"v1","kind":"ConfigMap","metadata":{}"#,
        r#""apiVersion":"v1","kind":"ConfigMap","metadata":null"#,
        r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"name":null,"namespace":""}"#,
        r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}"#,
    ] {
        let object = only(&of(lacking), Form::Document, &target);
        let metadata = target_of(&object);
        assert_eq!((metadata.name.as_str(), metadata.namespace.as_deref()), ("x", Some("n")), "{object}");
    }
    for (head, said) in [
        (
            r#""apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}"#,
            r#"its kind is not "ConfigMap", which the guard pins"#,
        ),
        (r#""apiVersion":"v2","kind":"ConfigMap""#, r#"its apiVersion is not "v1", which the guard pins"#),
        (r#""apiVersion":"a/v1","kind":"ConfigMap""#, r#"its apiVersion is not "v1""#),
        (r#""apiVersion":"v1","kind":"configmap""#, r#"its kind is not "ConfigMap""#),
        (
            r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"y"}"#,
            r#"its metadata.name is not "x", which the guard pins"#,
        ),
        (
            r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"m"}"#,
            r#"its metadata.namespace is not "n""#,
        ),
        (r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"name":5}"#, "its metadata.name is no text"),
    ] {
        let error = refusal(&of(head), &target);
        assert!(error.starts_with(said), "{head}: {error}");
    }
    let cluster = Target {
        namespace: None,
        ..target_of(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}"#)
    };
    let manifest = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"},"spec":{}}"#;
    assert_eq!(only(manifest, Form::Document, &cluster), manifest);
    let namespaced = manifest.replace(r#""name":"x""#, r#""name":"x","namespace":"n""#);
    assert!(refusal(&namespaced, &cluster).contains("metadata.namespace"));
}

#[test]
fn what_only_half_says_what_it_is_is_content() {
    let object = only(r#"{"kind":"ConfigMap"}"#, Form::Document, &config_map());
    assert!(object.ends_with(r#""data":{"kind":"ConfigMap"}}"#), "{object}");
    let object = only(r#"{"apiVersion":"v1"}"#, Form::Document, &config_map());
    assert!(object.ends_with(r#""data":{"apiVersion":"v1"}}"#), "{object}");
}

#[test]
fn the_older_configuration_service_is_understood() {
    let head = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"n"}"#;
    assert_eq!(
        only(r#"{"name":"other","data":{"a":"1"}}"#, Form::Document, &config_map()),
        format!(r#"{head},"data":{{"a":"1"}}}}"#)
    );
    assert_eq!(
        only(r#"{"binaryData":{"b":"AA=="},"data":{"a":"1"}}"#, Form::Document, &config_map()),
        format!(r#"{head},"data":{{"a":"1"}},"binaryData":{{"b":"AA=="}}}}"#)
    );
    let parameters = objects(r#"{"parameters":{"rate":1.50}}"#, Form::Document, &gama());
    assert!(parameters[0].ends_with(r#""spec":{"parameters":{"rate":1.50}}}"#), "{parameters:?}");
    assert!(
        parameters[1].ends_with(r#""spec":{"parameters":{"parameters":{"rate":1.50}}}}"#),
        "{parameters:?}"
    );
    let bare = only(r#"{"rate":1.50}"#, Form::Document, &gama());
    assert!(bare.ends_with(r#""spec":{"parameters":{"rate":1.50}}}"#), "{bare}");
}

#[test]
fn a_secret_is_read_from_base64_and_from_text_and_stands_under_data() {
    let data =
        |object: &str| object.split_once(r#""data":"#).unwrap().1.trim_end_matches('}').to_owned() + "}";
    let target = secret();
    // As an object, and as the pinned value.
    let both = objects(r#"{"data":{"a":"MQ=="}}"#, Form::Document, &target);
    assert_eq!([data(&both[0]), data(&both[1])], [r#"{"a":"MQ=="}"#, r#"{"a":"TVE9PQ=="}"#]);
    // Only one of them makes sense.
    let text = only(r#"{"data":{"a":"no base64!"}}"#, Form::Document, &target);
    assert_eq!(data(&text), r#"{"a":"bm8gYmFzZTY0IQ=="}"#);
    let bare = only(r#"{"a":"1","b":null}"#, Form::Document, &target);
    assert_eq!(data(&bare), r#"{"a":"MQ==","b":""}"#);
    let pinned = only(r#"{"binaryData":{"b":"/w=="},"data":{"a":"1"}}"#, Form::Document, &target);
    assert_eq!(data(&pinned), r#"{"a":"MQ==","b":"/w=="}"#);
    let manifest = r#"{"apiVersion":"v1","kind":"Secret","type":"Opaque","data":{"a":"eA=="},"stringData":{"a":"1","b":"2"}}"#;
    let merged = only(manifest, Form::Document, &target);
    assert!(
        !merged.contains("stringData")
            && merged.contains(r#""type":"Opaque","data":{"a":"MQ==","b":"Mg=="}"#),
        "{merged}"
    );
    // A map under stringData alone is never an empty Secret.
    assert_eq!(data(&only(r#"{"stringData":{"a":"1"}}"#, Form::Document, &target)), r#"{"a":"MQ=="}"#);
    assert!(refusal(r#"{"stringData":{"a":"1"}}"#, &config_map()).contains("must be a string"));
}

#[test]
fn config_maps_and_secrets_are_content_of_each_other() {
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"source"},"data":{"a":"1"},"binaryData":{"b":"/w=="}}"#;
    let secret_source =
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"source"},"data":{"a":"MQ==","b":"/w=="}}"#;
    let ends = |object: String, end: &str| assert!(object.ends_with(end), "{object}");
    ends(
        only(map, Form::ConfigMap, &config_map()),
        r#""name":"x","namespace":"n"},"data":{"a":"1"},"binaryData":{"b":"/w=="}}"#,
    );
    ends(only(map, Form::ConfigMap, &secret()), r#""data":{"a":"MQ==","b":"/w=="}}"#);
    ends(only(secret_source, Form::Secret, &secret()), r#""data":{"a":"MQ==","b":"/w=="}}"#);
    ends(only(secret_source, Form::Secret, &config_map()), r#""data":{"a":"1"},"binaryData":{"b":"/w=="}}"#);
    let texts = r#"{"data":{"rate":"1"}}"#;
    ends(only(texts, Form::ConfigMap, &gama()), r#""spec":{"parameters":{"rate":"1"}}}"#);
    let error = read_as(map, Form::ConfigMap, &gama()).unwrap_err();
    assert_eq!(error.to_string(), r#"key "b" is no text, and a GAMAConfig holds texts only"#);
    // One without any data has the empty content, which is what it says.
    ends(only(r#"{"metadata":{"name":"source"}}"#, Form::ConfigMap, &config_map()), r#""namespace":"n"}}"#);
}

#[test]
fn a_key_holds_a_document() {
    let map = br#"{"data":{"a":"x: 1\n","n":null},"binaryData":{"b":"/w=="}}"#;
    let of_map = |key| values_of(map, Form::ConfigMap).unwrap().remove(key);
    assert_eq!(of_map("a").unwrap(), b"x: 1\n");
    assert_eq!((of_map("b").unwrap(), of_map("n").unwrap(), of_map("c")), (vec![0xff], vec![], None));
    let secret = br#"{"data":{"a":"eDogMQo="}}"#;
    assert_eq!(values_of(secret, Form::Secret).unwrap()["a"], b"x: 1\n");
    assert!(values_of(b"[]", Form::Secret).is_err());
}

#[test]
fn the_value_of_other_kinds_stands_where_the_kind_has_it() {
    let ends = |object: String, end: &str| assert!(object.ends_with(end), "{object}");
    let deployment = target("apps", "Deployment");
    ends(only(r#"{"replicas":2}"#, Form::Document, &deployment), r#"},"spec":{"replicas":2}}"#);
    ends(
        only(r#"{"status":{},"spec":{"replicas":2}}"#, Form::Document, &deployment),
        r#"},"spec":{"replicas":2}}"#,
    );
    let role = target("rbac.authorization.k8s.io", "Role");
    ends(only(r#"{"rules":[],"metadata":{"name":"y"}}"#, Form::Document, &role), r#"},"rules":[]}"#);
    let readings = read_as(r#"{"rules":[]}"#, Form::Document, &role).unwrap();
    assert!(!readings[0].whole, "where it stands is a guess");
}

#[test]
fn values_that_the_target_cannot_hold_are_told_by_their_key() {
    for (document, target, key) in [
        (r#"{"port":80}"#, config_map(), "port"),
        (r#"{"data":{"port":80}}"#, config_map(), "port"),
        (r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"port":80}}"#, config_map(), "port"),
        (r#"{"binaryData":{"b":"geheim!"}}"#, config_map(), "b"),
        (r#"{"port":80}"#, secret(), "port"),
        (r#"{"apiVersion":"v1","kind":"Secret","data":{"a":"geheim!"}}"#, secret(), "a"),
    ] {
        let error = refusal(document, &target);
        assert!(error.contains(&format!("key {key:?}")) && !error.contains("geheim"), "{document}: {error}");
    }
}

#[test]
fn what_is_no_object_is_no_content() {
    for document in
        ["", "[]", "null", "5", r#""geheim""#, r#"{"a":"#, r#"{"a":"1"} x"#, r#"{"a":"1","a":"2"}"#]
    {
        let error = refusal(document, &config_map());
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn of_several_documents_the_manifest_of_the_target_is_meant() {
    let target = config_map();
    let map = |name: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#).into_bytes()
    };
    let documents = [map("y"), map("x"), br#"{"a":"1"}"#.to_vec()];
    assert_eq!(choose(&documents, &target).unwrap(), map("x"));
    assert_eq!(
        choose(&documents[2..], &target).unwrap(),
        documents[2],
        "the only one is meant, whatever it is"
    );
    assert_eq!(choose(&[], &target).unwrap_err().reason(), "Empty");
    let none = choose(&[map("y"), map("z")], &target).unwrap_err();
    assert_eq!(none.to_string(), "none of its 2 documents is ConfigMap/n/x");
    let several = choose(&[map("x"), map("x"), map("x")], &target).unwrap_err();
    assert_eq!(several.to_string(), "3 of its documents are ConfigMap/n/x; remove all but one");
    let elsewhere =
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"m"}}"#.to_vec();
    assert_eq!(choose(&[elsewhere, map("x")], &target).unwrap(), map("x"));
}

#[test]
fn a_live_object_of_a_list_does_not_say_what_it_is() {
    let listed = r#"{"metadata":{"name":"x","namespace":"n"},"data":{"a":"1"}}"#;
    let candidate = &read_as(listed, Form::Live, &config_map()).unwrap()[0];
    assert!(candidate.whole);
    assert_eq!(target_of(std::str::from_utf8(&candidate.object).unwrap()).kind.as_str(), "ConfigMap");
    let other = listed.replace(r#""name":"x""#, r#""name":"y""#);
    assert!(read_as(&other, Form::Live, &config_map()).is_err());
}

#[test]
fn what_looks_like_a_kind_or_a_name_may_be_a_value_and_is_not_quoted() {
    for document in [
        r#"{"apiVersion":"geheim","kind":"x"}"#,
        r#"{"apiVersion":"v1","kind":"geheim"}"#,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"geheim"}}"#,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"geheim"}}"#,
    ] {
        let error = read_as(document, Form::Document, &secret()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    }
}

#[test]
fn debug_output_holds_no_content() {
    let readings = read_as(r#"{"a":"geheim"}"#, Form::Document, &secret()).unwrap();
    let shown = format!("{readings:?}");
    assert!(!shown.contains("geheim") && !shown.contains("Z2VoZWlt"), "{shown}");
}
