//! From the bytes of a review to the bytes of its answer, and what is recorded of it.
//!
//! The pure core judges ([`judging`]); its verdict is put into words for the API server and into the trail
//! ([`telling`]). Reviews of our own kinds go another way ([`own`]). Waits on nothing but, on an index miss,
//! one live read of guards, where a review leaves open what decides, one of that object ([`live`]), and where
//! guards do not approve a write, one look at them ([`looks`]); all are bounded by the time the API server
//! gives. What cannot be told goes by the failure policy of the entry that called, or by what is known.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::guard_reviews::GuardReviews;
use super::guards::Guards;
use super::notes::Notes;
use super::response;
use super::route::{Route, Subject};
use crate::audit::observed::Observed;
use crate::control::would_denies::WouldDenies;
use crate::core::index::Index;
use crate::core::rewrite::{Mutation, rewrite};
use crate::core::standing::{Standing, in_question, stays};
use crate::core::verdict::{Fact, Judgement, Question, ReviewError, Verdict};
use crate::telemetry::allowance::Allowance;
use crate::telemetry::events::EventSink;
use crate::telemetry::metrics::Metrics;
use crate::trail::sink::RecordSink;

mod judging;
mod live;
mod looks;
mod own;
mod telling;

use judging::{Judged, aside, judge_aside};
use live::{Read, Unread};
use looks::Looks;
use telling::UNDECODABLE;

/// Live reads at once: each costs the API server a LIST. Further ones wait within their own time.
const LIVE_READS: usize = 32;
/// Alarms by reviews that nobody authenticated: at once, and per second after that.
const ALARM_BURST: u32 = 10;
const ALARMS_PER_SECOND: u32 = 1;

/// Judges reviews.
pub struct Reviews {
    guards: Arc<dyn Guards>,
    replica: String,
    authenticated: bool,
    records: RecordSink,
    events: EventSink,
    metrics: Arc<Metrics>,
    would_denies: Arc<WouldDenies>,
    observed: Arc<Observed>,
    live_reads: Semaphore,
    looks: Arc<Looks>,
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
    /// Where attempts are noted by which drift is recognised later.
    pub observed: Arc<Observed>,
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

/// What is judged.
#[derive(Clone, Copy)]
struct Review<'a> {
    body: &'a [u8],
    asked: Asked,
    now: Timestamp,
}

/// What a review left open, and what was read of it: once, so that a second verdict knows what the first did.
struct Settled {
    question: Question,
    object: Result<Option<Vec<u8>>, Unread>,
}

/// The later of two judgements, but for one that passes only since something could not be read.
fn latest(known: Option<Judgement>, now: Judgement) -> Judgement {
    match known {
        Some(known) if stays(&known.verdict, &now.verdict) => known,
        _ => now,
    }
}

impl Reviews {
    /// Judges by `guards` and tells by `voice`.
    #[must_use]
    pub fn new(guards: Arc<dyn Guards>, voice: Voice) -> Self {
        let Voice { replica, authenticated, records, events, metrics, would_denies, observed } = voice;
        let live_reads = Semaphore::new(LIVE_READS);
        let looks = Looks::new(Arc::clone(&guards), Arc::clone(&metrics));
        Self {
            guards,
            replica,
            authenticated,
            records,
            events,
            metrics,
            would_denies,
            observed,
            live_reads,
            looks,
            alarms: Mutex::new(Allowance::new(ALARM_BURST, ALARMS_PER_SECOND, Instant::now())),
            of_guards: None,
        }
    }

    /// Also answers reviews of guards themselves.
    #[must_use]
    pub fn with_guard_reviews(self, of_guards: GuardReviews) -> Self {
        Self { of_guards: Some(of_guards), ..self }
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
        let mut settled = None;
        let review = Review { body, asked, now };
        // While the glass is broken nothing is refused, so that nothing need wait.
        let judged = match self.judge(review, &index, &mut settled).await {
            Ok(judgement) if is_current && !asked.is_broken() => {
                self.look_again(judgement, review, &index, &mut settled).await
            }
            Ok(judgement) => Ok((judgement, None)),
            Err(reply) => Err(reply),
        };
        let (judgement, known) = match judged {
            Ok(judged) => judged,
            Err(reply) => return reply,
        };
        let Verdict::NotGuarded(object) = &judgement.verdict else {
            return self.answer(judgement, asked, now);
        };
        let read = if is_current || !asked.is_broken() {
            self.read_guards(object, asked).await
        } else {
            Read::Failed
        };
        match read {
            Read::Nothing => self.answer(judgement, asked, now),
            Read::Failed => match known {
                Some(known) => self.answer(known, asked, now),
                None => self.unread(&judgement, object, body, asked, now),
            },
            Read::Found(index) => match self.judge(review, &index, &mut settled).await {
                Ok(judgement) => self.answer(latest(known, judgement), asked, now),
                Err(reply) => reply,
            },
        }
    }

