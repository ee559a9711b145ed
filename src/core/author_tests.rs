#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::core::signature::KEY_LENGTH;

const SPEC: &[u8] = br#"{"targetKind":"ConfigMap","targetName":"x","expectedHash":"aa"}"#;
const KEYS: AnnotationKeys<'_> = AnnotationKeys { author: "d.io/author", adopt: "d.io/adopt" };

fn key(byte: u8) -> SigningKey {
    SigningKey::new(&[byte; KEY_LENGTH]).unwrap()
}

fn author() -> Author {
    Author {
        signer: Arc::new(Signer { user: "alice".into(), groups: vec!["a".into(), "b".into()] }),
        at: "2026-06-01T12:00:00.25Z".parse().unwrap(),
    }
}

fn approved(spec: &[u8]) -> Approved<'_> {
    Approved { namespace: "team", name: "g", spec }
}

fn image<'a>(spec: &'a [u8], author: Option<&'a str>) -> Image<'a> {
    Image { spec, author, adopt: false }
}

#[test]
fn what_was_signed_names_its_author_again() {
    let text = sign(&key(1), approved(SPEC), &author()).unwrap();
    assert_eq!(verify(&key(1), approved(SPEC), &text), Some(author()));
}

#[test]
fn an_annotation_of_another_key_guard_name_or_namespace_is_worth_nothing() {
    let text = sign(&key(1), approved(SPEC), &author()).unwrap();
    assert_eq!(verify(&key(2), approved(SPEC), &text), None);
    for (namespace, name) in [("other", "g"), ("team", "other"), ("teamg", "")] {
        assert_eq!(verify(&key(1), Approved { namespace, name, spec: SPEC }, &text), None);
    }
    let other = br#"{"targetKind":"ConfigMap","targetName":"y","expectedHash":"aa"}"#;
    assert_eq!(verify(&key(1), approved(other), &text), None);
}

#[test]
fn no_part_of_an_annotation_can_be_edited() {
    let text = sign(&key(1), approved(SPEC), &author()).unwrap();
    for (from, to) in
        [("alice", "mallory"), (r#"["a","b"]"#, r#"["a","b","system:masters"]"#), ("12:00", "13:00")]
    {
        let edited = text.replace(from, to);
        assert_ne!(edited, text);
        assert_eq!(verify(&key(1), approved(SPEC), &edited), None, "{edited}");
    }
    for broken in ["", "{}", "null", "[1", "\u{0}"] {
        assert_eq!(verify(&key(1), approved(SPEC), broken), None);
    }
}

#[test]
fn defaults_order_and_spelling_of_a_spec_change_nothing_and_the_rest_does() {
    let filled: &[u8] = br#"{ "expectedHash":"\u0061a", "autoRemediate":false,"maxFailuresBeforeAlert":3,
        "deletionPolicy":"Allow","ignorePaths":[],"enforcement":null,
        "targetName":"x","targetKind":"ConfigMap"}"#;
    assert!(same_spec(SPEC, filled));
    let text = sign(&key(1), approved(SPEC), &author()).unwrap();
    assert!(verify(&key(1), approved(filled), &text).is_some());
    for other in [
        &br#"{"targetKind":"ConfigMap","targetName":"x","expectedHash":"aa","autoRemediate":true}"#[..],
        br#"{"targetKind":"ConfigMap","targetName":"x","expectedHash":"ab"}"#,
        br#"{"targetKind":"ConfigMap","targetName":"x"}"#,
        b"{}",
        b"null",
        b"{\"a\":",
    ] {
        assert!(!same_spec(SPEC, other), "{}", String::from_utf8_lossy(other));
    }
}

#[test]
fn a_guard_without_a_name_and_an_endless_author_are_not_signed() {
    assert_eq!(sign(&key(1), Approved { name: "", ..approved(SPEC) }, &author()), None);
    let signer = Signer { user: "alice".into(), groups: vec!["group".repeat(100); 200] };
    let endless = Author { signer: Arc::new(signer), ..author() };
    assert_eq!(sign(&key(1), approved(SPEC), &endless), None);
}

#[test]
fn an_annotation_moves_only_with_what_it_is_about() {
    let (old, other) = (image(SPEC, Some("old")), &b"{}"[..]);
    assert_eq!(intended(&image(SPEC, None), None), Change::Created);
    assert_eq!(intended(&image(other, Some("old")), Some(&old)), Change::Changed);
    assert_eq!(intended(&image(SPEC, Some("forged")), Some(&old)), Change::Untouched);
    let asked = Image { adopt: true, ..old };
    assert_eq!(intended(&asked, Some(&old)), Change::Adopted);
    assert_eq!(arrived(&old, Some(&old)), Change::Untouched);
    assert_eq!(arrived(&image(SPEC, Some("new")), Some(&old)), Change::Adopted);
    assert_eq!(arrived(&image(SPEC, None), Some(&old)), Change::Adopted);
    assert_eq!(arrived(&asked, Some(&old)), Change::Adopted, "the mutating hook did not take the request");
}

#[test]
fn the_patch_says_only_what_is_not_in_order() {
    let text = |patch: Option<Vec<u8>>| patch.map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(text(patch(&image(SPEC, Some("a")), true, Some("a"), KEYS)), None);
    assert_eq!(text(patch(&image(SPEC, None), true, None, KEYS)), None);
    assert_eq!(
        text(patch(&image(SPEC, None), false, Some("a"), KEYS)).unwrap(),
        r#"[{"op":"add","path":"/metadata/annotations","value":{}},{"op":"add","path":"/metadata/annotations/d.io~1author","value":"a"}]"#
    );
    assert_eq!(
        text(patch(&image(SPEC, Some("forged")), true, None, KEYS)).unwrap(),
        r#"[{"op":"remove","path":"/metadata/annotations/d.io~1author"}]"#
    );
    let asked = Image { adopt: true, ..image(SPEC, Some("a")) };
    assert_eq!(
        text(patch(&asked, true, Some("a"), KEYS)).unwrap(),
        r#"[{"op":"remove","path":"/metadata/annotations/d.io~1adopt"}]"#
    );
}
