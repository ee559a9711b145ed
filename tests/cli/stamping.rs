//! `stamp` in its three roles. It asks no cluster; what it takes for certain is held against a real one.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::live::cluster;
use crate::run::{Ran, command, run, run_with};

const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn guard(kind: &str, target: &str) -> String {
    format!(
        "# who may change it: team-web\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata:\n  name: {target}-guard\n  namespace: shop\nspec:\n  targetKind: {kind}\n  targetName:   {target}   # theirs\n  expectedHash: sha256:{OLD} # stamped\n  suspend: {{reason: \"migration\", until: \"2026-06-01T00:00:00Z\"}}\n  alsoApproved: [{{hash: {OLD}}}]\n"
    )
}

fn settings(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n    namespace: 'shop'\n    name: {name}\ndata: {{mode: \"fast\", level: '1'}} # as agreed\n"
    )
}

/// The hash of one object, by the command that prints it.
fn hash(manifest: &str) -> String {
    let text = run_with(command(&["hash", "-f", "-"]), manifest).success();
    text.split("  ").next().unwrap().to_owned()
}

fn stamp(args: &[&str], input: &str) -> Ran {
    run_with(command(&[&["stamp"], args].concat()), input)
}

#[test]
fn a_stream_goes_out_as_it_came_but_for_hashes() {
    let settings = settings("settings");
    let input = format!(
        "---\n# Source: shop/templates/a.yaml\n{}---\n\n{settings}---\n# the end",
        guard("configmap", "settings")
    );
    let want = input.replacen(&format!("sha256:{OLD}"), &format!("sha256:{}", hash(&settings)), 1);
    let ran = stamp(&[], &input);
    assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
    assert_eq!(ran.stdout, want);
    let again = stamp(&[], &want);
    assert_eq!((again.stdout, again.stderr.as_str()), (want, ""), "what is fresh stays");
    assert_eq!(stamp(&[], "").success(), "", "a chart may make nothing");
}

#[test]
fn a_name_with_a_hash_of_kustomize_is_followed() {
    let settings = settings("settings-8522m7dg9f");
    let input = guard("ConfigMap", "settings") + "---\n" + &settings;
    let ran = stamp(&[], &input);
    let want = input.replace("targetName:   settings   #", "targetName:   settings-8522m7dg9f   #").replacen(
        &format!("sha256:{OLD}"),
        &format!("sha256:{}", hash(&settings)),
        1,
    );
    assert_eq!(ran.stdout, want);
    assert_eq!(
        ran.stderr,
        "note: DriftGuard shop/settings-guard: targetName settings is now settings-8522m7dg9f\n"
    );
    // A name that only looks so is another object's.
    let other = input.replace("settings-8522m7dg9f", "settings-5h2k9f7g8h");
    let ran = stamp(&[], &other);
    assert_eq!((ran.code, ran.stdout), (Some(0), other));
    assert!(ran.stderr.contains("does not end in the hash that kustomize makes"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_stamped_is_told_and_is_an_error_when_strict() {
    let deployment = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 2}\n";
    let input = guard("ConfigMap", "absent") + "---\n" + &guard("Deployment", "web") + deployment;
    let ran = stamp(&[], &input);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), input.as_str()));
    assert!(
        ran.stderr.contains("note: standard input:2: DriftGuard shop/absent-guard is left as it is"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("fills in defaults of Deployment"), "{}", ran.stderr);
    let error = stamp(&["--strict"], &input).failure();
    assert!(error.ends_with("error: 2 of 2 guards could not be stamped\n"), "{error}");
    // Parts of it are the same in the manifest and in the cluster.
    let input =
        guard("Deployment", "web").replace("spec:\n", "spec:\n  onlyPaths: [/spec/replicas]\n") + deployment;
    let ran = stamp(&["--strict"], &input);
    assert!(!ran.success().contains(&format!("expectedHash: sha256:{OLD}")));
}

#[test]
fn a_krm_function_tells_its_results() {
    let settings = settings("settings");
    let item = |text: &str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
    let head = "apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: hunter2}\n";
    let guard_of_secret = guard("Secret", "db").replace("# who may change it: team-web\n", "");
    let options = "functionConfig:\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: options}\n  data: {namespace: shop}\n";
    let guard = guard("ConfigMap", "settings").replace("# who may change it: team-web\n", "");
    let input = format!(
        "{head}items:\n{}{}{}{}{options}",
        item(&guard),
        item(&settings),
        item(secret),
        item(&guard_of_secret)
    );
    let ran = stamp(&[], &input);
    assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
    let (list, results) = ran.stdout.split_once("results:\n").unwrap();
    assert!(list.contains(&hash(&settings)) && list.contains(options), "{list}");
    let encoded =
        hash("apiVersion: v1\nkind: Secret\nmetadata: {name: db}\ndata: {password: aHVudGVyMg==}\n");
    assert!(list.contains(&encoded), "stringData counts as data");
    assert_eq!(results.matches("expectedHash was refreshed").count(), 2, "{results}");
    assert!(!results.contains(&encoded), "the hash of a Secret is written into the guard alone");
}

#[test]
fn files_are_edited_in_place_and_checked_without_an_edit() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\ndata: {p: eA==}\n";
    let guards = guard("ConfigMap", "settings") + "---\n" + &guard("Secret", "db");
    write("guards.yaml", &guards);
    write("settings.yaml", &settings("settings"));
    write("db.json", &serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": {"p": "eA=="}}).to_string());
    let shown = folder.path().to_str().unwrap();
    let read = || fs::read_to_string(folder.path().join("guards.yaml")).unwrap();

    let checked = run(&["stamp", "-f", shown, "--check"]);
    let want = format!(
        "{shown}/guards.yaml:10: DriftGuard shop/settings-guard: expectedHash sha256:{OLD} -> {}\n{shown}/guards.yaml:23: DriftGuard shop/db-guard: expectedHash is stale (hashes of Secrets are not shown)\n",
        hash(&settings("settings"))
    );
    assert_eq!((checked.code, checked.stdout, checked.stderr.as_str()), (Some(1), want.clone(), ""));
    assert_eq!(read(), guards, "a check edits nothing");

    assert_eq!(run(&["stamp", "-f", shown]).success(), want);
    let stamped = guards
        .replacen(
            &format!("expectedHash: sha256:{OLD}"),
            &format!("expectedHash: sha256:{}", hash(&settings("settings"))),
            1,
        )
        .replacen(
            &format!("expectedHash: sha256:{OLD}"),
            &format!("expectedHash: sha256:{}", hash(secret)),
            1,
        );
    assert_eq!(read(), stamped);
    assert_eq!(run(&["stamp", "-f", shown, "--check", "--strict"]).success(), "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left beside the files");
}

#[test]
fn what_is_not_sure_of_a_workload_keeps_its_hash() {
    let deployment = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {spec: {containers: [{name: app, image: nginx}]}}}\n";
    let pinning = |path: &str| {
        guard("Deployment", "web").replace("spec:\n", &format!("spec:\n  onlyPaths: [{path}]\n")) + deployment
    };
    // The API server adds imagePullPolicy and replicas.
    for path in ["/spec/template/spec/containers", "/spec/replicas"] {
        let input = pinning(path);
        let ran = stamp(&[], &input);
        assert_eq!((ran.code, ran.stdout), (Some(0), input), "{path}");
        assert!(ran.stderr.contains("fills in defaults of Deployment"), "{}", ran.stderr);
    }
    let stamped = stamp(&["--strict"], &pinning("/spec/template/spec/containers/*/image")).success();
    assert!(!stamped.contains(&format!("expectedHash: sha256:{OLD}")));
}

