#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use serde_json::{Value, json};

use super::*;

fn scope(group: &str, kind: &str) -> Scope {
    Scope::new(group, kind, PathFilter::everything())
}

fn map(data: &Value, managed: &Value) -> Vec<u8> {
    json!({"metadata": {"name": "a", "managedFields": managed}, "data": data}).to_string().into_bytes()
}

fn workload(spec: &Value) -> Vec<u8> {
    json!({"metadata": {"name": "a"}, "spec": spec}).to_string().into_bytes()
}

fn entry(manager: &str, time: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields})
}

/// The history of an object that took these forms one after the other, and its last form.
fn lived<'a>(forms: &'a [Vec<u8>], scope: &Scope) -> (History, &'a [u8]) {
    let mut history = History::default();
    for pair in forms.windows(2) {
        history.note(&pair[0], &pair[1], scope).unwrap();
    }
    (history, forms.last().unwrap())
}

/// The paths that are proposed; every form that was noted must hash alike without them.
fn paths(forms: &[Vec<u8>], scope: &Scope) -> Vec<String> {
    let (history, last) = lived(forms, scope);
    let Proposal::Without { paths: found, .. } = history.proposal(last, scope, false).unwrap() else {
        unreachable!("{:?}", history.proposal(last, scope, false))
    };
    let paths: Vec<String> = found.into_iter().map(|(path, _)| path).collect();
    let without = scope.with_filter(PathFilter::ignoring(&paths).unwrap());
    let hash = |form: &Vec<u8>| hash_object(form, &without).unwrap();
    assert!(forms.iter().all(|form| hash(form) == hash(&forms[0])), "{paths:?}");
    paths
}

#[test]
fn an_object_whose_pinned_content_stays_is_pinned_whole() {
    let scope = scope("", "ConfigMap");
    let labelled = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "1"}});
    let forms = [map(&json!({"k": "1"}), &json!([])), labelled.to_string().into_bytes()];
    let (history, last) = lived(&forms, &scope);
    assert_eq!(history.writes(), 0);
    assert_eq!(history.proposal(last, &scope, false).unwrap(), Proposal::Whole);
}

