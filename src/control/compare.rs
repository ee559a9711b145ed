//! What is registered beside what guards need, for whoever only looks. Pure.
//!
//! Where entries call, and whom API servers trust there, is the installation's own matter: of that only the
//! path is compared, and of entries for our own kinds all but the token in it, which the key alone tells.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use serde_json::Value;

use crate::core::registration::Entry;

use super::webhooks::{Address, Client, Configuration, called_path};

/// How a configuration differs from what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The generation that it carries; 0 when none was ever applied.
    pub generation: u64,
    /// How many entries are ours.
    pub entries: usize,
    /// Names of entries that are wanted and not there.
    pub missing: Vec<String>,
    /// Entries that are not as they should be, with the fields that differ.
    pub altered: Vec<(String, Vec<String>)>,
    /// Names of entries of ours that nobody needs.
    pub unneeded: Vec<String>,
    /// Names of entries of ours that API servers cannot call for want of a bundle.
    pub without_bundle: Vec<String>,
}

/// Compares the gate.
#[must_use]
pub fn validating(found: &ValidatingWebhookConfiguration, wanted: &[Entry]) -> Comparison {
    compare(found, wanted)
}

/// Compares the convenience.
#[must_use]
pub fn mutating(found: &MutatingWebhookConfiguration, wanted: &[Entry]) -> Comparison {
    compare(found, wanted)
}

fn compare<K: Configuration>(found: &K, wanted: &[Entry]) -> Comparison {
    let generation = found.generation();
    let address = Address::Url(String::new());
    let client = Client { address: &address, bundle: None, generation };
    let mut told = Comparison { generation, entries: found.ours().count(), ..Comparison::default() };
    for entry in wanted {
        let Some(there) = found.entry(&entry.name) else {
            told.missing.push(entry.name.clone());
            continue;
        };
        let mut made = K::render(entry, &client);
        K::client_of_mut(&mut made).clone_from(K::client_of(there));
        let mut fields = differing(&made, there);
        let path = entry.path(generation);
        let known = |path: &str| match entry.token {
            Some(_) => path.rsplit_once('/').map_or_else(String::new, |(head, _)| head.to_owned()),
            None => path.to_owned(),
        };
        if called_path(K::client_of(there)).is_none_or(|called| known(called) != known(&path)) {
            fields.push("the path in clientConfig".to_owned());
        }
        if !fields.is_empty() {
            told.altered.push((entry.name.clone(), fields));
        }
    }
    for there in found.ours() {
        let name = K::name_of(there);
        if wanted.iter().all(|entry| entry.name != name) {
            told.unneeded.push(name.to_owned());
        }
        if !K::has_bundle(there) {
            told.without_bundle.push(name.to_owned());
        }
    }
    told
}

/// Names of the fields in which two entries differ.
fn differing<T: serde::Serialize>(made: &T, there: &T) -> Vec<String> {
    // What cannot be written as JSON was never stored.
    let read = |entry: &T| match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (made, there) = (read(made), read(there));
    let names: std::collections::BTreeSet<&String> = made.keys().chain(there.keys()).collect();
    names.into_iter().filter(|name| made.get(*name) != there.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::registration::{Hook, own};
    use crate::core::signature::SigningKey;

    fn entries(byte: u8) -> Vec<Entry> {
        own::entries(Hook::Validate, &SigningKey::new(&[byte; 32]).unwrap())
    }

    fn registered(entries: &[Entry]) -> ValidatingWebhookConfiguration {
        let address =
            Address::Service { namespace: "n".to_owned(), name: "driftguard-webhook".to_owned(), port: 443 };
        let client = Client { address: &address, bundle: Some(b"PEM"), generation: 7 };
        let webhooks = entries.iter().map(|entry| ValidatingWebhookConfiguration::render(entry, &client));
        ValidatingWebhookConfiguration { webhooks: Some(webhooks.collect()), ..Default::default() }
    }

    #[test]
    fn what_serve_registers_is_as_wanted_whatever_the_key() {
        let told = validating(&registered(&entries(1)), &entries(2));
        assert_eq!(told, Comparison { generation: 7, entries: entries(1).len(), ..Comparison::default() });
    }

    #[test]
    fn entries_that_are_missing_altered_or_unneeded_are_told_apart() {
        let wanted = entries(1);
        let mut found = registered(&wanted);
        let webhooks = found.webhooks.as_mut().unwrap();
        webhooks.remove(0);
        webhooks[0].failure_policy = Some("Fail".to_owned());
        webhooks[0].client_config.ca_bundle = None;
        let mut further = webhooks[1].clone();
        further.name = "see-driftguard-breakglass.write-fail.x.terrafusion.ai".to_owned();
        webhooks.push(further);
        let mut theirs = webhooks[1].clone();
        theirs.name = "theirs.example.com".to_owned();
        webhooks.push(theirs);
        let told = validating(&found, &wanted);
        assert_eq!(told.missing, [wanted[0].name.clone()]);
        assert_eq!(told.altered, [(wanted[1].name.clone(), vec!["failurePolicy".to_owned()])]);
        assert_eq!(told.unneeded, ["see-driftguard-breakglass.write-fail.x.terrafusion.ai"]);
        assert_eq!(told.without_bundle, [wanted[1].name.clone()]);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_an_alteration() {
        let wanted = entries(1);
        let mut found = registered(&wanted);
        let service = found.webhooks.as_mut().unwrap()[0].client_config.service.as_mut().unwrap();
        service.path = Some("/validate/g7/ignore/driftguards/token".to_owned());
        let told = validating(&found, &wanted);
        assert_eq!(told.altered, [(wanted[0].name.clone(), vec!["the path in clientConfig".to_owned()])]);
    }
}
