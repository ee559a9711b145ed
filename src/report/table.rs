//! A line a guard. On a terminal the lines fit into its width; elsewhere nothing is cut that a reader
//! may search for, but for the last column of the narrow table.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::core::report::{Change, Entry, Name, Report, SinceKnownBy, State};

use super::{age, by, paths, source};

/// Longest text of the last column of the narrow table where no terminal limits it.
const MAX_WHY: usize = 100;
/// Narrowest that a column is made to fit a terminal.
const LEAST: usize = 10;
/// Narrowest that a column of names is made.
const LEAST_NAME: usize = 15;
/// Columns that go where all of them are too many, the first first.
const SPARED: [&str; 2] = ["SINCE", "WHY"];
/// Between two columns.
const GAP: usize = 2;
/// Ends a colour.
const PLAIN: &str = "\u{1b}[0m";
/// What stands for the rest of a text that was cut.
const CUT: &str = "...";

/// What a table is written for.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Columns of the terminal; `None` where there is no terminal.
    pub width: Option<usize>,
    /// Whether it shows colours.
    pub colour: bool,
    /// Whether guards of several namespaces are shown.
    pub with_namespaces: bool,
    /// The time, from which ages are counted.
    pub now: Timestamp,
}

/// A table under way.
struct Table {
    titles: Vec<&'static str>,
    rows: Vec<(State, Vec<String>)>,
}

/// The table that fits everywhere.
pub(super) fn narrow(report: &Report, screen: &Screen) -> String {
    let mut titles = vec!["STATE", "GUARD", "TARGET", "SINCE", "WHY"];
    if report.compared.is_some() {
        titles.insert(1, "CHANGE");
    }
    let row = |entry: &Entry| {
        let since = entry.since.as_ref().map(|since| {
            let age = age(since.time.timestamp(), screen.now);
            // That long at least.
            if since.known_by == SinceKnownBy::EarlierReport { format!("{age}+") } else { age }
        });
        let mut cells = vec![
            entry.state.to_string(),
            guard(entry, screen),
            target(entry),
            since.unwrap_or_default(),
            why(entry),
        ];
        if report.compared.is_some() {
            cells.insert(1, entry.change.map_or("", Change::as_str).to_owned());
        }
        (entry.state, cells)
    };
    let mut table = Table { titles, rows: report.guards.iter().map(row).collect() };
    match screen.width {
        Some(width) => table.fit(width),
        None => table.cut_last(MAX_WHY),
    }
    table.text(screen.colour)
}

/// The table with all that is known.
pub(super) fn wide(report: &Report, screen: &Screen) -> String {
    let titles = vec![
        "STATE",
        "ALSO",
        "CHANGE",
        "GUARD",
        "TARGET",
        "ENFORCEMENT",
        "ENFORCING",
        "SOURCE",
        "SINCE",
        "BY",
        "PATHS",
        "LAST REMEDIATION",
        "REASON",
        "MESSAGE",
    ];
    let row = |entry: &Entry| {
        let also: Vec<&str> = entry.also.iter().map(|state| state.as_str()).collect();
        let last = entry.last_remediation.as_ref();
        let cells = vec![
            entry.state.to_string(),
            also.join(","),
            entry.change.map_or("", Change::as_str).to_owned(),
            guard(entry, screen),
            entry.target.to_string(),
            entry.enforcement.clone().unwrap_or_default(),
            entry.enforcing.clone(),
            source(entry).to_owned(),
            entry.since.as_ref().map(|since| since.time.to_string()).unwrap_or_default(),
            by(entry).unwrap_or_default().to_owned(),
            paths(entry, usize::MAX),
            last.map(|last| format!("{} {}", last.result, last.time)).unwrap_or_default(),
            entry.reason.clone(),
            entry.message.clone(),
        ];
        (entry.state, cells)
    };
    let mut table = Table { titles, rows: report.guards.iter().map(row).collect() };
    table.drop_empty();
    table.text(screen.colour)
}

/// One guard by itself, with the time, where lines follow one another. Without an entry it is gone.
pub(super) fn line_of(guard: &Name, entry: Option<&Entry>, screen: &Screen) -> String {
    let time = screen.now.strftime("%Y-%m-%dT%H:%M:%SZ");
    let (state, colour) = match entry {
        Some(entry) => (entry.state.as_str(), Some(colour_of(entry.state))),
        None => ("Gone", None),
    };
    let (on, off) = colour.filter(|_| screen.colour).map_or(("", ""), |on| (on, PLAIN));
    let name = named(guard, screen);
    let rest = entry.map(|entry| format!("  {}  {}", target(entry), why(entry))).unwrap_or_default();
    let shown = format!("{time}  {state:13}  {name}{rest}");
    let shown = shown.replace(char::is_control, " ");
    let shown = cut(shown.trim_end(), screen.width.unwrap_or(usize::MAX));
    // Coloured last, so that a cut never falls into a code.
    shown.replacen(state, &format!("{on}{state}{off}"), 1)
}

fn guard(entry: &Entry, screen: &Screen) -> String {
    named(&entry.guard, screen)
}

fn named(guard: &Name, screen: &Screen) -> String {
    if screen.with_namespaces { guard.to_string() } else { guard.name.clone() }
}

/// The target, without its namespace where that is the guard's.
fn target(entry: &Entry) -> String {
    if entry.target.namespace.as_deref() == Some(entry.guard.namespace.as_str()) {
        format!("{}/{}", entry.target.kind, entry.target.name)
    } else {
        entry.target.to_string()
    }
}

