//! `driftguard install`: applies CRDs, namespace, rights, webhook configurations and the workload.
//!
//! Every object is applied server-side, so that a second run changes only what differs and what
//! others added stays. The webhook configurations are applied without entries: a running `serve`
//! writes those, and nothing is refused before it can answer.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::Value;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use crate::api::{Enforcement, names};
use crate::manifests::{self, Manifest, Settings};

mod adopt;
pub(super) mod apply;
mod dev;
pub(super) mod preflight;

use apply::{Applier, DryRun};
use dev::Reach;
pub(super) use dev::parse_url as webhook_url;
use preflight::Before;

/// How long a CRD may take to be served. It takes well under a second; an overloaded API server
/// is given time, a refused one should not hang.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// Arguments of `driftguard install`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard install\n  driftguard install --dry-run=server\n  driftguard install --dev --url https://127.0.0.1:8443\n  driftguard install --dev --external-name\n  driftguard install --adopt --dry-run=server"
)]
pub struct InstallArgs {
    /// Only set the cluster up: no Deployment. For a `driftguard serve` started by hand
    #[arg(long)]
    dev: bool,
    /// With --dev: where the API server reaches that `serve` [default: https://127.0.0.1:8443]
    #[arg(long, value_name = "URL", requires = "dev", conflicts_with = "external_name", value_parser = dev::parse_url)]
    url: Option<String>,
    /// With --dev: reach it through a Service of type ExternalName that leads to this port of localhost
    /// [default port: 8443]
    #[arg(long, value_name = "PORT", requires = "dev", num_args = 0..=1, default_missing_value = "8443", value_parser = clap::value_parser!(u16).range(1..))]
    external_name: Option<u16>,
    /// Container image of the operator [default: the one released with this version]
    #[arg(long, value_name = "IMAGE", conflicts_with = "dev")]
    image: Option<String>,
    /// What guards without an `enforcement` of their own do: Deny, Rewrite, Warn or Audit [default: what
    /// the last install chose; Audit where guards of an older operator are found; Deny]
    #[arg(long, value_name = "MODE", value_parser = parse_enforcement)]
    default_enforcement: Option<Enforcement>,
    /// Namespaces in which guarded Secrets may be watched, and proved by an empty dry-run patch of one of
    /// them. Guards on Secrets are enforced everywhere; the right reaches every Secret of the namespace
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    secrets_namespaces: Vec<String>,
    /// Take over guards of the older, Kopf-built operator: its finalizer and annotations are removed, and
    /// guards that do not fit their targets are listed. It must not run any more. Implies --force-conflicts:
    /// its manifests made objects of the same names
    #[arg(long)]
    adopt: bool,
    /// Print what would be applied (client), or have the API server check it (server)
    #[arg(long, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,
    /// Take over fields that another tool set to something else, instead of stopping there
    #[arg(long)]
    force_conflicts: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Installs.
///
/// # Errors
/// When the cluster cannot be reached, is too old, refuses an object, or another tool owns a field
/// that would change.
pub async fn run(args: InstallArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    preflight::require_version(&cluster).await?;
    let before = Before::look(&cluster).await?;
    let settings = settings(&args, &before);
    preflight::require_no_other(&cluster, &settings.namespace).await?;
    if args.adopt {
        adopt::require_older_gone(&cluster, &settings.namespace).await?;
    }
    if args.dev {
        preflight::require_no_deployment(&cluster, &settings.namespace).await?;
    }
    let reach = args.dev.then(|| Reach::chosen(args.url.clone(), args.external_name, &settings.namespace));
    let plan = Plan::new(&settings, reach.as_ref())?;
    if args.dry_run == DryRun::Client {
        output::data(manifests::stream(&plan.all())?.as_bytes())?;
        if args.adopt && before.has_guards() {
            adopt::adopt(&cluster, args.dry_run).await?;
        }
        return Ok(Exit::Clean);
    }
    let applier =
        Applier { cluster: &cluster, dry_run: args.dry_run, force: args.force_conflicts || args.adopt };
    plan.apply(&applier).await?;
    if args.adopt && (before.has_guards() || args.dry_run == DryRun::None) {
        adopt::adopt(&cluster, args.dry_run).await?;
    }
    before.tell(settings.default_enforcement, args.default_enforcement.is_some());
    if args.dry_run == DryRun::None {
        tell_next(&args.cluster, &settings, reach.as_ref());
    }
    Ok(Exit::Clean)
}

fn settings(args: &InstallArgs, before: &Before) -> Settings {
    let namespace = args.cluster.namespace.clone().unwrap_or_else(|| names::NAMESPACE.to_owned());
    Settings {
        namespace,
        image: args.image.clone().unwrap_or_else(manifests::default_image),
        default_enforcement: args.default_enforcement.unwrap_or_else(|| before.default_enforcement()),
        secrets_namespaces: args.secrets_namespaces.clone(),
    }
}

/// What is applied, in its order.
struct Plan {
    crds: Vec<Manifest>,
    base: Vec<Manifest>,
    webhook: Vec<Manifest>,
    workload: Vec<Manifest>,
}

impl Plan {
    fn new(settings: &Settings, reach: Option<&Reach>) -> anyhow::Result<Self> {
        let mut crds = manifests::crds()?;
        if let Some(crd) = crds.iter_mut().find(|crd| crd.name == names::DRIFTGUARD_CRD) {
            crd.object["metadata"]["annotations"][names::ANNOTATION_DEFAULT_ENFORCEMENT] =
                Value::from(settings.default_enforcement.as_str());
        }
        let mut base = vec![manifests::namespace(settings)?];
        base.extend(manifests::rbac(settings)?);
        base.extend(manifests::secrets_rights(settings)?);
        let workload = match reach {
            None => manifests::workload(settings)?,
            Some(reach) => reach.service(settings)?.into_iter().collect(),
        };
        Ok(Self { crds, base, webhook: manifests::webhook()?, workload })
    }

