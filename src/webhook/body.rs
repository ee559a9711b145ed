//! The body of a request as one piece of memory, bounded.
//!
//! Judging needs it contiguous. A body that comes in one frame is taken as it is; otherwise room
//! for all of it is made once and each frame is copied there and let go, so that a body never lies
//! in memory twice.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Largest review that is judged: 18 MB was seen for the largest storable object, since `<` becomes
/// six bytes.
pub(super) const LIMIT: usize = 24 * 1024 * 1024;
/// How much more is read, and thrown away, so that the client is done writing when we answer. A
/// connection closed in mid-write would lose the answer.
const DISCARD: usize = 64 * 1024 * 1024;
/// How much of a body that is too large is kept: its uid stands at the beginning.
const HEAD: usize = 4 * 1024;
/// Longest a body may take to arrive while it holds room. The largest one takes milliseconds from an
/// API server; a client that sends nothing must not keep others waiting.
const ARRIVAL: Duration = Duration::from_secs(3);
/// Memory for bodies is counted in units: 48 MiB for the first one of each body, 144 MiB for what is
/// larger, so six of the largest reviews at a time.
const UNIT: usize = 64 * 1024;
const FIRST_UNITS: usize = 48 * 1024 * 1024 / UNIT;
const REST_UNITS: usize = 144 * 1024 * 1024 / UNIT;

/// A body that cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// Beyond [`LIMIT`].
    #[error("the review is larger than {} MiB", LIMIT / (1024 * 1024))]
    TooLarge {
        /// Its beginning.
        head: Bytes,
        /// Whether the rest was read, so that an answer arrives.
        finished: bool,
    },
    /// The client broke off, or the connection did.
    #[error("the review did not arrive whole: {0}")]
    Broken(axum::Error),
    /// It did not come in time.
    #[error("the review did not arrive in {} s", ARRIVAL.as_secs())]
    Stalled,
}

/// Memory for bodies, taken as they arrive: whoever declares much and sends nothing holds nothing.
///
/// Each body takes one unit of the first kind with its first bytes, and what it needs beyond that at
/// once, from the second kind. So nobody waits for more while holding much, and a review that fits one
/// unit, as nearly all do, never waits for large ones.
#[derive(Debug)]
pub(super) struct Room {
    first: Semaphore,
    rest: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self { first: Semaphore::new(FIRST_UNITS), rest: Semaphore::new(REST_UNITS) }
    }
}

impl Room {
    async fn for_rest(&self, size: usize) -> Option<SemaphorePermit<'_>> {
        let units = u32::try_from(size.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        // Never closed; without room there would only be no bound.
        self.rest.acquire_many(units).await.ok()
    }
}

/// A body, and its room for as long as it lives.
#[derive(Debug)]
pub(super) struct Collected<'a> {
    pub(super) body: Bytes,
    _first: Option<SemaphorePermit<'a>>,
    _rest: Option<SemaphorePermit<'a>>,
}

