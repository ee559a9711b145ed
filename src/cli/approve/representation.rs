//! `--representation`: approves how the API server reads stored objects since it was itself replaced.
//!
//! Such an object was written by nobody, so that there is nothing to look at; but whether that is so must not rest on
//! a status alone, which its writers could forge. The auditor has signed the new hash as an equivalent of the
//! approved one, and the gate, which holds the key, is asked: a dry-run patch that changes nothing comes back with
//! a warning where what is stored is not approved. Only where the gate has answered, and has nothing to say, is the
//! new hash approved. Nobody signs what an edited definition makes of an object: that is approved only where
//! the guard or its kind is named, and only of the very version that was last seen as approved.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use http::Request;
use uuid::Uuid;

use super::ApproveArgs;
use super::change::Change;
use crate::api::DriftGuardStatus;
use crate::api::reasons::ConditionType;
use crate::audit::watch::event::meta;
use crate::cli::cluster::Cluster;
use crate::cli::exit::Exit;
use crate::cli::guards::{self, Found};
use crate::cli::pinned::Pinned;
use crate::cli::subject::Served;
use crate::cli::{output, table, write};
use crate::core::audit::finding::Reason;
use crate::core::canonical::hash_object;
use crate::core::hash::ContentHash;
use crate::core::judge::PROOF_FIELD_MANAGER;
use crate::core::kinds::KindEntry;

use super::manifest;

/// How many guards are worked on at a time.
const AT_A_TIME: usize = 8;
/// How many digits of a hash a table shows: enough to tell hashes apart.
const SHOWN: usize = 16;

/// Why a target reads otherwise than when it was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Because {
    Server,
    Definition,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "another API server",
            Self::Definition => "edited definition",
        })
    }
}

/// What the status of a guard says of it.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Its target reads otherwise.
    Otherwise(Because),
    /// There is nothing to approve.
    AsBefore,
    /// It is not told, and why not.
    Untold(String),
}

/// One hash to approve.
struct Reading<'a> {
    pinned: Pinned<'a>,
    hash: ContentHash,
    because: Because,
}

/// Approves.
///
/// # Errors
/// When the guards cannot be had, nobody agrees, or of one or more it could not be told or done.
pub(super) async fn run(args: &ApproveArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let kinds = args.kind.iter().map(|word| served.resolve(word)).collect::<Result<Vec<_>, _>>()?;
    let is_meant = |guard: &Found| kinds.is_empty() || is_of_kinds(guard, &served, &kinds);
    let (found, unread) = if args.guards.is_empty() {
        let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
        let keep = |guard: &Found| is_meant(guard) && standing(guard) != Standing::AsBefore;
        guards::all(&cluster, namespace, args.selector.as_deref(), keep).await?
    } else {
        (guards::chosen(&cluster, &args.guards).await?.into_iter().filter(is_meant).collect(), 0)
    };
    let mut left = Vec::new();
    if unread > 0 {
        left.push(format!("{unread} guards could not be read"));
    }
    let is_named = !(args.guards.is_empty() && kinds.is_empty());
    let mut asked = Vec::new();
    for guard in &found {
        match standing(guard) {
            Standing::Otherwise(Because::Definition) if !is_named => {
                let target = &guard.object.spec;
                output::message(&format!(
                    "note: {} is left as it is: {}/{} reads otherwise since somebody edited the definition of its \
                     kind; look at it, then name the guard, or the kind by --kind",
                    title(args, guard),
                    target.target_kind,
                    target.target_name
                ));
            }
            Standing::Otherwise(because) => asked.push((guard, because)),
            Standing::AsBefore => {
                output::message(&format!("note: {}: nothing reads otherwise", title(args, guard)));
            }
            Standing::Untold(why) => left.push(format!("{}: {why}", title(args, guard))),
        }
    }
    let mut readings = Vec::new();
    let (cluster, served) = (&cluster, &served);
    let mut read = futures::stream::iter(asked.iter().copied())
        .map(|(guard, because)| async move { (guard, reading(args, cluster, served, guard, because).await) })
        .buffered(AT_A_TIME);
    while let Some((guard, reading)) = read.next().await {
        match reading {
            Ok(reading) => readings.push(reading),
            Err(error) => left.push(format!("{}: {error:#}", title(args, guard))),
        }
    }
    drop(read);
    if readings.is_empty() && left.is_empty() {
        output::data(b"nothing to approve: no guard says that its target reads otherwise\n")?;
        return Ok(Exit::Clean);
    }
    if !readings.is_empty() {
        output::message(tabled(args, &readings).trim_end());
        if !args.yes && args.dry_run.is_none() {
            super::confirm(&question(&readings))?;
        }
        approve(args, cluster, &readings, &mut left).await?;
    }
    match left.as_slice() {
        [] => Ok(Exit::Clean),
        [one] => bail!("not approved: {one}"),
        many => bail!("{} were not approved:\n{}", many.len(), many.join("\n")),
    }
}

