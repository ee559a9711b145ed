//! Who approved what a guard says: the signed annotation, and when it is written anew.
//!
//! The signature covers namespace, name, normalised spec, author and time: an annotation that was
//! copied from another guard, kept over a change of the spec, or made under another key is worth
//! nothing. The annotation moves only with what it is about, so that dry runs are stable.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::canonical::object::Object;
use super::canonical::{CanonicalError, canonical_object};
use super::guard::{Author, Signer};
use super::json::Cursor;
use super::paths::PathFilter;
use super::scope::Scope;
use super::signature::{Purpose, SigningKey};

/// Longest annotation that is written or read, in bytes. All annotations of an object together may
/// have 256 KiB; a user of a thousand groups needs some 40.
pub const MAX_ANNOTATION: usize = 64 * 1024;

/// Fields of a spec and the JSON text of their defaults. The API server fills in those of its CRD, and
/// another version of the CRD may fill in others: none of that changes what was approved.
const DEFAULTS: [(&str, &[u8]); 7] = [
    ("autoRemediate", b"false"),
    ("maxFailuresBeforeAlert", b"3"),
    ("deletionPolicy", b"\"Allow\""),
    ("alsoApproved", b"[]"),
    ("ignorePaths", b"[]"),
    ("onlyPaths", b"[]"),
    ("fallbackSourceRefs", b"[]"),
];

/// What a signature is about, besides the author.
#[derive(Debug, Clone, Copy)]
pub struct Approved<'a> {
    /// Namespace of the guard.
    pub namespace: &'a str,
    /// Name of the guard.
    pub name: &'a str,
    /// The spec as raw JSON.
    pub spec: &'a [u8],
}

/// The annotation as it stands in a guard.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    at: Timestamp,
    signature: String,
}

/// The canonical bytes of a spec without fields that are null or equal to their default.
///
/// # Errors
/// When the spec is no JSON.
pub fn normalised(spec: &[u8]) -> Result<Vec<u8>, CanonicalError> {
    let mut cursor = Cursor::new(spec);
    if cursor.peek()? != b'{' {
        cursor.skip_value()?;
        return Ok(b"{}".to_vec());
    }
    let object = Object::read(&mut cursor)?;
    cursor.finish()?;
    let mut left_out = Vec::new();
    for (key, span) in object.fields() {
        let (name, value) = (key.decode(spec)?, span.of(spec));
        let is_default = DEFAULTS.iter().any(|(field, default)| *field == name && *default == value);
        // More fields than the schema has cannot be stored; the matcher takes 64 paths.
        if (is_default || value == b"null") && left_out.len() < super::paths::MAX_PATHS {
            left_out.push(format!("/spec/{}", name.replace('~', "~0").replace('/', "~1")));
        }
    }
    let filter = if left_out.is_empty() {
        PathFilter::everything()
    } else {
        PathFilter::ignoring(&left_out).unwrap_or_else(|_| PathFilter::everything())
    };
    let whole = [b"{\"spec\":", spec, b"}"].concat();
    canonical_object(&whole, &Scope::new("", "DriftGuard", filter))
}

/// Whether two specs approve the same, by their normalised form. What cannot be read differs.
#[must_use]
pub fn same_spec(left: &[u8], right: &[u8]) -> bool {
    left == right || matches!((normalised(left), normalised(right)), (Ok(left), Ok(right)) if left == right)
}

/// The annotation that says that `author` approved this; `None` when there is nothing to sign: no
/// name yet, no readable spec, or an author too large to be written down.
#[must_use]
pub fn sign(key: &SigningKey, approved: Approved<'_>, author: &Author) -> Option<String> {
    if approved.name.is_empty() {
        return None;
    }
    let signature = with_parts(approved, author, |parts| key.sign(Purpose::Author, parts))?;
    let signer = &author.signer;
    let written =
        Written { user: signer.user.clone(), groups: signer.groups.clone(), at: author.at, signature };
    serde_json::to_string(&written).ok().filter(|text| text.len() <= MAX_ANNOTATION)
}

