//! From the bytes of a review to the bytes of its answer, and what is recorded of it.
//!
//! The pure core judges; here its verdict is put into words for the API server and into the trail.
//! Waits on nothing but, on an index miss, one live read of guards, and where a review leaves open what
//! decides, one of that object; both are bounded by the time the API server gives. What cannot be told
//! goes by the failure policy of the entry that called.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use super::guard_reviews::GuardReviews;
use super::guards::Guards;
use super::own_review::OwnAnswer;
use super::response;
use super::route::{Route, Subject};
use crate::api::names;
use crate::control::proof;
use crate::control::would_denies::WouldDenies;
use crate::core::breakglass;
use crate::core::guard::{Enforcement, FailurePolicy, GuardState};
use crate::core::index::Index;
use crate::core::judge::judge_knowing;
use crate::core::registration::{Hook, own};
use crate::core::rewrite::rewrite;
use crate::core::signature::SigningKey;
use crate::core::verdict::{Attempt, Fact, Judgement, Question, Reason, ReviewError, Unguarded, Verdict};
use crate::telemetry::allowance::Allowance;
use crate::telemetry::events::EventSink;
use crate::telemetry::metrics::Metrics;
use crate::trail::record::{Circumstances, Record};
use crate::trail::sink::RecordSink;

/// From this size on a review is judged aside, so that others on the same thread need not wait for
/// the milliseconds that hashing it takes.
const LARGE: usize = 1024 * 1024;
/// Live reads at once: each costs the API server a LIST. Further ones wait within their own time.
const LIVE_READS: usize = 32;
/// The part of the API server's time after which a live read is given up, so that our answer still
/// arrives.
const READ_SHARE: f64 = 0.7;
/// Alarms by reviews that nobody authenticated: at once, and per second after that.
const ALARM_BURST: u32 = 10;
const ALARMS_PER_SECOND: u32 = 1;
/// Longest text of an attempt that is kept, in bytes. A forged review may hold megabytes.
const MAX_TEXT: usize = 512;

/// What a live read that failed is recorded as.
const GUARDS_UNREAD: &str = "GuardsUnread";
/// What a request is counted as that came by no path of ours.
const UNKNOWN_TOKEN: &str = "UnknownToken";
/// What a review that cannot be read is recorded as.
const UNDECODABLE: &str = "Undecodable";

/// Judges reviews.
pub struct Reviews {
    guards: Arc<dyn Guards>,
    replica: String,
    authenticated: bool,
    records: RecordSink,
    events: EventSink,
    metrics: Arc<Metrics>,
    would_denies: Arc<WouldDenies>,
    live_reads: Semaphore,
    alarms: Mutex<Allowance>,
    of_guards: Option<GuardReviews>,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// Where a verdict is told, and as whom.
#[derive(Debug, Clone)]
pub struct Voice {
    /// Name of this replica.
    pub replica: String,
    /// Whether clients proved to be the API server.
    pub authenticated: bool,
    /// Where records go.
    pub records: RecordSink,
    /// Where Events go.
    pub events: EventSink,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where writes are noted that an `Audit` guard would have refused.
    pub would_denies: Arc<WouldDenies>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// An `AdmissionReview` with a response.
    Review(Vec<u8>),
    /// No answer could be given; the failure policy of the entry decides.
    Failed(StatusCode, &'static str),
}

/// One request as it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Through which entry.
    pub route: Route,
    /// When it came in.
    pub since: Instant,
    /// How long the API server waits.
    pub timeout: Duration,
}

impl Asked {
    /// Whether the glass is broken, so that nothing may be refused.
    fn is_broken(&self) -> bool {
        self.route.subject == Subject::BrokenGlass
    }
}

impl Reviews {
    /// Judges by `guards` and tells by `voice`.
    #[must_use]
    pub fn new(guards: Arc<dyn Guards>, voice: Voice) -> Self {
        let Voice { replica, authenticated, records, events, metrics, would_denies } = voice;
        let live_reads = Semaphore::new(LIVE_READS);
        Self {
            guards,
            replica,
            authenticated,
            records,
            events,
            metrics,
            would_denies,
            live_reads,
            alarms: Mutex::new(Allowance::new(ALARM_BURST, ALARMS_PER_SECOND, Instant::now())),
            of_guards: None,
        }
    }

