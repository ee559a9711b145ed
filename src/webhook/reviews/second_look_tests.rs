//! Guards that were stored since the index was: what a second look at them makes of a verdict.

use super::*;

/// Guards of which the index holds `known`, while `stored` is what a look finds.
fn lagging(known: impl FnOnce(&mut Guard), stored: Vec<GuardState>) -> TestGuards {
    TestGuards { stored: Some(stored), ..guarded(known, LiveRead::Nothing) }
}

/// As whoever approves `price` stores the guard.
fn approving(price: &str, enforcement: Enforcement) -> GuardState {
    let content = crate::webhook::test_support::configmap(price).to_string();
    changed(|guard| {
        guard.expected = crate::core::canonical::hash_object(content.as_bytes(), &guard.scope).unwrap();
        (guard.generation, guard.enforcement) = (guard.generation + 1, enforcement);
    })
}

fn looks(page: &str, result: &str) -> Option<u32> {
    let series = format!(r#"guard_looks_total{{result="{result}"}} "#);
    page.lines().find_map(|line| line.split_once(&series)?.1.parse().ok())
}

#[tokio::test]
async fn content_that_was_approved_since_passes_whatever_the_index_still_holds() {
    let modes = [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Warn, Enforcement::Audit];
    for before in modes {
        for after in modes {
            let guards = lagging(|guard| guard.enforcement = before, vec![approving("101", after)]);
            let answered = answered(guards, "g1/fail", &review("u", "101")).await;
            assert_eq!(answered.response, json!({"uid": "u", "allowed": true}), "{before:?} {after:?}");
            assert!(answered.records.is_empty(), "{:?}", answered.records);
            assert_eq!(looks(&answered.page, "found"), Some(1));
        }
    }
}

#[tokio::test]
async fn what_a_newer_guard_refuses_is_refused_by_that_one() {
    let stored = vec![approving("102", Enforcement::Deny)];
    let answered = answered(lagging(|_| {}, stored), "g1/fail", &review("u", "101")).await;
    assert_eq!(answered.response["allowed"], false);
    assert_eq!(answered.records.len(), 1, "{:?}", answered.records);
    assert_eq!(answered.records[0]["guard"]["generation"], 4);
}

#[tokio::test]
async fn while_a_guard_cannot_be_looked_at_what_is_known_of_it_decides() {
    for live in [LiveRead::Fails, LiveRead::NeverEnds] {
        for path in ["g1/fail", "g1/ignore"] {
            let guards = TestGuards { live, ..TestGuards::known() };
            let answered = answered(guards, path, &review("u", "101")).await;
            assert_eq!(answered.response["allowed"], false, "{live:?} {path}");
            assert_eq!(answered.records[0]["reason"], "HashMismatch");
        }
    }
}

#[tokio::test]
async fn a_guard_that_is_gone_by_now_refuses_nothing_unless_another_one_has_come() {
    let answered_by = async |live| {
        let guards = TestGuards { live, ..lagging(|_| {}, Vec::new()) };
        answered(guards, "g1/fail", &review("u", "101")).await
    };
    let gone = answered_by(LiveRead::Nothing).await;
    assert_eq!(gone.response, json!({"uid": "u", "allowed": true}));
    assert_eq!((looks(&gone.page, "none"), gone.records.len()), (Some(1), 0));
    let renamed = answered_by(LiveRead::FindsTheGuard).await;
    assert_eq!(renamed.response["allowed"], false);
}

#[tokio::test]
async fn a_guard_that_stands_refuses_whatever_becomes_of_another_one() {
    let named = |name: &str| changed(|guard| guard.id.name = name.into());
    for live in [LiveRead::Nothing, LiveRead::Fails, LiveRead::NeverEnds] {
        for path in ["g1/fail", "g1/ignore"] {
            let index = Arc::new(Index::build(vec![named("gone"), named("stands")]));
            let guards =
                TestGuards { index, stored: Some(vec![named("stands")]), ..TestGuards::unknown(live) };
            let answered = answered(guards, path, &review("u", "101")).await;
            assert_eq!(answered.response["allowed"], false, "{live:?} {path}");
            assert_eq!(answered.records[0]["reason"], "HashMismatch");
            assert_eq!(answered.records[0]["guard"]["name"], "stands");
            assert!(is_zero(&answered.page, "live_reads_total"), "{}", answered.page);
        }
    }
}

#[tokio::test]
async fn while_the_guards_of_an_object_cannot_be_listed_what_is_known_of_one_that_is_gone_decides() {
    for live in [LiveRead::Fails, LiveRead::NeverEnds] {
        for path in ["g1/fail", "g1/ignore"] {
            let alone = TestGuards { live, ..lagging(|_| {}, Vec::new()) };
            // One is gone, and the other one approves by now.
            let index = Arc::new(Index::build(vec![
                changed(|guard| guard.id.name = "other".into()),
                changed(|_| {}),
            ]));
            let stored = Some(vec![approving("101", Enforcement::Deny)]);
            let one_of_two = TestGuards { index, stored, ..TestGuards::unknown(live) };
            for guards in [alone, one_of_two] {
                let answered = answered(guards, path, &review("u", "101")).await;
                assert_eq!(answered.response["allowed"], false, "{live:?} {path}");
                assert_eq!(answered.records[0]["reason"], "HashMismatch");
            }
        }
    }
}

#[tokio::test]
async fn what_was_read_for_the_first_verdict_is_not_read_again_for_the_second() {
    let mut delete = review("u", APPROVED);
    delete["request"]["operation"] = "DELETE".into();
    delete["request"]["object"] = Value::Null;
    let kept = |guard: &mut Guard| guard.deletion_policy = DeletionPolicy::Deny;
    let newer = changed(|guard| {
        kept(guard);
        guard.generation += 1;
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "trading"}});
    for live in [LiveRead::Fails, LiveRead::NeverEnds, LiveRead::Nothing] {
        let object = Mutex::new(Some(namespace.to_string().into_bytes()));
        let guards = TestGuards { live, object, ..lagging(kept, vec![newer.clone()]) };
        let refused = answered(guards, "g1/ignore", &delete).await;
        assert_eq!(refused.response["allowed"], false, "{live:?}");
        assert_eq!(refused.records[0]["reason"], "TargetDeleted");
        assert_eq!(refused.records[0]["guard"]["generation"], 4);
        assert!(refused.page.contains(r#"object_reads_total{result="found"} 1"#), "{}", refused.page);
    }
}

#[tokio::test]
async fn what_the_guards_of_the_index_approve_or_leave_as_it_is_costs_no_look() {
    let never = || TestGuards { live: LiveRead::NeverEnds, ..TestGuards::known() };
    let approved = answered(never(), "g1/fail", &review("u", APPROVED)).await;
    let mut labels = review("u", "101");
    labels["request"]["oldObject"] = labels["request"]["object"].clone();
    let drifted = answered(never(), "g1/fail", &labels).await;
    let mut delete = review("u", APPROVED);
    delete["request"]["operation"] = "DELETE".into();
    delete["request"]["object"] = Value::Null;
    let deleted = answered(never(), "g1/fail", &delete).await;
    for answered in [approved, drifted, deleted] {
        assert_eq!(answered.response["allowed"], true);
        assert!(is_zero(&answered.page, "guard_looks_total"), "{}", answered.page);
    }
}

#[tokio::test]
async fn a_deletion_that_a_guard_allows_by_now_is_not_refused() {
    let mut delete = review("u", APPROVED);
    delete["request"]["operation"] = "DELETE".into();
    delete["request"]["object"] = Value::Null;
    // Of a cluster-scoped object no namespace is read.
    delete["request"]["oldObject"]["metadata"]["namespace"] = "".into();
    delete["request"]["namespace"] = "".into();
    let kept = |guard: &mut Guard| {
        guard.deletion_policy = DeletionPolicy::Deny;
        guard.target.namespace = None;
    };
    let refused = answered(lagging(kept, vec![changed(kept)]), "g1/fail", &delete).await;
    assert_eq!(refused.response["allowed"], false);
    let released = changed(|guard| guard.target.namespace = None);
    let passed = answered(lagging(kept, vec![released]), "g1/fail", &delete).await;
    assert_eq!(passed.response["allowed"], true);
}

#[tokio::test]
async fn nothing_is_put_back_over_content_that_was_approved_since() {
    let plain = json!({"uid": "u", "allowed": true});
    let rewrites = |guard: &mut Guard| guard.enforcement = Enforcement::Rewrite;
    let by = |stored| mutated(lagging(rewrites, stored), "101");
    assert_eq!(by(vec![approving("101", Enforcement::Rewrite)]).await, plain);
    assert_eq!(by(vec![approving("101", Enforcement::Deny)]).await, plain);
    assert_eq!(by(Vec::new()).await, plain, "the guard is gone");
    // What is stored is not what the newer guard approves: the gate refuses.
    assert_eq!(by(vec![approving("102", Enforcement::Rewrite)]).await, plain);
    let again = by(vec![approving(APPROVED, Enforcement::Rewrite)]).await;
    assert_eq!(again["patchType"], "JSONPatch", "{again}");
}

#[tokio::test]
async fn nothing_is_put_back_while_a_guard_cannot_be_looked_at() {
    let plain = json!({"uid": "u", "allowed": true});
    let guards = guarded(|guard| guard.enforcement = Enforcement::Rewrite, LiveRead::Fails);
    assert_eq!(mutated(guards, "101").await, plain);
}

#[tokio::test]
async fn while_the_glass_is_broken_no_guard_is_looked_at() {
    let guards = TestGuards { live: LiveRead::NeverEnds, ..TestGuards::known() };
    let answered = answered(guards, "g1/ignore/broken", &review("u", "101")).await;
    assert_eq!(answered.response["allowed"], true);
    assert!(is_zero(&answered.page, "guard_looks_total"), "{}", answered.page);
}
