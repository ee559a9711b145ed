//! Many refused writes at once: few are told, nothing grows, and others are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftguard::telemetry::events::MAX_APART_OF_GUARD;
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::alerting::Alerted;
use crate::installation::{Installation, LIMIT, config_map};

/// How many writes are refused, unless `DRIFTGUARD_E2E_DENIALS` says otherwise: fewer than the ten thousand that
/// are meant, since those take a minute on a small machine.
const DENIALS: usize = 2000;
/// At once.
const WRITERS: usize = 24;
/// Users and contents that try: more than are told apart.
const USERS: usize = 50;
/// Records of one guard by reviews that nobody authenticated: so many at once, and each second.
const RECORDS: usize = 200;
const RECORDS_PER_SECOND: usize = 20;
/// What the memory may grow by while it is being asked by many for the first time.
const GROWTH: u64 = 64 << 20;

/// Bytes of memory that `serve` holds.
fn memory(on: &Installation) -> Result<u64> {
    let pid = on.serve.pid().context("serve does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Has `count` writes refused, as many users, and gives how many were not.
fn flood(on: &Installation, ns: &str, count: usize) -> Result<usize> {
    let client = on.admin.client()?;
    let (next, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            let (client, next, others) = (client.clone(), Arc::clone(&next), Arc::clone(&others));
            let path = format!("/api/v1/namespaces/{ns}/configmaps/settings");
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let body = json!({"data": {"limit": format!("by {}", number % USERS)}}).to_string();
                    let request = http::Request::patch(&path)
                        .header("content-type", "application/merge-patch+json")
                        .header("impersonate-user", format!("user-{}", number % USERS))
                        .header("impersonate-group", "system:masters")
                        .body(body.into_bytes())?;
                    match client.request_text(request).await {
                        Err(kube::Error::Api(status)) if status.code == 403 => {}
                        _ => drop(others.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(others.load(Ordering::Relaxed))
}

#[test]
fn case_55_thousands_of_denials_are_few_events_few_records_no_alert_and_no_burden_for_others() -> Result<()> {
    let Alerted { on, receiver } = Alerted::shared()?;
    let count = std::env::var("DRIFTGUARD_E2E_DENIALS").ok().map_or(Ok(DENIALS), |count| count.parse())?;
    let ns = &on.namespace("flood")?;
    let other = &on.namespace("flood-other")?;
    for ns in [ns, other] {
        on.apply(&config_map(ns, "settings", &json!({"limit": "1000"})))?.success()?;
        on.pin_live(ns, "configmap/settings")?;
    }
    let before = on.get(ns, "configmap/settings")?;
    // What is there once for each user and connection is no growth.
    let passed = flood(on, ns, count / 4)?;
    ensure!(passed == 0, "{passed} writes were answered otherwise");
    let (warm, begun) = (memory(on)?, Instant::now());
    let answered = std::thread::scope(|scope| -> Result<Duration> {
        let flooding = scope.spawn(|| flood(on, ns, count - count / 4));
        // Others are answered meanwhile.
        let mut slowest = Duration::ZERO;
        while !flooding.is_finished() {
            let asked = Instant::now();
            let patch = [
                "patch",
                "configmap/settings",
                "-n",
                other,
                "--type=merge",
                "-p",
                r#"{"data":{"limit":"7"}}"#,
            ];
            on.refused(other, "configmap/settings", || on.admin.kubectl(&patch))?;
            slowest = slowest.max(asked.elapsed());
        }
        let passed = flooding.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        ensure!(passed == 0, "{passed} writes were answered otherwise");
        Ok(slowest)
    })?;
    let took = begun.elapsed();
    ensure!(answered < Duration::from_secs(20), "somebody else waited for {answered:?}");
    ensure!(on.get(ns, "configmap/settings")? == before, "something was stored");
    let grown = memory(on)?.saturating_sub(warm);
    ensure!(grown < GROWTH, "{grown} bytes for {count} denials");

    let denials =
        ["get", "events.events.k8s.io", "-n", ns, "--field-selector=reason=WriteDenied", "-o", "json"];
    let events = until("they are told", LIMIT, || {
        let events = on.admin.kubectl(&denials)?.json()?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        ensure!(!events.is_empty(), "no Event");
        Ok(events)
    })?;
    ensure!(events.len() <= MAX_APART_OF_GUARD + 1, "{} Events", events.len());
    let log = on.serve.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let records =
        lines.filter(|line| line["schema"].is_string() && line["guard"]["namespace"] == ns.as_str());
    // The first quarter took no longer than the rest.
    let most = RECORDS + RECORDS_PER_SECOND * usize::try_from(2 * took.as_secs() + 10)?;
    let recorded = records.count();
    ensure!(recorded > 0 && recorded <= most, "{recorded} records of {count} attempts in {took:?}");
    ensure!(log.contains("records were left out") || recorded >= count, "a gap is silent");
    for state in ["firing", "resolved"] {
        let told = receiver.reasons(ns, state);
        ensure!(told.is_empty(), "attempts have woken somebody: {told:?}");
    }
    Ok(())
}
