//! What tests of the server share: a guarded ConfigMap, reviews of it, and TLS clients.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its server should stop.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::activity::Activity;
use super::guards::Guards;
use super::reviews::{Reviews, Voice};
use super::server::MOST_CONNECTIONS;
use super::server::{Admission, AdmissionSettings};
use crate::cert::{Authority, Leaf, LeafResolver, ServerIdentity, crypto_provider, tls};
use crate::core::canonical::hash_object;
use crate::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, Target, Versions,
};
use crate::core::index::Index;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::core::standing::Look;
use crate::core::verdict::{Question, Unguarded};
use crate::store::LiveReadError;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::trail::sink::RecordSink;

/// What a live read of guards comes to in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LiveRead {
    Nothing,
    FindsTheGuard,
    Fails,
    NeverEnds,
}

/// Guards of a test.
#[derive(Debug)]
pub(super) struct TestGuards {
    pub(super) index: Arc<Index>,
    pub(super) live: LiveRead,
    pub(super) panics: bool,
    /// What is stored, where that is not what the index holds.
    pub(super) stored: Option<Vec<GuardState>>,
    /// What the first read of an object finds; others go as `live` says.
    pub(super) object: Mutex<Option<Vec<u8>>>,
}

impl TestGuards {
    /// The guard is in the index.
    pub(super) fn known() -> Self {
        Self { index: Arc::new(Index::build(vec![guard()])), ..Self::unknown(LiveRead::Nothing) }
    }

    /// The index lags behind.
    pub(super) fn unknown(live: LiveRead) -> Self {
        Self { index: Arc::default(), live, panics: false, stored: None, object: Mutex::default() }
    }
}

impl Guards for TestGuards {
    fn index(&self) -> Arc<Index> {
        assert!(!self.panics, "planted: hunter2");
        Arc::clone(&self.index)
    }

    fn read<'a>(&'a self, object: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>> {
        Box::pin(async move {
            match self.live {
                LiveRead::Nothing => Ok(Index::default()),
                LiveRead::FindsTheGuard => Ok(Index::build(vec![guard()])),
                LiveRead::Fails => Err(LiveReadError::NoCatalog { name: object.name.clone() }),
                LiveRead::NeverEnds => std::future::pending().await,
            }
        })
    }

    fn look<'a>(&'a self, id: &'a GuardId) -> BoxFuture<'a, Result<Look, LiveReadError>> {
        Box::pin(async move {
            // What is said to be stored is found, whatever other reads come to.
            let stored = match (&self.stored, self.live) {
                (Some(stored), _) => stored,
                (None, LiveRead::Nothing | LiveRead::FindsTheGuard) => self.index.guards(),
                (None, LiveRead::Fails) => {
                    return Err(LiveReadError::NoCatalog { name: id.to_string() });
                }
                (None, LiveRead::NeverEnds) => std::future::pending().await,
            };
            let found = stored.iter().find(|state| state.id() == id);
            Ok(found.map_or(Look::Gone, |state| Look::Stands(state.clone())))
        })
    }

    fn read_object<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>> {
        Box::pin(async move {
            if let Some(found) = self.object.lock().unwrap().take() {
                return Ok(Some(found));
            }
            match self.live {
                LiveRead::Nothing | LiveRead::FindsTheGuard => Ok(None),
                LiveRead::Fails => Err(LiveReadError::NoCatalog { name: format!("{question:?}") }),
                LiveRead::NeverEnds => std::future::pending().await,
            }
        })
    }
}

/// A ConfigMap whose price is `price`.
pub(super) fn configmap(price: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "market-settings", "namespace": "trading", "uid": "cm-uid"},
        "data": {"price": price},
    })
}

/// The approved price.
pub(super) const APPROVED: &str = "100";

/// Pins the ConfigMap at the approved price.
pub(super) fn guard() -> GuardState {
    let scope = Scope::new("", "ConfigMap", PathFilter::everything());
    let expected = hash_object(configmap(APPROVED).to_string().as_bytes(), &scope).unwrap();
    GuardState::Valid(Arc::new(Guard {
        id: GuardId { namespace: "trading".into(), name: "market-settings-guard".into() },
        uid: "guard-uid".into(),
        generation: 3,
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("trading".into()),
            name: "market-settings".into(),
        },
        scope,
        expected,
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
    }))
}

/// A review of setting the price.
pub(super) fn review(uid: &str, price: &str) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "requestResource": {"group": "", "version": "v1", "resource": "configmaps"},
            "name": "market-settings", "namespace": "trading", "operation": "UPDATE",
            "userInfo": {"username": "jane", "groups": ["developers"]},
            "object": configmap(price), "oldObject": configmap(APPROVED),
            "dryRun": false, "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
        }
    })
}

/// The beginning of a review, as the API server orders it.
pub(super) fn cut_off(uid: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","object":{{"data":{{"a":"#
    )
}

