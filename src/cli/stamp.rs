//! `driftguard stamp`: refreshes `expectedHash` of the DriftGuards in manifests from their targets in the same manifests.
//!
//! Without `-f` it is a filter: a stream of documents, as Helm gives to a post-renderer, or a `ResourceList`, as
//! kustomize gives to a function, comes in, and goes out with nothing changed but hashes (and names that kustomize
//! gave a suffix). With `-f` it edits files, or only looks with `--check`. What admission is asked to approve is for
//! reviewers of the manifests to see: nothing else of a guard is touched.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use super::subject::dry_run::{self, Stored};
use super::subject::stated::states_all;
use super::subject::{Served, Subject, builtin};
use crate::api::names;
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::document::{self, Document, Edit};

mod guard;
mod krm;
mod overlay;
mod stream;
mod suffix;

use guard::Guard;
use krm::ResourceList;
use overlay::Patch;
use stream::{Aim, Kinds, Object, Stream};

/// How messages call standard input.
const STDIN: &str = "standard input";

/// Arguments of `driftguard stamp`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Guards whose target is not among the manifests are left as they are, and so are those of kinds \
                        that get defaults from the API server, unless --server is given or onlyPaths end in values \
                        that the manifest states; standard error says which. A ConfigMap or Secret to whose name \
                        kustomize added a hash is found by the name without it, and targetName follows. Objects \
                        without namespace are those of -n or of the context. The functionConfig of a ResourceList \
                        may set `strict` and `namespace` in its data.\n\n\
                        Exit code 0: done; 1: with --check, a hash is stale; 2: it could not be done.\n\n\
                        Examples:\n  kustomize build overlays/prod | driftguard stamp | kubectl apply -f -\n  \
                        helm upgrade shop ./chart -n shop --post-renderer driftguard --post-renderer-args stamp \\\n    \
                        --post-renderer-args --strict --post-renderer-args -n --post-renderer-args shop\n  \
                        driftguard stamp -f manifests/\n  driftguard stamp -f manifests/ --check --strict"
)]
pub struct StampArgs {
    /// File or directory (searched for .yaml, .yml and .json) to edit in place; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Change nothing: exit 1 when a hash is stale, and say where
    #[arg(long)]
    check: bool,
    /// Fail when a guard has to be left as it is
    #[arg(long)]
    strict: bool,
    /// Ask the API server by a dry run what it would store of kinds that get defaults
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl StampArgs {
    /// The files of `-f`, for messages.
    fn files(&self) -> String {
        let names: Vec<String> = self.filename.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }
}

/// A text of manifests.
struct Input {
    /// As messages call it.
    name: String,
    /// Where it lies; `None` for standard input.
    path: Option<PathBuf>,
    /// The folder in which it lies.
    folder: Option<PathBuf>,
    text: String,
    documents: Vec<Document>,
}

/// All that is read.
#[derive(Default)]
struct Manifests {
    inputs: Vec<Input>,
    /// Files of folders that could not be read.
    passed_over: Vec<PathBuf>,
    /// What kustomize makes of objects of the files.
    patches: Vec<Patch>,
}

/// A guard that is to be changed.
struct Change<'a> {
    guard: &'a Guard,
    /// The new hash, where it is another one.
    hash: Option<ContentHash>,
    /// The new name of the target, where it is another one.
    name: Option<String>,
    /// Whether the hash is a Secret's, which is not shown.
    is_secret: bool,
}

/// A guard that is left as it is, and why.
struct Left<'a> {
    guard: &'a Guard,
    why: String,
}

