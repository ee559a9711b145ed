//! JSON documents: passed on as they are, once they are known to be sound.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::core::json::{Cursor, JsonError, MAX_DEPTH, Members};

use super::error::{Located, Problem};

/// The text of one JSON value of valid syntax that starts on `line` of its file, checked for what
/// syntax does not rule out.
pub(super) fn checked(text: &str, line: usize) -> Result<Vec<u8>, Located> {
    if !text.starts_with('{') {
        return Err(Located::new(line, Problem::NotAnObject(name_of(text))));
    }
    match find_problem(text.as_bytes()) {
        Ok(None) => Ok(text.as_bytes().to_vec()),
        Ok(Some((at, mut problem))) => {
            if let Problem::DuplicateKey { first, .. } = &mut problem {
                *first = line + newlines(text, *first);
            }
            Err(Located::new(line + newlines(text, at), problem))
        }
        Err(error) => Err(Located::new(line + newlines(text, error.at), error.into())),
    }
}

/// A syntax error of a JSON reader that started on `line`.
pub(super) fn syntax(error: &serde_json::Error, line: usize) -> Located {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or("syntax error").to_owned();
    Located::new(line + error.line().saturating_sub(1), Problem::Json(what))
}

fn newlines(text: &str, before: usize) -> usize {
    text.as_bytes()[..before.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// What a JSON text is, in words.
pub(super) fn name_of(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a yes or no",
        Some(b'n') | None => "nothing",
        Some(_) => "a number",
    }
}

/// A container that is being read.
enum Open<'a> {
    Object(Members, HashMap<Cow<'a, str>, usize>),
    List { first: bool },
}

/// The first duplicate key or excess of depth, and its offset; offsets stand in for lines.
fn find_problem(text: &[u8]) -> Result<Option<(usize, Problem)>, JsonError> {
    let mut cursor = Cursor::new(text);
    let mut stack: Vec<Open<'_>> = Vec::new();
    loop {
        // A value starts here.
        match cursor.peek()? {
            b'{' => stack.push(Open::Object(cursor.enter_object()?, HashMap::new())),
            b'[' => {
                cursor.at += 1;
                stack.push(Open::List { first: true });
            }
            _ => {
                cursor.skip_value()?;
            }
        }
        if stack.len() > MAX_DEPTH {
            return Ok(Some((cursor.at, Problem::TooDeep)));
        }
        // Step to the next value, closing what ends.
        loop {
            match stack.last_mut() {
                None => return Ok(None),
                Some(Open::Object(members, seen)) => {
                    if let Some(key) = cursor.next_member(members)? {
                        let at = key.span.start;
                        let key = key.decode(text)?;
                        if let Some(first) = seen.get(&key) {
                            let problem = Problem::DuplicateKey { key: key.into_owned(), first: *first };
                            return Ok(Some((at, problem)));
                        }
                        seen.insert(key, at);
                        break;
                    }
                }
                Some(Open::List { first }) => match (cursor.peek()?, std::mem::replace(first, false)) {
                    (b']', _) => cursor.at += 1,
                    (_, true) => break,
                    _ => {
                        cursor.expect(b',')?;
                        break;
                    }
                },
            }
            stack.pop();
        }
    }
}
