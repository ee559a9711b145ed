//! The lease tells whether a `serve` runs outside the cluster.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::DeleteParams;

use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::output;

/// Refuses to go on while somebody renews the lease.
///
/// Called when there is no Deployment: then its holder is a `serve` outside the cluster, with rights of
/// its own. It cannot be ended from here, and would write the configurations anew at once.
pub(super) async fn require_released(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let found = leases(cluster, namespace).get_opt(names::LEASE).await;
    let found = found.map_err(|error| cluster.explain(format!("reading lease/{}", names::LEASE), &error))?;
    match found.as_ref().and_then(|lease| held(lease, Timestamp::now())) {
        None => Ok(()),
        Some(held) => anyhow::bail!(
            "`driftguard serve` runs outside the cluster ({}, seen {} s ago) and would register itself again; stop it first (when it was killed, wait {} s)",
            held.holder,
            held.seconds,
            held.left
        ),
    }
}

/// Deletes the lease.
pub(super) async fn delete(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    match leases(cluster, namespace).delete(names::LEASE, &DeleteParams::default()).await {
        Ok(_) => {
            Ok(output::data(format!("lease.coordination.k8s.io/{} deleted\n", names::LEASE).as_bytes())?)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(cluster.explain(format!("deleting lease/{}", names::LEASE), &error))?,
    }
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
