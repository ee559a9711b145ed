//! What the program says without a cluster, word for word.
//!
//! `DRIFTGUARD_WRITE_GENERATED=1 cargo test --test cli` writes the snapshots anew; read the diff.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::run::{Ran, command, run, run_with};

/// Holds the run of `args` against the snapshot `name`.
#[track_caller]
fn check(name: &str, args: &[&str], input: &str) {
    let Ran { code, stdout, stderr } = run_with(command(args), input);
    let mut text = format!("$ driftguard {}\nexit {}\n", args.join(" "), code.unwrap());
    for (title, said) in [("stdout", stdout), ("stderr", stderr)] {
        if !said.is_empty() {
            let end = if said.ends_with('\n') { "" } else { "(no line end)\n" };
            write!(text, "--- {title}\n{said}{end}").unwrap();
        }
    }
    hold(name, &text);
}

/// Holds a text against the snapshot `name`.
#[track_caller]
pub(crate) fn hold(name: &str, text: &str) {
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("DRIFTGUARD_WRITE_GENERATED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, known, "{name}: see the head of this file for how to write it anew");
}

#[test]
fn usage() {
    check("no-arguments", &[], "");
    check("help", &["--help"], "");
    check("hash-help", &["hash", "-h"], "");
    check("hash-long-help", &["hash", "--help"], "");
    check("adopt-help", &["adopt", "-h"], "");
    check("guard-help", &["guard", "-h"], "");
    check("version-help", &["version", "-h"], "");
    check("mistyped-command", &["hsah"], "");
    check("mistyped-flag", &["hash", "--filenam", "x"], "");
    check("wrong-value", &["guard", "configmap", "a", "--enforcement", "Refuse"], "");
    check("paths-exclude-each-other", &["hash", "-f", "x", "--only-path", "/a", "--ignore-path", "/b"], "");
    check("nothing-named", &["hash"], "");
    check("kind-without-name", &["guard", "configmap"], "");
    check("address-in-place-of-kind", &["hash", "-f", "x", "--server", "https://host:6443"], "");
    check("bad-path", &["hash", "-f", "examples", "--ignore-path", "data"], "");
}

#[test]
fn files_that_cannot_be_used() {
    check("missing-file", &["hash", "-f", "no/such.yaml"], "");
    check("empty-input", &["hash", "-f", "-"], "# nothing\n");
    check("bad-yaml", &["hash", "-f", "-"], "apiVersion: v1\n---\nkind: ConfigMap\n data: 1\n");
    check("bad-json", &["hash", "-f", "-"], "{\"apiVersion\": \"v1\",\n \"kind\" \"ConfigMap\"}\n");
    check(
        "key-twice",
        &["hash", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: '1'\n  y: '2'\n  x: '3'\n",
    );
    check("no-object", &["hash", "-f", "-"], "- just\n- a list\n");
    check(
        "value-no-text",
        &["hash", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {port: 80}\n",
    );
    check("name-no-text", &["hash", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: on}\n");
    check("other-namespace", &["hash", "-f", "examples/configmap.yaml", "-n", "elsewhere"], "");
    check("an-address", &["hash", "-f", "https://example.com/a.yaml"], "");
}

#[test]
fn hashes() {
    check("hash-examples", &["hash", "-f", "examples"], "");
    check(
        "hash-json",
        &["hash", "-f", "examples/secret.yaml", "-f", "examples/configmap.yaml", "-o", "json"],
        "",
    );
    check("hash-canonical", &["hash", "-f", "examples/configmap.yaml", "--canonical"], "");
    check("hash-canonical-of-secret", &["hash", "-f", "examples/secret.yaml", "--canonical"], "");
    check("hash-canonical-of-several", &["hash", "-f", "examples", "--canonical"], "");
    check("hash-only-path", &["hash", "-f", "examples/configmap.yaml", "--only-path", "/data/region"], "");
    check(
        "hash-stdin-and-scopes",
        &["hash", "-f", "-", "-n", "team"],
        "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: 'system:x'}, rules: []}\n",
    );
}

#[test]
fn guards() {
    check("guard-example", &["guard", "-f", "examples/configmap.yaml"], "");
    check(
        "guard-with-everything",
        &[
            "guard",
            "-f",
            "examples/gama-config.yaml",
            "--enforcement",
            "Audit",
            "--auto-remediate",
            "--name",
            "model",
            "--guard-namespace",
            "guards",
            "--contact",
            "team: \"values\"",
            "--runbook",
            "https://runbooks.example.com",
            "--ignore-path",
            "/spec/parameters/version",
        ],
        "",
    );
    check(
        "guard-json-of-two",
        &["guard", "-f", "examples/secret.yaml", "-f", "examples/configmap.yaml", "-o", "json"],
        "",
    );
    check(
        "guard-needs-a-server",
        &["guard", "-f", "-"],
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}\n",
    );
    check(
        "guard-of-a-lease",
        &["guard", "-f", "-", "--local", "--only-path", "/spec"],
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: a}\nspec: {}\n",
    );
}

#[test]
fn everyday_commands() {
    check("verify-help", &["verify", "--help"], "");
    check("verify-no-files", &["verify"], "");
    check("verify-offline", &["verify", "-f", "examples", "--guard", "examples"], "");
    check(
        "verify-offline-json",
        &["verify", "-f", "examples/configmap.yaml", "--guard", "examples", "-o", "json"],
        "",
    );
    check(
        "verify-offline-differs",
        &["verify", "-f", "-", "--guard", "examples", "-n", "terrafusion-system"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: market-settings}\ndata: {region: moon}\n",
    );
    check(
        "verify-without-guards",
        &["verify", "-f", "-", "--guard", "examples/configmap.yaml"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    );
    check(
        "verify-only-guards",
        &["verify", "-f", "-"],
        "apiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {name: a}\n",
    );
    check("diff-help", &["diff", "--help"], "");
    check("diff-refused-connection", &["diff", "a-guard", "-s", "http://127.0.0.1:1"], "");
    check("approve-help", &["approve", "--help"], "");
    check("approve-nothing", &["approve", "a-guard"], "");
    check("approve-two-contents", &["approve", "a-guard", "--live", "--hash", "ab"], "");
    check("approve-bad-hash", &["approve", "a-guard", "--hash", "ab"], "");
    check("stamp-help", &["stamp", "--help"], "");
    check("stamp-stdin-by-name", &["stamp", "-f", "-"], "");
    check("stamp-missing-file", &["stamp", "-f", "no/such.yaml"], "");
    check(
        "stamp-no-text",
        &["stamp"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {port: 80}\n---\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {name: g}\nspec: {targetKind: ConfigMap, targetName: a, expectedHash: ''}\n",
    );
    check("explain-help", &["explain", "-h"], "");
    check("completion-help", &["completion", "--help"], "");
    check("completion-kubectl", &["completion", "kubectl", "--", "exception", ""], "");
    check("completion-no-shell", &["completion", "tcsh"], "");
}

#[test]
fn a_doctor_without_a_patient() {
    check("doctor-help", &["doctor", "--help"], "");
    check("doctor-refused-connection", &["doctor", "-s", "http://127.0.0.1:1"], "");
    check("doctor-without-cluster", &["doctor"], "");
    check("doctor-wrong-format", &["doctor", "-o", "xml"], "");
}

#[test]
fn ways_through() {
    check("suspend-help", &["suspend", "-h"], "");
    check("suspend-without-reason", &["suspend", "a-guard", "--for", "1h"], "");
    check("suspend-without-end", &["suspend", "a-guard", "--reason", "why"], "");
    check(
        "suspend-in-the-past",
        &["suspend", "a-guard", "--until", "2020-01-01T00:00:00Z", "--reason", "why"],
        "",
    );
    check("suspend-no-moment", &["suspend", "a-guard", "--until", "tomorrow", "--reason", "why"], "");
    check(
        "suspend-refused-connection",
        &["suspend", "a-guard", "--for", "1h", "--reason", "why", "-s", "http://127.0.0.1:1"],
        "",
    );
    check("resume-help", &["resume", "-h"], "");
    check("restore-help", &["restore", "--help"], "");
    check("restore-nothing-named", &["restore"], "");
    check("exception-help", &["exception", "--help"], "");
    check("exception-open-help", &["exception", "open", "-h"], "");
    check("exception-open-no-guards", &["exception", "open", "--for", "1h", "--reason", "why"], "");
    check(
        "exception-open-bad-selector",
        &["exception", "open", "-l", "a in b", "--for", "1h", "--reason", "why"],
        "",
    );
    check("exception-list-help", &["exception", "list", "-h"], "");
    check("exception-close-help", &["exception", "close", "-h"], "");
    check("exception-mistyped", &["exception", "opne"], "");
}

#[test]
fn broken_glass() {
    check("breakglass-help", &["breakglass", "--help"], "");
    check("breakglass-without-reason", &["breakglass", "--for", "1h"], "");
    check("breakglass-blank-reason", &["breakglass", "--for", "1h", "--reason", " "], "");
    check("breakglass-no-duration", &["breakglass", "--for", "soon", "--reason", "why"], "");
    check("breakglass-end-and-more", &["breakglass", "--end", "--for", "1h"], "");
    check("breakglass-refused-connection", &["breakglass", "--end", "-s", "http://127.0.0.1:1"], "");
}

#[test]
fn audits_that_cannot_be_made() {
    check("audit-help", &["audit", "-h"], "");
    check("audit-long-help", &["audit", "--help"], "");
    check("audit-wrong-format", &["audit", "-o", "jsn"], "");
    check("audit-wrong-finding", &["audit", "--fail-on", "drifted"], "");
    check("audit-names-and-selector", &["audit", "a", "-l", "x=y"], "");
    check("audit-everywhere-and-namespace", &["audit", "-A", "-n", "trading"], "");
    check("audit-watch-as-page", &["audit", "--watch", "-o", "html"], "");
    check("audit-interval-alone", &["audit", "--interval", "1m"], "");
    check("audit-wrong-since", &["audit", "--since", "yesterday"], "");
    check("audit-no-earlier-report", &["audit", "--from-report", "no/such.json"], "");
    check("audit-without-cluster", &["audit"], "");
    check("audit-refused-connection", &["audit", "-A", "-s", "http://127.0.0.1:1"], "");
}

/// Guards of the examples, of one that is in no file, and of a Deployment whose file does not tell.
const GUARDS: &str = r"
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata: {name: gone, namespace: trading}
spec: {targetKind: configmap, targetName: gone, expectedHash: 'HASH'}
---
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata: {name: changed, namespace: trading}
spec: {targetKind: ConfigMap, targetName: changed, expectedHash: 'HASH', enforcement: Audit}
---
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata: {name: web, namespace: trading}
spec: {targetKind: Deployment, targetName: web, expectedHash: 'HASH'}
---
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata: {name: replicas, namespace: trading}
spec: {targetKind: Deployment, targetName: scaled, expectedHash: 'HASH', onlyPaths: [/spec/replicas]}
---
apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata: {name: gizmo, namespace: trading}
spec: {targetKind: Gizmo, targetName: x, expectedHash: 'HASH'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: changed, namespace: trading}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: trading}
spec: {replicas: 3}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: scaled, namespace: trading}
spec: {replicas: 3}
";

#[test]
fn audits_of_files() {
    let guards = run(&["guard", "-f", "examples/configmap.yaml", "-f", "examples/secret.yaml"]).success();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guards.yaml");
    std::fs::write(&file, guards).unwrap();
    let in_sync = [
        "audit",
        "-f",
        file.to_str().unwrap(),
        "-f",
        "examples/configmap.yaml",
        "-f",
        "examples/secret.yaml",
    ];
    let ran = run(&in_sync);
    assert_eq!((ran.code, ran.stdout.matches("InSync").count()), (Some(0), 2), "{ran:?}");
    let all = GUARDS.replace("HASH", &"0".repeat(64));
    check("audit-files", &["audit", "-f", "-"], &all);
    check("audit-files-wide", &["audit", "-f", "-", "-o", "wide"], &all);
    check("audit-files-csv", &["audit", "-f", "-", "-o", "csv"], &all);
    check("audit-files-some", &["audit", "-f", "-", "changed", "--fail-on", "missing"], &all);
    check("audit-files-kind", &["audit", "-f", "-", "--kind", "configmaps"], &all);
    check("audit-files-no-such-guard", &["audit", "-f", "-", "nobody"], &all);
    check("audit-files-without-guards", &["audit", "-f", "examples/configmap.yaml"], "");
    check("audit-files-and-everywhere", &["audit", "-A", "-f", "examples"], "");
}

#[test]
fn a_reader_that_has_enough_changes_nothing_about_how_an_audit_of_files_ends() {
    use std::io::Write as _;
    let guard = |n: usize| {
        format!(
            "{{apiVersion: terrafusion.ai/v1, kind: DriftGuard, metadata: {{name: g{n}, namespace: trading}}, spec: {{targetKind: ConfigMap, targetName: t{n}, expectedHash: '{:064}'}}}}\n---\n",
            0
        )
    };
    let guards: String = (0..2_000).map(guard).collect();
    let mut child = command(&["audit", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(guards.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), said.as_str()), (Some(1), "2000 guards: 2000 missing\n"));
}

#[test]
fn clusters_that_cannot_be_reached() {
    check("version-client", &["version", "--client"], "");
    check("version-without-cluster", &["version", "-o", "json"], "");
    check("refused-connection", &["hash", "configmap", "a", "-s", "http://127.0.0.1:1"], "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(
        &file,
        "contexts:\n- {name: prod, context: {cluster: c, namespace: shop}}\n- {name: dev, context: {cluster: gone}}\nclusters:\n- {name: c, cluster: {server: 'http://127.0.0.1:1'}}\n",
    )
    .unwrap();
    let run = |args: &[&str]| {
        let mut all = vec!["--kubeconfig", file.to_str().unwrap()];
        all.splice(0..0, args.iter().copied());
        run(&all)
    };
    let hash = ["hash", "configmap", "a"];
    let told = |more: &[&str]| run(&[&hash[..], more].concat()).failure();
    assert_eq!(
        told(&[]),
        "error: the kubeconfig has no current context; choose one with --context (dev, prod)\n"
    );
    assert_eq!(
        told(&["--context", "stage"]),
        "error: no context \"stage\" in the kubeconfig; it has dev, prod\n"
    );
    assert_eq!(told(&["--context", "dev"]), "error: no cluster \"gone\" in the kubeconfig; it has c\n");
    let map = "examples/configmap.yaml";
    assert!(
        run(&["hash", "-f", map, "--context", "prod"]).success().contains("ConfigMap/terrafusion-system/")
    );
    let lines = run_with(
        command(&["hash", "-f", "-", "--context", "prod", "--kubeconfig", file.to_str().unwrap()]),
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}",
    );
    assert!(
        lines.success().ends_with("  ConfigMap/shop/a\n"),
        "a file without namespace takes the context's"
    );
}

#[test]
fn several_kubeconfigs_are_merged_and_missing_ones_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a"), "current-context: x\n").unwrap();
    std::fs::write(
        path("b"),
        "current-context: y\ncontexts:\n- {name: x, context: {cluster: c, namespace: from-b}}\n",
    )
    .unwrap();
    let mut hash = command(&["hash", "-f", "-"]);
    hash.env("KUBECONFIG", format!("{}:{}::{}", path("missing"), path("a"), path("b")));
    let line = run_with(hash, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").success();
    assert!(line.ends_with("  ConfigMap/from-b/a\n"), "{line}");
    let named = run(&["hash", "configmap", "a", "--kubeconfig", &path("missing")]).failure();
    assert!(named.contains("missing: No such file"), "a file that was named must exist: {named}");
}

#[test]
fn a_kubeconfig_that_cannot_be_parsed_is_not_quoted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "users:\n- name: a\n  user: {token: geheim\n").unwrap();
    let told = run(&["hash", "configmap", "a", "--kubeconfig", file.path().to_str().unwrap()]).failure();
    assert!(told.contains("cannot use kubeconfig") && !told.contains("geheim"), "{told}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for args in [&["hash", "-f", "examples"][..], &["guard", "-f", "examples/configmap.yaml"], &["--help"]] {
        let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("panic") && !said.contains("error"), "{args:?}: {said}");
    }
}

#[test]
fn as_a_kubectl_plugin_it_calls_itself_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-driftguard");
    std::os::unix::fs::symlink(crate::run::DRIFTGUARD, &plugin).unwrap();
    let output = std::process::Command::new(plugin).arg("hash").arg("-h").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: kubectl driftguard hash"));
}
