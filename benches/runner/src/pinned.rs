//! ConfigMaps of 2 KiB that are to be put back: made through the API server, so that it is known who approved
//! their guards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard_control_plane::guardian::Process;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::content::{self, Shape};
use crate::size::Size;

/// Requests under way at once while objects are made.
const AT_ONCE: usize = 8;
/// How long all guards may take until they are enforced and looked at.
const SETTLE: Duration = Duration::from_secs(600);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_secs(2);
/// Name of the ConfigMap that is a source.
const SOURCE: &str = "approved";

/// Where a guard's approved content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// What was seen live, as the floor has it.
    LastKnownGood,
    /// A ConfigMap beside it.
    ConfigMap,
}

/// What all of them hold.
pub(crate) fn approved() -> BTreeMap<String, String> {
    content::files(&Shape::MIX, Size::ALL[0].bytes()).into_iter().collect()
}

/// Makes ConfigMaps of these names.
pub(crate) async fn make(
    client: &kube::Client,
    namespace: &str,
    names: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    let data = approved();
    let objects = names.map(|name| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
            "data": data,
        })
    });
    create(client, &format!("/api/v1/namespaces/{namespace}/configmaps"), objects).await
}

/// Makes the ConfigMap that is the source of a namespace.
pub(crate) async fn make_source(client: &kube::Client, namespace: &str) -> anyhow::Result<()> {
    make(client, namespace, std::iter::once(SOURCE.to_owned())).await
}

/// Guards the ConfigMaps of these names, to be put back.
pub(crate) async fn guard(
    client: &kube::Client,
    namespace: &str,
    guarded: impl Iterator<Item = (String, From)>,
) -> anyhow::Result<()> {
    let scope = Scope::new("", "ConfigMap", PathFilter::everything());
    let hash = hash_object(&serde_json::to_vec(&json!({"data": approved()}))?, &scope)?.to_string();
    let guards = guarded.map(|(name, from)| {
        let mut guard = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "targetKind": "ConfigMap", "targetName": name, "expectedHash": hash, "autoRemediate": true,
            },
        });
        if from == From::ConfigMap {
            guard["spec"]["sourceOfTruthRef"] = json!({"kind": "configmap", "name": SOURCE});
        }
        guard
    });
    create(client, &format!("/apis/terrafusion.ai/v1/namespaces/{namespace}/driftguards"), guards).await
}

async fn create(
    client: &kube::Client,
    path: &str,
    objects: impl Iterator<Item = Value>,
) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut made = JoinSet::new();
    for object in objects {
        let turn = Arc::clone(&room).acquire_owned().await?;
        let request = Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(object.to_string().into_bytes())?;
        let client = client.clone();
        made.spawn(async move {
            let _turn = turn;
            client.request_text(request).await.map(drop)
        });
    }
    while let Some(one) = made.join_next().await {
        one?.with_context(|| format!("making an object at {path}"))?;
    }
    Ok(())
}

/// All guards of a namespace.
pub(crate) async fn guards(client: &kube::Client, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/apis/terrafusion.ai/v1/namespaces/{namespace}/driftguards");
    let mut listed: Value = client.request(Request::get(path).body(Vec::new())?).await?;
    Ok(listed["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// Waits until so many guards are enforced and in sync.
pub(crate) async fn wait_in_sync(
    client: &kube::Client,
    namespace: &str,
    count: usize,
    serve: &Process,
) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + SETTLE;
    loop {
        let guards = guards(client, namespace).await?;
        let says = |guard: &Value, of_type: &str, status: &str| {
            let conditions = guard["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|it| it["type"] == of_type && it["status"] == status))
        };
        let is_ready = |guard: &&Value| says(guard, "Enforcing", "True") && says(guard, "Drifted", "False");
        let ready = guards.iter().filter(is_ready).count();
        if ready == count {
            return Ok(());
        }
        let tail = || serve.log_tail();
        ensure!(
            std::time::Instant::now() < deadline,
            "{ready} of {count} guards are enforced and in sync; {}",
            tail()
        );
        ensure!(serve.exit_code().is_none(), "serve has ended; {}", tail());
        tokio::time::sleep(GLANCE).await;
    }
}
