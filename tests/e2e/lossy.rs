//! A watch that loses events: a sweep finds what it has not told, and the guard says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use driftguard_control_plane::guardian::{Process, Program};
use driftguard_control_plane::{ControlPlane, User, free_port, until};
use futures::StreamExt as _;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::auditing::{condition, write_into};
use crate::installation::{DRIFTGUARD, LIMIT, config_map, driftguard, hash_of};

const NAMESPACE: &str = "lossy";

/// How long each read of one guard takes when such reads are slow.
pub(crate) const SLOW: Duration = Duration::from_millis(200);

/// A proxy before the API server, by plain http, that can lose what watches of one namespace tell of changes,
/// keep back what the watch of guards tells, and slow reads of one guard down.
struct Lossy {
    _runtime: tokio::runtime::Runtime,
    port: u16,
    faults: Faults,
}

#[derive(Clone)]
struct Faults {
    loses: Arc<AtomicBool>,
    keeps_back: watch::Sender<bool>,
    slows: Arc<AtomicBool>,
}

impl Lossy {
    fn before(address: &str, authority: &[u8]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut config = kube::Config::new(address.parse()?);
        config.root_cert = Some(vec![pem(authority)?]);
        // A watch may be silent for long.
        config.read_timeout = None;
        let entered = runtime.enter();
        let client = kube::Client::try_from(config)?;
        let faults =
            Faults { loses: Arc::default(), keeps_back: watch::Sender::new(false), slows: Arc::default() };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let app = axum::Router::new().fallback(forward).with_state((client, faults.clone()));
        let server = axum_server::from_tcp(listener.into_std()?)?;
        runtime.spawn(server.serve(app.into_make_service()));
        drop(entered);
        Ok(Self { _runtime: runtime, port, faults })
    }
}

/// The bytes of the first certificate.
fn pem(authority: &[u8]) -> Result<Vec<u8>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    Ok(CertificateDer::from_pem_slice(authority).map_err(|error| anyhow::anyhow!("{error}"))?.to_vec())
}

