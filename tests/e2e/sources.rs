//! Sources of truth on a real API server: on whose behalf they are read, and that what is made of them is
//! what the API server stores.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftguard::api::DriftGuardSpec;
use driftguard::cert::authority::certificates;
use driftguard::control::access::Subject;
use driftguard::core::audit::candidate::{Candidate, Form, candidates};
use driftguard::core::canonical::hash_object;
use driftguard::core::guard::{
    Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, Target, Versions,
};
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard::sources::address::AddressPolicy;
use driftguard::sources::{
    Outcome, ServiceUrl, Settings, SourceReport, SourceResult, Sources, Verified, Verify,
};
use driftguard::telemetry::metrics::Metrics;
use driftguard_control_plane::{ControlPlane, free_port, until};
use serde_json::{Value, json};

use crate::auditing::{REMEDIATION, wait_for, write_into_etcd};
use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

/// The API servers' name of the account that `serve` runs as, with the rights that `install` gave it.
const OPERATOR: &str = "system:serviceaccount:terrafusion-system:driftguard-operator";

fn on() -> Result<&'static Installation> {
    Installation::shared(Via::Url)
}

fn target(namespace: &str, group: &str, kind: &str) -> Target {
    Target {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        resource: format!("{}s", kind.to_lowercase()).as_str().into(),
        namespace: Some(namespace.into()),
        name: "x".into(),
    }
}

fn guard(namespace: &str, group: &str, kind: &str, approved: &Value) -> Result<Guard> {
    let scope = Scope::new(group, kind, PathFilter::everything());
    Ok(Guard {
        id: GuardId { namespace: namespace.into(), name: "g".into() },
        uid: "u-1".into(),
        generation: 1,
        target: target(namespace, group, kind),
        expected: hash_object(approved.to_string().as_bytes(), &scope)?,
        scope,
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    })
}

fn spec(source: &Value) -> Result<DriftGuardSpec> {
    let mut spec = json!({"targetKind": "ConfigMap", "targetName": "x", "expectedHash": "a".repeat(64)});
    spec["sourceOfTruthRef"] = source.clone();
    Ok(serde_json::from_value(spec)?)
}

struct ByHash<'a>(&'a Guard);

impl Verify for ByHash<'_> {
    async fn verify(&self, candidate: &Candidate) -> Verified {
        let is = candidate.hash == self.0.expected;
        if is { Verified::Matched } else { Verified::Mismatch("its content is another one".to_owned()) }
    }
}

/// Sources as `serve` reads them, with the rights that it has.
fn sources(on: &Installation, settings: Settings, authorities: &str) -> Result<Sources> {
    let operator = on.plane.service_account("terrafusion-system", "driftguard-operator")?;
    let authorities = certificates(authorities.as_bytes()).unwrap_or_default();
    let metrics = Arc::new(Metrics::default());
    Ok(Sources::new(operator.client()?, settings, Arc::new(move || authorities.clone()), metrics))
}

fn role(on: &Installation, namespace: &str, user: &str, resource: &str, name: &str) -> Result<String> {
    let role = format!("{}-{name}", resource.replace('/', "-"));
    let (resource, named) = (format!("--resource={resource}"), format!("--resource-name={name}"));
    on.admin
        .kubectl(&["create", "role", &role, "--verb=get", &resource, &named, "-n", namespace])?
        .success()?;
    bind(on, namespace, &role, &format!("{role}-of-author"), &format!("--user={user}"))?;
    Ok(role)
}

fn bind(on: &Installation, namespace: &str, role: &str, binding: &str, to: &str) -> Result<()> {
    let role = format!("--role={role}");
    on.admin.kubectl(&["create", "rolebinding", binding, &role, to, "-n", namespace])?.success().map(drop)
}

/// A server of one answer by https, with the authority of its certificate.
struct Web {
    _runtime: tokio::runtime::Runtime,
    port: u16,
    authority: String,
}

