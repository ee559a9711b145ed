//! Groups that an aggregated API server serves, and which of them are proved.
//!
//! The API server sends requests for such a group on to another server (an APIService with a service).
//! Whether that one calls webhooks at all is its own matter, so that a proof through any other group says
//! nothing of it: a guard of such a group is called enforced only by a dry run of an object of that very
//! group, in a version that is served there. When webhooks do not run there, no such proof ever comes.
//! Pure but for [`served`]; time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use crate::core::guard::Target;

use super::conditions::Coverage;

/// Longest the list of APIServices may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// After so long a group that was proved is proved anew: its server may have been replaced.
const PROVE_AGAIN: Duration = Duration::from_secs(300);
/// One that was not proved sooner: somebody may be waiting for the condition to come.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Group and version that another API server serves.
type Served = BTreeSet<(String, String)>;

/// What a proof by objects of one group came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Every API server's writes to it reach us.
    Proved,
    /// They are not known to, and why.
    NotProved(String),
}

/// The last proof of a group.
#[derive(Debug)]
struct Tried {
    generation: u64,
    /// The newest snapshot that it covers.
    version: u64,
    finding: Finding,
    at: Instant,
}

impl Tried {
    fn due(&self) -> Instant {
        self.at + if self.finding == Finding::Proved { PROVE_AGAIN } else { TRY_AGAIN }
    }
}

/// What is known of such groups.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// `None` while it was never told.
    served: Option<Served>,
    /// When it was last asked for, and why that gave no answer.
    asked: Option<(Instant, Option<String>)>,
    tried: BTreeMap<String, Tried>,
}

impl Elsewhere {
    /// Notes what was told, or why nothing was. What was known before stays: no guard is called enforced for
    /// an answer that does not come.
    pub(super) fn note_served(&mut self, told: Result<Served, String>, now: Instant) {
        match told {
            Ok(served) => {
                self.tried.retain(|group, _| served.iter().any(|(other, _)| other == group));
                self.served = Some(served);
                self.asked = Some((now, None));
            }
            Err(trouble) => self.asked = Some((now, Some(trouble))),
        }
    }

    /// Whether it is to be asked for again, beside every proof, since it was never told.
    pub(super) fn is_wanting(&self, now: Instant) -> bool {
        self.served.is_none() && self.asked.as_ref().is_none_or(|(at, _)| now >= *at + TRY_AGAIN)
    }

    /// Whether any version of a group is served elsewhere.
    pub(super) fn has_group(&self, group: &str) -> bool {
        self.served.as_ref().is_some_and(|served| served.iter().any(|(other, _)| other == group))
    }

    /// Whether a dry run of this very object goes to the other server.
    pub(super) fn serves(&self, target: &Target) -> bool {
        let of_target =
            |(group, version): &(String, String)| *group == *target.group && *version == *target.version;
        self.served.as_ref().is_some_and(|served| served.iter().any(of_target))
    }

