//! The program as a plugin of kubectl, as its archive holds it, and the archive itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use driftguard_control_plane::until;
use serde_json::Value;

use crate::live::{Cluster, cluster};
use crate::run::DRIFTGUARD;

/// A folder with the plugin and what completes its words, and a `PATH` that begins with it.
fn installed() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(DRIFTGUARD, folder.path().join("kubectl-driftguard")).unwrap();
    let completes = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/krew/kubectl_complete-driftguard");
    std::os::unix::fs::symlink(completes, folder.path().join("kubectl_complete-driftguard")).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    (folder, path)
}

fn kubectl(on: &Cluster, path: &str, args: &[&str]) -> String {
    on.admin.command(args).env("PATH", path).run().unwrap().success().unwrap()
}

#[test]
fn kubectl_runs_it_as_a_plugin_with_its_own_kubeconfig() {
    let on = cluster().namespace("plugin");
    let (_folder, path) = installed();
    let told = kubectl(on, &path, &["driftguard", "version"]);
    assert!(told.contains("Server Version: v1."), "{told}");
    let help = kubectl(on, &path, &["driftguard", "suspend", "--help"]);
    assert!(help.contains("Usage: kubectl driftguard suspend "), "{help}");
    let listed = kubectl(on, &path, &["plugin", "list"]);
    assert!(listed.contains("kubectl-driftguard"), "{listed}");
}

#[test]
fn kubectl_completes_commands_flags_and_names_of_guards() {
    let on = cluster().namespace("completes");
    on.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: web, namespace: completes}, data: {a: b}}");
    on.apply(&on.driftguard(&["guard", "cm", "web", "-n", "completes"], "").success());
    let (_folder, path) = installed();
    let complete = |words: &[&str]| kubectl(on, &path, &[&["__complete", "driftguard"], words].concat());
    let candidates = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        candidates(&complete(&["susp"]))[0],
        "suspend\tLet writes to the targets of guards pass for a while"
    );
    assert!(complete(&["exception", ""]).starts_with("open\t"));
    assert!(complete(&["guard", "--enf"]).starts_with("--enforcement\t"));
    // Whoever completes is not kept waiting for long, so that a machine at its limits may give none.
    until("names come in time", Duration::from_secs(60), || {
        let found = complete(&["suspend", "-n", "completes", "w"]);
        anyhow::ensure!(candidates(&found) == ["web-guard", ":4"], "{found}");
        Ok(())
    })
    .unwrap();
    assert_eq!(candidates(&complete(&["suspend", "-n", "nowhere", ""])), [":0"]);
}

/// Packs a stand-in for the program.
fn package(out: &Path, words: &[&str]) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/krew/package");
    Command::new(script).arg(out).args(words).stdin(Stdio::null()).output().unwrap()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_manifest_for_the_plugin_manager_names_each_archive_by_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let (program, out) = (folder.path().join("built"), folder.path().join("dist"));
    std::fs::write(&program, "#!/bin/sh\necho it runs\n").unwrap();
    let [linux, mac] =
        ["linux/amd64", "darwin/arm64"].map(|platform| format!("{platform}={}", program.display()));
    let packed = package(&out, &["1.2.3", &linux, &mac]);
    assert!(packed.status.success(), "{packed:?}");
    let manifest = std::fs::read_to_string(out.join("driftguard.yaml")).unwrap();
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(manifest["metadata"]["name"], "driftguard");
    assert_eq!(manifest["spec"]["version"], "v1.2.3");
    assert!(manifest["spec"]["shortDescription"].as_str().unwrap().len() <= 50, "as its guide asks");
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2);
    for platform in platforms {
        let archive = platform["uri"].as_str().unwrap().rsplit('/').next().unwrap();
        let archive = out.join(archive).display().to_string();
        let sum = run("sha256sum", &[&archive]);
        assert_eq!(platform["sha256"].as_str(), sum.split(' ').next());
        let mut held: Vec<String> = run("tar", &["-tzf", &archive]).lines().map(str::to_owned).collect();
        held.retain(|name| !name.ends_with('/'));
        let from = platform["files"].as_array().unwrap().iter().map(|file| file["from"].as_str().unwrap());
        let mut from: Vec<&str> = from.collect();
        held.sort();
        from.sort_unstable();
        assert_eq!(held, from, "whatever is packed is installed");
        assert!(held.contains(&format!("./{}", platform["bin"].as_str().unwrap())));
    }
    let first = std::fs::read(out.join("driftguard.yaml")).unwrap();
    assert!(package(&out, &["1.2.3", &linux, &mac]).status.success());
    assert_eq!(
        std::fs::read(out.join("driftguard.yaml")).unwrap(),
        first,
        "the same input makes the same archive"
    );
}

#[test]
fn a_tar_that_fails_makes_no_release() {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("tar");
    std::fs::write(&tar, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&tar, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/krew/package");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let out = folder.path().join("dist");
    let words = [out.display().to_string(), "1.2.3".to_owned(), format!("linux/amd64={}", tar.display())];
    let packed = Command::new(script).args(words).env("PATH", path).output().unwrap();
    assert_eq!(packed.status.code(), Some(2), "{packed:?}");
    assert!(!out.join("driftguard.yaml").exists(), "no manifest names an archive that is not whole");
}

#[test]
fn what_cannot_be_packed_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    for (words, why) in [
        (&["1.2.3", "linux/amd64=no/such/file"][..], "no/such/file is no file"),
        (&["1.2.3", "plan9/mips=/bin/sh"], "want linux or darwin"),
        (&["v1.2.3", "linux/amd64=/bin/sh"], "want it as in Cargo.toml"),
        (&[], "want DIRECTORY VERSION"),
    ] {
        let packed = package(folder.path(), words);
        let told = String::from_utf8(packed.stderr).unwrap();
        assert!(packed.status.code() == Some(2) && told.lines().count() == 1 && told.contains(why), "{told}");
    }
}
