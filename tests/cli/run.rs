//! Runs the program in a clean environment.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;
use driftguard_control_plane::until;

/// How long a program may take to say or do what it is waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

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

/// A program that runs for as long as somebody wants. It ends with this at the latest.
pub(crate) struct Live {
    child: Child,
    lines: Receiver<String>,
}

impl Live {
    /// Starts it. Of what it says, `said` is read.
    pub(crate) fn start<R: Read + Send + 'static>(
        mut command: Command,
        said: impl FnOnce(&mut Child) -> Option<R>,
    ) -> Self {
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(said(&mut child).unwrap());
        let (sender, lines) = channel();
        // Nobody reads from a pipe with a deadline.
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line that it says.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }

    /// Asks it to end, and gives how it did.
    pub(crate) fn end(mut self) -> ExitStatus {
        // Ctrl-C would be another signal, which tests that run behind others may have been told to ignore.
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        until("it has ended", LIMIT, || self.child.try_wait()?.context("it goes on")).unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
