//! JUnit's XML, which every CI system shows: a suite a namespace, a case a guard.

use std::io::{self, Write};

use crate::core::report::{Entry, Report, State};

use super::escape::markup;
use super::verdict::Verdict;
use super::{by, paths};

/// Cases by how they ended.
#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

/// How a case ends: JUnit knows no warning, so that a state which is only one passes unless it counts as a
/// finding by default.
fn verdict(entry: &Entry) -> Verdict {
    match (Verdict::of(entry), entry.state) {
        (Verdict::Warn, State::AuthorUnknown) => Verdict::Pass,
        (Verdict::Warn, _) => Verdict::Fail,
        (verdict, _) => verdict,
    }
}

impl Counts {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            counts.tests += 1;
            match verdict(entry) {
                Verdict::Error => counts.errors += 1,
                Verdict::Fail | Verdict::Warn => counts.failures += 1,
                Verdict::Skip => counts.skipped += 1,
                Verdict::Pass => {}
            }
        }
        counts
    }

    fn attributes(&self) -> String {
        let Self { tests, failures, errors, skipped } = self;
        format!(r#"tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}""#)
    }
}

/// The report.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let all = Counts::of(report.guards.iter()).attributes();
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, r#"<testsuites name="driftguard audit" {all}>"#)?;
    for suite in report.guards.chunk_by(|left, right| left.guard.namespace == right.guard.namespace) {
        let Some(first) = suite.first() else { continue };
        let (name, counts) = (markup(&first.guard.namespace), Counts::of(suite.iter()).attributes());
        let at = report.generated_at.to_string();
        let at = at.trim_end_matches('Z');
        writeln!(out, r#"  <testsuite name="{name}" {counts} timestamp="{at}">"#)?;
        for entry in suite {
            case(entry, out)?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}

fn case(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let class = markup(&format!("driftguard.{}", entry.guard.namespace));
    let name = markup(&format!("{} ({})", entry.guard.name, entry.target));
    let place = entry.target_file.as_ref().or(entry.guard_file.as_ref());
    let place = place.map(|place| format!(r#" file="{}" line="{}""#, markup(&place.file), place.line));
    let place = place.unwrap_or_default();
    let message = markup(&entry.message);
    let kind = markup(&format!("{} {}", entry.state, entry.reason));
    let details = markup(&details(entry));
    let inside = match verdict(entry) {
        Verdict::Pass => {
            return writeln!(out, r#"    <testcase classname="{class}" name="{name}"{place}/>"#);
        }
        Verdict::Skip => format!(r#"<skipped message="{message}"/>"#),
        Verdict::Error => format!(r#"<error type="{kind}" message="{message}">{details}</error>"#),
        Verdict::Fail | Verdict::Warn => {
            format!(r#"<failure type="{kind}" message="{message}">{details}</failure>"#)
        }
    };
    writeln!(
        out,
        "    <testcase classname=\"{class}\" name=\"{name}\"{place}>\n      {inside}\n    </testcase>"
    )
}

/// What is known beside the message, a line each.
fn details(entry: &Entry) -> String {
    let mut lines = vec![entry.message.to_string()];
    if !entry.changed_paths.is_empty() {
        lines.push(format!("changed: {}", paths(entry, usize::MAX)));
    }
    if let Some(name) = by(entry) {
        lines.push(format!("by: {name}"));
    }
    if let Some(since) = &entry.since {
        lines.push(format!("since: {}", since.time));
    }
    if !entry.also.is_empty() {
        let also: Vec<&str> = entry.also.iter().map(|state| state.as_str()).collect();
        lines.push(format!("also: {}", also.join(", ")));
    }
    lines.join("\n")
}
