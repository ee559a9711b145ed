//! Canonical form v1: the bytes that are hashed.
//!
//! Byte-compatible with `json.dumps(value, sort_keys=True)` of what the API server returns, which
//! is what the older operator hashed: keys sorted by code point, separators `", "` and `": "`,
//! everything outside space to `~` escaped. The same code runs on live objects, admission images
//! and files, so that a file and the object made from it hash alike.
//!
//! Two ways lead to the same bytes: [`stream`] in one pass for values whose keys stand in order,
//! [`tree`] for everything else. `tests/core` holds both against a slow obvious oracle.

mod maps;
pub(crate) mod number;
pub(crate) mod object;
mod sink;
mod stream;
mod text;
pub(crate) mod tree;

use super::hash::ContentHash;
use super::json::{Cursor, JsonError, Span};
use super::paths::{PathFilter, Position, Step};
use super::scope::{NEVER_SCOPE, Scope, ScopeKind};

use object::Object;
use sink::{Hasher, Sink};
use stream::{Passed, Quirks};
use tree::Tree;

/// ConfigMap data: null values mean the empty string.
pub(crate) const MAP_QUIRKS: Quirks =
    Quirks { null_values_are_empty: true, drop_null_creation_timestamp: false };
/// GAMAConfig parameters: hashed as they are, as the older operator did.
pub(crate) const PARAMETER_QUIRKS: Quirks =
    Quirks { null_values_are_empty: false, drop_null_creation_timestamp: false };
/// Every other kind.
pub(crate) const SPEC_QUIRKS: Quirks =
    Quirks { null_values_are_empty: false, drop_null_creation_timestamp: true };

/// Why an object has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The text is no JSON that we read.
    #[error("not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// A field of a ConfigMap or Secret is no map.
    #[error("field {field} must be a map of names to values")]
    NotAMap {
        /// The field.
        field: &'static str,
    },
    /// A value of a ConfigMap or Secret is no string.
    #[error("key {key:?} of {field} must be a string: quote its value")]
    NotText {
        /// The field.
        field: &'static str,
        /// The key; never its value.
        key: String,
    },
    /// A value is not base64.
    #[error("key {key:?} of {field} is not base64")]
    NotBase64 {
        /// The field.
        field: &'static str,
        /// The key; never its value.
        key: String,
    },
}

/// The hash of the pinned part of an object, given as its whole JSON text.
///
/// # Errors
/// [`CanonicalError`] when the text is no JSON object, or a ConfigMap's or Secret's values are not
/// what the API server would accept.
pub fn hash_object(json: &[u8], scope: &Scope) -> Result<ContentHash, CanonicalError> {
    hash_parsed(&parse(json)?, scope)
}

/// The canonical bytes of the pinned part of an object, given as its whole JSON text.
///
/// Of a Secret these are its values in clear: never show them.
///
/// # Errors
/// As [`hash_object`].
pub fn canonical_object(json: &[u8], scope: &Scope) -> Result<Vec<u8>, CanonicalError> {
    canonical(&parse(json)?, scope, Vec::new)
}

/// [`hash_object`] of an object whose top level has been read.
pub(crate) fn hash_parsed(object: &Object<'_>, scope: &Scope) -> Result<ContentHash, CanonicalError> {
    canonical(object, scope, Hasher::new).map(Hasher::finish)
}

/// Writes the canonical form of the whole value at `span`.
pub(crate) fn write_whole(
    text: &[u8],
    span: Span,
    quirks: Quirks,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let tree = Tree::read(text, span)?;
    tree.write(&tree.choose(&PathFilter::Everything, Position::Inside, quirks)?, quirks, out)
}

fn parse(json: &[u8]) -> Result<Object<'_>, JsonError> {
    let mut cursor = Cursor::new(json);
    let object = Object::read(&mut cursor)?;
    cursor.finish()?;
    Ok(object)
}

/// The part of an object that a kind pins, before paths narrow it: one value under a path, or
/// several top-level fields.
pub(crate) enum Pinned {
    /// The value at `span`, reached from the root by `keys`.
    Value { keys: &'static [&'static str], span: Option<Span>, quirks: Quirks },
    /// The values of a ConfigMap or Secret, which must be decoded.
    Maps,
    /// Every top-level field that can be scope.
    TopLevel,
}

