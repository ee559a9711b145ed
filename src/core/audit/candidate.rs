//! Content that a source gave, made into an object of the target.
//!
//! A source answers with a whole manifest, with `{data: ...}` or `{parameters: ...}` as the older
//! Configuration Service did, or with the pinned value alone. Whichever it is, what comes out is an object
//! of the target's kind and name, so that everything behind (hash, dry run, patch) knows one shape only.
//!
//! Nothing here is trusted: whether the content is approved is for its hash to say. Where a document can be
//! read in two ways, both readings are given, since at most one of them hashes to what was approved. Values
//! are copied as they stand in the text, never decoded, and no error quotes anything of a document but
//! keys: what looks like a kind or a name may be a value of a Secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::restore::Origin;
use crate::core::canonical::object::Object;
use crate::core::canonical::{CanonicalError, hash_object, top_level};
use crate::core::guard::Target;
use crate::core::hash::ContentHash;
use crate::core::json::{Cursor, JsonError, Span};
use crate::core::rewrite::edit::Edits;
use crate::core::scope::{NEVER_SCOPE, Scope, ScopeKind};

mod maps;

/// How a source holds its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A document: a file, the value of a key, the body of an answer.
    Document,
    /// A live ConfigMap whose own data is the content.
    ConfigMap,
    /// A live Secret whose own data is the content.
    Secret,
    /// The target itself as the API server sent it; in a list it does not say what it is.
    Live,
}

/// One reading of a document as content of the target.
#[derive(Clone, PartialEq, Eq)]
pub struct Candidate {
    /// JSON object with `apiVersion`, `kind`, `metadata.name` and `metadata.namespace` of the target and at
    /// least the scoped fields. A Secret's values all stand under `data`.
    pub object: Vec<u8>,
    /// Hash of its scope as it stands. Of kinds with defaults it is not yet what would be stored.
    pub hash: ContentHash,
    /// Whether it came as a whole manifest. When it did not, and the kind is none of ConfigMap, Secret and
    /// GAMAConfig, it was a guess under which field the value stands: only a dry run tells.
    pub whole: bool,
    /// Whether it stood in the cluster as the target, or what else anybody may have written.
    pub origin: Origin,
}

impl fmt::Debug for Candidate {
    /// Without the content, which may be a Secret's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({} bytes, whole: {})", self.object.len(), self.whole)
    }
}

/// Why a document is no content of the target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotACandidate {
    /// The text is no JSON that we read.
    #[error("it is not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// The document is no object.
    #[error("it is no object; give the whole manifest, or the content as a mapping")]
    NotAnObject,
    /// There is no document at all.
    #[error("it is empty; content that is approved to be empty is written as {{}}")]
    Nothing,
    /// A manifest of another kind or version.
    #[error("its {field} is not {wanted:?}, which the guard pins; mend it or name another source")]
    OtherKind {
        /// The field that differs.
        field: &'static str,
        /// What would have to stand there.
        wanted: String,
    },
    /// A manifest of another object.
    #[error("its {field} is not {wanted:?}, which the guard pins; remove the field or mend it")]
    OtherObject {
        /// The field that differs.
        field: &'static str,
        /// What would have to stand there; empty for nothing.
        wanted: String,
    },
    /// A field of a manifest that names the object is no text.
    #[error("its {0} is no text; quote it")]
    NoText(&'static str),
    /// Of several documents none is the target.
    #[error("none of its {documents} documents is {wanted}")]
    NoneFits {
        /// How many there are.
        documents: usize,
        /// The target.
        wanted: String,
    },
    /// Of several documents more than one is the target.
    #[error("{found} of its documents are {wanted}; remove all but one")]
    SeveralFit {
        /// How many.
        found: usize,
        /// The target.
        wanted: String,
    },
    /// Content of the right hash in the wrong place: `spec` and fields from the root hash alike.
    #[error("its content does not stand where a {kind} has it, which is {place}")]
    OtherShape {
        /// The kind.
        kind: String,
        /// Where it has its content.
        place: &'static str,
    },
    /// Bytes that are no text, where the target takes texts only.
    #[error("key {0:?} is no text, and a {1} holds texts only")]
    Binary(String, String),
    /// A value that the target cannot hold.
    #[error("{0}")]
    Content(#[from] CanonicalError),
}

impl NotACandidate {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "BadSyntax",
            Self::NotAnObject | Self::NoText(_) => "NotAnObject",
            Self::OtherShape { .. } => "OtherShape",
            Self::Nothing => "Empty",
            Self::OtherKind { .. } => "OtherKind",
            Self::OtherObject { .. } => "OtherObject",
            Self::NoneFits { .. } | Self::SeveralFit { .. } => "NoSingleDocument",
            Self::Binary(..) | Self::Content(_) => "BadContent",
        }
    }
}

