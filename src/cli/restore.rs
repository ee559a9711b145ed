//! `driftguard restore`: has approved content put back once, by the auditor of the cluster.
//!
//! The command writes no target itself. It asks by an annotation, which the gate lets only an author of the
//! guard write; the auditor heeds it, verifies what its sources have and says in the status what became of it.

use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards::{self, Found};
use super::output;
use super::wait::{Seen, Waiting};
use super::write;
use crate::api::reasons::ConditionType;
use crate::api::{DriftGuardStatus, LastRemediation, RemediationResult, SourceResult};
use crate::core::audit::{RESTORE, UNDER_WAY, WAITS};

/// How long after drift is over the status may take to tell of the attempt that ended it, at most: the auditor may see
/// what it wrote itself before it has read that back.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Arguments of `driftguard restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The auditor of the cluster does it: it fetches the approved content from the guard's sources, \
                        verifies it by expectedHash and writes it, also where autoRemediate is off and for what changed \
                        under an exception. You need the rights that it takes to make the guard. Exit code 2 when it is \
                        not as approved in the end; the line says what stands in the way. What only has to wait, as for the end of an \
                        exception, stays asked for.\n\n\
                        Examples:
  driftguard restore market-settings-guard
  driftguard restore configmap/market-settings -n trading --timeout 2m"
)]
pub struct RestoreArgs {
    /// Guards: NAME, or KIND/NAME of what they pin
    #[arg(value_name = "GUARD", required = true)]
    guards: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Asks for it, and tells what became of it.
///
/// # Errors
/// When a guard is not found, you may not ask, or its target is not as approved in the end.
pub async fn run(args: RestoreArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let chosen = guards::chosen(&cluster, &args.guards).await?;
    guards::each(&chosen, |guard| restore(&cluster, guard, &args.waiting)).await?;
    Ok(Exit::Clean)
}

async fn restore(cluster: &Cluster, guard: &Found, waiting: &Waiting) -> anyhow::Result<String> {
    // Whatever was not heeded before asks.
    let asked = Timestamp::now().to_string();
    let patch = json!({"metadata": {
        "uid": guard.object.metadata.uid,
        "annotations": {RESTORE: asked},
    }});
    write::merge(cluster, &guard.path(), &patch)
        .await
        .map_err(|error| cluster.explain("asking for it to be put back", &error))?;
    if !waiting.wait {
        return Ok("asked to be put back".to_owned());
    }
    let status = guard.status();
    let was_drifted =
        guards::condition(&status, ConditionType::Drifted).is_some_and(|said| said.status == "True");
    let before = status.last_remediation;
    // What is as approved is no failure, however short somebody waits.
    let patience = TOLD_WITHIN.min(waiting.timeout / 2);
    let mut calm_since = None;
    waiting
        .until(async || {
            let status = guards::read(cluster, guard.namespace(), guard.name()).await?.status();
            match progress(&asked, before.as_ref(), &status) {
                Progress::Pending(why) => Ok(Seen::NotYet(why)),
                Progress::Done(what) => Ok(Seen::Done(what)),
                Progress::Calm
                    if was_drifted && calm_since.get_or_insert_with(Instant::now).elapsed() < patience =>
                {
                    Ok(Seen::NotYet("it is as approved; whether it was put back is not told yet".to_owned()))
                }
                Progress::Calm => Ok(Seen::Done("is as approved: nothing had to be put back".to_owned())),
                Progress::Stuck { why, sources } => {
                    for source in sources {
                        output::message(&format!("{}: source {source}", guard.title()));
                    }
                    bail!("{why}")
                }
            }
        })
        .await
}

/// What a status says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Not done yet, and what is seen so far.
    Pending(String),
    /// The target is as approved, since it was put back.
    Done(String),
    /// The target is as approved, and nothing says by whom.
    Calm,
    /// It is not, and will not be by itself.
    Stuck {
        /// What stands in the way, and the next step.
        why: String,
        /// What each source said that has not the approved content.
        sources: Vec<String>,
    },
}

