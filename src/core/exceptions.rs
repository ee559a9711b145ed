//! Exceptions: which guards one pauses, and what its spec may say.
//!
//! An exception ends by [`pause::end`](super::pause::end) like every pause: whatever its `until` says, it
//! never lasts longer than the installation allows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::author_access::Access;
use super::guard::GuardId;
use super::guard_spec::{CLOCK_SKEW, Refusal};
use super::hash::ContentHash;
use super::message::{MAX_WARNING, clean};
use super::pause::{self, Pause, PausedBy};

/// Guards that a warning names.
const MOST_NAMED: usize = 3;

/// A `DriftGuardException` that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its namespace: only guards of the same one are paused.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub since: Timestamp,
    /// What it says.
    pub terms: Terms,
}

/// The spec of an exception.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Terms {
    guards: Guards,
    /// When it is to end.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guards {
    names: Option<Vec<String>>,
    selector: Option<Selector>,
    all: Option<bool>,
}

/// A label selector. A field of it that we do not know would narrow it: such a selector is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Terms {
    /// Reads the spec of an exception.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence. Nothing is paused by an exception that cannot be read.
    pub fn parse(spec: &str) -> Result<Self, String> {
        let terms: Self = serde_json::from_str(spec).map_err(|error| {
            format!(
                "the spec cannot be read: {error}; compare it with `kubectl explain driftguardexception.spec`"
            )
        })?;
        let Guards { names, selector, all } = &terms.guards;
        let given = [names.is_some(), selector.is_some(), all.is_some()];
        if given.iter().filter(|given| **given).count() != 1 || *all == Some(false) {
            return Err("spec.guards must hold exactly one of names, selector and all: true".to_owned());
        }
        // An empty selector would select everything, which is what `all` says in so many words.
        if selector.as_ref().is_some_and(|selector| *selector == Selector::default()) {
            return Err("spec.guards.selector selects nothing: name labels, or say all: true".to_owned());
        }
        if terms.reason.trim().is_empty() {
            return Err("spec.reason is blank: say why the guards are paused".to_owned());
        }
        Ok(terms)
    }

    /// The guards that are named; `None` when they are meant by labels, or all of them.
    #[must_use]
    pub fn names(&self) -> Option<&[String]> {
        self.guards.names.as_deref()
    }

    /// Whether the guard of this name and these labels is meant.
    #[must_use]
    pub fn covers<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match &self.guards {
            Guards { names: Some(names), .. } => names.iter().any(|meant| meant == name),
            Guards { selector: Some(selector), .. } => selector.selects(label),
            Guards { all, .. } => *all == Some(true),
        }
    }
}

impl Selector {
    fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let labels = self.match_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()));
        labels
            && self.match_expressions.iter().all(|expression| {
                let found = label(&expression.key);
                let listed = found.is_some_and(|value| expression.values.iter().any(|one| one == value));
                match expression.operator {
                    Operator::In => listed,
                    // As Kubernetes has it, an object without the label is not in the list.
                    Operator::NotIn => !listed,
                    Operator::Exists => found.is_some(),
                    Operator::DoesNotExist => found.is_none(),
                }
            })
    }
}

impl Exception {
    /// When it ends: at `until`, but never later than `longest` after it was made.
    #[must_use]
    pub fn end(&self, longest: SignedDuration) -> Timestamp {
        pause::end(self.terms.until, self.since, longest)
    }

    /// The pause of a guard, when this exception means it.
    #[must_use]
    pub fn pause_of<'a>(
        &self,
        namespace: &str,
        name: &str,
        label: impl Fn(&str) -> Option<&'a str>,
        longest: SignedDuration,
    ) -> Option<Pause> {
        (namespace == self.namespace && self.terms.covers(name, label)).then(|| Pause {
            by: PausedBy::Exception(self.name.clone()),
            reason: self.terms.reason.clone(),
            until: self.end(longest),
        })
    }
}

/// One value for what a set of exceptions lets pass: which they are, and when each ends. Their specs never
/// change, so that two sets of one digest pause the same guards until the same moments.
#[must_use]
pub fn digest<'a>(exceptions: impl Iterator<Item = &'a Exception>, longest: SignedDuration) -> ContentHash {
    let mut lines: Vec<String> =
        exceptions.map(|one| format!("{} {}\n", one.uid, one.end(longest))).collect();
    lines.sort_unstable();
    ContentHash::of(lines.concat().as_bytes())
}

