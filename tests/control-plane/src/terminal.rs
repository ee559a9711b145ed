//! A terminal with a shell in it, as a person has one: a window of tmux, on a socket of its own and without anybody's
//! configuration.
//!
//! Nothing waits by the clock: each step waits until the screen shows what is said to come. The server, which is a daemon,
//! ends when the [`Terminal`] is dropped, or with the process that started it, however that ends.

use std::cell::RefCell;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::wait::until;

/// How long a screen may take to show what is waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What the shell says when it takes a line: the exit code of the last one, and the number of this one.
const PROMPT: &str = r"[$? \#] ";

/// A window of tmux.
#[derive(Debug)]
pub struct Terminal {
    /// The socket, a home without any files, and the record.
    folder: TempDir,
    /// The prompt at which the command was typed that runs.
    typed_at: RefCell<Prompt>,
    /// What ends the server when nobody holds its stdin any more.
    mourner: Option<Child>,
}

/// A row in which the shell takes a line.
#[derive(Debug, Clone, Default)]
struct Prompt {
    row: String,
    code: i32,
    number: u32,
}

impl Prompt {
    /// The last row of a screen, where it is one.
    fn of(screen: &str) -> Option<Self> {
        let row = screen.trim_end().lines().last()?.trim_end();
        // Behind what stands there already, such as the ^C of a program that ended by it.
        let (code, number) = row.strip_suffix(']')?.rsplit_once('[')?.1.split_once(' ')?;
        Some(Self { row: row.to_owned(), code: code.parse().ok()?, number: number.parse().ok()? })
    }
}

impl Terminal {
    /// A window of so many columns and 24 rows, whose programs get these variables beside `PATH`, `HOME`, `LANG` and
    /// what tmux adds, such as `TERM`.
    ///
    /// # Errors
    /// When there is no tmux or no bash.
    pub fn start(columns: usize, variables: &[(&str, &str)]) -> Result<Self> {
        let mut terminal = Self { folder: tempfile::tempdir()?, typed_at: RefCell::default(), mourner: None };
        terminal.mourner = Some(terminal.mourner()?);
        let mut tmux = terminal.tmux();
        tmux.args(["new-session", "-d", "-x", &columns.to_string(), "-y", "24", "env"]);
        // Set here, since a shell that does not ask a person drops it on the way.
        tmux.arg(format!("PS1={PROMPT}"));
        tmux.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        tmux.args(["bash", "--norc", "--noprofile"]);
        run(&mut tmux)?;
        terminal.until("the shell is ready", |screen| Prompt::of(screen).is_some())?;
        run(terminal.tmux().args(["pipe-pane", "-o", &format!("cat >> '{}'", terminal.record().display())]))?;
        Ok(terminal)
    }

    /// Types a command, at the prompt.
    ///
    /// # Errors
    /// When another one runs.
    pub fn begin(&self, command: &str) -> Result<()> {
        let prompt = Prompt::of(&self.screen()?).context("another command runs")?;
        self.typed_at.replace(prompt);
        self.line(command)
    }

