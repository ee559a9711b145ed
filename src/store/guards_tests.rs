#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;

use super::super::Store;
use super::super::live::Knowing;
use super::*;
use crate::core::guard::Enforcement;
use crate::core::text::Text;

const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn guard(name: &str, kind: &str, revision: u64, status: i64) -> Received {
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
        plural: format!("{}s", kind.to_lowercase()).into(),
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
fn synced(guards: Vec<Received>) -> (Keeper, Observation) {
    let mut keeper = keeper();
    keeper.use_catalog(catalog(&["Widget"]));
    keeper.take(Event::Init);
    guards.into_iter().for_each(|guard| keeper.take(Event::InitApply(guard)));
    keeper.take(Event::InitDone);
    let observation = keeper.observe().unwrap();
    (keeper, observation)
}

fn names(observation: &Observation) -> Vec<String> {
    observation.guards.iter().map(|seen| seen.stored.id().name.to_string()).collect()
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

#[tokio::test(start_paused = true)]
async fn kinds_that_were_read_before_guards_were_watched_are_used() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let bookmark = json!({"type": "BOOKMARK", "object": {
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}}});
        let listed = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{bookmark}\n"))))]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(listed.chain(stream::pending()))))
    });
    let (store, _) = Store::new(Client::new(service, "default"), keeper().settings);
    store.shared.catalog.send_replace(Some(catalog(&["Widget"])));
    store.shared.exceptions.send_replace(Some(Arc::default()));
    let unresolved = watch::Sender::default();
    tokio::select! {
        () = keep(&store.shared, &unresolved) => panic!("it ended"),
        synced = tokio::time::timeout(Duration::from_secs(60), store.synced()) => synced.unwrap(),
    }
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
    assert_ne!(after.guards[0].stored.status(), before.guards[0].stored.status());
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

/// Widgets of a.io in these versions; a path stands for the subresource `scale`.
fn versions(served: &[(&str, Option<&str>)]) -> Arc<Catalog> {
    let entries = catalog(&["Widget"]).entries().to_vec();
    let of = |(version, _): &(&str, Option<&str>)| KindEntry {
        version: (*version).into(),
        preferred: *version == served[0].0,
        ..entries[0].clone()
    };
    let path = |(version, path): &(&str, Option<&str>)| {
        let keys: Arc<[String]> = Arc::new(["spec".to_owned(), (*path)?.to_owned()]);
        Some((("a.io".to_owned(), (*version).to_owned(), "widgets".to_owned()), keys))
    };
    let paths = served.iter().filter_map(path).collect();
    Arc::new(Catalog::new(served.iter().map(of).collect()).with_replicas_paths(paths))
}

fn guard_in(version: &str, revision: u64) -> Received {
    let text = json!({
        "metadata": {"name": "a", "namespace": "n", "uid": "a", "generation": 1,
                     "resourceVersion": revision.to_string()},
        "spec": {"targetKind": "Widget", "targetApiVersion": format!("a.io/{version}"), "targetName": "a",
                 "expectedHash": HASH},
    });
    serde_json::from_str(&text.to_string()).unwrap()
}

fn valid(observation: &Observation) -> &crate::core::guard::Guard {
    match &observation.guards[0].state {
        GuardState::Valid(guard) => guard,
        GuardState::Invalid(invalid) => panic!("{invalid:?}"),
    }
}

#[test]
fn a_guard_whose_version_goes_asks_for_the_versions_that_are_left() {
    let mut keeper = keeper();
    keeper.use_catalog(versions(&[("v1", None), ("v1alpha1", None)]));
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(guard_in("v1alpha1", 1)));
    keeper.take(Event::InitDone);
    let before = keeper.observe().unwrap();
    assert_eq!(valid(&before).written_in().collect::<Vec<_>>(), ["v1alpha1"]);
    keeper.use_catalog(versions(&[("v1", None)]));
    let gone = keeper.observe().unwrap();
    assert!(gone.guards[0].kept.is_some() && valid(&gone).versions.is_gone);
    assert_eq!(valid(&gone).written_in().collect::<Vec<_>>(), ["v1alpha1", "v1"]);
    assert!(gone.version > before.version, "the rules have to follow");
    keeper.use_catalog(versions(&[("v2", None), ("v1", None)]));
    let more = keeper.observe().unwrap();
    assert_eq!(valid(&more).written_in().collect::<Vec<_>>(), ["v1alpha1", "v1", "v2"]);
    keeper.use_catalog(catalog(&[]));
    assert!(valid(&keeper.observe().unwrap()).versions.is_gone, "nothing of it is left");
}