    /// Also answers reviews of guards themselves.
    #[must_use]
    pub fn with_guard_reviews(self, of_guards: GuardReviews) -> Self {
        Self { of_guards: Some(of_guards), ..self }
    }

    /// Whether a request came by a path that we registered. For our own kinds it holds a token that only
    /// readers of the configurations know. Others learn nothing but that there is no such path.
    ///
    /// # Errors
    /// The answer that they get.
    pub(super) async fn knows_path(&self, hook: Hook, token: &str, asked: Asked) -> Result<(), Reply> {
        let Some(resource) = asked.route.subject.own() else { return Ok(()) };
        let Some(of_guards) = &self.of_guards else {
            return Err(Reply::Failed(StatusCode::NOT_FOUND, "no such webhook"));
        };
        let is_token = |key: &SigningKey| own::is_token(key, hook, resource, token);
        match of_guards.holds_key(is_token, asked).await {
            Some(true) => Ok(()),
            Some(false) => {
                self.count("unanswered", UNKNOWN_TOKEN, asked);
                Err(Reply::Failed(StatusCode::NOT_FOUND, ""))
            }
            None => {
                self.count("unanswered", "KeyUnknown", asked);
                Err(Reply::Failed(StatusCode::SERVICE_UNAVAILABLE, "DriftGuard does not know its key yet"))
            }
        }
    }

    /// Answers a review of a guard.
    pub(super) async fn guard(&self, hook: Hook, body: &[u8], asked: Asked) -> Reply {
        let now = Timestamp::now();
        let Some(of_guards) = &self.of_guards else {
            return Reply::Failed(StatusCode::NOT_FOUND, "no such webhook");
        };
        let answer = match hook {
            Hook::Validate => of_guards.validate(body, asked, now).await,
            Hook::Mutate => of_guards.mutate(body, now),
        };
        let Some(answer) = answer else {
            // Only to find the uid, under which a refusal can be given.
            return match judge_aside(body, &Index::default(), now, None) {
                Judged::Unreadable(error) if hook == Hook::Validate => self.undecodable(&error, asked, now),
                Judged::Verdict(judgement) if hook == Hook::Validate => {
                    let message = "it is no review of a DriftGuard".to_owned();
                    self.undecodable(&ReviewError { uid: Some(judgement.uid), message }, asked, now)
                }
                _ => {
                    self.count("unanswered", UNDECODABLE, asked);
                    Reply::Failed(StatusCode::BAD_REQUEST, "this is no admission review of a DriftGuard")
                }
            };
        };
        self.own(answer, asked, now)
    }

    /// Answers a review of an exception. The mutating hook has nothing to say about one.
    pub(super) fn exception(&self, hook: Hook, body: &[u8], asked: Asked) -> Reply {
        let now = Timestamp::now();
        let Some(of_guards) = self.of_guards.as_ref().filter(|_| hook == Hook::Validate) else {
            return Reply::Failed(StatusCode::NOT_FOUND, "no such webhook");
        };
        // What cannot be read is not refused: such an exception pauses nothing.
        let Some(answer) = of_guards.validate_exception(body, now) else {
            self.count("unanswered", UNDECODABLE, asked);
            return Reply::Failed(StatusCode::BAD_REQUEST, "this is no admission review of an exception");
        };
        self.own(answer, asked, now)
    }

    /// Tells what was decided about an object of our own.
    fn own(&self, answer: OwnAnswer, asked: Asked, now: Timestamp) -> Reply {
        self.count(answer.verdict, answer.reason, asked);
        if let Some(told) = answer.told {
            let circumstances = self.circumstances(told.denied, &told.message, &told.review_uid, now);
            self.records.put(&Record::of_own(&told, circumstances));
        }
        Reply::Review(answer.reply)
    }

