//! A `DriftGuard` as the API server sent it, its spec still raw text, and what of it is kept.
//!
//! Reading it cannot fail for anything that a spec may hold, so that one object which this version
//! does not understand stops neither a watch nor a list: it becomes an invalid guard by itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::status::EnforceAfterClean;
use crate::api::{DriftGuard, DriftGuardStatus, names};
use crate::core::audit::{ACKNOWLEDGE, RESTORE};
use crate::core::few::Few;
use crate::core::guard::GuardId;
use crate::core::kinds::KindEntry;
use crate::core::text::Text;

use super::packed::Packed;
use super::summary::Summary;

/// The annotations that anything depends on, beside the author's. Others may be larger than the object
/// (`last-applied-configuration` is), and are not kept.
const ANNOTATIONS: [&str; 6] = [
    ACKNOWLEDGE,
    RESTORE,
    names::ANNOTATION_CONTACT,
    names::ANNOTATION_RUNBOOK,
    "argocd.argoproj.io/tracking-id",
    "meta.helm.sh/release-name",
];

/// A `DriftGuard` with metadata read, and spec and status as raw JSON: what watches and lists deliver.
///
/// Of the metadata only what identifies, versions and labels an object is read: `managedFields` can
/// be larger than all the rest, and as deep as the object.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    meta: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: WireMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let WireMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
        } = metadata;
        let meta = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            ..ObjectMeta::default()
        };
        Ok(Self { meta, spec, status })
    }
}

impl Received {
    /// Namespace and name.
    pub(super) fn id(&self) -> GuardId {
        GuardId { namespace: self.namespace().into(), name: self.name().into() }
    }

