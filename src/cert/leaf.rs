//! The certificate that this replica serves, and the names in it.
//!
//! The key of a leaf that is made here is made in memory and never leaves the process.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;

use super::authority::{Authority, AuthorityError, dated};
use crate::core::rotation::{LEAF_LIFETIME, Validity};

/// The name under which API servers reach us, and every name our leaf carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    registered: ServerName<'static>,
    names: Vec<String>,
}

impl ServerIdentity {
    /// Reached through a Service: the API server verifies `SERVICE.NAMESPACE.svc`.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] when that is no DNS name.
    pub fn service(namespace: &str, service: &str) -> Result<Self, AuthorityError> {
        Self::named(&format!("{service}.{namespace}.svc"))
    }

    /// Reached under `host`, a DNS name or an address (an IPv6 one without brackets).
    ///
    /// # Errors
    /// [`AuthorityError::Name`] when it is neither.
    pub fn host(host: &str) -> Result<Self, AuthorityError> {
        Self::named(host)
    }

    fn named(name: &str) -> Result<Self, AuthorityError> {
        let registered =
            ServerName::try_from(name.to_owned()).map_err(|_| AuthorityError::Name(name.to_owned()))?;
        // The loopback names let a person on the machine, and tests, speak to the same listener.
        let mut names = vec![name.to_owned()];
        for loopback in ["localhost", "127.0.0.1", "::1"] {
            if name != loopback {
                names.push(loopback.to_owned());
            }
        }
        Ok(Self { registered, names })
    }

    /// The name that API servers verify.
    #[must_use]
    pub fn registered(&self) -> &ServerName<'static> {
        &self.registered
    }

    /// Every name of the leaf; the registered one first.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// A certificate with its key, ready to be served.
#[derive(Clone)]
pub struct Leaf {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Leaf {
    /// Makes a key and has `authority` sign a certificate for it that lives for a day.
    ///
    /// # Errors
    /// As [`Self::issue_for`].
    pub fn issue(
        authority: &Authority,
        identity: &ServerIdentity,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        Self::issue_for(authority, identity, now, LEAF_LIFETIME)
    }

    /// The same with a life of `lifetime`, or until the authority ends.
    ///
    /// # Errors
    /// [`AuthorityError::NotValid`] when the authority has ended, [`AuthorityError::Sign`] and
    /// [`AuthorityError::Name`] when signing fails.
    pub fn issue_for(
        authority: &Authority,
        identity: &ServerIdentity,
        now: Timestamp,
        lifetime: SignedDuration,
    ) -> Result<Self, AuthorityError> {
        let validity =
            authority.validity().leaf(now, lifetime).ok_or(AuthorityError::NotValid(authority.validity()))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for name in identity.names() {
            params.subject_alt_names.push(subject(name)?);
        }
        let mut subject = DistinguishedName::new();
        // Not a host name: those have 64 characters at most here, and verifiers read the SANs.
        subject.push(DnType::CommonName, "driftguard-webhook");
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        dated(&mut params, validity);
        let certificate = params.signed_by(&key, authority.issuer())?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_ecdsa_type(&private)
            .map_err(|_| AuthorityError::Sign(rcgen::Error::KeyGenerationUnavailable))?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing));
        Ok(Self { certified, validity })
    }

    /// One that somebody else made, for which `certified` has been checked.
    pub(super) fn supplied(certified: Arc<CertifiedKey>, validity: Validity) -> Self {
        Self { certified, validity }
    }

    /// When it is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What the TLS server presents.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

fn subject(name: &str) -> Result<rcgen::SanType, AuthorityError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(rcgen::SanType::IpAddress(address)),
        Err(_) => name
            .to_owned()
            .try_into()
            .map(rcgen::SanType::DnsName)
            .map_err(|_| AuthorityError::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test without its certificates should stop.
    use super::*;

    #[test]
    fn a_service_is_registered_under_its_svc_name_and_served_on_loopback_too() {
        let identity = ServerIdentity::service("terrafusion-system", "driftguard-webhook").unwrap();
        assert_eq!(identity.registered().to_str(), "driftguard-webhook.terrafusion-system.svc");
        assert_eq!(
            identity.names(),
            ["driftguard-webhook.terrafusion-system.svc", "localhost", "127.0.0.1", "::1"]
        );
    }

    #[test]
    fn an_address_is_registered_as_an_address() {
        for host in ["127.0.0.1", "::1", "10.0.0.7"] {
            let identity = ServerIdentity::host(host).unwrap();
            assert!(matches!(identity.registered(), ServerName::IpAddress(_)), "{host}");
            assert_eq!(identity.names()[0], host);
            assert_eq!(identity.names().iter().filter(|name| *name == host).count(), 1);
        }
    }

    #[test]
    fn a_name_that_no_certificate_can_carry_is_refused() {
        assert!(matches!(ServerIdentity::host("not a name"), Err(AuthorityError::Name(_))));
        assert!(matches!(ServerIdentity::host(""), Err(AuthorityError::Name(_))));
    }

    #[test]
    fn a_leaf_is_not_signed_by_an_authority_that_has_ended() {
        let then: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let authority = Authority::generate(then).unwrap();
        let identity = ServerIdentity::host("localhost").unwrap();
        assert!(Leaf::issue(&authority, &identity, then).is_ok());
        let late = "2028-03-01T12:00:00Z".parse().unwrap();
        assert!(matches!(Leaf::issue(&authority, &identity, late), Err(AuthorityError::NotValid(_))));
    }
}
