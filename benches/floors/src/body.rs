//! The body as one piece of memory, read the way DriftGuard reads it: room for all of it is made
//! once, and each frame is copied there and let go. A floor that read it more slowly would flatter
//! what is compared with it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};

/// Largest body, as for DriftGuard.
const LIMIT: usize = 24 << 20;

/// Reads the body; `None` when it is too large or does not arrive whole.
pub(crate) async fn read(request: Request) -> Option<Bytes> {
    let length = request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok()?;
    let mut body = Limited::new(request.into_body(), LIMIT.min(length));
    let first = next(&mut body).await?;
    if first.len() == length {
        return Some(first);
    }
    let mut whole = BytesMut::with_capacity(length);
    whole.extend_from_slice(&first);
    drop(first);
    while whole.len() < length {
        whole.extend_from_slice(&next(&mut body).await?);
    }
    Some(whole.freeze())
}

async fn next(body: &mut Limited<Body>) -> Option<Bytes> {
    body.frame().await?.ok()?.into_data().ok()
}
