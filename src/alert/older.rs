//! What the older operator told its Telemetry Service, in the same places and by the same names.
//!
//! `POST /telemetry/driftguard` tells of drift and `POST /telemetry/driftguard/remediation` of an attempt to
//! restore, both with `X-Event-ID` and `X-Transaction-ID`. A hash of a Secret is in neither.

use jiff::Timestamp;
use serde::Serialize;

use super::cloudevents::{Guard, Target, cut};
use super::event::{Event, Kind};
use crate::core::guard::{GuardId, Target as CoreTarget};
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;

/// Path of a notice of drift, below the address of the Telemetry Service.
pub const DRIFT_PATH: &str = "/telemetry/driftguard";
/// Path of a notice of a remediation.
pub const REMEDIATION_PATH: &str = "/telemetry/driftguard/remediation";
/// Header with the id of the event.
pub const EVENT_ID: &str = "x-event-id";
/// Header with the id of the transaction: what belongs to one drift has one.
pub const TRANSACTION_ID: &str = "x-transaction-id";
/// Longest text, in bytes.
const MAX_TEXT: usize = 1024;

/// What both kinds of notice are about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Ties together what belongs to one drift.
    pub transaction_id: &'a str,
    /// When it happened.
    pub at: Timestamp,
    /// The guard.
    pub guard: &'a GuardId,
    /// `metadata.uid` of the guard.
    pub guard_uid: &'a str,
    /// What it pins.
    pub target: &'a CoreTarget,
    /// The approved hash; left out of what is sent about a Secret, whoever calls.
    pub expected: ContentHash,
    /// The hash of what stands there; as above. `None` where nothing does or it is not known.
    pub current: Option<ContentHash>,
    /// `spec.autoRemediate`.
    pub auto_remediate: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    event_id: &'a str,
    transaction_id: &'a str,
    timestamp: String,
    guard: Guard<'a>,
    target: Target<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_hash: Option<String>,
    auto_remediate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

/// The notice that drift was found.
#[must_use]
pub fn drift(about: &About<'_>) -> Event {
    event(about, Kind::Drift, None, None)
}

/// The notice of an attempt to restore: its `result` is a stable word, and `source` says where the content came
/// from.
#[must_use]
pub fn remediation(about: &About<'_>, result: &str, source: Option<&str>) -> Event {
    event(about, Kind::Remediation, Some(result), source)
}

fn event(about: &About<'_>, kind: Kind, result: Option<&str>, source: Option<&str>) -> Event {
    // New for each: one transaction may drift, and be tried, many times, under one leader and the next.
    let id = uuid::Uuid::now_v7().to_string();
    let target = about.target;
    let is_secret = Scope::new(&target.group, &target.kind, PathFilter::everything()).is_secret();
    let shown = |hash: ContentHash| (!is_secret).then(|| hash.to_string());
    let notice = Notice {
        event_id: &id,
        transaction_id: about.transaction_id,
        timestamp: about.at.to_string(),
        guard: Guard::of(about.guard, about.guard_uid),
        target: Target::of(target),
        expected_hash: shown(about.expected),
        current_hash: about.current.and_then(shown),
        auto_remediate: about.auto_remediate,
        result,
        source: source.map(|source| cut(source, MAX_TEXT)),
    };
    // Texts and lists of texts always serialise.
    let body = serde_json::to_string(&notice).unwrap_or_default();
    Event { id, transaction_id: about.transaction_id.to_owned(), kind, body }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::{Value, json};

    use super::super::test_support::alert;
    use super::*;

    fn told(kind: &str) -> (Event, Value) {
        let mut alert = alert(false);
        alert.target.kind = kind.into();
        let about = About {
            transaction_id: &alert.episode,
            at: alert.at,
            guard: &alert.guard,
            guard_uid: &alert.guard_uid,
            target: &alert.target,
            expected: ContentHash::of(b"approved"),
            current: Some(ContentHash::of(b"found")),
            auto_remediate: true,
        };
        let event = remediation(&about, "Restored", Some("git trading/repository"));
        let body = serde_json::from_str(&event.body).unwrap();
        (event, body)
    }

    #[test]
    fn a_notice_says_what_the_older_operator_said() {
        let (event, body) = told("ConfigMap");
        assert_eq!(
            body,
            json!({
                "eventId": event.id,
                "transactionId": "019a0f3e-7c00-7a10-8000-0123456789ab",
                "timestamp": "2026-06-01T12:00:00Z",
                "guard": {"namespace": "trading", "name": "market-settings-guard", "uid": "5d3c0e6e"},
                "target": {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "namespace": "trading",
                    "name": "market-settings",
                },
                "expectedHash": ContentHash::of(b"approved").to_string(),
                "currentHash": ContentHash::of(b"found").to_string(),
                "autoRemediate": true,
                "result": "Restored",
                "source": "git trading/repository",
            })
        );
        assert_eq!(event.kind, Kind::Remediation);
        for field in body.as_object().unwrap().keys() {
            let told = include_str!("../../docs/alerts.md").contains(&format!("`{field}`"));
            assert!(told, "{field} is missing in docs/alerts.md");
        }
    }

    #[test]
    fn no_two_notices_have_the_same_id() {
        let ((first, _), (second, _)) = (told("ConfigMap"), told("ConfigMap"));
        assert_eq!(first.transaction_id, second.transaction_id);
        assert_ne!(first.id, second.id);
    }

    #[test]
    fn no_hash_of_a_secret_is_told() {
        let (_, body) = told("Secret");
        assert!(body.get("expectedHash").is_none() && body.get("currentHash").is_none(), "{body}");
        assert_eq!(body["target"]["name"], "market-settings");
    }
}
