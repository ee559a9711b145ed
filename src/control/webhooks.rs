//! Entries as the API server stores them, every default written out.
//!
//! What is read back can then be compared as it is: anything that differs was altered by somebody.

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::names;
use crate::core::guard::FailurePolicy;
use crate::core::registration::{Entry, NAME_PREFIX, Namespaces, generation_of, own};
use crate::store::Configurations;

/// How long an API server waits for us. A write waits as long, so it must be short; a review that
/// needs a live read must fit.
const TIMEOUT_SECONDS: i32 = 5;
/// Name of the match condition on names; it stands in the API server's errors about it.
const CONDITION: &str = "guarded-objects";
/// Name of the match condition of entries for our own kinds.
const OWN_CONDITION: &str = "approvals";

/// Where API servers call us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// At a Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// At a URL `https://host[:port]`, whatever its path.
    Url(String),
}

/// What all entries of a configuration share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    /// Where we are called.
    pub(super) address: &'a Address,
    /// The authorities that API servers trust for it, PEM; `None` where somebody else writes them.
    pub(super) bundle: Option<&'a [u8]>,
    /// The generation that stands in every path.
    pub(super) generation: u64,
}

impl Client<'_> {
    fn config(&self, entry: &Entry) -> WebhookClientConfig {
        let path = entry.path(self.generation);
        let ca_bundle = self.bundle.map(|bundle| ByteString(bundle.to_vec()));
        match self.address {
            Address::Url(url) => WebhookClientConfig {
                ca_bundle,
                url: Some(format!("{}{path}", url.trim_end_matches('/'))),
                service: None,
            },
            Address::Service { namespace, name, port } => WebhookClientConfig {
                ca_bundle,
                url: None,
                service: Some(ServiceReference {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    port: Some((*port).into()),
                    path: Some(path),
                }),
            },
        }
    }
}

/// What the two kinds of configuration have in common.
pub(super) trait Configuration:
    Resource<DynamicType = (), Scope = ClusterResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// An entry.
    type Webhook: Clone + Debug + PartialEq + Serialize + Send + Sync;

    /// The entries.
    fn webhooks(&self) -> &[Self::Webhook];
    /// Name of an entry.
    fn name_of(webhook: &Self::Webhook) -> &str;
    /// Where an entry calls.
    fn client_of(webhook: &Self::Webhook) -> &WebhookClientConfig;
    /// The same, to be changed.
    fn client_of_mut(webhook: &mut Self::Webhook) -> &mut WebhookClientConfig;
    /// What becomes of a write when an entry cannot be called.
    fn policy_of(webhook: &Self::Webhook) -> Option<&str>;
    /// An entry as it is stored.
    fn render(entry: &Entry, client: &Client<'_>) -> Self::Webhook;

    /// Entries that bear our name.
    fn ours(&self) -> impl Iterator<Item = &Self::Webhook> {
        self.webhooks().iter().filter(|webhook| Self::is_ours(webhook))
    }

    /// Our entry of this name.
    fn entry(&self, name: &str) -> Option<&Self::Webhook> {
        self.ours().find(|webhook| Self::name_of(webhook) == name)
    }

    /// Whether API servers have been told whom to trust when they call an entry.
    fn has_bundle(webhook: &Self::Webhook) -> bool {
        Self::client_of(webhook).ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty())
    }

    /// Whether an entry bears our name. Others in the configuration are somebody else's.
    fn is_ours(webhook: &Self::Webhook) -> bool {
        Self::name_of(webhook).starts_with(NAME_PREFIX)
    }

    /// The generation that the configuration carries; 0 when none was ever applied.
    fn generation(&self) -> u64 {
        let annotation = self.meta().annotations.as_ref();
        let noted = annotation.and_then(|all| all.get(names::ANNOTATION_GENERATION)?.parse().ok());
        let in_paths =
            self.ours().filter_map(|webhook| generation_of(called_path(Self::client_of(webhook))?));
        in_paths.chain(noted).filter(|generation| *generation <= MAX_GENERATION).max().unwrap_or_default()
    }
}

/// A greater generation was not made by us: counting on from it would soon end.
const MAX_GENERATION: u64 = 1 << 48;

/// The path at which API servers call.
pub(super) fn called_path(config: &WebhookClientConfig) -> Option<&str> {
    let service = config.service.as_ref().and_then(|service| service.path.as_deref());
    service.or_else(|| path_of(config.url.as_deref()?))
}

/// The path of a URL.
fn path_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    rest.find('/').map(|at| &rest[at..])
}

impl Configuration for ValidatingWebhookConfiguration {
    type Webhook = ValidatingWebhook;