#[test]
fn scaling_is_asked_for_in_whichever_version_it_is_served() {
    let mut keeper = keeper();
    keeper.use_catalog(versions(&[("v1", None), ("v1alpha1", None)]));
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(guard_in("v1alpha1", 1)));
    keeper.take(Event::InitDone);
    assert_eq!(valid(&keeper.observe().unwrap()).scaled_in(), None);
    // Its CRD gets the subresource later, and only in another version.
    keeper.use_catalog(versions(&[("v1", Some("replicas")), ("v1alpha1", None)]));
    assert_eq!(valid(&keeper.observe().unwrap()).scaled_in(), Some("v1"));
    keeper.use_catalog(versions(&[("v1", Some("size")), ("v1alpha1", Some("replicas"))]));
    assert_eq!(valid(&keeper.observe().unwrap()).scaled_in(), Some("v1alpha1"));
    // Another kind of that name comes: the guard goes on, and so does its count.
    let mut entries = versions(&[("v1", None), ("v1alpha1", None)]).entries().to_vec();
    entries.push(KindEntry { group: "b.io".into(), ..entries[0].clone() });
    let paths = versions(&[("v1alpha1", Some("replicas"))]).replicas_paths().clone();
    keeper.use_catalog(Arc::new(Catalog::new(entries).with_replicas_paths(paths)));
    assert_eq!(valid(&keeper.observe().unwrap()).scaled_in(), Some("v1alpha1"));
    keeper.use_catalog(versions(&[("v1", Some("replicas"))]));
    assert_eq!(valid(&keeper.observe().unwrap()).scaled_in(), Some("v1"), "its own version is gone");
}

#[test]
fn a_live_read_goes_by_the_resource_that_was_found_as_well() {
    let (keeper, before) = synced(vec![guard("a", "Widget", 1, 0), guard("b", "Widget", 2, 0)]);
    let ambiguous = widgets_of(&["a.io", "b.io"]);
    let listed = [guard("b", "Widget", 9, 1), guard("c", "Widget", 10, 0)];
    let knowing = knowing(&before, &ambiguous, &keeper, None);
    let read = listed.map(|received| knowing.converted(received.into()));
    assert_eq!(read[0].target(), before.guards[1].state.target());
    assert!(read[0].target().is_some() && read[1].target().is_none(), "c was never seen");
}

fn knowing<'a>(
    observation: &'a Observation,
    catalog: &'a Catalog,
    keeper: &'a Keeper,
    key: Option<&'a SigningKey>,
) -> Knowing<'a> {
    Knowing { observation, exceptions: &keeper.exceptions, catalog, settings: &keeper.settings, key }
}

/// The guard with another spec, as it is stored at `revision`.
fn edited(name: &str, generation: i64, revision: u64) -> Received {
    let text = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "generation": generation,
                     "resourceVersion": revision.to_string()},
        "spec": {"targetKind": "Widget", "targetName": name, "expectedHash": "0".repeat(64)},
    });
    serde_json::from_str(&text.to_string()).unwrap()
}

