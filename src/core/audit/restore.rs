//! How approved content is put back: which write, of exactly what.
//!
//! A patch replaces what the guard pins and nothing else, and only of the very object that was looked at:
//! it tests uid and resource version, so that whoever writes between look and write is not undone
//! unseen. What is gone is made again; what the API server lets nobody change (`immutable: true`) is deleted
//! and made again. Whether what comes out is approved is not reasoned about here: the caller hashes
//! [`Planned::result`], or, for kinds with defaults, what a dry run of the write would store.

use std::fmt;

use crate::core::canonical::object::{Object, member};
use crate::core::guard::Target;
use crate::core::json::{Cursor, JsonError, Span};
use crate::core::rewrite::edit::Edits;
use crate::core::rewrite::restore::{Old, Unrestorable, edits};
use crate::core::scope::Scope;

/// What an object says of its own past: a new object must not claim it.
const PAST: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];
/// What would have others act on an object made from a source: the garbage collector, by owners that are
/// gone; a deletion, by finalizers whose controllers do not know it.
const BONDS: [&str; 2] = ["ownerReferences", "finalizers"];

/// Types of Secrets, as JSON, that say no more than which keys stand in it.
const HARMLESS: [&str; 6] = [
    "\"Opaque\"",
    "\"kubernetes.io/basic-auth\"",
    "\"kubernetes.io/dockercfg\"",
    "\"kubernetes.io/dockerconfigjson\"",
    "\"kubernetes.io/ssh-auth\"",
    "\"kubernetes.io/tls\"",
];

/// A write that puts approved content back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// An RFC 6902 patch of the object that was looked at.
    Patch(Vec<u8>),
    /// A new object.
    Create(Vec<u8>),
    /// The object that was looked at cannot be changed: it is deleted, then made again.
    Replace {
        /// Its uid, a precondition of deleting it.
        uid: String,
        /// Its resource version, likewise.
        resource_version: String,
        /// The new object: the old one with the approved content.
        object: Vec<u8>,
    },
}

/// A write and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The write.
    pub write: Write,
    /// The object that it makes, before the API server fills in anything.
    pub result: Vec<u8>,
}

/// Why there is no such write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unplannable {
    /// Live object or approved content is no object that can be read.
    Unreadable,
    /// What is pinned cannot be replaced without touching what is not.
    Entangled,
    /// The live object is being deleted: nothing is written to it any more.
    Terminating,
    /// It can only be deleted and made again, and finalizers would hold up its deletion.
    Held,
    /// The live object holds what is approved.
    AlreadyRight,
}

impl fmt::Display for Unplannable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "the object cannot be read",
            Self::Entangled => "what is pinned cannot be put back without touching what is not",
            Self::Terminating => "the object is being deleted",
            Self::Held => "the object must be deleted and made again, which its finalizers hold up",
            Self::AlreadyRight => "the object holds the approved content",
        })
    }
}

impl From<JsonError> for Unplannable {
    fn from(_: JsonError) -> Self {
        Self::Unreadable
    }
}

impl From<Unrestorable> for Unplannable {
    fn from(problem: Unrestorable) -> Self {
        match problem {
            Unrestorable::Unreadable => Self::Unreadable,
            Unrestorable::Entangled => Self::Entangled,
        }
    }
}

/// Where approved content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stood in the cluster as the target; its metadata was not kept.
    Stored,
    /// A source that anybody may fill: only what the guard pins of it is vouched for, by its hash.
    Source,
}

