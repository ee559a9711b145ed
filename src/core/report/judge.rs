//! From how a target stands, and what is known of its guard, to an entry of the report.
//!
//! Approved is what the guard's own spec approves. A status can add since when, by whom and why, but never
//! that content is approved, with one exception that is told as such: a hash that the status calls another
//! reading of the approved content.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use crate::core::audit::attribution::{Attribution, Evidence, attribute};
use crate::core::audit::finding::{Reason, Truth};
use crate::core::canonical::hash_object;
use crate::core::diff::changed_paths;
use crate::core::guard::{Guard, GuardId, InvalidGuard, Target};
use crate::core::hash::ContentHash;
use crate::core::message::clean;
use crate::core::scope::{Scope, ScopeKind};
use crate::core::text::Text;

use super::facts::{Facts, KnownBy, Leading, Said};
use super::model::{
    Actor, ActorKnownBy, Entry, Name, Remediation, Since, SinceKnownBy, Source, SourceAnswer, SourceState,
    TargetName,
};
use super::state::State;

/// Longest sentence of somebody else, in characters: what a condition holds.
const MAX_MESSAGE: usize = 1024;
/// How long it is believed that approved content is about to be applied. Whoever said so may have died; running, it
/// takes that back after its `--apply-grace`.
const AWAITED_FOR: SignedDuration = SignedDuration::from_hours(1);
/// Longest name of an actor, in characters.
const MAX_NAME: usize = 128;
/// Most paths of an entry: what a status holds.
const MAX_PATHS: usize = 64;

