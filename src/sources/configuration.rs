//! Client of the Configuration Service, as the older operator spoke to it:
//! `GET {base}/configurations/{type}/{name}`, answered with `{data: ...}` or `{parameters: ...}`.
//!
//! Credentials are read from their file at each use, since they are rotated there. The Service knows no
//! namespaces and no users but us, so that nobody's right to an answer can be asked for: it is never asked
//! for a Secret. Otherwise a guard of the same name, with a hash that was copied from another one, would
//! bring that one's Secret into a namespace of its author's choice.

use std::path::{Path, PathBuf};

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use rustls::pki_types::CertificateDer;

use super::report::Failed;
use super::service::request_to;
use super::web::{Request, Web};
use crate::cert::authority::certificates;
use crate::core::guard::{Target, url_segment};
use crate::core::scope::ScopeKind;

/// Largest file of a credential, in bytes. A token of a large directory may have some 10 KiB.
const MOST_CREDENTIAL: u64 = 64 << 10;
/// Header of an API key, as the older operator sent it.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where the Configuration Service is, and how we show who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationService {
    /// Its address, before `/configurations`.
    pub base: Url,
    /// What we show.
    pub credential: Option<Credential>,
    /// File (PEM) of the authorities of its certificate; `None` for the product's own.
    pub authorities: Option<PathBuf>,
}

/// A file that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Sent as `Authorization: Bearer`.
    Token(PathBuf),
    /// Sent as `X-API-Key`.
    ApiKey(PathBuf),
}

impl ConfigurationService {
    /// What it holds under the target's kind and name.
    pub(super) async fn fetch(
        &self,
        web: &Web,
        target: &Target,
        ours: Vec<CertificateDer<'static>>,
    ) -> Result<Vec<u8>, Failed> {
        let url = request_to(self.base.as_str(), Some(&path(target)))?;
        let headers = match &self.credential {
            None => HeaderMap::new(),
            Some(credential) => credential.header().await?,
        };
        let authorities = match &self.authorities {
            None => ours,
            Some(file) => {
                let pem = read(file, "--configuration-service-ca-file", u64::MAX).await?;
                certificates(&pem).map_err(|error| {
                    Failed::unavailable(
                        "AuthorityUnreadable",
                        format!("--configuration-service-ca-file: {error}"),
                    )
                })?
            }
        };
        web.get(Request { url, authorities, headers, may_be_plain: true }).await
    }
}

impl Credential {
    /// The header, read now.
    async fn header(&self) -> Result<HeaderMap, Failed> {
        let (file, flag, name, before) = match self {
            Self::Token(file) => (file, "--configuration-service-token-file", AUTHORIZATION, "Bearer "),
            Self::ApiKey(file) => (file, "--configuration-service-api-key-file", API_KEY, ""),
        };
        let unusable = || {
            Failed::unavailable(
                "CredentialUnusable",
                format!("the file of {flag} holds no credential on one line"),
            )
        };
        let bytes = read(file, flag, MOST_CREDENTIAL).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable())?.trim();
        if text.is_empty() {
            return Err(unusable());
        }
        let mut value = HeaderValue::from_str(&format!("{before}{text}")).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok([(name, value)].into_iter().collect())
    }
}

async fn read(file: &Path, flag: &str, most: u64) -> Result<Vec<u8>, Failed> {
    let failed = |what: String| {
        Failed::unavailable("FileUnreadable", format!("the file of {flag} cannot be read: {what}"))
    };
    let length = tokio::fs::metadata(file).await.map_err(|error| failed(error.to_string()))?.len();
    if length > most {
        return Err(failed(format!("it is larger than {most} bytes")));
    }
    tokio::fs::read(file).await.map_err(|error| failed(error.to_string()))
}

/// Path of a request. The older operator's word for a GAMAConfig is `gama`.
fn path(target: &Target) -> String {
    let word = match ScopeKind::of(&target.group, &target.kind) {
        ScopeKind::GamaConfig => "gama".to_owned(),
        _ => target.kind.to_lowercase(),
    };
    format!("/configurations/{}/{}", url_segment(&word), url_segment(&target.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::io::Write as _;

    use super::*;

    fn target(group: &str, kind: &str, name: &str) -> Target {
        Target {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: "x".into(),
            namespace: Some("n".into()),
            name: name.into(),
        }
    }

    #[test]
    fn content_is_named_as_the_older_operator_named_it() {
        let paths = [
            (target("terrafusion.ai", "GAMAConfig", "model"), "/configurations/gama/model"),
            (target("", "ConfigMap", "market"), "/configurations/configmap/market"),
            (target("apps", "Deployment", "a/../b"), "/configurations/deployment/a%2F..%2Fb"),
        ];
        for (target, wanted) in paths {
            assert_eq!(path(&target), wanted);
        }
    }

    #[tokio::test]
    async fn credentials_are_read_anew_each_time_and_never_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let credential = Credential::Token(file.path().to_owned());
        assert_eq!(credential.header().await.unwrap_err().reason, "CredentialUnusable");
        writeln!(file, "first").unwrap();
        let header = credential.header().await.unwrap();
        assert_eq!(header[AUTHORIZATION], "Bearer first");
        assert!(!format!("{header:?}").contains("first"));
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(credential.header().await.unwrap()[AUTHORIZATION], "Bearer second");
        let key = Credential::ApiKey(file.path().to_owned());
        assert_eq!(key.header().await.unwrap()["x-api-key"], "second");
        std::fs::write(file.path(), "geheim\nX-Evil: 1\n").unwrap();
        let said = key.header().await.unwrap_err().sentence;
        assert!(said.contains("--configuration-service-api-key-file") && !said.contains("geheim"), "{said}");
        drop(file);
        assert_eq!(key.header().await.unwrap_err().reason, "FileUnreadable");
    }
}
