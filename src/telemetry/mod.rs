//! What operators see of a running DriftGuard: logs, metrics, Events.
//!
//! None of it is in the way of a review: logging and counting never wait, and Events go through a
//! bounded queue that drops what it cannot take.

pub mod allowance;
pub mod events;
pub mod findings;
mod gather;
pub mod logging;
pub mod metrics;
pub mod notices;
