//! Records of what the auditor found and did.

use jiff::Timestamp;

use super::made::{Circumstances, MAX_TEXT, cut};
use super::{Attribution, Guard, Kind, Record, Source, User};
use crate::core;
use crate::core::audit::attribution;
use crate::core::audit::book::{self, RecordKind};
use crate::core::guard::Enforcement;

/// Most sources of one record: more than a guard can name.
const MAX_SOURCES: usize = 16;

/// What the auditor found or did, and when and where it was told.
#[derive(Debug, Clone, Copy)]
pub struct Audited<'a> {
    /// What.
    pub entry: &'a book::Record,
    /// When.
    pub time: Timestamp,
    /// The replica that audits.
    pub replica: &'a str,
    /// What each source said, where an attempt to restore has asked them.
    pub sources: &'a [Source<'a>],
}

impl<'a> Record<'a> {
    /// The record of what the auditor found or did.
    #[must_use]
    pub fn of_audit(guard: &'a core::guard::Guard, audited: &Audited<'a>) -> Self {
        let entry = audited.entry;
        let circumstances = Circumstances {
            transaction_id: entry.transaction_id.clone(),
            time: audited.time,
            denied: false,
            review_uid: "",
            replica: audited.replica,
            authenticated: true,
            message: &entry.message,
        };
        let record = Self {
            kind: kind(entry.kind),
            enforcement: Some(Enforcement::as_str(guard.enforcement)),
            image_hash: entry.hash.filter(|_| !guard.scope.is_secret()).map(|hash| format!("sha256:{hash}")),
            paths: entry.paths.iter().map(|path| cut(path, MAX_TEXT)).collect(),
            sources: audited.sources.iter().take(MAX_SOURCES).map(bounded).collect(),
            ..Self::of_state(
                Guard::of(&guard.id, &guard.uid, guard.generation),
                Some(&guard.target),
                entry.reason,
                circumstances,
            )
        };
        match entry.kind {
            RecordKind::Drift | RecordKind::DriftChanged => record.by(&entry.attribution),
            _ => record,
        }
    }

    fn by(self, attribution: &'a attribution::Attribution) -> Self {
        match attribution {
            attribution::Attribution::ObservedAtAdmission { user, manager, allowed: true, .. } => Self {
                attribution: Attribution::ObservedAtAdmission,
                user: Some(User { name: cut(user, MAX_TEXT), uid: "", groups: Vec::new() }),
                field_manager: cut(manager, MAX_TEXT),
                ..self
            },
            attribution::Attribution::FieldManager { manager, .. } => {
                Self { attribution: Attribution::FieldManager, field_manager: cut(manager, MAX_TEXT), ..self }
            }
            // What was refused at admission came otherwise, not necessarily by the same user.
            attribution::Attribution::ObservedAtAdmission { .. }
            | attribution::Attribution::Unknown { .. } => Self { attribution: Attribution::Unknown, ..self },
        }
    }
}

fn bounded<'a>(source: &Source<'a>) -> Source<'a> {
    Source { source: cut(source.source, MAX_TEXT), message: cut(source.message, MAX_TEXT), ..*source }
}

fn kind(of: RecordKind) -> Kind {
    match of {
        RecordKind::Drift | RecordKind::DriftChanged => Kind::Drift,
        RecordKind::Remediation => Kind::Remediation,
        RecordKind::Cleared | RecordKind::Closed => Kind::DriftEnd,
        RecordKind::RepresentationChanged => Kind::Representation,
        RecordKind::IncidentOpened | RecordKind::IncidentClosed => Kind::Incident,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::core::few::Few;
    use crate::core::guard::{
        Author, Authorship, DeletionPolicy, FailurePolicy, GuardId, Signer, Target, Versions,
    };
    use crate::core::hash::ContentHash;
    use crate::core::paths::PathFilter;
    use crate::core::scope::Scope;

    fn guard() -> core::guard::Guard {
        core::guard::Guard {
            id: GuardId { namespace: "prod".into(), name: "g".into() },
            uid: "u".into(),
            generation: 2,
            target: Target {
                group: "".into(),
                version: "v1".into(),
                kind: "ConfigMap".into(),
                resource: "configmaps".into(),
                namespace: Some("prod".into()),
                name: "x".into(),
            },
            scope: Scope::new("", "ConfigMap", PathFilter::everything()),
            expected: ContentHash::of(b"{}"),
            also_approved: Few::default(),
            equivalents: Few::default(),
            enforcement: Enforcement::Deny,
            failure_policy: FailurePolicy::Fail,
            deletion_policy: DeletionPolicy::Allow,
            pauses: Few::default(),
            authorship: Authorship::Signed(Arc::new(Author {
                signer: Arc::new(Signer { user: "alice".into(), groups: Vec::new() }),
                at: Timestamp::UNIX_EPOCH,
            })),
            replicas_path: None,
            versions: Versions::default(),
            managed_by: None,
            contact: None,
            runbook: None,
        }
    }

    fn remediation() -> book::Record {
        book::Record {
            kind: RecordKind::Remediation,
            reason: "Restored",
            message: "put back".into(),
            transaction_id: "t".into(),
            paths: Vec::new(),
            attribution: attribution::Attribution::default(),
            hash: None,
        }
    }

    fn written(sources: &[Source<'_>]) -> serde_json::Value {
        let (guard, entry) = (guard(), remediation());
        let audited = Audited { entry: &entry, time: Timestamp::UNIX_EPOCH, replica: "r", sources };
        serde_json::to_value(Record::of_audit(&guard, &audited)).unwrap()
    }

    #[test]
    fn a_remediation_tells_what_each_source_said_in_the_order_of_asking() {
        let sources = [
            Source {
                source: "git team/repo config.yaml",
                result: "unavailable",
                reason: "Unreachable",
                message: "nobody answers",
            },
            Source { source: "last known good", result: "matched", reason: "Matched", message: "" },
        ];
        let record = written(&sources);
        assert_eq!(
            record["sources"],
            json!([
                {"source": "git team/repo config.yaml", "result": "unavailable", "reason": "Unreachable",
                    "message": "nobody answers"},
                {"source": "last known good", "result": "matched", "reason": "Matched"},
            ])
        );
        assert!(include_str!("../../../docs/reference/record.md").contains("| `sources` |"));
        assert_eq!(written(&[]).get("sources"), None);
    }

    #[test]
    fn what_sources_say_is_bounded() {
        let long = "\u{e4}".repeat(10_000);
        let one = Source { source: &long, result: "invalid", reason: "Invalid", message: &long };
        let record = written(&vec![one; 1_000]);
        assert_eq!(record["sources"].as_array().unwrap().len(), MAX_SOURCES);
        assert!(record.to_string().len() < 40_000);
    }
}
