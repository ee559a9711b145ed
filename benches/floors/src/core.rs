//! The decision of DriftGuard without its server: what lies between this and `driftguard serve` is
//! what serving costs beyond the stack, what lies between the no-op and this is what deciding costs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use driftguard::core::canonical::hash_object;
use driftguard::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use driftguard::core::index::Index;
use driftguard::core::judge::judge;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard::core::verdict::Verdict;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{body, response};

/// Answers on every path; a guard pins the object of each given review at its new content.
pub(crate) fn router(approved: &[PathBuf]) -> anyhow::Result<Router> {
    let mut guards = Vec::new();
    for file in approved {
        let body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        guards.push(GuardState::Valid(Arc::new(guard(&body)?)));
    }
    Ok(Router::new().fallback(post(decide)).with_state(Arc::new(Index::build(guards))))
}

async fn decide(State(index): State<Arc<Index>>, request: Request) -> Response {
    let Some(body) = body::read(request).await else { return response::not_a_review() };
    let Ok(now) = SystemTime::now().try_into() else { return response::failed("no time") };
    match judge(&body, &index, now) {
        Ok(judgement) => match judgement.verdict {
            Verdict::Allow => response::allow(&judgement.uid),
            _ => response::deny(&judgement.uid),
        },
        Err(_) => response::not_a_review(),
    }
}

fn guard(review: &[u8]) -> anyhow::Result<Guard> {
    let review: std::collections::HashMap<String, &RawValue> = serde_json::from_slice(review)?;
    let request: std::collections::HashMap<String, &RawValue> =
        serde_json::from_str(review.get("request").context("no request")?.get())?;
    let object = request.get("object").context("no object")?.get();
    let metadata = &serde_json::from_str::<Value>(object)?["metadata"];
    let text = |name: &str| metadata[name].as_str().map(Into::into);
    let scope = Scope::new("", "ConfigMap", PathFilter::everything());
    let target = Target {
        group: "".into(),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        resource: "configmaps".into(),
        namespace: text("namespace"),
        name: text("name").context("no name")?,
    };
    Ok(Guard {
        id: GuardId { namespace: text("namespace").unwrap_or_default(), name: target.name.clone() },
        uid: "".into(),
        generation: 1,
        expected: hash_object(object.as_bytes(), &scope)?,
        target,
        scope,
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    })
}
