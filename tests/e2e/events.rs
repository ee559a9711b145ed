//! Events about attempts, as an operator reads them: a series for each user, object and content, and few
//! of them whoever tries.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use driftguard::telemetry::events::MAX_APART_OF_GUARD;
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map};

const OBJECT: &str = "configmap/prices";
/// Further attempts are gathered for a minute.
const GATHERED: Duration = Duration::from_secs(150);

/// The Events that tell of refused writes to the guard's target.
fn denials(on: &Installation, ns: &str) -> Result<Vec<Value>> {
    let path = ["get", "events.events.k8s.io", "-n", ns, "--field-selector=reason=WriteDenied", "-o", "json"];
    Ok(on.admin.kubectl(&path)?.json()?["items"].as_array().context("no list")?.clone())
}

fn note(event: &Value) -> &str {
    event["note"].as_str().unwrap_or_default()
}

/// Tries to write `price` as somebody else with all rights.
fn refused(on: &Installation, ns: &str, user: &str, price: &str) -> Result<String> {
    let patch = json!({"data": {"price": price}}).to_string();
    let by = format!("--as={user}");
    on.refused(ns, OBJECT, || {
        let arguments = ["patch", OBJECT, "-n", ns, "--type=merge", "-p", &patch, &by];
        on.admin.kubectl(&[&arguments[..], &["--as-group=system:masters"]].concat())
    })
}

#[test]
fn attempts_are_told_by_user_and_content_and_few_events_hold_them_all() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = &on.namespace("events-grouped")?;
    on.apply(&config_map(ns, "prices", &json!({"price": "1"})))?.success()?;
    let guard = on.pin_live(ns, OBJECT)?;
    for (user, price) in [("alice", "2"), ("alice", "2"), ("alice", "3"), ("bob", "2"), ("alice", "2")] {
        refused(on, ns, user, price)?;
    }
    // Each is told at once the first time; what was tried again is the same attempt.
    until("three series are told", LIMIT, || {
        let told = denials(on, ns)?;
        ensure!(told.len() == 3, "{told:?}");
        let by =
            |user: &str| told.iter().filter(|event| note(event).contains(&format!(" by {user} "))).count();
        ensure!((by("alice"), by("bob")) == (2, 1), "{told:?}");
        Ok(())
    })?;
    for number in 0..MAX_APART_OF_GUARD + 5 {
        refused(on, ns, &format!("user-{number}"), "9")?;
    }
    let counted = until("all attempts are counted", GATHERED, || {
        let told = denials(on, ns)?;
        ensure!(told.iter().all(|event| event["regarding"]["name"] == guard.as_str()), "{told:?}");
        let counted: u64 = told.iter().map(|event| event["series"]["count"].as_u64().unwrap_or(1)).sum();
        // Not fewer, but perhaps more: an API server may ask twice.
        ensure!(counted >= 5 + MAX_APART_OF_GUARD as u64 + 5, "{counted} of {told:?}");
        Ok(told)
    })?;
    ensure!(counted.len() == MAX_APART_OF_GUARD + 1, "{counted:?}");
    let others: Vec<&Value> = counted.iter().filter(|event| note(event).contains("all others")).collect();
    ensure!(others.len() == 1, "{counted:?}");
    ensure!(others[0]["series"]["count"].as_u64() >= Some(8), "{others:?}");
    Ok(())
}
