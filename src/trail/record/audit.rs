//! Records of what the auditor found and did.

use jiff::Timestamp;

use super::made::{Circumstances, MAX_TEXT, cut};
use super::{Attribution, Guard, Kind, Record, User};
use crate::core;
use crate::core::audit::attribution;
use crate::core::audit::book::{self, RecordKind};
use crate::core::guard::Enforcement;

/// What the auditor found or did, and when and where it was told.
#[derive(Debug, Clone, Copy)]
pub struct Audited<'a> {
    /// What.
    pub entry: &'a book::Record,
    /// When.
    pub time: Timestamp,
    /// The replica that audits.
    pub replica: &'a str,
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

fn kind(of: RecordKind) -> Kind {
    match of {
        RecordKind::Drift | RecordKind::DriftChanged => Kind::Drift,
        RecordKind::Remediation => Kind::Remediation,
        RecordKind::Cleared | RecordKind::Closed => Kind::DriftEnd,
        RecordKind::RepresentationChanged => Kind::Representation,
        RecordKind::IncidentOpened | RecordKind::IncidentClosed => Kind::Incident,
    }
}
