//! The Leases: they tell whether a `serve` runs outside the cluster, and go when it is over.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::output;

/// Refuses to go on while somebody renews a Lease of ours: the elected replica, or one that would be
/// elected next.
///
/// Called when there is no Deployment: then its holder is a `serve` outside the cluster, with rights of
/// its own. It cannot be ended from here, and would write the configurations anew at once.
pub(super) async fn require_released(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let found = leases(cluster, namespace).get_opt(names::LEASE).await;
    let found = found.map_err(|error| cluster.explain(format!("reading lease/{}", names::LEASE), &error))?;
    let all = found.into_iter().chain(of_replicas(cluster, namespace).await?);
    let now = Timestamp::now();
    match all.filter_map(|lease| held(&lease, now)).max_by_key(|held| held.left) {
        None => Ok(()),
        Some(held) => anyhow::bail!(
            "`driftguard serve` runs outside the cluster ({}, seen {} s ago) and would register itself again; stop it first (when it was killed, wait {} s)",
            held.holder,
            held.seconds,
            held.left
        ),
    }
}

/// Deletes all of them: replicas that were killed, or lost their rights, have left their own.
pub(super) async fn delete(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let left = of_replicas(cluster, namespace).await?;
    let replicas = left.into_iter().filter_map(|lease| lease.metadata.name);
    for name in std::iter::once(names::LEASE.to_owned()).chain(replicas) {
        match leases(cluster, namespace).delete(&name, &DeleteParams::default()).await {
            Ok(_) => output::data(format!("lease.coordination.k8s.io/{name} deleted\n").as_bytes())?,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => Err(cluster.explain(format!("deleting lease/{name}"), &error))?,
        }
    }
    Ok(())
}

/// Those by which each replica says that it lives.
async fn of_replicas(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Lease>> {
    let labelled = ListParams::default().labels(names::LABEL_REPLICA);
    let list = leases(cluster, namespace).list(&labelled).await;
    let list = list.map_err(|error| cluster.explain("looking for the leases of replicas", &error))?;
    Ok(list.items)
}

fn leases(cluster: &Cluster, namespace: &str) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), namespace)
}

/// A lease that has not run out.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    holder: String,
    /// Since it was renewed.
    seconds: i64,
    /// Until it runs out.
    left: i64,
}

fn held(lease: &Lease, now: Timestamp) -> Option<Held> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    let age = now.duration_since(spec.renew_time.as_ref()?.0);
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    (age < lasts).then(|| Held { holder, seconds: age.as_secs().max(0), left: (lasts - age).as_secs() + 1 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn lease(holder: &str, renewed: i64) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_counts_as_held_until_it_runs_out() {
        let now = Timestamp::from_second(100).unwrap();
        let held_now = Held { holder: "laptop".to_owned(), seconds: 3, left: 13 };
        assert_eq!(held(&lease("laptop", 97), now), Some(held_now));
        assert_eq!(held(&lease("laptop", 85), now), None, "it ran out at this very second");
        assert_eq!(held(&lease("", 99), now), None, "given back");
        assert_eq!(held(&Lease::default(), now), None);
    }
}