impl Web {
    fn start(answer: &'static str) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        // Somebody in this process may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let pem = certificate.clone().into_bytes();
        let config =
            runtime.block_on(axum_server::tls_rustls::RustlsConfig::from_pem(pem, key.into_bytes()))?;
        let elsewhere =
            || async { axum::response::Redirect::temporary("http://169.254.169.254/latest/meta-data/") };
        let app = axum::Router::new()
            .route("/approved", axum::routing::get(move || async move { answer }))
            .route("/elsewhere", axum::routing::get(elsewhere));
        let server = {
            let _entered = runtime.enter();
            axum_server::from_tcp_rustls(listener, config)?
        };
        runtime.spawn(server.serve(app.into_make_service()));
        Ok(Self { _runtime: runtime, port, authority: certificate })
    }
}

/// A repository with one commit of one file.
fn repository(folder: &Path, file: &str, content: &str) -> Result<String> {
    std::fs::write(folder.join(file), content)?;
    let me = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"];
    for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "approved"]] {
        let done = Command::new("git")
            .args(me)
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .status()?;
        ensure!(done.success(), "git {arguments:?}");
    }
    Ok(format!("file://{}/.git", folder.display()))
}

#[test]
fn case_41_every_kind_of_source_is_read_only_while_the_author_may_read_it() -> Result<()> {
    let (on, team, other) = (on()?, "sources-team", "sources-other");
    on.namespace(team)?;
    on.namespace(other)?;
    let user = "ada";
    let data = json!({"price": "100"});
    let manifest = config_map(team, "x", &data).to_string();
    let folder = tempfile::tempdir()?;
    let url = repository(folder.path(), "x.json", &manifest)?;
    let web = Web::start(r#"{"data": {"price": "100"}}"#)?;
    on.apply(&config_map(other, "approved", &data))?.success()?;
    for (name, key, value) in
        [("documents", "x.yaml", manifest.as_str()), ("repository", "url", url.as_str())]
    {
        on.apply(
            &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": other},
            "stringData": {key: value}}),
        )?
        .success()?;
    }
    let mut settings = Settings {
        addresses: AddressPolicy::new(vec!["127.0.0.0/8".parse()?, "::1".parse()?]),
        service_urls: vec![ServiceUrl {
            namespace: other.to_owned(),
            name: "web".to_owned(),
            url: format!("https://localhost:{}", web.port).parse()?,
        }],
        ..Settings::default()
    };
    settings.git.allow_file = true;
    settings.git.folder = tempfile::tempdir()?.keep();
    let sources = sources(on, settings, &web.authority)?;
    let guard = guard(team, "", "ConfigMap", &config_map(team, "x", &data))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let author = Subject { user: user.to_owned(), ..Subject::default() };
    let ask = |source: &Value| -> Result<Outcome> {
        let spec = spec(source)?;
        Ok(runtime.block_on(sources.approved(&guard, &spec, Some(&author), &ByHash(&guard))))
    };
    let first = |source: &Value| -> Result<SourceReport> {
        ask(source)?.reports.into_iter().next().context("no report")
    };
    let kinds = [
        (json!({"kind": "configmap", "name": "approved"}), "configmaps", "approved"),
        (json!({"kind": "secret", "name": "documents", "path": "x.yaml"}), "secrets", "documents"),
        (json!({"kind": "service", "name": "web", "path": "/approved"}), "services/proxy", "web"),
        (json!({"kind": "git", "name": "repository", "path": "x.json"}), "secrets", "repository"),
    ];
    for (mut source, resource, name) in kinds {
        source["namespace"] = json!(other);
        let refused = first(&source)?;
        ensure!(refused.reason == "AuthorLacksRights", "{refused:?}");
        ensure!(
            refused.sentence.contains(&format!("get {resource} {name} in namespace {other}")),
            "{refused:?}"
        );
        let role = role(on, other, user, resource, name)?;
        if resource == "secrets" {
            // The operator itself has no right to Secrets but where it is given one, as the report says.
            let forbidden = until("the author may read it", LIMIT, || {
                let report = first(&source)?;
                ensure!(report.reason == "RightsMissing", "{report:?}");
                Ok(report)
            })?;
            ensure!(forbidden.result == SourceResult::Forbidden, "{forbidden:?}");
            bind(on, other, &role, &format!("{role}-of-operator"), &format!("--user={OPERATOR}"))?;
        }
        let outcome = until("it is read", LIMIT, || {
            let outcome = ask(&source)?;
            ensure!(outcome.found.is_some(), "{:?}", outcome.reports);
            Ok(outcome)
        })?;
        let (candidate, from) = outcome.found.context("nothing found")?;
        ensure!(candidate.hash == guard.expected && from.contains(name), "{from}");
        on.admin.kubectl(&["delete", "rolebinding", &format!("{role}-of-author"), "-n", other])?.success()?;
        let revoked = until("the right is gone", LIMIT, || {
            let report = first(&source)?;
            ensure!(report.result == SourceResult::Forbidden, "{report:?}");
            Ok(report)
        })?;
        ensure!(revoked == refused, "{revoked:?}");
    }
    // It reads the same when there is nothing to be read.
    let missing = first(&json!({"kind": "configmap", "namespace": other, "name": "approved"}))?;
    on.admin.kubectl(&["delete", "configmap", "approved", "-n", other])?.success()?;
    ensure!(first(&json!({"kind": "configmap", "namespace": other, "name": "approved"}))? == missing);
    Ok(())
}

