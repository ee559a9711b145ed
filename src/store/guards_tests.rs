#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use serde_json::json;

use super::*;
use crate::core::guard::Enforcement;
use crate::core::kinds::KindEntry;

const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn guard(name: &str, kind: &str, revision: u64, status: i64) -> Stored {
    let text = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1,
                     "resourceVersion": revision.to_string()},
        "spec": {"targetKind": kind, "targetName": name, "expectedHash": HASH},
        "status": {"observedGeneration": status},
    });
    serde_json::from_str(&text.to_string()).unwrap()
}

fn catalog(kinds: &[&str]) -> Arc<Catalog> {
    let entry = |kind: &&str| KindEntry {
        group: "a.io".into(),
        version: "v1".into(),
        kind: (*kind).into(),
        plural: format!("{}s", kind.to_lowercase()),
        namespaced: true,
        preferred: true,
    };
    Arc::new(Catalog::new(kinds.iter().map(entry).collect()))
}

fn keeper() -> Keeper {
    Keeper::new(Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "own".into(),
        longest_pause: crate::core::pause::LONGEST,
    })
}

/// A keeper that has listed `guards` and knows Widgets.
fn synced(guards: Vec<Stored>) -> (Keeper, Observation) {
    let mut keeper = keeper();
    keeper.use_catalog(catalog(&["Widget"]));
    keeper.take(Event::Init);
    guards.into_iter().for_each(|guard| keeper.take(Event::InitApply(guard)));
    keeper.take(Event::InitDone);
    let observation = keeper.observe().unwrap();
    (keeper, observation)
}

fn names(observation: &Observation) -> Vec<String> {
    observation.guards.iter().map(|seen| seen.stored.id().name).collect()
}

#[test]
fn there_is_no_snapshot_before_both_guards_and_kinds_are_known() {
    let mut keeper = keeper();
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(guard("a", "Widget", 1, 0)));
    keeper.take(Event::InitDone);
    assert!(keeper.observe().is_none());
    keeper.use_catalog(catalog(&["Widget"]));
    let observation = keeper.observe().unwrap();
    assert_eq!(observation.version, 1);
    assert!(matches!(observation.guards[0].state, GuardState::Valid(_)));
}

#[test]
fn a_cluster_without_guards_is_a_snapshot_too() {
    let (_, observation) = synced(Vec::new());
    assert_eq!((observation.version, observation.guards.len()), (1, 0));
}

#[test]
fn an_applied_guard_is_in_the_index_and_a_deleted_one_is_not() {
    let (mut keeper, _) = synced(Vec::new());
    keeper.take(Event::Apply(guard("a", "Widget", 5, 0)));
    let added = keeper.observe().unwrap();
    assert_eq!((added.version, added.revision), (2, 5));
    assert!(added.index.lookup("a.io", "widgets", "n", "a").next().is_some());
    keeper.take(Event::Delete(guard("a", "Widget", 6, 0)));
    let removed = keeper.observe().unwrap();
    assert_eq!(removed.version, 3);
    assert!(removed.index.lookup("a.io", "widgets", "n", "a").next().is_none());
}

#[test]
fn a_change_of_the_status_alone_leaves_the_index_as_it_is() {
    let (mut keeper, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    keeper.take(Event::Apply(guard("a", "Widget", 2, 1)));
    let after = keeper.observe().unwrap();
    assert_eq!((after.version, after.revision), (before.version, 2));
    assert!(Arc::ptr_eq(&after.index, &before.index));
    assert_eq!(after.guards[0].since, before.guards[0].since);
    assert_eq!(after.guards[0].stored.status().observed_generation, Some(1));
}

#[test]
fn without_a_change_there_is_no_new_snapshot() {
    let (mut keeper, _) = synced(Vec::new());
    assert!(keeper.observe().is_none());
}

#[test]
fn a_new_list_replaces_the_old_guards_only_once_it_is_complete() {
    let (mut keeper, _) = synced(vec![guard("a", "Widget", 1, 0), guard("b", "Widget", 2, 0)]);
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(guard("b", "Widget", 2, 0)));
    assert!(keeper.observe().is_none());
    assert_eq!(keeper.guards.len(), 2);
    keeper.take(Event::InitApply(guard("c", "Widget", 3, 0)));
    keeper.take(Event::InitDone);
    let observation = keeper.observe().unwrap();
    assert_eq!(names(&observation), ["b", "c"]);
    assert_eq!(observation.guards[0].since, 1, "b did not change");
    assert_eq!(observation.guards[1].since, 2);
}

