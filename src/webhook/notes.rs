//! What the API server is asked to note of an answer in its audit log: by which record of the trail the same write
//! is found.
//!
//! The log names each key behind the name of the entry that called us. Words, names of guards and transaction ids
//! alone: whole teams may read it.

use serde::Serialize;

use crate::core::guard::GuardId;
use crate::trail::record::OwnAttempt;

/// Most characters of guards or transaction ids in one note. Several guards may pin one target.
const MOST: usize = 1_024;

/// `auditAnnotations` of an answer. A plain allow has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Notes {
    /// `deny`, `warn`, `audit` or `rewrite`, as in metrics.
    verdict: &'static str,
    /// As in records.
    reason: &'static str,
    /// The guards that have something to say, as `namespace/name`, with commas between them.
    #[serde(skip_serializing_if = "String::is_empty")]
    guard: String,
    /// Their records, likewise. None of a dry run, which is not recorded.
    #[serde(skip_serializing_if = "String::is_empty")]
    transaction_id: String,
}

impl Notes {
    /// Of a verdict that is not a plain allow.
    pub(super) fn of(verdict: &'static str, reason: &'static str) -> Self {
        Self { verdict, reason, ..Self::default() }
    }

    /// Of an attempt on an object of our own, where that is recorded.
    pub(super) fn of_own(
        verdict: &'static str,
        reason: &'static str,
        told: Option<&OwnAttempt>,
        transaction_id: &str,
    ) -> Self {
        let mut notes = Self::of(verdict, reason);
        if told.is_some() {
            append(&mut notes.transaction_id, transaction_id);
        }
        notes
    }

    /// A guard that has something to say, and the record of that where there is one.
    pub(super) fn note(&mut self, guard: &GuardId, transaction_id: Option<&str>) {
        append(&mut self.guard, &guard.to_string());
        self.record(transaction_id);
    }

    /// A record.
    pub(super) fn record(&mut self, transaction_id: Option<&str>) {
        append(&mut self.transaction_id, transaction_id.unwrap_or_default());
    }
}

fn append(all: &mut String, one: &str) {
    if one.is_empty() || all.len() + one.len() >= MOST {
        return;
    }
    if !all.is_empty() {
        all.push(',');
    }
    all.push_str(one);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_note_names_every_guard_and_record_and_is_bounded() {
        let guard = |name: &str| GuardId { namespace: "prod".into(), name: name.into() };
        let mut notes = Notes::of("warn", "AlreadyDrifted");
        assert_eq!(
            serde_json::to_value(&notes).unwrap(),
            json!({"verdict": "warn", "reason": "AlreadyDrifted"})
        );
        notes.note(&guard("a"), Some("tx-1"));
        notes.note(&guard("b"), Some("tx-2"));
        assert_eq!(
            serde_json::to_value(&notes).unwrap(),
            json!({"verdict": "warn", "reason": "AlreadyDrifted", "guard": "prod/a,prod/b",
                "transaction-id": "tx-1,tx-2"})
        );
        for _ in 0..1_000 {
            notes.note(&guard(&"x".repeat(253)), Some(&"y".repeat(36)));
        }
        assert!(notes.guard.len() <= MOST && notes.transaction_id.len() <= MOST);
    }
}
