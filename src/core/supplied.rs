//! Certificates that somebody else makes and puts into files: when one that was found there is served,
//! and which authorities are registered meanwhile.
//!
//! Pure: the time comes in as an argument. What always holds: while what is served is accepted, it is
//! served on until API servers have known an authority of the new certificate for long enough; and an
//! authority that left the files stays registered while a replica may still serve a certificate of it.
//! So the files may change at once and without any overlap, as cert-manager changes them.

use jiff::{SignedDuration, Timestamp};

use super::rotation::{Sight, Validity};

/// For how many times the settling time an authority stays registered that left the files. Ten minutes
/// in a cluster: the kubelet of another node brings a changed Secret into a pod up to two minutes later,
/// and a certificate of it is served a settling time after that.
const LINGER: i32 = 10;

/// A certificate that is served, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supplied<Id> {
    /// The authorities each of which verifies it; at least one.
    pub trusted_by: Vec<Id>,
    /// When it is valid.
    pub validity: Validity,
}

/// What to do about a certificate that was found in the files and is not served yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Go on with what is served.
    Wait,
    /// Serve it.
    Serve,
}

/// A view for certificates from files: `settle` is the least time from the registration of an authority
/// to the first certificate of it.
#[must_use]
pub fn sight<Id: Clone + PartialEq>(settle: SignedDuration) -> Sight<Id> {
    Sight::keeping(settle, settle.checked_mul(LINGER).unwrap_or(SignedDuration::MAX))
}

/// Whether `found`, which is valid and good in itself, takes the place of `served`.
#[must_use]
pub fn choose<Id: Clone + PartialEq>(
    sight: &Sight<Id>,
    served: Option<&Supplied<Id>>,
    found: &Supplied<Id>,
    now: Timestamp,
) -> Choice {
    // Where nobody accepts what is served, there is nothing to lose.
    let lost =
        served.is_none_or(|served| served.validity.has_ended(now) || sight.distrusts(&served.trusted_by));
    let settled = found.trusted_by.iter().any(|authority| sight.settled(authority, now));
    if lost || settled { Choice::Serve } else { Choice::Wait }
}

#[cfg(test)]
#[path = "supplied_tests.rs"]
mod tests;
