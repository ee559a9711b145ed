//! What needs no API server: the mutating hook, and reviews that are refused before one is asked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written in place")]

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;
use crate::cert::signing::SigningKeeper;
use crate::core::guard::{Enforcement, FailurePolicy};
use crate::store::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::webhook::route::{Route, Subject as RouteSubject};

/// An API server that answers nothing at all.
fn client() -> Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
    });
    Client::new(service, "default")
}

pub(in crate::webhook) fn reviews() -> GuardReviews {
    let settings = Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "own".into(),
        longest_pause: crate::core::pause::LONGEST,
    };
    let (_, keys) = SigningKeeper::new(client(), "own".into());
    let (notices, _) = notices::channel(std::sync::Arc::new(Metrics::default()));
    GuardReviews {
        client: client(),
        store: Store::new(client(), settings).0,
        keys,
        longest_pause: crate::core::pause::LONGEST,
        notices,
        room: GuardRoom::default(),
    }
}

fn review(operation: &str, object: Value, old: Value) -> Vec<u8> {
    json!({"request": {
        "uid": "u-1", "operation": operation, "namespace": "team",
        "resource": {"group": "terrafusion.ai", "version": "v1", "resource": "driftguards"},
        "userInfo": {"username": "alice", "groups": ["a"]}, "object": object, "oldObject": old,
    }})
    .to_string()
    .into_bytes()
}

fn guard(annotations: Value) -> Value {
    json!({"metadata": {"name": "g", "namespace": "team", "annotations": annotations},
           "spec": {"targetKind": "ConfigMap", "targetName": "x", "expectedHash": "aa"}})
}

fn asked() -> Asked {
    Asked {
        route: Route { generation: 1, failure_policy: FailurePolicy::Fail, subject: RouteSubject::Guards },
        since: std::time::Instant::now(),
        timeout: Duration::from_millis(200),
    }
}

fn response(answer: &OwnAnswer) -> Value {
    serde_json::from_slice::<Value>(&answer.reply).unwrap()["response"].clone()
}

#[tokio::test]
async fn what_is_no_review_of_a_guard_is_nothing_to_decide() {
    let reviews = reviews();
    let deep = format!("{}{}", "[".repeat(9000), "]".repeat(9000));
    for body in [
        b"".to_vec(),
        b"{}".to_vec(),
        deep.into_bytes(),
        review("CREATE", Value::Null, Value::Null),
        review("UPDATE", guard(json!({})), Value::Null),
        review("DELETE", Value::Null, Value::Null),
        review("EXPLODE", guard(json!({})), Value::Null),
        review("CREATE", json!("text"), Value::Null),
        review("CREATE", json!({"metadata": {"annotations": 7}}), Value::Null),
    ] {
        assert!(reviews.mutate(&body, Timestamp::now()).is_none(), "{}", String::from_utf8_lossy(&body));
        assert!(reviews.validate(&body, asked(), Timestamp::now()).await.is_none());
    }
}

#[tokio::test]
async fn a_forged_annotation_is_put_back_and_labels_change_nothing() {
    let reviews = reviews();
    let old = guard(json!({names::ANNOTATION_AUTHOR: "old"}));
    let answer = |object| reviews.mutate(&review("UPDATE", object, old.clone()), Timestamp::now()).unwrap();
    let forged = response(&answer(guard(json!({names::ANNOTATION_AUTHOR: "forged"}))));
    let patch = base64::engine::general_purpose::STANDARD.decode(forged["patch"].as_str().unwrap()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&patch).unwrap(),
        json!([{"op": "add", "path": "/metadata/annotations/driftguard.terrafusion.ai~1author", "value": "old"}])
    );
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(response(&answer(labelled.clone())), json!({"uid": "u-1", "allowed": true}));
    let gate = reviews.validate(&review("UPDATE", labelled, old), asked(), Timestamp::now()).await.unwrap();
    assert_eq!((gate.verdict, gate.told.is_none()), ("allow", true));
}

