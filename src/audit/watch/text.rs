//! Cutting what streams in: a watch into lines, a list into its items. Pure; never more than one line or
//! item is held, however long the whole is.

use bytes::{Bytes, BytesMut};

use crate::core::json::{Cursor, JsonError, Problem};

use super::event::metadata;

/// Longest line or item, in bytes. API servers store some 2 MiB, which escapes may make six times as long.
const MOST: usize = 64 << 20;

/// Room that an idle watch may keep, in bytes.
const ROOM: usize = 64 << 10;

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// A line or an item without an end.
    #[error("an object is larger than 64 MiB")]
    TooLong,
    /// No list.
    #[error("not a list: {0}")]
    NoList(#[from] JsonError),
    /// The connection ended in the middle.
    #[error("the answer ended too early")]
    CutOff,
}

/// Cuts lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// How much of it is known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// Takes what came.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line.
    ///
    /// # Errors
    /// [`TextError::TooLong`].
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TextError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            if self.searched == 0 && self.buffer.capacity() > ROOM {
                // One large object must not cost its room for as long as the watch lives.
                self.buffer = BytesMut::new();
            }
            return if self.searched > MOST { Err(TextError::TooLong) } else { Ok(None) };
        };
        let line = self.buffer.split_to(self.searched + end + 1).freeze();
        self.searched = 0;
        Ok(Some(line.slice(..line.len() - 1)))
    }
}

/// A part of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An item, raw.
    Item(Bytes),
    /// What the list says of itself.
    Head(ListHead),
}

/// What a list says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ListHead {
    /// `metadata.resourceVersion`.
    pub(super) revision: String,
    /// `metadata.continue`; empty on the last page.
    pub(super) next_page: String,
}

/// Where in a list the next byte stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    Top,
    Items,
    End,
}

/// Cuts a list, the body of one answer, into its items.
#[derive(Debug, Default)]
pub(super) struct Items {
    buffer: BytesMut,
    at: At,
    /// How long the buffer must be for the next try: an item that comes in a thousand chunks is not read
    /// a thousand times.
    wanted: usize,
}

