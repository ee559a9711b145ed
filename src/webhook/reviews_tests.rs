//! What a review is answered, and what is told of it.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without an answer should stop.

use serde_json::{Value, json};

use super::telling::bound;
use super::*;
use crate::core::guard::{DeletionPolicy, Enforcement, Guard, GuardState};
use crate::webhook::test_support::{APPROVED, LiveRead, TestGuards, cut_off, review, reviews};

#[path = "reviews/second_look_tests.rs"]
mod second_look;

struct Answered {
    response: Value,
    records: Vec<Value>,
    page: String,
}

async fn ask(guards: TestGuards, path: &str, body: &[u8]) -> (Reply, Vec<Value>, String) {
    let metrics = Arc::new(Metrics::default());
    let (reviews, written, writer) = reviews(guards, &metrics);
    let (route, _) = Route::parse(path).unwrap();
    let asked = Asked { route, since: Instant::now(), timeout: Duration::from_millis(100) };
    let reply = reviews.validate(body, asked).await;
    drop(reviews);
    writer.join().unwrap();
    let bytes = written.0.lock().unwrap().clone();
    let records =
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (reply, records, metrics.encode().unwrap())
}

async fn answered(guards: TestGuards, path: &str, review: &Value) -> Answered {
    let (reply, records, page) = ask(guards, path, review.to_string().as_bytes()).await;
    let Reply::Review(answer) = reply else { panic!("{reply:?}") };
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    Answered { response: answer["response"].take(), records, page }
}

#[tokio::test]
async fn approved_content_passes_without_a_word() {
    let answered = answered(TestGuards::known(), "g1/fail", &review("u", APPROVED)).await;
    assert_eq!(answered.response, json!({"uid": "u", "allowed": true}));
    assert!(answered.records.is_empty());
    let counted = r#"reviews_total{verdict="allow",reason="Approved"} 1"#;
    assert!(answered.page.contains(counted), "{}", answered.page);
}

#[tokio::test]
async fn other_content_is_refused_and_recorded() {
    let answered = answered(TestGuards::known(), "g1/fail", &review("u", "101")).await;
    assert_eq!(answered.response["allowed"], false);
    assert_eq!(answered.response["status"]["code"], 403);
    let [record] = answered.records.as_slice() else { panic!("{:?}", answered.records) };
    assert_eq!(record["kind"], "denial");
    assert_eq!(record["guard"]["name"], "market-settings-guard");
    assert_eq!(record["user"]["name"], "jane");
    assert_eq!(record["reviewUid"], "u");
    assert_eq!(record["message"], answered.response["status"]["message"]);
    assert_eq!(record["replica"], "replica-1");
    assert_eq!(record["authenticated"], false);
    // By which the API server's audit log and the trail are joined.
    assert_eq!(
        answered.response["auditAnnotations"],
        json!({"verdict": "deny", "reason": "HashMismatch", "guard": "trading/market-settings-guard",
            "transaction-id": record["transactionId"]})
    );
}

#[tokio::test]
async fn a_dry_run_gets_the_same_answer_and_is_not_recorded() {
    let mut dry = review("u", "101");
    dry["request"]["dryRun"] = true.into();
    let mut wet = answered(TestGuards::known(), "g1/fail", &review("u", "101")).await;
    let dry = answered(TestGuards::known(), "g1/fail", &dry).await;
    // But for the record, of which there is none.
    wet.response["auditAnnotations"].as_object_mut().unwrap().remove("transaction-id").unwrap();
    assert_eq!(dry.response, wet.response);
    assert!(dry.records.is_empty());
}

