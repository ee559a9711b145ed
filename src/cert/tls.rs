//! The TLS settings of the admission server.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::crypto_provider;
use super::resolver::LeafResolver;

/// HTTP/2 as named in the TLS handshake (RFC 7540, 3.1).
pub const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 as named in the TLS handshake (RFC 7301, 6).
pub const ALPN_HTTP_1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses the settings.
    #[error("cannot set up TLS: {0}")]
    Settings(#[from] rustls::Error),
    /// A client authority that cannot be used.
    #[error("cannot use the client certificate authority: {0}")]
    ClientAuthority(String),
}

impl TlsError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Settings(_) => "TlsSettings",
            Self::ClientAuthority(_) => "ClientAuthority",
        }
    }
}

/// TLS 1.2 and 1.3 with the leaf of `resolver`, HTTP/2 preferred.
///
/// With `client_authorities` a client certificate that is shown must be signed by one of them.
/// None is demanded in the handshake, since our own self-check shows none: whether one was shown is
/// for the server to ask.
///
/// # Errors
/// [`TlsError::ClientAuthority`] when these cannot be used.
pub fn server_config(
    resolver: Arc<LeafResolver>,
    client_authorities: Option<&[CertificateDer<'static>]>,
) -> Result<ServerConfig, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(crypto_provider()).with_safe_default_protocol_versions()?;
    let builder = match client_authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let refused = |error: String| TlsError::ClientAuthority(error);
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).map_err(|error| refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_1.to_vec()];
    // No resumption: an API server asks for none, and so every new connection verifies the leaf
    // that is served now.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
/// Whether a certificate is for one of `names`, by its common name or a DNS name.
#[must_use]
pub fn is_named(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let is_one = |name: &str| names.iter().any(|known| known == name);
    let common = certificate.subject().iter_common_name().any(|name| name.as_str().is_ok_and(is_one));
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let others = alternative.iter().flat_map(|names| &names.value.general_names);
    common || others.into_iter().any(|name| matches!(name, GeneralName::DNSName(name) if is_one(name)))
}
