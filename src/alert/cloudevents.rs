//! An alert as a CloudEvent in structured mode (CloudEvents 1.0.2, JSON format).
//!
//! No value of any object is in it and no hash at all: an alert has none.

use serde::Serialize;

use super::event::{Event, Kind};
use crate::core::audit::alert::Alert;

/// Content type of a CloudEvent in structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// Type of an alert.
pub const DRIFT: &str = "ai.terrafusion.driftguard.drift.v1";
/// Type of the notice that what an alert was about is over.
pub const RESOLVED: &str = "ai.terrafusion.driftguard.resolved.v1";
/// Longest message, in bytes; ours are far shorter.
const MAX_MESSAGE: usize = 4096;
/// Longest of all other texts.
const MAX_TEXT: usize = 1024;
/// Most paths that are named.
const MAX_PATHS: usize = 64;

/// The envelope. Names of attributes are those of the specification.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    state: &'static str,
    episode: &'a str,
    guard: Guard<'a>,
    target: Target<'a>,
    reason: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
}

/// The guard of a message.
#[derive(Debug, Serialize)]
pub(super) struct Guard<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
}

impl<'a> Guard<'a> {
    pub(super) fn of(id: &'a crate::core::guard::GuardId, uid: &'a str) -> Self {
        Self { namespace: &id.namespace, name: &id.name, uid: cut(uid, MAX_TEXT) }
    }
}

/// The target of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target<'a> {
    api_version: String,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn of(target: &'a crate::core::guard::Target) -> Self {
        Self {
            api_version: target.api_version(),
            kind: &target.kind,
            namespace: target.namespace.as_deref(),
            name: &target.name,
        }
    }
}

/// Whether an alert begins or is over.
pub(super) fn state(alert: &Alert) -> &'static str {
    if alert.resolved { "resolved" } else { "firing" }
}

/// The message that tells of an alert, from the installation that `source` names.
#[must_use]
pub fn event(alert: &Alert, source: &str) -> Event {
    let state = state(alert);
    let id = format!("{}-{state}", alert.episode);
    let envelope = CloudEvent {
        specversion: "1.0",
        id: &id,
        source,
        kind: if alert.resolved { RESOLVED } else { DRIFT },
        subject: alert.target.to_string(),
        time: alert.at.to_string(),
        datacontenttype: "application/json",
        data: Data {
            state,
            episode: &alert.episode,
            guard: Guard::of(&alert.guard, &alert.guard_uid),
            target: Target::of(&alert.target),
            reason: alert.reason.as_str(),
            message: cut(&alert.message, MAX_MESSAGE),
            paths: alert.paths.iter().take(MAX_PATHS).map(|path| cut(path, MAX_TEXT)).collect(),
            actor: alert.actor.as_deref().map(|actor| cut(actor, MAX_TEXT)),
        },
    };
    // Texts and lists of texts always serialise.
    let body = serde_json::to_string(&envelope).unwrap_or_default();
    Event { id, transaction_id: alert.episode.clone(), kind: Kind::Alert, body }
}

/// The first `most` bytes of `text` that are whole characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::{Value, json};

    use super::super::test_support::alert;
    use super::*;
    use crate::core::audit::alert::AlertReason;

    #[test]
    fn an_alert_is_a_cloud_event_with_all_that_one_must_know() {
        let event = event(&alert(false), "/driftguard/prod");
        let body: Value = serde_json::from_str(&event.body).unwrap();
        assert_eq!(
            body,
            json!({
                "specversion": "1.0",
                "id": "019a0f3e-7c00-7a10-8000-0123456789ab-firing",
                "source": "/driftguard/prod",
                "type": "ai.terrafusion.driftguard.drift.v1",
                "subject": "ConfigMap/trading/market-settings",
                "time": "2026-06-01T12:00:00Z",
                "datacontenttype": "application/json",
                "data": {
                    "state": "firing",
                    "episode": "019a0f3e-7c00-7a10-8000-0123456789ab",
                    "guard": {"namespace": "trading", "name": "market-settings-guard", "uid": "5d3c0e6e"},
                    "target": {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "namespace": "trading",
                        "name": "market-settings",
                    },
                    "reason": "BypassedAdmission",
                    "message": "somebody wrote past admission",
                    "paths": ["/data/price"],
                    "actor": "alice (observed at admission)",
                },
            })
        );
    }

    const PAGE: &str = include_str!("../../docs/alerts.md");

    #[test]
    fn the_example_for_receivers_is_what_is_sent() {
        let example = PAGE.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let example: Value = serde_json::from_str(example).unwrap();
        let sent: Value = serde_json::from_str(&event(&alert(false), "/driftguard").body).unwrap();
        assert_eq!(sent, example);
        for reason in AlertReason::ALL {
            assert!(
                PAGE.contains(&format!("`{}`", reason.as_str())),
                "{reason:?} is missing in docs/alerts.md"
            );
        }
    }

    #[test]
    fn alert_and_notice_have_ids_of_their_own_and_one_transaction() {
        let (firing, resolved) = (event(&alert(false), "s"), event(&alert(true), "s"));
        assert_ne!(firing.id, resolved.id);
        assert_eq!(firing.transaction_id, resolved.transaction_id);
        assert!(resolved.body.contains(RESOLVED));
    }

    #[test]
    fn the_size_of_a_message_is_bounded() {
        let mut long = alert(false);
        let endless = "\u{e9}\n".repeat(100_000);
        long.message.clone_from(&endless);
        long.paths = vec![endless.clone(); 500];
        long.actor = Some(endless);
        assert!(event(&long, "s").body.len() < 200_000);
    }
}
