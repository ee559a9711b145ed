//! What a guard costs in memory, in a process of its own: the resident set is what a cluster pays for.
//!
//! The guards come from a scripted API server, first without a status and then with the one that the
//! controller writes, while somebody holds on to the first snapshot as the writer of statuses does.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftguard::audit::watch::{WatchSettings, Watches};
use driftguard::core::audit::sight::Sight;
use driftguard::core::guard::{Enforcement, GuardState};
use driftguard::core::hash::ContentHash;
use driftguard::core::pause;
use driftguard::core::signature::SigningKey;
use driftguard::store::{Settings, Store};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How many guards there are.
const GUARDS: usize = 20_000;
/// How many stand in one namespace.
const IN_ONE: usize = 200;
/// The most that one may cost: some 1,430 bytes were measured, and allocators and page sizes differ.
const MOST: usize = 2_000;
/// The most that watching its target may add: some 70 bytes are meant, and room for what is on its way.
const MOST_WATCHED: usize = 250;

type Frames = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

fn name(number: usize) -> (String, String) {
    (format!("team-{:03}", number / IN_ONE), format!("settings-{number:06}"))
}

/// A guard as an API server sends it, at a revision of its own.
fn guard(number: usize, is_reported: bool) -> Value {
    let (namespace, name) = name(number);
    let approved =
        ContentHash::of(format!(r#"{{"settings": "{}"}}"#, "x".repeat(1_000)).as_bytes()).to_string();
    let condition = |of_type: &str, status: &str, reason: &str, message: String| {
        json!({"type": of_type, "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-01-05T09:30:00Z", "observedGeneration": 1})
    };
    let status = json!({
        "canonicalForm": "v1", "enforcement": "Deny", "observedGeneration": 1,
        "conditions": [
            condition("Ready", "True", "Guarding", format!("ConfigMap/{namespace}/{name} is guarded")),
            condition("Enforcing", "True", "Proved", "a dry run through every API server was answered by the admission server".to_owned()),
            condition("AuthorUnknown", "True", "NoValidSignature", format!(
                "enforced as it stands, but nothing is fetched or written for it: no valid signature says who approved it (made while the admission server did not answer, restored from elsewhere, or the key was lost); look at it, then `driftguard adopt -n {namespace} {name}`"
            )),
        ],
    });
    let managed = json!([{"manager": "driftguard", "operation": "Apply", "subresource": "status",
        "apiVersion": "terrafusion.ai/v1", "time": "2026-01-05T09:30:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:canonicalForm": {}, "f:enforcement": {}, "f:observedGeneration": {}, "f:conditions": {}}}}]);
    let mut guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {
            "name": name, "namespace": namespace, "generation": 1,
            "uid": format!("00000000-0000-4000-8000-{number:012}"),
            "resourceVersion": (1_000_000 + number + if is_reported { GUARDS } else { 0 }).to_string(),
            "creationTimestamp": "2026-01-05T09:30:00Z",
        },
        "spec": {
            "targetKind": "ConfigMap", "targetName": name, "autoRemediate": false,
            "deletionPolicy": "Allow", "maxFailuresBeforeAlert": 3,
            "expectedHash": approved,
        },
    });
    if is_reported {
        guard["status"] = status;
        guard["metadata"]["managedFields"] = managed;
    }
    guard
}

fn event(word: &str, object: &Value) -> Result<Frame<Bytes>, Infallible> {
    // In the order in which API servers write.
    Ok(Frame::data(format!("{{\"type\":\"{word}\",\"object\":{object}}}\n").into()))
}

/// All guards; once `report` is true, all of them with a status; and then nothing more.
fn guards(mut report: watch::Receiver<bool>) -> Frames {
    let end = json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {
        "resourceVersion": "1000000", "annotations": {"k8s.io/initial-events-end": "true"}}});
    let first = stream::iter(0..GUARDS).map(|number| event("ADDED", &guard(number, false)));
    let told = stream::once(async move {
        report.wait_for(|report| *report).await.unwrap();
        event(
            "BOOKMARK",
            &json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"resourceVersion": "1000001"}}),
        )
    });
    let second = stream::iter(0..GUARDS).map(|number| event("MODIFIED", &guard(number, true)));
    let end = stream::once(async move { event("BOOKMARK", &end) });
    first.chain(end).chain(told).chain(second).chain(stream::pending()).boxed()
}

