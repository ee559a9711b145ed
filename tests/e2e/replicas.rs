//! Two replicas behind a balancer: a guard is `Enforcing` only when both judge by it, whatever one of
//! them hears late, and through every API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use driftguard::api::DriftGuard;
use driftguard_control_plane::guardian::{Process, Program, Signal};
use driftguard_control_plane::{Backend, Balancer, ControlPlane, Output, User, Version, free_port, until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::installation::{DRIFTGUARD, LIMIT, Via, config_map, driftguard, hash_of, unchanged};

/// How long a condition must stay as it is to count as held back; a guard is enforced in a fraction.
const HELD: Duration = Duration::from_secs(2);

/// A TCP proxy whose traffic can be held up, in both directions, without closing anything.
struct Valve {
    port: u16,
    open: watch::Sender<bool>,
    runtime: tokio::runtime::Runtime,
}

impl Valve {
    fn before(address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?)))?;
        let (port, open) = (listener.local_addr()?.port(), watch::Sender::new(true));
        let gate = open.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let gate = gate.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(address).await else { return };
                    let ((from, to), (back, answer)) = (client.into_split(), server.into_split());
                    tokio::select! {
                        () = pass(from, answer, gate.subscribe()) => {}
                        () = pass(back, to, gate.subscribe()) => {}
                    }
                });
            }
        });
        Ok(Self { port, open, runtime })
    }

    fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Replicas of one installation.
struct Replicas {
    plane: ControlPlane,
    admin: User,
    balancer: Balancer,
    programs: Vec<Program>,
    running: Vec<Process>,
    /// Between the second replica and its API server.
    valve: Valve,
}

const NAMES: [&str; 2] = ["replica-a", "replica-b"];

impl Replicas {
    fn start(via: Via) -> Result<Self> {
        let plane = ControlPlane::builder().kubernetes(Version::Newest).start()?;
        let admin = plane.admin()?;
        let balancer = Balancer::start(Vec::new())?;
        let port = balancer.port();
        let url = format!("https://127.0.0.1:{port}");
        let (installed, reach) = match via {
            Via::Url => (format!("--url={url}"), ["--webhook-url".to_owned(), url]),
            Via::Service => (
                format!("--external-name={port}"),
                ["--webhook-service".to_owned(), format!("terrafusion-system/driftguard-webhook:{port}")],
            ),
        };
        driftguard(&admin, &["install", "--dev", &installed])?.success()?;
        let operator = plane.service_account("terrafusion-system", "driftguard-operator")?;
        let address = plane.api_server().address().to_owned();
        let valve = Valve::before(address.trim_start_matches("https://").parse()?)?;
        let config = std::fs::read_to_string(operator.kubeconfig())?;
        let through_valve = plane.folder().join("through-valve.kubeconfig");
        std::fs::write(
            &through_valve,
            config.replace(&address, &format!("https://127.0.0.1:{}", valve.port)),
        )?;
        let mut programs = Vec::new();
        let mut backends = Vec::new();
        for (name, kubeconfig) in NAMES.into_iter().zip([operator.kubeconfig(), through_valve.as_path()]) {
            let (port, health) = (free_port()?, free_port()?);
            backends.push(Backend {
                address: format!("127.0.0.1:{port}").parse()?,
                readyz: format!("http://127.0.0.1:{health}/readyz"),
            });
            let program = Program::new(name, DRIFTGUARD)
                .args(["serve".to_owned(), format!("--replica-name={name}")])
                .args(reach.clone())
                .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
                .arg(format!("--kubeconfig={}", kubeconfig.display()));
            programs.push(program);
        }
        balancer.set_backends(backends);
        let mut replicas = Self { plane, admin, balancer, programs, running: Vec::new(), valve };
        // One after the other, so that it is known which one writes.
        for count in 1..=NAMES.len() {
            replicas.running.push(replicas.plane.guardian().start(&replicas.programs[count - 1])?);
            replicas.wait_ready(count)?;
        }
        Ok(replicas)
    }