/// Stamps.
///
/// # Errors
/// When manifests cannot be read or edited, files hold no guard, or with `--strict` a guard has to be left as it is.
pub async fn run(args: StampArgs) -> anyhow::Result<Exit> {
    let (manifests, list) = manifests(&args)?;
    let inputs = &manifests.inputs;
    let strict = args.strict || list.as_ref().is_some_and(|list| list.strict);
    let namespace = namespace(&args, inputs, list.as_ref())?;
    let server = if args.server { Some(Server::connect(&args.cluster).await?) } else { None };
    let certain = builtin::catalog();
    let kinds =
        server.as_ref().map_or(Kinds::Certain(&certain), |server| Kinds::Served(server.served.catalog()));
    let stream = Stream::of(&manifests, kinds, &namespace)?;
    // A chart or an overlay may have none; whoever names files and is told nothing takes them for checked.
    ensure!(
        args.filename.is_empty() || !stream.guards().is_empty(),
        "there is no DriftGuard in {}; name the files that hold guards as well",
        args.files()
    );
    let mut changes = Vec::new();
    let mut left = Vec::new();
    for guard in stream.guards() {
        match stamped(guard, stream.aim(guard), server.as_ref()).await? {
            Ok(change) => changes.extend(change),
            Err(why) => left.push(Left { guard, why }),
        }
    }
    for Left { guard, why } in &left {
        let weight = if strict { "error" } else { "note" };
        output::message(&format!("{weight}: {}: {guard} is left as it is: {why}", guard.place(inputs)));
    }
    ensure!(
        !strict || left.is_empty(),
        "{} of {} guards could not be stamped",
        left.len(),
        stream.guards().len()
    );
    let edited = edited(inputs, &changes)?;
    if args.check {
        output::data_while_read(told(inputs, &changes, &edited).as_bytes())?;
        return Ok(if changes.is_empty() { Exit::Clean } else { Exit::Finding });
    }
    if args.filename.is_empty() {
        for edited in &edited {
            filtered(&edited.text, list.as_ref(), &changes, &left)?;
        }
        return Ok(Exit::Clean);
    }
    let (done, outcome) = replaced(inputs, &edited);
    // Guards are in the order of their inputs.
    let changes = &changes[..changes.partition_point(|change| change.guard.input < done)];
    // Last, since whoever reads it may stop reading.
    let is_told = output::data_while_read(told(inputs, changes, &edited).as_bytes());
    // Of the two, why a file is not as it ought to be is what has to be mended.
    outcome?;
    is_told?;
    Ok(Exit::Clean)
}

/// Writes the files that changed, one after the other until one fails: of how many inputs nothing is left to do, and why
/// not of the next.
fn replaced(inputs: &[Input], edited: &[document::Edited]) -> (usize, anyhow::Result<()>) {
    for (number, (input, edited)) in inputs.iter().zip(edited).enumerate() {
        let path = input.path.as_deref().filter(|_| edited.text != input.text);
        if let Some(Err(error)) = path.map(|path| replace(input, path, &edited.text)) {
            return (number, Err(error));
        }
    }
    (inputs.len(), Ok(()))
}

/// Writes a file, unless it is another one by now than was read: an editor may have saved it meanwhile.
fn replace(input: &Input, path: &Path, text: &str) -> anyhow::Result<()> {
    // What is no file, such as a pipe, cannot be read twice.
    if !std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let now = std::fs::read(path).with_context(|| format!("{} cannot be read again", input.name))?;
        ensure!(now == input.text.as_bytes(), "{} was changed since it was read; stamp again", input.name);
    }
    output::file(path, text.as_bytes())
}

