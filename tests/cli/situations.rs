//! What every command says, word for word, where it cannot do what it is for: without a cluster, with the wrong context,
//! without rights, with half of them, and where there is nothing.
//!
//! Written anew as other snapshots are.

use std::fmt::Write as _;
use std::io::BufRead as _;
use std::process::Command;

use driftguard_control_plane::{Terminal, User};
use serde_json::{Value, json};

use crate::live::{Cluster, cluster};
use crate::run::{DRIFTGUARD, Ran, command, run_with};
use crate::snapshots::hold;

/// A file with the ConfigMap that the guard of `half_forbidden` pins.
const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {limit: '1000'}\n";

/// A line for every command that asks a cluster.
const LINES: &[&[&str]] = &[
    &["audit"],
    &["audit", "-A", "-o", "json"],
    &["audit", "settings-guard"],
    &["hash", "configmap", "settings"],
    &["hash", "-f", "-", "--server"],
    &["guard", "configmap", "settings"],
    &["guard", "configmap", "--all"],
    &["adopt", "settings-guard"],
    &["explain", "settings-guard"],
    &["diff", "settings-guard"],
    &["verify", "-f", "-"],
    &["approve", "settings-guard", "--live", "--yes"],
    &["approve", "settings-guard", "-f", "-", "--yes"],
    &["approve", "--representation", "--yes"],
    &["learn", "--for", "2s"],
    &["restore", "settings-guard"],
    &["suspend", "settings-guard", "--for", "1h", "--reason", "why"],
    &["resume", "settings-guard"],
    &[
        "exception",
        "open",
        "settings-guard",
        "--for",
        "1h",
        "--reason",
        "why",
        "--name",
        "incident",
        "--wait=false",
    ],
    &["exception", "list"],
    &["exception", "close", "incident"],
    &["exception", "close", "unheard-of"],
    &["version"],
];

/// These are about the whole cluster, where another test may be at work.
const OF_THE_CLUSTER: &[&[&str]] = &[
    &["doctor"],
    &["install"],
    &["uninstall"],
    &["breakglass", "--for", "1h", "--reason", "why"],
    &["adopt", "-A", "--all"],
    &["exception", "list", "-A"],
];

/// Holds what all lines say against the snapshot of a situation.
fn check(situation: &str, lines: &[&[&str]], hidden: &[(&str, &str)], prepare: impl Fn(&mut Command)) {
    let mut text = String::new();
    for line in lines {
        let mut command = command(line);
        prepare(&mut command);
        let Ran { code, stdout, stderr } = run_with(command, SETTINGS);
        writeln!(text, "$ driftguard {}\nexit {}", line.join(" "), code.unwrap()).unwrap();
        for (title, said) in [("stdout", stdout), ("stderr", stderr)] {
            if !said.is_empty() {
                let end = if said.ends_with('\n') { "" } else { "(no line end)\n" };
                write!(text, "--- {title}\n{said}{end}").unwrap();
            }
        }
        text.push('\n');
    }
    text = text.replace(concat!("v", env!("CARGO_PKG_VERSION")), "VERSION");
    for (said, instead) in hidden {
        text = text.replace(said, instead);
    }
    hold(&format!("situation-{situation}"), &without_moments(&text));
}

/// The text with every moment, such as 2026-11-27T06:00:00Z, as MOMENT.
fn without_moments(text: &str) -> String {
    let is_moment = |window: &[u8]| {
        let pattern = b"dddd-dd-ddTdd:dd:dd";
        window
            .iter()
            .zip(pattern)
            .all(|(byte, want)| if *want == b'd' { byte.is_ascii_digit() } else { byte == want })
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.as_bytes().windows(19).position(is_moment) {
        let end = rest[at..].find('Z').map_or(rest.len(), |end| at + end + 1);
        out.push_str(&rest[..at]);
        out.push_str("MOMENT");
        rest = &rest[end..];
    }
    out + rest
}

fn all() -> Vec<&'static [&'static str]> {
    [LINES, OF_THE_CLUSTER].concat()
}

