//! Which kinds can be scaled, and where their count stands.
//!
//! Discovery lists the subresource `scale`. Built-in kinds keep the count under `spec.replicas`; a
//! custom resource says in its CRD where. While a CRD cannot be read, what was known of it stands, and
//! otherwise what nearly all of them say: taken from the wrong place a count is refused, never passed.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::core::discovery::v2::APIGroupDiscoveryList;

use crate::core::kinds::{Catalog, ReplicasPaths};

/// Where the count stands unless a CRD says otherwise.
const USUAL: [&str; 2] = ["spec", "replicas"];
/// Groups of built-in kinds that can be scaled.
const BUILT_IN: [&str; 2] = ["", "apps"];

/// One kind in one version that has a subresource `scale`.
type Scalable = (String, String, String);

/// All kinds that discovery lists with a subresource `scale`.
pub(super) fn scalable(core: &APIGroupDiscoveryList, groups: &APIGroupDiscoveryList) -> Vec<Scalable> {
    let mut found = Vec::new();
    for group in core.items.iter().chain(&groups.items) {
        let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
        for version in &group.versions {
            for resource in &version.resources {
                let scales =
                    resource.subresources.iter().any(|sub| sub.subresource.as_deref() == Some("scale"));
                if let (true, Some(version), Some(plural)) = (scales, &version.version, &resource.resource) {
                    found.push((name.clone(), version.clone(), plural.clone()));
                }
            }
        }
    }
    found
}

/// Where their counts stand, and the last error when not every CRD could be read.
pub(super) async fn read(
    client: &kube::Client,
    scalable: Vec<Scalable>,
    previous: Option<&Catalog>,
) -> (ReplicasPaths, Option<kube::Error>) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let usual = || Arc::<[String]>::from(USUAL.map(str::to_owned));
    let mut paths = ReplicasPaths::new();
    let mut unread = None;
    for kind in scalable {
        let (group, version, plural) = &kind;
        let path = if BUILT_IN.contains(&group.as_str()) {
            usual()
        } else {
            match crds.get_opt(&format!("{plural}.{group}")).await {
                // An API server of somebody's own serves it.
                Ok(None) => usual(),
                Ok(Some(crd)) => declared(&crd, version).unwrap_or_else(usual),
                Err(error) => {
                    unread = Some(error);
                    previous
                        .and_then(|catalog| catalog.replicas_paths().get(&kind).cloned())
                        .unwrap_or_else(usual)
                }
            }
        };
        paths.insert(kind, path);
    }
    (paths, unread)
}

/// `specReplicasPath` of a version, such as `.spec.replicas`: a JSON path without lists, as the API
/// server demands.
fn declared(crd: &CustomResourceDefinition, version: &str) -> Option<Arc<[String]>> {
    let version = crd.spec.versions.iter().find(|each| each.name == version)?;
    let path = &version.subresources.as_ref()?.scale.as_ref()?.spec_replicas_path;
    let keys: Vec<String> = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    (!keys.is_empty()).then(|| keys.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_with_the_subresource_are_found() {
        let list = |items| serde_json::from_value::<APIGroupDiscoveryList>(json!({"items": items})).unwrap();
        let resource = |plural: &str, subs: serde_json::Value| json!({"resource": plural, "scope": "Namespaced", "verbs": ["get"], "subresources": subs});
        let apps = list(json!([{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
            resource("deployments", json!([{"subresource": "scale", "verbs": ["get"]}])),
            resource("controllerrevisions", json!([])),
        ]}]}]));
        let found = scalable(&list(json!([])), &apps);
        assert_eq!(found, [("apps".to_owned(), "v1".to_owned(), "deployments".to_owned())]);
    }

    #[test]
    fn a_crd_says_where_its_count_stands() {
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "w"},
            "spec": {
                "group": "g", "scope": "Namespaced", "names": {"kind": "W", "plural": "w"},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"scale": {
                    "specReplicasPath": ".spec.size.wanted", "statusReplicasPath": ".status.n"}}}],
            },
        }))
        .unwrap();
        assert_eq!(*declared(&crd, "v1").unwrap(), ["spec", "size", "wanted"]);
        assert_eq!(declared(&crd, "v2"), None);
    }
}
