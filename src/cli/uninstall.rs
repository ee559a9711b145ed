//! `driftguard uninstall`: takes DriftGuard out of a cluster, without ever leaving a webhook behind
//! that nobody answers.
//!
//! A dead webhook refuses writes and strands namespaces, so the webhook configurations go before
//! anything that answers them. Replicas that still run would put them back at once; therefore the
//! bindings, which give them the right to, go before. What replicas need to end in good order goes
//! last. Nothing is begun that the caller may not finish. Guards and CRDs stay unless `--purge` is
//! given. Everything may be gone already: running it again is safe.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Preconditions};
use kube::core::Resource;
use kube::runtime::wait::await_condition;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::install::apply::api as api_of;
use super::install::preflight;
use super::output;
use crate::api::{DriftGuard, GAMAConfig, names};
use crate::control::openreports;
use crate::manifests::{self, Manifest, Settings};
use crate::report::openreports::SOURCE;

mod lease;
mod rights;

/// How long replicas may take to end; their grace period is 40 s.
const PODS_GONE_WITHIN: Duration = Duration::from_secs(90);

/// Arguments of `driftguard uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftguard uninstall\n  driftguard uninstall --purge --yes")]
pub struct UninstallArgs {
    /// Also delete the CRDs, and with them every DriftGuard of the cluster
    #[arg(long)]
    purge: bool,
    /// Do not ask before --purge deletes guards
    #[arg(short, long, requires = "purge")]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Uninstalls.
///
/// # Errors
/// When the cluster cannot be reached or refuses a deletion, when DriftGuard is installed in another
/// namespace, when a `serve` outside the cluster still runs, or when `--purge` is not confirmed.
pub async fn run(args: UninstallArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let namespace = args.cluster.namespace.clone().unwrap_or_else(|| names::NAMESPACE.to_owned());
    let settings = Settings { namespace, ..Settings::default() };
    let removal = Removal { cluster: &cluster, settings: &settings };
    if args.purge {
        confirm(&removal, args.yes).await?;
    }
    removal.run().await?;
    if args.purge {
        removal.purge().await?;
    } else {
        output::message(&format!(
            "\nCRDs, guards, secret/{} (it proves who approved them) and namespace {} stay; \
             `driftguard uninstall --purge` deletes all but the namespace",
            names::SIGNING_SECRET,
            settings.namespace
        ));
    }
    Ok(Exit::Clean)
}

/// Asks on a terminal; elsewhere `--yes` must have been given.
async fn confirm(removal: &Removal<'_>, yes: bool) -> anyhow::Result<()> {
    let guards = removal.count::<DriftGuard>().await?;
    if yes || guards == 0 {
        return Ok(());
    }
    let what =
        format!("--purge deletes all {guards} DriftGuards of the cluster at {}", removal.cluster.address);
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{what}; repeat it with --yes to confirm");
    }
    output::message(&format!("{what}. Go on? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        anyhow::bail!("nothing was removed");
    }
    Ok(())
}

/// One removal.
struct Removal<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
}

