//! The server as API servers meet it: real sockets, real TLS, HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its server should stop.

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, Version};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::cert::Registered;
use crate::cert::self_check::handshake;
use crate::cert::tls::{ALPN_H2, ALPN_HTTP_1};
use crate::webhook::test_support::{
    APPROVED, ClientCertificate, Dial, Fixture, TestGuards, cut_off, json_of, post, post_to, review, soon,
};

/// A connection of either protocol.
enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

const BOTH: [&[u8]; 2] = [ALPN_HTTP_1, ALPN_H2];

async fn connect(dial: &Dial, protocol: &[u8]) -> std::io::Result<Client> {
    Ok(if protocol == ALPN_H2 {
        Client::Http2(dial.http2().await?)
    } else {
        Client::Http1(dial.http1().await?)
    })
}

async fn client(server: &Fixture, protocol: &[u8]) -> Client {
    connect(&server.dial(protocol), protocol).await.unwrap()
}

/// A review whose second half is sent when the returned sender says so.
fn in_two_halves(price: &str) -> (oneshot::Sender<()>, Body) {
    let whole = review("u", price).to_string().into_bytes();
    let (first, second) = whole.split_at(whole.len() / 2);
    let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
    let (go, gone) = oneshot::channel();
    let frames =
        stream::once(async { Ok::<_, std::io::Error>(Frame::data(first)) }).chain(stream::once(async {
            let _ = gone.await;
            Ok(Frame::data(second))
        }));
    (go, Body::new(StreamBody::new(frames)))
}

async fn price(client: &mut Client, price: &str) -> (u16, Value) {
    json_of(soon(client.send(post(review("u-1", price).to_string()))).await.unwrap()).await
}

#[tokio::test]
async fn both_protocols_allow_what_is_approved_and_refuse_the_rest() {
    let server = Fixture::start(TestGuards::known()).await;
    for protocol in BOTH {
        let mut client = client(&server, protocol).await;
        let response = soon(client.send(post(review("u-1", APPROVED).to_string()))).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let version = if protocol == ALPN_H2 { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(response.version(), version);
        let (status, answer) = json_of(response).await;
        assert_eq!((status, &answer["response"]["allowed"]), (200, &true.into()));
        let (status, answer) = price(&mut client, "101").await;
        assert_eq!((status, &answer["response"]["allowed"]), (200, &false.into()));
        assert_eq!(answer["response"]["uid"], "u-1");
        assert_eq!(answer["response"]["status"]["reason"], "Forbidden");
    }
}

#[tokio::test]
async fn other_paths_methods_and_bodies_are_errors_without_retry_after() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut client = client(&server, ALPN_H2).await;
    let get = Request::get("https://localhost/validate/g1/fail").body(Body::empty()).unwrap();
    for (request, status) in [
        (post_to("/validate", "x"), 404),
        (post_to("/validate/", "x"), 404),
        (post_to("/validate/x/fail", "x"), 404),
        (post_to("/metrics", "x"), 404),
        (get, 405),
        (post("this is no review"), 400),
        (post(""), 400),
    ] {
        let what = format!("{request:?}");
        let response = soon(client.send(request)).await.unwrap();
        assert!(response.headers().get("retry-after").is_none());
        assert_eq!(response.status().as_u16(), status, "{what}");
    }
}

