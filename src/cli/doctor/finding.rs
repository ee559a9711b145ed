//! What a check comes to, and how that is printed. Pure.

use serde::Serialize;

/// What is checked, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    ApiServer,
    Caller,
    Clock,
    Definitions,
    Operator,
    Replicas,
    Leader,
    Secrets,
    OperatorRights,
    TargetRights,
    RemediationRights,
    Registration,
    Rules,
    BrokenGlass,
    Certificates,
    Reachability,
    Enforced,
    Authors,
    Conflicts,
    Detection,
    Remediation,
}

impl Check {
    /// Every check.
    #[cfg(test)]
    pub(super) const ALL: [Self; 21] = [
        Self::ApiServer,
        Self::Caller,
        Self::Clock,
        Self::Definitions,
        Self::Operator,
        Self::Replicas,
        Self::Leader,
        Self::Secrets,
        Self::OperatorRights,
        Self::TargetRights,
        Self::RemediationRights,
        Self::Registration,
        Self::Rules,
        Self::BrokenGlass,
        Self::Certificates,
        Self::Reachability,
        Self::Enforced,
        Self::Authors,
        Self::Conflicts,
        Self::Detection,
        Self::Remediation,
    ];

    /// What it is called, here and in `docs/troubleshooting.md`.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::ApiServer => "API server",
            Self::Caller => "Caller",
            Self::Clock => "Clock",
            Self::Definitions => "CRDs",
            Self::Operator => "Operator pods",
            Self::Replicas => "Replicas",
            Self::Leader => "Leader",
            Self::Secrets => "Secrets",
            Self::OperatorRights => "Rights of the operator",
            Self::TargetRights => "Rights on guarded kinds",
            Self::RemediationRights => "Rights to put back",
            Self::Registration => "Webhook configurations",
            Self::Rules => "Rules against guards",
            Self::BrokenGlass => "Broken glass",
            Self::Certificates => "Certificates",
            Self::Reachability => "Webhook reachability",
            Self::Enforced => "Guards enforced",
            Self::Authors => "Authors of guards",
            Self::Conflicts => "Guards in conflict",
            Self::Detection => "Drift detection",
            Self::Remediation => "Remediation",
        }
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not do what it is for.
    Fail,
    /// It was not made; see [`Finding::untold`].
    Skip,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// Begins the detail of what could not be told.
const UNTOLD: &str = "could not be told: ";

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    #[serde(rename = "check", serialize_with = "title")]
    pub(super) check: Check,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    /// One command or sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
    /// Whether it is open how things stand, for want of a right or an answer: that is not "ok".
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) untold: bool,
}

fn title<S: serde::Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.title())
}

impl Finding {
    pub(super) fn ok(check: Check, detail: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Ok, detail: detail.into(), mend: None, untold: false }
    }

    pub(super) fn warn(check: Check, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, mend: Some(mend.into()), ..Self::ok(check, detail) }
    }

    pub(super) fn fail(check: Check, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, mend: Some(mend.into()), ..Self::ok(check, detail) }
    }

    /// There is nothing to check, or it was not to be checked.
    pub(super) fn skip(check: Check, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skip, ..Self::ok(check, detail) }
    }

    /// It could not be told.
    pub(super) fn untold(check: Check, why: impl std::fmt::Display, mend: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Skip,
            mend: Some(mend.into()),
            untold: true,
            ..Self::ok(check, format!("{UNTOLD}{why}"))
        }
    }

    /// What could not be read, with the usual next step.
    pub(super) fn unread(check: Check, why: impl std::fmt::Display) -> Self {
        Self::untold(check, why, "run it as somebody who may read that, such as a cluster administrator")
    }

    /// What was asked, and why there was no answer, of what could not be told. Where something is forbidden, that is
    /// the right that is lacking, whichever object was asked for.
    fn reason(&self) -> (&str, &str) {
        let why = self.detail.strip_prefix(UNTOLD).unwrap_or(&self.detail);
        let (asked, cause) = why.split_once(": ").unwrap_or(("", why));
        (asked, cause.split_once(" is forbidden: ").map_or(cause, |(_, right)| right))
    }

    /// Whether another one could not be told for the same cause, and the same mends it.
    fn has_reason_of(&self, other: &Self) -> bool {
        self.untold && other.untold && self.mend == other.mend && self.reason().1 == other.reason().1
    }

    /// What another finding is called beside this one, which has its reason.
    fn name_beside(&self, other: &Self) -> String {
        let (asked, title) = (other.reason().0, other.check.title());
        if self.reason().0 == asked {
            title.to_owned()
        } else if self.check == other.check {
            asked.to_owned()
        } else {
            format!("{title} ({asked})")
        }
    }
}

/// How many findings there are of each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) ok: usize,
    pub(super) warn: usize,
    pub(super) fail: usize,
    pub(super) skip: usize,
    pub(super) untold: usize,
}

