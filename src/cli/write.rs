//! Writes to the API server, with its warnings shown as kubectl shows them.
//!
//! kube's client drops the `Warning` headers of an answer. DriftGuard's own reviews speak through them, so
//! that commands which write send their requests here.

use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

use super::cluster::Cluster;
use super::output;
use crate::control::warning;

/// Field manager of what everyday commands write into guards, so that it can be told from `serve`.
pub(crate) const FIELD_MANAGER: &str = "driftguard-cli";

/// What an answer may say instead of being one.
const NO_STATUS: &str = "Failed to parse error data";

/// Sends a request, prints the warnings of the answer to stderr and gives its body.
///
/// # Errors
/// As [`kube::Client::request_text`].
pub(crate) async fn send(cluster: &Cluster, request: Request<Vec<u8>>) -> Result<Vec<u8>, kube::Error> {
    send_showing(cluster, request, Warnings::All).await
}

/// Which warnings of an answer are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warnings {
    /// All of them.
    All,
    /// Those that name DriftGuard. Whoever else warns of a write of a Secret may quote it.
    Ours,
}

/// As [`send`], with the warnings that may be shown.
///
/// # Errors
/// As [`send`].
pub(crate) async fn send_showing(
    cluster: &Cluster,
    request: Request<Vec<u8>>,
    warnings: Warnings,
) -> Result<Vec<u8>, kube::Error> {
    let Answer { body, warnings: said } = ask(cluster, request).await?;
    if said.unread > 0 {
        output::message("Warning: the API server warns of something that cannot be read");
    }
    for text in said.texts {
        if warnings == Warnings::All || text.starts_with("DriftGuard ") {
            output::message(&format!("Warning: {text}"));
        } else {
            output::message(
                "Warning: somebody else warns of this write of a Secret; what they say may quote it",
            );
        }
    }
    body
}

/// What the API server answered.
pub(crate) struct Answer {
    /// The body, or why there is none.
    pub(crate) body: Result<Vec<u8>, kube::Error>,
    /// The warnings that came with it, of the API server and of everybody it asked.
    pub(crate) warnings: warning::Warnings,
}

/// Sends a request and shows nothing.
///
/// # Errors
/// When there is no answer.
pub(crate) async fn ask(cluster: &Cluster, request: Request<Vec<u8>>) -> Result<Answer, kube::Error> {
    let answer = cluster.client.send(request.map(Body::from)).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    let warnings = warning::of(&head.headers);
    if head.status.is_client_error() || head.status.is_server_error() {
        let status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&body);
            Status::failure(text.trim(), NO_STATUS).with_code(head.status.as_u16())
        });
        return Ok(Answer { body: Err(kube::Error::Api(status.boxed())), warnings });
    }
    Ok(Answer { body: Ok(body), warnings })
}

/// A merge patch of one object by the path of its URL, under our field manager.
///
/// # Errors
/// When the patch cannot be put into a request, or as [`send`].
pub(crate) async fn merge(cluster: &Cluster, path: &str, patch: &Value) -> Result<Vec<u8>, kube::Error> {
    let request = Request::patch(format!("{path}?fieldManager={FIELD_MANAGER}"))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    send(cluster, request).await
}

/// A patch of one object by RFC 6902, under our field manager; a dry run is checked by the API server and everybody
/// it asks, and not stored.
///
/// # Errors
/// As [`merge`].
pub(crate) async fn patch(
    cluster: &Cluster,
    path: &str,
    operations: &[Value],
    is_dry_run: bool,
) -> Result<Vec<u8>, kube::Error> {
    let dry_run = if is_dry_run { "dryRun=All&" } else { "" };
    let request = Request::patch(format!("{path}?{dry_run}fieldManager={FIELD_MANAGER}"))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(operations).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    send(cluster, request).await
}
