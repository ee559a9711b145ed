//! The judge of a run: reads every revision that etcd holds, and says which of them no guard approved.
//!
//! It knows hashes and what stands in etcd, and nothing of how the product decides. What is approved of an object
//! at a revision is what its guard's versions approve, from the last one that was called enforced on: until the
//! next one is, a replica may judge by either.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use driftguard_control_plane::Change;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::fleet::condition;

use super::rule::{Life, Pause, Rule};

/// How long after its judgement a write of DriftGuard's own may be stored.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(5);
/// When every replica has heard that an exception is gone, if no condition tells: one that hears nothing for so long
/// no longer trusts what it knows.
const HEARD: SignedDuration = SignedDuration::from_secs(15);

/// How long after a change its alarm may stand in the status: nobody may lead for a while.
const ALARM: SignedDuration = SignedDuration::from_secs(60);

/// An object and its guard, by their keys in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) object: String,
    /// Namespace of the guard, which is the object's.
    pub(crate) namespace: String,
    /// Name of the guard.
    pub(crate) guard: String,
    pub(crate) is_secret: bool,
}

/// A write that DriftGuard refused, saying the hash of what would have been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Key of the object.
    pub(crate) key: String,
    /// The newest revisions when it began and when it was answered.
    pub(crate) during: (i64, i64),
    pub(crate) hash: String,
}

/// What is known of a run beside its history.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Revisions that were written straight into etcd.
    pub(crate) straight: BTreeSet<i64>,
    /// What may have been written straight into etcd, whose answer was lost: key, and bytes or a deletion.
    pub(crate) maybe_straight: Vec<(String, Option<Vec<u8>>)>,
    /// When the write that made a revision was begun, by the newest revision then.
    pub(crate) begun: BTreeMap<i64, i64>,
    /// Writes whose end is not known: key, newest revision when they began, and when they were last heard of.
    pub(crate) unsure: Vec<(String, i64, i64)>,
    pub(crate) refusals: Vec<Refusal>,
    /// Which revision was the newest at some moments, in order.
    pub(crate) clock: Vec<(Timestamp, i64)>,
}

impl Known {
    /// A moment at which `revision` was stored already, or shortly before.
    fn earliest(&self, revision: i64) -> Timestamp {
        let at = self.clock.partition_point(|&(_, newest)| newest < revision);
        self.clock[..at].last().or(self.clock.first()).map_or(Timestamp::UNIX_EPOCH, |&(at, _)| at)
    }

    /// The newest revision some time after `revision`.
    fn after(&self, revision: i64, time: SignedDuration) -> i64 {
        let stored = self.clock.iter().find(|&&(_, newest)| newest >= revision);
        let end = stored.map(|&(at, _)| at + time);
        let past = self.clock.iter().find(|&&(at, _)| end.is_some_and(|end| at >= end));
        past.map_or(i64::MAX, |&(_, newest)| newest)
    }

    fn is_straight(&self, change: &Change) -> bool {
        // No API server writes the very same bytes: it has an order of fields of its own.
        let is = |(key, value): &(String, Option<Vec<u8>>)| *key == change.key && *value == change.value;
        self.straight.contains(&change.revision) || self.maybe_straight.iter().any(is)
    }

    /// The newest revision some time before `revision`.
    fn before(&self, revision: i64, time: SignedDuration) -> i64 {
        let earlier = self.earliest(revision) - time;
        let at = self.clock.partition_point(|&(at, _)| at < earlier);
        self.clock[..at].last().map_or(0, |&(_, newest)| newest)
    }

    /// When the write that was stored as `revision` may have begun.
    fn begun(&self, key: &str, revision: i64) -> i64 {
        if let Some(&begun) = self.begun.get(&revision) {
            return begun;
        }
        let of_key = self
            .unsure
            .iter()
            .filter(|(of, begun, ended)| of == key && (*begun..=*ended).contains(&revision));
        let own = self.before(revision, IN_FLIGHT);
        of_key.map(|&(_, begun, _)| begun).min().unwrap_or(own).min(own)
    }
}

/// A revision that nobody approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offence {
    pub(crate) revision: i64,
    pub(crate) key: String,
    said: String,
}

impl std::fmt::Display for Offence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {} of {}: {}", self.revision, self.key, self.said)
    }
}

/// The history so far of one object with its guard.
struct Course<'a> {
    of: &'a Watched,
    stored: Option<&'a [u8]>,
    /// Revisions in which other content was stored, and whether past every API server.
    contents: Vec<(i64, bool)>,
    /// Whether the guard says that something bypassed admission.
    is_alarmed: bool,
    life: Life,
    /// The rules from each revision on.
    rules: Vec<(i64, Vec<Rule>)>,
}

