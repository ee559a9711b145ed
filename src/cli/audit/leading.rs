//! Whether anybody keeps what statuses say.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;

use crate::api::names;
use crate::cli::cluster::{Cluster, describe};
use crate::cli::output;
use crate::core::report::Leading;

/// A Lease that was not renewed for so long, or is dated so far ahead, is nobody's: the one who holds it renews it every
/// few seconds, and the clock here may be wrong by some.
const SILENT_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Whether somebody leads. An installation may be in any namespace; whoever may read Leases of its usual one only is told
/// of that. Where it cannot be told, a note says so.
pub(super) async fn leading(cluster: &Cluster, now: Timestamp) -> Leading {
    let named = ListParams::default().fields(&format!("metadata.name={}", names::LEASE));
    let leases = match Api::<Lease>::all(cluster.client.clone()).list(&named).await {
        Ok(list) => Ok(list.items),
        Err(_) => {
            let usual: Api<Lease> = Api::namespaced(cluster.client.clone(), names::NAMESPACE);
            usual.get_opt(names::LEASE).await.map(|lease| lease.into_iter().collect())
        }
    };
    match leases {
        Ok(leases) => of(leases.iter(), now),
        Err(error) => {
            output::message(&format!(
                "note: whether a replica of DriftGuard leads is not known ({}); that guards are enforced is what their statuses say",
                describe(&error)
            ));
            Leading::Assumed
        }
    }
}

fn of<'a>(leases: impl Iterator<Item = &'a Lease>, now: Timestamp) -> Leading {
    let renewed: Vec<Timestamp> =
        leases.filter_map(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)).collect();
    if renewed.iter().any(|at| now.duration_since(*at).abs() <= SILENT_FOR) {
        return Leading::Assumed;
    }
    Leading::Nobody { since: renewed.into_iter().filter(|at| *at < now).max() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn leading(renewed: &[Option<i64>]) -> Leading {
        let lease = |renewed: &Option<i64>| Lease {
            spec: Some(LeaseSpec {
                renew_time: renewed.map(|second| MicroTime(at(second))),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let leases: Vec<Lease> = renewed.iter().map(lease).collect();
        of(leases.iter(), at(10_000))
    }

    #[test]
    fn whoever_renewed_a_lease_just_now_leads() {
        assert_eq!(leading(&[Some(9_990)]), Leading::Assumed);
        assert_eq!(leading(&[Some(100), Some(10_005)]), Leading::Assumed, "clocks differ by seconds");
    }

    #[test]
    fn a_lease_that_is_old_dated_far_ahead_or_not_there_is_nobodys() {
        assert_eq!(leading(&[Some(100), Some(9_000)]), Leading::Nobody { since: Some(at(9_000)) });
        assert_eq!(leading(&[Some(90_000)]), Leading::Nobody { since: None });
        assert_eq!(leading(&[None]), Leading::Nobody { since: None });
        assert_eq!(leading(&[]), Leading::Nobody { since: None });
    }
}
