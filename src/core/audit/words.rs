//! What people read about a guard's target: in its conditions, in alerts and in the trail.
//!
//! Names, paths and moments, never a value. Only commands that exist are named.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::guard::Guard;
use crate::core::message::clean;

use super::attribution::Attribution;
use super::breaker::Incident;
use super::finding::Reason;
use super::step::LastDrift;

/// Longest message, in characters: what a condition holds here.
const MAX_MESSAGE: usize = 1000;
/// Longest text of somebody else in a message.
const MAX_QUOTED: usize = 300;
/// Most paths in a message; all that are known stand in the status.
const MAX_PATHS: usize = 3;
/// The annotation by which a person acknowledges an incident.
pub const ACKNOWLEDGE: &str = "driftguard.terrafusion.ai/acknowledge";
/// The annotation by which a person asks for the approved content to be put back once. Any value that was not heeded
/// before asks.
pub const RESTORE: &str = "driftguard.terrafusion.ai/restore";
/// What the condition `Drifted` says while the approved content is being put back.
pub const UNDER_WAY: &str = "the approved content is being put back";
/// What it says while another attempt waits for its time.
pub const WAITS: &str = "the approved content is put back again after";
/// Longest value of [`RESTORE`] that is told apart, in characters; what follows is not looked at.
const MAX_ASKED: usize = 256;
/// Approves what the API server shows now, of every guard that goes by an equivalent.
const APPROVE_REPRESENTATIONS: &str = "driftguard approve --representation -A";

/// Why nothing is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    Paused { until: Timestamp },
    ExceptionEnded,
    DefinitionChanged,
    Conflict,
    AutoRemediateOff,
    RemediationOff,
    AuthorUnknown,
    Rbac,
    NamespaceTerminating,
    Terminating,
    Incident { id: String },
}

/// What becomes of a drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Held(Hold),
    Waits(Timestamp),
    UnderWay,
}

/// To the second, so that two people read the same.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn span(length: Duration) -> String {
    jiff::SignedDuration::try_from(length).map(|length| format!("{length:#}")).unwrap_or_default()
}

/// The message of the condition `Drifted` when nothing is wrong.
pub(super) fn in_sync(guard: &Guard, reason: Reason, calm_at: Option<Timestamp>) -> String {
    let target = &guard.target;
    let what = match reason {
        Reason::RepresentationChanged => format!(
            "what is stored of {target} is approved; the API server shows it otherwise than when it was approved"
        ),
        _ => format!("{target} is as approved"),
    };
    clean(
        &match calm_at {
            Some(at) => {
                format!("{what} again; failed checks are counted until it stays so after {}", moment(at))
            }
            None => what,
        },
        MAX_MESSAGE,
    )
}

/// The message while what was approved is yet to be applied.
pub(super) fn awaiting(guard: &Guard, until: Timestamp) -> String {
    let text = format!(
        "{} is still what the guard approved before it was changed; from {} on that is drift",
        guard.target,
        moment(until)
    );
    clean(&text, MAX_MESSAGE)
}

/// The message when the target could not be read.
pub(super) fn unreadable(guard: &Guard, why: &str) -> String {
    clean(&format!("{} cannot be read: {}", guard.target, clean(why, MAX_QUOTED)), MAX_MESSAGE)
}

/// What is drifted, and how.
pub(super) fn what(guard: &Guard, reason: Reason, last: Option<&LastDrift>) -> String {
    let target = &guard.target;
    let mut text = match reason {
        Reason::BypassedAdmission => format!(
            "{target} changed although admission is enforced: something wrote past it, such as straight into etcd"
        ),
        Reason::Missing => format!("{target} is missing"),
        Reason::NotApplied => {
            format!(
                "{target} is still what the guard approved before it was changed: the change was not applied in time"
            )
        }
        Reason::ApprovalEnded => format!("{target} holds content whose approval has ended"),
        Reason::DefinitionChanged => format!(
            "nobody wrote {target}, but it reads otherwise than before: somebody edited the definition of its kind (kubectl get crd {}.{} -o yaml)",
            target.resource, target.group
        ),
        Reason::Excepted | Reason::SuspendedBySpec => {
            format!("{target} was changed while the guard is paused")
        }
        Reason::ExceptionEnded => format!("{target} was changed while the guard was paused"),
        _ => format!("{target} is not as approved"),
    };
    if let Some(last) = last {
        text.push_str(&paths(&last.paths));
        if let Some(actor) = last.attribution.actor() {
            text.push_str(&format!(", by {actor}"));
        } else if let Attribution::ObservedAtAdmission { .. } = last.attribution {
            text.push_str(&format!(", by {}", last.attribution));
        }
    }
    text
}

