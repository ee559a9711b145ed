//! Exit codes, and how a failed command ends.
//!
//! 0: done, nothing to report. 1: the command worked and found something. 2: wrong usage, or it
//! could not be told. A reader that closes the pipe ends the command without noise.

use std::io;
use std::process::ExitCode;

use super::output;

/// How a command that worked ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, nothing to report: 0.
    Clean,
    /// It worked and found what it looks for, such as drift: 1.
    Finding,
    /// It worked, and of something it could not be told: 2.
    CouldNotTell,
}

/// Exit code for wrong usage and for "could not tell".
pub const COULD_NOT_TELL: u8 = 2;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::SUCCESS,
            Exit::Finding => Self::from(1),
            Exit::CouldNotTell => Self::from(COULD_NOT_TELL),
        }
    }
}

/// The exit code of a finished command; a failure is told on stderr in one line.
#[must_use]
pub fn code(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        // `driftguard hash -f dir | head -1` got all it wanted.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::message(&format!("error: {}", told(&error)));
            ExitCode::from(COULD_NOT_TELL)
        }
    }
}

/// An error with its causes in one line, but for those that it quotes itself.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if !text.contains(&said) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(colon);
            text.push_str(&said);
        }
    }
    text
}

/// Whether nobody reads stdout any more.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<output::WriteError>())
        .any(|cause| cause.0.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = anyhow::anyhow!("no such file");
        let quoting = inner.context("a.yaml: cannot be read: no such file").context("reading");
        assert_eq!(told(&quoting), "reading: a.yaml: cannot be read: no such file");
    }

    #[test]
    fn only_a_closed_stdout_ends_quietly() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::new(output::WriteError(closed())).context("writing")));
        assert!(!is_closed_pipe(&anyhow::Error::new(closed())), "a connection broke, not our stdout");
    }
}
