//! Clients that mean harm, against the real program: it answers, stays alive and small, and goes on judging.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use driftguard::cert::{authority, crypto_provider};
use driftguard_control_plane::{ControlPlane, Version, free_port, until};
use futures::future::join_all;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::registered;
use crate::installation::{Installation, LIMIT, Via, config_map, deployment, hash_of};

/// Most memory that `serve` may ever have held, stated in SECURITY.md.
const MOST_MEMORY_MIB: u64 = 400;
/// Connections of each kind that are opened and never used as they should be.
const STALLED: usize = 50;
const IDLE: usize = 1000;
/// Bodies beyond the limit, and large ones within it, at once.
const LARGE: usize = 12;
/// What is approved, and in no answer to anybody who did not send it.
const APPROVED: &str = "approved-4711";

/// How a client reaches the webhook.
#[derive(Clone)]
struct Webhook {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Webhook {
    fn of(on: &Installation) -> Result<Self> {
        Self::shown_to(on, None)
    }

    /// For a client that shows a certificate.
    fn shown_to(on: &Installation, client: Option<&Client>) -> Result<Self> {
        let path = "jsonpath={.webhooks[0].clientConfig.url}";
        let arguments = ["get", "validatingwebhookconfiguration", "driftguard", "-o", path];
        let url = on.admin.kubectl(&arguments)?.success()?;
        let address = url.split('/').nth(2).context("no address")?.parse()?;
        let mut roots = RootCertStore::empty();
        for certificate in authority::certificates(&BASE64.decode(registered(&on.admin)?)?)? {
            roots.add(certificate)?;
        }
        let config = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(client) => config.with_client_auth_cert(
                vec![client.certificate.der().clone()],
                PrivateKeyDer::Pkcs8(client.key.serialize_der().into()),
            )?,
        };
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        Ok(self.connector.connect("127.0.0.1".try_into()?, stream).await?)
    }

    /// Sends these bytes on a connection of their own, and gives all that comes back.
    async fn raw(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect().await?;
        stream.write_all(bytes).await?;
        read_all(stream).await
    }

    /// Status and body of the answer to a POST.
    async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<(u16, String)> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answer = self.raw(&request).await?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {answer:?}"))?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    async fn ask(&self, path: &str, review: &Value) -> Result<(u16, String)> {
        self.post(path, "application/json", review.to_string().as_bytes()).await
    }
}

/// A client certificate with its key.
struct Client {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Client {
    fn named(name: &str, authority: &CertifiedIssuer<'_, KeyPair>) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.signed_by(&key, authority)?, key })
    }

    /// The files by which an API server shows this certificate to webhooks at `port`; gives the flag.
    fn configure(&self, folder: &std::path::Path, port: u16) -> Result<String> {
        let kubeconfig = folder.join("webhooks.kubeconfig");
        let user = json!({
            "client-certificate-data": BASE64.encode(self.certificate.pem()),
            "client-key-data": BASE64.encode(self.key.serialize_pem()),
        });
        let users = json!([{"name": format!("127.0.0.1:{port}"), "user": user}]);
        std::fs::write(
            &kubeconfig,
            json!({"apiVersion": "v1", "kind": "Config", "users": users}).to_string(),
        )?;
        let plugin = |name: &str| {
            json!({"name": name, "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
                "kubeConfigFile": kubeconfig,
            }})
        };
        let admission = folder.join("admission.yaml");
        std::fs::write(
            &admission,
            json!({
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
                "plugins": [plugin("ValidatingAdmissionWebhook"), plugin("MutatingAdmissionWebhook")],
            })
            .to_string(),
        )?;
        Ok(format!("--admission-control-config-file={}", admission.display()))
    }
}

/// All that comes until the peer closes; a reset ends it, too.
async fn read_all(mut stream: impl tokio::io::AsyncRead + Unpin) -> Result<String> {
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(LIMIT, reading).await.context("it was never answered")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A forged review of a ConfigMap.
fn forged(namespace: &str, name: &str, uid: &str, old: &Value, new: &Value) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid, "name": name, "namespace": namespace, "operation": "UPDATE",
            "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "userInfo": {"username": "mallory"}, "object": new, "oldObject": old,
        }
    })
}

