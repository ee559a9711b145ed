//! Where what the auditor finds and does is told: in the trail, as Events, and to whoever is alerted.

use jiff::Timestamp;

use crate::alert::Delivery;
use crate::alert::older::About;
use crate::core::audit::alert::Alert;
use crate::core::audit::book::{Record as Entry, RecordKind, Terms};
use crate::core::guard::Guard;
use crate::sources::SourceReport;
use crate::telemetry::notices::{Notice, NoticeSink};
use crate::trail::record::{Audited, Record, Source};
use crate::trail::sink::RecordSink;

use super::remediation::{Attempted, Outcome};

/// Where it is told, and as whom.
#[derive(Debug, Clone)]
pub struct Telling {
    /// Name of this replica.
    pub replica: String,
    /// The trail.
    pub records: RecordSink,
    /// Events that concern a guard itself.
    pub notices: NoticeSink,
    /// Events of findings, alerts, and telemetry as the older operator sent it.
    pub delivery: Delivery,
}

impl Telling {
    /// An alert, or that it is over.
    pub(super) fn alert(&self, alert: &Alert) {
        tracing::warn!(
            namespace = %alert.guard.namespace,
            name = %alert.guard.name,
            transactionId = alert.episode,
            reason = alert.reason.as_str(),
            resolved = alert.resolved,
            "{}",
            alert.message
        );
        self.delivery.put(alert);
    }

    /// An entry of the trail. `asked` is what each source said, where an attempt has asked them.
    pub(super) fn record(
        &self,
        guard: &Guard,
        terms: Terms,
        entry: &Entry,
        asked: &[SourceReport],
        now: Timestamp,
    ) {
        let asked = if entry.kind == RecordKind::Remediation { asked } else { &[] };
        let sources: Vec<Source<'_>> = asked.iter().map(source).collect();
        let audited = Audited { entry, time: now, replica: &self.replica, sources: &sources };
        self.records.put(&Record::of_audit(guard, &audited));
        tracing::info!(
            namespace = %guard.id.namespace,
            name = %guard.id.name,
            gvk = %format!("{}/{}", guard.target.api_version(), guard.target.kind),
            transactionId = entry.transaction_id,
            reason = entry.reason,
            "{}",
            entry.message
        );
        if matches!(entry.kind, RecordKind::Drift) {
            let about = about(guard, terms, &entry.transaction_id, entry.hash, now);
            self.delivery.drift(&about, entry.reason, &entry.message);
        }
    }

    /// The end of an attempt to restore.
    pub(super) fn attempted(
        &self,
        guard: &Guard,
        terms: Terms,
        transaction_id: &str,
        attempted: &Attempted,
        now: Timestamp,
    ) {
        let (source, note) = match &attempted.outcome {
            Outcome::Restored { source } => {
                (Some(source.as_str()), format!("the approved content was put back from {source}"))
            }
            Outcome::NoVerifiedSource => {
                (None, "no source has the approved content; nothing was changed".into())
            }
            Outcome::NotAllowed(why) | Outcome::Failed(why) => (None, format!("not put back: {why}")),
            Outcome::Terminating => {
                (None, "not put back: the object or its namespace is being deleted".into())
            }
            Outcome::AlreadyRight | Outcome::GivenUp(_) | Outcome::Overtaken => return,
        };
        let about = about(guard, terms, transaction_id, None, now);
        self.delivery.remediation(&about, attempted.outcome.reason(), source, &note);
    }

    /// What concerns the whole cluster, told once, regarding the first guard that it was seen of.
    pub(super) fn announce(&self, guard: &Guard, note: &str) {
        tracing::warn!(namespace = %guard.id.namespace, name = %guard.id.name, "{note}");
        self.notices.put(Notice {
            guard: guard.id.clone(),
            uid: guard.uid.as_str().into(),
            reason: "RepresentationChanged",
            note: note.to_owned(),
        });
    }
}

fn source(report: &SourceReport) -> Source<'_> {
    Source {
        source: &report.source,
        result: report.result.as_str(),
        reason: report.reason,
        message: &report.sentence,
    }
}

fn about<'a>(
    guard: &'a Guard,
    terms: Terms,
    transaction_id: &'a str,
    current: Option<crate::core::hash::ContentHash>,
    at: Timestamp,
) -> About<'a> {
    About {
        transaction_id,
        at,
        guard: &guard.id,
        guard_uid: &guard.uid,
        target: &guard.target,
        expected: guard.expected,
        current,
        auto_remediate: terms.auto_remediate,
    }
}
