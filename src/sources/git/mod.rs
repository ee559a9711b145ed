//! One file of a git repository, fetched without a checkout.
//!
//! What always holds:
//! - the address was checked before anything was sent, and no other is connected to;
//! - the server proved who it is: by a certificate, or by a host key in the Secret;
//! - credentials go to that server only, and stand in no error and no log;
//! - time, bytes received, what they unpack to, and the file are bounded, and so are fetches at once, for
//!   each namespace and of each server too;
//! - no symbolic link, submodule, hook, filter or configuration of a repository has any effect.
//!
//! [`fetch`] is the way in. `location` and `wanted` read what was asked for, `https` and `ssh` connect,
//! `conversation` asks, `pack` reads the answer.

mod conversation;
mod https;
mod location;
mod pack;
mod scratch;
mod settings;
mod ssh;
mod wanted;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use self::conversation::{Trouble, Wanted};
use self::location::{Location, Scheme};
use self::scratch::Scratch;
pub use self::settings::{GitArgs, GitSettings, SettingsError};
use self::ssh::{Keys, Remote};
use self::wanted::{FilePath, Reference};
use self::wire::{Stop, Wire};
use super::SourceError;
use super::address::{self, NoAddress};
use crate::core::text::Text;

/// How sentences name the server: who reads them may not be allowed to read the Secret.
const SERVER: &str = "the server of the Secret's url";
/// What a pack may unpack to, as a multiple of what may be received.
const UNPACKED: u64 = 1;
/// How we prove who we are. Its `Debug` shows none of it.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User for https or ssh; wins over the one of the URL.
    pub username: Option<String>,
    /// Password or token for https; wins over the one of the URL.
    pub password: Option<String>,
    /// Private key for ssh, as OpenSSH reads it, without a passphrase.
    pub ssh_private_key: Option<String>,
    /// Host keys for ssh, as lines of a known_hosts file.
    pub known_hosts: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credentials(..)")
    }
}

/// One file of one repository. Its `Debug` shows no URL, which may hold a password.
#[derive(Clone)]
pub struct GitRequest {
    /// Where the repository is.
    pub url: String,
    /// Branch, tag, full ref or commit; absent: the default branch.
    pub reference: Option<String>,
    /// How we prove who we are.
    pub credentials: Credentials,
    /// The file, from the top of the repository.
    pub path: String,
}

impl fmt::Debug for GitRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GitRequest")
            .field("reference", &self.reference)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl GitRequest {
    /// Reads the keys `url`, `ref`, `username`, `password`, `sshPrivateKey` and `knownHosts` of a Secret.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] when `url` is missing or a value is no text.
    pub fn from_secret<'a>(
        path: &str,
        value: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, SourceError> {
        let text = |key: &str| {
            value(key)
                .map(|bytes| std::str::from_utf8(bytes).map(str::to_owned))
                .transpose()
                .map_err(|_| SourceError::Invalid(format!("{key} of the Secret is no text (UTF-8)")))
        };
        // Who writes a Secret with an editor or `echo` leaves a line end that is no part of the value.
        let line = |key: &str| {
            let trimmed = text(key)?.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
            Ok::<_, SourceError>(trimmed.filter(|text| !text.is_empty()))
        };
        let missing =
            || SourceError::Invalid("the Secret has no url; it must name the repository".to_owned());
        Ok(Self {
            url: line("url")?.ok_or_else(missing)?,
            reference: line("ref")?,
            credentials: Credentials {
                username: line("username")?,
                password: line("password")?,
                ssh_private_key: text("sshPrivateKey")?,
                known_hosts: text("knownHosts")?,
            },
            path: path.to_owned(),
        })
    }
}

