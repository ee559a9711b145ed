//! Certificates of the admission server.
//!
//! One authority is shared by all replicas through a Secret ([`secret`]); every replica signs its
//! own short-lived leaf with it ([`leaf`]), which the TLS server picks up in place ([`resolver`]). Or
//! somebody else makes the leaf and puts it into files ([`files`], [`keep_files`]).
//! [`self_check`] proves, by a real handshake, that what is served verifies against what is
//! registered. What always holds: a private key appears in no log, error or `Debug` output, and an
//! authority is always a *list* of certificates to those who verify, so that two can overlap.

pub mod authority;
mod changes;
pub mod files;
pub mod keep;
pub mod keep_files;
pub mod leaf;
pub mod resolver;
pub mod secret;
pub mod self_check;
pub mod signing;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod trust;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};

pub use authority::{Authority, AuthorityError};
pub use leaf::{Leaf, ServerIdentity};
pub use resolver::LeafResolver;

/// What the API server was told about us, as read back from the webhook configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The name it verifies: `SERVICE.NAMESPACE.svc`, or the host of the URL.
    pub server_name: ServerName<'static>,
    /// The authorities it trusts; exactly those of `caBundle`.
    pub bundle: Vec<CertificateDer<'static>>,
}

/// The one crypto provider of this program, named wherever rustls needs one so that nothing depends
/// on a process-wide default.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
