//! What a user should know about the hash of a file, said once a run on stderr.

use super::Subject;
use crate::cli::output;
use crate::core::json::{Cursor, JsonError, Span};

/// Says what is known to part the hash of these files from that of the live objects.
pub(crate) fn tell(subjects: &[Subject]) {
    tell_defaults(subjects);
    tell_nulls(subjects);
}

/// Says once for which kinds the hash of a file is rarely the live object's.
fn tell_defaults(subjects: &[Subject]) {
    let mut kinds: Vec<&str> = subjects
        .iter()
        .filter(|subject| subject.scope.has_server_defaults())
        .map(|subject| subject.kind.as_str())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    if !kinds.is_empty() {
        output::message(&format!(
            "note: the API server fills in defaults of {}, so that a live object rarely has the hash of its file; --server hashes what it would store",
            kinds.join(", ")
        ));
    }
}

/// Client-side apply drops members that are null; the API server keeps them where a schema does not
/// say otherwise.
fn tell_nulls(subjects: &[Subject]) {
    for subject in subjects.iter().filter(|subject| !subject.scope.has_server_defaults()) {
        if has_null_member(&subject.json).unwrap_or(false) {
            output::message(&format!(
                "note: {subject} has fields that are null, which `kubectl apply` leaves out of what it stores; remove them, or apply with --server-side"
            ));
        }
    }
}

/// Whether a field outside metadata and status is null, at any depth.
fn has_null_member(json: &[u8]) -> Result<bool, JsonError> {
    let mut cursor = Cursor::new(json);
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let span = cursor.skip_value()?;
        let counts = !key.is(json, "metadata") && !key.is(json, "status");
        if counts && (span.of(json) == b"null" || has_null_inside(json, span)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_null_inside(json: &[u8], span: Span) -> Result<bool, JsonError> {
    let mut cursor = Cursor::starting_at(&json[..span.end], span.start);
    while let Ok(byte) = cursor.peek() {
        match byte {
            b'"' => {
                cursor.string()?;
            }
            // Outside strings a colon stands only behind a key.
            b':' => {
                cursor.at += 1;
                if cursor.peek()? == b'n' {
                    return Ok(true);
                }
            }
            _ => cursor.at += 1,
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn only_members_count_and_only_outside_metadata() {
        let found = |json: &str| has_null_member(json.as_bytes()).unwrap();
        assert!(found(r#"{"spec": {"a": [{"b": null}]}}"#));
        assert!(found(r#"{"data": null}"#));
        assert!(!found(r#"{"metadata": {"creationTimestamp": null}, "status": {"x": null}}"#));
        assert!(!found(r#"{"spec": {"a": [null], "b": ": null", "nn": "n"}}"#));
    }
}
