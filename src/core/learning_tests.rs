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
    // Most forms say nothing of who wrote them.
    let Proposal::Without { paths: found, .. } = history.proposal(last, scope, true).unwrap() else {
        unreachable!("{:?}", history.proposal(last, scope, true))
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
    let changed = Changed { times: 2, by: ["rate-bot".to_owned()].into(), obstacle: None };
    assert_eq!(
        history.proposal(last, &scope, false).unwrap(),
        Proposal::Without {
            paths: vec![("/data/c".to_owned(), changed)],
            kept: Vec::new(),
            more_kept: false,
            covered: Vec::new()
        }
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
        let Proposal::Without { paths, kept, .. } = history.proposal(last, &scope, of_people).unwrap() else {
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
fn an_item_that_comes_or_goes_is_named_wherever_it_stands_and_no_whole_list_of_objects_is_left_out() {
    let scope = scope("apps", "Deployment");
    let many = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        workload(&json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "list": items}))
    };
    assert_eq!(paths(&[many(&["x"]), many(&["x", "y"])], &scope), ["/spec/list/[name=y]"]);
    assert_eq!(paths(&[many(&["x"]), many(&["y", "x"])], &scope), ["/spec/list/[name=y]"]);
    assert_eq!(paths(&[many(&["z", "x"]), many(&["x"])], &scope), ["/spec/list/[name=z]"]);
    let refused = |forms: &[Vec<u8>]| {
        let (history, last) = lived(forms, &scope);
        history.proposal(last, &scope, true).unwrap()
    };
    let list = Proposal::CannotLeaveOut { path: "/spec/list".to_owned(), obstacle: Obstacle::List };
    assert_eq!(refused(&[many(&["x", "x"]), many(&["x", "y"])]), list, "not told apart");
    assert_eq!(refused(&[many(&["x", "y"]), many(&["y", "x"])]), list, "in another order");
    let none = workload(&json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}));
    assert_eq!(refused(&[none, many(&["x"])]), list, "it came as a whole");
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
    let scope = scope("", "ConfigMap");
    let form = |n: usize| map(&json!({"a": format!("{n}"), "b": format!("{n}"), "c": "x"}), &json!([]));
    let forms = [form(1), form(2)];
    let (history, last) = lived(&forms, &scope);
    assert_eq!(
        history.proposal(last, &scope, true).unwrap(),
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
    assert_eq!(history.proposal(last, &scope, true).unwrap(), Proposal::TooManyPaths);
}

