//! Who changed a target, as far as that is known. Never a guess.
//!
//! The admission webhook names users, but only of writes that came through it. `managedFields` names
//! managers of fields, but any writer can give any name, and what is written past the API server leaves
//! them as they were: an entry that is older than the last approved content did not make the change.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use crate::core::canonical::object::{Object, member};
use crate::core::canonical::tree::{Kind, NodeId, ROOT, Tree};
use crate::core::hash::ContentHash;
use crate::core::json::{Cursor, JsonError, Span};
use crate::core::message::clean;

/// Longest name given, in characters: whoever writes chooses it.
const MAX_NAME: usize = 128;
/// Most names given where several come into question.
const MAX_NAMED: usize = 4;

/// Who did it, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// The admission webhook saw a write with exactly this content.
    ObservedAtAdmission {
        /// User name, as the API server authenticated it.
        user: String,
        /// `options.fieldManager`, empty when absent.
        manager: String,
        /// When it was seen.
        at: Timestamp,
        /// Whether that write was let through. When it was refused, the same content came otherwise,
        /// not necessarily by the same user.
        allowed: bool,
    },
    /// One entry of `managedFields` owns every changed path, and is the newest that owns any. Any writer
    /// can give any name.
    FieldManager {
        /// The manager.
        manager: String,
        /// `Apply` or `Update`.
        operation: String,
        /// Subresource through which it wrote, empty for the object itself.
        subresource: String,
        /// When, as the API server noted it, to the second.
        at: Timestamp,
        /// Whether that is known to lie after the last look that showed approved content, and all changed
        /// paths are known.
        sure: bool,
    },
    /// It is not known.
    Unknown {
        /// Why not, as a clause.
        why: String,
    },
}

impl Default for Attribution {
    fn default() -> Self {
        Self::unknown("nothing was read that could tell")
    }
}

impl Attribution {
    fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// How it is known: a stable word for records.
    #[must_use]
    pub const fn how(&self) -> &'static str {
        match self {
            Self::ObservedAtAdmission { .. } => "observed at admission",
            Self::FieldManager { .. } => "field manager",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Who it was, for people; `None` where that is not known.
    #[must_use]
    pub fn actor(&self) -> Option<String> {
        match self {
            Self::ObservedAtAdmission { allowed: true, .. } | Self::FieldManager { .. } => {
                Some(self.to_string())
            }
            Self::ObservedAtAdmission { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The field manager, or the user where that alone is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::ObservedAtAdmission { user, manager, allowed: true, .. } => {
                Some(if manager.is_empty() { user } else { manager })
            }
            Self::FieldManager { manager, .. } => Some(manager),
            Self::ObservedAtAdmission { .. } | Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ObservedAtAdmission { user, manager, allowed: true, .. } => {
                write!(f, "user {}", clean(user, MAX_NAME))?;
                if !manager.is_empty() {
                    write!(f, " as field manager {}", clean(manager, MAX_NAME))?;
                }
                f.write_str(" (observed at admission)")
            }
            Self::ObservedAtAdmission { user, at, .. } => {
                let user = clean(user, MAX_NAME);
                write!(f, "unknown (the same content was refused to user {user} at {at:.0})")
            }
            Self::FieldManager { manager, operation, subresource, at, sure } => {
                write!(f, "field manager {} ({operation}", clean(manager, MAX_NAME))?;
                if !subresource.is_empty() {
                    write!(f, " of {}", clean(subresource, MAX_NAME))?;
                }
                write!(f, " at {at:.0}{})", if *sure { "" } else { ", not certain" })
            }
            Self::Unknown { why } => write!(f, "unknown ({why})"),
        }
    }
}

/// A write that the admission webhook saw, of those that are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// User name, as the API server authenticated it.
    pub user: String,
    /// `options.fieldManager`, empty when absent.
    pub manager: String,
    /// Hash of the content that would be stored.
    pub image: ContentHash,
    /// When it was seen.
    pub at: Timestamp,
    /// Whether it was let through.
    pub allowed: bool,
    /// Whether the review came from the API server for certain.
    pub authenticated: bool,
}

/// What is known about a change of an object, to find out who made it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The object as it is now, as the API server wrote it; `None` when it is gone.
    pub object: Option<&'a [u8]>,
    /// JSON Pointers to what changed, from the object's root.
    pub paths: &'a [String],
    /// Whether there are more changed paths than these.
    pub more: bool,
    /// Hash of the content as it is now; `None` when the object is gone, and for Secrets.
    pub hash: Option<ContentHash>,
    /// Writes to this object that the admission webhook saw, in any order.
    pub observed: &'a [Observed],
    /// When the content was last seen as approved ([`super::book::Book::last_clean`]).
    pub last_clean: Option<Timestamp>,
}