#[tokio::test]
async fn a_guard_that_the_index_does_not_know_yet_is_read_live() {
    let guards = TestGuards::unknown(LiveRead::FindsTheGuard);
    let answered = answered(guards, "g1/ignore", &review("u", "101")).await;
    assert_eq!(answered.response["allowed"], false);
    assert!(answered.page.contains(r#"live_reads_total{result="found"} 1"#), "{}", answered.page);
}

#[tokio::test]
async fn what_nothing_guards_passes() {
    let answered = answered(TestGuards::unknown(LiveRead::Nothing), "g1/fail", &review("u", "101")).await;
    assert_eq!(answered.response, json!({"uid": "u", "allowed": true}));
    assert!(answered.records.is_empty());
}

#[tokio::test]
async fn when_guards_cannot_be_read_the_failure_policy_decides() {
    for live in [LiveRead::Fails, LiveRead::NeverEnds] {
        let refused = answered(TestGuards::unknown(live), "g1/fail", &review("u", "101")).await;
        assert_eq!(refused.response["allowed"], false);
        assert_eq!(refused.records[0]["reason"], "GuardsUnread");
        assert_eq!(refused.records[0]["kind"], "denial");
        let passed = answered(TestGuards::unknown(live), "g1/ignore", &review("u", "101")).await;
        assert_eq!(passed.response["allowed"], true);
        assert_eq!(passed.response["warnings"].as_array().unwrap().len(), 1);
        assert_eq!(passed.records[0]["target"]["name"], "market-settings");
        assert_eq!(passed.records[0]["kind"], "observation");
    }
}

#[tokio::test]
async fn a_dry_run_whose_guards_cannot_be_read_is_not_recorded() {
    let mut dry = review("u", "101");
    dry["request"]["dryRun"] = true.into();
    let answered = answered(TestGuards::unknown(LiveRead::Fails), "g1/fail", &dry).await;
    assert_eq!(answered.response["allowed"], false);
    assert!(answered.records.is_empty());
}

/// Whether every series of a counter, of which there are some from the start, is at zero.
fn is_zero(page: &str, counter: &str) -> bool {
    let of_counter = format!("{counter}{{");
    let mut series = page.lines().filter(|line| line.contains(&of_counter)).peekable();
    series.peek().is_some() && series.all(|line| line.ends_with(" 0"))
}

#[tokio::test]
async fn guards_themselves_cost_no_live_read() {
    let mut own = review("u", "101");
    own["request"]["resource"] =
        json!({"group": "terrafusion.ai", "version": "v1", "resource": "driftguards"});
    let answered = answered(TestGuards::unknown(LiveRead::NeverEnds), "g1/fail", &own).await;
    assert_eq!(answered.response["allowed"], true);
    assert!(is_zero(&answered.page, "live_reads_total"), "{}", answered.page);
}

#[tokio::test]
async fn a_proof_is_answered_with_replica_and_generation_whatever_the_verdict() {
    for price in [APPROVED, "101"] {
        let mut proof = review("u", price);
        proof["request"]["dryRun"] = true.into();
        proof["request"]["options"]["fieldManager"] = "driftguard-proof-n0nce".into();
        let answered = answered(TestGuards::known(), "g17/fail", &proof).await;
        assert_eq!(
            answered.response["warnings"][0],
            "driftguard-proof-n0nce replica=replica-1 generation=17"
        );
    }
}

#[tokio::test]
async fn an_undecodable_review_is_refused_under_its_own_uid() {
    let (reply, records, _) = ask(TestGuards::known(), "g1/fail", cut_off("u-7").as_bytes()).await;
    let Reply::Review(answer) = reply else { panic!("{reply:?}") };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["response"]["uid"], "u-7");
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(records[0]["reason"], "Undecodable");
    let (reply, records, _) = ask(TestGuards::known(), "g1/fail", b"no review").await;
    assert!(matches!(reply, Reply::Failed(StatusCode::BAD_REQUEST, _)), "{reply:?}");
    assert!(records.is_empty());
}

/// The test's guard, changed.
fn changed(change: impl FnOnce(&mut Guard)) -> GuardState {
    let GuardState::Valid(guard) = crate::webhook::test_support::guard() else { panic!("no guard") };
    let mut guard = (*guard).clone();
    change(&mut guard);
    GuardState::Valid(Arc::new(guard))
}

fn guarded(change: impl FnOnce(&mut Guard), live: LiveRead) -> TestGuards {
    TestGuards { index: Arc::new(Index::build(vec![changed(change)])), ..TestGuards::unknown(live) }
}

async fn mutated(guards: TestGuards, price: &str) -> Value {
    let metrics = Arc::new(Metrics::default());
    let (reviews, written, writer) = reviews(guards, &metrics);
    let (route, _) = Route::parse("g1/ignore").unwrap();
    let asked = Asked { route, since: Instant::now(), timeout: Duration::from_secs(5) };
    let reply = reviews.mutate(review("u", price).to_string().as_bytes(), asked).await;
    drop(reviews);
    writer.join().unwrap();
    assert!(written.0.lock().unwrap().is_empty(), "the mutating hook records nothing");
    let Reply::Review(answer) = reply else { panic!("{reply:?}") };
    serde_json::from_slice::<Value>(&answer).unwrap()["response"].take()
}

#[tokio::test]
async fn the_mutating_hook_puts_back_for_guards_that_ask_for_it_and_never_refuses() {
    use base64::Engine as _;
    let plain = json!({"uid": "u", "allowed": true});
    assert_eq!(mutated(TestGuards::known(), "101").await, plain);
    // What the index does not know is left to the gate.
    assert_eq!(mutated(TestGuards::unknown(LiveRead::NeverEnds), "101").await, plain);
    let rewrites = || guarded(|guard| guard.enforcement = Enforcement::Rewrite, LiveRead::Nothing);
    assert_eq!(mutated(rewrites(), APPROVED).await, plain);
    let answer = mutated(rewrites(), "101").await;
    assert_eq!((answer["allowed"].as_bool(), answer["patchType"].as_str()), (Some(true), Some("JSONPatch")));
    let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&patch).unwrap(),
        json!([{"op": "add", "path": "/data/price", "value": APPROVED}])
    );
    assert!(answer["warnings"][0].as_str().unwrap().contains("/data/price was put back"), "{answer}");
    assert_eq!(answer["auditAnnotations"], json!({"verdict": "rewrite", "reason": "HashMismatch"}));
}

