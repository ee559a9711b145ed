//! `--representation`: approves how the API server reads stored objects since it was itself replaced.
//!
//! Such an object was written by nobody, so that there is nothing to look at; but whether that is so must not rest on
//! a status, which its writers could forge. The auditor, when it saw the very version read otherwise, has signed the
//! new hash as an equivalent of the approved one, for just this spec of just this guard. The gate holds the key, and is
//! asked by a dry-run patch that changes nothing. It answers in words, guard by guard, and only its word that the hash
//! of what is stored is such an equivalent is a proof. Whatever else is said, or not said, approves nothing.
//!
//! Nobody signs what an edited definition makes of an object: that is left to be looked at.

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use uuid::Uuid;

use super::ApproveArgs;
use super::change::Change;
use super::servers;
use crate::api::reasons::ConditionType;
use crate::cli::cluster::Cluster;
use crate::cli::exit::Exit;
use crate::cli::guards::{self, Found};
use crate::cli::pinned::Pinned;
use crate::cli::subject::Served;
use crate::cli::{output, table, write};
use crate::control::proof;
use crate::control::warning::Warnings;
use crate::core::audit::finding::Reason;
use crate::core::hash::ContentHash;
use crate::core::kinds::KindEntry;
use crate::core::verdict::Held;
use crate::store::convert::Approvals;

use super::manifest;

/// How many guards are worked on at a time.
const AT_A_TIME: usize = 8;
/// How many digits of a hash a table shows: enough to tell hashes apart.
const SHOWN: usize = 16;
/// What a person does who cannot be spared to look.
const BY_HAND: &str = "compare it by `driftguard diff`, then approve it by --live";

/// What the status of a guard says of it. It tells which guards to ask about, and never what to approve.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Its target reads otherwise, since the API server was replaced.
    Otherwise,
    /// Its target is as approved.
    AsBefore,
    /// It is as it is for another reason, which is not for this command to mend.
    Else(String),
    /// It is left, and why.
    Left(String),
}

/// One hash to approve.
struct Reading<'a> {
    pinned: Pinned<'a>,
    hash: ContentHash,
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
    let mut left = Vec::new();
    let found = if args.guards.is_empty() {
        let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
        let keep = |guard: &Found| {
            is_meant(guard) && matches!(standing(guard), Standing::Otherwise | Standing::Left(_))
        };
        let (found, unread) = guards::all(&cluster, namespace, args.selector.as_deref(), keep).await?;
        if unread > 0 {
            left.push(format!("{unread} guards could not be read"));
        }
        found
    } else {
        guards::chosen(&cluster, &args.guards).await?
    };
    let mut asked = Vec::new();
    for guard in &found {
        if !is_meant(guard) {
            left.push(format!("{}: its target is of no kind that --kind names", title(args, guard)));
            continue;
        }
        match standing(guard) {
            Standing::Otherwise => asked.push(guard),
            Standing::AsBefore => {
                output::message(&format!("note: {}: nothing reads otherwise", title(args, guard)));
            }
            Standing::Else(why) | Standing::Left(why) => left.push(format!("{}: {why}", title(args, guard))),
        }
    }
    if !asked.is_empty() {
        servers::ensure_one_version(args, &cluster).await?;
    }
    let mut readings = Vec::new();
    let (cluster, served) = (&cluster, &served);
    let mut read = futures::stream::iter(asked.iter().copied())
        .map(|guard| async move { (guard, reading(args, cluster, served, guard).await) })
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
        return Standing::Else("DriftGuard has not looked at its target yet".to_owned());
    };
    let is_current = drifted.observed_generation == generation;
    if drifted.reason == Reason::DefinitionChanged.as_str() {
        return Standing::Left(format!(
            "its status says that somebody edited the definition of its kind; that nobody has written {}/{} besides, \
             nothing proves: {BY_HAND}",
            guard.object.spec.target_kind, guard.object.spec.target_name
        ));
    }
    if drifted.reason != Reason::RepresentationChanged.as_str() {
        return if drifted.status == "False" {
            Standing::AsBefore
        } else {
            Standing::Else(format!("its status says {}, which is not for --representation", drifted.reason))
        };
    }
    if is_current {
        return Standing::Otherwise;
    }
    let approves = |text: &str| text.parse() == guard.object.spec.expected_hash.parse::<ContentHash>();
    if status.current_hash.as_deref().is_some_and(approves) {
        return Standing::AsBefore;
    }
    Standing::Left(
        "it was changed, and DriftGuard has not looked at it since; try again in a moment".to_owned(),
    )
}

