//! Whether we may patch what is guarded, by which enforcement is proved, read it, which some reviews take,
//! and watch it, by which drift is found.
//!
//! A guard on a kind without those rights is enforced all the same, since most reviews need no right; its
//! condition then says which rule is missing and how to get it. The API server is asked about
//! ourselves, which everybody may. What it was not asked, or did not answer, is taken for allowed:
//! the dry run itself will tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use tokio::time::Instant;

use crate::core::guard::Target;
use crate::manifests::targets::TargetKind;

use super::access;

/// A right that is held is asked for again after so long. That it was taken away shows sooner where it is used.
const HELD_FOR: Duration = Duration::from_secs(1_800);
/// One that is missing sooner: somebody may be waiting for the condition to go.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Longest one answer may take. The next look makes up for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most namespaces that are asked about for one kind at one look.
const MAX_NAMESPACES: usize = 64;

/// One verb on one kind, in one namespace or, with an empty one, in all and none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Right {
    kind: TargetKind,
    namespace: String,
    verb: &'static str,
}

/// What is known about our rights.
#[derive(Debug, Default)]
pub struct Rights {
    /// Namespace of the installation.
    installed: String,
    known: HashMap<Right, (bool, Instant)>,
    /// When the last question got no answer, if none was answered since.
    unanswered: Option<Instant>,
}

/// The namespaces of guarded objects by kind; none for cluster-scoped kinds.
type Wanted<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>;

impl Rights {
    /// Nothing is known yet about the account of the installation in the namespace `installed`.
    #[must_use]
    pub fn new(installed: impl Into<String>) -> Self {
        Self { installed: installed.into(), ..Self::default() }
    }

    /// Asks what is not known, or not any more, about the kinds of `targets`.
    pub(super) async fn look(&mut self, client: &kube::Client, targets: &[&Target], now: Instant) {
        let wanted = wanted(targets);
        self.forget_others(&wanted);
        while let Some(right) = self.question(&wanted, now) {
            let Some(allowed) = ask(client, &right).await else {
                self.unanswered = Some(now);
                return;
            };
            self.note(right, allowed, now);
        }
    }

    /// The first question that is open.
    fn question(&self, wanted: &Wanted<'_>, now: Instant) -> Option<Right> {
        for ((group, plural), namespaces) in wanted {
            let kind = TargetKind { group: (*group).to_owned(), plural: (*plural).to_owned() };
            for verb in kind.verbs() {
                let right =
                    |namespace: &str| Right { kind: kind.clone(), namespace: namespace.to_owned(), verb };
                let everywhere = right("");
                if !self.is_fresh(&everywhere, now) {
                    return Some(everywhere);
                }
                if self.holds(&everywhere) == Some(true) {
                    continue;
                }
                let mut single = namespaces.iter().take(MAX_NAMESPACES).map(|namespace| right(namespace));
                if let Some(open) = single.find(|right| !self.is_fresh(right, now)) {
                    return Some(open);
                }
            }
        }
        None
    }

    fn note(&mut self, right: Right, allowed: bool, now: Instant) {
        self.unanswered = None;
        if right.namespace.is_empty() && allowed {
            self.known.retain(|other, _| (&other.kind, other.verb) != (&right.kind, right.verb));
        }
        self.known.insert(right, (allowed, now));
    }

    /// What nobody asks about any more would stay due for ever.
    fn forget_others(&mut self, wanted: &Wanted<'_>) {
        self.known.retain(|right, _| {
            wanted.get(&(right.kind.group.as_str(), right.kind.plural.as_str())).is_some_and(|namespaces| {
                right.namespace.is_empty()
                    || namespaces.iter().take(MAX_NAMESPACES).any(|namespace| *namespace == right.namespace)
            })
        });
    }

    /// When [`Rights::look`] has something to ask about a missing right again. Later than its last call.
    pub(super) fn due(&self) -> Option<Instant> {
        let missing = self.known.iter().filter(|(right, (held, _))| !held && self.is_last_word(right));
        let soonest = missing.map(|(_, (_, at))| *at + MISSING_FOR).min()?;
        Some(self.unanswered.map_or(soonest, |at| soonest.max(at + MISSING_FOR)))
    }

    /// Whether nothing narrower was asked: a right that is missing everywhere may be held where it counts.
    fn is_last_word(&self, right: &Right) -> bool {
        let is_narrower = |other: &Right| {
            !other.namespace.is_empty() && (&other.kind, other.verb) == (&right.kind, right.verb)
        };
        !right.namespace.is_empty() || !self.known.keys().any(is_narrower)
    }

    /// Whether a dry run of this target is worth trying.
    pub(super) fn may_patch(&self, target: &Target) -> bool {
        self.may("patch", target)
    }

