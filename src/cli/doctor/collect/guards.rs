//! All guards, as a replica would judge by them.

use jiff::SignedDuration;

use crate::cli::cluster::{CallError, Cluster, describe};
use crate::cli::doctor::facts::{Guarded, Told};
use crate::cli::guards::{self, Found};
use crate::core::guard::Enforcement;
use crate::core::kinds::Catalog;
use crate::store::{self, convert};

/// Rules do not depend on how long a pause may last.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(8);

pub(super) async fn all(
    cluster: &Cluster,
    namespace: &str,
    default_enforcement: Enforcement,
) -> Told<Vec<Guarded>> {
    let found = match guards::list(cluster, None, None).await {
        Ok((found, 0)) => found,
        // Which checks hold for them cannot be told.
        Ok((_, unread)) => {
            return Err(format!(
                "{unread} of the guards, named above, cannot be read by this version of driftguard"
            ));
        }
        // No CRD, no guards: that it is missing is told by itself.
        Err(error) if error.downcast_ref::<CallError>().is_some_and(CallError::is_not_found) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(format!("{error:#}")),
    };
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = store::look_at_catalog(&cluster.client)
        .await
        .map_err(|error| format!("asking which kinds are served: {}", describe(&error)))?;
    let settings = store::Settings {
        default_enforcement,
        own_namespace: namespace.to_owned(),
        longest_pause: LONGEST_PAUSE,
    };
    Ok(found.iter().map(|guard| guarded(guard, &catalog, &settings)).collect())
}

fn guarded(guard: &Found, catalog: &Catalog, settings: &store::Settings) -> Guarded {
    let status = guard.status();
    Guarded {
        // Without the key, which a person need not be able to read, authors are unknown; rules do not ask for them.
        state: convert::convert(guard.stored(), catalog, settings, None),
        is_seen: status.observed_generation == guard.object.metadata.generation,
        conditions: status
            .conditions
            .into_iter()
            .map(|condition| (condition.type_, condition.status, condition.reason))
            .collect(),
        names_enforcement: guard.object.spec.enforcement.is_some(),
        remediates: guard.object.spec.auto_remediate,
        last_remediation: status.last_remediation.map(|last| last.result),
    }
}