    /// The groups of `targets` that are to be proved for `generation` now. Those of which nothing more is
    /// guarded are forgotten; what was proved for this generation covers the snapshot `version`, too.
    pub(super) fn due<'a>(
        &mut self,
        targets: impl Iterator<Item = &'a Target>,
        generation: u64,
        version: u64,
        now: Instant,
    ) -> Vec<String> {
        let groups: BTreeSet<&str> =
            targets.map(|target| target.group.as_str()).filter(|group| self.has_group(group)).collect();
        self.tried.retain(|group, _| groups.contains(group.as_str()));
        let mut due = Vec::new();
        for group in groups {
            match self.tried.get_mut(group) {
                Some(tried) if tried.generation == generation && now < tried.due() => tried.version = version,
                _ => due.push(group.to_owned()),
            }
        }
        due
    }

    /// Notes what the proof of a group came to.
    pub(super) fn note(
        &mut self,
        group: String,
        finding: Finding,
        (generation, version): (u64, u64),
        now: Instant,
    ) {
        self.tried.insert(group, Tried { generation, version, finding, at: now });
    }

    /// When there is something to ask or to prove again.
    pub(super) fn next(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().filter(|_| self.served.is_none()).map(|(at, _)| *at + TRY_AGAIN);
        self.tried.values().map(Tried::due).chain(asked).min()
    }

    /// What may be said of a guard that stands as it is since snapshot `since`, where registration and proof
    /// cover it as `coverage` says.
    pub(super) fn limit(&self, target: Option<&Target>, since: u64, coverage: Coverage) -> Coverage {
        let Some(target) = target else { return coverage };
        let is_covered = matches!(coverage, Coverage::Proved | Coverage::Compared | Coverage::Widened(_));
        // Groups without a dot are built in.
        if !is_covered || !target.group.contains('.') {
            return coverage;
        }
        let group = &target.group;
        if self.served.is_none() {
            let why = match &self.asked {
                Some((_, Some(trouble))) => format!(": {trouble}"),
                _ => String::new(),
            };
            return Coverage::Elsewhere(format!(
                "it is not known whether another API server serves {group}, since APIServices cannot be listed{why}; `driftguard install` gives the right"
            ));
        }
        if !self.has_group(group) {
            return coverage;
        }
        let why = match self.tried.get(group.as_str()).map(|tried| (&tried.finding, tried.version)) {
            Some((Finding::Proved, version)) if since <= version => {
                return if coverage == Coverage::Compared { Coverage::Proved } else { coverage };
            }
            Some((Finding::NotProved(why), _)) => why.as_str(),
            _ => "it is not proved yet that its writes reach us",
        };
        Coverage::Elsewhere(format!(
            "{group} is served by an API server of its own (see `kubectl get apiservices`), and {why}: let admission webhooks run in that server, or do not rely on this guard"
        ))
    }
}

/// What other API servers serve.
///
/// # Errors
/// What to say when that cannot be told.
pub(super) async fn served(client: &kube::Client) -> Result<Served, String> {
    let api: Api<APIService> = Api::all(client.clone());
    let listed = tokio::time::timeout(REQUEST_TIMEOUT, api.list(&ListParams::default()))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(of(&listed.items))
}

