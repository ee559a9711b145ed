//! Proofs through scripted API servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::core::hash::ContentHash;

/// What an API server does with a dry run of a target.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Calls us by rules of a generation, and ends with a status.
    Asks(u64, StatusCode),
    /// Ends with a status without calling us.
    Ends(StatusCode),
}

/// An API server: what it does with targets by name, and the generation of the rules in its cache.
#[derive(Clone, Default)]
struct Server {
    targets: Vec<(&'static str, Does)>,
    cached: Option<u64>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn of(targets: &[(&'static str, Does)]) -> Self {
        Self { targets: targets.to_vec(), ..Self::default() }
    }

    fn endpoint(&self, address: &str) -> Endpoint {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.answer(request.method(), request.uri());
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        Endpoint { address: address.into(), client: kube::Client::new(service, "default") }
    }

    fn answer(&self, method: &Method, uri: &http::Uri) -> Response<Body> {
        let respond = |status: StatusCode, body: &Value| {
            Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap()
        };
        let failure = |status: StatusCode| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "reason": "", "message": ""});
        if method == Method::GET {
            assert_eq!(uri.query(), Some("&resourceVersion=0"), "what its cache holds");
            let Some(generation) = self.cached else {
                return respond(StatusCode::NOT_FOUND, &failure(StatusCode::NOT_FOUND));
            };
            let annotations = json!({"driftguard.terrafusion.ai/generation": generation.to_string()});
            return respond(
                StatusCode::OK,
                &json!({"metadata": {"name": "driftguard", "annotations": annotations}}),
            );
        }
        assert_eq!(method, Method::PATCH);
        let query = uri.query().unwrap();
        assert!(query.contains("dryRun=All"), "a proof changes nothing: {query}");
        let nonce = query.split("fieldManager=driftguard-proof-").nth(1).unwrap();
        let name = uri.path().rsplit('/').next().unwrap();
        self.asked.lock().unwrap().push(name.to_owned());
        let does = self.targets.iter().find(|(target, _)| *target == name).map(|(_, does)| *does);
        let (generation, status) = match does {
            Some(Does::Asks(generation, status)) => (Some(generation), status),
            Some(Does::Ends(status)) => (None, status),
            None => (None, StatusCode::NOT_FOUND),
        };
        let mut response = respond(status, &failure(status));
        if let Some(generation) = generation {
            let text =
                format!("299 - \"{}\"", warnings(&proof_of(nonce, Vec::new()), "replica-1", generation)[0]);
            response.headers_mut().append(http::header::WARNING, text.parse().unwrap());
        }
        response
    }
}

fn target(name: &str) -> Target {
    Target {
        group: "".into(),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        resource: "configmaps".into(),
        namespace: Some("n".into()),
        name: name.into(),
    }
}

async fn proved(servers: &[&Server], names: &[&str], generation: u64) -> Result<Proof, ProofError> {
    let endpoints: Vec<Endpoint> = servers
        .iter()
        .enumerate()
        .map(|(number, server)| server.endpoint(&format!("api-{number}")))
        .collect();
    let targets: Vec<Target> = names.iter().map(|name| target(name)).collect();
    let mut number = 0;
    let nonce = || {
        number += 1;
        format!("nonce-{number}")
    };
    prove(&endpoints, &targets.iter().collect::<Vec<_>>(), generation, nonce).await
}

fn proved_by(name: &str) -> Proof {
    Proof::Proved { by: target(name) }
}

fn not_yet(proof: Result<Proof, ProofError>) -> String {
    match proof {
        Ok(Proof::NotYet { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_is_proved_when_every_api_server_calls_us_for_the_generation() {
    let current = Server::of(&[("a", Does::Asks(3, StatusCode::OK))]);
    let newer = Server::of(&[("a", Does::Asks(4, StatusCode::OK))]);
    assert_eq!(proved(&[&current, &newer], &["a"], 3).await.unwrap(), proved_by("a"));
    assert_eq!((current.asked.lock().unwrap().len(), newer.asked.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn one_api_server_with_older_rules_is_named() {
    let current = Server::of(&[("a", Does::Asks(3, StatusCode::OK))]);
    let late = Server::of(&[("a", Does::Asks(2, StatusCode::OK))]);
    let what = not_yet(proved(&[&current, &late], &["a"], 3).await);
    assert!(what.contains("api-1") && what.contains("generation 2"), "{what}");
}

#[tokio::test]
async fn a_write_that_passes_us_by_proves_the_contrary() {
    let server = Server::of(&[("a", Does::Ends(StatusCode::OK))]);
    assert!(not_yet(proved(&[&server], &["a"], 1).await).contains("did not reach us"));
}

#[tokio::test]
async fn targets_that_are_missing_or_cannot_be_patched_are_passed_over() {
    let server = Server::of(&[
        ("forbidden", Does::Ends(StatusCode::FORBIDDEN)),
        ("read-only", Does::Ends(StatusCode::METHOD_NOT_ALLOWED)),
        ("a", Does::Asks(1, StatusCode::OK)),
    ]);
    let names = ["missing", "forbidden", "read-only", "a"];
    assert_eq!(proved(&[&server], &names, 1).await.unwrap(), proved_by("a"));
    assert_eq!(*server.asked.lock().unwrap(), names);
}

#[tokio::test]
async fn our_answer_counts_whatever_became_of_the_write() {
    for status in [StatusCode::FORBIDDEN, StatusCode::UNPROCESSABLE_ENTITY] {
        let server = Server::of(&[("a", Does::Asks(1, status))]);
        assert_eq!(proved(&[&server], &["a"], 1).await.unwrap(), proved_by("a"));
    }
}

#[tokio::test]
async fn without_a_usable_target_the_rules_in_every_cache_are_compared() {
    let server = |cached| Server { cached, ..Server::default() };
    assert_eq!(proved(&[&server(Some(3)), &server(Some(4))], &["a"], 3).await.unwrap(), Proof::Compared);
    let what = not_yet(proved(&[&server(Some(3)), &server(Some(2))], &["a"], 3).await);
    assert!(what.contains("api-1") && what.contains("generation 2"), "{what}");
    assert!(not_yet(proved(&[&server(None)], &["a"], 3).await).contains("generation 0"));
}

#[tokio::test]
async fn only_so_many_targets_are_tried() {
    let server = Server { cached: Some(1), ..Server::default() };
    let names: Vec<String> = (0..100).map(|number| format!("missing-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(proved(&[&server], &names, 1).await.unwrap(), Proof::Compared);
    assert_eq!(server.asked.lock().unwrap().len(), MAX_TARGETS);
}

#[tokio::test]
async fn an_api_server_in_trouble_proves_nothing() {
    let server = |status| Server {
        cached: Some(1),
        ..Server::of(&[("a", Does::Ends(status)), ("b", Does::Ends(status))])
    };
    let failing = server(StatusCode::INTERNAL_SERVER_ERROR);
    let error = proved(&[&failing], &["a", "b", "missing"], 1).await.unwrap_err();
    assert!(error.to_string().contains("api-0"), "{error}");
    assert_eq!(*failing.asked.lock().unwrap(), ["a", "b", "missing"], "each might have told");
    let busy = server(StatusCode::TOO_MANY_REQUESTS);
    proved(&[&busy], &["a", "b"], 1).await.unwrap_err();
    assert_eq!(*busy.asked.lock().unwrap(), ["a"], "one that is busy is not asked any more");
}

#[tokio::test]
async fn a_target_whose_dry_run_fails_keeps_nobody_from_being_proved() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::GATEWAY_TIMEOUT] {
        let server = Server::of(&[("undecodable", Does::Ends(status)), ("a", Does::Asks(1, StatusCode::OK))]);
        assert_eq!(proved(&[&server], &["undecodable", "a"], 1).await.unwrap(), proved_by("a"));
    }
}

#[tokio::test]
async fn a_write_that_passes_us_by_counts_even_if_another_one_would_not() {
    let server = Server::of(&[("a", Does::Ends(StatusCode::OK)), ("b", Does::Asks(1, StatusCode::OK))]);
    assert!(not_yet(proved(&[&server], &["a", "b"], 1).await).contains("did not reach us"));
}

#[test]
fn namespaces_take_turns_after_the_target_that_worked_before() {
    let targets: Vec<Target> = ["a1", "a2", "a3", "b1", "c1", "c2"].map(target).into();
    let of = |worked: Option<&Target>| {
        let candidates = targets.iter().map(|target| (&target.name[..1], target));
        in_turn(candidates, worked).iter().map(|target| target.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(None), ["a1", "b1", "c1", "a2", "c2", "a3"]);
    assert_eq!(of(Some(&target("c2"))), ["c2", "a1", "b1", "c1", "a2", "a3"]);
    assert_eq!(of(Some(&target("gone"))).len(), 6, "it is guarded no more");
}

#[test]
fn many_guards_of_one_namespace_do_not_crowd_out_another_one() {
    let many: Vec<Target> = (0..100).map(|number| target(&format!("missing-{number}"))).collect();
    let other = target("other");
    let candidates = many.iter().chain(&many).map(|target| ("a", target)).chain([("z", &other)]);
    let order = in_turn(candidates, None);
    assert_eq!(order.len(), MAX_TARGETS);
    assert_eq!(order[1], &other);
    let distinct: BTreeSet<&Target> = order.iter().copied().collect();
    assert_eq!(distinct.len(), MAX_TARGETS);
}

fn proof_of(nonce: &str, statements: Vec<Statement>) -> verdict::Proof {
    verdict::Proof { nonce: nonce.to_owned(), statements }
}

#[test]
fn the_warning_that_is_sent_is_the_one_that_is_read() {
    let sent = warnings(&proof_of("a1-b2", Vec::new()), "driftguard-0", 17);
    let answer = Answer { replica: "driftguard-0".into(), generation: 17 };
    assert_eq!(sent.len(), 1);
    assert_eq!(read_answer(&sent[0], "a1-b2"), Some(answer));
    assert_eq!(read_answer(&sent[0], "a1-b"), None, "another nonce is no answer");
    assert_eq!(read_answer("some other warning", "a1-b2"), None);
}

#[test]
fn what_guards_say_is_read_as_it_was_sent_and_not_at_all_where_it_was_cut() {
    let uid = "0b0c7a4e-4f43-4d8b-9d4c-1f1d8a3a6f11";
    let said = |held| Statement { guard_uid: uid.into(), guard_generation: i64::MAX, held };
    let statements: Vec<Statement> =
        [Held::Approved, Held::Equivalent(ContentHash::of(b"a")), Held::NotApproved].map(said).into();
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    let sent = warnings(&proof_of(&nonce, statements.clone()), "driftguard-0", 17);
    let read: Vec<Statement> = sent.iter().filter_map(|text| read_statement(text, &nonce)).collect();
    assert_eq!(read, statements);
    assert!(read_answer(&sent[1], &nonce).is_none());
    for text in &sent[1..] {
        assert!(text.len() <= 256, "the API server may cut it: {text}");
        assert_eq!(read_statement(text, "another"), None);
        for cut in 0..text.len() {
            assert_eq!(read_statement(&text[..cut], &nonce), None, "{}", &text[..cut]);
        }
    }
}

#[test]
fn paths_follow_group_and_scope_and_take_any_name() {
    let mut target = target("x");
    assert_eq!(target.url_path(), "/api/v1/namespaces/n/configmaps/x");
    target.group = "apps".into();
    target.namespace = None;
    assert_eq!(target.url_path(), "/apis/apps/v1/configmaps/x");
    target.name = "system:it's ? \u{e9}".into();
    assert_eq!(target.url_path(), "/apis/apps/v1/configmaps/system:it%27s%20%3F%20%C3%A9");
}
