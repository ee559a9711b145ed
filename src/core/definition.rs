//! Writes to the definitions (CRDs) of guarded kinds: which of them change what guards rely on.
//!
//! Deleting a definition deletes its objects without any review, and another schema changes what stored
//! objects say, without a write to any of them. Neither can be refused without locking somebody out, so
//! both pass and are told loudly. A changed reading is never taken for approved: the hash of an object
//! that reads otherwise is another one, and no guard approves it.

use super::canonical::hash_parsed;
use super::guard::{GuardId, GuardState, Target};
use super::index::Index;
use super::message::MAX_WARNING;
use super::paths::PathFilter;
use super::registration::definitions;
use super::review::{Review, metadata_text};
use super::scope::Scope;
use super::verdict::{Attempt, Operation, Reason, ReviewError, User};

/// What may change in a definition without any object reading otherwise: how kubectl shows and finds
/// objects, and the authority of a conversion webhook, which is replaced now and then.
const HARMLESS: [&str; 8] = [
    "/spec/versions/*/additionalPrinterColumns",
    "/spec/versions/*/selectableFields",
    "/spec/versions/*/deprecated",
    "/spec/versions/*/deprecationWarning",
    "/spec/names/shortNames",
    "/spec/names/categories",
    "/spec/conversion/webhook/clientConfig/caBundle",
    "/spec/conversion/webhook/conversionReviewVersions",
];

/// Most guards that a record names.
const MAX_NAMED: usize = 20;
/// Most further guards that are told, each by an Event of its own. A kind that has more of them says so in
/// the record, and nobody reads more Events.
pub const MAX_TOLD: usize = 49;

/// A review of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionReview {
    /// `request.uid`.
    pub uid: String,
    /// Whether the definition itself is the target of a guard, which must judge it, too.
    pub guarded: bool,
    /// What to tell; `None` when nothing changes for guards.
    pub alert: Option<Alert>,
}

/// A change of a definition that guards rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What to record: regarding the first guard of the kind, or the first guard of all where the
    /// definition is one of ours.
    pub attempt: Attempt,
    /// What to tell the user: the guards by name, as many as a warning has room for, and how many more.
    pub warning: String,
    /// What to record: likewise, with more of them.
    pub message: String,
    /// The guards that are concerned as well, the first [`MAX_TOLD`]. Each is told.
    pub others: Vec<ToldGuard>,
}

/// A guard that a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldGuard {
    /// Namespace and name.
    pub id: GuardId,
    /// `metadata.uid`, empty where it is not known.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
}

impl Alert {
    /// The same for each of the other guards.
    pub fn of_others(&self) -> impl Iterator<Item = Attempt> {
        self.others.iter().map(|guard| Attempt {
            guard: guard.id.clone(),
            guard_uid: guard.uid.clone(),
            guard_generation: guard.generation,
            ..self.attempt.clone()
        })
    }
}

/// Whether a body may be a review of a definition. Cheap; the head of a review says what it is about.
#[must_use]
pub fn is_one(body: &[u8]) -> bool {
    /// The resource stands well before the object, behind texts of bounded length.
    const HEAD: usize = 1024;
    let name = definitions::RESOURCE.as_bytes();
    body[..body.len().min(HEAD)].windows(name.len()).any(|window| window == name)
}

/// Reads a review of a definition; `None` when it is about something else, or about a definition that
/// no guard relies on.
///
/// # Errors
/// [`ReviewError`] when the body is no review that can be read.
pub fn read(body: &[u8], index: &Index) -> Result<Option<DefinitionReview>, ReviewError> {
    let (mut review, _) = Review::read_head(body)?;
    if review.group != definitions::GROUP || review.resource != definitions::RESOURCE {
        return Ok(None);
    }
    review.read_rest()?;
    let Some(operation) = review.operation else { return Ok(None) };
    let object = review.old_object.as_ref().or(review.object.as_ref());
    let name = object.and_then(|object| metadata_text(object, "name").ok()).unwrap_or_default();
    if !definitions::matters(index, &name) || !review.sub_resource.is_empty() {
        return Ok(None);
    }
    let guarded = index.lookup(definitions::GROUP, definitions::RESOURCE, "", &name).next().is_some();
    let reason = match operation {
        Operation::Delete => Some(Reason::DefinitionDeleted),
        Operation::Update => (!reads_alike(&review)).then_some(Reason::DefinitionChanged),
        Operation::Create | Operation::Connect => None,
    };
    let alert = reason.and_then(|reason| alert(&review, index, &name, operation, reason));
    Ok(Some(DefinitionReview { uid: review.uid.clone(), guarded, alert }))
}

/// Whether objects read under the new definition as they did under the old one. When that cannot be
/// told, they may not.
fn reads_alike(review: &Review<'_>) -> bool {
    let Ok(filter) = PathFilter::ignoring(&HARMLESS) else { return false };
    let scope = Scope::new(definitions::GROUP, "CustomResourceDefinition", filter);
    let hash = |object: &Option<_>| object.as_ref().and_then(|object| hash_parsed(object, &scope).ok());
    let (old, new) = (hash(&review.old_object), hash(&review.object));
    old.is_some() && old == new
}

