//! What the auditor decides.

pub mod sight;
