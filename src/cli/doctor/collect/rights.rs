//! What the operator's account may do, as the API server says of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::PostParams;

use crate::api::names;
use crate::cli::cluster::Cluster;
use crate::cli::doctor::facts::{Guarded, KindRights, Told, Unread};
use crate::core::audit::RBAC;
use crate::manifests::rbac;
use crate::manifests::targets::TargetKind;

/// Questions under way at once.
const AT_A_TIME: usize = 16;
/// Most namespaces that are asked about for one kind: with all verbs a few thousand questions, which take seconds.
const MAX_NAMESPACES: usize = 512;
/// Verbs that putting back takes besides those of guarding.
const WRITES: [&str; 3] = ["create", "update", "delete"];

/// One question.
#[derive(Debug, Clone)]
struct Question {
    group: String,
    /// With its subresource behind a slash.
    resource: String,
    /// Empty for all names.
    name: String,
    /// Empty for all namespaces.
    namespace: String,
    verb: String,
}

impl Question {
    /// `get secrets driftguard-ca in namespace x`.
    fn words(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", self.name) };
        let place = if self.namespace.is_empty() {
            String::new()
        } else {
            format!(" in namespace {}", self.namespace)
        };
        format!("{} {}{group}{name}{place}", self.verb, self.resource)
    }

    fn review(&self, installed: &str) -> SubjectAccessReview {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{installed}:{}", names::OPERATOR)),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{installed}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(self.group.clone()),
                    resource: Some(resource.to_owned()),
                    subresource: given(subresource),
                    name: given(&self.name),
                    namespace: given(&self.namespace),
                    verb: Some(self.verb.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

/// The answers, in the order of the questions.
async fn ask(cluster: &Cluster, installed: &str, questions: &[Question]) -> Told<Vec<bool>> {
    let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let asked: Vec<_> = questions
        .iter()
        .map(|question| {
            let (api, review) = (api.clone(), question.review(installed));
            async move { api.create(&PostParams::default(), &review).await }
        })
        .collect();
    let mut answers = stream::iter(asked).buffered(AT_A_TIME);
    let mut told = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer =
            answer.map_err(|error| cluster.explain("asking what the operator may do", &error).to_string())?;
        told.push(answer.status.is_some_and(|status| status.allowed));
    }
    Ok(told)
}

/// What the operator lacks of the rights that `install` gives it.
pub(super) async fn own(cluster: &Cluster, installed: &str) -> Told<Vec<String>> {
    let everywhere = rbac::cluster_role().0.rules.unwrap_or_default();
    let at_home = rbac::own_role(installed).0.rules.unwrap_or_default();
    let questions: Vec<Question> = everywhere
        .iter()
        .flat_map(|rule| of_rule(rule, ""))
        .chain(at_home.iter().flat_map(|rule| of_rule(rule, installed)))
        .collect();
    let answers = ask(cluster, installed, &questions).await?;
    let lacking = questions.iter().zip(answers).filter(|(_, allowed)| !allowed);
    Ok(lacking.map(|(question, _)| question.words()).collect())
}

fn of_rule(rule: &PolicyRule, namespace: &str) -> Vec<Question> {
    let all = [String::new()];
    let names = rule.resource_names.as_deref().filter(|names| !names.is_empty()).unwrap_or(&all);
    let mut questions = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for name in names {
                for verb in &rule.verbs {
                    questions.push(Question {
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        namespace: namespace.to_owned(),
                        verb: verb.clone(),
                    });
                }
            }
        }
    }
    questions
}

/// Namespaces of guarded objects, `None` for a cluster-scoped kind, and whether a guard there asks for
/// remediation.
type Places = BTreeMap<Option<String>, bool>;

/// What the operator lacks on the kinds that are guarded.
pub(super) async fn on_targets(
    cluster: &Cluster,
    installed: &str,
    guards: &Result<Vec<Guarded>, Unread>,
) -> Told<Vec<KindRights>> {
    let mut kinds: BTreeMap<TargetKind, Places> = BTreeMap::new();
    for guard in guards.iter().flatten() {
        let Some(target) = guard.state.target() else { continue };
        let kind = TargetKind { group: target.group.to_string(), plural: target.resource.to_string() };
        let place = target.namespace.as_ref().map(ToString::to_string);
        *kinds.entry(kind).or_default().entry(place).or_default() |= guard.remediates;
    }
    let mut told = Vec::new();
    for (kind, places) in kinds {
        told.push(on_kind(cluster, installed, kind, &places).await?);
    }
    Ok(told)
}

async fn on_kind(cluster: &Cluster, installed: &str, kind: TargetKind, places: &Places) -> Told<KindRights> {
    let question = |namespace: &str, verb: &str| Question {
        group: kind.group.clone(),
        resource: kind.plural.clone(),
        name: String::new(),
        namespace: namespace.to_owned(),
        verb: verb.to_owned(),
    };
    // What is given everywhere need not be asked for in each namespace.
    let verbs: Vec<&'static str> = kind.verbs().iter().copied().chain(WRITES).collect();
    let everywhere: Vec<Question> = verbs.iter().map(|verb| question("", verb)).collect();
    let answers = ask(cluster, installed, &everywhere).await?;
    let open =
        verbs.into_iter().zip(answers).filter_map(|(verb, allowed)| (!allowed).then_some(verb)).collect();
    // Objects that grant rights are never written, whatever the rights.
    let is_written = kind.group != RBAC;
    let ToAsk { places: asked, unasked, unasked_writes } = to_ask(places, &open, is_written);
    let mut lacks = lacking(cluster, installed, asked, question).await?;
    if !is_written {
        let asking = places.iter().filter(|(_, remediates)| **remediates);
        for place in asking.map(|(place, _)| place) {
            lacks.entry(place).or_default().extend(WRITES);
        }
    }
    let (mut lacking, mut unwritable) = (Vec::new(), Vec::new());
    for (place, lacks) in lacks {
        let of_guarding: Vec<&'static str> =
            kind.verbs().iter().copied().filter(|verb| lacks.contains(verb)).collect();
        if !of_guarding.is_empty() {
            lacking.push((place.clone(), of_guarding));
        }
        if WRITES.iter().any(|verb| lacks.contains(verb)) {
            unwritable.push(place.clone());
        }
    }
    Ok(KindRights { kind, lacking, unwritable, unasked, unasked_writes })
}