/// Who made the change.
#[must_use]
pub fn attribute(evidence: &Evidence<'_>) -> Attribution {
    let by_field = by_field_manager(evidence);
    if let Some(observed) = by_review(evidence, true, &by_field) {
        return observed;
    }
    match by_field {
        Attribution::Unknown { .. } => by_review(evidence, false, &by_field).unwrap_or(by_field),
        known => known,
    }
}

/// What reviews of this content say, of those that were let through or of those that were refused.
fn by_review(evidence: &Evidence<'_>, allowed: bool, by_field: &Attribution) -> Option<Attribution> {
    let hash = evidence.hash?;
    let is_of_change = |seen: &&Observed| {
        seen.image == hash
            && seen.allowed == allowed
            // The review came before the write; whoever wrote it before it was last approved is not meant.
            && evidence.last_clean.is_none_or(|clean| seen.at.as_second() >= clean.as_second())
            // Any pod can forge a review that nobody authenticated, but hardly managedFields with it.
            && (seen.authenticated || (allowed && by_field.name() == Some(seen.manager.as_str())))
    };
    let meant: Vec<&Observed> = evidence.observed.iter().filter(is_of_change).collect();
    let newest = meant.iter().max_by_key(|seen| seen.at)?;
    let users: BTreeSet<&str> = meant.iter().map(|seen| seen.user.as_str()).collect();
    if users.len() > 1 {
        let what = if allowed { "wrote" } else { "were refused" };
        return Some(Attribution::unknown(format!("users {} {what} the same content", named(&users))));
    }
    Some(Attribution::ObservedAtAdmission {
        user: newest.user.clone(),
        manager: newest.manager.clone(),
        at: newest.at,
        allowed,
    })
}

fn named(names: &BTreeSet<&str>) -> String {
    let some: Vec<String> = names.iter().take(MAX_NAMED).map(|name| clean(name, MAX_NAME)).collect();
    let more = if names.len() > MAX_NAMED { " and others" } else { "" };
    format!("{}{more}", some.join(" and "))
}

/// One entry of `managedFields`.
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    at: Option<Timestamp>,
    /// Where the entry stands, and its fields.
    id: NodeId,
    fields: NodeId,
}

fn by_field_manager(evidence: &Evidence<'_>) -> Attribution {
    let Some(object) = evidence.object else {
        return Attribution::unknown("who deletes an object leaves no trace in it");
    };
    if evidence.paths.is_empty() {
        return Attribution::unknown("it is not known what changed");
    }
    match owner(object, evidence.paths) {
        Ok(Ok(entry)) => judged(&entry, evidence),
        Ok(Err(why)) => Attribution::unknown(why),
        Err(_) => Attribution::unknown("its managedFields cannot be read"),
    }
}

/// What the newest owner of all that changed comes to.
fn judged(entry: &Entry, evidence: &Evidence<'_>) -> Attribution {
    let manager = clean(&entry.manager, MAX_NAME);
    let Some(at) = entry.at else {
        return Attribution::unknown(format!(
            "field manager {manager} owns what changed, since nobody knows when"
        ));
    };
    // The API server notes whole seconds, and so do we: within one second nothing can be told.
    if evidence.last_clean.is_some_and(|clean| at.as_second() <= clean.as_second()) {
        return Attribution::unknown(format!(
            "written past the API server, or too soon after it was last approved to tell: {manager}, which \
             owns what changed, wrote at {at:.0}"
        ));
    }
    Attribution::FieldManager {
        manager,
        operation: clean(&entry.operation, MAX_NAME),
        subresource: clean(&entry.subresource, MAX_NAME),
        at,
        sure: evidence.last_clean.is_some() && !evidence.more,
    }
}

