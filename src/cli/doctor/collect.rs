//! Reads what is to be judged. Nothing is written: reads, questions about rights, and dry runs.
//!
//! What cannot be read is kept with the reason, and hides nothing else.

mod guards;
mod installation;
mod reach;
mod rights;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use kube::client::Body;

use super::facts::{Facts, Server, Told};
use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::install::preflight;
use crate::core::guard::Enforcement;
use crate::manifests::crds;

/// Everything that is judged; without `dry_run` nothing is written even on trial.
///
/// # Errors
/// When the API server cannot be asked at all.
pub(super) async fn facts(
    cluster: &Cluster,
    namespace: Option<String>,
    dry_run: bool,
) -> anyhow::Result<Facts> {
    let server = server(cluster).await?;
    let ahead = ahead(cluster).await;
    let now = ahead.as_ref().map_or_else(|_| Timestamp::now(), |ahead| Timestamp::now() - *ahead);
    let namespace = match namespace {
        Some(given) => given,
        // Any namespace that an installation stands in; who may not look goes by the usual one.
        None => preflight::elsewhere(cluster, "")
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| names::NAMESPACE.to_owned()),
    };
    let mut definitions = Vec::new();
    for ours in [crds::driftguard(), crds::exception(), crds::gamaconfig()] {
        let found = definition(cluster, ours.metadata.name.as_deref().unwrap_or_default()).await;
        definitions.push((ours, found));
    }
    let workload = installation::workload(cluster, &namespace).await;
    let enforcement = installation::default_enforcement(&workload, &definitions);
    // Where it is not known, no rule is judged by it.
    let assumed = enforcement.clone().unwrap_or(Enforcement::Deny);
    let guards = guards::all(cluster, &namespace, assumed).await;
    // After the guards, so that what was registered for them meanwhile is seen.
    let validating = configuration::<ValidatingWebhookConfiguration>(cluster).await;
    let mutating = configuration::<MutatingWebhookConfiguration>(cluster).await;
    Ok(Facts {
        now,
        server,
        caller: caller(cluster).await,
        ahead,
        workload,
        replicas: installation::replicas(cluster, &namespace).await,
        leader: installation::leader(cluster, &namespace).await,
        secrets: installation::secrets(cluster, &namespace).await,
        lacking: rights::own(cluster, &namespace).await,
        kinds: rights::on_targets(cluster, &namespace, &guards).await,
        reach: reach::look(cluster, &guards, dry_run).await,
        definitions,
        validating,
        mutating,
        enforcement,
        guards,
        namespace,
    })
}

async fn server(cluster: &Cluster) -> anyhow::Result<Server> {
    let info = cluster
        .client
        .apiserver_version()
        .await
        .map_err(|error| cluster.explain("asking for the server's version", &error))?;
    Ok(Server {
        address: cluster.address.clone(),
        major: info.major,
        minor: info.minor,
        version: info.git_version,
    })
}

/// By how much our clock is ahead, by the header in which an answer says when it was made.
async fn ahead(cluster: &Cluster) -> Told<SignedDuration> {
    let request = http::Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    let before = Timestamp::now();
    let answer = cluster
        .client
        .send(request)
        .await
        .map_err(|error| cluster.explain("asking for the time", &error).to_string())?;
    let after = Timestamp::now();
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.ok_or("the API server's answer has no Date")?;
    let theirs = DateTimeParser::new().parse_timestamp(date).map_err(|error| error.to_string())?;
    // It is cut to whole seconds, so that it was made at any moment of that second.
    let latest = theirs + SignedDuration::from_secs(1);
    Ok(if after < theirs {
        after.duration_since(theirs)
    } else if before > latest {
        before.duration_since(latest)
    } else {
        SignedDuration::ZERO
    })
}

async fn caller(cluster: &Cluster) -> Told<String> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|error| cluster.explain("asking who you are", &error).to_string())?;
    let name = review.status.and_then(|status| status.user_info).and_then(|info| info.username);
    name.ok_or_else(|| "the API server named nobody".to_owned())
}

async fn definition(cluster: &Cluster, name: &str) -> Told<Option<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let read = api.get_opt(name).await;
    read.map_err(|error| cluster.explain(format!("reading CRD {name}"), &error).to_string())
}

async fn configuration<K>(cluster: &Cluster) -> Told<Option<K>>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let doing = || format!("reading {} {}", K::kind(&()), names::WEBHOOK_CONFIGURATION);
    let read = api.get_opt(names::WEBHOOK_CONFIGURATION).await;
    read.map_err(|error| cluster.explain(doing(), &error).to_string())
}
