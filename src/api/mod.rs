//! The API of the product as Rust types: `DriftGuard` and `GAMAConfig`, group `terrafusion.ai`.
//!
//! What a user may write, and what the schema refuses, is decided here and nowhere else: the CRDs
//! in `crds/` are generated from these types (see `src/manifests`). No behaviour lives here.
//! Every string and every list is bounded, so that one object cannot make others slow. Names that
//! stand in clusters (labels, annotations, condition types, reasons) are written once, in
//! [`names`] and [`reasons`].

pub mod driftguard;
pub mod exception;
pub mod gamaconfig;
pub mod names;
pub mod reasons;
pub(crate) mod schema;
pub mod source_ref;
pub mod status;

pub use driftguard::{
    AlsoApproved, DeletionPolicy, DriftGuard, DriftGuardSpec, Enforcement, FailurePolicy, Suspend,
};
pub use exception::{DriftGuardException, DriftGuardExceptionSpec, DriftGuardExceptionStatus, PausedGuards};
pub use gamaconfig::{GAMAConfig, GAMAConfigSpec};
pub use source_ref::{SourceKind, SourceRef};
pub use status::{
    ActorSource, DriftGuardStatus, Equivalent, LastDrift, LastRemediation, RemediationResult, SourceResult,
    SourceStatus,
};
