//! Takes the lease away from whoever writes the webhook configurations.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::output;

/// Who holds the lease while things are removed.
const HOLDER: &str = "driftguard-uninstall";
/// For how long; longer than any removal takes.
const SECONDS: i32 = 600;

/// Takes the lease over, if there is one. Returns whether there is.
///
/// Without a Deployment its holder is a `serve` outside the cluster. That one cannot be ended from
/// here and would write the configurations anew as soon as the lease is gone, so it is an error.
pub(super) async fn take(cluster: &Cluster, namespace: &str, deployed: bool) -> anyhow::Result<bool> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let doing = || format!("taking over lease/{}", names::LEASE);
    loop {
        let found = leases.get_opt(names::LEASE).await;
        let Some(mut lease) = found.map_err(|error| cluster.explain(doing(), &error))? else {
            return Ok(false);
        };
        let now = Timestamp::now();
        if let (false, Some((holder, seconds))) = (deployed, running(&lease, now)) {
            anyhow::bail!(
                "`driftguard serve` runs outside the cluster ({holder}, seen {seconds} s ago) and would register itself again; stop it, and repeat this when it has been silent for a minute"
            );
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(HOLDER.to_owned());
        spec.lease_duration_seconds = Some(SECONDS);
        spec.acquire_time = Some(MicroTime(now));
        spec.renew_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        match leases.replace(names::LEASE, &PostParams::default(), &lease).await {
            Ok(_) => return Ok(true),
            // Its holder renewed it in between: look again.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(cluster.explain(doing(), &error))?,
        }
    }
}

/// Deletes the lease.
pub(super) async fn delete(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    match leases.delete(names::LEASE, &DeleteParams::default()).await {
        Ok(_) => {
            Ok(output::data(format!("lease.coordination.k8s.io/{} deleted\n", names::LEASE).as_bytes())?)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(cluster.explain(format!("deleting lease/{}", names::LEASE), &error))?,
    }
}

/// The holder of a lease that has not run out, and how many seconds ago it was renewed.
fn running(lease: &Lease, now: Timestamp) -> Option<(String, i64)> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty() && holder != HOLDER)?;
    let age = now.duration_since(spec.renew_time.as_ref()?.0);
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    (age < lasts).then(|| (holder, age.as_secs().max(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

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
        assert_eq!(running(&lease("pod-a", 97), now), Some(("pod-a".to_owned(), 3)));
        assert_eq!(running(&lease("pod-a", 85), now), None, "it ran out at this very second");
        assert_eq!(running(&lease("", 99), now), None, "given back");
        assert_eq!(running(&lease(HOLDER, 99), now), None, "an uninstall that was interrupted");
        assert_eq!(running(&Lease::default(), now), None);
    }
}
