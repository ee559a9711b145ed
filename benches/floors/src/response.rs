//! Answers to admission reviews.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// The write may pass.
pub(crate) fn allow(uid: &str) -> Response {
    review(uid, r#""allowed":true"#)
}

/// The write may not pass.
pub(crate) fn deny(uid: &str) -> Response {
    review(uid, r#""allowed":false,"status":{"code":403,"message":"the content is not approved"}"#)
}

/// The body could not be read as a review.
pub(crate) fn not_a_review() -> Response {
    (StatusCode::BAD_REQUEST, "not an admission review\n").into_response()
}

/// Something here went wrong.
pub(crate) fn failed(message: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{message}\n")).into_response()
}

fn review(uid: &str, answer: &str) -> Response {
    let body = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{{"uid":"{uid}",{answer}}}}}"#
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