    /// What to do about missing rights, for people.
    pub(super) fn missing(&self, target: &Target) -> Option<String> {
        let kind = kind(target);
        let (word, place) = (kind.word(), target.namespace.as_deref());
        let lacks: Vec<&str> = kind.verbs().iter().copied().filter(|verb| !self.may(verb, target)).collect();
        let within = place.map(|place| format!(" in namespace {place}")).unwrap_or_default();
        let lacks_any = |verbs: &[&str]| lacks.iter().any(|lack| verbs.contains(lack));
        let effects: Vec<&str> = [
            (lacks_any(&["patch"]), "no dry run of one can prove it"),
            (lacks_any(&["list", "watch"]), "drift that passes admission by is not found"),
            (
                lacks_any(&["get"]) && !lacks_any(&["patch"]),
                "writes that show only a part of one, such as its scale, cannot be judged",
            ),
        ]
        .into_iter()
        .filter_map(|(is_so, effect)| is_so.then_some(effect))
        .collect();
        let (last, others) = lacks.split_last()?;
        let lacks =
            if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
        Some(format!(
            "DriftGuard may not {lacks} {word}{within}, so {}; `{}` adds the rule: apiGroups [{:?}], resources \
             [{}], verbs [{}]",
            effects.join(", and "),
            kind.rights_command(place, &self.installed),
            kind.group,
            kind.plural,
            kind.verbs().join(", "),
        ))
    }

    /// What was not asked or not answered is taken for allowed.
    fn may(&self, verb: &'static str, target: &Target) -> bool {
        let right = |namespace: &str| Right { kind: kind(target), namespace: namespace.to_owned(), verb };
        let narrow = target.namespace.as_deref().unwrap_or_default();
        self.holds(&right("")) == Some(true) || self.holds(&right(narrow)) != Some(false)
    }

    fn holds(&self, right: &Right) -> Option<bool> {
        self.known.get(right).map(|(held, _)| *held)
    }

    fn is_fresh(&self, right: &Right, now: Instant) -> bool {
        let fresh = |&(held, at): &(bool, Instant)| now < at + if held { HELD_FOR } else { MISSING_FOR };
        self.known.get(right).is_some_and(fresh)
    }
}

fn wanted<'a>(targets: &[&'a Target]) -> Wanted<'a> {
    let mut wanted = Wanted::new();
    for target in targets {
        let places = wanted.entry((target.group.as_str(), target.resource.as_str())).or_default();
        places.extend(target.namespace.as_deref());
    }
    wanted
}

fn kind(target: &Target) -> TargetKind {
    TargetKind { group: target.group.as_str().into(), plural: target.resource.as_str().into() }
}

