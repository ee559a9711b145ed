//! Where a command's words go: data to stdout or a file, messages to stderr.
//!
//! `println!` and `eprintln!` panic when the reader has gone; nothing here does.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;

/// Writing the data failed, mostly because the reader closed the pipe.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct WriteError(#[source] pub io::Error);

/// Writes data to stdout and flushes it.
///
/// # Errors
/// [`WriteError`] when stdout is closed or full.
pub fn data(bytes: &[u8]) -> Result<(), WriteError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(WriteError)
}

/// The same for a command whose exit code tells what it found: whoever has read enough is not told less by it.
///
/// # Errors
/// [`WriteError`] when stdout is full.
pub fn data_while_read(bytes: &[u8]) -> Result<(), WriteError> {
    match data(bytes) {
        Err(error) if error.0.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes one message and a line end to stderr. There is nowhere to report that this failed.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a file whole or not at all: whoever reads it never sees half of it, and what stood there stays when this
/// fails.
///
/// # Errors
/// When it cannot be written, with its path.
pub(super) fn file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
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
        file(&path, b"old").unwrap();
        file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = file(&folder.path().join("no/such/report.json"), b"x").unwrap_err();
        assert!(error.to_string().ends_with("no/such/report.json cannot be written"), "{error}");
    }
}
