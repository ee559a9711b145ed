//! What of a guard's status is kept: enough to tell whether another one would say anything new.
//!
//! A status is longer than all else of a guard together, and a hundred thousand of them would be most of
//! our memory. So the part that is computed from the guard stands here as a digest. Whoever has
//! something new to say reads the status itself first.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sha2::{Digest as _, Sha256};

use crate::api::reasons::ConditionType;
use crate::api::status::{DriftGuardStatus, EnforceAfterClean, Equivalent, ResolvedTarget};
use crate::core::audit::finding::Reason;
use crate::core::kinds::KindEntry;

/// The conditions that are computed from the guard, and written by whoever registers it. All others are the
/// auditor's.
pub const COMPUTED: [ConditionType; 5] = [
    ConditionType::Ready,
    ConditionType::Enforcing,
    ConditionType::Suspended,
    ConditionType::Conflict,
    ConditionType::AuthorUnknown,
];

/// Reason of the condition `Drifted` of a guard whose target holds what is approved.
const IN_SYNC: &str = Reason::InSync.as_str();
/// Those of a guard whose target was changed under a pause that lasts or has ended.
const PAUSED: [&str; 3] =
    [Reason::Excepted.as_str(), Reason::SuspendedBySpec.as_str(), Reason::ExceptionEnded.as_str()];

/// A status in few bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    digest: [u8; 16],
    resolved_target: Option<Box<Resolved>>,
    is_empty: bool,
    was_suspended: bool,
    /// With the two below what [`Audited`] is made of: apart they take a word less, of very many guards.
    audited: Option<Answers>,
    generation: i64,
    matched: u64,
    rare: Option<Box<Rare>>,
}

/// The answers that [`Audited`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answers {
    is_calm: bool,
    changed_under_pause: bool,
    is_unchecked: bool,
}

/// What few statuses hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rare {
    enforce_after_clean: Option<EnforceAfterClean>,
    equivalents: Vec<Equivalent>,
    heeded_restore: Option<String>,
    incident: Option<String>,
    /// The condition `Suspended` while it is true: it may have to go on being said.
    suspended: Option<Condition>,
}

/// What a status says of the guard's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    /// Whether it is in sync, and nothing of an earlier drift lasts.
    pub is_calm: bool,
    /// Whether it was changed under a pause, and nobody has decided yet what becomes of that.
    pub changed_under_pause: bool,
    /// The generation of the guard that it is about.
    pub generation: i64,
    /// In which resource version the target is said to have been as approved; 0 when that is not kept, or no
    /// number. The signature is not verified.
    pub matched: u64,
    /// Whether writes are said to be refused, and the target is not said to have been checked since they are.
    pub is_unchecked: bool,
}

impl Audited {
    fn of(status: &DriftGuardStatus) -> Option<Self> {
        let find =
            |of_type: ConditionType| status.conditions.iter().find(|said| said.type_ == of_type.as_str());
        let said = find(ConditionType::Drifted)?;
        let is_calm = said.status == "False"
            && said.reason == IN_SYNC
            && find(ConditionType::Fighting).is_none_or(|said| said.status != "True")
            && find(ConditionType::Watched).is_none_or(|said| said.status != "False")
            && status.consecutive_failures.unwrap_or_default() == 0
            && status.alerted != Some(true)
            && status.incident.is_none()
            && status.episode.is_none();
        let changed_under_pause = said.status == "True" && PAUSED.contains(&said.reason.as_str());
        let matched = status.last_match.as_ref().and_then(|noted| noted.resource_version.parse().ok());
        let generation = said.observed_generation.unwrap_or_default();
        let enforcing = find(ConditionType::Enforcing).filter(|said| said.status == "True");
        let is_unchecked = enforcing.is_some_and(|said| {
            status.last_checked.as_ref().is_none_or(|checked| checked.0 < said.last_transition_time.0)
        });
        let matched = matched.unwrap_or_default();
        Some(Self { is_calm, changed_under_pause, generation, matched, is_unchecked })
    }
}

