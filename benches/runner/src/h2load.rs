//! The load generator: `h2load` of nghttp2, which speaks HTTP/1.1 and HTTP/2 over TLS.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::median::percentile;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As an API server speaks to a Service: in a cluster.
    Http1,
    /// As an API server speaks to a URL on loopback.
    Http2,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// What the load generator does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// Connections, all at once.
    pub connections: u32,
    /// Requests under way on each connection.
    pub streams: u32,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.streams {
            1 => write!(f, "{}", self.connections),
            streams => write!(f, "{}, {streams} streams", self.connections),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Milliseconds that half of the requests did not exceed.
    pub p50: f64,
    /// Milliseconds that 99 of 100 requests did not exceed.
    pub p99: f64,
}

/// h2load's name and version. Fails, with one line that says how to mend it, when there is none.
pub(crate) fn version() -> anyhow::Result<String> {
    match Command::new("h2load").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => bail!("h2load is not installed: on Debian and Ubuntu, `apt-get install nghttp2-client`"),
    }
}

/// Sends `requests` times the body in `file` to `url`; every answer must be a 200.
pub(crate) fn run(load: Load, url: &str, file: &Path, requests: u64) -> anyhow::Result<Outcome> {
    let log = tempfile::NamedTempFile::new().context("cannot make a file for h2load's log")?;
    let mut command = Command::new("h2load");
    command
        .args(["--threads=1", &format!("--clients={}", load.connections)])
        .args([format!("--requests={requests}"), format!("--max-concurrent-streams={}", load.streams)])
        // As an API server asks: the first cipher it offers, and its headers.
        .arg("--tls13-ciphers=TLS_AES_128_GCM_SHA256")
        .args(["--header=content-type: application/json", "--header=accept: application/json, */*"])
        .args(["--header=user-agent: kube-apiserver-admission", "--header=accept-encoding: gzip"])
        .arg(format!("--data={}", file.display()))
        .arg(format!("--log-file={}", log.path().display()));
    if load.protocol == Protocol::Http1 {
        command.arg("--h1");
    }
    let output = command.arg(url).output().context("cannot run h2load")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    // Without this, an h2load that fell back to another protocol would measure that one.
    let wanted = if load.protocol == Protocol::Http1 { "http/1.1" } else { "h2" };
    ensure!(
        said.contains(&format!("Application protocol: {wanted}\n")),
        "h2load did not speak {wanted}: {said}"
    );
    ensure!(
        said.contains(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout")),
        "not every request succeeded: {said}"
    );
    outcome(&std::fs::read_to_string(log.path())?, requests)
}

/// From the log: a line for each request with its start in microseconds, status, and duration in
/// microseconds.
fn outcome(log: &str, requests: u64) -> anyhow::Result<Outcome> {
    let mut durations = Vec::new();
    let (mut begin, mut end) = (f64::INFINITY, 0.0_f64);
    for line in log.lines() {
        let mut columns = line.split('\t');
        let (Some(start), Some(status), Some(duration)) = (columns.next(), columns.next(), columns.next())
        else {
            bail!("h2load logged {line:?}");
        };
        ensure!(status == "200", "a request was answered with {status}");
        let (start, duration): (f64, f64) = (start.parse()?, duration.parse()?);
        begin = begin.min(start);
        end = end.max(start + duration);
        durations.push(duration / 1000.0);
    }
    ensure!(durations.len() as u64 == requests, "{} of {requests} requests were logged", durations.len());
    durations.sort_by(f64::total_cmp);
    Ok(Outcome {
        rate: requests as f64 / ((end - begin) / 1e6),
        p50: percentile(&durations, 0.5),
        p99: percentile(&durations, 0.99),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn rates_and_percentiles_come_from_the_log() {
        let outcome = outcome("1000000\t200\t1000\n1500000\t200\t500000\n", 2).unwrap();
        assert_eq!((outcome.rate, outcome.p50, outcome.p99), (2.0, 1.0, 500.0));
    }

    #[test]
    fn an_answer_other_than_200_and_a_missing_one_are_errors() {
        assert!(outcome("1\t500\t1\n", 1).is_err());
        assert!(outcome("1\t200\t1\n", 2).is_err());
        assert!(outcome("nonsense\n", 1).is_err());
    }
}
