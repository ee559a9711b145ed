use serde_json::json;

use super::*;
use crate::core::registration::{Hook, Selection};
use crate::core::verdict::Operation;

fn entry() -> Entry {
    Entry {
        name: "see-driftguard-breakglass.write-fail.deployments.v1.apps.terrafusion.ai".into(),
        hook: Hook::Validate,
        failure_policy: FailurePolicy::Fail,
        group: "apps".into(),
        version: "v1".into(),
        resources: vec!["deployments".into()],
        operations: vec![Operation::Create, Operation::Update],
        namespaced: true,
        selection: Selection { namespaces: Namespaces::In(vec!["a".into(), "b".into()]), names: None },
        touch: None,
        broken: false,
        token: None,
    }
}

fn service() -> Address {
    Address::Service { namespace: "terrafusion-system".into(), name: "driftguard-webhook".into(), port: 443 }
}

fn configuration(entries: &[Entry], address: &Address, generation: u64) -> ValidatingWebhookConfiguration {
    let client = Client { address, bundle: Some(b"PEM"), generation };
    let webhooks = entries.iter().map(|entry| ValidatingWebhookConfiguration::render(entry, &client));
    ValidatingWebhookConfiguration { webhooks: Some(webhooks.collect()), ..Default::default() }
}

#[test]
fn an_entry_is_written_with_every_field_that_the_api_server_would_fill_in() {
    let made = json!(configuration(&[entry()], &service(), 17).webhooks);
    let expected = json!([{
        "name": "see-driftguard-breakglass.write-fail.deployments.v1.apps.terrafusion.ai",
        "clientConfig": {
            "caBundle": "UEVN",
            "service": {"namespace": "terrafusion-system", "name": "driftguard-webhook", "port": 443,
                        "path": "/validate/g17/fail"},
        },
        "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
                   "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"}],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]},
        "objectSelector": {},
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": 5,
        "admissionReviewVersions": ["v1"],
    }]);
    assert_eq!(made, expected);
}

#[test]
fn a_url_gets_the_path_appended() {
    let address = Address::Url("https://localhost:9443/".into());
    let made = configuration(&[entry()], &address, 3);
    let config = &made.webhooks()[0].client_config;
    assert_eq!(config.url.as_deref(), Some("https://localhost:9443/validate/g3/fail"));
    assert_eq!(made.generation(), 3);
}

#[test]
fn cluster_scoped_entries_of_all_names_have_an_empty_selector() {
    let mut entry = entry();
    entry.namespaced = false;
    entry.selection.namespaces = Namespaces::All;
    let made = json!(configuration(&[entry], &service(), 1).webhooks);
    assert_eq!(made[0]["namespaceSelector"], json!({}));
    assert_eq!(made[0]["rules"][0]["scope"], "Cluster");
}

#[test]
fn the_generation_is_read_from_paths_and_from_the_annotation() {
    let mut made = configuration(&[entry()], &service(), 17);
    assert_eq!(made.generation(), 17);
    let note = |text: &str| Some([(names::ANNOTATION_GENERATION.to_owned(), text.to_owned())].into());
    made.metadata.annotations = note("21");
    assert_eq!(made.generation(), 21);
    made.metadata.annotations = note("nonsense");
    assert_eq!(made.generation(), 17);
    made.metadata.annotations = note("18446744073709551615");
    assert_eq!(made.generation(), 17, "no number that could not be counted on from");
    made.webhooks = None;
    assert_eq!(made.generation(), 0);
}

#[test]
fn entries_of_others_in_our_configuration_are_not_ours() {
    let mut made = configuration(&[entry()], &service(), 17);
    let mut foreign = made.webhooks()[0].clone();
    foreign.name = "policy.example.com".into();
    made.webhooks.get_or_insert_default().push(foreign);
    assert_eq!(made.ours().count(), 1);
}
