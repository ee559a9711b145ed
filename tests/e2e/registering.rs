//! The lease and the webhook configurations on a real API server, without a process that answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use bytes::Bytes;
use driftguard::control::lease::{Fence, Keeper};
use driftguard::control::registrar::{Applied, Registrar, Settings};
use driftguard::control::webhooks::Address;
use driftguard::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target,
};
use driftguard::core::hash::ContentHash;
use driftguard::core::index::Index;
use driftguard::core::paths::PathFilter;
use driftguard::core::registration::Width;
use driftguard::core::scope::Scope;
use driftguard::core::tenure::Terms;
use driftguard::store::{Observation, Store};
use driftguard_control_plane::{ControlPlane, User, Version};
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
        let watched = tokio::spawn(watching);
        let authority = driftguard::cert::Authority::generate(jiff::Timestamp::now()).unwrap();
        let (bundle, bundles) = watch::channel(Bytes::from(authority.certificate_pem()));
        let settings = Settings { own_namespace: NAMESPACE.into(), address, bundle: bundles };
        let registrar = Registrar::new(client, settings, store.configurations());
        let tasks = vec![held, watched];
        Self { _plane: plane, admin, registrar, fence, _bundle: bundle, tasks, version: 0 }
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

    fn entries(&self) -> usize {
        self.stored()["webhooks"].as_array().map_or(0, Vec::len)
    }

    /// Waits until the watch tells of something that somebody did.
    async fn noticed(&mut self) {
        tokio::time::timeout(LIMIT, self.registrar.changed()).await.expect("the watch tells");
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
        namespace: namespace.map(str::to_owned),
        name: name.into(),
    };
    Guard {
        id: GuardId { namespace: "guards".into(), name: format!("{resource}-{name}") },
        uid: String::new(),
        generation: 1,
        resource_version: "1".into(),
        scope: Scope::new(group, resource, PathFilter::everything()),
        target,
        expected: ContentHash::of(b""),
        also_approved: Vec::new(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Vec::new(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        managed_by: None,
        contact: None,
        runbook: None,
    }
}

fn valid(guard: Guard) -> GuardState {
    GuardState::Valid(Arc::new(guard))
}

/// How many entries [`all_forms`] needs: one a resource and failure policy, and one for deletions where writes
/// fail closed.
const ALL_FORMS: usize = 11;

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
    assert!(!registering.register(Vec::new()).await.written, "without guards nothing is registered");
    // `apply` itself fails when the answer is not exactly what was written.
    let first = registering.register(all_forms()).await;
    assert_eq!((first.generation, first.written), (1, true));
    assert_eq!(registering.entries(), ALL_FORMS);
    let same = registering.register(all_forms()).await;
    assert_eq!((same.generation, same.written), (1, false), "nothing differs, so nothing is written");
    let fewer = registering.register(vec![valid(guard("", "configmaps", Some("a"), "prices"))]).await;
    assert_eq!((fewer.generation, registering.entries()), (2, 2));
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
    assert_eq!(registering.entries(), 2);
}
