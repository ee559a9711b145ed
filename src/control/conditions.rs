//! The status that a guard should have: pure, so that it can be read and tested by itself.
//!
//! A condition's `lastTransitionTime` moves only with its status, and a status that says the same is
//! not written again.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::driftguard::Enforcement as ApiEnforcement;
use crate::api::reasons::{self, ConditionType};
use crate::api::status::DriftGuardStatus;
use crate::core::guard::{Authorship, Enforcement, Guard, GuardState};
use crate::core::guard_spec::rival;
use crate::core::index::Index;
use crate::core::pause::{Pause, PausedBy};
use crate::core::registration::Width;
use crate::store::COMPUTED;

use super::registrar::Broken;

/// Longest message of a condition; the API allows 32,768 characters, nobody reads as many.
const MAX_MESSAGE: usize = 1024;

/// How far the registered rules and the replicas cover the guards of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// Proved by a dry run through every API server.
    Proved,
    /// The registered rules were compared: no target exists that may be patched.
    Compared,
    /// As [`Coverage::Proved`] or [`Coverage::Compared`], by rules that match more than guarded objects.
    Widened(Width),
    /// Somebody keeps altering the registered rules.
    Contended(String),
    /// Somebody broke the glass: who, why and until when.
    BrokenGlass(Broken),
    /// Not yet, and why.
    Pending(String),
    /// Registered and proved, but a replica that answers reviews may judge by something older.
    Replicas(String),
    /// Registered and proved, but not for the API server that serves the target's group, and why.
    Elsewhere(String),
    /// It could not be told, and why.
    Failed(String),
}