/// The newest owner of all changed paths; or why there is no one such.
fn owner(object: &[u8], paths: &[String]) -> Result<Result<Entry, String>, JsonError> {
    let Some(managed) = managed_fields(object)? else {
        return Ok(Err("it has no managedFields".to_owned()));
    };
    let whole = Tree::read(object, Span { start: 0, end: object.len() })?;
    let mut entries = entries(&managed)?;
    let mut owners: BTreeSet<usize> = BTreeSet::new();
    let mut unowned = None;
    for path in paths {
        let newest = newest_owners(&managed, &entries, &whole, path)?;
        if newest.is_empty() {
            unowned.get_or_insert(path);
        }
        owners.extend(newest);
    }
    let names: BTreeSet<&str> = owners.iter().map(|nth| entries[*nth].manager.as_str()).collect();
    if let Some(path) = unowned {
        let others =
            if names.is_empty() { String::new() } else { format!(", and {} other paths", named(&names)) };
        return Ok(Err(format!("no field manager owns {path}{others}")));
    }
    if names.len() > 1 {
        return Ok(Err(format!("field managers {} each own what changed", named(&names))));
    }
    // One manager may have several entries: one for each operation, version and subresource.
    let newest = owners.iter().copied().max_by_key(|nth| entries[*nth].at);
    Ok(match newest {
        Some(nth) => Ok(entries.swap_remove(nth)),
        None => Err("no field manager owns what changed".to_owned()),
    })
}

/// The managers of fields to whom a write of an object can be put down, for each of the paths that it changed: the newest
/// owner of the path, or where the write took it away, whoever is noted to have written just now. Each with its subresource
/// in brackets, when it wrote through one; nobody where that is not known. An API server notes nobody for taking fields
/// away alone: it takes them out of the entries of their owners, and leaves the times of these as they were.
///
/// A path is a JSON Pointer in which an item of a list may be named as `[field=value]`.
///
/// # Errors
/// When one of the two objects cannot be read.
pub(crate) fn writers(old: &[u8], new: &[u8], paths: &[String]) -> Result<Vec<BTreeSet<String>>, JsonError> {
    let Some(managed) = managed_fields(new)? else { return Ok(vec![BTreeSet::new(); paths.len()]) };
    let whole = Tree::read(new, Span { start: 0, end: new.len() })?;
    let entries = entries(&managed)?;
    let before = managed_fields(old)?;
    let mut known = BTreeSet::new();
    if let Some(before) = &before {
        known.extend(self::entries(before)?.iter().map(|entry| noted(before, entry)));
    }
    let is_new = |nth: &usize| !known.contains(&noted(&managed, &entries[*nth]));
    let newly: Vec<usize> =
        (0..entries.len()).filter(is_new).filter(|nth| entries[*nth].subresource != "status").collect();
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let mut owners = newest_owners(&managed, &entries, &whole, path)?;
        if owners.is_empty() {
            owners.clone_from(&newly);
        }
        let name = |nth: &usize| {
            let entry = &entries[*nth];
            let manager = clean(&entry.manager, MAX_NAME);
            match entry.subresource.as_str() {
                "" => manager,
                subresource => format!("{manager} ({})", clean(subresource, MAX_NAME)),
            }
        };
        found.push(owners.iter().map(name).collect());
    }
    Ok(found)
}

/// Of whom an entry is, and when it was written last.
fn noted(managed: &Tree<'_>, entry: &Entry) -> [String; 5] {
    let text = |field| managed.field_text(entry.id, field).unwrap_or_default();
    ["manager", "operation", "subresource", "apiVersion", "time"].map(text)
}

/// The list `metadata.managedFields` of an object.
fn managed_fields(object: &[u8]) -> Result<Option<Tree<'_>>, JsonError> {
    let top = Object::read(&mut Cursor::new(object))?;
    let managed = match top.field("metadata") {
        Some(metadata) => member(object, metadata, "managedFields")?,
        None => None,
    };
    managed.map(|span| Tree::read(object, span)).transpose()
}

