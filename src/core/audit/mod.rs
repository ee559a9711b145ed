//! What the auditor decides.

pub mod alert;