fn question(readings: &[Reading<'_>]) -> String {
    match readings {
        [one] => format!("Approve how {} reads now?", one.pinned.target),
        many => format!("Approve how these {} objects read now?", many.len()),
    }
}

fn title(args: &ApproveArgs, guard: &Found) -> String {
    if args.all_namespaces {
        format!("{} in namespace {}", guard.title(), guard.namespace())
    } else {
        guard.title()
    }
}

fn is_of_kinds(guard: &Found, served: &Served, kinds: &[&KindEntry]) -> bool {
    guard
        .kind(served)
        .is_ok_and(|entry| kinds.iter().any(|kind| kind.group == entry.group && kind.plural == entry.plural))
}

/// What a guard says of its target.
fn standing(guard: &Found) -> Standing {
    let status = guard.status();
    let generation = guard.object.metadata.generation;
    let Some(drifted) = guards::condition(&status, ConditionType::Drifted) else {
        // Nobody has looked at it, so that nothing is known to read otherwise.
        return Standing::AsBefore;
    };
    let because = if drifted.reason == Reason::RepresentationChanged.as_str() {
        Because::Server
    } else if drifted.reason == Reason::DefinitionChanged.as_str() {
        Because::Definition
    } else {
        return Standing::AsBefore;
    };
    if drifted.observed_generation == generation {
        return Standing::Otherwise(because);
    }
    let approves = |text: &str| text.parse() == guard.object.spec.expected_hash.parse::<ContentHash>();
    if status.current_hash.as_deref().is_some_and(approves) {
        return Standing::AsBefore;
    }
    Standing::Untold(
        "it was changed, and DriftGuard has not looked at it since; try again in a moment".to_owned(),
    )
}

/// What is to be approved of one guard, once it is proved that nobody has written its target.
async fn reading<'a>(
    args: &ApproveArgs,
    cluster: &Cluster,
    served: &'a Served,
    guard: &'a Found,
    because: Because,
) -> anyhow::Result<Reading<'a>> {
    args.refuse_managed(guard)?;
    let pinned = Pinned::of(guard, served)?;
    let status = guard.status();
    let hash = match because {
        Because::Server => {
            let hash = confirmed(cluster, &pinned).await?;
            is_another_reading(&pinned, &status, hash)?;
            hash
        }
        Because::Definition => {
            let live = pinned.live(cluster).await?;
            let live = live.with_context(|| format!("there is no {}", pinned.target))?;
            is_unwritten(&pinned, &status, &live.json)?;
            live.hash
        }
    };
    ensure!(
        hash != pinned.approvals.expected,
        "{} still reads as it was approved through {}: approve it once no API server of the older version is left",
        pinned.target,
        cluster.address
    );
    Ok(Reading { pinned, hash, because })
}

