//! The top level of an object: which field stands where in the text.

use crate::core::json::{Cursor, JsonError, Problem, RawString, Span};

use super::CanonicalError;

/// Where the top-level fields of an object stand.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    text: &'a [u8],
    span: Span,
    fields: Vec<(RawString, Span)>,
}

impl<'a> Object<'a> {
    /// Reads the object at the cursor, and leaves the cursor behind it.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Self, JsonError> {
        let mut fields: Vec<(RawString, Span)> = Vec::with_capacity(8);
        cursor.peek()?;
        let start = cursor.at;
        let mut members = cursor.enter_object()?;
        while let Some(key) = cursor.next_member(&mut members)? {
            fields.push((key, cursor.skip_value()?));
        }
        refuse_twins(cursor.text, &fields)?;
        Ok(Self { text: cursor.text, span: Span { start, end: cursor.at }, fields })
    }

    /// The whole object as it stands in the text.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.span.of(self.text)
    }

    /// Where the whole object stands.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// The text that all spans are of.
    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// All fields in the order of the text.
    pub(crate) fn fields(&self) -> &[(RawString, Span)] {
        &self.fields
    }

    /// Where the value of a field stands.
    pub(crate) fn field(&self, name: &str) -> Option<Span> {
        self.fields.iter().find(|(key, _)| key.is(self.text, name)).map(|(_, span)| *span)
    }

    /// Where a map stands; absent and null are the same.
    pub(crate) fn map(&self, name: &'static str) -> Result<Option<Span>, CanonicalError> {
        match self.field(name) {
            None => Ok(None),
            Some(span) => match span.of(self.text) {
                b"null" => Ok(None),
                value if value.starts_with(b"{") => Ok(Some(span)),
                _ => Err(CanonicalError::NotAMap { field: name }),
            },
        }
    }

    /// A member of the object that stands at `span`; `None` when that is no object.
    pub(crate) fn member(&self, span: Span, name: &str) -> Result<Option<Span>, JsonError> {
        member(self.text, span, name)
    }
}

/// Refuses a field that stands twice. Sorted, because a forged object can have millions of fields.
fn refuse_twins(text: &[u8], fields: &[(RawString, Span)]) -> Result<(), JsonError> {
    let mut keys = Vec::with_capacity(fields.len());
    for (key, _) in fields {
        keys.push((key.decode(text)?, key.span.start));
    }
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(JsonError { problem: Problem::DuplicateKey, at: pair[1].1 }),
        None => Ok(()),
    }
}

/// A member of the object that stands at `span` of `text`; `None` when that is no object or has none.
pub(crate) fn member(text: &[u8], span: Span, name: &str) -> Result<Option<Span>, JsonError> {
    let mut cursor = Cursor::starting_at(&text[..span.end], span.start);
    if cursor.peek()? != b'{' {
        return Ok(None);
    }
    let mut members = cursor.enter_object()?;
    let mut found = None;
    while let Some(key) = cursor.next_member(&mut members)? {
        let value = cursor.skip_value()?;
        if key.is(text, name) && found.replace(value).is_some() {
            return Err(JsonError { problem: Problem::DuplicateKey, at: key.span.start });
        }
    }
    Ok(found)
}
