//! Ways to a cluster, as kubectl takes them, on a real API server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::live::{Cluster, cluster, driftguard_as};
use crate::run::{Live, Ran, command, run_with};

/// A line that needs no object to be there, and rights that everybody has to find out who that is.
const ASKS: [&str; 3] = ["hash", "namespace", "kube-system"];

fn driftguard(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = command(args);
    command.envs(environment.iter().copied());
    run_with(command, "")
}

/// The shared cluster, with a ServiceAccount that may read namespaces.
fn on() -> &'static Cluster {
    static READY: OnceLock<()> = OnceLock::new();
    let on = cluster();
    READY.get_or_init(|| {
        let account = "system:serviceaccount:connections:reader";
        let kubectl = |args: &[&str]| on.admin.kubectl(args).unwrap().success().unwrap();
        on.namespace("connections");
        kubectl(&["create", "serviceaccount", "reader", "-n", "connections"]);
        kubectl(&["create", "clusterrole", "connections", "--verb=get", "--resource=namespaces"]);
        let binding = ["create", "clusterrolebinding", "connections", "--clusterrole=connections"];
        kubectl(&[&binding[..], &["--serviceaccount=connections:reader"]].concat());
        until("the right is known", Duration::from_secs(60), || {
            on.admin.kubectl(&["auth", "can-i", "get", "namespaces", "--as", account])?.success()
        })
        .unwrap();
    });
    on
}

fn token(on: &Cluster) -> String {
    let made = on.admin.kubectl(&["create", "token", "reader", "-n", "connections"]).unwrap();
    made.success().unwrap().trim().to_owned()
}

/// A kubeconfig with this user, and more about the cluster.
fn kubeconfig(on: &Cluster, folder: &Path, user: &Value, more: &[(&str, &str)]) -> PathBuf {
    let mut cluster = json!({"server": on.plane.api_server().address()});
    cluster["certificate-authority-data"] = json!(base64(on.plane.authority()));
    for (key, value) in more {
        cluster[key] = json!(value);
    }
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    });
    let path = folder.join("config");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_context_is_found_in_whichever_kubeconfig_of_the_list_has_it() {
    let on = on();
    let folder = tempfile::tempdir().unwrap();
    let other = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "elsewhere",
        "clusters": [{"name": "elsewhere", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [], "contexts": [{"name": "elsewhere", "context": {"cluster": "elsewhere", "user": ""}}],
    });
    let first = folder.path().join("first");
    std::fs::write(&first, other.to_string()).unwrap();
    let list = format!("{}:{}", first.display(), on.admin.kubeconfig().display());
    let environment = [("KUBECONFIG", list.as_str())];
    let named = driftguard(&[&ASKS[..], &["--context", "administrator"]].concat(), &environment).success();
    assert!(named.ends_with("  Namespace/kube-system\n"), "{named}");
    let told = driftguard(&ASKS, &environment).failure();
    assert!(told.contains("127.0.0.1:1"), "the first file's context is the current one: {told}");
}

#[test]
fn whoever_may_impersonate_is_somebody_else() {
    let on = on();
    let kubeconfig = on.admin.kubeconfig().display().to_string();
    let environment = [("KUBECONFIG", kubeconfig.as_str())];
    let told = driftguard(&[&ASKS[..], &["--as", "nobody-known"]].concat(), &environment).failure();
    assert!(told.contains("User \"nobody-known\" cannot get resource \"namespaces\""), "{told}");
    let in_group = [&ASKS[..], &["--as", "nobody-known", "--as-group", "system:masters"]].concat();
    driftguard(&in_group, &environment).success();
}

#[test]
fn a_token_is_taken_from_the_command_line() {
    let on = on();
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(on, folder.path(), &json!({}), &[]).display().to_string();
    let environment = [("KUBECONFIG", config.as_str())];
    driftguard(&[&ASKS[..], &["--token", &token(on)]].concat(), &environment).success();
    let told = driftguard(&[&ASKS[..], &["--token", "wrong"]].concat(), &environment).failure();
    assert!(told.contains("does not accept these credentials") && !told.contains("wrong"), "{told}");
}

#[test]
fn a_credential_plugin_is_asked_for_a_token() {
    let on = on();
    let folder = tempfile::tempdir().unwrap();
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token(on)},
    });
    let exec = |command: &str, args: &[&str]| {
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": args,
            "interactiveMode": "Never",
        }})
    };
    let answer = credential.to_string();
    let config = kubeconfig(on, folder.path(), &exec("/bin/echo", &[&answer]), &[]).display().to_string();
    driftguard(&ASKS, &[("KUBECONFIG", config.as_str())]).success();
    let config = kubeconfig(on, folder.path(), &exec("no-such-plugin", &[]), &[]).display().to_string();
    let told = driftguard(&ASKS, &[("KUBECONFIG", config.as_str())]).failure();
    assert!(
        told.starts_with("error: the credential plugin no-such-plugin of the kubeconfig gives no"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// A proxy that tunnels, and what it was asked to connect to.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || tunnel(&client, &seen));
        }
    });
    (address, asked)
}

/// Serves one CONNECT.
fn tunnel(client: &TcpStream, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let target = first.split(' ').nth(1)?.to_owned();
    asked.lock().ok()?.push(target.clone());
    let mut server = TcpStream::connect(target).ok()?;
    let mut back = client.try_clone().ok()?;
    back.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let mut from_server = server.try_clone().ok()?;
    std::thread::spawn(move || std::io::copy(&mut from_server, &mut back));
    std::io::copy(&mut reader.by_ref(), &mut server).ok()?;
    Some(())
}

