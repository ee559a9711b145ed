//! Where messages wait on disk: one file each, in a folder that this process alone uses.
//!
//! A file appears under its name only when it is whole and on disk: it is written under another name,
//! flushed, and renamed. So a process may end at any moment, by SIGKILL too. What a failing disk or file
//! system tears nevertheless is recognised by the file's own digest, and skipped. What merely cannot be
//! read now, such as for want of file descriptors or memory, is kept.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::event::{Event, Key, hex, key, unhex};

/// How names of files end.
const SUFFIX: &str = ".event";
/// How names of files end that are not whole yet.
const UNFINISHED: &str = ".new";
/// The file that is locked for as long as the process lives.
const LOCK: &str = "lock";
/// No message of ours is nearly as large.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made, read or written.
    #[error("cannot use the spool folder {path}: {source}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the spool folder {path} is in use by another process; give each a --spool-dir of its own")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A folder of messages.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What lay in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Place, size and content of each message, oldest first.
    pub events: Vec<(u64, u64, Event)>,
    /// Place, size and short name of each message that cannot be read now. Their files are kept.
    pub unread: Vec<(u64, u64, Key)>,
    /// Files that were torn; they are gone now.
    pub torn: usize,
}

impl Folder {
    /// Takes a folder, made where it is missing, and reads what an earlier process left in it.
    ///
    /// # Errors
    /// [`FolderError`] when it cannot be used or another process uses it.
    pub fn open(path: &Path) -> Result<(Self, Found), FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        let found = folder.read_all().map_err(unusable)?;
        Ok((folder, found))
    }

    /// Writes a message, which is there under its name once this returns. Returns its size.
    /// [`Self::sync`] sees to it that the name outlives a power cut, too.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is left of it then.
    pub fn write(&self, place: u64, event: &Event) -> io::Result<u64> {
        let name = name(place, &key(&event.id));
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let bytes = event.to_file();
        let written = self.write_whole(&unfinished, &bytes);
        let renamed = written.and_then(|()| fs::rename(&unfinished, self.path.join(name)));
        if renamed.is_err() {
            // Of a full disk this gives back what it can.
            let _ = fs::remove_file(&unfinished);
        }
        renamed.map(|()| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Flushes names to disk.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Reads a message; `None` when it is torn or gone.
    ///
    /// # Errors
    /// When it cannot be read now: nothing is known of it, and it may well be whole.
    pub fn read(&self, place: u64, key: &Key) -> io::Result<Option<Event>> {
        read(&self.path.join(name(place, key)))
    }

    /// Removes a message. One that cannot be removed is delivered again after a restart, with the same id.
    pub fn remove(&self, place: u64, key: &Key) {
        let path = self.path.join(name(place, key));
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a delivered message could not be removed");
        }
    }

    #[cfg(test)]
    pub(super) fn path_of(&self, place: u64, key: &Key) -> PathBuf {
        self.path.join(name(place, key))
    }

    fn read_all(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(UNFINISHED) {
                let _ = fs::remove_file(&path);
                continue;
            }
            let Some((place, key)) = parts_of(name) else { continue };
            let size = entry.metadata()?.len();
            match if size > MAX_FILE { Ok(None) } else { read(&path) } {
                Ok(Some(event)) => found.events.push((place, size, event)),
                Ok(None) => {
                    found.torn += 1;
                    let _ = fs::remove_file(&path);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "a message cannot be read now and is kept");
                    found.unread.push((place, size, key));
                }
            }
        }
        found.events.sort_by_key(|(place, ..)| *place);
        Ok(found)
    }
}

fn name(place: u64, key: &Key) -> String {
    format!("{place:020}-{}{SUFFIX}", hex(key))
}

fn parts_of(name: &str) -> Option<(u64, Key)> {
    let (place, key) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    Some((place.parse().ok()?, unhex(key)?))
}

fn read(path: &Path) -> io::Result<Option<Event>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Event::from_file(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::super::event::Kind;
    use super::*;

    fn event(id: &str) -> Event {
        Event { id: id.into(), transaction_id: "t".into(), kind: Kind::Alert, body: "{}".into() }
    }

    fn ids(found: &Found) -> Vec<&str> {
        found.events.iter().map(|(_, _, event)| event.id.as_str()).collect()
    }

    #[test]
    fn messages_are_found_again_in_order() {
        let place = tempfile::tempdir().unwrap();
        let (folder, found) = Folder::open(place.path()).unwrap();
        assert!(found.events.is_empty());
        for (number, id) in [(2, "b"), (10, "c"), (1, "a")] {
            folder.write(number, &event(id)).unwrap();
        }
        folder.remove(10, &key("c"));
        drop(folder);
        let (folder, found) = Folder::open(place.path()).unwrap();
        assert_eq!((ids(&found), found.torn), (vec!["a", "b"], 0));
        assert_eq!(folder.read(2, &key("b")).unwrap(), Some(event("b")));
        assert_eq!(folder.read(10, &key("c")).unwrap(), None);
    }

    #[test]
    fn whatever_a_crash_leaves_behind_is_recognised() {
        let place = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::open(place.path()).unwrap();
        folder.write(1, &event("whole")).unwrap();
        drop(folder);
        let bytes = event("torn").to_file();
        let write = |name: String, bytes: &[u8]| fs::write(place.path().join(name), bytes).unwrap();
        // Ended while writing, and between writing and renaming.
        write(format!("{}{UNFINISHED}", name(2, &key("torn"))), &bytes[..20]);
        write(format!("{}{UNFINISHED}", name(3, &key("torn"))), &bytes);
        // Named before the bytes were on disk.
        write(name(4, &key("torn")), b"");
        write(name(5, &key("torn")), &vec![0; bytes.len()]);
        write(name(6, &key("torn")), &bytes[..bytes.len() - 1]);
        // Not ours.
        write("lost+found".to_owned(), b"x");
        let (_folder, found) = Folder::open(place.path()).unwrap();
        assert_eq!((ids(&found), found.torn), (vec!["whole"], 3));
        let mut left: Vec<String> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [name(1, &key("whole")), LOCK.to_owned(), "lost+found".to_owned()]);
    }

    #[test]
    fn a_message_that_cannot_be_read_now_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(name(7, &key("a")));
        // A link to itself can be read by nobody, whoever runs the test.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let (folder, found) = Folder::open(place.path()).unwrap();
        assert_eq!((found.torn, found.events.len()), (0, 0));
        let [(7, _, found)] = found.unread.as_slice() else { unreachable!("{:?}", found.unread) };
        assert_eq!(*found, key("a"));
        assert!(folder.read(7, &key("a")).is_err());
        assert!(path.is_symlink(), "it was removed");
        fs::remove_file(&path).unwrap();
        assert!(folder.read(7, &key("a")).unwrap().is_none(), "what is gone is gone");
    }

    #[test]
    fn two_processes_never_share_a_folder() {
        let place = tempfile::tempdir().unwrap();
        let (first, _) = Folder::open(place.path()).unwrap();
        let error = Folder::open(place.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(first);
        Folder::open(place.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, b"").unwrap();
        let error = Folder::open(&path.join("spool")).unwrap_err();
        assert!(error.to_string().contains("file/spool"), "{error}");
    }
}
