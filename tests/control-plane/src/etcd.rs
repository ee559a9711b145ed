//! etcd: the process, and its keys, read and written behind the API server's back.
//!
//! Keys go over etcd's JSON gateway, so no etcdctl is needed. An object of the core group lies under
//! `/registry/<plural>/<namespace>/<name>`, one of another group mostly under
//! `/registry/<group>/<plural>/<namespace>/<name>`. The API server stores built-in kinds in protobuf but
//! reads JSON as well, so a changed object may be put as JSON.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::guardian::{Guardian, Process, Program, Signal};
use crate::{assets::Assets, http, ports, wait};

/// How long one read or write may take; a paused etcd answers none.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Most operations in one transaction, by etcd's default.
const TRANSACTION: usize = 128;
/// How long a start or a stop may take on a busy machine.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// How long a whole history may take.
const HISTORY_LIMIT: Duration = Duration::from_secs(60);

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision that it made, which is the object's resourceVersion.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// What was stored, byte for byte; nothing for a deletion.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// As etcd's JSON gateway writes an event of a watch: what is empty, zero or `PUT` is left out.
    fn read(event: &Value) -> Result<Self> {
        let text = |field: &str| BASE64.decode(event["kv"][field].as_str().unwrap_or_default());
        let value = text("value").context("etcd's value is not base64")?;
        Ok(Self {
            revision: number(&event["kv"]["mod_revision"])?,
            key: String::from_utf8(text("key")?)?,
            value: (event["type"] != "DELETE").then_some(value),
        })
    }
}

/// A number of 64 bits, which etcd's JSON gateway writes as a string.
fn number(value: &Value) -> Result<i64> {
    value
        .as_str()
        .with_context(|| format!("etcd's number is no string: {value}"))?
        .parse()
        .map_err(Into::into)
}

/// The etcd of a control plane.
#[derive(Debug)]
pub struct Etcd {
    guardian: Guardian,
    program: Program,
    process: Process,
    address: String,
}

impl Etcd {
    pub(crate) fn start(guardian: &Guardian, assets: &Assets, flags: &[String]) -> Result<Self> {
        let address = format!("http://127.0.0.1:{}", ports::free_port()?);
        let peers = format!("http://127.0.0.1:{}", ports::free_port()?);
        let program = Program::new("etcd", assets.program("etcd"))
            .args(["--name=default", "--data-dir=etcd-data", "--log-level=warn"])
            // The data lives as long as the test does: a crash of the machine need not be survived.
            .arg("--unsafe-no-fsync")
            // An API server sends its etcd up to 2 MiB; the default of 1.5 MiB would be the narrower limit.
            .arg(format!("--max-request-bytes={}", 3 << 20))
            .args([
                format!("--listen-client-urls={address}"),
                format!("--advertise-client-urls={address}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ])
            .args(flags.iter().cloned());
        let process = guardian.start(&program)?;
        Ok(Self { guardian: guardian.clone(), program, process, address })
    }

    /// Where clients connect, `http://127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process, for its log and pid.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it as a crash would; the data stays for [`Etcd::restart`].
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::Kill)?;
        self.process.wait(CHANGE_LIMIT).map(|_| ())
    }

    /// Halts it with its connections open, as a disk that hangs would. [`Etcd::resume`] lets it go on.
    ///
    /// # Errors
    /// When the control plane is gone.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Lets a paused one go on, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::Continue)?;
        self.wait_healthy()
    }

