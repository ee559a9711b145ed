//! Alerts of the real program reach a receiver that is down, and outlive the program itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, Version, free_port, until};
use serde_json::{Value, json};

use crate::auditing::{REMEDIATION, wait_for, wait_for_repair, wait_until_long_enforced, write_into_etcd};
use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

/// A receiver of alerts that answers with the status it is told.
#[derive(Clone)]
pub(crate) struct Receiver {
    status: Arc<AtomicU16>,
    got: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Receiver {
    pub(crate) fn start(status: u16) -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}/alerts", listener.local_addr()?);
        let receiver = Self { status: Arc::new(AtomicU16::new(status)), got: Arc::default() };
        let serving = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let one = serving.clone();
                std::thread::spawn(move || one.serve(&stream));
            }
        });
        Ok((receiver, address))
    }

    /// Answers one connection until it ends.
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                ensure!(reader.read_line(&mut line)? > 0, "closed");
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(bytes) = line.strip_prefix("content-length: ") {
                    length = bytes.parse()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let status = self.status.load(Ordering::Relaxed);
            self.got
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((status, serde_json::from_slice(&body)?));
            write!(&mut &*stream, "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n")?;
        }
    }

    /// All bodies that arrived, whatever they were answered.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.iter().map(|(_, body)| body.clone()).collect()
    }

    /// Reasons of what has arrived about guards of a namespace, in this state.
    pub(crate) fn reasons(&self, namespace: &str, state: &str) -> Vec<String> {
        let of = |event: &&Value| event["data"]["guard"]["namespace"] == namespace;
        let reason = |event: &Value| event["data"]["reason"].as_str().unwrap_or_default().to_owned();
        self.of(204, state).iter().filter(of).map(reason).collect()
    }

    /// What was answered with `status`, of those in this state.
    pub(crate) fn of(&self, status: u16, state: &str) -> Vec<Value> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let these =
            got.iter().filter(|(answered, event)| *answered == status && event["data"]["state"] == state);
        these.map(|(_, event)| event.clone()).collect()
    }
}

/// An installation whose alerts arrive, and that takes what takes ten minutes within seconds.
pub(crate) struct Alerted {
    pub(crate) on: Installation,
    pub(crate) receiver: Receiver,
}

impl Alerted {
    /// On a control plane of its own.
    pub(crate) fn start() -> Result<Self> {
        let (receiver, url) = Receiver::start(204)?;
        let flags = [
            format!("--alert-url={url}"),
            "--alert-allow-http".to_owned(),
            "--audit-interval=30s".to_owned(),
            "--apply-grace=15s".to_owned(),
        ];
        let plane = ControlPlane::builder().kubernetes(Version::Newest).start()?;
        let on = Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
        on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
        Ok(Self { on, receiver })
    }

    /// The one that tests share. More than ten guards that drift within five minutes would be an incident of
    /// its cluster; those that drift under a pause or await an apply do not count.
    pub(crate) fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Alerted, String>> = OnceLock::new();
        let start = || Self::start().map_err(|error| format!("{error:#}"));
        SHARED.get_or_init(start).as_ref().map_err(|error| anyhow!("{error}"))
    }
}