#[test]
fn a_guard_becomes_valid_when_its_kind_is_served() {
    let (mut keeper, before) = synced(vec![guard("a", "Widget", 1, 0), guard("g", "Gadget", 2, 0)]);
    assert!(keeper.unresolved().any);
    assert!(matches!(before.guards[1].state, GuardState::Invalid(_)));
    keeper.use_catalog(catalog(&["Widget", "Gadget"]));
    let after = keeper.observe().unwrap();
    assert!(!keeper.unresolved().any);
    assert!(matches!(after.guards[1].state, GuardState::Valid(_)));
    assert_eq!((after.guards[0].since, after.guards[1].since), (1, 2));
}

#[test]
fn another_unresolved_guard_is_noticed() {
    let (mut keeper, _) = synced(vec![guard("g", "Gadget", 2, 0)]);
    let before = keeper.unresolved();
    keeper.take(Event::Apply(guard("h", "Gadget", 3, 0)));
    keeper.observe().unwrap();
    assert_ne!(keeper.unresolved(), before);
}

#[test]
fn a_catalog_that_changes_nothing_leaves_the_index_as_it_is() {
    let (mut keeper, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    keeper.use_catalog(catalog(&["Other", "Widget"]));
    assert_eq!(keeper.observe().unwrap().version, before.version);
}

/// Widgets of these groups.
fn widgets_of(groups: &[&str]) -> Arc<Catalog> {
    let entries = catalog(&["Widget"]).entries().to_vec();
    let of = |group: &&str| KindEntry { group: (*group).into(), ..entries[0].clone() };
    Arc::new(Catalog::new(groups.iter().map(of).collect()))
}

#[test]
fn a_guard_goes_by_the_resource_that_was_found_whatever_discovery_says_later() {
    for later in [&[][..], &["a.io", "b.io"], &["b.io"], &["a.io", "apps"]] {
        let (mut keeper, before) = synced(vec![guard("a", "Widget", 1, 0)]);
        keeper.use_catalog(widgets_of(later));
        keeper.take(Event::Apply(guard("a", "Widget", 2, 1)));
        let after = keeper.observe().unwrap();
        assert!(after.guards[0].kept.is_some(), "{later:?}");
        assert_eq!(after.guards[0].state.target(), before.guards[0].state.target(), "{later:?}");
        keeper.use_catalog(widgets_of(&["a.io"]));
        let back = keeper.observe().unwrap();
        assert_eq!(back.guards[0].kept, None, "{later:?}");
        assert_eq!(back.guards[0].state.target(), before.guards[0].state.target(), "{later:?}");
    }
}

#[test]
fn a_guard_of_another_spec_means_what_discovery_says_now() {
    let (mut keeper, _) = synced(vec![guard("a", "Widget", 1, 0)]);
    keeper.use_catalog(widgets_of(&["b.io"]));
    let mut other = guard("a", "widget", 2, 0);
    keeper.take(Event::Apply(other.clone()));
    let observation = keeper.observe().unwrap();
    assert_eq!(observation.guards[0].state.target().unwrap().group, "b.io");
    assert_eq!(observation.guards[0].kept, None);
    // Nor does a guard of the same name inherit anything.
    keeper.use_catalog(widgets_of(&["c.io"]));
    kube::Resource::meta_mut(&mut other).uid = Some("another".into());
    keeper.take(Event::Apply(other));
    assert_eq!(keeper.observe().unwrap().guards[0].state.target().unwrap().group, "c.io");
}

#[test]
fn a_guard_made_anew_under_the_same_name_is_another_guard() {
    let (mut keeper, _) = synced(vec![guard("a", "Widget", 1, 0)]);
    let mut again = guard("a", "Widget", 7, 0);
    kube::Resource::meta_mut(&mut again).uid = Some("other".into());
    keeper.take(Event::Apply(again));
    assert_eq!(keeper.observe().unwrap().version, 2);
}

#[test]
fn a_server_that_streams_no_lists_is_listed_and_other_errors_are_waited_out() {
    let status = |code| {
        let status = kube::core::Status { code, ..kube::core::Status::failure("no", "Invalid") };
        watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)))
    };
    let mut list = InitialList::Streamed;
    assert_eq!(after(&status(403), &mut list), Restart::Never);
    assert_eq!(list, InitialList::Streamed);
    assert_eq!(after(&status(422), &mut list), Restart::Now);
    assert_eq!(list, InitialList::Listed);
    assert_eq!(after(&status(422), &mut list), Restart::Never);
    let broken = serde_json::from_str::<u8>("x").unwrap_err();
    let broken = watcher::Error::WatchFailed(kube::Error::SerdeError(broken));
    assert_eq!(after(&broken, &mut list), Restart::Later);
}

