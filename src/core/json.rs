//! Reading JSON in place: a cursor over raw bytes that borrows and never recurses.
//!
//! Values are spans of the text, not trees, since most of an admission review is never looked at.
//! `serde_json` is not used here for three reasons: it stops at depth 128 where the API server goes
//! to 10,000, it rounds numbers otherwise, and a tree of a 2 MiB review costs more than its hash.

use std::borrow::Cow;

use super::scan;

/// Deepest nesting read: the API server accepts objects of 10,000 levels, and an admission review
/// puts two around them.
pub const MAX_DEPTH: usize = 10_002;

/// What is wrong with a text, and at which byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: Problem,
    /// Offset into the text, in bytes.
    pub at: usize,
}

/// The ways in which a text is no JSON that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text stops too early.
    #[error("the text ends too early")]
    Truncated,
    /// A character that cannot stand there.
    #[error("unexpected character")]
    Unexpected,
    /// A string with a raw control character.
    #[error("unescaped control character in a string")]
    ControlCharacter,
    /// A backslash followed by something that is no escape.
    #[error("unknown escape in a string")]
    BadEscape,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8")]
    NotUtf8,
    /// A number outside the grammar of JSON or the range of a 64-bit float.
    #[error("invalid number")]
    BadNumber,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than the 10,000 levels that the API server accepts")]
    TooDeep,
    /// A key that stands twice in one object: readers disagree about which one counts.
    #[error("a key stands twice in one object")]
    DuplicateKey,
    /// Larger than 4 GiB.
    #[error("larger than 4 GiB")]
    TooLarge,
}

/// A stretch of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes of the span.
    #[must_use]
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.end]
    }
}

/// A reading position in a text.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    /// The whole text.
    pub text: &'a [u8],
    /// Offset of the next byte.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Starts at an offset.
    #[must_use]
    pub fn starting_at(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// An error at the current position.
    #[must_use]
    pub fn error(&self, problem: Problem) -> JsonError {
        JsonError { problem, at: self.at }
    }

    /// The next byte, after white space, without taking it.
    ///
    /// # Errors
    /// [`Problem::Truncated`] at the end of the text.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, JsonError> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(self.error(Problem::Truncated)),
            }
        }
    }

    /// Takes `wanted`, after white space.
    ///
    /// # Errors
    /// When something else stands there.
    #[inline]
    pub fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek()? == wanted {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error(Problem::Unexpected))
        }
    }

    /// Fails unless only white space is left.
    ///
    /// # Errors
    /// [`Problem::Unexpected`] at the first byte of what follows.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Ok(_) => Err(self.error(Problem::Unexpected)),
            Err(_) => Ok(()),
        }
    }

    /// Enters an object; call [`Cursor::next_member`] for its members.
    ///
    /// # Errors
    /// When no object starts here.
    pub fn enter_object(&mut self) -> Result<Members, JsonError> {
        self.expect(b'{')?;
        Ok(Members { first: true })
    }

    /// The key of the next member, with the cursor before its value, or `None` past the last.
    /// The value must be read or skipped before the next call.
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn next_member(&mut self, members: &mut Members) -> Result<Option<RawString>, JsonError> {
        match (self.peek()?, members.first) {
            (b'}', _) => {
                self.at += 1;
                return Ok(None);
            }
            (b',', false) => {
                self.at += 1;
                self.peek()?;
            }
            (_, true) => members.first = false,
            _ => return Err(self.error(Problem::Unexpected)),
        }
        let key = self.string()?;
        self.expect(b':')?;
        self.peek()?;
        Ok(Some(key))
    }

    /// Takes a string and gives the span between its quotes.
    ///
    /// # Errors
    /// When no string starts here or it does not end. Escapes and UTF-8 are checked when decoded.
    #[inline]
    pub fn string(&mut self) -> Result<RawString, JsonError> {
        self.expect(b'"')?;
        let start = self.at;
        let end = scan::string_end(self.text, start)
            .ok_or(JsonError { problem: Problem::Truncated, at: self.text.len() })?;
        self.at = end.at + 1;
        Ok(RawString { span: Span { start, end: end.at }, escaped: end.escaped })
    }

    /// Steps over one value of any kind and gives its span. Containers are only balanced, not
    /// checked in full: what is skipped is never used.
    ///
    /// # Errors
    /// When no value starts here or it does not end.
    pub fn skip_value(&mut self) -> Result<Span, JsonError> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.skip_container()?,
            _ => self.skip_scalar()?,
        }
        Ok(Span { start, end: self.at })
    }

    fn skip_scalar(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.'))
            .unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error(Problem::Unexpected));
        }
        self.at += length;
        Ok(())
    }

    fn skip_container(&mut self) -> Result<(), JsonError> {
        self.at = scan::container_end(self.text, self.at)
            .ok_or(JsonError { problem: Problem::Truncated, at: self.text.len() })?;
        Ok(())
    }
}

