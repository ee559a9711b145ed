//! Condition types and reasons: the words that people and scripts match on.
//!
//! A word that has been released keeps its meaning. Reasons are CamelCase, as `metav1.Condition`
//! demands.

use std::fmt;

/// A type of condition in the status of a `DriftGuard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// Summary of all others.
    Ready,
    /// Proved: every ready replica and the registered webhook rules cover this generation.
    Enforcing,
    /// The live content is not approved.
    Drifted,
    /// At least one source of truth has the approved content.
    SourceAvailable,
    /// Enforcement is suspended for a while.
    Suspended,
    /// Somebody keeps changing the target back.
    Fighting,
    /// Another guard pins the same target differently.
    Conflict,
    /// Nobody is known to have approved the spec: there is no valid signature of an author.
    AuthorUnknown,
    /// A watch tells of the target. Present only while none does, or one cannot be relied upon.
    Watched,
}

impl ConditionType {
    /// Every type, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Enforcing,
        Self::Drifted,
        Self::SourceAvailable,
        Self::Suspended,
        Self::Fighting,
        Self::Conflict,
        Self::AuthorUnknown,
        Self::Watched,
    ];

    /// As it stands in `status.conditions[].type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Enforcing => "Enforcing",
            Self::Drifted => "Drifted",
            Self::SourceAvailable => "SourceAvailable",
            Self::Suspended => "Suspended",
            Self::Fighting => "Fighting",
            Self::Conflict => "Conflict",
            Self::AuthorUnknown => "AuthorUnknown",
            Self::Watched => "Watched",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ready: the guard is valid and does what its spec says.
pub const GUARDING: &str = "Guarding";
/// Ready is true: the guard is enforced, but a right is missing to prove it by a dry run of its own kind.
pub const RIGHTS_MISSING: &str = "RightsMissing";
/// Ready: the guard is valid, but nothing has proved yet that it is enforced.
pub const NOT_ENFORCING_YET: &str = "NotEnforcingYet";
/// Ready, Enforcing: the spec holds something that cannot be used; the message says what.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Ready, Enforcing: several groups serve `targetKind`; `targetApiVersion` must be named.
pub const TARGET_AMBIGUOUS: &str = "TargetAmbiguous";
/// Ready, Enforcing: the API server serves no such kind.
pub const TARGET_UNKNOWN: &str = "TargetUnknown";
/// Ready, Enforcing: an object of this kind or name is never a target.
pub const TARGET_NOT_ALLOWED: &str = "TargetNotAllowed";
/// Ready, Enforcing, Conflict: another guard pins the same target.
pub const CONFLICTING_GUARDS: &str = "ConflictingGuards";

/// AuthorUnknown: no annotation names an author by a signature that is valid for this guard.
pub const NO_VALID_SIGNATURE: &str = "NoValidSignature";

/// Enforcing: a dry run through every API server reached us and was answered for this generation.
pub const PROVED: &str = "Proved";
/// Enforcing: no target may be patched, so the registered rules were compared instead.
pub const RULES_COMPARED: &str = "RulesCompared";
/// Enforcing is false: writes pass by the guard's own choice (`Warn`, `Audit`).
pub const DETECT_ONLY: &str = "DetectOnly";
/// Enforcing is false: the registered rules do not cover this generation yet.
pub const REGISTRATION_PENDING: &str = "RegistrationPending";
/// Enforcing is false: somebody broke the glass, so that every write passes for a while.
pub const BROKEN_GLASS: &str = "BrokenGlass";
/// Enforcing is false: somebody keeps altering the registered rules; the message names them.
pub const REGISTRATION_CONTENDED: &str = "RegistrationContended";
/// Ready is false: discovery finds the target's kind no longer, or another one in its place; the guard
/// goes by what was found before.
pub const TARGET_NO_LONGER_SERVED: &str = "TargetNoLongerServed";
/// Enforcing is false: a replica that answers reviews has not applied this version of the guard yet.
pub const REPLICAS_PENDING: &str = "ReplicasPending";
/// Enforcing is unknown: the proof could not be made; the message says why.
pub const PROOF_FAILED: &str = "ProofFailed";
/// Enforcing is unknown: an aggregated API server serves the target's group, and no dry run there reached us.
pub const SERVED_ELSEWHERE: &str = "ServedElsewhere";
/// Enforcing: by rules that match more than guarded objects, because of too many names.
pub const REGISTRATION_WIDENED: &str = "RegistrationWidened";

/// Suspended: `spec.suspend` of the guard lets writes pass.
pub const SUSPENDED_BY_SPEC: &str = "SuspendedBySpec";
/// Suspended: a DriftGuardException lets writes pass.
pub const EXCEPTED: &str = "Excepted";
/// Suspended is false: the last suspension or exception has ended.
pub const PAUSE_ENDED: &str = "PauseEnded";

/// The condition of a `DriftGuardException`: whether it pauses guards.
pub const EXCEPTION_ACTIVE: &str = "Active";
/// Active: the exception pauses guards until its end.
pub const IN_FORCE: &str = "InForce";
/// Active is false: the exception has ended.
pub const EXCEPTION_ENDED: &str = "Ended";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_types_are_distinct_and_read_as_metav1_condition_demands() {
        let mut seen = std::collections::BTreeSet::new();
        for condition in ConditionType::ALL {
            assert!(seen.insert(condition.as_str()), "{condition} stands twice");
            assert!(condition.as_str().starts_with(|first: char| first.is_ascii_uppercase()));
            assert!(condition.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }
}