fn paths(paths: &[String]) -> String {
    if paths.is_empty() {
        return String::new();
    }
    let some: Vec<String> = paths.iter().take(MAX_PATHS).map(|path| clean(path, MAX_QUOTED / 2)).collect();
    match paths.len().saturating_sub(MAX_PATHS) {
        0 => format!(" in {}", some.join(", ")),
        more => format!(" in {} and {more} more", some.join(", ")),
    }
}

/// The message of the condition `Drifted` while it is true.
pub(super) fn drifted(
    guard: &Guard,
    reason: Reason,
    last: Option<&LastDrift>,
    next: &Next,
    trouble: Option<&str>,
) -> String {
    let mut text = format!("{}; {}", what(guard, reason, last), becomes(guard, next));
    if let Some(trouble) = trouble {
        text.push_str(&format!("; the last attempt: {}", clean(trouble, MAX_QUOTED)));
    }
    clean(&text, MAX_MESSAGE)
}

fn becomes(guard: &Guard, next: &Next) -> String {
    let id = &guard.id;
    match next {
        Next::UnderWay => UNDER_WAY.to_owned(),
        Next::Waits(until) => format!("{WAITS} {}, since it did not last", moment(*until)),
        Next::Held(Hold::Paused { until }) => format!("nothing is put back before {}", moment(*until)),
        Next::Held(Hold::ExceptionEnded) => format!(
            "it is not put back until somebody approves it (spec.expectedHash) or asks for it to be restored: {}",
            restore(guard)
        ),
        Next::Held(Hold::DefinitionChanged) => {
            "nothing is written: undo the edit, or approve how it reads now".to_owned()
        }
        Next::Held(Hold::Conflict) => {
            "nothing is put back while another guard pins it differently: delete one of the two".to_owned()
        }
        Next::Held(Hold::AutoRemediateOff) => format!(
            "spec.autoRemediate is false: approve what is there, or put the approved content back, once by {}",
            restore(guard)
        ),
        Next::Held(Hold::RemediationOff) => {
            "nothing is put back by this installation (serve --remediation=off)".to_owned()
        }
        Next::Held(Hold::AuthorUnknown) => format!(
            "nothing is put back, since nobody is known to have approved it: driftguard adopt -n {} {}",
            id.namespace, id.name
        ),
        Next::Held(Hold::Rbac) => {
            "objects of rbac.authorization.k8s.io are never put back: that would need the rights to escalate and bind".to_owned()
        }
        Next::Held(Hold::NamespaceTerminating) => "its namespace is being deleted".to_owned(),
        Next::Held(Hold::Terminating) => "it is being deleted, and put back once it is gone".to_owned(),
        Next::Held(Hold::Incident { id: incident }) => format!(
            "nothing is put back, since many guards drifted at once: find out why, then {}",
            acknowledge(guard, incident)
        ),
    }
}

/// What a value of [`RESTORE`] asks for; `None` when it is empty.
#[must_use]
pub fn restore_asked(annotation: &str) -> Option<String> {
    let asked: String = annotation.chars().take(MAX_ASKED).collect();
    (!asked.is_empty()).then_some(asked)
}

/// The command that has the approved content put back once.
fn restore(guard: &Guard) -> String {
    format!("driftguard restore -n {} {}", guard.id.namespace, guard.id.name)
}

/// The command that acknowledges an incident.
fn acknowledge(guard: &Guard, incident: &str) -> String {
    format!(
        "kubectl annotate driftguards.terrafusion.ai -n {} {} {ACKNOWLEDGE}={incident} --overwrite",
        guard.id.namespace, guard.id.name
    )
}

