//! What stands in one line of a watch, and in the metadata of an object: read in place, never decoded.
//!
//! An object may be deeper and hold larger numbers than decoders take. Only its metadata is looked at
//! here; what is pinned of it is hashed as it stands.

use std::borrow::Cow;

use crate::core::json::{Cursor, JsonError, Problem, Span};

/// Annotation of the bookmark with which the list ends that a watch begins with.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One line of a watch. Objects are raw JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// An object as it is now: `ADDED` or `MODIFIED`.
    Stands(&'a [u8]),
    /// The last state of an object that is gone.
    Deleted(&'a [u8]),
    /// Nothing that is watched has changed up to this version.
    Bookmark {
        /// Where a watch may go on.
        revision: String,
        /// Whether the list is complete that the watch began with.
        is_list_end: bool,
    },
    /// The watch is over; a `Status`.
    Error(&'a [u8]),
    /// Something that this version does not know.
    Unknown,
}

/// Reads a line.
///
/// # Errors
/// When it is no event.
pub(super) fn event(line: &[u8]) -> Result<Event<'_>, JsonError> {
    let mut cursor = Cursor::new(line);
    let mut members = cursor.enter_object()?;
    let (mut word, mut object) = (None, None);
    while let Some(key) = cursor.next_member(&mut members)? {
        if key.is(line, "type") {
            word = Some(cursor.string()?.decode(line)?);
        } else {
            let value = cursor.skip_value()?;
            if key.is(line, "object") {
                object = Some(value.of(line));
            }
        }
    }
    cursor.finish()?;
    let object = object.ok_or(cursor.error(Problem::Truncated))?;
    Ok(match word.as_deref() {
        Some("ADDED" | "MODIFIED") => Event::Stands(object),
        Some("DELETED") => Event::Deleted(object),
        Some("ERROR") => Event::Error(object),
        Some("BOOKMARK") => {
            let meta = meta(object)?;
            Event::Bookmark { revision: meta.revision.into_owned(), is_list_end: meta.is_list_end }
        }
        _ => Event::Unknown,
    })
}

/// The metadata of an object, as far as watching needs it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta<'a> {
    pub(crate) name: Cow<'a, str>,
    /// Empty for cluster-scoped objects.
    pub(crate) namespace: Cow<'a, str>,
    pub(super) uid: Cow<'a, str>,
    pub(super) revision: Cow<'a, str>,
    /// `metadata.generation` as it stands.
    pub(super) generation: Cow<'a, str>,
    /// Whether its deletion has begun.
    pub(super) terminating: bool,
    /// Where a list goes on; empty at its end.
    pub(crate) next_page: Cow<'a, str>,
    is_list_end: bool,
}

/// The metadata of an object, a list or a bookmark.
///
/// # Errors
/// When it is no JSON object with a `metadata` object.
pub(crate) fn meta(object: &[u8]) -> Result<Meta<'_>, JsonError> {
    let mut cursor = Cursor::new(object);
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        if key.is(object, "metadata") {
            return metadata(&mut cursor);
        }
        cursor.skip_value()?;
    }
    Err(cursor.error(Problem::Truncated))
}

/// Reads the metadata at the cursor.
///
/// # Errors
/// When it is no JSON object.
pub(super) fn metadata<'a>(cursor: &mut Cursor<'a>) -> Result<Meta<'a>, JsonError> {
    let (text, mut found) = (cursor.text, Meta::default());
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let key = key.decode(text)?;
        let value = cursor.skip_value()?;
        match &*key {
            "name" => found.name = string(text, value)?,
            "namespace" => found.namespace = string(text, value)?,
            "uid" => found.uid = string(text, value)?,
            "resourceVersion" => found.revision = string(text, value)?,
            "continue" => found.next_page = string(text, value)?,
            "generation" => found.generation = String::from_utf8_lossy(value.of(text)),
            "deletionTimestamp" => found.terminating = value.of(text) != b"null",
            "annotations" => found.is_list_end = says_list_end(text, value)?,
            _ => {}
        }
    }
    Ok(found)
}

