//! The auditor: finds drift that passed no admission, puts approved content back, and says so.
//!
//! It runs beside [`crate::control`], on the replica that holds the lease. [`watch`] looks at what is
//! guarded, [`crate::core::audit`] decides what a look means, [`auditor`] carries that out:
//! by restoring ([`remediation`]), by saying it in statuses ([`status`]), and by telling people
//! ([`telling`]).

pub mod auditor;
pub mod observed;
pub mod telling;
pub mod watch;

mod facts;
mod last_match;
mod remediation;
mod say;
mod saying;
mod status;
