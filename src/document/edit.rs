//! Values of documents replaced in their text, so that comments, order and layout stay.
//!
//! What is replaced is found by the parser that reads documents. Afterwards the text is read again: it must hold the
//! same documents but for these values, or nothing is edited.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use granit_parser::{Event, Options, Parser, StrInput};
use serde_json::Value;

use super::error::DocumentError;
use super::split::{self, Stretch};
use super::yaml::Limits;
use crate::core::json::{Cursor, JsonError, MAX_DEPTH};

/// The byte-order mark, which stays.
const MARK: char = '\u{feff}';

/// A text of a document that is to become another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which document of the file, as [`super::Origin::number`].
    pub document: usize,
    /// JSON Pointer to the value in that document.
    pub pointer: String,
    /// What it becomes.
    pub value: String,
}

/// An edited text.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// On which line each edit is, from 1, in the order in which they were asked for.
    pub lines: Vec<usize>,
}

/// Why a text cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be read at all.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The value is there by an alias or a merge key, over several lines, or not as text.
    #[error(
        "{file}: line {line}: {field} does not stand there in one piece; write it out behind its own key, such as \
         `{field}: \"\"`"
    )]
    NotPlain {
        /// The file as the user named it.
        file: String,
        /// Line on which the document begins.
        line: usize,
        /// The last key of its path.
        field: String,
    },
}

/// Replaces values in a text, and nothing else of it.
///
/// # Errors
/// [`EditError`] when a value does not stand in the text as it is.
pub fn edited(file: &str, text: &str, edits: &[Edit]) -> Result<Edited, EditError> {
    if let Some(rest) = text.strip_prefix(MARK) {
        let Edited { text, lines } = edited(file, rest, edits)?;
        return Ok(Edited { text: format!("{MARK}{text}"), lines });
    }
    let before = split::documents(file, text, Limits::NONE)?;
    let mut by_document: BTreeMap<usize, Vec<(usize, &Edit)>> = BTreeMap::new();
    for (index, edit) in edits.iter().enumerate() {
        by_document.entry(edit.document).or_default().push((index, edit));
    }
    let mut replaced: Vec<(Range<usize>, String)> = Vec::new();
    let mut lines = vec![0; edits.len()];
    let mut wanted: Vec<(Vec<u8>, Option<Value>)> = Vec::new();
    for stretch in before {
        let Some(edits) = by_document.get(&stretch.origin.number) else {
            wanted.push((stretch.json, None));
            continue;
        };
        let mut value: Value = serde_json::from_slice(&stretch.json).unwrap_or_default();
        let places = places(&text[stretch.range.clone()], edits);
        for (index, edit) in edits {
            let not_plain = || not_plain(file, &stretch, edit);
            let place = places.get(&edit.pointer).ok_or_else(not_plain)?;
            let place = stretch.range.start + place.start..stretch.range.start + place.end;
            let old = value.pointer_mut(&edit.pointer).ok_or_else(not_plain)?;
            let (part, new) = part(&text[place.clone()], old, &edit.value).ok_or_else(not_plain)?;
            *old = edit.value.as_str().into();
            let part = place.start + part.start..place.start + part.end;
            lines[*index] = 1 + text[..part.start].matches('\n').count();
            replaced.push((part, new));
        }
        wanted.push((stretch.json, Some(value)));
    }
    replaced.sort_by_key(|(place, _)| place.start);
    let mut after = String::with_capacity(text.len() + replaced.len() * 8);
    let mut at = 0;
    for (place, new) in &replaced {
        after.push_str(text.get(at..place.start).unwrap_or_default());
        after.push_str(new);
        at = place.end;
    }
    after.push_str(text.get(at..).unwrap_or_default());
    match first_other(file, &after, &wanted)? {
        None => Ok(Edited { text: after, lines }),
        Some(index) => {
            let before = split::documents(file, text, Limits::NONE)?;
            let stretch = &before[index.min(before.len().saturating_sub(1))];
            let edit = by_document.get(&stretch.origin.number).and_then(|edits| edits.first());
            let (_, edit) = edit.copied().unwrap_or((0, &edits[0]));
            Err(not_plain(file, stretch, edit))
        }
    }
}

fn not_plain(file: &str, stretch: &Stretch, edit: &Edit) -> EditError {
    let field = edit.pointer.rsplit('/').next().unwrap_or_default();
    EditError::NotPlain { file: file.to_owned(), line: stretch.origin.line, field: field.to_owned() }
}

