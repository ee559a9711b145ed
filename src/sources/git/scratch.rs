//! A private folder that lives as long as one fetch. Packs and, for ssh, keys lie in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder that only this user may enter. It is removed with all that is in it when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        // The name cannot be foreseen, and a folder that exists is an error: nobody can have laid one out for us.
        let path = parent.join(format!("{}{}", prefix(), uuid::Uuid::now_v7()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only this user may read.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(content)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove the folder of a git fetch");
        }
    }
}

/// Removes what an earlier life of this process left behind when it was killed. In a container, which
/// keeps its folders when it starts again, it had the same process id. Folders of other processes bear
/// another, and stay. What cannot be removed is somebody else's, who may not keep us from starting; and
/// without a folder there is nothing to remove, and nobody yet who fetches.
pub(super) fn remove_leftovers(parent: &Path) -> io::Result<()> {
    let prefix = prefix();
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "cannot remove what looks like an old git fetch");
        }
    }
    Ok(())
}

fn prefix() -> String {
    format!("driftguard-git-{}-", std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_private_and_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        let file = scratch.write("key", b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(scratch.path()), 0o700);
        assert_eq!(mode(&file), 0o600);
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_this_process_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let ours = Scratch::new(parent.path()).unwrap();
        std::mem::forget(ours);
        let other = parent.path().join("driftguard-git-0-x");
        fs::create_dir(&other).unwrap();
        remove_leftovers(parent.path()).unwrap();
        remove_leftovers(&parent.path().join("none")).unwrap();
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [other]);
    }
}
