//! What is registered, read as whom API servers trust.

use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::CertificateDer;

use super::authority::certificates;
use crate::control::webhooks::registered_clients;
use crate::core::rotation::Trust;
use crate::store::Configurations;

/// Who keeps `caBundle` in the webhook configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleKeeper {
    /// The replica that holds the lease.
    Ourselves,
    /// Somebody else, such as cert-manager's cainjector. An entry that is new has none for a moment.
    Injector,
}

/// How API servers reach us and whom they trust, as far as that counts: entries that `keeper` has given
/// no bundle yet are left out.
#[must_use]
pub fn trusting(configurations: &Configurations, keeper: BundleKeeper) -> Vec<&WebhookClientConfig> {
    let mut clients = registered_clients(configurations);
    if keeper == BundleKeeper::Injector {
        clients.retain(|client| client.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty()));
    }
    clients
}

/// The authorities that API servers trust. Those that every entry trusts: one that does not would refuse.
#[must_use]
pub fn trusted(configurations: &Configurations, keeper: BundleKeeper) -> Trust<CertificateDer<'static>> {
    if !configurations.are_known() {
        return Trust::Unknown;
    }
    let bundle = |client: &WebhookClientConfig| {
        let pem = client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        certificates(pem).unwrap_or_default()
    };
    let common = |all: Vec<_>, next: Vec<_>| all.into_iter().filter(|one| next.contains(one)).collect();
    match trusting(configurations, keeper).into_iter().map(bundle).reduce(common) {
        None => Trust::Nobody,
        Some(common) => Trust::Only(common),
    }
}

/// A bundle as it is registered: the same on every replica, whatever order the authorities are known in,
/// so that another lease holder has nothing to rewrite.
pub(super) fn in_order<'a>(authorities: impl Iterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut all: Vec<_> = authorities.cloned().collect();
    all.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
    super::authority::to_pem(&all)
}