/// `status.resolvedTarget`, its texts shared between guards.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    found: Arc<KindEntry>,
    signature: Box<str>,
}

impl Resolved {
    fn of(noted: &ResolvedTarget) -> Self {
        let (group, version) = noted.api_version.rsplit_once('/').unwrap_or(("", &noted.api_version));
        let found = KindEntry {
            group: group.into(),
            version: version.into(),
            kind: noted.kind.as_str().into(),
            plural: noted.resource.as_str().into(),
            namespaced: noted.namespaced,
            // Alone in a catalog, it must be what a kind without a version means.
            preferred: true,
        };
        Self { found: Arc::new(found), signature: noted.signature.as_str().into() }
    }

    fn whole(&self) -> ResolvedTarget {
        ResolvedTarget {
            api_version: self.found.api_version(),
            kind: self.found.kind.as_str().into(),
            resource: self.found.plural.as_str().into(),
            namespaced: self.found.namespaced,
            signature: self.signature.as_ref().into(),
        }
    }
}

impl Summary {
    /// Sums up a status.
    #[must_use]
    pub fn of(status: &DriftGuardStatus) -> Self {
        let is = |condition: &&Condition| condition.type_ == ConditionType::Suspended.as_str();
        let suspended = status.conditions.iter().find(is);
        let audited = Audited::of(status);
        let drifted = status.conditions.iter().find(|said| said.type_ == ConditionType::Drifted.as_str());
        let may_drift = drifted.is_some_and(|said| said.status != "False");
        let rare = Rare {
            enforce_after_clean: status.enforce_after_clean.clone(),
            equivalents: status.equivalents.clone(),
            heeded_restore: status.heeded_restore.clone(),
            incident: status.incident.clone().filter(|_| may_drift),
            suspended: suspended.filter(|one| one.status == "True").cloned(),
        };
        Self {
            digest: digest(status),
            resolved_target: status.resolved_target.as_ref().map(Resolved::of).map(Box::new),
            is_empty: *status == DriftGuardStatus::default(),
            was_suspended: suspended.is_some(),
            audited: audited.map(|said| Answers {
                is_calm: said.is_calm,
                changed_under_pause: said.changed_under_pause,
                is_unchecked: said.is_unchecked,
            }),
            generation: audited.map(|said| said.generation).unwrap_or_default(),
            matched: audited.map(|said| said.matched).unwrap_or_default(),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }

    /// The hashes that are said to be equivalents; signatures are not verified.
    #[must_use]
    pub fn equivalents(&self) -> &[Equivalent] {
        self.rare.as_ref().map_or(&[], |rare| &rare.equivalents)
    }

    /// The request to put the approved content back that was heeded last.
    #[must_use]
    pub fn heeded_restore(&self) -> Option<&str> {
        self.rare.as_ref().and_then(|rare| rare.heeded_restore.as_deref())
    }

    /// The incident that keeps the target from being put back, where that is said to be drifted, or cannot be read.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        self.rare.as_ref().and_then(|rare| rare.incident.as_deref())
    }

    /// What was last said of drift; `None` when nothing was.
    #[must_use]
    pub fn audited(&self) -> Option<Audited> {
        let Answers { is_calm, changed_under_pause, is_unchecked } = self.audited?;
        let (generation, matched) = (self.generation, self.matched);
        Some(Audited { is_calm, changed_under_pause, generation, matched, is_unchecked })
    }

    /// Whether a status computed on [`Self::ground`] says what this one says already. Times of
    /// transition do not count: where all else is the same, they do not move.
    #[must_use]
    pub fn says(&self, status: &DriftGuardStatus) -> bool {
        self.digest == digest(status)
    }

