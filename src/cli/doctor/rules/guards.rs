//! What the conditions of guards say, by the thing that is wrong. Their messages are not repeated: `explain` has
//! them.
//!
//! A status says how things stood when it was written. It shows that something is well only while somebody keeps it,
//! and only about the spec that it was written for.

use crate::api::reasons::ConditionType;
use crate::api::{RemediationResult, reasons};
use crate::cli::doctor::facts::{Guarded, Said, Told, Unread};
use crate::cli::doctor::finding::{Check, Finding, Outcome};
use crate::cli::words::{counted, listed};
use crate::core::guard::GuardState;
use crate::core::guard_spec::rival;
use crate::core::index::Index;

/// Reasons of `Enforcing` that are as somebody wanted them.
const WANTED: [&str; 1] = [reasons::DETECT_ONLY];

/// All of them; `leads` is whether somebody keeps statuses.
pub(super) fn all(guards: &Result<Vec<Guarded>, Unread>, leads: &Told<bool>) -> Vec<Finding> {
    let checks = [Check::Enforced, Check::Authors, Check::Conflicts, Check::Detection, Check::Remediation];
    match guards {
        Err(Unread { why, mend }) => {
            checks.into_iter().map(|check| Finding::untold(check, why, *mend)).collect()
        }
        Ok(guards) if guards.is_empty() => {
            checks.into_iter().map(|check| Finding::skip(check, "there are no guards")).collect()
        }
        Ok(guards) => vec![
            kept(enforced(guards), leads),
            kept(authors(guards), leads),
            // By the specs themselves, which are never old.
            conflicts(guards),
            kept(detection(guards), leads),
            kept(remediation(guards), leads),
        ],
    }
}

/// A finding by what statuses say, where nobody may keep them any more.
fn kept(finding: Finding, leads: &Told<bool>) -> Finding {
    let (why, mend) = match leads {
        Ok(true) => return finding,
        Ok(false) => (
            "nobody leads, so that statuses are of before".to_owned(),
            "see to whoever should lead (Leader, above), who looks at every guard anew",
        ),
        Err(why) => (
            format!("whether statuses are of now is not known, since who leads is not ({why})"),
            "run it as somebody who may read that, such as a cluster administrator",
        ),
    };
    match finding.outcome {
        Outcome::Ok => Finding::untold(finding.check, why, mend),
        Outcome::Warn | Outcome::Fail => Finding { detail: format!("{}; {why}", finding.detail), ..finding },
        Outcome::Skip => finding,
    }
}

/// A condition, whatever spec it is about.
fn said(guard: &Guarded, of_type: ConditionType) -> Option<&Said> {
    guard.conditions.iter().find(|said| said.of == of_type.as_str())
}

fn is(guard: &Guarded, of_type: ConditionType, status: &str) -> bool {
    said(guard, of_type).is_some_and(|said| said.status == status)
}

/// `NAME -n NAMESPACE`, as commands take it.
fn named(guard: &Guarded) -> String {
    let id = guard.state.id();
    format!("{} -n {}", id.name, id.namespace)
}

/// `namespace/name`.
fn ids(guards: &[&Guarded]) -> Vec<String> {
    guards.iter().map(|guard| guard.state.id().to_string()).collect()
}

/// `namespace/name (Reason)`.
fn with_reason(guard: &Guarded, of_type: ConditionType) -> String {
    let reason = match said(guard, of_type) {
        Some(said) if said.is_current => said.reason.as_str(),
        Some(_) => "nobody has looked at what it says now",
        None => "nobody has looked at it",
    };
    format!("{} ({reason})", guard.state.id())
}