/// The first document of an edited text that is not what was wanted.
fn first_other(
    file: &str,
    text: &str,
    wanted: &[(Vec<u8>, Option<Value>)],
) -> Result<Option<usize>, DocumentError> {
    let found = split::documents(file, text, Limits::NONE)?;
    if found.len() != wanted.len() {
        return Ok(Some(0));
    }
    Ok(found.iter().zip(wanted).position(|(found, (json, value))| match value {
        None => found.json != *json,
        Some(value) => serde_json::from_slice::<Value>(&found.json).ok().as_ref() != Some(value),
    }))
}

/// Which part of a written value is replaced, and by what. Quotes stay, and comments behind it.
fn part(written: &str, old: &Value, new: &str) -> Option<(Range<usize>, String)> {
    match old {
        Value::String(old) if !old.is_empty() => {
            let mut found = written.match_indices(old.as_str());
            let (at, _) = found.next()?;
            found.next().is_none().then(|| (at..at + old.len(), new.to_owned()))
        }
        // A place left for it: two quotes, or a number such as 64 unquoted zeros.
        Value::String(_) | Value::Number(_) => {
            let is_whole =
                matches!(written, "\"\"" | "''") || written.bytes().all(|b| b.is_ascii_alphanumeric());
            (is_whole && !written.is_empty()).then(|| (0..written.len(), format!("\"{new}\"")))
        }
        _ => None,
    }
}

/// Where the values of these edits stand in the text of their document.
fn places(text: &str, edits: &[(usize, &Edit)]) -> HashMap<String, Range<usize>> {
    let mut found: HashMap<String, Range<usize>> = HashMap::new();
    if in_yaml(text, &mut |pointer, place| {
        if edits.len() > 8 || edits.iter().any(|(_, edit)| edit.pointer == pointer) {
            found.insert(pointer, place);
        }
    }) {
        return found;
    }
    // JSON may hold what YAML does not, such as halves of surrogate pairs.
    for (_, edit) in edits {
        if let Ok(Some(place)) = in_json(text, &edit.pointer) {
            found.insert(edit.pointer.clone(), place);
        }
    }
    found
}

/// A mapping or list whose end has not been seen.
struct Open {
    pointer: String,
    at: At,
}

enum At {
    /// The next node is a key.
    Key,
    /// The next node is the value of this key.
    Value(String),
    /// The next node is this item.
    Item(usize),
    /// Whatever comes is part of a key.
    Nowhere,
}

impl Open {
    /// Steps over one node, and gives the pointer to it; `None` for a key.
    fn step(&mut self, key: Option<&str>) -> Option<String> {
        let segment = match &mut self.at {
            At::Nowhere => return None,
            At::Key => {
                let key = key.map(|key| key.replace('~', "~0").replace('/', "~1"));
                self.at = At::Value(key.unwrap_or_else(|| "\0".to_owned()));
                return None;
            }
            At::Value(key) => std::mem::take(key),
            At::Item(index) => {
                *index += 1;
                return Some(format!("{}/{}", self.pointer, *index - 1));
            }
        };
        self.at = At::Key;
        Some(format!("{}/{segment}", self.pointer))
    }
}

/// Tells of every scalar that is a value; false when the text is no YAML.
fn in_yaml(text: &str, tell: &mut impl FnMut(String, Range<usize>)) -> bool {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(text, options);
    let mut open: Vec<Open> = Vec::new();
    while let Some(event) = parser.next_event() {
        let Ok((event, span)) = event else { return false };
        let mut step = |key: Option<&str>| match open.last_mut() {
            Some(open) => open.step(key),
            None => Some(String::new()),
        };
        match event {
            Event::Scalar(key, ..) => {
                if let (Some(pointer), Some(place)) = (step(Some(&key)), span.byte_range())
                    && text.get(place.clone()).is_some()
                {
                    tell(pointer, place);
                }
            }
            Event::Alias(_) => {
                step(None);
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let is_list = matches!(event, Event::SequenceStart(..));
                let at = if is_list { At::Item(0) } else { At::Key };
                let opened = match step(None) {
                    Some(pointer) => Open { pointer, at },
                    None => Open { pointer: String::new(), at: At::Nowhere },
                };
                open.push(opened);
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
            }
            _ => {}
        }
    }
    true
}

/// Where the value of a pointer stands in JSON.
fn in_json(text: &str, pointer: &str) -> Result<Option<Range<usize>>, JsonError> {
    let json = text.as_bytes();
    let mut cursor = Cursor::new(json);
    for segment in pointer.split('/').skip(1) {
        let inside = if cursor.peek()? == b'[' {
            item(&mut cursor, segment.parse().unwrap_or(usize::MAX))?
        } else {
            member(&mut cursor, segment)?
        };
        let Some(inside) = inside else { return Ok(None) };
        cursor = inside;
    }
    cursor.peek()?;
    let span = cursor.skip_value()?;
    Ok(Some(span.start..span.end))
}