/// What the history tells.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Every revision that came through an API server although no guard approved it, in order.
    pub(crate) offences: Vec<Offence>,
    /// How many revisions passed by what they hold alone, and not since everything passed just then.
    pub(crate) weighed: usize,
    /// Refusals of what the guard has approved for so long that every replica knew.
    pub(crate) wrongs: Vec<Refusal>,
    /// Guards, by name, that said at a revision that something bypassed admission, when nothing had.
    pub(crate) false_alarms: Vec<(String, i64)>,
}

/// Judges a whole history.
pub(crate) fn judge(history: &[Change], watched: &[Watched], known: &Known) -> Result<Judgement> {
    let new = |of| Course {
        of,
        stored: None,
        contents: Vec::new(),
        is_alarmed: false,
        life: Life::new(),
        rules: vec![(0, vec![Rule::none()])],
    };
    let mut judge = Judge {
        known,
        courses: watched.iter().map(new).collect(),
        pauses: BTreeMap::new(),
        past: Vec::new(),
        judgement: Judgement::default(),
    };
    for change in history {
        if let Some((namespace, _)) = named(&change.key, "driftguardexceptions") {
            judge.exception(namespace, change)?;
        } else if let Some((namespace, name)) = named(&change.key, "driftguards") {
            judge.guard(namespace, name, change)?;
        } else {
            judge.object(change)?;
        }
    }
    judge.refusals();
    Ok(judge.judgement)
}

struct Judge<'a> {
    known: &'a Known,
    courses: Vec<Course<'a>>,
    /// Exceptions that are there, by key.
    pauses: BTreeMap<String, Pause>,
    /// Those that were deleted, with their namespaces.
    past: Vec<(String, Pause)>,
    judgement: Judgement,
}

impl<'a> Judge<'a> {
    fn exception(&mut self, namespace: &str, change: &Change) -> Result<()> {
        if let Some(exception) = parsed(change)? {
            if !self.pauses.contains_key(&change.key) {
                self.pauses.insert(change.key.clone(), Pause::of(&exception, change.revision)?);
            }
            return Ok(());
        }
        let Some(mut pause) = self.pauses.remove(&change.key) else { return Ok(()) };
        let heard = self.known.after(change.revision, HEARD);
        for course in self.courses.iter().filter(|course| course.of.namespace == namespace) {
            // Where the guard says that it is paused, it says so until every replica has heard.
            let over = if course.life.suspended { i64::MAX } else { heard };
            pause.over.insert(course.of.guard.clone(), over);
        }
        self.past.push((namespace.to_owned(), pause));
        Ok(())
    }

    fn guard(&mut self, namespace: &str, name: &str, change: &Change) -> Result<()> {
        let is = |course: &&mut Course<'_>| course.of.namespace == namespace && course.of.guard == name;
        let Some(course) = self.courses.iter_mut().find(is) else { return Ok(()) };
        let guard = parsed(change)?;
        course.life.follow(guard.as_ref())?;
        course.rules.push((change.revision, course.life.rules.clone()));
        let drifted = guard.as_ref().and_then(|guard| condition(guard, "Drifted"));
        let is_alarmed = drifted.is_some_and(|said| said["reason"] == "BypassedAdmission");
        // Once is enough: it goes on saying so.
        let before = std::mem::replace(&mut course.is_alarmed, is_alarmed);
        if is_alarmed && !before && !course.was_bypassed(self.known.before(change.revision, ALARM)) {
            self.judgement.false_alarms.push((name.to_owned(), change.revision));
        }
        if !course.life.suspended {
            let past = self.past.iter_mut().filter(|(of, _)| of == namespace);
            let waiting =
                past.filter_map(|(_, pause)| pause.over.get_mut(name)).filter(|over| **over == i64::MAX);
            waiting.for_each(|over| *over = change.revision);
        }
        Ok(())
    }

