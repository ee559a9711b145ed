//! What a report is written for: a terminal, a pipe, or a file.

use std::io::IsTerminal as _;

use jiff::Timestamp;

use crate::cli::output;
use crate::report::Screen;

/// What a table is written for.
pub(super) fn screen(is_stdout: bool, with_namespaces: bool, now: Timestamp) -> Screen {
    let is_terminal = is_stdout && std::io::stdout().is_terminal();
    let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| is_terminal);
    Screen {
        width: size.map(|(width, _)| usize::from(width.0)),
        colour: is_stdout && output::takes_colour(&std::io::stdout()),
        with_namespaces,
        now,
    }
}
