//! Chains of sources through a scripted API server and real HTTP servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::core::canonical::hash_object;
use crate::core::guard::{Authorship, DeletionPolicy, Enforcement, FailurePolicy, GuardId, Versions};
use crate::core::paths::PathFilter;
use crate::sources::configuration::Credential;
use crate::sources::report::SourceResult;
use crate::sources::test_support::{Names, Reply, Server};

/// An API server with these objects by path, where the author may do all but what is named.
#[derive(Clone, Default)]
struct Api {
    objects: Vec<(&'static str, Value)>,
    denied: Vec<&'static str>,
    /// Paths that we may not read, and ones that never answer.
    forbidden: Vec<&'static str>,
    silent: Vec<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request: http::Request<Body>| {
                let api = api.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let path = parts.uri.path().to_owned();
                    if api.silent.contains(&path.as_str()) {
                        std::future::pending::<()>().await;
                    }
                    let body = body.collect().await?.to_bytes();
                    Ok::<_, kube::Error>(api.answer(&parts.method, &path, &body))
                }
            }),
            "default",
        )
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
        let respond = |status: StatusCode, body: &Value| {
            Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap()
        };
        let failure = |status: StatusCode| {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "message": "", "reason": ""});
            respond(status, &body)
        };
        if method == Method::POST {
            let mut review: Value = serde_json::from_slice(body).unwrap();
            let right = &review["spec"]["resourceAttributes"];
            let word = |field: &str| right[field].as_str().unwrap_or_default().to_owned();
            let resource = [word("resource"), word("subresource")].join("/");
            let right = format!(
                "{} {} {}/{}",
                word("verb"),
                resource.trim_end_matches('/'),
                word("namespace"),
                word("name")
            );
            let allowed = !self.denied.contains(&right.as_str());
            self.asked.lock().unwrap().push(right);
            review["status"] = json!({"allowed": allowed});
            return respond(StatusCode::CREATED, &review);
        }
        self.asked.lock().unwrap().push(path.to_owned());
        if self.forbidden.contains(&path) {
            return failure(StatusCode::FORBIDDEN);
        }
        match self.objects.iter().find(|(at, _)| *at == path) {
            Some((_, object)) => respond(StatusCode::OK, object),
            None => failure(StatusCode::NOT_FOUND),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn guard(group: &str, kind: &str, approved: &Value) -> Guard {
    let scope = Scope::new(group, kind, PathFilter::everything());
    Guard {
        id: GuardId { namespace: "team".into(), name: "g".into() },
        uid: "u-1".into(),
        generation: 1,
        expected: hash_object(approved.to_string().as_bytes(), &scope).unwrap(),
        target: Target {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: format!("{}s", kind.to_lowercase()).as_str().into(),
            namespace: Some("team".into()),
            name: "x".into(),
        },
        scope,
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
    }
}

fn prices() -> Guard {
    guard("", "ConfigMap", &json!({"data": {"price": "100"}}))
}

fn spec(sources: &Value) -> DriftGuardSpec {
    let mut spec = json!({"targetKind": "ConfigMap", "targetName": "x", "expectedHash": "a".repeat(64)});
    let mut sources = sources.as_array().unwrap().clone().into_iter();
    if let Some(first) = sources.next() {
        spec["sourceOfTruthRef"] = first;
    }
    spec["fallbackSourceRefs"] = sources.collect();
    serde_json::from_value(spec).unwrap()
}

fn alice() -> Subject {
    Subject { user: "alice".to_owned(), ..Subject::default() }
}

fn sources(api: &Api, settings: Settings) -> Sources {
    let names = Names::of(&[("config.team.svc", &[&["127.0.0.1"]])]);
    let authorities: Authorities = Arc::new(Vec::new);
    Sources::looking_up(names, api.client(), settings, authorities, Arc::new(Metrics::default()))
}

/// As an auditor verifies kinds without defaults.
struct ByHash<'a>(&'a Guard);

impl Verify for ByHash<'_> {
    async fn verify(&self, candidate: &Candidate) -> Verified {
        if candidate.hash == self.0.expected {
            Verified::Matched
        } else {
            Verified::Mismatch("it does not match".to_owned())
        }
    }
}

/// Says the same of everything.
struct Always(Verified);

impl Verify for Always {
    async fn verify(&self, _: &Candidate) -> Verified {
        self.0.clone()
    }
}