#[test]
fn a_proxy_is_used_that_the_kubeconfig_or_the_environment_names() {
    let on = on();
    let folder = tempfile::tempdir().unwrap();
    let user = json!({"token": token(on)});
    let server = on.plane.api_server().address().trim_start_matches("https://").to_owned();
    let (address, asked) = proxy();

    let config = kubeconfig(on, folder.path(), &user, &[("proxy-url", &address)]).display().to_string();
    driftguard(&ASKS, &[("KUBECONFIG", config.as_str())]).success();
    assert_eq!(asked.lock().unwrap().first(), Some(&server));

    asked.lock().unwrap().clear();
    let config = kubeconfig(on, folder.path(), &user, &[]).display().to_string();
    let environment = [("KUBECONFIG", config.as_str()), ("HTTPS_PROXY", address.as_str())];
    driftguard(&ASKS, &environment).success();
    assert_eq!(asked.lock().unwrap().first(), Some(&server));

    let config =
        kubeconfig(on, folder.path(), &user, &[("proxy-url", "http://127.0.0.1:1")]).display().to_string();
    let told = driftguard(&ASKS, &[("KUBECONFIG", config.as_str())]).failure();
    assert!(told.lines().count() == 1 && told.starts_with("error: "), "{told}");
}

#[test]
fn a_missing_right_is_told_with_the_next_step() {
    let cluster = cluster();
    let eve = cluster.plane.user("eve", &[]).unwrap();
    let told = driftguard_as(&eve, &["hash", "secret", "a", "-n", "default"], "").failure();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("User \"eve\" cannot get resource \"secrets\"") && told.contains("--as or --context"),
        "{told}"
    );
    let wrong = driftguard_as(&cluster.admin, &["hash", "secret", "a", "--token", "nobodys"], "").failure();
    assert!(wrong.contains("does not accept these credentials"), "{wrong}");
    let as_eve = driftguard_as(&cluster.admin, &["hash", "secret", "a", "--as", "eve"], "").failure();
    assert!(as_eve.contains("User \"eve\" cannot get"), "{as_eve}");
}

#[test]
fn the_address_and_the_authority_can_be_given_by_flags() {
    let cluster = cluster();
    let address = cluster.plane.api_server().address();
    let config = "--kubeconfig=/dev/null";
    let told = cluster.driftguard(&["version", config, "-s", address], "");
    assert!(told.stderr.contains("signed by an unknown authority"), "{}", told.stderr);
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), cluster.plane.authority()).unwrap();
    let by_flags = cluster.driftguard(
        &["version", config, "--server", address, "--certificate-authority", ca.path().to_str().unwrap()],
        "",
    );
    assert!(by_flags.success().contains("Server Version: v1."));
    let unchecked = cluster.driftguard(&["version", config, "-s", address, "--insecure-skip-tls-verify"], "");
    assert!(unchecked.success().contains("Server Version: v1."));
}

/// A server that answers each request with the next of these and the last of them for ever, and what it was asked for.
fn scripted(answers: &'static [&'static str]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let mut seen = seen.lock().unwrap();
            let answer = answers.get(seen.len()).or(answers.last()).unwrap();
            seen.push(first.trim_end().to_owned());
            let (head, body) = answer.split_once('|').unwrap();
            let length = body.len();
            let _ = write!(
                client,
                "HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (address, asked)
}

const VERSION: &str = r#"200 OK|{"major":"1","minor":"37","gitVersion":"v1.37.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;

#[test]
fn a_request_is_sent_again_that_the_api_server_had_no_time_for() {
    const BUSY: &str = "429 Too Many Requests\r\nRetry-After: 0|";
    let (address, asked) = scripted(&[BUSY, BUSY, VERSION]);
    let ran = driftguard(&["version", "--kubeconfig=/dev/null", "-s", &address], &[]);
    assert_eq!(ran.stderr, "", "it was soon over");
    assert!(ran.success().contains("Server Version: v1.37.0"));
    assert_eq!(asked.lock().unwrap().as_slice(), ["GET /version HTTP/1.1"; 3]);
}

#[test]
fn a_wait_that_the_api_server_asks_for_is_told_and_ends_by_a_signal() {
    use std::os::unix::process::ExitStatusExt as _;
    let (address, _asked) = scripted(&["429 Too Many Requests\r\nRetry-After: 50|"]);
    let live = Live::start(command(&["version", "--kubeconfig=/dev/null", "-s", &address]), |child| {
        child.stderr.take()
    });
    assert_eq!(live.line(), "the API server has too much to do and asks to wait; it is asked again in 50 s");
    assert_eq!(live.end().signal(), Some(15));
}

#[test]
fn a_wait_that_is_longer_than_a_request_may_take_is_not_begun() {
    let (address, asked) = scripted(&["429 Too Many Requests\r\nRetry-After: 50|"]);
    let limited = ["version", "--kubeconfig=/dev/null", "-s", &address, "--request-timeout", "20s"];
    let ran = driftguard(&limited, &[]);
    assert!(ran.stderr.contains("429") && ran.stderr.contains("--request-timeout"), "{}", ran.stderr);
    assert_eq!(asked.lock().unwrap().len(), 1);
}