    fn webhooks(&self) -> &[ValidatingWebhook] {
        self.webhooks.as_deref().unwrap_or_default()
    }
    fn name_of(webhook: &ValidatingWebhook) -> &str {
        &webhook.name
    }
    fn client_of(webhook: &ValidatingWebhook) -> &WebhookClientConfig {
        &webhook.client_config
    }
    fn client_of_mut(webhook: &mut ValidatingWebhook) -> &mut WebhookClientConfig {
        &mut webhook.client_config
    }
    fn policy_of(webhook: &ValidatingWebhook) -> Option<&str> {
        webhook.failure_policy.as_deref()
    }
    fn render(entry: &Entry, client: &Client<'_>) -> ValidatingWebhook {
        ValidatingWebhook {
            name: entry.name.clone(),
            client_config: client.config(entry),
            rules: Some(vec![rule(entry)]),
            failure_policy: Some(failure_policy(entry).to_owned()),
            // Writes through other versions arrive converted to the one that is hashed.
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(namespace_selector(entry)),
            object_selector: Some(LabelSelector::default()),
            match_conditions: match_conditions(entry),
            side_effects: "NoneOnDryRun".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            admission_review_versions: vec!["v1".to_owned()],
        }
    }
}

impl Configuration for MutatingWebhookConfiguration {
    type Webhook = MutatingWebhook;

    fn webhooks(&self) -> &[MutatingWebhook] {
        self.webhooks.as_deref().unwrap_or_default()
    }
    fn name_of(webhook: &MutatingWebhook) -> &str {
        &webhook.name
    }
    fn client_of(webhook: &MutatingWebhook) -> &WebhookClientConfig {
        &webhook.client_config
    }
    fn client_of_mut(webhook: &mut MutatingWebhook) -> &mut WebhookClientConfig {
        &mut webhook.client_config
    }
    fn policy_of(webhook: &MutatingWebhook) -> Option<&str> {
        webhook.failure_policy.as_deref()
    }
    fn render(entry: &Entry, client: &Client<'_>) -> MutatingWebhook {
        MutatingWebhook {
            name: entry.name.clone(),
            client_config: client.config(entry),
            rules: Some(vec![rule(entry)]),
            failure_policy: Some(failure_policy(entry).to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(namespace_selector(entry)),
            object_selector: Some(LabelSelector::default()),
            match_conditions: match_conditions(entry),
            // What another hook changes afterwards must be put back too.
            reinvocation_policy: Some("IfNeeded".to_owned()),
            side_effects: "NoneOnDryRun".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            admission_review_versions: vec!["v1".to_owned()],
        }
    }
}

fn rule(entry: &Entry) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: Some(vec![entry.group.clone()]),
        api_versions: Some(vec![entry.version.clone()]),
        resources: Some(entry.resources.clone()),
        operations: Some(entry.operations.iter().map(|operation| operation.as_str().to_owned()).collect()),
        scope: Some(if entry.namespaced { "Namespaced" } else { "Cluster" }.to_owned()),
    }
}

fn failure_policy(entry: &Entry) -> &'static str {
    match entry.failure_policy {
        FailurePolicy::Fail => "Fail",
        FailurePolicy::Ignore => "Ignore",
    }
}

fn namespace_selector(entry: &Entry) -> LabelSelector {
    let (operator, values) = match &entry.selection.namespaces {
        Namespaces::All => return LabelSelector::default(),
        Namespaces::In(values) => ("In", values),
        Namespaces::NotIn(values) => ("NotIn", values),
    };
    let requirement = LabelSelectorRequirement {
        key: names::LABEL_NAMESPACE_NAME.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.clone()),
    };
    LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None }
}

fn match_conditions(entry: &Entry) -> Option<Vec<MatchCondition>> {
    let condition = |name: &str, expression| MatchCondition { name: name.to_owned(), expression };
    if let Some(expression) = own::condition(entry) {
        return Some(vec![condition(OWN_CONDITION, expression.to_owned())]);
    }
    let names = entry.selection.names.as_ref().map(|names| condition(CONDITION, names.cel()));
    let touch = entry.touch.map(|touch| condition(touch.name(), touch.cel()));
    let conditions: Vec<MatchCondition> = names.into_iter().chain(touch).collect();
    (!conditions.is_empty()).then_some(conditions)
}

/// How API servers reach our registered entries, each way once; none while there are no entries.
#[must_use]
pub fn registered_clients(configurations: &Configurations) -> Vec<&WebhookClientConfig> {
    let validating = configurations.validating.get().into_iter().flat_map(Configuration::ours);
    let mutating = configurations.mutating.get().into_iter().flat_map(Configuration::ours);
    let mut clients: Vec<&WebhookClientConfig> = Vec::new();
    for client in
        validating.map(|entry| &entry.client_config).chain(mutating.map(|entry| &entry.client_config))
    {
        let same = |known: &&WebhookClientConfig| {
            known.ca_bundle == client.ca_bundle && server_name(known) == server_name(client)
        };
        if !clients.iter().any(same) {
            clients.push(client);
        }
    }
    clients
}

/// The name that an API server verifies when it calls an entry: `NAME.NAMESPACE.svc` of a Service, or
/// the host of a URL, an IPv6 address without brackets.
#[must_use]
pub fn server_name(client: &WebhookClientConfig) -> Option<String> {
    if let Some(service) = &client.service {
        return Some(format!("{}.{}.svc", service.name, service.namespace));
    }
    let url: http::Uri = client.url.as_deref()?.parse().ok()?;
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
#[path = "webhooks_tests.rs"]
mod tests;
