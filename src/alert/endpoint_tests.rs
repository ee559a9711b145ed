#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::{Request, Uri};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;

use super::super::args::Settings as AllSettings;
use super::super::queue::Limits;
use super::super::test_support::alert;
use super::super::{Delivery, older};
use super::*;
use crate::core::hash::ContentHash;
use crate::telemetry::findings;
use crate::telemetry::metrics::Metrics;

/// A request as a receiver got it.
#[derive(Debug, Clone)]
struct Got {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// A receiver that answers with what it is told, and then with 204.
#[derive(Debug, Clone, Default)]
struct Receiver(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// Status and `Retry-After` of each answer.
    answers: VecDeque<(u16, Option<&'static str>)>,
    got: Vec<Got>,
}

impl Receiver {
    /// One that listens, and where.
    async fn start(answers: &[(u16, Option<&'static str>)]) -> (Self, SocketAddr) {
        let receiver = Self::default();
        receiver.0.lock().unwrap().answers.extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(receiver.clone());
        let server = axum_server::Server::<SocketAddr>::from_listener(listener);
        tokio::spawn(server.serve(router.into_make_service()));
        (receiver, address)
    }

    fn got(&self) -> Vec<Got> {
        self.0.lock().unwrap().got.clone()
    }
}

async fn answer(
    State(receiver): State<Receiver>,
    request: Request<axum::body::Body>,
) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut script = receiver.0.lock().unwrap();
    script.got.push(Got { uri: parts.uri, headers: parts.headers, body });
    let (status, asked) = script.answers.pop_front().unwrap_or((204, None));
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(asked) = asked {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(asked));
    }
    response
}

fn settings(address: SocketAddr, path: &str, credentials: Credentials) -> Settings {
    Settings { url: format!("http://{address}{path}").parse().unwrap(), credentials, authorities: None }
}

fn message() -> Event {
    cloudevents::event(&alert(false), "/driftguard")
}

#[tokio::test]
async fn a_receiver_gets_a_cloud_event_with_our_token_read_anew_each_time() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (receiver, address) = Receiver::start(&[]).await;
    let endpoint =
        Endpoint::new(&settings(address, "/hook?team=a", Credentials::Bearer(file.clone()))).unwrap();
    assert_eq!(endpoint.post(&message()).await, Answer::Delivered);
    std::fs::write(&file, "second").unwrap();
    assert_eq!(endpoint.post(&message()).await, Answer::Delivered);
    let got = receiver.got();
    assert_eq!(got[0].uri, "/hook?team=a");
    assert_eq!(got[0].headers[CONTENT_TYPE], "application/cloudevents+json; charset=utf-8");
    assert_eq!(got[0].headers[AUTHORIZATION], "Bearer first");
    assert_eq!(got[1].headers[AUTHORIZATION], "Bearer second");
    assert_eq!(got[0].body, message().body);
    // A token that went away is no reason to lose an alert.
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(endpoint.post(&message()).await, Answer::Failed { fault: Fault::Receiver, .. }));
}

#[tokio::test]
async fn a_receiver_can_check_our_signature() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("key");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let (receiver, address) = Receiver::start(&[]).await;
    let endpoint = Endpoint::new(&settings(address, "/", Credentials::Hmac(file))).unwrap();
    endpoint.post(&message()).await;
    let got = &receiver.got()[0];
    let sent = got.headers[signature::HEADER].to_str().unwrap();
    let seconds: i64 = sent.split(',').next().unwrap().strip_prefix("t=").unwrap().parse().unwrap();
    assert!((Timestamp::now().as_second() - seconds).abs() < 60);
    let body = std::str::from_utf8(&got.body).unwrap();
    assert_eq!(sent, signature::header(b"0123456789abcdef", seconds, body));
}