/// How a target stands.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// It is there: its whole JSON text.
    Present(&'a [u8]),
    /// There is no such object; in one sentence.
    Absent(&'a str),
    /// It could not be read: why, in one word and in one sentence.
    Unreadable {
        /// A stable word, such as `Forbidden`.
        reason: &'static str,
        /// One sentence.
        why: &'a str,
    },
    /// Nobody looked now: it stands as the auditor said last of this very spec.
    Said,
    /// There is a file of it, and its hash is not an approved one; but the API server would change what it
    /// stores of it, so that this tells nothing.
    Undecided(&'a str),
}

/// What is known beside one guard.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The time.
    pub now: Timestamp,
    /// Whether DriftGuard runs, or has run, where the guards are: only then is a guard of which nothing is
    /// said one that is not enforced.
    pub is_installed: bool,
    /// Whether anybody keeps what statuses say.
    pub leading: Leading,
}

/// What the content of a target comes to.
struct Content {
    state: State,
    reason: Cow<'static, str>,
    message: Text,
    hash: Option<ContentHash>,
    since: Option<Timestamp>,
    paths: Vec<String>,
    by: Option<Actor>,
    transaction_id: Option<String>,
}

impl Content {
    fn new(state: State, reason: impl Into<Cow<'static, str>>, message: impl Into<Text>) -> Self {
        Self {
            state,
            reason: reason.into(),
            message: message.into(),
            hash: None,
            since: None,
            paths: Vec::new(),
            by: None,
            transaction_id: None,
        }
    }
}

/// The entry of a guard.
#[must_use]
pub fn judge(guard: &Guard, facts: &Facts, sight: Sight<'_>, known: &Known) -> Entry {
    let content = content(guard, facts, sight, known.now);
    let said = facts.enforcement.filter(|_| facts.is_current);
    let enforcement = said.unwrap_or(guard.enforcement);
    let (id, hash) = (named(&guard.id), content.hash);
    let mut entry = entry(id, target_of(&guard.target), content, facts, enforcement.blocks(), known);
    if said.is_some() || facts.names_enforcement {
        entry.enforcement = Some(enforcement.as_str().into());
    }
    if guard.scope.is_secret() {
        entry.current_hash = None;
    } else {
        let expected: Text = guard.expected.to_string().into();
        if hash == Some(guard.expected) {
            entry.current_hash = Some(expected.clone());
        }
        entry.expected_hash = Some(expected);
    }
    entry
}

fn target_of(target: &Target) -> TargetName {
    // Most are of one of a few kinds, whose words they share.
    let api_version =
        if target.group.is_empty() { target.version.clone() } else { target.api_version().into() };
    TargetName {
        api_version: Some(api_version),
        kind: plain(&target.kind),
        namespace: target.namespace.as_ref().map(plain),
        name: plain(&target.name),
    }
}

/// The entry of a guard that cannot be understood: of its target nothing is told. `kind` and `name` are as
/// the guard spells them.
#[must_use]
pub fn invalid(guard: &InvalidGuard, kind: &str, name: &str, facts: &Facts, known: &Known) -> Entry {
    let target = match &guard.target {
        Some(target) => target_of(target),
        None => TargetName {
            api_version: None,
            kind: clean(kind, MAX_NAME).into(),
            namespace: None,
            name: clean(name, MAX_NAME * 2).into(),
        },
    };
    let id = named(&guard.id);
    let content = Content::new(State::Unreadable, guard.reason, guard.message.clone());
    entry(id, target, content, facts, false, known)
}

fn named(id: &GuardId) -> Name {
    Name { namespace: plain(&id.namespace), name: plain(&id.name) }
}

/// A name as API servers take it. One in a file may hold anything, and is to command no terminal.
fn plain(name: &Text) -> Text {
    let clean = clean(name, MAX_NAME * 2);
    if *name == clean { name.clone() } else { clean.into() }
}

/// A word of ours as it is, one of somebody else made safe.
fn word(reason: Cow<'static, str>) -> Cow<'static, str> {
    match reason {
        Cow::Borrowed(ours) => ours.into(),
        Cow::Owned(theirs) => clean(&theirs, MAX_NAME).into(),
    }
}

/// A word of a status.
fn theirs(word: &Text) -> Cow<'static, str> {
    String::from(word).into()
}

fn entry(
    guard: Name,
    target: TargetName,
    content: Content,
    facts: &Facts,
    blocks: bool,
    known: &Known,
) -> Entry {
    let mut holds = vec![(content.state, content.reason, content.message, content.since)];
    let mut add = |state, reason: Cow<'static, str>, message: Text, since| {
        holds.push((state, reason, message, since));
    };
    let pause = facts.pause(known.now, known.leading);
    if let Some(rival) = &facts.rival {
        let message = format!("guard {rival} pins {target} differently: delete one of the two");
        add(State::Conflict, "ConflictingGuards".into(), message.into(), None);
    } else if let Some(said) = facts.conflict.as_ref().filter(|said| said.truth == Truth::True) {
        add(State::Conflict, theirs(&said.reason), said.message.clone(), Some(said.since));
    }
    if let Some(message) = &pause {
        let reason = facts.suspended.as_ref().map_or("SuspendedBySpec".into(), |said| theirs(&said.reason));
        add(State::Suspended, reason, message.clone(), facts.suspended.as_ref().map(|said| said.since));
    } else if blocks && let Some((reason, message, since)) = not_enforcing(facts, known) {
        add(State::NotEnforcing, reason, message, since);
    }
    for (state, said) in [(State::Fighting, &facts.fighting), (State::AuthorUnknown, &facts.author_unknown)] {
        if let Some(said) = said.as_ref().filter(|said| said.truth == Truth::True) {
            add(state, theirs(&said.reason), said.message.clone(), Some(said.since));
        }
    }
    let source = source(facts);
    if source.state == SourceState::Down {
        let since = facts.source_available.as_ref().map(|said| said.since);
        add(State::SourceDown, "NoVerifiedSource".into(), source.message.clone(), since);
    }
    // What is in sync is only told where nothing else is.
    if holds.len() > 1 {
        holds.retain(|(state, ..)| *state != State::InSync);
    }
    holds.sort_by_key(|(state, ..)| *state);
    let also = holds.iter().skip(1).map(|(state, ..)| *state).collect();
    let (state, reason, message, since) =
        holds.into_iter().next().unwrap_or((State::Unreadable, "".into(), Text::default(), None));
    let enforcing = facts.enforcing.as_ref().filter(|_| facts.is_current);
    let enforcing = enforcing.filter(|said| said.truth != Truth::True || known.leading == Leading::Assumed);
    Entry {
        guard,
        target,
        state,
        also,
        reason: word(reason),
        message: clean(&message, MAX_MESSAGE).into(),
        enforcement: None,
        enforcing: enforcing.map_or(Truth::Unknown, |said| said.truth).as_str().into(),
        expected_hash: None,
        current_hash: content.hash.map(|hash| hash.to_string().into()),
        changed_paths: content.paths.iter().take(MAX_PATHS).map(|path| clean(path, MAX_MESSAGE)).collect(),
        since: since.map(|time| Since { time: time.into(), known_by: SinceKnownBy::Status }),
        by: content.by.map(Box::new),
        source,
        last_remediation: remediation(facts),
        transaction_id: content.transaction_id.map(Text::from),
        guard_file: None,
        target_file: None,
        change: None,
    }
}

