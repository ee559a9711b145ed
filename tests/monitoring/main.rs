//! What is shown and alerted on: rules by promtool, and every name against the metrics that there are.
#![allow(missing_docs, reason = "a test binary")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod expression;
mod names;
mod rules;
