//! `driftguard guard`: a DriftGuard manifest for a live object or for an object of a file.
//!
//! Only what differs from the defaults is written, so that the manifest can be read and kept in Git.
//! Where a file alone does not tell what the API server would store, the server is asked; a guard
//! whose hash can never match is worse than none.

use anyhow::{Context as _, bail, ensure};

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::output;
use super::subject::dry_run::{self, Stored};
use super::subject::served::Served;
use super::subject::{self, Subject, SubjectArgs, builtin};
use crate::api::names;
use crate::core::guard::Target;
use crate::core::hash::ContentHash;
use crate::core::kinds::KindEntry;
use crate::core::scope::ScopeKind;
use crate::document::Document;
use crate::store;

mod manifest;
mod others;

use manifest::{Manifest, Mode, guard_names, render};

/// Arguments of `driftguard guard`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  driftguard guard configmap market-settings | kubectl apply -f -
  driftguard guard -f market-settings.yaml > market-settings-guard.yaml
  driftguard guard configmap -l app=shop -n shop > guards.yaml
  driftguard guard deploy/web --ignore-path /spec/replicas --contact team-web@example.com
  driftguard guard -f deployment.yaml --only-path '/spec/template/spec/containers/*/image' --local")]
pub struct GuardArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Live objects of the KIND by their labels, such as app=shop,tier!=cache
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["filename", "all"])]
    selector: Option<String>,
    /// All live objects of the KIND in the namespace
    #[arg(long, conflicts_with = "filename")]
    all: bool,
    /// What admission does with a write that is not approved [default: that of the installation]
    #[arg(long, value_name = "MODE")]
    enforcement: Option<Mode>,
    /// Restore the approved content when it drifted
    #[arg(long)]
    auto_remediate: bool,
    /// Name of the guard [default: NAME-guard]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Namespace of the guard [default: the object's; for a cluster-scoped object that of -n, else terrafusion-system]
    #[arg(long, value_name = "NAMESPACE")]
    guard_namespace: Option<String>,
    /// Whom to ask when a write was refused; shown in the refusal
    #[arg(long, value_name = "TEXT")]
    contact: Option<String>,
    /// Where the way forward is written down; shown in the refusal
    #[arg(long, value_name = "URL")]
    runbook: Option<String>,
    /// Hash what the API server would store of the files, by a dry run [default: for kinds that get
    /// defaults]
    #[arg(long, requires = "filename", conflicts_with = "local")]
    server: bool,
    /// Hash the files as they stand and ask no server; for kinds that get defaults only with
    /// --only-path
    #[arg(long, requires = "filename")]
    local: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: manifest::Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// An object with its hash, and `targetApiVersion` where its kind alone does not say enough.
struct Approved {
    subject: Subject,
    hash: ContentHash,
    api_version: Option<String>,
}

/// Prints the guards.
///
/// # Errors
/// When a file or object cannot be read or has no hash, or must not be guarded.
pub async fn run(args: GuardArgs) -> anyhow::Result<Exit> {
    let approved = if args.selector.is_some() || args.all {
        several(&args).await?
    } else if args.subject.are_files()? {
        of_files(&args).await?
    } else {
        live(&args).await?
    };
    ensure!(
        args.name.is_none() || approved.len() == 1,
        "--name names one guard, but there are {} objects; leave it out",
        approved.len()
    );
    let names = guard_names(&approved, &args);
    let manifests = approved
        .iter()
        .zip(names)
        .map(|(approved, name)| Manifest::new(approved, name, &args))
        .collect::<anyhow::Result<Vec<_>>>()?;
    output::data(render(&manifests, args.output)?.as_bytes())?;
    Ok(Exit::Clean)
}

async fn live(args: &GuardArgs) -> anyhow::Result<Vec<Approved>> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let subjects = subject::live(&args.subject.object, &cluster, &served, &args.subject.filter()?).await?;
    subjects.into_iter().map(|subject| of_live(args, subject, &served)).collect()
}

fn of_live(args: &GuardArgs, subject: Subject, served: &Served) -> anyhow::Result<Approved> {
    let entry = served.catalog().resolve(&subject.kind, Some(&subject.api_version))?;
    refuse_hopeless(&subject, Some(entry))?;
    others::tell(&subject, &args.subject);
    let api_version = api_version_needed(&subject, Some(served));
    Ok(Approved { hash: subject.hash()?, api_version, subject })
}