/// Sends what is no proper review of `namespace/market`, which is guarded, and looks at each answer.
async fn send_malformed(hook: &Webhook, namespace: &str) -> Result<()> {
    let object = |price: &str| config_map(namespace, "market", &json!({"price": price}));
    let whole = forged(namespace, "market", "u-1", &object(APPROVED), &object("999"));
    let without = |field: &str| {
        let mut review = whole.clone();
        if let Some(request) = review["request"].as_object_mut() {
            request.remove(field);
        }
        review.to_string()
    };
    let both_null = forged(namespace, "market", "u-1", &Value::Null, &Value::Null).to_string();
    let mut unknown = whole.clone();
    unknown["request"]["operation"] = "EXPLODE".into();
    let text = whole.to_string();
    let truncated = text[..text.len() * 2 / 3].to_owned();
    // In the order of an API server, the uid comes first.
    let truncated = truncated.replace(r#""request":{"#, r#""request":{"uid":"u-1","#);
    let path = "/validate/g1/fail?timeout=5s";
    for (what, content_type, body) in [
        ("another content type", "text/html", text.clone()),
        ("no content type", "", text.clone()),
        ("no object", "application/json", without("object")),
        ("both null", "application/json", both_null),
        ("unknown operation", "application/json", unknown.to_string()),
        ("cut off", "application/json", truncated),
    ] {
        let (status, answer) = hook.post(path, content_type, body.as_bytes()).await?;
        if status == 200 {
            let answer: Value = serde_json::from_str(&answer)?;
            ensure!(answer["response"]["uid"] == "u-1", "{what}: {answer}");
            ensure!(answer["response"]["allowed"] == false, "{what}: {answer}");
        } else {
            ensure!((400..500).contains(&status), "{what}: {status} {answer}");
        }
    }
    for body in ["", "{", "null", "[]", "\u{0}\u{1}", "{\"request\":{}}", "{\"request\":{\"uid\":7}}"] {
        let (status, answer) = hook.post(path, "application/json", body.as_bytes()).await?;
        ensure!((400..500).contains(&status), "{body:?}: {status} {answer}");
    }
    let garbage = hook.raw(b"\x00\xff\xfe\x01 not http\r\n\r\n").await?;
    ensure!(!garbage.contains(" 200 "), "{garbage}");
    let mut plain = TcpStream::connect(hook.address).await?;
    plain
        .write_all(b"POST /validate/g1/fail HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        .await?;
    let plain = read_all(plain).await?;
    ensure!(!plain.contains("HTTP/1.1 200"), "{plain}");
    Ok(())
}

/// Opens connections that never finish what they begin.
async fn stall(hook: &Webhook) -> Result<(Vec<TcpStream>, Vec<TlsStream<TcpStream>>)> {
    let mut raw = Vec::new();
    for _ in 0..STALLED {
        let mut stream = TcpStream::connect(hook.address).await?;
        // The beginning of a TLS record that promises 512 bytes.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await?;
        raw.push(stream);
    }
    let mut open = Vec::new();
    for number in 0..IDLE + 2 * STALLED {
        let mut stream = hook.connect().await.with_context(|| format!("connection {number}"))?;
        if number < STALLED {
            stream.write_all(b"POST /validate/g1/fail HTTP/1.1\r\nHost: localhost\r\nX-More: ").await?;
        } else if number < 2 * STALLED {
            let head =
                b"POST /validate/g1/fail HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n{";
            stream.write_all(head).await?;
        }
        open.push(stream);
    }
    Ok((raw, open))
}

/// Sends large bodies at once; gives how many were answered by a review.
async fn send_large(hook: &Webhook, namespace: &str) -> Result<usize> {
    let send = |number: usize| async move {
        let uid = format!("big-{number}");
        let size = if number.is_multiple_of(2) { 25 << 20 } else { 20 << 20 };
        let body = format!(
            r#"{{"kind":"AdmissionReview","request":{{"uid":"{uid}","operation":"UPDATE","name":"market","namespace":"{namespace}",
               "resource":{{"group":"","version":"v1","resource":"configmaps"}},"kind":{{"group":"","version":"v1","kind":"ConfigMap"}},"userInfo":{{"username":"mallory"}},
               "object":{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"market","namespace":"{namespace}"}},"data":{{"a":"{}"}}}}}}}}"#,
            "x".repeat(size)
        );
        let (status, answer) =
            hook.post("/validate/g1/fail?timeout=10s", "application/json", body.as_bytes()).await?;
        if status != 200 {
            ensure!([408, 413, 503].contains(&status), "{uid}: {status} {answer}");
            return Ok(0);
        }
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(
            answer["response"]["uid"] == uid.as_str() && answer["response"]["allowed"] == false,
            "{answer}"
        );
        anyhow::Ok(1)
    };
    Ok(join_all((0..LARGE).map(send)).await.into_iter().collect::<Result<Vec<_>>>()?.into_iter().sum())
}