/// What a condition says.
struct Says {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Says {
    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// The status of a guard, built on `before` so that what other parts wrote stays.
#[must_use]
pub fn status(
    state: &GuardState,
    index: &Index,
    coverage: &Coverage,
    before: Option<&DriftGuardStatus>,
    now: Timestamp,
) -> DriftGuardStatus {
    let mut status = before.cloned().unwrap_or_default();
    let generation = state.generation();
    let conflict = conflict(state, index);
    let (ready, enforcing) = match state {
        GuardState::Invalid(invalid) => (
            Says::new("False", invalid.reason, invalid.message.clone()),
            Says::new("False", invalid.reason, invalid.message.clone()),
        ),
        GuardState::Valid(guard) => {
            let enforcing = enforcing(guard, coverage);
            (ready(guard, &enforcing, conflict.as_ref()), enforcing)
        }
    };
    status.observed_generation = Some(generation);
    status.canonical_form = Some("v1".to_owned());
    status.enforcement = match state {
        GuardState::Valid(guard) => Some(api_enforcement(guard.enforcement)),
        GuardState::Invalid(_) => None,
    };
    set(&mut status.conditions, ConditionType::Ready, &ready, generation, now);
    set(&mut status.conditions, ConditionType::Enforcing, &enforcing, generation, now);
    match suspended(state, &status.conditions, now) {
        Some(says) => set(&mut status.conditions, ConditionType::Suspended, &says, generation, now),
        None => status.conditions.retain(|condition| condition.type_ != ConditionType::Suspended.as_str()),
    }
    match conflict {
        Some(says) => set(&mut status.conditions, ConditionType::Conflict, &says, generation, now),
        None => status.conditions.retain(|condition| condition.type_ != ConditionType::Conflict.as_str()),
    }
    match author_unknown(state) {
        Some(says) => set(&mut status.conditions, ConditionType::AuthorUnknown, &says, generation, now),
        None => {
            status.conditions.retain(|condition| condition.type_ != ConditionType::AuthorUnknown.as_str());
        }
    }
    status
}

/// The part of a status that is computed here: all else is written by others, and must go when they say so.
#[must_use]
pub fn own(status: &DriftGuardStatus) -> DriftGuardStatus {
    let is_own = |condition: &&Condition| COMPUTED.iter().any(|of_type| of_type.as_str() == condition.type_);
    DriftGuardStatus {
        observed_generation: status.observed_generation,
        conditions: status.conditions.iter().filter(is_own).cloned().collect(),
        enforcement: status.enforcement,
        enforce_after_clean: status.enforce_after_clean.clone(),
        resolved_target: status.resolved_target.clone(),
        canonical_form: status.canonical_form.clone(),
        ..DriftGuardStatus::default()
    }
}

/// Adds to a status that the target's kind is no longer what discovery finds, so that the guard goes by
/// what was found before. Where not even its version is served any more, no rule is known to bring us
/// each write, whatever a dry run of another object proves.
pub fn add_kept(
    status: &mut DriftGuardStatus,
    state: &GuardState,
    why: &str,
    before: &DriftGuardStatus,
    now: Timestamp,
) {
    let GuardState::Valid(guard) = state else { return };
    let mut keep = |of_type: ConditionType| {
        let is = |condition: &&Condition| condition.type_ == of_type.as_str();
        // As it stood, so that its time of transition does not move with every look.
        if let Some(old) = before.conditions.iter().find(is)
            && let Some(at) = status.conditions.iter().position(|condition| is(&condition))
        {
            status.conditions[at] = old.clone();
        }
        let says = Says::new("False", reasons::TARGET_NO_LONGER_SERVED, why);
        set(&mut status.conditions, of_type, &says, guard.generation, now);
    };
    keep(ConditionType::Ready);
    if guard.versions.is_gone {
        keep(ConditionType::Enforcing);
    }
}

/// Goes on saying that a guard lets writes pass: a replica may not have heard yet that it no longer does. An
/// end that comes by itself needs nobody to be told.
pub(super) fn keep_pause(status: &mut DriftGuardStatus, state: &GuardState, before: &DriftGuardStatus) {
    let is = |condition: &&Condition| condition.type_ == ConditionType::Suspended.as_str();
    let has_ended = |old: &Condition| state.pauses().iter().any(|pause| paused(pause).message == old.message);
    let old = before.conditions.iter().find(is).filter(|old| old.status == "True" && !has_ended(old));
    let at = status.conditions.iter().position(|new| is(&new) && new.status == "False");
    if let (Some(old), Some(at)) = (old, at) {
        status.conditions[at] = old.clone();
    }
}

/// `Suspended`: whether writes pass for a while, why and until when. A guard that never was says nothing.
fn suspended(state: &GuardState, before: &[Condition], now: Timestamp) -> Option<Says> {
    let Some(pause) = state.paused(now) else {
        let known = before.iter().any(|condition| condition.type_ == ConditionType::Suspended.as_str());
        return known.then(|| Says::new("False", reasons::PAUSE_ENDED, "the guard is enforced again"));
    };
    Some(paused(pause))
}

fn paused(pause: &Pause) -> Says {
    let (reason, by) = match &pause.by {
        PausedBy::Suspend => (reasons::SUSPENDED_BY_SPEC, "spec.suspend".to_owned()),
        PausedBy::Exception(name) => (reasons::EXCEPTED, format!("exception {name}")),
    };
    // To the second, so that two people read the same.
    let until = pause.until.strftime("%Y-%m-%dT%H:%M:%SZ");
    Says::new("True", reason, format!("writes pass until {until} by {by}: {}", pause.reason))
}

fn api_enforcement(enforcement: Enforcement) -> ApiEnforcement {
    match enforcement {
        Enforcement::Deny => ApiEnforcement::Deny,
        Enforcement::Rewrite => ApiEnforcement::Rewrite,
        Enforcement::Warn => ApiEnforcement::Warn,
        Enforcement::Audit => ApiEnforcement::Audit,
    }
}

/// `Enforcing`: whether what the guard wants done with unapproved writes is done.
fn enforcing(guard: &Guard, coverage: &Coverage) -> Says {
    let mode = guard.enforcement.as_str();
    match coverage {
        Coverage::Pending(why) => Says::new("False", reasons::REGISTRATION_PENDING, why.clone()),
        Coverage::BrokenGlass(Broken { until, by, reason }) => {
            let message = format!(
                "{by} broke the glass ({reason}): every write passes until {until:.0}, recorded; driftguard breakglass --end ends it"
            );
            Says::new("False", reasons::BROKEN_GLASS, message)
        }
        Coverage::Contended(why) => Says::new("False", reasons::REGISTRATION_CONTENDED, why.clone()),
        Coverage::Replicas(why) => Says::new("False", reasons::REPLICAS_PENDING, why.clone()),
        Coverage::Elsewhere(why) => Says::new("Unknown", reasons::SERVED_ELSEWHERE, why.clone()),
        Coverage::Failed(why) => Says::new("Unknown", reasons::PROOF_FAILED, why.clone()),
        Coverage::Proved | Coverage::Compared | Coverage::Widened(_) if !guard.enforcement.blocks() => {
            let message = format!("enforcement is {mode}: unapproved writes pass, and are recorded");
            Says::new("False", reasons::DETECT_ONLY, message)
        }
        Coverage::Proved => {
            let message = "a dry run through every API server was answered by the admission server";
            Says::new("True", reasons::PROVED, message)
        }
        Coverage::Compared => {
            let message = "the registered webhook rules cover this guard; no guarded object that may be patched exists to prove it by a dry run";
            Says::new("True", reasons::RULES_COMPARED, message)
        }
        Coverage::Widened(width) => {
            let reach = match width {
                Width::Namespaces => "every object of this kind in namespaces with guarded ones",
                _ => "every object of this kind",
            };
            let message = format!(
                "enforced, by rules that match {reach}: there are too many guarded names for one configuration, so an outage of the admission server refuses writes to those, too"
            );
            Says::new("True", reasons::REGISTRATION_WIDENED, message)
        }
    }
}

/// `Ready`: the summary that `kubectl get` shows.
fn ready(guard: &Guard, enforcing: &Says, conflict: Option<&Says>) -> Says {
    if let Some(conflict) = conflict {
        return Says::new("False", reasons::CONFLICTING_GUARDS, conflict.message.clone());
    }
    match (enforcing.status, enforcing.reason) {
        ("True", _) => Says::new("True", reasons::GUARDING, format!("{} is guarded", guard.target)),
        (_, reasons::DETECT_ONLY) => Says::new(
            "True",
            reasons::GUARDING,
            format!("{} is watched: {}", guard.target, enforcing.message),
        ),
        _ => Says::new("False", reasons::NOT_ENFORCING_YET, enforcing.message.clone()),
    }
}

/// Says beside `Ready=True` that a right is missing without which the guard cannot be proved by itself.
pub(super) fn say_missing_right(status: &mut DriftGuardStatus, missing: &str) {
    let ready = status.conditions.iter_mut().find(|condition| {
        condition.type_ == ConditionType::Ready.as_str() && condition.reason == reasons::GUARDING
    });
    if let Some(ready) = ready {
        reasons::RIGHTS_MISSING.clone_into(&mut ready.reason);
        ready.message = format!("{}. {missing}", ready.message).chars().take(MAX_MESSAGE).collect();
    }
}

/// Another guard of the same target that pins it differently.
fn conflict(state: &GuardState, index: &Index) -> Option<Says> {
    let target = state.target()?;
    let other = rival(state, index.guards_of(target))?;
    let message = format!(
        "guard {other} pins {target} differently, so only writes that change nothing pass; delete one of the two"
    );
    Some(Says::new("True", reasons::CONFLICTING_GUARDS, message))
}

/// That nobody is known to have approved the spec. Present only while it is so.
fn author_unknown(state: &GuardState) -> Option<Says> {
    let GuardState::Valid(guard) = state else { return None };
    if matches!(guard.authorship, Authorship::Signed(_)) {
        return None;
    }
    let message = format!(
        "enforced as it stands, but nothing is fetched or written for it: no valid signature says who approved it (made while the admission server did not answer, restored from elsewhere, or the key was lost); look at it, then `driftguard adopt -n {} {}`",
        guard.id.namespace, guard.id.name
    );
    Some(Says::new("True", reasons::NO_VALID_SIGNATURE, message))
}

fn set(
    conditions: &mut Vec<Condition>,
    of_type: ConditionType,
    says: &Says,
    generation: i64,
    now: Timestamp,
) {
    let before = conditions.iter().position(|condition| condition.type_ == of_type.as_str());
    let since = before
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == says.status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: of_type.as_str().to_owned(),
        status: says.status.to_owned(),
        reason: says.reason.to_owned(),
        message: says.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match before {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::Arc;

    use super::*;
    use crate::core::guard::{
        Author, DeletionPolicy, FailurePolicy, GuardId, InvalidGuard, Signer, Target, Versions,
    };
    use crate::core::hash::ContentHash;
    use crate::core::paths::PathFilter;
    use crate::core::scope::Scope;

    fn guard(name: &str, content: &[u8], enforcement: Enforcement) -> GuardState {
        GuardState::Valid(Arc::new(Guard {
            id: GuardId { namespace: "g".into(), name: name.into() },
            uid: "".into(),
            generation: 4,
            target: Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("n".into()),
                name: "x".into(),
            },
            scope: Scope::new("", "ConfigMap", PathFilter::everything()),
            expected: ContentHash::of(content),
            also_approved: Default::default(),
            equivalents: Default::default(),
            enforcement,
            failure_policy: FailurePolicy::Fail,
            deletion_policy: DeletionPolicy::Allow,
            pauses: Default::default(),
            authorship: Authorship::Unknown,
            replicas_path: None,
            versions: Versions::default(),
            managed_by: None,
            contact: None,
            runbook: None,
        }))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn condition<'a>(status: &'a DriftGuardStatus, of_type: &str) -> Option<&'a Condition> {
        status.conditions.iter().find(|condition| condition.type_ == of_type)
    }

