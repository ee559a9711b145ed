//! Traces by OTLP, on when the standard variables say where they go.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` turns them on; headers, timeout, sampler,
//! resource and batches are set by their `OTEL_*` variables, too. Only http/protobuf is spoken. Spans are for
//! reviews, audits, remediations and deliveries, and hold what records hold: no value and no hash. They
//! have a target of their own, so that no log line and no other span is exported, and cost next to nothing
//! while traces are off. A proxy that the environment names is used.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::{Certificate, Client, redirect};
use tokio::runtime::Handle;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Target of our spans. Of level debug, so that they are not in the logs.
const TARGET: &str = "driftguard::trace";
/// How long one request to the collector may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` is shorter.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer of the collector is read: at most, it says which spans it does not take.
const MOST_READ: usize = 64 * 1024;

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// Another protocol is asked for.
    #[error(
        "cannot send traces by {asked} ({variable}): DriftGuard speaks http/protobuf, which collectors take at port 4318"
    )]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// Its value.
        asked: String,
    },
    /// The authorities of the collector cannot be read.
    #[error("cannot read the authorities of the collector {path} ({variable}): {cause}")]
    Authorities {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the client that sends traces: {0}")]
    Client(reqwest::Error),
    /// Another variable cannot be used.
    #[error("cannot send traces as the OTEL_ variables say: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Traces as the variables of the environment say; `None` when they are off. They are sent by
    /// `runtime`, whose clock and sockets the thread that gathers spans does not have.
    ///
    /// # Errors
    /// [`TracesError`] when a variable cannot be used.
    pub fn from_environment(runtime: Handle) -> Result<Option<Self>, TracesError> {
        let variable = |name: &'static str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !are_on(&variable) {
            return Ok(None);
        }
        if let Some((variable, asked)) =
            first(&variable, ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"])
            && asked != "http/protobuf"
        {
            return Err(TracesError::Protocol { variable, asked });
        }
        let authorities =
            first(&variable, ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Sender {
                client: client(authorities)?,
                runtime,
                is_failing: AtomicBool::new(false),
            })
            .build()?;
        let mut resource = Resource::builder();
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| list.contains("service.name="));
        if !named {
            resource = resource.with_service_name("driftguard");
        }
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// What takes spans from `tracing`.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("driftguard"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG))
    }

    /// Sends what was gathered, and stops; returns after `limit` at the latest.
    pub async fn stop(self, limit: Duration) {
        // It waits for the thread that gathers spans, which waits for this runtime.
        let stopping = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit, stopping).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("not every span could be sent in time"),
        }
    }
}

fn are_on(variable: &impl Fn(&'static str) -> Option<String>) -> bool {
    let is = |name, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    let endpoint = first(variable, ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    endpoint.is_some() && !is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none")
}

/// The first of these variables that is set, with its name.
fn first(
    variable: &impl Fn(&'static str) -> Option<String>,
    names: [&'static str; 2],
) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, variable(name)?)))
}

