//! Where a command's words go: data to stdout or a file, messages to stderr.
//!
//! `println!` and `eprintln!` panic when the reader has gone; nothing here does.

use std::fs;
use std::io::{self, IsTerminal, Write};
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

/// Whether a stream takes colour: it is a terminal, not a dumb one, and `NO_COLOR` is not set.
pub(super) fn takes_colour(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// Writes one message and a line end to stderr. There is nowhere to report that this failed.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a file whole or not at all: whoever reads it never sees half of it, and what stood there stays when this
/// fails. Of a file that is there the permissions stay, and a link to it stays a link; what is no file, such as
/// `/dev/stdout` or a pipe, is written to.
///
/// # Errors
/// When it cannot be written, with its path.
pub(super) fn file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    written(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

fn written(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(old) if old.is_file() => Some(old),
        Ok(_) => return fs::OpenOptions::new().write(true).open(path)?.write_all(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let real = if old.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let name = real.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let unfinished = real.with_file_name(format!(".{name}.{}", uuid::Uuid::now_v7().simple()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &real)
    };
    let written = write();
    if written.is_err() {
        // What was begun is worth nothing, and there is nobody to tell that it stays.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn permissions_and_links_stay_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a.yaml", &link).unwrap();
        file(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_file_is_written_to() {
        file(Path::new("/dev/null"), b"report").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        file(&path, b"old").unwrap();
        file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = file(&folder.path().join("no/such/report.json"), b"x").unwrap_err();
        assert!(error.to_string().ends_with("no/such/report.json cannot be written"), "{error}");
    }
}
