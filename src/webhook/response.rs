//! The answer to an admission review: our own type of `admission.k8s.io/v1`.
//!
//! A refusal is 403 `Forbidden` with a message and nothing else: causes would make kubectl hide the
//! message, 409 would make it try again, 422 would reopen the editor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::notes::Notes;

/// Longest warning, in characters. Past a total of 4,096 the API server cuts each to this.
const MAX_WARNING: usize = 256;
/// Longest sum of all warnings, in characters.
const MAX_WARNINGS: usize = 2_000;

/// An `AdmissionReview` that carries a response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64 of a JSON patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    /// What the API server notes in its audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<&'a Notes>,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

/// The review is allowed. Warnings are brought into the shape that the API server passes on.
pub(super) fn allow(uid: &str, warnings: &[String]) -> Vec<u8> {
    encode(Response { warnings: passable(warnings), ..plain(uid) })
}

/// The review is allowed, and that is noted.
pub(super) fn allow_noted(uid: &str, warnings: &[String], notes: &Notes) -> Vec<u8> {
    encode(Response { warnings: passable(warnings), audit_annotations: Some(notes), ..plain(uid) })
}

/// The review is allowed, and the object is to be changed by a JSON patch.
pub(super) fn allow_with_patch(
    uid: &str,
    warnings: &[String],
    patch: &[u8],
    notes: Option<&Notes>,
) -> Vec<u8> {
    let patch = Some(STANDARD.encode(patch));
    encode(Response {
        warnings: passable(warnings),
        patch_type: Some("JSONPatch"),
        patch,
        audit_annotations: notes,
        ..plain(uid)
    })
}

/// The review is refused with `message`, and that is noted.
pub(super) fn deny(uid: &str, message: &str, warnings: &[String], notes: &Notes) -> Vec<u8> {
    let status = Status { status: "Failure", message, reason: "Forbidden", code: 403 };
    encode(Response {
        allowed: false,
        status: Some(status),
        warnings: passable(warnings),
        audit_annotations: Some(notes),
        ..plain(uid)
    })
}

fn plain(uid: &str) -> Response<'_> {
    Response {
        uid,
        allowed: true,
        status: None,
        warnings: Vec::new(),
        patch_type: None,
        patch: None,
        audit_annotations: None,
    }
}

fn encode(response: Response<'_>) -> Vec<u8> {
    let review = AdmissionReview { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    // Texts and booleans always serialise.
    serde_json::to_vec(&review).unwrap_or_default()
}

/// Warnings without control characters, which would make the API server drop them, and no longer
/// than it shows; those beyond the sum are left out.
fn passable(warnings: &[String]) -> Vec<String> {
    let mut left = MAX_WARNINGS;
    let mut passable = Vec::with_capacity(warnings.len());
    for warning in warnings {
        let clean: String = warning
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .take(MAX_WARNING)
            .collect();
        let length = clean.chars().count();
        if length > left {
            break;
        }
        left -= length;
        passable.push(clean);
    }
    passable
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // An answer that is no JSON should stop the test.
    use serde_json::{Value, json};

    use super::*;

    fn parsed(answer: &[u8]) -> Value {
        serde_json::from_slice(answer).unwrap()
    }

    #[test]
    fn an_allowed_review_says_so_and_nothing_else() {
        assert_eq!(
            parsed(&allow("u-1", &[])),
            json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": {"uid": "u-1", "allowed": true},
            })
        );
    }

    #[test]
    fn a_patch_goes_along_in_base64() {
        let response = &parsed(&allow_with_patch("u-1", &[], b"[]", None))["response"];
        assert_eq!(
            *response,
            json!({"uid": "u-1", "allowed": true, "patchType": "JSONPatch", "patch": "W10="})
        );
    }

    #[test]
    fn a_refusal_is_403_forbidden_with_the_message_alone() {
        assert_eq!(
            parsed(&deny("u-1", "first\nsecond", &[], &Notes::of("deny", "HashMismatch")))["response"],
            json!({
                "uid": "u-1",
                "allowed": false,
                "status": {"status": "Failure", "message": "first\nsecond", "reason": "Forbidden", "code": 403},
                "auditAnnotations": {"verdict": "deny", "reason": "HashMismatch"},
            })
        );
    }

    #[test]
    fn a_patch_goes_out_in_base64_with_its_type() {
        let patch = br#"[{"op":"remove","path":"/a"}]"#;
        let answer = parsed(&allow_with_patch("u", &["said".into()], patch, None));
        assert_eq!(
            answer["response"],
            json!({
                "uid": "u", "allowed": true, "warnings": ["said"], "patchType": "JSONPatch",
                "patch": "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL2EifV0=",
            })
        );
    }

    #[test]
    fn warnings_reach_the_user_whatever_is_in_them() {
        let answer = parsed(&allow("u", &["a\nb\u{7}c".into(), "ü".repeat(300)]));
        let warnings = answer["response"]["warnings"].as_array().unwrap();
        assert_eq!(warnings[0], "a b c");
        assert_eq!(warnings[1].as_str().unwrap().chars().count(), 256);
        let many = vec!["x".repeat(256); 20];
        assert_eq!(parsed(&allow("u", &many))["response"]["warnings"].as_array().unwrap().len(), 7);
    }

    #[test]
    fn a_uid_comes_back_exactly_as_it_came() {
        for uid in ["", "a\"b\\c", "\u{1F600}\u{0}"] {
            assert_eq!(parsed(&allow(uid, &[]))["response"]["uid"], uid);
        }
    }
}