impl Removal<'_> {
    async fn run(&self) -> anyhow::Result<()> {
        if let Some(other) = preflight::elsewhere(self.cluster, &self.settings.namespace).await? {
            anyhow::bail!(
                "DriftGuard is installed in namespace {other}, not in {}; remove it with `driftguard uninstall -n {other}`",
                self.settings.namespace
            );
        }
        let deployed = self.is_deployed().await?;
        if !deployed {
            lease::require_released(self.cluster, &self.settings.namespace).await?;
        }
        let bindings = self.bindings()?;
        let configurations = manifests::webhook()?;
        rights::require(self.cluster, &[bindings.as_slice(), &configurations].concat()).await?;
        for manifest in &bindings {
            self.delete(manifest, true).await?;
        }
        self.webhook_configurations().await?;
        for manifest in manifests::workload(self.settings)?.iter().rev() {
            self.delete(manifest, true).await?;
        }
        if deployed {
            self.pods_gone().await?;
            // A write that was allowed just before the bindings went may have come after ours.
            self.webhook_configurations().await?;
        }
        self.reports().await?;
        self.rights().await?;
        self.delete_secret(names::CA_SECRET).await?;
        lease::delete(self.cluster, &self.settings.namespace).await
    }

    /// What gives the right to write webhook configurations.
    fn bindings(&self) -> anyhow::Result<Vec<Manifest>> {
        let is_binding = |manifest: &Manifest| manifest.resource.kind == "ClusterRoleBinding";
        Ok(manifests::rbac(self.settings)?.into_iter().filter(is_binding).collect())
    }

    async fn is_deployed(&self) -> anyhow::Result<bool> {
        let deployment = Manifest::new(&manifests::deploy::deployment(self.settings))?;
        let found = api_of(self.cluster, &deployment).get_metadata_opt(&deployment.name).await;
        Ok(found.map_err(|error| self.cluster.explain("looking for the operator", &error))?.is_some())
    }

    async fn webhook_configurations(&self) -> anyhow::Result<()> {
        for manifest in manifests::webhook()? {
            self.delete(&manifest, false).await?;
        }
        Ok(())
    }

    async fn rights(&self) -> anyhow::Result<()> {
        for manifest in manifests::rbac(self.settings)?.iter().rev() {
            self.delete(manifest, true).await?;
        }
        let further = [manifests::remediation(self.settings)?, manifests::openreports(self.settings)?];
        for manifest in further.iter().flatten().rev() {
            self.delete(manifest, true).await?;
        }
        self.rights_on_kinds().await
    }

    /// Deletes the reports of openreports.io that `serve` kept: nobody would keep them true any more.
    async fn reports(&self) -> anyhow::Result<()> {
        let resource = openreports::resource();
        let all: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &resource);
        let ours = ListParams::default()
            .fields(&format!("metadata.name={}", names::OPENREPORT))
            .labels(&format!("{}={SOURCE}", names::LABEL_MANAGED_BY));
        let found = match all.list_metadata(&ours).await {
            Ok(found) => found.items,
            // Most clusters have no such kind.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            // Nothing depends on them, and whoever uninstalls need have no right on them.
            Err(error) => {
                let error = self.cluster.explain("looking for reports of openreports.io, which stay", &error);
                output::message(&error.to_string());
                return Ok(());
            }
        };
        for report in found {
            let namespace = report.metadata.namespace.unwrap_or_default();
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.cluster.client.clone(), &namespace, &resource);
            let title = format!("reports.openreports.io/{} of namespace {namespace}", names::OPENREPORT);
            self.delete_found(&api, &title, names::OPENREPORT, report.metadata.uid).await?;
        }
        Ok(())
    }

    /// Takes away the rights that were given on single kinds: they hold our label, wherever they are.
    async fn rights_on_kinds(&self) -> anyhow::Result<()> {
        let kind = manifests::targets::TargetKind { group: String::new(), plural: String::new() };
        let prefix = kind.role_name();
        let mut all = manifests::rights_in(&kind, "", &self.settings.namespace, false)?;
        all.reverse();
        all.extend(manifests::rights_on(&kind, false)?);
        for manifest in all {
            let api: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &manifest.resource);
            let labelled = ListParams::default().labels(&format!("{}=driftguard", names::LABEL_PART_OF));
            let found = api.list_metadata(&labelled).await.map_err(|error| {
                self.cluster.explain("looking for rights that were given on single kinds", &error)
            })?;
            for object in found.items {
                let (Some(name), place) = (object.metadata.name, object.metadata.namespace) else { continue };
                if name.starts_with(&prefix) {
                    let mut found = manifest.clone();
                    (found.namespace, found.name) = (place, name);
                    self.delete(&found, true).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes one object. With `labelled`, one that bears our name but not our label is another
    /// tool's, and stays.
    async fn delete(&self, manifest: &Manifest, labelled: bool) -> anyhow::Result<()> {
        let title = manifest.title();
        let api = api_of(self.cluster, manifest);
        let found = api
            .get_metadata_opt(&manifest.name)
            .await
            .map_err(|error| self.cluster.explain(format!("reading {title}"), &error))?;
        let Some(found) = found else { return Ok(()) };
        if labelled && !found.metadata.labels.iter().flatten().any(|(key, _)| key == names::LABEL_PART_OF) {
            output::message(&format!("{title} was not made by DriftGuard; it stays"));
            return Ok(());
        }
        self.delete_found(&api, &title, &manifest.name, found.metadata.uid).await
    }

    async fn delete_found(
        &self,
        api: &Api<DynamicObject>,
        title: &str,
        name: &str,
        uid: Option<String>,
    ) -> anyhow::Result<()> {
        // Only the very object that was looked at.
        let exactly = Preconditions { uid, resource_version: None };
        let how = DeleteParams { preconditions: Some(exactly), ..DeleteParams::background() };
        match api.delete(name, &how).await {
            Ok(_) => Ok(output::data(format!("{title} deleted\n").as_bytes())?),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(self.cluster.explain(format!("deleting {title}"), &error))?,
        }
    }

    /// Waits until no pod of ours can answer, or write, any more.
    async fn pods_gone(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.settings.namespace);
        let selector: Vec<String> = manifests::labels::operator_selector()
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let ours = ListParams::default().labels(&selector.join(","));
        let list = pods
            .list_metadata(&ours)
            .await
            .map_err(|error| self.cluster.explain("looking for the operator's pods", &error))?;
        let all_gone = async {
            for pod in &list.items {
                let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { continue };
                let deleted = kube::runtime::wait::conditions::is_deleted(uid);
                await_condition(pods.clone(), name, deleted).await?;
            }
            Ok::<(), kube::runtime::wait::Error>(())
        };
        match tokio::time::timeout(PODS_GONE_WITHIN, all_gone).await {
            Ok(result) => result.context("waiting for the operator's pods to end"),
            Err(_) => {
                output::message("the operator's pods still run; they hold no rights any more");
                Ok(())
            }
        }
    }

    async fn delete_secret(&self, name: &str) -> anyhow::Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), &self.settings.namespace);
        let found = secrets
            .get_metadata_opt(name)
            .await
            .map_err(|error| self.cluster.explain(format!("reading secret/{name}"), &error))?;
        let Some(found) = found else { return Ok(()) };
        let by = found.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_MANAGED_BY));
        if by.is_none_or(|by| by != "driftguard") {
            // An authority that somebody else put there may be the only copy of its key.
            output::message(&format!("secret/{name} was not made by DriftGuard; it stays"));
            return Ok(());
        }
        match secrets.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(output::data(format!("secret/{name} deleted\n").as_bytes())?),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(self.cluster.explain(format!("deleting secret/{name}"), &error))?,
        }
    }

    /// Deletes the CRD of DriftGuard, and that of GAMAConfig when nobody keeps configurations in it.
    async fn purge(&self) -> anyhow::Result<()> {
        let configurations = self.count::<GAMAConfig>().await?;
        for manifest in manifests::crds()? {
            if manifest.name == names::GAMACONFIG_CRD && configurations > 0 {
                output::message(&format!(
                    "{} stays: {configurations} GAMAConfigs are kept in it, and they are not DriftGuard's",
                    manifest.title()
                ));
                continue;
            }
            self.delete(&manifest, false).await?;
        }
        // Not before the guards: what it signed stands in them, and counts again after an install.
        self.delete_secret(names::SIGNING_SECRET).await?;
        output::message(&format!(
            "\nnamespace {} stays, with whatever else is in it",
            self.settings.namespace
        ));
        Ok(())
    }

    /// How many objects of a kind there are in the whole cluster; none when the kind is not served.
    async fn count<K>(&self) -> anyhow::Result<usize>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.cluster.client.clone());
        let list = match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
            Err(error) => {
                return Err(self.cluster.explain(format!("counting {}", K::plural(&())), &error))?;
            }
        };
        let rest = list.metadata.remaining_item_count.and_then(|rest| usize::try_from(rest).ok());
        Ok(list.items.len() + rest.unwrap_or_default())
    }
}
