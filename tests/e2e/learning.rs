//! Guards that are proposed from what really changes, on a real installation.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{Output, User, until};
use serde_json::json;

use crate::auditing::{auditing, wait_for};
use crate::installation::{DRIFTGUARD, Installation, LIMIT, config_map, deployment, driftguard, gama_config};

/// What a Secret holds, in clear and as it is stored.
const VALUES: [&str; 4] = ["geheim-eins", "Z2VoZWltLWVpbnM=", "geheim-zwei", "Z2VoZWltLXp3ZWk="];

/// A `driftguard learn` that watches.
struct Learning {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Learning {
    /// Returns once it says that it watches.
    fn start(user: &User, arguments: &[&str]) -> Result<(Self, String)> {
        let mut child = Command::new(DRIFTGUARD)
            .args([&["learn"], arguments].concat())
            .env("KUBECONFIG", user.kubeconfig())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut told = String::new();
        while !told.contains("watching ") {
            ensure!(said.read_line(&mut told)? > 0, "it ended: {told}");
        }
        Ok((Self { child, said }, told))
    }

    /// Asks it to end, and gives what it wrote. Ctrl-C would be another signal, which tests that run behind others may
    /// have been told to ignore.
    fn end(mut self) -> Result<Output> {
        let id = self.child.id().to_string();
        ensure!(
            Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status()?.success(),
            "no such process"
        );
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().context("no stdout")?.read_to_string(&mut stdout)?;
        self.said.read_to_string(&mut stderr)?;
        let code = self.child.wait()?.code();
        Ok(Output { command: "driftguard learn".to_owned(), code, stdout, stderr })
    }
}

fn patched(
    on: &Installation,
    ns: &str,
    object: &str,
    manager: &str,
    patch: &serde_json::Value,
) -> Result<Output> {
    let manager = format!("--field-manager={manager}");
    on.admin.kubectl(&["patch", object, "-n", ns, "--type=merge", &manager, "-p", &patch.to_string()])
}

fn scaled(on: &Installation, ns: &str, replicas: u32) -> Result<Output> {
    let patch = json!({"spec": {"replicas": replicas}}).to_string();
    let scale = ["patch", "deployment/web", "-n", ns, "--subresource=scale", "--type=merge"];
    on.admin.kubectl(&[&scale[..], &["--field-manager=autoscaler", "-p", &patch]].concat())
}

#[test]
fn a_guard_that_was_learnt_lets_the_rival_pass_and_nobody_else() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("learn")?;
    for (name, data) in [
        ("settings", json!({"limit": "1000", "rate": "0", "region": "moon"})),
        ("steady", json!({"a": "1"})),
        ("counter", json!({"count": "0"})),
    ] {
        on.apply(&config_map(ns, name, &data))?.success()?;
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": ns},
        "stringData": {"password": VALUES[0], "nonce": VALUES[0], "user": VALUES[0]}});
    on.apply(&secret)?.success()?;
    on.apply(&deployment(ns, "web"))?.success()?;
    on.apply(&gama_config(ns, "never-named", &json!({"a": 1})))?.success()?;

    let kinds = ["configmaps,secrets", "deployments", "-n", ns, "--for", "10m"];
    let mut round = 0;
    // What it has seen shows in the end alone: another round where that was too soon.
    let learnt = until("it sees every write", LIMIT, || {
        round += 10;
        let (learning, _) = Learning::start(&on.admin, &kinds)?;
        for write in 1..=3 {
            let value = (round + write).to_string();
            patched(on, ns, "configmap/settings", "rate-bot", &json!({"data": {"rate": value}}))?
                .success()?;
            patched(on, ns, "configmap/counter", "counter-bot", &json!({"data": {"count": value}}))?
                .success()?;
        }
        let region = json!({"data": {"region": format!("mars{round}")}});
        patched(on, ns, "configmap/settings", "kubectl-edit", &region)?.success()?;
        let rotated = format!("{}-{round}", VALUES[2]);
        patched(on, ns, "secret/token", "rotator", &json!({"stringData": {"nonce": rotated}}))?.success()?;
        scaled(on, ns, round)?.success()?;
        on.admin
            .kubectl(&["label", "configmap/steady", "-n", ns, "--overwrite", &format!("seen=a{round}")])?
            .success()?;
        let learnt = learning.end()?;
        let comments: Vec<&str> = learnt.stdout.lines().filter(|line| line.starts_with('#')).collect();
        for line in [
            "# ConfigMap/learn/settings: /data/rate was written 3 times by rate-bot",
            "# ConfigMap/learn/settings: /data/region was written once by kubectl-edit, by which people write: it stays pinned",
            "# Secret/learn/token: /data/nonce was written once by rotator",
            "# Deployment/learn/web: /spec/replicas was written once by autoscaler (scale)",
        ] {
            let in_namespace = line.replace("/learn/", &format!("/{ns}/"));
            ensure!(comments.contains(&in_namespace.as_str()), "no {in_namespace} in {learnt}");
        }
        Ok(learnt)
    })?;
    ensure!(learnt.code == Some(0), "{learnt}");
    let comments: Vec<&str> = learnt.stdout.lines().filter(|line| line.starts_with('#')).collect();
    let counter = format!("# - ConfigMap/{ns}/counter: 1 of 1 values changed in 3 writes");
    ensure!(comments.iter().any(|line| line.starts_with(&counter)), "{learnt}");
    ensure!(
        !learnt.stdout.contains("targetName: counter") && !learnt.stdout.contains("never-named"),
        "{learnt}"
    );
    for value in VALUES {
        ensure!(
            !learnt.stdout.contains(value) && !learnt.stderr.contains(value),
            "a value of the Secret is shown"
        );
    }

    for kind in ["secrets", "deployments.apps"] {
        let rights = driftguard(&on.admin, &["manifests", "rbac", "--for", kind, "--in", ns])?.success()?;
        on.admin.kubectl_with(&["apply", "-f", "-"], rights)?.success()?;
    }
    on.admin.kubectl_with(&["apply", "-n", ns, "-f", "-"], learnt.stdout.clone())?.success()?;
    for guard in ["settings-guard", "steady-guard", "token-guard", "web-guard"] {
        wait_for(on, ns, guard, "Drifted", "False", "InSync")?;
        on.wait_enforcing(ns, guard)?;
    }
    patched(on, ns, "configmap/settings", "rate-bot", &json!({"data": {"rate": "77"}}))?.success()?;
    scaled(on, ns, 7)?.success()?;
    patched(on, ns, "secret/token", "rotator", &json!({"stringData": {"nonce": "next"}}))?.success()?;
    on.refused(ns, "configmap/settings", || {
        patched(on, ns, "configmap/settings", "rate-bot", &json!({"data": {"limit": "2000"}}))
    })?;
    on.refused(ns, "configmap/settings", || {
        patched(on, ns, "configmap/settings", "kubectl-edit", &json!({"data": {"region": "venus"}}))
    })?;
    on.refused(ns, "secret/token", || {
        patched(on, ns, "secret/token", "rotator", &json!({"stringData": {"password": "other"}}))
    })?;
    on.refused(ns, "configmap/steady", || {
        patched(on, ns, "configmap/steady", "kubectl", &json!({"data": {"a": "2"}}))
    })?;
    wait_for(on, ns, "settings-guard", "Drifted", "False", "InSync")?;

    // What has a guard gets no other one.
    let (learning, _) = Learning::start(&on.admin, &["configmap/settings", "-n", ns])?;
    let again = learning.end()?;
    ensure!(again.code == Some(0) && !again.stdout.contains("kind: DriftGuard"), "{again}");
    ensure!(again.stdout.contains(&format!("DriftGuard {ns}/settings-guard pins it already")), "{again}");
    Ok(())
}