/// Fetches one file for a guard of `namespace`, once other fetches leave room; the time that it may take begins
/// before it waits for that.
///
/// # Errors
/// [`SourceError`]: `Unavailable` when the server cannot be reached or is too slow, `Forbidden` when the URL
/// or address is not allowed, or the server refuses us or does not prove who it is, `Invalid` when request,
/// repository or file cannot be used.
pub async fn fetch(
    settings: &GitSettings,
    namespace: &Text,
    request: GitRequest,
) -> Result<Vec<u8>, SourceError> {
    let plan = Plan::of(settings, &request)?;
    let seconds = settings.time.as_secs();
    let deadline = Instant::now() + settings.time;
    let busy = || SourceError::Unavailable(format!("other fetches from git took all of {seconds} s"));
    let server = plan.server();
    let turn = timeout_at(deadline, settings.turns.turn_at(namespace, &server)).await.map_err(|_| busy())?;
    let host = plan.host();
    let asker = Asker(Arc::default());
    let received = settings.received;
    let wire = Arc::new(Wire::new(host, deadline, seconds, received, Arc::clone(&asker.0)));
    // A task of its own: it ends in order, and keeps its turn until it has, even when nobody waits any more.
    let settings = settings.clone();
    let fetching = tokio::spawn(async move {
        let file = plan.carry_out(&settings, wire, deadline).await;
        drop(turn);
        file
    });
    let late = || SourceError::Unavailable(wire::late(host, seconds));
    match timeout_at(deadline, fetching).await {
        Ok(Ok(file)) => file,
        Ok(Err(_)) => Err(SourceError::Invalid(format!("reading what {host} sent failed"))),
        Err(_) => Err(late()),
    }
}