    /// Answers a review of the gate.
    pub(super) async fn validate(&self, body: &[u8], asked: Asked) -> Reply {
        let now = Timestamp::now();
        if let Some(reply) = self.definition(body, asked, &self.guards.index(), now) {
            return reply;
        }
        // A replica that was cut off may hold what is no longer true: it decides by live reads then. But
        // what is only recorded must not wait for them.
        let is_current = self.guards.is_current();
        let goes_by_index = is_current || asked.is_broken();
        let index = if goes_by_index { self.guards.index() } else { Arc::default() };
        let judgement = match judge_aside(body, &index, now, None) {
            Judged::Verdict(judgement) => judgement,
            other => return self.unjudged(other, asked, now),
        };
        let Verdict::NotGuarded(object) = &judgement.verdict else {
            return self.settle(judgement, body, &index, asked, now).await;
        };
        let read = if is_current || !asked.is_broken() {
            self.read_guards(object, asked).await
        } else {
            Read::Failed
        };
        match read {
            Read::Nothing => self.answer(judgement, asked, now),
            Read::Failed => self.unread(&judgement, object, body, asked, now),
            Read::Found(index) => match judge_aside(body, &index, now, None) {
                Judged::Verdict(judgement) => self.settle(judgement, body, &index, asked, now).await,
                other => self.unjudged(other, asked, now),
            },
        }
    }

    /// Answers, after one live read where the judgement is a question.
    async fn settle(
        &self,
        judgement: Judgement,
        body: &[u8],
        index: &Index,
        asked: Asked,
        now: Timestamp,
    ) -> Reply {
        let Verdict::Ask(question) = &judgement.verdict else { return self.answer(judgement, asked, now) };
        let object = if asked.is_broken() && !self.guards.is_current() {
            // A replica that is cut off would only make everybody wait.
            Err(Unread)
        } else {
            self.read_object(question, asked).await
        };
        let fact = match &object {
            Ok(Some(text)) => Fact::Object(text),
            Ok(None) => Fact::Absent,
            Err(Unread) => Fact::Unread(asked.route.failure_policy),
        };
        match judge_aside(body, index, now, Some(fact)) {
            Judged::Verdict(judgement) => self.answer(judgement, asked, now),
            other => self.unjudged(other, asked, now),
        }
    }

    /// Answers a review of the mutating hook. It never refuses and never records, since what it
    /// sees is not final; what it cannot tell passes as it came, and the gate decides.
    pub(super) fn mutate(&self, body: &[u8], asked: Asked) -> Reply {
        // By what is no longer true, content that was approved since would be put back; and while the glass
        // is broken nothing is.
        let index =
            if self.guards.is_current() && !asked.is_broken() { self.guards.index() } else { Arc::default() };
        let mutation = aside(body, || rewrite(body, &index, Timestamp::now()));
        let (uid, patch) = match mutation {
            Some(Ok(mutation)) => (Some(mutation.uid), mutation.patch),
            Some(Err(error)) => (error.uid, None),
            None => (None, None),
        };
        match (uid, patch) {
            (Some(uid), Some(patch)) => {
                self.count("rewrite", "HashMismatch", asked);
                Reply::Review(response::allow_with_patch(&uid, &[patch.warning], &patch.operations))
            }
            (Some(uid), None) => {
                self.count("allow", "Mutate", asked);
                Reply::Review(response::allow(&uid, &[]))
            }
            (None, _) => {
                self.count("unanswered", UNDECODABLE, asked);
                Reply::Failed(StatusCode::BAD_REQUEST, "this is no admission review")
            }
        }
    }

