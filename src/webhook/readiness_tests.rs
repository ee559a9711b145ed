//! Ready only when what is served is what is registered.
#![allow(clippy::unwrap_used, clippy::panic)] // A test without its server should stop.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
};

use super::*;
use crate::cert::Authority;
use crate::core::registration::NAME_PREFIX;
use crate::store::configurations::Watched;
use crate::webhook::test_support::{Fixture, TestGuards, soon};

/// A check of a server whose leaf names localhost, and what it is told.
struct Checked {
    server: Fixture,
    outcome: watch::Receiver<Outcome>,
    trusted: watch::Sender<Bytes>,
    configurations: watch::Sender<Arc<Configurations>>,
}

impl Checked {
    async fn start() -> Self {
        let server = Fixture::start(TestGuards::known()).await;
        let (trusted, seen) = watch::channel(Bytes::new());
        let (configurations, watched) = watch::channel(Arc::default());
        let check = CertificateCheck {
            listener: server.address,
            server_name: "localhost".try_into().unwrap(),
            trusted: seen,
            configurations: watched,
            keeper: BundleKeeper::Ourselves,
            metrics: Arc::clone(&server.metrics),
        };
        let (outcome, running) = check.start();
        tokio::spawn(running);
        Self { server, outcome, trusted, configurations }
    }

    /// Registers an entry for each client.
    fn register(&self, clients: Vec<WebhookClientConfig>) {
        let webhooks = clients.into_iter().enumerate().map(|(number, client_config)| ValidatingWebhook {
            name: format!("{NAME_PREFIX}.{number}.terrafusion.ai"),
            client_config,
            ..ValidatingWebhook::default()
        });
        let validating = ValidatingWebhookConfiguration {
            webhooks: Some(webhooks.collect()),
            ..ValidatingWebhookConfiguration::default()
        };
        self.configurations.send_replace(Arc::new(Configurations {
            validating: Watched::Present(Arc::new(validating)),
            mutating: Watched::Absent,
        }));
    }

    fn url(&self, host: &str, authorities: &[&Authority]) -> WebhookClientConfig {
        let url = format!("https://{host}:{}/validate/g1/fail", self.server.address.port());
        WebhookClientConfig { url: Some(url), ca_bundle: Some(bundle(authorities)), service: None }
    }

    async fn says(&mut self, text: &str) {
        let told = self.outcome.wait_for(|outcome| outcome.as_ref().is_err_and(|says| says.contains(text)));
        soon(told).await.unwrap();
    }

    async fn passes(&mut self) {
        soon(self.outcome.wait_for(Result::is_ok)).await.unwrap();
    }
}

fn bundle(authorities: &[&Authority]) -> ByteString {
    ByteString(authorities.iter().map(|authority| authority.certificate_pem()).collect::<String>().into())
}

fn authority() -> Authority {
    Authority::generate(Timestamp::now()).unwrap()
}

#[tokio::test]
async fn nothing_passes_before_it_is_known_what_is_registered() {
    let mut checked = Checked::start().await;
    checked.trusted.send_replace(checked.server.authority.certificate_pem().into());
    checked.says("have not been read yet").await;
    checked.register(vec![]);
    checked.passes().await;
}

#[tokio::test]
async fn what_is_registered_counts_and_not_what_should_be() {
    let mut checked = Checked::start().await;
    checked.trusted.send_replace(checked.server.authority.certificate_pem().into());
    let other = authority();
    checked.register(vec![checked.url("localhost", &[&other])]);
    checked.says("does not verify as localhost").await;
    checked.register(vec![checked.url("localhost", &[&other, &checked.server.authority])]);
    checked.passes().await;
    checked.register(vec![checked.url("elsewhere.example", &[&checked.server.authority])]);
    checked.says("does not verify as elsewhere.example").await;
    checked.register(vec![checked.url("127.0.0.1", &[&checked.server.authority])]);
    checked.passes().await;
    let service = ServiceReference {
        name: "driftguard-webhook".into(),
        namespace: "terrafusion-system".into(),
        ..ServiceReference::default()
    };
    let ca_bundle = Some(bundle(&[&checked.server.authority]));
    checked.register(vec![WebhookClientConfig { url: None, ca_bundle, service: Some(service) }]);
    checked.says("does not verify as driftguard-webhook.terrafusion-system.svc").await;
}

#[tokio::test]
async fn one_entry_that_would_refuse_us_is_enough() {
    let mut checked = Checked::start().await;
    let other = authority();
    let good = checked.url("localhost", &[&checked.server.authority]);
    checked.register(vec![good.clone(), checked.url("localhost", &[&other])]);
    checked.says("does not verify").await;
    checked.register(vec![good.clone(), WebhookClientConfig { ca_bundle: None, ..good.clone() }]);
    checked.says("the registered caBundle").await;
    checked.register(vec![good.clone(), good]);
    checked.passes().await;
}
