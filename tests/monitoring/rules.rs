//! The alerts, by promtool: whether they can be loaded, and whether they fire when they should.

use std::path::Path;
use std::process::Command;

use driftguard::manifests::monitoring;
use driftguard_control_plane::promtool;
use serde_json::Value;

/// Unit tests of promtool, one for each alert.
const TESTS: &str = include_str!("alerts.yaml");

fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(promtool().unwrap()).args(arguments).current_dir(folder).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "promtool {}: {text}", arguments.join(" "));
    text
}

#[test]
fn prometheus_loads_the_rules_and_they_fire_when_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let mut groups = monitoring::groups();
    // JSON is YAML.
    let write =
        |groups: &Value| std::fs::write(folder.path().join("rules.yaml"), groups.to_string()).unwrap();
    write(&groups);
    std::fs::write(folder.path().join("alerts.yaml"), TESTS).unwrap();
    let checked = run(folder.path(), &["check", "rules", "rules.yaml"]);
    let mut count = 0;
    for group in groups["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            count += 1;
            // A unit test would have to repeat every one of these texts.
            rule.as_object_mut().unwrap().remove("annotations").unwrap();
        }
    }
    assert!(checked.contains(&format!("{count} rules found")), "{checked}");
    write(&groups);
    run(folder.path(), &["test", "rules", "alerts.yaml"]);
}

#[test]
fn every_alert_has_a_test_and_says_what_happened_and_what_to_do() {
    let groups = monitoring::groups();
    for group in groups["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            // It fires in one place and does not in another.
            let tested = TESTS.matches(&format!("alertname: {name}\n")).count();
            assert!(tested >= 2, "{name} is tested {tested} times in tests/monitoring/alerts.yaml");
            for annotation in ["summary", "description", "action"] {
                let text = rule["annotations"][annotation].as_str().unwrap_or_default();
                assert!(text.len() > 20 && !text.contains("  "), "{name}: {annotation} is {text:?}");
            }
            assert!(
                ["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()),
                "{name}"
            );
        }
    }
}