/// What the schema of an exception cannot say: checked when one is made at `now`.
///
/// # Errors
/// Why it is refused, in one sentence that says how to mend it.
pub fn check(spec: &str, now: Timestamp, longest: SignedDuration) -> Result<Terms, String> {
    let terms = Terms::parse(spec)?;
    if terms.until <= now {
        return Err(format!("spec.until {} has passed already; name a later moment", terms.until));
    }
    // As for a suspension: whoever asks for all that is allowed may have a clock that is a little ahead.
    let latest = pause::end(terms.until, now, longest).checked_add(CLOCK_SKEW).unwrap_or(Timestamp::MAX);
    if terms.until > latest {
        let most = now.checked_add(longest).unwrap_or(Timestamp::MAX);
        return Err(format!(
            "spec.until {} is too far ahead: {longest:#} at most (--max-exception), now until {most:.0}; \
             make another exception when it ends",
            terms.until
        ));
    }
    Ok(terms)
}

/// The refusal of an exception that says something that it may not.
#[must_use]
pub fn invalid(id: &GuardId, why: &str) -> Refusal {
    Refusal { reason: "InvalidException", message: format!("DriftGuardException {id} is refused: {why}") }
}

/// The refusal of an exception whose spec changes. The schema says so, too, where it is this version's.
#[must_use]
pub fn changed(id: &GuardId) -> Refusal {
    let message = format!(
        "DriftGuardException {id} is refused: its spec cannot be changed; delete it and make another"
    );
    Refusal { reason: "ExceptionChanged", message }
}

/// What is said of labels that bring a guard under an exception until its `end`.
#[must_use]
pub fn reached(id: &GuardId, exception: &str, end: Timestamp) -> String {
    let text = format!(
        "by its labels DriftGuard {id} comes under exception {exception}: writes to its target pass until {end:.0}"
    );
    clean(&text, MAX_WARNING)
}

/// The refusal of such labels by whoever could not make the exception.
#[must_use]
pub fn reached_without_right(id: &GuardId, exception: &str, user: &str, right: &Access) -> Refusal {
    let message = format!(
        "DriftGuard {id} is refused: by its labels it would come under exception {exception}, which takes the right to make one\n\
         User {user:?} may not {right}. Ask whoever made the exception, or label the guard once it has ended."
    );
    Refusal { reason: "ExceptedByLabels", message }
}