    /// Answers a review that is too large to be read, of which only the beginning is there.
    pub(super) fn too_large(&self, head: &[u8], message: &str, asked: Asked) -> Reply {
        let now = Timestamp::now();
        let error = match judge_aside(head, &Index::default(), now, None) {
            Judged::Unreadable(error) => error,
            // What is cut off is never whole, but for a forged one with a tail of spaces.
            Judged::Verdict(judgement) => ReviewError { uid: Some(judgement.uid), message: String::new() },
            Judged::Panicked => ReviewError { uid: None, message: String::new() },
        };
        match error.uid {
            Some(_) => self.undecodable(&ReviewError { message: message.to_owned(), ..error }, asked, now),
            None => {
                self.count("unanswered", "TooLarge", asked);
                Reply::Failed(StatusCode::PAYLOAD_TOO_LARGE, "the admission review is too large")
            }
        }
    }

    /// Counts a request that got no answer.
    pub(super) fn unanswered(&self, reason: &'static str, asked: Asked) {
        self.count("unanswered", reason, asked);
    }

    /// Whether something may be logged as an error and counted as one: always when clients are known, else
    /// at a bounded rate.
    pub(super) fn may_alarm(&self) -> bool {
        self.authenticated || self.alarms.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    /// Counts a write to the definition of a guarded kind.
    pub(super) fn count_definition(&self, result: &'static str) {
        self.metrics.definition_change(result);
    }

    pub(super) fn count(&self, verdict: &'static str, reason: &'static str, asked: Asked) {
        self.metrics.review(verdict, reason, asked.since.elapsed());
    }

    fn answer(&self, judgement: Judgement, asked: Asked, now: Timestamp) -> Reply {
        let Judgement { uid, verdict, proof } = judgement;
        let verdict = if asked.is_broken() { breakglass::pass(verdict) } else { verdict };
        let mut warnings: Vec<String> = proof
            .map(|nonce| proof::warning(&nonce, &self.replica, asked.route.generation))
            .into_iter()
            .collect();
        let told = |denied: bool, message: &str, attempt: Attempt| {
            self.tell(attempt, denied, message, &uid, now);
        };
        match verdict {
            Verdict::Allow => self.count("allow", "Approved", asked),
            Verdict::NotGuarded(_) => self.count("allow", "NotGuarded", asked),
            // The question was answered; were it not, what is not known must not pass for approved.
            Verdict::Ask(_) => {
                self.count("unanswered", "Unsettled", asked);
                return Reply::Failed(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "DriftGuard failed: a bug, see its log",
                );
            }
            Verdict::AllowWith { warnings: words, attempts } => {
                let reason = attempts.first().map_or("Approved", |attempt| attempt.reason.as_str());
                self.count(if words.is_empty() { "audit" } else { "warn" }, reason, asked);
                self.note_would_denies(&attempts, now);
                for attempt in attempts {
                    told(false, words.first().map_or("", String::as_str), attempt);
                }
                warnings.extend(words);
            }
            Verdict::Deny { message, attempt } => {
                self.count("deny", attempt.reason.as_str(), asked);
                self.note_would_denies(std::slice::from_ref(&*attempt), now);
                told(true, &message, *attempt);
                return Reply::Review(response::deny(&uid, &message, &warnings));
            }
        }
        Reply::Review(response::allow(&uid, &warnings))
    }

    /// Records an attempt and makes an Event of it; a dry run is neither.
    pub(super) fn tell(&self, mut attempt: Attempt, denied: bool, message: &str, uid: &str, now: Timestamp) {
        if attempt.dry_run {
            return;
        }
        bound(&mut attempt);
        self.events.offer(&attempt, denied);
        self.records.put(&Record::of(&attempt, self.circumstances(denied, message, uid, now)));
    }

    /// Makes an Event of an attempt that is recorded once for several guards.
    pub(super) fn event(&self, mut attempt: Attempt, denied: bool) {
        bound(&mut attempt);
        self.events.offer(&attempt, denied);
    }

    /// Notes what keeps `Audit` guards of a target from being promoted. Of all of them, since a refusal
    /// names but one; a dry run is no attempt.
    pub(super) fn note_would_denies(&self, attempts: &[Attempt], now: Timestamp) {
        let would_deny = |attempt: &&Attempt| {
            !attempt.dry_run && !matches!(attempt.reason, Reason::AlreadyDrifted | Reason::TargetDeleted)
        };
        let Some(first) = attempts.iter().find(would_deny) else { return };
        for attempt in attempts.iter().filter(would_deny) {
            if attempt.enforcement == Some(Enforcement::Audit) {
                self.would_denies.note(&attempt.guard_uid, now);
            }
        }
        for state in self.guards.index().guards_of(&first.target) {
            if let GuardState::Valid(guard) = state
                && guard.enforcement == Enforcement::Audit
            {
                self.would_denies.note(&guard.uid, now);
            }
        }
    }

    fn circumstances<'a>(
        &'a self,
        denied: bool,
        message: &'a str,
        review_uid: &'a str,
        time: Timestamp,
    ) -> Circumstances<'a> {
        Circumstances {
            transaction_id: uuid::Uuid::now_v7().to_string(),
            time,
            denied,
            review_uid,
            replica: &self.replica,
            authenticated: self.authenticated,
            message,
        }
    }

