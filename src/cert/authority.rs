//! The authority that signs the leaves of all replicas.
//!
//! Made here or read from PEM; either way it is checked before it is used, because a leaf that an
//! API server then refuses would stop every write to every guarded object.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::core::rotation::{AUTHORITY_LIFETIME, Validity};

/// Why an authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No certificate, or not one that can be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The bundle holds something that is no certificate.
    #[error("the bundle cannot be read: {0}")]
    Bundle(String),
    /// The bundle leaves out the certificate that signs.
    #[error("the bundle does not hold the signing certificate")]
    NotInBundle,
    /// The key cannot be read. Never says more: the text would be about the key's bytes.
    #[error("the private key is no PKCS #8 key in PEM")]
    Key,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error("the certificate is not one of a certificate authority")]
    NotAnAuthority,
    /// The certificate has ended or has not begun.
    #[error("the certificate is valid from {} to {} only", .0.not_before, .0.not_after)]
    NotValid(Validity),
    /// Making or signing failed.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// A server name that no certificate can carry.
    #[error("{0:?} is no name that a certificate can carry")]
    Name(String),
}

impl AuthorityError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "CertificateUnreadable",
            Self::Bundle(_) => "BundleUnreadable",
            Self::NotInBundle => "BundleIncomplete",
            Self::Key => "KeyUnreadable",
            Self::KeyMismatch => "KeyMismatch",
            Self::NotAnAuthority => "NotAnAuthority",
            Self::NotValid(_) => "NotValid",
            Self::Sign(_) => "SigningFailed",
            Self::Name(_) => "NameInvalid",
        }
    }
}

/// A certificate authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    bundle: Vec<CertificateDer<'static>>,
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority, valid from `now` on, with an ECDSA P-256 key.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when no key can be made.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        Self::generate_for(now, AUTHORITY_LIFETIME)
    }

    /// The same with a life of `lifetime`.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`] when no key can be made.
    pub fn generate_for(now: Timestamp, lifetime: SignedDuration) -> Result<Self, AuthorityError> {
        let validity = Validity::starting(now, lifetime);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // Dated, so that two authorities that overlap can be told apart in a bundle.
        name.push(
            DnType::CommonName,
            format!("DriftGuard webhook CA {}", now.strftime("%Y-%m-%dT%H:%M:%SZ")),
        );
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dated(&mut params, validity);
        let certificate = params.self_signed(&key)?.der().clone();
        let issuer = Issuer::new(params, key);
        Ok(Self { bundle: vec![certificate.clone()], certificate, validity, issuer })
    }

    /// Reads an authority: its certificate, its PKCS #8 key, and where there is one the bundle of
    /// all authorities that verifiers are to trust (else the certificate alone), all in PEM.
    ///
    /// # Errors
    /// [`AuthorityError`] says which of the three is wrong; none of it is ever used in part.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        bundle: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let read = Self::from_pem_of_any_time(certificate, key, bundle)?;
        if read.validity.contains(now) { Ok(read) } else { Err(AuthorityError::NotValid(read.validity)) }
    }

    /// The same without asking whether it is valid now: one that has ended is to be followed by another.
    ///
    /// # Errors
    /// As [`Self::from_pem`], but for [`AuthorityError::NotValid`].
    pub(super) fn from_pem_of_any_time(
        certificate: &[u8],
        key: &[u8],
        bundle: Option<&[u8]>,
    ) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(certificate)
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        let key = std::str::from_utf8(key)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or(AuthorityError::Key)?;
        let validity = check(&certificate, &key)?;
        let bundle = match bundle {
            Some(bundle) => certificates(bundle)?,
            None => vec![certificate.clone()],
        };
        if !bundle.contains(&certificate) {
            return Err(AuthorityError::NotInBundle);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, bundle, validity, issuer })
    }

    /// The certificate that signs.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// All certificates that verifiers are to trust; the signing one is among them.
    #[must_use]
    pub fn bundle(&self) -> &[CertificateDer<'static>] {
        &self.bundle
    }

    /// When the signing certificate is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The signing certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        to_pem(std::slice::from_ref(&self.certificate))
    }

    /// An owned copy, key and all.
    ///
    /// # Errors
    /// Never for an authority that was read or made here.
    pub(super) fn copy(&self) -> Result<Self, AuthorityError> {
        let bundle = to_pem(&self.bundle);
        Self::from_pem_of_any_time(
            self.certificate_pem().as_bytes(),
            self.key_pem().as_bytes(),
            Some(bundle.as_bytes()),
        )
    }

    /// The private key in PEM. For the Secret that replicas share and for nothing else.
    #[must_use]
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// The certificates of a PEM bundle, in its order; at least one.
///
/// # Errors
/// [`AuthorityError::Bundle`] when there is none or one that cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| AuthorityError::Bundle(error.to_string()))?;
    if certificates.is_empty() {
        return Err(AuthorityError::Bundle("it holds no certificate".into()));
    }
    Ok(certificates)
}

