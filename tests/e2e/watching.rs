//! What the store sees of a real cluster: guards, kinds, live reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use driftguard::core::guard::{Enforcement, GuardState};
use driftguard::store::{Key, Observation, Settings, Store};
use driftguard_control_plane::{ControlPlane, User, Version};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::installation::LIMIT;

const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// A control plane with the CRDs, and a store on it.
struct Watching {
    plane: ControlPlane,
    admin: User,
    store: Store,
    observations: watch::Receiver<Arc<Observation>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watching {
    async fn start(version: Version) -> Self {
        let plane =
            tokio::task::block_in_place(|| ControlPlane::builder().kubernetes(version).start()).unwrap();
        let admin = plane.admin().unwrap();
        for crd in driftguard::manifests::crds().unwrap() {
            apply(&admin, &json!(crd.object));
        }
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        admin.kubectl(&wait).unwrap().success().unwrap();
        let settings = Settings {
            default_enforcement: Enforcement::Deny,
            own_namespace: "terrafusion-system".into(),
            longest_pause: driftguard::core::pause::LONGEST,
        };
        let (store, running) = Store::new(admin.client().unwrap(), settings);
        let task = tokio::spawn(running);
        tokio::time::timeout(LIMIT, store.synced()).await.expect("the store syncs");
        let observations = store.observations();
        Self { plane, admin, store, observations, task }
    }

    fn apply(&self, object: &Value) {
        apply(&self.admin, object);
    }

    /// Waits until an observation is as `wanted`.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Observation) -> bool) -> Arc<Observation> {
        let seen = tokio::time::timeout(LIMIT, self.observations.wait_for(|seen| wanted(seen))).await;
        let seen = seen.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"));
        Arc::clone(&seen.unwrap())
    }
}

fn apply(admin: &User, object: &Value) {
    let arguments = ["apply", "--server-side", "-f", "-"];
    tokio::task::block_in_place(|| {
        admin.kubectl_with(&arguments, object.to_string()).unwrap().success().unwrap()
    });
}

fn guard(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"targetKind": kind, "targetName": name, "expectedHash": HASH},
    })
}

fn state<'a>(observation: &'a Observation, name: &str) -> Option<&'a GuardState> {
    observation.guards.iter().find(|seen| seen.stored.id().name == name).map(|seen| &seen.state)
}

fn is_valid(observation: &Observation, name: &str) -> bool {
    matches!(state(observation, name), Some(GuardState::Valid(_)))
}

fn reason(observation: &Observation, name: &str) -> &'static str {
    match state(observation, name) {
        Some(GuardState::Invalid(invalid)) => invalid.reason,
        _ => "",
    }
}