/// The verbs that are lacking at a place.
type Lacks<'a> = BTreeMap<&'a Option<String>, BTreeSet<&'static str>>;

/// Asks for all verbs of all places at once. What is not given everywhere is lacking where there are no namespaces.
async fn lacking<'a>(
    cluster: &Cluster,
    installed: &str,
    asked: Vec<(&'a Option<String>, Vec<&'static str>)>,
    question: impl Fn(&str, &str) -> Question,
) -> Told<Lacks<'a>> {
    let mut lacks = Lacks::new();
    let (mut questions, mut of) = (Vec::new(), Vec::new());
    for (place, verbs) in asked {
        match place {
            None => lacks.entry(place).or_default().extend(verbs),
            Some(namespace) => {
                questions.extend(verbs.iter().map(|verb| question(namespace, verb)));
                of.extend(verbs.into_iter().map(|verb| (place, verb)));
            }
        }
    }
    let answers = ask(cluster, installed, &questions).await?;
    for ((place, verb), _) in of.into_iter().zip(answers).filter(|(_, allowed)| !allowed) {
        lacks.entry(place).or_default().insert(verb);
    }
    Ok(lacks)
}

/// What is still open once those verbs are known that are not given everywhere.
struct ToAsk<'a> {
    /// Where to ask for which verbs.
    places: Vec<(&'a Option<String>, Vec<&'static str>)>,
    /// How many further places are left out because there are too many.
    unasked: usize,
    /// In how many of those the verbs of putting back are open.
    unasked_writes: usize,
}

fn to_ask<'a>(places: &'a Places, open: &BTreeSet<&'static str>, is_written: bool) -> ToAsk<'a> {
    let needed = |remediates: bool| {
        let is_needed = |verb: &&'static str| (remediates && is_written) || !WRITES.contains(verb);
        open.iter().copied().filter(is_needed).collect::<Vec<_>>()
    };
    let mut asked: Vec<_> = places.iter().map(|(place, remediates)| (place, needed(*remediates))).collect();
    asked.retain(|(_, verbs)| !verbs.is_empty());
    let left_out = asked.split_off(asked.len().min(MAX_NAMESPACES));
    let unasked_for = |wanted: fn(&&'static str) -> bool| {
        left_out.iter().filter(|(_, verbs)| verbs.iter().any(&wanted)).count()
    };
    ToAsk {
        unasked: unasked_for(|verb| !WRITES.contains(verb)),
        unasked_writes: unasked_for(|verb| WRITES.contains(verb)),
        places: asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_of_a_rule_is_asked_for_by_each_of_its_names() {
        let rule = PolicyRule {
            api_groups: Some(vec!["terrafusion.ai".to_owned()]),
            resources: Some(vec!["driftguards/status".to_owned()]),
            resource_names: Some(vec!["a".to_owned(), "b".to_owned()]),
            verbs: vec!["patch".to_owned()],
            ..PolicyRule::default()
        };
        let words: Vec<String> = of_rule(&rule, "n").iter().map(Question::words).collect();
        assert_eq!(
            words,
            [
                "patch driftguards/status.terrafusion.ai a in namespace n",
                "patch driftguards/status.terrafusion.ai b in namespace n"
            ]
        );
        let asked = of_rule(&rule, "n")[0].review("home").spec;
        assert_eq!(asked.user.as_deref(), Some("system:serviceaccount:home:driftguard-operator"));
        let attributes = asked.resource_attributes.unwrap_or_default();
        assert_eq!(
            (attributes.resource.as_deref(), attributes.subresource.as_deref()),
            (Some("driftguards"), Some("status"))
        );
    }

    #[test]
    fn what_is_open_is_asked_where_it_is_needed_and_what_is_left_out_is_counted() {
        let places: Places = (0..MAX_NAMESPACES + 16).map(|n| (Some(format!("n{n:04}")), n == 0)).collect();
        let asked = to_ask(&places, &BTreeSet::from(["watch", "delete"]), true);
        assert_eq!((asked.places.len(), asked.unasked, asked.unasked_writes), (MAX_NAMESPACES, 16, 0));
        assert_eq!(asked.places[0], (&Some("n0000".to_owned()), vec!["delete", "watch"]));
        assert_eq!(asked.places[1].1, ["watch"], "nothing is put back there");
        let asked = to_ask(&places, &BTreeSet::from(["create"]), true);
        assert_eq!((asked.places.len(), asked.unasked), (1, 0), "what is given everywhere is open nowhere");
        assert!(
            to_ask(&places, &BTreeSet::from(["create"]), false).places.is_empty(),
            "nor what is never used"
        );
    }
}
