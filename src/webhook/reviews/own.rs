//! Reviews of our own kinds: whether they came by a path of ours, and what is told of them.

use http::StatusCode;
use jiff::Timestamp;

use super::judging::{Judged, judge_aside};
use super::telling::UNDECODABLE;
use super::{Asked, Reply, Reviews};
use crate::core::index::Index;
use crate::core::registration::{Hook, own};
use crate::core::signature::SigningKey;
use crate::core::verdict::ReviewError;
use crate::trail::record::{Circumstances, Record};
use crate::webhook::own_review::OwnAnswer;

/// What a request is counted as that came by no path of ours.
const UNKNOWN_TOKEN: &str = "UnknownToken";

impl Reviews {
    /// Whether a request came by a path that we registered. For our own kinds it holds a token that only
    /// readers of the configurations know. Others learn nothing but that there is no such path.
    ///
    /// # Errors
    /// The answer that they get.
    pub(in crate::webhook) async fn knows_path(
        &self,
        hook: Hook,
        token: &str,
        asked: Asked,
    ) -> Result<(), Reply> {
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
    pub(in crate::webhook) async fn guard(&self, hook: Hook, body: &[u8], asked: Asked) -> Reply {
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
    pub(in crate::webhook) fn exception(&self, hook: Hook, body: &[u8], asked: Asked) -> Reply {
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
            let circumstances = Circumstances {
                transaction_id: answer.transaction_id,
                ..self.circumstances(told.denied, &told.message, &told.review_uid, now)
            };
            self.records.put(&Record::of_own(&told, circumstances));
        }
        Reply::Review(answer.reply)
    }
}
