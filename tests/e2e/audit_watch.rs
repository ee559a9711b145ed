//! What the watches of guarded objects tell of a real API server, above all when it is not well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use driftguard::audit::watch::{Sighting, WatchHealth, WatchSettings, Watches};
use driftguard::core::audit::sight::{Look, Present, Sight};
use driftguard::core::guard::Enforcement;
use driftguard::core::hash::ContentHash;
use driftguard::store::{Settings, Store};
use driftguard::telemetry::metrics::Metrics;
use driftguard_control_plane::{ControlPlane, User, Version, until};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::installation::{LIMIT, config_map, gama_config, hash_of};
use crate::representation::gadgets;

/// How soon drift must be told.
const SOON: Duration = Duration::from_secs(1);
/// The shortest audit interval.
const INTERVAL: Duration = Duration::from_secs(30);

/// Watches on a control plane of their own. Guards stand in the namespace `default`, as do their targets.
struct Watching {
    plane: ControlPlane,
    admin: User,
    news: mpsc::Receiver<Sighting>,
    health: watch::Receiver<WatchHealth>,
    metrics: Arc<Metrics>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn blocking<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}

impl Watching {
    async fn start(version: Version) -> Self {
        let plane = blocking(|| ControlPlane::builder().kubernetes(version).start()).unwrap();
        let admin = plane.admin().unwrap();
        for crd in driftguard::manifests::crds().unwrap() {
            apply(&admin, &json!(crd.object));
        }
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        blocking(|| admin.kubectl(&wait)).unwrap().success().unwrap();
        let client = admin.client().unwrap();
        let settings = Settings {
            default_enforcement: Enforcement::Deny,
            own_namespace: "terrafusion-system".into(),
            longest_pause: driftguard::core::pause::LONGEST,
        };
        let (store, storing) = Store::new(client.clone(), settings);
        let metrics = Arc::new(Metrics::default());
        let settings = WatchSettings { audit_interval: INTERVAL, installed: "terrafusion-system".into() };
        let (watches, news) = Watches::new(client, store, settings, Arc::clone(&metrics));
        let health = watches.health();
        let tasks = [tokio::spawn(storing), tokio::spawn(watches.run())];
        Self { plane, admin, news, health, metrics, tasks }
    }

    fn apply(&self, object: &Value) {
        apply(&self.admin, object);
    }

    fn read(&self, object: &str) -> Value {
        blocking(|| self.admin.kubectl(&["get", object, "-o", "json"])).unwrap().json().unwrap()
    }

    /// Makes an object and a guard of what it is now, and waits until its target is told.
    async fn guard(&mut self, object: &Value) -> ContentHash {
        self.apply(object);
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let hash = hash_of(&self.read(&format!("{kind}/{name}"))).unwrap();
        self.apply(&json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"targetKind": kind, "targetName": name, "expectedHash": hash},
        }));
        let told = self.next_within(LIMIT).await;
        assert_eq!((told.guard.name.as_str(), told.how), (name, Look::Initial));
        assert_eq!(present(&told).hash, hash.parse().unwrap());
        present(&told).hash
    }

    /// ConfigMaps of these names, guarded.
    async fn config_maps(&mut self, names: &[&str]) {
        for name in names {
            self.guard(&config_map("default", name, &json!({"a": "1"}))).await;
        }
    }

    /// Stores a ConfigMap behind the back of the API server.
    fn drift(&self, name: &str, value: &str) {
        let mut object = self.read(&format!("configmap/{name}"));
        store(&self.plane, &mut object, value);
    }

    async fn next_within(&mut self, limit: Duration) -> Sighting {
        let told = tokio::time::timeout(limit, self.news.recv()).await;
        told.unwrap_or_else(|_| panic!("nothing was told within {limit:?}")).unwrap()
    }

    async fn next_all(&mut self, count: usize, limit: Duration) -> BTreeMap<String, Sighting> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let told = self.next_within(limit).await;
            all.insert(told.guard.name.to_string(), told);
        }
        all
    }

    /// Watches for some time that nothing is told.
    async fn quiet(&mut self, time: Duration) {
        let told = tokio::time::timeout(time, self.news.recv()).await;
        assert!(told.is_err(), "{told:?}");
    }

    async fn healthy(&mut self, what: &str, wanted: impl Fn(&WatchHealth) -> bool, limit: Duration) {
        let seen = tokio::time::timeout(limit, self.health.wait_for(|health| wanted(health))).await;
        let seen = seen.map(|seen| seen.unwrap().clone());
        assert!(seen.is_ok(), "{what}: not within {limit:?}; {:?}", self.health.borrow());
    }
}

