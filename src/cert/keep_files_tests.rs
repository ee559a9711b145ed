//! What is served is what is trusted, whatever becomes of the files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};

use super::*;
use crate::cert::Authority as Signing;
use crate::cert::authority::{certificates, to_pem};
use crate::cert::test_support::Supply;
use crate::core::registration::NAME_PREFIX;
use crate::store::configurations::Watched;

const NAME: &str = "driftguard-webhook.terrafusion-system.svc";

fn authority() -> Signing {
    Signing::generate(Timestamp::now()).unwrap()
}

/// A keeper that is made to look by hand, at times of the test's choice.
struct Rig {
    supply: Supply,
    keeper: FilesKeeper,
    kept: Kept,
    configurations: watch::Sender<Arc<Configurations>>,
    now: Timestamp,
}

impl Rig {
    fn new() -> Self {
        let supply = Supply::new();
        let (configurations, watched) = watch::channel(Arc::default());
        let settle = SignedDuration::from_secs(60);
        let keeper = FilesKeeper {
            files: supply.files(),
            identity: ServerIdentity::service("terrafusion-system", "driftguard-webhook").unwrap(),
            settle,
            keeper: BundleKeeper::Ourselves,
            resolver: Arc::default(),
            bundle: watch::channel(Bytes::new()).0,
            configurations: watched,
            metrics: Arc::default(),
        };
        let kept = Kept { sight: sight(settle), served: None, began: false, problem: None };
        Self { supply, keeper, kept, configurations, now: Timestamp::now() }
    }

    fn register(&self, authorities: &[&Signing]) {
        let all: Vec<_> = authorities.iter().map(|one| one.certificate().clone()).collect();
        let webhook = ValidatingWebhook {
            name: format!("{NAME_PREFIX}.write.terrafusion.ai"),
            client_config: WebhookClientConfig {
                ca_bundle: Some(ByteString(to_pem(&all).into_bytes())),
                ..WebhookClientConfig::default()
            },
            ..ValidatingWebhook::default()
        };
        let validating = ValidatingWebhookConfiguration {
            webhooks: Some(vec![webhook]),
            ..ValidatingWebhookConfiguration::default()
        };
        self.configurations.send_replace(Arc::new(Configurations {
            validating: Watched::Present(Arc::new(validating)),
            mutating: Watched::Absent,
        }));
    }

    fn look(&mut self, later: i64) {
        self.now += SignedDuration::from_secs(later);
        self.keeper.look(&mut self.kept, self.keeper.files.read(), self.now);
    }

    /// The certificate that is served.
    fn serves(&self) -> Vec<u8> {
        self.keeper.resolver.current().unwrap().certified().cert[0].to_vec()
    }

    /// Whether exactly these are to be registered.
    fn wants(&self, authorities: &[&Signing]) -> bool {
        let bundle = certificates(&self.keeper.bundle.borrow()).unwrap();
        bundle.len() == authorities.len() && authorities.iter().all(|one| bundle.contains(one.certificate()))
    }

    fn is_broken(&self) -> bool {
        self.keeper.metrics.encode().unwrap().contains("\ndriftguard_certificate_files_broken 1\n")
    }
}

#[test]
fn a_new_authority_is_registered_beside_the_old_one_before_anything_of_it_is_served() {
    let (old, new) = (authority(), authority());
    let mut rig = Rig::new();
    rig.supply.put(&old, NAME, &[&old]);
    rig.look(0);
    let first = rig.serves();
    assert!(rig.wants(&[&old]));
    rig.register(&[&old]);
    rig.look(60);
    // As cert-manager does it: everything at once, without an overlap.
    rig.supply.put(&new, NAME, &[&new]);
    rig.look(5);
    assert!(rig.wants(&[&old, &new]));
    rig.register(&[&old, &new]);
    rig.look(5);
    rig.look(59);
    assert_eq!(rig.serves(), first);
    rig.look(1);
    assert!(rig.serves() != first);
    rig.look(599);
    assert!(rig.wants(&[&old, &new]), "other replicas may not have it yet");
    rig.look(2);
    assert!(rig.wants(&[&new]));
}

#[test]
fn another_certificate_of_the_same_authority_is_served_at_once() {
    let authority = authority();
    let mut rig = Rig::new();
    rig.supply.put(&authority, NAME, &[&authority]);
    rig.look(0);
    rig.register(&[&authority]);
    rig.look(1);
    rig.look(60);
    let first = rig.serves();
    rig.supply.put(&authority, NAME, &[&authority]);
    rig.look(3);
    assert!(rig.serves() != first);
    assert!(rig.wants(&[&authority]));
}

#[test]
fn broken_files_change_nothing_and_are_told_when_a_second_look_finds_them_so() {
    let (old, new) = (authority(), authority());
    let mut rig = Rig::new();
    rig.supply.put(&old, NAME, &[&old]);
    rig.look(0);
    rig.register(&[&old]);
    rig.look(100);
    let first = rig.serves();
    rig.supply.put(&new, "elsewhere.svc", &[&new]);
    rig.look(3);
    assert!(!rig.is_broken());
    rig.look(3);
    assert!(rig.is_broken());
    rig.look(3600);
    assert_eq!(rig.serves(), first);
    assert!(rig.wants(&[&old]), "nothing of broken files is registered");
    std::fs::remove_file(rig.supply.path("ca.crt")).unwrap();
    rig.look(3);
    assert_eq!(rig.serves(), first);
    rig.supply.put(&old, NAME, &[&old]);
    rig.look(3);
    assert!(!rig.is_broken() && rig.serves() != first);
}

#[test]
fn what_was_registered_before_this_process_began_stays_for_others() {
    let (own, files) = (authority(), authority());
    let mut rig = Rig::new();
    rig.register(&[&own]);
    rig.supply.put(&files, NAME, &[&files]);
    rig.look(0);
    assert!(rig.wants(&[&own, &files]));
    rig.register(&[&own, &files]);
    rig.look(601);
    assert!(rig.wants(&[&files]));
}

#[test]
fn nothing_is_to_be_registered_while_nothing_can_be_served() {
    let authority = authority();
    let mut rig = Rig::new();
    rig.supply.put_ended(&authority, NAME);
    rig.look(0);
    assert!(rig.keeper.bundle.borrow().is_empty());
    rig.supply.put(&authority, NAME, &[&authority]);
    rig.look(3);
    assert!(rig.wants(&[&authority]));
}
