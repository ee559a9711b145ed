//! What everybody in a run shares: dice by the seed, the clock of etcd's revisions, and the journal of what was done.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use driftguard_control_plane::User;
use jiff::Timestamp;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;

use super::oracle::{Known, Refusal};
use super::world::{Hashes, SPOTS};
use crate::fleet::Fleet;

/// How often the newest revision is asked for. Between two looks, a write counts as begun at the earlier one.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time to wait for the answer to a write: an API server gives up after 34 s.
const ANSWER: Duration = Duration::from_secs(45);
/// How long after it was last heard of a write may still be stored, in looks of the clock.
const LATE: usize = (ANSWER.as_millis() / LOOK.as_millis()) as usize;

/// Chance by a seed: everybody in a run has dice of their own, so that what each of them does is the same in every run.
pub(crate) struct Dice(TestRng);

impl Dice {
    pub(crate) fn new(seed: u64, whose: &str) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        for (byte, letter) in bytes[8..].iter_mut().zip(whose.bytes()) {
            *byte = letter;
        }
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u32()).map_or(0, |number| number % end.max(1))
    }

    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// True so many times in ten.
    pub(crate) fn often(&mut self, in_ten: usize) -> bool {
        self.below(10) < in_ten
    }

    pub(crate) fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// With this revision; one that was there before when nothing changed.
    Stored(i64),
    /// Not at all, by the server's word.
    Refused(String),
    /// As the server has not said.
    Unsure(String),
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    who: String,
    what: String,
    key: Option<String>,
    begun: i64,
    ended: (Instant, i64),
    outcome: Outcome,
}

/// Something that happens once.
#[derive(Debug, Default)]
struct Over {
    is: Mutex<bool>,
    told: Condvar,
}

impl Over {
    fn set(&self) {
        *self.is.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    /// Whether it happens within this time.
    fn within(&self, time: Duration) -> bool {
        let is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(is, time, |is| !*is);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// One run.
pub(crate) struct Play {
    pub(crate) fleet: Fleet,
    pub(crate) hashes: Hashes,
    pub(crate) seed: u64,
    pub(crate) runtime: tokio::runtime::Runtime,
    since: Instant,
    newest: AtomicI64,
    clock: Mutex<Vec<(Timestamp, Instant, i64)>>,
    journal: Mutex<Vec<Entry>>,
    straight: Mutex<Vec<i64>>,
    maybe_straight: Mutex<Vec<(String, Option<Vec<u8>>)>>,
    over: Over,
    /// Until everything has been looked at.
    closed: Over,
}

impl Play {
    pub(crate) fn new(fleet: Fleet, hashes: Hashes, seed: u64) -> Result<Self> {
        Ok(Self {
            fleet,
            hashes,
            seed,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
            since: Instant::now(),
            newest: AtomicI64::new(0),
            clock: Mutex::default(),
            journal: Mutex::default(),
            straight: Mutex::default(),
            maybe_straight: Mutex::default(),
            over: Over::default(),
            closed: Over::default(),
        })
    }

    /// Lets this time pass, or what is left of the run; whether it goes on.
    pub(crate) fn goes_on(&self, pause: Duration) -> bool {
        !self.over.within(pause)
    }

    /// Ends the run.
    pub(crate) fn end(&self) {
        self.over.set();
    }

    /// Looks at the newest revision until the run is [closed](Play::close).
    pub(crate) fn keep_clock(&self) {
        while !self.closed.within(LOOK) {
            self.look();
        }
    }

    /// Ends the clock, too.
    pub(crate) fn close(&self) {
        self.closed.set();
    }

    /// One look at the newest revision.
    pub(crate) fn look(&self) {
        // The moment before it is asked: the revision is at least this old.
        let now = (Timestamp::now(), Instant::now());
        if let Ok(revision) = self.fleet.plane.etcd().revision() {
            self.newest.store(revision, Ordering::Release);
            self.clock.lock().unwrap_or_else(PoisonError::into_inner).push((now.0, now.1, revision));
        }
    }

    /// Does something to the object at `key` (to none, where there is no key), and notes it.
    pub(crate) fn does(
        &self,
        who: &str,
        what: impl Into<String>,
        key: Option<&str>,
        act: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let (begun, at) = (self.newest.load(Ordering::Acquire), self.since.elapsed());
        let outcome = act();
        let entry = Entry {
            at,
            who: who.to_owned(),
            what: what.into(),
            key: key.map(str::to_owned),
            begun,
            ended: (Instant::now(), self.newest.load(Ordering::Acquire)),
            outcome: outcome.clone(),
        };
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        outcome
    }

    /// Notes a revision that was written past every API server.
    pub(crate) fn wrote_straight(&self, revision: i64) {
        self.straight.lock().unwrap_or_else(PoisonError::into_inner).push(revision);
    }

    /// Notes what may have been written past every API server: these bytes, or a deletion.
    pub(crate) fn may_have_written_straight(&self, key: &str, value: Option<Vec<u8>>) {
        self.maybe_straight.lock().unwrap_or_else(PoisonError::into_inner).push((key.to_owned(), value));
    }

    /// What the judge needs beside the history.
    pub(crate) fn known(&self) -> Known {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Known {
            straight: self.straight.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect(),
            maybe_straight: self.maybe_straight.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            clock: clock.iter().map(|&(at, _, revision)| (at, revision)).collect(),
            ..Known::default()
        };
        for entry in &*self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            match (&entry.outcome, &entry.key) {
                (Outcome::Stored(revision), Some(_)) if *revision > entry.begun => {
                    // Whoever changed nothing was told the revision of somebody else.
                    let begun = known.begun.entry(*revision).or_insert(entry.begun);
                    *begun = entry.begun.min(*begun);
                }
                (Outcome::Unsure(_), Some(key)) => {
                    let ended = clock.partition_point(|&(_, at, _)| at <= entry.ended.0) + LATE;
                    let last = clock.get(ended).map_or(i64::MAX, |&(.., revision)| revision);
                    known.unsure.push((key.clone(), entry.begun, last));
                }
                (Outcome::Refused(why), Some(key)) if why.contains("DriftGuard ") => {
                    let said = why.split_once("image sha256:").and_then(|(_, rest)| rest.get(..64));
                    known.refusals.extend(said.map(|hash| Refusal {
                        key: key.clone(),
                        during: (entry.begun, entry.ended.1),
                        hash: hash.to_owned(),
                    }));
                }
                _ => {}
            }
        }
        known
    }

    /// The journal as lines, for people.
    pub(crate) fn told(&self) -> String {
        let mut lines = vec![format!("seed {}", self.seed)];
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<&Entry> = journal.iter().collect();
        entries.sort_by_key(|entry| entry.at);
        for entry in entries {
            let outcome = match &entry.outcome {
                Outcome::Stored(revision) => format!("stored as {revision}"),
                Outcome::Refused(why) => format!("refused: {}", short(why)),
                Outcome::Unsure(why) => format!("unsure: {}", short(why)),
            };
            let at = entry.at.as_secs_f64();
            lines.push(format!("{at:7.3} @{} {}: {}: {outcome}", entry.begun, entry.who, entry.what));
        }
        lines.join("\n")
    }

    /// How many operations ended how: stored, refused, unsure.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for entry in &*self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            counts[match entry.outcome {
                Outcome::Stored(_) => 0,
                Outcome::Refused(_) => 1,
                Outcome::Unsure(_) => 2,
            }] += 1;
        }
        counts
    }

    /// The hash of a content of an object.
    pub(crate) fn hash(&self, spot: usize, variant: usize) -> &str {
        &self.hashes[spot % SPOTS.len()][variant]
    }
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let from = line.find("DriftGuard").unwrap_or(0);
    line[from..].chars().take(140).collect()
}

