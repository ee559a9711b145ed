//! Where a repository is: the URL of the Secret, taken apart strictly.
//!
//! Git itself gives URLs powers that no source may have: `ext::` runs a program, a host that begins with a
//! dash is an option of ssh, a bare path is a folder of this machine. So only what is known to be plain
//! passes, and what passes is never handed to a shell or to git's own parser.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::super::SourceError;

/// Longest URL, in bytes.
const LONGEST: usize = 2048;

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    Ssh,
    File,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

/// A repository. Its `Display` leaves user and password out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) scheme: Scheme,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// A name in lower case, or an address without brackets; empty for `file`.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// As the server is asked for it; absolute, except for ssh, where it may begin at a home folder.
    pub(super) path: String,
}

impl Location {
    /// Takes a URL apart: `https://`, `ssh://`, `http://`, `file:///`, or `user@host:path` for ssh.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] for what is not such a URL, [`SourceError::Forbidden`] for schemes and local
    /// paths. Neither repeats the URL, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, SourceError> {
        let url = url.trim_end_matches(['\r', '\n']);
        if url.is_empty() || url.len() > LONGEST {
            return Err(invalid("is empty or longer than 2048 bytes"));
        }
        if url.chars().any(|char| char.is_control() || char.is_whitespace() || char == '\\') {
            return Err(invalid("holds white space, backslashes or control characters"));
        }
        let location = match url.split_once("://") {
            Some((scheme, rest)) => Self::with_scheme(scheme_of(scheme)?, rest)?,
            None => Self::short(url)?,
        };
        location.checked()
    }

    fn with_scheme(scheme: Scheme, rest: &str) -> Result<Self, SourceError> {
        let start = rest.find('/').ok_or_else(|| invalid("has no path behind the host"))?;
        let (authority, path) = rest.split_at(start);
        if scheme == Scheme::File {
            if !authority.is_empty() {
                return Err(invalid("names a host, which a file has not; write file:///PATH"));
            }
            let path = path.to_owned();
            return Ok(Self { scheme, user: None, password: None, host: String::new(), port: None, path });
        }
        let (account, address) = match authority.rsplit_once('@') {
            Some((account, address)) => (Some(account), address),
            None => (None, authority),
        };
        let (user, password) = match account.map(|account| account.split_once(':').unwrap_or((account, ""))) {
            Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
            None => (None, None),
        };
        let (host, port) = host_and_port(address)?;
        let path = match path.strip_prefix("/~") {
            // As git does: the home folder of a user on the server.
            Some(home) if scheme == Scheme::Ssh => format!("~{home}"),
            _ => path.to_owned(),
        };
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self { scheme, user: some(user), password: some(password), host, port, path })
    }

    /// `user@host:path`, as git has it for ssh.
    fn short(url: &str) -> Result<Self, SourceError> {
        let here =
            || SourceError::Forbidden("a path of this machine is no source; write https:// or ssh://".into());
        let (authority, path) = url.split_once(':').ok_or_else(here)?;
        if authority.contains('/') {
            return Err(here());
        }
        if path.starts_with(':') {
            return Err(forbidden_scheme());
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host)?;
        Ok(Self { scheme: Scheme::Ssh, user, password: None, host, port, path: path.to_owned() })
    }

    fn checked(self) -> Result<Self, SourceError> {
        if self.path.trim_matches('/').is_empty() || self.path.starts_with('-') {
            return Err(invalid("has no path of a repository, or one that begins with a dash"));
        }
        if matches!(self.scheme, Scheme::Https | Scheme::Http) && self.path.contains(['?', '#']) {
            return Err(invalid("holds `?` or `#`"));
        }
        if self.scheme == Scheme::Ssh {
            if self.password.is_some() {
                return Err(invalid("holds a password, which ssh is not given; use sshPrivateKey"));
            }
            if self.user.as_deref().is_some_and(|user| !plain_user(user)) {
                return Err(invalid("holds a user name that is not plain"));
            }
        }
        Ok(self)
    }

    /// The same repository, reached as another user.
    pub(super) fn with_user(mut self, user: &str) -> Result<Self, SourceError> {
        if self.scheme == Scheme::Ssh && !plain_user(user) {
            return Err(SourceError::Invalid(
                "the username of the Secret is not a plain user name".to_owned(),
            ));
        }
        self.user = Some(user.to_owned());
        Ok(self)
    }

    /// The port that is connected to.
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
            Scheme::Ssh => 22,
            Scheme::File => 0,
        })
    }

    /// Host and port as `known_hosts` has them: the port only when it is not 22.
    pub(super) fn known_host(&self) -> String {
        match self.port() {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://", self.scheme.as_str())?;
        if self.host.contains(':') {
            write!(out, "[{}]", self.host)?;
        } else {
            out.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        if !self.path.starts_with('/') {
            out.write_str("/")?;
        }
        out.write_str(&self.path)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

fn invalid(what: &str) -> SourceError {
    SourceError::Invalid(format!("the url of the Secret {what}"))
}

fn forbidden_scheme() -> SourceError {
    SourceError::Forbidden("the url of the Secret may begin with https:// or ssh:// only".to_owned())
}

fn scheme_of(text: &str) -> Result<Scheme, SourceError> {
    [Scheme::Https, Scheme::Http, Scheme::Ssh, Scheme::File]
        .into_iter()
        .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
        .ok_or_else(forbidden_scheme)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), SourceError> {
    let wrong = || invalid("has a host or port that is none");
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
            (address.to_string(), rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at(end);
            (plain_host(host).ok_or_else(wrong)?, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        None if rest.is_empty() => None,
        None => return Err(wrong()),
    };
    Ok((host, port))
}

/// A name of letters, digits, dots, dashes and underscores, or an IPv4 address as people write it.
///
/// A name whose last label is a number would be an IPv4 address for some resolvers (`2130706433`,
/// `127.1`, `0x7f.1`) and not for others, so what was checked might not be what is connected to.
fn plain_host(host: &str) -> Option<String> {
    let plain = host.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_'));
    if host.is_empty() || host.len() > 253 || !plain || host.starts_with(['-', '.']) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.chars().all(|char| char.is_ascii_digit()) || last.starts_with("0x");
    (!numeric || host.parse::<IpAddr>().is_ok()).then_some(host)
}

fn plain_user(user: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_' | '+');
    !user.is_empty() && user.len() <= 64 && !user.starts_with('-') && user.chars().all(plain)
}

/// Resolves `%XX` of user and password (RFC 3986, 3.2.1).
fn decoded(text: &str) -> Result<String, SourceError> {
    let wrong = || invalid("holds a user or password with a `%` that is not followed by two digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            let digits =
                behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
            let byte =
                digits.chars().all(|char| char.is_ascii_hexdigit()).then_some(digits).ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(byte, 16).map_err(|_| wrong())?);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn parsed(url: &str) -> (Scheme, Option<String>, String, u16, String) {
        let location = Location::parse(url).unwrap();
        (location.scheme, location.user.clone(), location.host.clone(), location.port(), location.path)
    }

    #[test]
    fn urls_as_hosting_services_show_them_are_taken_apart() {
        let some = |user: &str| Some(user.to_owned());
        assert_eq!(
            parsed("https://git.example.com/team/repo.git"),
            (Scheme::Https, None, "git.example.com".into(), 443, "/team/repo.git".into())
        );
        assert_eq!(
            parsed("HTTPS://Git.Example.com:8443/r"),
            (Scheme::Https, None, "git.example.com".into(), 8443, "/r".into())
        );
        assert_eq!(
            parsed("git@git.example.com:team/repo.git"),
            (Scheme::Ssh, some("git"), "git.example.com".into(), 22, "team/repo.git".into())
        );
        assert_eq!(
            parsed("ssh://git@[fd12::1]:2222/~team/repo"),
            (Scheme::Ssh, some("git"), "fd12::1".into(), 2222, "~team/repo".into())
        );
        assert_eq!(parsed("file:///srv/repo"), (Scheme::File, None, String::new(), 0, "/srv/repo".into()));
    }

    #[test]
    fn user_and_password_are_decoded_and_never_shown() {
        let location = Location::parse("https://bot:p%40ss%2Fw@git.example.com/r").unwrap();
        assert_eq!(location.user.as_deref(), Some("bot"));
        assert_eq!(location.password.as_deref(), Some("p@ss/w"));
        for shown in [location.to_string(), format!("{location:?}")] {
            assert_eq!(shown, "https://git.example.com/r");
        }
    }

    #[test]
    fn a_url_that_runs_something_or_is_an_option_is_refused_without_being_repeated() {
        for url in [
            "ext::sh -c touch% /tmp/x",
            "ext::true",
            "ext::ssh://git.example.com/x",
            "fd::17/foo",
            "git://git.example.com/r",
            "ftp://git.example.com/r",
            "--upload-pack=touch",
            "-oProxyCommand=touch:x",
            "ssh://-oProxyCommand=touch/r",
            "ssh://git@-oProxyCommand=touch/r",
            "git@-oProxyCommand=touch:r",
            "ssh://-lroot@git.example.com/r",
            "-lroot@git.example.com:r",
            "git@git.example.com:-r",
            "/srv/secret-repo",
            "./secret-repo",
            "../secret-repo",
            "secret-repo",
            "C:\\secret-repo",
            "file://git.example.com/r",
            "https://git.example.com",
            "https://git.example.com/",
            "https:///r",
            "https://git.example.com:0/r",
            "https://git.example.com:99999/r",
            "https://git.example.com/r?x=secret",
            "https://git.example.com/r#secret",
            "https://git.ex%61mple.com/r",
            "https://2130706433/r",
            "https://0x7f.1/r",
            "https://127.1/r",
            "https://0x7f000001/r",
            "https://[::1/r",
            "https://[secret]/r",
            "https://u:%zz@git.example.com/secret",
            "https://git.example.com/a b",
            "https://git.example.com/a\nb",
            "ssh://git:secret@git.example.com/r",
            "",
        ] {
            let why = Location::parse(url).unwrap_err().to_string();
            assert!(!why.contains("secret") && !why.contains("touch"), "{url:?}: {why}");
        }
    }

    #[test]
    fn known_hosts_name_the_port_only_when_it_is_unusual() {
        let known = |url: &str| Location::parse(url).unwrap().known_host();
        assert_eq!(known("ssh://git@git.example.com/r"), "git.example.com");
        assert_eq!(known("ssh://git@git.example.com:22/r"), "git.example.com");
        assert_eq!(known("ssh://git@git.example.com:2222/r"), "[git.example.com]:2222");
    }
}
