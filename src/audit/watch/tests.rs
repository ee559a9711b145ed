//! All watches together, against a scripted API server, on paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use futures::StreamExt as _;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};

use super::test_support::{approved, config_map, guard, observation};
use super::*;
use crate::core::audit::sight::Present;
use crate::core::canonical::hash_object;
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;

/// Longest wait for something that must come, in paused time.
const SOON: Duration = Duration::from_secs(40);

#[derive(Default)]
struct State {
    /// By namespace and name: uid, revision and value.
    objects: BTreeMap<(String, String), (String, u64, String)>,
    revision: u64,
    watchers: Vec<(String, mpsc::UnboundedSender<String>)>,
    streams_no_lists: bool,
    version: String,
    /// What is refused: a part of the path and query, the code, and what is said.
    refused: Vec<(String, u16)>,
    /// How many of the next requests for changes since a version are told that it is too old.
    expired: usize,
    /// Lists that break off after their first item.
    breaks_off: bool,
    asked: Vec<String>,
}

type Frames = stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

/// An API server with ConfigMaps.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<StreamBody<Frames>> {
        let uri = request.uri().to_string();
        let is_metadata = request.headers()["accept"].to_str().unwrap().contains("PartialObjectMetadata");
        let mut state = self.state();
        state.asked.push(uri.clone());
        let (status, first, more) = state.answer(&uri, is_metadata);
        let chunks = stream::iter([first]).chain(match more {
            Some(more) => {
                stream::unfold(more, |mut more| async move { more.recv().await.map(|line| (line, more)) })
                    .boxed()
            }
            None => stream::empty().boxed(),
        });
        let frames = chunks.map(|text| Ok(Frame::data(Bytes::from(text)))).boxed();
        Response::builder().status(status).body(StreamBody::new(frames)).unwrap()
    }

    /// Writes an object; with `telling`, watches see it.
    fn put(&self, namespace: &str, name: &str, value: &str, telling: bool) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        let key = (namespace.to_owned(), name.to_owned());
        let is_new = !state.objects.contains_key(&key);
        let (uid, at, text) = state
            .objects
            .entry(key)
            .or_insert_with(|| (uuid::Uuid::from_u128(u128::from(revision)).to_string(), 0, String::new()));
        (*at, *text) = (revision, value.to_owned());
        let object = config_map(namespace, name, uid, revision, value);
        if telling {
            state.tell(if is_new { "ADDED" } else { "MODIFIED" }, namespace, name, &object);
        }
    }

    fn delete(&self, namespace: &str, name: &str, telling: bool) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        let (uid, _, value) = state.objects.remove(&(namespace.to_owned(), name.to_owned())).unwrap();
        if telling {
            let object = config_map(namespace, name, &uid, revision, &value);
            state.tell("DELETED", namespace, name, &object);
        }
    }

    /// Ends all watches.
    fn hang_up(&self) {
        self.state().watchers.clear();
    }

    fn refuse(&self, what: &str, code: u16) {
        self.state().refused.push((what.to_owned(), code));
    }

    fn asked(&self, what: &str) -> usize {
        self.state().asked.iter().filter(|uri| uri.contains(what)).count()
    }

    fn watches(&self, guards: Vec<Guard>) -> Watching {
        let (observations, seen) = watch::channel(observation(1, guards));
        let settings = WatchSettings {
            audit_interval: Duration::from_secs(600),
            installed: "terrafusion-system".into(),
        };
        let metrics = Arc::new(Metrics::default());
        let (mut watches, news) = Watches::of(self.client(), seen, settings, &metrics);
        let (health, settled) = (watches.health(), watches.settled().unwrap());
        Watching { observations, news, health, metrics, settled, _running: Running::spawn(watches.run()) }
    }
}

impl State {
    fn tell(&mut self, word: &str, namespace: &str, name: &str, object: &str) {
        let place = format!("/namespaces/{namespace}/");
        self.watchers.retain(|(uri, watcher)| {
            let is_seen = (uri.contains(&place) || !uri.contains("/namespaces/"))
                && (!uri.contains("fieldSelector") || uri.ends_with(&format!("metadata.name%3D{name}")));
            !is_seen || watcher.send(format!("{{\"type\":\"{word}\",\"object\":{object}}}\n")).is_ok()
        });
    }