/// The warning when an exception means guards that are not there. `known` tells whether a guard of this
/// name is, `any` whether any guard is meant at all.
#[must_use]
pub fn missing(namespace: &str, terms: &Terms, known: impl Fn(&str) -> bool, any: bool) -> Option<String> {
    let warning = match terms.names() {
        Some(names) => {
            let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !known(name)).collect();
            let named = missing.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = match missing.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!missing.is_empty())
                .then(|| format!("namespace {namespace} has no guard {named}{more}: nothing is paused there"))
        }
        None => {
            (!any).then(|| format!("spec.guards means no guard of namespace {namespace}: nothing is paused"))
        }
    };
    warning.map(|text| clean(&text, MAX_WARNING))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn spec(guards: &str, until: &str, reason: &str) -> String {
        format!(r#"{{"guards":{guards},"until":"{until}","reason":"{reason}"}}"#)
    }

    fn covers(guards: &str, name: &str, labels: &[(&str, &'static str)]) -> bool {
        let terms = Terms::parse(&spec(guards, "2026-06-01T13:00:00Z", "why")).unwrap();
        terms.covers(name, |key| labels.iter().find(|(known, _)| *known == key).map(|(_, value)| *value))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn guards_are_meant_by_name_by_labels_or_all_of_them() {
        assert!(covers(r#"{"names":["a","b"]}"#, "b", &[]));
        assert!(!covers(r#"{"names":["a","b"]}"#, "c", &[]));
        assert!(covers(r#"{"all":true}"#, "c", &[]));
        let selector = r#"{"selector":{"matchLabels":{"team":"risk"},"matchExpressions":[{"key":"tier","operator":"NotIn","values":["gold"]},{"key":"open","operator":"Exists"},{"key":"shut","operator":"DoesNotExist"}]}}"#;
        assert!(covers(selector, "x", &[("team", "risk"), ("open", "")]));
        assert!(!covers(selector, "x", &[("team", "risk"), ("open", ""), ("tier", "gold")]));
        assert!(!covers(selector, "x", &[("team", "risk")]));
        assert!(!covers(selector, "x", &[("team", "risk"), ("open", ""), ("shut", "")]));
        assert!(!covers(selector, "x", &[("team", "desk"), ("open", "")]));
    }

    #[test]
    fn what_does_not_say_exactly_which_guards_is_refused() {
        for guards in [
            "{}",
            r#"{"all":false}"#,
            r#"{"all":true,"names":["a"]}"#,
            r#"{"selector":{}}"#,
            r#"{"everything":true}"#,
            r#"{"selector":{"matchLabels":{"a":"b"},"matchFields":[]}}"#,
        ] {
            assert!(Terms::parse(&spec(guards, "2026-06-01T13:00:00Z", "why")).is_err(), "{guards}");
        }
    }

    #[test]
    fn one_that_is_too_long_or_over_or_without_a_reason_is_refused() {
        let now = at("2026-06-01T12:00:00Z");
        let longest = SignedDuration::from_hours(1);
        let said = |until: &str, reason: &str| check(&spec(r#"{"all":true}"#, until, reason), now, longest);
        assert!(said("2026-06-01T13:00:00Z", "why").is_ok());
        assert!(said("2026-06-01T13:00:59Z", "why").is_ok(), "a clock may be ahead");
        let long = said("2026-06-01T14:00:00Z", "why").unwrap_err();
        assert!(long.contains("--max-exception") && long.contains("2026-06-01T13:00:00Z"), "{long}");
        assert!(said("2026-06-01T12:00:00Z", "why").unwrap_err().contains("passed"));
        assert!(said("2026-06-01T13:00:00Z", "  ").unwrap_err().contains("blank"));
        assert!(check("{}", now, longest).is_err());
    }

    #[test]
    fn guards_that_are_not_there_are_warned_of_by_name() {
        let warning = |guards: &str, any| {
            let terms = Terms::parse(&spec(guards, "2026-06-01T13:00:00Z", "why")).unwrap();
            missing("prod", &terms, |name| name == "a", any)
        };
        assert_eq!(warning(r#"{"names":["a"]}"#, true), None);
        let said = warning(r#"{"names":["a","b","c","d","e"]}"#, true).unwrap();
        assert!(said.starts_with("namespace prod has no guard b, c, d and 1 more"), "{said}");
        assert_eq!(warning(r#"{"all":true}"#, true), None);
        assert!(warning(r#"{"all":true}"#, false).unwrap().contains("no guard of namespace prod"));
    }

    #[test]
    fn it_pauses_guards_of_its_own_namespace_and_never_for_longer_than_allowed() {
        let exception = Exception {
            uid: "u".into(),
            namespace: "prod".into(),
            name: "incident".into(),
            since: at("2026-06-01T12:00:00Z"),
            terms: Terms::parse(&spec(r#"{"all":true}"#, "2026-06-09T00:00:00Z", "why")).unwrap(),
        };
        let longest = SignedDuration::from_hours(1);
        let pause = exception.pause_of("prod", "g", |_| None, longest).unwrap();
        assert_eq!(pause.until, at("2026-06-01T13:00:00Z"));
        assert_eq!(pause.by, PausedBy::Exception("incident".into()));
        assert_eq!(exception.pause_of("dev", "g", |_| None, longest), None);
    }

    #[test]
    fn a_digest_tells_sets_apart_by_their_exceptions_and_their_ends_and_not_by_their_order() {
        let exception = |uid: &str, until: &str| Exception {
            uid: uid.into(),
            namespace: "prod".into(),
            name: "incident".into(),
            since: at("2026-06-01T12:00:00Z"),
            terms: Terms::parse(&spec(r#"{"all":true}"#, until, "why")).unwrap(),
        };
        let [one, two] = ["a", "b"].map(|uid| exception(uid, "2026-06-01T12:30:00Z"));
        let of = |all: &[&Exception], hours| {
            digest(all.iter().copied(), SignedDuration::from_mins(hours)).to_string()
        };
        assert_eq!(of(&[&one, &two], 60), of(&[&two, &one], 60));
        assert_ne!(of(&[&one], 60), of(&[&two], 60), "made anew under the same name");
        assert_ne!(of(&[&one], 60), of(&[], 60));
        assert_ne!(of(&[&one], 60), of(&[&one], 20), "another --max-exception ends it earlier");
        assert_eq!(of(&[&one], 60), of(&[&one], 90));
    }
}
