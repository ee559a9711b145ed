//! Keeps what an API server asks about updates, byte for byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use serde_json::Value;

use crate::{body, noop, response};

/// Answers on every path; the last update of each object stands in the folder `into`.
pub(crate) fn router(into: PathBuf) -> Router {
    Router::new().fallback(post(capture)).with_state(Arc::new(into))
}

async fn capture(State(into): State<Arc<PathBuf>>, request: Request) -> Response {
    let Some(body) = body::read(request).await else { return response::not_a_review() };
    let (Some(uid), Ok(review)) = (noop::uid(&body), serde_json::from_slice::<Value>(&body)) else {
        return response::not_a_review();
    };
    let request = &review["request"];
    if let ("UPDATE", Some(name)) =
        (request["operation"].as_str().unwrap_or_default(), request["name"].as_str())
        && let Err(error) = keep(&into, name, &body)
    {
        return response::failed(&error.to_string());
    }
    response::allow(uid)
}

/// Writes the file whole or not at all: another process looks for it.
fn keep(into: &Path, name: &str, body: &[u8]) -> std::io::Result<()> {
    let unfinished = into.join(format!("{name}.part"));
    std::fs::write(&unfinished, body)?;
    std::fs::rename(unfinished, into.join(format!("{name}.json")))
}