fn member<'a>(cursor: &mut Cursor<'a>, name: &str) -> Result<Option<Cursor<'a>>, JsonError> {
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let at = *cursor;
        cursor.skip_value()?;
        if key.is(at.text, name) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn item<'a>(cursor: &mut Cursor<'a>, wanted: usize) -> Result<Option<Cursor<'a>>, JsonError> {
    cursor.expect(b'[')?;
    for index in 0.. {
        if cursor.peek()? == b']' {
            break;
        }
        if index > 0 {
            cursor.expect(b',')?;
        }
        let at = *cursor;
        if index == wanted {
            return Ok(Some(at));
        }
        cursor.skip_value()?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn hash_of(document: usize, pointer: &str) -> Edit {
        Edit { document, pointer: format!("{pointer}/spec/expectedHash"), value: "c".repeat(64) }
    }

    fn after(text: &str, edits: &[Edit]) -> String {
        edited("f.yaml", text, edits).unwrap().text
    }

    #[test]
    fn every_other_byte_stays() {
        let text = format!(
            "# first\r\nspec:   {{ \"expectedHash\" : '{OLD}' , b: [1,  2] }} # ä\r\n---\n\n# second\nspec:\n    other: {OLD}\n    expectedHash:    {OLD}   # why\n    z: 1.10\n---\n# nothing\n"
        );
        let want = text.replacen(&format!("'{OLD}'"), &format!("'{}'", "c".repeat(64)), 1);
        assert_eq!(after(&text, &[hash_of(1, "")]), want);
        let want = text.replace(&format!("    {OLD}   # why"), &format!("    {}   # why", "c".repeat(64)));
        let edited = edited("f.yaml", &text, &[hash_of(2, "")]).unwrap();
        assert_eq!((edited.text, edited.lines), (want, vec![8]));
    }

    #[test]
    fn items_of_lists_are_found_in_yaml_and_json() {
        let yaml = format!("items:\n- spec: {{expectedHash: {OLD}}}\n- spec:\n    expectedHash: \"{OLD}\"\n");
        let want = yaml.replace(&format!("\"{OLD}\""), &format!("\"{}\"", "c".repeat(64)));
        assert_eq!(after(&yaml, &[hash_of(1, "/items/1")]), want);
        // YAML knows no halves of surrogate pairs.
        let json = format!(
            "{{\"items\": [1, {{\"x\": \"\\ud83d\\ude00\", \"spec\": {{\"expectedHash\": \"{OLD}\"}}}}]}}\n{{}}\n"
        );
        assert_eq!(after(&json, &[hash_of(1, "/items/1")]), json.replace(OLD, &"c".repeat(64)));
    }

    #[test]
    fn a_place_left_for_the_hash_is_filled() {
        for left in ["''", "\"\"", &"0".repeat(64)] {
            let text = format!("spec:\n  expectedHash: {left} # stamped\n");
            assert_eq!(
                after(&text, &[hash_of(1, "")]),
                format!("spec:\n  expectedHash: \"{}\" # stamped\n", "c".repeat(64))
            );
        }
    }

    #[test]
    fn what_stands_elsewhere_too_is_not_edited() {
        for text in [
            format!("a: &h {OLD}\nspec: {{expectedHash: *h}}\n"),
            format!("spec: {{expectedHash: &h {OLD}}}\nb: *h\n"),
            format!("a: &s {{expectedHash: {OLD}}}\nspec: {{<<: *s}}\n"),
            "spec:\n  expectedHash:\n  x: 1\n".to_owned(),
        ] {
            let error = edited("f.yaml", &text, &[hash_of(1, "")]).unwrap_err().to_string();
            assert!(error.starts_with("f.yaml: line 1: expectedHash does not stand"), "{text}: {error}");
        }
    }

    #[test]
    fn keys_with_slashes_are_no_paths() {
        let text =
            format!("spec/expectedHash: x\n? [spec, expectedHash]\n: y\nspec: {{expectedHash: {OLD}}}\n");
        let error = edited("f.yaml", &text, &[hash_of(1, "")]);
        assert!(error.is_err(), "a key that is no text is refused");
        let text = text.replace("? [spec, expectedHash]\n: y\n", "");
        assert_eq!(after(&text, &[hash_of(1, "")]), text.replace(OLD, &"c".repeat(64)));
    }
}