    /// Starts it again on the same port with the same data, stopping it first when it runs, and waits until
    /// it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> Result<()> {
        if self.process.exit_code().is_none() {
            self.stop()?;
        }
        self.guardian.start(&self.program)?;
        self.wait_healthy()
    }

    pub(crate) fn wait_healthy(&self) -> Result<()> {
        let address = format!("{}/health", self.address);
        wait::until("etcd answers", CHANGE_LIMIT, || {
            if let Some(code) = self.process.exit_code() {
                return Ok(Err(anyhow!("etcd ended with code {code}")));
            }
            let address = address.clone();
            let status =
                wait::block_on(async move { http::status(&address, Duration::from_secs(2)).await })??;
            ensure!(status.is_success(), "/health says {status}");
            Ok(Ok(()))
        })
        .and_then(|result| result)
        .map_err(|error| anyhow!("{error:#}; {}", self.process.log_tail()))
    }

    /// The value stored under `key`, byte for byte.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.call("range", json!({"key": BASE64.encode(key)}))?;
        let value = &answer["kvs"][0]["value"];
        value.as_str().map(|value| BASE64.decode(value).context("etcd's value is not base64")).transpose()
    }

    /// The keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        // The end of a range is the prefix with its last byte raised; keys are ASCII here.
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("a prefix is needed")? += 1;
        let answer = self.call(
            "range",
            json!({"key": BASE64.encode(prefix), "range_end": BASE64.encode(end), "keys_only": true}),
        )?;
        let found = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        found
            .iter()
            .map(|pair| {
                let key = BASE64.decode(pair["key"].as_str().unwrap_or_default())?;
                Ok(String::from_utf8(key)?)
            })
            .collect()
    }

    /// Stores `value` under `key`. No API server sees a request; their watches see the change.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.put_at(key, value).map(|_| ())
    }

    /// As [`Etcd::put`]; gives the revision of the change.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn put_at(&self, key: &str, value: &[u8]) -> Result<i64> {
        let answer = self.call("put", json!({"key": BASE64.encode(key), "value": BASE64.encode(value)}))?;
        number(&answer["header"]["revision"])
    }

    /// The newest revision.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn revision(&self) -> Result<i64> {
        let answer = self.call("range", json!({"key": BASE64.encode("/"), "count_only": true}))?;
        number(&answer["header"]["revision"])
    }

    /// Every change of every key from the revision `since` on, in order, up to now. API servers compact etcd every
    /// five minutes unless they were started with `--etcd-compaction-interval=0`.
    ///
    /// # Errors
    /// When etcd does not answer, or a part of it has been compacted.
    pub fn history(&self, since: i64) -> Result<Vec<Change>> {
        let newest = self.revision()?;
        if newest < since {
            return Ok(Vec::new());
        }
        // From the key of one zero byte to no end: all keys.
        let all = BASE64.encode([0]);
        let create = json!({"key": all, "range_end": all, "start_revision": since.to_string()});
        let (address, body) = (format!("{}/v3/watch", self.address), json!({"create_request": create}));
        wait::block_on(async move {
            let mut changes = Vec::new();
            let lines = |line: Value| {
                let result = &line["result"];
                ensure!(result["canceled"] != true, "etcd does not tell its history: {line}");
                for event in result["events"].as_array().into_iter().flatten() {
                    changes.push(Change::read(event)?);
                }
                Ok(changes.last().is_some_and(|change: &Change| change.revision >= newest))
            };
            http::post_for_lines(&address, &body, HISTORY_LIMIT, lines).await?;
            anyhow::Ok(changes)
        })?
    }

    /// Stores many values in few requests, as a restore would.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn put_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<()> {
        for part in pairs.chunks(TRANSACTION) {
            let put = |(key, value): &(String, Vec<u8>)| json!({"requestPut": {"key": BASE64.encode(key), "value": BASE64.encode(value)}});
            self.call("txn", json!({"success": part.iter().map(put).collect::<Vec<_>>()}))?;
        }
        Ok(())
    }

    /// Removes `key` and says whether it was there.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.delete_at(key)?.is_some())
    }

    /// As [`Etcd::delete`]; gives the revision of the change when there was one.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn delete_at(&self, key: &str) -> Result<Option<i64>> {
        let answer = self.call("deleterange", json!({"key": BASE64.encode(key)}))?;
        let deleted = answer["deleted"].as_str() == Some("1");
        deleted.then(|| number(&answer["header"]["revision"])).transpose()
    }

    fn call(&self, method: &str, body: Value) -> Result<Value> {
        let address = format!("{}/v3/kv/{method}", self.address);
        wait::block_on(async move { http::post_json(&address, &body, ANSWER_LIMIT).await })?
    }
}