/// The objects of a kind that a selector chooses, or all. Those that a controller makes, or the cluster for itself,
/// are passed over, since whoever guards one fights it, and so are those that cannot be guarded.
async fn several(args: &GuardArgs) -> anyhow::Result<Vec<Approved>> {
    let [kind] = args.subject.object.as_slice() else {
        bail!(
            "-l and --all choose among the objects of one KIND; name it alone, as in `guard configmap -l app=shop`"
        );
    };
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let selector = args.selector.as_deref();
    let subjects = subject::chosen(kind, selector, &cluster, &served, &args.subject.filter()?).await?;
    let mut approved = Vec::new();
    for subject in subjects {
        if let Some(controller) = others::controller(&subject) {
            output::message(&format!("note: {subject} is passed over: {controller} makes it"));
            continue;
        }
        if let Some(writer) = others::sole_writer(&subject) {
            output::message(&format!(
                "note: {subject} is passed over: {writer} alone writes it; name the object to guard it all the same"
            ));
            continue;
        }
        let title = subject.to_string();
        match of_live(args, subject, &served) {
            Ok(one) => approved.push(one),
            Err(error) => output::message(&format!("note: {title} is passed over: {error:#}")),
        }
    }
    ensure!(
        !approved.is_empty(),
        "there is no {kind} to guard that is chosen so; `kubectl get {kind} --show-labels` lists them"
    );
    Ok(approved)
}

async fn of_files(args: &GuardArgs) -> anyhow::Result<Vec<Approved>> {
    let documents = args.subject.documents()?;
    let filter = args.subject.filter()?;
    let (locally, by_server): (Vec<_>, Vec<_>) =
        documents.into_iter().enumerate().partition(|(_, document)| is_local(document, args));
    let mut approved: Vec<(usize, Approved)> = Vec::new();
    for (index, document) in locally {
        let namespaced = builtin::is_namespaced(document.group(), &document.kind);
        let subject = Subject::of_file(document, namespaced, &args.cluster, filter.clone())?;
        ensure!(
            !subject.scope.has_server_defaults() || !args.subject.only_path.is_empty(),
            "{}: the API server fills in defaults of {}, so that the file alone does not tell the hash; leave out --local, or pin parts of it with --only-path",
            subject.place(),
            subject.kind
        );
        refuse_hopeless(&subject, None)?;
        let api_version = api_version_needed(&subject, None);
        approved.push((index, Approved { hash: subject.hash()?, api_version, subject }));
    }
    if !by_server.is_empty() {
        let why = "asking the API server what it would store of the file (`--local` asks none)";
        let cluster = args.cluster.connect().await.context(why)?;
        let served = Served::load(&cluster).await.context(why)?;
        for (index, document) in by_server {
            let (subject, entry) = dry_run::subject(document, &served, &args.cluster, filter.clone())?;
            refuse_hopeless(&subject, Some(entry))?;
            let hash = match dry_run::write(&subject, entry, &cluster).await? {
                Stored::Object(json) => subject.hash_of(&json)?,
                Stored::Refused { hash, by } => {
                    dry_run::note_refused(&subject, &by);
                    hash
                }
            };
            let api_version = api_version_needed(&subject, Some(&served));
            approved.push((index, Approved { subject, hash, api_version }));
        }
    }
    approved.sort_by_key(|(index, _)| *index);
    Ok(approved.into_iter().map(|(_, approved)| approved).collect())
}

/// Whether a file's own content tells the hash, so that no server needs to be asked.
fn is_local(document: &Document, args: &GuardArgs) -> bool {
    let kind = ScopeKind::of(document.group(), &document.kind);
    args.local || (!args.server && kind != ScopeKind::Other)
}

/// `targetApiVersion`, unless `targetKind` alone means this version.
fn api_version_needed(subject: &Subject, served: Option<&Served>) -> Option<String> {
    let plain = match served {
        Some(served) => served.catalog().resolve(&subject.kind, None).ok().map(KindEntry::api_version),
        // Without a server only these are certain.
        None => match subject.scope.kind() {
            ScopeKind::ConfigMap | ScopeKind::Secret => Some("v1".to_owned()),
            ScopeKind::GamaConfig => Some(format!("{}/{}", names::GROUP, names::VERSION)),
            ScopeKind::Other => None,
        },
    };
    (plain.as_deref() != Some(subject.api_version.as_str())).then(|| subject.api_version.clone())
}

/// A guard that admission would refuse is not worth writing down.
fn refuse_hopeless(subject: &Subject, entry: Option<&KindEntry>) -> anyhow::Result<()> {
    // Without discovery the plural is guessed; the server would refuse such a guard all the same.
    let plural = || format!("{}s", subject.kind.to_ascii_lowercase());
    let target = Target {
        group: subject.group().into(),
        version: subject.api_version.rsplit('/').next().unwrap_or_default().into(),
        kind: subject.kind.as_str().into(),
        resource: entry.map_or_else(|| plural().into(), |entry| entry.plural.clone()),
        namespace: subject.namespace.as_deref().map(Into::into),
        name: subject.name.as_str().into(),
    };
    match store::refusal(&target, names::NAMESPACE) {
        Some(why) => bail!("{}: {why}", subject.place()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