impl Summary {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        Self {
            ok: count(Outcome::Ok),
            warn: count(Outcome::Warn),
            fail: count(Outcome::Fail),
            skip: count(Outcome::Skip),
            untold: findings.iter().filter(|finding| finding.untold).count(),
        }
    }
}

/// For people: a line each, what mends it below. A reason for which several could not be told is said once, with what
/// it hits.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.title().len()).max().unwrap_or_default();
    let mut groups: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in findings {
        match groups.iter_mut().find(|(first, _)| first.has_reason_of(finding)) {
            Some((first, others)) => others.push(first.name_beside(finding)),
            None => groups.push((finding, Vec::new())),
        }
    }
    let mut out = String::new();
    for (finding, others) in groups {
        let (word, title) = (finding.outcome.word(), finding.check.title());
        out.push_str(&format!("{word:<4}  {title:<width$}  {}\n", one_line(&finding.detail)));
        if let Some(mend) = &finding.mend {
            out.push_str(&format!("      {:<width$}  mend: {}\n", "", one_line(mend)));
        }
        if !others.is_empty() {
            out.push_str(&format!("      {:<width$}  the same for: {}\n", "", one_line(&others.join(", "))));
        }
    }
    let Summary { ok, warn, fail, skip, untold: _ } = Summary::of(findings);
    out.push_str(&format!("\n{ok} ok, {warn} warn, {fail} fail, {skip} skip\n"));
    out
}

/// Names and words of others must not look like findings of ours.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_finding_has_its_mend_below_and_nothing_breaks_a_line() {
        let findings = [
            Finding::ok(Check::Caller, "eve\nok  Rules"),
            Finding::fail(Check::Operator, "0 of 2 are ready", "driftguard install"),
        ];
        assert_eq!(
            text(&findings),
            "ok    Caller         eve ok  Rules\nfail  Operator pods  0 of 2 are ready\n\
             \x20                    mend: driftguard install\n\n1 ok, 0 warn, 1 fail, 0 skip\n"
        );
    }

    #[test]
    fn a_reason_is_said_once_with_all_that_it_hits() {
        let crd = |name| {
            let right = "User \"eve\" cannot get resource \"crds\"";
            Finding::unread(
                Check::Definitions,
                format!("reading CRD {name}: crds \"{name}\" is forbidden: {right}"),
            )
        };
        let guards = |check| Finding::untold(check, "listing DriftGuards: no answer", "list driftguards");
        let findings = [
            Finding::ok(Check::Caller, "eve"),
            crd("a"),
            crd("b"),
            guards(Check::Rules),
            Finding::unread(Check::Leader, "reading Lease x: no answer"),
            guards(Check::Enforced),
            Finding::unread(Check::Secrets, "looking for Secret y: no answer"),
            Finding::skip(Check::Remediation, "listing DriftGuards: no answer"),
        ];
        let said = text(&findings);
        let told: Vec<&str> =
            said.lines().map(str::trim).filter(|line| !line.starts_with("mend: ")).collect();
        assert_eq!(
            told,
            [
                "ok    Caller                eve",
                "skip  CRDs                  could not be told: reading CRD a: crds \"a\" is forbidden: User \"eve\" cannot get resource \"crds\"",
                "the same for: reading CRD b",
                "skip  Rules against guards  could not be told: listing DriftGuards: no answer",
                "the same for: Guards enforced",
                "skip  Leader                could not be told: reading Lease x: no answer",
                "the same for: Secrets (looking for Secret y)",
                "skip  Remediation           listing DriftGuards: no answer",
                "",
                "1 ok, 0 warn, 0 fail, 7 skip",
            ]
        );
    }

    #[test]
    fn what_could_not_be_told_is_counted_apart_from_what_was_left_out() {
        let findings =
            [Finding::skip(Check::Reachability, "left out"), Finding::unread(Check::Secrets, "forbidden")];
        let summary = Summary::of(&findings);
        assert_eq!((summary.skip, summary.untold), (2, 1));
    }

    #[test]
    fn machines_read_titles_and_outcomes_as_people_do() {
        let json = serde_json::to_value(Finding::warn(Check::Clock, "late", "set it")).unwrap();
        let wanted =
            serde_json::json!({"check": "Clock", "outcome": "warn", "detail": "late", "mend": "set it"});
        assert_eq!(json, wanted);
    }

    #[test]
    fn every_title_has_its_section_in_the_guide_to_trouble() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md");
        let guide = std::fs::read_to_string(path).unwrap();
        let sections: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let titles = Check::ALL.map(Check::title);
        let of_checks: Vec<&str> = sections.into_iter().filter(|title| titles.contains(title)).collect();
        assert_eq!(of_checks, titles);
    }
}