    /// Judges, after one live read where the judgement is a question that is not settled yet.
    ///
    /// # Errors
    /// The answer, where it cannot be judged.
    async fn judge(
        &self,
        Review { body, asked, now }: Review<'_>,
        index: &Index,
        settled: &mut Option<Settled>,
    ) -> Result<Judgement, Reply> {
        let judged = |fact| match judge_aside(body, index, now, fact) {
            Judged::Verdict(judgement) => Ok(judgement),
            other => Err(self.unjudged(other, asked, now)),
        };
        let judgement = judged(None)?;
        let Verdict::Ask(question) = &judgement.verdict else { return Ok(judgement) };
        let settled = match settled.take() {
            Some(before) if before.question == *question => settled.insert(before),
            _ => {
                let object = if asked.is_broken() && !self.guards.is_current() {
                    // A replica that is cut off would only make everybody wait.
                    Err(Unread)
                } else {
                    self.read_object(question, asked).await
                };
                settled.insert(Settled { question: question.clone(), object })
            }
        };
        judged(Some(match &settled.object {
            Ok(Some(text)) => Fact::Object(text),
            Ok(None) => Fact::Absent,
            Err(Unread) => Fact::Unread(asked.route.failure_policy),
        }))
    }

    /// Judges once more where guards that were stored since `index` may say otherwise. Where only all guards
    /// of the object tell, nothing guards it as far as is known, and what decides when they cannot be read is
    /// given as well: the verdict before.
    async fn look_again(
        &self,
        known: Judgement,
        review: Review<'_>,
        index: &Index,
        settled: &mut Option<Settled>,
    ) -> Result<(Judgement, Option<Judgement>), Reply> {
        let Some(target) = in_question(&known.verdict) else { return Ok((known, None)) };
        match self.standing(target, index, review.asked).await {
            Standing::Same | Standing::Unknown => Ok((known, None)),
            Standing::Changed(index) => {
                let judgement = self.judge(review, &index, settled).await?;
                Ok((latest(Some(known), judgement), None))
            }
            Standing::Fewer(index) => {
                let judgement = self.judge(review, &index, settled).await?;
                if matches!(judgement.verdict, Verdict::Deny { .. }) {
                    return Ok((judgement, None));
                }
                // Others may have come that refuse.
                Ok((self.judge(review, &Index::default(), settled).await?, Some(known)))
            }
        }
    }

    /// Answers a review of the mutating hook. It never refuses and never records, since what it
    /// sees is not final; what it cannot tell passes as it came, and the gate decides.
    pub(super) async fn mutate(&self, body: &[u8], asked: Asked) -> Reply {
        // By what is no longer true, content that was approved since would be put back; and while the glass
        // is broken nothing is.
        let index =
            if self.guards.is_current() && !asked.is_broken() { self.guards.index() } else { Arc::default() };
        let now = Timestamp::now();
        let mutation = match aside(body, || rewrite(body, &index, now)) {
            Some(Ok(mutation)) => self.confirmed(mutation, body, &index, asked, now).await,
            other => other,
        };
        let (uid, patch) = match mutation {
            Some(Ok(mutation)) => (Some(mutation.uid), mutation.patch),
            Some(Err(error)) => (error.uid, None),
            None => (None, None),
        };
        match (uid, patch) {
            (Some(uid), Some(patch)) => {
                self.count("rewrite", "HashMismatch", asked);
                Reply::Review(response::allow_with_patch(
                    &uid,
                    &[patch.warning],
                    &patch.operations,
                    Some(&Notes::of("rewrite", "HashMismatch")),
                ))
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

    /// What is put back as the guards stand at this moment: content may be approved that was not when they
    /// were indexed. Nothing where that cannot be told.
    async fn confirmed(
        &self,
        mutation: Mutation,
        body: &[u8],
        index: &Index,
        asked: Asked,
        now: Timestamp,
    ) -> Option<Result<Mutation, ReviewError>> {
        let Some(patch) = &mutation.patch else { return Some(Ok(mutation)) };
        match self.standing(&patch.target, index, asked).await {
            Standing::Same => Some(Ok(mutation)),
            // Another guard may have come in place of one that is gone: the gate asks.
            Standing::Unknown | Standing::Fewer(_) => Some(Ok(Mutation { patch: None, ..mutation })),
            Standing::Changed(index) => aside(body, || rewrite(body, &index, now)),
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
}

#[cfg(test)]
#[path = "reviews_tests.rs"]
mod tests;
