#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn entry(manager: &str, time: &str, fields: &str) -> String {
    format!(
        r#"{{"manager":"{manager}","operation":"Update","apiVersion":"v1","time":"{time}","fieldsType":"FieldsV1","fieldsV1":{fields}}}"#
    )
}

fn object(data: &str, entries: &[String]) -> Vec<u8> {
    format!(r#"{{"metadata":{{"name":"x","managedFields":[{}]}},{data}}}"#, entries.join(",")).into_bytes()
}

fn of(object: &[u8], paths: &[&str], last_clean: Option<&str>, observed: &[Observed]) -> Attribution {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    attribute(&Evidence {
        object: Some(object),
        paths: &paths,
        more: false,
        hash: Some(ContentHash::of(b"now")),
        observed,
        last_clean: last_clean.map(at),
    })
}

fn seen(user: &str, content: &[u8], allowed: bool) -> Observed {
    Observed {
        user: user.to_owned(),
        manager: "kubectl-edit".to_owned(),
        image: ContentHash::of(content),
        at: at("2026-06-01T12:00:04Z"),
        allowed,
        authenticated: true,
    }
}

const DATA: &str = r#""data":{"a":"1","b":"2"}"#;
const CLEAN: Option<&str> = Some("2026-06-01T12:00:00Z");

#[test]
fn the_manager_that_owns_what_changed_since_it_was_approved_did_it() {
    let object = object(
        DATA,
        &[
            entry("helm", "2026-06-01T11:00:00Z", r#"{"f:data":{".":{},"f:b":{}}}"#),
            entry("kubectl-edit", "2026-06-01T12:00:05Z", r#"{"f:data":{"f:a":{}}}"#),
        ],
    );
    let who = of(&object, &["/data/a"], CLEAN, &[]);
    let Attribution::FieldManager { manager, operation, at: when, sure, .. } = &who else {
        unreachable!("{who}")
    };
    assert_eq!((manager.as_str(), operation.as_str(), *sure), ("kubectl-edit", "Update", true));
    assert_eq!(*when, at("2026-06-01T12:00:05Z"));
    assert_eq!(who.to_string(), "field manager kubectl-edit (Update at 2026-06-01T12:00:05Z)");
    assert_eq!(of(&object, &["/data/a"], None, &[]).how(), "field manager");
}

#[test]
fn an_owner_that_wrote_before_it_was_last_approved_did_not_do_it() {
    let object = object(DATA, &[entry("helm", "2026-06-01T11:00:00Z", r#"{"f:data":{"f:a":{},"f:b":{}}}"#)]);
    let who = of(&object, &["/data/a"], CLEAN, &[]);
    assert_eq!(who.how(), "unknown");
    assert!(who.to_string().contains("written past the API server"), "{who}");
    assert_eq!(who.actor(), None);
}

#[test]
fn within_the_same_second_nothing_can_be_told() {
    let object = object(DATA, &[entry("helm", "2026-06-01T12:00:00Z", r#"{"f:data":{"f:a":{}}}"#)]);
    assert_eq!(of(&object, &["/data/a"], CLEAN, &[]).how(), "unknown");
}

#[test]
fn two_managers_that_come_into_question_are_both_named_and_neither_is_blamed() {
    let object = object(
        DATA,
        &[
            entry("one", "2026-06-01T12:00:05Z", r#"{"f:data":{"f:a":{}}}"#),
            entry("two", "2026-06-01T12:00:06Z", r#"{"f:data":{"f:b":{}}}"#),
        ],
    );
    let who = of(&object, &["/data/a", "/data/b"], CLEAN, &[]);
    assert_eq!(who.how(), "unknown");
    assert!(who.to_string().contains("one and two"), "{who}");
    assert_eq!(of(&object, &["/data/b"], CLEAN, &[]).name(), Some("two"));
}

#[test]
fn of_several_owners_of_a_path_the_newest_is_meant_and_of_equal_ones_none() {
    let owns = r#"{"f:data":{"f:a":{}}}"#;
    let shared = |first: &str, second: &str| {
        let object = object(DATA, &[entry("one", first, owns), entry("two", second, owns)]);
        of(&object, &["/data/a"], CLEAN, &[])
    };
    assert_eq!(shared("2026-06-01T12:00:05Z", "2026-06-01T12:00:09Z").name(), Some("two"));
    assert_eq!(shared("2026-06-01T12:00:05Z", "2026-06-01T12:00:05Z").how(), "unknown");
}

#[test]
fn what_was_removed_has_no_owner() {
    let object =
        object(r#""data":{"a":"1"}"#, &[entry("one", "2026-06-01T12:00:05Z", r#"{"f:data":{"f:a":{}}}"#)]);
    let who = of(&object, &["/data/a", "/data/gone"], CLEAN, &[]);
    assert!(who.to_string().contains("no field manager owns /data/gone"), "{who}");
}

#[test]
fn items_of_lists_are_found_by_their_keys_their_value_and_their_place() {
    let spec = r#""spec":{"containers":[{"name":"b","image":"i"},{"name":"a","image":"evil"}],"finalizers":["x","y"],"rules":[1]}"#;
    let fields = r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}}},"f:finalizers":{"v:\"y\"":{}},"f:rules":{"i:0":{}}}}"#;
    let object = object(spec, &[entry("mallory", "2026-06-01T12:00:05Z", fields)]);
    for path in ["/spec/containers/1/image", "/spec/finalizers/1", "/spec/rules/0"] {
        assert_eq!(of(&object, &[path], CLEAN, &[]).name(), Some("mallory"), "{path}");
    }
    for path in ["/spec/containers/0/image", "/spec/containers/1/args", "/spec/finalizers/0", "/spec/rules/1"]
    {
        assert_eq!(of(&object, &[path], CLEAN, &[]).name(), None, "{path}");
    }
}

#[test]
fn a_field_that_is_owned_whole_takes_along_what_lies_under_it() {
    let object = object(
        r#""spec":{"selector":{"app":"x"},"a/b":1}"#,
        &[entry("one", "2026-06-01T12:00:05Z", r#"{"f:spec":{"f:selector":{},"f:a/b":{}}}"#)],
    );
    assert_eq!(of(&object, &["/spec/selector/app"], CLEAN, &[]).name(), Some("one"));
    assert_eq!(of(&object, &["/spec/a~1b"], CLEAN, &[]).name(), Some("one"));
    assert_eq!(of(&object, &["/spec/other"], CLEAN, &[]).name(), None);
}

#[test]
fn a_write_that_admission_let_through_names_its_user() {
    let object = object(DATA, &[]);
    let who = of(&object, &["/data/a"], CLEAN, &[seen("alice", b"now", true), seen("bob", b"else", true)]);
    assert_eq!(who.how(), "observed at admission");
    assert_eq!(who.to_string(), "user alice as field manager kubectl-edit (observed at admission)");
}

#[test]
fn two_users_who_wrote_the_same_content_are_both_named() {
    let object = object(DATA, &[]);
    let who = of(&object, &["/data/a"], CLEAN, &[seen("alice", b"now", true), seen("bob", b"now", true)]);
    assert_eq!(who.how(), "unknown");
    assert!(who.to_string().contains("alice and bob"), "{who}");
}

#[test]
fn whoever_was_refused_the_same_content_is_named_but_not_blamed() {
    let object = object(DATA, &[]);
    let who = of(&object, &["/data/a"], CLEAN, &[seen("alice", b"now", false)]);
    assert!(who.to_string().contains("refused to user alice"), "{who}");
    assert_eq!((who.actor(), who.name()), (None, None));
}

#[test]
fn a_review_that_anybody_can_have_forged_counts_only_when_managed_fields_agree() {
    let forged = |content| Observed { authenticated: false, ..seen("alice", content, true) };
    let bare = object(DATA, &[]);
    assert_eq!(of(&bare, &["/data/a"], CLEAN, &[forged(b"now")]).how(), "unknown");
    let agreeing = object(DATA, &[entry("kubectl-edit", "2026-06-01T12:00:05Z", r#"{"f:data":{"f:a":{}}}"#)]);
    assert_eq!(of(&agreeing, &["/data/a"], CLEAN, &[forged(b"now")]).how(), "observed at admission");
}

#[test]
fn a_review_from_before_it_was_last_approved_says_nothing() {
    let object = object(DATA, &[]);
    let who = of(&object, &["/data/a"], Some("2026-06-01T12:00:05Z"), &[seen("alice", b"now", true)]);
    assert_eq!(who.how(), "unknown");
}

#[test]
fn whatever_stands_in_managed_fields_nothing_breaks() {
    for managed in ["7", "null", "[1]", r#"[{"manager":{},"fieldsV1":3}]"#, r#"[{"fieldsV1":{"f:data":[]}}]"#]
    {
        let object = format!(r#"{{"metadata":{{"managedFields":{managed}}},{DATA}}}"#);
        assert_eq!(of(object.as_bytes(), &["/data/a"], CLEAN, &[]).how(), "unknown", "{managed}");
    }
    assert_eq!(of(b"{", &["/data/a"], CLEAN, &[]).how(), "unknown");
    assert_eq!(of(b"{}", &["/data/a"], CLEAN, &[]).how(), "unknown");
    let deep = format!("{}{}", r#"{"f:data":"#.repeat(3000), "{}".to_owned() + &"}".repeat(3000));
    let object = object(DATA, &[entry("one", "2026-06-01T12:00:05Z", &deep)]);
    assert_eq!(of(&object, &["/data/a"], CLEAN, &[]).how(), "unknown");
}

#[test]
fn a_name_of_any_length_and_content_is_cut_and_cleaned() {
    let long = "x".repeat(10_000);
    let object =
        object(DATA, &[entry(&format!("a\\n{long}"), "2026-06-01T12:00:05Z", r#"{"f:data":{"f:a":{}}}"#)]);
    let text = of(&object, &["/data/a"], CLEAN, &[]).to_string();
    assert!(text.len() < 300 && !text.contains('\n'), "{text}");
}
