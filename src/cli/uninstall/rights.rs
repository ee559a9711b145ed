//! What the caller must be allowed to do before anything is removed: an uninstall that stops halfway
//! leaves replicas without rights in front of a gate that is shut.

use k8s_openapi::api::authorization::v1::ResourceAttributes;

use crate::cli::cluster::Cluster;
use crate::control::access;
use crate::manifests::Manifest;

/// Refuses unless the caller may delete all of these, and names each that they may not.
pub(super) async fn require(cluster: &Cluster, manifests: &[Manifest]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for manifest in manifests {
        if !may_delete(cluster, manifest).await? {
            missing.push(manifest.title());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "nothing was removed: you may not delete {}; ask whoever may, or open the gate alone with `driftguard breakglass`",
        missing.join(", ")
    )
}

async fn may_delete(cluster: &Cluster, manifest: &Manifest) -> anyhow::Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(manifest.resource.group.clone()),
        resource: Some(manifest.resource.plural.clone()),
        name: Some(manifest.name.clone()),
        namespace: manifest.namespace.clone(),
        verb: Some("delete".to_owned()),
        ..ResourceAttributes::default()
    };
    let answer = access::allows_us(&cluster.client, attributes).await;
    Ok(answer.map_err(|error| cluster.explain("asking what you may delete", &error))?)
}
