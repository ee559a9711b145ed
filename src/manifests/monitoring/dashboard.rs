//! The Grafana dashboard, as JSON that Grafana imports.

use serde_json::{Value, json};

/// Height of a panel; three stand in a row of 24.
const HEIGHT: usize = 8;
const WIDTH: usize = 8;
const IN_A_ROW: usize = 3;

/// How a panel shows its values.
#[derive(Clone, Copy)]
enum Shape {
    /// One number, red above zero.
    Count,
    /// One number, red below this.
    AtLeast(u32),
    /// Lines over time, in this unit of Grafana.
    Lines(&'static str),
}

/// One panel.
struct Panel {
    title: &'static str,
    says: &'static str,
    shape: Shape,
    /// Expressions with their legends.
    queries: &'static [(&'static str, &'static str)],
}

const SHORT: Shape = Shape::Lines("short");
const SECONDS: Shape = Shape::Lines("s");
const PER_SECOND: Shape = Shape::Lines("ops");

const PANELS: [Panel; 21] = [
    Panel {
        title: "Replicas ready",
        says: "Replicas that answer reviews; two are installed.",
        shape: Shape::AtLeast(2),
        queries: &[("sum(driftguard_ready)", "ready")],
    },
    Panel {
        title: "Drifted guards",
        says: "Guards whose target is not as approved.",
        shape: Shape::Count,
        queries: &[("max(driftguard_drifted_guards)", "drifted")],
    },
    Panel {
        title: "Alerts in the last day",
        says: "Alerts that began, whatever became of them.",
        shape: Shape::Count,
        queries: &[("sum(increase(driftguard_alerts_total{state=\"firing\"}[1d]))", "alerts")],
    },
    Panel {
        title: "Guards in trouble",
        says: "See the guards' conditions for which they are and why.",
        shape: SHORT,
        queries: &[
            ("max(driftguard_drifted_guards)", "drifted"),
            ("max(driftguard_fighting_guards)", "fighting"),
            ("max(driftguard_stopped_guards)", "remediation stopped"),
            ("max(driftguard_guards_without_source)", "no source"),
            ("max(driftguard_unreadable_guards)", "unreadable"),
        ],
    },
    Panel {
        title: "Guards",
        says: "Guards in the index. Invalid ones and those without a known author need a look.",
        shape: SHORT,
        queries: &[
            ("max by (state) (driftguard_guards)", "{{state}}"),
            ("max(driftguard_guards_of_unknown_author)", "author unknown"),
        ],
    },
    Panel {
        title: "Drift found",
        says: "Drifts that began, by the look that found them. What only a sweep finds, a watch has missed.",
        shape: SHORT,
        queries: &[
            ("sum by (look) (increase(driftguard_drifts_total[$__rate_interval]))", "{{look}}"),
            ("sum(increase(driftguard_watch_missed_total[$__rate_interval]))", "missed by watches"),
        ],
    },
    Panel {
        title: "Remediations",
        says: "Attempts to restore, by how they ended.",
        shape: SHORT,
        queries: &[(
            "sum by (result) (increase(driftguard_remediations_total[$__rate_interval]))",
            "{{result}}",
        )],
    },
    Panel {
        title: "Time to restore",
        says: "From the sight of drift until the approved content stands again.",
        shape: SECONDS,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (le) (rate(driftguard_restore_seconds_bucket[$__rate_interval])))",
                "half",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(driftguard_restore_seconds_bucket[$__rate_interval])))",
                "99 of 100",
            ),
        ],
    },
    Panel {
        title: "Sources",
        says: "What sources of truth answered.",
        shape: SHORT,
        queries: &[(
            "sum by (source, result) (increase(driftguard_source_fetches_total[$__rate_interval]))",
            "{{source}} {{result}}",
        )],
    },
    Panel {
        title: "Reviews",
        says: "Admission reviews by verdict.",
        shape: PER_SECOND,
        queries: &[(
            "sum by (verdict) (rate(driftguard_admission_reviews_total[$__rate_interval]))",
            "{{verdict}}",
        )],
    },
    Panel {
        title: "Refused, by reason",
        says: "Writes that were refused.",
        shape: SHORT,
        queries: &[(
            "sum by (reason) (increase(driftguard_admission_reviews_total{verdict=\"deny\"}[$__rate_interval]))",
            "{{reason}}",
        )],
    },
    Panel {
        title: "Time of a review",
        says: "How long a write waits for DriftGuard, without the network.",
        shape: SECONDS,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (le) (rate(driftguard_admission_review_seconds_bucket[$__rate_interval])))",
                "half",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(driftguard_admission_review_seconds_bucket[$__rate_interval])))",
                "99 of 100",
            ),
        ],
    },
    Panel {
        title: "Age of watches and sweeps",
        says: "How long the quietest watch has heard nothing, and how old the oldest sweep is.",
        shape: SECONDS,
        queries: &[
            ("max(driftguard_watch_age_seconds)", "watch"),
            ("max(driftguard_sweep_age_seconds)", "sweep"),
        ],
    },
    Panel {
        title: "Requests of watches",
        says: "Requests to API servers for watches and sweeps, by purpose.",
        shape: PER_SECOND,
        queries: &[(
            "sum by (purpose) (rate(driftguard_watch_requests_total[$__rate_interval]))",
            "{{purpose}}",
        )],
    },
    Panel {
        title: "Queue of the auditor",
        says: "News about guarded objects that wait.",
        shape: SHORT,
        queries: &[("max(driftguard_audit_queue)", "waiting")],
    },
    Panel {
        title: "Deliveries",
        says: "Attempts to deliver alerts and telemetry, by how they ended.",
        shape: SHORT,
        queries: &[(
            "sum by (destination, result) (increase(driftguard_delivery_attempts_total[$__rate_interval]))",
            "{{destination}} {{result}}",
        )],
    },
    Panel {
        title: "Spool",
        says: "Messages that wait to be delivered.",
        shape: SHORT,
        queries: &[("sum by (destination) (driftguard_spool_events)", "{{destination}}")],
    },
    Panel {
        title: "Dropped",
        says: "Messages and Events that were dropped.",
        shape: SHORT,
        queries: &[
            (
                "sum by (destination, reason) (increase(driftguard_delivery_dropped_total[$__rate_interval]))",
                "{{destination}} {{reason}}",
            ),
            ("sum(increase(driftguard_dropped_events_total[$__rate_interval]))", "Events"),
        ],
    },
    Panel {
        title: "Registration",
        says: "Writes of the webhook configurations. Repaired: somebody else had altered them.",
        shape: SHORT,
        queries: &[
            ("sum by (result) (increase(driftguard_registrations_total[$__rate_interval]))", "{{result}}"),
            ("max(driftguard_registration_contended)", "contended"),
        ],
    },
    Panel {
        title: "Proofs",
        says: "Dry runs that prove enforcement.",
        shape: SHORT,
        queries: &[("sum by (result) (increase(driftguard_proofs_total[$__rate_interval]))", "{{result}}")],
    },
    Panel {
        title: "Certificate ends in",
        says: "Served certificates; replaced after two thirds of their life.",
        shape: SECONDS,
        queries: &[("driftguard_certificate_end_timestamp_seconds - time()", "{{pod}}")],
    },
];

