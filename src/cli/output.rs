//! Where a command's words go: data to stdout or a file, messages to stderr.
//!
//! `println!` and `eprintln!` panic when the reader has gone; nothing here does.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

mod unfinished;

use unfinished::Unfinished;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// As many links one after the other as Linux follows.
const MOST_LINKS: usize = 40;

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
    file_of(path, |out| out.write_all(bytes))
}

fn file_of<E: Into<anyhow::Error>>(
    path: &Path,
    make: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> anyhow::Result<()> {
    written(path, make).map_err(|failed| match failed {
        Failed::Make(error) => error.into(),
        Failed::Write(error) => {
            anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))
        }
    })
}

fn written<E>(path: &Path, make: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), Failed<E>> {
    let old = match fs::metadata(path) {
        Ok(old) if old.is_file() => Some(old),
        Ok(_) => {
            let file = fs::OpenOptions::new().write(true).open(path).map_err(Failed::Write)?;
            return Sink::new(file).take(make).map(drop);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failed::Write(error)),
    };
    Unfinished::begin(path, old.as_ref()).map_err(Failed::Write)?.write(make)
}

/// Where a link leads to which nothing is there yet; the path itself where it is none.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&place) {
            Ok(target) => place = place.parent().unwrap_or(Path::new("")).join(target),
            // It is no link, or not there.
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other("it leads through too many links"))
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
    fn a_link_to_what_is_not_there_yet_leads_to_it_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("a.json"), folder.path().join("b.json"));
        std::os::unix::fs::symlink("a.json", &link).unwrap();
        file(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let circle = folder.path().join("c.json");
        std::os::unix::fs::symlink("c.json", &circle).unwrap();
        assert!(file(&circle, b"new").is_err());
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
