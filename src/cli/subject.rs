//! What `hash` and `guard` work on: objects of files, or live ones, with the part of them that is
//! pinned.
//!
//! An object of a file is hashed as it stands, or as the API server would store it ([`dry_run`]). A
//! live object is read as raw bytes, because a decoded value would lose digits and depth.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cluster::{Cluster, ClusterArgs};
use crate::core::canonical::{CanonicalError, canonical_object, hash_object};
use crate::core::hash::ContentHash;
use crate::core::json::Cursor;
use crate::core::kinds::KindEntry;
use crate::core::paths::PathFilter;
use crate::core::scope::{Scope, ScopeKind};
use crate::document::{self, Document, Origin};

pub(super) mod builtin;
pub(super) mod dry_run;
pub(super) mod notes;
pub(super) mod request;
pub(super) mod served;
pub(super) mod stated;

pub(super) use served::Served;

/// Which objects, and which part of them.
#[derive(Debug, clap::Args)]
pub(super) struct SubjectArgs {
    /// KIND NAME, KIND NAME NAME..., or KIND/NAME...: live objects. Kinds in any case, also plural
    /// and short names
    #[arg(value_name = "KIND NAME", conflicts_with = "filename")]
    pub(super) object: Vec<String>,
    /// File, directory (searched for .yaml, .yml and .json) or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub(super) filename: Vec<String>,
    /// Leave out this path, a JSON Pointer such as /spec/replicas or /data/key; a segment may also be
    /// * or [name=app]; may be repeated
    #[arg(long, value_name = "PATH", conflicts_with = "only_path")]
    pub(super) ignore_path: Vec<String>,
    /// Take only what lies on or under this path; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) only_path: Vec<String>,
}

impl SubjectArgs {
    /// Whether the objects are in files; otherwise they are live ones.
    ///
    /// # Errors
    /// When neither is named, or the live objects are not named as they should be.
    pub(super) fn are_files(&self) -> anyhow::Result<bool> {
        if self.filename.is_empty() {
            pairs(&self.object)?;
        }
        Ok(!self.filename.is_empty())
    }

    /// The part of each object that is pinned.
    pub(super) fn filter(&self) -> anyhow::Result<PathFilter> {
        Ok(match (self.ignore_path.as_slice(), self.only_path.as_slice()) {
            ([], []) => PathFilter::everything(),
            (ignored, []) => PathFilter::ignoring(ignored).context("--ignore-path")?,
            (_, only) => PathFilter::only(only).context("--only-path")?,
        })
    }

    /// The files, for messages.
    fn files(&self) -> String {
        let name = |file: &String| if file == "-" { "standard input".to_owned() } else { file.clone() };
        self.filename.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The objects of the files.
    pub(super) fn documents(&self) -> anyhow::Result<Vec<Document>> {
        let documents = document::read(&self.filename, &mut std::io::stdin().lock())?;
        ensure!(!documents.is_empty(), "there is no object in {}", self.files());
        Ok(documents)
    }
}

/// One object.
#[derive(Clone)]
pub(super) struct Subject {
    /// `apiVersion`.
    pub(super) api_version: String,
    /// Kind, as the object spells it.
    pub(super) kind: String,
    /// Namespace; `None` for a cluster-scoped kind.
    pub(super) namespace: Option<String>,
    /// Name.
    pub(super) name: String,
    /// The whole object as JSON.
    pub(super) json: Vec<u8>,
    /// Where a file holds it; `None` for a live object.
    pub(super) origin: Option<Origin>,
    /// The part that is pinned.
    pub(super) scope: Scope,
}

impl fmt::Display for Subject {
    /// `Kind/namespace/name`, or `Kind/name` for cluster-scoped kinds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl Subject {
    /// An object of a file. `namespaced` tells what kind of kind it is.
    pub(super) fn of_file(
        document: Document,
        namespaced: bool,
        cluster: &ClusterArgs,
        filter: PathFilter,
    ) -> anyhow::Result<Self> {
        let namespace = match (namespaced, &document.namespace, &cluster.namespace) {
            (false, ..) => None,
            (true, Some(own), Some(asked)) if own != asked => bail!(
                "{}: the object is in namespace {own}, but -n says {asked}; leave out -n, or mend one of them",
                document.origin
            ),
            (true, Some(own), _) => Some(own.clone()),
            (true, None, _) => Some(cluster.default_namespace()?),
        };
        Self::placed(document, namespace, filter)
    }

