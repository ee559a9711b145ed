//! Whether API servers call us: a dry run of a guarded object by the caller, as `serve` itself proves enforcement.

use std::collections::BTreeSet;

use crate::cli::cluster::Cluster;
use crate::cli::doctor::facts::{Guarded, Reach, Unread};
use crate::control::proof::{self, Endpoint, Outcome};
use crate::core::guard::{GuardState, Target};

/// Most targets that are tried.
const MOST: usize = 16;

pub(super) async fn look(cluster: &Cluster, guards: &Result<Vec<Guarded>, Unread>, dry_run: bool) -> Reach {
    if !dry_run {
        return Reach::LeftOut;
    }
    let Ok(guards) = guards else { return Reach::Unread };
    // What cannot be evaluated need not be registered yet.
    let targets: BTreeSet<&Target> = guards
        .iter()
        .filter(|guard| matches!(guard.state, GuardState::Valid(_)))
        .filter_map(|guard| guard.state.target())
        .collect();
    let endpoint = Endpoint { address: cluster.address.clone(), client: cluster.client.clone() };
    let mut failed = None;
    for target in targets.iter().take(MOST) {
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        match proof::ask(&endpoint, target, &nonce).await {
            Ok(Outcome::Answered(answer)) => return Reach::Answered { target: target.to_string(), answer },
            Ok(Outcome::NotReached) => return Reach::Passed { target: target.to_string() },
            Ok(Outcome::NoSuchTarget | Outcome::Unusable) => {}
            // Another one may show that it is this target's own fault.
            Ok(Outcome::Failed { how }) => {
                failed.get_or_insert(Reach::Failed { target: target.to_string(), how });
            }
            Err(error) => return Reach::Untold(error.to_string()),
        }
    }
    failed.unwrap_or(Reach::NoTarget { guards: targets.len() })
}