fn alert(
    review: &Review<'_>,
    index: &Index,
    name: &str,
    operation: Operation,
    reason: Reason,
) -> Option<Alert> {
    let (resource, group) = name.split_once('.')?;
    let is_ours = definitions::OWN.contains(&name);
    let concerned = || {
        index.guards().iter().filter(|state| {
            let of_kind = |target: &Target| target.group == group && target.resource == resource;
            is_ours || state.target().is_some_and(of_kind)
        })
    };
    let first = concerned().next()?;
    let others: Vec<ToldGuard> = concerned().skip(1).take(MAX_TOLD).map(told).collect();
    let (warning, message) = texts(concerned().count(), concerned(), name, is_ours, reason);
    let mut user = review.user();
    user.groups.truncate(User::MAX_GROUPS);
    let ToldGuard { id, uid, generation } = told(first);
    let object = review.old_object.as_ref().or(review.object.as_ref());
    let attempt = Attempt {
        guard: id,
        guard_uid: uid,
        guard_generation: generation,
        target: Target {
            group: definitions::GROUP.into(),
            version: review.version.as_str().into(),
            kind: "CustomResourceDefinition".into(),
            resource: definitions::RESOURCE.into(),
            namespace: None,
            name: name.into(),
        },
        target_uid: object.and_then(|object| metadata_text(object, "uid").ok()).unwrap_or_default(),
        operation,
        sub_resource: String::new(),
        dry_run: review.dry_run,
        user,
        field_manager: review.field_manager(),
        image_hash: None,
        paths: Vec::new(),
        enforcement: None,
        reason,
    };
    Some(Alert { attempt, warning, message, others })
}

fn told(state: &GuardState) -> ToldGuard {
    ToldGuard { id: state.id().clone(), uid: state.uid().as_str().to_owned(), generation: state.generation() }
}

