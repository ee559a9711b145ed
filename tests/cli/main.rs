//! The command line as a user meets it: exit code, stdout and stderr of the real program.
#![allow(missing_docs, reason = "a test binary")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod audit;
mod connections;
mod doctor;
mod documents;
mod guarding;
mod live;
mod plugin;
mod properties;
mod run;
mod situations;
mod snapshots;
mod stamping;
mod suggestions;
