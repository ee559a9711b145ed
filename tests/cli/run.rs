//! Runs the program in a clean environment.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program under test.
pub(crate) const DRIFTGUARD: &str = env!("CARGO_BIN_EXE_driftguard");

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The stdout of a run that succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The stderr of a run that could not tell.
    #[track_caller]
    pub(crate) fn failure(self) -> String {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "no data when nothing could be told");
        self.stderr
    }
}

/// A command in the repository's folder, with neither home nor cluster nor terminal.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(DRIFTGUARD);
    command
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end, with `input` on stdin.
pub(crate) fn run_with(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that does not read its input may close it.
    let feed = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs without cluster.
pub(crate) fn run(args: &[&str]) -> Ran {
    run_with(command(args), "")
}