    /// An object of a file, in this namespace.
    pub(super) fn placed(
        document: Document,
        namespace: Option<String>,
        filter: PathFilter,
    ) -> anyhow::Result<Self> {
        let scope = Scope::new(document.group(), &document.kind, filter);
        require_text(&document.json, &scope).with_context(|| document.origin.to_string())?;
        let Document { json, origin, api_version, kind, name, .. } = document;
        Ok(Self { api_version, kind, namespace, name, json, origin: Some(origin), scope })
    }

    /// API group, empty for core.
    pub(super) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The hash of the pinned part.
    pub(super) fn hash(&self) -> anyhow::Result<ContentHash> {
        self.hash_of(&self.json)
    }

    /// The hash of the pinned part of another state of the same object.
    pub(super) fn hash_of(&self, json: &[u8]) -> anyhow::Result<ContentHash> {
        hash_object(json, &self.scope).with_context(|| self.place())
    }

    /// The canonical bytes of the pinned part of a state of this object.
    pub(super) fn canonical_of(&self, json: &[u8]) -> anyhow::Result<Vec<u8>> {
        ensure!(
            !self.scope.is_secret(),
            "{self}: the canonical form of a Secret is its values in clear, which are never printed"
        );
        canonical_object(json, &self.scope).with_context(|| self.place())
    }