#[tokio::test]
async fn deletion_is_never_refused_and_recorded_unless_it_is_a_dry_run() {
    let reviews = reviews();
    let body = review("DELETE", Value::Null, guard(json!({})));
    let answer = reviews.validate(&body, asked(), Timestamp::now()).await.unwrap();
    let told = answer.told.as_ref().unwrap();
    assert_eq!((answer.verdict, told.reason, told.denied), ("allow", "GuardDeleted", false));
    let dry = String::from_utf8(body).unwrap().replacen(r#""uid""#, r#""dryRun":true,"uid""#, 1);
    let answer = reviews.validate(dry.as_bytes(), asked(), Timestamp::now()).await.unwrap();
    assert!(answer.verdict == "allow" && answer.told.is_none());
}

#[tokio::test]
async fn while_kinds_are_not_known_a_guard_is_refused_with_the_next_step() {
    let body = review("CREATE", guard(json!({})), Value::Null);
    let answer = reviews().validate(&body, asked(), Timestamp::now()).await.unwrap();
    let said = response(&answer);
    assert_eq!(said["status"]["reason"], "Forbidden");
    assert!(said["status"]["message"].as_str().unwrap().ends_with("try again"), "{said}");
}

#[tokio::test]
async fn a_review_that_finds_no_room_in_time_is_refused_and_the_next_one_is_looked_at() {
    let reviews = reviews();
    let body = review("CREATE", guard(json!({})), Value::Null);
    let all = reviews.room.0.acquire_many(8).await.unwrap();
    let crowded = reviews.validate(&body, asked(), Timestamp::now()).await.unwrap();
    assert_eq!((crowded.verdict, crowded.reason), ("deny", "RightsUnknown"));
    drop(all);
    let after = reviews.validate(&body, asked(), Timestamp::now()).await.unwrap();
    assert_eq!(after.reason, "GuardUnchecked", "kinds are not known here");
}

#[tokio::test]
async fn adopting_does_not_begin_a_suspension_anew() {
    let reviews = reviews();
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let id = GuardId { namespace: "team".into(), name: "g".into() };
    let of = |until: &str| {
        let spec = json!({"targetKind": "ConfigMap", "targetName": "x", "expectedHash": "a".repeat(64),
                          "suspend": {"until": until, "reason": "r"}});
        let state =
            crate::core::guard::GuardState::Invalid(std::sync::Arc::new(crate::core::guard::InvalidGuard {
                id: id.clone(),
                generation: 1,
                uid: "".into(),
                pauses: Default::default(),
                authorship: crate::core::guard::Authorship::Unknown,
                target: None,
                reason: crate::api::reasons::TARGET_UNKNOWN,
                message: String::new(),
            }));
        Proposed { state, spec: Some(serde_json::from_value(spec).unwrap()) }
    };
    let rules = |until, change| reviews.field_rules(&id, &of(until), change, now);
    for until in ["2030-01-01T00:00:00Z", "2026-06-01T13:00:00Z"] {
        let refusal = rules(until, Change::Adopted).unwrap_err();
        assert!(refusal.message.contains("remove spec.suspend"), "{refusal:?}");
    }
    assert!(rules("2026-06-01T11:00:00Z", Change::Adopted).is_ok(), "it has ended already");
    assert!(rules("2026-06-01T13:00:00Z", Change::Changed).is_ok());
}

#[tokio::test]
async fn who_asks_for_something_to_be_done_is_refused_while_their_rights_are_unknown() {
    let reviews = reviews();
    for key in ["driftguard.terrafusion.ai/restore", "driftguard.terrafusion.ai/acknowledge"] {
        let (none, one, two) = (json!({}), json!({key: "1"}), json!({key: "2"}));
        for (new, old, allowed) in
            [(&one, &none, false), (&two, &one, false), (&one, &one, true), (&none, &one, true)]
        {
            let body = review("UPDATE", guard(new.clone()), guard(old.clone()));
            let answer = reviews.validate(&body, asked(), Timestamp::now()).await.unwrap();
            assert_eq!(response(&answer)["allowed"], allowed, "{key}: {old} to {new}");
        }
    }
}