async fn forward(
    State((client, Faults { loses, keeps_back, slows })): State<(kube::Client, Faults)>,
    request: Request,
) -> Response {
    let uri = request.uri().to_string();
    let is_watch = uri.contains("watch=true") && uri.contains(&format!("/namespaces/{NAMESPACE}/configmaps"));
    let is_of_guards = uri.contains("watch=true") && uri.contains("/driftguards?");
    if slows.load(Ordering::Acquire) && request.method() == Method::GET && uri.contains("/driftguards/") {
        tokio::time::sleep(SLOW).await;
    }
    let (mut head, body) = request.into_parts();
    for name in [header::HOST, header::CONNECTION, header::ACCEPT_ENCODING] {
        head.headers.remove(name);
    }
    let failed = |error: String| {
        let mut response = Response::new(Body::from(error));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return failed(error.to_string()),
    };
    let answer = match client.send(Request::from_parts(head, kube::client::Body::from(body.to_vec()))).await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    let (mut head, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let chunks = body.into_data_stream();
    if is_of_guards {
        let told = chunks.then(move |chunk| {
            let mut keeps_back = keeps_back.subscribe();
            async move {
                // Fails only when the test is over.
                let _ = keeps_back.wait_for(|keeps| !keeps).await;
                chunk
            }
        });
        return Response::from_parts(head, Body::from_stream(told));
    }
    if !is_watch {
        return Response::from_parts(head, Body::from_stream(chunks));
    }
    let lines = chunks.scan(Vec::new(), move |rest: &mut Vec<u8>, chunk| {
        let passed = chunk.map(|chunk| {
            rest.extend_from_slice(&chunk);
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = rest.drain(..whole).collect();
            let is_lost = |line: &[u8]| {
                loses.load(Ordering::Acquire)
                    && String::from_utf8_lossy(line).contains(r#""type":"MODIFIED""#)
            };
            let kept = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_lost(line));
            Bytes::from(kept.flatten().copied().collect::<Vec<u8>>())
        });
        std::future::ready(Some(passed))
    });
    Response::from_parts(head, Body::from_stream(lines))
}

/// `serve` behind the proxy.
pub(crate) struct Behind {
    plane: ControlPlane,
    pub(crate) admin: User,
    pub(crate) serve: Process,
    health: u16,
    proxy: Lossy,
}

impl Behind {
    pub(crate) fn start() -> Result<Self> {
        let plane = ControlPlane::builder().start()?;
        let admin = plane.admin()?;
        let (port, health) = (free_port()?, free_port()?);
        let url = format!("https://127.0.0.1:{port}");
        driftguard(&admin, &["install", "--dev", &format!("--url={url}")])?.success()?;
        let operator = plane.service_account("terrafusion-system", "driftguard-operator")?;
        let address = plane.api_server().address().to_owned();
        let proxy = Lossy::before(&address, &std::fs::read(plane.folder().join("authority.crt"))?)?;
        let config = std::fs::read_to_string(operator.kubeconfig())?;
        let behind = plane.folder().join("behind.kubeconfig");
        std::fs::write(&behind, config.replace(&address, &format!("http://127.0.0.1:{}", proxy.port)))?;
        let program = Program::new("driftguard", DRIFTGUARD).args([
            "serve".to_owned(),
            "--audit-interval=30s".to_owned(),
            format!("--webhook-url={url}"),
            format!("--bind=127.0.0.1:{port}"),
            format!("--health-bind=127.0.0.1:{health}"),
            format!("--api-server-endpoint={address}"),
            format!("--kubeconfig={}", behind.display()),
        ]);
        let serve = plane.guardian().start(&program)?;
        let behind = Self { plane, admin, serve, health, proxy };
        until("serve is ready", LIMIT, || {
            behind.asked("/readyz")?;
            let signing = ["get", "mutatingwebhookconfiguration/driftguard", "-o", "yaml"];
            let signing = behind.admin.kubectl(&signing)?.success()?;
            ensure!(signing.contains("/driftguards"), "guards are not reviewed yet");
            Ok(())
        })
        .with_context(|| behind.serve.log_tail())?;
        Ok(behind)
    }

    /// Keeps back from now on, or no longer, what the watch of guards tells.
    pub(crate) fn keep_guards_back(&self, keeps: bool) {
        self.proxy.faults.keeps_back.send_replace(keeps);
    }

    /// Slows reads of one guard down from now on.
    pub(crate) fn slow_reads_of_guards(&self) {
        self.proxy.faults.slows.store(true, Ordering::Release);
    }

    pub(crate) fn asked(&self, path: &str) -> Result<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.health))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(answer)
    }

    /// Waits until a condition has this status and reason, or there is none.
    fn says(&self, of_type: &str, wanted: Option<(&str, &str)>) -> Result<Value> {
        until(&format!("{of_type} is {wanted:?}"), 2 * LIMIT, || {
            let get = ["get", "dg/settings", "-n", NAMESPACE, "-o", "json"];
            let guard = self.admin.kubectl(&get)?.json()?;
            let said = condition(&guard, of_type);
            let words = said.as_ref().map(|said| (said["status"].as_str(), said["reason"].as_str()));
            let wanted = wanted.map(|(status, reason)| (Some(status), Some(reason)));
            ensure!(words == wanted, "{said:?}\n{}", self.serve.log_tail());
            Ok(guard)
        })
    }
}

#[test]
fn a_change_that_a_watch_does_not_tell_is_found_by_a_sweep_and_said_by_the_guard_and_a_metric() -> Result<()>
{
    let on = Behind::start()?;
    on.admin.kubectl(&["create", "namespace", NAMESPACE])?.success()?;
    let settings = config_map(NAMESPACE, "settings", &json!({"limit": "1000"}));
    on.admin.kubectl_with(&["create", "-f", "-"], settings.to_string())?.success()?;
    let guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "settings", "namespace": NAMESPACE},
        "spec": {"targetKind": "ConfigMap", "targetName": "settings", "expectedHash": hash_of(&settings)?},
    });
    on.admin.kubectl_with(&["create", "-f", "-"], guard.to_string())?.success()?;
    on.says("Drifted", Some(("False", "InSync")))?;
    ensure!(
        on.asked("/metrics")?.contains("driftguard_watch_missed_total 0"),
        "something was missed already"
    );
    on.proxy.faults.loses.store(true, Ordering::Release);
    let key = format!("/registry/configmaps/{NAMESPACE}/settings");
    write_into(on.plane.etcd(), &key, "1000", "9999")?;
    let guard = on.says("Watched", Some(("False", "WatchMissedChange")))?;
    let drifted = condition(&guard, "Drifted").context("nothing is said of drift")?;
    ensure!(drifted["status"] == "True", "{drifted}");
    let metrics = on.asked("/metrics")?;
    ensure!(metrics.contains("driftguard_watch_missed_total 1"), "{metrics}");
    ensure!(metrics.contains(r#"driftguard_drifts_total{look="sweep"} 1"#), "{metrics}");
    Ok(())
}