    fn answer(
        &mut self,
        uri: &str,
        is_metadata: bool,
    ) -> (StatusCode, String, Option<mpsc::UnboundedReceiver<String>>) {
        let refusal = |code: u16, name: &str| {
            let status = json!({"kind": "Status", "code": code, "message": "no", "details": {"name": name}});
            (StatusCode::from_u16(code).unwrap(), status.to_string(), None)
        };
        if let Some((_, code)) = self.refused.iter().find(|(what, _)| uri.contains(what)) {
            return refusal(*code, "");
        }
        if uri == "/version" {
            return (StatusCode::OK, json!({"gitVersion": self.version}).to_string(), None);
        }
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let namespace = path.split("/namespaces/").nth(1).map(|rest| rest.split('/').next().unwrap());
        let (_, name) = path.split_once("/configmaps").unwrap();
        if let Some(name) = name.strip_prefix('/') {
            let key = (namespace.unwrap().to_owned(), name.to_owned());
            return match self.objects.get(&key) {
                Some((uid, at, value)) => (StatusCode::OK, config_map(&key.0, name, uid, *at, value), None),
                None => refusal(404, name),
            };
        }
        let selected = query.split("metadata.name%3D").nth(1).map(|rest| rest.split('&').next().unwrap());
        let of_place = self.objects.iter().filter(|((of, name), _)| {
            namespace.is_none_or(|namespace| namespace == of)
                && selected.is_none_or(|selected| selected == name)
        });
        let objects: Vec<String> =
            of_place.map(|((of, name), (uid, at, value))| config_map(of, name, uid, *at, value)).collect();
        if !query.contains("watch=true") {
            return self.list(query, is_metadata, &objects);
        }
        let is_streamed = query.contains("sendInitialEvents=true");
        if is_streamed && self.streams_no_lists {
            return refusal(422, "");
        }
        if !is_streamed && self.expired > 0 {
            self.expired -= 1;
            return refusal(410, "");
        }
        let (watcher, told) = mpsc::unbounded_channel();
        self.watchers.push((uri.to_owned(), watcher));
        let mut text = String::new();
        if is_streamed {
            for object in objects {
                text += &format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
            }
            text += &format!(
                "{}\n",
                json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": self.revision.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"}}}})
            );
        }
        (StatusCode::OK, text, Some(told))
    }

    fn list(
        &self,
        query: &str,
        is_metadata: bool,
        objects: &[String],
    ) -> (StatusCode, String, Option<mpsc::UnboundedReceiver<String>>) {
        let number = |key: &str| -> usize {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(key));
            found.map_or(0, |text| text.parse().unwrap())
        };
        let (from, limit) = (number("continue="), number("limit="));
        let page: Vec<String> = objects
            .iter()
            .skip(from)
            .take(limit)
            .map(|object| {
                // Items of a list have no type.
                let mut object: Value = serde_json::from_str(object).unwrap();
                object
                    .as_object_mut()
                    .unwrap()
                    .retain(|key, _| key == "metadata" || key == "data" && !is_metadata);
                object.to_string()
            })
            .collect();
        let next = if from + limit < objects.len() { (from + limit).to_string() } else { String::new() };
        let meta = json!({"resourceVersion": self.revision.to_string(), "continue": next});
        let mut text = format!(r#"{{"kind":"List","metadata":{meta},"items":[{}]}}"#, page.join(","));
        if self.breaks_off {
            text.truncate(text.len() - 2);
        }
        (StatusCode::OK, text, None)
    }
}

/// Watches that run.
struct Watching {
    observations: watch::Sender<Arc<Observation>>,
    news: mpsc::Receiver<Sighting>,
    health: watch::Receiver<WatchHealth>,
    metrics: Arc<Metrics>,
    settled: mpsc::Receiver<Settled>,
    _running: Running,
}

impl Watching {
    async fn next(&mut self) -> Sighting {
        tokio::time::timeout(SOON, self.news.recv()).await.unwrap().unwrap()
    }

    async fn next_within(&mut self, limit: Duration) -> Sighting {
        tokio::time::timeout(limit, self.news.recv()).await.unwrap().unwrap()
    }

    /// The next target that has settled within an hour.
    async fn next_settled(&mut self) -> Option<Settled> {
        tokio::time::timeout(HOUR, self.settled.recv()).await.ok().flatten()
    }

    /// Passes time in which nothing may be told.
    async fn quiet(&mut self, time: Duration) {
        let told = tokio::time::timeout(time, self.news.recv()).await;
        assert!(told.is_err(), "{told:?}");
    }