/// The hash of the target as it is stored, of which the gate says that it is approved.
async fn confirmed(cluster: &Cluster, pinned: &Pinned<'_>) -> anyhow::Result<ContentHash> {
    let target = &pinned.target;
    let manager = format!("{PROOF_FIELD_MANAGER}{}", Uuid::now_v7().simple());
    let request = Request::patch(format!("{}?dryRun=All&fieldManager={manager}", target.url_path()))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(b"{}".to_vec())
        .context("cannot build the request")?;
    let doing = || format!("asking the gate about {target} by a dry run that changes nothing");
    let answer = write::ask(cluster, request).await.map_err(|error| cluster.explain(doing(), &error))?;
    let json = answer.body.map_err(|error| cluster.explain(doing(), &error))?;
    said(&answer.warnings, &manager)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("it could not be proved that what is stored of {target} is approved"))?;
    hash_object(&json, &pinned.scope).with_context(|| target.to_string())
}

/// What the warnings of such a dry run tell: an answer of the gate, and no word against what is stored.
fn said(warnings: &[String], manager: &str) -> Result<(), String> {
    let answer = format!("{manager} ");
    if !warnings.iter().any(|text| text.starts_with(&answer)) {
        return Err("the gate was not asked; see the condition Enforcing of the guard".to_owned());
    }
    match warnings.iter().find(|text| text.contains("DriftGuard ")) {
        Some(against) => Err(against.clone()),
        None => Ok(()),
    }
}

/// The hash must be one of which the auditor says that it is another reading, not one that somebody approved beside.
fn is_another_reading(
    pinned: &Pinned<'_>,
    status: &DriftGuardStatus,
    hash: ContentHash,
) -> anyhow::Result<()> {
    let is_noted = status.equivalents.iter().any(|noted| noted.hash.parse() == Ok(hash));
    ensure!(
        is_noted || hash == pinned.approvals.expected,
        "what is stored of {} is approved, but DriftGuard does not say that it is another reading of the same; \
         approve it by --live",
        pinned.target
    );
    Ok(())
}

/// The object must be the one that was last seen as approved, and in that very version.
fn is_unwritten(pinned: &Pinned<'_>, status: &DriftGuardStatus, json: &[u8]) -> anyhow::Result<()> {
    let target = &pinned.target;
    let by_hand = "compare it by `driftguard diff`, then approve it by --live";
    let noted = status.last_match.as_ref();
    let noted =
        noted.with_context(|| format!("nothing tells whether somebody has written {target}; {by_hand}"))?;
    let meta = meta(json)?;
    ensure!(
        meta.uid == noted.uid && meta.revision == noted.resource_version,
        "{target} was written since it was last seen as approved; {by_hand}"
    );
    let was_approved = noted.hash.parse().is_ok_and(|hash| pinned.approves(hash));
    ensure!(
        was_approved,
        "what {target} held when it was last looked at is not approved any more; {by_hand}"
    );
    Ok(())
}

