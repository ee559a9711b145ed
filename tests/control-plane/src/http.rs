//! Plain HTTP to what runs on this machine: etcd's gateway, a replica's `/readyz`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Sends one request and gives the status and the body. Every request has a connection of its own: the
/// servers here are stopped and started at will.
async fn send(request: Request<Full<Bytes>>, limit: Duration) -> Result<(StatusCode, Vec<u8>)> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let address = request.uri().to_string();
    let exchange = async {
        let response = client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, body.to_vec()))
    };
    tokio::time::timeout(limit, exchange)
        .await
        .with_context(|| format!("no answer from {address} within {limit:?}"))?
        .with_context(|| format!("cannot reach {address}"))
}

/// The status of a GET.
pub(crate) async fn status(address: &str, limit: Duration) -> Result<StatusCode> {
    Ok(send(Request::get(address).body(Full::default())?, limit).await?.0)
}

/// Posts JSON and gives the JSON of the answer.
///
/// # Errors
/// When there is no answer, or not a good one.
pub(crate) async fn post_json(
    address: &str,
    body: &serde_json::Value,
    limit: Duration,
) -> Result<serde_json::Value> {
    let body = Full::new(serde_json::to_vec(body)?.into());
    let (status, answer) =
        send(Request::post(address).header("content-type", "application/json").body(body)?, limit).await?;
    ensure!(status.is_success(), "{address} says {status}: {}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).with_context(|| format!("{address} did not answer with JSON"))
}

/// Posts JSON and hands each line of the answer, which may have no end, to `take` until that says that it is enough.
///
/// # Errors
/// When there is no answer, not a good one, or it ends before it is enough.
pub(crate) async fn post_for_lines(
    address: &str,
    body: &serde_json::Value,
    limit: Duration,
    mut take: impl FnMut(serde_json::Value) -> Result<bool> + Send,
) -> Result<()> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let body = Full::new(serde_json::to_vec(body)?.into());
    let request = Request::post(address).header("content-type", "application/json").body(body)?;
    let exchange = async {
        let mut response = client.request(request).await?;
        ensure!(response.status().is_success(), "{address} says {}", response.status());
        let mut pending = Vec::new();
        while let Some(frame) = response.frame().await {
            pending.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| &data[..]));
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if take(serde_json::from_slice(&line)?)? {
                    return Ok(());
                }
            }
        }
        anyhow::bail!("{address} has ended its answer")
    };
    tokio::time::timeout(limit, exchange)
        .await
        .with_context(|| format!("not enough from {address} within {limit:?}"))?
}
