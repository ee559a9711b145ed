//! What is sent to the API server to put content back, and what may be told of its refusals.

use std::time::Duration;

use http::{Method, Request};
use kube::core::Status;
use tokio::time::Instant;

use crate::api::names;
use crate::core::guard::Target;

use super::{Outcome, REQUEST_TIMEOUT};

/// How long it is tried to make an object again that was deleted for that.
const MAKE_AGAIN: Duration = Duration::from_secs(30);

pub(super) async fn send(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Vec<u8>, Refused> {
    match tokio::time::timeout(REQUEST_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(text)) => Ok(text.into_bytes()),
        Ok(Err(kube::Error::Api(status))) => Err(Refused::of(&status)),
        Ok(Err(error)) => Err(Refused::silent(error.to_string())),
        Err(_) => Err(Refused::silent("no answer in time".to_owned())),
    }
}

/// Makes an object that was just deleted, until it stands there or somebody else has made one.
pub(super) async fn make_again(client: kube::Client, request: Request<Vec<u8>>) -> Result<(), Refused> {
    let until = Instant::now() + MAKE_AGAIN;
    let mut pause = Duration::from_millis(100);
    loop {
        let mut again = Request::new(request.body().clone());
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        match send(&client, again).await {
            Ok(_) => return Ok(()),
            // It is there: made by an attempt whose answer was lost, or by somebody else.
            Err(refused) if refused.code == 409 && refused.reason == "AlreadyExists" => return Ok(()),
            Err(refused) if Instant::now() + pause > until => return Err(refused),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Why the API server did not do it; code 0 when it did not answer.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: u16,
    reason: String,
    /// The name of the object that it is about, where it says so.
    pub(super) about: String,
    /// Its first line. It may quote what was sent, so that it is never told.
    pub(super) message: String,
}

impl Refused {
    fn of(status: &Status) -> Self {
        let message = status.message.lines().next().unwrap_or_default();
        Self {
            code: status.code,
            reason: status.reason.clone(),
            about: status.details.as_ref().map(|details| details.name.clone()).unwrap_or_default(),
            message: message.chars().take(300).collect(),
        }
    }

    /// What becomes of an attempt by it.
    pub(super) fn into_outcome(self) -> Outcome {
        Outcome::Failed(format!("the write was refused: {}", self.told()))
    }

    fn silent(message: String) -> Self {
        Self { code: 0, reason: String::new(), about: String::new(), message }
    }

    /// What may be said of it: a refusal may quote values, and those of a source may be a Secret's.
    pub(super) fn told(&self) -> String {
        match self.code {
            0 => self.message.clone(),
            code if self.reason.is_empty() => format!("HTTP status {code}"),
            code => format!("{} (HTTP status {code})", self.reason),
        }
    }

    /// Whether it was our own webhook that refused.
    pub(super) fn is_ours(&self) -> bool {
        let webhook =
            self.message.split_once(" denied the request: ").and_then(|(head, _)| head.split('"').nth(1));
        self.code == 403 && webhook.is_some_and(|webhook| webhook.ends_with(&format!(".{}", names::GROUP)))
    }
}

/// A dry run that our own webhook answers as it came.
pub(super) fn hash_query() -> String {
    format!("dryRun=All&fieldManager={}{}", names::HASH_FIELD_MANAGER_PREFIX, uuid::Uuid::now_v7().simple())
}

pub(super) fn patch_request(target: &Target, query: &str, patch: &[u8]) -> Result<Request<Vec<u8>>, Outcome> {
    let path = format!("{}?{query}", target.url_path());
    request(Method::PATCH, &path, Some("application/json-patch+json"), patch.to_vec())
}

pub(super) fn create_request(
    target: &Target,
    query: &str,
    object: &[u8],
) -> Result<Request<Vec<u8>>, Outcome> {
    let path = target.url_path();
    let list = path.rsplit_once('/').map_or("", |(list, _)| list);
    request(Method::POST, &format!("{list}?{query}"), Some("application/json"), object.to_vec())
}

pub(super) fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, Outcome> {
    let mut request =
        Request::builder().method(method).uri(path).header(http::header::ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    request.body(body).map_err(|error| Outcome::Failed(format!("no request can be made of {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_first_line_and_ours_by_the_name_of_the_webhook() {
        let of = |message: &str| Refused { code: 403, ..Refused::silent(message.to_owned()) };
        assert!(
            of(r#"admission webhook "see-x.terrafusion.ai" denied the request: DriftGuard a/b"#).is_ours()
        );
        assert!(!of(r#"admission webhook "evil.example.com" denied the request: no"#).is_ours());
        assert!(!of("configmaps is forbidden: User \"x\" cannot patch").is_ours());
    }

    #[test]
    fn a_refusal_is_told_without_what_it_may_quote() {
        let quoting = Refused {
            code: 422,
            reason: "Invalid".into(),
            ..Refused::silent(r#"spec.image: Invalid value: "hunter2""#.into())
        };
        assert_eq!(quoting.told(), "Invalid (HTTP status 422)");
        assert_eq!(Refused::silent("no answer in time".into()).told(), "no answer in time");
    }

    #[test]
    fn an_object_is_made_in_the_list_of_its_kind() {
        let target = Target {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        let made =
            create_request(&target, "fieldManager=driftguard", b"{}").map(|made| made.uri().to_string());
        assert_eq!(
            made.ok().as_deref(),
            Some("/apis/apps/v1/namespaces/n/deployments?fieldManager=driftguard")
        );
    }
}
