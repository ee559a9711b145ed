//! The registrar against a scripted API server that stores the two configurations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::api::names;
use crate::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use crate::core::hash::ContentHash;
use crate::core::index::Index;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::store::configurations::Watched;

const VALIDATING: &str = "validatingwebhookconfigurations";
const MUTATING: &str = "mutatingwebhookconfigurations";

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
    requests: Vec<(Method, String)>,
    /// How many of the next writes meet a write of somebody else.
    conflicts: usize,
    /// Whether nobody may write.
    is_forbidden: bool,
}

/// An API server that knows server-side apply as far as lists by name need it: what the applied
/// list no longer names goes away, what others put there stays.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let resource = parts.uri.path().split('/').nth(4).unwrap().to_owned();
                let kind = parts.headers.get(http::header::CONTENT_TYPE).cloned();
                let is_apply = kind.is_some_and(|kind| kind == "application/apply-patch+yaml");
                let (status, value) = server.answer(&parts.method, &resource, is_apply, &body);
                let body = Body::from(serde_json::to_vec(&value).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &Method, resource: &str, is_apply: bool, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason}),
            )
        };
        let mut state = self.0.lock().unwrap();
        state.requests.push((method.clone(), resource.to_owned()));
        let before = state.objects.get(resource).cloned();
        if method == Method::GET {
            return before
                .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), |found| (StatusCode::OK, found));
        }
        if state.is_forbidden {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        if state.conflicts > 0 {
            state.conflicts -= 1;
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let sent: Value = serde_json::from_slice(body).unwrap();
        let mut object = before.clone().unwrap_or_else(|| json!({"metadata": {"name": "driftguard"}}));
        let version = &sent["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        if is_apply {
            object["webhooks"] = applied(&object["webhooks"], &sent["webhooks"]);
            // The one that only an apply writes goes with it.
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove(names::ANNOTATION_BREAKGLASS_SEEN);
            }
        } else if let Some(webhooks) = sent.get("webhooks") {
            object["webhooks"] = webhooks.clone();
        }
        for (key, value) in sent["metadata"]["annotations"].as_object().into_iter().flatten() {
            object["metadata"]["annotations"][key] = value.clone();
        }
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.retain(|_, value| !value.is_null());
        }
        state.store(resource, object.clone());
        (StatusCode::OK, state.objects[resource].clone())
    }

    /// Changes a stored configuration as somebody else.
    fn alter(&self, resource: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock().unwrap();
        let mut object = state.objects[resource].clone();
        change(&mut object);
        object["metadata"]["managedFields"] = json!([{"manager": "driftguard", "time": "2026-01-03T00:00:00Z"}, {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z"}]);
        state.store(resource, object);
    }

    fn delete(&self, resource: &str) {
        self.0.lock().unwrap().objects.remove(resource);
    }

    /// The validating entries for targets as name, path and failure policy, without prefix and suffix.
    fn entries(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let webhooks =
            state.objects.get(VALIDATING).map(|object| object["webhooks"].clone()).unwrap_or_default();
        let text = |webhook: &Value| {
            let name = webhook["name"].as_str().unwrap().trim_start_matches("see-driftguard-breakglass.");
            let path = &webhook["clientConfig"]["service"]["path"];
            format!("{} {}", name.trim_end_matches(".terrafusion.ai"), path.as_str().unwrap())
        };
        let texts = webhooks.as_array().into_iter().flatten().map(text);
        // Those for definitions of kinds and for our own kinds are always there.
        let own = ["/driftguards", "/driftguardexceptions"];
        texts
            .filter(|text: &String| {
                !text.starts_with("define-") && own.iter().all(|kind| !text.contains(&format!("{kind}/")))
            })
            .collect()
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().requests.iter().filter(|(method, _)| method != Method::GET).count()
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    /// What a watch would tell now.
    fn watched(&self) -> Configurations {
        let state = self.0.lock().unwrap();
        let of = |resource: &str| state.objects.get(resource).cloned();
        Configurations {
            validating: of(VALIDATING).map_or(Watched::Absent, |object| {
                Watched::Present(Arc::new(serde_json::from_value(object).unwrap()))
            }),
            mutating: of(MUTATING).map_or(Watched::Absent, |object| {
                Watched::Present(Arc::new(serde_json::from_value(object).unwrap()))
            }),
        }
    }
}

impl State {
    fn store(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(resource.to_owned(), object);
    }
}

/// Server-side apply to a list by name: foreign entries stay, and so do foreign conditions in ours.
fn applied(before: &Value, sent: &Value) -> Value {
    let before = before.as_array().cloned().unwrap_or_default();
    let mut after = sent.as_array().cloned().unwrap_or_default();
    for entry in &mut after {
        let old = before.iter().find(|old| old["name"] == entry["name"]);
        // Nobody here applies it who does not go on: it is somebody else's.
        let bundle = old.map(|old| &old["clientConfig"]["caBundle"]).filter(|bundle| bundle.is_string());
        if let (Some(bundle), None) = (bundle, entry["clientConfig"].get("caBundle")) {
            entry["clientConfig"]["caBundle"] = bundle.clone();
        }
        let foreign = old.and_then(|old| old["matchConditions"].as_array()).into_iter().flatten();
        for condition in foreign.filter(|condition| {
            condition["name"] != "guarded-objects" && condition["name"] != "pinned-content"
        }) {
            entry["matchConditions"].as_array_mut().unwrap().push(condition.clone());
        }
    }
    after.extend(before.into_iter().filter(|old| !old["name"].as_str().unwrap().ends_with("terrafusion.ai")));
    Value::Array(after)
}

fn guard(name: &str) -> GuardState {
    GuardState::Valid(Arc::new(Guard {
        id: GuardId { namespace: "g".into(), name: name.into() },
        uid: "".into(),
        generation: 1,
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: name.into(),
        },
        scope: Scope::new("", "ConfigMap", PathFilter::everything()),
        expected: ContentHash::of(b""),
        also_approved: Box::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Vec::new(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    }))
}

fn observation(version: u64, names: &[&str]) -> Observation {
    let index = Arc::new(Index::build(names.iter().map(|name| guard(name)).collect()));
    Observation { version, index, ..Observation::default() }
}

/// A registrar with what it is told through, and a fence that holds.
struct Rig {
    server: Server,
    registrar: Registrar,
    configurations: watch::Sender<Arc<Configurations>>,
    bundle: watch::Sender<Bytes>,
    key: watch::Sender<Option<SigningKey>>,
    lease: watch::Sender<Option<Instant>>,
    fence: Fence,
}

impl Rig {
    fn new() -> Self {
        Self::on(Server::default())
    }

    fn on(server: Server) -> Self {
        Self::with(server, None)
    }

    /// A registrar that leaves `caBundle` to somebody else.
    fn injected() -> Self {
        Self::with(Server::default(), Some("ns/serving".to_owned()))
    }

    fn with(server: Server, injected_from: Option<String>) -> Self {
        let (configurations, watched) = watch::channel(Arc::default());
        let (bundle, bundles) = watch::channel(Bytes::from_static(b"PEM"));
        let (key, keys) = watch::channel(SigningKey::new(&[1; 32]));
        let (lease, fence) = Fence::held_by_hand();
        let settings = Settings {
            own_namespace: "terrafusion-system".into(),
            longest_pause: crate::core::pause::LONGEST,
            address: Address::Service {
                namespace: "terrafusion-system".into(),
                name: "driftguard-webhook".into(),
                port: 443,
            },
            bundle: bundles,
            injected_from,
            key: keys,
        };
        let registrar = Registrar::new(server.client(), settings, watched);
        Self { server, registrar, configurations, bundle, key, lease, fence }
    }

    async fn try_apply(&mut self, version: u64, names: &[&str]) -> Result<Applied, RegistrarError> {
        self.registrar.apply(&observation(version, names), &self.fence).await
    }

    async fn apply(&mut self, version: u64, names: &[&str]) -> Applied {
        self.try_apply(version, names).await.unwrap()
    }

    /// Lets the watch tell what stands there.
    fn tell(&self) {
        self.configurations.send_replace(Arc::new(self.server.watched()));
    }
}

#[tokio::test(start_paused = true)]
async fn without_guards_only_reviews_of_guards_are_registered() {
    let mut rig = Rig::new();
    let applied = rig.apply(1, &[]).await;
    assert_eq!((applied.generation, applied.written), (1, true));
    assert!(rig.server.entries().is_empty(), "{:?}", rig.server.entries());
    let stored = |resource: &str| rig.server.0.lock().unwrap().objects[resource]["webhooks"].to_string();
    assert!(stored(VALIDATING).contains("/validate/g1/fail/driftguards/"));
    assert!(stored(MUTATING).contains("/mutate/g1/ignore/driftguards/"));
}

#[tokio::test(start_paused = true)]
async fn another_signing_key_makes_other_paths_and_without_one_nothing_is_touched() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let stored = |rig: &Rig| rig.server.0.lock().unwrap().objects[VALIDATING]["webhooks"].to_string();
    let before = stored(&rig);
    rig.key.send_replace(SigningKey::new(&[2; 32]));
    rig.registrar.changed().await;
    assert!(rig.apply(1, &["a"]).await.written);
    assert_ne!(stored(&rig).replace("/g2/", "/g1/"), before);
    let after = stored(&rig);
    rig.key.send_replace(None);
    assert_eq!(rig.try_apply(1, &["a"]).await.err().map(|error| error.reason()), Some("NoSigningKey"));
    assert_eq!(stored(&rig), after);
}

#[tokio::test(start_paused = true)]
async fn each_applied_configuration_has_a_new_generation_in_every_path() {
    let mut rig = Rig::new();
    let first = rig.apply(1, &["a"]).await;
    assert_eq!((first.generation, first.written), (1, true));
    assert_eq!(
        rig.server.entries(),
        [
            "write-fail.configmaps.v1.core /validate/g1/fail",
            "delete-ignore.configmaps.v1.core /validate/g1/ignore"
        ]
    );
    assert_eq!(rig.apply(2, &["a", "b"]).await.generation, 2);
    assert!(rig.server.entries().iter().all(|entry| entry.contains("/g2/")), "{:?}", rig.server.entries());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_the_guards_need_no_other_rules() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let again = rig.apply(2, &["a"]).await;
    assert_eq!((again.generation, again.written), (1, false));
    assert_eq!(rig.server.writes(), 2, "both configurations once");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_even_read_while_nothing_changed() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let requests = rig.server.requests();
    rig.tell();
    rig.apply(1, &["a"]).await;
    assert_eq!(rig.server.requests(), requests);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_guard_goes_the_entries_go_and_the_generation_stays_known() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let gone = rig.apply(2, &[]).await;
    assert_eq!((gone.written, rig.server.entries().len()), (true, 0));
    let mut next_process = Rig::on(rig.server.clone());
    assert!(next_process.apply(1, &["a"]).await.generation > gone.generation);
}

#[tokio::test(start_paused = true)]
async fn another_process_takes_over_what_stands_there_without_writing() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let mut other = Rig::on(rig.server.clone());
    let taken = other.apply(7, &["a"]).await;
    assert_eq!((taken.generation, taken.written), (1, false));
}

#[tokio::test(start_paused = true)]
async fn an_altered_entry_is_put_back_under_a_new_generation() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| object["webhooks"][0]["failurePolicy"] = json!("Ignore"));
    rig.tell();
    let repaired = rig.apply(1, &["a"]).await;
    assert_eq!((repaired.generation, repaired.written), (2, true));
    assert!(rig.server.entries()[0].ends_with("/validate/g2/fail"));
    let stored = rig.server.watched();
    assert_eq!(stored.validating.get().unwrap().webhooks()[0].failure_policy.as_deref(), Some("Fail"));
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_somebody_adds_to_our_entry_is_taken_out() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        let conditions = object["webhooks"][0]["matchConditions"].as_array_mut().unwrap();
        conditions.push(json!({"name": "never", "expression": "false"}));
    });
    rig.tell();
    rig.apply(1, &["a"]).await;
    let stored = rig.server.watched();
    let entry = stored.validating.get().unwrap().webhooks()[0].clone();
    let names: Vec<String> =
        entry.match_conditions.unwrap().into_iter().map(|condition| condition.name).collect();
    assert_eq!(names, ["guarded-objects", "pinned-content"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_configuration_comes_back_and_its_generation_does_not_go_back() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.apply(2, &["a", "b"]).await;
    rig.server.delete(VALIDATING);
    rig.tell();
    let repaired = rig.apply(2, &["a", "b"]).await;
    assert_eq!((repaired.generation, rig.server.entries().len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn altered_rules_that_cannot_be_repaired_are_told_from_rules_that_are_not_new_enough() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.server.0.lock().unwrap().is_forbidden = true;
    let not_new = rig.try_apply(2, &["a", "b"]).await.unwrap_err();
    assert!(matches!(not_new, RegistrarError::Api { .. }), "a is covered as before: {not_new}");
    rig.server.delete(MUTATING);
    rig.tell();
    let convenience = rig.try_apply(1, &["a"]).await.unwrap_err();
    assert!(matches!(convenience, RegistrarError::Api { .. }), "the gate stands: {convenience}");
    rig.server.delete(VALIDATING);
    rig.tell();
    for names in [&["a"][..], &["a", "b"]] {
        // Repairs are paced.
        let pause = Duration::from_secs(60);
        rig.lease.send_replace(Some(Instant::now() + pause));
        tokio::time::advance(pause).await;
        let gone = rig.try_apply(3, names).await.unwrap_err();
        assert!(matches!(gone, RegistrarError::Unrepaired { .. }), "{gone}");
        assert!(gone.to_string().contains("whoever deleted it"), "{gone}");
    }
}

#[tokio::test(start_paused = true)]
async fn entries_of_others_stay_and_cause_no_write() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        let mut foreign = object["webhooks"][0].clone();
        foreign["name"] = json!("policy.example.com");
        object["webhooks"].as_array_mut().unwrap().push(foreign);
    });
    rig.tell();
    assert!(!rig.apply(1, &["a"]).await.written);
    assert!(rig.apply(2, &["a", "b"]).await.written);
    assert!(rig.server.entries().iter().any(|entry| entry.starts_with("policy.example.com")));
}