#[test]
fn a_look_brings_what_is_stored_since_and_never_what_is_older_than_the_index() {
    let (mut keeper, before) = synced(vec![guard("a", "Widget", 5, 0)]);
    let known = before.guards[0].state.clone();
    let widgets = catalog(&["Widget"]);
    let look = |received: Received| knowing(&before, &widgets, &keeper, None).newest(received.into());
    for older in [edited("a", 0, 4), edited("a", 2, 5), edited("a", 2, 0)] {
        assert!(look(older).is_identical(&known));
    }
    let newer = look(edited("a", 2, 6));
    assert_eq!(newer.generation(), 2);
    keeper.take(Event::Apply(edited("a", 2, 6)));
    let told = &keeper.observe().unwrap().guards[0].state;
    let (GuardState::Valid(newer), GuardState::Valid(told)) = (&newer, told) else { panic!("{newer:?}") };
    assert_eq!(format!("{newer:?}"), format!("{told:?}"), "as when the watch tells of it");
}

#[test]
fn to_a_look_a_status_changes_nothing_that_nobody_of_us_has_signed() {
    let (keeper, before) = synced(vec![guard("a", "Widget", 5, 0)]);
    let widgets = catalog(&["Widget"]);
    let looked = knowing(&before, &widgets, &keeper, None).newest(guard("a", "Widget", 9, 7).into());
    assert!(looked.is_identical(&before.guards[0].state));
}

