//! The auditor's memory: what must be known of a guard beyond one look, and what follows from a look.
//!
//! Of a guard whose target is in sync and calm it keeps a few bytes; all else is kept while something is
//! open. It lives as long as this process leads: a new leader starts with an empty book and goes on from
//! what statuses say ([`Remembered`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::core::guard::Guard;
use crate::core::text::Text;

use super::after;
use super::alert::{Alert, AlertReason};
use super::breaker::{Breaker, Incident};
use super::course::Course;
use super::finding::{Reason, Truth};
use super::last::{self, Last, State};
use super::open::{Awaited, Open};
use super::reading::{LAG, Reader, Reading};
use super::recall::recall;
use super::sight::{Look, Sight};
use super::words::{self, EndedBy};

pub use super::breaker::Limits;
pub use super::seen::{Context, Details, Outcome, Remembered, Seen, Terms};
pub use super::step::{
    LastDrift, LastRemediation, Matched, NOT_WATCHED, Record, RecordKind, RemediationResult, Report, Step,
    Unwatched, WATCH_MISSED_CHANGE,
};

/// A look that was doubtful is asked for again after so long, in case that the first one fails.
const ASK_SOON: std::time::Duration = std::time::Duration::from_secs(5);
/// A guard that was due and of which nothing was heard is due again after so long.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Most names in the message of an incident.
const NAMED: usize = 5;

/// New transaction ids, from whoever has a clock and chance.
pub type NewId<'a> = &'a mut dyn FnMut() -> String;

/// How the installation wants the auditor to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `--remediation`: whether anything is put back at all.
    pub remediation: bool,
    /// When remediation stops because too many guards drift at once.
    pub limits: Limits,
}