/// Somebody with a client.
pub(crate) struct Person<'a> {
    pub(crate) play: &'a Play,
    pub(crate) user: User,
    pub(crate) dice: Dice,
    client: kube::Client,
}

impl<'a> Person<'a> {
    pub(crate) fn new(play: &'a Play, name: &str) -> Result<Self> {
        let servers = play.fleet.plane.api_servers();
        // Each at one of them, by the number of letters.
        let user =
            play.fleet.plane.user_at(&servers[name.len() % servers.len()], name, &["system:masters"])?;
        let _entered = play.runtime.enter();
        let client = user.client()?;
        Ok(Self { play, user, dice: Dice::new(play.seed, name), client })
    }

    /// One request; a body has a content type.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, kube::Error> {
        let manager = if path.contains('?') { "&" } else { "?" };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{path}{manager}fieldManager={}", self.user.name()));
        if let Some((content_type, _)) = body {
            request = request.header("content-type", content_type);
        }
        let bytes = body.map(|(_, body)| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(bytes).map_err(kube::Error::HttpError)?;
        let lost = || kube::Error::Service(anyhow!("no answer within {ANSWER:?}").into());
        self.play.runtime.block_on(async {
            tokio::time::timeout(ANSWER, self.client.request(request)).await.unwrap_or_else(|_| Err(lost()))
        })
    }

    /// Sends a write to what is at `path`, and notes it as one of the object at `key`.
    pub(crate) fn write(
        &self,
        what: impl Into<String>,
        key: Option<&str>,
        (method, path): (&str, &str),
        body: Option<(&str, &Value)>,
    ) -> Outcome {
        let name = self.user.name().to_owned();
        self.play.does(&name, what, key, || outcome(self.send(method, path, body)))
    }
}

/// What an answer tells of whether the write was stored.
pub(crate) fn outcome(answer: Result<Value, kube::Error>) -> Outcome {
    match answer {
        Ok(object) => {
            let revision = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
            Outcome::Stored(revision.unwrap_or_default())
        }
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Outcome::Refused(format!("{} {}", status.code, status.message))
        }
        Err(error) => Outcome::Unsure(error.to_string()),
    }
}
