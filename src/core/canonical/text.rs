//! Strings: every character outside space to `~` escaped, the short escapes kept short.

use crate::core::json::{self, Cursor, JsonError, Problem};
use crate::core::scan::{self, Mark};

use super::sink::Sink;

/// Takes the string at the cursor and writes its canonical form, quotes included.
///
/// Nearly all bytes of a review are canonical already, and so are `\n` and its like: such runs are
/// passed on whole.
pub(super) fn copy_string(cursor: &mut Cursor<'_>, sink: &mut impl Sink) -> Result<(), JsonError> {
    cursor.expect(b'"')?;
    let text = cursor.text;
    let mut run = cursor.at - 1;
    let mut failure = None;
    let end = scan::marks(text, cursor.at, |at, escaped| {
        let unchanged = match text[at] {
            b'"' if !escaped => return Mark::Stop(at),
            b'"' | b'\\' | b'b' | b'f' | b'r' | b't' => escaped,
            _ => false,
        };
        if unchanged {
            return Mark::Next;
        }
        // An escape starts at the backslash before the letter.
        let from = at - usize::from(escaped);
        sink.put(&text[run..from]);
        match write_otherwise(text, from, sink) {
            Ok(length) => {
                run = from + length;
                Mark::Skip(run)
            }
            Err(error) => {
                failure = Some(error);
                Mark::Stop(at)
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let end = end.ok_or(JsonError { problem: Problem::Truncated, at: text.len() })?;
    sink.put(&text[run..=end]);
    cursor.at = end + 1;
    Ok(())
}

/// Writes what stands at `at` and is not canonical as it is, and gives how many bytes it took.
fn write_otherwise(text: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize, JsonError> {
    match text[at] {
        b'\\' => {
            let (character, length) = json::escape(text, at)?;
            write_character(character, sink);
            Ok(length)
        }
        0x7f.. => write_unplain(&text[at..], sink)
            .map_err(|bad| JsonError { problem: Problem::NotUtf8, at: at + bad }),
        _ => Err(JsonError { problem: Problem::ControlCharacter, at }),
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
    let mut run = 0;
    for (at, character) in text.char_indices() {
        if !matches!(character, ' '..='~') || matches!(character, '"' | '\\') {
            sink.put(&bytes[run..at]);
            write_character(character, sink);
            run = at + character.len_utf8();
        }
    }
    sink.put(&bytes[run..]);
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