    fn object(&mut self, change: &'a Change) -> Result<()> {
        let Some(course) = self.courses.iter_mut().find(|course| course.of.object == change.key) else {
            return Ok(());
        };
        let old = std::mem::replace(&mut course.stored, change.value.as_deref());
        let is_straight = self.known.is_straight(change);
        let rule = course.life.rules.last();
        let hash = |object: Option<&[u8]>| rule.and_then(|rule| rule.hash(object?).ok());
        if hash(old) != hash(change.value.as_deref()) {
            course.contents.push((change.revision, is_straight));
        }
        if is_straight {
            return Ok(());
        }
        let begun = self.known.begun(&change.key, change.revision);
        let at = self.known.earliest(begun);
        let namespace = course.of.namespace.as_str();
        let there = self
            .pauses
            .iter()
            .filter(|(key, _)| named(key, "driftguardexceptions").is_some_and(|(of, _)| of == namespace));
        let past = self.past.iter().filter(|(of, _)| of == namespace);
        let mut pauses = there.map(|(_, pause)| pause).chain(past.map(|(_, pause)| pause));
        if pauses.any(|pause| pause.lets_pass(&course.of.guard, (begun, change.revision), at)) {
            return Ok(());
        }
        let rules: Vec<&Rule> = course.rules(begun, change.revision).collect();
        if rules.iter().any(|rule| rule.is_open(at)) {
            return Ok(());
        }
        self.judgement.weighed += 1;
        for rule in &rules {
            if rule.lets_pass(old, change.value.as_deref(), at)? {
                return Ok(());
            }
        }
        let said = said(course.of, change, begun, &rules)?;
        self.judgement.offences.push(Offence { revision: change.revision, key: change.key.clone(), said });
        Ok(())
    }
}

impl Judge<'_> {
    /// Whatever every rule approves from before a write to its answer, no replica has a reason to refuse.
    fn refusals(&mut self) {
        for refusal in &self.known.refusals {
            let Some(course) = self.courses.iter().find(|course| course.of.object == refusal.key) else {
                continue;
            };
            let (begun, ended) = refusal.during;
            let approves = |rule: &Rule| {
                rule.hashes.iter().any(|(hash, until)| *hash == refusal.hash && until.is_none())
            };
            if course.rules(self.known.before(begun, HEARD), ended).all(approves) {
                self.judgement.wrongs.push(refusal.clone());
            }
        }
    }
}

impl Course<'_> {
    /// Whether anything that was stored at revision `since`, or came later, came past every API server.
    fn was_bypassed(&self, since: i64) -> bool {
        let first = self.contents.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        self.contents[first..].iter().any(|&(_, is_straight)| is_straight)
    }

    /// What was in force at revision `begun`, and all that came since until `end`.
    fn rules(&self, begun: i64, end: i64) -> impl Iterator<Item = &Rule> {
        let first = self.rules.partition_point(|(from, _)| *from <= begun).saturating_sub(1);
        self.rules[first..].iter().take_while(move |(from, _)| *from <= end).flat_map(|(_, rules)| rules)
    }
}

fn parsed(change: &Change) -> Result<Option<Value>> {
    change.value.as_deref().map(serde_json::from_slice).transpose().map_err(Into::into)
}

fn said(of: &Watched, change: &Change, begun: i64, rules: &[&Rule]) -> Result<String> {
    let Some(value) = &change.value else {
        return Ok(format!("deleted by a write begun at {begun}, although its guard keeps it"));
    };
    let writer = writer(change)?;
    // Neither the values nor the hashes of a Secret are shown.
    if of.is_secret {
        return Ok(format!("written by {writer}, begun at {begun}; nothing since then approved it"));
    }
    let seen: BTreeSet<String> = rules.iter().map(|rule| rule.hash(value)).collect::<Result<_>>()?;
    let hashes = rules.iter().flat_map(|rule| &rule.hashes);
    let approved: BTreeSet<String> = hashes
        .map(|(hash, until)| until.map_or_else(|| hash.clone(), |until| format!("{hash} until {until}")))
        .collect();
    Ok(format!("holds {seen:?}, written by {writer}, begun at {begun}; approved since then: {approved:?}"))
}

/// Namespace and name of one of our custom resources, by its key.
fn named<'a>(key: &'a str, plural: &str) -> Option<(&'a str, &'a str)> {
    let rest = key.strip_prefix("/registry/terrafusion.ai/")?.strip_prefix(plural)?.strip_prefix('/')?;
    rest.split_once('/')
}

/// The field managers of an object that wrote last.
fn writer(change: &Change) -> Result<String> {
    let object: Value = serde_json::from_slice(change.value.as_deref().unwrap_or_default())?;
    let all: Vec<&Value> = object["metadata"]["managedFields"].as_array().into_iter().flatten().collect();
    let newest = all.iter().filter_map(|entry| entry["time"].as_str()).max();
    let last = all.iter().filter(|entry| entry["time"].as_str() == newest);
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("?").to_owned();
    let named = last.map(|entry| format!("{} ({})", text(entry, "manager"), text(entry, "operation")));
    Ok(named.collect::<Vec<_>>().join(" or "))
}

/// Every hash that the guard there is now has expected.
pub(crate) fn expected(history: &[Change], watched: &Watched) -> Result<Vec<String>> {
    let mut life = Life::new();
    for change in history {
        if named(&change.key, "driftguards") == Some((&watched.namespace, &watched.guard)) {
            life.follow(parsed(change)?.as_ref())?;
        }
    }
    Ok(life.expected)
}
