//! What stands there while the glass is broken, and what is told of it.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::server::VALIDATING;
use super::{GlassTurn, Rig};
use crate::api::names;

impl Rig {
    /// With the entries for a guard `a` registered, and then opened since the glass is broken for an hour.
    async fn broken() -> Self {
        let mut rig = Self::registered().await;
        rig.break_glass(ahead(1));
        rig.apply(1, &["a"]).await;
        rig
    }

    /// Breaks the glass as the command does while no replica lives, but for the entries.
    fn break_glass(&self, until: Timestamp) {
        self.alter(|object| {
            let annotations = &mut object["metadata"]["annotations"];
            annotations[names::ANNOTATION_BREAKGLASS_UNTIL] = json!(until.to_string());
            annotations[names::ANNOTATION_BREAKGLASS_BY] = json!("alice");
            annotations[names::ANNOTATION_BREAKGLASS_REASON] = json!("incident 8");
        });
    }
}

fn ahead(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

/// What stands in the validating configuration about broken glass.
fn noted(rig: &Rig) -> Vec<String> {
    let annotations = rig.server.annotations(VALIDATING);
    let keys = annotations.as_object().unwrap().keys().filter(|key| key.contains("breakglass"));
    keys.map(|key| key.rsplit_once("/breakglass-").unwrap().1.to_owned()).collect()
}

const OPEN: [&str; 2] = [
    "write-fail.configmaps.v1.core /validate/g2/ignore/broken",
    "delete-ignore.configmaps.v1.core /validate/g2/ignore/broken",
];

#[tokio::test(start_paused = true)]
async fn broken_glass_leaves_every_review_and_lets_none_refuse() {
    let mut rig = Rig::registered().await;
    rig.break_glass(ahead(1));
    let applied = rig.apply(1, &["a"]).await;
    let broken = applied.broken.unwrap();
    assert_eq!((broken.by.as_str(), broken.reason.as_str()), ("alice", "incident 8"));
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(glass)] if glass.by == "alice"));
    assert_eq!(applied.repaired, None, "whoever broke it altered nothing");
    assert_eq!(rig.server.entries(), OPEN);
    let stored = rig.server.webhooks(VALIDATING);
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
    let rig = Rig::broken().await;
    let mut other = Rig::on(rig.server.clone());
    let applied = other.apply(1, &["a"]).await;
    assert!(applied.broken.is_some() && applied.glass.is_empty(), "{applied:?}");
    assert!(!applied.written, "nor does it count anew");
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_says_but_never_later_than_is_allowed() {
    for (until, seen) in [(ahead(-1), ahead(-2)), (ahead(20), ahead(-9))] {
        let mut rig = Rig::registered().await;
        rig.break_glass(until);
        rig.alter(|object| {
            object["metadata"]["annotations"][names::ANNOTATION_BREAKGLASS_SEEN] = json!(seen.to_string());
            object["webhooks"][0]["failurePolicy"] = json!("Ignore");
        });
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
    let mut rig = Rig::registered().await;
    rig.break_glass(ahead(-1));
    let applied = rig.apply(1, &["a"]).await;
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(_), GlassTurn::Mended(_)]), "{applied:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_ends_it_is_told_even_when_the_rules_are_right_already() {
    let mut rig = Rig::broken().await;
    rig.alter(|object| {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove(names::ANNOTATION_BREAKGLASS_UNTIL);
        annotations.insert(names::ANNOTATION_BREAKGLASS_ENDED_BY.to_owned(), json!("bob"));
    });
    let applied = rig.apply(1, &["a"]).await;
    let [GlassTurn::Mended(glass)] = &applied.glass[..] else { panic!("{applied:?}") };
    assert_eq!((glass.by.as_str(), glass.ended_by.as_deref()), ("alice", Some("bob")));
    assert_eq!((applied.broken, applied.repaired), (None, None));
    assert!(rig.server.entries()[0].ends_with("/validate/g3/fail"), "{:?}", rig.server.entries());
    assert!(noted(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn broken_again_it_is_told_again_and_is_no_alteration() {
    let mut rig = Rig::broken().await;
    rig.alter(|object| {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove(names::ANNOTATION_BREAKGLASS_SEEN);
    });
    let applied = rig.apply(1, &["a"]).await;
    assert!(matches!(&applied.glass[..], [GlassTurn::Broken(_)]), "{applied:?}");
    assert_eq!(applied.repaired, None);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_read_breaks_nothing() {
    let mut rig = Rig::registered().await;
    rig.alter(|object| {
        object["metadata"]["annotations"][names::ANNOTATION_BREAKGLASS_UNTIL] = json!("some day");
    });
    let applied = rig.apply(1, &["a"]).await;
    assert_eq!(applied.broken, None);
    assert!(noted(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn guards_that_come_while_it_is_broken_are_registered_open() {
    let mut rig = Rig::broken().await;
    let applied = rig.apply(2, &["a", "b"]).await;
    assert!(applied.written && applied.glass.is_empty());
    assert!(rig.server.entries().iter().all(|entry| entry.ends_with("/validate/g3/ignore/broken")));
}