fn enforced(guards: &[Guarded]) -> Finding {
    let check = Check::Enforced;
    let is_wrong = |guard: &&Guarded| match said(guard, ConditionType::Enforcing) {
        Some(said) if guard.is_seen && said.is_current => {
            said.status != "True" && !WANTED.contains(&said.reason.as_str())
        }
        _ => true,
    };
    let wrong: Vec<&Guarded> = guards.iter().filter(is_wrong).collect();
    let paused = guards.iter().filter(|guard| is(guard, ConditionType::Suspended, "True")).count();
    let pauses = match paused {
        0 => String::new(),
        some => format!("; {some} of them let every write pass for a while (suspend, exceptions)"),
    };
    let Some(first) = wrong.first() else {
        let detect = guards.iter().filter(|guard| !is(guard, ConditionType::Enforcing, "True")).count();
        let lets = match detect {
            0 => String::new(),
            some => format!("; {some} of them let writes pass by their own enforcement (Warn, Audit)"),
        };
        let detail = format!("all of {} do what they say{lets}{pauses}", counted(guards.len(), "guard"));
        return Finding::ok(check, detail);
    };
    let names: Vec<String> = wrong.iter().map(|guard| with_reason(guard, ConditionType::Enforcing)).collect();
    Finding::fail(
        check,
        format!(
            "{} of {} not enforced: {}{pauses}",
            wrong.len(),
            counted(guards.len(), "guard"),
            listed(&names)
        ),
        format!("driftguard explain {}", named(first)),
    )
}

/// The condition is there only while something is wrong, so that one that was never looked at lacks it, too. It is said
/// of guards alone that can be used.
fn authors(guards: &[Guarded]) -> Finding {
    let check = Check::Authors;
    let unknown: Vec<&Guarded> =
        guards.iter().filter(|guard| is(guard, ConditionType::AuthorUnknown, "True")).collect();
    if let Some(first) = unknown.first() {
        return Finding::warn(
            check,
            format!("nobody is known to have approved {}", listed(&ids(&unknown))),
            format!("look at each, then vouch for it: driftguard adopt {}", named(first)),
        );
    }
    let unseen: Vec<&Guarded> = guards.iter().filter(|guard| !guard.is_seen).collect();
    if let Some(first) = unseen.first() {
        return Finding::untold(
            check,
            format!("nobody has looked at {} as they stand", listed(&ids(&unseen))),
            format!("see why in Leader and Operator pods, above, or by driftguard explain {}", named(first)),
        );
    }
    let unusable = guards.iter().filter(|guard| matches!(guard.state, GuardState::Invalid(_))).count();
    if unusable == guards.len() {
        return Finding::skip(check, "no guard can be used");
    }
    let but = if unusable > 0 {
        format!("; {unusable} that cannot be used are not told of")
    } else {
        String::new()
    };
    Finding::ok(check, format!("each guard was approved by somebody who is known{but}"))
}

fn conflicts(guards: &[Guarded]) -> Finding {
    let check = Check::Conflicts;
    let index = Index::build(guards.iter().map(|guard| guard.state.clone()).collect());
    let has_rival = |guard: &&Guarded| {
        let target = guard.state.target();
        target.is_some_and(|target| rival(&guard.state, index.guards_of(target)).is_some())
    };
    let some: Vec<&Guarded> = guards.iter().filter(has_rival).collect();
    let Some(first) = some.first() else {
        return Finding::ok(check, "no two guards pin one object differently");
    };
    Finding::fail(
        check,
        format!("{} pin what another guard pins differently", listed(&ids(&some))),
        format!("see with which one by driftguard explain {}, and delete or mend one of both", named(first)),
    )
}

