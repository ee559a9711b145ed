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
use crate::manifests::rbac;
use crate::manifests::targets::TargetKind;

/// Questions under way at once.
const AT_A_TIME: usize = 16;
/// Most namespaces that are asked about for one kind, as the operator itself does.
const MAX_NAMESPACES: usize = 64;
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
    let open: Vec<&'static str> =
        verbs.into_iter().zip(answers).filter_map(|(verb, allowed)| (!allowed).then_some(verb)).collect();
    let mut lacking = Vec::new();
    let mut unwritable = Vec::new();
    for (place, remediates) in places.iter().take(MAX_NAMESPACES) {
        let lacks: BTreeSet<&'static str> = match place {
            None => open.iter().copied().collect(),
            Some(namespace) => {
                let questions: Vec<Question> = open.iter().map(|verb| question(namespace, verb)).collect();
                let answers = ask(cluster, installed, &questions).await?;
                open.iter()
                    .copied()
                    .zip(answers)
                    .filter_map(|(verb, allowed)| (!allowed).then_some(verb))
                    .collect()
            }
        };
        let of_guarding: Vec<&'static str> =
            kind.verbs().iter().copied().filter(|verb| lacks.contains(verb)).collect();
        if !of_guarding.is_empty() {
            lacking.push((place.clone(), of_guarding));
        }
        if *remediates && WRITES.iter().any(|verb| lacks.contains(verb)) {
            unwritable.push(place.clone());
        }
    }
    Ok(KindRights { kind, lacking, unwritable })
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
}
