//! `driftguard adopt`: vouches for guards that nobody is known to have approved.
//!
//! Only the webhook holds the key that signs. So this asks by an annotation, which the mutating webhook
//! takes away again and answers with a signature of whoever asked; the gate then checks their rights
//! as for a change of the spec.

use std::fmt::Write as _;

use anyhow::{bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use crate::api::reasons::ConditionType;
use crate::api::{DriftGuard, names};

/// How often a guard that changes meanwhile is read again.
const TRIES: usize = 5;

/// Arguments of `driftguard adopt`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard adopt market-settings-guard\n  driftguard adopt --all -n trading\n  \
                  driftguard adopt -A"
)]
pub struct AdoptArgs {
    /// Guards to adopt, whoever approved them before
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "all_namespaces"])]
    guards: Vec<String>,
    /// Every guard of the namespace whose author is unknown
    #[arg(long, conflicts_with = "guards")]
    all: bool,
    /// Every guard of the cluster whose author is unknown
    #[arg(short = 'A', long, conflicts_with_all = ["guards", "namespace"])]
    all_namespaces: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Adopts.
///
/// # Errors
/// When the cluster cannot be reached, or a guard cannot be adopted; the others are adopted all the same.
pub async fn run(args: AdoptArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let chosen: Vec<(String, String)> = if args.guards.is_empty() {
        unknown(&cluster, args.all_namespaces).await?
    } else {
        args.guards.iter().map(|name| (cluster.namespace.clone(), name.clone())).collect()
    };
    if chosen.is_empty() {
        output::message("no guard is of an unknown author");
        return Ok(Exit::Clean);
    }
    let (mut adopted, mut failed) = (String::new(), Vec::new());
    for (namespace, name) in &chosen {
        match adopt(&cluster, namespace, name).await {
            // Writing to a String cannot fail.
            Ok(what) => drop(writeln!(adopted, "driftguard/{name} in {namespace} adopted: {what}")),
            Err(error) => failed.push(format!("{namespace}/{name}: {error:#}")),
        }
    }
    output::data(adopted.as_bytes())?;
    match failed.as_slice() {
        [] => Ok(Exit::Clean),
        [one] => bail!("{one}"),
        many => bail!("{} of {} guards could not be adopted:\n{}", many.len(), chosen.len(), many.join("\n")),
    }
}

/// Namespace and name of the guards whose status says that nobody is known to have approved them.
async fn unknown(cluster: &Cluster, everywhere: bool) -> anyhow::Result<Vec<(String, String)>> {
    // Not as guards: one that this version cannot read must not keep the others from being adopted.
    let resource = ApiResource::erase::<DriftGuard>(&());
    let api: Api<DynamicObject> = if everywhere {
        Api::all_with(cluster.client.clone(), &resource)
    } else {
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)
    };
    let guards = api
        .list(&ListParams::default())
        .await
        .map_err(|error| cluster.explain("listing DriftGuards", &error))?;
    let is_unknown = |guard: &DynamicObject| {
        let of_type = ConditionType::AuthorUnknown.as_str();
        let conditions = guard.data["status"]["conditions"].as_array();
        let says = |condition: &Value| condition["type"] == of_type && condition["status"] == "True";
        conditions.into_iter().flatten().any(says)
    };
    Ok(guards
        .items
        .into_iter()
        .filter(is_unknown)
        .map(|guard| (guard.metadata.namespace.unwrap_or_default(), guard.metadata.name.unwrap_or_default()))
        .collect())
}

/// Adopts one guard, and tells what it pins.
async fn adopt(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<String> {
    let api: Api<DriftGuard> = Api::namespaced(cluster.client.clone(), namespace);
    let after = ask_for_signature(cluster, &api, name).await?;
    let annotations = after.metadata.annotations.clone().unwrap_or_default();
    if annotations.contains_key(names::ANNOTATION_ADOPT) {
        // Nobody answers reviews of guards: take the request back, so that nobody finds it later.
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_ADOPT: null}}});
        let taken_back = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        ensure!(taken_back.is_ok(), "it is not signed, and the annotation {} stays", names::ANNOTATION_ADOPT);
        bail!("no webhook signs guards in this cluster; is `driftguard serve` running?");
    }
    ensure!(annotations.contains_key(names::ANNOTATION_AUTHOR), "the webhook did not sign it; see its log");
    let spec = &after.spec;
    let place = spec.target_namespace.as_deref().unwrap_or(namespace);
    Ok(format!("{} {} in {place} at {}", spec.target_kind, spec.target_name, spec.expected_hash))
}

/// Sets the annotation that asks for a signature. What is adopted is what was read first: only the
/// controller's own writes of the status may come in between.
async fn ask_for_signature(
    cluster: &Cluster,
    api: &Api<DriftGuard>,
    name: &str,
) -> anyhow::Result<DriftGuard> {
    let read = async || api.get(name).await.map_err(|error| cluster.explain("reading the guard", &error));
    let first = read().await?;
    let mut version = first.metadata.resource_version.clone();
    for _ in 0..TRIES {
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let patch = json!({"metadata": {
            "resourceVersion": version,
            "annotations": {names::ANNOTATION_ADOPT: nonce},
        }});
        match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(after) => return Ok(after),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(cluster.explain("adopting the guard", &error).into()),
        }
        let again = read().await?;
        ensure!(
            again.metadata.uid == first.metadata.uid && again.spec == first.spec,
            "its spec was changed meanwhile; look at it and run this again"
        );
        version = again.metadata.resource_version;
    }
    bail!("it changes all the time; run this again")
}
