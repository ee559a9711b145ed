//! Reviews of the definitions (CRDs) of guarded kinds: always allowed, and told to everybody.

use jiff::Timestamp;

use super::notes::Notes;
use super::response;
use super::reviews::{Asked, Reply, Reviews};
use crate::core::definition;
use crate::core::guard::FailurePolicy;
use crate::core::index::Index;
use crate::core::verdict::Reason;

impl Reviews {
    /// Answers a review of a definition; `None` when it is about something else, or when a guard of
    /// the definition itself must judge it.
    pub(super) fn definition(
        &self,
        body: &[u8],
        asked: Asked,
        index: &Index,
        now: Timestamp,
    ) -> Option<Reply> {
        // The entry for definitions is an `Ignore` one.
        if asked.route.failure_policy == FailurePolicy::Fail || !definition::is_one(body) {
            return None;
        }
        let review = definition::read(body, index).ok()??;
        let (mut warnings, mut notes) = (Vec::new(), None);
        match review.alert {
            Some(alert) => {
                let reason = alert.attempt.reason;
                // Any pod can forge one where clients show no certificate.
                if !alert.attempt.dry_run && self.may_alarm() {
                    alert.of_others().for_each(|attempt| self.event(attempt, false));
                    self.count_definition(if reason == Reason::DefinitionDeleted {
                        "deleted"
                    } else {
                        "changed"
                    });
                    tracing::error!(
                        name = %alert.attempt.target.name,
                        reason = reason.as_str(),
                        user = alert.attempt.user.name.chars().take(128).collect::<String>(),
                        "{}",
                        alert.message
                    );
                }
                self.count("warn", reason.as_str(), asked);
                self.note_would_denies(std::slice::from_ref(&alert.attempt), now);
                let noted = notes.insert(Notes::of("warn", reason.as_str()));
                self.tell(alert.attempt, false, &alert.message, &review.uid, now, noted);
                warnings.push(alert.warning);
            }
            None => self.count("allow", "Definition", asked),
        }
        (!review.guarded).then(|| {
            Reply::Review(match &notes {
                Some(notes) => response::allow_noted(&review.uid, &warnings, notes),
                None => response::allow(&review.uid, &warnings),
            })
        })
    }
}
