//! Looks that come before the auditor has followed what they are about.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::alert::Delivery;
use crate::alert::args::Settings as AlertSettings;
use crate::alert::queue::Limits;
use crate::audit::auditor::{Auditor, Settings};
use crate::audit::observed::Observed;
use crate::audit::telling::Telling;
use crate::audit::watch::{WatchSettings, test_support};
use crate::control::lease::Keeper;
use crate::core::guard::Enforcement;
use crate::core::index::Index;
use crate::core::tenure::Terms as Tenure;
use crate::sources::{Authorities, Sources};
use crate::store::{self, Observation, Stored};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{findings, notices};
use crate::trail::sink::RecordSink;

/// A client of a server that never answers.
fn client() -> kube::Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        std::future::pending::<()>().await;
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    kube::Client::new(service, "default")
}

fn auditor() -> Auditor {
    let (client, metrics) = (client(), Arc::new(Metrics::default()));
    let settings = store::Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "terrafusion-system".into(),
        longest_pause: crate::core::pause::LONGEST,
    };
    let alerts = AlertSettings {
        alerts: None,
        telemetry: None,
        source: "/driftguard".into(),
        spool: None,
        limits: Limits { events: 1, bytes: 1 },
    };
    let (findings, _) = findings::channel(Arc::clone(&metrics));
    let delivery = Delivery::start(&alerts, findings, Arc::clone(&metrics), &mut JoinSet::new()).unwrap();
    let telling = Telling {
        replica: "replica".into(),
        records: RecordSink::start(std::io::sink()).unwrap().0,
        notices: notices::channel(Arc::clone(&metrics)).0,
        delivery,
    };
    let authorities: Authorities = Arc::new(Vec::new);
    Auditor {
        store: Store::new(client.clone(), settings).0,
        fence: Keeper::new(client.clone(), "n", "replica".into(), Tenure::default()).1,
        sources: Arc::new(Sources::new(
            client.clone(),
            Default::default(),
            authorities,
            Arc::clone(&metrics),
        )),
        settings: Settings {
            watch: WatchSettings { audit_interval: Duration::from_secs(600), installed: "n".into() },
            apply_grace: Duration::from_secs(600),
            remediation: true,
        },
        observed: Arc::new(Observed::default()),
        telling,
        keys: watch::channel(None).1,
        metrics,
        client,
    }
}

fn observation(guard: &Arc<Guard>) -> Arc<Observation> {
    let object = serde_json::json!({
        "metadata": {
            "name": guard.id.name.as_str(),
            "namespace": guard.id.namespace.as_str(),
            "uid": guard.uid.as_str(),
            "resourceVersion": "1",
        },
        "spec": {
            "targetKind": "ConfigMap",
            "targetName": guard.target.name.as_str(),
            "expectedHash": guard.expected.to_string(),
        },
    });
    let stored: Stored = serde_json::from_str(&object.to_string()).unwrap();
    let state = GuardState::Valid(Arc::clone(guard));
    let index = Arc::new(Index::build(vec![state.clone()]));
    let seen = Seen { stored, state, since: 1, found: None, kept: None, needed: 1 };
    Arc::new(Observation { version: 1, index, guards: vec![Arc::new(seen)], ..Observation::default() })
}

#[tokio::test]
async fn a_look_at_the_target_of_a_guard_that_is_newer_than_what_was_followed_is_taken_in() {
    let auditor = auditor();
    let mut leading = Leading::new(&auditor);
    let (sender, receiver) = watch::channel(Arc::<Observation>::default());
    leading.observations = receiver;
    leading.follow();
    let guard = Arc::new(test_support::guard("g", Some("n"), "x"));
    let sighting = Sighting {
        guard: guard.id.clone(),
        guard_uid: guard.uid.clone(),
        of: Arc::clone(&guard),
        sight: Sight::Absent,
        how: Look::Initial,
        missed: false,
        read_before: None,
        object: None,
        seen_at: Timestamp::now(),
    };
    // The watch follows guards by itself, and may be faster.
    leading.sighted(sighting.clone()).await;
    assert!(leading.waiting.is_empty(), "nobody knows such a guard");
    sender.send_replace(observation(&guard));
    leading.sighted(sighting).await;
    assert!(leading.waiting.contains_key(&guard.uid), "it waits for what the status says");
}
