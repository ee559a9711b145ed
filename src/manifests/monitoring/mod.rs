//! What Prometheus and Grafana need: alerts, what to scrape, a dashboard. A component of the kustomize base.
//!
//! The kinds are those of the Prometheus Operator, which has no types here: they are data.

use serde_json::{Value, json};

use crate::api::names;

use super::{Settings, labels};

mod dashboard;
mod rules;

pub use dashboard::dashboard;
pub use rules::groups;

/// Name of the objects.
const NAME: &str = names::OPERATOR;

/// The alerts.
#[must_use]
pub fn prometheus_rule(settings: &Settings) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata(settings),
        "spec": groups(),
    })
}

/// What is scraped: each replica, since each counts for itself.
#[must_use]
pub fn pod_monitor(settings: &Settings) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(settings),
        "spec": {
            "selector": {"matchLabels": labels::operator_selector()},
            "podMetricsEndpoints": [{"port": "health", "path": "/metrics", "interval": "30s"}],
        },
    })
}

fn metadata(settings: &Settings) -> Value {
    json!({"name": NAME, "namespace": settings.namespace, "labels": labels::operator()})
}