    /// Where the object comes from, for messages.
    pub(super) fn place(&self) -> String {
        self.origin.as_ref().map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// The API server refuses a ConfigMap or Secret with a value that is no text, which in YAML is
/// quickly written (`port: 80`); its hash would never be anybody's.
fn require_text(json: &[u8], scope: &Scope) -> Result<(), CanonicalError> {
    if scope.has_server_defaults() || scope.kind() == ScopeKind::GamaConfig {
        return Ok(());
    }
    let mut cursor = Cursor::new(json);
    let mut fields = cursor.enter_object()?;
    while let Some(field) = cursor.next_member(&mut fields)? {
        let at = cursor;
        let span = cursor.skip_value()?;
        let known = ["data", "binaryData", "stringData"].into_iter().find(|name| field.is(json, name));
        let Some(name) = known.filter(|_| span.of(json).starts_with(b"{")) else { continue };
        let mut values = at;
        let mut members = values.enter_object()?;
        while let Some(key) = values.next_member(&mut members)? {
            if !matches!(values.peek()?, b'"' | b'n') {
                return Err(CanonicalError::NotText { field: name, key: key.decode(json)?.into_owned() });
            }
            values.skip_value()?;
        }
    }
    Ok(())
}

/// Live objects by kind and name, in the order of the arguments.
pub(super) async fn live(
    words: &[String],
    cluster: &Cluster,
    served: &Served,
    filter: &PathFilter,
) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (kind, name) in pairs(words)? {
        let entry = served.resolve(kind)?;
        let namespace = entry.namespaced.then(|| cluster.namespace.clone());
        let path = request::path(entry, namespace.as_deref(), Some(name));
        let scope = Scope::new(&entry.group, &entry.kind, filter.clone());
        let (api_version, kind) = (entry.api_version(), entry.kind.as_str().to_owned());
        let mut subject = Subject {
            api_version,
            kind,
            namespace,
            name: name.to_owned(),
            json: Vec::new(),
            origin: None,
            scope,
        };
        subject.json = request::get(cluster, &path, &format!("reading {subject}")).await?;
        subjects.push(subject);
    }
    Ok(subjects)
}

/// The live objects of a kind in the namespace, or in the cluster for kinds without; with a selector of labels,
/// as the API server reads it, only those.
pub(super) async fn chosen(
    kind: &str,
    selector: Option<&str>,
    cluster: &Cluster,
    served: &Served,
    filter: &PathFilter,
) -> anyhow::Result<Vec<Subject>> {
    let entry = served.resolve(kind)?;
    let namespace = entry.namespaced.then(|| cluster.namespace.clone());
    let root = request::path(entry, namespace.as_deref(), None);
    let chosen =
        selector.map_or_else(String::new, |text| format!("&labelSelector={}", request::segment(text)));
    let doing = format!("listing {}", entry.plural);
    let scope = Scope::new(&entry.group, &entry.kind, filter.clone());
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = request::get(cluster, &format!("{root}?limit={PAGE}{chosen}{from}"), &doing).await?;
        let page: Page<'_> =
            serde_json::from_slice(&page).with_context(|| format!("{doing}: the API server sent no list"))?;
        for json in page.items {
            let Named { metadata } = serde_json::from_str(json.get()).with_context(|| doing.clone())?;
            found.push(Subject {
                api_version: entry.api_version(),
                kind: entry.kind.as_str().to_owned(),
                namespace: namespace.clone(),
                name: metadata.name,
                json: json.get().as_bytes().to_vec(),
                origin: None,
                scope: scope.clone(),
            });
        }
        match page.metadata.next.filter(|token| !token.is_empty()) {
            Some(token) => from = format!("&continue={}", request::segment(&token)),
            None => return Ok(found),
        }
    }
}

/// Most objects of one answer.
const PAGE: usize = 500;

#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMetadata,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Deserialize)]
struct NamedMetadata {
    name: String,
}

/// The hash of a live object as it stands; `None` when there is none.
pub(super) async fn live_hash(
    cluster: &Cluster,
    entry: &KindEntry,
    namespace: Option<&str>,
    name: &str,
    filter: PathFilter,
) -> anyhow::Result<Option<ContentHash>> {
    let path = request::path(entry, namespace.filter(|_| entry.namespaced), Some(name));
    let Some(json) = request::get_opt(cluster, &path, &format!("reading {} {name}", entry.kind)).await?
    else {
        return Ok(None);
    };
    Ok(Some(hash_object(&json, &Scope::new(&entry.group, &entry.kind, filter))?))
}

/// `KIND NAME...` or `KIND/NAME...`, as kubectl reads them.
fn pairs(words: &[String]) -> anyhow::Result<Vec<(&str, &str)>> {
    let slashes = words.iter().filter(|word| word.contains('/')).count();
    if words.iter().any(|word| word.contains("://")) {
        bail!("an address stands where KIND or NAME belongs; the API server's address goes to -s");
    }
    if slashes == 0 {
        let Some((kind, names)) = words.split_first() else {
            bail!("name a file with -f FILE, or a live object by KIND NAME")
        };
        ensure!(!names.is_empty(), "name the {kind} as well: KIND NAME");
        return Ok(names.iter().map(|name| (kind.as_str(), name.as_str())).collect());
    }
    ensure!(slashes == words.len(), "use either KIND NAME or KIND/NAME, not both");
    words
        .iter()
        .map(|word| match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok((kind, name))
            }
            _ => bail!("{word:?} is not KIND/NAME; a namespace goes to -n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn objects_are_named_as_in_kubectl() {
        assert_eq!(pairs(&words("cm a")).unwrap(), [("cm", "a")]);
        assert_eq!(pairs(&words("cm a b")).unwrap(), [("cm", "a"), ("cm", "b")]);
        assert_eq!(pairs(&words("cm/a secret/b")).unwrap(), [("cm", "a"), ("secret", "b")]);
        for (text, hint) in [
            ("cm", "KIND NAME"),
            ("cm/a b", "not both"),
            ("cm/", "KIND/NAME"),
            ("cm/a/b", "goes to -n"),
            ("https://host:6443", "goes to -s"),
        ] {
            let error = pairs(&words(text)).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
