//! The pure core against committed vectors and against a slow obvious oracle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod circles;
mod corpus;
mod differential;
mod hostile;
mod layering;
mod oracle;
mod properties;
mod vectors;
