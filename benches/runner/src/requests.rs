//! Who asked the API server for what, from its own log: nobody who asks is trusted to count.

use jiff::Timestamp;
use serde_json::Value;

/// The user that `serve` is.
const OURS: &str = "system:serviceaccount:terrafusion-system:driftguard-operator";

/// One answered request. A watch counts when its answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    user: String,
    /// As RBAC calls it: `get`, `list`, `watch`, `patch`.
    pub verb: String,
    /// Plural of what was asked for; empty where it is no object, such as `/version`.
    pub resource: String,
    /// Path and query.
    pub uri: String,
    /// When it came.
    pub began: Timestamp,
    /// When it was answered.
    pub ended: Timestamp,
}

/// What a request of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To go on leading, or to be known.
    Lease,
    /// A watch that begins.
    Watch,
    /// A page of a sweep, or what is asked before one.
    Sweep,
    /// All else.
    Other,
}

impl Request {
    /// Reads an entry of the log; `None` for one that tells the end of a watch.
    pub(crate) fn read(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&entry["verb"]);
        let counts = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        (entry["stage"] == counts).then_some(())?;
        let time = |field: &str| entry[field].as_str()?.parse().ok();
        Some(Self {
            user: text(&entry["user"]["username"]),
            verb,
            resource: text(&entry["objectRef"]["resource"]),
            uri: text(&entry["requestURI"]),
            began: time("requestReceivedTimestamp")?,
            ended: time("stageTimestamp")?,
        })
    }

    /// Whether `serve` made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.user == OURS
    }

    /// Whether it is a page of a list of this size, of this resource.
    pub(crate) fn is_page_of(&self, resource: &str, size: usize) -> bool {
        let (_, query) = self.uri.split_once('?').unwrap_or_default();
        let limit = format!("limit={size}");
        self.verb == "list" && self.resource == resource && query.split('&').any(|part| part == limit)
    }

    /// What it is for.
    pub(crate) fn purpose(&self) -> Purpose {
        match (self.verb.as_str(), self.resource.as_str()) {
            (_, "leases") => Purpose::Lease,
            ("watch", _) => Purpose::Watch,
            ("get", "customresourcedefinitions") => Purpose::Sweep,
            _ if self.uri == "/version" || self.is_page_of(&self.resource, SWEEP_PAGE) => Purpose::Sweep,
            _ => Purpose::Other,
        }
    }
}

/// Objects in a page of a sweep of `serve`, by which sweeps are told from other lists.
pub(crate) const SWEEP_PAGE: usize = driftguard::audit::watch::SWEEP_PAGE as usize;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    fn request(verb: &str, resource: &str, uri: &str) -> Request {
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let entry = json!({
            "stage": stage, "verb": verb, "requestURI": uri, "objectRef": {"resource": resource},
            "user": {"username": OURS}, "requestReceivedTimestamp": "2026-01-05T09:30:00.000001Z",
            "stageTimestamp": "2026-01-05T09:30:00.250001Z",
        });
        Request::read(&entry).unwrap()
    }

    #[test]
    fn requests_are_told_apart_by_what_they_are_for() {
        let purpose = |verb, resource, uri| request(verb, resource, uri).purpose();
        let leases = "/apis/coordination.k8s.io/v1/namespaces/x/leases/y";
        assert_eq!(purpose("update", "leases", leases), Purpose::Lease);
        assert_eq!(purpose("watch", "configmaps", "/api/v1/configmaps?watch=true"), Purpose::Watch);
        assert_eq!(purpose("list", "configmaps", "/api/v1/configmaps?limit=2000&continue=x"), Purpose::Sweep);
        assert_eq!(purpose("get", "", "/version"), Purpose::Sweep);
        assert_eq!(purpose("list", "configmaps", "/api/v1/configmaps?limit=500"), Purpose::Other);
    }

    #[test]
    fn the_end_of_a_watch_is_no_request() {
        let entry = json!({"stage": "ResponseComplete", "verb": "watch"});
        assert_eq!(Request::read(&entry), None);
    }

    #[test]
    fn a_request_knows_how_long_it_took() {
        let asked = request("list", "configmaps", "/api/v1/configmaps?limit=2000");
        assert!(asked.is_ours());
        assert_eq!(asked.ended.duration_since(asked.began).as_millis(), 250);
    }
}