    /// `metadata.namespace`.
    pub(crate) fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    /// An annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// `metadata.uid`.
    pub(crate) fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.resourceVersion`.
    pub(crate) fn resource_version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    /// `metadata.creationTimestamp`.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.meta.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// Whether its deletion has begun.
    pub(super) fn is_terminating(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// The raw spec, `null` when there is none.
    pub(super) fn spec(&self) -> &str {
        self.spec.as_deref().map_or("null", RawValue::get)
    }

    /// The status, of a guard or an exception; an empty one when there is none or when it is not ours to
    /// understand.
    pub(crate) fn status<T: Default + DeserializeOwned>(&self) -> T {
        let text = self.status.as_deref().map_or("null", RawValue::get);
        serde_json::from_str::<Option<T>>(text).ok().flatten().unwrap_or_default()
    }
}

/// What is kept of a `DriftGuard`. Clones share nearly all of it, and so do versions of one guard
/// that differ in their status alone.
#[derive(Debug, Clone)]
pub struct Stored {
    source: Arc<Source>,
    revision: Revision,
    status: Summary,
    /// What an earlier status said of the promotion of the same spec of the same guard.
    noted: Option<Box<EnforceAfterClean>>,
}

/// What decides about writes.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    id: GuardId,
    uid: Text,
    generation: i64,
    created: Option<Timestamp>,
    marks: Option<Box<Marks>>,
    spec: Packed,
    asks_for_promotion: bool,
}

impl Source {
    /// Holds once, with another guard, what many guards have in common.
    fn share(&mut self, other: &Self) {
        if self.id.namespace == other.id.namespace {
            self.id.namespace = other.id.namespace.clone();
        }
        let (Some(own), Some(other)) = (&mut self.marks, &other.marks) else { return };
        if own.labels == other.labels {
            own.labels = Arc::clone(&other.labels);
        }
        if let (Some(own), Some(other)) = (&mut own.author, &other.author)
            && own.who == other.who
        {
            own.who = other.who.clone();
        }
    }
}

/// Labels, and the annotations that are kept. Many guards have none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marks {
    labels: Labels,
    annotations: Few<(&'static str, Box<str>)>,
    author: Option<AuthorText>,
}

/// Sorted keys with their values. Guards of one team mostly have the same ones.
type Labels = Arc<[(Text, Text)]>;

/// The annotation that names the author, in two parts: who it is, which many guards share, and the rest.
#[derive(Debug, PartialEq, Eq)]
struct AuthorText {
    who: Text,
    rest: Packed,
}

impl AuthorText {
    /// Where the annotation is not as we write it, all of it is the rest.
    fn of(text: &str) -> Self {
        let (who, rest) = text.split_at(text.find(r#""at":"#).unwrap_or_default());
        Self { who: who.into(), rest: Packed::of(rest, "") }
    }
}

/// A resource version. API servers count, and a number takes no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Revision {
    Number(u64),
    Other(Box<str>),
}

impl Revision {
    fn of(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Other(text.into()),
        }
    }
}

impl From<Received> for Stored {
    fn from(received: Received) -> Self {
        let status = Summary::of(&received.status::<DriftGuardStatus>());
        Self::with_status(&received, status)
    }
}

impl Received {
    /// What is stored, and its status, for whoever looks at each guard once. The part of the status that
    /// [`Stored`] keeps is only there where converting it asks for that.
    pub(crate) fn apart(self) -> (Stored, DriftGuardStatus) {
        let status = self.status::<DriftGuardStatus>();
        let stored = Stored::with_status(&self, Summary::default());
        if stored.asks_for_promotion() {
            (Stored { status: Summary::of(&status), ..stored }, status)
        } else {
            (stored, status)
        }
    }
}

impl Stored {
    fn with_status(received: &Received, status: Summary) -> Self {
        let spec = received.spec();
        let labels = received.meta.labels.iter().flatten();
        let marks = Marks {
            labels: labels.map(|(key, value)| (key.into(), value.into())).collect(),
            annotations: ANNOTATIONS
                .iter()
                .filter_map(|key| Some((*key, received.annotation(key)?.into())))
                .collect(),
            author: received.annotation(names::ANNOTATION_AUTHOR).map(AuthorText::of),
        };
        let source = Source {
            id: received.id(),
            uid: received.uid().into(),
            generation: received.meta.generation.unwrap_or_default(),
            created: received.created(),
            marks: (marks != Marks::default()).then(|| Box::new(marks)),
            asks_for_promotion: spec.contains("enforceAfterClean"),
            spec: Packed::of(spec, received.name()),
        };
        let revision = Revision::of(received.resource_version());
        Self { source: Arc::new(source), revision, status, noted: None }
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Received::deserialize(deserializer).map(Self::from)
    }
}

impl Stored {
    /// Namespace and name.
    #[must_use]
    pub fn id(&self) -> &GuardId {
        &self.source.id
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.source.id.namespace
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.source.id.name
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &Text {
        &self.source.uid
    }

    /// `metadata.generation`.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.source.generation
    }

    /// `metadata.creationTimestamp`.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.source.created
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> Cow<'_, str> {
        match &self.revision {
            Revision::Number(number) => number.to_string().into(),
            Revision::Other(text) => (&**text).into(),
        }
    }

    /// The resource version as the number that API servers count with; 0 when it is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match &self.revision {
            Revision::Number(number) => *number,
            Revision::Other(text) => text.parse().unwrap_or_default(),
        }
    }

    /// A label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.source.marks.as_ref()?.labels;
        let at = labels.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(&labels[at].1)
    }

    /// An annotation, of those that are kept.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        debug_assert!(ANNOTATIONS.contains(&key), "{key} is not kept");
        let annotations = &self.source.marks.as_ref()?.annotations;
        annotations.iter().find(|(known, _)| *known == key).map(|(_, value)| &**value)
    }

    /// The annotation that names the author. Made anew: guards share who it is.
    #[must_use]
    pub fn author(&self) -> Option<String> {
        let author = self.source.marks.as_ref()?.author.as_ref()?;
        Some(format!("{}{}", author.who, author.rest.text("")))
    }

    /// The raw spec, `null` when there is none. Made anew: it is kept in fewer bytes.
    #[must_use]
    pub fn spec(&self) -> String {
        self.source.spec.text(&self.source.id.name)
    }

    /// Whether another version of this guard has the same spec.
    pub(super) fn has_spec_of(&self, other: &Self) -> bool {
        self.source.spec == other.source.spec && self.source.id.name == other.source.id.name
    }

    /// Whether the spec may ask for `enforceAfterClean`: nearly none does, and no other need be parsed.
    #[must_use]
    pub fn asks_for_promotion(&self) -> bool {
        self.source.asks_for_promotion
    }

    /// What the status says.
    #[must_use]
    pub fn status(&self) -> &Summary {
        &self.status
    }

    /// All that is noted about its promotion, here and in what was remembered; signatures are not verified.
    pub fn noted(&self) -> impl Iterator<Item = &EnforceAfterClean> {
        self.status.enforce_after_clean().into_iter().chain(self.noted.as_deref())
    }

    /// The same, remembering what `noted` says of the same spec of the same guard.
    #[must_use]
    pub fn remembering(self, noted: EnforceAfterClean) -> Self {
        // What still stands there need not be held twice.
        let is_news = self.status.enforce_after_clean() != Some(&noted);
        Self { noted: is_news.then(|| Box::new(noted)), ..self }
    }

    /// Whether what decides about writes stands as in `other`: only status or bookkeeping differ.
    #[must_use]
    pub fn means_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) || self.source == other.source
    }

    /// The same, with what its status says of its kind held as one of `kinds`.
    pub(super) fn holding(mut self, kinds: &BTreeSet<Arc<KindEntry>>) -> Self {
        self.status.hold(kinds);
        self
    }

    /// The same, sharing with `other` what is equal: all but the status, or the namespace, labels and author, and its
    /// kind.
    pub(crate) fn sharing(mut self, other: &Self) -> Self {
        if self.means_the_same(other) {
            self.source = Arc::clone(&other.source);
        } else if let Some(source) = Arc::get_mut(&mut self.source) {
            source.share(&other.source);
        }
        self.status.share(&other.status);
        self
    }
}

impl Resource for Received {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        DriftGuard::kind(dt)
    }
    fn group(dt: &()) -> Cow<'_, str> {
        DriftGuard::group(dt)
    }
    fn version(dt: &()) -> Cow<'_, str> {
        DriftGuard::version(dt)
    }
    fn plural(dt: &()) -> Cow<'_, str> {
        DriftGuard::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    fn deep(levels: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    #[test]
    fn a_spec_of_any_depth_and_form_is_read_from_a_watch_event() {
        for spec in [deep(5000), "7".to_owned(), "[1e999, {}]".to_owned(), "null".to_owned()] {
            let line = format!(
                r#"{{"type":"ADDED","object":{{"apiVersion":"terrafusion.ai/v1","kind":"DriftGuard","metadata":{{"name":"g","namespace":"n","managedFields":[{{"fieldsV1":{}}}]}},"spec":{spec}}}}}"#,
                deep(500)
            );
            let event: WatchEvent<Received> = serde_json::from_str(&line).unwrap();
            let WatchEvent::Added(stored) = event else { unreachable!() };
            assert_eq!(stored.spec(), spec);
            assert_eq!(stored.id().to_string(), "n/g");
        }
    }

    #[test]
    fn a_list_is_read_whatever_its_items_hold() {
        let list = format!(
            r#"{{"apiVersion":"terrafusion.ai/v1","kind":"DriftGuardList","metadata":{{"resourceVersion":"7"}},"items":[{{"metadata":{{"name":"a","namespace":"n","resourceVersion":"5"}},"spec":{}}},{{"metadata":{{"name":"b","namespace":"n"}}}}]}}"#,
            deep(5000)
        );
        let list: ObjectList<Received> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.items.len(), 2);
        let revisions = list.items.into_iter().map(|item| Stored::from(item).revision());
        assert_eq!(revisions.collect::<Vec<_>>(), [5, 0]);
    }

    #[test]
    fn a_status_that_is_not_understood_counts_as_none() {
        let stored: Stored = serde_json::from_str(r#"{"metadata":{},"status":{"conditions":7}}"#).unwrap();
        assert!(stored.status().is_empty());
    }

    #[test]
    fn a_resource_version_is_given_back_as_it_came() {
        for text in ["7", "007", "", "v1", "18446744073709551616"] {
            let json = format!(r#"{{"metadata":{{"resourceVersion":"{text}"}}}}"#);
            let stored: Stored = serde_json::from_str(&json).unwrap();
            assert_eq!(stored.resource_version(), text);
        }
    }

    #[test]
    fn versions_that_differ_in_their_status_alone_share_the_rest() {
        let read = |status: &str| -> Stored {
            let labels = r#""labels":{"b":"1","a":"2"},"annotations":{"other":"x"}"#;
            let json =
                format!(r#"{{"metadata":{{"name":"g",{labels}}},"spec":{{"a":1}},"status":{status}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        let (first, second) = (read("null"), read(r#"{"observedGeneration":1}"#));
        assert!(!Arc::ptr_eq(&first.source, &second.source));
        let second = second.sharing(&first);
        assert!(Arc::ptr_eq(&first.source, &second.source));
        assert_ne!(first.status(), second.status());
        assert_eq!((second.label("a"), second.label("b"), second.label("c")), (Some("2"), Some("1"), None));
    }
}