    fn unjudged(&self, judged: Judged, asked: Asked, now: Timestamp) -> Reply {
        match judged {
            Judged::Unreadable(error) => self.undecodable(&error, asked, now),
            Judged::Panicked | Judged::Verdict(_) => {
                self.count("unanswered", "Panic", asked);
                Reply::Failed(StatusCode::INTERNAL_SERVER_ERROR, "DriftGuard failed: a bug, see its log")
            }
        }
    }

    fn undecodable(&self, error: &ReviewError, asked: Asked, now: Timestamp) -> Reply {
        let Some(uid) = &error.uid else {
            self.count("unanswered", UNDECODABLE, asked);
            return Reply::Failed(StatusCode::BAD_REQUEST, "this is no admission review");
        };
        let denied = !asked.is_broken();
        self.count(if denied { "deny" } else { "warn" }, UNDECODABLE, asked);
        let message = if denied {
            format!("DriftGuard refuses a write that it cannot read: {}", error.message)
        } else {
            format!(
                "DriftGuard cannot read this write, which passes since the glass is broken: {}",
                error.message
            )
        };
        let circumstances = self.circumstances(denied, &message, uid, now);
        self.records.put(&Record::unjudged(UNDECODABLE, None, circumstances));
        Reply::Review(if denied {
            response::deny(uid, &message, &[])
        } else {
            response::allow(uid, &[message])
        })
    }

    /// One live read, unless guards cannot exist for this object.
    async fn read_guards(&self, object: &Unguarded, asked: Asked) -> Read {
        // Guards themselves are never targets.
        if object.group == names::GROUP && object.resource == names::DRIFTGUARDS {
            return Read::Nothing;
        }
        let left = left(asked);
        let reading = async {
            // The semaphore is never closed; without a permit the read would only be unbounded.
            let _permit = self.live_reads.acquire().await;
            self.guards.read(object).await
        };
        match tokio::time::timeout(left, reading).await {
            Ok(Ok(index)) if index.guards().is_empty() => {
                self.metrics.live_read("none");
                Read::Nothing
            }
            Ok(Ok(index)) => {
                self.metrics.live_read("found");
                Read::Found(index)
            }
            Ok(Err(error)) => {
                self.metrics.live_read("failed");
                tracing::warn!(%error, "cannot read the guards of an object under review");
                Read::Failed
            }
            Err(_) => {
                self.metrics.live_read("failed");
                tracing::warn!("the guards of an object under review could not be read in time");
                Read::Failed
            }
        }
    }

