//! DriftGuard: hash-pinned configuration for Kubernetes.
//!
//! A guard names one object and the SHA-256 of its approved content; whatever would change that
//! content is refused at admission. `docs/architecture.md` follows a write and a guard through the
//! modules below; the header of each says what it owns and what always holds.
//!
//! - [`core`] decides, without any I/O: begin with [`core::judge`] (the rule),
//!   [`core::canonical`] (the bytes that are hashed) and [`core::index`] (which guards an object has).
//! - [`api`] is what users write: the types from which the CRDs are made, and names in clusters.
//! - [`store`] watches guards and turns them into the index that every replica answers from.
//! - [`webhook`] is the HTTPS server that answers the API server's reviews by it.
//! - [`control`] is what one replica does for all: the lease, the webhook registration, the proof
//!   that it works, and the status of guards.
//! - [`sources`] fetches approved content to put back, which its hash alone makes trusted.
//! - [`cert`], [`telemetry`] and [`trail`] serve all of them: certificates; logs, metrics and Events;
//!   records of what was refused.
//! - [`alert`] tells somebody: alerts and telemetry, spooled and delivered.
//! - [`report`] writes down what an audit found, for people and programs.
//! - [`manifests`] is what gets installed, [`document`] reads files, and [`cli`] is the command line,
//!   which may use everything.
//!
//! `core` and `api` import nothing else of the crate.

pub mod alert;
pub mod api;
pub mod audit;
pub mod cert;
pub mod cli;
pub mod control;
pub mod core;
pub mod document;
pub mod manifests;
pub mod report;
pub mod sources;
pub mod store;
pub mod telemetry;
pub mod trail;
pub mod webhook;
