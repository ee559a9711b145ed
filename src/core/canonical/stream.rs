//! The fast way: one pass over a value whose keys already stand in order, nothing allocated per
//! member.
//!
//! The API server sorts the keys of maps, so ConfigMaps and custom resources take this way. As soon
//! as something needs more than one pass (a key out of order, a key with an escape, a null that the
//! kind reads otherwise) it gives up, and the caller takes the way through [`super::tree`].

use crate::core::json::{Cursor, JsonError, MAX_DEPTH, Problem, RawString};

use super::number::{self, Canonical};
use super::sink::Sink;
use super::text;

/// How the pass ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// The whole value is written.
    Whole,
    /// It needs the other way; what was written is worthless.
    GaveUp,
}

/// What the kind reads otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// A null directly in this object means the empty string: the API server decodes the values of
    /// ConfigMap data so.
    pub(crate) null_values_are_empty: bool,
    /// A null `creationTimestamp` under an embedded `metadata` is left out.
    pub(crate) drop_null_creation_timestamp: bool,
}

/// A container that is open: the key before the current one, for objects.
enum Open {
    Object(Option<RawString>),
    Array { first: bool },
}

/// Writes the canonical form of the value at the cursor.
pub(super) fn copy_value(
    cursor: &mut Cursor<'_>,
    quirks: Quirks,
    sink: &mut impl Sink,
) -> Result<Passed, JsonError> {
    let mut open: Vec<Open> = Vec::new();
    loop {
        // A value starts here.
        match cursor.peek()? {
            b'{' => {
                cursor.at += 1;
                sink.put(b"{");
                open.push(Open::Object(None));
            }
            b'[' => {
                cursor.at += 1;
                sink.put(b"[");
                open.push(Open::Array { first: true });
            }
            b'n' if quirks.null_values_are_empty && open.len() == 1 => return Ok(Passed::GaveUp),
            _ => copy_scalar(cursor, sink)?,
        }
        if open.len() > MAX_DEPTH {
            return Err(cursor.error(Problem::TooDeep));
        }
        // Close what ends here, and go on to the next value.
        loop {
            let Some(innermost) = open.last_mut() else { return Ok(Passed::Whole) };
            let step = match innermost {
                Open::Array { first } => next_item(cursor, first, sink)?,
                Open::Object(last) => next_key(cursor, last, quirks, sink)?,
            };
            match step {
                Step::Value => break,
                Step::Closed => drop(open.pop()),
                Step::GaveUp => return Ok(Passed::GaveUp),
            }
        }
    }
}

enum Step {
    Value,
    Closed,
    GaveUp,
}

#[inline]
fn next_item(cursor: &mut Cursor<'_>, first: &mut bool, sink: &mut impl Sink) -> Result<Step, JsonError> {
    let next = cursor.peek()?;
    if next == b']' {
        cursor.at += 1;
        sink.put(b"]");
        return Ok(Step::Closed);
    }
    if *first {
        *first = false;
    } else if next == b',' {
        cursor.at += 1;
        sink.put(b", ");
    } else {
        return Err(cursor.error(Problem::Unexpected));
    }
    Ok(Step::Value)
}

#[inline]
fn next_key(
    cursor: &mut Cursor<'_>,
    last: &mut Option<RawString>,
    quirks: Quirks,
    sink: &mut impl Sink,
) -> Result<Step, JsonError> {
    let next = cursor.peek()?;
    if next == b'}' {
        cursor.at += 1;
        sink.put(b"}");
        return Ok(Step::Closed);
    }
    if last.is_some() {
        if next != b',' {
            return Err(cursor.error(Problem::Unexpected));
        }
        cursor.at += 1;
        cursor.peek()?;
        sink.put(b", ");
    }
    let start = cursor.at;
    let key = cursor.string()?;
    let bytes = key.span.of(cursor.text);
    // Without escapes, bytes sort as code points do.
    let in_order = last.is_none_or(|last| last.span.of(cursor.text) < bytes);
    let may_be_left_out = quirks.drop_null_creation_timestamp && bytes == b"creationTimestamp";
    if key.escaped || !in_order || may_be_left_out {
        return Ok(Step::GaveUp);
    }
    *last = Some(key);
    text::copy_string(&mut Cursor::starting_at(cursor.text, start), sink)?;
    cursor.expect(b':')?;
    sink.put(b": ");
    Ok(Step::Value)
}

/// Writes the string, number or literal at the cursor.
pub(super) fn copy_scalar(cursor: &mut Cursor<'_>, sink: &mut impl Sink) -> Result<(), JsonError> {
    let literal: &[u8] = match cursor.peek()? {
        b'"' => return text::copy_string(cursor, sink),
        b't' => b"true",
        b'f' => b"false",
        b'n' => b"null",
        b'-' | b'0'..=b'9' => return copy_number(cursor, sink),
        _ => return Err(cursor.error(Problem::Unexpected)),
    };
    if !cursor.text[cursor.at..].starts_with(literal) {
        return Err(cursor.error(Problem::Unexpected));
    }
    cursor.at += literal.len();
    sink.put(literal);
    Ok(())
}

fn copy_number(cursor: &mut Cursor<'_>, sink: &mut impl Sink) -> Result<(), JsonError> {
    let rest = &cursor.text[cursor.at..];
    let at_number = |problem| JsonError { problem, at: cursor.at };
    let length = number::token_length(rest).map_err(at_number)?;
    match number::canonical(&rest[..length]).map_err(at_number)? {
        Canonical::Verbatim => sink.put(&rest[..length]),
        Canonical::Text(text) => sink.put(text.as_bytes()),
    }
    cursor.at += length;
    Ok(())
}
