//! Reports of `openreports.io/v1alpha1`, one for each namespace that has guards: in sync is `pass`, drifted
//! `fail`, or `warn` where the guard lets writes pass, not enforced `warn`, without a source or not to be
//! told `error`, suspended `skip`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::core::report::{Entry, Report, State};
use crate::manifests::yaml;

use super::by;
use super::verdict::Verdict;

/// Name of each report.
const NAME: &str = "driftguard-audit";
/// What the results come from.
const SOURCE: &str = "driftguard";
/// Most results of one report: an object must stay below 1.5 MB. The worst go first.
const MOST: usize = 500;

/// The reports as a stream of YAML documents; empty when there is no guard.
pub(super) fn render(report: &Report) -> Result<String, yaml::YamlError> {
    let mut by_namespace: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in &report.guards {
        by_namespace.entry(&entry.guard.namespace).or_default().push(entry);
    }
    let documents = by_namespace
        .into_iter()
        .map(|(namespace, entries)| yaml::document("the report", &object(report, namespace, entries)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(documents.join("---\n"))
}

fn object(report: &Report, namespace: &str, mut entries: Vec<&Entry>) -> Value {
    let mut summary: BTreeMap<&str, u64> =
        ["pass", "fail", "warn", "error", "skip"].map(|word| (word, 0)).into();
    for entry in &entries {
        *summary.entry(Verdict::of(entry).as_str()).or_default() += 1;
    }
    entries.sort_by_key(|entry| (Verdict::of(entry), entry.state));
    entries.truncate(MOST);
    let seconds = report.generated_at.timestamp().as_second();
    json!({
        "apiVersion": "openreports.io/v1alpha1",
        "kind": "Report",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": SOURCE},
        },
        "source": SOURCE,
        "scope": {"apiVersion": "v1", "kind": "Namespace", "name": namespace},
        "configuration": {"limits": {"maxResults": MOST}},
        "summary": summary,
        "results": entries.into_iter().map(|entry| result(entry, seconds)).collect::<Vec<_>>(),
    })
}

fn result(entry: &Entry, seconds: i64) -> Value {
    let verdict = Verdict::of(entry);
    let severity = match verdict {
        Verdict::Fail => "high",
        Verdict::Error | Verdict::Warn => "medium",
        Verdict::Skip => "low",
        Verdict::Pass => "info",
    };
    let target = &entry.target;
    let mut subject = json!({"kind": target.kind, "name": target.name});
    for (field, value) in [("apiVersion", &target.api_version), ("namespace", &target.namespace)] {
        if let Some(value) = value {
            subject[field] = value.as_str().into();
        }
    }
    json!({
        "source": SOURCE,
        "policy": entry.guard.name,
        "rule": "approved-content",
        "category": "Configuration drift",
        "severity": severity,
        "result": verdict.as_str(),
        "scored": verdict != Verdict::Warn,
        "timestamp": {"seconds": seconds, "nanos": 0},
        "resources": [subject],
        "message": entry.message,
        "properties": properties(entry),
    })
}

/// What else is known: texts alone, as the format demands.
fn properties(entry: &Entry) -> Map<String, Value> {
    let also: Vec<&str> = entry.also.iter().map(|state: &State| state.as_str()).collect();
    let all = [
        ("state", entry.state.to_string()),
        ("also", also.join(" ")),
        ("reason", entry.reason.clone()),
        ("enforcement", entry.enforcement.clone().unwrap_or_default()),
        ("sourceOfTruth", entry.source.state.as_str().to_owned()),
        ("since", entry.since.as_ref().map(|since| since.time.to_string()).unwrap_or_default()),
        ("by", by(entry).unwrap_or_default().to_owned()),
        ("changedPaths", entry.changed_paths.iter().take(8).cloned().collect::<Vec<_>>().join(" ")),
        ("transactionId", entry.transaction_id.clone().unwrap_or_default()),
    ];
    all.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key.to_owned(), text.into()))
        .collect()
}