    /// Whether there is no status at all, or none that can be understood.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether the status says, or said, that the guard lets writes pass for a while.
    #[must_use]
    pub fn was_suspended(&self) -> bool {
        self.was_suspended
    }

    /// What is known about `enforceAfterClean`.
    #[must_use]
    pub fn enforce_after_clean(&self) -> Option<&EnforceAfterClean> {
        self.rare.as_ref().and_then(|rare| rare.enforce_after_clean.as_ref())
    }

    /// What the kind of the guard is said to have been found to mean, and the signature of it, which is
    /// yet to be verified.
    #[must_use]
    pub fn resolved_target(&self) -> Option<(&KindEntry, &str)> {
        self.resolved_target.as_deref().map(|noted| (noted.found.as_ref(), noted.signature.as_ref()))
    }

    /// Holds once, with `other`, what their kinds mean when that is the same.
    pub(super) fn share(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (&mut self.resolved_target, &other.resolved_target)
            && own.found == other.found
        {
            own.found = Arc::clone(&other.found);
        }
    }

    /// Holds what its kind means as one of `kinds`, when it is among them.
    pub(super) fn hold(&mut self, kinds: &BTreeSet<Arc<KindEntry>>) {
        if let Some(own) = &mut self.resolved_target
            && let Some(known) = kinds.get(&own.found)
        {
            own.found = Arc::clone(known);
        }
    }