async fn ask(client: &kube::Client, right: &Right) -> Option<bool> {
    let Right { kind, namespace, verb } = right;
    let attributes = ResourceAttributes {
        group: Some(kind.group.clone()),
        resource: Some(kind.plural.clone()),
        namespace: (!namespace.is_empty()).then(|| namespace.clone()),
        verb: Some((*verb).to_owned()),
        ..ResourceAttributes::default()
    };
    match tokio::time::timeout(ASK_TIMEOUT, access::allows_us(client, attributes)).await {
        Ok(Ok(allowed)) => Some(allowed),
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

    fn target(resource: &str, namespace: Option<&str>) -> Target {
        Target {
            group: "".into(),
            version: "v1".into(),
            kind: "X".into(),
            resource: resource.into(),
            namespace: namespace.map(Into::into),
            name: "x".into(),
        }
    }

    fn secret(namespace: &str) -> Target {
        target("secrets", Some(namespace))
    }

    /// Answers as long as something is open, and gives what was asked: namespace and verb.
    fn look(
        rights: &mut Rights,
        targets: &[&Target],
        held: impl Fn(&str, &str) -> bool,
        now: Instant,
    ) -> Vec<(String, &'static str)> {
        let wanted = wanted(targets);
        rights.forget_others(&wanted);
        let mut asked = Vec::new();
        while let Some(right) = rights.question(&wanted, now) {
            asked.push((right.namespace.clone(), right.verb));
            let allowed = held(&right.namespace, right.verb);
            rights.note(right, allowed, now);
        }
        asked
    }

    #[test]
    fn what_nobody_answered_is_tried() {
        assert!(Rights::default().may_patch(&target("widgets", Some("a"))));
        assert_eq!(Rights::default().missing(&target("widgets", Some("a"))), None);
    }

    #[test]
    fn a_right_everywhere_or_in_the_namespace_is_enough() {
        let (mut rights, now) = (Rights::default(), Instant::now());
        let maps = target("configmaps", Some("b"));
        look(&mut rights, &[&maps, &secret("a")], |_, _| true, now);
        let asked = look(&mut rights, &[&maps, &secret("a")], |_, _| false, now);
        assert_eq!(asked, [], "what is held is not asked again at once");
        assert!(rights.may_patch(&maps));
        let mut rights = Rights::default();
        look(&mut rights, &[&secret("a"), &secret("b")], |namespace, _| namespace == "a", now);
        assert!(rights.may_patch(&secret("a")) && !rights.may_patch(&secret("b")));
        look(&mut rights, &[&secret("a")], |namespace, _| namespace == "a", now);
        assert_eq!(rights.due(), None, "nothing is missing where it counts");
    }

    #[test]
    fn a_missing_right_names_the_rule_and_the_command_that_gives_it() {
        let (mut rights, now) = (Rights::new("guards"), Instant::now());
        let jobs = Target { group: "batch".into(), ..target("jobs", Some("a")) };
        look(&mut rights, &[&secret("a"), &jobs], |_, _| false, now);
        let said = rights.missing(&secret("a")).unwrap_or_default();
        assert!(
            said.contains("`driftguard manifests rbac -n guards --for secrets --in a | kubectl"),
            "{said}"
        );
        assert!(said.contains("resources [secrets], verbs [get, list, watch, patch]"), "{said}");
        let said = rights.missing(&jobs).unwrap_or_default();
        assert!(
            said.starts_with(
                "DriftGuard may not get, list, watch or patch jobs.batch in namespace a, so no dry run"
            ),
            "{said}"
        );
        assert!(said.contains("and drift that passes admission by is not found"), "{said}");
        assert!(said.contains("--for jobs.batch --in a |"), "one namespace is enough: {said}");
        assert!(said.contains("apiGroups [\"batch\"], resources [jobs], verbs [get, list"), "{said}");
        assert_eq!(rights.due(), Some(now + MISSING_FOR));
    }

    #[test]
    fn a_kind_that_may_be_proved_and_not_read_says_so() {
        let (mut rights, now) = (Rights::default(), Instant::now());
        let widget = target("widgets", Some("a"));
        look(&mut rights, &[&widget], |_, verb| verb != "get", now);
        assert!(rights.may_patch(&widget));
        let said = rights.missing(&widget).unwrap_or_default();
        assert!(said.starts_with("DriftGuard may not get widgets in namespace a, so writes"), "{said}");
    }

    #[test]
    fn a_missing_right_is_asked_for_sooner_than_one_that_is_held() {
        let (mut rights, start) = (Rights::default(), Instant::now());
        let targets = [&secret("a"), &secret("b")];
        let held = |namespace: &str, _: &str| namespace == "b";
        look(&mut rights, &targets, held, start);
        let later = start + MISSING_FOR;
        let asked = look(&mut rights, &targets, held, later);
        assert!(asked.contains(&("a".to_owned(), "patch")), "{asked:?}");
        assert!(asked.iter().all(|(namespace, _)| namespace != "b"), "{asked:?}");
        let asked = look(&mut rights, &targets, held, start + HELD_FOR);
        assert!(asked.contains(&("b".to_owned(), "patch")), "{asked:?}");
    }

    #[test]
    fn a_right_on_a_cluster_scoped_kind_is_asked_for_again_as_soon() {
        let (mut rights, now) = (Rights::default(), Instant::now());
        look(&mut rights, &[&target("namespaces", None)], |_, _| false, now);
        let said = rights.missing(&target("namespaces", None)).unwrap_or_default();
        assert!(said.contains("driftguard manifests rbac --for namespaces | kubectl"), "{said}");
        assert_eq!(rights.due(), Some(now + MISSING_FOR));
    }

    #[test]
    fn nothing_stays_due_that_nobody_will_ask_about() {
        let (mut rights, start) = (Rights::default(), Instant::now());
        let later = start + MISSING_FOR;
        look(&mut rights, &[&secret("a"), &secret("b")], |_, _| false, start);
        look(&mut rights, &[&secret("b")], |namespace, _| namespace == "b", later);
        assert_eq!(rights.due(), None, "the last guard of namespace a is gone");
        look(&mut rights, &[&secret("a")], |_, _| false, later);
        look(&mut rights, &[&secret("a")], |_, _| true, later + MISSING_FOR);
        assert_eq!(rights.due(), None, "the right was given everywhere");
    }

    #[test]
    fn a_server_that_answers_nothing_is_not_asked_all_the_time() {
        let (mut rights, start) = (Rights::default(), Instant::now());
        look(&mut rights, &[&secret("a")], |_, _| false, start);
        let later = start + 2 * MISSING_FOR;
        rights.unanswered = Some(later);
        assert_eq!(rights.due(), Some(later + MISSING_FOR));
    }
}
