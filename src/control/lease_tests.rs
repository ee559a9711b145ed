//! The Lease against a scripted API server, on paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;

/// An API server that holds one Lease, as resourceVersions demand, and can go away.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<(Value, u64)>>>,
    down: Arc<Mutex<bool>>,
}

impl Server {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let (status, value) = server.answer(&parts.method, &body);
                let response =
                    Response::builder().status(status).body(Body::from(serde_json::to_vec(&value).unwrap()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason});
            (code, value)
        };
        if *self.down.lock().unwrap() {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let mut stored = self.lease.lock().unwrap();
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, &*stored) {
            (&Method::GET, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::GET, Some((lease, _))) => (StatusCode::OK, lease.clone()),
            (&Method::POST, Some(_)) => failure(StatusCode::CONFLICT, "AlreadyExists"),
            (&Method::PUT, Some((lease, _)))
                if lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] =>
            {
                failure(StatusCode::CONFLICT, "Conflict")
            }
            (_, before) => {
                let version = before.as_ref().map_or(1, |(_, version)| version + 1);
                sent["metadata"]["resourceVersion"] = json!(version.to_string());
                *stored = Some((sent.clone(), version));
                (StatusCode::OK, sent)
            }
        }
    }

    fn holder(&self) -> String {
        let stored = self.lease.lock().unwrap();
        stored
            .as_ref()
            .map(|(lease, _)| lease["spec"]["holderIdentity"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    fn start(&self, identity: &str) -> (Fence, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let (keeper, fence) = Keeper::new(self.client(), "ns", identity.into(), Terms::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(keeper.run(async {
            let _ = stopped.await;
        }));
        (fence, stop, task)
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_candidates_holds_it_and_the_other_takes_over_at_once_on_release() {
    let server = Server::default();
    let (mut first, stop, task) = server.start("first");
    first.held().await;
    let (mut second, _stop_second, _task) = server.start("second");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((server.holder().as_str(), second.check()), ("first", Err(NotHolding)));
    let released = Instant::now();
    drop(stop);
    task.await.unwrap();
    assert_eq!(first.check(), Err(NotHolding));
    second.held().await;
    assert!(released.elapsed() <= Terms::default().retry, "{:?}", released.elapsed());
    assert_eq!(server.holder(), "second");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_writing_before_another_may_start() {
    let server = Server::default();
    let (mut fence, _stop, _task) = server.start("first");
    fence.held().await;
    *server.down.lock().unwrap() = true;
    let failing_since = Instant::now();
    fence.lost().await;
    assert_eq!(fence.check(), Err(NotHolding));
    assert!(failing_since.elapsed() <= Terms::default().deadline, "{:?}", failing_since.elapsed());
    assert_eq!(server.holder(), "first", "nobody else was needed for that");
    *server.down.lock().unwrap() = false;
    fence.held().await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_vanished_is_followed_after_the_duration() {
    let server = Server::default();
    let (mut first, _stop, task) = server.start("first");
    first.held().await;
    task.abort();
    let gone = Instant::now();
    let (mut second, _stop_second, _task) = server.start("second");
    second.held().await;
    let terms = Terms::default();
    assert!(gone.elapsed() >= terms.duration, "{:?}", gone.elapsed());
    assert!(gone.elapsed() <= terms.duration + terms.retry * 2, "{:?}", gone.elapsed());
}