/// 1.37 streams its lists, 1.33 does not.
async fn guards_come_and_go(version: Version) {
    let mut watching = Watching::start(version).await;
    assert!(watching.store.index().guards().is_empty());

    watching.apply(&guard("prices", "ConfigMap"));
    let added = watching.until("the guard is seen", |seen| is_valid(seen, "prices")).await;
    assert!(watching.store.index().lookup("", "configmaps", "default", "prices").next().is_some());

    // A status tells nothing about writes.
    let status = json!({"status": {"canonicalForm": "v1"}}).to_string();
    let patch =
        ["patch", "driftguard", "prices", "--subresource=status", "--type=merge", "-p", status.as_str()];
    watching.admin.kubectl(&patch).unwrap().success().unwrap();
    let told = watching.until("the status is seen", |seen| seen.revision > added.revision).await;
    assert_eq!(told.version, added.version);
    assert_ne!(told.guards[0].stored.status(), added.guards[0].stored.status());

    let patch = ["patch", "driftguard", "prices", "--type=merge", "-p", r#"{"spec":{"enforcement":"Warn"}}"#];
    watching.admin.kubectl(&patch).unwrap().success().unwrap();
    let warned = |seen: &Observation| matches!(state(seen, "prices"), Some(GuardState::Valid(guard)) if guard.enforcement == Enforcement::Warn);
    let changed = watching.until("the change is seen", warned).await;
    assert!(changed.version > told.version);

    watching.admin.kubectl(&["delete", "driftguard", "prices"]).unwrap().success().unwrap();
    watching.until("the deletion is seen", |seen| seen.guards.is_empty()).await;
    assert!(watching.store.index().guards().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_come_and_go_on_a_server_that_streams_lists() {
    guards_come_and_go(Version::Newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_come_and_go_on_a_server_that_does_not() {
    guards_come_and_go(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_becomes_valid_with_the_crd_of_its_kind_and_stays_so_without() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.apply(&guard("gadget", "Gadget"));
    watching.until("the kind is unknown", |seen| reason(seen, "gadget") == "TargetUnknown").await;
    watching.apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }));
    let known = watching.until("the kind is known", |seen| is_valid(seen, "gadget")).await;
    let target = known.index.guards()[0].target().unwrap();
    assert_eq!((target.api_version().as_str(), target.resource.as_str()), ("example.com/v1", "gadgets"));
    watching.admin.kubectl(&["delete", "crd", "gadgets.example.com"]).unwrap().success().unwrap();
    let kept = |seen: &Observation| {
        seen.guards
            .iter()
            .any(|seen| seen.kept.as_deref().is_some_and(|why| why.contains("gadgets.example.com")))
    };
    let gone = watching.until("the kind is gone", kept).await;
    assert!(is_valid(&gone, "gadget"), "the guard goes by what it was made for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_no_schema_would_take_is_invalid_and_stops_no_other() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.apply(&guard("good", "ConfigMap"));
    watching.apply(&guard("bad", "ConfigMap"));
    watching.until("both are seen", |seen| is_valid(seen, "good") && is_valid(seen, "bad")).await;
    let key = "/registry/terrafusion.ai/driftguards/default/bad";
    let mut stored: Value =
        serde_json::from_slice(&watching.plane.etcd().get(key).unwrap().unwrap()).unwrap();
    stored["spec"] = json!({"targetKind": "ConfigMap", "targetName": "bad", "expectedHash": 7});
    watching.plane.etcd().put(key, stored.to_string().as_bytes()).unwrap();
    let seen = watching.until("it is invalid", |seen| reason(seen, "bad") == "InvalidSpec").await;
    assert!(is_valid(&seen, "good"));
    assert!(state(&seen, "bad").unwrap().target().is_some(), "what it pins stays held");
    watching.apply(&guard("later", "ConfigMap"));
    watching.until("the watch goes on", |seen| is_valid(seen, "later")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_read_finds_the_guards_of_exactly_one_object_at_once() {
    let watching = Watching::start(Version::Newest).await;
    for name in ["prices", "limits"] {
        let mut object = guard(&format!("{name}-guard"), "ConfigMap");
        object["spec"]["targetName"] = json!(name);
        watching.apply(&object);
        let key = |namespace| Key { group: "", resource: "configmaps", namespace, name };
        let found = watching.store.read_guards(key("default")).await.unwrap();
        assert_eq!(found.guards().len(), 1);
        assert_eq!(found.guards()[0].id().name, format!("{name}-guard"));
        assert!(watching.store.read_guards(key("other")).await.unwrap().guards().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_outlives_its_api_server() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.apply(&guard("before", "ConfigMap"));
    watching.until("the guard is seen", |seen| is_valid(seen, "before")).await;
    tokio::task::block_in_place(|| {
        let server = watching.plane.api_server();
        server.kill()?;
        server.start_again()
    })
    .unwrap();
    assert!(watching.store.is_synced());
    assert_eq!(watching.store.index().guards().len(), 1, "what was known stays known");
    watching.apply(&guard("after", "ConfigMap"));
    watching.until("the watch goes on", |seen| is_valid(seen, "after") && is_valid(seen, "before")).await;
}
