//! Calls of the pure core, such that neither a panic nor a large body holds up other requests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::core::index::Index;
use crate::core::judge::judge_knowing;
use crate::core::verdict::{Fact, Judgement, ReviewError};

/// From this size on a review is judged aside, so that others on the same thread need not wait for
/// the milliseconds that hashing it takes.
const LARGE: usize = 1024 * 1024;

/// What judging came to.
pub(super) enum Judged {
    Verdict(Judgement),
    Unreadable(ReviewError),
    Panicked,
}

/// Judges, without letting a panic through, and without holding up other requests for long.
pub(super) fn judge_aside(body: &[u8], index: &Index, now: Timestamp, fact: Option<Fact<'_>>) -> Judged {
    match aside(body, || judge_knowing(body, index, now, fact)) {
        Some(Ok(judgement)) => Judged::Verdict(judgement),
        Some(Err(error)) => Judged::Unreadable(error),
        None => Judged::Panicked,
    }
}

/// Does what may take long for a large body; `None` when it panicked.
pub(super) fn aside<T>(body: &[u8], work: impl FnOnce() -> T) -> Option<T> {
    let work = || catch_unwind(AssertUnwindSafe(work)).ok();
    let can_step_aside =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if body.len() >= LARGE && can_step_aside { tokio::task::block_in_place(work) } else { work() }
}

/// Whether the review says that nothing is to be stored. Only for reviews that no guard judged.
pub(super) fn is_dry_run(body: &[u8]) -> bool {
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