#[test]
fn a_promotion_counts_only_when_it_is_signed_and_comes_from_a_status_alone() {
    use crate::core::promotion::{Promotion, sign};
    use crate::core::signature::{KEY_LENGTH, SigningKey};

    let key = SigningKey::new(&[7; KEY_LENGTH]).unwrap();
    let at = "2026-01-01T00:00:00Z";
    let known = Promotion { clean_since: at.parse().unwrap(), promoted_at: Some(at.parse().unwrap()) };
    let audit = |revision: u64, signature: Option<String>| -> Stored {
        let noted = signature.map(|signature| {
            json!({"enforceAfterClean": {"cleanSince": at, "promotedAt": at, "signature": signature}})
        });
        let text = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "a", "generation": 1,
                         "resourceVersion": revision.to_string()},
            "spec": {"targetKind": "Widget", "targetName": "a", "expectedHash": HASH,
                     "enforcement": "Audit", "enforceAfterClean": "1h"},
            "status": noted.unwrap_or_default(),
        });
        serde_json::from_str(&text.to_string()).unwrap()
    };
    let enforcement = |observation: &Observation| match &observation.guards[0].state {
        GuardState::Valid(guard) => guard.enforcement,
        GuardState::Invalid(invalid) => panic!("{invalid:?}"),
    };
    let (mut keeper, first) = synced(vec![audit(1, None)]);
    assert_eq!(enforcement(&first), Enforcement::Audit);
    keeper.use_key(Some(key.clone()));
    let verified = keeper.observe().unwrap();
    assert_eq!(verified.guards[0].since, first.guards[0].since, "the guard is no other one for that");
    keeper.take(Event::Apply(audit(2, Some(sign(&key, "b", 1, &known)))));
    let forged = keeper.observe().unwrap();
    assert_eq!((enforcement(&forged), forged.version), (Enforcement::Audit, verified.version));
    keeper.take(Event::Apply(audit(3, Some(sign(&key, "a", 1, &known)))));
    let promoted = keeper.observe().unwrap();
    assert_eq!((enforcement(&promoted), promoted.guards[0].needed), (Enforcement::Deny, 3));
    assert!(promoted.version > verified.version, "others have to follow, and the rules as well");
    keeper.use_key(None);
    assert_eq!(enforcement(&keeper.observe().unwrap()), Enforcement::Deny, "nothing disproves it");
    keeper.use_key(Some(key.clone()));
    for (revision, erased) in [(4, None), (5, Some("forged".to_owned()))] {
        keeper.take(Event::Apply(audit(revision, erased)));
        let erased = keeper.observe().unwrap();
        assert_eq!(enforcement(&erased), Enforcement::Deny, "it never goes back by itself");
        let seen = &erased.guards[0].stored;
        assert_eq!(super::super::convert::promotion(seen, &key), Some(known), "to be written back");
        assert_ne!(
            seen.status().enforce_after_clean.map(|noted| noted.signature),
            Some(sign(&key, "a", 1, &known))
        );
    }
    keeper.take(Event::Apply(
        serde_json::from_str(
            &json!({
                "metadata": {"name": "a", "namespace": "n", "uid": "a", "generation": 2, "resourceVersion": "6"},
                "spec": {"targetKind": "Widget", "targetName": "a", "expectedHash": HASH,
                         "enforcement": "Audit", "enforceAfterClean": "2h"},
            })
            .to_string(),
        )
        .unwrap(),
    ));
    assert_eq!(enforcement(&keeper.observe().unwrap()), Enforcement::Audit, "another spec begins anew");
}

#[test]
fn a_status_does_not_change_what_others_have_to_have_applied() {
    let (mut keeper, first) = synced(vec![guard("a", "Widget", 4, 0)]);
    assert_eq!((first.guards[0].needed, first.revision), (4, 4));
    keeper.take(Event::Apply(guard("a", "Widget", 9, 1)));
    let later = keeper.observe().unwrap();
    assert_eq!((later.guards[0].needed, later.revision), (4, 9));
}
