//! Git over ssh, by the OpenSSH client beside us: its checks of host keys are what people know.
//!
//! The client reads no configuration but what is given here, asks nobody anything, forwards nothing, runs
//! nothing of its own on this side, and is killed when the fetch ends.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::git::ConnectMode;
use gix::protocol::transport::client::git::blocking_io::Connection;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::SourceError;
use super::SERVER;
use super::location::{Location, Scheme};
use super::scratch::Scratch;
use super::wire::{Clocked, Wire};

/// What of the client's messages is kept, in bytes.
const MESSAGES: u64 = 8192;
/// How long a client that was told to end may take, and its messages to arrive.
const ENDING: Duration = Duration::from_secs(2);
/// Longest message of a server that is repeated, in characters.
const QUOTED: usize = 200;
/// Options of the client, whatever the repository.
const OPTIONS: [&str; 18] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=none",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "ProxyCommand=none",
    "ProxyJump=none",
    "ControlMaster=no",
    "ControlPath=none",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "SendEnv=GIT_PROTOCOL",
    "LogLevel=ERROR",
];

/// What ssh needs besides the address: the text of a private key and of a known_hosts file.
pub(super) struct Keys<'a> {
    pub(super) private: &'a str,
    pub(super) known_hosts: &'a str,
}

/// A program whose other end is a server's upload-pack.
pub(super) struct Remote {
    child: Child,
    messages: JoinHandle<String>,
    /// What it reads and writes, until git's transport is made of it.
    pipes: Option<(ChildStdout, ChildStdin)>,
}

/// Git's transport through such a program.
pub(super) type Piped = Connection<std::io::BufReader<Clocked<ChildStdout>>, Clocked<ChildStdin>>;

impl Remote {
    /// Starts the ssh client towards one of the checked addresses.
    pub(super) fn ssh(
        program: &Path,
        location: &Location,
        address: SocketAddr,
        keys: &Keys<'_>,
        scratch: &Scratch,
    ) -> Result<Self, SourceError> {
        let wrote = |result: std::io::Result<PathBuf>| {
            result.map_err(|error| {
                SourceError::Unavailable(format!("cannot keep the key for ssh: {}", error.kind()))
            })
        };
        let key = wrote(scratch.write("key", unix_lines(keys.private).as_bytes()))?;
        let known_hosts = wrote(scratch.write("known_hosts", unix_lines(keys.known_hosts).as_bytes()))?;
        let mut command = Command::new(program);
        command.args(["-F", "none", "-T", "-x", "-a"]);
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(option("UserKnownHostsFile", &known_hosts)?);
        command.arg("-o").arg(option("IdentityFile", &key)?);
        // What was checked is what is connected to; the host key is looked up by the name all the same.
        command.arg("-o").arg(format!("HostName={}", address.ip()));
        command.arg("-o").arg(format!("HostKeyAlias={}", location.known_host()));
        command.args(["-p", &address.port().to_string(), "-l", location.user.as_deref().unwrap_or("git")]);
        command.args(["--", &location.host, &format!("git-upload-pack {}", quoted(&location.path))]);
        command.env_clear().env("HOME", scratch.path());
        Self::start(command, "the program ssh is not installed beside driftguard")
    }

    /// Starts git's own server on a repository of this machine.
    pub(super) fn file(location: &Location, scratch: &Scratch) -> Result<Self, SourceError> {
        let mut command = Command::new("git");
        command.args(["upload-pack", "--strict", "--", &location.path]);
        command.env_clear().env("HOME", scratch.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        Self::start(command, "the program git, which file:// needs, is not installed beside driftguard")
    }

    fn start(mut command: Command, missing: &str) -> Result<Self, SourceError> {
        let unavailable = |what: String| SourceError::Unavailable(what);
        command
            .env("GIT_PROTOCOL", "version=2")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unavailable(missing.to_owned()),
            kind => unavailable(format!("cannot start a program for git: {kind}")),
        })?;
        match (child.stdout.take(), child.stdin.take(), child.stderr.take()) {
            (Some(output), Some(input), Some(messages)) => {
                Ok(Self { child, messages: tokio::spawn(kept(messages)), pipes: Some((output, input)) })
            }
            _ => Err(unavailable("cannot talk to a program for git".to_owned())),
        }
    }

    /// Makes git's transport of it; once.
    pub(super) fn transport(&mut self, location: &Location, wire: &Arc<Wire>) -> Option<Piped> {
        let (output, input) = self.pipes.take()?;
        let reader = std::io::BufReader::new(Clocked { wire: Arc::clone(wire), stream: output });
        let writer = Clocked { wire: Arc::clone(wire), stream: input };
        let path = location.path.as_str();
        Some(Connection::new(
            reader,
            writer,
            Protocol::V2,
            path,
            None::<(&str, _)>,
            ConnectMode::Process,
            false,
        ))
    }

    /// Ends it, and says why it failed if it says so.
    pub(super) async fn complaint(mut self, location: &Location) -> Option<SourceError> {
        // It ends by itself when it failed; one that has not is of no interest.
        let status = timeout(ENDING, self.child.wait()).await.ok().and_then(Result::ok);
        self.child.start_kill().ok();
        let messages = timeout(ENDING, self.messages).await.ok().and_then(Result::ok).unwrap_or_default();
        let status = status?;
        if status.success() {
            return None;
        }
        Some(match location.scheme {
            Scheme::Ssh => explained(&messages, status.code(), location),
            _ => SourceError::Invalid(format!("git cannot read {location}{}", said(&messages))),
        })
    }
}