/// Why nothing says that a guard is enforced which should be; `None` where it is said, and where nothing is
/// known at all.
fn not_enforcing(facts: &Facts, known: &Known) -> Option<(Cow<'static, str>, Text, Option<Timestamp>)> {
    match facts.enforcing.as_ref().filter(|_| facts.is_current) {
        Some(said) if said.truth == Truth::True => match known.leading {
            Leading::Assumed => None,
            Leading::Nobody { since } => {
                let message = "it was enforced, but nobody proves that any more: no replica of DriftGuard leads; see whether they run, such as by `driftguard doctor`";
                Some(("NotProved".into(), message.into(), since))
            }
        },
        Some(said) => (said.truth != Truth::True)
            .then(|| (theirs(&said.reason), said.message.clone(), Some(said.since))),
        None => known.is_installed.then(|| {
            let message =
                "its status says nothing of this version of the guard yet; is `driftguard serve` running?";
            ("NotObserved".into(), message.into(), None)
        }),
    }
}

fn content(guard: &Guard, facts: &Facts, sight: Sight<'_>, now: Timestamp) -> Content {
    let target = &guard.target;
    let json = match sight {
        Sight::Unreadable { reason, why } => {
            let message = format!("{target} could not be read: {why}");
            return Content::new(State::Unreadable, reason, message);
        }
        Sight::Said => return last_said(guard, facts),
        Sight::Undecided(why) => return Content::new(State::Unreadable, "NeedsServer", why),
        Sight::Absent(why) => return drift(guard, facts, None, why, now),
        Sight::Present(json) => json,
    };
    let hash = match hash_object(json, &guard.scope) {
        Ok(hash) => hash,
        Err(error) => {
            let message = format!("{target} cannot be hashed: {error}");
            return Content::new(State::Unreadable, "Undecodable", message);
        }
    };
    let mut content = if guard.approves(hash, now) {
        Content::new(State::InSync, Reason::InSync.as_str(), format!("{target} is as approved"))
    } else if guard.scope.has_server_defaults() && facts.equivalents_of(guard.generation).contains(&hash) {
        let message = format!(
            "{target} reads otherwise than when it was approved; by the word of the status, whose signature is not checked here, only since the API server was replaced"
        );
        Content::new(State::InSync, Reason::RepresentationChanged.as_str(), message)
    } else {
        drift(guard, facts, Some((json, hash)), "", now)
    };
    content.hash = Some(hash).filter(|_| !guard.scope.is_secret());
    if content.state == State::InSync {
        let said = said_of(guard, facts, Some(hash), now).filter(|said| said.truth == Truth::False);
        content.since = said.map(|said| said.since);
    }
    content
}

