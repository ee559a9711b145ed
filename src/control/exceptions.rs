//! The status of exceptions: whether one pauses guards, which ones, and until when in truth.
//!
//! Written like the status of guards: by the holder of the lease alone, and only what is new.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::exception::MOST_GUARDS;
use crate::api::{DriftGuardException, DriftGuardExceptionStatus, names, reasons};
use crate::core::exceptions::{Exception, digest};
use crate::store::{Observation, SeenException};
use crate::telemetry::metrics::Metrics;

use super::lease::Fence;
use super::status::Written;

/// Longest one write may take: registration waits for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message of a condition.
const MAX_MESSAGE: usize = 1024;

/// What a status is made of besides its exception.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    longest: SignedDuration,
    /// Why it cannot be said of a new exception that every replica lets writes pass.
    pending: Option<&'a str>,
    now: Timestamp,
}

/// After the end of an exception it is still found for so long what was changed under it: the auditor says so in a
/// moment.
const FOUND_FOR: SignedDuration = SignedDuration::from_secs(60);

/// A guard that an exception means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meant<'a> {
    name: &'a str,
    /// Whether its target was changed under a pause and is so still.
    is_changed: bool,
}

/// The status that an exception should have. `guards` are those that it means.
fn status(
    read: &Result<Exception, String>,
    guards: &[Meant<'_>],
    before: &DriftGuardExceptionStatus,
    facts: Facts<'_>,
) -> DriftGuardExceptionStatus {
    let Facts { longest, pending, now } = facts;
    let is_active = |condition: &&Condition| condition.type_ == reasons::EXCEPTION_ACTIVE;
    let active = before.conditions.iter().find(is_active);
    // What was said of all replicas once is not taken back while another exception is on its way to them.
    let pending = pending.filter(|_| active.is_none_or(|active| active.status != "True"));
    let mut status = before.clone();
    let (value, reason, message) = match read {
        Err(problem) => {
            status.until = None;
            ("False", reasons::INVALID_SPEC, format!("it pauses nothing: {problem}"))
        }
        Ok(exception) => {
            let end = exception.end(longest);
            status.until = Some(Time(end));
            let short = if end < exception.terms.until {
                format!(", not spec.until: {longest:#} at most (--max-exception)")
            } else {
                String::new()
            };
            if now < end + FOUND_FOR {
                note_changed(&mut status.changed, guards);
            }
            if now < end {
                status.guards = guards.iter().take(MOST_GUARDS).map(|guard| guard.name.to_owned()).collect();
                status.guard_count = Some(i32::try_from(guards.len()).unwrap_or(i32::MAX));
                let message = match guards.len() {
                    0 => format!("it means no guard of this namespace; it ends at {end:.0}{short}"),
                    1 => format!("writes to the target of 1 guard pass until {end:.0}{short}"),
                    many => format!("writes to the targets of {many} guards pass until {end:.0}{short}"),
                };
                match pending {
                    Some(why) => ("False", reasons::REPLICAS_PENDING, why.to_owned()),
                    None => ("True", reasons::IN_FORCE, message),
                }
            } else {
                let left = match status.changed.as_slice() {
                    [] => "; nothing was changed under it".to_owned(),
                    some => format!(
                        "; changed under it, and not put back until somebody approves or asks for it: the targets of {}",
                        some.join(", ")
                    ),
                };
                ("False", reasons::EXCEPTION_ENDED, format!("it ended at {end:.0}{short}{left}"))
            }
        }
    };
    let since = active
        .filter(|condition| condition.status == value)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    status.conditions = vec![Condition {
        type_: reasons::EXCEPTION_ACTIVE.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MAX_MESSAGE).collect(),
        // The spec never changes.
        observed_generation: None,
        last_transition_time: since,
    }];
    status
}

/// Adds those that were changed: what is approved or put back later has changed nevertheless.
fn note_changed(changed: &mut Vec<String>, guards: &[Meant<'_>]) {
    for guard in guards.iter().filter(|guard| guard.is_changed) {
        if changed.len() < MOST_GUARDS && changed.iter().all(|known| known != guard.name) {
            changed.push(guard.name.to_owned());
        }
    }
    changed.sort();
}

/// Whether a status holds something back for replicas that lag.
fn is_waiting(status: &DriftGuardExceptionStatus) -> bool {
    status.conditions.iter().any(|condition| condition.reason == reasons::REPLICAS_PENDING)
}

/// Whether our own index goes by these exceptions already.
pub(super) fn are_applied(
    exceptions: &[Arc<SeenException>],
    longest: SignedDuration,
    observation: &Observation,
) -> bool {
    let usable = exceptions.iter().filter_map(|seen| seen.read.as_ref().ok());
    observation.exceptions == Some(digest(usable, longest))
}

/// When the next exception ends, which its status must tell.
pub(super) fn next_end(
    exceptions: &[Arc<SeenException>],
    longest: SignedDuration,
    now: Timestamp,
) -> Option<Timestamp> {
    let ends = exceptions.iter().filter_map(|seen| seen.read.as_ref().ok()).map(|one| one.end(longest));
    ends.filter(|end| *end > now).min()
}

/// Writes statuses for as long as the fence holds.
pub(super) struct ExceptionWriter<'a> {
    pub(super) client: &'a kube::Client,
    pub(super) fence: &'a Fence,
    pub(super) metrics: &'a Metrics,
    pub(super) longest: SignedDuration,
    /// Why it cannot be said of a new one that every replica lets writes pass.
    pub(super) pending: Option<String>,
}

