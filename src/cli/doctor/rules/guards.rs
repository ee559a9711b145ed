//! What the conditions of guards say, by the thing that is wrong. Their messages are not repeated: `explain` has
//! them.

use super::words::{counted, listed};
use crate::api::reasons::ConditionType;
use crate::api::{RemediationResult, reasons};
use crate::cli::doctor::facts::{Guarded, Unread};
use crate::cli::doctor::finding::{Check, Finding};

/// Reasons of `Enforcing` that are as somebody wanted them.
const WANTED: [&str; 1] = [reasons::DETECT_ONLY];

pub(super) fn all(guards: &Result<Vec<Guarded>, Unread>) -> Vec<Finding> {
    let checks = [Check::Enforced, Check::Authors, Check::Conflicts, Check::Detection, Check::Remediation];
    match guards {
        Err(Unread { why, mend }) => {
            checks.into_iter().map(|check| Finding::untold(check, why, *mend)).collect()
        }
        Ok(guards) if guards.is_empty() => {
            checks.into_iter().map(|check| Finding::skip(check, "there are no guards")).collect()
        }
        Ok(guards) => {
            vec![enforced(guards), authors(guards), conflicts(guards), detection(guards), remediation(guards)]
        }
    }
}

/// Status and reason of a condition.
fn says(guard: &Guarded, of_type: ConditionType) -> Option<(&str, &str)> {
    let said = guard.conditions.iter().find(|(name, _, _)| name == of_type.as_str())?;
    Some((said.1.as_str(), said.2.as_str()))
}

fn is(guard: &Guarded, of_type: ConditionType, status: &str) -> bool {
    says(guard, of_type).is_some_and(|(said, _)| said == status)
}

/// `NAME -n NAMESPACE`, as commands take it.
fn named(guard: &Guarded) -> String {
    let id = guard.state.id();
    format!("{} -n {}", id.name, id.namespace)
}

/// `namespace/name (Reason)`.
fn with_reason(guard: &Guarded, of_type: ConditionType) -> String {
    let reason = says(guard, of_type).map_or("nobody has looked at it", |(_, reason)| reason);
    format!("{} ({reason})", guard.state.id())
}

fn enforced(guards: &[Guarded]) -> Finding {
    let check = Check::Enforced;
    let is_wrong = |guard: &&Guarded| match says(guard, ConditionType::Enforcing) {
        Some(_) if !guard.is_seen => true,
        Some(("True", _)) => false,
        Some((_, reason)) => !WANTED.contains(&reason),
        None => true,
    };
    let wrong: Vec<&Guarded> = guards.iter().filter(is_wrong).collect();
    let Some(first) = wrong.first() else {
        let detect = guards.iter().filter(|guard| !is(guard, ConditionType::Enforcing, "True")).count();
        let lets = match detect {
            0 => String::new(),
            some => format!("; {some} of them let writes pass by their own enforcement (Warn, Audit)"),
        };
        return Finding::ok(
            check,
            format!("all of {} do what they say{lets}", counted(guards.len(), "guard")),
        );
    };
    let names: Vec<String> = wrong.iter().map(|guard| with_reason(guard, ConditionType::Enforcing)).collect();
    Finding::fail(
        check,
        format!("{} of {} not enforced: {}", wrong.len(), counted(guards.len(), "guard"), listed(&names)),
        format!("driftguard explain {}", named(first)),
    )
}

fn authors(guards: &[Guarded]) -> Finding {
    let check = Check::Authors;
    let unknown: Vec<&Guarded> =
        guards.iter().filter(|guard| is(guard, ConditionType::AuthorUnknown, "True")).collect();
    let Some(first) = unknown.first() else {
        return Finding::ok(check, "each guard was approved by somebody who is known");
    };
    let names: Vec<String> = unknown.iter().map(|guard| guard.state.id().to_string()).collect();
    Finding::warn(
        check,
        format!("nobody is known to have approved {}", listed(&names)),
        format!("look at each, then vouch for it: driftguard adopt {}", named(first)),
    )
}

fn conflicts(guards: &[Guarded]) -> Finding {
    let check = Check::Conflicts;
    let some: Vec<&Guarded> =
        guards.iter().filter(|guard| is(guard, ConditionType::Conflict, "True")).collect();
    let Some(first) = some.first() else {
        return Finding::ok(check, "no two guards pin one object differently");
    };
    let names: Vec<String> = some.iter().map(|guard| guard.state.id().to_string()).collect();
    Finding::fail(
        check,
        format!("{} pin what another guard pins differently", listed(&names)),
        format!("see with which one by driftguard explain {}, and delete or mend one of both", named(first)),
    )
}