/// The readings of a document as content of the target; at least one, the likeliest first.
///
/// # Errors
/// [`NotACandidate`] when it cannot be content of the target at all.
pub fn candidates(
    document: &[u8],
    form: Form,
    target: &Target,
    scope: &Scope,
) -> Result<Vec<Candidate>, NotACandidate> {
    let object = read(document)?;
    let origin = if form == Form::Live { Origin::Stored } else { Origin::Source };
    let whole = form == Form::Live || form == Form::Document && is_manifest(&object);
    let objects = match form {
        Form::Live | Form::Document if whole => vec![Ok(manifest(&object, form, target, scope.kind())?)],
        Form::Live | Form::Document => bare(&object, target, scope.kind())?,
        Form::ConfigMap => vec![maps::of_config_map(&object, target, scope.kind())],
        Form::Secret => vec![maps::of_secret(&object, target, scope.kind())],
    };
    let mut readings: Vec<Candidate> = Vec::with_capacity(objects.len());
    let mut wrong = None;
    for object in objects {
        let hashed = object.and_then(|object| {
            require_text(&object, scope.kind())?;
            require_shape(&object, target, scope.kind())?;
            let hash = hash_object(&object, scope)?;
            Ok(Candidate { object, hash, whole, origin })
        });
        match hashed {
            Ok(reading) if readings.iter().any(|other| other.hash == reading.hash) => {}
            Ok(reading) => readings.push(reading),
            Err(error) => drop(wrong.get_or_insert(error)),
        }
    }
    match wrong {
        Some(error) if readings.is_empty() => Err(error),
        _ => Ok(readings),
    }
}

/// What a live ConfigMap or Secret holds, by key.
///
/// # Errors
/// [`NotACandidate`] when it is no ConfigMap or Secret.
pub fn values_of(object: &[u8], form: Form) -> Result<BTreeMap<String, Vec<u8>>, NotACandidate> {
    let object = read(object)?;
    Ok(match form {
        Form::Secret => maps::stored_secret(&object)?,
        _ => maps::stored_config_map(&object)?,
    })
}

/// The one of several documents that is meant: the only one, or the only manifest of the target.
///
/// # Errors
/// [`NotACandidate`] when there is none or more than one.
pub fn choose<'a>(documents: &'a [Vec<u8>], target: &Target) -> Result<&'a [u8], NotACandidate> {
    match documents {
        [] => return Err(NotACandidate::Nothing),
        [only] => return Ok(only),
        _ => {}
    }
    let fitting = |document: &&Vec<u8>| read(document).is_ok_and(|object| is_of(&object, target));
    let mut found = documents.iter().filter(fitting);
    let wanted = || target.to_string();
    match (found.next(), found.count()) {
        (None, _) => Err(NotACandidate::NoneFits { documents: documents.len(), wanted: wanted() }),
        (Some(only), 0) => Ok(only),
        (Some(_), more) => Err(NotACandidate::SeveralFit { found: more + 1, wanted: wanted() }),
    }
}

fn read(document: &[u8]) -> Result<Object<'_>, NotACandidate> {
    let mut cursor = Cursor::new(document);
    if cursor.peek()? != b'{' {
        return Err(NotACandidate::NotAnObject);
    }
    let object = Object::read(&mut cursor)?;
    cursor.finish()?;
    Ok(object)
}

/// The text of a field; `None` when it is absent or null.
fn text<'a>(
    object: &Object<'a>,
    span: Option<Span>,
    field: &'static str,
) -> Result<Option<Cow<'a, str>>, NotACandidate> {
    let Some(span) = span else { return Ok(None) };
    match span.of(object.text()) {
        b"null" => Ok(None),
        value if value.starts_with(b"\"") => {
            let mut cursor = Cursor::starting_at(object.text(), span.start);
            Ok(Some(cursor.string()?.decode(object.text())?))
        }
        _ => Err(NotACandidate::NoText(field)),
    }
}