/// What is to be approved of one guard, once the gate says that it is another reading of what is approved.
async fn reading<'a>(
    args: &ApproveArgs,
    cluster: &Cluster,
    served: &'a Served,
    guard: &'a Found,
) -> anyhow::Result<Reading<'a>> {
    args.refuse_managed(guard)?;
    let pinned = Pinned::of(guard, served)?;
    let target = &pinned.target;
    ensure!(
        pinned.scope.has_server_defaults(),
        "every API server reads {target} alike, so that its status is not to be believed: {BY_HAND}"
    );
    let held = asked_of_gate(cluster, &pinned).await?;
    let live = pinned.live(cluster).await?.with_context(|| format!("there is no {target}"))?;
    let hash = proved(held, live.hash, &pinned.approvals, &target.to_string())?;
    Ok(Reading { pinned, hash })
}

/// What the gate says that the content of the target is to the guard.
async fn asked_of_gate(cluster: &Cluster, pinned: &Pinned<'_>) -> anyhow::Result<Held> {
    let target = &pinned.target;
    let nonce = Uuid::now_v7().simple().to_string();
    let request = proof::request(target, &nonce).context("cannot build the request")?;
    let doing = || format!("asking the gate about {target} by a dry run that changes nothing");
    let answer = write::ask(cluster, request).await.map_err(|error| cluster.explain(doing(), &error))?;
    answer.body.map_err(|error| cluster.explain(doing(), &error))?;
    let metadata = &pinned.guard.object.metadata;
    said(&answer.warnings, &nonce, metadata.uid.as_deref(), metadata.generation)
        .map_err(anyhow::Error::msg)
        .with_context(|| {
            format!("it could not be proved that what is stored of {target} is another reading of the same")
        })
}

/// The one statement of the gate about the guard, as it is now, among the warnings of such a dry run.
fn said(
    warnings: &Warnings,
    nonce: &str,
    uid: Option<&str>,
    generation: Option<i64>,
) -> Result<Held, &'static str> {
    if warnings.unread > 0 {
        return Err("the API server sent a warning that cannot be read");
    }
    let statements = warnings.texts.iter().filter_map(|text| proof::read_statement(text, nonce));
    let mut of_guard = statements.filter(|said| Some(said.guard_uid.as_str()) == uid);
    let Some(first) = of_guard.next() else {
        return Err(
            "the gate said nothing of it; see the condition Enforcing of the guard, and whether every \
                    replica of DriftGuard is of this version",
        );
    };
    // Several entries may call several replicas, of which one may lag behind.
    if of_guard.any(|other| other != first) {
        return Err("replicas of DriftGuard said different things of it; try again in a moment");
    }
    if Some(first.guard_generation) != generation {
        return Err("the gate goes by another version of the guard; try again in a moment");
    }
    Ok(first.held)
}

/// The hash that may be approved: the one that the gate was shown and calls an equivalent, which must be the one that
/// is stored, and one that nobody approved on its own account.
fn proved(
    held: Held,
    stored: ContentHash,
    approvals: &Approvals,
    target: &str,
) -> anyhow::Result<ContentHash> {
    let hash = match held {
        Held::Equivalent(hash) => hash,
        Held::Approved if stored == approvals.expected => {
            bail!("{target} reads as it was approved; try again in a moment")
        }
        Held::Approved => bail!(
            "what is stored of {target} is approved by the guard itself, and not as another reading: {BY_HAND}"
        ),
        Held::NotApproved => {
            bail!("the gate says that what is stored of {target} is not approved: {BY_HAND}")
        }
    };
    ensure!(
        hash == stored,
        "what the gate was shown of {target} by a dry run is not what is stored: a webhook changes it, or API servers \
         of several versions answer by turns: {BY_HAND}"
    );
    let is_beside = approvals.also_approved.iter().any(|also| also.hash == hash);
    ensure!(
        !is_beside && hash != approvals.expected,
        "what is stored of {target} stands in the guard already, and not as another reading: {BY_HAND}"
    );
    Ok(hash)
}