/// What the auditor said of exactly this content under exactly this spec, as far as that can be told.
fn said_of<'a>(
    guard: &Guard,
    facts: &'a Facts,
    hash: Option<ContentHash>,
    now: Timestamp,
) -> Option<&'a Said> {
    let said = facts.drifted.as_ref().filter(|said| said.generation == guard.generation)?;
    let is_missing = said.reason == Reason::Missing.as_str();
    let is_same = match hash {
        // Of an object that is gone no hash is kept, whatever the reason is called.
        None => is_missing || (!guard.scope.is_secret() && facts.current_hash.is_none()),
        // Of a Secret no hash is kept at all.
        Some(hash) if guard.scope.is_secret() => {
            let awaits = said.reason == Reason::AwaitingApply.as_str();
            !is_missing && (awaits || guard.approves(hash, now) == (said.truth == Truth::False))
        }
        Some(hash) => facts.current_hash == Some(hash),
    };
    is_same.then_some(said)
}

/// Content that the guard does not approve; no object at all where there is no `found`.
fn drift(
    guard: &Guard,
    facts: &Facts,
    found: Option<(&[u8], ContentHash)>,
    why: &str,
    now: Timestamp,
) -> Content {
    let target = &guard.target;
    let said = said_of(guard, facts, found.map(|(_, hash)| hash), now);
    let is_fresh = |said: &&Said| now.duration_since(said.since) <= AWAITED_FOR;
    if let Some(said) = said.filter(|said| said.reason == Reason::AwaitingApply.as_str()).filter(is_fresh) {
        let mut content = Content::new(State::AwaitingApply, theirs(&said.reason), said.message.clone());
        content.since = Some(said.since);
        return content;
    }
    let (state, reason) = match found {
        Some(_) => (State::Drifted, Reason::ContentDiffers),
        None => (State::Missing, Reason::Missing),
    };
    let Some(said) = said.filter(|said| said.truth == Truth::True) else {
        let message = match found {
            Some(_) => format!("{target} is not as approved"),
            None => format!("{target} is missing: {why}"),
        };
        let mut content = Content::new(state, reason.as_str(), message);
        content.by = Some(by_the_object(guard, facts, found));
        return content;
    };
    told(state, said, facts)
}

/// What the auditor said last, taken at its word.
fn last_said(guard: &Guard, facts: &Facts) -> Content {
    let target = &guard.target;
    let Some(said) = facts.drifted.as_ref().filter(|said| said.generation == guard.generation) else {
        let message = format!("{target} has not been looked at yet since the guard says what it says");
        return Content::new(State::Unreadable, "NotChecked", message);
    };
    let is_gone = || {
        // Of an object that is gone no hash is kept, whatever the reason is called; of a Secret never.
        said.reason == Reason::Missing.as_str() || (!guard.scope.is_secret() && facts.current_hash.is_none())
    };
    let mut content = match said.truth {
        Truth::Unknown => Content::new(State::Unreadable, theirs(&said.reason), said.message.clone()),
        Truth::False if said.reason == Reason::AwaitingApply.as_str() => {
            Content::new(State::AwaitingApply, theirs(&said.reason), said.message.clone())
        }
        Truth::False => Content::new(State::InSync, theirs(&said.reason), format!("{target} is as approved")),
        Truth::True if is_gone() => told(State::Missing, said, facts),
        Truth::True => told(State::Drifted, said, facts),
    };
    content.since = Some(said.since);
    content.hash = facts.current_hash.filter(|_| !guard.scope.is_secret());
    content
}

