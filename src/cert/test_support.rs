//! An API server for tests of the shared Secret, and files as somebody else would put them there.
#![allow(clippy::unwrap_used)] // A test whose server fails should stop.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Secret;
use kube::client::Body;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;

use super::Authority;
use super::authority::{dated, to_pem};
use super::files::CertificateFiles;
use crate::core::rotation::Validity;

/// An API server that holds one Secret, and can let somebody else win the race to create it.
#[derive(Default)]
pub(super) struct Server {
    pub(super) stored: Option<Secret>,
    pub(super) wins_the_race: Option<Secret>,
    /// Names and versions of the Leases that are listed.
    pub(super) leases: Vec<(String, String)>,
    pub(super) writes: usize,
    pub(super) reads: usize,
    /// Those who watch the Secret; `None` when nobody may.
    pub(super) watchers: Option<Vec<mpsc::UnboundedSender<Bytes>>>,
}

impl Server {
    /// Somebody else stores another Secret, of which watches tell.
    pub(super) fn replace(&mut self, secret: Secret) {
        let metadata = json!({"name": secret.metadata.name, "resourceVersion": "9"});
        let object = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
        });
        let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
        self.stored = Some(secret);
        for watcher in self.watchers.iter().flatten() {
            // Who has gone hears nothing.
            let _ = watcher.unbounded_send(Bytes::from(line.clone()));
        }
    }

    fn watch(&mut self, query: &str) -> Response<Answer> {
        let Some(watchers) = &mut self.watchers else { return status(StatusCode::FORBIDDEN, "Forbidden") };
        if query.contains("watch=") {
            let (sender, lines) = mpsc::unbounded();
            watchers.push(sender);
            let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let list = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {"resourceVersion": "1"}, "items": [],
        });
        Response::new(whole(list.to_string().into_bytes()))
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Response<Answer> {
        let path = uri.path();
        if path.ends_with("/leases") {
            let item = |(name, version): &(String, String)| json!({"metadata": {"name": name, "resourceVersion": version}});
            let items: Vec<_> = self.leases.iter().map(item).collect();
            let list = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items,
            });
            return Response::builder().body(whole(list.to_string().into_bytes())).unwrap();
        }
        if *method == Method::GET && path.ends_with("/secrets") {
            return self.watch(uri.query().unwrap_or_default());
        }
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
            Some(secret) => Response::builder().body(whole(serde_json::to_vec(secret).unwrap())).unwrap(),
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        }
    }
}

/// The body of an answer.
type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn whole(bytes: Vec<u8>) -> Answer {
    Full::from(bytes).boxed_unsync()
}

fn status(code: StatusCode, reason: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16(),
    });
    Response::builder().status(code).body(whole(serde_json::to_vec(&status).unwrap())).unwrap()
}

pub(super) fn client(server: &Arc<Mutex<Server>>) -> kube::Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, kube::Error>(server.lock().unwrap().answer(&parts.method, &parts.uri, &body))
        }
    });
    kube::Client::new(service, "default")
}

/// A folder with a certificate, its key and its authorities.
pub(super) struct Supply(tempfile::TempDir);

impl Supply {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn files(&self) -> CertificateFiles {
        let [certificate, key, authorities] = ["tls.crt", "tls.key", "ca.crt"].map(|name| self.path(name));
        CertificateFiles { certificate, key, authorities }
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Puts a certificate for `name` there that `by` has signed, beside these authorities.
    pub(super) fn put(&self, by: &Authority, name: &str, authorities: &[&Authority]) {
        self.put_valid(by, name, authorities, by.validity());
    }

    /// The same with one that has ended.
    pub(super) fn put_ended(&self, by: &Authority, name: &str) {
        let hour = jiff::SignedDuration::from_hours(1);
        let not_after = jiff::Timestamp::now() - hour;
        self.put_valid(by, name, &[by], Validity { not_before: not_after - hour, not_after });
    }

    fn put_valid(&self, by: &Authority, name: &str, authorities: &[&Authority], validity: Validity) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, validity);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, by.issuer()).unwrap();
        self.write("tls.crt", signed.pem().as_bytes());
        self.write("tls.key", key.serialize_pem().as_bytes());
        let all: Vec<_> = authorities.iter().map(|one| one.certificate().clone()).collect();
        self.write("ca.crt", to_pem(&all).as_bytes());
    }
}
