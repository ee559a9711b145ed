//! Live reads, where neither the index nor the review says enough: few at once, and within the time that
//! the API server gives.

use std::time::Duration;

use super::{Asked, Reviews};
use crate::api::names;
use crate::core::index::Index;
use crate::core::verdict::{Question, Unguarded};

/// The part of the API server's time after which a live read is given up, so that our answer still
/// arrives.
const READ_SHARE: f64 = 0.7;

impl Reviews {
    /// One live read, unless guards cannot exist for this object.
    pub(super) async fn read_guards(&self, object: &Unguarded, asked: Asked) -> Read {
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
    pub(super) async fn read_object(
        &self,
        question: &Question,
        asked: Asked,
    ) -> Result<Option<Vec<u8>>, Unread> {
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
}

/// How long a live read may still take.
pub(super) fn left(asked: Asked) -> Duration {
    asked.timeout.mul_f64(READ_SHARE).saturating_sub(asked.since.elapsed())
}

/// An object could not be read.
pub(super) struct Unread;

/// What a live read came to.
pub(super) enum Read {
    /// Nothing guards the object.
    Nothing,
    /// These guards do.
    Found(Index),
    /// It is not known.
    Failed,
}