/// As `user`, in a namespace.
fn at<'a>(user: &'a User, namespace: &str) -> impl Fn(&mut Command) + use<'a> {
    let flag = format!("--namespace={namespace}");
    move |command| {
        let is_of_all = command.get_args().any(|arg| arg == "-A");
        command.env("KUBECONFIG", user.kubeconfig());
        if !is_of_all {
            command.arg(&flag);
        }
    }
}

/// What differs from run to run, or with the API server.
fn hidden(cluster: &Cluster) -> [(&str, &str); 2] {
    let version = cluster.plane.api_server().version().pinned();
    [(cluster.plane.api_server().address(), "ADDRESS"), (version, "VERSION")]
}

#[test]
fn without_a_cluster() {
    check("no-cluster", &all(), &[], |_| {});
}

#[test]
fn where_nobody_answers() {
    check("nobody-answers", &all(), &[], |command| {
        command.args(["-s", "http://127.0.0.1:1"]);
    });
}

#[test]
fn with_a_context_that_is_not_there() {
    let cluster = cluster();
    let kubeconfig = cluster.admin.kubeconfig().display().to_string();
    check("wrong-context", &all(), &[(&kubeconfig, "KUBECONFIG")], |command| {
        command.env("KUBECONFIG", &kubeconfig).args(["--context", "prodution"]);
    });
}

#[test]
fn for_somebody_without_any_rights() {
    let cluster = cluster().namespace("forbidden");
    let stranger = cluster.plane.user("stranger", &[]).unwrap();
    check("forbidden", &all(), &hidden(cluster), at(&stranger, "forbidden"));
}

#[test]
fn for_somebody_who_may_read_guards_and_nothing_that_they_pin() {
    let cluster = cluster().namespace("half-forbidden");
    let reader = cluster.plane.user("reader", &[]).unwrap();
    cluster.apply(&format!(
        "{}---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: half-forbidden}}
rules:
- {{apiGroups: [terrafusion.ai], resources: ['*'], verbs: [get, list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: half-forbidden}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}}]
",
        SETTINGS.replace("name: settings", "name: settings, namespace: half-forbidden")
    ));
    let guard = cluster.driftguard(&["guard", "cm", "settings", "-n", "half-forbidden"], "").success();
    cluster.apply(&guard);
    check("half-forbidden", LINES, &hidden(cluster), at(&reader, "half-forbidden"));
}

/// Puts ConfigMaps with their guards into a namespace, as many, past the API server: writing takes it much longer.
fn many(cluster: &Cluster, namespace: &str, count: usize) {
    cluster.apply(&SETTINGS.replace("name: settings", &format!("name: c0000, namespace: {namespace}")));
    cluster.apply(&cluster.driftguard(&["guard", "cm", "c0000", "-n", namespace], "").success());
    let get = |what: &str| {
        let mut object =
            cluster.admin.kubectl(&["get", what, "-n", namespace, "-o", "json"]).unwrap().json().unwrap();
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        object
    };
    let (map, guard) = (get("cm/c0000"), get("dg/c0000-guard"));
    let mut pairs = Vec::new();
    for number in 1..count {
        let name = format!("c{number:04}");
        let (mut map, mut guard) = (map.clone(), guard.clone());
        let uid = |kind: usize| format!("00000000-0000-4000-800{kind}-{number:012}");
        map["metadata"]["name"] = json!(name);
        map["metadata"]["uid"] = json!(uid(0));
        guard["metadata"]["name"] = json!(format!("{name}-guard"));
        guard["metadata"]["uid"] = json!(uid(1));
        guard["spec"]["targetName"] = json!(name);
        pairs.push((format!("/registry/configmaps/{namespace}/{name}"), map.to_string().into_bytes()));
        let key = format!("/registry/terrafusion.ai/driftguards/{namespace}/{name}-guard");
        pairs.push((key, guard.to_string().into_bytes()));
    }
    cluster.plane.etcd().put_many(&pairs).unwrap();
}

