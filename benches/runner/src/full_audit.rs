//! A full audit against a raw list: how long a sweep of `serve` over all guarded objects takes, and how long it takes
//! to list the same objects by as many pages and look at nothing.
//!
//! Both by the API server's own log, from the moment at which the first page was asked for to that at which the last
//! one was answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use driftguard_control_plane::guardian::Process;
use http::Request as HttpRequest;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::median::median;
use crate::requests::{Request, SWEEP_PAGE};
use crate::seeds::CONFIG_MAP;

/// The flag that makes sweeps frequent, with room for a list between two of them.
pub(crate) const FLAG: [&str; 2] = ["--audit-interval", "60s"];
/// How long the first sweep may take to come: all guards and objects are read before.
const LONGEST: Duration = Duration::from_secs(900);
/// How often it is looked whether one is over.
const GLANCE: Duration = Duration::from_secs(1);

/// How many seconds either took, in the middle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// A sweep.
    pub sweep: f64,
    /// A raw list.
    pub list: f64,
    /// The middle of the rounds' ratios.
    pub ratio: f64,
}

/// Times sweeps of `objects` ConfigMaps, and a raw list after each.
pub(crate) async fn run(
    cluster: &Cluster,
    serve: &Process,
    objects: usize,
    rounds: usize,
) -> anyhow::Result<Times> {
    let pages = objects.div_ceil(SWEEP_PAGE);
    let client = cluster.admin().client()?;
    let (mut sweeps, mut lists, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    while ratios.len() < rounds {
        let sweep = next_sweep(cluster, serve, pages).await?;
        let moment = cluster.moment()?;
        let listed = list(&client, &format!("/api/v1/{}", CONFIG_MAP.resource), SWEEP_PAGE).await?;
        ensure!(listed >= objects, "the raw list holds {listed} of {objects} objects");
        let requests = cluster.requests_since(moment)?;
        if !pages_of(&requests, true).is_empty() {
            // The next sweep began meanwhile: neither was alone.
            continue;
        }
        let list = span(&pages_of(&requests, false)).context("the raw list was not noted")?;
        sweeps.push(sweep);
        lists.push(list);
        ratios.push(sweep / list);
    }
    Ok(Times { sweep: median(&mut sweeps), list: median(&mut lists), ratio: median(&mut ratios) })
}

/// Pages of lists of the guarded kind, of `serve` or of others.
fn pages_of(requests: &[Request], ours: bool) -> Vec<&Request> {
    let is_page =
        |request: &&Request| request.is_ours() == ours && request.is_page_of(CONFIG_MAP.resource, SWEEP_PAGE);
    requests.iter().filter(is_page).collect()
}

/// Seconds from the first question to the last answer.
fn span(pages: &[&Request]) -> Option<f64> {
    let began = pages.iter().map(|page| page.began).min()?;
    let ended = pages.iter().map(|page| page.ended).max()?;
    Some(ended.duration_since(began).as_secs_f64())
}

/// Waits for a sweep that begins from now on, and gives how many seconds it took.
async fn next_sweep(cluster: &Cluster, serve: &Process, pages: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut moment = cluster.moment()?;
    let mut seen: Vec<Request> = Vec::new();
    loop {
        tokio::time::sleep(GLANCE).await;
        ensure!(serve.exit_code().is_none(), "serve has ended; {}", serve.log_tail());
        ensure!(began.elapsed() < LONGEST, "no sweep within {LONGEST:?}; {}", serve.log_tail());
        let now = cluster.moment()?;
        let requests = cluster.requests_since(moment)?;
        moment = now;
        let before = seen.len();
        seen.extend(pages_of(&requests, true).into_iter().cloned());
        let goes_on = seen.len() > before;
        // One that had begun before is not whole.
        if let Some(first) = seen.iter().position(|page| !page.uri.contains("continue=")) {
            seen.drain(..first);
        } else {
            seen.clear();
        }
        if seen.len() >= pages && !goes_on {
            return span(&seen.iter().collect::<Vec<_>>()).context("a sweep of no pages");
        }
    }
}

/// Lists all of a resource page by page as raw bytes, and gives how many objects there were.
pub(crate) async fn list(client: &kube::Client, path: &str, page: usize) -> anyhow::Result<usize> {
    #[derive(Deserialize)]
    struct Page {
        metadata: Metadata,
        items: Vec<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        r#continue: Option<String>,
    }
    let (mut objects, mut next) = (0, String::new());
    loop {
        let uri = format!("{path}?limit={page}{next}");
        let text = client.request_text(HttpRequest::get(uri).body(Vec::new())?).await?;
        let page: Page = serde_json::from_str(&text)?;
        objects += page.items.len();
        match page.metadata.r#continue.filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={token}"),
            None => return Ok(objects),
        }
    }
}