#[tokio::test]
async fn telemetry_goes_where_the_older_operator_sent_it() {
    let (receiver, address) = Receiver::start(&[]).await;
    let endpoint = Endpoint::new(&settings(address, "/base/", Credentials::None)).unwrap();
    let alert = alert(false);
    let about = older::About {
        transaction_id: &alert.episode,
        at: alert.at,
        guard: &alert.guard,
        guard_uid: &alert.guard_uid,
        target: &alert.target,
        expected: ContentHash::of(b"approved"),
        current: None,
        auto_remediate: false,
    };
    let drift = older::drift(&about);
    endpoint.post(&drift).await;
    endpoint.post(&older::remediation(&about, "Restored", None)).await;
    let got = receiver.got();
    let paths: Vec<&str> = got.iter().map(|got| got.uri.path()).collect();
    assert_eq!(paths, ["/base/telemetry/driftguard", "/base/telemetry/driftguard/remediation"]);
    assert_eq!(got[0].headers["X-Transaction-ID"], alert.episode);
    assert_eq!(got[0].headers["X-Event-ID"], drift.id);
    assert_eq!(got[0].headers[CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn nobody_listening_is_a_reason_to_try_again_and_no_url_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = Endpoint::new(&settings(address, "/secret-path", Credentials::None)).unwrap();
    match endpoint.post(&message()).await {
        Answer::Failed { fault: Fault::Receiver, asked: None, why } => {
            assert!(!why.contains("secret-path"), "{why}");
        }
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn answers_are_told_apart() {
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let answer = |status| judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), now);
    for status in [200, 201, 202, 204] {
        assert_eq!(answer(status), Answer::Delivered);
    }
    for status in [400, 405, 406, 410, 411, 413, 414, 415, 422, 431, 451] {
        assert!(matches!(answer(status), Answer::Refused { .. }), "{status}");
    }
    let fault = |status| match answer(status) {
        Answer::Failed { fault, .. } => Some(fault),
        _ => None,
    };
    for status in [301, 307, 407, 408, 425, 429, 502, 503, 504] {
        assert_eq!(fault(status), Some(Fault::Receiver), "{status}");
    }
    for status in [401, 403, 404, 409, 421, 423, 500, 501, 505, 507, 599] {
        assert_eq!(fault(status), Some(Fault::Message), "{status}");
    }
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
    let read = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
    assert_eq!(read("120"), Some(Duration::from_secs(120)));
    assert_eq!(read("Wed, 21 Oct 2015 07:29:30 GMT"), Some(Duration::from_secs(90)));
    assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
    for wrong in ["", "-1", "soon", "1.5", "GMT"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let place = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let missing = place.path().join("missing");
    let error = Endpoint::new(&settings(address, "/", Credentials::Bearer(missing))).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the bearer token"), "{error}");
    let short = place.path().join("short");
    std::fs::write(&short, "secret").unwrap();
    let error = Endpoint::new(&settings(address, "/", Credentials::Hmac(short.clone()))).unwrap_err();
    assert!(error.to_string().contains("openssl rand -hex 32"), "{error}");
    let wrong = Settings { authorities: Some(short), ..settings(address, "/", Credentials::None) };
    let error = Endpoint::new(&wrong).unwrap_err().to_string();
    assert!(error.contains("authorities"), "{error}");
}

#[tokio::test]
async fn an_alert_reaches_a_server_that_fails_first_and_is_then_forgotten() {
    let (receiver, address) = Receiver::start(&[(503, Some("1")), (500, None)]).await;
    let spool = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let (sink, _publisher) = findings::channel(Arc::clone(&metrics));
    let all = AllSettings {
        alerts: Some(settings(address, "/", Credentials::None)),
        telemetry: None,
        source: "/driftguard".into(),
        spool: Some(spool.path().to_owned()),
        limits: Limits { events: 100, bytes: 1_000_000 },
    };
    let mut background = JoinSet::new();
    let delivery = Delivery::start(&all, sink, metrics, &mut background).unwrap();
    for alert in [alert(false), alert(true)] {
        delivery.put(&alert);
    }
    let arrived = async {
        while !delivery.drained(Duration::from_secs(60)).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    let ids: Vec<String> = receiver
        .got()
        .iter()
        .map(|got| serde_json::from_slice::<serde_json::Value>(&got.body).unwrap()["id"].to_string())
        .collect();
    let (first, last) = ids.split_at(3);
    assert!(first.iter().all(|id| id.contains("-firing")), "{ids:?}");
    assert!(last.len() == 1 && last[0].contains("-resolved"), "{ids:?}");
}
