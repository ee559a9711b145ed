//! The flags about alerts, and what they come to.

use std::path::PathBuf;

use reqwest::Url;

use super::endpoint::{self, Credentials};
use super::queue::Limits;

/// Smallest `--spool-max-bytes`: room for some of the largest messages.
const FEWEST_BYTES: u64 = 1024 * 1024;

/// Where alerts and telemetry go.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// Where to post alerts as CloudEvents, such as https://alerts.example.com/driftguard
    #[arg(long, value_name = "URL")]
    pub alert_url: Option<Url>,
    /// File with the bearer token to show there; read again for each alert
    #[arg(long, value_name = "FILE", requires = "alert_url", conflicts_with = "alert_hmac_key_file")]
    pub alert_token_file: Option<PathBuf>,
    /// File with the key by which alerts are signed; read again for each alert
    #[arg(long, value_name = "FILE", requires = "alert_url")]
    pub alert_hmac_key_file: Option<PathBuf>,
    /// Authorities (PEM) of that server's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "alert_url")]
    pub alert_ca_file: Option<PathBuf>,
    /// Let --alert-url be plain http: anyone in between can read and forge alerts
    #[arg(long, requires = "alert_url")]
    pub alert_allow_http: bool,
    /// The source that alerts name: this installation, as a URI reference
    #[arg(long, value_name = "URI", default_value = "/driftguard", value_parser = source)]
    pub alert_source: String,
    /// Telemetry Service to tell of drift and remediation, below whose address /telemetry/driftguard lies
    #[arg(long, value_name = "URL")]
    pub telemetry_url: Option<Url>,
    /// File with the bearer token to show there; read again for each message
    #[arg(long, value_name = "FILE", requires = "telemetry_url")]
    pub telemetry_token_file: Option<PathBuf>,
    /// Authorities (PEM) of that server's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "telemetry_url")]
    pub telemetry_ca_file: Option<PathBuf>,
    /// Let --telemetry-url be plain http
    #[arg(long, requires = "telemetry_url")]
    pub telemetry_allow_http: bool,
    /// Folder in which what is not delivered yet outlives a restart [default: it waits in memory]
    #[arg(long, value_name = "FOLDER")]
    pub spool_dir: Option<PathBuf>,
    /// Most alerts that may wait, and most telemetry; beyond that the oldest are dropped
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub spool_max_events: u32,
    /// Most bytes of alerts that may wait, and of telemetry
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024,
          value_parser = clap::value_parser!(u64).range(FEWEST_BYTES..))]
    pub spool_max_bytes: u64,
}

/// What the flags come to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Receiver of alerts.
    pub alerts: Option<endpoint::Settings>,
    /// The Telemetry Service.
    pub telemetry: Option<endpoint::Settings>,
    /// `source` of every alert.
    pub source: String,
    /// Where messages wait.
    pub spool: Option<PathBuf>,
    /// How many wait for each receiver.
    pub limits: Limits,
}

/// Why flags cannot be used together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgsError {
    /// The scheme is neither https nor, where allowed, http.
    #[error("{flag} must begin with https://; with {allow} http:// will do as well")]
    Scheme {
        /// The flag with the URL.
        flag: &'static str,
        /// The flag that allows http.
        allow: &'static str,
    },
    /// User name or password in a URL, where every process list shows them.
    #[error("{flag} must hold no user name and no password; give a token by {instead}")]
    UserInfo {
        /// The flag with the URL.
        flag: &'static str,
        /// The flag for credentials.
        instead: &'static str,
    },
}