    /// A status that leads to the same computed part as the whole one would.
    #[must_use]
    pub fn ground(&self) -> DriftGuardStatus {
        let ended = || Condition {
            type_: ConditionType::Suspended.as_str().to_owned(),
            status: String::new(),
            reason: String::new(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let suspended = self.rare.as_ref().and_then(|rare| rare.suspended.clone());
        let suspended = self.was_suspended.then(|| suspended.unwrap_or_else(ended));
        DriftGuardStatus {
            conditions: suspended.into_iter().collect(),
            enforce_after_clean: self.enforce_after_clean().cloned(),
            resolved_target: self.resolved_target.as_deref().map(Resolved::whole),
            ..DriftGuardStatus::default()
        }
    }
}

/// A digest of what is computed. Of SHA-256, since its input comes from whoever may write a status.
fn digest(status: &DriftGuardStatus) -> [u8; 16] {
    let mut hasher = Sha256::new();
    // Lengths go along, so that no text can pass for two.
    let mut text = |part: Option<&str>| {
        let part = part.map(str::as_bytes);
        hasher.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    };
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    text(number(status.observed_generation).as_deref());
    text(status.canonical_form.as_deref());
    text(status.enforcement.map(|enforcement| format!("{enforcement:?}")).as_deref());
    let promotion = status.enforce_after_clean.as_ref();
    text(promotion.map(|known| known.clean_since.0.as_second().to_string()).as_deref());
    let promoted = promotion.and_then(|known| known.promoted_at.as_ref());
    text(promoted.map(|at| at.0.as_second().to_string()).as_deref());
    text(promotion.map(|known| known.signature.as_str()));
    let resolved = status.resolved_target.as_ref();
    text(resolved.map(|noted| noted.api_version.as_str()));
    text(resolved.map(|noted| noted.kind.as_str()));
    text(resolved.map(|noted| noted.resource.as_str()));
    text(resolved.map(|noted| if noted.namespaced { "true" } else { "false" }));
    text(resolved.map(|noted| noted.signature.as_str()));
    for of_type in COMPUTED {
        let found = status.conditions.iter().find(|condition| condition.type_ == of_type.as_str());
        text(found.map(|condition| condition.status.as_str()));
        text(found.map(|condition| condition.reason.as_str()));
        text(found.map(|condition| condition.message.as_str()));
        text(found.and_then(|condition| number(condition.observed_generation)).as_deref());
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize()[..16]);
    short
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn status(message: &str, second: i64) -> DriftGuardStatus {
        let condition = Condition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: "Guarding".into(),
            message: message.into(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::from_second(second).unwrap_or_default()),
        };
        DriftGuardStatus { conditions: vec![condition], ..DriftGuardStatus::default() }
    }

    #[test]
    fn another_message_is_new_and_another_time_is_not() {
        let summary = Summary::of(&status("a", 1));
        assert!(summary.says(&status("a", 2)));
        assert!(!summary.says(&status("b", 1)));
        assert!(!summary.says(&DriftGuardStatus::default()));
    }

    #[test]
    fn a_check_counts_from_when_writes_are_refused() {
        let mut status = status("a", 10);
        status.conditions[0].type_ = "Enforcing".into();
        let drifted = Condition {
            type_: "Drifted".into(),
            status: "False".into(),
            reason: "InSync".into(),
            ..status.conditions[0].clone()
        };
        status.conditions.push(drifted);
        let at = |second| Some(Time(Timestamp::from_second(second).unwrap()));
        let is_unchecked = |status: &DriftGuardStatus| Summary::of(status).audited().unwrap().is_unchecked;
        assert!(is_unchecked(&status));
        status.last_checked = at(9);
        assert!(is_unchecked(&status));
        status.last_checked = at(10);
        assert!(!is_unchecked(&status));
        status.last_checked = None;
        status.conditions[0].status = "False".into();
        assert!(!is_unchecked(&status), "nothing is refused");
    }

    #[test]
    fn what_others_write_is_not_ours_to_compare() {
        let mut other = status("a", 1);
        let drifted = Condition { type_: "Drifted".into(), ..other.conditions[0].clone() };
        other.conditions.insert(0, drifted);
        other.current_hash = Some("x".into());
        assert!(Summary::of(&other).says(&status("a", 1)));
    }

    #[test]
    fn that_a_guard_was_suspended_is_remembered() {
        let mut suspended = status("a", 1);
        suspended.conditions[0].type_ = "Suspended".into();
        assert_eq!(Summary::of(&suspended).ground().conditions, suspended.conditions, "while it is true");
        suspended.conditions[0].status = "False".into();
        assert_eq!(Summary::of(&suspended).ground().conditions.len(), 1);
        assert!(Summary::of(&status("a", 1)).ground().conditions.is_empty());
    }

    #[test]
    fn what_a_kind_was_found_to_mean_is_kept_whole_and_held_once() {
        let noted = |resource: &str, signature: &str| {
            let resolved_target = Some(ResolvedTarget {
                api_version: "a.io/v1".into(),
                kind: "Widget".into(),
                resource: resource.into(),
                namespaced: true,
                signature: signature.into(),
            });
            DriftGuardStatus { resolved_target, ..DriftGuardStatus::default() }
        };
        let status = noted("widgets", "x");
        let first = Summary::of(&status);
        assert_eq!(first.ground(), status);
        assert!(first.says(&status));
        assert!(!first.says(&noted("widgets", "y")));
        assert!(!first.says(&noted("gadgets", "x")));
        let mut second = Summary::of(&noted("widgets", "y"));
        second.share(&first);
        let mut third = Summary::of(&status);
        third.hold(&BTreeSet::from([Arc::clone(&first.resolved_target.as_ref().unwrap().found)]));
        let held = |summary: &Summary| Arc::clone(&summary.resolved_target.as_ref().unwrap().found);
        assert!(Arc::ptr_eq(&held(&first), &held(&second)));
        assert!(Arc::ptr_eq(&held(&first), &held(&third)));
        assert_eq!(second.resolved_target().unwrap().1, "y");
    }

    #[test]
    fn no_status_is_told_from_one_that_says_nothing_computed() {
        assert!(Summary::of(&DriftGuardStatus::default()).is_empty());
        let foreign = DriftGuardStatus { hash_match: Some(true), ..DriftGuardStatus::default() };
        assert!(!Summary::of(&foreign).is_empty());
    }
}