    fn wait_ready(&self, count: usize) -> Result<()> {
        let waited = self.balancer.wait_ready(count, LIMIT);
        waited.map_err(|error| anyhow!("{error:#}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        self.running.iter().map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    fn apply(&self, manifest: &Value) -> Result<()> {
        self.admin.kubectl_with(&["apply", "-f", "-"], manifest.to_string())?.success().map(drop)
    }

    fn enforcing(&self, guard: &str) -> Result<Value> {
        let guard = self.admin.kubectl(&["get", "dg", guard, "-o", "json"])?.json()?;
        let conditions = guard["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let enforcing = conditions.into_iter().find(|condition| condition["type"] == "Enforcing");
        let enforcing = enforcing.context("no condition Enforcing yet")?;
        ensure!(enforcing["observedGeneration"] == guard["metadata"]["generation"], "not of this generation");
        Ok(enforcing)
    }

    fn wait_enforcing(&self, guard: &str) -> Result<()> {
        until(&format!("{guard} is enforced"), LIMIT, || {
            let enforcing = self.enforcing(guard)?;
            ensure!(enforcing["status"] == "True", "{enforcing}");
            Ok(())
        })
        .map_err(|error| anyhow!("{error:#}\n{}", self.logs()))
    }

    /// Waits until the guard waits for the second replica, and looks for a while whether it goes on to.
    fn held_back_by_b(&self, guard: &str) -> Result<()> {
        let held = || {
            let enforcing = self.enforcing(guard)?;
            let is_held = enforcing["status"] == "False"
                && enforcing["reason"] == "ReplicasPending"
                && enforcing["message"].as_str().is_some_and(|said| said.contains("replica-b"));
            ensure!(is_held, "{enforcing}");
            Ok(())
        };
        until("the guard waits for replica-b", LIMIT, held)
            .map_err(|error| anyhow!("{error:#}\n{}", self.logs()))?;
        let since = Instant::now();
        until("some time has passed", LIMIT, || {
            held().map_err(|error| error.context("it waits no more"))?;
            ensure!(since.elapsed() >= HELD, "{:?}", since.elapsed());
            Ok(())
        })
    }

    fn patch(&self, name: &str, price: &str) -> Result<Output> {
        let patch = json!({"data": {"price": price}}).to_string();
        self.admin.kubectl(&["patch", "configmap", name, "--type=merge", "-p", &patch])
    }

    /// Runs what must not change a ConfigMap, to the resourceVersion.
    fn unchanged<T>(&self, name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        unchanged(&self.admin, "default", &format!("configmap/{name}"), act)
    }

    /// Tries another price, which must be refused by the guard of that name.
    fn refuses(&self, name: &str, price: &str) -> Result<()> {
        let said = self.unchanged(name, || self.patch(name, price)?.failure())?;
        ensure!(said.contains(&format!("DriftGuard default/{name}")), "{said}");
        Ok(())
    }
}

fn guard(name: &str, price: &str) -> Result<Value> {
    let hash = hash_of(&config_map("default", name, &json!({"price": price})))?;
    Ok(json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"targetKind": "ConfigMap", "targetName": name, "expectedHash": hash},
    }))
}

#[test]
fn case_49_a_guard_is_not_enforcing_while_a_replica_has_not_heard_of_it() -> Result<()> {
    let replicas = Replicas::start(Via::Url)?;
    replicas.apply(&config_map("default", "late", &json!({"price": "1"})))?;
    replicas.valve.set_open(false);
    replicas.apply(&guard("late", "1")?)?;
    replicas.held_back_by_b("late")?;
    replicas.valve.set_open(true);
    replicas.wait_enforcing("late")?;
    for _ in 0..8 {
        replicas.refuses("late", "2")?;
    }

    // Now the same rules, and another hash: nothing is registered anew, so that only what the replica
    // has applied tells.
    replicas.valve.set_open(false);
    replicas.apply(&guard("late", "2")?)?;
    replicas.held_back_by_b("late")?;
    replicas.valve.set_open(true);
    replicas.wait_enforcing("late")?;
    for _ in 0..8 {
        replicas.patch("late", "2")?.success()?;
        replicas.refuses("late", "1")?;
    }
    Ok(())
}