/// The write that gives the live object (`None` when there is none) what `scope` pins of `approved`, an
/// object of the target's kind. Of what comes from a source nothing else is written: no label, no annotation, no
/// container beside the one that is pinned.
///
/// # Errors
/// [`Unplannable`] when there is none, or none is needed.
pub fn plan(
    live: Option<&[u8]>,
    approved: &[u8],
    origin: Origin,
    target: &Target,
    scope: &Scope,
) -> Result<Planned, Unplannable> {
    let Some(live) = live else {
        let object = match origin {
            Origin::Stored => fresh(approved, target, &BONDS)?,
            Origin::Source => pinned(approved, target, scope)?,
        };
        return Ok(Planned { write: Write::Create(object.clone()), result: object });
    };
    let (old, new) = (read(approved)?, read(live)?);
    let known = Identity::of(&new)?;
    if known.is_terminating {
        return Err(Unplannable::Terminating);
    }
    let edits = edits(&old, &new, scope, origin.into())?;
    if edits.is_empty() {
        return Err(Unplannable::AlreadyRight);
    }
    let result = edits.apply(live)?;
    if known.is_immutable && known.has_finalizers {
        return Err(Unplannable::Held);
    }
    if known.is_immutable {
        let object = fresh(&result, target, &[])?;
        let write = Write::Replace { uid: known.uid, resource_version: known.resource_version, object };
        return Ok(Planned { write, result });
    }
    let mut operations = vec![
        tested("/metadata/uid", &known.uid),
        tested("/metadata/resourceVersion", &known.resource_version),
    ];
    edits.write_operations("", &mut operations);
    let mut patch = vec![b'['];
    patch.extend(operations.join(&b','));
    patch.push(b']');
    Ok(Planned { write: Write::Patch(patch), result })
}

/// Whether an object is being deleted.
///
/// # Errors
/// When it cannot be read.
pub fn is_terminating(object: &[u8]) -> Result<bool, JsonError> {
    identity(object).map(|known| known.is_terminating)
}

/// Whether somebody has written, deleted or made the object between two reads of it (`None`: there was none),
/// so that a write planned on the first was bound to be refused. What cannot be read tells nothing.
#[must_use]
pub fn has_moved_on(before: Option<&[u8]>, now: Option<&[u8]>) -> bool {
    let version = |object: &[u8]| identity(object).ok().map(|known| (known.uid, known.resource_version));
    match (before, now) {
        (None, None) => false,
        (Some(before), Some(now)) => {
            version(before).zip(version(now)).is_some_and(|(before, now)| before != now)
        }
        (None, Some(_)) | (Some(_), None) => true,
    }
}

/// What an object says of itself.
///
/// # Errors
/// When it cannot be read.
pub fn identity(object: &[u8]) -> Result<Identity, JsonError> {
    Identity::of(&read(object)?)
}