/// The ConfigMaps of a namespace, as a watch that begins with what there is.
fn config_maps(namespace: &str) -> Frames {
    let first = namespace.strip_prefix("team-").unwrap().parse::<usize>().unwrap() * IN_ONE;
    // One at a time: what the scripted server holds is of this process, too.
    let objects = (first..first + IN_ONE).map(move |number| {
        let (namespace, name) = name(number);
        event(
            "ADDED",
            &json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": number.to_string(),
                "uid": format!("00000000-0000-4000-9000-{number:012}")},
            "data": {"settings": "x".repeat(1_000)}}),
        )
    });
    let end = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "resourceVersion": "1000000", "annotations": {"k8s.io/initial-events-end": "true"}}});
    stream::iter(objects)
        .chain(stream::once(async move { event("BOOKMARK", &end) }))
        .chain(stream::pending())
        .boxed()
}

fn kinds() -> Value {
    json!({"apiVersion": "apidiscovery.k8s.io/v2", "kind": "APIGroupDiscoveryList", "metadata": {}, "items": [
        {"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": [
            {"resource": "configmaps", "responseKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
             "scope": "Namespaced", "singularResource": "configmap", "verbs": ["get", "list", "update"]}]}]}]})
}

fn client(report: &watch::Receiver<bool>) -> kube::Client {
    let report = report.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let report = report.clone();
        async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let is_watch = query.contains("watch=true") || query.contains("watch=1");
            let one = |value: Value| -> Frames {
                stream::iter([Ok(Frame::data(value.to_string().into()))]).boxed()
            };
            let frames = match path {
                "/apis/terrafusion.ai/v1/driftguards" => guards(report),
                _ if path.ends_with("/configmaps") => config_maps(path.split('/').nth(4).unwrap()),
                _ if is_watch => stream::pending().boxed(),
                "/api" => one(kinds()),
                "/apis" => one(json!({"apiVersion": "apidiscovery.k8s.io/v2",
                    "kind": "APIGroupDiscoveryList", "metadata": {}, "items": []})),
                _ => one(
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}),
                ),
            };
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        }
    });
    kube::Client::new(service, "default")
}

/// Resident bytes of this process, without those of its program file.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_costs_little_memory_with_or_without_a_status() {
    let (report, reported) = watch::channel(false);
    let settings = Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "terrafusion-system".into(),
        longest_pause: pause::LONGEST,
    };
    let key = SigningKey::new(&[7; 32]);
    let (store, running) = Store::verifying(client(&reported), settings, watch::channel(key).1);
    let before = resident();
    let running = tokio::spawn(running);
    store.synced().await;
    let mut observations = store.observations();
    let first = Arc::clone(&observations.borrow_and_update());
    assert_eq!(first.guards.len(), GUARDS);
    let listed = resident();
    report.send_replace(true);
    let last = (1_000_000 + 2 * GUARDS - 1) as u64;
    let seen = Arc::clone(&*observations.wait_for(|seen| seen.revision == last).await.unwrap());
    assert!(matches!(seen.guards[0].state, GuardState::Valid(_)));
    assert_eq!(seen.version, first.version, "a status changes nothing that decides");
    let after = resident();
    let each = |now: usize| now.saturating_sub(before) / GUARDS;
    eprintln!("{} bytes a guard when listed, {} when reported", each(listed), each(after));
    assert!(each(after) <= MOST, "a guard takes {} bytes, more than {MOST}", each(after));
    let settings =
        WatchSettings { audit_interval: Duration::from_secs(600), installed: "terrafusion-system".into() };
    let (watches, mut news) = Watches::new(client(&reported), store, settings, Arc::default());
    let watching = tokio::spawn(watches.run());
    let began = Instant::now();
    for _ in 0..GUARDS {
        let told = news.recv().await.unwrap();
        assert!(matches!(told.sight, Sight::Present(_)), "{told:?}");
    }
    let took = began.elapsed();
    let watched = resident().saturating_sub(after) / GUARDS;
    eprintln!("{watched} bytes more when watched; {took:?} to look at all");
    assert!(watched <= MOST_WATCHED, "watching takes {watched} bytes a guard, more than {MOST_WATCHED}");
    watching.abort();
    running.abort();
}