/// The most memory that the process has held, in MiB.
fn most_memory(on: &Installation) -> Result<u64> {
    let pid = on.serve.pid().context("serve has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// One write that must be refused and one that must pass.
fn write_honestly(on: &Installation, namespace: &str) -> Result<()> {
    let patch = |price: &str, dry: &str| {
        let patch = json!({"data": {"price": price}}).to_string();
        on.admin.kubectl(&["patch", "cm/market", "-n", namespace, "--type=merge", "-p", &patch, dry])
    };
    let said = on.refused(namespace, "cm/market", || patch("999", "--dry-run=none"))?;
    ensure!(said.contains("denied the request: DriftGuard "), "{said}");
    patch(APPROVED, "--dry-run=server")?.success()?;
    Ok(())
}

fn guarded(on: &Installation, namespace: &str, mode: &str) -> Result<()> {
    on.namespace(namespace)?;
    let target = config_map(namespace, "market", &json!({"price": APPROVED}));
    on.apply(&target)?.success()?;
    on.pin(namespace, "configmap/market", &hash_of(&target)?, &json!({"enforcement": mode})).map(drop)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

#[test]
fn hostile_clients_neither_stop_serve_nor_make_it_large() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    guarded(&on, "siege", "Deny")?;
    let hook = Webhook::of(&on)?;
    let before = most_memory(&on)?;
    let runtime = runtime()?;
    let attack = {
        let hook = hook.clone();
        runtime.spawn(async move {
            let stalled = stall(&hook).await?;
            let answered = send_large(&hook, "siege").await?;
            send_malformed(&hook, "siege").await?;
            anyhow::Ok((stalled, answered))
        })
    };
    let mut rounds = 0;
    let began = Instant::now();
    while !attack.is_finished() || rounds < 2 {
        write_honestly(&on, "siege").with_context(|| format!("after {:?}", began.elapsed()))?;
        rounds += 1;
    }
    let (stalled, answered) = runtime.block_on(attack)??;
    write_honestly(&on, "siege")?;
    ensure!(answered > 0, "no large review was answered as one");
    ensure!(on.serve.exit_code().is_none(), "serve has ended\n{}", on.serve.log_tail());
    on.health("/readyz")?;
    let memory = most_memory(&on)?;
    eprintln!(
        "memory: {before} MiB before, {memory} MiB at most; {rounds} rounds in {:?}; {answered} answered",
        began.elapsed()
    );
    ensure!(memory <= MOST_MEMORY_MIB, "it has held {memory} MiB");
    drop(stalled);
    Ok(())
}

#[test]
fn case_45_a_forged_review_tells_nothing_and_changes_nothing() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let namespace = "forgeries";
    guarded(on, namespace, "Rewrite")?;
    let hook = Webhook::of(on)?;
    let runtime = runtime()?;
    let object = |price: &str| config_map(namespace, "market", &json!({"price": price}));
    let stand = || {
        Ok::<_, anyhow::Error>((
            on.get(namespace, "cm/market")?,
            on.get(namespace, "dg/market-guard")?["spec"].clone(),
        ))
    };
    let before = stand()?;
    let forgeries = [
        forged(namespace, "market", "f-1", &object("1"), &object("2")),
        forged(namespace, "market", "f-2", &object("1"), &Value::Null),
        forged(namespace, "market", "f-3", &Value::Null, &object("2")),
        forged(namespace, "market", "f-4", &Value::Null, &Value::Null),
    ];
    for review in &forgeries {
        for path in ["/validate/g1/fail", "/mutate/g1/fail", "/validate/g1/ignore", "/mutate/g1/ignore"] {
            let (status, answer) = runtime.block_on(hook.ask(path, review))?;
            let decoded = serde_json::from_str::<Value>(&answer)
                .ok()
                .and_then(|answer| BASE64.decode(answer["response"]["patch"].as_str()?).ok());
            ensure!(decoded.is_none(), "{path} gave a patch: {decoded:?}");
            ensure!(!answer.contains(APPROVED), "{path}: {status} {answer}");
            let approved = hash_of(&object(APPROVED))?;
            ensure!(
                !answer.contains(&approved)
                    && !answer.contains(&approved["sha256:".len().min(approved.len())..]),
                "{path}: {answer}"
            );
        }
    }
    // Whoever holds what is approved gets back that, and nothing else.
    let holder = forged(namespace, "market", "f-5", &object(APPROVED), &object("2"));
    let (_, answer) = runtime.block_on(hook.ask("/mutate/g1/fail", &holder))?;
    let answer: Value = serde_json::from_str(&answer)?;
    let patch = BASE64.decode(answer["response"]["patch"].as_str().context("no patch")?)?;
    ensure!(String::from_utf8_lossy(&patch).contains(APPROVED), "{answer}");

    for _ in 0..200 {
        runtime.block_on(hook.ask("/validate/g1/fail", &forgeries[0]))?;
    }
    let records = on.records_of("market-guard", "market-guard")?;
    let of_us = |record: &&Value| record["guard"]["namespace"] == namespace;
    ensure!(
        records.iter().any(|record| of_us(&record) && record["user"]["name"] == "mallory"),
        "{records:?}"
    );
    ensure!(records.iter().filter(of_us).all(|record| record["authenticated"] == false), "{records:?}");
    until("an Event tells of it", LIMIT, || {
        let events =
            on.admin.kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", "json"])?.json()?;
        let denied: Vec<_> = events["items"]
            .as_array()
            .context("no list")?
            .iter()
            .filter(|event| event["reason"] == "WriteDenied")
            .collect();
        ensure!(!denied.is_empty(), "none yet");
        Ok(denied.len())
    })
    .and_then(|count| {
        // One for each content that was forged, and one for what could not be read.
        ensure!(count <= forgeries.len() + 1, "{count} Events for one guard");
        Ok(())
    })?;
    ensure!(stand()? == before, "a forged review has changed something");
    Ok(())
}

/// Reviews of every form about guarded objects, forged by somebody who knows their names alone.
fn forgeries_of_every_form(namespace: &str) -> Vec<Value> {
    let of = |resource: &str,
              group: &str,
              kind: &str,
              subresource: &str,
              operation: &str,
              old: Value,
              new: Value| {
        let mut review = forged(namespace, "market", "f", &old, &new);
        let request = &mut review["request"];
        request["operation"] = operation.into();
        request["resource"] = json!({"group": group, "version": "v1", "resource": resource});
        request["kind"] = json!({"group": group, "version": "v1", "kind": kind});
        if !subresource.is_empty() {
            request["subResource"] = subresource.into();
        }
        review
    };
    let meta = json!({"name": "market", "namespace": namespace});
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"price": BASE64.encode(value)}});
    let scale = |count: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": count}});
    let web = |count: u32| {
        let mut web = deployment(namespace, "market");
        web["spec"]["replicas"] = count.into();
        web
    };
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": {"name": "node-1"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta});
    vec![
        of("secrets", "", "Secret", "", "UPDATE", secret("1"), secret("2")),
        of("secrets", "", "Secret", "", "CREATE", Value::Null, secret("2")),
        of("secrets", "", "Secret", "", "DELETE", secret("1"), Value::Null),
        of("deployments", "apps", "Deployment", "", "UPDATE", web(1), web(2)),
        of("deployments", "apps", "Scale", "scale", "UPDATE", scale(1), scale(2)),
        of("pods", "", "Binding", "binding", "CREATE", Value::Null, binding),
        of("pods", "", "Eviction", "eviction", "CREATE", Value::Null, eviction),
        of(
            "driftguards",
            "terrafusion.ai",
            "DriftGuard",
            "",
            "UPDATE",
            json!({"metadata": meta}),
            json!({"metadata": meta}),
        ),
    ]
}