#[test]
fn keys_are_escaped_as_pointers_and_deep_ones_are_left_out_from_above() {
    let slash = |n: u32| map(&json!({"a/b~c": n.to_string(), "d": "1"}), &json!([]));
    assert_eq!(paths(&[slash(1), slash(2)], &scope("", "ConfigMap")), ["/data/a~1b~0c"]);
    let deep = |leaf: u32| {
        let nest = format!("{}{leaf}{}", r#"{"key":"#.repeat(500), "}".repeat(500));
        format!(r#"{{"spec":{{"a":1,"b":2,"deep":{nest}}}}}"#).into_bytes()
    };
    let forms = [deep(1), deep(2)];
    let scope = scope("example.com", "Deep");
    let (history, last) = lived(&forms, &scope);
    let Proposal::CannotLeaveOut { path, obstacle } = history.proposal(last, &scope, true).unwrap() else {
        unreachable!()
    };
    assert!(path.starts_with("/spec/deep/key/key") && path.len() <= MAX_PATH_LENGTH, "{path:?}");
    assert_eq!(obstacle, Obstacle::TooLong);
}

/// A form of a workload with its `managedFields`.
fn written(spec: &Value, managed: &Value) -> Vec<u8> {
    json!({"metadata": {"name": "a", "managedFields": managed}, "spec": spec}).to_string().into_bytes()
}

#[test]
fn one_write_of_several_fields_leaves_out_each_of_them_and_no_more() {
    let scope = scope("apps", "Deployment");
    let form = |image: &str, replicas: u32, metadata: &Value| {
        workload(
            &json!({"replicas": replicas, "paused": false, "x": 1, "y": 2, "template": {"metadata": metadata,
            "spec": {"hostname": "h", "containers": [
                {"name": "app", "image": image, "command": ["a"], "tty": false},
                {"name": "other", "image": "o"}]}}}),
        )
    };
    let labels = json!({"labels": {"a": "b"}});
    let both = json!({"labels": {"a": "b"}, "annotations": {"r": "1"}});
    for (before, after, grown) in [
        (&labels, &both, "/spec/template/metadata/annotations"),
        (&json!({"labels": {"a": "b"}, "annotations": {}}), &both, "/spec/template/metadata/annotations/r"),
        (&json!({}), &json!({"annotations": {"r": "1"}}), "/spec/template/metadata/annotations"),
        (&Value::Null, &json!({"annotations": {"r": "1"}}), "/spec/template/metadata"),
    ] {
        assert_eq!(
            paths(&[form("1", 1, before), form("2", 2, after)], &scope),
            ["/spec/replicas", "/spec/template/spec/containers/[name=app]/image", grown]
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_key_that_means_every_member_in_a_path_gets_no_guard() {
    let scope = scope("terrafusion.ai", "GAMAConfig");
    let form = |star: u32| {
        let parameters = json!({"limits": {"*": star, "a": 1, "b": 2}, "c": 3});
        workload(&json!({"parameters": parameters}))
    };
    let forms = [form(1), form(2)];
    let (history, last) = lived(&forms, &scope);
    let path = "/spec/parameters/limits/*".to_owned();
    assert_eq!(
        history.proposal(last, &scope, true).unwrap(),
        Proposal::CannotLeaveOut { path: path.clone(), obstacle: Obstacle::Star }
    );
    let Proposal::Without { paths, kept, .. } = history.proposal(last, &scope, false).unwrap() else {
        unreachable!()
    };
    assert!(paths.is_empty() && kept.len() == 1 && kept[0].0 == path, "nobody knows who wrote it");
}

/// An API server takes what a person removes out of the owner's entry, and leaves its time and notes nobody.
#[test]
fn a_removal_is_not_put_down_to_whoever_owned_what_is_gone() {
    let scope = scope("", "ConfigMap");
    let keeper =
        entry("kubectl-apply", "2026-11-27T00:00:00Z", &json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    let bot = |fields: &Value| entry("rate-bot", "2026-11-27T00:00:03Z", &json!({"f:data": fields}));
    let forms = [
        map(
            &json!({"a": "1", "b": "2", "c": "3", "d": "4"}),
            &json!([keeper, bot(&json!({"f:c": {}, "f:d": {}}))]),
        ),
        map(&json!({"a": "1", "b": "2", "d": "4"}), &json!([keeper, bot(&json!({"f:d": {}}))])),
    ];
    let (history, last) = lived(&forms, &scope);
    let Proposal::Without { paths, kept, .. } = history.proposal(last, &scope, false).unwrap() else {
        unreachable!()
    };
    assert_eq!(paths, []);
    assert_eq!(
        kept,
        [("/data/c".to_owned(), Changed { times: 1, by: BTreeSet::new(), obstacle: None })],
        "it stays pinned, and nobody is named"
    );
}

#[test]
fn a_sidecar_that_a_bot_takes_away_is_named_alone_and_what_a_person_wrote_below_is_told() {
    let scope = scope("apps", "Deployment");
    let form = |proxy: Option<&str>, managed: &Value| {
        let mut list = vec![json!({"name": "app", "image": "a"}), json!({"name": "log", "image": "l"})];
        list.splice(0..0, proxy.map(|image| json!({"name": "proxy", "image": image})));
        written(&json!({"replicas": 1, "paused": false, "x": 1, "containers": list}), managed)
    };
    let injected = entry(
        "injector",
        "2026-11-27T00:00:01Z",
        &json!({"f:spec": {"f:containers": {"k:{\"name\":\"proxy\"}": {".": {}, "f:name": {}, "f:image": {}}}}}),
    );
    let edited = entry(
        "kubectl-edit",
        "2026-11-27T00:00:02Z",
        &json!({"f:spec": {"f:containers": {"k:{\"name\":\"proxy\"}": {"f:image": {}}}}}),
    );
    let forms = [
        form(None, &json!([])),
        form(Some("1"), &json!([injected])),
        form(Some("2"), &json!([injected, edited])),
    ];
    let (history, last) = lived(&forms, &scope);
    let Proposal::Without { paths, kept, covered, .. } = history.proposal(last, &scope, false).unwrap()
    else {
        unreachable!()
    };
    assert_eq!(paths.len(), 1);
    assert_eq!(paths[0].0, "/spec/containers/[name=proxy]");
    assert_eq!(kept, []);
    assert_eq!(covered.len(), 1);
    assert_eq!(covered[0].0, "/spec/containers/[name=proxy]/image");
    assert_eq!(covered[0].1.by, ["kubectl-edit".to_owned()].into());
}

#[test]
fn however_much_people_write_it_stays_pinned_and_memory_is_bounded() {
    let scope = scope("", "ConfigMap");
    let form = |n: usize, keys: std::ops::Range<usize>, writer: &str| {
        let data = (0..800)
            .map(|key| (format!("k{key}"), json!(if keys.contains(&key) { n } else { 0 }.to_string())));
        let second = format!("2026-11-27T00:{:02}:{:02}Z", n / 60, n % 60);
        let fields: serde_json::Map<String, Value> =
            keys.clone().map(|key| (format!("f:k{key}"), json!({}))).collect();
        map(&Value::Object(data.collect()), &json!([entry(writer, &second, &json!({"f:data": fields}))]))
    };
    let old = form(0, 0..0, "kubectl-apply");
    let mut history = History::default();
    history.note(&old, &form(1, 0..65, "kubectl-apply"), &scope).unwrap();
    history.note(&old, &form(2, 70..71, "rate-bot"), &scope).unwrap();
    let Proposal::Without { paths, kept, more_kept, .. } = history.proposal(&old, &scope, false).unwrap()
    else {
        unreachable!()
    };
    assert_eq!((paths.len(), kept.len(), more_kept), (1, MAX_PATHS, true));
    assert_eq!(history.proposal(&old, &scope, true).unwrap(), Proposal::TooManyPaths);
    for n in 0..12 {
        let keys = n * 60..(n + 1) * 60;
        history.note(&old, &form(n + 1, keys.clone(), &format!("bot-{n}")), &scope).unwrap();
        history.note(&old, &form(n + 1, keys, "kubectl-apply"), &scope).unwrap();
        history.note(&old, &form(n + 1, 0..1, &format!("bot-{n}-b")), &scope).unwrap();
        history.note(&old, &form(n + 1, 0..1, &format!("bot-{n}-c")), &scope).unwrap();
    }
    assert!(history.rivals.paths.len() <= MAX_REMEMBERED);
    assert!(history.people.paths.len() <= MAX_REMEMBERED);
    assert!(history.rivals.paths.values().all(|changed| changed.by.len() <= MAX_WRITERS));
    assert_eq!(history.proposal(&old, &scope, false).unwrap(), Proposal::TooManyPaths);
}