#[test]
fn case_49_the_first_edit_after_enforcing_is_refused_and_that_comes_soon() -> Result<()> {
    let replicas = Replicas::start(Via::Service)?;
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let name = format!("round-{round}");
        replicas.apply(&config_map("default", &name, &json!({"price": "1"})))?;
        let since = Instant::now();
        replicas.apply(&guard(&name, "1")?)?;
        replicas.wait_enforcing(&name)?;
        slowest = slowest.max(since.elapsed());
        for price in ["2", "3"] {
            replicas.refuses(&name, price)?;
        }
    }
    println!("slowest from apply to Enforcing, seen by kubectl: {slowest:?}");
    ensure!(slowest < Duration::from_secs(10), "{slowest:?}");
    Ok(())
}

/// Writes at once, so that connections to both replicas are needed; gives what each was told.
fn at_once(write: impl Fn(usize) -> Result<Output> + Sync) -> Result<Vec<Output>> {
    let write = &write;
    std::thread::scope(|scope| {
        let writes: Vec<_> = (0..8).map(|number| scope.spawn(move || write(number))).collect();
        writes.into_iter().map(|write| write.join().map_err(|_| anyhow!("a write panicked"))?).collect()
    })
}

/// Edits at once, all of which must be refused.
fn edit_at_once(replicas: &Replicas, name: &str) -> Result<Vec<String>> {
    replicas.unchanged(name, || {
        let edits = at_once(|number| replicas.patch(name, &format!("9{number}")))?;
        edits.into_iter().map(Output::failure).collect()
    })
}

#[test]
fn case_49_a_replica_that_has_not_heard_of_a_guard_lets_nothing_pass() -> Result<()> {
    let replicas = Replicas::start(Via::Service)?;
    for name in ["early", "late"] {
        replicas.apply(&config_map("default", name, &json!({"price": "1"})))?;
    }
    replicas.apply(&guard("early", "1")?)?;
    replicas.wait_enforcing("early")?;
    // From now on the API server has connections to both, and keeps them whether they are ready or not.
    edit_at_once(&replicas, "early")?;
    replicas.valve.set_open(false);
    // The one that is cut off cannot ask for the author's rights, and takes no guard.
    let late = guard("late", "1")?.to_string();
    let made = at_once(|_| replicas.admin.kubectl_with(&["create", "-f", "-"], late.clone()))?;
    ensure!(made.iter().filter(|made| made.succeeded()).count() == 1, "{made:?}");
    until("the rules are registered", LIMIT, || {
        let get = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "json"];
        let rules = replicas.admin.kubectl(&get)?.success()?;
        ensure!(rules.contains("default:late"), "not yet");
        Ok(())
    })?;
    // It is asked, and can read nothing, so that it refuses.
    until("the other replica was asked, too", LIMIT, || {
        let said = edit_at_once(&replicas, "late")?;
        for one in &said {
            let is_ours = one.contains("DriftGuard default/late") || one.contains("DriftGuard cannot tell");
            ensure!(is_ours, "{one}");
        }
        ensure!(said.iter().any(|one| one.contains("DriftGuard cannot tell")), "{said:?}");
        Ok(())
    })
    .map_err(|error| anyhow!("{error:#}\n{}", replicas.logs()))?;
    replicas.valve.set_open(true);
    replicas.wait_enforcing("late")?;
    for one in edit_at_once(&replicas, "late")? {
        ensure!(one.contains("DriftGuard default/late"), "{one}");
    }
    let live = replicas.admin.kubectl(&["get", "configmap", "late", "-o", "json"])?.json()?;
    ensure!(live["data"] == json!({"price": "1"}), "{live}");
    Ok(())
}

