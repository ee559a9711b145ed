//! Where a report goes: to a terminal, a pipe, or a file.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
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

/// Writes a file whole or not at all: whoever reads it never sees half a report, and an earlier one stays
/// when this one fails.
pub(super) fn whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // What was begun is worth nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        whole(&path, b"old").unwrap();
        whole(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = whole(&folder.path().join("no/such/report.json"), b"x").unwrap_err();
        assert!(error.to_string().ends_with("no/such/report.json cannot be written"), "{error}");
    }
}
