//! `Enforcing` is proved, not assumed (DESIGN 4.11).
//!
//! A dry-run PATCH `{}` of one existing target, with a nonce as field manager, goes through an API
//! server like any other write. Reviews in flight prove nothing, but the warning that our own
//! webhook puts into the answer does: it names the nonce, the replica that answered, and the
//! generation in the path through which the API server called it. The dry run changes nothing, and
//! works on immutable and terminating objects.

use std::time::Duration;

use kube::client::Body;

use crate::core::guard::Target;
use crate::core::judge::PROOF_FIELD_MANAGER;

/// Longest a single dry run may take: the API server waits 5 s for a webhook.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// An API server through which proofs are made.
#[derive(Clone)]
pub struct Endpoint {
    /// Its address, for messages.
    pub address: String,
    /// A client that talks to exactly this server.
    pub client: kube::Client,
}

/// Who answered a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The replica that answered.
    pub replica: String,
    /// The generation of the configuration through which it was called.
    pub generation: u64,
}

/// What a dry run of one target showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Our webhook answered.
    Answered(Answer),
    /// The write went through without reaching us.
    NotReached,
    /// This target does not exist; another one may.
    NoSuchTarget,
    /// We may not patch this target.
    Forbidden,
}

/// Why a dry run showed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The request could not be made.
    #[error("cannot send a dry run to API server {address}: {cause}")]
    Unsent {
        /// The API server.
        address: String,
        /// Why.
        cause: String,
    },
    /// The API server answered with an error of its own.
    #[error("API server {address} answered a dry run with {status}: {message}")]
    Refused {
        /// The API server.
        address: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

/// The text of the warning that answers a proof.
#[must_use]
pub fn warning(nonce: &str, replica: &str, generation: u64) -> String {
    format!("{PROOF_FIELD_MANAGER}{nonce} replica={replica} generation={generation}")
}

/// Reads [`warning`] out of a `Warning` header, `299 - "text"`.
#[must_use]
fn read_warning(header: &str, nonce: &str) -> Option<Answer> {
    let text = header.split('"').nth(1)?.strip_prefix(PROOF_FIELD_MANAGER)?.strip_prefix(nonce)?;
    let (replica, generation) = text.strip_prefix(" replica=")?.split_once(" generation=")?;
    Some(Answer { replica: replica.to_owned(), generation: generation.parse().ok()? })
}

/// Path of a target's URL.
fn path(target: &Target) -> String {
    let root = if target.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", target.group) };
    let within = target.namespace.as_ref().map(|ns| format!("/namespaces/{ns}")).unwrap_or_default();
    format!("{root}/{}{within}/{}/{}", target.version, target.resource, target.name)
}

/// Sends one dry run through `endpoint`. `nonce` is letters, digits and dashes, new for each call.
///
/// # Errors
/// [`ProofError`] when the API server cannot be asked or fails for reasons of its own.
pub async fn ask(endpoint: &Endpoint, target: &Target, nonce: &str) -> Result<Outcome, ProofError> {
    let unsent = |cause: String| ProofError::Unsent { address: endpoint.address.clone(), cause };
    let uri = format!("{}?dryRun=All&fieldManager={PROOF_FIELD_MANAGER}{nonce}", path(target));
    let request = http::Request::patch(uri)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .header(
            http::header::ACCEPT,
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
        )
        .body(Body::from(b"{}".to_vec()))
        .map_err(|error| unsent(error.to_string()))?;
    let response = tokio::time::timeout(TRY_TIMEOUT, endpoint.client.send(request))
        .await
        .map_err(|_| unsent(format!("no answer within {} s", TRY_TIMEOUT.as_secs())))?
        .map_err(|error| unsent(error.to_string()))?;
    let warnings = response.headers().get_all(http::header::WARNING);
    let answer = warnings.iter().find_map(|header| read_warning(header.to_str().ok()?, nonce));
    // An answer of ours counts whatever became of the write: an immutable target is a 422.
    match (answer, response.status()) {
        (Some(answer), _) => Ok(Outcome::Answered(answer)),
        (None, status) if status.is_success() => Ok(Outcome::NotReached),
        (None, http::StatusCode::NOT_FOUND) => Ok(Outcome::NoSuchTarget),
        (None, http::StatusCode::FORBIDDEN) => Ok(Outcome::Forbidden),
        (None, status) => Err(ProofError::Refused {
            address: endpoint.address.clone(),
            status: status.as_u16(),
            message: status.canonical_reason().unwrap_or("no reason given").to_owned(),
        }),
    }
}

/// What proofs through all API servers came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Every API server calls us for this generation.
    Proved,
    /// Nothing can be asked: no target exists, or none may be patched.
    NothingToAsk,
    /// At least one API server does not call us for this generation yet.
    NotYet {
        /// Which, and what it did instead.
        what: String,
    },
}

/// Most targets that are tried before it counts as nothing to ask.
const MAX_TARGETS: usize = 32;

/// Asks every API server once, through the first of `targets` that exists and may be patched.
///
/// # Errors
/// The first [`ProofError`].
pub async fn prove(
    endpoints: &[Endpoint],
    targets: &[&Target],
    generation: u64,
    mut nonce: impl FnMut() -> String,
) -> Result<Proof, ProofError> {
    let mut usable = 0;
    for endpoint in endpoints {
        loop {
            let Some(target) = targets.get(usable).filter(|_| usable < MAX_TARGETS) else {
                return Ok(Proof::NothingToAsk);
            };
            match ask(endpoint, target, &nonce()).await? {
                Outcome::NoSuchTarget | Outcome::Forbidden => usable += 1,
                Outcome::Answered(answer) if answer.generation >= generation => break,
                Outcome::Answered(answer) => {
                    let what = format!(
                        "API server {} still calls generation {}",
                        endpoint.address, answer.generation
                    );
                    return Ok(Proof::NotYet { what });
                }
                Outcome::NotReached => {
                    let what = format!("a write through API server {} did not reach us", endpoint.address);
                    return Ok(Proof::NotYet { what });
                }
            }
        }
    }
    Ok(Proof::Proved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_that_is_sent_is_the_one_that_is_read() {
        let header = format!("299 - \"{}\"", warning("a1-b2", "driftguard-0", 17));
        let answer = Answer { replica: "driftguard-0".into(), generation: 17 };
        assert_eq!(read_warning(&header, "a1-b2"), Some(answer));
        assert_eq!(read_warning(&header, "a1-b"), None, "another nonce is no answer");
        assert_eq!(read_warning("299 - \"some other warning\"", "a1-b2"), None);
        assert_eq!(read_warning("nonsense", "a1-b2"), None);
    }

    #[test]
    fn paths_follow_group_and_scope() {
        let mut target = Target {
            group: String::new(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        assert_eq!(path(&target), "/api/v1/namespaces/n/configmaps/x");
        target.group = "apps".into();
        target.namespace = None;
        assert_eq!(path(&target), "/apis/apps/v1/configmaps/x");
    }
}