/// What is said when many guards drift at once; `names` are some of them.
pub(super) fn incident(guard: &Guard, incident: &Incident, window: Duration, names: &[String]) -> String {
    let (count, of) = incident.counts;
    let text = format!(
        "{count} of {of} guards of {} drifted within {}, last {} ({}): nothing is put back there until all of \
         them are as approved or somebody has looked; admission goes on. Likely a wrong approval or source, or \
         a restored backup. Then: {}",
        incident.reach.name(),
        span(window),
        guard.id,
        names.join(", "),
        acknowledge(guard, &incident.id)
    );
    clean(&text, MAX_MESSAGE)
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    Clearing,
    Person,
    Wider,
}

impl EndedBy {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Clearing => "Cleared",
            Self::Person => "Acknowledged",
            Self::Wider => "TakenUp",
        }
    }
}

/// What is said when an incident is over.
pub(super) fn incident_over(incident: &Incident, by: EndedBy) -> String {
    let reach = incident.reach.name();
    match by {
        EndedBy::Clearing => format!("remediation goes on in {reach}: all of its guards are as approved"),
        EndedBy::Person => format!("remediation goes on in {reach}: somebody has acknowledged the incident"),
        EndedBy::Wider => format!("the incident of {reach} is part of one of the whole cluster now"),
    }
}

/// The message of the condition `Fighting` while it is true.
pub(super) fn fighting(guard: &Guard, rival: Option<&str>) -> String {
    let rival = rival.map_or_else(
        || "somebody (nothing tells who)".to_owned(),
        |name| format!("field manager {}", clean(name, MAX_QUOTED)),
    );
    let text = format!(
        "{rival} keeps undoing what is put back in {}: attempts are made ever more rarely, at least every 5 minutes; stop it, or approve what it writes",
        guard.target
    );
    clean(&text, MAX_MESSAGE)
}

/// What is said of a target whose watch has not told of a change.
pub(super) fn missed(guard: &Guard, interval: Duration) -> String {
    let text = format!(
        "a sweep found a change of {} that its watch had not told, so that drift may be found as late as {} after it began; said until no more is missed for two such intervals. Look for API servers, or proxies before them, that drop watch events",
        guard.target,
        span(interval)
    );
    clean(&text, MAX_MESSAGE)
}

/// What is said of a target that can be read and not be watched.
pub(super) fn not_watched(guard: &Guard, interval: Duration) -> String {
    let text = format!(
        "no watch tells of {}, so it is read each {} and drift is found no sooner; where a right is missing, the condition Ready names it",
        guard.target,
        span(interval)
    );
    clean(&text, MAX_MESSAGE)
}

/// The text of an alert: what is so, and whom to ask.
pub(super) fn alert(guard: &Guard, message: &str) -> String {
    let mut text = format!("DriftGuard {}: {message}", guard.id);
    for (label, other) in [("contact", &guard.contact), ("runbook", &guard.runbook)] {
        if let Some(other) = other {
            text.push_str(&format!("\n{label}: {}", clean(other, MAX_QUOTED)));
        }
    }
    text
}

/// What is recorded of a restore.
pub(super) fn restored(guard: &Guard, source: &str) -> String {
    clean(&format!("{} was put back as approved, from {source}", guard.target), MAX_MESSAGE)
}

/// What is said of an alerted guard that is deleted, or that pins something else now.
pub(super) fn forgotten(guard: &Guard) -> String {
    format!("DriftGuard {} is gone, or no longer pins {}", guard.id, guard.target)
}

/// What is said when an episode is over.
pub(super) fn closed(guard: &Guard, interval: Duration) -> String {
    clean(&format!("{} has been as approved for {}", guard.target, span(interval)), MAX_MESSAGE)
}

/// What is said once for the cluster when the API server begins to show stored content otherwise.
pub(super) fn representation(from: &str, to: &str) -> String {
    format!(
        "API server {} shows some stored objects otherwise than {} did; nobody changed them, and their guards \
         go on with the new hash beside the approved one. Once no API server of {} is left, approve the new \
         hashes: {APPROVE_REPRESENTATIONS}",
        clean(to, MAX_QUOTED),
        clean(from, MAX_QUOTED),
        clean(from, MAX_QUOTED)
    )
}
