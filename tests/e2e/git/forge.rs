//! A git server over HTTPS: git's own `http-backend`, and some servers that mean ill.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use driftguard::sources::git::GitSettings;
use futures::StreamExt as _;
use reqwest::Certificate;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Who may read what lies under `/private`.
pub(super) const USER: &str = "bot";
pub(super) const PASSWORD: &str = "hunter2+/=";

/// One request that reached the server.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) authorization: Option<String>,
}

#[derive(Clone)]
struct Shared {
    repositories: PathBuf,
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Requests under `/slow` that are open now, and the most that ever were.
    open: Arc<Mutex<(usize, usize)>>,
}

pub(super) struct Forge {
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    shared: Shared,
    authority: Certificate,
}

impl Forge {
    /// Serves the repositories of a folder under `/repos`, and others under the names of [`answer`].
    pub(super) async fn start(repositories: &Path) -> Result<Self> {
        // Somebody in this process may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certified = rcgen::generate_simple_self_signed(names)?;
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let shared = Shared {
            repositories: repositories.to_owned(),
            port: listener.local_addr()?.port(),
            asked: Arc::default(),
            open: Arc::default(),
        };
        let authority = Certificate::from_pem(certificate.as_bytes())?;
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(certificate.into(), key.into()).await?;
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let server = axum_server::from_tcp_rustls(listener, tls)?.serve(app.into_make_service());
        Ok(Self { server: tokio::spawn(server), shared, authority })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.shared.port)
    }

    /// Settings with which it can be reached, with `folder` for what is fetched.
    pub(super) fn settings(&self, folder: &Path) -> GitSettings {
        let mut settings = super::local(folder);
        settings.authorities = vec![self.authority.clone()];
        settings
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The most requests under `/slow` that were open at once.
    pub(super) fn most_open(&self) -> usize {
        self.shared.open.lock().unwrap().1
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Counts a request as open for as long as it lives.
struct Open(Arc<Mutex<(usize, usize)>>);

impl Open {
    fn new(open: &Arc<Mutex<(usize, usize)>>) -> Self {
        let mut counts = open.lock().unwrap();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    shared.asked.lock().unwrap().push(Asked { authorization: authorization.map(str::to_owned) });
    let (first, rest) = uri.path().trim_start_matches('/').split_once('/').unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let to = |place: String| (StatusCode::FOUND, [(header::LOCATION, place)]).into_response();
    match first {
        "repos" => served(&shared, &method, rest, query, &headers, body).await,
        // A server that knows the first version of the protocol only.
        "old" => served(&shared, &method, rest, query, &without_protocol(headers), body).await,
        "private" => {
            let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
            if authorization == Some(expected.as_str()) {
                served(&shared, &method, rest, query, &headers, body).await
            } else {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=git")]).into_response()
            }
        }
        "moved" => to(format!("/repos/{rest}?{query}")),
        "elsewhere" => to(format!("https://127.0.0.1:{}/repos/{rest}?{query}", shared.port)),
        "downgraded" => to(format!("http://localhost:{}/repos/{rest}?{query}", shared.port)),
        "circle" => to(format!("/circle/{rest}?{query}")),
        "page" => to("/login/".to_owned()),
        "slow" => {
            let _open = Open::new(&shared.open);
            std::future::pending::<()>().await;
            StatusCode::OK.into_response()
        }
        "dripping" => {
            let drops = futures::stream::repeat(Bytes::from_static(b"0")).then(|drop| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, std::io::Error>(drop)
            });
            let drops = futures::stream::once(async { Ok(Bytes::from_static(b"fff0")) }).chain(drops);
            advertised(Body::from_stream(drops))
        }
        "endless" => {
            // One ref after the other, for ever.
            let line = packet(&format!("{} refs/heads/{}\n", "a".repeat(40), "b".repeat(900)));
            let capabilities = format!("{} HEAD\0multi_ack_detailed side-band-64k shallow\n", "a".repeat(40));
            let first = format!("{ANNOUNCED}{}", packet(&capabilities));
            let lines = futures::stream::repeat(Bytes::from(line)).map(Ok::<_, std::io::Error>);
            advertised(Body::from_stream(
                futures::stream::once(async { Ok(Bytes::from(first)) }).chain(lines),
            ))
        }
        "echo" => {
            let sent = authorization.and_then(|value| value.strip_prefix("Basic ")).unwrap_or_default();
            let decoded = BASE64_STANDARD.decode(sent).unwrap_or_default();
            let said = format!("ERR you are {} or {sent}", String::from_utf8_lossy(&decoded));
            advertised(Body::from(format!("{ANNOUNCED}{}", packet(&said))))
        }
        "broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "login" => ([(header::CONTENT_TYPE, "text/html")], "<h1>log in</h1>").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What git's HTTP servers begin with.
const ANNOUNCED: &str = "001e# service=git-upload-pack\n0000";

/// A line as git frames it.
fn packet(line: &str) -> String {
    format!("{:04x}{line}", line.len() + 4)
}

fn advertised(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-git-upload-pack-advertisement")], body).into_response()
}

fn without_protocol(mut headers: HeaderMap) -> HeaderMap {
    headers.remove("git-protocol");
    headers
}

async fn served(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    match backend(shared, method, path, query, headers, body).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Git's CGI program (RFC 3875).
async fn backend(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", &shared.repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("git is missing: install it (Debian: apt install git)")?;
    let mut input = child.stdin.take().context("no stdin")?;
    let (written, output) = tokio::join!(
        async {
            input.write_all(&body).await?;
            drop(input);
            Ok::<_, std::io::Error>(())
        },
        child.wait_with_output()
    );
    written?;
    let output = output?.stdout;
    let Some(end) = output.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("git http-backend said nothing");
    };
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end])?.lines() {
        let (name, value) = line.split_once(": ").context("a header")?;
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap_or_default()),
            _ => response.header(name, value),
        };
    }
    Ok(response.body(Body::from(output[end + 4..].to_vec()))?)
}