/// Reads the body; `declared` is its `Content-Length`, where the client sent one. What it waits for room
/// is not counted as time in which the body did not arrive.
pub(super) async fn collect(
    mut body: Body,
    declared: Option<usize>,
    room: &Room,
) -> Result<Collected<'_>, BodyError> {
    let mut deadline = Instant::now() + ARRIVAL;
    if declared.is_some_and(|length| length > LIMIT) {
        return Err(in_time(deadline, discard(body, BytesMut::new()))
            .await
            .unwrap_or_else(|stalled| stalled));
    }
    let Some(first) = in_time(deadline, next(&mut body)).await?? else {
        return Ok(Collected { body: Bytes::new(), _first: None, _rest: None });
    };
    let held = room.first.acquire().await.ok();
    let size = declared.unwrap_or(LIMIT);
    if declared == Some(first.len()) {
        let rest = if size > UNIT { room.for_rest(size).await } else { None };
        return Ok(Collected { body: first, _first: held, _rest: rest });
    }
    let mut rest = None;
    let mut whole = BytesMut::with_capacity(size.min(UNIT).max(first.len()));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = in_time(deadline, next(&mut body)).await?? {
        let length = whole.len() + data.len();
        if length > LIMIT {
            drop(rest);
            return Err(in_time(deadline, discard(body, whole)).await.unwrap_or_else(|stalled| stalled));
        }
        if length > UNIT && rest.is_none() {
            rest = room.for_rest(size).await;
            deadline = Instant::now() + ARRIVAL;
            whole.reserve(declared.unwrap_or_default().saturating_sub(whole.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok(Collected { body: whole.freeze(), _first: held, _rest: rest })
}

async fn in_time<T>(deadline: Instant, reading: impl Future<Output = T>) -> Result<T, BodyError> {
    tokio::time::timeout_at(deadline, reading).await.map_err(|_| BodyError::Stalled)
}

/// The next data frame; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Broken(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads on without keeping anything but the beginning.
async fn discard(mut body: Body, mut head: BytesMut) -> BodyError {
    let mut read = head.len();
    head.truncate(HEAD);
    loop {
        match next(&mut body).await {
            Ok(Some(data)) => {
                read += data.len();
                let room = HEAD.saturating_sub(head.len()).min(data.len());
                head.extend_from_slice(&data[..room]);
                if read > DISCARD {
                    return BodyError::TooLarge { head: head.freeze(), finished: false };
                }
            }
            Ok(None) => return BodyError::TooLarge { head: head.freeze(), finished: true },
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)] // A body that does not arrive should stop the test.
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn frames(frames: Vec<Vec<u8>>) -> Body {
        let frames = frames.into_iter().map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data))));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    async fn taken(body: Body, declared: Option<usize>) -> Result<Bytes, BodyError> {
        collect(body, declared, &Room::default()).await.map(|collected| collected.body)
    }

    /// A body that begins with these bytes and never goes on.
    fn stuck(data: Vec<u8>) -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(data)))]);
        Body::new(StreamBody::new(first.chain(stream::pending())))
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_come_hold_up_no_small_one_and_are_given_up() {
        let room = Room::default();
        let stuck = (0..200).map(|_| collect(stuck(vec![b'x'; UNIT + 1]), Some(LIMIT), &room));
        let small = async {
            tokio::task::yield_now().await;
            let began = Instant::now();
            let body = frames(vec![b"ab".to_vec(), b"cd".to_vec()]);
            assert_eq!(collect(body, Some(4), &room).await.unwrap().body, "abcd");
            began.elapsed()
        };
        let (stuck, waited) = tokio::join!(futures::future::join_all(stuck), small);
        assert_eq!(waited, Duration::ZERO);
        assert!(stuck.iter().all(|body| matches!(body, Err(BodyError::Stalled))));
        assert_eq!(room.rest.available_permits(), REST_UNITS, "all of it was given back");
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_all_arrive() {
        let room = Room::default();
        let large = || frames(vec![vec![b'x'; LIMIT / 2]; 2]);
        let all = (0..9).map(|_| async {
            let collected = collect(large(), Some(LIMIT), &room).await.unwrap();
            tokio::task::yield_now().await;
            collected.body.len()
        });
        assert_eq!(futures::future::join_all(all).await, [LIMIT; 9]);
    }

    #[tokio::test]
    async fn a_body_is_one_piece_however_it_comes() {
        for declared in [Some(6), None] {
            let body = frames(vec![b"ab".to_vec(), b"".to_vec(), b"cdef".to_vec()]);
            assert_eq!(taken(body, declared).await.unwrap(), "abcdef");
        }
        assert_eq!(taken(frames(vec![b"abc".to_vec()]), Some(3)).await.unwrap(), "abc");
        assert!(taken(frames(vec![]), None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_not_copied() {
        let data = Bytes::from(vec![b'x'; 1000]);
        let address = data.as_ptr();
        let body = Body::from(data);
        assert_eq!(taken(body, Some(1000)).await.unwrap().as_ptr(), address);
    }

    #[tokio::test]
    async fn the_limit_holds_with_and_without_a_declared_length() {
        let most = |extra: usize| frames(vec![vec![b'x'; LIMIT / 2], vec![b'y'; LIMIT / 2 + extra]]);
        assert_eq!(taken(most(0), None).await.unwrap().len(), LIMIT);
        for declared in [None, Some(LIMIT + 1)] {
            let Err(BodyError::TooLarge { head, finished }) = taken(most(1), declared).await else {
                panic!("it was taken");
            };
            assert_eq!((head.len(), finished), (HEAD, true));
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_given_up() {
        let frames =
            stream::iter(0..).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 1 << 20]))));
        let Err(BodyError::TooLarge { finished, .. }) = taken(Body::new(StreamBody::new(frames)), None).await
        else {
            panic!("it was taken");
        };
        assert!(!finished);
    }
}