async fn approve(
    sources: &Sources,
    guard: &Guard,
    spec: &DriftGuardSpec,
    author: Option<&Subject>,
) -> Outcome {
    sources.approved(guard, spec, author, &ByHash(guard)).await
}

fn told(outcome: &Outcome) -> Vec<(String, SourceResult, &'static str)> {
    outcome.reports.iter().map(|report| (report.source.clone(), report.result, report.reason)).collect()
}

fn data(outcome: &Outcome) -> Value {
    let (candidate, _) = outcome.found.as_ref().unwrap();
    let object: Value = serde_json::from_slice(&candidate.object).unwrap();
    assert_eq!(object["metadata"]["name"], "x");
    object["data"].clone()
}

const APPROVED: &str = "/api/v1/namespaces/team/configmaps/approved";

fn with_approved() -> Api {
    let document = "# the approved prices\nprice: \"100\"\n";
    Api {
        objects: vec![
            (APPROVED, json!({"metadata": {"name": "approved"}, "data": {"price": "100"}})),
            ("/api/v1/namespaces/team/configmaps/stale", json!({"data": {"price": "99"}})),
            (
                "/api/v1/namespaces/other/secrets/documents",
                json!({"data": {
                    "prices.yaml": base64(document),
                    "two.yaml": base64(
                        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {price: \"1\"}\n---\n\
                         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {price: \"100\"}\n",
                    ),
                    "broken.yaml": base64("price: \"geheim"),
                    "number.yaml": base64("price: 100\n"),
                    "other.yaml": base64("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"),
                    "empty.yaml": base64("# nothing\n"),
                    "none": base64(""),
                }}),
            ),
        ],
        ..Api::default()
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn sources_are_asked_in_order_until_one_has_what_is_approved() {
    let api = with_approved();
    let sources = sources(&api, Settings::default());
    let spec = spec(&json!([
        {"kind": "configmap", "name": "missing"},
        {"kind": "configmap", "name": "stale"},
        {"kind": "configmap", "name": "approved"},
        {"kind": "configmap", "name": "never-asked"},
    ]));
    let outcome = approve(&sources, &prices(), &spec, Some(&alice())).await;
    assert_eq!(
        told(&outcome),
        [
            ("configmap team/missing".to_owned(), SourceResult::Unavailable, "NotFound"),
            ("configmap team/stale".to_owned(), SourceResult::Mismatch, "HashMismatch"),
            ("configmap team/approved".to_owned(), SourceResult::Matched, "Matched"),
        ]
    );
    assert_eq!(data(&outcome), json!({"price": "100"}));
    assert_eq!(outcome.found.as_ref().unwrap().1, "configmap team/approved");
    let text = sources.metrics.encode().unwrap();
    assert!(
        text.contains(r#"driftguard_source_fetches_total{source="configmap",result="matched"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_key_holds_a_document_and_what_is_wrong_with_it_is_said_without_its_values() {
    let sources = sources(&with_approved(), Settings::default());
    let ask = async |key: &str| {
        let spec = spec(&json!([{"kind": "secret", "namespace": "other", "name": "documents", "path": key}]));
        let outcome = approve(&sources, &prices(), &spec, Some(&alice())).await;
        let report = outcome.reports[0].clone();
        assert!(!report.sentence.contains("geheim"), "{report:?}");
        (report.result, report.reason, report.sentence)
    };
    for key in ["prices.yaml", "two.yaml"] {
        assert_eq!(ask(key).await.0, SourceResult::Matched, "{key}");
    }
    for (key, result, reason) in [
        ("broken.yaml", SourceResult::Invalid, "BadSyntax"),
        ("number.yaml", SourceResult::Invalid, "BadContent"),
        ("other.yaml", SourceResult::Invalid, "OtherKind"),
        ("empty.yaml", SourceResult::Invalid, "Empty"),
        ("none", SourceResult::Invalid, "Empty"),
        ("absent", SourceResult::Unavailable, "KeyMissing"),
    ] {
        let said = ask(key).await;
        assert_eq!((said.0, said.1), (result, reason), "{key}: {}", said.2);
    }
}

#[tokio::test]
async fn case_58_content_with_another_hash_is_never_given_out() {
    let sources = sources(&with_approved(), Settings::default());
    let spec = spec(&json!([{"kind": "configmap", "name": "stale"}]));
    // Not even when the check is fooled.
    let outcome = sources.approved(&prices(), &spec, Some(&alice()), &Always(Verified::Matched)).await;
    assert_eq!(outcome.found, None);
    assert_eq!(outcome.reports[0].result, SourceResult::Mismatch);
}

#[tokio::test]
async fn case_41_the_author_needs_the_right_to_every_source_at_each_use() {
    let mut api = with_approved();
    api.denied = vec![
        "get configmaps other/approved",
        "get secrets other/documents",
        "get services/proxy other/web",
        "get secrets other/repository",
    ];
    let sources = sources(&api, Settings::default());
    let spec = spec(&json!([
        {"kind": "configmap", "namespace": "other", "name": "approved"},
        {"kind": "secret", "namespace": "other", "name": "documents", "path": "prices.yaml"},
        {"kind": "service", "namespace": "other", "name": "web", "path": "/a"},
        {"kind": "git", "namespace": "other", "name": "repository", "path": "a.yaml"},
    ]));
    let outcome = approve(&sources, &prices(), &spec, Some(&alice())).await;
    assert_eq!(outcome.found, None);
    for (report, right) in outcome.reports.iter().zip(&api.denied) {
        assert_eq!(
            (report.result, report.reason),
            (SourceResult::Forbidden, "AuthorLacksRights"),
            "{report:?}"
        );
        let right = right.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert!(report.sentence.contains(&right) && report.sentence.contains("\"alice\""), "{report:?}");
    }
    assert_eq!(api.asked(), api.denied, "nothing but the rights was asked for");
}

#[tokio::test]
async fn for_a_guard_of_unknown_author_nothing_is_fetched_but_its_own_last_good_content_is_there() {
    let api = with_approved();
    let url = "http://config.team.svc/".parse().unwrap();
    let service = ConfigurationService { base: url, credential: None, authorities: None };
    let sources = sources(&api, Settings { configuration_service: Some(service), ..Settings::default() });
    let spec = spec(&json!([{"kind": "configmap", "name": "approved"}]));
    let guard = prices();
    let outcome = approve(&sources, &guard, &spec, None).await;
    let forbidden = |source: &str| (source.to_owned(), SourceResult::Forbidden, "AuthorUnknown");
    assert_eq!(
        told(&outcome),
        [
            forbidden("configmap team/approved"),
            forbidden("Configuration Service"),
            ("last known good".to_owned(), SourceResult::Unavailable, "NotSeen"),
        ]
    );
    assert!(api.asked().is_empty(), "{:?}", api.asked());
    let live = json!({"metadata": {"name": "x", "namespace": "team", "uid": "1"}, "data": {"price": "100"}});
    assert!(sources.last_good().put(&guard.uid, &guard.scope, guard.expected, live.to_string().as_bytes()));
    let outcome = approve(&sources, &guard, &spec, None).await;
    assert_eq!(outcome.found.as_ref().unwrap().1, "last known good");
    assert_eq!(data(&outcome), json!({"price": "100"}));
}

#[tokio::test]
async fn last_good_content_is_of_the_object_that_the_guard_pins_now() {
    let sources = sources(&Api::default(), Settings::default());
    let guard = prices();
    let live = json!({"metadata": {"name": "before", "namespace": "team"}, "data": {"price": "100"}});
    assert!(sources.last_good().put(&guard.uid, &guard.scope, guard.expected, live.to_string().as_bytes()));
    let outcome = approve(&sources, &guard, &spec(&json!([])), Some(&alice())).await;
    assert_eq!(told(&outcome), [("last known good".to_owned(), SourceResult::Invalid, "OtherObject")]);
}

#[tokio::test]
async fn case_57_an_outage_is_told_per_source_and_is_never_empty_content() {
    let mut api = with_approved();
    api.forbidden = vec!["/api/v1/namespaces/team/secrets/locked"];
    api.silent = vec![APPROVED];
    let limits = Limits { time: Duration::from_millis(200), ..Limits::default() };
    let sources = sources(&api, Settings { limits, ..Settings::default() });
    let spec = spec(&json!([
        {"kind": "secret", "name": "locked"},
        {"kind": "configmap", "name": "approved"},
        {"kind": "service", "name": "gone"},
    ]));
    // Even where the empty content is what is approved.
    for guard in [prices(), guard("", "ConfigMap", &json!({}))] {
        let outcome = approve(&sources, &guard, &spec, Some(&alice())).await;
        assert_eq!(outcome.found, None);
        assert_eq!(
            told(&outcome),
            [
                ("secret team/locked".to_owned(), SourceResult::Forbidden, "RightsMissing"),
                ("configmap team/approved".to_owned(), SourceResult::Unavailable, "Timeout"),
                ("service team/gone".to_owned(), SourceResult::Unavailable, "NotFound"),
                ("last known good".to_owned(), SourceResult::Unavailable, "NotSeen"),
            ]
        );
    }
}

#[tokio::test]
async fn all_sources_that_are_called_end_in_time_and_leave_the_others_theirs() {
    let slow = Server::http(|_| Reply::Stalls(String::new())).await;
    let mut api = with_approved();
    api.silent = vec![APPROVED];
    let limits =
        Limits { total: Duration::from_millis(200), time: Duration::from_millis(400), ..Limits::default() };
    let url: reqwest::Url = format!("http://127.0.0.1:{}/", slow.port()).parse().unwrap();
    let settings = Settings {
        limits,
        service_urls: vec![ServiceUrl { namespace: "team".to_owned(), name: "slow".to_owned(), url }],
        addresses: AddressPolicy::new(vec!["127.0.0.1".parse().unwrap()]),
        ..Settings::default()
    };
    let sources = sources(&api, settings);
    let spec = spec(&json!([
        {"kind": "service", "name": "slow"},
        {"kind": "service", "name": "slow", "path": "/again"},
        {"kind": "configmap", "name": "approved"},
    ]));
    let guard = prices();
    let live = json!({"metadata": {"name": "x", "namespace": "team"}, "data": {"price": "100"}});
    sources.last_good().put(&guard.uid, &guard.scope, guard.expected, live.to_string().as_bytes());
    let outcome = approve(&sources, &guard, &spec, Some(&alice())).await;
    let results: Vec<_> = told(&outcome).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(results, ["Timeout", "Timeout", "Timeout", "Matched"], "what needs no network is left");
    let sentences: Vec<&str> = outcome.reports.iter().map(|report| report.sentence.as_str()).collect();
    assert!(sentences[0].contains("together may take 0.2 s"), "{sentences:?}");
    assert!(sentences[2].contains("did not answer within 0.4 s"), "it had its own time: {sentences:?}");
}

#[tokio::test]
async fn a_service_is_called_where_it_is_mapped_to() {
    let server = Server::https("config.team.svc", |head| {
        if head.starts_with("GET /base/prices ") {
            Reply::ok(r#"{"data": {"price": "100"}}"#)
        } else {
            Reply::status("404 Not Found")
        }
    })
    .await;
    let url = format!("https://config.team.svc:{}/base", server.port()).parse().unwrap();
    let api = Api::default();
    let settings = Settings {
        service_urls: vec![ServiceUrl { namespace: "team".to_owned(), name: "config".to_owned(), url }],
        addresses: AddressPolicy::new(vec!["127.0.0.1".parse().unwrap()]),
        ..Settings::default()
    };
    let mut sources = sources(&api, settings);
    let ours = server.authority.clone();
    sources.authorities = Arc::new(move || ours.clone());
    let spec = spec(&json!([{"kind": "service", "name": "config", "path": "/prices"}]));
    let outcome = approve(&sources, &prices(), &spec, Some(&alice())).await;
    assert_eq!(data(&outcome), json!({"price": "100"}));
    assert_eq!(api.asked(), ["get services/proxy team/config"], "the Service itself is not read");
}

#[tokio::test]
async fn the_content_of_secrets_comes_by_plain_http_only_where_that_is_allowed() {
    let server = Server::http(|_| Reply::ok(r#"{"password": "geheim"}"#)).await;
    let url: reqwest::Url = format!("http://config.team.svc:{}", server.port()).parse().unwrap();
    let settings = |plain_http_secrets| Settings {
        service_urls: vec![ServiceUrl {
            namespace: "team".to_owned(),
            name: "config".to_owned(),
            url: url.clone(),
        }],
        addresses: AddressPolicy::new(vec!["127.0.0.1".parse().unwrap()]),
        plain_http_secrets,
        ..Settings::default()
    };
    let guard = guard("", "Secret", &json!({"data": {"password": base64("geheim")}}));
    let spec = spec(&json!([{"kind": "service", "name": "config"}]));
    let outcome = approve(&sources(&Api::default(), settings(false)), &guard, &spec, Some(&alice())).await;
    assert_eq!(
        told(&outcome),
        [
            ("service team/config".to_owned(), SourceResult::Forbidden, "PlainHttp"),
            ("last known good".to_owned(), SourceResult::Unavailable, "NotKept"),
        ]
    );
    assert!(server.seen().is_empty());
    let outcome = approve(&sources(&Api::default(), settings(true)), &guard, &spec, Some(&alice())).await;
    assert_eq!(data(&outcome), json!({"password": base64("geheim")}));
    assert!(!format!("{outcome:?}").contains("geheim"));
}

#[tokio::test]
async fn the_configuration_service_is_asked_by_kind_and_name_with_our_credential() {
    let server = Server::http(|head| {
        let known = head.starts_with("GET /v1/configurations/gama/x ") && head.contains("x-api-key: k-1\r\n");
        if known { Reply::ok(r#"{"parameters": {"rate": 0.50}}"#) } else { Reply::status("403 Forbidden") }
    })
    .await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "k-1\n").unwrap();
    let base = format!("http://config.team.svc:{}/v1/", server.port()).parse().unwrap();
    let credential = Some(Credential::ApiKey(key.path().to_owned()));
    let settings = Settings {
        configuration_service: Some(ConfigurationService { base, credential, authorities: None }),
        addresses: AddressPolicy::new(vec!["127.0.0.1".parse().unwrap()]),
        ..Settings::default()
    };
    let sources = sources(&Api::default(), settings);
    let gama = guard("terrafusion.ai", "GAMAConfig", &json!({"spec": {"parameters": {"rate": 0.5}}}));
    let outcome = approve(&sources, &gama, &spec(&json!([])), Some(&alice())).await;
    assert_eq!(told(&outcome), [("Configuration Service".to_owned(), SourceResult::Matched, "Matched")]);
    let object = String::from_utf8(outcome.found.unwrap().0.object).unwrap();
    assert!(object.contains(r#"{"rate": 0.50}"#), "its own bytes: {object}");
    // A key that was withdrawn is told, and so is a Secret that it may not be asked for.
    std::fs::write(key.path(), "k-2\n").unwrap();
    let outcome = approve(&sources, &gama, &spec(&json!([])), Some(&alice())).await;
    assert_eq!(told(&outcome)[0].1, SourceResult::Forbidden);
    let seen = server.seen().len();
    let secret = guard("", "Secret", &json!({"data": {"a": base64("1")}}));
    let outcome = approve(&sources, &secret, &spec(&json!([])), Some(&alice())).await;
    assert_eq!(told(&outcome)[0].2, "NotForSecrets");
    assert_eq!(server.seen().len(), seen);
}

#[tokio::test]
async fn what_could_not_be_checked_is_told_from_what_does_not_match() {
    let documents = json!({"data": {"deployment": "replicas: 2\n"}});
    let api = Api { objects: vec![(APPROVED, documents)], ..Api::default() };
    let sources = sources(&api, Settings::default());
    let spec = spec(&json!([{"kind": "configmap", "name": "approved", "path": "deployment"}]));
    let guard = guard("apps", "Deployment", &json!({"spec": {"replicas": 2, "paused": false}}));
    for (verdict, result, reason) in [
        (Verified::Matched, SourceResult::Matched, "Matched"),
        (Verified::Mismatch("m".to_owned()), SourceResult::Mismatch, "HashMismatch"),
        (Verified::Unavailable("u".to_owned()), SourceResult::Unavailable, "Unverified"),
        (Verified::CannotDryRun("c".to_owned()), SourceResult::Unavailable, "CannotDryRun"),
    ] {
        let outcome = sources.approved(&guard, &spec, Some(&alice()), &Always(verdict)).await;
        assert_eq!((outcome.reports[0].result, outcome.reports[0].reason), (result, reason));
        assert_eq!(outcome.cannot_dry_run(), reason == "CannotDryRun");
        assert_eq!(outcome.found.is_some(), reason == "Matched");
    }
}

#[tokio::test]
async fn a_chain_runs_in_a_task_of_its_own() {
    let sources = Arc::new(sources(&with_approved(), Settings::default()));
    let task = tokio::spawn(async move {
        let (guard, author) = (prices(), alice());
        let spec = spec(&json!([{"kind": "configmap", "name": "approved"}]));
        approve(&sources, &guard, &spec, Some(&author)).await
    });
    assert!(task.await.unwrap().found.is_some());
}