/// The guards with what becomes of them.
fn tabled(args: &ApproveArgs, readings: &[Reading<'_>]) -> String {
    let mut heading = vec!["GUARD", "TARGET", "APPROVED", "READS NOW"];
    if args.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = readings
        .iter()
        .map(|reading| {
            let Reading { pinned, hash } = reading;
            // No Secret is among them: every API server reads those alike.
            let shown = |hash: ContentHash| hash.to_string().chars().take(SHOWN).collect();
            let mut row = vec![
                pinned.guard.name().to_owned(),
                pinned.target.to_string(),
                shown(pinned.approvals.expected),
                shown(*hash),
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
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
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
        assert_eq!(standing(&guard("RepresentationChanged", 3)), Standing::Otherwise);
        assert_eq!(standing(&guard("InSync", 3)), Standing::AsBefore);
        assert!(matches!(standing(&guard("RepresentationChanged", 2)), Standing::Left(_)));
        let mut approved = guard("RepresentationChanged", 2);
        approved.object.spec.expected_hash = "b".repeat(64);
        assert_eq!(standing(&approved), Standing::AsBefore, "it was approved a moment ago");
        let mut drifted = guard("ContentDiffers", 3);
        drifted.object.status.as_mut().unwrap().conditions[0].status = "True".to_owned();
        assert!(matches!(standing(&drifted), Standing::Else(_)));
        drifted.object.status = None;
        assert!(matches!(standing(&drifted), Standing::Else(_)));
    }

    #[test]
    fn an_edited_definition_is_never_taken_for_a_proof() {
        let mut edited = guard("DefinitionChanged", 3);
        assert!(matches!(standing(&edited), Standing::Left(_)));
        edited.object.status.as_mut().unwrap().conditions[0].status = "True".to_owned();
        let Standing::Left(why) = standing(&edited) else { panic!("it is not left") };
        assert!(why.contains("--live"), "{why}");
    }

    fn warnings(texts: &[&str]) -> Warnings {
        Warnings { texts: texts.iter().map(|&text| text.to_owned()).collect(), unread: 0 }
    }

    #[test]
    fn only_the_word_of_the_gate_on_this_guard_as_it_is_is_a_proof() {
        let hash = ContentHash::of(b"a");
        let answer = "driftguard-proof-abc replica=r generation=7";
        let other = "spec.x is deprecated";
        let word = |content: &str| format!("driftguard-proof-abc guard=u generation=3 content={content}");
        let equivalent = word(&format!("equivalent:sha256:{hash}"));
        let of = |texts: &[&str]| said(&warnings(texts), "abc", Some("u"), Some(3));
        assert_eq!(of(&[other, answer, &equivalent]), Ok(Held::Equivalent(hash)));
        assert_eq!(of(&[&equivalent, &equivalent]), Ok(Held::Equivalent(hash)), "two entries called it");
        assert_eq!(of(&[answer, &word("not-approved")]), Ok(Held::NotApproved));
        // That it answers, and has nothing to say, is none.
        assert!(of(&[answer]).is_err());
        assert!(of(&[]).is_err());
        assert!(of(&[&equivalent.replace("abc", "abcd")]).is_err());
        assert!(of(&[&equivalent.replace("guard=u", "guard=v")]).is_err());
        assert!(of(&[&equivalent.replace("generation=3", "generation=2")]).is_err());
        assert!(of(&[&equivalent[..equivalent.len() - 1]]).is_err());
        assert!(of(&[&equivalent, &word("not-approved")]).is_err());
        assert!(said(&warnings(&[&equivalent]), "abc", None, Some(3)).is_err());
        let unread = Warnings { unread: 1, ..warnings(&[&equivalent]) };
        assert!(said(&unread, "abc", Some("u"), Some(3)).is_err());
    }

    #[test]
    fn only_an_equivalent_that_is_stored_and_that_nobody_approved_beside_is_approved() {
        let (old, new) = (ContentHash::of(b"old"), ContentHash::of(b"new"));
        let mut guard = guard("RepresentationChanged", 3);
        guard.object.spec.expected_hash = old.to_string();
        let result = |guard: &Found, held, stored| {
            let approvals = Approvals::of(&guard.object.spec).unwrap();
            proved(held, stored, &approvals, "Deployment/n/web").ok()
        };
        assert_eq!(result(&guard, Held::Equivalent(new), new), Some(new));
        assert_eq!(result(&guard, Held::Equivalent(new), old), None);
        assert_eq!(result(&guard, Held::Equivalent(old), old), None);
        for held in [Held::Approved, Held::NotApproved] {
            assert_eq!(result(&guard, held, new), None);
            assert_eq!(result(&guard, held, old), None);
        }
        for until in [json!(null), json!("2020-01-01T00:00:00Z"), json!("2100-01-01T00:00:00Z")] {
            let also = json!([{"hash": new.to_string(), "until": until, "reason": "a moment"}]);
            guard.object.spec.also_approved = serde_json::from_value(also).unwrap();
            assert_eq!(result(&guard, Held::Equivalent(new), new), None, "{until}");
        }
    }
}
