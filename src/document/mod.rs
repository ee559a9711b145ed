//! Documents of files as the API server would see them: YAML or JSON in, raw JSON bytes out.
//!
//! The rules are kubectl's, since its conversion decides what reaches the server: YAML 1.1 as
//! go-yaml v2 resolves it, documents divided by lines that start with `---`, lists expanded,
//! directories searched for `.yaml`, `.yml` and `.json`. `tests/vectors/yaml.json` holds what that
//! conversion makes of each construct. Where kubectl would silently drop content (a key that stands
//! twice, text after `...`), the document is refused instead, because nobody can tell what was
//! approved.
//!
//! Values are read without recursion, and no error quotes one: a document may be a Secret.

use std::borrow::Cow;
use std::fmt;

use crate::core::json::{Cursor, JsonError, Span};

mod edit;
mod error;
mod files;
mod float;
mod json;
mod kustomize;
mod lists;
mod scalar;
mod split;
mod yaml;

pub use edit::{Edit, EditError, Edited, edited};
pub use error::{DocumentError, Problem};
pub use files::{Found, contents, find, objects, read, values};
pub use kustomize::Kustomization;
use lists::Item;

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as the user named it, or `standard input`.
    pub file: String,
    /// Which document of the file, from 1.
    pub number: usize,
    /// Line of the file on which the document begins, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}, line {}", self.file, self.number, self.line)
    }
}

/// One object of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// The whole object as JSON, in the form in which kubectl would send it.
    pub json: Vec<u8>,
    /// Where it stands.
    pub origin: Origin,
    /// JSON Pointer to it in its document: empty, or such as `/items/0` in a list.
    pub pointer: String,
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`, when given.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Debug for Document {
    /// Without the content, which may be a Secret's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} {} at {})", self.kind, self.name, self.origin)
    }
}

impl Document {
    /// API group, empty for core.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Takes an object apart as far as a document needs it.
    fn from_item(Item { pointer, json }: Item, origin: Origin) -> Result<Self, DocumentError> {
        let fail = |problem| DocumentError::at(&origin, problem);
        let head = Head::read(&json).map_err(|error| fail(error.into()))?;
        if let Some(path) = head.no_text {
            return Err(fail(Problem::NoText(path)));
        }
        let wanted = |field: Option<String>, path| {
            field.filter(|text| !text.is_empty()).ok_or_else(|| fail(Problem::Missing(path)))
        };
        let api_version = wanted(head.api_version, "apiVersion")?;
        let kind = wanted(head.kind, "kind")?;
        let name = wanted(head.name, "metadata.name")?;
        let namespace = head.namespace.filter(|text| !text.is_empty());
        Ok(Self { json, origin, pointer, api_version, kind, namespace, name })
    }
}

/// The fields that say what an object is; `None` where a field is absent or null.
#[derive(Default)]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    items: Option<Span>,
    /// The first of these fields that is something else than text.
    no_text: Option<&'static str>,
}

impl Head {
    fn read(json: &[u8]) -> Result<Self, JsonError> {
        let mut head = Self::default();
        let mut cursor = Cursor::new(json);
        let mut members = cursor.enter_object()?;
        while let Some(key) = cursor.next_member(&mut members)? {
            let at = cursor;
            let span = cursor.skip_value()?;
            match key.decode(json)?.as_ref() {
                "apiVersion" => head.api_version = head.text("apiVersion", at)?,
                "kind" => head.kind = head.text("kind", at)?,
                "metadata" if span.of(json).starts_with(b"{") => head.read_metadata(at)?,
                "items" if span.of(json).starts_with(b"[") => head.items = Some(span),
                _ => {}
            }
        }
        Ok(head)
    }

    fn read_metadata(&mut self, mut cursor: Cursor<'_>) -> Result<(), JsonError> {
        let mut members = cursor.enter_object()?;
        while let Some(key) = cursor.next_member(&mut members)? {
            let at = cursor;
            cursor.skip_value()?;
            match key.decode(cursor.text)?.as_ref() {
                "namespace" => self.namespace = self.text("metadata.namespace", at)?,
                "name" => self.name = self.text("metadata.name", at)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The string at the cursor; anything but null in its place is noted.
    fn text(&mut self, path: &'static str, mut cursor: Cursor<'_>) -> Result<Option<String>, JsonError> {
        match cursor.peek()? {
            b'"' => cursor.string()?.decode(cursor.text).map(Cow::into_owned).map(Some),
            b'n' => Ok(None),
            _ => {
                self.no_text.get_or_insert(path);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
