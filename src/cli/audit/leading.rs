//! Whether anybody keeps what statuses say.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::api::names;
use crate::cli::cluster::Cluster;

/// A Lease that was not renewed for so long is nobody's: the one who holds it does that every few seconds, and the
/// clock here may be wrong by some.
const SILENT_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Since when nobody leads the installation. `None` also where that cannot be told: whoever audits need not be allowed
/// to read Leases, and an installation may be in another namespace.
pub(super) async fn unled_since(cluster: &Cluster, now: Timestamp) -> Option<Timestamp> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), names::NAMESPACE);
    let lease = leases.get_opt(names::LEASE).await.ok().flatten()?;
    let renewed = lease.spec?.renew_time?.0;
    (now.duration_since(renewed) > SILENT_FOR).then_some(renewed)
}
