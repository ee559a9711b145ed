//! An audit of files, without a cluster: do the manifests hold what their guards approve.
//!
//! Kinds that get no defaults hash in a file as in the cluster. Of others a file tells only where its own hash
//! is the approved one, or where it states all that the guard pins: otherwise the API server may store
//! what is approved all the same, and it is not told.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::AuditArgs;
use super::guards::{Found, Guarded, guarded};
use crate::api::{DriftGuardStatus, names, reasons};
use crate::cli::subject::builtin;
use crate::cli::subject::stated::states_all;
use crate::core::canonical::hash_object;
use crate::core::guard::{Guard, GuardState, InvalidGuard};
use crate::core::kinds::{Catalog, KindEntry};
use crate::core::report::{Entry, Known, Leading, Origin, Place, Report, Sight, invalid, judge};
use crate::document::{self, Document, Origin as DocumentOrigin};
use crate::store::Stored;
use crate::store::facts::Words;

/// What a file cannot tell of kinds with defaults.
const NEEDS_SERVER: &str = "the file's own hash is not the approved one, but the API server fills in defaults of this kind, so that what it would store may be; audit the cluster, compare `driftguard hash --server -f FILE`, or let onlyPaths end in values that the manifest states";

/// What a manifest in another version than the guard's cannot tell.
const OTHER_VERSION: &str = "the cluster hashes it in another version than the manifest is written in, which only the API server converts; audit the cluster, or write the manifest in that version";

/// Objects of the files, by group, kind in lower case, namespace (empty for kinds without) and name.
type Objects = BTreeMap<(String, String, String, String), Vec<Document>>;

/// The report on the files of `-f`.
///
/// # Errors
/// When a file cannot be read, or there is no guard in them.
pub(super) fn report(args: &AuditArgs, now: Timestamp) -> anyhow::Result<Report> {
    let documents = document::read(&args.filename, &mut std::io::stdin().lock())?;
    let (guards, others): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_guard);
    ensure!(
        !guards.is_empty(),
        "there is no DriftGuard in {}; name the files that hold guards as well",
        args.files()
    );
    let namespace = args.cluster.default_namespace()?;
    let catalog = catalog(&others, &guards);
    let objects = objects(others, &namespace);
    let mut places = Vec::new();
    let mut found = Vec::new();
    let mut matched = Vec::new();
    let mut words = Words::default();
    for document in guards {
        if !args.names.is_empty() && !args.names.contains(&document.name) {
            continue;
        }
        let stored = stored(&document, &namespace).with_context(|| document.origin.to_string())?;
        let guarded = guarded(&stored, &DriftGuardStatus::default(), &catalog, &mut words);
        matched.extend(args.kind.iter().filter(|word| is_of_kind(&guarded, word)));
        if args.kind.is_empty() || args.kind.iter().any(|word| is_of_kind(&guarded, word)) {
            places.push(place(&document.origin));
            found.push(guarded);
        }
    }
    if let Some(word) = args.kind.iter().find(|word| !matched.contains(word)) {
        bail!(
            "no DriftGuard in {} pins a {word:?}; without a cluster kinds are named as the guards do, such as ConfigMap",
            args.files()
        );
    }
    for name in &args.names {
        let is_there = found.iter().any(|one| one.state.id().name.as_str() == name);
        ensure!(is_there, "there is no DriftGuard {name} in {}", args.files());
    }
    let known = Known { now, is_installed: false, leading: Leading::Assumed };
    let found = Found::of(found, false);
    let entries = found.guards.iter().zip(places).map(|(guarded, place)| Entry {
        guard_file: Some(Box::new(place)),
        // A file does not say who wrote it; its history does.
        by: None,
        ..entry(guarded, &objects, &known)
    });
    let origin = Origin {
        files: args.filename.clone(),
        names: args.names.clone(),
        kinds: args.kind.clone(),
        ..Origin::default()
    };
    Ok(Report::new(entries.collect(), origin, now.into()))
}

