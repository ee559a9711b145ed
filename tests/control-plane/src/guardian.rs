//! Processes that never outlive whoever started them.
//!
//! A test process can end without running any of its code: statics are not dropped, SIGKILL and Ctrl-C
//! drop nothing at all. So processes are children of a guardian, a small shell script in a process group
//! of its own, which reads commands from a pipe that this process holds. The pipe closes when this process
//! ends, however it ends; the guardian then kills what it started and removes the folder.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const SCRIPT: &str = include_str!("guardian.sh");

/// How long the guardian may take to say that a process runs: it only forks.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What can be sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: asks to end.
    Terminate,
    /// SIGKILL: ends without a word.
    Kill,
    /// SIGSTOP: halts, with all connections open.
    Stop,
    /// SIGCONT: goes on after [`Signal::Stop`].
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A program with its arguments and environment, to be run under a name.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    /// `name` (letters, digits, `-`) is what the process is called here; its output goes to `NAME.log`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// The same under this name with the same arguments, of another executable.
    #[must_use]
    pub fn of(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = path.into();
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The script that becomes the process, keeping its pid.
    fn script(&self) -> String {
        let mut script = format!(
            "echo $$ >{0}.pid\n[ ! -e over ] || exit 1\necho \"started {0} $$\" >&3\nexec 3>&-\n",
            self.name
        );
        for (name, value) in &self.environment {
            script.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        script.push_str("exec");
        for word in std::iter::once(self.path.to_string_lossy().as_ref())
            .chain(self.arguments.iter().map(String::as_str))
        {
            script.push_str(&format!(" {}", quoted(word)));
        }
        script.push('\n');
        script
    }
}

/// A word that a shell takes literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Running(u32),
    Exited(i32),
}

#[derive(Debug, Default)]
struct States {
    of: Mutex<HashMap<String, State>>,
    changed: Condvar,
}

impl States {
    fn set(&self, name: &str, state: State) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state);
        self.changed.notify_all();
    }

    fn get(&self, name: &str) -> Option<State> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Waits until `found` gives something for the state of `name`; `None` at the deadline.
    fn wait<T>(&self, name: &str, limit: Duration, found: impl Fn(State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = of.get(name).copied().and_then(&found) {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            of = self.changed.wait_timeout(of, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    commands: Mutex<Option<ChildStdin>>,
    states: Arc<States>,
    shell: Mutex<Child>,
}

/// Starts processes and ends them all when it is dropped, or when this process ends.
#[derive(Debug, Clone)]
pub struct Guardian(Arc<Inner>);

impl Guardian {
    /// Takes over `folder`, which must exist: it is removed at the end.
    ///
    /// # Errors
    /// When there is no shell to run.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(folder)
            .process_group(0) // a Ctrl-C at the terminal goes to the foreground group only
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run sh, which guards the processes of the control plane")?;
        let commands = shell.stdin.take();
        let events = shell.stdout.take().context("the guardian has no stdout")?;
        let states = Arc::new(States::default());
        let heard = Arc::clone(&states);
        std::thread::Builder::new().name("guardian".into()).spawn(move || {
            for line in BufReader::new(events).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["started", name, pid] => heard.set(name, State::Running(pid.parse().unwrap_or(0))),
                    ["exited", name, code] => heard.set(name, State::Exited(code.parse().unwrap_or(-1))),
                    _ => {}
                }
            }
        })?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            commands: Mutex::new(commands),
            states,
            shell: Mutex::new(shell),
        })))
    }

    /// Runs a program and returns when it has a pid. A name can be used again once its process has ended.
    ///
    /// # Errors
    /// When a process of this name runs already, or nothing could be started.
    pub fn start(&self, program: &Program) -> Result<Process> {
        let name = &program.name;
        ensure!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
            "{name:?} cannot name a process: letters, digits and - only"
        );
        if matches!(self.0.states.get(name), Some(State::Starting | State::Running(_))) {
            bail!("a process named {name} runs already");
        }
        std::fs::write(self.0.folder.join(format!("{name}.sh")), program.script())
            .with_context(|| format!("cannot write the start script of {name}"))?;
        self.0.states.set(name, State::Starting);
        self.0.say(&format!("start {name}"))?;
        let started = self.0.states.wait(name, START_LIMIT, |state| (state != State::Starting).then_some(()));
        ensure!(started.is_some(), "{name} did not start within {START_LIMIT:?}");
        Ok(Process { name: name.clone(), guardian: self.clone() })
    }

    /// Ends every process, without asking, and removes the folder; returns when both are done.
    pub fn end(&self) {
        self.0.end();
    }

    /// Leaves the folder, with the logs in it, where it is when everything has ended.
    pub fn keep_folder(&self) {
        // Without it the folder is removed, which the reader of a message about it will notice.
        drop(std::fs::write(self.0.folder.join("keep"), ""));
    }
}

impl Inner {
    fn say(&self, command: &str) -> Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = commands.as_mut().context("the guardian has ended")?;
        writeln!(pipe, "{command}").context("the guardian of the control plane is gone")
    }
}

impl Inner {
    /// Closing the pipe is the command to end.
    fn end(&self) {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.shell.lock().unwrap_or_else(PoisonError::into_inner).wait());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that a [`Guardian`] started.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    guardian: Guardian,
}

impl Process {
    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self.guardian.0.states.get(&self.name) {
            Some(State::Running(pid)) => Some(pid),
            _ => None,
        }
    }

    /// Sends a signal; nothing happens when the process has ended.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.guardian.0.say(&format!("signal {} {}", signal.name(), self.name))
    }

    /// Waits for the end and gives the exit code (128 and the signal's number when one ended it).
    ///
    /// # Errors
    /// When it still runs at the end of `limit`.
    pub fn wait(&self, limit: Duration) -> Result<i32> {
        self.guardian
            .0
            .states
            .wait(&self.name, limit, |state| match state {
                State::Exited(code) => Some(code),
                _ => None,
            })
            .with_context(|| format!("{} still runs after {limit:?}", self.name))
    }

    /// The exit code when it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.guardian.0.states.get(&self.name) {
            Some(State::Exited(code)) => Some(code),
            _ => None,
        }
    }

    /// The file with everything it wrote to stdout and stderr, over all its starts.
    pub fn log_path(&self) -> PathBuf {
        self.guardian.0.folder.join(format!("{}.log", self.name))
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The end of the log and where it is, for an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("the end of {}:\n{tail}", self.log_path().display())
    }
}