/// The dashboard. Its data source is chosen where it is shown.
#[must_use]
pub fn dashboard() -> Value {
    let panels: Vec<Value> = PANELS.iter().enumerate().map(|(number, panel)| shown(number, panel)).collect();
    json!({
        "title": "DriftGuard",
        "uid": "driftguard",
        "description": "Hash-pinned configuration: drift, remediation, admission, delivery.",
        "tags": ["driftguard"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
        }]},
        "panels": panels,
    })
}

fn shown(number: usize, panel: &Panel) -> Value {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip("ABCDEFGH".chars())
        .map(|((expression, legend), name)| {
            json!({"refId": name, "datasource": source, "expr": expression, "legendFormat": legend})
        })
        .collect();
    let (kind, unit, steps) = match panel.shape {
        Shape::Count => ("stat", "short", json!([step("green", None), step("red", Some(1))])),
        Shape::AtLeast(least) => ("stat", "short", json!([step("red", None), step("green", Some(least))])),
        Shape::Lines(unit) => ("timeseries", unit, json!([step("green", None)])),
    };
    json!({
        "id": number + 1,
        "type": kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": source,
        "gridPos": {
            "h": HEIGHT,
            "w": WIDTH,
            "x": number % IN_A_ROW * WIDTH,
            "y": number / IN_A_ROW * HEIGHT,
        },
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": targets,
    })
}

fn step(color: &str, from: Option<u32>) -> Value {
    json!({"color": color, "value": from})
}