/// Everything written to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(pub(super) Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reviews that are told to `written`, and the thread that writes it.
pub(super) fn reviews(
    guards: TestGuards,
    metrics: &Arc<Metrics>,
) -> (Reviews, Written, std::thread::JoinHandle<()>) {
    let written = Written::default();
    let (records, writer) = RecordSink::start(written.clone()).unwrap();
    let (events, _publisher) = events::channel(Arc::clone(metrics));
    let voice = Voice {
        replica: "replica-1".into(),
        authenticated: false,
        records,
        events,
        metrics: Arc::clone(metrics),
        would_denies: Arc::default(),
        observed: Arc::default(),
    };
    (Reviews::new(Arc::new(guards), voice), written, writer)
}

/// A server on a free port, and what its clients trust.
pub(super) struct Fixture {
    pub(super) admission: Admission,
    pub(super) address: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) authority: Authority,
    resolver: Arc<LeafResolver>,
}

impl Fixture {
    pub(super) async fn start(guards: TestGuards) -> Self {
        Self::start_with(guards, None).await
    }

    /// Serves only clients that `client` stands for, when given.
    pub(super) async fn start_with(guards: TestGuards, client: Option<&ClientCertificate>) -> Self {
        Self::start_for(guards, client, MOST_CONNECTIONS).await
    }

    /// The same for so many connections at most.
    pub(super) async fn start_for(
        guards: TestGuards,
        client: Option<&ClientCertificate>,
        most_connections: usize,
    ) -> Self {
        let now = Timestamp::now();
        let authority = Authority::generate(now).unwrap();
        let resolver = Arc::new(LeafResolver::new());
        resolver.replace(leaf(&authority, now));
        let activity = Arc::new(Activity::default());
        let metrics = Arc::new(Metrics::default());
        let settings = AdmissionSettings {
            bind: "127.0.0.1:0".parse().unwrap(),
            tls: tls::server_config(Arc::clone(&resolver), client.map(|client| client.authority.as_slice()))
                .unwrap(),
            clients_known: client.is_some(),
            client_names: client.map(|client| client.wanted.to_owned()).into_iter().collect(),
            most_connections,
            activity: Arc::clone(&activity),
            metrics: Arc::clone(&metrics),
        };
        let (reviews, ..) = reviews(guards, &metrics);
        let admission = Admission::start(settings, reviews).await.unwrap();
        Self { address: admission.address(), admission, activity, metrics, authority, resolver }
    }

    /// Presents a leaf of another authority from now on, which whoever dials from here on trusts alone.
    pub(super) fn change_authority(&mut self) {
        let now = Timestamp::now();
        self.authority = Authority::generate(now).unwrap();
        self.resolver.replace(leaf(&self.authority, now));
    }

    /// How clients of this server connect.
    pub(super) fn dial(&self, protocol: &[u8]) -> Dial {
        self.dial_as(protocol, None)
    }

    /// How clients that show a certificate connect.
    pub(super) fn dial_as(&self, protocol: &[u8], client: Option<&ClientCertificate>) -> Dial {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(vec![client.certificate.clone()], client.key.clone_key())
                .unwrap(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let from = Ipv4Addr::LOCALHOST;
        Dial { address: self.address, from, connector: TlsConnector::from(Arc::new(config)) }
    }
}

fn leaf(authority: &Authority, now: Timestamp) -> Leaf {
    Leaf::issue(authority, &ServerIdentity::host("localhost").unwrap(), now).unwrap()
}

/// A client's certificate, and the authority that signed it.
pub(super) struct ClientCertificate {
    authority: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// The name that a server asks for that knows its authority.
    pub(super) wanted: &'static str,
}

impl ClientCertificate {
    pub(super) fn generate() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Self { authority: vec![authority.der().clone()], certificate, key, wanted: "kube-apiserver" }
    }
}

/// How a client connects.
#[derive(Clone)]
pub(super) struct Dial {
    address: SocketAddr,
    /// The address that it comes from.
    pub(super) from: Ipv4Addr,
    connector: TlsConnector,
}

impl Dial {
    pub(super) async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.address).await?;
        self.connector.connect("localhost".try_into().unwrap(), stream).await
    }

    pub(super) async fn http1(&self) -> std::io::Result<http1::SendRequest<Body>> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(self.tls().await?)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(super) async fn http2(&self) -> std::io::Result<http2::SendRequest<Body>> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(self.tls().await?))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A POST of `body` to the gate.
pub(super) fn post(body: impl Into<Body>) -> Request<Body> {
    post_to("/validate/g17/fail?timeout=5s", body)
}

pub(super) fn post_to(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

/// Waits for something that must happen, and fails the test where it was asked for when it does not.
#[track_caller]
pub(super) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(60), future).await {
            Ok(value) => value,
            Err(_) => panic!("it never happened: {place}"),
        }
    }
}

/// Status and JSON of an answer.
pub(super) async fn json_of(response: Response<Incoming>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
}