    /// The names of the next guards that are told, sorted, each with what is told of it.
    async fn next_all(&mut self, count: usize) -> BTreeMap<String, Sight> {
        let mut all = BTreeMap::new();
        for _ in 0..count {
            let told = self.next().await;
            all.insert(told.guard.name.to_string(), told.sight);
        }
        assert_eq!(all.len(), count);
        all
    }
}

fn present(sighting: &Sighting) -> &Present {
    match &sighting.sight {
        Sight::Present(present) => present,
        other => panic!("{other:?}"),
    }
}

/// Guards `x0`, `x1` and so on of ConfigMaps of these names in namespace `n`, which exist and are approved.
fn guarded(server: &Server, count: usize) -> Vec<Guard> {
    let name = |number: usize| format!("x{number:05}");
    for number in 0..count {
        server.put("n", &name(number), "1", false);
    }
    (0..count).map(|number| guard(&name(number), Some("n"), &name(number))).collect()
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_target_that_was_written_without_news_is_told_once_when_it_stands_still() {
    let server = Server::default();
    server.state().version = "v1.37.2".into();
    let mut guards = guarded(&server, 2);
    // A kind that another version of the API server may read otherwise.
    guards[0].scope = Scope::new("apps", "Deployment", PathFilter::default());
    let object = config_map("n", "x00000", "u", 1, "1");
    guards[0].expected = hash_object(object.as_bytes(), &guards[0].scope).unwrap();
    let expected = guards[0].expected;
    let mut watching = server.watches(guards);
    watching.next_all(2).await;
    let first = watching.next_settled().await.unwrap();
    assert_eq!((first.guard.id.name.as_str(), first.resource_version.as_str()), ("x00000", "1"));
    assert_eq!((first.hash, first.server.as_str()), (expected, "v1.37.2"));
    server.put("n", "x00000", "1", true);
    let second = watching.next_settled().await.unwrap();
    assert_eq!((second.resource_version.as_str(), second.uid), ("3", first.uid));
    assert!(watching.next_settled().await.is_none(), "once");
    watching.quiet(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn targets_are_told_once_and_then_what_changes() {
    let server = Server::default();
    let guards = guarded(&server, 1);
    server.put("n", "stranger", "1", false);
    let mut watching = server.watches(guards);
    let first = watching.next().await;
    assert_eq!((first.how, first.guard.to_string().as_str()), (Look::Initial, "guards/x00000"));
    assert_eq!((present(&first).hash, present(&first).resource_version.as_str()), (approved(), "1"));
    assert!(first.object.as_deref().unwrap().starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1""#));
    server.put("n", "x00000", "1", true);
    server.put("n", "stranger", "2", true);
    watching.quiet(Duration::from_secs(5)).await;
    server.put("n", "x00000", "2", true);
    let drift = watching.next_within(Duration::from_secs(1)).await;
    assert_eq!(drift.how, Look::Watch);
    assert_ne!(present(&drift).hash, approved());
    server.delete("n", "x00000", true);
    assert_eq!(watching.next_within(Duration::from_secs(1)).await.sight, Sight::Absent);
    assert_eq!(server.asked("/configmaps"), 1, "{:?}", server.state().asked);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_streams_no_lists_is_listed_page_by_page() {
    let server = Server::default();
    server.state().streams_no_lists = true;
    let guards = guarded(&server, 1_200);
    let mut watching = server.watches(guards);
    let all = watching.next_all(1_200).await;
    assert!(all.values().all(|sight| matches!(sight, Sight::Present(_))));
    assert_eq!(server.asked("limit=500"), 3);
    server.put("n", "x00700", "2", true);
    let told = watching.next_within(Duration::from_secs(1)).await;
    assert_eq!((told.guard.name.as_str(), told.how), ("x00700", Look::Watch));
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_list_are_told_with_their_type() {
    let server = Server::default();
    server.state().streams_no_lists = true;
    let mut watching = server.watches(guarded(&server, 1));
    let told = watching.next().await;
    let object: Value = serde_json::from_slice(&told.object.unwrap()).unwrap();
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_there_is_told_once_the_list_is_complete() {
    let server = Server::default();
    let mut guards = guarded(&server, 1);
    guards.push(guard("absent", Some("n"), "nowhere"));
    let mut watching = server.watches(guards);
    let all = watching.next_all(2).await;
    assert_eq!(all["absent"], Sight::Absent);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_says_nothing_about_what_it_did_not_show() {
    let server = Server::default();
    (server.state().streams_no_lists, server.state().breaks_off) = (true, true);
    let mut guards = guarded(&server, 1);
    guards.push(guard("absent", Some("n"), "nowhere"));
    let mut watching = server.watches(guards);
    watching.next().await;
    watching.quiet(HOUR / 2).await;
    server.state().breaks_off = false;
    assert_eq!(watching.next().await.sight, Sight::Absent);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_too_old_lists_and_finds_what_happened_meanwhile() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    // Let it live long enough to go on from where it was.
    watching.quiet(Duration::from_secs(20)).await;
    server.state().expired = 1;
    server.put("n", "x00001", "2", false);
    server.delete("n", "x00002", false);
    server.hang_up();
    let all = watching.next_all(2).await;
    assert_eq!(all["x00002"], Sight::Absent);
    assert!(matches!(&all["x00001"], Sight::Present(present) if present.hash != approved()));
    watching.quiet(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_well_says_nothing_about_any_object() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    for code in [500, 503, 429] {
        server.refuse("/", code);
        server.hang_up();
        watching.quiet(HOUR).await;
        server.state().refused.clear();
        watching.quiet(Duration::from_secs(60)).await;
    }
    // Nor is anything lost.
    server.put("n", "x00003", "2", true);
    assert_eq!(watching.next().await.guard.name, "x00003");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_rule_and_ends_when_it_is_given() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 1));
    server.refuse("/configmaps", 403);
    let told = watching.next().await;
    let Sight::Unreadable(sentence) = &told.sight else { panic!("{told:?}") };
    assert!(sentence.contains("may not list and watch configmaps in namespace n"), "{sentence}");
    assert!(sentence.contains("driftguard manifests rbac --for configmaps --in n"), "{sentence}");
    watching.quiet(HOUR).await;
    server.state().refused.clear();
    // With chance the pause between tries is longer than what is soon.
    assert_eq!(present(&watching.next_within(2 * SOON).await).hash, approved());
}

#[tokio::test(start_paused = true)]
async fn one_object_that_cannot_be_decoded_frees_no_other() {
    let server = Server::default();
    let guards = guarded(&server, 6);
    for what in ["watch=true", "limit=", "/configmaps/x00004"] {
        server.refuse(what, 500);
    }
    let mut watching = server.watches(guards);
    let all = watching.next_all(6).await;
    for (name, sight) in &all {
        match (name.as_str(), sight) {
            ("x00004", Sight::Unreadable(sentence)) => {
                assert!(sentence.contains("cannot decode"), "{sentence}");
            }
            ("x00004", other) => panic!("{other:?}"),
            (_, sight) => assert!(matches!(sight, Sight::Present(_)), "{name} {sight:?}"),
        }
    }
    tokio::time::timeout(SOON, watching.health.wait_for(|health| health.polled == ["configmaps"]))
        .await
        .unwrap()
        .unwrap();
    server.put("n", "x00001", "2", false);
    let drift = watching.next_within(Duration::from_secs(700)).await;
    assert_eq!((drift.guard.name.as_str(), drift.how), ("x00001", Look::Live));
    server.state().refused.clear();
    let mended = watching.next_within(Duration::from_secs(400)).await;
    assert_eq!((mended.guard.name.as_str(), present(&mended).hash), ("x00004", approved()));
    tokio::time::timeout(SOON * 10, watching.health.wait_for(|health| health.polled.is_empty()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_the_same_kind_that_is_open_still_is_not_trusted_either() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 2));
    watching.next_all(2).await;
    watching.quiet(Duration::from_secs(10)).await;
    server.refuse("watch=true", 500);
    server.state().watchers.retain(|(uri, _)| uri.ends_with("x00001"));
    server.put("n", "x00001", "2", false);
    // Long before the next sweep.
    let told = watching.next_within(Duration::from_secs(90)).await;
    assert_eq!((told.guard.name.as_str(), told.how), ("x00001", Look::Live));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_finds_what_no_watch_has_told() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    server.put("n", "x00001", "2", false);
    server.delete("n", "x00002", false);
    let mut told = vec![
        watching.next_within(Duration::from_secs(700)).await,
        watching.next_within(Duration::from_secs(700)).await,
    ];
    told.sort_by(|left, right| left.guard.name.cmp(&right.guard.name));
    assert!(told.iter().all(|sighting| sighting.how == Look::Sweep), "{told:?}");
    assert_ne!(present(&told[0]).hash, approved());
    assert_eq!(told[1].sight, Sight::Absent);
    tokio::time::timeout(SOON, watching.health.wait_for(|health| health.missed == 2)).await.unwrap().unwrap();
    assert!(watching.metrics.encode().unwrap().contains("driftguard_watch_missed_total 2"));
}

/// Of 120 changes that a watch has not told, twenty are told as missed and all are counted, also while some objects
/// cannot be read alone.
async fn misses_very_many(unreadable: &[&str]) {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 150));
    watching.next_all(150).await;
    watching.quiet(Duration::from_secs(60)).await;
    for nth in 0..120 {
        server.put("n", &format!("x{nth:05}"), "2", false);
    }
    for name in unreadable {
        server.refuse(&format!("/configmaps/{name}"), 500);
    }
    let mut missed = 0;
    for _ in 0..120 {
        missed += usize::from(watching.next_within(2 * HOUR).await.missed);
    }
    assert_eq!(missed, 20);
    watching.quiet(Duration::from_secs(60)).await;
    assert!(watching.metrics.encode().unwrap().contains("driftguard_watch_missed_total 120"));
}

#[tokio::test(start_paused = true)]
async fn of_very_many_changes_that_a_watch_has_not_told_some_guards_say_so_and_all_are_counted() {
    misses_very_many(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn of_very_many_missed_changes_one_that_cannot_be_read_is_counted_and_the_next_are_told() {
    misses_very_many(&["x00000"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_sweep_sees_before_the_watch_tells_was_not_missed() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    server.put("n", "x00001", "2", false);
    while server.asked("limit=2000") == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.put("n", "x00001", "2", true);
    assert_eq!(watching.next().await.how, Look::Watch);
    watching.quiet(Duration::from_secs(60)).await;
    assert_eq!(watching.health.borrow().missed, 0);
}

#[tokio::test(start_paused = true)]
async fn another_server_reads_everything_anew() {
    let server = Server::default();
    server.state().version = "v1.33.0".into();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    watching.quiet(Duration::from_secs(10)).await;
    // The same version of the same object, which reads otherwise.
    server.state().version = "v1.37.0".into();
    server.state().objects.values_mut().next().unwrap().2 = "another default".into();
    server.hang_up();
    let told = watching.next_within(Duration::from_secs(90)).await;
    assert_eq!((told.how, present(&told).resource_version.as_str()), (Look::Watch, "1"));
    let before = told.read_before.clone().unwrap();
    assert_eq!((before.hash, before.server.as_str()), (approved(), "v1.33.0"));
    assert_ne!(present(&told).hash, approved());
    watching.quiet(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_guard_in_a_running_watch_has_its_target_read_once() {
    let server = Server::default();
    let mut guards = guarded(&server, 6);
    let late = guards.pop().unwrap();
    let mut watching = server.watches(guards.clone());
    watching.next_all(5).await;
    guards.extend([late, guard("absent", Some("n"), "nowhere")]);
    watching.observations.send_replace(observation(2, guards));
    let all = watching.next_all(2).await;
    assert!(matches!(all["x00005"], Sight::Present(_)));
    assert_eq!(all["absent"], Sight::Absent);
    watching.quiet(Duration::from_secs(60)).await;
    assert_eq!(server.asked("watch=true"), 1, "the watch goes on");
    assert_eq!((server.asked("/configmaps/x00005"), server.asked("/configmaps/nowhere")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn many_new_guards_have_their_targets_listed_and_none_is_lost() {
    let server = Server::default();
    let guards = guarded(&server, 600);
    let mut watching = server.watches(guards[..6].to_vec());
    watching.next_all(6).await;
    // More come while what came before is being listed.
    for (version, count) in [(2, 200), (3, 400), (4, 600)] {
        watching.observations.send_replace(observation(version, guards[..count].to_vec()));
        tokio::task::yield_now().await;
    }
    watching.next_all(594).await;
    assert_eq!(server.asked("/configmaps/"), 0);
    assert!(server.asked("watch=true") <= 4, "{:?}", server.state().asked);
    watching.quiet(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_wider_watch_takes_over_without_news() {
    let server = Server::default();
    let mut guards = guarded(&server, 5);
    let late = guards.pop().unwrap();
    let mut watching = server.watches(guards.clone());
    watching.next_all(4).await;
    assert_eq!(server.asked("fieldSelector"), 4);
    guards.push(late);
    watching.observations.send_replace(observation(2, guards.clone()));
    assert_eq!(watching.next().await.guard.name, "x00004");
    guards.pop();
    watching.observations.send_replace(observation(3, guards));
    watching.quiet(Duration::from_secs(60)).await;
    server.put("n", "x00002", "2", true);
    assert_eq!(watching.next().await.guard.name, "x00002");
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_watched_one_by_one_where_all_at_once_is_not_allowed() {
    let server = Server::default();
    let of = |number: usize| format!("n{number:03}");
    for number in 0..101 {
        server.put(&of(number), "x", "1", false);
    }
    server.refuse("v1/configmaps", 403);
    let guards = (0..101).map(|number| guard(&of(number), Some(&of(number)), "x")).collect();
    let mut watching = server.watches(guards);
    let all = watching.next_all(101).await;
    assert!(all.values().all(|sight| matches!(sight, Sight::Present(_))));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_went_back_is_followed() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    watching.quiet(Duration::from_secs(20)).await;
    // etcd was restored: older versions, another content.
    let restored = |state: &mut State| {
        state.revision = 3;
        for (_, at, value) in state.objects.values_mut() {
            (*at, *value) = (2, "older".into());
        }
        state.expired = 1;
    };
    restored(&mut server.state());
    server.hang_up();
    let all = watching.next_all(6).await;
    assert!(all.values().all(|sight| matches!(sight, Sight::Present(present) if present.hash != approved())));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hears_nothing_is_told_and_begun_again() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 6));
    watching.next_all(6).await;
    tokio::time::timeout(SOON * 10, watching.health.wait_for(WatchHealth::is_stale)).await.unwrap().unwrap();
    tokio::time::timeout(SOON * 10, watching.health.wait_for(|health| !health.is_stale()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.asked("watch=true"), 2);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_idle_guards_cost_few_requests_an_hour() {
    let server = Server::default();
    let mut watching = server.watches(guarded(&server, 10_000));
    for _ in 0..10_000 {
        watching.next().await;
    }
    let bookmarks = server.clone();
    let _telling = Running::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            for (_, watcher) in &bookmarks.state().watchers {
                let text = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"10000"}}}"#;
                let _ = watcher.send(format!("{text}\n"));
            }
        }
    });
    let before = server.state().asked.len();
    watching.quiet(HOUR).await;
    let asked = server.state().asked.len() - before;
    assert!(asked <= 120, "{asked} requests in an hour");
    assert!(server.asked("limit=2000") >= 5 * 5, "it swept");
    assert_eq!(server.asked("watch=true"), 1);
}

#[test]
fn an_audit_interval_is_between_half_a_minute_and_a_day() {
    assert_eq!(parse_interval("10m"), Ok(Duration::from_secs(600)));
    assert_eq!(parse_interval("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(parse_interval("24h"), Ok(Duration::from_secs(86_400)));
    for text in ["29s", "25h", "-10m", "", "often"] {
        assert!(parse_interval(text).is_err(), "{text}");
    }
}

#[test]
fn a_look_at_what_was_pinned_before_is_told_from_one_at_what_is_pinned_now() {
    let of = guard("g", Some("n"), "x");
    let sighting = Sighting {
        guard: of.id.clone(),
        guard_uid: of.uid.clone(),
        of: Arc::new(of.clone()),
        sight: Sight::Absent,
        how: Look::Watch,
        missed: false,
        read_before: None,
        object: None,
        seen_at: Timestamp::UNIX_EPOCH,
    };
    assert!(sighting.is_of(&Guard { generation: 2, expected: ContentHash::of(b"next"), ..of.clone() }));
    let paths = PathFilter::ignoring(&["/data/a"]).unwrap();
    assert!(!sighting.is_of(&Guard { scope: Scope::new("", "ConfigMap", paths), ..of }));
    assert!(!sighting.is_of(&guard("g", Some("n"), "y")));
}

#[test]
fn news_print_no_content() {
    let sighting = Sighting {
        guard: GuardId { namespace: "n".into(), name: "g".into() },
        guard_uid: "u".into(),
        of: Arc::new(guard("g", Some("n"), "x")),
        sight: Sight::Absent,
        how: Look::Watch,
        missed: false,
        read_before: None,
        object: Some(Bytes::from_static(b"geheim")),
        seen_at: Timestamp::UNIX_EPOCH,
    };
    assert!(!format!("{sighting:?}").contains("geheim"));
}
