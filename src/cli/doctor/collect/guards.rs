//! All guards, as a replica would judge by them.

use jiff::SignedDuration;

use crate::cli::cluster::{CallError, Cluster, describe};
use crate::cli::doctor::facts::{Guarded, Said, Unread};
use crate::cli::guards::{self, Found};
use crate::core::guard::Enforcement;
use crate::core::kinds::Catalog;
use crate::store::{self, convert};

/// Rules do not depend on how long a pause may last.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(8);

/// What mends that they may not be listed.
const MAY_LIST: &str = "run it as somebody who may list driftguards.terrafusion.ai in all namespaces";
/// What mends that there was no list, for another reason than a right.
const LATER: &str =
    "look again, and see to the API server and what stands between it and you when that does not help";
/// What mends that some cannot be read: they are of a schema that is not ours.
const OTHER_VERSION: &str = "see to the CRDs (above): use the `driftguard` of the version that is installed, or mend \
     those guards by `kubectl explain driftguard.spec`";
/// What mends that kinds are not told.
const MAY_DISCOVER: &str = "look again; an API server that is registered and does not answer hides its kinds: \
     kubectl get apiservices";

pub(super) async fn all(
    cluster: &Cluster,
    namespace: &str,
    default_enforcement: Enforcement,
) -> Result<Vec<Guarded>, Unread> {
    let found = match guards::all(cluster, None, None, |_| true).await {
        Ok((found, 0)) => found,
        // Which checks hold for them cannot be told.
        Ok((_, unread)) => return Err(of_another_version(unread)),
        // No CRD, no guards: that it is missing is told by itself.
        Err(error) if error.downcast_ref::<CallError>().is_some_and(CallError::is_not_found) => {
            return Ok(Vec::new());
        }
        Err(error) => {
            let code = error.downcast_ref::<CallError>().and_then(|error| error.code);
            let mend = if code == Some(403) { MAY_LIST } else { LATER };
            return Err(Unread { why: format!("{error:#}"), mend });
        }
    };
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = store::look_at_catalog(&cluster.client).await.map_err(|error| Unread {
        why: format!("asking which kinds are served: {}", describe(&error)),
        mend: MAY_DISCOVER,
    })?;
    let settings = store::Settings {
        default_enforcement,
        own_namespace: namespace.to_owned(),
        longest_pause: LONGEST_PAUSE,
    };
    Ok(found.iter().map(|guard| guarded(guard, &catalog, &settings)).collect())
}

/// Each is named where messages go, as it was met.
fn of_another_version(unread: usize) -> Unread {
    let guards = if unread == 1 { "1 guard".to_owned() } else { format!("{unread} guards") };
    Unread {
        why: format!(
            "{guards}, named on standard error, cannot be read by this version of driftguard, {}",
            env!("CARGO_PKG_VERSION")
        ),
        mend: OTHER_VERSION,
    }
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
            .map(|condition| Said {
                is_current: condition.observed_generation == guard.object.metadata.generation,
                of: condition.type_,
                status: condition.status,
                reason: condition.reason,
            })
            .collect(),
        names_enforcement: guard.object.spec.enforcement.is_some(),
        remediates: guard.object.spec.auto_remediate,
        last_remediation: status.last_remediation.map(|last| last.result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_of_another_version_are_counted_and_its_program_is_what_mends_it() {
        let Unread { why, mend } = of_another_version(2);
        assert!(
            why.starts_with("2 guards, named on standard error, cannot be read by this version"),
            "{why}"
        );
        assert!(why.ends_with(env!("CARGO_PKG_VERSION")), "{why}");
        assert!(mend.contains("use the `driftguard` of the version that is installed"), "{mend}");
    }
}
