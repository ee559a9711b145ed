//! Where a command's words go: data to stdout, messages to stderr.
//!
//! `println!` and `eprintln!` panic when the reader has gone; nothing here does.

use std::io::{self, Write};

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

/// Writes one message and a line end to stderr. There is nowhere to report that this failed.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