/// Writes another price, and gives what is stored when it passes. What is neither passed nor refused by us is
/// an error.
async fn write(targets: &Api<ConfigMap>, name: &str, price: usize) -> Result<Option<ConfigMap>> {
    let patch = Patch::Merge(json!({"data": {"price": price.to_string()}}));
    match targets.patch(name, &PatchParams::default(), &patch).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("DriftGuard ") => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[test]
fn case_49_an_edit_right_after_its_guard_was_made_is_judged_or_comes_before_the_rules() -> Result<()> {
    let replicas = Replicas::start(Via::Service)?;
    let client = replicas.admin.client()?;
    let targets: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let guards: Api<DriftGuard> = Api::namespaced(client, "default");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for round in 0..10 {
        let name = format!("quick-{round}");
        replicas.apply(&config_map("default", &name, &json!({"price": "1"})))?;
        let guard: DriftGuard = serde_json::from_value(guard(&name, "1")?)?;
        runtime
            .block_on(async {
                guards.create(&PostParams::default(), &guard).await?;
                let since = Instant::now();
                let (mut price, mut refused, mut is_enforcing) = (10, false, false);
                let mut stored = targets.get(&name).await?;
                loop {
                    // The first one at once: nothing is waited for but the answer that the guard was made.
                    price += 1;
                    let written = write(&targets, &name, price).await?;
                    let passed = written.is_some();
                    stored = written.unwrap_or(stored);
                    ensure!(
                        !(passed && is_enforcing),
                        "{name}: price {price} passed although it is enforced"
                    );
                    ensure!(!(passed && refused), "{name}: price {price} passed after another was refused");
                    refused |= !passed;
                    if is_enforcing {
                        ensure!(targets.get(&name).await? == stored, "{name}: what was refused was stored");
                        return Ok(());
                    }
                    ensure!(since.elapsed() < LIMIT, "{name} is not enforced");
                    is_enforcing =
                        self::is_enforcing(&serde_json::to_value(guards.get(&name).await?)?["status"]);
                }
            })
            .map_err(|error| anyhow!("{error:#}\n{}", replicas.logs()))?;
    }
    Ok(())
}

#[test]
fn a_killed_replica_holds_guards_back_only_until_its_lease_runs_out() -> Result<()> {
    let replicas = Replicas::start(Via::Service)?;
    let leases = || {
        let labelled = "-l=driftguard.terrafusion.ai/replica";
        let listed = ["get", "leases", "-n", "terrafusion-system", labelled, "-o", "name"];
        Ok::<_, anyhow::Error>(replicas.admin.kubectl(&listed)?.success()?.lines().count())
    };
    ensure!(leases()? == 2, "each replica has a lease of its own");
    replicas.apply(&config_map("default", "kept", &json!({"price": "1"})))?;
    replicas.apply(&guard("kept", "1")?)?;
    replicas.wait_enforcing("kept")?;
    replicas.running[1].signal(Signal::Kill)?;
    replicas.running[1].wait(LIMIT)?;
    // At once: refused by us or for want of an answer, never stored. Looked at once for all, since what comes
    // next must come before the lease of the killed one runs out.
    replicas.unchanged("kept", || {
        (2..5).try_for_each(|price| replicas.patch("kept", &price.to_string())?.failure().map(drop))
    })?;
    replicas.apply(&guard("kept", "2")?)?;
    replicas.held_back_by_b("kept")?;
    replicas.wait_enforcing("kept")?;
    replicas.wait_ready(1)?;
    replicas.patch("kept", "2")?.success()?;

    // One that is asked to stop is waited for no longer than it answers.
    let again = replicas.plane.guardian().start(&replicas.programs[1])?;
    replicas.wait_ready(2)?;
    ensure!(leases()? == 3, "the killed one's lease is still there");
    again.signal(Signal::Terminate)?;
    ensure!(again.wait(LIMIT)? == 0, "{}", again.log_tail());
    ensure!(leases()? == 2, "it has removed its lease");
    Ok(())
}

#[test]
fn case_34_a_guard_is_enforced_through_every_api_server() -> Result<()> {
    let plane = ControlPlane::builder().kubernetes(Version::Newest).api_servers(2).start()?;
    let admins = [plane.admin()?, plane.user_at(&plane.api_servers()[1], "other", &["system:masters"])?];
    let (port, health) = (free_port()?, free_port()?);
    let url = format!("https://127.0.0.1:{port}");
    driftguard(&admins[0], &["install", "--dev", &format!("--url={url}")])?.success()?;
    let operator = plane.service_account("terrafusion-system", "driftguard-operator")?;
    let valve = Valve::before(plane.api_servers()[1].address().trim_start_matches("https://").parse()?)?;
    let program = Program::new("driftguard", DRIFTGUARD)
        .args(["serve".to_owned(), "--webhook-url".to_owned(), url])
        .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
        .arg(format!("--api-server-endpoint={}", plane.api_servers()[0].address()))
        .arg(format!("--api-server-endpoint=https://127.0.0.1:{}", valve.port))
        .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
    let serve = plane.guardian().start(&program)?;
    let status = |name: &str, wanted: &str| {
        until(&format!("Enforcing of {name} is {wanted}"), LIMIT, || {
            let path = r#"jsonpath={.status.conditions[?(@.type=="Enforcing")].status}"#;
            let seen = admins[0].kubectl(&["get", "dg", name, "-o", path])?.success()?;
            ensure!(seen == wanted, "{seen:?}");
            Ok(())
        })
        .map_err(|error| anyhow!("{error:#}\n{}", serve.log_tail()))
    };
    for round in 0..5 {
        let name = format!("round-{round}");
        let target = config_map("default", &name, &json!({"price": "1"}));
        admins[0].kubectl_with(&["apply", "-f", "-"], target.to_string())?.success()?;
        // The other API server is asked through the valve: a proof by the first one alone is none.
        let is_held = round == 0;
        valve.set_open(!is_held);
        admins[0].kubectl_with(&["apply", "-f", "-"], guard(&name, "1")?.to_string())?.success()?;
        if is_held {
            status(&name, "Unknown")?;
            valve.set_open(true);
        }
        status(&name, "True")?;
        for admin in admins.iter().rev() {
            let patch = ["patch", "configmap", &name, "--type=merge", "-p", r#"{"data":{"price":"2"}}"#];
            let target = format!("configmap/{name}");
            let said = unchanged(admin, "default", &target, || admin.kubectl(&patch)?.failure())?;
            ensure!(said.contains("DriftGuard default/round"), "{said}");
        }
    }
    drop(valve.runtime);
    Ok(())
}

/// The status of a guard.
fn status_of(replicas: &Replicas, guard: &str) -> Result<Value> {
    Ok(replicas.admin.kubectl(&["get", "dg", guard, "-o", "json"])?.json()?["status"].clone())
}

fn wait_status(
    replicas: &Replicas,
    guard: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value> {
    until(&format!("{guard}: {what}"), LIMIT, || {
        let status = status_of(replicas, guard)?;
        ensure!(holds(&status), "{status}");
        Ok(status)
    })
    .map_err(|error| anyhow!("{error:#}\n{}", replicas.logs()))
}

fn is_enforcing(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Enforcing" && condition["status"] == "True")
}

fn is_denying(status: &Value) -> bool {
    status["enforcement"] == "Deny" && is_enforcing(status)
}

/// Puts this into the status of a guard, as somebody who may write statuses.
fn forge(replicas: &Replicas, guard: &str, noted: &Value) -> Result<()> {
    let patch = json!({"status": {"enforceAfterClean": noted}}).to_string();
    let arguments = ["patch", "dg", guard, "--subresource=status", "--type=merge", "-p", &patch];
    replicas.admin.kubectl(&arguments)?.success().map(drop)
}

#[test]
fn an_exception_is_active_and_ended_only_once_every_replica_has_heard_of_it() -> Result<()> {
    let replicas = Replicas::start(Via::Url)?;
    replicas.apply(&config_map("default", "paused", &json!({"price": "1"})))?;
    replicas.apply(&guard("paused", "1")?)?;
    replicas.wait_enforcing("paused")?;
    let condition = |kind: &str, name: &str, of_type: &str| {
        let object = replicas.admin.kubectl(&["get", kind, name, "-o", "json"])?.json()?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|one| one["type"] == of_type).context("no such condition yet")
    };
    // Waits until it is so, and looks for a while whether it stays.
    let held = |what: &str, holds: &dyn Fn() -> Result<()>| -> Result<()> {
        until(what, LIMIT, holds).map_err(|error| anyhow!("{error:#}\n{}", replicas.logs()))?;
        let since = Instant::now();
        until("some time has passed", LIMIT, || {
            holds().map_err(|error| error.context("it is so no more"))?;
            ensure!(since.elapsed() >= HELD, "{:?}", since.elapsed());
            Ok(())
        })
    };
    let until_is = |what: &str, kind: &str, name: &str, of_type: &str, status: &str| {
        until(what, LIMIT, || {
            let found = condition(kind, name, of_type)?;
            ensure!(found["status"] == status, "{found}");
            Ok(())
        })
        .map_err(|error| anyhow!("{error:#}\n{}", replicas.logs()))
    };
    let until_moment = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10)).to_string();
    replicas.valve.set_open(false);
    replicas.apply(&json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": "incident", "namespace": "default"},
        "spec": {"guards": {"names": ["paused"]}, "until": until_moment, "reason": "incident 7"},
    }))?;
    held("it waits for replica-b", &|| {
        let active = condition("driftguardexception", "incident", "Active")?;
        let said = active["message"].as_str().unwrap_or_default();
        ensure!(active["status"] == "False" && said.contains("replica-b"), "{active}");
        Ok(())
    })?;
    replicas.valve.set_open(true);
    until_is("it is active", "driftguardexception", "incident", "Active", "True")?;
    for price in 2..10 {
        replicas.patch("paused", &price.to_string())?.success()?;
    }
    replicas.valve.set_open(false);
    replicas.admin.kubectl(&["delete", "driftguardexception", "incident"])?.success()?;
    held("the guard goes on saying that writes pass", &|| {
        let suspended = condition("dg", "paused", "Suspended")?;
        ensure!(suspended["status"] == "True", "{suspended}");
        Ok(())
    })?;
    replicas.valve.set_open(true);
    until_is("no write passes", "dg", "paused", "Suspended", "False")?;
    for price in 20..28 {
        replicas.patch("paused", &price.to_string())?.failure()?;
    }
    Ok(())
}

