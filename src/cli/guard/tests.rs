#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use super::manifest::guard_name;
use super::*;
use crate::api::DriftGuard;
use crate::manifests::yaml;

#[derive(clap::Parser)]
struct Only {
    #[command(flatten)]
    guard: GuardArgs,
}

fn made(file: &str, flags: &[&str]) -> anyhow::Result<String> {
    let path = tempfile::NamedTempFile::new()?;
    std::fs::write(path.path(), file)?;
    let file = path.path().to_str().unwrap();
    let fixed = ["guard", "-f", file, "--kubeconfig", "/dev/null"];
    let args = <Only as clap::Parser>::try_parse_from(fixed.iter().chain(flags))?.guard;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let approved = runtime.block_on(of_files(&args))?;
    render(&args.manifests(&approved), args.output)
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ns}\ndata: {x: z}\n";

#[test]
fn a_guard_of_a_config_map_is_as_short_as_can_be() {
    assert_eq!(
        made(MAP, &[]).unwrap(),
        "apiVersion: terrafusion.ai/v1
kind: DriftGuard
metadata:
  name: a-guard
  namespace: ns
spec:
  targetKind: ConfigMap
  targetName: a
  expectedHash: 0f3ef94a8b8a2e8bc8dbff1c1b8e6a8ec6c5a6ba4f4d0b1e6a6a1a1f3a6b3b7b
"
        .replace(
            "0f3ef94a8b8a2e8bc8dbff1c1b8e6a8ec6c5a6ba4f4d0b1e6a6a1a1f3a6b3b7b",
            &ContentHash::of(br#"{"x": "z"}"#).to_string()
        )
    );
}

#[test]
fn every_flag_becomes_the_field_of_the_api() {
    let flags = [
        "--enforcement=Audit",
        "--auto-remediate",
        "--name=g",
        "--guard-namespace=other",
        "--contact=me",
        "--runbook=https://x",
        "--ignore-path=/data/z",
        "-o=json",
    ];
    let guard: DriftGuard = serde_json::from_str(&made(MAP, &flags).unwrap()).unwrap();
    assert_eq!(guard.spec.enforcement, Some(crate::api::Enforcement::Audit));
    assert!(guard.spec.auto_remediate);
    assert_eq!(guard.spec.ignore_paths, ["/data/z"]);
    assert_eq!(guard.spec.target_namespace.as_deref(), Some("ns"));
    assert_eq!(guard.metadata.name.as_deref(), Some("g"));
    assert_eq!(guard.metadata.namespace.as_deref(), Some("other"));
    let annotations = guard.metadata.annotations.unwrap();
    assert_eq!(annotations[names::ANNOTATION_CONTACT], "me");
    assert_eq!(annotations[names::ANNOTATION_RUNBOOK], "https://x");
}

#[test]
fn every_mode_is_one_of_the_api() {
    for mode in <Mode as clap::ValueEnum>::value_variants() {
        let json = serde_json::to_value(mode).unwrap();
        assert!(serde_json::from_value::<crate::api::Enforcement>(json).is_ok(), "{mode:?}");
    }
}

#[test]
fn kinds_with_defaults_need_a_server_or_chosen_paths() {
    let file = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 1}\n";
    let error = format!("{:#}", made(file, &[]).unwrap_err());
    assert!(error.contains("asking the API server what it would store"), "{error}");
    let error = made(file, &["--local"]).unwrap_err().to_string();
    assert!(error.contains("--only-path"), "{error}");
    let text = made(file, &["--local", "--only-path=/spec/replicas"]).unwrap();
    assert!(text.contains("targetApiVersion: apps/v1") && text.contains("namespace: default"), "{text}");
}

#[test]
fn what_is_never_guarded_gets_no_manifest() {
    let file = "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: a}\nspec: {}\n";
    let error = made(file, &["--local", "--only-path=/spec"]).unwrap_err().to_string();
    assert!(error.contains("a Lease is never guarded"), "{error}");
}

#[test]
fn guards_of_one_run_do_not_share_a_name() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: ns}\n";
    let text = made(&format!("{MAP}---\n{secret}"), &[]).unwrap();
    assert!(text.contains("name: a-configmap-guard\n") && text.contains("name: a-secret-guard\n"), "{text}");
    assert_eq!(text.matches("---\n").count(), 1);
}

#[test]
fn a_guard_name_is_valid_whatever_the_object_is_called() {
    assert_eq!(guard_name("system:Node x", "guard"), "system-node-x-guard");
    assert_eq!(guard_name(&"a".repeat(253), "guard").len(), 253);
    assert_eq!(guard_name(":", "guard"), "guard");
}

#[test]
fn a_hash_that_looks_like_a_number_stays_text() {
    let hash: ContentHash = "1"
        .repeat(30)
        .chars()
        .chain("e".chars())
        .chain("1".repeat(33).chars())
        .collect::<String>()
        .parse()
        .unwrap();
    let text = yaml::document("x", &serde_json::json!({"h": hash.to_string()})).unwrap();
    let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  {text}");
    let document = crate::document::read(&["-"], &mut map.as_bytes()).unwrap().remove(0);
    assert!(String::from_utf8(document.json).unwrap().contains(&format!("\"{hash}\"")));
}
