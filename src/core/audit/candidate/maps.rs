//! ConfigMaps and Secrets as content of each other and of other kinds.
//!
//! Both hold texts and bytes under keys, in different clothes: a ConfigMap has texts under `data` and base64
//! under `binaryData`, a Secret has base64 under `data`. What becomes of a Secret stands under `data` alone,
//! so that one field is what is written.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::core::canonical::object::Object;
use crate::core::canonical::{CanonicalError, decode_base64};
use crate::core::guard::Target;
use crate::core::json::{Cursor, Span};
use crate::core::scope::ScopeKind;

use super::{NotACandidate, Reading, quoted, with, with_parameters};

/// Keys and their bytes.
type Values = BTreeMap<String, Vec<u8>>;

/// The members of the map at `span`, null as the empty text.
pub(super) fn texts(
    object: &Object<'_>,
    span: Span,
    field: &'static str,
) -> Result<BTreeMap<String, String>, CanonicalError> {
    let mut cursor = Cursor::starting_at(&object.text()[..span.end], span.start);
    let mut members = cursor.enter_object()?;
    let mut texts = BTreeMap::new();
    while let Some(key) = cursor.next_member(&mut members)? {
        let key = key.decode(object.text())?.into_owned();
        let value = match cursor.peek()? {
            b'"' => cursor.string()?.decode(object.text())?.into_owned(),
            _ if cursor.skip_value()?.of(object.text()) == b"null" => String::new(),
            _ => return Err(CanonicalError::NotText { field, key }),
        };
        texts.insert(key, value);
    }
    Ok(texts)
}

/// The map under `field`; empty when it is absent or null.
fn map(object: &Object<'_>, field: &'static str) -> Result<BTreeMap<String, String>, CanonicalError> {
    object.map(field)?.map(|span| texts(object, span, field)).transpose().map(Option::unwrap_or_default)
}

fn plain(object: &Object<'_>, field: &'static str) -> Result<Values, CanonicalError> {
    Ok(map(object, field)?.into_iter().map(|(key, text)| (key, text.into_bytes())).collect())
}

fn decoded(object: &Object<'_>, field: &'static str) -> Result<Values, CanonicalError> {
    let decode = |(key, text): (String, String)| match decode_base64(&text) {
        Some(bytes) => Ok((key, bytes)),
        None => Err(CanonicalError::NotBase64 { field, key }),
    };
    map(object, field)?.into_iter().map(decode).collect()
}

/// The values of a Secret as the API server would store them: `stringData` merged into `data`.
pub(super) fn stored_secret(object: &Object<'_>) -> Result<Values, CanonicalError> {
    let mut values = decoded(object, "data")?;
    values.extend(plain(object, "stringData")?);
    Ok(values)
}

/// The values of a ConfigMap, or of the pinned value of a Secret, which looks the same.
pub(super) fn stored_config_map(object: &Object<'_>) -> Result<Values, CanonicalError> {
    let mut values = decoded(object, "binaryData")?;
    values.extend(plain(object, "data")?);
    Ok(values)
}

/// Values as the `data` of a Secret.
pub(super) fn encoded(values: &Values) -> Vec<u8> {
    written(values.iter().map(|(key, bytes)| (key, STANDARD.encode(bytes))))
}

fn written<'a>(members: impl Iterator<Item = (&'a String, String)>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (key, text) in members {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(&quoted(key));
        out.push(b':');
        out.extend_from_slice(&quoted(&text));
    }
    out.push(b'}');
    out
}

/// The data of a live ConfigMap as content of the target.
pub(super) fn of_config_map(object: &Object<'_>, target: &Target, kind: ScopeKind) -> Reading {
    if kind == ScopeKind::ConfigMap {
        return Ok(config_map(object, target)?);
    }
    of_values(&stored_config_map(object)?, target, kind)
}

/// The data of a live Secret as content of the target.
pub(super) fn of_secret(object: &Object<'_>, target: &Target, kind: ScopeKind) -> Reading {
    of_values(&stored_secret(object)?, target, kind)
}

fn of_values(values: &Values, target: &Target, kind: ScopeKind) -> Reading {
    if kind == ScopeKind::Secret {
        return Ok(with(target, &[("data", &encoded(values))]));
    }
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
    let binary: Vec<&String> =
        values.iter().filter(|(_, bytes)| text(bytes).is_none()).map(|(key, _)| key).collect();
    let data = written(values.iter().filter_map(|(key, bytes)| Some((key, text(bytes)?))));
    match (kind, binary.first()) {
        (ScopeKind::ConfigMap, None) => Ok(with(target, &[("data", &data)])),
        (ScopeKind::ConfigMap, Some(_)) => {
            let bytes = values.iter().filter(|(key, _)| binary.contains(key));
            let bytes = written(bytes.map(|(key, bytes)| (key, STANDARD.encode(bytes))));
            Ok(with(target, &[("data", &data), ("binaryData", &bytes)]))
        }
        (_, Some(key)) => Err(NotACandidate::Binary((*key).clone(), target.kind.to_string())),
        (ScopeKind::GamaConfig, None) => Ok(with_parameters(target, &data)),
        (_, None) => Ok(with(target, &[("spec", &data)])),
    }
}

/// A ConfigMap with `data` and `binaryData` of the object, as they stand.
fn config_map(object: &Object<'_>, target: &Target) -> Result<Vec<u8>, CanonicalError> {
    let mut fields = Vec::new();
    for field in ["data", "binaryData"] {
        if let Some(span) = object.map(field)? {
            fields.push((field, span.of(object.text())));
        }
    }
    Ok(with(target, &fields))
}

/// The readings of a document that is no manifest as content of a ConfigMap.
///
/// With a map under `data` or `binaryData` these are its fields: no value of a ConfigMap is a map.
pub(super) fn bare_config_map(object: &Object<'_>, target: &Target) -> Reading {
    if ["data", "binaryData"].into_iter().any(|field| is_map(object, field)) {
        return Ok(config_map(object, target)?);
    }
    Ok(with(target, &[("data", object.raw())]))
}

/// The readings of a document that is no manifest as content of a Secret, with maps told as above.
/// `{data: ...}` may hold base64, as an object does, or text, as the pinned value does.
pub(super) fn bare_secret(object: &Object<'_>, target: &Target) -> Vec<Reading> {
    let reading = |values: Result<Values, CanonicalError>| Ok(with(target, &[("data", &encoded(&values?))]));
    let [data, binary, string] = ["data", "binaryData", "stringData"].map(|field| is_map(object, field));
    match (data, string) {
        _ if binary => vec![reading(stored_config_map(object))],
        (true, false) => vec![reading(stored_secret(object)), reading(stored_config_map(object))],
        (_, true) => vec![reading(stored_secret(object))],
        (false, false) => {
            let bytes = |(key, text): (String, String)| (key, text.into_bytes());
            let values = texts(object, object.span(), "data");
            vec![reading(values.map(|values| values.into_iter().map(bytes).collect()))]
        }
    }
}

fn is_map(object: &Object<'_>, field: &str) -> bool {
    object.field(field).is_some_and(|span| span.of(object.text()).starts_with(b"{"))
}