/// "Configuration drift not detected", as the older operator's guide has it.
fn detection(guards: &[Guarded]) -> Finding {
    let check = Check::Detection;
    let blind: Vec<&Guarded> = guards
        .iter()
        .filter(|guard| says(guard, ConditionType::Drifted).is_none_or(|(status, _)| status == "Unknown"))
        .collect();
    let Some(first) = blind.first() else {
        let drifted = guards.iter().filter(|guard| is(guard, ConditionType::Drifted, "True")).count();
        return Finding::ok(
            check,
            format!("all of {} are watched; {drifted} have drifted", counted(guards.len(), "guard")),
        );
    };
    let names: Vec<String> = blind.iter().map(|guard| with_reason(guard, ConditionType::Drifted)).collect();
    Finding::fail(
        check,
        format!(
            "drift of {} of {} is not found: {}",
            blind.len(),
            counted(guards.len(), "guard"),
            listed(&names)
        ),
        format!(
            "see whether the operator may read the target (above) and whether the hash is right (driftguard diff {0}): \
             driftguard explain {0}",
            named(first)
        ),
    )
}

/// "Remediation failing", as the older operator's guide has it.
fn remediation(guards: &[Guarded]) -> Finding {
    let check = Check::Remediation;
    let asking: Vec<&Guarded> = guards.iter().filter(|guard| guard.remediates).collect();
    if asking.is_empty() {
        return Finding::skip(check, "no guard asks for it (spec.autoRemediate)");
    }
    let is_stuck = |guard: &Guarded| {
        let drifted = is(guard, ConditionType::Drifted, "True");
        let failed = guard.last_remediation.is_some_and(|result| {
            matches!(
                result,
                RemediationResult::NoVerifiedSource
                    | RemediationResult::Failed
                    | RemediationResult::NotAllowed
            )
        });
        drifted && failed
    };
    let stuck: Vec<&Guarded> = asking.iter().copied().filter(|guard| is_stuck(guard)).collect();
    let said = |guard: &Guarded| {
        let how = match guard.last_remediation {
            Some(RemediationResult::NoVerifiedSource) => "no source has the approved content",
            Some(RemediationResult::NotAllowed) => "a right is missing",
            _ => "it failed",
        };
        format!("{} ({how})", guard.state.id())
    };
    if let Some(first) = stuck.first() {
        let names: Vec<String> = stuck.iter().map(|guard| said(guard)).collect();
        return Finding::fail(
            check,
            format!("drift stays: {}", listed(&names)),
            format!("see what each source said and what is missing: driftguard explain {}", named(first)),
        );
    }
    let fighting: Vec<String> = asking
        .iter()
        .filter(|guard| is(guard, ConditionType::Fighting, "True"))
        .map(|guard| guard.state.id().to_string())
        .collect();
    if !fighting.is_empty() {
        return Finding::warn(
            check,
            format!("somebody keeps changing back the targets of {}", listed(&fighting)),
            "find who writes them by driftguard explain, and end that or mend the guards",
        );
    }
    let dry: Vec<&Guarded> =
        asking.iter().copied().filter(|guard| is(guard, ConditionType::SourceAvailable, "False")).collect();
    if let Some(first) = dry.first() {
        let names: Vec<String> =
            dry.iter().map(|guard| with_reason(guard, ConditionType::SourceAvailable)).collect();
        return Finding::warn(
            check,
            format!("no source stands ready for {}", listed(&names)),
            format!(
                "see whether its sources can be reached and hold what is approved: driftguard explain {}",
                named(first)
            ),
        );
    }
    Finding::ok(check, format!("{} ask for it, none waits for it in vain", counted(asking.len(), "guard")))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cli::doctor::finding::Outcome;
    use crate::core::guard::{Authorship, GuardId, InvalidGuard};

    /// A guard in namespace `n`, by its conditions.
    pub(in crate::cli::doctor::rules) fn guard(name: &str, conditions: &[(&str, &str, &str)]) -> Guarded {
        let state = crate::core::guard::GuardState::Invalid(
            InvalidGuard {
                id: GuardId { namespace: "n".into(), name: name.into() },
                uid: "u".into(),
                generation: 1,
                target: None,
                pauses: Vec::new().into(),
                authorship: Authorship::Unknown,
                reason: reasons::INVALID_SPEC,
                message: String::new(),
            }
            .into(),
        );
        let owned = |(of, status, reason): &(&str, &str, &str)| {
            ((*of).to_owned(), (*status).to_owned(), (*reason).to_owned())
        };
        Guarded {
            state,
            conditions: conditions.iter().map(owned).collect(),
            is_seen: true,
            names_enforcement: false,
            remediates: false,
            last_remediation: None,
        }
    }

    const PROVED: (&str, &str, &str) = ("Enforcing", "True", "Proved");

    #[test]
    fn a_guard_that_is_not_enforced_fails_unless_it_wants_to_let_writes_pass() {
        let detect = guard("b", &[("Enforcing", "False", reasons::DETECT_ONLY)]);
        assert_eq!(enforced(&[guard("a", &[PROVED]), detect.clone()]).outcome, Outcome::Ok);
        let pending = guard("c", &[("Enforcing", "Unknown", reasons::PROOF_FAILED)]);
        let told = enforced(&[guard("a", &[PROVED]), detect, pending, guard("d", &[])]);
        assert_eq!(told.outcome, Outcome::Fail);
        assert_eq!(
            told.detail,
            "2 of 4 guards not enforced: n/c (ProofFailed), n/d (nobody has looked at it)"
        );
        assert_eq!(told.mend.as_deref(), Some("driftguard explain c -n n"));
    }

    #[test]
    fn a_status_of_a_former_spec_proves_nothing() {
        let stale = Guarded { is_seen: false, ..guard("a", &[PROVED]) };
        assert_eq!(enforced(&[stale]).outcome, Outcome::Fail);
    }

    #[test]
    fn unknown_authors_warn_and_conflicts_fail() {
        let odd = guard("a", &[("AuthorUnknown", "True", "X"), ("Conflict", "True", "Y")]);
        assert_eq!(
            authors(&[odd.clone()]).mend.as_deref(),
            Some("look at each, then vouch for it: driftguard adopt a -n n")
        );
        assert_eq!(
            (authors(&[odd.clone()]).outcome, conflicts(&[odd]).outcome),
            (Outcome::Warn, Outcome::Fail)
        );
        let well = guard("a", &[("AuthorUnknown", "False", "X")]);
        assert_eq!(
            (authors(&[well.clone()]).outcome, conflicts(&[well]).outcome),
            (Outcome::Ok, Outcome::Ok)
        );
    }

    #[test]
    fn drift_is_not_found_where_nobody_can_tell() {
        let told = detection(&[guard("a", &[("Drifted", "Unknown", "Unreadable")]), guard("b", &[])]);
        assert_eq!(told.outcome, Outcome::Fail);
        assert!(told.detail.contains("n/a (Unreadable), n/b (nobody has looked at it)"), "{}", told.detail);
        let drifted = detection(&[guard("a", &[("Drifted", "True", "ContentDiffers")])]);
        assert_eq!(
            drifted.outcome,
            Outcome::Ok,
            "that is for whoever looks at guards, not at the installation"
        );
        assert!(drifted.detail.ends_with("1 have drifted"), "{}", drifted.detail);
    }

    #[test]
    fn remediation_that_left_drift_standing_says_why() {
        let of = |result, conditions: &[(&str, &str, &str)]| Guarded {
            remediates: true,
            last_remediation: result,
            ..guard("a", conditions)
        };
        let drifted = ("Drifted", "True", "ContentDiffers");
        let told = remediation(&[of(Some(RemediationResult::NoVerifiedSource), &[drifted])]);
        assert_eq!(told.detail, "drift stays: n/a (no source has the approved content)");
        assert_eq!(told.outcome, Outcome::Fail);
        let mended = of(Some(RemediationResult::NoVerifiedSource), &[("Drifted", "False", "InSync")]);
        assert_eq!(remediation(&[mended]).outcome, Outcome::Ok);
        let down = of(None, &[("SourceAvailable", "False", "Unreachable")]);
        assert_eq!(remediation(&[down]).outcome, Outcome::Warn);
        assert_eq!(remediation(&[guard("a", &[])]).outcome, Outcome::Skip);
    }

    #[test]
    fn without_guards_there_is_nothing_to_tell_and_unread_ones_are_not_well() {
        assert!(
            all(&Ok(Vec::new())).iter().all(|finding| finding.outcome == Outcome::Skip && !finding.untold)
        );
        let unread = Err(Unread { why: "forbidden".to_owned(), mend: "ask" });
        for told in all(&unread) {
            assert!(told.untold && told.mend.as_deref() == Some("ask"), "{told:?}");
        }
    }
}
