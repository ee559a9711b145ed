//! A report of an audit as people and programs read it: one file for each way of writing it.
//!
//! Everything shown was made by [`crate::core::report`], which lets no value and no hash of a Secret in.
//! What a format takes for markup is escaped here, whatever a cluster holds.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::core::report::{Entry, Name, Report, SourceState, State};
use crate::manifests::yaml;

mod csv;
mod escape;
mod html;
mod junit;
pub mod openreports;
mod sarif;
mod table;
mod verdict;

pub use table::Screen;

/// A way of writing a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line a guard, for people.
    Table,
    /// The same with all that is known.
    Wide,
    /// The report itself, as JSON.
    Json,
    /// The report itself, as YAML.
    Yaml,
    /// A line a guard, for spreadsheets.
    Csv,
    /// XML as CI systems show it.
    Junit,
    /// SARIF, as code scanning shows it.
    Sarif,
    /// One page for a browser.
    Html,
    /// Reports of `openreports.io`, to be applied.
    OpenReports,
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// JSON could not be made.
    #[error("cannot write the report as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// YAML could not be made.
    #[error(transparent)]
    Yaml(#[from] yaml::YamlError),
    /// Whoever takes it takes no more.
    #[error("cannot write the report: {0}")]
    Io(#[from] io::Error),
}

/// Writes the report in a format, guard by guard: no format is held as a whole. The screen counts for tables
/// alone.
///
/// # Errors
/// [`RenderError`] when it cannot be written so.
pub fn write(
    report: &Report,
    format: Format,
    screen: &Screen,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    match format {
        Format::Table => table::narrow(report, screen, out)?,
        Format::Wide => table::wide(report, screen, out)?,
        Format::Json => json(report, out)?,
        Format::Yaml => yaml::document_to("the report", report, out)?,
        Format::Csv => csv::write(report, out)?,
        Format::Junit => junit::write(report, out)?,
        Format::Sarif => json(&sarif::Log::of(report), out)?,
        Format::Html => html::write(report, out)?,
        Format::OpenReports => openreports::write(report, out)?,
    }
    Ok(())
}

fn json<T: Serialize>(value: &T, out: &mut dyn Write) -> Result<(), RenderError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(|error| {
        if error.is_io() { RenderError::Io(error.into()) } else { RenderError::Json(error) }
    })?;
    Ok(out.write_all(b"\n")?)
}

/// One guard in one line with the time, for reports that go on; without an entry it is gone.
#[must_use]
pub fn line(guard: &Name, entry: Option<&Entry>, screen: &Screen) -> String {
    table::line_of(guard, entry, screen)
}

/// What the report comes to, in one line.
#[must_use]
pub fn summary(report: &Report) -> String {
    let count = report.summary.guards;
    let guards = if count == 1 { "1 guard".to_owned() } else { format!("{count} guards") };
    let states: Vec<String> = State::ALL
        .into_iter()
        .rev()
        .map(|state| (state, report.summary.count(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {}", words(state)))
        .collect();
    let mut line = if states.is_empty() { guards } else { format!("{guards}: {}", states.join(", ")) };
    if let Some(compared) = &report.compared {
        line.push_str(&format!(
            "; since {}: {} new, {} changed, {} unchanged, {} resolved, {} gone",
            compared.earlier,
            compared.new,
            compared.changed,
            compared.unchanged,
            compared.resolved,
            compared.gone.len()
        ));
    }
    line
}

/// A state as a sentence has it.
fn words(state: State) -> &'static str {
    match state {
        State::Unreadable => "could not be told",
        State::Missing => "missing",
        State::Drifted => "drifted",
        State::Conflict => "in conflict",
        State::NotEnforcing => "not enforcing",
        State::Fighting => "fought about",
        State::SourceDown => "without a source",
        State::Suspended => "suspended",
        State::AuthorUnknown => "of an unknown author",
        State::AwaitingApply => "awaiting their apply",
        State::InSync => "in sync",
    }
}

/// How long ago something was, in one unit, as kubectl has it.
fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Who changed the content, in some words; `None` where nothing is known.
fn by(entry: &Entry) -> Option<&str> {
    entry.by.as_ref().and_then(|by| by.name.as_deref())
}

/// The paths that changed, in one cell.
fn paths(entry: &Entry, most: usize) -> String {
    let some: Vec<&str> = entry.changed_paths.iter().take(most).map(String::as_str).collect();
    match entry.changed_paths.len().saturating_sub(most) {
        0 => some.join(" "),
        more => format!("{} +{more}", some.join(" ")),
    }
}

/// The state of the source in one word, empty where nothing is to be said.
fn source(entry: &Entry) -> &'static str {
    match entry.source.state {
        SourceState::NotNamed => "",
        state => state.as_str(),
    }
}

#[cfg(test)]
mod tests;