#[tokio::test]
async fn the_mutating_hook_allows_without_a_patch() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut client = client(&server, ALPN_H2).await;
    let request = post_to("/mutate/g17/ignore?timeout=5s", review("u", "101").to_string());
    let (_, answer) = json_of(soon(client.send(request)).await.unwrap()).await;
    assert_eq!(answer["response"], serde_json::json!({"uid": "u", "allowed": true}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_review_passes_and_one_beyond_the_limit_is_refused_under_its_uid() {
    let server = Fixture::start(TestGuards::known()).await;
    for protocol in BOTH {
        let mut client = client(&server, protocol).await;
        let mut large = review("u", APPROVED);
        large["request"]["oldObject"]["data"]["padding"] = "x".repeat(18 << 20).into();
        let (_, answer) = json_of(soon(client.send(post(large.to_string()))).await.unwrap()).await;
        assert_eq!(answer["response"]["allowed"], true);
        let beyond = format!("{}\"{}\"}}}}}}", cut_off("u-9"), "x".repeat(25 << 20));
        let (status, answer) = json_of(soon(client.send(post(beyond))).await.unwrap()).await;
        assert_eq!((status, &answer["response"]["uid"]), (200, &"u-9".into()));
        assert_eq!(answer["response"]["allowed"], false);
    }
}

#[tokio::test]
async fn a_bug_is_a_500_and_the_connection_lives_on() {
    let server = Fixture::start(TestGuards { panics: true, ..TestGuards::known() }).await;
    for protocol in BOTH {
        let mut client = client(&server, protocol).await;
        for _ in 0..2 {
            let (status, answer) = price(&mut client, APPROVED).await;
            assert_eq!(status, 500);
            assert!(!answer.to_string().contains("hunter2"), "{answer}");
        }
    }
    assert_eq!(server.activity.in_flight(), 0);
}

#[tokio::test]
async fn a_review_that_does_not_arrive_in_time_is_given_up() {
    let server = Fixture::start(TestGuards::known()).await;
    for protocol in BOTH {
        let mut client = client(&server, protocol).await;
        let (never, body) = in_two_halves(APPROVED);
        let request = post_to("/validate/g1/fail?timeout=50ms", body);
        let response = soon(client.send(request)).await.unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.headers().get("retry-after").is_none());
        drop(never);
    }
}

#[tokio::test]
async fn with_a_client_authority_nobody_else_is_served() {
    let known = ClientCertificate::generate();
    let server = Fixture::start_with(TestGuards::known(), Some(&known)).await;
    for protocol in BOTH {
        let sent = async {
            let mut client = connect(&server.dial(protocol), protocol).await?;
            client.send(post(review("u", APPROVED).to_string())).await.map_err(std::io::Error::other)
        };
        assert!(soon(sent).await.is_err(), "it showed no certificate");
        let mut client = connect(&server.dial_as(protocol, Some(&known)), protocol).await.unwrap();
        assert_eq!(price(&mut client, APPROVED).await.0, 200);
        let stranger = server.dial_as(protocol, Some(&ClientCertificate::generate()));
        let sent = async {
            let mut client = connect(&stranger, protocol).await?;
            client.send(post(review("u", APPROVED).to_string())).await.map_err(std::io::Error::other)
        };
        assert!(soon(sent).await.is_err(), "it showed a certificate of somebody else");
    }
    let page = server.metrics.encode().unwrap();
    assert!(page.contains(r#"handshakes_total{result="anonymous"} 2"#), "{page}");
}

#[tokio::test]
async fn a_client_of_the_known_authority_with_another_name_is_refused() {
    let mut client = ClientCertificate::generate();
    client.wanted = "front-proxy";
    let server = Fixture::start_with(TestGuards::known(), Some(&client)).await;
    for protocol in BOTH {
        let dial = server.dial_as(protocol, Some(&client));
        let sent = async {
            let mut client = connect(&dial, protocol).await?;
            client.send(post(review("u", APPROVED).to_string())).await.map_err(std::io::Error::other)
        };
        assert!(soon(sent).await.is_err(), "its name is kube-apiserver");
    }
    let page = server.metrics.encode().unwrap();
    assert!(page.contains(r#"handshakes_total{result="stranger"} 2"#), "{page}");
}

#[tokio::test]
async fn our_own_handshake_passes_although_it_shows_no_certificate() {
    let known = ClientCertificate::generate();
    let server = Fixture::start_with(TestGuards::known(), Some(&known)).await;
    let registered = Registered {
        server_name: "localhost".try_into().unwrap(),
        bundle: server.authority.bundle().to_vec(),
    };
    handshake(server.address, &registered).await.unwrap();
}

#[tokio::test]
async fn whoever_holds_all_connections_idle_gives_way_and_a_request_in_flight_does_not() {
    const MOST: usize = 8;
    let server = Fixture::start_for(TestGuards::known(), None, MOST).await;
    let mut honest = client(&server, ALPN_HTTP_1).await;
    assert_eq!(price(&mut honest, APPROVED).await.0, 200);
    let mut hostile = server.dial(ALPN_HTTP_1);
    hostile.from = [127, 0, 0, 2].into();
    let (go, body) = in_two_halves("101");
    let mut asking = connect(&hostile, ALPN_HTTP_1).await.unwrap();
    let asking = tokio::spawn(async move { asking.send(post(body)).await });
    soon(async {
        while server.activity.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut held = Vec::new();
    for number in 0..3 * MOST {
        held.push(match number % 3 {
            0 => connect(&hostile, ALPN_HTTP_1).await.unwrap(),
            1 => connect(&hostile, ALPN_H2).await.unwrap(),
            // Others go on being served.
            _ => {
                let mut other = client(&server, ALPN_H2).await;
                assert_eq!(price(&mut other, APPROVED).await.0, 200);
                continue;
            }
        });
    }
    assert!(server.admission.open() <= MOST);
    assert!(held.iter().filter(|client| !client.is_closed()).count() < MOST);
    go.send(()).unwrap();
    let (_, answer) = json_of(soon(asking).await.unwrap().unwrap()).await;
    assert_eq!(answer["response"]["allowed"], false, "it was in flight all the time");
    assert_eq!(price(&mut honest, APPROVED).await.0, 200, "its address holds few");
    let page = server.metrics.encode().unwrap();
    assert!(!page.contains("\ndriftguard_connections_closed_for_room_total 0\n"), "{page}");
}

/// The certificate that a new connection is shown.
async fn presented(dial: &Dial) -> Vec<u8> {
    let stream = soon(dial.tls()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn connections_that_are_open_when_the_certificate_is_swapped_go_on_being_served() {
    let mut server = Fixture::start(TestGuards::known()).await;
    for protocol in BOTH {
        let before = server.dial(protocol);
        let shown = presented(&before).await;
        let mut idle = connect(&before, protocol).await.unwrap();
        assert_eq!(price(&mut idle, APPROVED).await.0, 200);
        let mut asking = connect(&before, protocol).await.unwrap();
        let (go, body) = in_two_halves("101");
        let asking = tokio::spawn(async move {
            let response = asking.send(post(body)).await;
            (asking, response)
        });
        soon(async {
            while server.activity.in_flight() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;

        server.change_authority();
        let after = server.dial(protocol);
        assert_ne!(presented(&after).await, shown, "new connections get the new leaf");
        assert!(connect(&before, protocol).await.is_err(), "and none whoever trusts the old authority alone");

        go.send(()).unwrap();
        let (mut asking, response) = soon(asking).await.unwrap();
        let response = response.unwrap();
        assert!(!response.headers().contains_key("connection"), "it is not asked to close");
        assert_eq!(json_of(response).await.1["response"]["allowed"], false, "it was on its way");
        for open in [&mut idle, &mut asking] {
            for (price, allowed) in [(APPROVED, true), ("101", false)] {
                let response = soon(open.send(post(review("u-1", price).to_string()))).await.unwrap();
                assert!(!response.headers().contains_key("connection"), "it is not asked to close");
                assert_eq!(json_of(response).await.1["response"]["allowed"], allowed);
            }
            assert!(!open.is_closed());
        }
        let mut new = connect(&after, protocol).await.unwrap();
        assert_eq!(price(&mut new, APPROVED).await.0, 200);
    }
}

/// Long enough for what a test does meanwhile, and over at once when nobody asks any more.
fn times() -> DrainTimes {
    DrainTimes {
        announce: Duration::ZERO,
        quiet: Duration::from_millis(300),
        limit: Duration::from_secs(60),
        finish: Duration::from_secs(12),
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_while_stopping() {
    for protocol in BOTH {
        let server = Fixture::start(TestGuards::known()).await;
        let mut client = client(&server, protocol).await;
        let (go, body) = in_two_halves("101");
        let sending = tokio::spawn(async move { client.send(post(body)).await });
        soon(async {
            while server.activity.in_flight() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let activity = Arc::clone(&server.activity);
        let drained = tokio::spawn(server.admission.drain(times()));
        soon(async {
            while !activity.is_draining() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        go.send(()).unwrap();
        let (_, answer) = json_of(soon(sending).await.unwrap().unwrap()).await;
        assert_eq!(answer["response"]["allowed"], false);
        assert!(soon(drained).await.unwrap(), "everything was closed in time");
    }
}

#[tokio::test]
async fn idle_http1_connections_are_asked_to_close_with_their_next_answer() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut client = client(&server, ALPN_HTTP_1).await;
    assert_eq!(price(&mut client, APPROVED).await.0, 200);
    server.activity.drain();
    let response = soon(client.send(post(review("u", APPROVED).to_string()))).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(json_of(response).await.1["response"]["allowed"], true);
    let Client::Http1(sender) = &mut client else { panic!() };
    assert!(soon(sender.ready()).await.is_err(), "the server closes it");
}

#[tokio::test]
async fn an_idle_http1_connection_is_served_once_more_after_the_socket_has_closed() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut idle = client(&server, ALPN_HTTP_1).await;
    assert_eq!(price(&mut idle, APPROVED).await.0, 200);
    let dial = server.dial(ALPN_HTTP_1);
    let drained = tokio::spawn(server.admission.drain(times()));
    soon(async {
        while connect(&dial, ALPN_HTTP_1).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let response = soon(idle.send(post(review("u", APPROVED).to_string()))).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(json_of(response).await.1["response"]["allowed"], true);
    assert!(soon(drained).await.unwrap(), "nothing is open any more");
}

#[tokio::test]
async fn http2_connections_are_told_to_go_and_new_ones_still_get_an_answer() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut old = client(&server, ALPN_H2).await;
    assert_eq!(price(&mut old, APPROVED).await.0, 200);
    let dial = server.dial(ALPN_H2);
    let activity = Arc::clone(&server.activity);
    let drained = tokio::spawn(server.admission.drain(times()));
    let Client::Http2(sender) = &mut old else { panic!() };
    soon(async {
        // GOAWAY makes the client's connection end.
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(activity.is_draining());
    let mut new = connect(&dial, ALPN_H2).await.unwrap();
    assert_eq!(price(&mut new, APPROVED).await.0, 200);
    assert!(soon(drained).await.unwrap());
    assert!(connect(&dial, ALPN_H2).await.is_err(), "the socket is closed");
}

/// Asks again and again, connecting anew when told to, as an API server does. Ends when nobody
/// listens any more; says how many requests were answered, or what was lost.
async fn ask_on(dial: Dial, protocol: &'static [u8]) -> Result<usize, String> {
    let mut answered = 0;
    loop {
        let Ok(mut client) = connect(&dial, protocol).await else { return Ok(answered) };
        loop {
            let response = match client.send(post(review("u", "101").to_string())).await {
                Ok(response) => response,
                // Not sent, or refused by GOAWAY: an API server sends it again elsewhere.
                Err(error) if error.is_canceled() || error.is_closed() => break,
                Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => break,
                Err(error) => return Err(format!("after {answered} answers: {error:?}")),
            };
            let close = response.headers().get("connection").is_some_and(|value| value == "close");
            let (status, answer) = json_of(response).await;
            if status != 200 || answer["response"]["allowed"] != false {
                return Err(format!("{status} {answer}"));
            }
            answered += 1;
            if close || client.is_closed() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_stopping_under_load() {
    for protocol in BOTH {
        let server = Fixture::start(TestGuards::known()).await;
        let askers: Vec<_> = (0..8).map(|_| tokio::spawn(ask_on(server.dial(protocol), protocol))).collect();
        soon(async {
            while !server.metrics.encode().unwrap().contains("review_seconds_count 1") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Nobody goes elsewhere, so that the socket closes on them: the hardest case. How long it takes to
        // answer what has begun is up to the machine.
        let times = DrainTimes {
            announce: Duration::from_millis(500),
            quiet: Duration::from_secs(60),
            limit: Duration::from_secs(60),
            finish: Duration::from_secs(58),
        };
        assert!(soon(server.admission.drain(times)).await, "not everything was closed in time");
        let mut answered = 0;
        for asker in askers {
            answered += soon(asker).await.unwrap().unwrap();
        }
        // What was judged was also answered, so that what GOAWAY refused was not judged.
        let judged = format!(r#"reviews_total{{verdict="deny",reason="HashMismatch"}} {answered}"#);
        let page = server.metrics.encode().unwrap();
        assert!(page.contains(&format!("{judged}\n")), "{judged} not in\n{page}");
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_does_not_keep_the_process() {
    let server = Fixture::start(TestGuards::known()).await;
    let mut client = client(&server, ALPN_HTTP_1).await;
    let (never, body) = in_two_halves("101");
    let sending = tokio::spawn(async move { client.send(post(body)).await });
    soon(async {
        while server.activity.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let times = DrainTimes {
        announce: Duration::ZERO,
        quiet: Duration::ZERO,
        limit: Duration::from_millis(300),
        finish: Duration::ZERO,
    };
    assert!(!soon(server.admission.drain(times)).await);
    assert!(soon(sending).await.unwrap().is_err());
    drop(never);
}

#[tokio::test]
async fn open_connections_are_counted() {
    let server = Fixture::start(TestGuards::known()).await;
    assert_eq!(server.admission.open(), 0);
    let mut first = client(&server, ALPN_HTTP_1).await;
    let mut second = client(&server, ALPN_H2).await;
    assert_eq!(price(&mut first, APPROVED).await.0, 200);
    assert_eq!(price(&mut second, APPROVED).await.0, 200);
    assert_eq!(server.admission.open(), 2);
    drop(first);
    soon(async {
        while server.admission.open() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
