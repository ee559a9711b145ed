//! The registrar against a scripted API server that stores the two configurations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use crate::core::hash::ContentHash;
use crate::core::index::Index;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;

mod broken_glass;
mod server;

use server::{MUTATING, Server, VALIDATING};

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

    /// With the entries for a guard `a` registered.
    async fn registered() -> Self {
        let mut rig = Self::new();
        rig.apply(1, &["a"]).await;
        rig
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

    /// Changes the validating configuration as somebody else, and lets the watch tell.
    fn alter(&self, change: impl FnOnce(&mut serde_json::Value)) {
        self.server.alter(VALIDATING, change);
        self.tell();
    }

    /// Deletes a configuration as somebody else, and lets the watch tell.
    fn delete(&self, resource: &str) {
        self.server.delete(resource);
        self.tell();
    }
}

#[tokio::test(start_paused = true)]
async fn without_guards_only_reviews_of_guards_are_registered() {
    let mut rig = Rig::new();
    let applied = rig.apply(1, &[]).await;
    assert_eq!((applied.generation, applied.written), (1, true));
    assert!(rig.server.entries().is_empty(), "{:?}", rig.server.entries());
    let stored = |resource: &str| rig.server.webhooks(resource).to_string();
    assert!(stored(VALIDATING).contains("/validate/g1/fail/driftguards/"));
    assert!(stored(MUTATING).contains("/mutate/g1/ignore/driftguards/"));
}

#[tokio::test(start_paused = true)]
async fn another_signing_key_makes_other_paths_and_without_one_nothing_is_touched() {
    let mut rig = Rig::registered().await;
    let stored = |rig: &Rig| rig.server.webhooks(VALIDATING).to_string();
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
    let mut rig = Rig::registered().await;
    let again = rig.apply(2, &["a"]).await;
    assert_eq!((again.generation, again.written), (1, false));
    assert_eq!(rig.server.writes(), 2, "both configurations once");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_even_read_while_nothing_changed() {
    let mut rig = Rig::registered().await;
    let requests = rig.server.requests();
    rig.tell();
    rig.apply(1, &["a"]).await;
    assert_eq!(rig.server.requests(), requests);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_guard_goes_the_entries_go_and_the_generation_stays_known() {
    let mut rig = Rig::registered().await;
    let gone = rig.apply(2, &[]).await;
    assert_eq!((gone.written, rig.server.entries().len()), (true, 0));
    let mut next_process = Rig::on(rig.server.clone());
    assert!(next_process.apply(1, &["a"]).await.generation > gone.generation);
}

#[tokio::test(start_paused = true)]
async fn another_process_takes_over_what_stands_there_without_writing() {
    let rig = Rig::registered().await;
    let mut other = Rig::on(rig.server.clone());
    let taken = other.apply(7, &["a"]).await;
    assert_eq!((taken.generation, taken.written), (1, false));
}

#[tokio::test(start_paused = true)]
async fn an_altered_entry_is_put_back_under_a_new_generation() {
    let mut rig = Rig::registered().await;
    rig.alter(|object| object["webhooks"][0]["failurePolicy"] = json!("Ignore"));
    let repaired = rig.apply(1, &["a"]).await;
    assert_eq!((repaired.generation, repaired.written), (2, true));
    assert!(rig.server.entries()[0].ends_with("/validate/g2/fail"));
    let stored = rig.server.watched();
    assert_eq!(stored.validating.get().unwrap().webhooks()[0].failure_policy.as_deref(), Some("Fail"));
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_somebody_adds_to_our_entry_is_taken_out() {
    let mut rig = Rig::registered().await;
    rig.alter(|object| {
        let conditions = object["webhooks"][0]["matchConditions"].as_array_mut().unwrap();
        conditions.push(json!({"name": "never", "expression": "false"}));
    });
    rig.apply(1, &["a"]).await;
    let stored = rig.server.watched();
    let entry = stored.validating.get().unwrap().webhooks()[0].clone();
    let names: Vec<String> =
        entry.match_conditions.unwrap().into_iter().map(|condition| condition.name).collect();
    assert_eq!(names, ["guarded-objects", "pinned-content"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_configuration_comes_back_and_its_generation_does_not_go_back() {
    let mut rig = Rig::registered().await;
    rig.apply(2, &["a", "b"]).await;
    rig.delete(VALIDATING);
    let repaired = rig.apply(2, &["a", "b"]).await;
    assert_eq!((repaired.generation, rig.server.entries().len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn altered_rules_that_cannot_be_repaired_are_told_from_rules_that_are_not_new_enough() {
    let mut rig = Rig::registered().await;
    rig.server.forbid();
    let not_new = rig.try_apply(2, &["a", "b"]).await.unwrap_err();
    assert!(matches!(not_new, RegistrarError::Api { .. }), "a is covered as before: {not_new}");
    rig.delete(MUTATING);
    let convenience = rig.try_apply(1, &["a"]).await.unwrap_err();
    assert!(matches!(convenience, RegistrarError::Api { .. }), "the gate stands: {convenience}");
    rig.delete(VALIDATING);
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
    let mut rig = Rig::registered().await;
    rig.alter(|object| {
        let mut foreign = object["webhooks"][0].clone();
        foreign["name"] = json!("policy.example.com");
        object["webhooks"].as_array_mut().unwrap().push(foreign);
    });
    assert!(!rig.apply(1, &["a"]).await.written);
    assert!(rig.apply(2, &["a", "b"]).await.written);
    assert!(rig.server.entries().iter().any(|entry| entry.starts_with("policy.example.com")));
}

#[tokio::test(start_paused = true)]
async fn who_keeps_altering_it_is_named_and_repaired_less_and_less_often() {
    let mut rig = Rig::registered().await;
    let alter = |rig: &Rig| rig.alter(|object| object["webhooks"] = json!([]));
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
    let mut rig = Rig::registered().await;
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

#[tokio::test(start_paused = true)]
async fn an_injected_bundle_is_asked_for_waited_for_and_never_written() {
    let mut rig = Rig::injected();
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "BundleNotInjected");
    for resource in [VALIDATING, MUTATING] {
        assert_eq!(rig.server.annotations(resource)["cert-manager.io/inject-ca-from"], "ns/serving");
        let text = rig.server.webhooks(resource).to_string();
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
    let text = rig.server.webhooks(VALIDATING).to_string();
    assert!(text.contains("VFdP") && !text.contains("T05F"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_loses_its_injected_bundle_goes_on_refusing() {
    let mut rig = Rig::injected();
    assert!(rig.try_apply(1, &["a"]).await.is_err());
    rig.server.inject("T05F", false);
    rig.apply(1, &["a"]).await;
    rig.alter(|object| {
        for webhook in object["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        }
    });
    assert_eq!(rig.try_apply(1, &["a"]).await.unwrap_err().reason(), "BundleNotInjected");
    let text = rig.server.webhooks(VALIDATING).to_string();
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
    rig.server.disturb(2);
    assert!(rig.apply(1, &["a"]).await.written);
    rig.server.disturb(10);
    assert_eq!(rig.try_apply(2, &["a", "b"]).await.unwrap_err().reason(), "RegistrationFailed");
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_tells_late_is_no_alteration() {
    let mut rig = Rig::registered().await;
    rig.tell();
    rig.apply(2, &["a", "b"]).await;
    let requests = rig.server.requests();
    // The watch still tells the first configuration.
    let applied = rig.apply(2, &["a", "b"]).await;
    assert_eq!((applied.written, rig.server.requests()), (false, requests));
}
