//! `driftguard diff`: approved content against what is live.
//!
//! The approved content comes from a file, or from those of the guard's sources that the caller may read too,
//! and then it is verified by the guard's hash. Only what is pinned is compared. Of Secrets only names of keys
//! are shown.

use anyhow::{Context as _, bail, ensure};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards;
use super::output;
use super::pinned::{Content, Pinned};
use super::subject::{Served, request};
use crate::api::{SourceKind, SourceRef};
use crate::core::audit::candidate::{self, Form};
use crate::document::{self, Document};

pub(super) mod show;

use show::Format;

/// Arguments of `driftguard diff`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without -f the approved content is taken from the guard's sources, as far as you may read them: \
                        ConfigMaps and Secrets. Lines with - are approved, lines with + are live. Of Secrets only the \
                        names of keys are shown.\n\n\
                        Exit code 0: the same; 1: they differ; 2: it could not be told.\n\n\
                        Examples:
  driftguard diff market-settings-guard
  driftguard diff deploy/web -n shop -f deployment.yaml
  driftguard diff market-settings-guard -o paths"
)]
pub struct DiffArgs {
    /// A guard: NAME, or KIND/NAME of what it pins
    #[arg(value_name = "GUARD")]
    guard: String,
    /// File with the content to compare with, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Compares.
///
/// # Errors
/// When the guard is not found, or one of the two contents cannot be had.
pub async fn run(args: DiffArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let guard = guards::only(&cluster, &args.guard).await?;
    let pinned = Pinned::of(&guard, &served)?;
    let live = pinned.live(&cluster).await?;
    let (name, approved) = if args.filename.is_empty() {
        if live.as_ref().is_some_and(|live| live.hash == pinned.approvals.expected) {
            return Ok(Exit::Clean);
        }
        of_sources(&pinned, &cluster).await?
    } else {
        let content = of_files(&pinned, &cluster, &args.filename).await?;
        if !pinned.approves(content.hash) {
            output::message(&format!(
                "note: {} is not what DriftGuard {}/{} approves",
                args.filename.join(", "),
                guard.namespace(),
                guard.name()
            ));
        }
        (args.filename.join(", "), content)
    };
    if live.as_ref().is_some_and(|live| live.hash == approved.hash) {
        return Ok(Exit::Clean);
    }
    let title = format!("{} (live)", pinned.target);
    let mut text = show::difference(&pinned, (&name, &approved), (&title, live.as_ref()), args.output)?;
    if output::takes_colour(&std::io::stdout()) {
        text = show::coloured(&text);
    }
    output::data_while_read(text.as_bytes())?;
    Ok(Exit::Finding)
}

/// The content of the target that files hold, as the API server would store it.
///
/// # Errors
/// When there is none, or more than one.
pub(super) async fn of_files(
    pinned: &Pinned<'_>,
    cluster: &Cluster,
    files: &[String],
) -> anyhow::Result<Content> {
    let document = document_of(pinned, files)?;
    let content = pinned.content(cluster, &document.json, Form::Document, Some(&document.origin)).await?;
    if !content.is_whole {
        output::message(&format!(
            "note: the defaults of {} could not be had, so that what the API server fills in shows as a difference",
            document.origin
        ));
    }
    Ok(content)
}

/// The document of files that is the target.
pub(super) fn document_of(pinned: &Pinned<'_>, files: &[String]) -> anyhow::Result<Document> {
    let target = &pinned.target;
    let is_target = |document: &Document| {
        document.group() == target.group.as_str()
            && document.kind == target.kind.as_str()
            && document.name == target.name.as_str()
            && document
                .namespace
                .as_deref()
                .is_none_or(|namespace| Some(namespace) == target.namespace.as_deref())
    };
    let mut found: Vec<Document> = document::read(files, &mut std::io::stdin().lock())?
        .into_iter()
        .filter(|document| is_target(document))
        .collect();
    ensure!(found.len() < 2, "{} holds {} {} times; leave one", files.join(", "), target, found.len());
    found.pop().with_context(|| format!("{} holds no {target}", files.join(", ")))
}

/// The approved content, from the first source that has it.
pub(super) async fn of_sources(pinned: &Pinned<'_>, cluster: &Cluster) -> anyhow::Result<(String, Content)> {
    let spec = &pinned.guard.object.spec;
    let mut said = Vec::new();
    for source in spec.source_of_truth_ref.iter().chain(&spec.fallback_source_refs) {
        let namespace = source.namespace.as_deref().unwrap_or(pinned.guard.namespace());
        let word = match source.kind {
            SourceKind::Git => "git",
            SourceKind::Configmap => "configmap",
            SourceKind::Secret => "secret",
            SourceKind::Service => "service",
        };
        let name = format!("{word} {namespace}/{}", source.name);
        match of_source(pinned, cluster, source, namespace).await {
            Ok(content) if content.hash == pinned.approvals.expected => return Ok((name, content)),
            Ok(_) => said.push(format!("{name} has other content")),
            Err(error) => said.push(format!("{name}: {error:#}")),
        }
    }
    let why = if said.is_empty() { "the guard names no source".to_owned() } else { said.join("; ") };
    bail!("the approved content is not at hand ({why}); give it with -f FILE")
}

async fn of_source(
    pinned: &Pinned<'_>,
    cluster: &Cluster,
    source: &SourceRef,
    namespace: &str,
) -> anyhow::Result<Content> {
    let (form, plural) = match source.kind {
        SourceKind::Configmap => (Form::ConfigMap, "configmaps"),
        SourceKind::Secret => (Form::Secret, "secrets"),
        SourceKind::Git | SourceKind::Service => bail!("only DriftGuard itself can read it"),
    };
    let path = format!(
        "/api/v1/namespaces/{}/{plural}/{}",
        request::segment(namespace),
        request::segment(&source.name)
    );
    let object = request::get(cluster, &path, "reading it").await?;
    let Some(key) = source.path.as_deref().filter(|key| !key.is_empty()) else {
        return pinned.content(cluster, &object, form, None).await;
    };
    let mut values = candidate::values_of(&object, form)?;
    let value = values.remove(key).with_context(|| format!("it has no key {key:?}"))?;
    let documents = document::contents(key, &value)?;
    let chosen = candidate::choose(&documents, &pinned.target)?;
    pinned.content(cluster, chosen, Form::Document, None).await
}
