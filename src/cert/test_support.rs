//! An API server for tests of the shared Secret.
#![allow(clippy::unwrap_used)] // A test whose server fails should stop.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::client::Body;

/// An API server that holds one Secret, and can let somebody else win the race to create it.
#[derive(Default)]
pub(super) struct Server {
    pub(super) stored: Option<Secret>,
    pub(super) wins_the_race: Option<Secret>,
    pub(super) writes: usize,
    pub(super) reads: usize,
}

impl Server {
    fn answer(&mut self, method: &Method, body: &[u8]) -> Response<Body> {
        if *method == Method::POST {
            if let Some(winner) = self.wins_the_race.take() {
                self.stored = Some(winner);
            }
            if self.stored.is_some() {
                return status(StatusCode::CONFLICT, "AlreadyExists");
            }
            self.writes += 1;
            let mut sent: Secret = serde_json::from_slice(body).unwrap();
            sent.metadata.resource_version = Some(self.writes.to_string());
            self.stored = Some(sent);
        }
        if *method == Method::PUT {
            let mut sent: Secret = serde_json::from_slice(body).unwrap();
            let version = self.stored.as_ref().and_then(|stored| stored.metadata.resource_version.clone());
            if self.stored.is_none() || sent.metadata.resource_version != version {
                return status(StatusCode::CONFLICT, "Conflict");
            }
            self.writes += 1;
            sent.metadata.resource_version = Some(self.writes.to_string());
            self.stored = Some(sent);
        }
        if *method == Method::GET {
            self.reads += 1;
        }
        match &self.stored {
            Some(secret) => {
                Response::builder().body(Body::from(serde_json::to_vec(secret).unwrap())).unwrap()
            }
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        }
    }
}

fn status(code: StatusCode, reason: &str) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16(),
    });
    Response::builder().status(code).body(Body::from(serde_json::to_vec(&status).unwrap())).unwrap()
}

pub(super) fn client(server: &Arc<Mutex<Server>>) -> kube::Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, kube::Error>(server.lock().unwrap().answer(&parts.method, &body))
        }
    });
    kube::Client::new(service, "default")
}
