//! HTTP around the reviews: routes, bounds on time and memory, and what goes back.
//!
//! Every request is answered: with a review, or with an error and one sentence, after which the
//! failure policy of the entry decides. Never with `Retry-After`, which makes an API server call ten
//! times.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use futures::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode, Version};
use tracing::Instrument as _;

use super::activity::Activity;
use super::body::{self, BodyError, Collected, Room};
use super::reviews::{Asked, Reply, Reviews};
use super::route::{self, Route, Subject};
use crate::core::registration::Hook;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;

/// Requests at once, answered or waiting. An API server has 400 writes in flight by default.
const MOST_REQUESTS: usize = 4096;

/// What every request needs.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) reviews: Reviews,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    room: Room,
}

impl Desk {
    pub(super) fn new(reviews: Reviews, activity: Arc<Activity>, metrics: Arc<Metrics>) -> Self {
        Self { reviews, activity, metrics, room: Room::default() }
    }
}

/// The routes of the admission server.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/validate/{*rest}", post(validate))
        .route("/mutate/{*rest}", post(mutate))
        .with_state(desk)
}

async fn validate(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    answer(&desk, Hook::Validate, request).await
}

async fn mutate(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    answer(&desk, Hook::Mutate, request).await
}

async fn answer(desk: &Desk, hook: Hook, request: Request) -> Response {
    let _entered = desk.activity.enter();
    desk.metrics.review_entered();
    let version = request.version();
    let span = traces::review(hook_word(hook), request.headers());
    // A bug in one request must not take down the connection, on which hundreds may be waiting.
    let reply =
        std::panic::AssertUnwindSafe(reply(desk, hook, request).instrument(span)).catch_unwind().await;
    desk.metrics.review_left();
    let mut response = match reply {
        Ok(Reply::Review(review)) => {
            let mut response = Response::new(Body::from(review));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Ok(Reply::Failed(status, message)) => failure(status, message),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "DriftGuard failed: a bug, see its log"),
    };
    // HTTP/2 connections are told by GOAWAY instead.
    if desk.activity.is_draining() && version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn hook_word(hook: Hook) -> &'static str {
    match hook {
        Hook::Validate => "validate",
        Hook::Mutate => "mutate",
    }
}

fn failure(status: StatusCode, message: &'static str) -> Response {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn reply(desk: &Desk, hook: Hook, request: Request) -> Reply {
    let prefix = match hook {
        Hook::Validate => "/validate/",
        Hook::Mutate => "/mutate/",
    };
    let uri = request.uri();
    let Some((route, token)) = uri.path().strip_prefix(prefix).and_then(Route::parse) else {
        return Reply::Failed(StatusCode::NOT_FOUND, "no such webhook");
    };
    let asked = Asked { route, since: Instant::now(), timeout: route::timeout(uri.query()) };
    if desk.activity.in_flight() > MOST_REQUESTS {
        desk.reviews.unanswered("Overloaded", asked);
        return Reply::Failed(StatusCode::SERVICE_UNAVAILABLE, "DriftGuard has too many reviews at once");
    }
    let token = token.to_owned();
    let answered = async {
        // Before anything of it is read: whoever does not know the path gets nothing for a review.
        match desk.reviews.knows_path(hook, &token, asked).await {
            Ok(()) => review(desk, hook, request, asked).await,
            Err(reply) => reply,
        }
    };
    match tokio::time::timeout(asked.timeout, answered).await {
        Ok(reply) => reply,
        Err(_) => {
            desk.reviews.unanswered("TimedOut", asked);
            Reply::Failed(StatusCode::SERVICE_UNAVAILABLE, "DriftGuard could not answer in time")
        }
    }
}

async fn review(desk: &Desk, hook: Hook, request: Request, asked: Asked) -> Reply {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    let collected = body::collect(request.into_body(), declared, &desk.room).await;
    match &collected {
        Ok(Collected { body, .. }) if asked.route.subject == Subject::Guards => {
            desk.reviews.guard(hook, body, asked).await
        }
        Ok(Collected { body, .. }) if asked.route.subject == Subject::Exceptions => {
            desk.reviews.exception(hook, body, asked)
        }
        Ok(Collected { body, .. }) => match hook {
            Hook::Validate => desk.reviews.validate(body, asked).await,
            Hook::Mutate => desk.reviews.mutate(body, asked).await,
        },
        Err(error @ BodyError::TooLarge { .. }) => too_large(desk, error, asked),
        Err(BodyError::Stalled) => {
            desk.reviews.unanswered("Stalled", asked);
            Reply::Failed(StatusCode::REQUEST_TIMEOUT, "the admission review did not arrive in time")
        }
        Err(BodyError::Broken(error)) => {
            tracing::debug!(%error, "a review did not arrive whole");
            desk.reviews.unanswered("BrokenOff", asked);
            Reply::Failed(StatusCode::BAD_REQUEST, "the admission review did not arrive whole")
        }
    }
}

fn too_large(desk: &Desk, error: &BodyError, asked: Asked) -> Reply {
    match error {
        BodyError::TooLarge { head, finished: true } => {
            desk.reviews.too_large(head, &error.to_string(), asked)
        }
        _ => {
            desk.reviews.unanswered("TooLarge", asked);
            Reply::Failed(StatusCode::PAYLOAD_TOO_LARGE, "the admission review is too large")
        }
    }
}