/// What `kind` pins of `object`.
pub(crate) fn pinned(object: &Object<'_>, kind: ScopeKind) -> Result<Pinned, CanonicalError> {
    Ok(match kind {
        ScopeKind::ConfigMap if has_members(object, "binaryData")? => Pinned::Maps,
        ScopeKind::ConfigMap => {
            Pinned::Value { keys: &["data"], span: object.map("data")?, quirks: MAP_QUIRKS }
        }
        ScopeKind::Secret => Pinned::Maps,
        ScopeKind::GamaConfig => {
            let spec = object.field("spec");
            let span = spec.map(|spec| object.member(spec, "parameters")).transpose()?.flatten();
            Pinned::Value { keys: &["spec", "parameters"], span, quirks: PARAMETER_QUIRKS }
        }
        ScopeKind::Other => match object.field("spec") {
            Some(span) => Pinned::Value { keys: &["spec"], span: Some(span), quirks: SPEC_QUIRKS },
            None => Pinned::TopLevel,
        },
    })
}

fn has_members(object: &Object<'_>, field: &'static str) -> Result<bool, CanonicalError> {
    let Some(span) = object.map(field)? else { return Ok(false) };
    let mut cursor = Cursor::starting_at(object.text(), span.start);
    let mut members = cursor.enter_object()?;
    Ok(cursor.next_member(&mut members)?.is_some())
}

/// The filter's position after these keys.
pub(crate) fn descend(filter: &PathFilter, keys: &[&str]) -> Position {
    keys.iter().fold(filter.root(), |position, key| filter.descend(position, Step::Member(key)))
}

/// Writes the canonical form into a sink made by `fresh`, which is called anew when the fast way
/// gives up.
fn canonical<S: Sink>(object: &Object<'_>, scope: &Scope, fresh: fn() -> S) -> Result<S, CanonicalError> {
    let filter = scope.filter();
    let mut sink = fresh();
    match pinned(object, scope.kind())? {
        Pinned::Maps if scope.kind() == ScopeKind::Secret => maps::write_secret(object, filter, &mut sink)?,
        Pinned::Maps => maps::write_config_map(object, filter, &mut sink)?,
        Pinned::Value { span: None, .. } => sink.put(b"{}"),
        Pinned::Value { keys, span: Some(span), quirks } => {
            let position = descend(filter, keys);
            if position == Position::Inside {
                let mut cursor = Cursor::starting_at(object.text(), span.start);
                if stream::copy_value(&mut cursor, quirks, &mut sink)? == Passed::Whole {
                    return Ok(sink);
                }
                sink = fresh();
            }
            let tree = Tree::read(object.text(), span)?;
            tree.write(&tree.choose(filter, position, quirks)?, quirks, &mut sink)?;
        }
        Pinned::TopLevel => write_top_level(object, filter, &mut sink)?,
    }
    Ok(sink)
}

/// Writes the fields of a kind without `spec`, each filtered by itself.
fn write_top_level(
    object: &Object<'_>,
    filter: &PathFilter,
    sink: &mut impl Sink,
) -> Result<(), CanonicalError> {
    let mut first = true;
    sink.put(b"{");
    for (name, span) in top_level(object)? {
        let tree = Tree::read(object.text(), span)?;
        let position = filter.descend(filter.root(), Step::Member(&name));
        if position == Position::Outside {
            continue;
        }
        let chosen = tree.choose(filter, position, SPEC_QUIRKS)?;
        if !chosen.keeps(tree::ROOT) {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            sink.put(b", ");
        }
        text::write_text(&name, sink);
        sink.put(b": ");
        tree.write(&chosen, SPEC_QUIRKS, sink)?;
    }
    sink.put(b"}");
    Ok(())
}

/// The top-level fields that can be scope, sorted by name.
pub(crate) fn top_level(object: &Object<'_>) -> Result<Vec<(String, Span)>, JsonError> {
    let mut fields = Vec::new();
    for (key, span) in object.fields() {
        let name = key.decode(object.text())?.into_owned();
        if !NEVER_SCOPE.contains(&name.as_str()) {
            fields.push((name, *span));
        }
    }
    fields.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(fields)
}