/// Prints an edited stream.
fn filtered(
    text: &str,
    list: Option<&ResourceList>,
    changes: &[Change<'_>],
    left: &[Left<'_>],
) -> anyhow::Result<()> {
    for Change { guard, name, .. } in changes {
        if let Some(name) = name {
            output::message(&format!("note: {guard}: targetName {} is now {name}", guard.target_name));
        }
    }
    let text = if list.is_some() { krm::with_results(text, changes, left) } else { text.to_owned() };
    Ok(output::data(text.as_bytes())?)
}

/// Reads the files, or standard input, and tells whether that is a `ResourceList`.
fn manifests(args: &StampArgs) -> anyhow::Result<(Manifests, Option<ResourceList>)> {
    if !args.filename.is_empty() {
        ensure!(
            args.filename.iter().all(|file| file != Path::new("-")),
            "`-f -` cannot be edited; without -f, standard input goes to standard output"
        );
        return Ok((overlay::files(&args.filename, args.strict)?, None));
    }
    let mut stdin = std::io::stdin().lock();
    ensure!(
        !stdin.is_terminal(),
        "there is nothing to stamp: name files with -f FILE, or pipe manifests into standard input"
    );
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).context("standard input cannot be read")?;
    let input = Input::read(STDIN, None, bytes)?;
    let list = ResourceList::of(&input.text)?;
    Ok((Manifests { inputs: vec![input], ..Manifests::default() }, list))
}

impl Input {
    fn read(name: &str, path: Option<PathBuf>, bytes: Vec<u8>) -> anyhow::Result<Self> {
        let text = String::from_utf8(bytes)
            .map_err(|_| anyhow::anyhow!("{name}: not UTF-8 text; save the file as UTF-8"))?;
        // A guard without a name is none that anything could be done with; left out, it would not be missed.
        let is_guard = |version: &str, kind: &str| {
            kind == "DriftGuard" && version.split_once('/').is_some_and(|(group, _)| group == names::GROUP)
        };
        let documents = document::objects(name, &text, is_guard)?;
        let folder = path.as_deref().and_then(folder);
        Ok(Self { name: name.to_owned(), path, folder, text, documents })
    }
}

/// The folder in which a file lies, by whatever way it was named.
fn folder(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Some(std::fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()))
}

/// The namespace of objects that name none.
fn namespace(args: &StampArgs, inputs: &[Input], list: Option<&ResourceList>) -> anyhow::Result<String> {
    let is_needed = inputs.iter().flat_map(|input| &input.documents).any(|object| object.namespace.is_none());
    match (&args.cluster.namespace, list.and_then(|list| list.namespace.as_ref())) {
        (None, Some(namespace)) => Ok(namespace.clone()),
        (Some(_), _) | (None, None) if is_needed => Ok(args.cluster.default_namespace()?),
        _ => Ok(String::new()),
    }
}

/// The API server, for kinds that get defaults.
struct Server<'a> {
    cluster: Cluster,
    served: Served,
    args: &'a ClusterArgs,
}

impl<'a> Server<'a> {
    async fn connect(args: &'a ClusterArgs) -> anyhow::Result<Self> {
        let cluster = args.connect().await?;
        Ok(Self { served: Served::load(&cluster).await?, cluster, args })
    }

    /// The hash of what would be stored.
    async fn hash(&self, object: &Object<'_>, filter: PathFilter) -> anyhow::Result<ContentHash> {
        let document = Document { namespace: object.namespace.clone(), ..object.document.clone() };
        // The object says its namespace itself by now, which another one of -n must not contradict.
        let args = ClusterArgs { namespace: None, ..self.args.clone() };
        let (subject, entry) = dry_run::subject(document, &self.served, &args, filter)?;
        let stored = match dry_run::write(&subject, entry, &self.cluster).await? {
            Stored::Object(json) => json,
            // The refusal has the hash of what another guard pins, in its own way.
            Stored::Refused { .. } => dry_run::write_beside(&subject, entry, &self.cluster).await?,
        };
        subject.hash_of(&stored)
    }
}