#[test]
fn another_environment_lends_no_hash() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let guard = guard("ConfigMap", "settings");
    write("prod/guard.yaml", &guard);
    write("prod/settings.yaml", &(settings("settings") + "data: {}\n"));
    write("dev/settings.yaml", &settings("settings").replace("fast", "slow"));
    let shown = folder.path().to_str().unwrap();
    let ran = run(&["stamp", "-f", shown]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert!(ran.stderr.contains("prod/settings.yaml was passed over"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("prod/guard.yaml")).unwrap(), guard);
    let ran =
        run(&["stamp", "-f", &format!("{shown}/prod/guard.yaml"), "-f", &format!("{shown}/dev"), "--check"]);
    assert_eq!(ran.code, Some(1), "both name the namespace, and nothing is hidden: {}", ran.stderr);
}

#[test]
fn a_patch_of_kustomize_lends_no_hash() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("kustomization.yaml", "resources: [guard.yaml]\npatches: [{path: p.yaml}]\n");
    write("guard.yaml", &guard("ConfigMap", "settings"));
    write("p.yaml", &settings("settings"));
    let shown = folder.path().to_str().unwrap();
    let (patch, guard) = (format!("{shown}/p.yaml"), format!("{shown}/guard.yaml"));
    for files in [&["-f", shown][..], &["-f", &patch, "-f", &guard]] {
        let ran = run(&[&["stamp", "--check"], files].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
        assert!(ran.stderr.contains("is not among the manifests"), "{}", ran.stderr);
    }
}