/// Drift of which the auditor has told.
fn told(state: State, said: &Said, facts: &Facts) -> Content {
    let mut content = Content::new(state, theirs(&said.reason), said.message.clone());
    content.since = Some(said.since);
    let last = facts.last_drift.as_ref();
    content.paths = last.map(|last| last.paths.clone()).unwrap_or_default();
    content.transaction_id = last.and_then(|last| last.transaction_id.clone());
    content.by = Some(match last.and_then(|last| last.actor.as_ref()) {
        Some((name, known_by)) => Actor {
            name: Some(clean(name, MAX_NAME)),
            known_by: match known_by {
                KnownBy::Admission => ActorKnownBy::Admission,
                KnownBy::ManagedFields => ActorKnownBy::ManagedFields,
            },
            detail: match known_by {
                KnownBy::Admission => "the admission webhook saw the write".to_owned(),
                KnownBy::ManagedFields => "field manager of what changed, by its managedFields".to_owned(),
            },
        },
        // It saw more than can be seen now: what it could not tell is not guessed here.
        None => unknown("the auditor could not tell"),
    });
    content
}

fn unknown(detail: impl Into<String>) -> Actor {
    Actor { name: None, known_by: ActorKnownBy::Unknown, detail: detail.into() }
}

/// Who changed content that the auditor has not told of, by the managedFields of the object alone. What
/// changed is not known then, so that one manager must own all that is pinned to be named.
fn by_the_object(guard: &Guard, facts: &Facts, found: Option<(&[u8], ContentHash)>) -> Actor {
    let paths = found.and_then(|(json, _)| pinned_paths(json, &guard.scope)).unwrap_or_default();
    let was_clean = facts.drifted.as_ref().is_some_and(|said| said.truth == Truth::False);
    let attribution = attribute(&Evidence {
        object: found.map(|(json, _)| json),
        paths: &paths,
        more: true,
        hash: None,
        observed: &[],
        last_clean: facts.last_checked.filter(|_| was_clean),
    });
    match &attribution {
        Attribution::FieldManager { manager, .. } => Actor {
            name: Some(manager.clone()),
            known_by: ActorKnownBy::ManagedFields,
            detail: clean(&attribution.to_string(), MAX_MESSAGE),
        },
        Attribution::Unknown { .. } if paths.is_empty() => unknown("it is not known what changed"),
        Attribution::Unknown { why } => {
            let why = why.replace("what changed", "a part of what is pinned");
            unknown(clean(&format!("it is not known what changed, and {why}"), MAX_MESSAGE))
        }
        Attribution::ObservedAtAdmission { .. } => unknown("nothing was read that could tell"),
    }
}

/// The uppermost pinned fields of an object; `None` when they cannot be told.
fn pinned_paths(json: &[u8], scope: &Scope) -> Option<Vec<String>> {
    let empty: &[u8] = match scope.kind() {
        ScopeKind::ConfigMap | ScopeKind::Secret => br#"{"data":{}}"#,
        ScopeKind::GamaConfig => br#"{"spec":{"parameters":{}}}"#,
        ScopeKind::Other => br#"{"spec":{}}"#,
    };
    let all = changed_paths(empty, json, scope, MAX_PATHS).ok()?;
    (!all.more).then_some(all.paths)
}

fn source(facts: &Facts) -> Source {
    let answers = facts.answers.iter().map(|answer| SourceAnswer {
        source: clean(&answer.source, MAX_MESSAGE),
        result: answer.result.clone(),
        message: clean(&answer.message, MAX_MESSAGE),
        time: answer.time.into(),
    });
    let (state, message) = match &facts.source_available {
        Some(said) => {
            let state = match said.truth {
                Truth::True => SourceState::Verified,
                Truth::False => SourceState::Down,
                Truth::Unknown => SourceState::Unknown,
            };
            (state, clean(&said.message, MAX_MESSAGE).into())
        }
        None if facts.names_source => (SourceState::Unknown, "no source has been asked yet".into()),
        None => (SourceState::NotNamed, Text::default()),
    };
    Source { state, message, answers: answers.collect() }
}

fn remediation(facts: &Facts) -> Option<Box<Remediation>> {
    let last = facts.last_remediation.as_ref()?;
    Some(Box::new(Remediation {
        time: last.time.into(),
        result: last.result.clone(),
        source: last.source.as_deref().map(|source| clean(source, MAX_MESSAGE)),
        transaction_id: last.transaction_id.clone(),
    }))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
