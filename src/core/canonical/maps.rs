//! ConfigMaps and Secrets whose values must be looked at: binary data, Secrets, `stringData`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::core::paths::{PathFilter, Step};

use super::object::Object;
use super::sink::Sink;
use super::stream::Quirks;
use super::text::write_text;
use super::tree::{Kind, ROOT, Tree};
use super::{CanonicalError, MAP_QUIRKS};

/// Go's decoder does not mind bits after the last byte, and the API server stores what it decoded.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Keys and texts of one map.
type Texts = BTreeMap<String, String>;

/// Writes the canonical form of a Secret: what is UTF-8 as text, the rest as base64.
pub(super) fn write_secret(
    object: &Object<'_>,
    filter: &PathFilter,
    sink: &mut impl Sink,
) -> Result<(), CanonicalError> {
    let mut values: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (key, encoded) in texts(object, "data", "data", filter)? {
        let bytes = decode(&encoded).ok_or(CanonicalError::NotBase64 { field: "data", key: key.clone() })?;
        values.insert(key, bytes);
    }
    // The API server merges stringData into data, so paths mean it as data.
    for (key, text) in texts(object, "stringData", "data", filter)? {
        values.insert(key, text.into_bytes());
    }
    let mut data = Texts::new();
    let mut binary = Texts::new();
    for (key, bytes) in values {
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, text),
            Err(error) => binary.insert(key, STANDARD.encode(error.as_bytes())),
        };
    }
    write_maps(&binary, &data, sink);
    Ok(())
}

/// Writes the canonical form of a ConfigMap that has `binaryData`.
pub(super) fn write_config_map(
    object: &Object<'_>,
    filter: &PathFilter,
    sink: &mut impl Sink,
) -> Result<(), CanonicalError> {
    let mut binary = Texts::new();
    for (key, encoded) in texts(object, "binaryData", "binaryData", filter)? {
        let bytes =
            decode(&encoded).ok_or(CanonicalError::NotBase64 { field: "binaryData", key: key.clone() })?;
        binary.insert(key, STANDARD.encode(bytes));
    }
    write_maps(&binary, &texts(object, "data", "data", filter)?, sink);
    Ok(())
}

/// The kept members of the map under `field`, null values as empty texts; paths read it as `path`.
fn texts(
    object: &Object<'_>,
    field: &'static str,
    path: &str,
    filter: &PathFilter,
) -> Result<Texts, CanonicalError> {
    let Some(span) = object.map(field)? else { return Ok(Texts::new()) };
    let tree = Tree::read(object.text(), span)?;
    let position = filter.descend(filter.root(), Step::Member(path));
    let quirks = Quirks { drop_null_creation_timestamp: false, ..MAP_QUIRKS };
    let chosen = tree.choose(filter, position, quirks)?;
    let mut texts = Texts::new();
    if !chosen.keeps(ROOT) {
        return Ok(texts);
    }
    for (key, id) in tree.sorted_members(ROOT, &chosen)? {
        let text = if tree.is_null(id) {
            Some(String::new())
        } else if tree.kind(id) == Kind::Scalar && tree.value(id).starts_with(b"\"") {
            tree.scalar_text(id)
        } else {
            None
        };
        let text = text.ok_or_else(|| CanonicalError::NotText { field, key: key.to_string() })?;
        texts.insert(key.into_owned(), text);
    }
    Ok(texts)
}

/// Base64 as Go reads it: line breaks are skipped, as `base64` and YAML blocks leave them.
pub(crate) fn decode(encoded: &str) -> Option<Vec<u8>> {
    if encoded.contains(['\r', '\n']) {
        LENIENT.decode(encoded.replace(['\r', '\n'], "")).ok()
    } else {
        LENIENT.decode(encoded).ok()
    }
}

fn write_maps(binary: &Texts, data: &Texts, sink: &mut impl Sink) {
    if binary.is_empty() {
        return write_map(data, sink);
    }
    sink.put(b"{\"binaryData\": ");
    write_map(binary, sink);
    sink.put(b", \"data\": ");
    write_map(data, sink);
    sink.put(b"}");
}

fn write_map(map: &Texts, sink: &mut impl Sink) {
    sink.put(b"{");
    for (place, (key, text)) in map.iter().enumerate() {
        if place > 0 {
            sink.put(b", ");
        }
        write_text(key, sink);
        sink.put(b": ");
        write_text(text, sink);
    }
    sink.put(b"}");
}
