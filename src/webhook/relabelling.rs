//! Labels of a guard that bring it under an exception.
//!
//! An exception may mean guards by their labels, and whoever may change guards may label them. So a change
//! of labels that does this takes the right that making an exception takes, and is recorded. Nobody waits
//! for this review while nothing answers (the entry is `Ignore`): the pause is then told alone, as any is.

use jiff::Timestamp;
use tokio::time::Instant;

use super::guard_reviews::{GuardReviews, middle};
use crate::api::names;
use crate::control::access::{self, Subject};
use crate::core::author_access::Access;
use crate::core::exceptions::{self, Exception};
use crate::core::guard::GuardId;
use crate::core::guard_spec::{self, Refusal};
use crate::store::Stored;

impl GuardReviews {
    /// What to say of labels that bring a guard under exceptions; `None` when they do not.
    ///
    /// # Errors
    /// The refusal when `subject` may not make exceptions, or when that cannot be told in time.
    pub(super) async fn relabelled(
        &self,
        id: &GuardId,
        (old, new): (&Stored, &Stored),
        subject: &Subject,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Option<String>, Refusal> {
        let known = self.store.known_exceptions();
        let reached: Vec<&Exception> = known.reached_by_labels(old, new, now, self.longest_pause).collect();
        let Some(longest) = reached.iter().max_by_key(|one| one.end(self.longest_pause)) else {
            return Ok(None);
        };
        let Ok(Ok(_permit)) = tokio::time::timeout_at(deadline, self.room.0.acquire()).await else {
            return Err(guard_spec::rights_unknown(id));
        };
        let create = Access {
            group: names::GROUP.to_owned(),
            resource: names::EXCEPTIONS.to_owned(),
            subresource: String::new(),
            namespace: id.namespace.as_str().to_owned(),
            name: String::new(),
            verb: "create",
        };
        let needed = [create];
        // What comes next needs time, too.
        let asked = access::missing(&self.client, subject, &needed);
        match tokio::time::timeout_at(middle(deadline), asked).await {
            Ok(Ok(missing)) if missing.is_empty() => {
                Ok(Some(exceptions::reached(id, &longest.name, longest.end(self.longest_pause))))
            }
            Ok(Ok(_)) => Err(exceptions::reached_without_right(id, &longest.name, &subject.user, &needed[0])),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the right to make exceptions could not be checked");
                Err(guard_spec::rights_unknown(id))
            }
            Err(_) => Err(guard_spec::rights_unknown(id)),
        }
    }
}
