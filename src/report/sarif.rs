//! SARIF 2.1.0, as code scanning takes it: a rule a state, a result a guard that is not in sync. A result
//! without a file stands at a path that names the guard, since readers demand one.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::core::guard::url_segment;
use crate::core::hash::ContentHash;
use crate::core::report::{Change, Entry, Report, State};

use super::verdict::Verdict;
use super::{by, paths};

/// The report, each result made when it is written.
#[derive(Serialize)]
pub(super) struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    runs: [Run<'a>; 1],
    version: &'static str,
}

#[derive(Serialize)]
struct Run<'a> {
    invocations: Value,
    results: Results<'a>,
    tool: Value,
}

struct Results<'a>(&'a Report);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reported = self.0.guards.iter().filter(|entry| entry.state != State::InSync);
        serializer.collect_seq(reported.map(result))
    }
}

impl<'a> Log<'a> {
    /// Of a report.
    pub(super) fn of(report: &'a Report) -> Self {
        let rules: Vec<Value> = reported().map(rule).collect();
        let tool = json!({"driver": {
            "name": "driftguard",
            "version": env!("CARGO_PKG_VERSION"),
            "informationUri": env!("CARGO_PKG_REPOSITORY"),
            "rules": rules,
        }});
        let invocations = json!([{
            "executionSuccessful": report.summary.count(State::Unreadable) == 0,
            "endTimeUtc": report.generated_at,
        }]);
        Self {
            schema: "https://json.schemastore.org/sarif-2.1.0.json",
            runs: [Run { invocations, results: Results(report), tool }],
            version: "2.1.0",
        }
    }
}

/// The states that are rules, in their order.
fn reported() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|state| *state != State::InSync)
}

fn rule(state: State) -> Value {
    json!({
        "id": state.as_str(),
        "shortDescription": {"text": state.meaning()},
        "helpUri": concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/reference/cli.md#driftguard-audit"),
    })
}

fn result(entry: &Entry) -> Value {
    let level = match Verdict::of(entry) {
        Verdict::Error | Verdict::Fail => "error",
        Verdict::Warn => "warning",
        Verdict::Skip | Verdict::Pass => "note",
    };
    let mut text = entry.message.to_string();
    if !entry.changed_paths.is_empty() {
        text.push_str(&format!("; changed: {}", paths(entry, 8)));
    }
    if let Some(name) = by(entry) {
        text.push_str(&format!("; by {name}"));
    }
    let mut result = json!({
        "ruleId": entry.state.as_str(),
        "ruleIndex": reported().position(|state| state == entry.state),
        "level": level,
        // Brackets would make links of what somebody else wrote.
        "message": {"text": text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]")},
        "locations": [location(entry)],
        // Of names alone, so that a finding is the same one tomorrow.
        "partialFingerprints": {"guardAndState/v1":
            ContentHash::of(format!("{} {} {}", entry.guard, entry.target, entry.state).as_bytes()).to_string()},
        "properties": {
            "guard": entry.guard.to_string(),
            "target": entry.target.to_string(),
            "reason": entry.reason,
            "also": entry.also,
        },
    });
    let baseline = match entry.change {
        Some(Change::New) => Some("new"),
        Some(Change::Unchanged) => Some("unchanged"),
        Some(Change::Changed) => Some("updated"),
        Some(Change::Resolved) | None => None,
    };
    if let Some(baseline) = baseline {
        result["baselineState"] = baseline.into();
    }
    result
}

fn location(entry: &Entry) -> Value {
    let place = entry.target_file.as_ref().or(entry.guard_file.as_ref());
    let (path, line) = match place {
        Some(place) => (place.file.clone(), place.line.max(1)),
        None => (format!("namespaces/{}/driftguards/{}", entry.guard.namespace, entry.guard.name), 1),
    };
    let uri = path.split('/').map(url_segment).collect::<Vec<_>>().join("/");
    json!({
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line}},
        "logicalLocations": [{
            "name": entry.target.name,
            "fullyQualifiedName": entry.target.to_string(),
            "kind": "object",
        }],
    })
}