/// When a certificate is valid; `None` for one that cannot be read.
#[must_use]
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let moment = |seconds: i64| Timestamp::from_second(seconds).ok();
    let validity = parsed.validity();
    Some(Validity {
        not_before: moment(validity.not_before.timestamp())?,
        not_after: moment(validity.not_after.timestamp())?,
    })
}

/// Certificates as a PEM bundle: what `caBundle` of a webhook configuration holds.
#[must_use]
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        for start in (0..text.len()).step_by(64) {
            pem.push_str(&text[start..text.len().min(start + 64)]);
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// Sets the validity of a certificate to be made.
pub(super) fn dated(params: &mut CertificateParams, validity: Validity) {
    params.not_before = std::time::SystemTime::from(validity.not_before).into();
    params.not_after = std::time::SystemTime::from(validity.not_after).into();
}

/// Checks that `certificate` is an authority's and that `key` is its key.
fn check(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<Validity, AuthorityError> {
    let unreadable = |error: String| AuthorityError::Certificate(error);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| unreadable(error.to_string()))?;
    let may_sign = parsed.key_usage().ok().flatten().is_none_or(|extension| extension.value.key_cert_sign());
    if !parsed.is_ca() || !may_sign {
        return Err(AuthorityError::NotAnAuthority);
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(AuthorityError::KeyMismatch);
    }
    let moment =
        |seconds: i64| Timestamp::from_second(seconds).map_err(|error| unreadable(error.to_string()));
    let validity = parsed.validity();
    Ok(Validity {
        not_before: moment(validity.not_before.timestamp())?,
        not_after: moment(validity.not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test without its certificates should stop.
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn read(authority: &Authority, key: &str, now: Timestamp) -> Result<Authority, AuthorityError> {
        Authority::from_pem(authority.certificate_pem().as_bytes(), key.as_bytes(), None, now)
    }

    #[test]
    fn an_authority_reads_back_as_it_was_made() {
        let made = Authority::generate(now()).unwrap();
        let read = read(&made, &made.key_pem(), now()).unwrap();
        assert_eq!(read.certificate(), made.certificate());
        assert_eq!(read.validity(), made.validity());
        assert_eq!(read.bundle(), made.bundle());
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let (one, other) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
        assert!(matches!(read(&one, &other.key_pem(), now()), Err(AuthorityError::KeyMismatch)));
    }

    #[test]
    fn a_certificate_that_may_not_sign_is_refused() {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let read = Authority::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes(), None, now());
        assert!(matches!(read, Err(AuthorityError::NotAnAuthority)));
    }

    #[test]
    fn an_authority_outside_its_validity_is_refused() {
        let made = Authority::generate(now()).unwrap();
        for then in ["2025-01-01T00:00:00Z", "2028-01-01T00:00:00Z"] {
            let read = read(&made, &made.key_pem(), then.parse().unwrap());
            assert!(matches!(read, Err(AuthorityError::NotValid(_))), "{then}");
        }
    }

    #[test]
    fn what_is_no_pem_is_refused_without_repeating_it() {
        let made = Authority::generate(now()).unwrap();
        let error = read(&made, "hunter2", now()).unwrap_err();
        assert!(matches!(error, AuthorityError::Key));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let error = Authority::from_pem(b"nonsense", made.key_pem().as_bytes(), None, now()).unwrap_err();
        assert!(matches!(error, AuthorityError::Certificate(_)));
    }

    #[test]
    fn a_bundle_may_hold_more_but_never_less_than_the_signing_certificate() {
        let (one, other) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
        let with = |bundle: &[CertificateDer<'_>]| {
            let bundle = to_pem(bundle);
            Authority::from_pem(
                one.certificate_pem().as_bytes(),
                one.key_pem().as_bytes(),
                Some(bundle.as_bytes()),
                now(),
            )
        };
        let both = with(&[other.certificate().clone(), one.certificate().clone()]).unwrap();
        assert_eq!(both.bundle().len(), 2);
        assert!(matches!(with(&[other.certificate().clone()]), Err(AuthorityError::NotInBundle)));
        assert!(matches!(with(&[]), Err(AuthorityError::Bundle(_))));
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        let made = Authority::generate(now()).unwrap();
        let body = made.key_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{made:?}").contains(&body));
    }
}
