//! Reports of `openreports.io/v1alpha1`, one for each namespace that has guards: in sync is `pass`, drifted
//! `fail`, or `warn` where the guard lets writes pass, not enforced `warn`, without a source or not to be
//! told `error`, suspended `skip`.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use crate::core::report::{Entry, Moment, Report, State};
use crate::manifests::yaml;

use super::verdict::Verdict;
use super::{RenderError, by};

/// Name of each report of an audit.
const NAME: &str = "driftguard-audit";
/// What the results come from, and who manages the reports.
pub const SOURCE: &str = "driftguard";
/// Most results of one report. The worst go first.
const MOST: usize = 500;
/// Most bytes of all results as JSON: an object must stay below 1.5 MB, and some agents send them on.
const MOST_BYTES: usize = 900_000;

/// The reports as a stream of YAML documents; empty when there is no guard.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> Result<(), RenderError> {
    let mut by_namespace: BTreeMap<&str, NamespaceReport<&Entry>> = BTreeMap::new();
    for entry in &report.guards {
        let namespace = entry.guard.namespace.as_str();
        by_namespace.entry(namespace).or_insert_with(|| NamespaceReport::new(namespace)).add(entry);
    }
    let mut between = "";
    for report_of_one in by_namespace.into_values() {
        out.write_all(between.as_bytes())?;
        let object = report_of_one.finish(NAME, Stamp::At(report.generated_at));
        yaml::document_to("the report", &object, out)?;
        between = "---\n";
    }
    Ok(())
}

/// The time that stands on results.
#[derive(Debug, Clone, Copy)]
pub enum Stamp {
    /// The moment of the audit.
    At(Moment),
    /// Since when the state has lasted, where that is known: the same report as long as nothing changes.
    Since,
}

/// The report of one namespace under way. However many guards are added, only the worst are held.
#[derive(Debug)]
pub struct NamespaceReport<E> {
    namespace: String,
    summary: BTreeMap<&'static str, u64>,
    entries: Vec<E>,
}

impl<E: Borrow<Entry>> NamespaceReport<E> {
    /// Of a namespace, without any guard yet.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let summary = ["pass", "fail", "warn", "error", "skip"].map(|word| (word, 0)).into();
        Self { namespace: namespace.to_owned(), summary, entries: Vec::new() }
    }

    /// Adds a guard; in order of their names.
    pub fn add(&mut self, entry: E) {
        *self.summary.entry(Verdict::of(entry.borrow()).as_str()).or_default() += 1;
        self.entries.push(entry);
        if self.entries.len() > 2 * MOST {
            self.keep_worst();
        }
    }

    fn keep_worst(&mut self) {
        self.entries.sort_by_key(|entry| (Verdict::of(entry.borrow()), entry.borrow().state));
        self.entries.truncate(MOST);
    }

    /// The object, of this name.
    #[must_use]
    pub fn finish(mut self, name: &str, stamp: Stamp) -> Value {
        self.keep_worst();
        let mut size = 0;
        let results: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| result(entry.borrow(), stamp))
            .take_while(|result| {
                size += result.to_string().len();
                size <= MOST_BYTES
            })
            .collect();
        json!({
            "apiVersion": "openreports.io/v1alpha1",
            "kind": "Report",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {"app.kubernetes.io/managed-by": SOURCE},
            },
            "source": SOURCE,
            "scope": {"apiVersion": "v1", "kind": "Namespace", "name": self.namespace},
            "configuration": {"limits": {"maxResults": MOST}},
            "summary": self.summary,
            "results": results,
        })
    }
}

fn result(entry: &Entry, stamp: Stamp) -> Value {
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
    let mut result = json!({
        "source": SOURCE,
        "policy": entry.guard.name,
        "rule": "approved-content",
        "category": "Configuration drift",
        "severity": severity,
        "result": verdict.as_str(),
        "scored": verdict != Verdict::Warn,
        "resources": [subject],
        "message": entry.message,
        "properties": properties(entry),
    });
    let time = match stamp {
        Stamp::At(moment) => Some(moment),
        Stamp::Since => entry.since.as_ref().map(|since| since.time),
    };
    if let Some(time) = time {
        result["timestamp"] = json!({"seconds": time.timestamp().as_second(), "nanos": 0});
    }
    result
}

/// What else is known: texts alone, as the format demands.
fn properties(entry: &Entry) -> Map<String, Value> {
    let also: Vec<&str> = entry.also.iter().map(|state: &State| state.as_str()).collect();
    let all = [
        ("state", entry.state.to_string()),
        ("also", also.join(" ")),
        ("reason", entry.reason.to_string()),
        ("enforcement", entry.enforcement.as_deref().unwrap_or_default().to_owned()),
        ("sourceOfTruth", entry.source.state.as_str().to_owned()),
        ("since", entry.since.as_ref().map(|since| since.time.to_string()).unwrap_or_default()),
        ("by", by(entry).unwrap_or_default().to_owned()),
        ("changedPaths", entry.changed_paths.iter().take(8).cloned().collect::<Vec<_>>().join(" ")),
        ("transactionId", entry.transaction_id.as_deref().unwrap_or_default().to_owned()),
    ];
    all.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key.to_owned(), text.into()))
        .collect()
}