#[test]
fn what_may_not_be_watched_is_told_and_the_others_are_learnt() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("learn-half")?;
    on.apply(&config_map(ns, "settings", &json!({"limit": "1000"})))?.success()?;
    let reader = on.plane.user("learn-half-reader", &[])?;
    on.apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reader", "namespace": ns},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]}))?
        .success()?;
    let bind = ["create", "rolebinding", "reader", "--role=reader", "--user=learn-half-reader", "-n", ns];
    on.admin.kubectl(&bind)?.success()?;
    let half = until("the role is known", LIMIT, || {
        let half = driftguard(&reader, &["learn", "-n", ns, "--for", "1s", "configmaps", "secrets"])?;
        ensure!(half.stdout.contains("targetName: settings"), "{half}");
        Ok(half)
    })?;
    ensure!(half.code == Some(2), "{half}");
    let refused = format!("secrets in namespace {ns}: secrets is forbidden");
    ensure!(half.stderr.contains(&refused), "{half}");
    let none = driftguard(&reader, &["learn", "-n", ns, "--for", "1s", "secrets"])?;
    ensure!(none.code == Some(2) && none.stderr.contains("nothing could be watched: "), "{none}");
    let empty = driftguard(&on.admin, &["learn", "-n", ns, "--for", "1s", "secrets"])?;
    ensure!(empty.code == Some(2) && empty.stderr.contains("there was no object to watch"), "{empty}");
    Ok(())
}
