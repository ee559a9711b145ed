//! The flags of sources.

use std::path::PathBuf;

use reqwest::Url;

use super::address::{AddressPolicy, Network};
use super::chain::Settings;
use super::configuration::{ConfigurationService, Credential};
use super::git::{self, GitArgs};
use super::web::Limits;

/// Flags of whatever reads sources of truth.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Sources of truth")]
pub struct SourceArgs {
    /// Addresses that sources may lie at although they are loopback, link-local or the like; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub allow_source_address: Vec<Network>,
    /// Where to call a Service that guards name as source, instead of NAME.NAMESPACE.svc; may be repeated
    #[arg(long, value_name = "NAMESPACE/NAME=URL", value_parser = parse_service_url)]
    pub service_url: Vec<ServiceUrl>,
    /// Authorities (PEM) of the certificates of such Services, beside DriftGuard's own; read at each use
    #[arg(long, value_name = "FILE")]
    pub service_ca_file: Option<PathBuf>,
    /// Fetch the content of Secrets also from sources that are called by plain http
    #[arg(long)]
    pub allow_plain_http_secrets: bool,
    /// Address of the Configuration Service, asked for content by kind and name after the sources of a guard
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub configuration_service: Option<Url>,
    /// Token sent to it as Authorization: Bearer; read at each use
    #[arg(
        long,
        value_name = "FILE",
        requires = "configuration_service",
        conflicts_with = "configuration_service_api_key_file"
    )]
    pub configuration_service_token_file: Option<PathBuf>,
    /// Key sent to it as X-API-Key; read at each use
    #[arg(long, value_name = "FILE", requires = "configuration_service")]
    pub configuration_service_api_key_file: Option<PathBuf>,
    /// Authorities (PEM) of its certificate; read at each use [default: DriftGuard's own]
    #[arg(long, value_name = "FILE", requires = "configuration_service")]
    pub configuration_service_ca_file: Option<PathBuf>,
    /// Send it the token or key also by plain http
    #[arg(long, requires = "configuration_service")]
    pub configuration_service_allow_http: bool,
    #[command(flatten)]
    git: GitArgs,
}

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Those of git.
    #[error(transparent)]
    Git(#[from] git::SettingsError),
    /// A credential would go over the wire in clear.
    #[error(
        "--configuration-service begins with http://, over which anybody on the way reads the token or key; write \
         https://, or allow it by --configuration-service-allow-http"
    )]
    PlainCredential,
}

/// Where one Service is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where to call it.
    pub url: Url,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("want an address that begins with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("want an address without user and password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            "want an address without `?` and `#`: the path of each request is put behind it".to_owned()
        );
    }
    Ok(url)
}

fn parse_service_url(text: &str) -> Result<ServiceUrl, String> {
    let wrong = || "want NAMESPACE/NAME=URL".to_owned();
    let (place, url) = text.split_once('=').ok_or_else(wrong)?;
    let (namespace, name) = place.split_once('/').ok_or_else(wrong)?;
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(wrong());
    }
    Ok(ServiceUrl { namespace: namespace.to_owned(), name: name.to_owned(), url: parse_url(url)? })
}

impl SourceArgs {
    /// What the flags say.
    ///
    /// # Errors
    /// [`SettingsError`] when a file or folder for git cannot be used, or a credential would be sent in clear.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let credential =
            match (&self.configuration_service_token_file, &self.configuration_service_api_key_file) {
                (Some(file), _) => Some(Credential::Token(file.clone())),
                (None, Some(file)) => Some(Credential::ApiKey(file.clone())),
                (None, None) => None,
            };
        let is_plain = self.configuration_service.as_ref().is_some_and(|url| url.scheme() == "http");
        if is_plain && credential.is_some() && !self.configuration_service_allow_http {
            return Err(SettingsError::PlainCredential);
        }
        let configuration_service = self.configuration_service.clone().map(|base| ConfigurationService {
            base,
            credential,
            authorities: self.configuration_service_ca_file.clone(),
        });
        let addresses = AddressPolicy::new(self.allow_source_address.clone());
        Ok(Settings {
            git: self.git.settings(addresses.clone())?,
            addresses,
            service_urls: self.service_url.clone(),
            service_authorities: self.service_ca_file.clone(),
            plain_http_secrets: self.allow_plain_http_secrets,
            configuration_service,
            limits: Limits::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        sources: SourceArgs,
    }

    fn parse(flags: &[&str]) -> Result<SourceArgs, String> {
        let words = ["driftguard"].iter().chain(flags);
        Command::try_parse_from(words).map(|command| command.sources).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_nothing_is_allowed_beyond_the_rule() {
        let settings = parse(&[]).unwrap().settings().unwrap();
        assert_eq!(settings.addresses, AddressPolicy::default());
        assert!(!settings.plain_http_secrets && !settings.git.allow_file && !settings.git.allow_http);
        assert!(settings.service_urls.is_empty() && settings.configuration_service.is_none());
    }

    #[test]
    fn services_are_mapped_by_namespace_and_name() {
        let mapped = parse(&["--service-url", "team/config=https://127.0.0.1:8443/base"]).unwrap();
        let settings = mapped.settings().unwrap();
        let url = &settings.service_urls[0];
        assert_eq!((url.namespace.as_str(), url.name.as_str()), ("team", "config"));
        assert_eq!(url.url.as_str(), "https://127.0.0.1:8443/base");
        for wrong in
            ["team=http://a", "team/=http://a", "/config=http://a", "a/b/c=http://a", "a/b", "a/b=ftp://a"]
        {
            assert!(parse(&["--service-url", wrong]).is_err(), "{wrong}");
        }
        for wrong in ["file:///etc/passwd", "http://user:pass@a", "http://a?b", "http://a#b", "a"] {
            assert!(parse(&["--configuration-service", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_credential_goes_over_plain_http_only_where_that_is_allowed() {
        let base = ["--configuration-service", "http://config.example"];
        let token = ["--configuration-service-token-file", "t"];
        let allowed = ["--configuration-service-allow-http"];
        assert!(parse(&base).unwrap().settings().is_ok(), "nothing to hide");
        let why = parse(&[base, token].concat()).unwrap().settings().unwrap_err().to_string();
        assert!(why.contains("--configuration-service-allow-http"), "{why}");
        assert!(parse(&[&base[..], &token, &allowed].concat()).unwrap().settings().is_ok());
        assert!(parse(&allowed).is_err(), "nothing to allow");
    }

    #[test]
    fn one_credential_goes_with_one_service() {
        let base = ["--configuration-service", "https://config.example"];
        let token = ["--configuration-service-token-file", "t"];
        let key = ["--configuration-service-api-key-file", "k"];
        assert!(parse(&token).is_err(), "a token for nobody");
        assert!(parse(&[base, token, key].concat()).is_err());
        let settings = parse(&[base, key].concat()).unwrap().settings().unwrap();
        let service = settings.configuration_service.unwrap();
        assert_eq!(service.credential, Some(Credential::ApiKey("k".into())));
    }
}
