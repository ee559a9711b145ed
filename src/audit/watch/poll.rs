//! Reading guarded objects without a watch, while the API server cannot decode some object of their kind.
//!
//! Such an object breaks every watch of the kind in the whole cluster, and every list that it is part of.
//! All others can still be read by name, so that one object frees no other of its guard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::audit::sight::Look;
use crate::core::guard::Guard;

use super::known::Source;
use super::list::List;
use super::pace::jittered;
use super::plan::Place;
use super::request::Failure;
use super::shared::{Obstacle, Shared};
use super::status::{Mode, Status};

/// Longest pause between two reads of one round.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// Pause after the API server did not answer.
const RETRY: Duration = Duration::from_secs(10);

/// Reads the guarded objects of a place each audit interval, until its watch is live.
pub(super) async fn poll(shared: Arc<Shared>, place: Place, status: Arc<Status>) {
    let interval = shared.settings.audit_interval;
    let mut step = Duration::ZERO;
    loop {
        let began = Instant::now();
        let done = round(&shared, &place, &status, step).await;
        if status.mode() != Mode::Polled {
            return;
        }
        let pause = match done {
            Ok(guards) => {
                // The first round is for what nobody has seen yet; later ones have time.
                step = (interval / 2 / guards.max(1)).min(LONGEST_STEP);
                jittered(interval, 0.1).saturating_sub(began.elapsed())
            }
            Err(failure) => {
                tracing::debug!(%place, %failure, "guarded objects cannot be read by name; trying again");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reads each object once. Gives how many there are.
async fn round(shared: &Shared, place: &Place, status: &Status, step: Duration) -> Result<u32, Failure> {
    // Where the broken object is elsewhere, a list costs least.
    if place.name.is_none() && List::begin(shared, place, Look::Live).take(shared, place).await.is_ok() {
        return Ok(1);
    }
    let guards = shared.known().guards_at(place);
    let mut read = 0;
    for guard in &guards {
        if status.mode() != Mode::Polled {
            break;
        }
        look(shared, place, guard).await?;
        read += 1;
        tokio::time::sleep(step).await;
    }
    Ok(read)
}

async fn look(shared: &Shared, place: &Place, guard: &Arc<Guard>) -> Result<(), Failure> {
    let Err(failure) = shared.look(guard, Look::Live, false).await else { return Ok(()) };
    // Only what fails while others can be read is unreadable itself.
    if failure.code != 500 || !shared.can_read(place).await {
        return Err(failure);
    }
    let since = shared.known().revision(guard);
    if shared.look(guard, Look::Live, false).await.is_err_and(|failure| failure.code == 500) {
        let source = Source { look: Look::Live, list: None, since, missed: false };
        shared.tell_unreadable(guard, Obstacle::Undecodable, source).await;
    }
    Ok(())
}