#[test]
fn a_look_at_a_guard_made_anew_under_the_same_name_finds_another_guard() {
    let (keeper, before) = synced(vec![guard("a", "Widget", 5, 0)]);
    let widgets = catalog(&["Widget"]);
    let mut again = guard("a", "Widget", 9, 0);
    kube::Resource::meta_mut(&mut again).uid = Some("other".into());
    let looked = knowing(&before, &widgets, &keeper, None).newest(again.into());
    assert_eq!(looked.uid().as_str(), "other");
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
    let audit = |revision: u64, signature: Option<String>| -> Received {
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
    let widgets = catalog(&["Widget"]);
    let read = knowing(&promoted, &widgets, &keeper, Some(&key));
    let read = [Knowing::newest, Knowing::converted].map(|by| by(&read, audit(9, None).into()));
    for read in read {
        let GuardState::Valid(read) = read else { panic!("{read:?}") };
        assert_eq!(read.enforcement, Enforcement::Deny, "whoever erases a status takes nothing back by it");
    }
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
            seen.status().enforce_after_clean().map(|noted| noted.signature.clone()),
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

fn key() -> SigningKey {
    SigningKey::new(&[7; crate::core::signature::KEY_LENGTH]).unwrap()
}

/// The guard with what the holder of the lease makes of it in its status.
fn noted(seen: &Seen, revision: u64) -> Received {
    let target = resolution::to_note(&seen.state, &seen.stored, &key()).unwrap();
    with_status(&seen.stored, revision, &json!({"resolvedTarget": target}))
}

fn with_status(stored: &Stored, revision: u64, status: &serde_json::Value) -> Received {
    let spec: serde_json::Value = serde_json::from_str(&stored.spec()).unwrap();
    let metadata = json!({"name": stored.id().name, "namespace": "n", "uid": stored.uid(),
        "generation": stored.generation(), "resourceVersion": revision.to_string()});
    serde_json::from_str(&json!({"metadata": metadata, "spec": spec, "status": status}).to_string()).unwrap()
}

/// A process that starts when these groups serve Widgets.
fn started(groups: &[&str], guard: Received) -> Keeper {
    let mut keeper = keeper();
    keeper.use_key(Some(key()));
    keeper.use_catalog(widgets_of(groups));
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(guard));
    keeper.take(Event::InitDone);
    keeper
}

fn group(keeper: &mut Keeper) -> Option<Text> {
    let observation = keeper.observe().unwrap();
    observation.guards[0].state.target().map(|target| target.group.clone())
}

#[test]
fn a_process_that_starts_goes_by_the_resource_that_was_signed() {
    let (_, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    let signed = noted(&before.guards[0], 2);
    for groups in [&[][..], &["b.io"], &["b.io", "c.io"], &["a.io", "apps"], &["a.io"]] {
        let mut keeper = started(groups, signed.clone());
        assert_eq!(group(&mut keeper).as_deref(), Some("a.io"), "{groups:?}");
        // Nor does it forget when somebody takes the status away.
        keeper.take(Event::Apply(with_status(&signed.clone().into(), 3, &json!({}))));
        keeper.use_catalog(widgets_of(&["c.io"]));
        assert_eq!(group(&mut keeper).as_deref(), Some("a.io"), "{groups:?}");
    }
}

#[test]
fn a_forged_or_copied_status_leaves_a_guard_to_discovery() {
    let (_, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    let seen = &before.guards[0];
    let honest = resolution::to_note(&seen.state, &seen.stored, &key()).unwrap();
    let mut of_another = guard("a", "Widget", 1, 0);
    kube::Resource::meta_mut(&mut of_another).uid = Some("another".into());
    let copied = resolution::to_note(&seen.state, &of_another.into(), &key()).unwrap();
    let mut of_former = guard("a", "Widget", 1, 0);
    kube::Resource::meta_mut(&mut of_former).generation = Some(0);
    let former = resolution::to_note(&seen.state, &of_former.into(), &key()).unwrap();
    let elsewhere = crate::api::status::ResolvedTarget { api_version: "evil.io/v1".into(), ..honest.clone() };
    let unsigned = crate::api::status::ResolvedTarget { signature: String::new(), ..honest };
    for forged in [copied, former, elsewhere, unsigned] {
        let status = json!({"resolvedTarget": forged});
        let mut keeper = started(&["b.io"], with_status(&seen.stored, 2, &status));
        assert_eq!(group(&mut keeper).as_deref(), Some("b.io"), "{forged:?}");
        // One that runs is not turned either.
        let mut keeper = started(&["b.io"], guard("a", "Widget", 1, 0));
        keeper.take(Event::Apply(with_status(&seen.stored, 2, &status)));
        assert_eq!(group(&mut keeper).as_deref(), Some("b.io"), "{forged:?}");
    }
}

#[test]
fn a_process_without_the_key_follows_the_others_once_it_has_it() {
    let (_, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    let mut keeper = keeper();
    keeper.use_catalog(widgets_of(&["b.io"]));
    keeper.take(Event::Init);
    keeper.take(Event::InitApply(noted(&before.guards[0], 2)));
    keeper.take(Event::InitDone);
    assert_eq!(group(&mut keeper).as_deref(), Some("b.io"));
    keeper.use_key(Some(key()));
    assert_eq!(group(&mut keeper).as_deref(), Some("a.io"));
}

#[test]
fn a_resource_that_is_kept_is_followed_to_the_version_that_is_served() {
    let (_, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    let of = |group: &str, version: &str| KindEntry {
        group: group.into(),
        version: version.into(),
        ..widgets_of(&["a.io"]).entries()[0].clone()
    };
    let path: Arc<[String]> = Arc::new(["spec".to_owned(), "size".to_owned()]);
    let scaled = [(("a.io".to_owned(), "v2".to_owned(), "widgets".to_owned()), path.clone())];
    let catalog = Catalog::new(vec![of("a.io", "v2"), of("b.io", "v1")]).with_replicas_paths(scaled.into());
    let mut keeper = started(&["a.io"], noted(&before.guards[0], 2));
    keeper.use_catalog(Arc::new(catalog));
    let after = keeper.observe().unwrap();
    let GuardState::Valid(guard) = &after.guards[0].state else { panic!("{:?}", after.guards[0].state) };
    assert_eq!(guard.target.api_version(), "a.io/v2");
    assert_eq!(guard.replicas_path, Some(path));
    assert!(after.guards[0].kept.is_some());
}

#[test]
fn what_is_noted_of_a_guard_that_cannot_be_used_stays_if_it_is_ours() {
    let (_, before) = synced(vec![guard("a", "Widget", 1, 0)]);
    let whole = noted(&before.guards[0], 2);
    let status: crate::api::DriftGuardStatus = whole.status();
    let signed = Stored::from(whole);
    let invalid = GuardState::Invalid(Arc::new(crate::core::guard::InvalidGuard {
        id: signed.id().clone(),
        generation: 1,
        uid: "".into(),
        pauses: Default::default(),
        authorship: crate::core::guard::Authorship::Unknown,
        target: None,
        reason: reasons::INVALID_SPEC,
        message: String::new(),
    }));
    assert_eq!(resolution::to_note(&invalid, &signed, &key()), status.resolved_target);
    let other = SigningKey::new(&[8; crate::core::signature::KEY_LENGTH]).unwrap();
    assert_eq!(resolution::to_note(&invalid, &signed, &other), None);
}

#[test]
fn of_many_exceptions_a_guard_keeps_the_one_that_ends_last() {
    use crate::core::exceptions::{Exception, Terms};
    let (mut keeper, _) = synced(vec![guard("a", "Widget", 1, 0), guard("b", "Widget", 2, 0)]);
    let since: jiff::Timestamp = "2026-06-01T08:00:00Z".parse().unwrap();
    let exception = |number: i64, namespace: &str| {
        let until = since + jiff::SignedDuration::from_mins(number);
        let spec = json!({"guards": {"all": true}, "until": until.to_string(), "reason": "r"}).to_string();
        Exception {
            uid: format!("{namespace}/{number}"),
            namespace: namespace.into(),
            name: format!("e{number}"),
            since,
            terms: Terms::parse(&spec).unwrap(),
        }
    };
    let all = (1..=300).map(|number| exception(number, "n")).chain([exception(400, "elsewhere")]);
    keeper.use_exceptions(Arc::new(Exceptions::of(all.collect())));
    for seen in keeper.observe().unwrap().guards {
        let GuardState::Valid(guard) = &seen.state else { panic!("{:?}", seen.state) };
        let until: Vec<_> = guard.pauses.iter().map(|pause| pause.until).collect();
        assert_eq!(until, [since + jiff::SignedDuration::from_mins(300)]);
    }
}

#[test]
fn a_change_of_exceptions_concerns_the_guards_that_they_mean_and_no_others() {
    use crate::core::exceptions::{Exception, Terms};
    let all = ["a", "b", "c"].iter().map(|name| guard(name, "Widget", 1, 0)).collect();
    let (mut keeper, before) = synced(all);
    let exception = |name: &str, namespace: &str, guards: serde_json::Value| Exception {
        uid: name.into(),
        namespace: namespace.into(),
        name: name.into(),
        since: "2026-06-01T08:00:00Z".parse().unwrap(),
        terms: Terms::parse(
            &json!({"guards": guards, "until": "2026-06-01T09:00:00Z", "reason": "r"}).to_string(),
        )
        .unwrap(),
    };
    let of_a = || exception("of-a", "n", json!({"names": ["a", "gone"]}));
    let labelled = exception("labelled", "n", json!({"selector": {"matchLabels": {"x": "y"}}}));
    let elsewhere = exception("elsewhere", "m", json!({"all": true}));
    let mut use_all = |exceptions: Vec<Exception>| {
        let former = Arc::clone(&keeper.exceptions);
        keeper.use_exceptions(Arc::new(Exceptions::of(exceptions)));
        let concerned: Vec<String> = keeper.concerned(&former).keys().map(|id| id.name.to_string()).collect();
        (concerned, keeper.observe().unwrap())
    };
    let (concerned, first) = use_all(vec![of_a(), labelled.clone(), elsewhere.clone()]);
    assert_eq!(concerned, ["a"]);
    assert_ne!(first.exceptions, before.exceptions);
    assert_eq!(first.version, before.version + 1);
    let (concerned, second) = use_all(vec![of_a(), labelled]);
    assert_eq!((concerned.len(), second.version), (0, first.version), "no guard stands there");
    assert_ne!(second.exceptions, first.exceptions, "which replicas agree on all the same");
    let (concerned, third) = use_all(Vec::new());
    assert_eq!(concerned, ["a"]);
    assert_eq!(third.exceptions, before.exceptions);
    assert!(third.guards.iter().all(|seen| seen.state.pauses().is_empty()));
    let (concerned, _) = use_all(vec![exception("all", "n", json!({"all": true}))]);
    assert_eq!(concerned, ["a", "b", "c"]);
}