/// Whoever waits for a fetch; it is stopped when this goes.
struct Asker(Arc<Stop>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A request that was found to be allowed.
struct Plan {
    location: Location,
    reference: Reference,
    path: FilePath,
    password: Option<String>,
    private_key: Option<String>,
    known_hosts: Option<String>,
}

impl Plan {
    fn of(settings: &GitSettings, request: &GitRequest) -> Result<Self, SourceError> {
        let forbidden = |what: &str| Err(SourceError::Forbidden(what.to_owned()));
        let Credentials { username, password, ssh_private_key, known_hosts } = request.credentials.clone();
        let mut location = Location::parse(&request.url)?;
        if let Some(user) = &username {
            location = location.with_user(user)?;
        }
        let password = password.or_else(|| location.password.take());
        location.password = None;
        match location.scheme {
            Scheme::Http if !settings.allow_http => {
                return forbidden(
                    "http:// is not allowed, since nobody could tell who answers; write https://",
                );
            }
            Scheme::Http if password.is_some() => {
                return forbidden("a password is not sent over http://; write https://");
            }
            Scheme::File if !settings.allow_file => return forbidden("file:// is not allowed"),
            Scheme::Ssh => {
                let missing = |key: &str| {
                    Err(SourceError::Invalid(format!("the Secret has no {key}, which ssh needs")))
                };
                if ssh_private_key.is_none() {
                    return missing("sshPrivateKey");
                }
                if known_hosts.as_ref().is_none_or(|lines| lines.trim().is_empty()) {
                    let how = format!(
                        "knownHosts, without which nobody could tell who answers; ssh-keyscan -p {} HOST prints \
                         the lines, to be compared with what the server's owner publishes",
                        location.port()
                    );
                    return Err(SourceError::Invalid(format!("the Secret has no {how}")));
                }
            }
            Scheme::Https | Scheme::Http | Scheme::File => {}
        }
        Ok(Self {
            reference: Reference::parse(request.reference.as_deref())?,
            path: FilePath::parse(&request.path)?,
            location,
            password,
            private_key: ssh_private_key,
            known_hosts,
        })
    }

    /// The server, for sentences.
    fn host(&self) -> &'static str {
        match self.location.scheme {
            Scheme::File => "git",
            Scheme::Https | Scheme::Http | Scheme::Ssh => SERVER,
        }
    }

    /// The server, to tell it from others. Another port may be another one, and a name has no case.
    fn server(&self) -> Text {
        format!("{}:{}", self.location.host.to_ascii_lowercase(), self.location.port()).into()
    }

    /// User and password for https. A token alone goes as a password, with a user that servers overlook.
    fn basic(&self) -> Option<(String, String)> {
        let user = self.location.user.clone();
        match (user, self.password.clone()) {
            (None, None) => None,
            (user, password) => {
                Some((user.unwrap_or_else(|| "git".to_owned()), password.unwrap_or_default()))
            }
        }
    }

    /// What a server could repeat.
    fn secrets(&self) -> Vec<String> {
        let Some((user, password)) = self.basic() else { return Vec::new() };
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        [password, encoded].into_iter().filter(|secret| !secret.is_empty()).collect()
    }

    async fn carry_out(
        self,
        settings: &GitSettings,
        wire: Arc<Wire>,
        deadline: Instant,
    ) -> Result<Vec<u8>, SourceError> {
        let slow = |_| SourceError::Unavailable(format!("the name of {SERVER} was not looked up in time"));
        let addresses = timeout_at(deadline, self.addresses(settings)).await.map_err(slow)??;
        let scratch = Scratch::new(&settings.folder).map_err(|error| {
            SourceError::Unavailable(format!("cannot make a folder for a git fetch: {}", error.kind()))
        })?;
        let mut remote = match self.location.scheme {
            Scheme::Https | Scheme::Http => None,
            Scheme::File => Some(Remote::file(&self.location, &scratch)?),
            Scheme::Ssh => {
                let address = reachable(&addresses, deadline).await?;
                let keys = Keys {
                    private: self.private_key.as_deref().unwrap_or_default(),
                    known_hosts: self.known_hosts.as_deref().unwrap_or_default(),
                };
                Some(Remote::ssh(&settings.ssh, &self.location, address, &keys, &scratch)?)
            }
        };
        let piped = remote.as_mut().and_then(|remote| remote.transport(&self.location, &wire));
        let location = self.location.clone();
        let (received, blob, authorities) = (settings.received, settings.blob, settings.authorities.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let secrets = self.secrets();
            let left_out: Vec<String> = [Some(self.location.host.clone()), self.reference.text()]
                .into_iter()
                .flatten()
                .filter(|text| !text.is_empty())
                .collect();
            let wanted = Wanted {
                reference: &self.reference,
                path: &self.path,
                blob,
                unpacked: received.saturating_mul(UNPACKED),
                host: self.host(),
                secrets: &secrets,
                left_out: &left_out,
            };
            // The folder goes when the thread is done with it.
            let folder = scratch.path();
            match piped {
                Some(piped) => conversation::file(piped, &wire, &wanted, folder),
                None => {
                    let clock = Arc::clone(&wire);
                    let transport =
                        https::transport(&self.location, self.basic(), addresses, &authorities, clock)?;
                    conversation::file(transport, &wire, &wanted, folder)
                }
            }
        });
        let answer =
            asking.await.map_err(|_| SourceError::Invalid(format!("reading what {SERVER} sent failed")))?;
        match (answer, remote) {
            (Ok(file), _) => Ok(file),
            (Err(Trouble::Broken(error)), Some(remote)) => {
                Err(remote.complaint(&location).await.unwrap_or(error))
            }
            (Err(Trouble::Known(error) | Trouble::Broken(error)), _) => Err(error),
        }
    }

    async fn addresses(&self, settings: &GitSettings) -> Result<Vec<SocketAddr>, SourceError> {
        if self.location.scheme == Scheme::File {
            return Ok(Vec::new());
        }
        let found = address::resolve(&self.location.host, self.location.port(), &settings.addresses).await;
        found.map_err(|why| match why {
            NoAddress::Unknown(_) => SourceError::Unavailable(format!("the name of {SERVER} has no address")),
            NoAddress::Refused(_, refused) => SourceError::Forbidden(format!(
                "the address of {SERVER} {}, which no source may have; --allow-source-address allows it",
                refused.what()
            )),
        })
    }
}

/// The first address that takes connections: ssh is given one, and a name may have some that do not.
async fn reachable(addresses: &[SocketAddr], deadline: Instant) -> Result<SocketAddr, SourceError> {
    if let [only] = addresses {
        return Ok(*only);
    }
    let mut why = std::io::ErrorKind::NotFound;
    for (tried, address) in addresses.iter().enumerate() {
        // Each has its share of the time that is left.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(*address),
            Ok(Err(error)) => why = error.kind(),
            Err(_) => why = std::io::ErrorKind::TimedOut,
        }
    }
    Err(SourceError::Unavailable(format!("{SERVER} cannot be reached: {why}")))
}

#[cfg(test)]
#[path = "git_tests.rs"]
mod tests;