#[test]
fn what_bypassed_admission_or_is_missing_is_told_at_once_although_it_is_put_back() -> Result<()> {
    let Alerted { on, receiver } = Alerted::shared()?;
    let ns = |name: &str| format!("told-{name}");
    let data = json!({"limit": "1000"});
    let all = ["bypassed", "missing", "immutable"];
    for name in all {
        let ns = on.namespace(&ns(name))?;
        let mut settings = config_map(&ns, "settings", &data);
        settings["immutable"] = json!(name == "immutable");
        on.apply(&settings)?.success()?;
        let hash = hash_of(&settings)?;
        on.pin(&ns, "configmap/settings", &hash, &json!({"autoRemediate": true}))?;
    }
    for name in all {
        wait_for(on, &ns(name), "settings-guard", "Drifted", "False", "InSync")?;
        wait_until_long_enforced(on, &ns(name), "settings-guard")?;
    }
    for name in ["bypassed", "immutable"] {
        write_into_etcd(on, &format!("/registry/configmaps/{}/settings", ns(name)), "1000", "9999")?;
    }
    on.admin.kubectl(&["delete", "configmap/settings", "-n", &ns("missing")])?.success()?;
    // What is deleted in order to be made again is not missing.
    for (name, reason) in
        [("bypassed", "BypassedAdmission"), ("missing", "Missing"), ("immutable", "BypassedAdmission")]
    {
        wait_for_repair(on, &ns(name), "settings-guard")?;
        until(&format!("{name} is told"), LIMIT, || {
            let told = receiver.reasons(&ns(name), "firing");
            ensure!(told == [reason], "{told:?}\n{}", on.serve.log_tail());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_alert_outlives_a_receiver_that_is_down_and_a_program_that_is_killed() -> Result<()> {
    let (receiver, url) = Receiver::start(503)?;
    let spool = tempfile::tempdir()?;
    let flags = [
        format!("--alert-url={url}"),
        "--alert-allow-http".to_owned(),
        format!("--spool-dir={}", spool.path().display()),
        "--audit-interval=30s".to_owned(),
    ];
    let plane = ControlPlane::builder().kubernetes(Version::Newest).start()?;
    let mut on = Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    let namespace = on.namespace("alerting")?;
    on.apply(&config_map(&namespace, "settings", &json!({"limit": "1000"})))?.success()?;
    let guard = on.pin_live(&namespace, "configmap/settings")?;
    wait_for(&on, &namespace, &guard, "Drifted", "False", "InSync")?;
    wait_until_long_enforced(&on, &namespace, &guard)?;
    let key = format!("/registry/configmaps/{namespace}/settings");
    write_into_etcd(&on, &key, "1000", "9999")?;
    until("the alert was tried and waits", LIMIT, || {
        let metrics = on.health("/metrics")?;
        let is_spooled = metrics.contains(r#"driftguard_spool_events{destination="alerts"} 1"#);
        ensure!(is_spooled, "{metrics}\n{}", on.serve.log_tail());
        ensure!(!receiver.of(503, "firing").is_empty(), "it was not tried");
        Ok(())
    })?;
    until("an Event tells the alert", LIMIT, || {
        let events = ["get", "events.events.k8s.io", "-n", &namespace, "-o", "json"];
        let events: Value = serde_json::from_str(&on.admin.kubectl(&events)?.success()?)?;
        let mut all = events["items"].as_array().into_iter().flatten();
        let alert = all.find(|event| event["reason"] == "AlertBypassedAdmission");
        let alert = alert.with_context(|| format!("there is none in {events}"))?;
        ensure!(alert["regarding"]["name"] == guard.as_str(), "{alert}");
        ensure!(alert["related"]["name"] == "settings", "{alert}");
        Ok(())
    })?;

    on.serve.signal(Signal::Kill)?;
    on.serve.wait(LIMIT)?;
    receiver.status.store(204, Ordering::Relaxed);
    on.start_again()?;
    let firing = until("the alert arrives after all", LIMIT, || {
        receiver.of(204, "firing").into_iter().next().context("nothing arrived")
    })?;
    ensure!(firing["type"] == "ai.terrafusion.driftguard.drift.v1", "{firing}");
    ensure!(firing["data"]["reason"] == "BypassedAdmission", "{firing}");
    ensure!(firing["data"]["guard"]["name"] == guard.as_str(), "{firing}");
    ensure!(firing["data"]["paths"] == json!(["/data/limit"]), "{firing}");
    ensure!(!firing.to_string().contains("9999"), "a value is told: {firing}");

    write_into_etcd(&on, &key, "9999", "1000")?;
    let resolved = until("its end arrives", LIMIT * 2, || {
        let ends = receiver.of(204, "resolved");
        ends.into_iter().next().with_context(|| format!("nothing arrived: {}", on.serve.log_tail()))
    })?;
    ensure!(resolved["data"]["episode"] == firing["data"]["episode"], "{firing} {resolved}");
    let once = receiver.of(204, "firing");
    ensure!(once.iter().filter(|event| event["id"] == firing["id"]).count() == 1, "{once:?}");
    until("the spool is empty", LIMIT, || {
        let left = std::fs::read_dir(spool.path().join("alerts"))?.count();
        ensure!(left == 1, "{left} files are left, of which one is the lock");
        Ok(())
    })?;
    Ok(())
}
