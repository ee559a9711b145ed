//! Lists expanded into their items, as kubectl does: `kind: List`, and typed ones like
//! `ConfigMapList` whose items may leave out what the list says.

use crate::core::json::{Cursor, JsonError, Span};

use super::error::{DocumentError, Problem};
use super::{Head, Origin};

/// An object of a document.
pub(super) struct Item {
    /// JSON Pointer to it in the document: empty, or such as `/items/0`.
    pub(super) pointer: String,
    pub(super) json: Vec<u8>,
}

/// The document, or each item of it when it is a list.
pub(super) fn items(json: Vec<u8>, origin: &Origin) -> Result<Vec<Item>, DocumentError> {
    let mut found = Vec::new();
    let mut waiting = vec![Item { pointer: String::new(), json }];
    while let Some(Item { pointer, json }) = waiting.pop() {
        let fail = |problem| DocumentError::at(origin, problem);
        let head = Head::read(&json).map_err(|error| fail(error.into()))?;
        let list = head.kind.as_deref().and_then(|kind| kind.strip_suffix("List")).zip(head.items);
        let Some((item_kind, items)) = list else {
            found.push(Item { pointer, json });
            continue;
        };
        let api_version = head.api_version.as_deref().unwrap_or_default();
        let items = split(&json, items).map_err(|error| fail(error.into()))?;
        for (index, item) in items.into_iter().enumerate().rev() {
            let text = item.of(&json);
            if !text.starts_with(b"{") {
                return Err(fail(Problem::BadItem(index + 1)));
            }
            let json = named(text, api_version, item_kind).map_err(|error| fail(error.into()))?;
            waiting.push(Item { pointer: format!("{pointer}/items/{index}"), json });
        }
    }
    Ok(found)
}

fn split(json: &[u8], list: Span) -> Result<Vec<Span>, JsonError> {
    let mut items = Vec::new();
    let mut cursor = Cursor::starting_at(json, list.start);
    cursor.expect(b'[')?;
    while cursor.peek()? != b']' {
        if !items.is_empty() {
            cursor.expect(b',')?;
        }
        items.push(cursor.skip_value()?);
    }
    Ok(items)
}

/// An item with the kind and version of its typed list, where it has none itself.
fn named(item: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, JsonError> {
    let head = Head::read(item)?;
    if kind.is_empty() || head.kind.is_some() {
        return Ok(item.to_vec());
    }
    let mut cursor = Cursor::new(item);
    cursor.expect(b'{')?;
    let comma = if cursor.peek()? == b'}' { "" } else { "," };
    let mut out = format!("{{\"kind\":{}", serde_json::Value::from(kind));
    if head.api_version.is_none() {
        out.push_str(&format!(",\"apiVersion\":{}", serde_json::Value::from(api_version)));
    }
    out.push_str(comma);
    let mut out = out.into_bytes();
    out.extend_from_slice(&item[cursor.at..]);
    Ok(out)
}
