//! Whether we may patch what is guarded, by which enforcement is proved.
//!
//! A guard on a kind without that right is enforced all the same, since reviews need no right; its
//! condition then says which rule is missing and how to get it. The API server is asked about
//! ourselves, which everybody may. What it was not asked, or did not answer, is taken for allowed:
//! the dry run itself will tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use crate::core::guard::Target;
use crate::manifests::targets::TargetKind;

/// A right that is held is asked for again after so long.
const HELD_FOR: Duration = Duration::from_secs(300);
/// One that is missing sooner: somebody may be waiting for the condition to go.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Longest one answer may take. The next look makes up for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most namespaces that are asked about for one kind at one look.
const MAX_NAMESPACES: usize = 64;

/// A kind, in one namespace or, with an empty one, in all and none.
type Place = (TargetKind, String);

/// What is known about our rights.
#[derive(Debug, Default)]
pub struct Rights {
    known: HashMap<Place, (bool, Instant)>,
}

impl Rights {
    /// Asks what is not known, or not any more, about the kinds of `targets`.
    pub(super) async fn look(&mut self, client: &kube::Client, targets: &[&Target], now: Instant) {
        let mut wanted: BTreeMap<TargetKind, BTreeSet<String>> = BTreeMap::new();
        for target in targets {
            let places = wanted.entry(kind(target)).or_default();
            if let Some(namespace) = &target.namespace
                && !places.contains(namespace.as_str())
            {
                places.insert(namespace.as_str().to_owned());
            }
        }
        self.known.retain(|(kind, _), _| wanted.contains_key(kind));
        for (kind, namespaces) in wanted {
            let everywhere = (kind.clone(), String::new());
            let mut asked = vec![everywhere.clone()];
            asked.extend(namespaces.into_iter().take(MAX_NAMESPACES).map(|place| (kind.clone(), place)));
            for place in asked {
                if self.is_fresh(&place, now) {
                    continue;
                }
                let Some(allowed) = ask(client, &place).await else { return };
                self.known.insert(place, (allowed, now));
                if self.holds(&everywhere) == Some(true) {
                    break;
                }
            }
        }
    }

    /// When [`Rights::look`] has something to ask about a missing right again.
    pub(super) fn due(&self) -> Option<Instant> {
        let missing = self.known.iter().filter(|((_, place), (held, _))| !held && !place.is_empty());
        missing.map(|(_, (_, at))| *at + MISSING_FOR).min()
    }

    /// Whether a dry run of this target is worth trying.
    pub(super) fn may_patch(&self, target: &Target) -> bool {
        let place = (kind(target), target.namespace.as_deref().unwrap_or_default().to_owned());
        self.holds(&(place.0.clone(), String::new())) == Some(true) || self.holds(&place) != Some(false)
    }

    /// What to do about a missing right, for people.
    pub(super) fn missing(&self, target: &Target) -> Option<String> {
        if self.may_patch(target) {
            return None;
        }
        let kind = kind(target);
        let word = kind.word();
        let (place, within) = match &target.namespace {
            Some(namespace) if kind.is_secret() => {
                (format!(" in namespace {namespace}"), format!(" --in {namespace}"))
            }
            _ => (String::new(), String::new()),
        };
        Some(format!(
            "DriftGuard may not patch {word}{place}, so no dry run of one can prove it; \
             `driftguard manifests rbac --for {word}{within} | kubectl apply -f -` adds the rule"
        ))
    }

    fn holds(&self, place: &Place) -> Option<bool> {
        self.known.get(place).map(|(held, _)| *held)
    }

    fn is_fresh(&self, place: &Place, now: Instant) -> bool {
        let fresh = |&(held, at): &(bool, Instant)| now < at + if held { HELD_FOR } else { MISSING_FOR };
        self.known.get(place).is_some_and(fresh)
    }
}

fn kind(target: &Target) -> TargetKind {
    TargetKind { group: target.group.as_str().into(), plural: target.resource.as_str().into() }
}

async fn ask(client: &kube::Client, (kind, namespace): &Place) -> Option<bool> {
    let attributes = ResourceAttributes {
        group: Some(kind.group.clone()),
        resource: Some(kind.plural.clone()),
        namespace: (!namespace.is_empty()).then(|| namespace.clone()),
        verb: Some("patch".to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let params = PostParams::default();
    match tokio::time::timeout(ASK_TIMEOUT, reviews.create(&params, &review)).await {
        Ok(Ok(answer)) => answer.status.map(|status| status.allowed),
        Ok(Err(error)) => {
            tracing::debug!(%error, resource = kind.word(), "cannot ask for our own rights");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(resource: &str, namespace: &str) -> Target {
        Target {
            group: "".into(),
            version: "v1".into(),
            kind: "X".into(),
            resource: resource.into(),
            namespace: Some(namespace.into()),
            name: "x".into(),
        }
    }

    fn known(places: &[(&str, &str, bool)], at: Instant) -> Rights {
        let known = places.iter().map(|&(resource, namespace, held)| {
            ((kind(&target(resource, "")), namespace.to_owned()), (held, at))
        });
        Rights { known: known.collect() }
    }

    #[test]
    fn what_nobody_answered_is_tried() {
        assert!(Rights::default().may_patch(&target("widgets", "a")));
        assert_eq!(Rights::default().missing(&target("widgets", "a")), None);
    }

    #[test]
    fn a_right_everywhere_or_in_the_namespace_is_enough() {
        let now = Instant::now();
        let rights = known(&[("configmaps", "", true), ("secrets", "", false), ("secrets", "a", true)], now);
        assert!(rights.may_patch(&target("configmaps", "b")));
        assert!(rights.may_patch(&target("secrets", "a")));
        assert_eq!(rights.due(), None, "nothing is missing anywhere");
    }

    #[test]
    fn a_missing_right_names_the_command_that_gives_it() {
        let now = Instant::now();
        let rights = known(&[("secrets", "", false), ("secrets", "a", false)], now);
        let said = rights.missing(&target("secrets", "a")).unwrap_or_default();
        assert!(said.contains("driftguard manifests rbac --for secrets --in a | kubectl"), "{said}");
        assert_eq!(rights.due(), Some(now + MISSING_FOR));
    }

    #[test]
    fn a_missing_right_is_asked_for_sooner_than_one_that_is_held() {
        let start = Instant::now();
        let rights = known(&[("secrets", "a", false), ("secrets", "b", true)], start);
        let place = |namespace: &str| (kind(&target("secrets", "")), namespace.to_owned());
        let later = start + MISSING_FOR;
        assert!(!rights.is_fresh(&place("a"), later) && rights.is_fresh(&place("b"), later));
        assert!(!rights.is_fresh(&place("b"), start + HELD_FOR));
    }
}
