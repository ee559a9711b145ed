//! Sources of truth: where approved content is fetched from to be put back.
//!
//! A guard names sources in order ([`chain`]): ConfigMaps and Secrets ([`objects`]), Services
//! ([`service`]), git repositories ([`git`]); then comes the Configuration Service ([`configuration`]), and at last
//! what was seen live ([`last_good`]). What always holds:
//!
//! - Nothing that a source says is believed. Its content is made into a candidate
//!   ([`crate::core::audit::candidate`]), and the candidate is given out only when the caller's check says
//!   that it is what was approved.
//! - What cannot be had is never taken for empty, and one source that fails stops none behind it.
//! - A source is read on behalf of the author of the guard, whose right to it is asked for each time.
//! - Everything is bounded: time, bytes, redirects, and the addresses that are called ([`address`]).
//! - No value and no hash of a Secret stands in what is reported, no credential, and no control character.

pub mod address;
mod args;
mod chain;
mod configuration;
pub mod git;
mod last_good;
mod objects;
mod report;
mod service;
pub(crate) mod turns;
mod web;

#[cfg(test)]
mod test_support;

pub use args::{ServiceUrl, SettingsError, SourceArgs};
pub use chain::{Authorities, Settings, Sources};
pub use configuration::{ConfigurationService, Credential};
pub use last_good::LastGood;
pub use report::{CANNOT_DRY_RUN, Outcome, SourceError, SourceReport, SourceResult, Verified, Verify};
pub use web::Limits;
