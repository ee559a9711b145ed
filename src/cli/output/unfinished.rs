//! Files that are being written: beside their place, until they are whole.
//!
//! Whoever ends the command by Ctrl-C, SIGTERM or by closing its terminal leaves nothing. What a command leaves that is
//! killed otherwise, the next one that writes the same file takes away: an unfinished file says so by its name, and
//! whoever writes it holds a lock on it. Where a file system has no locks, nothing is taken away.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Failed, Sink, end_of_links};
use crate::cli::signals;

/// What stands between the name of a file and the rest of an unfinished one's, which nobody has had before.
const MARK: &str = ".driftguard-";
/// How long the number behind it is.
const DIGITS: usize = 32;
/// How often another name is tried where one was taken away as soon as it was there.
const TRIES: usize = 5;

/// What is being written now, for whoever ends the command.
static BEGUN: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A file that is being written, and the place that it gets.
pub(super) struct Unfinished {
    beside: PathBuf,
    place: PathBuf,
    file: File,
}

impl Unfinished {
    /// Begins a file that will stand at a path, with owner and permissions of the `old` one there.
    pub(super) fn begin(path: &Path, old: Option<&fs::Metadata>) -> io::Result<Self> {
        let place = if old.is_some() { fs::canonicalize(path)? } else { end_of_links(path)? };
        let prefix = prefix(&place)?;
        remove_leftovers(&place, &prefix);
        remove_when_ended();
        for _ in 0..TRIES {
            let mut name = prefix.clone();
            name.push(uuid::Uuid::now_v7().simple().to_string());
            let beside = place.with_file_name(name);
            note(Some(beside.clone()));
            let begun = created(&beside).inspect_err(|_| note(None))?;
            if let Some(file) = begun {
                // From here on it is removed unless it gets its place.
                let unfinished = Self { beside, place, file };
                if let Some(old) = old {
                    // Root writes for others, in containers; whoever may not give files away keeps its own.
                    let _ = std::os::unix::fs::fchown(&unfinished.file, Some(old.uid()), Some(old.gid()));
                    unfinished.file.set_permissions(old.permissions())?;
                }
                return Ok(unfinished);
            }
        }
        Err(io::Error::other("somebody takes away what is being written"))
    }

    /// Writes it whole, and puts it at its place.
    pub(super) fn write<E>(
        self,
        make: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), Failed<E>> {
        Sink::new(&self.file).take(make)?;
        self.file.sync_all().and_then(|()| fs::rename(&self.beside, &self.place)).map_err(Failed::Write)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What was begun is worth nothing, and there is nobody to tell that it stays. Once it has its place nothing
        // has this name.
        let _ = fs::remove_file(&self.beside);
        note(None);
    }
}

fn note(begun: Option<PathBuf>) {
    *BEGUN.lock().unwrap_or_else(PoisonError::into_inner) = begun;
}

fn prefix(place: &Path) -> io::Result<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(place.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    prefix.push(MARK);
    Ok(prefix)
}

/// Makes the file and locks it; `None` when somebody took it for a leftover in between.
fn created(beside: &Path) -> io::Result<Option<File>> {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(beside)?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    Ok((file.metadata()?.nlink() > 0).then_some(file))
}

/// Takes away what was begun at this place by commands that live no more. What cannot be told of is left.
fn remove_leftovers(place: &Path, prefix: &OsStr) {
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_one =
            is_ours(&entry.file_name(), prefix) && entry.file_type().is_ok_and(|of_type| of_type.is_file());
        if !is_one {
            continue;
        }
        // Some file systems lock only what is open for writing.
        let Ok(file) = fs::OpenOptions::new().write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is one that [`Unfinished::begin`] makes: nobody else's file is to go, however it begins.
fn is_ours(name: &OsStr, prefix: &OsStr) -> bool {
    let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    number.is_some_and(|number| {
        number.len() == DIGITS && number.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Has what is being written removed when the command is ended by a signal. Where that cannot be arranged for, the
/// next command removes it.
fn remove_when_ended() {
    static ARRANGED: OnceLock<()> = OnceLock::new();
    ARRANGED.get_or_init(|| {
        // A command writes on the thread on which it would hear of signals, so that another one must listen.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let listening = {
            let _entered = runtime.enter();
            signals::listen_alone()
        };
        let Ok(Some(listening)) = listening else {
            // It would wait for its threads, which is not allowed where it may be.
            return runtime.shutdown_background();
        };
        let listen = move || runtime.block_on(ended(listening));
        drop(std::thread::Builder::new().name("signals".to_owned()).spawn(listen));
    });
}

/// Ends the process by the first signal: a shell that runs it in a loop ends that as well.
async fn ended(listening: impl Future<Output = i32>) {
    let number = listening.await;
    // Held until the end, so that nothing else is begun.
    let begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(beside) = begun.as_ref() {
        let _ = fs::remove_file(beside);
    }
    // The first process of a container cannot end by a signal.
    if std::process::id() != 1 {
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    std::process::exit(128 + number);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, ChildStdin, Command, Stdio};

    use super::super::{file, file_of};
    use super::*;

    /// Where [`half_a_file_is_written`] writes, when this process is the one that is to be ended.
    const PLACE: &str = "DRIFTGUARD_TEST_UNFINISHED";

    /// No test of its own, but what [`begun`] runs: it writes half a file and waits to be ended.
    #[test]
    fn half_a_file_is_written() {
        let Some(place) = std::env::var_os(PLACE) else { return };
        let written = file_of::<io::Error>(place.as_ref(), |out| {
            out.write_all(b"half")?;
            println!("begun");
            // Until it is ended, or whoever was to do that is no more.
            io::copy(&mut io::stdin(), &mut io::sink())?;
            Err(io::Error::other("nobody has ended it"))
        });
        drop(written);
    }

    /// A process that has begun a file, and its stdin and stdout for as long as it is to live: to wait for it would
    /// close the one that it holds itself.
    fn begun(place: &Path) -> (Child, (ChildStdin, impl BufRead + use<>)) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "cli::output::unfinished::tests::half_a_file_is_written"])
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begun") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was to");
        }
        let stdin = child.stdin.take().unwrap();
        (child, (stdin, said))
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn whoever_ends_a_command_while_it_writes_finds_nothing_of_it() {
        for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
            // Whoever runs the tests behind others may have told all of this to ignore it.
            if signals::is_ignored(number) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let (mut child, _held) = begun(&folder.path().join("a.yaml"));
            assert_eq!(count(folder.path()), 1);
            let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status();
            assert!(sent.unwrap().success());
            assert_eq!(child.wait().unwrap().signal(), Some(number));
            assert_eq!(count(folder.path()), 0);
        }
    }

    #[test]
    fn what_a_killed_command_leaves_goes_with_the_next_that_writes_the_file_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.yaml");
        let (mut killed, _held) = begun(&place);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert_eq!(count(folder.path()), 1);
        let mine = ".a.yaml.driftguard-0123456789abcdef0123456789abcdef.mine";
        fs::write(folder.path().join(mine), "").unwrap();
        file(&folder.path().join("b.yaml"), b"whole").unwrap();
        assert_eq!(count(folder.path()), 3, "the leftover is of another file");
        let (mut living, _held) = begun(&place);
        assert_eq!(count(folder.path()), 3, "it took the place of the leftover");
        file(&place, b"whole").unwrap();
        assert_eq!(count(folder.path()), 4, "what somebody else writes now stays");
        living.kill().unwrap();
        living.wait().unwrap();
        file(&place, b"again").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [mine, "a.yaml", "b.yaml"]);
    }
}