impl ExceptionWriter<'_> {
    /// Brings the status of every exception up to date. Where one could not be written, the rest is left for
    /// the next time, since registration waits.
    pub(super) async fn write_all(
        &self,
        exceptions: &[Arc<SeenException>],
        observation: &Observation,
        now: Timestamp,
    ) -> Written {
        let mut written = Written::default();
        let facts = Facts { longest: self.longest, pending: self.pending.as_deref(), now };
        // One after the other: there are few.
        for seen in exceptions {
            let before: DriftGuardExceptionStatus = seen.stored.status();
            let namespace = seen.stored.namespace();
            let guards: Vec<Meant<'_>> = seen.read.as_ref().map_or_else(
                |_| Vec::new(),
                |exception| {
                    observation
                        .meant_by(namespace, &exception.terms)
                        .map(|guard| Meant {
                            name: guard.stored.name(),
                            is_changed: guard
                                .stored
                                .status()
                                .audited()
                                .is_some_and(|said| said.changed_under_pause),
                        })
                        .collect()
                },
            );
            let status = status(&seen.read, &guards, &before, facts);
            written.waiting += usize::from(is_waiting(&status));
            if status != before && !self.write(seen, &status).await {
                written.failed += 1;
                return written;
            }
        }
        written
    }

    /// Writes one status. Tells whether there is nothing left to do for it.
    async fn write(&self, seen: &SeenException, status: &DriftGuardExceptionStatus) -> bool {
        if self.fence.check().is_err() {
            return false;
        }
        let (namespace, name) = (seen.stored.namespace(), seen.stored.name());
        let api: Api<DriftGuardException> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "DriftGuardException",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": seen.stored.uid(),
                "resourceVersion": seen.stored.resource_version(),
            },
            "status": status,
        });
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let patch = Patch::Apply(&patch);
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, api.patch_status(name, &params, &patch)).await;
        let failure = match sent {
            Ok(Ok(_)) => {
                self.metrics.status_write("written");
                return true;
            }
            // It is gone, or changed since it was read: the watch will tell.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.metrics.status_write("failed");
        tracing::warn!(namespace, name, error = failure, "the status of an exception could not be written");
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::exceptions::Terms;

    const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn exception(until: &str) -> Result<Exception, String> {
        let spec = format!(r#"{{"guards":{{"all":true}},"until":"{until}","reason":"why"}}"#);
        Ok(Exception {
            uid: "u".into(),
            namespace: "n".into(),
            name: "e".into(),
            since: at("2026-06-01T12:00:00Z"),
            terms: Terms::parse(&spec).unwrap(),
        })
    }

    fn of(
        read: &Result<Exception, String>,
        guards: &[&str],
        before: &DriftGuardExceptionStatus,
        now: &str,
    ) -> DriftGuardExceptionStatus {
        let guards: Vec<Meant<'_>> = guards.iter().map(|name| Meant { name, is_changed: false }).collect();
        status(read, &guards, before, Facts { longest: LONGEST, pending: None, now: at(now) })
    }

    fn said(status: &DriftGuardExceptionStatus) -> (&str, &str, &str) {
        let active = &status.conditions[0];
        (&active.status, &active.reason, &active.message)
    }

    #[test]
    fn it_says_which_guards_it_pauses_and_when_it_ends_in_truth() {
        let long = exception("2026-06-01T20:00:00Z");
        let active = of(&long, &["a", "b"], &DriftGuardExceptionStatus::default(), "2026-06-01T12:10:00Z");
        assert_eq!(active.until.as_ref().unwrap().0, at("2026-06-01T13:00:00Z"));
        assert_eq!(
            (active.guards.as_slice(), active.guard_count),
            (["a".into(), "b".into()].as_slice(), Some(2))
        );
        let (value, reason, message) = said(&active);
        assert_eq!((value, reason), ("True", "InForce"));
        assert!(message.contains("2 guards pass until 2026-06-01T13:00:00Z, not spec.until"), "{message}");
        let again = of(&long, &["a", "b"], &active, "2026-06-01T12:20:00Z");
        assert_eq!(again, active, "nothing new, nothing written");
    }

    #[test]
    fn it_is_active_only_once_every_replica_lets_writes_pass_and_stays_so() {
        let short = exception("2026-06-01T12:30:00Z");
        let of = |before: &DriftGuardExceptionStatus, pending, now: &str| {
            let guards = [Meant { name: "a", is_changed: false }];
            status(&short, &guards, before, Facts { longest: LONGEST, pending, now: at(now) })
        };
        let none = DriftGuardExceptionStatus::default();
        let waiting = of(&none, Some("replica b has not"), "2026-06-01T12:10:00Z");
        assert_eq!(said(&waiting), ("False", "ReplicasPending", "replica b has not"));
        assert!(is_waiting(&waiting));
        let active = of(&waiting, None, "2026-06-01T12:10:01Z");
        assert_eq!(said(&active).0, "True");
        assert_eq!(of(&active, Some("another one is new"), "2026-06-01T12:11:00Z"), active);
        let ended = of(&waiting, Some("replica b has not"), "2026-06-01T12:30:00Z");
        assert_eq!(said(&ended).1, "Ended");
        assert!(!is_waiting(&ended));
    }

    #[test]
    fn at_its_end_it_keeps_what_it_paused() {
        let short = exception("2026-06-01T12:30:00Z");
        let active = of(&short, &["a"], &DriftGuardExceptionStatus::default(), "2026-06-01T12:10:00Z");
        let ended = of(&short, &[], &active, "2026-06-01T12:30:00Z");
        let message = "it ended at 2026-06-01T12:30:00Z; nothing was changed under it";
        assert_eq!(said(&ended), ("False", "Ended", message));
        assert_eq!(ended.guards, ["a"]);
        assert_eq!(ended.conditions[0].last_transition_time.0, at("2026-06-01T12:30:00Z"));
        assert_eq!(of(&short, &[], &ended, "2026-06-02T00:00:00Z"), ended);
    }

    #[test]
    fn at_its_end_it_names_whose_targets_were_changed_whatever_became_of_them() {
        let short = exception("2026-06-01T12:30:00Z");
        let of = |guards: &[(&'static str, bool)], before: &DriftGuardExceptionStatus, now: &str| {
            let guards: Vec<Meant<'_>> =
                guards.iter().map(|&(name, is_changed)| Meant { name, is_changed }).collect();
            status(&short, &guards, before, Facts { longest: LONGEST, pending: None, now: at(now) })
        };
        let none = DriftGuardExceptionStatus::default();
        let first = of(&[("a", true), ("b", false), ("c", false)], &none, "2026-06-01T12:10:00Z");
        assert_eq!(first.changed, ["a"]);
        // What is undone has changed nevertheless, and the auditor may be a moment late.
        let ended = of(&[("a", false), ("b", false)], &first, "2026-06-01T12:30:00Z");
        let ended = of(&[("a", false), ("b", true)], &ended, "2026-06-01T12:30:02Z");
        assert_eq!(ended.changed, ["a", "b"]);
        assert!(said(&ended).2.ends_with("the targets of a, b"), "{}", said(&ended).2);
        assert_eq!(of(&[("c", true)], &ended, "2026-06-01T12:40:00Z"), ended, "changed under another one");
    }

    #[test]
    fn the_guards_that_it_names_are_bounded_and_their_number_is_not() {
        let names: Vec<String> = (0..100).map(|n| format!("g{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let status = of(
            &exception("2026-06-01T12:30:00Z"),
            &names,
            &DriftGuardExceptionStatus::default(),
            "2026-06-01T12:10:00Z",
        );
        assert_eq!((status.guards.len(), status.guard_count), (MOST_GUARDS, Some(100)));
    }

    #[test]
    fn one_that_cannot_be_read_says_that_it_pauses_nothing_and_why() {
        let status = of(
            &Err("no such field".into()),
            &[],
            &DriftGuardExceptionStatus::default(),
            "2026-06-01T12:10:00Z",
        );
        assert_eq!(said(&status), ("False", "InvalidSpec", "it pauses nothing: no such field"));
        assert_eq!(status.until, None);
    }

    #[test]
    fn the_next_end_is_the_nearest_one_to_come() {
        let seen = |until| {
            let stored = serde_json::from_str(r#"{"metadata":{}}"#).unwrap();
            Arc::new(SeenException { stored, read: exception(until) })
        };
        let all = [seen("2026-06-01T12:05:00Z"), seen("2026-06-01T12:20:00Z"), seen("2026-06-09T00:00:00Z")];
        let next = |now| next_end(&all, LONGEST, at(now));
        assert_eq!(next("2026-06-01T12:05:00Z"), Some(at("2026-06-01T12:20:00Z")));
        assert_eq!(next("2026-06-01T12:30:00Z"), Some(at("2026-06-01T13:00:00Z")));
        assert_eq!(next("2026-06-01T13:00:00Z"), None);
    }
}