#[test]
fn with_five_thousand_guards() {
    let cluster = cluster().namespace("many");
    many(cluster, "many", 5_000);
    cluster.admin.kubectl(&["delete", "cm", "c1234", "-n", "many"]).unwrap().success().unwrap();
    let changed =
        ["patch", "cm", "c4321", "-n", "many", "--type=merge", "-p", r#"{"data":{"limit":"2000"}}"#];
    cluster.admin.kubectl(&changed).unwrap().success().unwrap();
    let table = cluster.driftguard(&["audit", "-n", "many"], "");
    assert_eq!(table.code, Some(1), "{}", table.stderr);
    let wrong: Vec<&str> =
        table.stdout.lines().skip(1).filter(|line| !line.starts_with("InSync ")).map(str::trim_end).collect();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("Missing ") && wrong[0].ends_with(" ConfigMap/c1234"), "{wrong:?}");
    assert!(wrong[1].starts_with("Drifted ") && wrong[1].ends_with(" ConfigMap/c4321"), "{wrong:?}");
    assert_eq!(table.stderr, "5000 guards: 4998 in sync, 1 drifted, 1 missing\n");
    let first: Vec<&str> = table.stdout.lines().skip(1).take(2).map(str::trim_end).collect();
    assert_eq!(first, wrong, "trouble stands first");

    // Whoever waits before a terminal sees how far it is, and nothing of that afterwards.
    let kubeconfig = cluster.admin.kubeconfig().display().to_string();
    let terminal = Terminal::start(80, &[("KUBECONFIG", &kubeconfig)]).unwrap();
    let (left, code) = terminal.run(&format!("{DRIFTGUARD} audit -n many >/dev/null")).unwrap();
    assert_eq!(
        (left.as_slice(), code),
        (&["5000 guards: 4998 in sync, 1 drifted, 1 missing".to_owned()][..], 1)
    );
    // How far the first part is, at least: on a fast machine the second is over before its bar is due.
    let is_shown = |written: &str| written.contains(" guards found\r") || written.contains("/5000 guards\r");
    terminal.until_written("how far it is", is_shown).unwrap();

    let report = cluster.driftguard(&["audit", "-n", "many", "-o", "json"], "");
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["guards"].as_array().unwrap().len(), 5_000);

    // A reader that has seen enough takes nothing from what was found.
    let mut reader = command(&["audit", "-n", "many", "-o", "csv"]);
    let mut child = reader.env("KUBECONFIG", cluster.admin.kubeconfig()).spawn().unwrap();
    let mut first = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("namespace,guard,state,"), "{first}");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn on_a_terminal_of_sixty_columns_no_line_is_longer() {
    let cluster = cluster().namespace("narrow");
    cluster.apply(&SETTINGS.replace("name: settings", "name: settings-of-the-market, namespace: narrow"));
    cluster
        .apply(&cluster.driftguard(&["guard", "cm", "settings-of-the-market", "-n", "narrow"], "").success());
    let changed = [
        "patch",
        "cm",
        "settings-of-the-market",
        "-n",
        "narrow",
        "--type=merge",
        "-p",
        r#"{"data":{"limit":"2000"}}"#,
    ];
    cluster.admin.kubectl(&changed).unwrap().success().unwrap();
    let kubeconfig = cluster.admin.kubeconfig().display().to_string();
    let terminal = Terminal::start(60, &[("KUBECONFIG", &kubeconfig)]).unwrap();
    let (said, code) = terminal.run(&format!("{DRIFTGUARD} audit -n narrow 2>/dev/null")).unwrap();
    assert_eq!(code, 1, "{said:#?}");
    // A line that is too long would take two rows.
    assert!(said.len() == 2 && said[1].starts_with("Drifted "), "{said:#?}");
    let (_, code) = terminal.run(&format!("{DRIFTGUARD} suspend --help")).unwrap();
    assert_eq!(code, 0);
    let said = terminal.lines().unwrap();
    assert!(said.contains("Usage: driftguard suspend"), "{said}");
    // Commands are there to be copied: they are not broken.
    let mut prose = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.contains(DRIFTGUARD))
        .filter(|line| !line.trim_start_matches("Usage:").trim_start().starts_with("driftguard "));
    let long = prose.find(|line| line.chars().count() > 60);
    assert_eq!(long, None, "{said}");
}

#[test]
fn where_there_is_nothing() {
    let cluster = cluster().namespace("empty");
    // The audit of all namespaces is of what other tests have made.
    let lines: Vec<&[&str]> = LINES.iter().copied().filter(|line| !line.contains(&"-A")).collect();
    check("empty", &lines, &hidden(cluster), at(&cluster.admin, "empty"));
}
