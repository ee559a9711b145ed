//! DriftGuard: hash-pinned configuration for Kubernetes.
//!
//! A guard names one object and the SHA-256 of its approved content; whatever would change that
//! content is refused at admission. Read on in [`core`], where everything is decided without any
//! I/O; the other modules bring the facts there and carry the decisions out.

pub mod api;
pub mod cert;
pub mod cli;
pub mod control;
pub mod core;
pub mod manifests;
pub mod store;
pub mod telemetry;
pub mod trail;