#[test]
fn a_replica_that_starts_waits_for_the_key_that_a_living_one_holds() -> Result<()> {
    let replicas = Replicas::start(Via::Url)?;
    let secret = ["driftguard-signing", "-n", "terrafusion-system"];
    let key = || {
        let path = [&["get", "secret"], &secret[..], &["-o", "jsonpath={.data.key}"]].concat();
        replicas.admin.kubectl(&path)?.success()
    };
    let before = key()?;
    replicas.running[1].signal(Signal::Terminate)?;
    replicas.running[1].wait(LIMIT)?;
    replicas.admin.kubectl(&[&["delete", "secret"], &secret[..]].concat())?.success()?;
    let again = replicas.plane.guardian().start(&replicas.programs[1])?;
    replicas.wait_ready(2)?;
    until("the key is back", LIMIT, || {
        ensure!(key()? == before, "another key");
        Ok(())
    })
    .map_err(|error| anyhow!("{error:#}\n{}\n{}", replicas.logs(), again.log_tail()))?;
    // Somebody puts another key there: each replica that held the former one says so.
    replicas.admin.kubectl(&[&["delete", "secret"], &secret[..]].concat())?.success()?;
    let other = format!("--from-literal=key={}", "k".repeat(32));
    let made = replicas
        .admin
        .kubectl(&[&["create", "secret", "generic"], &secret[..], &[other.as_str()]].concat())?;
    // Whoever lives may have been faster, which is as good.
    if made.succeeded() {
        until("the change is recorded", LIMIT, || {
            let log = again.log();
            ensure!(log.contains(r#""reason":"SigningKeyReplaced""#), "not yet");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_audit_guard_becomes_deny_once_nothing_would_have_been_refused_for_a_while() -> Result<()> {
    let mut replicas = Replicas::start(Via::Service)?;
    // Made by `serve` itself where it signs authors; whoever is first wins.
    let namespace = "--namespace=terrafusion-system";
    let secret = ["create", "secret", "generic", "driftguard-signing", namespace];
    let key = format!("--from-literal=key={}", "k".repeat(32));
    let made = replicas.admin.kubectl(&[&secret[..], &[key.as_str()]].concat())?;
    ensure!(made.succeeded() || made.stderr.contains("already exists"), "{made}");

    let audit = |name: &str, after: &str| {
        let mut guard = guard(name, "1")?;
        guard["spec"]["enforcement"] = json!("Audit");
        guard["spec"]["enforceAfterClean"] = json!(after);
        Ok::<_, anyhow::Error>(guard)
    };
    for name in ["clean", "forged"] {
        replicas.apply(&config_map("default", name, &json!({"price": "1"})))?;
    }
    replicas.apply(&audit("clean", "5s")?)?;
    let first = wait_status(&replicas, "clean", "it is known since when it is clean", |status| {
        status["enforceAfterClean"]["cleanSince"].is_string()
    })?;
    // Somebody goes on writing what is not approved for longer than the guard asks to be clean.
    let (since, mut price) = (Instant::now(), 10);
    until("somebody has written for a while", LIMIT, || {
        price += 1;
        replicas.patch("clean", &price.to_string())?.success()?;
        ensure!(since.elapsed() > Duration::from_secs(8), "{:?}", since.elapsed());
        Ok(())
    })?;
    let dirty = status_of(&replicas, "clean")?;
    ensure!(dirty["enforcement"] == "Audit", "{dirty}");
    ensure!(dirty["enforceAfterClean"]["promotedAt"].is_null(), "{dirty}");
    ensure!(dirty["enforceAfterClean"]["cleanSince"] != first["enforceAfterClean"]["cleanSince"], "{dirty}");

    let promoted = wait_status(&replicas, "clean", "it denies", is_denying)?;
    replicas.refuses("clean", "99")?;
    let log: String = replicas.running.iter().map(Process::log).collect();
    let records = log.lines().filter(|line| line.contains(r#""kind":"promotion""#)).count();
    ensure!(records == 1, "{records} records of the promotion");

    // What another guard was given, or anybody made up, counts for nothing.
    replicas.apply(&audit("forged", "72h")?)?;
    wait_status(&replicas, "forged", "it is known", |status| status["enforceAfterClean"].is_object())?;
    let copied = promoted["enforceAfterClean"].clone();
    let old = "2020-01-01T00:00:00Z";
    let made_up = json!({"cleanSince": old, "promotedAt": old, "signature": "0".repeat(64)});
    for noted in [copied, made_up] {
        forge(&replicas, "forged", &noted)?;
        wait_status(&replicas, "forged", "what was forged is written over", |status| {
            status["enforceAfterClean"]["signature"] != noted["signature"]
        })?;
        let status = status_of(&replicas, "forged")?;
        ensure!(status["enforcement"] == "Audit", "{status}");
        ensure!(status["enforceAfterClean"]["promotedAt"].is_null(), "{status}");
        replicas.patch("forged", "2")?.success()?;
    }

    // It outlives every replica, and a change of the spec ends it.
    for process in &replicas.running {
        process.signal(Signal::Terminate)?;
    }
    for process in &replicas.running {
        process.wait(LIMIT)?;
    }
    let start = |program: &Program| replicas.plane.guardian().start(program);
    replicas.running = replicas.programs.iter().map(start).collect::<Result<_>>()?;
    replicas.wait_ready(2)?;
    let after = wait_status(&replicas, "clean", "it still denies", is_denying)?;
    ensure!(after["enforceAfterClean"] == promoted["enforceAfterClean"], "{after}");
    replicas.refuses("clean", "100")?;
    let mut changed = audit("clean", "72h")?;
    changed["spec"]["maxFailuresBeforeAlert"] = json!(7);
    replicas.apply(&changed)?;
    wait_status(&replicas, "clean", "it lets pass again", |status| {
        status["enforcement"] == "Audit" && status["enforceAfterClean"]["promotedAt"].is_null()
    })?;
    until("a write passes", LIMIT, || replicas.patch("clean", "101")?.success().map(drop))
}