#[tokio::test(start_paused = true)]
async fn who_keeps_altering_it_is_named_and_repaired_less_and_less_often() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    let alter = |rig: &Rig| {
        rig.server.alter(VALIDATING, |object| object["webhooks"] = json!([]));
        rig.tell();
    };
    alter(&rig);
    assert!(rig.apply(1, &["a"]).await.written, "the first repair is made at once");
    alter(&rig);
    let error = rig.try_apply(1, &["a"]).await.unwrap_err();
    assert!(error.to_string().contains("altered by kubectl-edit"), "{error}");
    let wait = error.retry_after().unwrap();
    rig.lease.send_replace(Some(Instant::now() + wait));
    tokio::time::advance(wait).await;
    assert!(rig.apply(1, &["a"]).await.written);
    let other_guards = rig.apply(2, &["a", "b"]).await;
    assert!(other_guards.written, "what guards need is never held back");
}

#[tokio::test(start_paused = true)]
async fn a_new_authority_is_registered() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.bundle.send_replace(Bytes::from_static(b"OLD AND NEW"));
    rig.registrar.changed().await;
    assert_eq!(rig.apply(1, &["a"]).await.generation, 2);
    let stored = rig.server.watched();
    let bundle = stored.validating.get().unwrap().webhooks()[0].client_config.ca_bundle.clone();
    assert_eq!(bundle.unwrap().0, b"OLD AND NEW");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_registered_without_an_authority() {
    let mut rig = Rig::new();
    rig.bundle.send_replace(Bytes::new());
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "NoAuthority");
    assert_eq!(rig.server.requests(), 0);
}