/// What the user is told, and what is recorded: the former must be short, the latter names more guards.
fn texts<'a>(
    count: usize,
    concerned: impl Iterator<Item = &'a GuardState>,
    name: &str,
    is_ours: bool,
    reason: Reason,
) -> (String, String) {
    let what = if reason == Reason::DefinitionDeleted {
        "its deletion deletes every object of the kind without a review"
    } else {
        "another schema may change what stored objects say without a write"
    };
    let all: Vec<String> = concerned.take(MAX_NAMED).map(|state| state.id().to_string()).collect();
    let text = |named: usize| {
        let mut names = all[..named].join(", ");
        if named < count {
            names.push_str(&format!(" and {} more", count - named));
        }
        let whose = match (is_ours, count, named) {
            (true, _, 0) => "DriftGuard itself relies on".to_owned(),
            (true, _, _) => format!("DriftGuard itself relies on (guards: {names})"),
            (false, 1, 1) => format!("DriftGuard {names} guards an object of"),
            (false, _, 0) => format!("{count} DriftGuards guard objects of"),
            (false, _, _) => format!("{count} DriftGuards ({names}) guard objects of"),
        };
        format!("{whose} the kind that {name} defines: {what}")
    };
    let fits = |text: &String| text.chars().count() <= MAX_WARNING;
    let short = (0..=all.len()).rev().map(text).find(fits);
    let short = short.unwrap_or_else(|| text(0).chars().take(MAX_WARNING).collect());
    (short, text(all.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::{Value, json};

    use std::sync::Arc;

    use super::*;
    use crate::core::guard::InvalidGuard;

    fn index() -> Index {
        Index::build(vec![GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "n".into(), name: "g".into() },
            generation: 1,
            uid: "".into(),
            pauses: Default::default(),
            authorship: crate::core::guard::Authorship::Unknown,
            target: Some(Target {
                group: "example.com".into(),
                version: "v1".into(),
                kind: "Widget".into(),
                resource: "widgets".into(),
                namespace: Some("n".into()),
                name: "w".into(),
            }),
            reason: "Test",
            message: String::new(),
        }))])
    }

    fn definition(name: &str) -> Value {
        json!({"metadata": {"name": name, "uid": "d-1"}, "spec": {"versions": [
            {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}, "additionalPrinterColumns": []}]},
            "status": {"conditions": []}})
    }

    fn review(operation: &str, old: &Value, new: &Value) -> String {
        json!({"request": {
            "uid": "u", "resource": {"group": "apiextensions.k8s.io", "version": "v1", "resource": "customresourcedefinitions"},
            "operation": operation, "userInfo": {"username": "eve"}, "object": new, "oldObject": old,
        }})
        .to_string()
    }

    fn reason(operation: &str, old: &Value, new: &Value) -> Option<Reason> {
        let body = review(operation, old, new);
        read(body.as_bytes(), &index()).unwrap()?.alert.map(|alert| alert.attempt.reason)
    }

    fn changed(pointer: &str, value: Value) -> Option<Reason> {
        let old = definition("widgets.example.com");
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        reason("UPDATE", &old, &new)
    }

    #[test]
    fn a_deletion_is_told_with_who_and_which_guard() {
        let body = review("DELETE", &definition("widgets.example.com"), &Value::Null);
        assert!(is_one(body.as_bytes()));
        let read = read(body.as_bytes(), &index()).unwrap().unwrap();
        let alert = read.alert.unwrap();
        assert_eq!((read.uid.as_str(), read.guarded), ("u", false));
        assert_eq!(alert.attempt.reason, Reason::DefinitionDeleted);
        assert_eq!((alert.attempt.user.name.as_str(), alert.attempt.guard.name.as_str()), ("eve", "g"));
        assert!(alert.warning.contains("DriftGuard n/g guards an object"), "{}", alert.warning);
        assert!(alert.warning.len() <= 256, "{}", alert.warning);
    }

    fn guards(names: &[String]) -> Index {
        let first = index();
        let GuardState::Invalid(one) = &first.guards()[0] else { unreachable!() };
        let named = |name: &String| {
            GuardState::Invalid(Arc::new(InvalidGuard {
                id: GuardId { namespace: "n".into(), name: name.into() },
                ..InvalidGuard::clone(one)
            }))
        };
        Index::build(names.iter().map(named).collect())
    }

    fn alert_for(names: &[String], definition_name: &str) -> Alert {
        let body = review("DELETE", &definition(definition_name), &Value::Null);
        read(body.as_bytes(), &guards(names)).unwrap().unwrap().alert.unwrap()
    }

    #[test]
    fn every_guard_of_the_kind_is_told_and_named_as_far_as_there_is_room() {
        let three = ["a", "b", "c"].map(str::to_owned);
        let alert = alert_for(&three, "widgets.example.com");
        assert!(
            alert.warning.starts_with("3 DriftGuards (n/a, n/b, n/c) guard objects of the kind"),
            "{}",
            alert.warning
        );
        let told: Vec<GuardId> = alert.of_others().map(|attempt| attempt.guard).collect();
        assert_eq!(told.iter().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        let ours = alert_for(&three, "driftguards.terrafusion.ai");
        assert!(
            ours.warning.starts_with("DriftGuard itself relies on (guards: n/a, n/b, n/c) the kind"),
            "{}",
            ours.warning
        );
        assert_eq!(ours.others.len(), 2);
    }

    #[test]
    fn many_guards_with_long_names_stay_within_bounds() {
        let many: Vec<String> = (0..1000).map(|number| format!("{number:04}{}", "x".repeat(249))).collect();
        let alert = alert_for(&many, "widgets.example.com");
        assert!(alert.warning.starts_with("1000 DriftGuards guard objects of"), "{}", alert.warning);
        assert!(alert.warning.chars().count() <= MAX_WARNING, "{}", alert.warning);
        assert!(
            alert.message.contains("n/0001") && alert.message.contains(" and 980 more)"),
            "{}",
            alert.message
        );
        assert_eq!(alert.others.len(), MAX_TOLD);
        let short: Vec<String> = (0..1000).map(|number| format!("guard-{number:04}")).collect();
        let alert = alert_for(&short, "widgets.example.com");
        assert!(
            alert.warning.contains("n/guard-0000") && alert.warning.contains(" more) guard objects"),
            "{}",
            alert.warning
        );
        assert!(alert.warning.chars().count() <= MAX_WARNING, "{}", alert.warning);
    }

    #[test]
    fn only_changes_by_which_objects_may_read_otherwise_are_told() {
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        assert_eq!(changed(schema, json!({"type": "object", "x": 1})), Some(Reason::DefinitionChanged));
        assert_eq!(changed("/spec/versions/0/name", json!("v2")), Some(Reason::DefinitionChanged));
        assert_eq!(changed("/status/conditions", json!([{"type": "Established"}])), None);
        assert_eq!(changed("/metadata", json!({"name": "widgets.example.com", "labels": {"a": "b"}})), None);
        assert_eq!(changed("/spec/versions/0/additionalPrinterColumns", json!([{"name": "Age"}])), None);
    }

    #[test]
    fn our_own_definitions_matter_and_those_of_strangers_do_not() {
        let deleted = |name: &str| reason("DELETE", &definition(name), &Value::Null);
        assert_eq!(deleted("driftguards.terrafusion.ai"), Some(Reason::DefinitionDeleted));
        assert_eq!(deleted("gadgets.example.com"), None);
        assert_eq!(deleted("widgets.example.org"), None);
    }

    #[test]
    fn a_review_of_anything_else_is_none() {
        let body = review("DELETE", &definition("widgets.example.com"), &Value::Null);
        let other = body.replace("customresourcedefinitions", "configmaps");
        assert!(!is_one(other.as_bytes()));
        assert_eq!(read(other.as_bytes(), &index()).unwrap(), None);
    }
}
