//! The writes of an approval, in an order in which neither guard nor object is ever wrong.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::names;
use crate::api::reasons::{self, ConditionType};
use crate::cli::cluster::Cluster;
use crate::cli::pinned::{Content, Pinned};
use crate::cli::write::Warnings;
use crate::cli::{guards, output, terms, write};
use crate::core::audit::restore::{self, Origin, Unplannable, Write};
use crate::core::hash::ContentHash;

/// For how long the new hash passes beside the old one: far longer than the writes take, and no longer than a
/// forgotten half of an approval may last.
const BESIDE: SignedDuration = SignedDuration::from_mins(10);
/// Where those hashes stand in a guard.
const ALSO_APPROVED: &str = "/spec/alsoApproved";
/// Most hashes that a guard approves besides the expected one.
const MOST_BESIDE: usize = 10;
/// How long replicas may take to learn of a changed guard.
const LEARNT_WITHIN: Duration = Duration::from_secs(30);
/// How long it takes from one look to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a write is planned anew while somebody else writes the object.
const TRIES: usize = 5;

/// Where a dry run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DryRun {
    /// No change of the guard is sent; its target may still be tried by dry runs
    Client,
    /// The change of the guard is sent and not stored
    Server,
}

/// Prints what was done, if anything was.
fn say(done: Option<String>) -> anyhow::Result<()> {
    Ok(done.map_or(Ok(()), |done| output::data(done.as_bytes()))?)
}

/// One approval.
pub(super) struct Change<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) pinned: &'a Pinned<'a>,
    pub(super) hash: ContentHash,
    pub(super) reason: Option<&'a str>,
    pub(super) dry_run: Option<DryRun>,
    /// The generation of the guard that was looked at last, or that our own last write made.
    pub(super) generation: Option<i64>,
}

