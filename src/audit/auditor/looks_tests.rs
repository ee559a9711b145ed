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
use crate::audit::auditor::{Auditor, READS, Settings, WAITING};
use crate::audit::observed::Observed;
use crate::audit::telling::Telling;
use crate::audit::watch::{WatchSettings, test_support};
use crate::control::lease::Keeper;
use crate::core::guard::{Authorship, Enforcement, InvalidGuard};
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

fn observation(states: &[GuardState]) -> Arc<Observation> {
    let seen = |state: &GuardState| {
        let object = serde_json::json!({
            "metadata": {
                "name": state.id().name.as_str(),
                "namespace": state.id().namespace.as_str(),
                "uid": state.id().name.as_str(),
                "resourceVersion": "1",
            },
            "spec": {
                "targetKind": "ConfigMap",
                "targetName": "x",
                "expectedHash": test_support::approved().to_string(),
            },
        });
        let stored: Stored = serde_json::from_str(&object.to_string()).unwrap();
        Arc::new(Seen { stored, state: state.clone(), since: 1, found: None, kept: None, needed: 1 })
    };
    let index = Arc::new(Index::build(states.to_vec()));
    let guards = states.iter().map(seen).collect();
    Arc::new(Observation { version: 1, index, guards, ..Observation::default() })
}

fn guard(name: &str) -> Arc<Guard> {
    Arc::new(test_support::guard(name, Some("n"), "x"))
}

/// A guard whose target was seen to be absent.
fn sighting(guard: &Arc<Guard>, how: Look) -> Sighting {
    Sighting {
        guard: guard.id.clone(),
        guard_uid: guard.uid.clone(),
        of: Arc::clone(guard),
        sight: Sight::Absent,
        how,
        missed: false,
        read_before: None,
        object: None,
        seen_at: Timestamp::now(),
    }
}

#[tokio::test]
async fn a_look_at_the_target_of_a_guard_that_is_newer_than_what_was_followed_is_taken_in() {
    let auditor = auditor();
    let mut leading = Leading::new(&auditor);
    let (sender, receiver) = watch::channel(Arc::<Observation>::default());
    leading.observations = receiver;
    leading.follow();
    let guard = guard("g");
    let sighting = sighting(&guard, Look::Initial);
    // The watch follows guards by itself, and may be faster.
    leading.sighted(sighting.clone()).await;
    assert!(leading.waiting.is_empty(), "nobody knows such a guard");
    sender.send_replace(observation(&[GuardState::Valid(Arc::clone(&guard))]));
    leading.sighted(sighting).await;
    assert!(leading.waiting.contains_key(&guard.uid), "it waits for what the status says");
}

#[tokio::test]
async fn of_very_many_targets_to_be_looked_at_few_are_read_at_a_time() {
    let auditor = auditor();
    let guards: Vec<Arc<Guard>> = (0..500).map(|number| guard(&format!("g{number:03}"))).collect();
    let states: Vec<GuardState> = guards.iter().map(|guard| GuardState::Valid(Arc::clone(guard))).collect();
    let (_sender, receiver) = watch::channel(observation(&states));
    let under_way = async |waiting: usize| {
        let mut leading = Leading::new(&auditor);
        leading.observations = receiver.clone();
        leading.follow();
        for guard in &guards[..waiting] {
            let look = Sighting { object: Some(Bytes::from_static(b"{}")), ..sighting(guard, Look::Live) };
            leading.sighted(look).await;
        }
        leading.take_all(guards.iter().map(|guard| (guard.uid.clone(), book::Step::Look)).collect());
        leading.ask();
        leading.flights.under_way()
    };
    assert_eq!(under_way(0).await, READS);
    assert_eq!(under_way(WAITING.0).await, 0, "as many objects as may be held wait already");
}

#[tokio::test]
async fn a_look_in_the_place_of_one_that_waits_keeps_how_that_one_came_about() {
    let auditor = auditor();
    let mut leading = Leading::new(&auditor);
    let guard = guard("g");
    let (_sender, receiver) = watch::channel(observation(&[GuardState::Valid(Arc::clone(&guard))]));
    leading.observations = receiver;
    leading.follow();
    leading.sighted(Sighting { missed: true, ..sighting(&guard, Look::Initial) }).await;
    leading.sighted(sighting(&guard, Look::Live)).await;
    let waiting = &leading.waiting[&guard.uid];
    assert_eq!((waiting.how, waiting.missed), (Look::Initial, true));
    let unreadable = Sight::Unreadable("w".to_owned());
    leading.sighted(Sighting { sight: unreadable.clone(), ..sighting(&guard, Look::Watch) }).await;
    let waiting = &leading.waiting[&guard.uid];
    assert_eq!((waiting.how, &waiting.sight), (Look::Watch, &unreadable), "it is of other content");
    leading.sighted(sighting(&guard, Look::Live)).await;
    assert_eq!(
        leading.waiting[&guard.uid].sight, unreadable,
        "that it may not be watched nobody tells again"
    );
}

#[tokio::test]
async fn a_guard_that_can_be_used_again_is_looked_at_although_no_watch_tells_of_it() {
    let auditor = auditor();
    let mut leading = Leading::new(&auditor);
    let guard = guard("g");
    let invalid = GuardState::Invalid(Arc::new(InvalidGuard {
        id: guard.id.clone(),
        uid: guard.uid.clone(),
        generation: 1,
        target: None,
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        reason: "Test",
        message: String::new(),
    }));
    let (sender, receiver) = watch::channel(observation(&[invalid]));
    leading.observations = receiver;
    leading.follow();
    assert_eq!(leading.book.next_due(), None);
    sender.send_replace(observation(&[GuardState::Valid(Arc::clone(&guard))]));
    leading.follow();
    assert!(leading.book.next_due().is_some());
}
