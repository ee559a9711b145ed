//! One object after the other, applied server-side and reported as kubectl reports it.

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};

use crate::cli::cluster::Cluster;
use crate::cli::output;
use crate::manifests::Manifest;

/// Whether anything is really written; the words are kubectl's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// Write
    None,
    /// Print the manifests; the only requests are those that look around first
    Client,
    /// Send every request, but let the API server store nothing
    Server,
}

/// How objects are applied.
pub(crate) struct Applier<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) dry_run: DryRun,
    /// Whether fields that others own are taken over.
    pub(crate) force: bool,
}

impl Applier<'_> {
    /// Applies all, in order, and stops at the first that fails.
    pub(crate) async fn apply_all(&self, manifests: &[Manifest], manager: &str) -> anyhow::Result<()> {
        for manifest in manifests {
            let outcome = self.apply(manifest, manager).await?;
            output::data(format!("{} {outcome}\n", manifest.title()).as_bytes())?;
        }
        Ok(())
    }

    async fn apply(&self, manifest: &Manifest, manager: &str) -> anyhow::Result<&'static str> {
        let api = api(self.cluster, manifest);
        let before = match api.get_metadata_opt(&manifest.name).await {
            Ok(found) => found.and_then(|object| object.metadata.resource_version),
            Err(error) => return Err(self.cluster.explain(format!("reading {}", manifest.title()), &error))?,
        };
        let mut how = PatchParams::apply(manager);
        how.force = self.force;
        how.dry_run = self.dry_run == DryRun::Server;
        let doing = || format!("applying {}", manifest.title());
        match api.patch(&manifest.name, &how, &Patch::Apply(&manifest.object)).await {
            Ok(_) if how.dry_run => Ok("would be applied (server dry run)"),
            Ok(_) if before.is_none() => Ok("created"),
            Ok(after) if after.metadata.resource_version == before => Ok("unchanged"),
            Ok(_) => Ok("configured"),
            // Its namespace was made by a dry run just now, so it is not there.
            Err(kube::Error::Api(status)) if status.code == 404 && how.dry_run => {
                Ok("not checked: its namespace does not exist yet (server dry run)")
            }
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
                anyhow::bail!(
                    "{}: another tool set fields to something else ({}); --force-conflicts takes them over, and that tool may set them back",
                    doing(),
                    status.message.split_whitespace().collect::<Vec<_>>().join(" ")
                )
            }
            Err(error) => Err(self.cluster.explain(doing(), &error))?,
        }
    }
}

/// The API that serves a manifest's kind, in its namespace.
pub(crate) fn api(cluster: &Cluster, manifest: &Manifest) -> Api<DynamicObject> {
    match &manifest.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &manifest.resource),
        None => Api::all_with(cluster.client.clone(), &manifest.resource),
    }
}