/// What matters most beside the state.
fn why(entry: &Entry) -> String {
    let mut text = match entry.state {
        State::InSync => String::new(),
        State::Drifted | State::Missing => {
            let mut parts = Vec::new();
            if entry.state.as_str() != entry.reason && entry.reason != "ContentDiffers" {
                parts.push(entry.reason.clone());
            }
            if !entry.changed_paths.is_empty() {
                parts.push(paths(entry, 2));
            }
            if let Some(by) = by(entry) {
                parts.push(format!("by {by}"));
            }
            parts.join(" ")
        }
        _ => entry.message.clone(),
    };
    if !entry.also.is_empty() {
        let also: Vec<&str> = entry.also.iter().map(|state| state.as_str()).collect();
        let gap = if text.is_empty() { "" } else { " " };
        // Before what may be cut.
        text = format!("also {}{gap}{text}", also.join(", "));
    }
    text
}

/// Whether a column holds names, whose ends tell more than their beginnings.
fn is_name(title: &str) -> bool {
    matches!(title, "GUARD" | "TARGET")
}

fn least(title: &str) -> usize {
    if is_name(title) { LEAST_NAME } else { LEAST }
}

fn cut_front(text: &str, most: usize) -> String {
    let Some(over) = length(text).checked_sub(most).filter(|over| *over > 0) else { return text.to_owned() };
    let kept: String = text.chars().skip(over + CUT.len()).collect();
    format!("{CUT}{kept}")
}

/// The length of a line of columns so wide.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, most: usize) -> String {
    if length(text) <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(CUT.len())).collect();
    format!("{kept}{CUT}")
}

impl Table {
    fn widths(&self) -> Vec<usize> {
        let of = |column: usize| {
            let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
            cells.map(|cell| length(cell)).chain([length(self.titles[column])]).max().unwrap_or_default()
        };
        (0..self.titles.len()).map(of).collect()
    }

    /// Leaves out columns in which nothing stands.
    fn drop_empty(&mut self) {
        let empty = |column: usize| self.rows.iter().all(|(_, cells)| cells[column].is_empty());
        let kept: Vec<usize> = (0..self.titles.len()).filter(|column| !empty(*column)).collect();
        self.titles = kept.iter().map(|column| self.titles[*column]).collect();
        for (_, cells) in &mut self.rows {
            *cells = kept.iter().map(|column| std::mem::take(&mut cells[*column])).collect();
        }
    }

    fn cut_last(&mut self, most: usize) {
        for (_, cells) in &mut self.rows {
            if let Some(last) = cells.last_mut() {
                *last = cut(last, most);
            }
        }
    }

    /// Makes columns narrower, the widest first, until a line fits; where that is not enough, columns go. The
    /// state is never cut.
    fn fit(&mut self, width: usize) {
        let mut widths = self.widths();
        while let Some(over) = total(&widths).checked_sub(width).filter(|over| *over > 0) {
            let can_give = |column: &usize| widths[*column] > least(self.titles[*column]);
            let Some(widest) = (1..widths.len()).filter(can_give).max_by_key(|column| widths[*column]) else {
                if !self.spare() {
                    break;
                }
                widths = self.widths();
                continue;
            };
            // Down to the next widest at most, so that all give.
            let others = (1..widths.len()).filter(|column| *column != widest);
            let next = others.map(|column| widths[column]).max().unwrap_or_default();
            let down_to = next.max(least(self.titles[widest])).min(widths[widest] - 1);
            widths[widest] = down_to.max(widths[widest].saturating_sub(over));
        }
        for (_, cells) in &mut self.rows {
            for ((cell, width), title) in cells.iter_mut().zip(&widths).zip(&self.titles) {
                *cell = if is_name(title) { cut_front(cell, *width) } else { cut(cell, *width) };
            }
        }
    }

    /// Leaves out one column; `false` when none can be spared.
    fn spare(&mut self) -> bool {
        let found = SPARED.iter().find_map(|spared| self.titles.iter().position(|title| title == spared));
        if let Some(column) = found {
            self.titles.remove(column);
            self.rows.iter_mut().for_each(|(_, cells)| drop(cells.remove(column)));
        }
        found.is_some()
    }

    /// Titles and rows; nothing at all without rows.
    fn text(&self, colour: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let widths = self.widths();
        let mut out = String::new();
        let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
        line(&titles, &widths, None, &mut out);
        for (state, cells) in &self.rows {
            line(cells, &widths, colour.then_some(*state), &mut out);
        }
        out
    }
}

/// One line, without blanks at its end. With a state, its first cell is coloured.
fn line(cells: &[String], widths: &[usize], coloured: Option<State>, out: &mut String) {
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or_default();
    for (column, cell) in cells.iter().enumerate().take(last + 1) {
        let padding = if column == last { 0 } else { widths[column] - length(cell) + GAP };
        let (on, off) = match coloured.filter(|_| column == 0) {
            Some(state) => (colour_of(state), PLAIN),
            None => ("", ""),
        };
        // A name in a file may hold anything, a terminal's commands too. Writing to a String cannot fail.
        let cell = cell.replace(char::is_control, " ");
        let _ = write!(out, "{on}{cell}{off}{:padding$}", "");
    }
    out.push('\n');
}

fn colour_of(state: State) -> &'static str {
    match state {
        State::Unreadable => "\u{1b}[35m",
        State::Missing | State::Drifted | State::Conflict | State::Fighting => "\u{1b}[31m",
        State::NotEnforcing | State::SourceDown | State::Suspended | State::AuthorUnknown => "\u{1b}[33m",
        State::AwaitingApply => "\u{1b}[36m",
        State::InSync => "\u{1b}[32m",
    }
}