fn read(object: &[u8]) -> Result<Object<'_>, JsonError> {
    let mut cursor = Cursor::new(object);
    let read = Object::read(&mut cursor)?;
    cursor.finish()?;
    Ok(read)
}

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.uid`, empty when absent.
    pub uid: String,
    /// `metadata.resourceVersion`, likewise.
    pub resource_version: String,
    /// Whether its deletion has begun.
    pub is_terminating: bool,
    /// Whether the API server lets nobody change its content.
    pub is_immutable: bool,
    /// Whether something must be done before a deletion of it ends.
    pub has_finalizers: bool,
}

impl Identity {
    fn of(object: &Object<'_>) -> Result<Self, JsonError> {
        let text = object.text();
        let metadata = object.field("metadata");
        let within = |name| metadata.map_or(Ok(None), |span| member(text, span, name));
        let string = |span: Option<Span>| match span {
            Some(span) if span.of(text).starts_with(b"\"") => {
                let raw = Cursor::starting_at(&text[..span.end], span.start).string()?;
                raw.decode(text).map(|text| text.into_owned())
            }
            _ => Ok(String::new()),
        };
        Ok(Self {
            uid: string(within("uid")?)?,
            resource_version: string(within("resourceVersion")?)?,
            is_terminating: within("deletionTimestamp")?.is_some_and(|span| span.of(text) != b"null"),
            has_finalizers: within("finalizers")?
                .is_some_and(|span| !matches!(span.of(text), b"null" | b"[]")),
            is_immutable: object.field("immutable").is_some_and(|span| span.of(text) == b"true"),
        })
    }
}

/// A new object of the target's name that holds what is pinned of `approved`, and nothing else. What a Secret is
/// for goes along where that gives it no power: a token's would have the control plane fill it.
fn pinned(approved: &[u8], target: &Target, scope: &Scope) -> Result<Vec<u8>, Unplannable> {
    let named = fresh(b"{\"metadata\":{}}", target, &[])?;
    let (old, new) = (read(approved)?, read(&named)?);
    let object = edits(&old, &new, scope, Old::Foreign)?.apply(&named)?;
    let kind = old.field("type").map(|span| span.of(old.text())).filter(|_| scope.is_secret());
    let Some(kind) = kind.filter(|kind| HARMLESS.iter().any(|known| *kind == known.as_bytes())) else {
        return Ok(object);
    };
    let mut edits = Edits::default();
    edits.set("type", kind.to_vec());
    Ok(edits.apply(&object)?)
}

impl From<Origin> for Old {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Stored => Self::Stored,
            Origin::Source => Self::Foreign,
        }
    }
}

/// The object as a new one of the target's name, without `left_out` of its metadata, without status.
fn fresh(object: &[u8], target: &Target, left_out: &[&str]) -> Result<Vec<u8>, JsonError> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string().into_bytes();
    let mut metadata = Edits::default();
    for name in PAST.iter().chain(left_out) {
        metadata.remove(name);
    }
    metadata.set("name", quoted(&target.name));
    match &target.namespace {
        Some(namespace) => metadata.set("namespace", quoted(namespace)),
        None => metadata.remove("namespace"),
    }
    let mut edits = Edits::default();
    edits.set("apiVersion", quoted(&target.api_version()));
    edits.set("kind", quoted(&target.kind));
    edits.remove("status");
    edits.within("metadata", metadata);
    edits.apply(object)
}

fn tested(path: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"op":"test","path":"{path}","value":{}}}"#, serde_json::Value::from(value)).into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::canonical::hash_object;
    use crate::core::paths::PathFilter;

    fn target(group: &str, kind: &str, resource: &str) -> Target {
        Target {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: resource.into(),
            namespace: Some("n".into()),
            name: "x".into(),
        }
    }

    fn config_map() -> Target {
        target("", "ConfigMap", "configmaps")
    }

    fn scope(kind: &str, filter: PathFilter) -> Scope {
        Scope::new("", kind, filter)
    }

    const LIVE: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"n","uid":"u","resourceVersion":"7","labels":{"a":"b"}},"data":{"limit":"9","note":"mine"}}"#;

    fn patched(live: &str, write: &Write) -> serde_json::Value {
        let Write::Patch(patch) = write else { unreachable!("no patch: {write:?}") };
        let mut object: serde_json::Value = serde_json::from_str(live).unwrap();
        json_patch::patch(&mut object, &serde_json::from_slice::<json_patch::Patch>(patch).unwrap()).unwrap();
        object
    }

    #[test]
    fn a_patch_replaces_what_is_pinned_of_exactly_the_object_that_was_looked_at() {
        let approved = br#"{"data":{"limit":"1"}}"#;
        let filter = PathFilter::ignoring(&["/data/note"]).unwrap();
        let scope = scope("ConfigMap", filter);
        let planned = plan(Some(LIVE.as_bytes()), approved, Origin::Source, &config_map(), &scope).unwrap();
        let Write::Patch(patch) = &planned.write else { unreachable!() };
        assert_eq!(
            String::from_utf8_lossy(patch),
            r#"[{"op":"test","path":"/metadata/uid","value":"u"},{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"add","path":"/data/limit","value":"1"}]"#
        );
        let after = patched(LIVE, &planned.write);
        assert_eq!(after["data"], serde_json::json!({"limit": "1", "note": "mine"}));
        assert_eq!(hash_object(&planned.result, &scope), hash_object(approved, &scope));
    }

    #[test]
    fn another_version_of_the_object_is_not_patched() {
        let scope = scope("ConfigMap", PathFilter::everything());
        let planned =
            plan(Some(LIVE.as_bytes()), br#"{"data":{}}"#, Origin::Source, &config_map(), &scope).unwrap();
        let Write::Patch(patch) = &planned.write else { unreachable!() };
        let mut moved: serde_json::Value = serde_json::from_str(&LIVE.replace("\"7\"", "\"8\"")).unwrap();
        json_patch::patch(&mut moved, &serde_json::from_slice::<json_patch::Patch>(patch).unwrap())
            .unwrap_err();
    }

    #[test]
    fn a_secret_is_put_back_as_well() {
        let live = LIVE.replace("ConfigMap", "Secret");
        let scope = scope("Secret", PathFilter::everything());
        let approved = br#"{"data":{"password":"cA=="}}"#;
        let planned =
            plan(Some(live.as_bytes()), approved, Origin::Source, &target("", "Secret", "secrets"), &scope)
                .unwrap();
        let after = patched(&live, &planned.write);
        assert_eq!(after["data"], serde_json::json!({"password": "cA=="}));
        assert_eq!(hash_object(&planned.result, &scope), hash_object(approved, &scope));
    }

    #[test]
    fn what_is_gone_is_made_again_without_a_past_and_without_owners() {
        let manifest = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","uid":"old","resourceVersion":"3","labels":{"a":"b"},"ownerReferences":[{}],"finalizers":["f"]},"data":{"a":"1"},"status":{}}"#;
        let scope = scope("ConfigMap", PathFilter::everything());
        let planned = plan(None, manifest, Origin::Source, &config_map(), &scope).unwrap();
        let Write::Create(object) = &planned.write else { unreachable!() };
        let object: serde_json::Value = serde_json::from_slice(object).unwrap();
        assert_eq!(object["metadata"], serde_json::json!({"name": "x", "namespace": "n"}));
        assert_eq!((&object["data"]["a"], object.get("status")), (&serde_json::json!("1"), None));
    }

    #[test]
    fn what_stood_in_the_cluster_is_made_again_with_all_that_stood_there() {
        let kept = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"n"},"data":{"a":"1","note":"mine"}}"#;
        let scope = scope("ConfigMap", PathFilter::ignoring(&["/data/note"]).unwrap());
        let note = |origin| {
            let planned = plan(None, kept, origin, &config_map(), &scope).unwrap();
            let object: serde_json::Value = serde_json::from_slice(&planned.result).unwrap();
            (object["data"]["a"].clone(), object["data"].get("note").cloned())
        };
        assert_eq!(note(Origin::Stored), ("1".into(), Some("mine".into())));
        assert_eq!(note(Origin::Source), ("1".into(), None), "nobody has approved it");
    }

    #[test]
    fn a_source_brings_nothing_along_that_no_hash_covers() {
        let deployment = |containers: &str| {
            format!(
                r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"x","namespace":"n","uid":"u","resourceVersion":"7"}},"spec":{{"template":{{"spec":{{"containers":[{containers}]}}}}}}}}"#
            )
        };
        let approved =
            deployment(r#"{"name":"app","image":"app:1","command":["evil"]},{"name":"spy","image":"spy:1"}"#);
        let filter = PathFilter::only(&["/spec/template/spec/containers/[name=app]/image"]).unwrap();
        let scope = Scope::new("apps", "Deployment", filter);
        let target = target("apps", "Deployment", "deployments");
        let refused = plan(None, approved.as_bytes(), Origin::Source, &target, &scope);
        assert_eq!(refused, Err(Unplannable::Entangled), "a container is not made of its image alone");
        assert!(plan(None, approved.as_bytes(), Origin::Stored, &target, &scope).is_ok());
        let live = deployment(r#"{"name":"app","image":"app:2","command":["good"]}"#);
        let planned =
            plan(Some(live.as_bytes()), approved.as_bytes(), Origin::Source, &target, &scope).unwrap();
        let after: serde_json::Value = serde_json::from_slice(&planned.result).unwrap();
        assert_eq!(
            after["spec"]["template"]["spec"]["containers"],
            serde_json::json!([{"name": "app", "image": "app:1", "command": ["good"]}])
        );
    }

    #[test]
    fn list_items_are_made_again_without_what_the_guard_ignores_of_them() {
        let approved = br#"{"metadata":{"name":"x"},"spec":{"template":{"spec":{"containers":[{"name":"app","image":"app:1","resources":{"limits":{"cpu":"64"}}}]}}}}"#;
        let filter = PathFilter::ignoring(&["/spec/template/spec/containers/*/resources"]).unwrap();
        let scope = Scope::new("apps", "Deployment", filter);
        let target = target("apps", "Deployment", "deployments");
        let planned = plan(None, approved, Origin::Source, &target, &scope).unwrap();
        let made: serde_json::Value = serde_json::from_slice(&planned.result).unwrap();
        let containers = &made["spec"]["template"]["spec"]["containers"];
        assert_eq!(*containers, serde_json::json!([{"name": "app", "image": "app:1"}]));
        assert_eq!(hash_object(&planned.result, &scope), hash_object(approved, &scope));
    }

    #[test]
    fn a_secret_is_made_again_with_its_type_where_that_gives_no_power() {
        let made = |of_type: &str| {
            let secret = format!(
                r#"{{"type":{of_type},"metadata":{{"annotations":{{"kubernetes.io/service-account.name":"admin"}}}},"data":{{}}}}"#
            );
            let scope = scope("Secret", PathFilter::everything());
            let target = target("", "Secret", "secrets");
            let planned = plan(None, secret.as_bytes(), Origin::Source, &target, &scope).unwrap();
            serde_json::from_slice::<serde_json::Value>(&planned.result).unwrap()
        };
        assert_eq!(made("\"kubernetes.io/tls\"")["type"], "kubernetes.io/tls");
        let token = made("\"kubernetes.io/service-account-token\"");
        assert!(token.get("type").is_none() && token["metadata"].get("annotations").is_none(), "{token}");
    }

    #[test]
    fn content_alone_becomes_an_object_of_the_targets_kind() {
        let scope = scope("ConfigMap", PathFilter::everything());
        let planned = plan(None, br#"{"data":{"a":"1"}}"#, Origin::Source, &config_map(), &scope).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&planned.result).unwrap();
        let wanted = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n"}, "data": {"a": "1"}});
        assert_eq!(object, wanted);
    }

    #[test]
    fn what_nobody_may_change_is_deleted_and_made_again_as_it_was_but_for_its_content() {
        let live = LIVE.replace("\"data\"", "\"immutable\":true,\"data\"");
        let scope = scope("ConfigMap", PathFilter::everything());
        let approved = br#"{"data":{"limit":"1"}}"#;
        let planned = plan(Some(live.as_bytes()), approved, Origin::Source, &config_map(), &scope).unwrap();
        let Write::Replace { uid, resource_version, object } = &planned.write else { unreachable!() };
        assert_eq!((uid.as_str(), resource_version.as_str()), ("u", "7"));
        let object: serde_json::Value = serde_json::from_slice(object).unwrap();
        assert_eq!(object["immutable"], serde_json::json!(true));
        assert_eq!(object["data"], serde_json::json!({"limit": "1"}));
        assert_eq!(object["metadata"]["labels"], serde_json::json!({"a": "b"}));
        assert_eq!(object["metadata"].get("uid"), None);
    }

    #[test]
    fn nothing_is_written_to_what_is_being_deleted_or_right_already() {
        let scope = scope("ConfigMap", PathFilter::everything());
        let going = LIVE.replace("\"uid\"", "\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",\"uid\"");
        let refused = plan(Some(going.as_bytes()), br#"{"data":{}}"#, Origin::Source, &config_map(), &scope);
        assert_eq!(refused, Err(Unplannable::Terminating));
        let right = plan(Some(LIVE.as_bytes()), LIVE.as_bytes(), Origin::Source, &config_map(), &scope);
        assert_eq!(right, Err(Unplannable::AlreadyRight));
    }

    #[test]
    fn a_write_between_two_reads_is_told_from_a_write_that_was_refused_for_itself() {
        let at = |uid: &str, version: &str| {
            format!(r#"{{"metadata":{{"uid":"{uid}","resourceVersion":"{version}"}}}}"#).into_bytes()
        };
        let (first, second, other) = (at("u", "1"), at("u", "2"), at("v", "1"));
        assert!(!has_moved_on(Some(&first), Some(&first)));
        assert!(!has_moved_on(None, None));
        assert!(has_moved_on(Some(&first), Some(&second)), "it was written");
        assert!(has_moved_on(Some(&first), Some(&other)), "it was made anew");
        assert!(has_moved_on(Some(&first), None), "it was deleted");
        assert!(has_moved_on(None, Some(&first)), "somebody has made it");
        assert!(!has_moved_on(Some(&first), Some(b"[")), "nothing can be told");
    }
}
