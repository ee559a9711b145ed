//! The least a webhook can do: read the body, find the uid, allow.

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;

use crate::{body, response};

/// Answers on every path.
pub(crate) fn router() -> Router {
    Router::new().fallback(post(allow))
}

async fn allow(request: Request) -> Response {
    let Some(body) = body::read(request).await else { return response::not_a_review() };
    match uid(&body) {
        Some(uid) => response::allow(uid),
        None => response::not_a_review(),
    }
}

/// `request.uid` where the API server writes it: near the start, as the first member of that name.
/// It holds no escapes.
pub(crate) fn uid(body: &[u8]) -> Option<&str> {
    const BEFORE: &[u8] = br#""uid":""#;
    let from = body.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let length = body[from..].iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&body[from..from + length]).ok()
}
