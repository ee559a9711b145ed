//! `driftguard hash`: the hash that a guard pins, of files or of live objects.
//!
//! Text output is a line an object as sha256sum prints it: the hash, two spaces, the object.

use serde::Serialize;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use super::subject::dry_run::{self, Stored};
use super::subject::served::Served;
use super::subject::{self, Subject, SubjectArgs, builtin};
use crate::core::hash::ContentHash;

/// Arguments of `driftguard hash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  driftguard hash -f market-settings.yaml
  driftguard hash -f manifests/ -n trading
  driftguard hash configmap market-settings -n trading
  driftguard hash deploy/web --only-path '/spec/template/spec/containers/[name=app]/image'
  driftguard hash --server -f deployment.yaml
  driftguard hash --canonical -f market-settings.yaml | sha256sum")]
pub struct HashArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Hash what the API server would store of the files, by a dry run
    #[arg(long, requires = "filename")]
    server: bool,
    /// Print the canonical bytes that are hashed, of one object; never of a Secret
    #[arg(long, conflicts_with = "output")]
    canonical: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// An object and what was hashed of it.
struct Hashed {
    subject: Subject,
    hash: ContentHash,
    /// The state that was hashed; `None` when only its hash is known.
    json: Option<Vec<u8>>,
}

/// Prints the hashes.
///
/// # Errors
/// When a file or object cannot be read, or has no hash.
pub async fn run(args: HashArgs) -> anyhow::Result<Exit> {
    let hashed = collect(&args).await?;
    let text = if args.canonical { canonical(&hashed)? } else { render(&hashed, args.output)? };
    output::data(&text)?;
    Ok(Exit::Clean)
}

async fn collect(args: &HashArgs) -> anyhow::Result<Vec<Hashed>> {
    let filter = args.subject.filter()?;
    if !args.subject.are_files()? {
        let cluster = args.cluster.connect().await?;
        let served = Served::load(&cluster).await?;
        let subjects = subject::live(&args.subject.object, &cluster, &served, &filter).await?;
        return subjects.into_iter().map(Hashed::as_it_stands).collect();
    }
    let documents = args.subject.documents()?;
    if args.server {
        let cluster = args.cluster.connect().await?;
        let served = Served::load(&cluster).await?;
        let mut hashed = Vec::new();
        for document in documents {
            let (subject, entry) = dry_run::subject(document, &served, &args.cluster, filter.clone())?;
            hashed.push(Hashed::as_stored(subject, entry, &cluster).await?);
        }
        return Ok(hashed);
    }
    let subjects = documents
        .into_iter()
        .map(|document| {
            let namespaced = builtin::is_namespaced(document.group(), &document.kind);
            Subject::of_file(document, namespaced, &args.cluster, filter.clone())
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    subject::notes::tell(&subjects);
    subjects.into_iter().map(Hashed::as_it_stands).collect()
}

impl Hashed {
    fn as_it_stands(subject: Subject) -> anyhow::Result<Self> {
        let hash = subject.hash()?;
        Ok(Self { json: Some(subject.json.clone()), hash, subject })
    }

    async fn as_stored(
        subject: Subject,
        entry: &crate::core::kinds::KindEntry,
        cluster: &Cluster,
    ) -> anyhow::Result<Self> {
        Ok(match dry_run::write(&subject, entry, cluster).await? {
            Stored::Object(json) => Self { hash: subject.hash_of(&json)?, json: Some(json), subject },
            Stored::Refused { hash, by } => {
                dry_run::note_refused(&subject, &by);
                Self { hash, json: None, subject }
            }
        })
    }
}

fn canonical(hashed: &[Hashed]) -> anyhow::Result<Vec<u8>> {
    let [only] = hashed else {
        anyhow::bail!("--canonical prints one object, but there are {}; name one of them", hashed.len());
    };
    match &only.json {
        Some(json) => only.subject.canonical_of(json),
        None => anyhow::bail!("{}: a guard refuses it and tells only its hash", only.subject),
    }
}

/// One object in JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    hash: String,
    api_version: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

fn render(hashed: &[Hashed], format: Format) -> anyhow::Result<Vec<u8>> {
    if format == Format::Text {
        let lines = hashed.iter().map(|one| format!("{}  {}\n", one.hash, one.subject));
        return Ok(lines.collect::<String>().into_bytes());
    }
    let entries: Vec<Entry<'_>> = hashed.iter().map(Entry::of).collect();
    let mut text = serde_json::to_vec_pretty(&entries)?;
    text.push(b'\n');
    Ok(text)
}

impl<'a> Entry<'a> {
    fn of(hashed: &'a Hashed) -> Self {
        let subject = &hashed.subject;
        Self {
            hash: hashed.hash.to_string(),
            api_version: &subject.api_version,
            kind: &subject.kind,
            namespace: subject.namespace.as_deref(),
            name: &subject.name,
            file: subject.origin.as_ref().map(|origin| origin.file.as_str()),
            line: subject.origin.as_ref().map(|origin| origin.line),
        }
    }
}
