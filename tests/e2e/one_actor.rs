//! One replica acts at a time: another takes over soon after its end, and one that was halted for longer than its
//! lease lasts writes nothing when it goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::guardian::{Process, Signal};
use driftguard_control_plane::{ControlPlane, until};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auditing::{REMEDIATION, write_into};
use crate::fleet::{Fleet, SYSTEM, condition};
use crate::installation::{LIMIT, Via, config_map, hash_of};

const NAMESPACE: &str = "one-actor";
/// After a kill, what drifts is put back within so long: the promise.
const TAKEOVER: Duration = Duration::from_secs(15);
/// The same after an orderly end: "at once" is a try of the other replica, some of which a busy machine takes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Replicas that may put back what they guard.
fn replicas(flags: &[String]) -> Result<Fleet> {
    let fleet = Fleet::with_flags(ControlPlane::builder().start()?, Via::Service, flags)?;
    fleet.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    fleet.namespace(NAMESPACE)?;
    Ok(fleet)
}

fn get(fleet: &Fleet, object: &str) -> Result<Value> {
    fleet.admin.kubectl(&["get", object, "-n", NAMESPACE, "--show-managed-fields", "-o", "json"])?.json()
}

/// Pins a ConfigMap with this source, and waits until it is known to be in sync.
fn pin(fleet: &Fleet, name: &str, source: &Value) -> Result<()> {
    let made = config_map(NAMESPACE, name, &json!({"limit": "1000"}));
    fleet.apply(&made)?;
    fleet.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash_of(&made)?,
            "autoRemediate": true, "sourceOfTruthRef": source},
    }))?;
    fleet.wait_enforcing(NAMESPACE, name)?;
    until("it is in sync", LIMIT, || {
        let guard = get(fleet, &format!("dg/{name}"))?;
        let said = condition(&guard, "Drifted").context("nothing is said of drift yet")?;
        ensure!(said["status"] == "False", "{said}");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))
}

fn drift(fleet: &Fleet, name: &str) -> Result<()> {
    write_into(fleet.plane.etcd(), &format!("/registry/configmaps/{NAMESPACE}/{name}"), "1000", "9999")
}

/// Waits until a ConfigMap is as approved again.
fn restored(fleet: &Fleet, name: &str) -> Result<Value> {
    until("it is put back", LIMIT, || {
        let seen = get(fleet, &format!("configmap/{name}"))?;
        ensure!(seen["data"]["limit"] == "1000", "{}", seen["data"]);
        Ok(seen)
    })
    .map_err(|error| fleet.with_logs(&error))
}

/// The Lease: who holds it, and since when.
fn lease(fleet: &Fleet) -> Result<(String, Timestamp)> {
    let lease = fleet.admin.kubectl(&["get", "lease/driftguard", "-n", SYSTEM, "-o", "json"])?.json()?;
    let text = |field: &str| lease["spec"][field].as_str().unwrap_or_default().to_owned();
    ensure!(!text("holderIdentity").is_empty(), "nobody holds it");
    Ok((text("holderIdentity"), text("acquireTime").parse()?))
}

/// Which replica holds the Lease.
fn leader(fleet: &Fleet) -> Result<usize> {
    let (holder, _) = lease(fleet)?;
    let is_it = |process: &Process| holder.contains(process.name());
    fleet.running.iter().position(is_it).with_context(|| format!("{holder} is no replica"))
}

/// Waits until another replica holds the Lease. Gives how long after `since` it took it.
fn taken_over(fleet: &Fleet, before: usize, since: Timestamp) -> Result<Duration> {
    until("another replica takes over", LIMIT, || {
        let now = leader(fleet)?;
        ensure!(now != before, "the former one holds it");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))?;
    Ok(Duration::try_from(lease(fleet)?.1.duration_since(since)).unwrap_or_default())
}

fn approved() -> Value {
    json!({"kind": "configmap", "name": "approved"})
}

#[test]
fn another_replica_puts_back_what_drifts_soon_after_a_kill_and_at_once_after_an_orderly_end() -> Result<()> {
    let fleet = replicas(&[])?;
    fleet.apply(&config_map(NAMESPACE, "approved", &json!({"limit": "1000"})))?;
    pin(&fleet, "settings", &approved())?;
    for (signal, promised) in [(Signal::Kill, TAKEOVER), (Signal::Terminate, AT_ONCE)] {
        let acting = leader(&fleet)?;
        let signalled = Timestamp::now();
        fleet.running[acting].signal(signal)?;
        if signal == Signal::Kill {
            fleet.running[acting].wait(LIMIT)?;
            drift(&fleet, "settings")?;
        }
        let drifted = Instant::now();
        let taken = taken_over(&fleet, acting, signalled)?;
        if signal == Signal::Terminate {
            // Before, it may well be put back by the one that ends.
            drift(&fleet, "settings")?;
        }
        restored(&fleet, "settings")?;
        let took = drifted.elapsed();
        println!("{signal:?}: the lease was taken {taken:?} later, and drift was put back after {took:?}");
        ensure!(taken <= promised, "{signal:?}: the lease was taken only after {taken:?}");
        // What a busy machine takes to look and to write.
        ensure!(took <= promised + AT_ONCE, "{signal:?}: drift was put back only after {took:?}");
        // It goes on answering for a while when it is asked to end.
        fleet.running[acting].wait(LIMIT)?;
        fleet.start_again(acting)?;
    }
    Ok(())
}