    /// One live read of what a review leaves open.
    async fn read_object(&self, question: &Question, asked: Asked) -> Result<Option<Vec<u8>>, Unread> {
        let reading = async {
            // As for guards.
            let _permit = self.live_reads.acquire().await;
            self.guards.read_object(question).await
        };
        match tokio::time::timeout(left(asked), reading).await {
            Ok(Ok(object)) => {
                self.metrics.object_read(if object.is_some() { "found" } else { "none" });
                Ok(object)
            }
            Ok(Err(error)) => {
                self.metrics.object_read("failed");
                tracing::warn!(%error, "cannot read what a review leaves open");
                Err(Unread)
            }
            Err(_) => {
                self.metrics.object_read("failed");
                tracing::warn!("what a review leaves open could not be read in time");
                Err(Unread)
            }
        }
    }

    /// The guards of an object are not known: refuse where the failure policy says so.
    fn unread(
        &self,
        judgement: &Judgement,
        object: &Unguarded,
        body: &[u8],
        asked: Asked,
        now: Timestamp,
    ) -> Reply {
        let denied = asked.route.failure_policy == FailurePolicy::Fail;
        self.count(if denied { "deny" } else { "warn" }, GUARDS_UNREAD, asked);
        let message = if denied {
            "DriftGuard cannot tell whether this object is guarded, since its guards could not be read \
             in time; try again"
        } else {
            "DriftGuard could not read its guards in time, so this write passed unchecked"
        };
        if !is_dry_run(body) {
            let circumstances = self.circumstances(denied, message, &judgement.uid, now);
            self.records.put(&Record::unjudged(GUARDS_UNREAD, Some(object), circumstances));
        }
        if denied {
            Reply::Review(response::deny(&judgement.uid, message, &[]))
        } else {
            Reply::Review(response::allow(&judgement.uid, &[message.to_owned()]))
        }
    }
}

/// How long a live read may still take.
fn left(asked: Asked) -> Duration {
    asked.timeout.mul_f64(READ_SHARE).saturating_sub(asked.since.elapsed())
}

/// An object could not be read.
struct Unread;

/// What a live read came to.
enum Read {
    /// Nothing guards the object.
    Nothing,
    /// These guards do.
    Found(Index),
    /// It is not known.
    Failed,
}

/// What judging came to.
enum Judged {
    Verdict(Judgement),
    Unreadable(ReviewError),
    Panicked,
}

/// Judges, without letting a panic through, and without holding up other requests for long.
fn judge_aside(body: &[u8], index: &Index, now: Timestamp, fact: Option<Fact<'_>>) -> Judged {
    match aside(body, || judge_knowing(body, index, now, fact)) {
        Some(Ok(judgement)) => Judged::Verdict(judgement),
        Some(Err(error)) => Judged::Unreadable(error),
        None => Judged::Panicked,
    }
}

/// Does what may take long for a large body; `None` when it panicked.
fn aside<T>(body: &[u8], work: impl FnOnce() -> T) -> Option<T> {
    let work = || catch_unwind(AssertUnwindSafe(work)).ok();
    let can_step_aside =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if body.len() >= LARGE && can_step_aside { tokio::task::block_in_place(work) } else { work() }
}

/// Whether the review says that nothing is to be stored. Only for reviews that no guard judged.
fn is_dry_run(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request {
        #[serde(default)]
        dry_run: bool,
    }
    #[derive(serde::Deserialize)]
    struct Review {
        request: Request,
    }
    serde_json::from_slice::<Review>(body).is_ok_and(|review| review.request.dry_run)
}

/// Cuts what a forged review could make large; names of guard and target are from the guard.
fn bound(attempt: &mut Attempt) {
    let user = &mut attempt.user;
    let texts = [
        &mut user.name,
        &mut user.uid,
        &mut attempt.field_manager,
        &mut attempt.sub_resource,
        &mut attempt.target_uid,
    ];
    for text in texts.into_iter().chain(&mut user.groups).chain(&mut attempt.paths) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
#[path = "reviews_tests.rs"]
mod tests;
