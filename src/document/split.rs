//! One text into its documents, each as JSON.
//!
//! As kubectl: a text that begins with `{` is a stream of JSON values, and where that breaks off
//! after at most one value, the rest is YAML after all. YAML documents are divided by lines that
//! start with `---`, wherever they stand.

use std::ops::Range;

use super::error::{DocumentError, Located, Problem};
use super::yaml::Limits;
use super::{Origin, json, yaml};

/// One document of a text.
pub(super) struct Stretch {
    pub(super) origin: Origin,
    /// Where in the text it stands, in bytes.
    pub(super) range: Range<usize>,
    pub(super) json: Vec<u8>,
}

/// The documents of a text. Documents that hold nothing are left out, but counted.
pub(super) fn documents(file: &str, text: &str, limits: Limits) -> Result<Vec<Stretch>, DocumentError> {
    let mut found = Vec::new();
    let mut place = Place { file, number: 0, line: 1 };
    let is_json = text.trim_start().starts_with('{');
    let rest = if is_json { json_stream(text, &mut place, &mut found, limits)? } else { text };
    if rest.len() > limits.text {
        return Err(DocumentError::of_file(file, Problem::YamlTooLong(limits.text)));
    }
    let mut left = limits.json;
    let offset = text.len() - rest.len();
    for chunk in chunks(rest) {
        let chunk = chunk.map_err(|located| place.relative(&located))?;
        let before = place.line + chunk.line - 2;
        let origin = place.next(chunk.line + blank_lines(&chunk.text));
        let json = yaml::to_json(&chunk.text, limits)
            .map_err(|located| located.moved_by(before).into_error(&origin))?;
        if let Some(json) = json {
            // Each document may be within what aliases may add, and all together not.
            let within = left.checked_sub(json.len());
            left = within.ok_or_else(|| DocumentError::at(&origin, Problem::ExcessiveAliasing))?;
            let range = chunk.range.start + offset..chunk.range.end + offset;
            found.push(Stretch { origin, range, json });
        }
    }
    Ok(found)
}

/// Where in the file the remaining text begins, and how many documents came before.
struct Place<'a> {
    file: &'a str,
    number: usize,
    line: usize,
}

impl Place<'_> {
    /// The next document; it begins on `line` of the remaining text.
    fn next(&mut self, line: usize) -> Origin {
        self.number += 1;
        Origin { file: self.file.to_owned(), number: self.number, line: self.line + line - 1 }
    }

    fn relative(&self, located: &Located) -> DocumentError {
        DocumentError {
            file: self.file.to_owned(),
            document: None,
            line: located.line.map(|line| line + self.line - 1),
            problem: Problem::SeparatorWithText,
        }
    }
}

/// Takes JSON values off the start of a text, and gives what is left for the YAML reader.
fn json_stream<'a>(
    text: &'a str,
    place: &mut Place<'_>,
    found: &mut Vec<Stretch>,
    limits: Limits,
) -> Result<&'a str, DocumentError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&serde_json::value::RawValue>();
    loop {
        let from = values.byte_offset();
        let start = from + (text[from..].len() - text[from..].trim_start().len());
        let line = 1 + newlines(&text[..start]);
        match values.next() {
            None => return Ok(""),
            Some(Ok(value)) => {
                let origin = place.next(line);
                let json = json::checked(value.get(), line).map_err(|located| located.into_error(&origin))?;
                found.push(Stretch { origin, range: start..start + value.get().len(), json });
            }
            // One value and then something else may still be YAML: `{...}` and `---`, or a flow
            // mapping. After two values it is JSON for sure.
            Some(Err(error)) if found.len() > 1 => {
                let origin = place.next(line);
                return Err(json::syntax(&error, 1).into_error(&origin));
            }
            Some(Err(error)) => {
                let rest = &text[start..];
                // What looks like JSON deserves a JSON message when it is not YAML either.
                if found.is_empty() && yaml_fails(rest, limits) {
                    let origin = place.next(line);
                    return Err(json::syntax(&error, 1).into_error(&origin));
                }
                place.line = line;
                return Ok(rest);
            }
        }
    }
}

/// How many lines of a text come before its first content.
fn blank_lines(text: &str) -> usize {
    let is_blank = |line: &&str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    let blank = text.lines().take_while(is_blank).count();
    if blank == text.lines().count() { 0 } else { blank }
}

fn yaml_fails(text: &str, limits: Limits) -> bool {
    match chunks(text).next() {
        Some(Ok(chunk)) => yaml::to_json(&chunk.text, limits).is_err(),
        _ => true,
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// A stretch of text between two separators, with line ends as `\n`.
struct Chunk {
    text: String,
    /// Line of the text it was cut from, from 1.
    line: usize,
    /// Bytes of that text.
    range: Range<usize>,
}

/// Cuts YAML at lines that start with `---`. Stretches without any line are left out, as in
/// kubectl.
fn chunks(text: &str) -> impl Iterator<Item = Result<Chunk, Located>> {
    let mut lines = text.split_inclusive('\n').enumerate();
    let mut at = 0;
    let mut done = false;
    std::iter::from_fn(move || {
        let mut chunk = Chunk { text: String::new(), line: 0, range: 0..0 };
        while !done {
            let Some((index, line)) = lines.next() else {
                done = true;
                break;
            };
            let from = at;
            at += line.len();
            let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
            if let Some(after) = line.strip_prefix("---") {
                let after = after.trim();
                if !after.is_empty() && !after.starts_with('#') {
                    done = true;
                    return Some(Err(Located::new(index + 1, Problem::SeparatorWithText)));
                }
                if !chunk.text.is_empty() {
                    return Some(Ok(chunk));
                }
                continue;
            }
            if chunk.text.is_empty() {
                chunk.line = index + 1;
                chunk.range.start = from;
            }
            chunk.range.end = at;
            chunk.text.push_str(line);
            chunk.text.push('\n');
        }
        (!chunk.text.is_empty()).then_some(Ok(chunk))
    })
}