#[test]
fn case_45_no_form_of_a_forged_review_is_answered_with_what_was_not_sent() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let namespace = on.namespace("forms")?;
    let meta = json!({"name": "market", "namespace": namespace});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta,
        "data": {"price": BASE64.encode(APPROVED)}});
    let mut web = deployment(&namespace, "market");
    web["spec"]["replicas"] = 4711.into();
    let mut secrets = vec![APPROVED.to_owned(), BASE64.encode(APPROVED), "4711".to_owned()];
    for (object, target) in [(&secret, "secret/market"), (&web, "deployment/market")] {
        on.apply(object)?.success()?;
        let hash = hash_of(&on.get(&namespace, target)?)?;
        secrets.push(hash.trim_start_matches("sha256:").to_owned());
        let (kind, _) = target.split_once('/').context("no kind")?;
        on.apply(&json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": kind, "namespace": namespace},
            "spec": {"targetKind": kind, "targetName": "market", "expectedHash": hash}}))?
            .success()?;
        on.wait_enforcing(&namespace, kind)?;
    }
    // Of a Secret not even the hash of what was sent: it would stand in the records of who sent it.
    secrets.push(hash_of(
        &json!({"apiVersion": "v1", "kind": "Secret", "data": {"price": BASE64.encode("2")}}),
    )?);
    let stand = || -> Result<[Value; 4]> {
        let spec = |guard: &str| Ok::<_, anyhow::Error>(on.get(&namespace, guard)?["spec"].clone());
        let stored = |object: &str| on.get(&namespace, object);
        Ok([
            stored("secret/market")?,
            stored("deployment/market")?,
            spec("dg/secret")?,
            spec("dg/deployment")?,
        ])
    };
    let before = stand()?;
    let (hook, runtime) = (Webhook::of(on)?, runtime()?);
    for review in forgeries_of_every_form(&namespace) {
        for hook_and_policy in
            ["validate/g1/fail", "mutate/g1/fail", "validate/g1/ignore", "mutate/g1/ignore"]
        {
            for end in ["", "/driftguards"] {
                let path = format!("/{hook_and_policy}{end}");
                let (status, answer) = runtime.block_on(hook.ask(&path, &review))?;
                let patch = serde_json::from_str::<Value>(&answer)
                    .ok()
                    .and_then(|answer| BASE64.decode(answer["response"]["patch"].as_str()?).ok())
                    .map(|patch| String::from_utf8_lossy(&patch).into_owned())
                    .unwrap_or_default();
                for secret in &secrets {
                    let told = answer.contains(secret) || patch.contains(secret);
                    ensure!(!told, "{path} tells {secret} of {review}: {status} {answer} {patch}");
                }
            }
        }
    }
    ensure!(stand()? == before, "a forged review has changed something");
    let log = on.serve.log();
    let alarms = log.lines().filter(|line| line.contains(r#""level":"ERROR""#) && line.contains("mallory"));
    ensure!(alarms.count() == 0, "a forged review alarms\n{log}");
    let of_us = |line: &&str| line.contains("\"mallory\"") && line.contains("\"forms\"");
    ensure!(log.lines().filter(of_us).all(|line| line.contains(r#""authenticated":false"#)), "{log}");
    for secret in &secrets[..2] {
        ensure!(!log.contains(secret), "{secret} is logged");
    }
    Ok(())
}

#[test]
fn a_forged_review_of_a_guard_is_neither_signed_nor_answered() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let namespace = "forged-guards";
    guarded(on, namespace, "Deny")?;
    let hook = Webhook::of(on)?;
    let runtime = runtime()?;
    let guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "other", "namespace": namespace},
        "spec": {"targetKind": "ConfigMap", "targetName": "market", "expectedHash": hash_of(&config_map(namespace, "market", &json!({"price": "1"})))?},
    });
    let review = |operation: &str, user: &str, group: &str| {
        json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "f-1", "name": "other", "namespace": namespace, "operation": operation, "dryRun": true,
                "kind": {"group": "terrafusion.ai", "version": "v1", "kind": "DriftGuard"},
                "resource": {"group": "terrafusion.ai", "version": "v1", "resource": "driftguards"},
                "userInfo": {"username": user, "groups": [group]}, "object": guard,
                "oldObject": if operation == "UPDATE" { json!({"metadata": guard["metadata"], "spec": {}}) } else { Value::Null },
            }
        })
    };
    let known = |configuration: &str| -> Result<Vec<String>> {
        let paths = ["get", configuration, "driftguard", "-o", "jsonpath={.webhooks[*].clientConfig.url}"];
        let urls = on.admin.kubectl(&paths)?.success()?;
        let paths = urls.split(' ').filter(|url| url.contains("/driftguards"));
        Ok(paths.filter_map(|url| url.splitn(4, '/').nth(3).map(|path| format!("/{path}"))).collect())
    };
    let (gate, signing) = (known("validatingwebhookconfiguration")?, known("mutatingwebhookconfiguration")?);
    let token = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let guessed = "0".repeat(32);
    for review in [
        review("CREATE", "kubernetes-admin", "system:masters"),
        review("UPDATE", "kubernetes-admin", "system:masters"),
        review("CREATE", "eve", "nobody"),
        review("DELETE", "eve", "nobody"),
    ] {
        for path in ["/validate/g1/fail", "/validate/g1/ignore", "/mutate/g1/fail", "/mutate/g1/ignore"] {
            // The token of the gate stands in what is said when the gate does not answer.
            for suffix in [String::new(), format!("/{guessed}"), format!("/{}", token(&gate[0]))] {
                let path = format!("{path}/driftguards{suffix}");
                // It is good for the gate, and for nothing that signs.
                if path.starts_with("/validate/") && path.ends_with(&token(&gate[0])) {
                    continue;
                }
                let (status, answer) = runtime.block_on(hook.ask(&path, &review))?;
                ensure!((status, answer.as_str()) == (404, ""), "{path}: {status} {answer}");
            }
        }
    }
    // Who reads the configurations is an API server, or may as well be.
    let (status, answer) = runtime.block_on(hook.ask(&signing[0], &review("CREATE", "alice", "a")))?;
    ensure!(status == 200 && answer.contains("patch"), "{status} {answer}");
    let metrics = on.health("/metrics")?;
    ensure!(metrics.contains("UnknownToken"), "{metrics}");
    Ok(())
}