/// Whether a document says what it is. What says only half of it is content like any other.
fn is_manifest(object: &Object<'_>) -> bool {
    let is_text = |name| object.field(name).is_some_and(|span| span.of(object.text()).starts_with(b"\""));
    is_text("apiVersion") && is_text("kind")
}

/// `metadata.NAME` of a manifest.
fn metadata<'a>(
    object: &Object<'a>,
    name: &str,
    field: &'static str,
) -> Result<Option<Cow<'a, str>>, NotACandidate> {
    let Some(metadata) = object.field("metadata") else { return Ok(None) };
    text(object, object.member(metadata, name)?, field)
}

/// Whether a document is a manifest of the target, whatever its version.
fn is_of(object: &Object<'_>, target: &Target) -> bool {
    let field = |name| text(object, object.field(name), name).ok().flatten();
    let named = |name| metadata(object, name, "metadata").ok().flatten();
    let (Some(version), Some(kind), Some(name)) = (field("apiVersion"), field("kind"), named("name")) else {
        return false;
    };
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let namespace = named("namespace").filter(|text| !text.is_empty());
    group == target.group.as_str()
        && kind == target.kind.as_str()
        && name == target.name.as_str()
        && namespace.is_none_or(|namespace| Some(&*namespace) == target.namespace.as_deref())
}

/// A whole manifest, checked to be the target's, with what it leaves out filled in.
fn manifest(
    object: &Object<'_>,
    form: Form,
    target: &Target,
    kind: ScopeKind,
) -> Result<Vec<u8>, NotACandidate> {
    let mut edits = Edits::default();
    let api_version = target.api_version();
    let wanted = [("apiVersion", api_version.as_str()), ("kind", target.kind.as_str())];
    let found = wanted.map(|(field, _)| text(object, object.field(field), field));
    let found = found.map(|found| found.map(Option::unwrap_or_default));
    let is_nameless = found.iter().all(|found| found.as_ref().is_ok_and(|found| found.is_empty()));
    for (found, (field, wanted)) in found.into_iter().zip(wanted) {
        if form == Form::Live && is_nameless {
            edits.set(field, quoted(wanted));
        } else if found? != wanted {
            return Err(NotACandidate::OtherKind { field, wanted: wanted.to_owned() });
        }
    }
    let mut within = Edits::default();
    let places = [
        ("name", "metadata.name", Some(target.name.as_str())),
        ("namespace", "metadata.namespace", target.namespace.as_deref()),
    ];
    for (name, field, wanted) in places {
        let found = metadata(object, name, field)?.filter(|text| !text.is_empty());
        match (found, wanted) {
            (Some(found), wanted) if Some(&*found) != wanted => {
                let wanted = wanted.unwrap_or_default().to_owned();
                return Err(NotACandidate::OtherObject { field, wanted });
            }
            (None, Some(wanted)) => within.set(name, quoted(wanted)),
            _ => {}
        }
    }
    edits.within("metadata", within);
    if kind == ScopeKind::Secret {
        edits.set("data", maps::encoded(&maps::stored_secret(object)?));
        if object.field("stringData").is_some() {
            edits.remove("stringData");
        }
    }
    Ok(if edits.is_empty() { object.raw().to_vec() } else { edits.apply(object.raw())? })
}

/// One attempt to read a document.
type Reading = Result<Vec<u8>, NotACandidate>;

/// The readings of a document that is no manifest.
fn bare(object: &Object<'_>, target: &Target, kind: ScopeKind) -> Result<Vec<Reading>, NotACandidate> {
    let value = object.raw();
    Ok(match kind {
        ScopeKind::ConfigMap => vec![maps::bare_config_map(object, target)],
        ScopeKind::Secret => maps::bare_secret(object, target),
        ScopeKind::GamaConfig => {
            let spec = object.field("spec");
            let nested = spec.map(|spec| object.member(spec, "parameters")).transpose()?.flatten();
            let wrapped = [object.field("parameters"), object.field("data"), nested];
            let wrapped = wrapped.into_iter().flatten().map(|span| span.of(object.text()));
            let values = wrapped.filter(|value| value.starts_with(b"{")).chain([value]);
            values.map(|value| Ok(with_parameters(target, value))).collect()
        }
        ScopeKind::Other => {
            // `{spec: ...}` without saying what it is: fields from the root, as in a manifest.
            let has_spec = object.field("spec").is_some_and(|span| span.of(object.text()).starts_with(b"{"));
            let from_root = has_spec || has_no_spec(&target.group, &target.kind);
            vec![Ok(if from_root { with_fields(target, object) } else { with(target, &[("spec", value)]) })]
        }
    })
}