/// Reads all that is said, so that nobody waits for us, and keeps the beginning.
async fn kept(mut messages: ChildStderr) -> String {
    let mut text = Vec::new();
    if (&mut messages).take(MESSAGES).read_to_end(&mut text).await.is_ok() {
        tokio::io::copy(&mut messages, &mut tokio::io::sink()).await.ok();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What OpenSSH's messages mean. The exit code is 255 when the client itself failed, else the server's program's.
fn explained(messages: &str, code: Option<i32>, location: &Location) -> SourceError {
    let has = |text: &str| messages.contains(text);
    let plain = without_host(messages, location);
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return SourceError::Forbidden(format!(
            "the host key of {SERVER} is not the one in knownHosts; nothing was sent. Find out whether the server \
             changed its key before you change knownHosts"
        ));
    }
    if has("Host key verification failed") || has("host key is known for") {
        return SourceError::Forbidden(format!(
            "knownHosts of the Secret has no key for {SERVER}; nothing was sent. Add a line of ssh-keyscan -p {} \
             HOST, compared with what the server's owner publishes",
            location.port()
        ));
    }
    if has("Load key") || has("error in libcrypto") || has("invalid format") {
        return SourceError::Invalid(
            "sshPrivateKey of the Secret is no private key that OpenSSH reads without a passphrase"
                .to_owned(),
        );
    }
    if has("Permission denied (") || has("Too many authentication failures") {
        return SourceError::Forbidden(format!("{SERVER} refused sshPrivateKey of the Secret"));
    }
    if code == Some(255) {
        return SourceError::Unavailable(format!("{SERVER} cannot be reached by ssh{}", said(&plain)));
    }
    SourceError::Invalid(format!("{SERVER} does not give out the repository{}", said(&plain)))
}

/// Messages without the server's name and address, which are not for everybody who reads a status.
fn without_host(messages: &str, location: &Location) -> String {
    let address = |word: &str| word.trim_matches(['[', ']', ':', ',', '.']).parse::<IpAddr>().is_ok();
    let hidden = messages.replace(&location.host, "HOST");
    let words = hidden.split_inclusive([' ', '\n']);
    words.map(|word| if address(word.trim_end()) { "HOST " } else { word }).collect()
}

/// The last line of messages, as much of it as may stand in a status.
fn said(messages: &str) -> String {
    let Some(line) = messages.lines().map(str::trim).rfind(|line| !line.is_empty()) else {
        return String::new();
    };
    let plain: String = line.chars().filter(|char| !char.is_control()).take(QUOTED).collect();
    format!(": {plain}")
}

/// An option whose value is a path, which OpenSSH takes apart at white space and `%`.
fn option(name: &str, path: &Path) -> Result<String, SourceError> {
    let path = path.to_str().filter(|path| !path.contains(['"', '\\', '%', '$']));
    let path = path.ok_or_else(|| {
        SourceError::Unavailable("the folder for git fetches has a name that ssh cannot be given".to_owned())
    })?;
    Ok(format!("{name}=\"{path}\""))
}

/// A word for the shell of the server (git's own quoting).
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}

/// OpenSSH wants lines to end as on Unix, the last one too.
fn unix_lines(text: &str) -> String {
    let mut text = text.replace("\r\n", "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        Location {
            scheme: Scheme::Ssh,
            user: None,
            password: None,
            host: "git.example.com".to_owned(),
            port: Some(2222),
            path: "/r".to_owned(),
        }
    }

    #[test]
    fn what_openssh_says_is_told_apart() {
        let reason = |messages: &str, code| explained(messages, Some(code), &location());
        let changed = reason(
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            255,
        );
        assert!(
            matches!(&changed, SourceError::Forbidden(text) if text.contains("not the one in knownHosts"))
        );
        let far =
            reason("ssh: connect to host 192.0.2.1 port 2222: refused by git.example.com", 255).to_string();
        assert!(
            far.contains("connect to host HOST port") && !far.contains("example") && !far.contains("192"),
            "{far}"
        );
        let unknown =
            reason("No ED25519 host key is known for [x]\r\nHost key verification failed.\r\n", 255);
        assert!(matches!(&unknown, SourceError::Forbidden(text) if text.contains("ssh-keyscan -p 2222")));
        assert!(matches!(reason("git@x: Permission denied (publickey).", 255), SourceError::Forbidden(_)));
        assert!(matches!(reason("Load key \"/x\": invalid format", 255), SourceError::Invalid(_)));
        assert!(matches!(
            reason("connect to host x port 22: Connection refused", 255),
            SourceError::Unavailable(_)
        ));
        assert!(matches!(reason("ERROR: Repository not found.", 1), SourceError::Invalid(_)));
    }

    #[test]
    fn a_message_of_a_server_is_cut_and_holds_no_control_characters() {
        let text = said(&format!("first\n\u{1b}[31m{}\n\n", "x".repeat(1000)));
        assert_eq!(text.chars().count(), QUOTED + 2);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_path_is_one_word_for_the_shell_of_the_server() {
        assert_eq!(quoted("/a'; touch x; '"), "'/a'\\''; touch x; '\\'''");
        assert_eq!(quoted("/a!b"), "'/a'\\!'b'");
    }
}