/// A source that answers with the approved content, at once or when it is let go.
#[derive(Clone)]
pub(crate) struct Source {
    state: Arc<(Mutex<(bool, usize)>, Condvar)>,
}

impl Source {
    pub(crate) fn start() -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let source = Self { state: Arc::default() };
        let serving = source.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let one = serving.clone();
                std::thread::spawn(move || one.serve(&stream));
            }
        });
        Ok((source, url))
    }

    fn serve(&self, mut stream: &TcpStream) -> Result<()> {
        let mut head = BufReader::new(stream).lines();
        while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let (state, changed) = &*self.state;
        let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 += usize::from(held.0);
        while held.0 {
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        drop(held);
        let body = r#"{"data": {"limit": "1000"}}"#;
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        Ok(())
    }

    pub(crate) fn hold(&self, is_held: bool) {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).0 = is_held;
        self.state.1.notify_all();
    }

    /// How many requests were held.
    pub(crate) fn held(&self) -> usize {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[test]
fn case_54_a_leader_that_was_halted_past_its_lease_writes_nothing_stale() -> Result<()> {
    let (source, url) = Source::start()?;
    let flags = [
        format!("--service-url={NAMESPACE}/slow={url}"),
        "--allow-source-address=127.0.0.0/8".to_owned(),
        "--log-level=debug".to_owned(),
    ];
    let fleet = replicas(&flags)?;
    fleet.apply(&config_map(NAMESPACE, "approved", &json!({"limit": "1000"})))?;
    pin(&fleet, "settings", &approved())?;
    pin(&fleet, "fetched", &json!({"kind": "service", "name": "slow", "path": "/settings"}))?;

    // The leader is halted while it waits for a source, about to write.
    let halted = leader(&fleet)?;
    source.hold(true);
    drift(&fleet, "fetched")?;
    until("the leader asks the source", LIMIT, || {
        ensure!(source.held() > 0, "not yet");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))?;
    fleet.running[halted].signal(Signal::Stop)?;
    let since = Timestamp::now();
    // Meanwhile the guard is told to leave its target alone, which only the other replica hears.
    let patch = r#"{"spec":{"autoRemediate":false}}"#;
    until("the guard is edited", 2 * LIMIT, || {
        let edit = ["patch", "dg/fetched", "-n", NAMESPACE, "--type=merge", "-p", patch];
        fleet.admin.kubectl(&edit)?.success()
    })?;
    let taken = taken_over(&fleet, halted, since)?;
    println!("the lease was taken {taken:?} after the leader was halted");
    drift(&fleet, "settings")?;
    let put_back = restored(&fleet, "settings")?;
    until("the new leader knows the edit", LIMIT, || {
        let guard = get(&fleet, "dg/fetched")?;
        let said = condition(&guard, "Drifted").context("nothing is said of drift yet")?;
        let is_current = said["observedGeneration"] == guard["metadata"]["generation"];
        ensure!(is_current && said["status"] == "True", "{said}");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))?;

    let left = get(&fleet, "configmap/fetched")?;
    ensure!(left["data"]["limit"] == "9999", "{left}");
    let said_of = |name: &str| -> Result<Value> {
        let guard = get(&fleet, &format!("dg/{name}"))?;
        let status = &guard["status"];
        let fields =
            ["currentHash", "consecutiveFailures", "episode", "lastDrift", "lastRemediation", "sources"];
        let fields: Vec<_> = fields.iter().map(|field| status[*field].clone()).collect();
        Ok(json!([condition(&guard, "Drifted"), fields]))
    };
    until("the repair is said", LIMIT, || {
        let said = said_of("settings")?;
        ensure!(said.to_string().contains(r#""result":"Restored""#), "{said}");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))?;
    let said = [said_of("settings")?, said_of("fetched")?];
    let before = fleet.running[halted].log().len();
    // What it was waiting for is there when it goes on.
    source.hold(false);
    fleet.running[halted].signal(Signal::Continue)?;
    until("the halted one has seen that it does not lead", LIMIT, || {
        let log = fleet.running[halted].log();
        let since = log.get(before..).unwrap_or_default();
        ensure!(since.contains("another replica may lead now") || since.lines().count() > 3, "{since}");
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))?;
    // It has had the time for several tries.
    let resumed = Instant::now();
    until("some time has passed", LIMIT, || {
        let now = get(&fleet, "configmap/fetched")?;
        ensure!(now == left, "it was written: {now}");
        ensure!(resumed.elapsed() > Duration::from_secs(8), "{:?}", resumed.elapsed());
        Ok(())
    })?;
    ensure!(get(&fleet, "configmap/fetched")? == left, "written by whoever does not lead");
    ensure!(get(&fleet, "configmap/settings")? == put_back, "written twice");
    let now = [said_of("settings")?, said_of("fetched")?];
    ensure!(now == said, "statuses were written by whoever does not lead: {said:?}\n{now:?}");
    ensure!(leader(&fleet)? != halted, "it took the lease back");
    let log = fleet.running[halted].log();
    let after = log.get(before..).unwrap_or_default();
    ensure!(!after.contains(r#""reason":"Restored""#), "{after}");
    Ok(())
}
