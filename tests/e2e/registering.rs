//! The lease and the webhook configurations on a real API server, without a process that answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use bytes::Bytes;
use driftguard::control::lease::{Fence, Keeper};
use driftguard::control::registrar::{Applied, Registrar, Settings};
use driftguard::control::webhooks::Address;
use driftguard::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use driftguard::core::hash::ContentHash;
use driftguard::core::index::Index;
use driftguard::core::paths::PathFilter;
use driftguard::core::registration::Width;
use driftguard::core::scope::Scope;
use driftguard::core::signature::SigningKey;
use driftguard::core::tenure::Terms;
use driftguard::store::{Configurations, Observation, Store};
use driftguard_control_plane::{ControlPlane, User, Version};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::installation::LIMIT;

const NAMESPACE: &str = "terrafusion-system";

/// A registrar on a control plane of its own: its `Fail` entries refuse every write they match.
struct Registering {
    _plane: ControlPlane,
    admin: User,
    registrar: Registrar,
    fence: Fence,
    _bundle: watch::Sender<Bytes>,
    _key: watch::Sender<Option<SigningKey>>,
    watched: watch::Receiver<Arc<Configurations>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    version: u64,
}

impl Drop for Registering {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Registering {
    async fn start(version: Version, address: Address) -> Self {
        let plane =
            tokio::task::block_in_place(|| ControlPlane::builder().kubernetes(version).start()).unwrap();
        let admin = plane.admin().unwrap();
        admin.kubectl(&["create", "namespace", NAMESPACE]).unwrap().success().unwrap();
        let client = admin.client().unwrap();
        let (keeper, mut fence) = Keeper::new(client.clone(), NAMESPACE, "test".into(), Terms::default());
        let held = tokio::spawn(keeper.run(std::future::pending()));
        tokio::time::timeout(LIMIT, fence.held()).await.expect("the lease is held");
        let settings = driftguard::store::Settings {
            default_enforcement: Enforcement::Deny,
            own_namespace: NAMESPACE.into(),
            longest_pause: driftguard::core::pause::LONGEST,
        };
        let (store, watching) = Store::new(client.clone(), settings);
        let watching = tokio::spawn(watching);
        let authority = driftguard::cert::Authority::generate(jiff::Timestamp::now()).unwrap();
        let (bundle, bundles) = watch::channel(Bytes::from(authority.certificate_pem()));
        let (key, keys) = watch::channel(SigningKey::new(&[1; 32]));
        let settings = Settings {
            own_namespace: NAMESPACE.into(),
            address,
            bundle: bundles,
            injected_from: None,
            key: keys,
            longest_pause: driftguard::core::pause::LONGEST,
        };
        let registrar = Registrar::new(client, settings, store.configurations());
        let watched = store.configurations();
        let tasks = vec![held, watching];
        Self {
            _plane: plane,
            admin,
            registrar,
            fence,
            _bundle: bundle,
            _key: key,
            watched,
            tasks,
            version: 0,
        }
    }

    /// Registers these guards, as a new snapshot.
    async fn register(&mut self, guards: Vec<GuardState>) -> Applied {
        self.version += 1;
        let index = Arc::new(Index::build(guards));
        let observation = Observation { version: self.version, index, ..Observation::default() };
        self.registrar.apply(&observation, &self.fence).await.unwrap()
    }

    /// Registers the same guards again, without telling that anything changed.
    async fn again(&mut self, guards: Vec<GuardState>) -> Applied {
        self.version -= 1;
        self.register(guards).await
    }

    fn stored(&self) -> Value {
        let get = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "json"];
        self.admin.kubectl(&get).unwrap().json().unwrap()
    }

    fn alter(&self, patch: &Value) {
        let patch = patch.to_string();
        let arguments =
            ["patch", "validatingwebhookconfiguration", "driftguard", "--type=json", "-p", &patch];
        self.admin.kubectl(&arguments).unwrap().success().unwrap();
    }

    /// How many entries there are besides those for our own kinds.
    fn entries(&self) -> usize {
        let stored = self.stored();
        let webhooks = stored["webhooks"].as_array().into_iter().flatten();
        let is_own = |name: &str| name.contains(".driftguards.") || name.contains(".driftguardexceptions.");
        webhooks.filter(|webhook| !webhook["name"].as_str().is_some_and(is_own)).count()
    }

