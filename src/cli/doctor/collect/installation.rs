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
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let doing = || format!("reading deployment/{} in namespace {namespace}", names::OPERATOR);
    let found =
        api.get_opt(names::OPERATOR).await.map_err(|error| cluster.explain(doing(), &error).to_string())?;
    let Some(deployment) = found else { return Ok(None) };
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

/// What guards without an `enforcement` do here: as the Deployment says. Of a `serve` that runs elsewhere no more is
/// known than what `install` noted for it.
///
/// # Errors
/// When what tells could not be read: whatever would be taken instead may be wrong.
pub(super) fn default_enforcement(
    workload: &Told<Option<Workload>>,
    definitions: &[(CustomResourceDefinition, Told<Option<CustomResourceDefinition>>)],
) -> Told<Enforcement> {
    let named = |word: &str| {
        let all = [Enforcement::Deny, Enforcement::Rewrite, Enforcement::Warn, Enforcement::Audit];
        all.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    };
    if let Some(workload) = workload.as_ref().map_err(Clone::clone)? {
        return Ok(workload.flag("--default-enforcement").and_then(named).unwrap_or(Enforcement::Deny));
    }
    for (_, found) in definitions {
        let Some(found) = found.as_ref().map_err(Clone::clone)? else { continue };
        let noted = found.annotations().get(names::ANNOTATION_DEFAULT_ENFORCEMENT);
        if let Some(mode) = noted.and_then(|word| named(word)) {
            return Ok(mode);
        }
    }
    Ok(Enforcement::Deny)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::crds;

    fn started_with(arguments: &[&str]) -> Told<Option<Workload>> {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Ok(Some(Workload { arguments, ..Workload::default() }))
    }

    fn noted(mode: &str) -> Told<Option<CustomResourceDefinition>> {
        let mut crd = crds::driftguard();
        let notes = crd.metadata.annotations.get_or_insert_default();
        notes.insert(names::ANNOTATION_DEFAULT_ENFORCEMENT.to_owned(), mode.to_owned());
        Ok(Some(crd))
    }

    #[test]
    fn what_the_deployment_says_counts_before_what_was_noted() {
        let told = |arguments: &[&str]| {
            default_enforcement(&started_with(arguments), &[(crds::driftguard(), noted("Warn"))])
        };
        assert_eq!(told(&["serve", "--default-enforcement=audit"]), Ok(Enforcement::Audit));
        assert_eq!(told(&["serve", "--default-enforcement", "Rewrite"]), Ok(Enforcement::Rewrite));
        assert_eq!(told(&["serve"]), Ok(Enforcement::Deny), "as `serve` does without the flag");
    }

    #[test]
    fn without_a_deployment_the_note_counts_and_what_cannot_be_read_is_not_guessed() {
        let forbidden = || Err("forbidden".to_owned());
        let told = |workload, crd| default_enforcement(&workload, &[(crds::driftguard(), crd)]);
        assert_eq!(told(Ok(None), noted("Audit")), Ok(Enforcement::Audit));
        assert_eq!(told(Ok(None), Ok(None)), Ok(Enforcement::Deny));
        assert_eq!(told(Ok(None), forbidden()), Err("forbidden".to_owned()));
        assert_eq!(told(Err("forbidden".to_owned()), noted("Audit")), Err("forbidden".to_owned()));
    }
}
