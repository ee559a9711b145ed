//! A certificate, its key and the authorities to be trusted, in files that somebody else keeps.
//!
//! What is read is checked as an API server would check it before any of it is used: a file that is half
//! written, a key of another certificate or a certificate for another name is an error that says so.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore};

use super::authority::{certificates, validity_of};
use super::crypto_provider;
use super::leaf::Leaf;
use crate::core::rotation::Validity;
use crate::core::supplied::Supplied;

/// Largest file that is read. A Secret, from which they usually come, holds no more.
const LARGEST: u64 = 1 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate that is served, then those between it and an authority; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// The authorities that API servers are to trust; PEM.
    pub authorities: PathBuf,
}

/// Why the files cannot be used. Says nothing of what is in the key.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no certificate in a file, or one that cannot be read.
    #[error("{}: {why}", file.display())]
    Certificate {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key cannot be read.
    #[error("{}: it holds no private key in PEM that can be used (PKCS #8, PKCS #1 or SEC 1)", .0.display())]
    Key(PathBuf),
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// The certificate has ended or has not begun.
    #[error("the certificate in {} is valid from {} to {} only", file.display(), validity.not_before, validity.not_after)]
    NotValid {
        /// Which.
        file: PathBuf,
        /// When it is valid.
        validity: Validity,
    },
    /// An API server would refuse it.
    #[error("the certificate in {} does not verify as {name} by the authorities in {}: {why}", certificate.display(), authorities.display())]
    Unverified {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the authorities.
        authorities: PathBuf,
        /// The name under which API servers call us.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl FilesError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Unreadable",
            Self::Certificate { .. } => "CertificateUnreadable",
            Self::Key(_) => "KeyUnreadable",
            Self::KeyMismatch { .. } => "KeyMismatch",
            Self::NotValid { .. } => "NotValid",
            Self::Unverified { .. } => "Unverified",
        }
    }
}

/// What stands in the files, whatever it is. No `Debug`: a key is among it.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

/// What was found in the files, and is good.
#[derive(Debug, Clone)]
pub struct Found {
    /// What can be served.
    pub leaf: Leaf,
    /// By whom it is verified, and when.
    pub supplied: Supplied<CertificateDer<'static>>,
    /// All authorities in the file.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl CertificateFiles {
    /// Reads the files. They may be of different moments: [`Self::parse`] tells.
    ///
    /// # Errors
    /// [`FilesError::Read`].
    pub fn read(&self) -> Result<Contents, FilesError> {
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            authorities: read(&self.authorities)?,
        })
    }

    /// Makes of `contents` what can be served to API servers that call us as `name`.
    ///
    /// # Errors
    /// [`FilesError`] says which file is wrong, and why.
    pub fn parse(
        &self,
        contents: &Contents,
        name: &ServerName<'static>,
        now: Timestamp,
    ) -> Result<Found, FilesError> {
        let list = |file: &Path, pem: &[u8]| {
            certificates(pem).map_err(|error| self.unreadable(file, error.to_string()))
        };
        let authorities = list(&self.authorities, &contents.authorities)?;
        let chain = list(&self.certificate, &contents.certificate)?;
        let unreadable = || self.unreadable(&self.certificate, "its first certificate cannot be read".into());
        let validity = chain.first().and_then(validity_of).ok_or_else(unreadable)?;
        let key =
            PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| FilesError::Key(self.key.clone()))?;
        let certified =
            CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    FilesError::KeyMismatch { key: self.key.clone(), certificate: self.certificate.clone() }
                }
                rustls::Error::InvalidCertificate(error) => {
                    self.unreadable(&self.certificate, error.to_string())
                }
                _ => FilesError::Key(self.key.clone()),
            })?;
        if !validity.contains(now) {
            return Err(FilesError::NotValid { file: self.certificate.clone(), validity });
        }
        let refused = |why: String| FilesError::Unverified {
            certificate: self.certificate.clone(),
            authorities: self.authorities.clone(),
            name: name.to_str().into_owned(),
            why,
        };
        // By each alone: then it is known which of them must be registered.
        let verifies = |one: &CertificateDer<'static>| {
            verify(&certified.cert, std::slice::from_ref(one), name, now).is_ok()
        };
        let trusted_by: Vec<_> = authorities.iter().filter(|one| verifies(one)).cloned().collect();
        if trusted_by.is_empty() {
            let why = verify(&certified.cert, &authorities, name, now);
            return Err(refused(why.err().unwrap_or_else(|| "no single authority verifies it".to_owned())));
        }
        Ok(Found {
            leaf: Leaf::supplied(Arc::new(certified), validity),
            supplied: Supplied { trusted_by, validity },
            authorities,
        })
    }

    fn unreadable(&self, file: &Path, why: String) -> FilesError {
        FilesError::Certificate { file: file.to_owned(), why }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, FilesError> {
    let failed = |error| FilesError::Read { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(file).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(failed(io::Error::other(format!("it is larger than {LARGEST} bytes"))));
    }
    Ok(bytes)
}

/// Verifies a chain as API servers do; says in words what is wrong.
fn verify(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'static>],
    name: &ServerName<'_>,
    now: Timestamp,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto_provider())
        .build()
        .map_err(|error| error.to_string())?;
    let (leaf, between) = chain.split_first().ok_or("there is no certificate")?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    match verifier.verify_server_cert(leaf, between, name, &[], now) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Err("none of them has signed it".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
