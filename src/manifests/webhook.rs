//! The static base of the two webhook configurations: names and labels, no entries.
//!
//! Entries depend on the guards, so `serve` writes them, and takes them away again. An entry here
//! would refuse writes before anything could answer.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::names;

use super::labels;

/// The configuration that decides.
#[must_use]
pub fn validating() -> ValidatingWebhookConfiguration {
    ValidatingWebhookConfiguration { metadata: meta(), webhooks: None }
}

/// The configuration that puts approved content back, for guards of enforcement `Rewrite`.
#[must_use]
pub fn mutating() -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration { metadata: meta(), webhooks: None }
}

fn meta() -> ObjectMeta {
    ObjectMeta {
        name: Some(names::WEBHOOK_CONFIGURATION.to_owned()),
        labels: Some(labels::operator()),
        ..ObjectMeta::default()
    }
}
