//! How git repositories are fetched from, and the flags that say so.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Certificate;

use super::scratch;
use crate::core::duration::{self, DurationError};
use crate::sources::address::AddressPolicy;
use crate::sources::turns::Turns;

/// Fetches at once, and those for guards of one namespace. Each holds a thread, and what it unpacks.
const AT_ONCE: (usize, usize) = (3, 1);
/// Largest file of authorities, in bytes.
const LARGEST_CA: u64 = 1 << 20;

/// Flags about git sources.
#[derive(Debug, Clone, clap::Args)]
pub struct GitArgs {
    /// Longest time for fetching a file of a git repository, waiting for other fetches included, such as 30s; less
    /// than 60s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_time)]
    git_timeout: Duration,
    /// Most that a git server may send for one file, and what that may unpack to, in MiB; three files are fetched at
    /// once, so that the volume of --git-folder must hold three times that, and the memory of the pod as much again
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    git_max_fetch: u64,
    /// Largest file of a git repository, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    git_max_file: u64,
    /// Folder for what is fetched and for ssh keys, removed after each fetch; should be in memory [default: the
    /// system's for temporary files]
    #[arg(long, value_name = "FOLDER")]
    git_folder: Option<PathBuf>,
    /// Authorities (PEM) that git servers may have besides those of the system
    #[arg(long, value_name = "FILE")]
    git_ca: Option<PathBuf>,
    /// Allow git repositories of this machine (file://), for tests
    #[arg(long, hide = true)]
    allow_git_file: bool,
    /// Allow git over plain http, without credentials
    #[arg(long, hide = true)]
    allow_git_http: bool,
}

/// All sources of a guard together have 60 s.
fn parse_time(text: &str) -> Result<Duration, DurationError> {
    duration::parse_within(text, Duration::from_secs(1)..=Duration::from_secs(59))
}

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The authorities cannot be read.
    #[error("cannot read --git-ca {}: {error}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// There is no certificate in the file, or one that cannot be read.
    #[error("--git-ca {} holds no certificates in PEM", .0.display())]
    Certificate(PathBuf),
    /// The folder cannot be used.
    #[error("cannot use --git-folder {}: {error}", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl GitArgs {
    /// Settings for one process. Removes from the folder what a killed process left there.
    ///
    /// # Errors
    /// [`SettingsError`] when a file or the folder cannot be used.
    pub fn settings(&self, addresses: AddressPolicy) -> Result<GitSettings, SettingsError> {
        let folder = self.git_folder.clone().unwrap_or_else(std::env::temp_dir);
        scratch::remove_leftovers(&folder)
            .map_err(|error| SettingsError::Folder { folder: folder.clone(), error })?;
        let authorities = self.git_ca.as_ref().map(authorities).transpose()?.unwrap_or_default();
        Ok(GitSettings {
            time: self.git_timeout,
            received: self.git_max_fetch << 20,
            blob: self.git_max_file << 20,
            folder,
            authorities,
            allow_file: self.allow_git_file,
            allow_http: self.allow_git_http,
            addresses,
            ..GitSettings::default()
        })
    }
}

fn authorities(file: &PathBuf) -> Result<Vec<Certificate>, SettingsError> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(LARGEST_CA).read_to_end(&mut pem));
    read.map_err(|error| SettingsError::Read { file: file.clone(), error })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(SettingsError::Certificate(file.clone())),
    }
}

/// How git repositories are fetched from.
#[derive(Clone)]
pub struct GitSettings {
    /// Longest time for one fetch, name resolution and waiting for other fetches included.
    pub time: Duration,
    /// Most that a server may send for one fetch, in bytes.
    pub received: u64,
    /// Largest file, in bytes.
    pub blob: u64,
    /// Where each fetch makes its private folder.
    pub folder: PathBuf,
    /// Authorities that servers may have besides those of the system.
    pub authorities: Vec<Certificate>,
    /// Whether `file://` is a source.
    pub allow_file: bool,
    /// Whether `http://` is one; credentials are never sent over it.
    pub allow_http: bool,
    /// Which addresses servers may have.
    pub addresses: AddressPolicy,
    /// The OpenSSH client.
    pub ssh: PathBuf,
    /// Who may fetch now.
    pub(super) turns: Arc<Turns>,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            received: 64 << 20,
            blob: 4 << 20,
            folder: std::env::temp_dir(),
            authorities: Vec::new(),
            allow_file: false,
            allow_http: false,
            addresses: AddressPolicy::default(),
            ssh: PathBuf::from("/usr/bin/ssh"),
            turns: Arc::new(Turns::new(AT_ONCE.0, AT_ONCE.1)),
        }
    }
}

impl fmt::Debug for GitSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GitSettings")
            .field("time", &self.time)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