fn store(plane: &ControlPlane, object: &mut Value, value: &str) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let key = format!("/registry/configmaps/default/{name}");
    object["data"] = json!({"a": value});
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    blocking(|| plane.etcd().put(&key, object.to_string().as_bytes())).unwrap();
}

fn apply(admin: &User, object: &Value) {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    blocking(|| admin.kubectl_with(&arguments, object.to_string())).unwrap().success().unwrap();
}

fn present(sighting: &Sighting) -> &Present {
    match &sighting.sight {
        Sight::Present(present) => present,
        other => panic!("{:?} is {other:?}", sighting.guard),
    }
}

/// More than are watched by name.
const MANY: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn drift_in_etcd_is_told_at_once(version: Version) {
    let mut watching = Watching::start(version).await;
    watching.config_maps(&MANY[..1]).await;
    watching.drift("a", "by name");
    let told = watching.next_within(SOON).await;
    assert_eq!((told.guard.name.as_str(), told.how), ("a", Look::Watch));
    let object: Value = serde_json::from_slice(&told.object.clone().unwrap()).unwrap();
    assert_eq!((&object["data"]["a"], &object["kind"]), (&json!("by name"), &json!("ConfigMap")));
    // Now the namespace is watched.
    watching.config_maps(&MANY[1..]).await;
    watching.drift("c", "in its namespace");
    assert_eq!(watching.next_within(SOON).await.guard.name, "c");
    blocking(|| watching.plane.etcd().delete("/registry/configmaps/default/d")).unwrap();
    let gone = watching.next_within(SOON).await;
    assert_eq!((gone.guard.name.as_str(), &gone.sight), ("d", &Sight::Absent));
    // A sweep or two find nothing that was not told.
    watching.quiet(INTERVAL + INTERVAL / 2).await;
    let metrics = watching.metrics.encode().unwrap();
    assert!(metrics.contains("driftguard_watch_missed_total 0"), "{metrics}");
    assert!(metrics.contains(r#"driftguard_watch_requests_total{purpose="sweep"}"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_33_drift_in_etcd_is_told_at_once_by_a_server_that_streams_lists() {
    drift_in_etcd_is_told_at_once(Version::Newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_33_drift_in_etcd_is_told_at_once_by_a_server_that_does_not() {
    drift_in_etcd_is_told_at_once(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_37_what_happens_while_the_api_server_is_gone_is_told_when_it_is_back_and_nothing_else() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.config_maps(&MANY).await;
    let mut object = watching.read("configmap/b");
    blocking(|| watching.plane.api_server().kill()).unwrap();
    // A new one knows no event since: what the watch would go on from is too old for it.
    store(&watching.plane, &mut object, "drift");
    blocking(|| watching.plane.etcd().delete("/registry/configmaps/default/c")).unwrap();
    watching.quiet(Duration::from_secs(5)).await;
    blocking(|| watching.plane.api_server().start_again()).unwrap();
    let all = watching.next_all(2, LIMIT).await;
    assert_eq!(all["c"].sight, Sight::Absent);
    assert_ne!(present(&all["b"]).hash, present_hash("1"));
    watching.quiet(Duration::from_secs(15)).await;
    watching.drift("a", "later");
    assert_eq!(watching.next_within(SOON).await.guard.name, "a");
    assert_eq!(watching.health.borrow().missed, 0);
}

fn present_hash(value: &str) -> ContentHash {
    ContentHash::of(json!({"a": value}).to_string().replace(':', ": ").as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn case_56_an_etcd_that_pauses_is_no_drift() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.config_maps(&MANY).await;
    blocking(|| watching.plane.etcd().pause()).unwrap();
    watching.quiet(Duration::from_secs(30)).await;
    blocking(|| watching.plane.etcd().resume()).unwrap();
    watching.quiet(Duration::from_secs(20)).await;
    let ready = || watching.plane.api_server().wait_ready();
    blocking(ready).unwrap();
    watching.drift("e", "drift");
    let told = watching.next_within(LIMIT).await;
    assert_eq!(told.guard.name, "e");
    assert_eq!(watching.health.borrow().polled, Vec::<String>::new());
}

/// Makes an object that the API server stores and cannot decode: with its managedFields, which nest deeper,
/// it has more levels than may be read.
fn poison(watching: &Watching, name: &str) {
    let place = "/apis/terrafusion.ai/v1/namespaces/default/gamaconfigs";
    let key = format!("/registry/terrafusion.ai/gamaconfigs/default/{name}");
    for levels in (9_985..10_000).rev() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let object = format!(
            r#"{{"apiVersion":"terrafusion.ai/v1","kind":"GAMAConfig","metadata":{{"name":"{name}","namespace":"default"}},"spec":{{"parameters":{deep}}}}}"#
        );
        watching.admin.kubectl_with(&["create", "--raw", place, "-f", "-"], object).unwrap();
        let is_stored = watching.plane.etcd().get(&key).unwrap().is_some();
        let read = watching.admin.kubectl(&["get", "--raw", &format!("{place}/{name}")]).unwrap();
        if is_stored && !read.succeeded() {
            return;
        }
        watching.plane.etcd().delete(&key).unwrap();
    }
    panic!("every object that is stored can be read");
}

async fn one_object_that_cannot_be_decoded_frees_no_other(version: Version) {
    let mut watching = Watching::start(version).await;
    for name in ["whole", "other"] {
        watching.guard(&gama_config("default", name, &json!({"limit": 1}))).await;
    }
    watching.config_maps(&["settings"]).await;
    blocking(|| poison(&watching, "broken"));
    watching.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "broken", "namespace": "default"},
        "spec": {"targetKind": "GAMAConfig", "targetName": "broken", "expectedHash": "0".repeat(64)},
    }));
    let told = watching.next_within(2 * LIMIT).await;
    let Sight::Unreadable(sentence) = &told.sight else { panic!("{told:?}") };
    assert!(told.guard.name == "broken" && sentence.contains("cannot decode"), "{told:?}");
    watching.healthy("polled", |health| health.polled == ["gamaconfigs.terrafusion.ai"], LIMIT).await;
    // Others are read by name.
    let patch = ["patch", "gamaconfig/whole", "--type=merge", "-p", r#"{"spec":{"parameters":{"limit":2}}}"#];
    blocking(|| watching.admin.kubectl(&patch)).unwrap().success().unwrap();
    let told = watching.next_within(INTERVAL * 2).await;
    assert_eq!(told.guard.name, "whole");
    // Its own watch may be open still and hear nothing: then a sweep finds it.
    assert!(matches!(told.how, Look::Live | Look::Sweep | Look::Watch), "{told:?}");
    // Other kinds are watched as ever.
    watching.drift("settings", "drift");
    assert_eq!(watching.next_within(SOON).await.guard.name, "settings");
    blocking(|| watching.plane.etcd().delete("/registry/terrafusion.ai/gamaconfigs/default/broken")).unwrap();
    let told = watching.next_within(4 * LIMIT).await;
    assert_eq!((told.guard.name.as_str(), &told.sight), ("broken", &Sight::Absent));
    watching.healthy("watched again", |health| health.polled.is_empty(), 6 * LIMIT).await;
    watching.quiet(Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_63_one_object_that_cannot_be_decoded_frees_no_other() {
    one_object_that_cannot_be_decoded_frees_no_other(Version::Newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_63_one_object_that_cannot_be_decoded_frees_no_other_on_an_older_server() {
    one_object_that_cannot_be_decoded_frees_no_other(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_75_an_object_that_reads_otherwise_since_its_definition_was_edited_is_told() {
    let mut watching = Watching::start(Version::Newest).await;
    watching.apply(&gadgets(&json!({"size": {"type": "integer"}})));
    let gadget = json!({"apiVersion": "example.com/v1", "kind": "Gadget",
        "metadata": {"name": "g", "namespace": "default"}, "spec": {"size": 1}});
    let (admin, text) = (watching.admin.clone(), gadget.to_string());
    blocking(|| {
        until("the kind is served", LIMIT, || {
            admin.kubectl_with(&["apply", "--server-side", "-f", "-"], text.clone())?.success()
        })
    })
    .unwrap();
    let before = watching.guard(&gadget).await;
    let revision = watching.read("gadget/g")["metadata"]["resourceVersion"].clone();
    watching.apply(&gadgets(
        &json!({"size": {"type": "integer"}, "colour": {"type": "string", "default": "red"}}),
    ));
    let told = watching.next_within(2 * LIMIT).await;
    assert_eq!(json!(present(&told).resource_version), revision, "nobody has written it");
    assert_ne!(present(&told).hash, before);
}
