//! The Deployment, the Leases and the Secrets of an installation. Of Secrets only whether they are there.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::doctor::facts::{Beat, Told, Workload};
use crate::core::guard::Enforcement;

pub(super) async fn workload(cluster: &Cluster, namespace: &str) -> Told<Option<Workload>> {
    let Some(deployment) = deployment(cluster, namespace).await? else { return Ok(None) };
    let spec = deployment.spec.unwrap_or_default();
    let pod = spec.template.spec.unwrap_or_default();
    let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    let trouble = if ready < wanted { trouble(cluster, namespace).await } else { Vec::new() };
    let words =
        |container: &Container| container.command.iter().chain(&container.args).flatten().cloned().collect();
    let arguments: Vec<Vec<String>> = pod.containers.iter().map(words).collect();
    Ok(Some(Workload {
        wanted,
        ready,
        image: pod.containers.into_iter().find_map(|container| container.image).unwrap_or_default(),
        arguments: arguments.concat(),
        trouble,
    }))
}

async fn deployment(cluster: &Cluster, namespace: &str) -> Told<Option<Deployment>> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let doing = || format!("reading deployment/{} in namespace {namespace}", names::OPERATOR);
    api.get_opt(names::OPERATOR).await.map_err(|error| cluster.explain(doing(), &error).to_string())
}

/// Why pods do not run: it only helps, so that pods which may not be read have none.
async fn trouble(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{}={}", names::LABEL_APP, names::OPERATOR));
    let pods = api.list(&ours).await.map(|list| list.items).unwrap_or_default();
    let mut told = BTreeSet::new();
    for status in pods.into_iter().filter_map(|pod| pod.status) {
        let unscheduled = |said: &&_| {
            let said: &k8s_openapi::api::core::v1::PodCondition = said;
            said.type_ == "PodScheduled" && said.status == "False"
        };
        if let Some(said) = status.conditions.iter().flatten().find(unscheduled) {
            let reason = said.reason.as_deref().unwrap_or("no reason");
            told.insert(format!("not scheduled: {reason}"));
        }
        for container in status.container_statuses.into_iter().flatten() {
            let state = container.state.unwrap_or_default();
            if let Some(reason) = state.waiting.and_then(|waiting| waiting.reason) {
                told.insert(format!("{} waits: {reason}", container.name));
            }
            if let Some(ended) = state.terminated {
                told.insert(format!("{} ended with {}", container.name, ended.exit_code));
            }
        }
    }
    told.into_iter().collect()
}

/// What guards without an `enforcement` do here: as the Deployment says, else as `install` noted.
pub(super) async fn default_enforcement(
    cluster: &Cluster,
    namespace: &str,
    definitions: &[(CustomResourceDefinition, Told<Option<CustomResourceDefinition>>)],
) -> Enforcement {
    let named = |word: &str| {
        let all = [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Warn, Enforcement::Audit];
        all.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    };
    let deployment = deployment(cluster, namespace).await.ok().flatten();
    let arguments: Vec<String> = deployment
        .and_then(|deployment| deployment.spec?.template.spec)
        .into_iter()
        .flat_map(|pod| pod.containers)
        .flat_map(|container| container.args.unwrap_or_default())
        .collect();
    let flag = "--default-enforcement";
    let joined = arguments.iter().find_map(|word| named(word.strip_prefix(flag)?.strip_prefix('=')?));
    let apart = || {
        let at = arguments.iter().position(|word| word == flag)?;
        named(arguments.get(at + 1)?)
    };
    let noted = || {
        let crds = definitions.iter().filter_map(|(_, found)| found.as_ref().ok()?.as_ref());
        let mut notes =
            crds.filter_map(|crd| crd.annotations().get(names::ANNOTATION_DEFAULT_ENFORCEMENT).cloned());
        notes.find_map(|word| named(&word))
    };
    joined.or_else(apart).or_else(noted).unwrap_or(Enforcement::Deny)
}

pub(super) async fn replicas(cluster: &Cluster, namespace: &str) -> Told<Vec<Beat>> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let ours = ListParams::default().labels(names::LABEL_REPLICA);
    let doing = || format!("listing Leases of replicas in namespace {namespace}");
    let list = api.list(&ours).await.map_err(|error| cluster.explain(doing(), &error).to_string())?;
    Ok(list.items.into_iter().map(beat).collect())
}

pub(super) async fn leader(cluster: &Cluster, namespace: &str) -> Told<Option<Beat>> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let doing = || format!("reading Lease {} in namespace {namespace}", names::LEASE);
    let found =
        api.get_opt(names::LEASE).await.map_err(|error| cluster.explain(doing(), &error).to_string())?;
    Ok(found.map(beat))
}

fn beat(lease: Lease) -> Beat {
    let spec = lease.spec.unwrap_or_default();
    Beat { holder: spec.holder_identity.unwrap_or_default(), renewed: spec.renew_time.map(|at| at.0) }
}

/// Whether each of our Secrets is there. Only metadata is asked for, so that no value ever comes here.
pub(super) async fn secrets(cluster: &Cluster, namespace: &str) -> Vec<(&'static str, Told<bool>)> {
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let mut told = Vec::new();
    for name in [names::CA_SECRET, names::SIGNING_SECRET] {
        let doing = || format!("looking for Secret {name} in namespace {namespace}");
        let found = api.get_metadata_opt(name).await;
        told.push((
            name,
            found.map(|found| found.is_some()).map_err(|error| cluster.explain(doing(), &error).to_string()),
        ));
    }
    told
}
