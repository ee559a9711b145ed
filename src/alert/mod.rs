//! How somebody is told: alerts as CloudEvents, and telemetry as the older operator sent it.
//!
//! [`delivery::Delivery`] is the one handle; nobody who tells it something ever waits. What is to be
//! delivered waits in an [`outbox`] for each receiver, on disk when there is a spool, bounded, and is tried
//! again until it arrives. Each message has an id by which its receiver recognises one that comes twice: it
//! is delivered at least once, and in order within a transaction. `docs/alerts.md` is for receivers.
//!
//! No message holds a value of an object, nor a hash of a Secret.

pub mod args;
pub mod backoff;
pub mod cloudevents;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod folder;
pub mod older;
pub mod outbox;
pub mod queue;
pub mod signature;
#[cfg(test)]
mod test_support;

pub use args::AlertArgs;
pub use delivery::Delivery;
