//! `driftguard approve`: makes new content the approved one.
//!
//! Content comes from a file, from the live object, or by the hash that a refusal named. It is shown before
//! anything is written. With a file, guard and object are changed in an order in which neither is ever wrong:
//! the new hash passes beside the old one for a while, then the object is written, then the guard expects the
//! new hash alone. Whatever fails in between, what was approved before still is.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail, ensure};

use super::cluster::{Cluster, ClusterArgs};
use super::diff::{self, show};
use super::exit::Exit;
use super::guards::{self, Found};
use super::output;
use super::pinned::{Content, Pinned};
use super::subject::Served;
use super::terms;
use crate::core::hash::ContentHash;

mod change;
mod manifest;
mod representation;
mod servers;

use change::{Change, DryRun};

/// Arguments of `driftguard approve`.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("content").required(true).args(["filename", "live", "hash", "representation"]),
    after_help = "Approving changes the guard: it takes the rights that it takes to make one, and is recorded with your \
                  name. With -f the object is written too, of it only what the guard pins; --guard-only leaves that to \
                  you. What is approved is shown first, of Secrets only the names of keys, and asked for on a terminal.\n\n\
                  A guard that Argo CD, Flux or Helm applies is changed where it comes from: --write edits its manifest \
                  in a file and touches no cluster; --force changes the cluster all the same, until the tool takes it \
                  back.\n\n\
                  After an upgrade of the API server, --representation approves how it reads stored objects now: of each \
                  guard that says RepresentationChanged, once the gate, asked by a dry run, has answered that DriftGuard \
                  itself signed the hash of what is stored as another reading of what the guard approves. Nothing is \
                  approved while API servers of several versions answer; of those that it cannot ask, a note says that \
                  you must make sure. Guards that say DefinitionChanged, since somebody edited the definition of a kind, \
                  are left: nobody signs that, so look at them, then use --live. Exit code 2 when a guard was left; the \
                  others are approved all the same.\n\n\
                  Examples:
  driftguard approve market-settings-guard -f market-settings.yaml --reason 'release 12'
  driftguard approve deploy/web -n shop --live --yes
  driftguard approve a-guard --hash b75b4a7f9f7efdcf195b2062d332b3ffaa4a184527a83ad6e1733ef5f9543cb3
  driftguard approve market-settings-guard -f settings.yaml --write guard.yaml
  driftguard approve --representation -A --dry-run client
  driftguard approve --representation -A --reason 'Kubernetes 1.37'"
)]
pub struct ApproveArgs {
    /// A guard: NAME, or KIND/NAME of what it pins; with --representation any number [default then: all of the
    /// namespace]
    #[arg(value_name = "GUARD", required_unless_present = "representation")]
    guards: Vec<String>,
    /// File with the new content, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Approve what is live now
    #[arg(long)]
    live: bool,
    /// Approve the content of this hash, such as the one that a refusal named as `image`
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    hash: Option<ContentHash>,
    /// Approve how another version of the API server reads what is stored and approved
    #[arg(long)]
    representation: bool,
    /// With --representation: the guards of all namespaces
    #[arg(short = 'A', long, requires = "representation", conflicts_with_all = ["namespace", "guards"])]
    all_namespaces: bool,
    /// With --representation: only guards with these labels, such as team=web,tier!=test
    #[arg(
        short = 'l',
        long,
        value_name = "SELECTOR",
        requires = "representation",
        conflicts_with = "guards"
    )]
    selector: Option<String>,
    /// With --representation: only guards of targets of this kind, by any of its names; may be repeated
    #[arg(long, value_name = "KIND", requires = "representation")]
    kind: Vec<String>,
    /// Why; kept with the guard
    #[arg(long, value_name = "TEXT", value_parser = terms::parse_reason, conflicts_with = "write")]
    reason: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// With -f: change the guard alone, and leave it to others to write the object
    #[arg(long, requires = "filename")]
    guard_only: bool,
    /// Write nothing: show what would be done (client), or have the API server and the gate check the guard too (server)
    #[arg(long, value_name = "WHERE")]
    dry_run: Option<DryRun>,
    /// Edit expectedHash in this manifest of the guard, and change nothing in the cluster
    #[arg(long, value_name = "FILE", conflicts_with = "force")]
    write: Option<String>,
    /// Change the guard in the cluster although another tool applies it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

fn parse_hash(text: &str) -> Result<ContentHash, String> {
    text.parse().map_err(|error| format!("is {error}"))
}

/// What is to be approved.
struct Proposal {
    hash: ContentHash,
    /// The content itself, where it is to be written.
    content: Option<Content>,
}