/// The author that an annotation names, when its signature is valid for exactly this guard and spec.
#[must_use]
pub fn verify(key: &SigningKey, approved: Approved<'_>, annotation: &str) -> Option<Author> {
    if annotation.len() > MAX_ANNOTATION {
        return None;
    }
    let Written { user, groups, at, signature } = serde_json::from_str(annotation).ok()?;
    let author = Author { signer: Arc::new(Signer { user, groups }), at };
    let verified = with_parts(approved, &author, |parts| key.verifies(Purpose::Author, parts, &signature))?;
    verified.then_some(author)
}

fn with_parts<T>(approved: Approved<'_>, author: &Author, use_them: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    let spec = normalised(approved.spec).ok()?;
    let at = author.at.to_string();
    let fixed: [&[u8]; 5] = [
        approved.namespace.as_bytes(),
        approved.name.as_bytes(),
        &spec,
        at.as_bytes(),
        author.signer.user.as_bytes(),
    ];
    let parts: Vec<&[u8]> =
        fixed.into_iter().chain(author.signer.groups.iter().map(|group| group.as_bytes())).collect();
    Some(use_them(&parts))
}

/// A guard in a review, as far as its author is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// The spec as raw JSON.
    pub spec: &'a [u8],
    /// The annotation that names the author.
    pub author: Option<&'a str>,
    /// Whether somebody asks to adopt it ([`Change::Adopted`]).
    pub adopt: bool,
}

/// What a write does to what a guard approves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The guard is made.
    Created,
    /// Its spec says something else.
    Changed,
    /// The spec stays, and whoever writes vouches for it anew.
    Adopted,
    /// Nothing that is approved changes.
    Untouched,
}

/// What a write does, as the mutating hook sees it. A touched annotation alone changes nothing there,
/// because it is put back.
#[must_use]
pub fn intended(new: &Image<'_>, old: Option<&Image<'_>>) -> Change {
    match old {
        None => Change::Created,
        Some(old) if !same_spec(new.spec, old.spec) => Change::Changed,
        Some(_) if new.adopt => Change::Adopted,
        Some(_) => Change::Untouched,
    }
}

/// What a write does, as the gate sees it: another annotation means that somebody new vouches, by the
/// mutating hook or against it.
#[must_use]
pub fn arrived(new: &Image<'_>, old: Option<&Image<'_>>) -> Change {
    match intended(new, old) {
        Change::Untouched if old.is_some_and(|old| old.author != new.author) => Change::Adopted,
        change => change,
    }
}

/// The JSON patch that brings the annotations of a guard into order: `author` as it should stand, and
/// no request to adopt. `None` when they are in order.
#[must_use]
pub fn patch(
    new: &Image<'_>,
    has_annotations: bool,
    author: Option<&str>,
    keys: AnnotationKeys<'_>,
) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Operation {
        op: &'static str,
        path: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<serde_json::Value>,
    }
    let path = |key: &str| format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    let mut operations = Vec::new();
    match (new.author, author) {
        (before, Some(after)) if before != Some(after) => {
            if !has_annotations {
                let value = Some(serde_json::json!({}));
                operations.push(Operation { op: "add", path: "/metadata/annotations".to_owned(), value });
            }
            let value = Some(serde_json::Value::from(after));
            operations.push(Operation { op: "add", path: path(keys.author), value });
        }
        (Some(_), None) => operations.push(Operation { op: "remove", path: path(keys.author), value: None }),
        _ => {}
    }
    if new.adopt {
        operations.push(Operation { op: "remove", path: path(keys.adopt), value: None });
    }
    if operations.is_empty() { None } else { serde_json::to_vec(&operations).ok() }
}

/// The annotations' keys, which the API names.
#[derive(Debug, Clone, Copy)]
pub struct AnnotationKeys<'a> {
    /// Of the signed author.
    pub author: &'a str,
    /// Of the request to adopt.
    pub adopt: &'a str,
}

#[cfg(test)]
#[path = "author_tests.rs"]
mod tests;
