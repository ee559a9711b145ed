//! A line a guard for spreadsheets and scripts: RFC 4180, with line feeds. Columns are only ever added at
//! the end.

use std::io::{self, Write};

use crate::core::report::{Change, Entry, Moment, Place, Report, State};
use crate::core::text::Text;

use super::by;
use super::escape::cell;

const TITLES: [&str; 24] = [
    "namespace",
    "guard",
    "state",
    "also",
    "reason",
    "message",
    "targetApiVersion",
    "targetKind",
    "targetNamespace",
    "targetName",
    "enforcement",
    "enforcing",
    "since",
    "by",
    "byKnownBy",
    "changedPaths",
    "source",
    "lastRemediationTime",
    "lastRemediationResult",
    "transactionId",
    "change",
    "guardFile",
    "targetFile",
    "targetLine",
];

/// The report.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", TITLES.join(","))?;
    for entry in &report.guards {
        let cells: Vec<String> = cells(entry).iter().map(|text| cell(text)).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

fn cells(entry: &Entry) -> [String; TITLES.len()] {
    let also: Vec<&str> = entry.also.iter().map(|state: &State| state.as_str()).collect();
    let known_by = entry.by.as_ref().map(|by| format!("{:?}", by.known_by));
    let last = entry.last_remediation.as_ref();
    let moment = |moment: Moment| moment.to_string();
    let text = |text: &Option<Text>| text.as_deref().unwrap_or_default().to_owned();
    let file =
        |place: &Option<Box<Place>>| place.as_ref().map(|place| place.file.clone()).unwrap_or_default();
    [
        entry.guard.namespace.to_string(),
        entry.guard.name.to_string(),
        entry.state.to_string(),
        also.join(" "),
        entry.reason.to_string(),
        entry.message.to_string(),
        text(&entry.target.api_version),
        entry.target.kind.to_string(),
        text(&entry.target.namespace),
        entry.target.name.to_string(),
        entry.enforcement.as_deref().unwrap_or_default().to_owned(),
        entry.enforcing.to_string(),
        entry.since.as_ref().map(|since| moment(since.time)).unwrap_or_default(),
        by(entry).unwrap_or_default().to_owned(),
        known_by.unwrap_or_default(),
        entry.changed_paths.join(" "),
        entry.source.state.as_str().to_owned(),
        last.map(|last| moment(last.time)).unwrap_or_default(),
        last.map(|last| last.result.clone()).unwrap_or_default(),
        text(&entry.transaction_id),
        entry.change.map_or("", Change::as_str).to_owned(),
        file(&entry.guard_file),
        file(&entry.target_file),
        entry.target_file.as_ref().map(|place| place.line.to_string()).unwrap_or_default(),
    ]
}
