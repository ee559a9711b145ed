//! `driftguard manifests`: prints what `install` applies, for those who apply it themselves.

use super::exit::Exit;
use super::output;
use crate::api::names;
use crate::manifests::{self, Manifest, ManifestError, Settings};

/// Arguments of `driftguard manifests`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard manifests crds | kubectl apply --server-side -f -\n  driftguard manifests deploy --image registry.example.com/driftguard:0.1.0 > deployment.yaml"
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The CRDs of DriftGuard and GAMAConfig
    Crds,
    /// The static base of both webhook configurations; `serve` writes their entries
    Webhook,
    /// ServiceAccount, roles and bindings
    Rbac,
    /// Namespace, rights, Service, Deployment and PodDisruptionBudget: deployment.yaml
    Deploy,
}

/// Prints the manifests as a YAML stream.
///
/// # Errors
/// When they cannot be written.
pub fn run(args: &ManifestsArgs) -> anyhow::Result<Exit> {
    let settings =
        Settings { namespace: args.namespace.clone(), image: args.image.clone(), ..Settings::default() };
    let text = manifests::stream(&chosen(args.which, &settings)?)?;
    output::data(text.as_bytes())?;
    Ok(Exit::Clean)
}

fn chosen(which: Which, settings: &Settings) -> Result<Vec<Manifest>, ManifestError> {
    match which {
        Which::Crds => manifests::crds(),
        Which::Webhook => manifests::webhook(),
        Which::Rbac => manifests::rbac(settings),
        Which::Deploy => manifests::deployment(settings),
    }
}