/// Approves.
///
/// # Errors
/// When the guard or the content is not found, nobody agrees, or a write is refused.
pub async fn run(args: ApproveArgs) -> anyhow::Result<Exit> {
    if args.representation {
        return representation::run(&args).await;
    }
    let [word] = args.guards.as_slice() else {
        bail!("approve one guard at a time; several are taken by --representation alone");
    };
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let guard = guards::only(&cluster, word).await?;
    let pinned = Pinned::of(&guard, &served)?;
    let title = guard.title();
    args.refuse_managed(&guard)?;
    let live = pinned.live(&cluster).await?;
    let proposal = propose(&args, &pinned, &cluster, live.as_ref()).await?;
    let is_applied = live.as_ref().is_some_and(|live| live.hash == proposal.hash);
    let is_approved = pinned.approvals.expected == proposal.hash;
    if is_approved && (is_applied || args.guard_only || proposal.content.is_none()) && args.write.is_none() {
        output::data(format!("{title} approves this already\n").as_bytes())?;
        return Ok(Exit::Clean);
    }
    if let Some(file) = &args.write {
        let edited = manifest::edit(file, &guard, &args.cluster, proposal.hash, args.dry_run.is_some())?;
        let what = match (edited, args.dry_run) {
            (false, _) => "unchanged",
            (true, None) => "edited",
            (true, Some(_)) => "would be edited",
        };
        output::data(format!("{file} {what}\n").as_bytes())?;
        return Ok(Exit::Clean);
    }
    if !args.yes && args.dry_run.is_none() {
        confirm(&format!("Approve this for {title} in namespace {}?", guard.namespace()))?;
    }
    let mut change = Change {
        cluster: &cluster,
        pinned: &pinned,
        hash: proposal.hash,
        reason: args.reason.as_deref(),
        dry_run: args.dry_run,
        generation: guard.object.metadata.generation,
    };
    match &proposal.content {
        Some(content) if !is_applied && !args.guard_only => change.both(content, live.as_ref()).await?,
        _ => change.guard().await?,
    }
    Ok(Exit::Clean)
}

impl ApproveArgs {
    /// A guard that a tool applies is changed where it comes from.
    fn refuse_managed(&self, guard: &Found) -> anyhow::Result<()> {
        if let (Some(tool), None, false, None) = (guard.managed_by(), &self.write, self.force, self.dry_run) {
            bail!(
                "{tool} applies {title} and would take the change back: approve it where it comes from, by --write \
                 FILE with its manifest, or here by --force",
                tool = tool.as_str(),
                title = guard.title()
            );
        }
        Ok(())
    }
}

/// Finds what is to be approved, and shows how it differs from what is live.
async fn propose(
    args: &ApproveArgs,
    pinned: &Pinned<'_>,
    cluster: &Cluster,
    live: Option<&Content>,
) -> anyhow::Result<Proposal> {
    let target = &pinned.target;
    if let Some(hash) = args.hash {
        if pinned.scope.is_secret() {
            // No refusal names one, and none is shown.
            output::message(&format!(
                "the content of {target} with the hash that was given is to be approved"
            ));
        } else {
            output::message(&format!(
                "content of {target} with hash sha256:{hash} is to be approved, unseen"
            ));
        }
        return Ok(Proposal { hash, content: None });
    }
    if args.live {
        let live =
            live.with_context(|| format!("there is no {target}, so that nothing live can be approved"))?;
        tell_live(args, pinned, cluster, live).await;
        return Ok(Proposal { hash: live.hash, content: None });
    }
    let content = diff::of_files(pinned, cluster, &args.filename).await?;
    let name = args.filename.join(", ");
    match live {
        Some(live) if live.hash == content.hash => {
            output::message(&format!("{target} holds the content of {name} already"));
        }
        Some(live) => {
            let title = format!("{target} (live)");
            let shown =
                show::difference(pinned, (&title, live), (&name, Some(&content)), show::Format::Yaml)?;
            show::tell(&shown);
        }
        None => output::message(&format!("there is no {target}: it is made from {name}")),
    }
    Ok(Proposal { hash: content.hash, content: Some(content) })
}

/// Shows how what is live differs from what is approved, as far as that is at hand.
async fn tell_live(args: &ApproveArgs, pinned: &Pinned<'_>, cluster: &Cluster, live: &Content) {
    if live.hash == pinned.approvals.expected || args.dry_run == Some(DryRun::Client) && args.yes {
        return;
    }
    match diff::of_sources(pinned, cluster).await {
        Ok((name, approved)) => {
            let title = format!("{} (live)", pinned.target);
            match show::difference(pinned, (&name, &approved), (&title, Some(live)), show::Format::Yaml) {
                Ok(shown) => show::tell(&shown),
                Err(error) => output::message(&format!("the difference cannot be shown: {error:#}")),
            }
        }
        Err(_) => output::message(&format!(
            "what is live in {} is to be approved; what was approved before is not at hand to show the difference",
            pinned.target
        )),
    }
}

/// Asks on a terminal; elsewhere `--yes` must have been given.
fn confirm(question: &str) -> anyhow::Result<()> {
    ensure!(
        std::io::stdin().is_terminal(),
        "nobody can be asked here; look at the difference, then repeat it with --yes"
    );
    output::message(&format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    ensure!(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"), "nothing was approved");
    Ok(())
}