/// Reads from a status what became of the request `asked`; `before` is the attempt that it told of before.
fn progress(asked: &str, before: Option<&LastRemediation>, status: &DriftGuardStatus) -> Progress {
    if status.heeded_restore.as_deref() != Some(asked) {
        return Progress::Pending("no auditor has taken it up; is `driftguard serve` running?".to_owned());
    }
    let attempt = status.last_remediation.as_ref().filter(|last| before != Some(*last));
    let Some(drifted) = guards::condition(status, ConditionType::Drifted) else {
        return Progress::Pending("the auditor has not looked at the target".to_owned());
    };
    if drifted.status == "False" {
        return match attempt.and_then(|last| last.source.as_ref()) {
            Some(source) => Progress::Done(format!("put back, from {source}")),
            None => Progress::Calm,
        };
    }
    let stuck = || Progress::Stuck { why: drifted.message.clone(), sources: unverified(status) };
    match attempt.map(|last| last.result) {
        Some(RemediationResult::Restored) => {
            Progress::Pending("it is put back, but not seen so yet".to_owned())
        }
        Some(_) => stuck(),
        None if drifted.message.contains(UNDER_WAY) || drifted.message.contains(WAITS) => {
            Progress::Pending(drifted.message.clone())
        }
        // The auditor goes on knowing of it for as long as the drift lasts.
        None => {
            Progress::Stuck { why: format!("{}; it stays asked for", drifted.message), sources: Vec::new() }
        }
    }
}

/// What the sources said that have not the approved content.
fn unverified(status: &DriftGuardStatus) -> Vec<String> {
    let failed = status.sources.iter().filter(|source| source.result != SourceResult::Matched);
    failed.map(|source| format!("{}: {}", source.source, source.message)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn status(value: serde_json::Value) -> DriftGuardStatus {
        serde_json::from_value(value).unwrap()
    }

    fn drifted(status_word: &str, message: &str) -> serde_json::Value {
        json!([{"type": "Drifted", "status": status_word, "reason": "ContentDiffers", "message": message,
                "lastTransitionTime": "2026-11-27T00:00:00Z"}])
    }

    fn attempt(result: &str) -> serde_json::Value {
        json!({"time": "2026-11-27T00:00:00Z", "source": "configmap n/approved", "result": result})
    }

    #[test]
    fn it_is_pending_until_an_auditor_heeds_it() {
        let seen = status(json!({"heededRestore": "before", "conditions": drifted("False", "")}));
        assert!(matches!(progress("now", None, &seen), Progress::Pending(why) if why.contains("no auditor")));
    }

    #[test]
    fn what_is_as_approved_tells_whether_anything_was_put_back() {
        let clean = json!({"heededRestore": "now", "conditions": drifted("False", ""), "lastRemediation": attempt("Restored")});
        let seen = status(clean);
        assert_eq!(
            progress("now", None, &seen),
            Progress::Done("put back, from configmap n/approved".into())
        );
        let old = seen.last_remediation.clone();
        assert_eq!(progress("now", old.as_ref(), &seen), Progress::Calm, "it tells of an attempt before");
    }

    #[test]
    fn an_attempt_under_way_is_waited_for_and_what_holds_it_back_is_told() {
        let under_way = status(
            json!({"heededRestore": "now", "conditions": drifted("True", &format!("it differs; {UNDER_WAY}"))}),
        );
        assert!(matches!(progress("now", None, &under_way), Progress::Pending(_)));
        let held = status(
            json!({"heededRestore": "now", "conditions": drifted("True", "it differs; nothing is put back before noon")}),
        );
        assert!(
            matches!(progress("now", None, &held), Progress::Stuck { why, .. } if why.ends_with("before noon; it stays asked for"))
        );
    }

    #[test]
    fn an_attempt_that_failed_tells_what_each_source_said() {
        let failed = status(json!({
            "heededRestore": "now", "conditions": drifted("True", "it differs; no source has it"),
            "lastRemediation": attempt("NoVerifiedSource"),
            "sources": [
                {"source": "configmap n/a", "result": "Mismatch", "message": "it has other content", "time": "2026-11-27T00:00:00Z"},
                {"source": "git n/b", "result": "Matched", "message": "it has it", "time": "2026-11-27T00:00:00Z"},
            ],
        }));
        let Progress::Stuck { sources, .. } = progress("now", None, &failed) else { unreachable!() };
        assert_eq!(sources, ["configmap n/a: it has other content"]);
    }
}