    fn said(status: &DriftGuardStatus, of_type: &str) -> (String, String) {
        let condition = condition(status, of_type).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn of(state: &GuardState, coverage: &Coverage) -> DriftGuardStatus {
        status(state, &Index::build(vec![state.clone()]), coverage, None, at(1))
    }

    #[test]
    fn a_proved_guard_is_enforcing_and_ready() {
        let status = of(&guard("a", b"1", Enforcement::Deny), &Coverage::Proved);
        assert_eq!(said(&status, "Enforcing"), ("True".into(), "Proved".into()));
        assert_eq!(said(&status, "Ready"), ("True".into(), "Guarding".into()));
        assert_eq!((status.observed_generation, status.canonical_form.as_deref()), (Some(4), Some("v1")));
    }

    #[test]
    fn what_is_not_proved_is_not_enforcing() {
        let pending =
            of(&guard("a", b"1", Enforcement::Deny), &Coverage::Pending("rules are being written".into()));
        assert_eq!(said(&pending, "Enforcing"), ("False".into(), "RegistrationPending".into()));
        assert_eq!(said(&pending, "Ready"), ("False".into(), "NotEnforcingYet".into()));
        let lagging = of(&guard("a", b"1", Enforcement::Deny), &Coverage::Replicas("b lags".into()));
        assert_eq!(said(&lagging, "Enforcing"), ("False".into(), "ReplicasPending".into()));
        assert_eq!(said(&lagging, "Ready"), ("False".into(), "NotEnforcingYet".into()));
        let failed = of(&guard("a", b"1", Enforcement::Deny), &Coverage::Failed("no answer".into()));
        assert_eq!(said(&failed, "Enforcing"), ("Unknown".into(), "ProofFailed".into()));
        for enforcement in [Enforcement::Deny, Enforcement::Audit] {
            let elsewhere = of(&guard("a", b"1", enforcement), &Coverage::Elsewhere("not there".into()));
            assert_eq!(said(&elsewhere, "Enforcing"), ("Unknown".into(), "ServedElsewhere".into()));
            assert_eq!(said(&elsewhere, "Ready"), ("False".into(), "NotEnforcingYet".into()));
        }
    }

    #[test]
    fn a_pause_is_told_while_it_lasts_and_ends_by_itself() {
        let GuardState::Valid(mut paused) = guard("a", b"1", Enforcement::Deny) else { unreachable!() };
        let by = PausedBy::Exception("incident".into());
        Arc::make_mut(&mut paused).pauses = vec![Pause { by, reason: "page 7".into(), until: at(10) }].into();
        let state = GuardState::Valid(paused);
        let index = Index::build(vec![state.clone()]);
        let during = status(&state, &index, &Coverage::Proved, None, at(9));
        assert_eq!(said(&during, "Suspended"), ("True".into(), "Excepted".into()));
        assert_eq!(said(&during, "Ready"), ("True".into(), "Guarding".into()));
        let message = &condition(&during, "Suspended").unwrap().message;
        assert_eq!(message, "writes pass until 1970-01-01T00:00:10Z by exception incident: page 7");
        let after = status(&state, &index, &Coverage::Proved, Some(&during), at(10));
        assert_eq!(said(&after, "Suspended"), ("False".into(), "PauseEnded".into()));
        let never = status(&state, &index, &Coverage::Proved, None, at(10));
        assert!(condition(&never, "Suspended").is_none());
    }

    #[test]
    fn a_pause_that_was_ended_is_told_until_no_replica_lets_writes_pass() {
        let GuardState::Valid(mut paused) = guard("a", b"1", Enforcement::Deny) else { unreachable!() };
        let by = PausedBy::Exception("incident".into());
        Arc::make_mut(&mut paused).pauses = vec![Pause { by, reason: "page 7".into(), until: at(10) }].into();
        let paused = GuardState::Valid(paused);
        let during = of(&paused, &Coverage::Proved);
        let state = guard("a", b"1", Enforcement::Deny);
        let index = Index::build(vec![state.clone()]);
        let deleted = status(&state, &index, &Coverage::Proved, Some(&during), at(2));
        let mut kept = deleted.clone();
        keep_pause(&mut kept, &state, &during);
        assert_eq!(kept.conditions, during.conditions);
        let mut told = deleted.clone();
        keep_pause(&mut told, &state, &deleted);
        assert_eq!(told, deleted, "what was told is not taken back");
        let over = status(&paused, &index, &Coverage::Proved, Some(&during), at(10));
        let mut ended = over.clone();
        keep_pause(&mut ended, &paused, &during);
        assert_eq!(ended, over, "every replica computes that end");
    }

    #[test]
    fn a_guard_that_lets_writes_pass_says_that_it_does_not_enforce() {
        let status = of(&guard("a", b"1", Enforcement::Audit), &Coverage::Proved);
        assert_eq!(said(&status, "Enforcing"), ("False".into(), "DetectOnly".into()));
        assert_eq!(said(&status, "Ready"), ("True".into(), "Guarding".into()));
    }

    #[test]
    fn an_invalid_guard_says_why_in_both_conditions() {
        let invalid = GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "g".into(), name: "a".into() },
            generation: 2,
            uid: "".into(),
            pauses: Default::default(),
            authorship: Authorship::Unknown,
            target: None,
            reason: "TargetUnknown",
            message: "the API server serves no kind Widget".into(),
        }));
        let status = of(&invalid, &Coverage::Proved);
        assert_eq!(said(&status, "Ready"), ("False".into(), "TargetUnknown".into()));
        assert_eq!(said(&status, "Enforcing"), ("False".into(), "TargetUnknown".into()));
        assert_eq!(status.enforcement, None);
    }

    #[test]
    fn a_pause_of_a_guard_that_cannot_be_evaluated_is_told_too() {
        let pause = Pause { by: PausedBy::Suspend, reason: "page 7".into(), until: at(10) };
        let state = GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "g".into(), name: "a".into() },
            uid: "u".into(),
            generation: 2,
            target: guard("a", b"1", Enforcement::Deny).target().cloned(),
            pauses: vec![pause].into(),
            authorship: Authorship::Unknown,
            reason: "InvalidSpec",
            message: "expectedHash is no SHA-256".into(),
        }));
        let status = of(&state, &Coverage::Proved);
        assert_eq!(said(&status, "Suspended"), ("True".into(), "SuspendedBySpec".into()));
        assert_eq!(said(&status, "Ready"), ("False".into(), "InvalidSpec".into()));
    }

    #[test]
    fn two_guards_that_differ_conflict_and_two_that_agree_do_not() {
        let (left, right) = (guard("a", b"1", Enforcement::Deny), guard("b", b"2", Enforcement::Deny));
        let index = Index::build(vec![left.clone(), right]);
        let conflicting = status(&left, &index, &Coverage::Proved, None, at(1));
        assert_eq!(said(&conflicting, "Conflict").0, "True");
        assert_eq!(said(&conflicting, "Ready"), ("False".into(), "ConflictingGuards".into()));
        let renamed = Index::build(vec![left.clone(), guard("b", b"1", Enforcement::Deny)]);
        let agreeing = status(&left, &renamed, &Coverage::Proved, Some(&conflicting), at(2));
        assert!(condition(&agreeing, "Conflict").is_none());
    }

    #[test]
    fn a_missing_right_is_said_beside_what_holds_and_moves_no_time() {
        let state = guard("a", b"1", Enforcement::Deny);
        let index = Index::build(vec![state.clone()]);
        let first = status(&state, &index, &Coverage::Compared, None, at(1));
        let mut second = status(&state, &index, &Coverage::Compared, Some(&first), at(2));
        say_missing_right(&mut second, "add a rule");
        assert_eq!(said(&second, "Ready"), ("True".into(), "RightsMissing".into()));
        assert_eq!(condition(&second, "Ready").unwrap().last_transition_time.0, at(1));
        let mut third = status(&state, &index, &Coverage::Compared, Some(&second), at(3));
        say_missing_right(&mut third, "add a rule");
        assert_eq!(second, third, "nothing new is nothing to write");
        let mut pending = status(&state, &index, &Coverage::Pending("wait".into()), None, at(1));
        say_missing_right(&mut pending, "add a rule");
        assert_eq!(said(&pending, "Ready").1, "NotEnforcingYet", "what is worse stays in view");
    }

    #[test]
    fn rules_that_somebody_keeps_altering_are_named_as_such() {
        let contended = Coverage::Contended("altered by kubectl-edit".into());
        let status = of(&guard("a", b"1", Enforcement::Deny), &contended);
        assert_eq!(said(&status, "Enforcing"), ("False".into(), "RegistrationContended".into()));
        assert!(condition(&status, "Ready").unwrap().message.contains("kubectl-edit"));
    }

    #[test]
    fn a_guard_that_goes_by_what_was_found_before_says_so_and_goes_on_enforcing() {
        let state = guard("a", b"1", Enforcement::Deny);
        let mut status = of(&state, &Coverage::Proved);
        let before = status.clone();
        add_kept(&mut status, &state, "the API server serves no kind Widget", &before, at(2));
        assert_eq!(said(&status, "Ready"), ("False".into(), "TargetNoLongerServed".into()));
        let mut again = super::status(
            &state,
            &Index::build(vec![state.clone()]),
            &Coverage::Proved,
            Some(&status),
            at(3),
        );
        add_kept(&mut again, &state, "the API server serves no kind Widget", &status, at(3));
        assert_eq!(again, status, "nothing new is nothing to write");
        assert_eq!(said(&status, "Enforcing"), ("True".into(), "Proved".into()));
    }

    #[test]
    fn a_guard_whose_version_is_served_no_longer_is_not_enforcing_whatever_was_proved() {
        let GuardState::Valid(plain) = guard("a", b"1", Enforcement::Deny) else { unreachable!() };
        let versions = Versions { is_gone: true, ..Versions::default() };
        let state = GuardState::Valid(Arc::new(Guard { versions, ..Guard::clone(&plain) }));
        let mut status = of(&state, &Coverage::Proved);
        let before = status.clone();
        add_kept(&mut status, &state, "v1alpha1 is not served", &before, at(2));
        assert_eq!(said(&status, "Enforcing"), ("False".into(), "TargetNoLongerServed".into()));
        assert_eq!(said(&status, "Ready"), ("False".into(), "TargetNoLongerServed".into()));
        let index = Index::build(vec![state.clone()]);
        let mut again = super::status(&state, &index, &Coverage::Proved, Some(&status), at(3));
        add_kept(&mut again, &state, "v1alpha1 is not served", &status, at(3));
        assert_eq!(again, status, "nothing new is nothing to write");
    }

    #[test]
    fn a_guard_that_nobody_signed_says_so_and_is_ready_all_the_same() {
        let state = guard("a", b"1", Enforcement::Deny);
        let unsigned = of(&state, &Coverage::Proved);
        assert_eq!(said(&unsigned, "AuthorUnknown"), ("True".into(), "NoValidSignature".into()));
        assert_eq!(said(&unsigned, "Ready"), ("True".into(), "Guarding".into()));
        let message = &condition(&unsigned, "AuthorUnknown").unwrap().message;
        assert!(message.contains("`driftguard adopt -n g a`"), "{message}");
        let GuardState::Valid(guard) = state else { unreachable!() };
        let author =
            Author { signer: Arc::new(Signer { user: "alice".into(), groups: Vec::new() }), at: at(1) };
        let signed = Guard { authorship: Authorship::Signed(Arc::new(author)), ..Guard::clone(&guard) };
        let signed = GuardState::Valid(Arc::new(signed));
        let index = Index::build(vec![signed.clone()]);
        let adopted = status(&signed, &index, &Coverage::Proved, Some(&unsigned), at(2));
        assert!(condition(&adopted, "AuthorUnknown").is_none());
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let state = guard("a", b"1", Enforcement::Deny);
        let index = Index::build(vec![state.clone()]);
        let first = status(&state, &index, &Coverage::Pending("a".into()), None, at(1));
        let second = status(&state, &index, &Coverage::Pending("b".into()), Some(&first), at(2));
        assert_eq!(condition(&second, "Enforcing").unwrap().last_transition_time.0, at(1));
        let third = status(&state, &index, &Coverage::Proved, Some(&second), at(3));
        assert_eq!(condition(&third, "Enforcing").unwrap().last_transition_time.0, at(3));
        let fourth = status(&state, &index, &Coverage::Proved, Some(&third), at(4));
        assert_eq!(third, fourth, "nothing new is nothing to write");
    }
}