impl AlertArgs {
    /// The settings that these flags mean.
    ///
    /// # Errors
    /// [`ArgsError`] when a URL cannot be used.
    pub fn settings(&self) -> Result<Settings, ArgsError> {
        let alerts = self.alert_url.as_ref().map(|url| {
            let flags = ("--alert-url", "--alert-allow-http", "--alert-token-file");
            checked(url, self.alert_allow_http, flags)?;
            let credentials = match (&self.alert_token_file, &self.alert_hmac_key_file) {
                (Some(file), _) => Credentials::Bearer(file.clone()),
                (None, Some(file)) => Credentials::Hmac(file.clone()),
                (None, None) => Credentials::None,
            };
            Ok(endpoint::Settings { url: url.clone(), credentials, authorities: self.alert_ca_file.clone() })
        });
        let telemetry = self.telemetry_url.as_ref().map(|url| {
            let flags = ("--telemetry-url", "--telemetry-allow-http", "--telemetry-token-file");
            checked(url, self.telemetry_allow_http, flags)?;
            let token = self.telemetry_token_file.clone();
            let credentials = token.map_or(Credentials::None, Credentials::Bearer);
            let authorities = self.telemetry_ca_file.clone();
            Ok(endpoint::Settings { url: url.clone(), credentials, authorities })
        });
        Ok(Settings {
            alerts: alerts.transpose()?,
            telemetry: telemetry.transpose()?,
            source: self.alert_source.clone(),
            spool: self.spool_dir.clone(),
            limits: Limits {
                events: usize::try_from(self.spool_max_events).unwrap_or(usize::MAX),
                bytes: self.spool_max_bytes,
            },
        })
    }
}

/// Flags of a URL: its own, the one that allows http, the one for credentials.
type Flags = (&'static str, &'static str, &'static str);

fn checked(url: &Url, allows_http: bool, (flag, allow, instead): Flags) -> Result<(), ArgsError> {
    if url.scheme() != "https" && !(allows_http && url.scheme() == "http") {
        return Err(ArgsError::Scheme { flag, allow });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ArgsError::UserInfo { flag, instead });
    }
    Ok(())
}

/// A URI reference, as CloudEvents demand of `source`.
fn source(text: &str) -> Result<String, String> {
    let ok = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    if ok {
        Ok(text.to_owned())
    } else {
        Err("want a URI reference without spaces, such as /clusters/prod".into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        alerts: AlertArgs,
    }

    fn settings(flags: &[&str]) -> Result<Settings, String> {
        let arguments = std::iter::once("program").chain(flags.iter().copied());
        let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
        program.alerts.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_nothing_is_delivered() {
        let settings = settings(&[]).unwrap();
        assert!(settings.alerts.is_none() && settings.telemetry.is_none() && settings.spool.is_none());
    }

    #[test]
    fn plain_http_must_be_allowed() {
        let refused = settings(&["--alert-url=http://a.example"]).unwrap_err();
        assert_eq!(
            refused,
            "--alert-url must begin with https://; with --alert-allow-http http:// will do as well"
        );
        assert!(settings(&["--alert-url=http://a.example", "--alert-allow-http"]).is_ok());
        assert!(settings(&["--telemetry-url=http://a.example", "--telemetry-allow-http"]).is_ok());
        assert!(settings(&["--telemetry-url=http://a.example"]).is_err());
        assert!(settings(&["--alert-url=file:///etc/passwd", "--alert-allow-http"]).is_err());
    }

    #[test]
    fn credentials_come_from_one_file_and_not_from_the_url() {
        let refused = settings(&["--alert-url=https://user:secret@a.example"]).unwrap_err();
        assert!(refused.contains("--alert-token-file") && !refused.contains("secret"), "{refused}");
        let both = ["--alert-url=https://a", "--alert-token-file=a", "--alert-hmac-key-file=b"];
        assert!(settings(&both).is_err());
        let signed = settings(&["--alert-url=https://a", "--alert-hmac-key-file=b"]).unwrap();
        assert_eq!(signed.alerts.unwrap().credentials, Credentials::Hmac("b".into()));
    }

    #[test]
    fn bounds_and_source_are_checked() {
        assert!(settings(&["--spool-max-events=0"]).is_err());
        assert!(settings(&["--spool-max-bytes=1000"]).is_err());
        assert!(settings(&["--alert-source=two words"]).is_err());
        assert_eq!(settings(&["--alert-source=/clusters/prod"]).unwrap().source, "/clusters/prod");
    }
}