fn client(authorities: Option<(&'static str, String)>) -> Result<Client, TracesError> {
    // A client made before a provider is installed panics. It fails only when there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
    if let Some((variable, path)) = authorities {
        let path = PathBuf::from(path);
        let bad = |cause: String| TracesError::Authorities { variable, path: path.clone(), cause };
        let pem = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
        client = client.tls_certs_only(certificates);
    }
    client.build().map_err(TracesError::Client)
}

/// Sends requests of the exporter.
#[derive(Debug)]
struct Sender {
    client: Client,
    runtime: Handle,
    is_failing: AtomicBool,
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Sender {
    fn send_bytes<'life, 'sent>(&'life self, request: Request<Bytes>) -> Sent<'sent>
    where
        'life: 'sent,
        Self: 'sent,
    {
        Box::pin(async move {
            let sent = self.runtime.spawn(send(self.client.clone(), request)).await;
            let sent = sent.map_err(HttpError::from).and_then(|sent| sent);
            let is_failing = !sent.as_ref().is_ok_and(|response| response.status().is_success());
            if is_failing != self.is_failing.swap(is_failing, Ordering::Relaxed) {
                match &sent {
                    Ok(response) if is_failing => {
                        tracing::warn!(status = response.status().as_u16(), "the collector refuses traces");
                    }
                    Ok(_) => tracing::info!("the collector takes traces again"),
                    Err(error) => tracing::warn!(%error, "traces cannot be sent"),
                }
            }
            sent
        })
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = reqwest::Request::try_from(request)?;
    let mut response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MOST_READ {
            return Err("the collector answers with more than DriftGuard reads".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// The span of a review, within the trace that the API server's `traceparent` names, if it sends one.
#[must_use]
pub fn review(hook: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        target: TARGET,
        "review",
        otel.kind = "server",
        hook,
        verdict = tracing::field::Empty,
        reason = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        if context.span().span_context().is_valid() {
            // It fails only for a span that has begun.
            drop(span.set_parent(context));
        }
    }
    span
}

/// Says in the span of a review how it ended.
pub fn judged(verdict: &'static str, reason: &'static str) {
    let span = Span::current();
    span.record("verdict", verdict);
    span.record("reason", reason);
}

/// The span of what follows from one look at a target.
#[must_use]
pub fn audit(guard: &dyn std::fmt::Display, look: &'static str) -> Span {
    tracing::debug_span!(target: TARGET, "audit", %guard, look)
}

/// The span of an attempt to restore.
#[must_use]
pub fn remediation(guard: &dyn std::fmt::Display, transaction_id: &str) -> Span {
    tracing::debug_span!(target: TARGET, "remediation", %guard, transactionId = transaction_id)
}

/// The span of an attempt to deliver a message.
#[must_use]
pub fn delivery(destination: &'static str, transaction_id: &str) -> Span {
    tracing::debug_span!(
        target: TARGET,
        "delivery",
        otel.kind = "producer",
        destination,
        transactionId = transaction_id
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::process::{Command, Stdio};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use http_body_util::BodyExt as _;
    use tracing::Instrument as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// Not a test: a process with variables of its own, started by the test below.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by another test, in a process of its own"]
    async fn a_process_that_sends_spans() {
        let traces = Traces::from_environment(Handle::current()).unwrap().unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        let _default = tracing::subscriber::set_default(subscriber);
        let mut headers = HeaderMap::new();
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.insert("traceparent", parent.parse().unwrap());
        tracing::debug!("a log line, which is not sent: SECRET-LINE");
        async { judged("deny", "HashMismatch") }.instrument(review("validate", &headers)).await;
        drop(delivery("alerts", "019a-transaction"));
        traces.stop(Duration::from_secs(20)).await;
    }

    type Bodies = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

    async fn collect(State(bodies): State<Bodies>, request: Request<axum::body::Body>) {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        bodies.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_reach_the_collector_that_the_variables_name_before_the_process_ends() {
        let bodies = Bodies::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(collect).with_state(Arc::clone(&bodies));
        let server = axum_server::Server::<std::net::SocketAddr>::from_listener(listener);
        tokio::spawn(server.serve(router.into_make_service()));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_process_that_sends_spans", "--ignored"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=trading")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let bodies = bodies.lock().unwrap();
        let [(path, headers, body)] = bodies.as_slice() else { unreachable!("{} requests", bodies.len()) };
        assert_eq!(
            (path.as_str(), headers["content-type"].to_str().unwrap()),
            ("/v1/traces", "application/x-protobuf")
        );
        assert_eq!(headers["x-tenant"], "trading");
        let holds = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
        let trace: Vec<u8> =
            (0..16).map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert!(holds(&trace), "the review is no part of the API server's trace");
        for text in
            ["review", "HashMismatch", "delivery", "019a-transaction", "driftguard", "deployment.environment"]
        {
            assert!(holds(text.as_bytes()), "no {text} was sent");
        }
        assert!(!holds(b"SECRET-LINE"), "a log line was sent");
    }

    #[tokio::test]
    async fn an_endless_answer_of_the_collector_is_not_read_to_its_end() {
        async fn answer(request: Request<axum::body::Body>) -> Vec<u8> {
            vec![b'x'; if request.uri().path() == "/large" { MOST_READ + 1 } else { MOST_READ }]
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum_server::Server::<std::net::SocketAddr>::from_listener(listener);
        tokio::spawn(server.serve(Router::new().fallback(answer).into_make_service()));
        let ask = async |path: &str| {
            let request = Request::post(format!("http://{address}{path}")).body(Bytes::new()).unwrap();
            send(client(None).unwrap(), request).await
        };
        assert_eq!(ask("/small").await.unwrap().body().len(), MOST_READ);
        let error = ask("/large").await.unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }

    #[test]
    fn traces_are_on_when_an_endpoint_is_named_and_nothing_turns_them_off() {
        let on = |set: &[(&str, &str)]| {
            are_on(&|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(!on(&[]));
        assert!(on(&[endpoint]));
        assert!(on(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")]));
        assert!(!on(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!on(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
