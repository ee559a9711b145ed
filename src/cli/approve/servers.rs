//! Whether every API server of the cluster is of one version.
//!
//! While an upgrade goes on, one object reads in two ways, by turns. Which of them is to stay, only its end tells.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::ApproveArgs;
use crate::cli::cluster::Cluster;
use crate::cli::output;
use crate::control::endpoints;

/// How many connections are made to the address of the kubeconfig: behind it may be a balancer.
const CONNECTIONS: usize = 5;
/// How long an API server may take that the command need not be able to reach.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// Refuses to go on while API servers of several versions answer: behind the address of the kubeconfig, or at those
/// that EndpointSlices name. What could not be asked is said, for whoever approves to make sure of.
///
/// # Errors
/// When they are of several versions, or the address of the kubeconfig does not answer.
pub(super) async fn ensure_one_version(args: &ApproveArgs, cluster: &Cluster) -> anyhow::Result<()> {
    let config = args.cluster.config().await?;
    let mut versions = BTreeMap::new();
    // All at once, so that a balancer spreads them over several.
    let fresh = (0..CONNECTIONS).map(|_| async {
        let client = args.cluster.patient(config.clone()).context("cannot make another connection")?;
        let asked = client.apiserver_version().await;
        let doing = || format!("asking the API server at {} for its version", cluster.address);
        Ok::<_, anyhow::Error>(asked.map_err(|error| cluster.explain(doing(), &error))?.git_version)
    });
    for version in futures::future::try_join_all(fresh).await? {
        versions.insert(version, cluster.address.clone());
    }
    let found = endpoints::find(&config, &cluster.client, &[]).await?;
    let is_known = found.iter().all(|endpoint| endpoint.address != config.cluster_url.to_string());
    let asked = found.iter().map(|endpoint| async move {
        let asked = tokio::time::timeout(ANSWERS_WITHIN, endpoint.client.apiserver_version()).await;
        (endpoint, asked.ok().and_then(Result::ok))
    });
    let mut silent = Vec::new();
    for (endpoint, version) in futures::future::join_all(asked).await {
        match version {
            Some(version) => {
                versions.insert(version.git_version, endpoint.address.clone());
            }
            None => silent.push(endpoint.address.clone()),
        }
    }
    if versions.len() > 1 {
        bail!("{}", several(&versions));
    }
    let version = versions.into_keys().next().unwrap_or_default();
    if let Some(note) = untold(&version, is_known, &silent) {
        output::message(&note);
    }
    Ok(())
}

fn several(versions: &BTreeMap<String, String>) -> String {
    let all: Vec<String> =
        versions.iter().map(|(version, address)| format!("{version} at {address}")).collect();
    format!(
        "nothing is approved while API servers of several versions answer: {}; try again once all are of one",
        all.join(", ")
    )
}

/// What whoever approves must make sure of.
fn untold(version: &str, is_known: bool, silent: &[String]) -> Option<String> {
    let whom = match silent {
        _ if !is_known => "which other API servers the cluster has could not be told".to_owned(),
        [] => return None,
        silent => format!("{} could not be asked for its version", silent.join(", ")),
    };
    Some(format!("note: {whom}; make sure that every API server of the cluster is {version} by now"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_told_with_where_each_version_answered() {
        let of = |version: &str, address: &str| (version.to_owned(), address.to_owned());
        let versions = BTreeMap::from([of("v1.33.1", "https://a"), of("v1.37.0", "https://b")]);
        let told = several(&versions);
        assert!(told.contains("v1.33.1 at https://a, v1.37.0 at https://b"), "{told}");
    }

    #[test]
    fn what_could_not_be_asked_is_left_to_a_person() {
        assert_eq!(untold("v1.37.0", true, &[]), None);
        for (is_known, silent) in [(false, vec![]), (true, vec!["https://a".to_owned()])] {
            let note = untold("v1.37.0", is_known, &silent).unwrap_or_default();
            assert!(
                note.ends_with("make sure that every API server of the cluster is v1.37.0 by now"),
                "{note}"
            );
        }
    }
}
