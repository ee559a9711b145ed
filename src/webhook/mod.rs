//! The admission server: HTTPS in, one decision out.
//!
//! [`front`] accepts connections and finishes TLS, [`lane`] serves each protocol by axum-server,
//! [`handlers`] turns HTTP into a body and an answer, [`reviews`] judges by the pure core, and
//! [`drain`] stops it all without losing a request. What always holds: every request gets an answer
//! within its time, nothing here panics or waits on anything but bounded reads of guards, and
//! nothing is fetched from a source of content.

pub mod activity;
mod body;
mod connection;
mod definition_reviews;
pub mod drain;
mod exception_reviews;
mod front;
pub mod guard_reviews;
pub mod guards;
mod handlers;
pub mod health;
mod lane;
mod notes;
mod own_review;
pub mod readiness;
mod relabelling;
mod response;
pub mod reviews;
mod rivals;
mod room;
mod route;
pub mod server;
#[cfg(test)]
mod test_support;

pub use guard_reviews::GuardReviews;
pub use guards::Guards;
pub use reviews::Reviews;
pub use server::{Admission, AdmissionSettings};