fn string(text: &[u8], value: Span) -> Result<Cow<'_, str>, JsonError> {
    if value.of(text) == b"null" {
        return Ok(Cow::Borrowed(""));
    }
    Cursor::starting_at(text, value.start).string()?.decode(text)
}

fn says_list_end(text: &[u8], annotations: Span) -> Result<bool, JsonError> {
    if annotations.of(text) == b"null" {
        return Ok(false);
    }
    let mut cursor = Cursor::starting_at(text, annotations.start);
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let value = cursor.skip_value()?;
        if key.is(text, INITIAL_EVENTS_END) {
            return Ok(value.of(text) == br#""true""#);
        }
    }
    Ok(false)
}

/// The same object with `apiVersion` and `kind`, which the items of a list do without.
///
/// # Errors
/// When it is no JSON object.
pub(super) fn with_type(object: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, JsonError> {
    let mut cursor = Cursor::new(object);
    let mut members = cursor.enter_object()?;
    let inside = cursor.at;
    let (mut has_kind, mut has_version, mut is_empty) = (false, false, true);
    while let Some(key) = cursor.next_member(&mut members)? {
        is_empty = false;
        has_kind |= key.is(object, "kind");
        has_version |= key.is(object, "apiVersion");
        cursor.skip_value()?;
    }
    let mut head = String::from("{");
    for (is_there, key, value) in [(has_kind, "kind", kind), (has_version, "apiVersion", api_version)] {
        if !is_there {
            // Neither a kind nor a version holds what JSON would escape.
            head.push_str(&format!("\"{key}\":\"{value}\","));
        }
    }
    if is_empty {
        head.pop();
    }
    Ok([head.as_bytes(), &object[inside..]].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn deep(levels: usize) -> String {
        format!("{}1e999{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    #[test]
    fn an_object_of_any_depth_and_with_any_number_is_found_in_its_event() {
        let object = format!(
            r#"{{"spec":{},"metadata":{{"managedFields":[{}],"name":"a","uid":"u","resourceVersion":"7","deletionTimestamp":"x"}}}}"#,
            deep(9_990),
            deep(200)
        );
        let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
        assert_eq!(event(line.as_bytes()).unwrap(), Event::Stands(object.as_bytes()));
        let meta = meta(object.as_bytes()).unwrap();
        assert_eq!((&*meta.name, &*meta.uid, &*meta.revision), ("a", "u", "7"));
        assert!(meta.terminating && meta.namespace.is_empty());
    }

    #[test]
    fn bookmarks_tell_where_to_go_on_and_where_the_list_ends() {
        let line = |annotations: &str| {
            format!(
                r#"{{"type":"BOOKMARK","object":{{"kind":"X","metadata":{{"resourceVersion":"9","creationTimestamp":null,"annotations":{annotations}}}}}}}"#
            )
        };
        for (annotations, is_list_end) in
            [(r#"{"k8s.io/initial-events-end":"true"}"#, true), (r#"{"a":"true"}"#, false), ("null", false)]
        {
            let want = Event::Bookmark { revision: "9".into(), is_list_end };
            assert_eq!(event(line(annotations).as_bytes()).unwrap(), want);
        }
    }

    #[test]
    fn words_that_are_not_known_are_no_errors_and_what_is_cut_off_is_one() {
        assert_eq!(event(br#"{"type":"NEW","object":{}}"#).unwrap(), Event::Unknown);
        assert_eq!(
            event(br#"{"object":{"kind":"Status"},"type":"ERROR"}"#).unwrap(),
            Event::Error(br#"{"kind":"Status"}"#)
        );
        for line in ["", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":{}"#] {
            assert!(event(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn the_items_of_a_list_get_the_type_that_they_do_without() {
        let typed =
            |object: &str| String::from_utf8(with_type(object.as_bytes(), "v1", "X").unwrap()).unwrap();
        assert_eq!(typed(r#"{"a":1}"#), r#"{"kind":"X","apiVersion":"v1","a":1}"#);
        assert_eq!(typed(r#" {"kind":"Y","apiVersion":"v2"}"#), r#"{"kind":"Y","apiVersion":"v2"}"#);
        assert_eq!(typed("{}"), r#"{"kind":"X","apiVersion":"v1"}"#);
    }
}