/// Progress through the members of one object.
#[derive(Debug)]
pub struct Members {
    first: bool,
}

/// A string as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawString {
    /// What lies between the quotes.
    pub span: Span,
    /// Whether a backslash occurs in it.
    pub escaped: bool,
}

impl RawString {
    /// The string itself, escapes undone.
    ///
    /// # Errors
    /// When an escape is unknown, or the bytes are not UTF-8.
    pub fn decode(self, text: &[u8]) -> Result<Cow<'_, str>, JsonError> {
        let raw = std::str::from_utf8(self.span.of(text)).map_err(|error| JsonError {
            problem: Problem::NotUtf8,
            at: self.span.start + error.valid_up_to(),
        })?;
        if !self.escaped {
            return Ok(Cow::Borrowed(raw));
        }
        let mut out = String::with_capacity(raw.len());
        let text = &text[..self.span.end];
        let mut at = self.span.start;
        while at < self.span.end {
            let length = text[at..].iter().position(|byte| *byte == b'\\').unwrap_or(self.span.end - at);
            out.push_str(&raw[at - self.span.start..][..length]);
            at += length;
            if at < self.span.end {
                let (character, length) = escape(text, at)?;
                out.push(character);
                at += length;
            }
        }
        Ok(Cow::Owned(out))
    }

    /// Whether the string is exactly `wanted`.
    #[must_use]
    pub fn is(self, text: &[u8], wanted: &str) -> bool {
        if self.escaped {
            self.decode(text).is_ok_and(|decoded| decoded == wanted)
        } else {
            self.span.of(text) == wanted.as_bytes()
        }
    }
}

/// Reads the escape at `text[at]`, a backslash: the character meant and the bytes it took.
///
/// A lone surrogate reads as U+FFFD, as Go's decoder has it.
///
/// # Errors
/// When the escape is unknown or cut off.
pub fn escape(text: &[u8], at: usize) -> Result<(char, usize), JsonError> {
    let bad = JsonError { problem: Problem::BadEscape, at };
    let simple = match *text.get(at + 1).ok_or(bad)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(text, at).ok_or(bad),
        _ => return Err(bad),
    };
    Ok((simple, 2))
}

fn unicode_escape(text: &[u8], at: usize) -> Option<(char, usize)> {
    let first = hex4(text, at + 2)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let second = match (text.get(at + 6), text.get(at + 7)) {
        (Some(b'\\'), Some(b'u')) if first < 0xdc00 => hex4(text, at + 8)?,
        _ => return Some((char::REPLACEMENT_CHARACTER, 6)),
    };
    if !(0xdc00..0xe000).contains(&second) {
        return Some((char::REPLACEMENT_CHARACTER, 6));
    }
    let joined = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Some((char::from_u32(joined)?, 12))
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?
        .iter()
        .try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn members_are_read_in_order_and_values_skipped() {
        let text = br#" { "a" : [1,{"x":"]}"}] , "b\u0063":true,"d":-1.5e3 } "#;
        let mut cursor = Cursor::new(text);
        let mut members = cursor.enter_object().unwrap();
        let mut seen = Vec::new();
        while let Some(key) = cursor.next_member(&mut members).unwrap() {
            let value = cursor.skip_value().unwrap();
            seen.push((
                key.decode(text).unwrap().into_owned(),
                String::from_utf8_lossy(value.of(text)).into_owned(),
            ));
        }
        cursor.finish().unwrap();
        let want = [("a", r#"[1,{"x":"]}"}]"#), ("bc", "true"), ("d", "-1.5e3")];
        assert_eq!(seen, want.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn surrogates_pair_up_and_lone_ones_are_replaced() {
        let decode = |text: &str| {
            let raw = RawString { span: Span { start: 0, end: text.len() }, escaped: true };
            raw.decode(text.as_bytes()).map(Cow::into_owned)
        };
        assert_eq!(decode(r"\ud83e\udd80").unwrap(), "\u{1f980}");
        assert_eq!(decode(r"\ud83ex").unwrap(), "\u{fffd}x");
        assert_eq!(decode(r"\ud83e\n").unwrap(), "\u{fffd}\n");
        assert_eq!(decode(r"\ud83e\u0041").unwrap(), "\u{fffd}A");
        assert_eq!(decode(r"\udd80").unwrap(), "\u{fffd}");
        assert_eq!(decode(r"\u12g4").unwrap_err().problem, Problem::BadEscape);
        assert_eq!(decode(r"a\x").unwrap_err(), JsonError { problem: Problem::BadEscape, at: 1 });
    }

    #[test]
    fn a_text_that_stops_early_is_an_error_wherever_it_stops() {
        let text = br#"{"a":[1,{"x":"\n"}],"b":null}"#;
        for end in 0..text.len() {
            assert!(Cursor::new(&text[..end]).skip_value().is_err(), "cut at {end}");
        }
        assert!(Cursor::new(text).skip_value().is_ok());
    }
}
