//! `Enforcing` is proved, not assumed (DESIGN 4.11).
//!
//! A dry-run PATCH `{}` of one existing target, with a nonce as field manager, goes through an API
//! server like any other write. Reviews in flight prove nothing, but the warning that our own
//! webhook puts into the answer does: it names the nonce, the replica that answered, and the
//! generation in the path through which the API server called it. The dry run changes nothing, and
//! works on immutable and terminating objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use kube::api::GetParams;
use kube::client::Body;
use tokio::time::Instant;

use crate::api::names;
use crate::core::guard::Target;
use crate::core::judge::PROOF_FIELD_MANAGER;
use crate::core::verdict::{self, Held, Statement};

use super::warning;
use super::webhooks::Configuration as _;

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
    /// This target cannot be patched, or not by us.
    Unusable,
    /// The dry run of this target failed, which may be the target's own fault: an object that cannot be
    /// decoded, a webhook of somebody else that fails.
    Failed {
        /// What happened.
        how: String,
    },
}

/// Why a dry run showed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The request could not be made.
    #[error(
        "API server {address} cannot be asked whether it enforces: {cause}; name those that can be reached with --api-server-endpoint"
    )]
    Unsent {
        /// The API server.
        address: String,
        /// Why.
        cause: String,
    },
    /// The API server answered with an error of its own.
    #[error("API server {address} answered a dry run with {how}")]
    Refused {
        /// The API server.
        address: String,
        /// HTTP status, or that there was none.
        how: String,
    },
}

/// The texts of the warnings that answer a proof: who answers, then what guards say of the content.
#[must_use]
pub fn warnings(proof: &verdict::Proof, replica: &str, generation: u64) -> Vec<String> {
    let answers = format!("{PROOF_FIELD_MANAGER}{}", proof.nonce);
    let mut texts = vec![format!("{answers} replica={replica} generation={generation}")];
    texts.extend(proof.statements.iter().map(|said| {
        let (guard, generation) = (&said.guard_uid, said.guard_generation);
        let held = match said.held {
            Held::Approved => APPROVED.to_owned(),
            Held::Equivalent(hash) => format!("{EQUIVALENT}{hash}"),
            Held::NotApproved => NOT_APPROVED.to_owned(),
        };
        format!("{answers} guard={guard} generation={generation} content={held}")
    }));
    texts
}

/// What content is, in the words of a warning; after the second its hash follows.
const APPROVED: &str = "approved";
const EQUIVALENT: &str = "equivalent:sha256:";
const NOT_APPROVED: &str = "not-approved";

/// What a text of [`warnings`] says after the nonce.
fn after<'t>(text: &'t str, nonce: &str) -> Option<&'t str> {
    text.strip_prefix(PROOF_FIELD_MANAGER)?.strip_prefix(nonce)?.strip_prefix(' ')
}

/// Who answers, if a text says that.
fn read_answer(text: &str, nonce: &str) -> Option<Answer> {
    let (replica, generation) = after(text, nonce)?.strip_prefix("replica=")?.split_once(" generation=")?;
    Some(Answer { replica: replica.to_owned(), generation: generation.parse().ok()? })
}

/// Reads a statement out of the text of a warning that answers the dry run of `nonce`. A text that was cut is none.
#[must_use]
pub fn read_statement(text: &str, nonce: &str) -> Option<Statement> {
    let (guard, rest) = after(text, nonce)?.strip_prefix("guard=")?.split_once(" generation=")?;
    let (generation, content) = rest.split_once(" content=")?;
    let held = match content {
        APPROVED => Held::Approved,
        NOT_APPROVED => Held::NotApproved,
        other => Held::Equivalent(other.strip_prefix(EQUIVALENT)?.parse().ok()?),
    };
    Some(Statement { guard_uid: guard.to_owned(), guard_generation: generation.parse().ok()?, held })
}

/// The dry run by which is asked: a patch that changes nothing. `nonce` is letters, digits and dashes, new for each
/// call.
///
/// # Errors
/// When the names of the target make no URL.
pub fn request(target: &Target, nonce: &str) -> Result<http::Request<Vec<u8>>, http::Error> {
    let uri = format!("{}?dryRun=All&fieldManager={PROOF_FIELD_MANAGER}{nonce}", target.url_path());
    http::Request::patch(uri)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .header(
            http::header::ACCEPT,
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
        )
        .body(b"{}".to_vec())
}

/// Sends one dry run through `endpoint`. `nonce` is letters, digits and dashes, new for each call.
///
/// # Errors
/// [`ProofError`] when the API server cannot be asked or fails for reasons of its own.
pub async fn ask(endpoint: &Endpoint, target: &Target, nonce: &str) -> Result<Outcome, ProofError> {
    let unsent = |cause: String| ProofError::Unsent { address: endpoint.address.clone(), cause };
    let request = request(target, nonce).map_err(|error| unsent(error.to_string()))?.map(Body::from);
    let Ok(sent) = tokio::time::timeout(TRY_TIMEOUT, endpoint.client.send(request)).await else {
        return Ok(Outcome::Failed { how: format!("nothing within {} s", TRY_TIMEOUT.as_secs()) });
    };
    let response = sent.map_err(|error| unsent(error.to_string()))?;
    let warnings = warning::of(response.headers());
    let answer = warnings.texts.iter().find_map(|text| read_answer(text, nonce));
    // An answer of ours counts whatever became of the write: an immutable target is a 422.
    match (answer, response.status()) {
        (Some(answer), _) => Ok(Outcome::Answered(answer)),
        (None, status) if status.is_success() => Ok(Outcome::NotReached),
        (None, http::StatusCode::NOT_FOUND) => Ok(Outcome::NoSuchTarget),
        // What cannot be patched at all proves nothing either, and another target may.
        (
            None,
            http::StatusCode::FORBIDDEN
            | http::StatusCode::METHOD_NOT_ALLOWED
            | http::StatusCode::UNSUPPORTED_MEDIA_TYPE
            | http::StatusCode::UNPROCESSABLE_ENTITY,
        ) => Ok(Outcome::Unusable),
        // Nothing that is wrong with a target makes an API server say that it has too much to do.
        (None, status @ (http::StatusCode::TOO_MANY_REQUESTS | http::StatusCode::SERVICE_UNAVAILABLE)) => {
            Err(ProofError::Refused { address: endpoint.address.clone(), how: words(status) })
        }
        (None, status) => Ok(Outcome::Failed { how: words(status) }),
    }
}