#[test]
fn files_without_a_guard_are_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().to_str().unwrap();
    let want = format!("error: there is no DriftGuard in {shown}; name the files that hold guards as well\n");
    assert_eq!(run(&["stamp", "-f", shown, "--check", "--strict"]).failure(), want, "an empty folder");
    let misspelt = guard("ConfigMap", "settings").replace("DriftGuard", "Driftguard");
    fs::write(folder.path().join("guard.yaml"), misspelt + "---\n" + &settings("settings")).unwrap();
    for how in [&["--check", "--strict"][..], &["--check"], &[]] {
        assert_eq!(run(&[&["stamp", "-f", shown], how].concat()).failure(), want, "another kind");
    }
}

#[test]
fn a_file_named_outright_that_is_part_of_a_kustomization_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("kustomization.yaml", "patches: [{path: guard.yaml}]\n");
    write("guard.yaml", &guard("ConfigMap", "settings"));
    write("settings.yaml", &settings("settings"));
    let shown = folder.path().canonicalize().unwrap().display().to_string();
    let (guard, settings) = (format!("{shown}/guard.yaml"), format!("{shown}/settings.yaml"));
    let note = format!(
        "note: passed over: {guard}: {shown}/kustomization.yaml takes it as a part of objects, such as a patch\n"
    );
    let error = run(&["stamp", "-f", &guard, "-f", &settings, "--check", "--strict"]).failure();
    assert_eq!(
        error,
        format!(
            "{note}error: there is no DriftGuard in {guard}, {settings}; name the files that hold guards as well\n"
        )
    );
    let error = run(&["stamp", "-f", &shown, "-f", &guard, "--check"]).failure();
    assert!(error.starts_with(&note), "{error}");
    assert!(!run(&["stamp", "-f", &shown, "--check"]).failure().contains("takes it"), "it was not named");
}

#[test]
fn what_was_edited_before_a_file_that_cannot_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // What is written first beside a file of this name has one that is too long.
    let long = format!("b{}.yaml", "b".repeat(240));
    let path = |name: &str| folder.path().join(name);
    let of = |name: &str| guard("ConfigMap", name) + "---\n" + &settings(name);
    for (name, target) in [("a.yaml", "first"), (long.as_str(), "second"), ("c.yaml", "third")] {
        fs::write(path(name), of(target)).unwrap();
    }
    let shown = folder.path().to_str().unwrap();
    let ran = run(&["stamp", "-f", shown]);
    assert_eq!(ran.code, Some(2));
    let hash = hash(&settings("first"));
    let want =
        format!("{shown}/a.yaml:10: DriftGuard shop/first-guard: expectedHash sha256:{OLD} -> {hash}\n");
    assert_eq!(ran.stdout, want, "what was done, and no more");
    assert!(ran.stderr.starts_with(&format!("error: {shown}/{long} cannot be written: ")), "{}", ran.stderr);
    assert!(fs::read_to_string(path("a.yaml")).unwrap().contains(&hash));
    assert_eq!(
        fs::read_to_string(path("c.yaml")).unwrap(),
        of("third"),
        "nothing is written after a failure"
    );
}