fn of(services: &[APIService]) -> Served {
    let elsewhere = services.iter().filter_map(|one| one.spec.as_ref()).filter(|spec| spec.service.is_some());
    elsewhere
        .map(|spec| (spec.group.clone().unwrap_or_default(), spec.version.clone().unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    fn target(group: &str, version: &str) -> Target {
        Target {
            group: group.into(),
            version: version.into(),
            kind: "Thing".into(),
            resource: "things".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        }
    }

    fn knowing(served: &[(&str, &str)], now: Instant) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        let served = served.iter().map(|(group, version)| ((*group).to_owned(), (*version).to_owned()));
        elsewhere.note_served(Ok(served.collect()), now);
        elsewhere
    }

    #[test]
    fn what_has_a_service_is_served_elsewhere_and_what_has_none_is_not() {
        let service = |name: &str, spec| -> APIService {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        let place = json!({"namespace": "n", "name": "s"});
        let found = of(&[
            service(
                "v1.a.io",
                json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": place}),
            ),
            service(
                "v1.b.io",
                json!({"group": "b.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            ),
        ]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a.io".to_owned(), "v1".to_owned())]);
    }

    #[test]
    fn a_group_served_elsewhere_is_enforced_only_by_a_proof_of_its_own() {
        let now = Instant::now();
        let mut elsewhere = knowing(&[("a.io", "v1")], now);
        let theirs = target("a.io", "v1");
        let limit = |elsewhere: &Elsewhere, since| elsewhere.limit(Some(&theirs), since, Coverage::Proved);
        assert!(matches!(limit(&elsewhere, 1), Coverage::Elsewhere(said) if said.contains("not proved yet")));
        assert_eq!(elsewhere.due([&theirs].into_iter(), 7, 3, now), ["a.io"]);
        elsewhere.note("a.io".into(), Finding::NotProved("a write did not reach us".into()), (7, 3), now);
        let Coverage::Elsewhere(said) = limit(&elsewhere, 1) else { unreachable!() };
        assert!(said.contains("a write did not reach us") && said.contains("admission webhooks"), "{said}");
        elsewhere.note("a.io".into(), Finding::Proved, (7, 3), now);
        assert_eq!(limit(&elsewhere, 3), Coverage::Proved);
        assert!(matches!(limit(&elsewhere, 4), Coverage::Elsewhere(_)), "it came after the proof");
        let pending = Coverage::Pending("rules".into());
        assert_eq!(elsewhere.limit(Some(&theirs), 3, pending.clone()), pending, "what is worse stays");
        assert_eq!(elsewhere.limit(Some(&theirs), 3, Coverage::Compared), Coverage::Proved);
    }

    #[test]
    fn other_groups_are_proved_as_ever() {
        let elsewhere = knowing(&[("a.io", "v1")], Instant::now());
        for group in ["", "apps", "b.io"] {
            assert_eq!(elsewhere.limit(Some(&target(group, "v1")), 1, Coverage::Proved), Coverage::Proved);
        }
    }

    #[test]
    fn another_version_of_the_group_that_is_served_here_proves_nothing() {
        let elsewhere = knowing(&[("a.io", "v2")], Instant::now());
        let here = target("a.io", "v1");
        assert!(elsewhere.has_group("a.io") && !elsewhere.serves(&here));
        assert!(elsewhere.serves(&target("a.io", "v2")));
        assert!(matches!(elsewhere.limit(Some(&here), 1, Coverage::Proved), Coverage::Elsewhere(_)));
    }

    #[test]
    fn while_it_cannot_be_told_only_what_is_built_in_is_called_enforced() {
        let mut elsewhere = Elsewhere::default();
        let now = Instant::now();
        assert!(elsewhere.is_wanting(now));
        elsewhere.note_served(Err("forbidden".into()), now);
        assert!(!elsewhere.is_wanting(now) && elsewhere.is_wanting(now + TRY_AGAIN));
        assert_eq!(elsewhere.next(), Some(now + TRY_AGAIN));
        let said = elsewhere.limit(Some(&target("b.io", "v1")), 1, Coverage::Proved);
        assert!(matches!(said, Coverage::Elsewhere(said) if said.contains("forbidden")));
        assert_eq!(elsewhere.limit(Some(&target("apps", "v1")), 1, Coverage::Proved), Coverage::Proved);
        let mut known = knowing(&[], now);
        known.note_served(Err("forbidden".into()), now);
        let of_crd = known.limit(Some(&target("b.io", "v1")), 1, Coverage::Proved);
        assert_eq!(of_crd, Coverage::Proved, "what was known stays");
    }

    #[test]
    fn a_group_is_proved_anew_for_new_rules_and_after_a_while_and_sooner_where_it_was_not() {
        let now = Instant::now();
        let mut elsewhere = knowing(&[("a.io", "v1")], now);
        let theirs = target("a.io", "v1");
        let due = |elsewhere: &mut Elsewhere, generation, version, now| {
            elsewhere.due([&theirs].into_iter(), generation, version, now).len()
        };
        elsewhere.note("a.io".into(), Finding::Proved, (7, 3), now);
        assert_eq!(due(&mut elsewhere, 7, 4, now), 0);
        assert_eq!(
            elsewhere.limit(Some(&theirs), 4, Coverage::Proved),
            Coverage::Proved,
            "the rules are the same"
        );
        assert_eq!(due(&mut elsewhere, 8, 4, now), 1);
        assert_eq!(due(&mut elsewhere, 7, 4, now + PROVE_AGAIN), 1);
        elsewhere.note("a.io".into(), Finding::NotProved(String::new()), (7, 3), now);
        assert_eq!(elsewhere.next(), Some(now + TRY_AGAIN));
        assert_eq!(due(&mut elsewhere, 7, 4, now + TRY_AGAIN), 1);
        assert_eq!(elsewhere.due(std::iter::empty(), 7, 4, now).len(), 0);
        assert_eq!(elsewhere.next(), None, "nothing of it is guarded any more");
    }
}