/// An object of the target with these fields, each given as JSON.
fn with(target: &Target, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = head(target);
    for (name, value) in fields {
        out.push(b',');
        out.extend_from_slice(&quoted(name));
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.push(b'}');
    out
}

/// An object of the target whose parameters are this value.
fn with_parameters(target: &Target, parameters: &[u8]) -> Vec<u8> {
    with(target, &[("spec", &[b"{\"parameters\":", parameters, b"}"].concat())])
}

/// An object of the target with the fields of `object` that can be scope.
fn with_fields(target: &Target, object: &Object<'_>) -> Vec<u8> {
    let mut out = head(target);
    for (key, span) in object.fields() {
        if NEVER_SCOPE.iter().any(|name| key.is(object.text(), name)) {
            continue;
        }
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.span.of(object.text()));
        out.extend_from_slice(b"\":");
        out.extend_from_slice(span.of(object.text()));
    }
    out.push(b'}');
    out
}

/// The start of an object of the target, up to where further fields go.
fn head(target: &Target) -> Vec<u8> {
    let version = target.api_version();
    let [version, kind, name] =
        [version.as_str(), target.kind.as_str(), target.name.as_str()].map(serde_json::Value::from);
    let namespace = target.namespace.as_deref().map(serde_json::Value::from);
    let namespace = namespace.map(|namespace| format!(",\"namespace\":{namespace}")).unwrap_or_default();
    format!(r#"{{"apiVersion":{version},"kind":{kind},"metadata":{{"name":{name}{namespace}}}"#).into_bytes()
}

fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

/// The API server refuses a ConfigMap with a value that is no text, which in YAML is quickly written
/// (`port: 80`). Secrets are decoded, so that they are checked already.
fn require_text(object: &[u8], kind: ScopeKind) -> Result<(), NotACandidate> {
    if kind != ScopeKind::ConfigMap {
        return Ok(());
    }
    let object = read(object)?;
    for field in ["data", "binaryData"] {
        let Some(span) = object.map(field)? else { continue };
        maps::texts(&object, span, field)?;
    }
    Ok(())
}

/// What stands under `spec` hashes like the same lifted out of it, so that a source could give approved
/// content in a place where the API server drops it. Of kinds that are not known here a dry run tells.
fn require_shape(object: &[u8], target: &Target, kind: ScopeKind) -> Result<(), NotACandidate> {
    if kind != ScopeKind::Other {
        return Ok(());
    }
    let object = read(object)?;
    let has_spec = object.field("spec").is_some();
    let place = if has_no_spec(&target.group, &target.kind) {
        (has_spec, "in fields from the root")
    } else {
        // Groups without a dot are built in.
        (!has_spec && !target.group.contains('.') && !top_level(&object)?.is_empty(), "under spec")
    };
    match place {
        (true, place) => Err(NotACandidate::OtherShape { kind: target.kind.to_string(), place }),
        (false, _) => Ok(()),
    }
}

/// Built-in kinds that have no `spec`: their content stands in fields from the root.
const WITHOUT_SPEC: [(&str, &str); 25] = [
    ("", "ComponentStatus"),
    ("", "Endpoints"),
    ("", "Event"),
    ("", "PodTemplate"),
    ("", "ServiceAccount"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apps", "ControllerRevision"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("events.k8s.io", "Event"),
    ("metrics.k8s.io", "NodeMetrics"),
    ("metrics.k8s.io", "PodMetrics"),
    ("node.k8s.io", "RuntimeClass"),
    ("openreports.io", "ClusterReport"),
    ("openreports.io", "Report"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIStorageCapacity"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttributesClass"),
    ("wgpolicyk8s.io", "ClusterPolicyReport"),
    ("wgpolicyk8s.io", "PolicyReport"),
];

fn has_no_spec(group: &str, kind: &str) -> bool {
    WITHOUT_SPEC.contains(&(group, kind))
}

#[cfg(test)]
mod tests;