/// The newest of those who own a path; several where they wrote in the same second.
fn newest_owners(
    managed: &Tree<'_>,
    entries: &[Entry],
    whole: &Tree<'_>,
    path: &str,
) -> Result<Vec<usize>, JsonError> {
    let segments = segments(path);
    let mut newest: Vec<usize> = Vec::new();
    for (nth, entry) in entries.iter().enumerate() {
        if !owns(managed, entry.fields, whole, &segments)? {
            continue;
        }
        match newest.first().map(|first| entries[*first].at.cmp(&entry.at)) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) => newest.push(nth),
            Some(std::cmp::Ordering::Less) | None => newest = vec![nth],
        }
    }
    Ok(newest)
}

fn entries(managed: &Tree<'_>) -> Result<Vec<Entry>, JsonError> {
    let mut entries = Vec::new();
    if managed.kind(ROOT) != Kind::Array {
        return Ok(entries);
    }
    for id in managed.children(ROOT) {
        if managed.kind(id) != Kind::Object {
            continue;
        }
        let text = |field| managed.field_text(id, field).unwrap_or_default();
        let mut fields = None;
        for member in managed.children(id) {
            if managed.key(member)? == "fieldsV1" {
                fields = Some(member);
            }
        }
        let Some(fields) = fields else { continue };
        entries.push(Entry {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            at: text("time").parse().ok(),
            id,
            fields,
        });
    }
    Ok(entries)
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|raw| raw.replace("~1", "/").replace("~0", "~")).collect()
}

/// Whether a set of fields holds a path of the object, or something that holds it whole.
fn owns(
    managed: &Tree<'_>,
    fields: NodeId,
    object: &Tree<'_>,
    segments: &[String],
) -> Result<bool, JsonError> {
    let mut sets = vec![fields];
    let mut place = Some(ROOT);
    for segment in segments {
        let item = place.filter(|id| object.kind(*id) == Kind::Array).map(|list| object.item(list, segment));
        let mut next = Vec::new();
        for set in sets {
            for id in managed.children(set) {
                let key = managed.key(id)?;
                let is_meant = match item {
                    Some(Some(item)) => selects(&key, segment, object, item),
                    Some(None) => false,
                    None => key.strip_prefix("f:") == Some(segment.as_str()),
                };
                if is_meant {
                    next.push(id);
                }
            }
        }
        // A set without members stands for all that lies under it.
        if next.iter().any(|id| managed.kind(*id) == Kind::Object && managed.children(*id).next().is_none()) {
            return Ok(true);
        }
        if next.is_empty() {
            return Ok(false);
        }
        sets = next;
        place = match (item, place) {
            (Some(item), _) => item,
            (None, Some(id)) if object.kind(id) == Kind::Object => object.member(id, segment)?,
            (None, _) => None,
        };
    }
    Ok(!segments.is_empty())
}

/// Whether a key of a set of fields means this item of a list: `k:{"name":"app"}` by fields, `v:"x"` by
/// value, `i:0` by place.
fn selects(key: &str, place: &str, object: &Tree<'_>, item: NodeId) -> bool {
    let read = |text: &str| -> Option<String> {
        let tree = Tree::read(text.as_bytes(), Span { start: 0, end: text.len() }).ok()?;
        tree.scalar_text(ROOT)
    };
    if let Some(index) = key.strip_prefix("i:") {
        return index == place;
    }
    if let Some(value) = key.strip_prefix("v:") {
        return read(value).is_some_and(|value| object.scalar_text(item) == Some(value));
    }
    let Some(text) = key.strip_prefix("k:") else { return false };
    let Ok(keys) = Tree::read(text.as_bytes(), Span { start: 0, end: text.len() }) else { return false };
    let mut all = keys.children(ROOT).peekable();
    all.peek().is_some()
        && all.all(|member| {
            let Ok(field) = keys.key(member) else { return false };
            let wanted = keys.scalar_text(member);
            wanted.is_some() && object.field_text(item, &field) == wanted
        })
}

#[cfg(test)]
#[path = "attribution_tests.rs"]
mod tests;
