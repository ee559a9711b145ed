//! Names in rules, dashboard and reference against what `/metrics` shows before anything has happened.

use std::collections::BTreeSet;

use driftguard::manifests::monitoring;
use driftguard::telemetry::metrics::Metrics;
use serde_json::Value;

use crate::expression::selected;

const REFERENCE: &str = include_str!("../../docs/reference/metrics.md");

fn page() -> String {
    Metrics::default().encode().unwrap()
}

/// Every series of the page: its name, and its labels as they stand there.
fn series(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, _) = line.rsplit_once(' ').unwrap();
            name.split_once('{').map_or((name, ""), |(name, labels)| (name, labels.trim_end_matches('}')))
        })
        .collect()
}

/// All expressions, with where they stand.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let rules = monitoring::groups();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            found.push((text(&rule["alert"]), text(&rule["expr"])));
        }
    }
    let dashboard = monitoring::dashboard();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn every_query_names_a_series_that_exists() {
    let page = page();
    let series = series(&page);
    let expressions = expressions();
    assert!(expressions.len() > 40, "only {} expressions were found", expressions.len());
    for (place, expression) in expressions {
        let selected = selected(&expression);
        assert!(!selected.is_empty(), "{place} selects nothing: {expression}");
        for one in selected {
            let there = series.iter().any(|(name, labels)| {
                let has =
                    |(label, value): &(String, String)| labels.contains(&format!("{label}=\"{value}\""));
                *name == one.name && one.labels.iter().all(has)
            });
            assert!(there, "{place} reads {one:?}, which /metrics does not show: {expression}");
        }
    }
}

/// The name of a metric without what its type appends.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

#[test]
fn the_reference_names_every_metric_and_no_other() {
    let page = page();
    let shown: BTreeSet<&str> = series(&page).iter().map(|(name, _)| family(name)).collect();
    let told: BTreeSet<&str> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("driftguard_"))
        .collect();
    let missing: Vec<_> = shown.difference(&told).collect();
    assert!(missing.is_empty(), "not in docs/reference/metrics.md: {missing:?}");
    let gone: Vec<_> = told.difference(&shown).collect();
    assert!(gone.is_empty(), "in docs/reference/metrics.md, but not on the page: {gone:?}");
}

#[test]
fn metrics_are_named_as_prometheus_advises() {
    let page = page();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("driftguard_"), "{name}");
        assert!(!name.ends_with("_total"), "{name}: the page appends _total to counters itself");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} is a histogram of what?");
    }
    let labels =
        series(&page).into_iter().flat_map(|(_, labels)| labels.split(',')).filter(|label| !label.is_empty());
    let labels: BTreeSet<&str> = labels.filter_map(|label| label.split('=').next()).collect();
    for unbounded in ["namespace", "name", "guard", "target", "user", "hash", "transaction"] {
        assert!(!labels.contains(unbounded), "a label {unbounded} has no bound");
    }
}
