//! Strings: every character outside space to `~` escaped, the short escapes kept short.

use crate::core::json::{self, Cursor, JsonError, Problem, scan};

use super::sink::Sink;

/// Takes the string at the cursor and writes its canonical form, quotes included.
///
/// Nearly all bytes of a review are canonical already, and so are `\n` and its like: such runs are
/// passed on whole.
pub(super) fn copy_string(cursor: &mut Cursor<'_>, sink: &mut impl Sink) -> Result<(), JsonError> {
    cursor.expect(b'"')?;
    let text = cursor.text;
    let mut run = cursor.at - 1;
    let mut at = cursor.at;
    loop {
        at = scan::not_plain_ascii(text, at);
        match text.get(at) {
            Some(b'"') => {
                sink.put(&text[run..=at]);
                cursor.at = at + 1;
                return Ok(());
            }
            Some(b'\\') => {
                if let Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') = text.get(at + 1) {
                    at += 2;
                    continue;
                }
                sink.put(&text[run..at]);
                let (character, length) = json::escape(text, at)?;
                write_character(character, sink);
                at += length;
                run = at;
            }
            Some(0x7f..) => {
                sink.put(&text[run..at]);
                at += write_unplain(&text[at..], sink)
                    .map_err(|bad| JsonError { problem: Problem::NotUtf8, at: at + bad })?;
                run = at;
            }
            Some(_) => return Err(JsonError { problem: Problem::ControlCharacter, at }),
            None => return Err(JsonError { problem: Problem::Truncated, at: text.len() }),
        }
    }
}

/// Writes the run of DEL and non-ASCII characters that starts `text`, and gives its length; the
/// error is the offset of what is not UTF-8.
fn write_unplain(text: &[u8], sink: &mut impl Sink) -> Result<usize, usize> {
    let length = text.iter().position(|&byte| byte < 0x7f).unwrap_or(text.len());
    let run = std::str::from_utf8(&text[..length]).map_err(|error| error.valid_up_to())?;
    for character in run.chars() {
        write_character(character, sink);
    }
    Ok(length)
}

/// Writes a decoded text as a canonical string, quotes included.
pub(super) fn write_text(text: &str, sink: &mut impl Sink) {
    sink.put(b"\"");
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let stop = scan::not_plain_ascii(bytes, at);
        sink.put(&bytes[at..stop]);
        at = stop;
        if let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) {
            write_character(character, sink);
            at += character.len_utf8();
        }
    }
    sink.put(b"\"");
}

/// Writes one character as it stands inside a canonical string.
fn write_character(character: char, sink: &mut impl Sink) {
    let short = match character {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        '\u{8}' => b"\\b",
        '\u{c}' => b"\\f",
        ' '..='~' => return sink.put(&[character as u8]),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write_unit(*unit, sink);
            }
            return;
        }
    };
    sink.put(short);
}

fn write_unit(unit: u16, sink: &mut impl Sink) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| DIGITS[usize::from(unit >> shift & 0xf)];
    sink.put(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}