fn words(status: http::StatusCode) -> String {
    format!("{}: {}", status.as_u16(), status.canonical_reason().unwrap_or("no reason given"))
}

/// What proofs through all API servers came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Every API server calls us for this generation.
    Proved {
        /// The target by which the last of them showed it.
        by: Target,
    },
    /// No target exists or may be patched, so that what every API server has read was compared instead.
    Compared,
    /// At least one API server does not call us for this generation yet.
    NotYet {
        /// Which, and what it did instead.
        what: String,
    },
}

/// Most targets that are tried before it counts as nothing to ask.
const MAX_TARGETS: usize = 32;
/// After so long no further target is tried: dry runs that hang must not hold up everything else.
const PATIENCE: Duration = Duration::from_secs(20);

/// The targets in the order in which they are tried: first the one that `worked` before, then of each
/// namespace that guards stand in one by turns, so that the guards of one namespace cannot keep the
/// others' from being proved. `candidates` are those namespaces and targets.
pub(super) fn in_turn<'a>(
    candidates: impl Iterator<Item = (&'a str, &'a Target)>,
    worked: Option<&Target>,
) -> Vec<&'a Target> {
    let mut first = None;
    let mut queues: BTreeMap<&str, VecDeque<&Target>> = BTreeMap::new();
    for (namespace, target) in candidates {
        if worked == Some(target) {
            first = Some(target);
        }
        queues.entry(namespace).or_default().push_back(target);
    }
    let mut order: Vec<&Target> = first.into_iter().collect();
    // Two guards may have the same target.
    let mut known: BTreeSet<&Target> = order.iter().copied().collect();
    while order.len() < MAX_TARGETS && !queues.is_empty() {
        queues.retain(|_, queue| {
            let next = std::iter::from_fn(|| queue.pop_front()).find(|target| known.insert(target));
            order.extend(next);
            next.is_some()
        });
    }
    order.truncate(MAX_TARGETS);
    order
}

/// Asks every API server once, through the first of `targets` by which it can be told.
///
/// A target that is missing, that may not be patched or whose dry run fails tells nothing, and the next
/// one is tried. When all are missing or may not be patched, the rules are compared; when the dry run of
/// one failed, that was perhaps for want of an answer of ours, and nothing is concluded.
///
/// # Errors
/// The first [`ProofError`].
pub async fn prove(
    endpoints: &[Endpoint],
    targets: &[&Target],
    generation: u64,
    mut nonce: impl FnMut() -> String,
) -> Result<Proof, ProofError> {
    let targets = &targets[..targets.len().min(MAX_TARGETS)];
    let mut passed_over = 0;
    let mut failure = None;
    let mut by = None;
    let until = Instant::now() + PATIENCE;
    for endpoint in endpoints {
        loop {
            let Some(target) = targets.get(passed_over).filter(|_| Instant::now() < until) else {
                return match failure {
                    Some(failure) => Err(failure),
                    None => compare(endpoints, generation).await,
                };
            };
            match ask(endpoint, target, &nonce()).await? {
                Outcome::NoSuchTarget | Outcome::Unusable => passed_over += 1,
                Outcome::Failed { how } => {
                    let address = endpoint.address.clone();
                    tracing::debug!(address, how, %target, "the dry run of a target failed; trying another one");
                    failure.get_or_insert(ProofError::Refused { address, how });
                    passed_over += 1;
                }
                Outcome::Answered(answer) if answer.generation >= generation => {
                    by = Some(*target);
                    break;
                }
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
    match by {
        Some(by) => Ok(Proof::Proved { by: by.clone() }),
        // There is no API server to ask.
        None => compare(endpoints, generation).await,
    }
}

/// Asks every API server which generation its cache holds, which is where its webhooks come from.
async fn compare(endpoints: &[Endpoint], generation: u64) -> Result<Proof, ProofError> {
    for endpoint in endpoints {
        let unsent = |cause: String| ProofError::Unsent { address: endpoint.address.clone(), cause };
        let api: Api<ValidatingWebhookConfiguration> = Api::all(endpoint.client.clone());
        let from_cache = GetParams::any();
        let read = api.get_with(names::WEBHOOK_CONFIGURATION, &from_cache);
        let held = match tokio::time::timeout(TRY_TIMEOUT, read).await {
            Ok(Ok(configuration)) => configuration.generation(),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => 0,
            Ok(Err(error)) => return Err(unsent(error.to_string())),
            Err(_) => return Err(unsent(format!("no answer within {} s", TRY_TIMEOUT.as_secs()))),
        };
        if held < generation {
            let what =
                format!("API server {} has read only generation {held} of the rules", endpoint.address);
            return Ok(Proof::NotYet { what });
        }
    }
    Ok(Proof::Compared)
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
