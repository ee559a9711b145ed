//! What a report is written for: a terminal, a pipe, or a file.

use std::io::IsTerminal as _;

use jiff::Timestamp;

use crate::report::Screen;

/// What a table is written for.
pub(super) fn screen(is_stdout: bool, with_namespaces: bool, now: Timestamp) -> Screen {
    let is_terminal = is_stdout && std::io::stdout().is_terminal();
    let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| is_terminal);
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    Screen {
        width: size.map(|(width, _)| usize::from(width.0)),
        colour: is_terminal && !is_set("NO_COLOR") && !is_dumb,
        with_namespaces,
        now,
    }
}
