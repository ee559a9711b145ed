//! Where a command's words go: data to stdout or a file, messages to stderr.
//!
//! `println!` and `eprintln!` panic when the reader has gone; nothing here does.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

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

/// Data that is written as it is made, to stdout or, whole or not at all, into a file. Who has read enough of stdout is
/// no failure.
///
/// # Errors
/// When it cannot be made or written.
pub(super) fn streamed<E: Into<anyhow::Error>>(
    path: Option<&Path>,
    make: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> anyhow::Result<()> {
    match path {
        Some(path) => file_of(path, make),
        None => match Sink::new(io::stdout().lock()).take(make) {
            Err(Failed::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Failed::Write(error)) => Err(WriteError(error).into()),
            Err(Failed::Make(error)) => Err(error.into()),
            Ok(_) => Ok(()),
        },
    }
}

/// What went wrong while data was written as it was made.
enum Failed<E> {
    Make(E),
    Write(io::Error),
}

/// Remembers why it could not be written, which formats tell in their own words.
struct Sink<W: Write> {
    inner: io::BufWriter<W>,
    failed: Option<io::Error>,
}

impl<W: Write> Sink<W> {
    fn new(inner: W) -> Self {
        Self { inner: io::BufWriter::with_capacity(BUFFER, inner), failed: None }
    }

    /// Gives what was written to, with nothing left in between.
    fn take<E>(mut self, make: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<W, Failed<E>> {
        let made = make(&mut self);
        if let Some(error) = self.failed {
            return Err(Failed::Write(error));
        }
        made.map_err(Failed::Make)?;
        self.inner.into_inner().map_err(|error| Failed::Write(error.into_error()))
    }

    fn note<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| self.failed = Some(io::Error::from(error.kind())))
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.inner.flush();
        self.note(done)
    }
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
    file_of(path, |out| out.write_all(bytes))
}

fn file_of<E: Into<anyhow::Error>>(
    path: &Path,
    make: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = match std::fs::File::create(&beside) {
        Ok(file) => Sink::new(file).take(make).and_then(|file| {
            file.sync_all().and_then(|()| std::fs::rename(&beside, path)).map_err(Failed::Write)
        }),
        Err(error) => Err(Failed::Write(error)),
    };
    if written.is_err() {
        // What was begun is worth nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(|failed| match failed {
        Failed::Make(error) => error.into(),
        Failed::Write(error) => {
            anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))
        }
    })
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