    fn all(&self) -> Vec<Manifest> {
        [&self.crds, &self.base, &self.webhook, &self.workload].into_iter().flatten().cloned().collect()
    }

    async fn apply(&self, applier: &Applier<'_>) -> anyhow::Result<()> {
        applier.apply_all(&self.crds, names::FIELD_MANAGER).await?;
        if applier.dry_run == DryRun::None {
            for crd in &self.crds {
                established(applier.cluster, &crd.name).await?;
            }
        }
        applier.apply_all(&self.base, names::FIELD_MANAGER).await?;
        applier.apply_all(&self.webhook, names::BASE_FIELD_MANAGER).await?;
        applier.apply_all(&self.workload, names::FIELD_MANAGER).await
    }
}

async fn established(cluster: &Cluster, crd: &str) -> anyhow::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let waited = await_condition(crds, crd, conditions::is_crd_established());
    tokio::time::timeout(ESTABLISHED_WITHIN, waited)
        .await
        .with_context(|| {
            let seconds = ESTABLISHED_WITHIN.as_secs();
            format!(
                "the API server does not serve {crd} after {seconds} s; `kubectl describe crd {crd}` says why"
            )
        })?
        .with_context(|| format!("watching whether {crd} is served"))?;
    Ok(())
}

fn tell_next(cluster: &ClusterArgs, settings: &Settings, reach: Option<&Reach>) {
    match reach {
        Some(reach) => output::message(&format!(
            "\nstart the admission server with\n  {}",
            reach.serve_command(cluster, settings)
        )),
        None => output::message(&format!(
            "\nwait for the admission server with\n  kubectl rollout status deployment/{} -n {}",
            names::OPERATOR,
            settings.namespace
        )),
    }
}

fn parse_enforcement(text: &str) -> Result<Enforcement, String> {
    Enforcement::ALL
        .into_iter()
        .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("want one of {}", Enforcement::ALL.map(Enforcement::as_str).join(", ")))
}