impl Change<'_> {
    /// Changes the guard alone.
    pub(super) async fn guard(&mut self) -> anyhow::Result<()> {
        self.expect(None).await?;
        // Whoever applies the content next is not to be refused by a replica that has not heard.
        if self.dry_run.is_none() { self.learnt().await } else { Ok(()) }
    }

    /// Changes the guard and writes the object.
    pub(super) async fn both(&mut self, content: &Content, live: Option<&Content>) -> anyhow::Result<()> {
        if self.dry_run.is_some() {
            self.guard().await?;
            let what = if live.is_some() { "changed" } else { "made" };
            return Ok(output::data(format!("{} would be {what}\n", self.object()).as_bytes())?);
        }
        if self.pinned.approves(self.hash) {
            let said = say(self.object_written(content).await?);
            said?;
            return if self.pinned.approvals.expected == self.hash { Ok(()) } else { self.guard().await };
        }
        let before: Vec<Value> =
            self.pinned.guard.object.spec.also_approved.iter().map(|also| json!(also)).collect();
        if before.len() >= MOST_BESIDE {
            // No room for another: the object is behind the guard for a moment, which is no drift.
            self.guard().await?;
            return say(self.object_written(content).await?);
        }
        let until = terms::moment(Timestamp::now() + BESIDE);
        let why = self.reason.unwrap_or("driftguard approve");
        let mut beside = before.clone();
        beside.push(json!({"hash": self.hash.to_string(), "until": until, "reason": why}));
        self.patch(vec![json!({"op": "add", "path": ALSO_APPROVED, "value": beside})]).await?;
        let undo = if before.is_empty() {
            json!({"op": "remove", "path": ALSO_APPROVED})
        } else {
            json!({"op": "add", "path": ALSO_APPROVED, "value": before})
        };
        let written = async {
            self.learnt().await?;
            self.object_written(content).await
        };
        let done = match written.await {
            Ok(done) => done,
            Err(error) => {
                // What was approved before is approved alone again.
                return match self.patch(vec![undo]).await {
                    Ok(()) => Err(error.context("nothing was approved")),
                    Err(_) => {
                        Err(error.context(format!("its hash stays approved beside the other until {until}")))
                    }
                };
            }
        };
        // Who reads no more of what is printed must not leave the object behind its guard.
        let said = say(done);
        self.expect(Some(undo)).await.with_context(|| {
            format!("the object is written, and passes only until {until}; approve it again before then")
        })?;
        said
    }

    fn object(&self) -> String {
        let target = &self.pinned.target;
        format!("{}/{}", target.kind.to_ascii_lowercase(), target.name)
    }

    /// Makes the new hash the expected one, and does `also` in the same write.
    async fn expect(&mut self, also: Option<Value>) -> anyhow::Result<()> {
        let how = self.expected(also).await?;
        Ok(output::data(format!("{} {how}\n", self.pinned.guard.title()).as_bytes())?)
    }

    /// The same, and gives what became of the guard.
    pub(super) async fn expected(&mut self, also: Option<Value>) -> anyhow::Result<&'static str> {
        if self.dry_run == Some(DryRun::Client) {
            return Ok("would be changed");
        }
        let mut operations =
            vec![json!({"op": "add", "path": "/spec/expectedHash", "value": self.hash.to_string()})];
        operations.extend(also);
        operations.extend(self.reason.map(|reason| self.annotated(reason)));
        self.patch(operations).await?;
        Ok(if self.dry_run.is_some() { "would be changed (server dry run)" } else { "approved" })
    }

    fn annotated(&self, reason: &str) -> Value {
        let key = names::ANNOTATION_APPROVED_BECAUSE;
        // The gate's own annotation stands in every guard that it has signed, but there may be none.
        match &self.pinned.guard.object.metadata.annotations {
            Some(_) => {
                let path = format!("/metadata/annotations/{}", key.replace('/', "~1"));
                json!({"op": "add", "path": path, "value": reason})
            }
            None => json!({"op": "add", "path": "/metadata/annotations", "value": {key: reason}}),
        }
    }

    /// Changes the guard, that very one and only as it was looked at; its status may have been written meanwhile.
    async fn patch(&mut self, mut operations: Vec<Value>) -> anyhow::Result<()> {
        let guard = self.pinned.guard;
        let is = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
        let tests = [
            is("/metadata/uid", json!(guard.object.metadata.uid)),
            is("/metadata/generation", json!(self.generation)),
        ];
        operations.splice(0..0, tests);
        match write::patch(self.cluster, &guard.path(), &operations, self.dry_run.is_some()).await {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer)?;
                if self.dry_run.is_none() {
                    self.generation = answer["metadata"]["generation"].as_i64();
                }
                Ok(())
            }
            Err(error) => {
                let now = guards::read(self.cluster, guard.namespace(), guard.name()).await?;
                let is_changed = now.object.metadata.generation != self.generation
                    || now.object.metadata.uid != guard.object.metadata.uid;
                ensure!(!is_changed, "{} was changed meanwhile; look at it, then try again", guard.title());
                Err(self.cluster.explain(format!("changing {}", guard.title()), &error))?
            }
        }
    }

    /// Waits until every replica goes by the guard as it is now. Where nothing tells, the write itself will.
    async fn learnt(&self) -> anyhow::Result<()> {
        let guard = self.pinned.guard;
        let deadline = tokio::time::Instant::now() + LEARNT_WITHIN;
        loop {
            let now = guards::read(self.cluster, guard.namespace(), guard.name()).await?;
            let status = now.status();
            let is_learnt = guards::condition(&status, ConditionType::Enforcing).is_some_and(|said| {
                said.observed_generation >= self.generation
                    && said.reason != reasons::REPLICAS_PENDING
                    && said.reason != reasons::REGISTRATION_PENDING
            });
            if is_learnt || tokio::time::Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes what is pinned of the content, and nothing else of an object that is there. Gives what was done, if
    /// anything was.
    async fn object_written(&self, content: &Content) -> anyhow::Result<Option<String>> {
        let target = &self.pinned.target;
        for _ in 0..TRIES {
            let live = self.pinned.live(self.cluster).await?;
            let Some(live) = live else {
                // Under the target's own name, whatever the content was tried under.
                let planned = restore::plan(None, &content.json, Origin::Stored, target, &self.pinned.scope);
                let made = planned.map_err(|problem| anyhow!("{target} cannot be made: {problem}"))?;
                let Write::Create(object) = made.write else { bail!("{target} cannot be made") };
                self.send(http::Method::POST, &object).await.map_err(|error| self.refused(&error))?;
                return Ok(Some(format!("{} made\n", self.object())));
            };
            let planned =
                restore::plan(Some(&live.json), &content.json, Origin::Source, target, &self.pinned.scope);
            let patch = match planned {
                Err(Unplannable::AlreadyRight) => return Ok(None),
                Err(problem) => bail!("{target} cannot be written: {problem}"),
                Ok(planned) => match planned.write {
                    Write::Patch(patch) => patch,
                    Write::Create(_) | Write::Replace { .. } => bail!(
                        "{target} is immutable: approve its new content with --guard-only, then replace it by \
                         `kubectl replace --force`"
                    ),
                },
            };
            let Err(error) = self.send(http::Method::PATCH, &patch).await else {
                return Ok(Some(format!("{} changed\n", self.object())));
            };
            let now = self.pinned.live(self.cluster).await?;
            if !restore::has_moved_on(Some(&live.json), now.as_ref().map(|now| now.json.as_slice())) {
                return Err(self.refused(&error));
            }
        }
        bail!("{target} is written all the time by somebody else; try again when that pauses")
    }

    async fn send(&self, method: http::Method, body: &[u8]) -> Result<(), kube::Error> {
        let path = self.pinned.target.url_path();
        let (path, content_type) = if method == http::Method::POST {
            (path.rsplit_once('/').map_or("", |(list, _)| list).to_owned(), "application/json")
        } else {
            (path, "application/json-patch+json")
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager={}", write::FIELD_MANAGER))
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body.to_vec())
            .map_err(kube::Error::HttpError)?;
        let warnings = if self.pinned.scope.is_secret() { Warnings::Ours } else { Warnings::All };
        write::send_showing(self.cluster, request, warnings).await.map(drop)
    }

    /// Why the object was not written. Whoever refuses a Secret may quote it; our own webhook never does.
    fn refused(&self, error: &kube::Error) -> anyhow::Error {
        let doing = format!("writing {}", self.pinned.target);
        match error {
            kube::Error::Api(status)
                if self.pinned.scope.is_secret()
                    && !status.message.contains("denied the request: DriftGuard ") =>
            {
                anyhow!("{doing}: the API server answered {} {}", status.code, status.reason)
            }
            error => self.cluster.explain(doing, error).into(),
        }
    }
}