#[test]
fn whoever_stops_reading_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let guards = folder.path().join("guards.yaml");
    fs::write(&guards, guard("ConfigMap", "settings") + "---\n" + &settings("settings")).unwrap();
    let unread = |args: &[&str]| {
        let mut child = command(&[args, &["-f", guards.to_str().unwrap()]].concat()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap().code()
    };
    assert_eq!(unread(&["stamp", "--check"]), Some(1));
    assert_eq!(unread(&["stamp"]), Some(0));
    assert!(!fs::read_to_string(&guards).unwrap().contains(&format!("expectedHash: sha256:{OLD}")));
    assert_eq!(unread(&["stamp", "--check"]), Some(0));
}

#[test]
fn a_guard_without_a_name_and_an_option_misspelt_are_errors() {
    let nameless = guard("ConfigMap", "settings").replace("  name: settings-guard\n", "");
    let error = stamp(&["--check"], &(nameless + "---\n" + &settings("settings"))).failure();
    assert!(error.contains("metadata.name is missing"), "{error}");
    let list = "apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig:\n  data: {strict: 'yes'}\nitems: []\n";
    let error = stamp(&[], list).failure();
    assert_eq!(error, "error: functionConfig: data.strict is \"true\" or \"false\"\n");
}

#[test]
fn the_examples_are_fresh() {
    assert_eq!(run(&["stamp", "-f", "examples", "--check", "--strict"]).success(), "");
}

#[test]
fn the_hooks_of_pre_commit_are_commands_of_the_program() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".pre-commit-hooks.yaml")).unwrap();
    let entries: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("entry: ")).collect();
    assert_eq!(entries, ["driftguard stamp", "driftguard stamp --check"]);
    assert!(!text.contains("pass_filenames: true"), "a changed file alone has guard or target, not both");
    for entry in entries {
        let words = entry.split(' ').chain(["-f", "examples"]);
        let program = driftguard::cli::command();
        assert!(program.try_get_matches_from(words).is_ok(), "{entry}");
    }
}

#[test]
fn the_kinds_that_are_certain_without_a_server_have_the_version_that_it_prefers() {
    let list = cluster().kubectl(&["api-resources", "--no-headers", "-o", "wide"]);
    let mut files = String::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| matches!(*word, "true" | "false")).unwrap();
        let (api_version, kind) = (words[at - 1], words[at + 1]);
        if kind != "DriftGuard" {
            let spec =
                json!({"targetKind": kind, "targetName": "x", "onlyPaths": ["/spec/x"], "expectedHash": ""});
            let guard = json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {"name": kind.to_lowercase()}, "spec": spec});
            let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": {"x": "y"}});
            files.push_str(&format!("---\n{guard}\n---\n{object}\n"));
        }
    }
    let ran = run_with(command(&["stamp", "-n", "default"]), &files);
    assert!(!ran.stderr.contains("and it stands there as"), "{}", ran.stderr);
    for certain in ["/deployment ", "/service ", "/ingress ", "/horizontalpodautoscaler "] {
        assert!(!ran.stderr.contains(certain), "{certain}: {}", ran.stderr);
    }
    let unsure = ran.success().matches("\"expectedHash\":\"\"").count();
    assert!(files.matches("\"expectedHash\":\"\"").count() - unsure > 40, "most kinds are certain");
}