impl Server {
    /// Gives every entry that has none a bundle, as cainjector does; or all of them another one.
    fn inject(&self, bundle: &str, all: bool) {
        for resource in [VALIDATING, MUTATING] {
            self.alter(resource, |object| {
                for webhook in object["webhooks"].as_array_mut().unwrap() {
                    if all || webhook["clientConfig"].get("caBundle").is_none() {
                        webhook["clientConfig"]["caBundle"] = json!(bundle);
                    }
                }
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_injected_bundle_is_asked_for_waited_for_and_never_written() {
    let mut rig = Rig::injected();
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "BundleNotInjected");
    let stored = rig.server.0.lock().unwrap().objects.clone();
    for resource in [VALIDATING, MUTATING] {
        let annotations = &stored[resource]["metadata"]["annotations"];
        assert_eq!(annotations["cert-manager.io/inject-ca-from"], "ns/serving");
        let text = stored[resource]["webhooks"].to_string();
        assert!(!text.contains("caBundle") && !text.contains(r#""failurePolicy":"Fail""#), "{text}");
    }
    rig.server.inject("T05F", false);
    let applied = rig.apply(1, &["a"]).await;
    assert_eq!((applied.written, applied.repaired), (true, None));
    assert_eq!(
        rig.server.entries()[0],
        format!("write-fail.configmaps.v1.core /validate/g{}/fail", applied.generation)
    );
    let writes = rig.server.writes();
    // The injector changes it: that is no alteration, and nothing is written.
    rig.server.inject("VFdP", true);
    rig.tell();
    let again = rig.apply(1, &["a"]).await;
    assert_eq!((again.written, again.repaired, again.generation), (false, None, applied.generation));
    assert_eq!(rig.server.writes(), writes);
    // Another guard of the same kind changes an entry that has its bundle, and that stays.
    rig.apply(2, &["a", "b"]).await;
    let text = rig.server.0.lock().unwrap().objects[VALIDATING]["webhooks"].to_string();
    assert!(text.contains("VFdP") && !text.contains("T05F"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_loses_its_injected_bundle_goes_on_refusing() {
    let mut rig = Rig::injected();
    assert!(rig.try_apply(1, &["a"]).await.is_err());
    rig.server.inject("T05F", false);
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        for webhook in object["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        }
    });
    rig.tell();
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "BundleNotInjected");
    let text = rig.server.0.lock().unwrap().objects[VALIDATING]["webhooks"].to_string();
    assert!(text.contains(r#""failurePolicy":"Fail""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_written() {
    let mut rig = Rig::new();
    rig.lease.send_replace(None);
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "NotHolding");
    assert_eq!(rig.server.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_another_one_looks_again() {
    let mut rig = Rig::new();
    rig.server.0.lock().unwrap().conflicts = 2;
    assert!(rig.apply(1, &["a"]).await.written);
    rig.server.0.lock().unwrap().conflicts = 10;
    assert_eq!(rig.try_apply(2, &["a", "b"]).await.unwrap_err().reason(), "RegistrationFailed");
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_tells_late_is_no_alteration() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.tell();
    rig.apply(2, &["a", "b"]).await;
    let requests = rig.server.requests();
    // The watch still tells the first configuration.
    let applied = rig.apply(2, &["a", "b"]).await;
    assert_eq!((applied.written, rig.server.requests()), (false, requests));
}

/// Breaks the glass as the command does while no replica lives, but for the entries.
fn break_glass(rig: &Rig, until: Timestamp) {
    rig.server.alter(VALIDATING, |object| {
        let annotations = &mut object["metadata"]["annotations"];
        annotations[names::ANNOTATION_BREAKGLASS_UNTIL] = json!(until.to_string());
        annotations[names::ANNOTATION_BREAKGLASS_BY] = json!("alice");
        annotations[names::ANNOTATION_BREAKGLASS_REASON] = json!("incident 8");
    });
    rig.tell();
}

fn ahead(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

/// What stands in the validating configuration about broken glass.
fn noted(rig: &Rig) -> Vec<String> {
    let state = rig.server.0.lock().unwrap();
    let annotations = state.objects[VALIDATING]["metadata"]["annotations"].clone();
    let keys = annotations.as_object().unwrap().keys().filter(|key| key.contains("breakglass"));
    keys.map(|key| key.rsplit_once("/breakglass-").unwrap().1.to_owned()).collect()
}

const OPEN: [&str; 2] = [
    "write-fail.configmaps.v1.core /validate/g2/ignore/broken",
    "delete-ignore.configmaps.v1.core /validate/g2/ignore/broken",
];

#[tokio::test(start_paused = true)]
async fn broken_glass_leaves_every_review_and_lets_none_refuse() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(1));
    let applied = rig.apply(1, &["a"]).await;
    let broken = applied.broken.unwrap();
    assert_eq!((broken.by.as_str(), broken.reason.as_str()), ("alice", "incident 8"));
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(glass)] if glass.by == "alice"));
    assert_eq!(applied.repaired, None, "whoever broke it altered nothing");
    assert_eq!(rig.server.entries(), OPEN);
    let stored = rig.server.0.lock().unwrap().objects[VALIDATING]["webhooks"].clone();
    for entry in stored.as_array().unwrap() {
        assert_eq!(entry["failurePolicy"], "Ignore", "{entry}");
    }
    assert!(stored.to_string().contains("/ignore/driftguards/"), "guards are still reviewed: {stored}");
    assert!(noted(&rig).contains(&"seen".to_owned()));
    rig.tell();
    let again = rig.apply(1, &["a"]).await;
    assert_eq!((again.written, again.glass.len()), (false, 0), "it is told once");
}

#[tokio::test(start_paused = true)]
async fn another_replica_goes_on_where_the_last_one_was() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(1));
    rig.apply(1, &["a"]).await;
    let mut other = Rig::on(rig.server.clone());
    let applied = other.apply(1, &["a"]).await;
    assert!(applied.broken.is_some() && applied.glass.is_empty(), "{applied:?}");
    assert!(!applied.written, "nor does it count anew");
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_says_but_never_later_than_is_allowed() {
    for (until, seen) in [(ahead(-1), ahead(-2)), (ahead(20), ahead(-9))] {
        let mut rig = Rig::new();
        rig.apply(1, &["a"]).await;
        break_glass(&rig, until);
        rig.server.alter(VALIDATING, |object| {
            object["metadata"]["annotations"][names::ANNOTATION_BREAKGLASS_SEEN] = json!(seen.to_string());
            object["webhooks"][0]["failurePolicy"] = json!("Ignore");
        });
        rig.tell();
        let applied = rig.apply(1, &["a"]).await;
        assert_eq!(applied.broken, None);
        assert!(matches!(&applied.glass[..], [GlassTurn::Mended(glass)] if glass.ended_by.is_none()));
        let strict = ["write-fail.configmaps.v1.core /validate/g2/fail"];
        assert_eq!(rig.server.entries()[..1], strict);
        assert!(noted(&rig).is_empty(), "{:?}", noted(&rig));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_saw_while_it_lasted_is_told_all_the_same() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(-1));
    let applied = rig.apply(1, &["a"]).await;
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(_), GlassTurn::Mended(_)]), "{applied:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_ends_it_is_told_even_when_the_rules_are_right_already() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(1));
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove(names::ANNOTATION_BREAKGLASS_UNTIL);
        annotations.insert(names::ANNOTATION_BREAKGLASS_ENDED_BY.to_owned(), json!("bob"));
    });
    rig.tell();
    let applied = rig.apply(1, &["a"]).await;
    let [GlassTurn::Mended(glass)] = &applied.glass[..] else { panic!("{applied:?}") };
    assert_eq!((glass.by.as_str(), glass.ended_by.as_deref()), ("alice", Some("bob")));
    assert_eq!((applied.broken, applied.repaired), (None, None));
    assert!(rig.server.entries()[0].ends_with("/validate/g3/fail"), "{:?}", rig.server.entries());
    assert!(noted(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn broken_again_it_is_told_again_and_is_no_alteration() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(1));
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove(names::ANNOTATION_BREAKGLASS_SEEN);
    });
    rig.tell();
    let applied = rig.apply(1, &["a"]).await;
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(_)]), "{applied:?}");
    assert_eq!(applied.repaired, None);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_read_breaks_nothing() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    rig.server.alter(VALIDATING, |object| {
        object["metadata"]["annotations"][names::ANNOTATION_BREAKGLASS_UNTIL] = json!("some day");
    });
    rig.tell();
    let applied = rig.apply(1, &["a"]).await;
    assert_eq!(applied.broken, None);
    assert!(noted(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn guards_that_come_while_it_is_broken_are_registered_open() {
    let mut rig = Rig::new();
    rig.apply(1, &["a"]).await;
    break_glass(&rig, ahead(1));
    rig.apply(1, &["a"]).await;
    let applied = rig.apply(2, &["a", "b"]).await;
    assert!(applied.written && applied.glass.is_empty());
    assert!(rig.server.entries().iter().all(|entry| entry.ends_with("/validate/g3/ignore/broken")));
}
