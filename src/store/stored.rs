//! A `DriftGuard` as the API server sent it: spec and status still raw text.
//!
//! Reading it cannot fail for anything that a spec may hold, so that one object which this version
//! does not understand stops neither a watch nor a list: it becomes an invalid guard by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::status::EnforceAfterClean;
use crate::api::{DriftGuard, DriftGuardStatus};
use crate::core::guard::GuardId;

/// A `DriftGuard` with metadata read, and spec and status as raw JSON.
///
/// Of the metadata only what identifies, versions and labels an object is kept: `managedFields` can
/// be larger than all the rest, and as deep as the object.
#[derive(Debug, Clone)]
pub struct Stored {
    meta: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    /// What an earlier status said of the promotion of the same spec of the same guard.
    noted: Option<EnforceAfterClean>,
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
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let WireMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
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
            labels,
            annotations,
            ..ObjectMeta::default()
        };
        Ok(Self { meta, spec, status, noted: None })
    }
}

impl Stored {
    /// Namespace and name.
    #[must_use]
    pub fn id(&self) -> GuardId {
        GuardId {
            namespace: self.meta.namespace.clone().unwrap_or_default(),
            name: self.meta.name.clone().unwrap_or_default(),
        }
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.generation`.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.meta.generation.unwrap_or_default()
    }

    /// `metadata.creationTimestamp`.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.meta.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    /// The resource version as the number that API servers count with; 0 when it is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.resource_version().parse().unwrap_or_default()
    }

    /// A label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The raw spec, `null` when there is none.
    #[must_use]
    pub fn spec(&self) -> &str {
        self.spec.as_deref().map_or("null", RawValue::get)
    }

    /// The raw status, `null` when there is none.
    #[must_use]
    pub fn status_json(&self) -> &str {
        self.status.as_deref().map_or("null", RawValue::get)
    }

    /// The status; an empty one when there is none or when it is not ours to understand.
    #[must_use]
    pub fn status(&self) -> DriftGuardStatus {
        serde_json::from_str::<Option<DriftGuardStatus>>(self.status_json())
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// All that is noted about its promotion, here and in what was remembered; signatures are not verified.
    #[must_use]
    pub fn noted(&self) -> Vec<EnforceAfterClean> {
        let here =
            self.status_json().contains("enforceAfterClean").then(|| self.status().enforce_after_clean);
        here.flatten().into_iter().chain(self.noted.clone()).collect()
    }

    /// The same, remembering what `noted` says of the same spec of the same guard.
    #[must_use]
    pub fn remembering(self, noted: Option<EnforceAfterClean>) -> Self {
        Self { noted, ..self }
    }

    /// Whether what decides about writes stands as in `other`: only status or bookkeeping differ.
    #[must_use]
    pub fn means_the_same(&self, other: &Self) -> bool {
        self.uid() == other.uid()
            && self.generation() == other.generation()
            && self.meta.labels == other.meta.labels
            && self.meta.annotations == other.meta.annotations
            && self.spec() == other.spec()
    }
}

impl Resource for Stored {
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
            let event: WatchEvent<Stored> = serde_json::from_str(&line).unwrap();
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
        let list: ObjectList<Stored> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.items.len(), 2);
        assert_eq!(list.items[0].revision(), 5);
        assert_eq!(list.items[1].revision(), 0);
    }

    #[test]
    fn a_status_that_is_not_understood_counts_as_none() {
        let stored: Stored = serde_json::from_str(r#"{"metadata":{},"status":{"conditions":7}}"#).unwrap();
        assert_eq!(stored.status(), DriftGuardStatus::default());
    }
}