/// What becomes of a guard: a change, nothing, or why it is left as it is.
async fn stamped<'a>(
    guard: &'a Guard,
    aim: Result<Aim<'_>, String>,
    server: Option<&Server<'_>>,
) -> anyhow::Result<Result<Option<Change<'a>>, String>> {
    let Aim { object, is_renamed } = match aim {
        Ok(aim) => aim,
        Err(why) => return Ok(Err(why)),
    };
    let filter = guard.filter.clone();
    let document = object.document.clone();
    let subject = Subject::placed(document, object.namespace.clone(), filter.clone())?;
    let hash = match server {
        _ if !subject.scope.has_server_defaults() => subject.hash()?,
        Some(server) => server.hash(object, filter).await?,
        None if states_all(&subject.json, &filter) => subject.hash()?,
        None => {
            let mend = match filter {
                PathFilter::Only(_) => {
                    "ask it by --server, or let onlyPaths end in values that the manifest states as the API server stores \
                     them"
                }
                _ => "ask it by --server, or pin parts with onlyPaths",
            };
            return Ok(Err(format!(
                "the API server fills in defaults of {}, so that the manifest alone does not tell the hash; {mend}",
                subject.kind
            )));
        }
    };
    let is_stale = guard.expected.parse::<ContentHash>() != Ok(hash);
    let name = is_renamed.then(|| subject.name.clone());
    Ok(Ok((is_stale || is_renamed).then(|| Change {
        guard,
        hash: is_stale.then_some(hash),
        name,
        is_secret: subject.scope.is_secret(),
    })))
}

impl Change<'_> {
    fn edits(&self) -> Vec<Edit> {
        let edit = |field: &str, value: String| Edit {
            document: self.guard.number,
            pointer: format!("{}/spec/{field}", self.guard.pointer),
            value,
        };
        let name = self.name.as_ref().map(|name| edit("targetName", name.clone()));
        let hash = self.hash.map(|hash| edit("expectedHash", hash.respelt(&self.guard.expected)));
        name.into_iter().chain(hash).collect()
    }

    /// What changes, in words, without the hash of a Secret; in the order of [`Self::edits`].
    fn words(&self) -> Vec<String> {
        let guard = self.guard;
        let name = self.name.as_ref().map(|name| format!("targetName {} -> {name}", guard.target_name));
        let hash = self.hash.map(|hash| match () {
            () if self.is_secret => "expectedHash is stale (hashes of Secrets are not shown)".to_owned(),
            () if guard.expected.is_empty() => format!("expectedHash (none) -> {hash}"),
            () => format!("expectedHash {} -> {hash}", guard.expected),
        });
        name.into_iter().chain(hash).collect()
    }
}

/// The texts with all changes, in the order of the inputs.
fn edited(inputs: &[Input], changes: &[Change<'_>]) -> anyhow::Result<Vec<document::Edited>> {
    let mut edits: Vec<Vec<Edit>> = inputs.iter().map(|_| Vec::new()).collect();
    for change in changes {
        edits[change.guard.input].extend(change.edits());
    }
    inputs
        .iter()
        .zip(edits)
        .map(|(input, edits)| {
            if edits.is_empty() {
                return Ok(document::Edited { text: input.text.clone(), lines: Vec::new() });
            }
            Ok(document::edited(&input.name, &input.text, &edits)?)
        })
        .collect()
}

/// A line for every value that is stale.
fn told(inputs: &[Input], changes: &[Change<'_>], edited: &[document::Edited]) -> String {
    let mut text = String::new();
    let mut next = vec![0; inputs.len()];
    for change in changes {
        let input = change.guard.input;
        for words in change.words() {
            let line = edited[input].lines.get(next[input]).copied().unwrap_or_default();
            next[input] += 1;
            text.push_str(&format!("{}:{line}: {}: {words}\n", inputs[input].name, change.guard));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_file_that_was_saved_since_it_was_read_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.yaml");
        std::fs::write(&path, "a: 1\n").unwrap();
        let input = Input::read("g.yaml", Some(path.clone()), b"a: 1\n".to_vec()).unwrap();
        std::fs::write(&path, "a: 3\n").unwrap();
        let error = replace(&input, &path, "a: 2\n").unwrap_err();
        assert_eq!(error.to_string(), "g.yaml was changed since it was read; stamp again");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a: 3\n");
        std::fs::remove_file(&path).unwrap();
        assert!(replace(&input, &path, "a: 2\n").is_err());
        assert!(!path.exists(), "what was removed is not made again");
        std::fs::write(&path, "a: 1\n").unwrap();
        replace(&input, &path, "a: 2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a: 2\n");
    }
}