/// The guards with what becomes of them.
fn tabled(args: &ApproveArgs, readings: &[Reading<'_>]) -> String {
    let mut heading = vec!["GUARD", "TARGET", "APPROVED", "READS NOW", "BECAUSE OF"];
    if args.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = readings
        .iter()
        .map(|reading| {
            let Reading { pinned, hash, because } = reading;
            let shown = |hash: ContentHash| {
                if pinned.scope.is_secret() {
                    "not shown".to_owned()
                } else {
                    hash.to_string().chars().take(SHOWN).collect()
                }
            };
            let mut row = vec![
                pinned.guard.name().to_owned(),
                pinned.target.to_string(),
                shown(pinned.approvals.expected),
                shown(*hash),
                because.to_string(),
            ];
            if args.all_namespaces {
                row.insert(0, pinned.guard.namespace().to_owned());
            }
            row
        })
        .collect();
    table::render(&heading, &rows)
}

/// Approves what was shown; what fails is added to what is `left`.
async fn approve(
    args: &ApproveArgs,
    cluster: &Cluster,
    readings: &[Reading<'_>],
    left: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(file) = &args.write {
        for reading in readings {
            let guard = reading.pinned.guard;
            match edited(args, file, reading, readings) {
                Ok(what) => {
                    let line = format!("{file} {what} for {}\n", title(args, guard));
                    output::data_while_read(line.as_bytes())?;
                }
                Err(error) => left.push(format!("{}: {error:#}", title(args, guard))),
            }
        }
        return Ok(());
    }
    let mut done = futures::stream::iter(readings)
        .map(|reading| async move { (reading.pinned.guard, changed(args, cluster, reading).await) })
        .buffered(AT_A_TIME);
    while let Some((guard, result)) = done.next().await {
        match result {
            // Whoever reads no more has agreed to the others all the same.
            Ok(how) => output::data_while_read(format!("{} {how}\n", title(args, guard)).as_bytes())?,
            Err(error) => left.push(format!("{}: {error:#}", title(args, guard))),
        }
    }
    Ok(())
}

async fn changed(
    args: &ApproveArgs,
    cluster: &Cluster,
    reading: &Reading<'_>,
) -> anyhow::Result<&'static str> {
    let mut change = Change {
        cluster,
        pinned: &reading.pinned,
        hash: reading.hash,
        reason: args.reason.as_deref(),
        dry_run: args.dry_run,
        generation: reading.pinned.guard.object.metadata.generation,
    };
    // What is stored passes already, so that nobody needs to wait until replicas know.
    change.expected(None).await
}

fn edited(
    args: &ApproveArgs,
    file: &str,
    reading: &Reading<'_>,
    readings: &[Reading<'_>],
) -> anyhow::Result<&'static str> {
    let guard = reading.pinned.guard;
    // A manifest may leave its namespace to others, and then only the name tells whose it is.
    let namesakes = readings.iter().filter(|other| other.pinned.guard.name() == guard.name()).count();
    ensure!(namesakes == 1, "guards of several namespaces have its name; choose one by -n");
    let is_edited = manifest::edit(file, guard, &args.cluster, reading.hash, args.dry_run.is_some())?;
    Ok(match (is_edited, args.dry_run) {
        (false, _) => "unchanged",
        (true, None) => "edited",
        (true, Some(_)) => "would be edited",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    fn guard(reason: &str, observed: i64) -> Found {
        let guard = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": "web-guard", "namespace": "n", "uid": "u", "generation": 3},
            "spec": {"targetKind": "Deployment", "targetName": "web", "expectedHash": "a".repeat(64)},
            "status": {"currentHash": "b".repeat(64), "conditions": [{
                "type": "Drifted", "status": "False", "reason": reason, "message": "",
                "observedGeneration": observed, "lastTransitionTime": "2026-11-27T00:00:00Z"}]},
        });
        Found::parse(&guard.to_string()).unwrap()
    }

    #[test]
    fn a_guard_is_taken_for_what_its_status_says_of_it_as_it_is() {
        assert_eq!(standing(&guard("RepresentationChanged", 3)), Standing::Otherwise(Because::Server));
        assert_eq!(standing(&guard("DefinitionChanged", 3)), Standing::Otherwise(Because::Definition));
        assert_eq!(standing(&guard("InSync", 3)), Standing::AsBefore);
        assert!(matches!(standing(&guard("RepresentationChanged", 2)), Standing::Untold(_)));
        let mut approved = guard("RepresentationChanged", 2);
        approved.object.spec.expected_hash = "b".repeat(64);
        assert_eq!(standing(&approved), Standing::AsBefore, "it was approved a moment ago");
    }

    #[test]
    fn only_an_answer_of_the_gate_without_a_word_against_it_is_a_proof() {
        let manager = "driftguard-proof-abc";
        let answer = "driftguard-proof-abc replica=r generation=7".to_owned();
        let other = "spec.x is deprecated".to_owned();
        let drifted = "Deployment/n/web has drifted from what DriftGuard n/web-guard approves".to_owned();
        assert!(said(&[other.clone(), answer.clone()], manager).is_ok());
        assert!(said(&[other], manager).is_err());
        assert!(said(&["driftguard-proof-abcd replica=r generation=7".to_owned()], manager).is_err());
        assert_eq!(said(&[answer, drifted.clone()], manager), Err(drifted));
    }
}
