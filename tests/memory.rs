//! What a guard costs in memory, in a process of its own: the resident set is what a cluster pays for.
//!
//! The guards come from a scripted API server, first without a status and then with the one that the
//! controller writes. Then the auditor looks at their targets, which are as approved.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::convert::Infallible;
use std::fs;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftguard::audit::watch::{WatchSettings, Watches};
use driftguard::core::audit::book::{self, Book, Context, Step, Terms};
use driftguard::core::author::{self, Approved};
use driftguard::core::guard::{Author, Authorship, Enforcement, GuardState, Signer};
use driftguard::core::hash::ContentHash;
use driftguard::core::pause;
use driftguard::core::signature::{KEY_LENGTH, SigningKey};
use driftguard::store::{self, Settings, Store};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

/// How many guards there are.
const GUARDS: usize = 20_000;
/// How many stand in one namespace.
const IN_ONE: usize = 200;
/// The most that one may cost: some 1,110 bytes were measured, and allocators and page sizes differ.
const MOST: usize = 1_400;
/// The most that the auditor may add, which watches its target and has found it as approved: some 130 bytes are meant, and
/// room for what is on its way, of a hundred watches and of the scripted server.
const MOST_AUDITED: usize = 400;
/// What has not come by then never comes.
const DEADLINE: Duration = Duration::from_secs(300);
/// When the targets are looked at.
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

type Frames = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

fn name(number: usize) -> (String, String) {
    (format!("team-{:03}", number / IN_ONE), format!("settings-{number:06}"))
}

/// The key by which authors are verified.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::new(&[7; KEY_LENGTH]).unwrap());

/// Whoever approved all guards.
fn author() -> Author {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:argocd", "system:authenticated"];
    let user = "system:serviceaccount:argocd:argocd-application-controller".to_owned();
    let signer = Signer { user, groups: groups.map(str::to_owned).into() };
    Author { signer: Arc::new(signer), at: NOW }
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
        ],
    });
    let managed = json!([{"manager": "driftguard", "operation": "Apply", "subresource": "status",
        "apiVersion": "terrafusion.ai/v1", "time": "2026-01-05T09:30:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:canonicalForm": {}, "f:enforcement": {}, "f:observedGeneration": {}, "f:conditions": {}}}}]);
    let spec = json!({
        "targetKind": "ConfigMap", "targetName": name, "autoRemediate": false,
        "deletionPolicy": "Allow", "maxFailuresBeforeAlert": 3,
        "expectedHash": approved,
    });
    let mut guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {
            "name": name, "namespace": namespace, "generation": 1,
            "uid": format!("00000000-0000-4000-8000-{number:012}"),
            "resourceVersion": (1_000_000 + number + if is_reported { GUARDS } else { 0 }).to_string(),
            "creationTimestamp": "2026-01-05T09:30:00Z",
        },
        "spec": spec,
    });
    let text = spec.to_string();
    let approved = Approved { namespace: &namespace, name: &name, spec: text.as_bytes() };
    let annotation = author::sign(&KEY, approved, &author()).unwrap();
    guard["metadata"]["annotations"] = json!({"driftguard.terrafusion.ai/author": annotation});
    guard["metadata"]["labels"] = json!({
        "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/part-of": namespace,
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

/// What the auditor knows beside a look.
fn context() -> Context<'static> {
    Context {
        enforcing_since: None,
        built_in: true,
        server_version: "v1.37.2",
        audit_interval: Duration::from_secs(600),
        apply_grace: Duration::from_secs(300),
        pause_ended: None,
        conflict: false,
        namespace_terminating: false,
        being_replaced: false,
        missed: false,
        read_before: None,
        remembered: None,
    }
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
    let key = watch::channel(Some(KEY.clone())).1;
    let (store, running) = Store::verifying(client(&reported), settings, key);
    let before = resident();
    let running = tokio::spawn(store::apart(running));
    timeout(DEADLINE, store.synced()).await.unwrap();
    let mut observations = store.observations();
    let version = {
        // Nobody holds a snapshot for long: not the writer of statuses either.
        let first = observations.borrow_and_update();
        assert_eq!(first.guards.len(), GUARDS);
        first.version
    };
    let listed = resident();
    report.send_replace(true);
    let last = (1_000_000 + 2 * GUARDS - 1) as u64;
    let seen = timeout(DEADLINE, observations.wait_for(|seen| seen.revision == last)).await.unwrap();
    let seen = Arc::clone(&*seen.unwrap());
    let GuardState::Valid(guard) = &seen.guards[0].state else { panic!("{:?}", seen.guards[0].state) };
    assert_eq!(guard.authorship, Authorship::Signed(Arc::new(author())));
    assert_eq!(seen.version, version, "a status changes nothing that decides");
    let after = resident();
    let each = |now: usize| now.saturating_sub(before) / GUARDS;
    eprintln!("{} bytes a guard when listed, {} when reported", each(listed), each(after));
    assert!(each(after) <= MOST, "a guard takes {} bytes, more than {MOST}", each(after));
    let settings =
        WatchSettings { audit_interval: Duration::from_secs(600), installed: "terrafusion-system".into() };
    let (watches, mut news) = Watches::new(client(&reported), store, settings, Arc::default());
    let watching = tokio::spawn(watches.run());
    let mut book = Book::new(book::Settings { remediation: true, limits: book::Limits::default() });
    let began = Instant::now();
    for _ in 0..GUARDS {
        let told = timeout(DEADLINE, news.recv()).await.unwrap().unwrap();
        let look = book::Seen {
            sight: &told.sight,
            look: told.how,
            details: None,
            terms: Terms { auto_remediate: false, max_failures_before_alert: 3 },
            context: &context(),
        };
        let steps = book.see(&told.of, &look, NOW, &mut String::new);
        let [Step::Report(report)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(report.hash_match, Some(true), "{report:?}");
    }
    let took = began.elapsed();
    assert_eq!(book.open(), 0, "nothing is open about a guard that is in sync");
    let audited = resident().saturating_sub(after) / GUARDS;
    eprintln!("{audited} bytes more when audited, {} in all; {took:?} to look at all", each(resident()));
    assert!(audited <= MOST_AUDITED, "auditing takes {audited} bytes a guard, more than {MOST_AUDITED}");
    watching.abort();
    running.abort();
}
