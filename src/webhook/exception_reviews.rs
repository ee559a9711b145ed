//! Reviews of exceptions: whether one says what it may, and who made or ended it.
//!
//! Nothing depends on this review having happened: what cannot be read pauses nothing, and the end of an
//! exception is computed at every use ([`exceptions::check`] only says beforehand what would be cut short).
//! It waits on nothing. Deleting one is never refused, since that closes the gate.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::guard_reviews::GuardReviews;
use super::own_review::{OwnAnswer, Request, Review};
use crate::api::names;
use crate::core::exceptions::{self, Terms};
use crate::core::guard::GuardId;
use crate::core::guard_spec::Refusal;
use crate::core::verdict::Operation;
use crate::store::Stored;
use crate::trail::record::{OwnAttempt, OwnKind};

/// A review that was read.
struct Asking<'a> {
    request: Request<'a>,
    operation: Operation,
    new: Option<Stored>,
    old: Option<Stored>,
}

impl<'a> Asking<'a> {
    /// `None` when this is no review of an exception.
    fn read(body: &'a [u8]) -> Option<Self> {
        let Review { request } = serde_json::from_slice(body).ok()?;
        let ours = request.resource.group == names::GROUP && request.resource.resource == names::EXCEPTIONS;
        let operation = [Operation::Create, Operation::Update, Operation::Delete]
            .into_iter()
            .find(|operation| operation.as_str() == request.operation)?;
        let stored = |object: Option<&RawValue>| match object {
            None => Some(None),
            Some(raw) => serde_json::from_str(raw.get()).ok().map(Some),
        };
        let (new, old): (Option<Stored>, Option<Stored>) =
            (stored(request.object)?, stored(request.old_object)?);
        let whole = match operation {
            Operation::Create => new.is_some(),
            Operation::Update => new.is_some() && old.is_some(),
            _ => old.is_some(),
        };
        (ours && whole && !request.uid.is_empty()).then_some(Self { request, operation, new, old })
    }

    fn subject(&self) -> Option<&Stored> {
        self.new.as_ref().or(self.old.as_ref())
    }

    fn id(&self) -> GuardId {
        let (namespace, name) = self.subject().map_or(("", ""), |stored| (stored.namespace(), stored.name()));
        let namespace = if namespace.is_empty() { self.request.namespace.as_str() } else { namespace };
        GuardId { namespace: namespace.into(), name: name.into() }
    }

    /// What is recorded of it; nothing of a dry run.
    fn told(&self, refusal: Option<&Refusal>, done: &'static str) -> Option<OwnAttempt> {
        let terms = self.subject().and_then(|stored| Terms::parse(&stored.spec()).ok());
        let kind = OwnKind::Exception {
            until: terms.as_ref().map(|terms| terms.until),
            why: terms.map(|terms| terms.reason).unwrap_or_default(),
        };
        let uid = self.subject().map(|stored| stored.uid().as_str().to_owned()).unwrap_or_default();
        self.request.told(self.operation, (self.id(), uid), kind, refusal, done)
    }
}

impl GuardReviews {
    /// Answers the gate. `None` when this is no review of an exception.
    pub(super) fn validate_exception(&self, body: &[u8], now: Timestamp) -> Option<OwnAnswer> {
        let asking = Asking::read(body)?;
        let (done, result) = match (asking.operation, &asking.new) {
            (Operation::Create, Some(new)) => ("ExceptionCreated", self.made(&asking.id(), new, now)),
            (Operation::Update, Some(new)) => {
                if asking.old.as_ref().is_some_and(|old| is_same_spec(old, new)) {
                    return Some(OwnAnswer::allowed(&asking.request.uid, "Approved", &[], None));
                }
                ("ExceptionChanged", Err(exceptions::changed(&asking.id())))
            }
            _ => ("ExceptionDeleted", Ok(Vec::new())),
        };
        let told = asking.told(result.as_ref().err(), done);
        let uid = &asking.request.uid;
        Some(match result {
            Ok(warnings) => OwnAnswer::allowed(uid, done, &warnings, told),
            Err(refusal) => OwnAnswer::refused(uid, &refusal, told),
        })
    }

    /// What its maker should know.
    fn made(&self, id: &GuardId, new: &Stored, now: Timestamp) -> Result<Vec<String>, Refusal> {
        let terms = exceptions::check(&new.spec(), now, self.longest_pause)
            .map_err(|why| exceptions::invalid(id, &why))?;
        if !self.store.is_synced() {
            return Ok(Vec::new());
        }
        let guards = self.store.observations().borrow().clone();
        let meant: Vec<&str> =
            guards.meant_by(&id.namespace, &terms).map(|seen| seen.stored.name()).collect();
        let known = |name: &str| meant.contains(&name);
        Ok(exceptions::missing(&id.namespace, &terms, known, !meant.is_empty()).into_iter().collect())
    }
}

/// Whether two specs say the same, however they are written.
fn is_same_spec(old: &Stored, new: &Stored) -> bool {
    let parsed = |stored: &Stored| serde_json::from_str::<serde_json::Value>(&stored.spec()).ok();
    old.spec() == new.spec() || parsed(old).is_some_and(|old| Some(old) == parsed(new))
}

#[cfg(test)]
#[path = "exception_reviews_tests.rs"]
mod tests;