#[tokio::test]
async fn what_a_deletion_leaves_open_is_read_once_and_goes_by_the_failure_policy_when_it_cannot_be() {
    let mut delete = review("u", APPROVED);
    delete["request"]["operation"] = "DELETE".into();
    delete["request"]["object"] = Value::Null;
    let kept = |live| guarded(|guard| guard.deletion_policy = DeletionPolicy::Deny, live);
    for live in [LiveRead::Fails, LiveRead::NeverEnds] {
        let refused = answered(kept(live), "g1/fail", &delete).await;
        assert_eq!(refused.response["allowed"], false);
        assert_eq!(refused.records[0]["reason"], "TargetUnread");
        assert!(refused.page.contains(r#"object_reads_total{result="failed"} 1"#), "{}", refused.page);
        let passed = answered(kept(live), "g1/ignore", &delete).await;
        assert_eq!(passed.response["allowed"], true);
        assert_eq!(passed.records[0]["kind"], "observation");
    }
    // A namespace that is gone strands nothing.
    let gone = answered(kept(LiveRead::Nothing), "g1/fail", &delete).await;
    assert_eq!(gone.response["allowed"], true);
}

#[test]
fn what_a_forged_review_may_make_large_is_cut() {
    let huge = "ü".repeat(1_000_000);
    let mut forged = review("u", "101");
    forged["request"]["userInfo"] = json!({"username": huge, "uid": huge, "groups": [huge]});
    let index = TestGuards::known().index;
    let judged = crate::core::judge::judge(forged.to_string().as_bytes(), &index, Timestamp::now()).unwrap();
    let Verdict::Deny { mut attempt, .. } = judged.verdict else { panic!("{judged:?}") };
    bound(&mut attempt);
    assert!(format!("{attempt:?}").len() < 10_000);
}

#[tokio::test]
async fn the_deletion_of_a_definition_that_guards_rely_on_passes_and_is_told() {
    let definition = json!({"metadata": {"name": "driftguards.terrafusion.ai"}, "spec": {}});
    let of = |dry: bool| {
        json!({"request": {
            "uid": "u", "operation": "DELETE", "userInfo": {"username": "eve"}, "dryRun": dry,
            "resource": {"group": "apiextensions.k8s.io", "version": "v1", "resource": "customresourcedefinitions"},
            "object": null, "oldObject": definition,
        }})
    };
    let mut told = answered(TestGuards::known(), "g1/ignore", &of(false)).await;
    assert_eq!(told.response["allowed"], true);
    assert_eq!(told.response["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(told.records[0]["reason"], "DefinitionDeleted");
    let noted = told.response["auditAnnotations"].as_object_mut().unwrap().remove("transaction-id");
    assert_eq!(noted.as_ref(), Some(&told.records[0]["transactionId"]));
    assert_eq!(told.records[0]["user"]["name"], "eve");
    assert!(told.page.contains(r#"definition_changes_total{result="deleted"} 1"#), "{}", told.page);
    let dry = answered(TestGuards::known(), "g1/ignore", &of(true)).await;
    assert_eq!(dry.response, told.response);
    assert!(dry.records.is_empty() && is_zero(&dry.page, "definition_changes_total"), "{}", dry.page);
}

#[tokio::test]
async fn forged_changes_of_definitions_raise_a_bounded_number_of_alarms() {
    let (reviews, ..) = reviews(TestGuards::known(), &Arc::new(Metrics::default()));
    let alarms = (0..10_000).filter(|_| reviews.may_alarm()).count();
    // One a second is added, however long this takes.
    assert!((10..100).contains(&alarms), "{alarms}");
}

#[tokio::test]
async fn while_the_glass_is_broken_what_would_be_refused_passes_and_is_recorded() {
    let answered = answered(TestGuards::known(), "g1/ignore/broken", &review("u", "101")).await;
    assert_eq!(answered.response["allowed"], true);
    let warning = answered.response["warnings"][0].as_str().unwrap();
    assert!(warning.contains("would refuse this UPDATE") && warning.contains("glass is broken"), "{warning}");
    assert!(warning.contains("/data/price"), "{warning}");
    let [record] = answered.records.as_slice() else { panic!("{:?}", answered.records) };
    assert_eq!((&record["kind"], &record["reason"]), (&json!("observation"), &json!("BrokenGlass")));
    assert_eq!((&record["user"]["name"], &record["paths"]), (&json!("jane"), &json!(["/data/price"])));
    let counted = r#"reviews_total{verdict="warn",reason="BrokenGlass"} 1"#;
    assert!(answered.page.contains(counted), "{}", answered.page);
}

#[tokio::test]
async fn while_the_glass_is_broken_approved_content_passes_without_a_word() {
    let answered = answered(TestGuards::known(), "g1/ignore/broken", &review("u", APPROVED)).await;
    assert_eq!(answered.response, json!({"uid": "u", "allowed": true}));
    assert!(answered.records.is_empty());
}

#[tokio::test]
async fn while_the_glass_is_broken_nothing_is_refused_for_not_being_known_or_read() {
    for live in [LiveRead::Fails, LiveRead::NeverEnds] {
        let passed = answered(TestGuards::unknown(live), "g1/ignore/broken", &review("u", "101")).await;
        assert_eq!(passed.response["allowed"], true, "{live:?}");
        assert_eq!(passed.records[0]["reason"], "GuardsUnread");
    }
    let body = cut_off("u-1");
    let (reply, records, _) = ask(TestGuards::known(), "g1/ignore/broken", body.as_bytes()).await;
    let Reply::Review(answer) = reply else { panic!("{reply:?}") };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("cannot read this write"));
    assert_eq!((&records[0]["kind"], &records[0]["reason"]), (&json!("observation"), &json!("Undecodable")));
}

#[tokio::test]
async fn while_the_glass_is_broken_nothing_is_put_back() {
    let metrics = Arc::new(Metrics::default());
    let (reviews, ..) = reviews(TestGuards::known(), &metrics);
    let asked = Asked {
        route: Route::parse("g1/ignore/broken").unwrap().0,
        since: Instant::now(),
        timeout: Duration::from_millis(100),
    };
    let Reply::Review(answer) = reviews.mutate(review("u", "101").to_string().as_bytes(), asked).await else {
        panic!("no answer")
    };
    assert!(!String::from_utf8(answer).unwrap().contains("patch"));
}
