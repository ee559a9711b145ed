//! Repositories to fetch from, made by git itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// What `config.yaml` holds now.
pub(super) const NOW: &str = "price: \"100\"\n";
/// What it held one commit earlier.
pub(super) const EARLIER: &str = "price: \"90\"\n";
/// What it holds on the branch `next`.
pub(super) const NEXT: &str = "price: \"110\"\n";
/// What `apps/shop/web.yaml` holds. The branch `large` also has 1.5 MiB in `random.bin` and 8 MiB in `zeros.bin`.
pub(super) const DEEP: &str = "replicas: 3\n";

/// Bare repositories in one folder: `whole.git` on which servers send whole commits, and `part.git`, alike,
/// on which they can leave contents out.
pub(super) struct Repositories {
    folder: TempDir,
    /// The commit before the last.
    pub(super) earlier: String,
}

impl Repositories {
    pub(super) fn make() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let work = folder.path().join("work");
        std::fs::create_dir(&work)?;
        let git = |arguments: &[&str]| git(&work, arguments);
        let write = |name: &str, content: &[u8]| -> Result<()> {
            let path = work.join(name);
            std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            Ok(std::fs::write(path, content)?)
        };
        git(&["init", "--quiet", "--initial-branch=main"])?;
        write("config.yaml", EARLIER.as_bytes())?;
        git(&["add", "."])?;
        git(&["commit", "--quiet", "--message=first"])?;
        let earlier = git(&["rev-parse", "HEAD"])?;

        write("config.yaml", NOW.as_bytes())?;
        write("apps/shop/web.yaml", DEEP.as_bytes())?;
        write("large.yaml", &vec![b'#'; 200_000])?;
        std::os::unix::fs::symlink("config.yaml", work.join("link.yaml"))?;
        std::os::unix::fs::symlink("apps", work.join("linked"))?;
        std::os::unix::fs::symlink("/etc", work.join("etc"))?;
        git(&["add", "."])?;
        git(&["update-index", "--add", "--cacheinfo", &format!("160000,{earlier},submodule")])?;
        git(&["commit", "--quiet", "--message=second"])?;
        git(&["tag", "light"])?;
        git(&["tag", "--annotate", "--message=a release", "v1"])?;
        git(&["tag", "--annotate", "--message=a tag of a tag", "signed-off", "v1"])?;
        git(&["branch", "both"])?;
        git(&["tag", "both"])?;
        git(&["checkout", "--quiet", "-b", "next"])?;
        write("config.yaml", NEXT.as_bytes())?;
        git(&["commit", "--quiet", "--all", "--message=third"])?;
        git(&["checkout", "--quiet", "-b", "large", "main"])?;
        write("random.bin", &noise(1536 << 10))?;
        write("zeros.bin", &vec![0; 8 << 20])?;
        git(&["add", "random.bin", "zeros.bin"])?;
        git(&["commit", "--quiet", "--message=fourth"])?;
        git(&["checkout", "--quiet", "main"])?;
        for name in ["whole.git", "part.git"] {
            git(&["clone", "--quiet", "--bare", ".", &format!("../{name}")])?;
        }
        super::git(&folder.path().join("part.git"), &["config", "uploadpack.allowFilter", "true"])?;
        Ok(Self { folder, earlier })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Bytes that do not compress (xorshift).
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(count)
    .collect()
}

/// Runs git without anybody's configuration.
pub(super) fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@example.com")])
        .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@example.com")])
        .output()
        .context("git is missing: install it (Debian: apt install git)")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