/// "Configuration drift not detected", as the older operator's guide has it.
fn detection(guards: &[Guarded]) -> Finding {
    let check = Check::Detection;
    let is_blind = |guard: &&Guarded| {
        said(guard, ConditionType::Drifted).is_none_or(|said| !said.is_current || said.status == "Unknown")
    };
    let blind: Vec<&Guarded> = guards.iter().filter(is_blind).collect();
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
            Some(RemediationResult::NotAllowed) => "it is not allowed",
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
    use crate::core::guard::{Authorship, GuardId, InvalidGuard, Target};

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
        let owned = |(of, status, reason): &(&str, &str, &str)| Said {
            of: (*of).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            is_current: true,
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

    /// The same guard, pinning the ConfigMap of this name.
    fn pinning(guard: Guarded, name: &str) -> Guarded {
        let GuardState::Invalid(invalid) = &guard.state else { unreachable!() };
        let target = Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("n".into()),
            name: name.into(),
        };
        let invalid = InvalidGuard { target: Some(target), ..InvalidGuard::clone(invalid) };
        Guarded { state: GuardState::Invalid(invalid.into()), ..guard }
    }

    #[test]
    fn unknown_authors_warn() {
        let odd = guard("a", &[("AuthorUnknown", "True", "X")]);
        let told = authors(&[odd]);
        assert_eq!(told.outcome, Outcome::Warn);
        assert_eq!(told.mend.as_deref(), Some("look at each, then vouch for it: driftguard adopt a -n n"));
    }

    #[test]
    fn of_guards_that_nobody_has_looked_at_no_author_is_called_known() {
        let unseen = Guarded { is_seen: false, ..guard("a", &[]) };
        let told = authors(&[unseen, guard("b", &[PROVED])]);
        assert!(told.untold && told.detail.contains("looked at n/a as"), "{told:?}");
        let unusable = guard("b", &[("Enforcing", "False", reasons::INVALID_SPEC)]);
        assert_eq!(authors(&[unusable]).outcome, Outcome::Skip, "nobody says who approved it");
    }

    #[test]
    fn conflicts_are_found_in_the_specs_whatever_statuses_say() {
        let one = || pinning(guard("a", &[]), "settings");
        let told =
            conflicts(&[one(), pinning(guard("b", &[]), "settings"), pinning(guard("c", &[]), "other")]);
        assert_eq!(told.outcome, Outcome::Fail);
        assert_eq!(told.detail, "n/a, n/b pin what another guard pins differently");
        let old = pinning(guard("c", &[("Conflict", "True", "X")]), "other");
        assert_eq!(conflicts(&[one(), old]).outcome, Outcome::Ok, "the other one is gone");
    }

    #[test]
    fn guards_that_are_paused_are_counted() {
        let paused = guard("b", &[PROVED, ("Suspended", "True", reasons::EXCEPTED)]);
        let ended = guard("c", &[PROVED, ("Suspended", "False", reasons::PAUSE_ENDED)]);
        let told = enforced(&[guard("a", &[PROVED]), paused, ended]);
        assert_eq!(told.outcome, Outcome::Ok, "that is for whoever looks at guards");
        assert!(
            told.detail.ends_with("1 of them let every write pass for a while (suspend, exceptions)"),
            "{told:?}"
        );
    }

    #[test]
    fn what_statuses_say_is_not_well_when_nobody_keeps_them() {
        let well = guard("a", &[PROVED, ("Drifted", "False", "InSync")]);
        let guards = Ok(vec![Guarded { remediates: true, ..pinning(well, "a") }]);
        assert!(all(&guards, &Ok(true)).iter().all(|told| !told.untold));
        for leads in [Ok(false), Err("forbidden".to_owned())] {
            for told in all(&guards, &leads) {
                assert!(
                    told.untold || told.check == Check::Conflicts || told.outcome != Outcome::Ok,
                    "{told:?}"
                );
            }
        }
        let wrong = Ok(vec![guard("a", &[("Enforcing", "Unknown", reasons::PROOF_FAILED)])]);
        let told = all(&wrong, &Ok(false)).remove(0);
        assert_eq!(told.outcome, Outcome::Fail, "what was wrong is no better");
        assert!(told.detail.ends_with("nobody leads, so that statuses are of before"), "{told:?}");
    }

    #[test]
    fn drift_of_a_former_spec_is_not_found() {
        let mut edited = guard("a", &[("Drifted", "False", "InSync")]);
        edited.conditions[0].is_current = false;
        let told = detection(&[edited]);
        assert_eq!(told.outcome, Outcome::Fail);
        assert!(told.detail.contains("n/a (nobody has looked at what it says now)"), "{told:?}");
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
            all(&Ok(Vec::new()), &Ok(true))
                .iter()
                .all(|finding| finding.outcome == Outcome::Skip && !finding.untold)
        );
        let unread = Err(Unread { why: "forbidden".to_owned(), mend: "ask" });
        for told in all(&unread, &Ok(true)) {
            assert!(told.untold && told.mend.as_deref() == Some("ask"), "{told:?}");
        }
    }
}
