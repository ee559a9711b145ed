//! What is refused of an exception, what is warned of, and what is recorded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written in place")]

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::webhook::guard_reviews::tests::reviews;

fn review(operation: &str, object: Value, old: Value) -> Vec<u8> {
    json!({"request": {
        "uid": "u-1", "operation": operation, "namespace": "shop",
        "resource": {"group": "terrafusion.ai", "version": "v1", "resource": "driftguardexceptions"},
        "userInfo": {"username": "alice", "groups": ["a"]}, "object": object, "oldObject": old,
        "options": {"fieldManager": "kubectl-create"},
    }})
    .to_string()
    .into_bytes()
}

fn ahead(hours: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(hours)).to_string()
}

fn exception(until: &str, reason: &str) -> Value {
    json!({"metadata": {"name": "hotfix", "namespace": "shop", "uid": "e-1"},
           "spec": {"guards": {"all": true}, "until": until, "reason": reason}})
}

fn answer(body: &[u8]) -> OwnAnswer {
    reviews().validate_exception(body, Timestamp::now()).unwrap()
}

fn response(answer: &OwnAnswer) -> Value {
    serde_json::from_slice::<Value>(&answer.reply).unwrap()["response"].clone()
}

#[tokio::test]
async fn what_is_no_review_of_an_exception_is_nothing_to_decide() {
    for body in [
        b"".to_vec(),
        b"{}".to_vec(),
        review("CREATE", Value::Null, Value::Null),
        review("UPDATE", exception(&ahead(1), "why"), Value::Null),
        review("DELETE", Value::Null, Value::Null),
        review("CONNECT", exception(&ahead(1), "why"), Value::Null),
        review("CREATE", json!("text"), Value::Null),
    ] {
        let answer = reviews().validate_exception(&body, Timestamp::now());
        assert!(answer.is_none(), "{}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn who_made_one_and_why_is_recorded_unless_it_is_a_dry_run() {
    let body = review("CREATE", exception(&ahead(1), "prices are wrong"), Value::Null);
    let made = answer(&body);
    assert_eq!(
        response(&made),
        json!({"uid": "u-1", "allowed": true, "auditAnnotations": {
            "verdict": "allow", "reason": "ExceptionCreated", "transaction-id": made.transaction_id}})
    );
    let told = made.told.unwrap();
    assert_eq!((told.reason, told.denied, told.user.name.as_str()), ("ExceptionCreated", false, "alice"));
    assert_eq!(told.object.to_string(), "shop/hotfix");
    assert!(matches!(told.kind, OwnKind::Exception { why, .. } if why == "prices are wrong"));
    let mut dry: Value = serde_json::from_slice(&body).unwrap();
    dry["request"]["dryRun"] = true.into();
    assert!(answer(dry.to_string().as_bytes()).told.is_none());
}

#[tokio::test]
async fn what_the_schema_cannot_say_is_refused_in_one_sentence() {
    let passed = (Timestamp::now() - SignedDuration::from_secs(1)).to_string();
    for (until, reason, said) in [
        (ahead(9), "why", "too far ahead: 8h at most (--max-exception)"),
        (passed, "why", "has passed already"),
        (ahead(1), " \t ", "spec.reason is blank"),
    ] {
        let refused = answer(&review("CREATE", exception(&until, reason), Value::Null));
        let status = response(&refused)["status"].clone();
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("DriftGuardException shop/hotfix is refused: "), "{message}");
        assert!(message.contains(said) && !message.contains('\n'), "{message}");
        assert_eq!((status["code"].clone(), status["reason"].clone()), (json!(403), json!("Forbidden")));
        let told = refused.told.unwrap();
        assert_eq!((told.denied, told.reason, told.message.as_str()), (true, "InvalidException", message));
    }
}

#[tokio::test]
async fn its_spec_stays_as_it_was_made_while_labels_may_change() {
    let old = exception(&ahead(1), "why");
    let longer = answer(&review("UPDATE", exception(&ahead(2), "why"), old.clone()));
    assert!(response(&longer)["status"]["message"].as_str().unwrap().contains("cannot be changed"));
    assert!(longer.told.unwrap().denied);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    // The same, written in another order.
    let spec = format!(r#"{{"until":{},"reason":"why","guards":{{"all":true}}}}"#, old["spec"]["until"]);
    labelled["spec"] = serde_json::from_str(&spec).unwrap();
    let same = answer(&review("UPDATE", labelled, old));
    assert_eq!((same.verdict, same.told.is_none()), ("allow", true));
}

#[tokio::test]
async fn ending_one_is_never_refused_whatever_it_says() {
    let deleted = answer(&review("DELETE", Value::Null, exception("soon", "why")));
    assert_eq!(response(&deleted)["allowed"], true);
    let told = deleted.told.unwrap();
    assert_eq!((told.reason, told.denied), ("ExceptionDeleted", false));
    assert!(matches!(told.kind, OwnKind::Exception { until: None, .. }));
}