impl Items {
    /// Takes what came.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next part, as far as it has come.
    ///
    /// # Errors
    /// When this is no list, or an item is too long.
    pub(super) fn next(&mut self) -> Result<Option<Part>, TextError> {
        while self.buffer.len() >= self.wanted && self.at != At::End {
            match self.step() {
                Ok((taken, found)) => {
                    self.wanted = 0;
                    let text = self.buffer.split_to(taken.end).freeze();
                    match found {
                        Found::Item => return Ok(Some(Part::Item(text.slice(taken.start..)))),
                        Found::Head(head) => return Ok(Some(Part::Head(head))),
                        Found::Nothing => {}
                    }
                }
                Err(error) if error.problem == Problem::Truncated && self.buffer.len() <= MOST => {
                    self.wanted = self.buffer.len() * 2;
                    return Ok(None);
                }
                Err(error) if error.problem == Problem::Truncated => return Err(TextError::TooLong),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The next part, now that nothing more comes.
    ///
    /// # Errors
    /// As [`Items::next`], and [`TextError::CutOff`] when the list has no end.
    pub(super) fn last(&mut self) -> Result<Option<Part>, TextError> {
        self.wanted = 0;
        match self.next()? {
            None if self.at != At::End => Err(TextError::CutOff),
            part => Ok(part),
        }
    }

    /// Takes one step through the text that is there: how much of it that takes, and what it gives.
    fn step(&mut self) -> Result<(std::ops::Range<usize>, Found), JsonError> {
        let mut cursor = Cursor::new(&self.buffer);
        let (found, start, next) = match self.at {
            At::Start => {
                cursor.expect(b'{')?;
                (Found::Nothing, 0, At::Top)
            }
            At::Items => match cursor.peek()? {
                b',' => {
                    cursor.at += 1;
                    (Found::Nothing, 0, At::Items)
                }
                b']' => {
                    cursor.at += 1;
                    (Found::Nothing, 0, At::Top)
                }
                _ => {
                    let start = cursor.at;
                    cursor.skip_value()?;
                    (Found::Item, start, At::Items)
                }
            },
            At::Top | At::End => match cursor.peek()? {
                b',' => {
                    cursor.at += 1;
                    (Found::Nothing, 0, At::Top)
                }
                b'}' => {
                    cursor.at += 1;
                    (Found::Nothing, 0, At::End)
                }
                _ => Self::member(&mut cursor)?,
            },
        };
        let taken = start..cursor.at;
        self.at = next;
        Ok((taken, found))
    }

    fn member(cursor: &mut Cursor<'_>) -> Result<(Found, usize, At), JsonError> {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        let first = cursor.peek()?;
        if key.is(cursor.text, "items") && first == b'[' {
            cursor.at += 1;
            return Ok((Found::Nothing, 0, At::Items));
        }
        let value = cursor.skip_value()?;
        // A number or word at the very end may go on.
        cursor.peek()?;
        if !key.is(cursor.text, "metadata") || first != b'{' {
            return Ok((Found::Nothing, 0, At::Top));
        }
        let meta = metadata(&mut Cursor::starting_at(cursor.text, value.start))?;
        let head = ListHead { revision: meta.revision.into_owned(), next_page: meta.next_page.into_owned() };
        Ok((Found::Head(head), 0, At::Top))
    }
}

enum Found {
    Nothing,
    Item,
    Head(ListHead),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn cut(text: &str, size: usize) -> Result<(Vec<String>, ListHead), TextError> {
        let (mut items, mut found, mut head) = (Items::default(), Vec::new(), ListHead::default());
        let mut take = |part: Part| match part {
            Part::Item(item) => found.push(String::from_utf8(item.to_vec()).unwrap()),
            Part::Head(of_list) => head = of_list,
        };
        for chunk in text.as_bytes().chunks(size) {
            items.push(chunk);
            while let Some(part) = items.next()? {
                take(part);
            }
        }
        while let Some(part) = items.last()? {
            take(part);
        }
        Ok((found, head))
    }

    #[test]
    fn lines_are_cut_wherever_their_chunks_end() {
        let text = b"one\ntwo\n\nthree";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, ["one", "two", ""], "{size}");
        }
    }

    #[test]
    fn a_list_is_cut_into_its_items_wherever_its_chunks_end() {
        let items = [r#"{"metadata":{"name":"a"},"x":["]}",{"y":"\\"}]}"#, "{}", r#"{"items":[{}]}"#];
        let text = format!(
            r#" {{"kind":"List","n":12,"metadata":{{"resourceVersion":"7","continue":"c=","remainingItemCount":3}},"items":[{} , {},{}],"z":true}}
"#,
            items[0], items[1], items[2]
        );
        let want = ListHead { revision: "7".into(), next_page: "c=".into() };
        for size in 1..=text.len() {
            assert_eq!(cut(&text, size).unwrap(), (items.map(Into::into).to_vec(), want.clone()), "{size}");
        }
    }

    #[test]
    fn a_list_without_items_is_empty() {
        for text in [r#"{"metadata":{"resourceVersion":"1"},"items":null}"#, r#"{"items":[],"metadata":{}}"#]
        {
            assert_eq!(cut(text, 5).unwrap().0, Vec::<String>::new());
        }
    }

    #[test]
    fn an_item_may_be_as_deep_as_an_object_can_be() {
        let item = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        assert_eq!(cut(&format!(r#"{{"items":[{item}]}}"#), 1_000).unwrap().0, [item]);
    }

    #[test]
    fn a_list_that_ends_too_early_is_never_taken_for_a_whole_one() {
        let text = r#"{"metadata":{"resourceVersion":"7"},"items":[{"a":1},{"b":2}]}"#;
        for end in 0..text.len() {
            assert_eq!(cut(&text[..end], 7).unwrap_err(), TextError::CutOff, "cut at {end}");
        }
        assert!(matches!(cut("[]", 7), Err(TextError::NoList(_))));
    }
}