    /// Types a line, for a program that runs, and the return key.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn line(&self, text: &str) -> Result<()> {
        self.text(text)?;
        self.key("Enter")
    }

    /// Types text and nothing more.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn text(&self, text: &str) -> Result<()> {
        run(self.tmux().args(["send-keys", "-l", "--", text]))
    }

    /// Presses a key, by tmux's name of it: `Enter`, `Tab`, `C-c`.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn key(&self, name: &str) -> Result<()> {
        run(self.tmux().args(["send-keys", name]))
    }

    /// Gives the window another width.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn resize(&self, columns: usize) -> Result<()> {
        run(self.tmux().args(["resize-window", "-x", &columns.to_string()]))
    }

    /// What the screen shows and what has left it above, row by row: a line that is too long takes several.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn screen(&self) -> Result<String> {
        self.capture(&[])
    }

    /// The same line by line as it was written, whatever the width.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn lines(&self) -> Result<String> {
        self.capture(&["-J"])
    }

    /// The screen with the codes of colours.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn coloured(&self) -> Result<String> {
        self.capture(&["-e"])
    }

    /// Waits until all that was written to the terminal, also what was written over since, is as wanted: it is
    /// recorded by another process.
    ///
    /// # Errors
    /// When it never is, with what it is.
    pub fn until_written(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<()> {
        until(what, LIMIT, || {
            let bytes = std::fs::read(self.record()).context("nothing was recorded")?;
            let written = String::from_utf8_lossy(&bytes);
            ensure!(is_so(&written), "written was {written:?}");
            Ok(())
        })
    }

    /// Waits until the screen is as wanted. Gives it.
    ///
    /// # Errors
    /// When it never is, with what it shows.
    pub fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        until(what, LIMIT, || {
            let screen = self.screen()?;
            ensure!(is_so(&screen), "the screen shows:\n{}", screen.trim_end());
            Ok(screen)
        })
    }

    /// Waits until the command has ended that was begun. Gives the screen, and the exit code.
    ///
    /// # Errors
    /// When it goes on.
    pub fn end(&self) -> Result<(String, i32)> {
        let begun = self.typed_at.borrow().number;
        let prompt = |screen: &str| Prompt::of(screen).filter(|prompt| prompt.number > begun);
        let screen = self.until("the command has ended", |screen| prompt(screen).is_some())?;
        let code = prompt(&screen).context("no prompt")?.code;
        Ok((screen, code))
    }

    /// Runs a command to its end on an empty screen. Gives the rows that it leaves there, and its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run(&self, command: &str) -> Result<(Vec<String>, i32)> {
        self.begin("clear")?;
        self.end()?;
        run(self.tmux().arg("clear-history"))?;
        self.begin(command)?;
        let (screen, code) = self.end()?;
        let width: usize = self.query("#{window_width}")?.parse().context("tmux tells no width")?;
        let typed = self.typed_at.borrow().row.chars().count() + 1 + command.chars().count();
        // Without the rows that were typed and the prompt.
        let mut rows: Vec<String> =
            screen.trim_end().lines().skip(typed.div_ceil(width)).map(str::to_owned).collect();
        rows.pop();
        Ok((rows, code))
    }

    /// Waits until this process ends, and then ends the server and removes the folder.
    fn mourner(&self) -> Result<Child> {
        let mut sh = Command::new("sh");
        sh.args(["-c", r#"cat; tmux -S "$1/socket" kill-server; rm -rf "$1""#, "sh"]).arg(self.folder.path());
        // In a group of its own: Ctrl-C would end it before anybody else.
        sh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        sh.spawn().context("cannot run sh")
    }

    fn query(&self, format: &str) -> Result<String> {
        let output = self.tmux().args(["display-message", "-p", format]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn capture(&self, more: &[&str]) -> Result<String> {
        let output = self.tmux().args(["capture-pane", "-p", "-S", "-"]).args(more).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(["-f", "/dev/null", "-u"])
            .stdin(Stdio::null());
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has gone by itself is as well.
        let _ = self.tmux().arg("kill-server").output();
        if let Some(mut mourner) = self.mourner.take() {
            drop(mourner.stdin.take());
            let _ = mourner.wait();
        }
    }
}

fn run(tmux: &mut Command) -> Result<()> {
    let output = tmux.output().context("cannot run tmux (Debian: apt install tmux)")?;
    if !output.status.success() {
        bail!("tmux: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn it_tells_what_a_command_leaves_on_the_screen_and_its_exit_code() {
        let terminal = Terminal::start(40, &[("WORD", "given")]).unwrap();
        // Longer than the terminal is wide.
        let command = "echo $WORD; printf 'gone\\r\\033[K\\033[31mred\\033[0m\\n'; stty size; (exit 7)";
        let (rows, code) = terminal.run(command).unwrap();
        assert_eq!((rows, code), (vec!["given".to_owned(), "red".to_owned(), "24 40".to_owned()], 7));
        assert!(terminal.coloured().unwrap().contains("\u{1b}[31mred"));
        terminal.until_written("what was written over", |written| written.contains("gone\r")).unwrap();
        terminal.resize(60).unwrap();
        assert_eq!(terminal.run("stty size").unwrap(), (vec!["24 60".to_owned()], 0));
        terminal.begin("echo begun; cat").unwrap();
        terminal.until("it has begun", |screen| screen.lines().any(|row| row == "begun")).unwrap();
        terminal.key("C-c").unwrap();
        assert_eq!(terminal.end().unwrap().1, 130);
        // A program that ends by Ctrl-C in its own way leaves the cursor behind it.
        terminal.begin("bash -c 'trap \"exit 3\" INT; echo waits; read -r word'").unwrap();
        terminal.until("it waits", |screen| screen.lines().any(|row| row == "waits")).unwrap();
        terminal.key("C-c").unwrap();
        let (screen, code) = terminal.end().unwrap();
        assert!(code == 3 && screen.contains("^C["), "{code}: {screen}");
        terminal.text("--flag").unwrap();
        terminal.until("it is typed", |screen| screen.trim_end().ends_with("] --flag")).unwrap();
    }

    #[test]
    fn its_server_ends_with_it() {
        let terminal = Terminal::start(40, &[]).unwrap();
        let pid = terminal.query("#{pid}").unwrap();
        assert!(PathBuf::from(format!("/proc/{pid}")).exists());
        drop(terminal);
        until("the server has ended", LIMIT, || {
            ensure!(!PathBuf::from(format!("/proc/{pid}")).exists(), "{pid} lives");
            Ok(())
        })
        .unwrap();
    }
}
