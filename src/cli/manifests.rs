//! `driftguard manifests`: prints what `install` applies, for those who apply it themselves, and rights on
//! further kinds, ready to apply.

use std::path::PathBuf;

use anyhow::Context as _;

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::output;
use super::subject::Served;
use crate::api::names;
use crate::manifests::targets::TargetKind;
use crate::manifests::{self, Manifest, ManifestError, Settings};

/// Arguments of `driftguard manifests`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard manifests crds | kubectl apply --server-side -f -\n  driftguard manifests deploy --image registry.example.com/driftguard:0.1.0 > deployment.yaml\n  driftguard manifests rbac --for Deployment | kubectl apply -f -\n  driftguard manifests rbac --for Secret --in trading,billing | kubectl apply -f -"
)]
pub struct ManifestsArgs {
    /// Which manifests
    #[arg(value_name = "WHICH")]
    which: Which,
    /// Namespace that DriftGuard is installed into
    #[arg(short, long, value_name = "NAMESPACE", default_value = names::NAMESPACE)]
    namespace: String,
    /// Container image of the operator
    #[arg(long, value_name = "IMAGE", default_value_t = manifests::default_image())]
    image: String,
    /// With rbac: only the rights on this guarded kind. The cluster is asked what it is unless it is well
    /// known or given as plural.group
    #[arg(long = "for", value_name = "KIND")]
    kind: Option<String>,
    /// With --for: only in these namespaces; needed for Secrets
    #[arg(long = "in", value_name = "NAMESPACES", value_delimiter = ',', requires = "kind")]
    places: Vec<String>,
    /// With --for: also the rights to write approved content back
    #[arg(long, requires = "kind")]
    remediation: bool,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", hide_short_help = true, requires = "kind")]
    context: Option<String>,
    /// Kubeconfig file [default: the files of $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", hide_short_help = true, requires = "kind")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The CRDs of DriftGuard and GAMAConfig
    Crds,
    /// The static base of both webhook configurations; `serve` writes their entries
    Webhook,
    /// ServiceAccount, roles and bindings; with --for: rights on a further kind
    Rbac,
    /// Namespace, rights, Service, Deployment, PodDisruptionBudget and NetworkPolicy: deployment.yaml
    Deploy,
    /// Rights to write ConfigMaps and GAMAConfigs, for remediation; not part of `install`
    Remediation,
    /// Rights to keep reports of openreports.io, for `serve --openreports`; not part of `install`
    Openreports,
}

/// Prints the manifests as a YAML stream.
///
/// # Errors
/// When they cannot be written, or nobody knows the kind.
pub async fn run(args: ManifestsArgs) -> anyhow::Result<Exit> {
    let settings =
        Settings { namespace: args.namespace.clone(), image: args.image.clone(), ..Settings::default() };
    let chosen = match &args.kind {
        None => chosen(args.which, &settings)?,
        Some(word) if args.which == Which::Rbac => rights(word, &args).await?,
        Some(_) => anyhow::bail!("--for goes with `driftguard manifests rbac` only"),
    };
    output::data(manifests::stream(&chosen)?.as_bytes())?;
    Ok(Exit::Clean)
}

fn chosen(which: Which, settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    match which {
        Which::Crds => manifests::crds(),
        Which::Webhook => manifests::webhook(),
        Which::Rbac => manifests::rbac(settings),
        Which::Deploy => manifests::deployment(settings),
        Which::Remediation => manifests::remediation(settings),
        Which::Openreports => manifests::openreports(settings),
    }
}

async fn rights(word: &str, args: &ManifestsArgs) -> anyhow::Result<Vec<Manifest>> {
    let kind = match TargetKind::offline(word) {
        Some(kind) => kind,
        None => discovered(word, args).await?,
    };
    if args.places.is_empty() {
        if kind.is_secret() {
            anyhow::bail!(
                "rights on Secrets are given namespace by namespace, since they reach every Secret there: add --in NAMESPACE"
            );
        }
        return Ok(manifests::rights_on(&kind, args.remediation)?);
    }
    let mut all = Vec::new();
    for place in &args.places {
        all.extend(manifests::rights_in(&kind, place, &args.namespace, args.remediation)?);
    }
    Ok(all)
}

async fn discovered(word: &str, args: &ManifestsArgs) -> anyhow::Result<TargetKind> {
    let cluster = ClusterArgs {
        context: args.context.clone(),
        kubeconfig: args.kubeconfig.clone(),
        ..ClusterArgs::default()
    };
    let asking = || format!("asking a cluster what {word} is; without one, give it as plural.group");
    let cluster = cluster.connect().await.with_context(asking)?;
    let served = Served::load(&cluster).await.with_context(asking)?;
    let entry = served.resolve(word)?;
    Ok(TargetKind { group: entry.group.as_str().into(), plural: entry.plural.as_str().into() })
}
