//! `exception open`.

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::selector;
use crate::api::reasons;
use crate::cli::cluster::{Cluster, ClusterArgs};
use crate::cli::exit::Exit;
use crate::cli::terms::Terms;
use crate::cli::wait::{Seen, Waiting};
use crate::cli::{guards, output, write};

/// Arguments of `exception open`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It pauses guards of its own namespace. Writes to their targets pass with a warning and are recorded, \
                  nothing is put back, and it ends by itself, at the latest after serve's --max-exception (8h unless \
                  told otherwise). It cannot be changed: close it and open another.\n\n\
                  Examples:
  driftguard exception open market-settings-guard --for 1h --reason 'incident 7'
  driftguard exception open -l team=risk --for 2h --reason 'release 12' --name release-12
  driftguard exception open --all -n trading --for 30m --reason 'restore of the database'"
)]
pub(super) struct OpenArgs {
    /// Guards to pause: NAME, or KIND/NAME of what they pin
    #[arg(value_name = "GUARD", required_unless_present_any = ["selector", "all"])]
    guards: Vec<String>,
    /// Pause the guards with these labels, such as team=risk or 'tier in (a,b)'
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["guards", "all"], value_parser = selector::parse)]
    selector: Option<LabelSelector>,
    /// Pause every guard of the namespace
    #[arg(long, conflicts_with = "guards")]
    all: bool,
    #[command(flatten)]
    terms: Terms,
    /// Name of the exception [default: exception-TIME]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Opens one.
///
/// # Errors
/// When it may not be made, or does not let writes pass in time.
pub(super) async fn run(args: OpenArgs) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let until = args.terms.end(now)?;
    let cluster = args.cluster.connect().await?;
    let name = args.name.clone().unwrap_or_else(|| now.strftime("exception-%Y%m%d-%H%M%S").to_string());
    let guards = named(&cluster, &args.guards).await?;
    let manifest = manifest(&args, &guards, &cluster.namespace, &name, &until);
    let request = http::Request::post(format!(
        "{}?fieldManager={}",
        super::path(Some(&cluster.namespace), None),
        write::FIELD_MANAGER
    ))
    .header(http::header::CONTENT_TYPE, "application/json")
    .body(manifest.to_string().into_bytes())
    .context("making the request")?;
    let doing = format!("opening DriftGuardException {}/{name}", cluster.namespace);
    write::send(&cluster, request).await.map_err(|error| cluster.explain(doing, &error))?;
    output::data(format!("driftguardexception/{name} opened until {until}\n").as_bytes())?;
    if args.waiting.wait {
        let in_force = args.waiting.until(async || look(&cluster, &name).await).await?;
        output::message(&in_force);
    }
    output::message(&format!(
        "end it earlier by: driftguard exception close {name} -n {}",
        cluster.namespace
    ));
    Ok(Exit::Clean)
}

/// Names of guards. Those given by their own names are not read: the right to make exceptions is enough, and the
/// gate warns of those that do not exist.
async fn named(cluster: &Cluster, words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for word in words {
        if !word.contains('/') {
            names.push(word.clone());
            continue;
        }
        for guard in guards::chosen(cluster, std::slice::from_ref(word)).await? {
            let place = guard.namespace();
            ensure!(
                place == cluster.namespace,
                "{word} is pinned from namespace {place}; open the exception there, with -n {place}"
            );
            names.push(guard.name().to_owned());
        }
    }
    // The list is a set.
    names.sort();
    names.dedup();
    Ok(names)
}

fn manifest(args: &OpenArgs, names: &[String], namespace: &str, name: &str, until: &str) -> Value {
    let paused = match &args.selector {
        Some(selector) => json!({"selector": selector}),
        None if args.all => json!({"all": true}),
        None => json!({"names": names}),
    };
    json!({
        "apiVersion": format!("{}/{}", crate::api::names::GROUP, crate::api::names::VERSION),
        "kind": "DriftGuardException",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"guards": paused, "until": until, "reason": args.terms.reason},
    })
}

/// Whether every replica lets writes pass.
async fn look(cluster: &Cluster, name: &str) -> anyhow::Result<Seen<String>> {
    let status = super::read(cluster, name).await?.status.unwrap_or_default();
    let active = status.conditions.iter().find(|said| said.type_ == reasons::EXCEPTION_ACTIVE);
    match active {
        Some(said) if said.status == "True" => Ok(Seen::Done(said.message.clone())),
        Some(said) if said.reason != reasons::REPLICAS_PENDING => anyhow::bail!("{}", said.message),
        Some(said) => Ok(Seen::NotYet(format!("it is opened, but not in force: {}", said.message))),
        None => {
            Ok(Seen::NotYet("it is opened, but no replica of DriftGuard says that writes pass".to_owned()))
        }
    }
}
