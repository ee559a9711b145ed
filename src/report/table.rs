//! A line a guard, the worst state first. On a terminal the lines fit into its width; elsewhere nothing is cut that a reader
//! may search for, but for the last column of the narrow table.

use std::fmt::Write as _;
use std::io;

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

/// The cells of a guard, in the order of the titles.
type Row<'a> = &'a dyn Fn(&Entry) -> Vec<String>;

/// A table under way. Cells are made twice, to be measured and to be written, so that none are held.
struct Table<'a> {
    report: &'a Report,
    row: Row<'a>,
    /// Title and position among the cells of each column that is shown.
    columns: Vec<(&'static str, usize)>,
    /// Of each of them, in characters.
    widths: Vec<usize>,
    /// The longest cell of each.
    longest: Vec<usize>,
}

/// The table that fits everywhere.
pub(super) fn narrow(report: &Report, screen: &Screen, out: &mut dyn io::Write) -> io::Result<()> {
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
        cells
    };
    let mut table = Table::measure(report, &titles, &row);
    match screen.width {
        Some(width) => table.fit(width),
        None => table.cut_last(MAX_WHY),
    }
    table.write(screen.colour, out)
}

/// The table with all that is known.
pub(super) fn wide(report: &Report, screen: &Screen, out: &mut dyn io::Write) -> io::Result<()> {
    let titles = [
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
        vec![
            entry.state.to_string(),
            also.join(","),
            entry.change.map_or("", Change::as_str).to_owned(),
            guard(entry, screen),
            entry.target.to_string(),
            entry.enforcement.as_deref().unwrap_or_default().to_owned(),
            entry.enforcing.to_string(),
            source(entry).to_owned(),
            entry.since.as_ref().map(|since| since.time.to_string()).unwrap_or_default(),
            by(entry).unwrap_or_default().to_owned(),
            paths(entry, usize::MAX),
            last.map(|last| format!("{} {}", last.result, last.time)).unwrap_or_default(),
            entry.reason.to_string(),
            entry.message.to_string(),
        ]
    };
    let mut table = Table::measure(report, &titles, &row);
    table.drop_empty();
    table.write(screen.colour, out)
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
    if screen.with_namespaces { guard.to_string() } else { guard.name.to_string() }
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
            if entry.state.as_str() != &*entry.reason && &*entry.reason != "ContentDiffers" {
                parts.push(entry.reason.to_string());
            }
            if !entry.changed_paths.is_empty() {
                parts.push(paths(entry, 2));
            }
            if let Some(by) = by(entry) {
                parts.push(format!("by {by}"));
            }
            parts.join(" ")
        }
        _ => entry.message.to_string(),
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

impl<'a> Table<'a> {
    fn measure(report: &'a Report, titles: &[&'static str], row: Row<'a>) -> Self {
        let columns: Vec<_> = titles.iter().enumerate().map(|(at, title)| (*title, at)).collect();
        let mut longest = vec![0; columns.len()];
        for entry in &report.guards {
            for (longest, cell) in longest.iter_mut().zip(row(entry)) {
                *longest = length(&cell).max(*longest);
            }
        }
        let widths =
            columns.iter().zip(&longest).map(|((title, _), most)| length(title).max(*most)).collect();
        Self { report, row, columns, widths, longest }
    }

    /// Leaves out columns in which nothing stands.
    fn drop_empty(&mut self) {
        for column in (0..self.columns.len()).rev().filter(|column| self.longest[*column] == 0) {
            self.columns.remove(column);
            self.widths.remove(column);
        }
    }

    fn cut_last(&mut self, most: usize) {
        if let Some(last) = self.widths.last_mut() {
            *last = most.min(*last);
        }
    }

    /// Makes columns narrower, the widest first, until a line fits; where that is not enough, columns go. The
    /// state is never cut.
    fn fit(&mut self, width: usize) {
        let whole = self.widths.clone();
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        while let Some(over) = total(&self.widths).checked_sub(width).filter(|over| *over > 0) {
            let can_give = |column: &usize| self.widths[*column] > least(self.columns[*column].0);
            let Some(widest) =
                (1..self.widths.len()).filter(can_give).max_by_key(|column| self.widths[*column])
            else {
                let Some(spared) = self.spared() else { break };
                self.columns.remove(spared);
                kept.remove(spared);
                self.widths = kept.iter().map(|column| whole[*column]).collect();
                continue;
            };
            // Down to the next widest at most, so that all give.
            let others = (1..self.widths.len()).filter(|column| *column != widest);
            let next = others.map(|column| self.widths[column]).max().unwrap_or_default();
            let down_to = next.max(least(self.columns[widest].0)).min(self.widths[widest] - 1);
            self.widths[widest] = down_to.max(self.widths[widest].saturating_sub(over));
        }
    }

    /// The column that is spared first, of those that are left.
    fn spared(&self) -> Option<usize> {
        SPARED.iter().find_map(|spared| self.columns.iter().position(|(title, _)| title == spared))
    }

    /// Titles and rows; nothing at all without rows.
    fn write(&self, colour: bool, out: &mut dyn io::Write) -> io::Result<()> {
        if self.report.guards.is_empty() {
            return Ok(());
        }
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut text = String::new();
        line(&titles, &self.widths, None, &mut text);
        for entry in self.report.worst_first() {
            let mut cells = (self.row)(entry);
            let shown = self.columns.iter().zip(&self.widths).map(|((title, at), width)| {
                let cell = std::mem::take(&mut cells[*at]);
                if is_name(title) { cut_front(&cell, *width) } else { cut(&cell, *width) }
            });
            let shown: Vec<String> = shown.collect();
            line(&shown, &self.widths, colour.then_some(entry.state), &mut text);
            out.write_all(text.as_bytes())?;
            text.clear();
        }
        Ok(())
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