#[test]
fn a_service_tells_by_labels_and_ports_how_it_is_called() -> Result<()> {
    let (on, ns) = (on()?, "sources-service");
    on.namespace(ns)?;
    on.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": ns},
        "spec": {"ports": [{"name": "https", "port": 8443}]}}))?
        .success()?;
    // Nobody answers here under names of the cluster; that it was looked up tells that the Service was read.
    let sources = sources(on, Settings::default(), "")?;
    let guard = guard(ns, "", "ConfigMap", &json!({"data": {}}))?;
    let author =
        Subject { user: "admin".to_owned(), groups: vec!["system:masters".to_owned()], ..Subject::default() };
    let runtime = tokio::runtime::Runtime::new()?;
    for (name, reason) in [("web", "Unreachable"), ("absent", "NotFound")] {
        let spec = spec(&json!({"kind": "service", "name": name}))?;
        let outcome = runtime.block_on(sources.approved(&guard, &spec, Some(&author), &ByHash(&guard)));
        ensure!(outcome.reports[0].reason == reason, "{:?}", outcome.reports);
        ensure!(outcome.found.is_none());
    }
    Ok(())
}

#[test]
fn what_is_made_of_a_source_is_what_the_api_server_stores() -> Result<()> {
    let (on, ns) = (on()?, "sources-stored");
    on.namespace(ns)?;
    let binary = STANDARD.encode([0xff, 0, 1]);
    let parameters =
        r#"{"rate": 1.50, "big": 9007199254740993, "small": 1e-7, "list": [null, {}, []], "text": "\u00e4"}"#;
    let map = json!({"data": {"a": "1", "empty": ""}, "binaryData": {"b": binary}}).to_string();
    let secret = json!({"data": {"a": STANDARD.encode("1"), "b": binary}}).to_string();
    for (document, form, group, kind) in [
        (map.as_str(), Form::Document, "", "ConfigMap"),
        (&map, Form::ConfigMap, "", "ConfigMap"),
        (&map, Form::ConfigMap, "", "Secret"),
        (&secret, Form::Secret, "", "Secret"),
        (&secret, Form::Secret, "", "ConfigMap"),
        (r#"{"a": "text", "b": null}"#, Form::Document, "", "Secret"),
        (
            r#"{"apiVersion": "v1", "kind": "Secret", "data": {"a": "MQ=="}, "stringData": {"a": "2"}}"#,
            Form::Document,
            "",
            "Secret",
        ),
        (parameters, Form::Document, "terrafusion.ai", "GAMAConfig"),
        (&map, Form::Document, "terrafusion.ai", "GAMAConfig"),
    ] {
        let target = target(ns, group, kind);
        let scope = Scope::new(group, kind, PathFilter::everything());
        for candidate in candidates(document.as_bytes(), form, &target, &scope)? {
            let word = format!("{}/x", kind.to_lowercase());
            on.admin.kubectl_with(&["create", "-f", "-"], candidate.object)?.success()?;
            let path = target.url_path();
            let stored = on.admin.kubectl(&["get", "--raw", &path])?.success()?;
            ensure!(hash_object(stored.as_bytes(), &scope)? == candidate.hash, "{form:?} {kind}: {stored}");
            on.admin.kubectl(&["delete", &word, "-n", ns])?.success()?;
        }
    }
    Ok(())
}

#[test]
fn cases_43_57_and_58_lying_and_lost_sources_change_nothing_and_what_was_seen_live_is_put_back() -> Result<()>
{
    let ns = "sources-auditor";
    let web = Web::start(r#"{"data": {"price": "666"}}"#)?;
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, &web.authority)?;
    let flags = [
        "--log-level=info".to_owned(),
        "--allow-source-address=127.0.0.0/8".to_owned(),
        "--allow-source-address=::1".to_owned(),
        format!("--service-ca-file={}", authority.display()),
        format!("--service-url={ns}/web=https://localhost:{}", web.port),
        format!("--service-url={ns}/metadata=http://169.254.169.254/latest/meta-data"),
    ];
    let plane = ControlPlane::builder().start()?;
    let on = Installation::start_on(plane, free_port()?, Via::Url, &flags)?;
    on.admin.kubectl(&["apply", "-f", REMEDIATION])?.success()?;
    on.namespace(ns)?;
    on.apply(&config_map(ns, "liar", &json!({"price": "999"})))?.success()?;
    // Not applied: the annotation of an apply holds the content as well, before the data.
    let settings = config_map(ns, "settings", &json!({"price": "one hundred"}));
    on.admin.kubectl_with(&["create", "-f", "-"], settings.to_string())?.success()?;
    let hash = hash_of(&on.get(ns, "configmap/settings")?)?;
    let guard = on.pin(
        ns,
        "configmap/settings",
        &hash,
        &json!({
            "autoRemediate": true,
            "sourceOfTruthRef": {"kind": "service", "name": "metadata", "path": "/a"},
            "fallbackSourceRefs": [
                {"kind": "service", "name": "web", "path": "/elsewhere"},
                {"kind": "service", "name": "web", "path": "/approved"},
                {"kind": "configmap", "name": "liar"},
                {"kind": "configmap", "name": "lost"},
            ],
        }),
    )?;
    wait_for(&on, ns, &guard, "Drifted", "False", "InSync")?;
    write_into_etcd(&on, &format!("/registry/configmaps/{ns}/settings"), "one hundred", "six hundred")?;
    let status = until("it is put back", LIMIT, || {
        let seen = on.get(ns, "configmap/settings")?;
        ensure!(seen["data"]["price"] == "one hundred", "it holds {}\n{}", seen["data"], on.serve.log_tail());
        let status = on.get(ns, &format!("dg/{guard}"))?["status"].clone();
        ensure!(status["lastRemediation"]["result"] == "Restored", "{status}");
        Ok(status)
    })?;
    let sources = status["sources"].as_array().context("no sources are told")?;
    let told: Vec<&str> = sources.iter().filter_map(|source| source["result"].as_str()).collect();
    let wanted = ["Forbidden", "Forbidden", "Mismatch", "Mismatch", "Unavailable", "Matched"];
    ensure!(told == wanted, "{sources:#?}");
    let messages: Vec<&str> = sources.iter().filter_map(|source| source["message"].as_str()).collect();
    ensure!(messages[0].contains("169.254.169.254 is a link-local address"), "{messages:#?}");
    ensure!(messages[1].contains("redirects to http://169.254.169.254"), "{messages:#?}");
    ensure!(status["lastRemediation"]["source"] == "last known good", "{status}");
    // The trail keeps it when the status says something else by and by.
    let log = on.serve.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let record = lines.find(|line| line["kind"] == "remediation").context("the attempt is not recorded")?;
    let of = |field: &str| -> Vec<String> {
        let all = record["sources"].as_array().into_iter().flatten();
        all.map(|one| one[field].as_str().unwrap_or_default().to_lowercase()).collect()
    };
    ensure!(of("result") == wanted.map(str::to_lowercase), "{record}");
    ensure!(of("message") == messages.iter().map(|one| one.to_lowercase()).collect::<Vec<_>>(), "{record}");
    Ok(())
}