impl AuditArgs {
    /// The files, for messages.
    fn files(&self) -> String {
        let name = |file: &String| if file == "-" { "standard input".to_owned() } else { file.clone() };
        self.filename.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a guard of a file is of a kind that was asked for; without a server only kinds themselves are known, and
/// no short names.
fn is_of_kind(guarded: &Guarded, word: &str) -> bool {
    let kind = match (guarded.state.target(), &guarded.spelled) {
        (Some(target), _) => target.kind.as_str(),
        (None, Some((kind, _))) => kind,
        (None, None) => return false,
    };
    word.eq_ignore_ascii_case(kind)
        || word.strip_suffix(['s', 'S']).is_some_and(|word| word.eq_ignore_ascii_case(kind))
}

fn is_guard(document: &Document) -> bool {
    document.group() == names::GROUP && document.kind == "DriftGuard"
}

/// A guard of a file as the API server would store it: in its namespace, without a status.
fn stored(document: &Document, namespace: &str) -> anyhow::Result<Stored> {
    let mut object: Value = serde_json::from_slice(&document.json).context("the guard cannot be read")?;
    object["metadata"]["namespace"] = document.namespace.as_deref().unwrap_or(namespace).into();
    object["status"] = Value::Null;
    Ok(serde_json::from_slice(&serde_json::to_vec(&object)?)?)
}

fn place(origin: &DocumentOrigin) -> Place {
    Place { file: origin.file.clone(), line: origin.line as u64 }
}

/// What is certain of kinds, what those of the files mean, and those that guards name outright.
fn catalog(objects: &[Document], guards: &[Document]) -> Catalog {
    let certain = builtin::entries();
    let mut entries = certain.clone();
    let kinds: BTreeSet<(&str, &str)> =
        objects.iter().map(|object| (object.api_version.as_str(), object.kind.as_str())).collect();
    for (api_version, kind) in kinds {
        let found = builtin::entry(api_version, kind);
        let is_kind = |one: &&KindEntry| one.group == found.group && one.kind.eq_ignore_ascii_case(kind);
        let known: Vec<&KindEntry> = certain.iter().filter(is_kind).collect();
        if !known.iter().any(|one| one.version == found.version) {
            entries.push(KindEntry { preferred: known.is_empty(), ..found });
        }
    }
    for guard in guards {
        let spec = serde_json::from_slice::<Value>(&guard.json).unwrap_or_default();
        let text = |field: &str| spec["spec"][field].as_str().filter(|text| !text.is_empty());
        if let (Some(api_version), Some(kind)) = (text("targetApiVersion"), text("targetKind")) {
            let is_known =
                |one: &KindEntry| one.api_version() == api_version && one.kind.eq_ignore_ascii_case(kind);
            if !entries.iter().any(is_known) {
                entries.push(builtin::entry(api_version, kind));
            }
        }
    }
    Catalog::new(entries)
}

fn objects(documents: Vec<Document>, namespace: &str) -> Objects {
    let mut objects = Objects::new();
    for document in documents {
        let place = if builtin::is_namespaced(document.group(), &document.kind) {
            document.namespace.clone().unwrap_or_else(|| namespace.to_owned())
        } else {
            String::new()
        };
        let key =
            (document.group().to_owned(), document.kind.to_ascii_lowercase(), place, document.name.clone());
        objects.entry(key).or_default().push(document);
    }
    objects
}

fn entry(guarded: &Guarded, objects: &Objects, known: &Known) -> Entry {
    let guard = match &guarded.state {
        GuardState::Valid(guard) => guard,
        GuardState::Invalid(state) => {
            let (kind, name) = guarded.spelled.as_ref().map_or(("", ""), |(kind, name)| (kind, name));
            if state.reason != reasons::TARGET_UNKNOWN {
                return invalid(state, kind, name, &guarded.facts, known);
            }
            let message = format!(
                "no file holds a {kind} {name}, and without a server it is not known what kind that is"
            );
            let state = InvalidGuard { reason: "NotInFiles", message, ..InvalidGuard::clone(state) };
            return invalid(&state, kind, name, &guarded.facts, known);
        }
    };
    let target = &guard.target;
    let key = (
        target.group.to_string(),
        target.kind.to_ascii_lowercase(),
        target.namespace.as_deref().unwrap_or_default().to_owned(),
        target.name.to_string(),
    );
    let Some(documents) = objects.get(&key) else {
        return judge(guard, &guarded.facts, Sight::Absent("no file holds it"), known);
    };
    // One that stands in several files must be approved in each.
    let is_approved = |document: &&Document| {
        hash_object(&document.json, &guard.scope).is_ok_and(|hash| guard.approves(hash, known.now))
    };
    let worst = documents.iter().find(|document| !is_approved(document)).or(documents.first());
    let Some(document) = worst else {
        return judge(guard, &guarded.facts, Sight::Absent("no file holds it"), known);
    };
    let is_version = document.api_version == target.api_version();
    let sight = if is_version && (is_approved(&document) || tells(guard, document)) {
        Sight::Present(&document.json)
    } else if is_version {
        Sight::Undecided(NEEDS_SERVER)
    } else {
        Sight::Undecided(OTHER_VERSION)
    };
    Entry {
        target_file: Some(Box::new(place(&document.origin))),
        ..judge(guard, &guarded.facts, sight, known)
    }
}

/// Whether another hash of a file is another content.
fn tells(guard: &Guard, document: &Document) -> bool {
    !guard.scope.has_server_defaults() || states_all(&document.json, guard.scope.filter())
}
