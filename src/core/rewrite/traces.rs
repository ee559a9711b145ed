//! The traces that a write leaves although its content is put back: who owns the fields, and what
//! `kubectl apply` remembers.
//!
//! When nothing else changed these are put back as well. What would be stored is then what is stored, and
//! the API server makes no write of it: the resourceVersion stays, and no field gets another owner.

use crate::core::canonical::object::Object;
use crate::core::canonical::tree::{Kind, NodeId, ROOT, Tree};
use crate::core::canonical::{SPEC_QUIRKS, write_whole};
use crate::core::guard::Target;
use crate::core::json::{Cursor, JsonError, Span};

use super::edit::Edits;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Metadata that the API server itself keeps: whatever a write says of it, the old stands.
const KEPT_BY_SERVER: [&str; 7] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Groups of built-in kinds, whose `status` only the subresource of that name changes. What a custom
/// resource does with its status its CRD says.
const STATUS_APART: [&str; 6] = ["", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"];

/// The edits of the metadata of `new` that let the server see no write, when it is `old` in all but
/// traces; `None` when something else changed.
pub(super) fn edits(old: &[u8], new: &[u8], target: &Target) -> Result<Option<Edits>, JsonError> {
    let (old, new) = (Object::read(&mut Cursor::new(old))?, Object::read(&mut Cursor::new(new))?);
    if !same_fields(&old, &new, target)? {
        return Ok(None);
    }
    let (Some(before), Some(after)) = (old.field("metadata"), new.field("metadata")) else { return Ok(None) };
    let (left, right) = (Tree::read(old.text(), before)?, Tree::read(new.text(), after)?);
    if !same_metadata(&left, &right)? {
        return Ok(None);
    }
    let mut metadata = Edits::default();
    put_back(&left, &right, ROOT, ROOT, "managedFields", &mut metadata)?;
    let (notes, others) = (left.member(ROOT, "annotations")?, right.member(ROOT, "annotations")?);
    match (notes, others) {
        (None, Some(_)) => metadata.remove("annotations"),
        (Some(notes), None) => metadata.set("annotations", left.value(notes).to_vec()),
        (Some(notes), Some(others)) if left.value(notes) != right.value(others) => {
            let mut inner = Edits::default();
            put_back(&left, &right, notes, others, LAST_APPLIED, &mut inner)?;
            metadata.within("annotations", inner);
        }
        _ => {}
    }
    let mut edits = Edits::default();
    edits.within("metadata", metadata);
    Ok(Some(edits))
}

fn put_back(
    old: &Tree<'_>,
    new: &Tree<'_>,
    left: NodeId,
    right: NodeId,
    key: &str,
    edits: &mut Edits,
) -> Result<(), JsonError> {
    match (old.member(left, key)?, new.member(right, key)?) {
        (Some(left), Some(right)) if old.value(left) == new.value(right) => {}
        (Some(left), _) => edits.set(key, old.value(left).to_vec()),
        (None, Some(_)) => edits.remove(key),
        (None, None) => {}
    }
    Ok(())
}

/// Whether all top-level fields but metadata, and status where it stands apart, mean the same.
fn same_fields(old: &Object<'_>, new: &Object<'_>, target: &Target) -> Result<bool, JsonError> {
    let is_apart = STATUS_APART.contains(&target.group.as_str());
    let counts = |name: &str| name != "metadata" && !(name == "status" && is_apart);
    let meaning = |object: &Object<'_>| -> Result<Vec<(String, Vec<u8>)>, JsonError> {
        let mut fields = Vec::new();
        for (key, span) in object.fields() {
            let name = key.decode(object.text())?.into_owned();
            if counts(&name) {
                let value = canonical(object.text(), *span)?;
                fields.push((name, value));
            }
        }
        fields.retain(|(_, value)| !is_empty(value));
        fields.sort();
        Ok(fields)
    };
    Ok(meaning(old)? == meaning(new)?)
}

fn same_metadata(old: &Tree<'_>, new: &Tree<'_>) -> Result<bool, JsonError> {
    let meaning = |tree: &Tree<'_>| -> Result<Vec<(String, Vec<u8>)>, JsonError> {
        let mut members = Vec::new();
        for id in tree.children(ROOT) {
            let key = tree.key(id)?.into_owned();
            if key == "annotations" && tree.kind(id) == Kind::Object {
                for id in tree.children(id) {
                    let name = tree.key(id)?;
                    if name != LAST_APPLIED {
                        members.push((format!("annotations/{name}"), tree.value(id).to_vec()));
                    }
                }
            } else if key != "managedFields" && !KEPT_BY_SERVER.contains(&key.as_str()) {
                let value = tree.value(id);
                members.push((key, canonical(value, Span { start: 0, end: value.len() })?));
            }
        }
        members.retain(|(_, value)| !is_empty(value));
        members.sort();
        Ok(members)
    };
    Ok(meaning(old)? == meaning(new)?)
}

/// Whether a value is as good as absent to the API server, which leaves such fields out.
fn is_empty(canonical: &[u8]) -> bool {
    matches!(canonical, b"null" | b"{}" | b"[]")
}

fn canonical(text: &[u8], span: Span) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write_whole(text, span, SPEC_QUIRKS, &mut out)?;
    Ok(out)
}
