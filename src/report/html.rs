//! One page that needs nothing beside itself: it can be mailed, archived and printed. Its policy lets no
//! other script or style in than the two below, whatever a cluster holds, and nothing is loaded.

use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::core::report::{Change, Entry, Origin, Report, State};

use super::escape::markup;
use super::{source, summary};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// Width of the picture, in its own units.
const WIDTH: u64 = 1000;
/// Narrowest part of the picture: one guard of a hundred thousand must be seen.
const LEAST: u64 = 8;

/// The report.
pub(super) fn write(report: &Report, sink: &mut dyn io::Write) -> io::Result<()> {
    let (title, made) = (title(&report.origin), report.generated_at);
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source_of(STYLE),
        source_of(SCRIPT)
    );
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>DriftGuard audit: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>DriftGuard audit</h1>\n<p>{}</p>\n<p class=\"soft\">Made at {made} by driftguard {}.</p>\n",
        markup(&policy),
        markup(&title),
        markup(&title),
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(out, "<p><strong>{}</strong></p>", markup(&summary(report)));
    picture(report, &mut out);
    gone(report, &mut out);
    out.push_str(
        "<div class=\"search\" hidden><input id=\"search\" type=\"search\" \
         placeholder=\"Search guards, targets, paths, people\" aria-label=\"Search\">\
         <span id=\"shown\" class=\"soft\" role=\"status\"></span></div>\n<div class=\"scroll\"><table>\n<thead><tr>",
    );
    let compared = report.compared.is_some();
    let titles = ["State", "Guard", "Target", "What is known", "Since", "Enforcement", "Source"];
    for title in titles.iter().copied().chain(compared.then_some("Change")) {
        let _ = write!(out, "<th scope=\"col\">{title}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    // The worst first: whoever opens the page looks for that.
    let mut entries: Vec<&Entry> = report.guards.iter().collect();
    entries.sort_by_key(|entry| entry.state);
    for entry in entries {
        row(entry, compared, &mut out);
        sink.write_all(out.as_bytes())?;
        out.clear();
    }
    let _ = write!(out, "</tbody>\n</table></div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    sink.write_all(out.as_bytes())
}

/// How a policy names what stands in the page: by its hash.
fn source_of(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// What was looked at.
fn title(origin: &Origin) -> String {
    let mut title = match &origin.namespace {
        _ if !origin.files.is_empty() => origin.files.join(", "),
        Some(namespace) => format!("namespace {namespace}"),
        None => "all namespaces".to_owned(),
    };
    if let Some(cluster) = &origin.cluster {
        title.push_str(&format!(" of {cluster}"));
    }
    if let Some(selector) = &origin.selector {
        title.push_str(&format!(", labels {selector}"));
    }
    for (what, words) in [("guards", &origin.names), ("kinds", &origin.kinds)] {
        if !words.is_empty() {
            title.push_str(&format!(", {what} {}", words.join(" ")));
        }
    }
    if let Some(since) = origin.since {
        title.push_str(&format!(", since {since}"));
    }
    title
}

/// A bar of all guards by state, with a legend that chooses among them.
fn picture(report: &Report, out: &mut String) {
    let counts: Vec<(State, u64)> = State::ALL
        .into_iter()
        .map(|state| (state, report.summary.count(state)))
        .filter(|(_, count)| *count > 0)
        .collect();
    if counts.is_empty() {
        return;
    }
    let widths = widths(&counts);
    let _ = write!(
        out,
        "<svg class=\"picture\" viewBox=\"0 0 {WIDTH} 32\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        markup(&summary(report))
    );
    let mut at = 0;
    for ((state, count), width) in counts.iter().zip(widths) {
        let _ = write!(
            out,
            "<rect x=\"{at}\" y=\"0\" width=\"{width}\" height=\"32\" fill=\"{}\"><title>{count} {state}</title></rect>",
            colour(*state)
        );
        at += width;
    }
    out.push_str("</svg>\n<ul class=\"legend\">");
    for (state, count) in &counts {
        let _ = write!(
            out,
            "<li><button type=\"button\" value=\"{state}\" aria-pressed=\"false\" title=\"{}\">{}{state} {count}</button></li>",
            markup(state.meaning()),
            dot(*state)
        );
    }
    out.push_str("</ul>\n");
}

/// Widths of the parts, which together are the whole.
fn widths(counts: &[(State, u64)]) -> Vec<u64> {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let room = WIDTH.saturating_sub(LEAST * counts.len() as u64);
    let mut widths: Vec<u64> = counts.iter().map(|(_, count)| LEAST + room * count / all.max(1)).collect();
    let rest = WIDTH.saturating_sub(widths.iter().sum());
    if let Some(widest) = widths.iter_mut().max() {
        *widest += rest;
    }
    widths
}

fn dot(state: State) -> String {
    format!(
        "<svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><circle cx=\"5\" cy=\"5\" r=\"5\" fill=\"{}\"/></svg>",
        colour(state)
    )
}

fn colour(state: State) -> &'static str {
    match state {
        State::Unreadable => "#8250df",
        State::Missing => "#82071e",
        State::Drifted => "#cf222e",
        State::Conflict => "#bf3989",
        State::NotEnforcing => "#bc4c00",
        State::Fighting => "#fa4549",
        State::SourceDown => "#d4a72c",
        State::Suspended => "#9a6700",
        State::AuthorUnknown => "#768390",
        State::AwaitingApply => "#0969da",
        State::InSync => "#1a7f37",
    }
}

/// What an earlier report had and this one has not.
fn gone(report: &Report, out: &mut String) {
    let Some(compared) = report.compared.as_ref().filter(|compared| !compared.gone.is_empty()) else {
        return;
    };
    out.push_str("<p>Gone since then: ");
    let names: Vec<String> = compared
        .gone
        .iter()
        .map(|gone| format!("<code>{}</code> ({})", markup(&gone.guard.to_string()), gone.state))
        .collect();
    let _ = writeln!(out, "{}.</p>", names.join(", "));
}

fn row(entry: &Entry, compared: bool, out: &mut String) {
    let _ = write!(
        out,
        "<tr data-state=\"{}\"><td class=\"state\">{}{}",
        entry.state,
        dot(entry.state),
        entry.state
    );
    for state in &entry.also {
        let _ = write!(out, "<br>{}{state}", dot(*state));
    }
    let _ = write!(
        out,
        "</td><td class=\"name\"><code>{}</code></td><td class=\"name\"><code>{}</code></td><td class=\"known\">{}</td>",
        markup(&entry.guard.to_string()),
        markup(&entry.target.to_string()),
        known(entry)
    );
    let since = entry.since.as_ref().map(|since| since.time.to_string()).unwrap_or_default();
    let mode = entry.enforcement.as_deref().unwrap_or_default();
    let mode = match &*entry.enforcing {
        "True" => format!("{mode}, enforced"),
        "False" => format!("{mode}, not enforced"),
        _ => mode.to_owned(),
    };
    for cell in [since, mode, source(entry).to_owned()] {
        let _ = write!(out, "<td class=\"time\">{}</td>", markup(&cell));
    }
    if compared {
        let _ = write!(out, "<td>{}</td>", entry.change.map_or("", Change::as_str));
    }
    out.push_str("</tr>\n");
}

/// Message, paths, people and sources, as one cell.
fn known(entry: &Entry) -> String {
    let mut cell = markup(&entry.message);
    let mut lines = Vec::new();
    for path in &entry.changed_paths {
        lines.push(format!("<code>{}</code>", markup(path)));
    }
    if let Some(by) = &entry.by {
        let name = by.name.as_deref().unwrap_or("unknown");
        lines.push(format!("by {} <span class=\"soft\">({})</span>", markup(name), markup(&by.detail)));
    }
    for answer in &entry.source.answers {
        lines.push(format!(
            "{}: {} <span class=\"soft\">({})</span>",
            markup(&answer.source),
            markup(&answer.result),
            markup(&answer.message)
        ));
    }
    if let Some(last) = &entry.last_remediation {
        let from = last.source.as_ref().map(|source| format!(" from {}", markup(source))).unwrap_or_default();
        lines.push(format!("last remediation: {}{from} at {}", markup(&last.result), last.time));
    }
    for (what, place) in [("guard", &entry.guard_file), ("object", &entry.target_file)] {
        if let Some(place) = place {
            lines.push(format!("{what} in <code>{}:{}</code>", markup(&place.file), place.line));
        }
    }
    if let Some(id) = &entry.transaction_id {
        lines.push(format!("transaction <code>{}</code>", markup(id)));
    }
    if !lines.is_empty() {
        cell.push_str(&format!("<ul><li>{}</li></ul>", lines.join("</li><li>")));
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_picture_fill_it_and_each_is_seen() {
        let counts = [(State::Drifted, 1), (State::InSync, 99_999), (State::Missing, 3)];
        let widths = widths(&counts);
        assert_eq!(widths.iter().sum::<u64>(), WIDTH);
        assert!(widths.iter().all(|width| *width >= LEAST), "{widths:?}");
    }
}