    /// Waits until the watches have told of what is stored now, all of it: each configuration has a watch of its
    /// own, and the first thing told may be about the other one.
    async fn noticed(&mut self) {
        let (validating, mutating) = (
            self.version_of("validatingwebhookconfiguration"),
            self.version_of("mutatingwebhookconfiguration"),
        );
        let told = self.watched.wait_for(|told| {
            told.are_known()
                && told.validating.get().and_then(ResourceExt::resource_version) == validating
                && told.mutating.get().and_then(ResourceExt::resource_version) == mutating
        });
        tokio::time::timeout(LIMIT, told).await.expect("the watches tell").unwrap();
        tokio::time::timeout(LIMIT, self.registrar.changed()).await.expect("the registrar hears of it");
    }

    /// The version of the configuration of this kind as it is stored, if there is one.
    fn version_of(&self, kind: &str) -> Option<String> {
        let get =
            ["get", kind, "driftguard", "--ignore-not-found", "-o", "jsonpath={.metadata.resourceVersion}"];
        let version = self.admin.kubectl(&get).unwrap().success().unwrap();
        (!version.is_empty()).then_some(version)
    }
}

fn service() -> Address {
    Address::Service { namespace: NAMESPACE.into(), name: "driftguard-webhook".into(), port: 443 }
}

