//! The body of a request as one piece of memory, bounded.
//!
//! Judging needs it contiguous. A body that comes in one frame is taken as it is; otherwise room
//! for all of it is made once and each frame is copied there and let go, so that a body never lies
//! in memory twice.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

/// Largest review that is judged: 18 MB was seen for the largest storable object, since `<` becomes
/// six bytes.
pub(super) const LIMIT: usize = 24 * 1024 * 1024;
/// How much more is read, and thrown away, so that the client is done writing when we answer. A
/// connection closed in mid-write would lose the answer.
const DISCARD: usize = 64 * 1024 * 1024;
/// How much of a body that is too large is kept: its uid stands at the beginning.
const HEAD: usize = 4 * 1024;

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
}

/// Reads the body; `declared` is its `Content-Length`, where the client sent one.
pub(super) async fn collect(mut body: Body, declared: Option<usize>) -> Result<Bytes, BodyError> {
    if declared.is_some_and(|length| length > LIMIT) {
        return Err(discard(body, BytesMut::new()).await);
    }
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if declared == Some(first.len()) {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(first.len() * 2));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = next(&mut body).await? {
        if whole.len() + data.len() > LIMIT {
            return Err(discard(body, whole).await);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
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

    #[tokio::test]
    async fn a_body_is_one_piece_however_it_comes() {
        for declared in [Some(6), None] {
            let body = frames(vec![b"ab".to_vec(), b"".to_vec(), b"cdef".to_vec()]);
            assert_eq!(collect(body, declared).await.unwrap(), "abcdef");
        }
        assert_eq!(collect(frames(vec![b"abc".to_vec()]), Some(3)).await.unwrap(), "abc");
        assert!(collect(frames(vec![]), None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_not_copied() {
        let data = Bytes::from(vec![b'x'; 1000]);
        let address = data.as_ptr();
        let body = Body::from(data);
        assert_eq!(collect(body, Some(1000)).await.unwrap().as_ptr(), address);
    }

    #[tokio::test]
    async fn the_limit_holds_with_and_without_a_declared_length() {
        let most = |extra: usize| frames(vec![vec![b'x'; LIMIT / 2], vec![b'y'; LIMIT / 2 + extra]]);
        assert_eq!(collect(most(0), None).await.unwrap().len(), LIMIT);
        for declared in [None, Some(LIMIT + 1)] {
            let Err(BodyError::TooLarge { head, finished }) = collect(most(1), declared).await else {
                panic!("it was taken");
            };
            assert_eq!((head.len(), finished), (HEAD, true));
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_given_up() {
        let frames =
            stream::iter(0..).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 1 << 20]))));
        let Err(BodyError::TooLarge { finished, .. }) =
            collect(Body::new(StreamBody::new(frames)), None).await
        else {
            panic!("it was taken");
        };
        assert!(!finished);
    }
}