#[test]
fn a_key_that_changes_is_left_out_with_how_often_and_who() {
    let scope = scope("", "ConfigMap");
    let managed = |second: u32| {
        json!([
            entry(
                "kubectl-apply",
                "2026-11-27T00:00:00Z",
                &json!({"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}})
            ),
            entry("rate-bot", &format!("2026-11-27T00:00:{second:02}Z"), &json!({"f:data": {"f:c": {}}})),
        ])
    };
    let form = |c: &str, second| map(&json!({"a": "1", "b": "2", "c": c}), &managed(second));
    let forms = [form("1", 1), form("2", 2), form("2", 3), form("4", 4)];
    let (history, last) = lived(&forms, &scope);
    assert_eq!(history.writes(), 2);
    let changed = Changed { times: 2, by: ["rate-bot".to_owned()].into() };
    assert_eq!(
        history.proposal(last, &scope, false).unwrap(),
        Proposal::Without { paths: vec![("/data/c".to_owned(), changed)], kept: Vec::new() }
    );
}

#[test]
fn what_only_tools_of_people_wrote_stays_pinned_unless_it_is_wanted_otherwise() {
    let scope = scope("apps", "Deployment");
    let form = |image: &str, replicas: u32| {
        let managed = json!([
            entry("kubectl-set", "2026-11-27T00:00:01Z", &json!({"f:spec": {"f:image": {}}})),
            entry("autoscaler", "2026-11-27T00:00:02Z", &json!({"f:spec": {"f:replicas": {}}})),
        ]);
        let spec = json!({"image": image, "replicas": replicas, "a": 1, "b": 2});
        json!({"metadata": {"name": "a", "managedFields": managed}, "spec": spec}).to_string().into_bytes()
    };
    let forms = [form("1", 1), form("2", 1), form("2", 2)];
    let (history, last) = lived(&forms, &scope);
    let names = |of_people| {
        let Proposal::Without { paths, kept } = history.proposal(last, &scope, of_people).unwrap() else {
            unreachable!("half of it stays")
        };
        [paths, kept].map(|some| some.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
    };
    assert_eq!(names(false), [vec!["/spec/replicas"], vec!["/spec/image"]]);
    assert_eq!(names(true), [vec!["/spec/image", "/spec/replicas"], vec![]]);
}

#[test]
fn whoever_takes_a_field_away_is_known_by_being_newly_noted() {
    let scope = scope("", "ConfigMap");
    let keeper =
        entry("kubectl-apply", "2026-11-27T00:00:00Z", &json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    let remover = entry("janitor", "2026-11-27T00:00:05Z", &json!({"f:metadata": {}}));
    let old = map(&json!({"a": "1", "b": "2", "c": "3"}), &json!([keeper]));
    let new = map(&json!({"a": "1", "b": "2"}), &json!([keeper, remover]));
    let forms = [old, new];
    let (history, last) = lived(&forms, &scope);
    let Proposal::Without { paths: found, .. } = history.proposal(last, &scope, false).unwrap() else {
        unreachable!()
    };
    assert_eq!(found[0].0, "/data/c");
    assert_eq!(found[0].1.by, ["janitor".to_owned()].into());
}

#[test]
fn list_items_are_named_by_what_tells_them_apart_and_other_lists_are_left_out_whole() {
    let scope = scope("apps", "Deployment");
    let form = |image: &str, port: u32, args: &[&str]| {
        workload(
            &json!({"replicas": 1, "paused": false, "strategy": {"type": "Recreate"}, "template": {"spec": {
            "restartPolicy": "Always", "dnsPolicy": "Default", "hostname": "h", "nodeName": "n",
            "containers": [
                {"name": "side/car", "image": "s", "args": args},
                {"name": "app", "image": image, "ports": [{"containerPort": 80, "hostPort": port}, {"containerPort": 81}]},
            ]}}}),
        )
    };
    let forms = [form("1", 1, &["a"]), form("2", 1, &["a"]), form("2", 2, &["a", "b"])];
    assert_eq!(
        paths(&forms, &scope),
        [
            "/spec/template/spec/containers/[name=app]/image",
            "/spec/template/spec/containers/[name=app]/ports/[containerPort=80]/hostPort",
            "/spec/template/spec/containers/[name=side~1car]/args",
        ]
    );
}

#[test]
fn an_item_that_comes_at_the_end_is_named_and_one_that_moves_the_others_takes_the_list() {
    let scope = scope("apps", "Deployment");
    let many = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        workload(&json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "list": items}))
    };
    assert_eq!(paths(&[many(&["x"]), many(&["x", "y"])], &scope), ["/spec/list/[name=y]"]);
    assert_eq!(paths(&[many(&["x"]), many(&["y", "x"])], &scope), ["/spec/list"]);
    assert_eq!(paths(&[many(&["x", "x"]), many(&["x", "y"])], &scope), ["/spec/list"], "not told apart");
}

#[test]
fn a_map_that_comes_with_its_first_member_is_left_out_with_what_lies_in_it() {
    let scope = scope("apps", "Deployment");
    let form = |annotations: Value| {
        let mut metadata = json!({"labels": {"a": "b"}});
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        workload(&json!({"a": 1, "b": 2, "c": 3, "template": {"metadata": metadata}}))
    };
    let forms = [form(Value::Null), form(json!({"r": "1"})), form(json!({"r": "2"}))];
    assert_eq!(paths(&forms, &scope), ["/spec/template/metadata/annotations"]);
    assert_eq!(paths(&forms[1..], &scope), ["/spec/template/metadata/annotations/r"]);
}

#[test]
fn an_object_most_of_whose_values_change_gets_no_guard() {
    let scope = scope("", "Secret");
    let form = |value: &str| map(&json!({"a": value, "b": value, "c": "eA=="}), &json!([]));
    let forms = [form("MQ=="), form("Mg==")];
    let (history, last) = lived(&forms, &scope);
    assert_eq!(
        history.proposal(last, &scope, false).unwrap(),
        Proposal::MostlyChanging { changing: 2, of: 3 }
    );
}

#[test]
fn more_changes_than_a_guard_can_leave_out_get_no_guard() {
    let scope = scope("", "ConfigMap");
    let form = |n: usize| {
        let changing = (0..=MAX_PATHS).map(|key| (format!("k{key}"), json!(n.to_string())));
        let staying = (0..1_000).map(|key| (format!("s{key}"), json!("")));
        map(&Value::Object(changing.chain(staying).collect()), &json!([]))
    };
    let forms = [form(1), form(2)];
    let (history, last) = lived(&forms, &scope);
    assert_eq!(history.proposal(last, &scope, false).unwrap(), Proposal::TooManyPaths);
}

#[test]
fn keys_are_escaped_as_pointers_and_deep_ones_are_left_out_from_above() {
    let slash = |n: u32| map(&json!({"a/b~c": n.to_string(), "d": "1"}), &json!([]));
    assert_eq!(paths(&[slash(1), slash(2)], &scope("", "ConfigMap")), ["/data/a~1b~0c"]);
    let deep = |leaf: u32| {
        let nest = format!("{}{leaf}{}", r#"{"key":"#.repeat(500), "}".repeat(500));
        format!(r#"{{"spec":{{"a":1,"b":2,"deep":{nest}}}}}"#).into_bytes()
    };
    let found = paths(&[deep(1), deep(2)], &scope("example.com", "Deep"));
    assert!(found[0].starts_with("/spec/deep/key/key") && found[0].len() <= MAX_PATH_LENGTH, "{found:?}");
}