fn guard(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> Guard {
    let target = Target {
        group: group.into(),
        version: "v1".into(),
        kind: resource.into(),
        resource: resource.into(),
        namespace: namespace.map(Into::into),
        name: name.into(),
    };
    Guard {
        id: GuardId { namespace: "guards".into(), name: format!("{resource}-{name}").into() },
        uid: "".into(),
        generation: 1,
        scope: Scope::new(group, resource, PathFilter::everything()),
        target,
        expected: ContentHash::of(b""),
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
    }
}

fn valid(guard: Guard) -> GuardState {
    GuardState::Valid(Arc::new(guard))
}

/// How many entries [`all_forms`] needs: one a resource and failure policy, one for deletions where they do not
/// fail closed as writes do, one for each subresource with operations of its own, and one for definitions.
const ALL_FORMS: usize = 13;

/// One guard of every form that an entry can take.
fn all_forms() -> Vec<GuardState> {
    vec![
        valid(guard("", "configmaps", Some("a"), "prices")),
        valid(Guard { deletion_policy: DeletionPolicy::Deny, ..guard("", "secrets", Some("b"), "keys") }),
        valid(Guard { enforcement: Enforcement::Warn, ..guard("apps", "deployments", Some("a"), "web") }),
        valid(guard("", "pods", Some("a"), "single")),
        valid(guard("", "namespaces", None, "prod")),
        valid(guard("rbac.authorization.k8s.io", "clusterroles", None, "it's a:\\ role\u{e9}")),
    ]
}

async fn what_is_written_reads_back(version: Version, address: Address) {
    let mut registering = Registering::start(version, address).await;
    let own = registering.register(Vec::new()).await;
    assert_eq!((own.generation, registering.entries()), (1, 0), "without guards only reviews of guards");
    // `apply` itself fails when the answer is not exactly what was written.
    let first = registering.register(all_forms()).await;
    assert_eq!((first.generation, first.written), (2, true));
    assert_eq!(registering.entries(), ALL_FORMS);
    let same = registering.register(all_forms()).await;
    assert_eq!((same.generation, same.written), (2, false), "nothing differs, so nothing is written");
    let fewer = registering.register(vec![valid(guard("", "configmaps", Some("a"), "prices"))]).await;
    assert_eq!((fewer.generation, registering.entries()), (3, 3));
    let none = registering.register(Vec::new()).await;
    assert_eq!((none.written, registering.entries()), (true, 0));
    assert!(registering.register(all_forms()).await.generation > none.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reads_back_as_it_was_written() {
    what_is_written_reads_back(Version::Newest, service()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reads_back_as_it_was_written_on_the_older_server_by_url() {
    what_is_written_reads_back(Version::Older, Address::Url("https://127.0.0.1:9443".into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_47_an_altered_configuration_is_put_back() {
    let mut registering = Registering::start(Version::Newest, service()).await;
    let guards = || vec![valid(guard("", "configmaps", Some("a"), "prices"))];
    registering.register(guards()).await;
    // What the watch tells of our own write is no alteration.
    registering.noticed().await;
    assert!(!registering.again(guards()).await.written);

    let wanted = registering.stored()["webhooks"].to_string();
    registering.alter(&json!([
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
        {"op": "add", "path": "/webhooks/0/matchConditions/-", "value": {"name": "never", "expression": "false"}},
        {"op": "replace", "path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"guarded": "yes"}}},
        {"op": "remove", "path": "/webhooks/1"},
    ]));
    registering.noticed().await;
    let repaired = registering.again(guards()).await;
    assert_eq!((repaired.generation, repaired.written), (2, true));
    let now = registering.stored()["webhooks"].to_string();
    assert_eq!(now.replace("/g2/", "/g1/"), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_47_a_deleted_configuration_comes_back_under_a_new_generation() {
    let mut registering = Registering::start(Version::Newest, service()).await;
    registering.register(all_forms()).await;
    registering.noticed().await;
    let delete = ["delete", "validatingwebhookconfiguration", "driftguard"];
    registering.admin.kubectl(&delete).unwrap().success().unwrap();
    registering.noticed().await;
    let restored = registering.again(all_forms()).await;
    assert_eq!((restored.generation, registering.entries()), (2, ALL_FORMS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_as_large_as_they_get_is_taken_and_beyond_that_becomes_wider() {
    let mut registering = Registering::start(Version::Older, service()).await;
    let many = |count: usize| -> Vec<GuardState> {
        (0..count)
            .map(|n| {
                valid(guard(
                    "",
                    "configmaps",
                    Some(&format!("namespace-{}", n % 500)),
                    &format!("object-{n:020}"),
                ))
            })
            .collect()
    };
    let large = registering.register(many(10_800)).await;
    assert!(large.written && large.widened.is_empty(), "{:?}", large.widened);
    let size = registering.stored()["webhooks"].to_string().len();
    assert!((900_000..1_050_000).contains(&size), "{size} bytes");
    let larger = registering.register(many(20_000)).await;
    assert_eq!(larger.widened.len(), 1);
    assert_eq!(larger.widened[0].width, Width::Namespaces);
    // As many namespaces lost their names as had to, and no more.
    let size = registering.stored()["webhooks"].to_string().len();
    assert!((800_000..1_050_000).contains(&size), "{size} bytes");
}

/// Somebody who writes while nobody answers.
struct Writer<'a>(&'a User);

impl Writer<'_> {
    fn run(&self, arguments: &[&str], input: &Value) -> driftguard_control_plane::Output {
        tokio::task::block_in_place(|| self.0.kubectl_with(arguments, input.to_string()).unwrap())
    }

    #[track_caller]
    fn passes(&self, arguments: &[&str]) {
        self.run(arguments, &Value::Null).success().unwrap();
    }

    /// Asserts that the write was sent to us through the entry whose name holds `entry`.
    #[track_caller]
    fn is_sent(&self, entry: &str, arguments: &[&str], input: &Value) {
        let said = self.run(arguments, input).failure().unwrap();
        let called = format!("failed calling webhook \"see-driftguard-breakglass.{entry}.");
        assert!(said.contains(&called), "{arguments:?}: {said}");
    }

    /// Waits until rules are in effect: a review that asks for `entry` fails.
    async fn settled(&self, entry: &str, arguments: &[&str]) {
        let called = format!("see-driftguard-breakglass.{entry}.");
        let until = tokio::time::Instant::now() + LIMIT;
        while !self.run(arguments, &Value::Null).stderr.contains(&called) {
            assert!(tokio::time::Instant::now() < until, "{entry} is not in effect");
        }
    }
}

/// While nobody answers: what cannot change pinned content passes, what can is sent to us by the entry that is
/// made for it, and only deletions that are to be refused are stopped.
async fn what_passes_while_nobody_answers(version: Version) {
    let mut registering = Registering::start(version, Address::Url("https://127.0.0.1:1".into())).await;
    let admin = registering.admin.clone();
    let writer = Writer(&admin);
    let apply = |object: Value| writer.run(&["apply", "-f", "-"], &object).success().unwrap();
    for namespace in ["a", "prod"] {
        writer.passes(&["create", "namespace", namespace]);
    }
    writer.passes(&["create", "serviceaccount", "default", "-n", "a"]);
    for name in ["prices", "kept", "free"] {
        apply(crate::installation::config_map("a", name, &json!({"price": "1"})));
    }
    apply(crate::installation::deployment("a", "web"));
    apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "single", "namespace": "a"},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "app", "image": "registry.example/app:1"}]},
    }));
    let deny = DeletionPolicy::Deny;
    let applied = registering
        .register(vec![
            valid(guard("", "configmaps", Some("a"), "prices")),
            valid(Guard { deletion_policy: deny, ..guard("", "configmaps", Some("a"), "kept") }),
            valid(Guard {
                replicas_path: Some(Arc::new(["spec".into(), "replicas".into()])),
                ..guard("apps", "deployments", Some("a"), "web")
            }),
            valid(Guard { deletion_policy: deny, ..guard("", "pods", Some("a"), "single") }),
            valid(guard("", "namespaces", None, "prod")),
        ])
        .await;
    assert!(applied.written);
    let data = r#"{"data":{"price":"2"}}"#;
    let edit = ["patch", "configmap/prices", "-n", "a", "--type=merge", "-p", data];
    writer.settled("write-fail.configmaps", &edit).await;

    let meta = r#"{"metadata":{"labels":{"a":"b"},"finalizers":["example.com/hold"],"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"free","uid":"none"}]}}"#;
    for object in ["configmap/prices", "deployment/web", "pod/single"] {
        writer.passes(&["patch", object, "-n", "a", "--type=merge", "-p", meta]);
        let release = r#"{"metadata":{"finalizers":null,"ownerReferences":null}}"#;
        writer.passes(&["patch", object, "-n", "a", "--type=merge", "-p", release]);
        writer.passes(&["apply", "view-last-applied", object, "-n", "a"]);
    }
    writer.passes(&["label", "namespace", "prod", "team=risk"]);
    writer.passes(&["patch", "configmap/free", "-n", "a", "--type=merge", "-p", data]);

    let none = Value::Null;
    writer.is_sent(
        "write-fail.configmaps",
        &["label", "configmap/prices", "-n", "a", "c=d", "--dry-run=server"],
        &none,
    );
    let binary = r#"{"binaryData":{"b":"AP/+"}}"#;
    writer.is_sent(
        "write-fail.configmaps",
        &["patch", "configmap/prices", "-n", "a", "--type=merge", "-p", binary],
        &none,
    );
    let paused = r#"{"spec":{"paused":true}}"#;
    writer.is_sent(
        "write-fail.deployments",
        &["patch", "deployment/web", "-n", "a", "--type=merge", "-p", paused],
        &none,
    );
    writer.is_sent("scale-fail.deployments", &["scale", "deployment/web", "-n", "a", "--replicas=3"], &none);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "single", "namespace": "a"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"}});
    for path in ["/api/v1/namespaces/a/pods/single/binding", "/api/v1/namespaces/a/bindings"] {
        writer.is_sent("bind-fail.pods", &["create", "--raw", path, "-f", "-"], &binding);
    }
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "single", "namespace": "a"}});
    let path = "/api/v1/namespaces/a/pods/single/eviction";
    writer.is_sent("evict-fail.pods", &["create", "--raw", path, "-f", "-"], &eviction);
    writer.is_sent("change-fail.pods", &["delete", "pod", "single", "-n", "a"], &none);
    let ephemeral = r#"{"spec":{"ephemeralContainers":[{"name":"d","image":"registry.example/d:1"}]}}"#;
    writer.is_sent(
        "change-fail.pods",
        &["patch", "pod/single", "-n", "a", "--subresource=ephemeralcontainers", "-p", ephemeral],
        &none,
    );

    writer.is_sent("delete-fail.configmaps", &["delete", "configmap", "kept", "-n", "a"], &none);
    writer.passes(&["delete", "configmap", "prices", "-n", "a"]);
    writer.passes(&["delete", "deployment", "web", "-n", "a"]);

    // A Namespace that lives keeps its finalizers; one that is being deleted finishes without us.
    let finalize = ["replace", "--raw", "/api/v1/namespaces/prod/finalize", "-f", "-"];
    let prod = || -> Value {
        let mut object = writer.run(&["get", "namespace", "prod", "-o", "json"], &none).json().unwrap();
        object["spec"]["finalizers"] = json!([]);
        object
    };
    writer.is_sent("finalize-fail.namespaces", &finalize, &prod());
    writer.passes(&["delete", "namespace", "prod", "--wait=false"]);
    writer.run(&finalize, &prod()).success().unwrap();
    writer.run(&["get", "namespace", "prod"], &none).failure().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn case_69_labels_finalizers_and_garbage_collection_pass_while_nobody_answers() {
    what_passes_while_nobody_answers(Version::Newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_69_labels_finalizers_and_garbage_collection_pass_on_the_older_server_too() {
    what_passes_while_nobody_answers(Version::Older).await;
}
