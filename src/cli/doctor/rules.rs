//! What facts mean. Pure: no requests, no clock.

mod api;
mod guards;
mod installation;
mod rights;
mod webhooks;

use super::facts::Facts;
use super::finding::Finding;

/// All findings, in the order of the checks.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![api::server(&facts.server), api::caller(&facts.caller), api::clock(&facts.ahead)];
    found.extend(api::definitions(&facts.definitions));
    found.extend([
        installation::operator(&facts.workload, &facts.replicas, &facts.namespace, facts.now),
        installation::replicas(&facts.replicas, &facts.workload, facts.now),
        installation::leader(&facts.leader, facts.now),
        installation::secrets(&facts.secrets, &facts.workload),
        rights::operator_rights(&facts.lacking, &facts.namespace),
    ]);
    found.extend(rights::target_rights(&facts.kinds, &facts.guards, &facts.namespace));
    found.extend(rights::remediation_rights(&facts.kinds, &facts.guards, &facts.namespace));
    let registered = webhooks::Registered::of(facts);
    found.extend(registered.configurations());
    found.push(registered.rules());
    found.push(registered.broken_glass());
    found.push(registered.certificates());
    found.push(registered.reachability(&facts.reach));
    found.extend(guards::all(&facts.guards, &installation::leads(&facts.leader, facts.now)));
    found
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::cli::doctor::facts::{Reach, Server};
    use crate::cli::doctor::finding::Summary;

    /// A cluster with nothing of ours in it, all of which could be read.
    pub(super) fn nothing(now: Timestamp) -> Facts {
        Facts {
            now,
            namespace: "terrafusion-system".to_owned(),
            server: Server {
                address: "https://host".to_owned(),
                major: "1".to_owned(),
                minor: "37".to_owned(),
                version: "v1.37.0".to_owned(),
            },
            caller: Ok("admin".to_owned()),
            ahead: Ok(SignedDuration::ZERO),
            definitions: vec![(crate::manifests::crds::driftguard(), Ok(None))],
            workload: Ok(None),
            replicas: Ok(Vec::new()),
            leader: Ok(None),
            secrets: Vec::new(),
            lacking: Ok(Vec::new()),
            kinds: Ok(Vec::new()),
            validating: Ok(None),
            mutating: Ok(None),
            enforcement: Ok(crate::core::guard::Enforcement::Deny),
            guards: Ok(Vec::new()),
            reach: Reach::NoTarget { guards: 0 },
        }
    }

    #[test]
    fn a_cluster_without_an_installation_fails_and_every_check_is_told() {
        let told = findings(&nothing(Timestamp::UNIX_EPOCH));
        let summary = Summary::of(&told);
        assert!(summary.fail >= 5 && summary.untold == 0, "{told:?}");
        for check in crate::cli::doctor::finding::Check::ALL {
            assert!(told.iter().any(|finding| finding.check == check), "{check:?} is not told");
        }
        for finding in told {
            let needs = matches!(
                finding.outcome,
                crate::cli::doctor::finding::Outcome::Fail | crate::cli::doctor::finding::Outcome::Warn
            );
            assert!(!needs || finding.mend.is_some(), "{finding:?} has no mend");
        }
    }
}