#[test]
fn api_servers_that_show_a_certificate_are_known_and_nobody_else_is_served() -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "webhook-clients");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let (server, other) =
        (Client::named("kube-apiserver", &authority)?, Client::named("front-proxy", &authority)?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("clients.crt");
    std::fs::write(&file, authority.pem())?;
    let port = free_port()?;
    let flag = server.configure(folder.path(), port)?;
    let plane = ControlPlane::builder().kubernetes(Version::Newest).api_server_flag(flag).start()?;
    let flags = [format!("--client-ca={}", file.display()), "--client-name=kube-apiserver".to_owned()];
    let on = Installation::start_on(plane, port, Via::Url, &flags)?;
    guarded(&on, "known", "Deny")?;
    write_honestly(&on, "known")?;
    let records = on.records_of("market-guard", "market-guard")?;
    ensure!(records.iter().all(|record| record["authenticated"] == true), "{records:?}");

    let object = |price: &str| config_map("known", "market", &json!({"price": price}));
    let review = forged("known", "market", "u", &object("1"), &object("2"));
    let runtime = runtime()?;
    let ask = |client: Option<&Client>| {
        let hook = Webhook::shown_to(&on, client)?;
        runtime.block_on(hook.ask("/validate/g1/fail", &review))
    };
    ensure!(ask(Some(&server))?.0 == 200, "the API server's certificate is not served");
    ensure!(ask(Some(&other)).is_err(), "another name is served");
    ensure!(ask(None).is_err(), "nobody in particular is served");
    Ok(())
}