/// All that is known, by the uids of guards.
#[derive(Debug)]
pub struct Book {
    settings: Settings,
    last: HashMap<Text, Last>,
    open: BTreeMap<Text, Box<Open>>,
    breaker: Breaker,
    /// What was alerted of each open incident.
    incidents: BTreeMap<String, Alert>,
    /// What persons ask to be put back, until its target has been looked at.
    asked: BTreeMap<Text, String>,
    due: BTreeMap<Text, Timestamp>,
    queue: BTreeSet<(Timestamp, Text)>,
    /// Versions of API servers that showed objects; few.
    servers: Vec<String>,
    /// Pairs of versions between which a change of representation has been announced.
    announced: BTreeSet<(u16, u16)>,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            last: HashMap::new(),
            open: BTreeMap::new(),
            breaker: Breaker::new(settings.limits),
            incidents: BTreeMap::new(),
            asked: BTreeMap::new(),
            due: BTreeMap::new(),
            queue: BTreeSet::new(),
            servers: Vec::new(),
            announced: BTreeSet::new(),
        }
    }

    /// How many guards there are in each namespace of guards: what a share of them is counted against.
    /// To be called whenever guards came or went, before looks at them.
    pub fn census(&mut self, guards: impl IntoIterator<Item = (Text, usize)>) {
        self.breaker.census(guards);
    }

    /// Whether this guard's target has been looked at by this process: if not, [`Context::remembered`]
    /// is wanted with the first look.
    #[must_use]
    pub fn knows(&self, guard_uid: &str) -> bool {
        self.last.contains_key(guard_uid)
    }

    /// Whether [`Seen::details`] are wanted with this look: it shows drift that is news.
    #[must_use]
    pub fn wants_details(&self, guard: &Guard, sight: &Sight, now: Timestamp) -> bool {
        let present = match sight {
            Sight::Unreadable(_) => return false,
            Sight::Absent => None,
            Sight::Present(present) if guard.approves(present.hash, now) => return false,
            Sight::Present(present) => Some(present),
        };
        let known = self.open.get(&guard.uid).and_then(|open| open.drift.as_ref());
        known.is_none_or(|drift| !drift.content.is(present))
    }

    /// When the guard's target was last known to be as approved, to the second: what changed it since is
    /// not older. `None` when it was not.
    #[must_use]
    pub fn last_clean(&self, guard_uid: &str) -> Option<Timestamp> {
        self.last.get(guard_uid).and_then(Last::clean_at)
    }

    /// What follows from a look at a guard's target.
    pub fn see(&mut self, guard: &Guard, seen: &Seen<'_>, now: Timestamp, new_id: NewId<'_>) -> Vec<Step> {
        let is_known = self.knows(&guard.uid);
        let mut steps = Vec::new();
        let mut open = match self.open.remove(&guard.uid) {
            Some(open) => open,
            None if is_known => Box::default(),
            None => {
                let (open, stopped) = self.recall(guard, seen.context, now, new_id);
                steps = stopped;
                open
            }
        };
        open.interval = seen.context.audit_interval;
        open.note_missed(seen.context.missed, now);
        let server = self.server(seen.context.server_version);
        let last = self.last.get(&guard.uid).copied();
        let asked = self.asked.contains_key(&guard.uid);
        if let Some(awaited) = open.awaited.as_mut().filter(|_| asked) {
            awaited.no_longer();
        }
        let reader = Reader { guard, seen, last, open: &open, is_known, server, now };
        let reading = reader.read();
        if matches!(reading, Reading::Doubtful | Reading::Replaced) {
            self.keep(guard, open);
            // A look that fails must not be the last one.
            let soon = super::after(now, ASK_SOON);
            let due = self.due.get(&guard.uid).copied().map_or(soon, |due| due.min(soon));
            self.set_due(&guard.uid, Some(due));
            steps.extend((reading == Reading::Doubtful).then_some(Step::Look));
            return steps;
        }
        if seen.look == Look::Live {
            open.read_at = Some(now);
        } else {
            // What can be read may yet be forbidden to watch.
            open.is_unwatched = matches!(seen.sight, Sight::Unreadable(_));
        }
        // Of what cannot be read nothing can be put back either. What came with a guard is done with all the same.
        let is_heeded = last.is_none() || !matches!(reading, Reading::Unreadable(_));
        let asked = is_heeded.then(|| self.asked.remove(&guard.uid)).flatten();
        let is_news = asked.is_some() || self.is_news(guard, seen, last, is_known, &reading);
        let before = last.unwrap_or(Last::UNSEEN);
        if asked.is_some() {
            open.fight.begin_anew();
        }
        let server_before = match &seen.context.read_before {
            Some(before) => self.server(&before.server),
            None => before.server,
        };
        let mut course = Course::new(guard, &mut open, now);
        if let Some(asked) = asked {
            // What came with a guard that nobody has looked at yet is of another time: a backup holds it.
            course.heed(asked, last.is_some());
        }
        self.follow(&mut course, reading, seen, (server_before, server), new_id);
        let state = course.state;
        let (more, due) = course.end(seen, is_news);
        steps.extend(more);
        let present = match seen.sight {
            Sight::Present(present) => Some(present),
            Sight::Absent | Sight::Unreadable(_) => None,
        };
        let after = if state == State::Unseen { before } else { before.then(state, present, server, now) };
        self.last.insert(guard.uid.clone(), after);
        self.set_due(&guard.uid, due);
        self.keep(guard, open);
        steps
    }

    /// What follows from the end of an attempt to restore. A look usually follows by the watch.
    pub fn restored(&mut self, guard: &Guard, terms: Terms, outcome: &Outcome, now: Timestamp) -> Vec<Step> {
        let Some(mut open) = self.open.remove(&guard.uid) else { return Vec::new() };
        let mut course = Course::new(guard, &mut open, now);
        let incident = self.breaker.holds(&guard.id.namespace);
        let is_member = incident.is_some_and(|incident| incident.drifted.contains(&guard.uid));
        course.restored(terms, outcome, is_member);
        let (steps, due) = course.end_of_attempt();
        let before = self.due.get(&guard.uid).copied();
        self.set_due(&guard.uid, [before, due].into_iter().flatten().min());
        self.keep(guard, open);
        steps
    }

    /// Whether an attempt to restore may still write: its guard stands as it did, and nothing has
    /// stopped remediation since. `guard` is the guard as it is now.
    #[must_use]
    pub fn may_restore(&self, guard: &Guard, transaction_id: &str, now: Timestamp) -> bool {
        let attempt = self.open.get(&guard.uid).and_then(|open| open.attempt.as_ref());
        attempt.is_some_and(|attempt| {
            attempt.transaction_id == transaction_id && attempt.generation == guard.generation
        }) && guard.paused(now).is_none()
            && self.breaker.holds(&guard.id.namespace).is_none()
    }

    /// What follows when a guard changed in anything (its spec, what pauses it, who is known to have
    /// approved it), or was deleted (`after` is `None`).
    pub fn guard_changed(&mut self, before: &Guard, after: Option<&Guard>, now: Timestamp) -> Vec<Step> {
        let same = after.filter(|after| {
            after.uid == before.uid && after.target == before.target && after.scope == before.scope
        });
        let Some(after) = same else {
            let mut steps = self.forget(before, now);
            if let Some(after) = after.filter(|after| after.uid == before.uid) {
                // What its status says is of what it pinned before.
                self.last.insert(after.uid.clone(), Last::UNSEEN);
                self.set_due(&after.uid, Some(super::after(now, ASK_AGAIN)));
                steps.push(Step::Look);
            }
            return steps;
        };
        let mut steps = Vec::new();
        let mut open = self.open.remove(&after.uid).unwrap_or_default();
        let is_paused = after.paused(now).is_some();
        let author_changed = before.authorship != after.authorship;
        let is_edited = before.generation != after.generation;
        if is_edited || is_paused || author_changed {
            steps.extend(give_up(&mut open));
        }
        // Equivalents are signed for one generation of the guard: they are looked at, and signed anew.
        open.equivalents.extend(&before.equivalents);
        open.equivalents.retain(|hash| !after.approves(*hash, now));
        let is_unsigned = !open.equivalents.is_empty() && is_edited;
        let approves_otherwise =
            before.expected != after.expected || before.also_approved != after.also_approved;
        if approves_otherwise {
            if before.expected != after.expected {
                let mut awaited = match open.awaited.take() {
                    Some(awaited) => awaited.and(before.expected, now),
                    None => Awaited::new(Some(before.expected), now),
                };
                for equivalent in open.equivalents.drain(..) {
                    awaited = awaited.and(equivalent, now);
                }
                open.awaited = Some(awaited);
            }
            open.fight.begin_anew();
            open.trouble = None;
            if let Some(drift) = &mut open.drift {
                drift.is_excepted = is_paused;
                // What a person asked for was of what was approved then.
                drift.is_asked = false;
                if drift.reason != Reason::Missing {
                    drift.reason = Reason::ContentDiffers;
                }
            }
            if let Some(last) = self.last.get_mut(&after.uid) {
                last.is_outdated = true;
            }
        }
        if is_edited && let Some(last) = self.last.get_mut(&after.uid) {
            // Its status speaks of the former generation, for which nobody waits any more.
            last.is_outdated = true;
        }
        let pauses_changed = before.pauses != after.pauses;
        // Another replica may have let a write pass under a pause before this one had heard of it.
        let has_just_changed = |last: &LastDrift| now < super::after(last.time, LAG);
        if is_paused
            && before.paused(now).is_none()
            && open.last_drift.as_ref().is_some_and(has_just_changed)
            && let Some(drift) = &mut open.drift
        {
            drift.is_excepted = true;
        }
        let is_open = open.drift.is_some() || open.episode.is_some();
        if is_edited || is_unsigned || (is_open && (author_changed || pauses_changed)) {
            steps.push(Step::Look);
            self.set_due(&after.uid, Some(super::after(now, ASK_AGAIN)));
        }
        if self.knows(&after.uid) {
            self.keep(after, open);
        }
        steps
    }

    /// The status of a guard whose target this process has yet to look at says that its target is drifted, or cannot
    /// be read, in an incident. To be called before the first looks and after what persons have acknowledged:
    /// else an incident would be over with the first of its guards that is found as approved.
    pub fn incident_said(&mut self, guard: &Guard, id: &str, now: Timestamp) {
        if !self.knows(&guard.uid) {
            self.resume(guard, id, now);
        }
    }

    /// A person acknowledges an incident by a guard of `namespace`: what it held back may go on. Unknown ids do
    /// nothing, nor do those of incidents of another namespace, where its author may have no rights.
    pub fn acknowledge(&mut self, incident: &str, namespace: &Text, now: Timestamp) -> Vec<(Text, Step)> {
        let Some(over) = self.breaker.acknowledge(incident, namespace) else { return Vec::new() };
        let mut steps = Vec::new();
        if let Some(alert) = self.incidents.get(incident) {
            // Whoever it opened with may be gone.
            let opener = Text::from(&alert.guard_uid);
            let is_there = |uid: &&Text| self.open.contains_key(*uid);
            let uid = Some(&opener).filter(is_there).or_else(|| over.drifted.iter().find(is_there));
            let uid = uid.unwrap_or(&opener).clone();
            let ended = self.end_incident(&over, EndedBy::Person, now);
            steps.extend(ended.into_iter().map(|step| (uid.clone(), step)));
        }
        steps.extend(self.held_by(&over, now).into_iter().map(|uid| (uid, Step::Look)));
        steps
    }

    /// A person asks for the guard's target to be put back: although it changed under a pause, attempts have failed,
    /// what is approved is yet to be applied, or the guard leaves its target alone by itself. `asked` tells one request
    /// from another. It is heeded by the next look, and said ([`Report::heeded_restore`]) even of a target that
    /// is as approved.
    pub fn restore_asked(&mut self, guard: &Guard, asked: String, now: Timestamp) -> Vec<Step> {
        self.asked.insert(guard.uid.clone(), asked);
        self.set_due(&guard.uid, Some(after(now, ASK_AGAIN)));
        vec![Step::Look]
    }

    /// A guard can be used that could not be before, and what was known of its target was forgotten with that. Mostly
    /// the watch tells of it; if not, it is looked at.
    pub fn awaits(&mut self, guard: &Guard, now: Timestamp) {
        if !self.knows(&guard.uid) {
            self.set_due(&guard.uid, Some(after(now, ASK_SOON)));
        }
    }

    /// What is due: guards to look at, by uid. A guard of which no look can be had is due again later.
    pub fn tick(&mut self, now: Timestamp) -> Vec<(Text, Step)> {
        let mut steps = Vec::new();
        while let Some((at, uid)) = self.queue.first().cloned()
            && at <= now
        {
            if let Some(open) = self.open.get_mut(&uid)
                && open.drift.is_none()
                && open.episode.is_none()
            {
                open.fight.calm_down(now);
                if open.is_idle() {
                    self.open.remove(&uid);
                    self.set_due(&uid, None);
                    continue;
                }
            }
            self.set_due(&uid, Some(after(now, ASK_AGAIN)));
            steps.push((uid, Step::Look));
        }
        steps
    }

    /// When [`Self::tick`] is to be called next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Open incidents, by the ids that acknowledge them.
    pub fn incidents(&self) -> impl Iterator<Item = &str> {
        self.incidents.keys().map(String::as_str)
    }

    /// How many guards something is open about.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn keep(&mut self, guard: &Guard, open: Box<Open>) {
        if !open.is_idle() {
            self.open.insert(guard.uid.clone(), open);
        }
    }

    fn set_due(&mut self, uid: &Text, due: Option<Timestamp>) {
        if let Some(before) = self.due.remove(uid) {
            self.queue.remove(&(before, uid.clone()));
        }
        if let Some(due) = due {
            self.due.insert(uid.clone(), due);
            self.queue.insert((due, uid.clone()));
        }
    }

    fn server(&mut self, version: &str) -> u16 {
        if version.is_empty() {
            return last::UNKNOWN_SERVER;
        }
        let known = self.servers.iter().position(|known| known == version);
        let at = known.unwrap_or_else(|| {
            // Far more versions than an API server can have in the life of a process would be a lie.
            if self.servers.len() < usize::from(last::UNKNOWN_SERVER) {
                self.servers.push(version.to_owned());
            }
            self.servers.len() - 1
        });
        u16::try_from(at).unwrap_or(last::UNKNOWN_SERVER)
    }

    fn announcement(&mut self, from: u16, to: u16) -> Option<String> {
        let name = |server: u16| self.servers.get(usize::from(server)).map_or("", String::as_str);
        let text = words::representation(name(from), name(to));
        // Two servers that are both there would take turns otherwise.
        self.announced.insert((from.min(to), from.max(to))).then_some(text)
    }

    /// Whether a look at a calm target says something that the status may not.
    fn is_news(
        &self,
        guard: &Guard,
        seen: &Seen<'_>,
        last: Option<Last>,
        is_known: bool,
        reading: &Reading,
    ) -> bool {
        let (Reading::Clean(reason), Sight::Present(present)) = (reading, seen.sight) else { return true };
        let Some(last) = last else { return true };
        if is_known {
            return last.state != State::Clean || last.is_outdated || !last.held(present.hash);
        }
        let Some(said) = &seen.context.remembered else { return true };
        let is_same_hash = guard.scope.is_secret() || said.current_hash == Some(present.hash);
        let is_calm =
            said.consecutive_failures == 0 && !said.fighting && !said.unwatched && said.incident.is_none();
        let says = said.drifted.is_some_and(|(truth, why, _)| truth == Truth::False && why == *reason);
        !(says
            && is_same_hash
            && is_calm
            && said.hash_match == Some(true)
            && said.generation == guard.generation)
    }

    /// Goes on from what the status of a guard says that this process has never looked at. With
    /// it come attempts to give up.
    fn recall(
        &mut self,
        guard: &Guard,
        context: &Context<'_>,
        now: Timestamp,
        new_id: NewId<'_>,
    ) -> (Box<Open>, Vec<Step>) {
        let Some(said) = &context.remembered else { return Default::default() };
        let Some((last, mut open)) = recall(guard, said, context.apply_grace, now, new_id) else {
            return Default::default();
        };
        self.last.insert(guard.uid.clone(), last);
        let may_drift =
            open.drift.is_some() || said.drifted.is_some_and(|(truth, ..)| truth == Truth::Unknown);
        let resumed = match said.incident.as_ref().filter(|_| may_drift) {
            Some(id) => self.resume(guard, id, now),
            // What was read of it before may have been over by then.
            None => return (open, self.clear(&guard.uid, now)),
        };
        // Until it is shown to be over, also where the target cannot be read.
        open.incident.clone_from(&resumed);
        // Of guards that were looked at before this one nobody knew that it holds them back.
        let incident = resumed.and_then(|_| self.breaker.holds(&guard.id.namespace).cloned());
        let steps = incident.map(|incident| self.stop_attempts(&incident, now)).unwrap_or_default();
        (open, steps)
    }

    /// Goes on with an incident of which the status of a guard tells. Gives the one that the guard belongs to.
    fn resume(&mut self, guard: &Guard, id: &str, now: Timestamp) -> Option<String> {
        let resumed = self.breaker.resume(id, &guard.uid, &guard.id.namespace)?;
        // Whoever led before has alerted it, and has told of those that it took up.
        self.incidents.retain(|known, _| self.breaker.is_open(known));
        let alert = || incident_alert(guard, &resumed, String::new(), now);
        self.incidents.entry(resumed.clone()).or_insert_with(alert);
        Some(resumed)
    }

    /// Does what a look means. `servers` are those that showed the object last and now.
    fn follow(
        &mut self,
        course: &mut Course<'_>,
        reading: Reading,
        seen: &Seen<'_>,
        servers: (u16, u16),
        new_id: NewId<'_>,
    ) {
        match reading {
            Reading::Clean(reason) => {
                course.clean(reason);
                self.after_clear(course);
            }
            Reading::Represented(hash) => {
                let announcement = self.announcement(servers.0, servers.1);
                course.represented(hash, announcement, new_id);
                self.after_clear(course);
            }
            Reading::Awaiting(until) => {
                course.awaiting(until, seen.sight);
                self.after_clear(course);
            }
            Reading::Drifted(found) => {
                if course.drifted(&found, seen, new_id) {
                    self.count(course, new_id);
                }
                let incident = self.breaker.holds(&course.guard.id.namespace);
                course.decide(seen, self.settings.remediation, incident);
            }
            Reading::Unreadable(why) => course.unreadable(&why, seen, new_id),
            Reading::Doubtful | Reading::Replaced => {}
        }
    }

    /// Counts a guard that drifted anew: many at once are an incident.
    fn count(&mut self, course: &mut Course<'_>, new_id: NewId<'_>) {
        let (guard, now) = (course.guard, course.now);
        let begun = self.breaker.drifted(&guard.uid, &guard.id.namespace, now, new_id);
        let Some((incident, taken_up)) = begun else { return };
        for over in &taken_up {
            course.steps.extend(self.end_incident(over, EndedBy::Wider, now));
            self.held_by(over, now);
        }
        course.steps.extend(self.open_incident(guard, &incident, now));
        course.steps.extend(self.stop_attempts(&incident, now));
        // The statuses of all of them are to say so within a moment: who leads next takes one that does not for one
        // that is over.
        for uid in incident.drifted.iter().filter(|uid| self.open.contains_key(*uid)).collect::<Vec<_>>() {
            self.set_due(uid, Some(now));
        }
    }

    /// The target is as it should be, or soon will be: incidents may be over by that.
    fn after_clear(&mut self, course: &mut Course<'_>) {
        let over = self.clear(&course.guard.uid, course.now);
        course.steps.extend(over);
    }

    /// A guard is no part of any incident any more, which may be over by that.
    fn clear(&mut self, uid: &str, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        for over in self.breaker.cleared(uid) {
            steps.extend(self.end_incident(&over, EndedBy::Clearing, now));
            self.held_by(&over, now);
        }
        steps
    }

    /// Makes guards due that an incident held back, and gives them.
    fn held_by(&mut self, incident: &Incident, now: Timestamp) -> Vec<Text> {
        let held: Vec<Text> = self
            .open
            .iter()
            .filter(|(uid, open)| {
                open.incident.as_ref() == Some(&incident.id) || incident.drifted.contains(*uid)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &held {
            // Also of those that cannot be read: their statuses must not speak of it to the next leader.
            if let Some(open) = self.open.get_mut(uid) {
                open.incident = None;
            }
            self.set_due(uid, Some(now));
        }
        held
    }

    /// Attempts that are under way where an incident has begun are given up.
    fn stop_attempts(&mut self, incident: &Incident, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut stopped = Vec::new();
        for (uid, open) in &mut self.open {
            let namespace = open.guard.as_ref().map(|guard| &guard.namespace);
            if namespace.is_some_and(|namespace| incident.reach.covers(namespace))
                && let Some(step) = give_up(open)
            {
                steps.push(step);
                stopped.push(uid.clone());
            }
        }
        for uid in stopped {
            // Their statuses are to say why nothing is put back.
            self.set_due(&uid, Some(now));
        }
        steps
    }

    fn open_incident(&mut self, guard: &Guard, incident: &Incident, now: Timestamp) -> Vec<Step> {
        let names: Vec<String> = incident
            .drifted
            .iter()
            .filter_map(|uid| self.open.get(uid).and_then(|open| open.guard.as_ref()))
            .take(NAMED)
            .map(ToString::to_string)
            .collect();
        let message = words::incident(guard, incident, self.settings.limits.window, &names);
        let alert = incident_alert(guard, &incident.id, words::alert(guard, &message), now);
        let record = Record {
            kind: RecordKind::IncidentOpened,
            reason: AlertReason::RemediationStopped.as_str(),
            message,
            transaction_id: incident.id.clone(),
            paths: Vec::new(),
            attribution: super::attribution::Attribution::default(),
            hash: None,
        };
        self.incidents.insert(incident.id.clone(), alert.clone());
        vec![Step::Record(record), Step::Alert(alert)]
    }

    fn end_incident(&mut self, incident: &Incident, by: EndedBy, now: Timestamp) -> Vec<Step> {
        let Some(alert) = self.incidents.remove(&incident.id) else { return Vec::new() };
        let message = words::incident_over(incident, by);
        let record = Record {
            kind: RecordKind::IncidentClosed,
            reason: by.as_str(),
            message: message.clone(),
            transaction_id: incident.id.clone(),
            paths: Vec::new(),
            attribution: super::attribution::Attribution::default(),
            hash: None,
        };
        vec![Step::Record(record), Step::Resolve(Alert { resolved: true, message, at: now, ..alert })]
    }

    /// Forgets a guard that is gone, or that pins something else now.
    fn forget(&mut self, guard: &Guard, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(mut open) = self.open.remove(&guard.uid) {
            steps.extend(give_up(&mut open));
            if let Some(episode) = open.episode
                && let Some(reason) = episode.alerted()
            {
                let message = words::forgotten(guard);
                steps.push(Step::Resolve(Alert {
                    episode: episode.id,
                    guard: guard.id.clone(),
                    guard_uid: guard.uid.as_str().to_owned(),
                    target: guard.target.clone(),
                    reason,
                    resolved: true,
                    message,
                    paths: Vec::new(),
                    actor: None,
                    at: now,
                }));
            }
        }
        self.last.remove(&guard.uid);
        self.asked.remove(&guard.uid);
        self.set_due(&guard.uid, None);
        steps.extend(self.clear(&guard.uid, now));
        steps
    }
}

fn give_up(open: &mut Open) -> Option<Step> {
    open.attempt.take().map(|attempt| Step::GiveUp { transaction_id: attempt.transaction_id })
}

fn incident_alert(guard: &Guard, id: &str, message: String, now: Timestamp) -> Alert {
    Alert {
        episode: id.to_owned(),
        guard: guard.id.clone(),
        guard_uid: guard.uid.as_str().to_owned(),
        target: guard.target.clone(),
        reason: AlertReason::RemediationStopped,
        resolved: false,
        message,
        paths: Vec::new(),
        actor: None,
        at: now,
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "book_model_tests.rs"]
mod model_tests;
