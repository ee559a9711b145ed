//! Edits of an object's text: what is put back where, as a JSON patch and applied at once.
//!
//! Values are the old object's own bytes, spliced in. They never pass through `serde_json::Value`
//! (nor through the json-patch crate, which is built on it): that stops at depth 128 and writes
//! numbers otherwise, and then what comes out would not hash to what is approved.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::json::{Cursor, JsonError, Span};

/// Edits of the members of one object, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits(BTreeMap<String, Edit>);

/// What becomes of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edit {
    /// It gets this value, raw JSON, whether or not it is there.
    Set(Vec<u8>),
    /// It goes; it is there.
    Remove,
    /// It is an object, and members of it are edited.
    Within(Edits),
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many operations the patch has.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(|edit| if let Edit::Within(inner) = edit { inner.len() } else { 1 }).sum()
    }

    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) {
        self.0.insert(key.to_owned(), Edit::Set(value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.insert(key.to_owned(), Edit::Remove);
    }

    /// Edits within the member under `key`, which is an object. No edit leaves it alone.
    pub(crate) fn within(&mut self, key: &str, inner: Edits) {
        match self.0.get_mut(key) {
            _ if inner.is_empty() => {}
            Some(Edit::Within(before)) => before.0.extend(inner.0),
            _ => drop(self.0.insert(key.to_owned(), Edit::Within(inner))),
        }
    }

    /// The edit that sets the value under these keys; objects on the way that are missing are made.
    pub(crate) fn setting(keys: &[String], value: &[u8]) -> Self {
        let mut edits = Self::default();
        if let [first, rest @ ..] = keys {
            if rest.is_empty() {
                edits.set(first, value.to_owned());
            } else {
                edits.within(first, Self::setting(rest, value));
            }
        }
        edits
    }

    /// Appends the operations of an RFC 6902 patch. `add` replaces what is there already.
    pub(crate) fn write_operations(&self, path: &str, out: &mut Vec<Vec<u8>>) {
        for (key, edit) in &self.0 {
            let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            let quoted = serde_json::Value::from(path.as_str()).to_string();
            match edit {
                Edit::Within(inner) => inner.write_operations(&path, out),
                Edit::Remove => out.push(format!(r#"{{"op":"remove","path":{quoted}}}"#).into_bytes()),
                Edit::Set(value) => {
                    let mut operation = format!(r#"{{"op":"add","path":{quoted},"value":"#).into_bytes();
                    operation.extend_from_slice(value);
                    operation.push(b'}');
                    out.push(operation);
                }
            }
        }
    }

    /// The object `text` with the edits made.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(crate) fn apply(&self, text: &[u8]) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::with_capacity(text.len() + 256);
        self.splice(text, Span { start: 0, end: text.len() }, &mut out)?;
        Ok(out)
    }

    fn splice(&self, text: &[u8], span: Span, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let mut cursor = Cursor::starting_at(&text[..span.end], span.start);
        if !matches!(cursor.peek()?, b'{') {
            // A member that is null or no object at all gives way to one.
            self.write_new(out);
            return Ok(());
        }
        let mut first = true;
        let mut missing: BTreeSet<&str> = self.0.keys().map(String::as_str).collect();
        out.push(b'{');
        let mut members = cursor.enter_object()?;
        while let Some(key) = cursor.next_member(&mut members)? {
            let name = key.decode(text)?;
            let value = cursor.skip_value()?;
            let edit = self.0.get(name.as_ref());
            missing.remove(name.as_ref());
            if edit == Some(&Edit::Remove) {
                continue;
            }
            push_raw_key(key.span.of(text), &mut first, out);
            match edit {
                Some(Edit::Set(new)) => out.extend_from_slice(new),
                Some(Edit::Within(inner)) => inner.splice(text, value, out)?,
                _ => out.extend_from_slice(value.of(text)),
            }
        }
        for (key, edit) in self.0.iter().filter(|(key, _)| missing.contains(key.as_str())) {
            write_member(key, edit, &mut first, out);
        }
        out.push(b'}');
        Ok(())
    }

    /// An object that holds nothing but what is set.
    fn write_new(&self, out: &mut Vec<u8>) {
        let mut first = true;
        out.push(b'{');
        for (key, edit) in &self.0 {
            write_member(key, edit, &mut first, out);
        }
        out.push(b'}');
    }
}

fn write_member(key: &str, edit: &Edit, first: &mut bool, out: &mut Vec<u8>) {
    if *edit == Edit::Remove {
        return;
    }
    let quoted = serde_json::Value::from(key).to_string();
    push_raw_key(&quoted.as_bytes()[1..quoted.len() - 1], first, out);
    match edit {
        Edit::Set(value) => out.extend_from_slice(value),
        Edit::Within(inner) => inner.write_new(out),
        Edit::Remove => {}
    }
}

/// Appends a key as it stands between its quotes, with the comma before it.
pub(super) fn push_raw_key(key: &[u8], first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}
