//! Metrics of the reports of `openreports.io`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What becomes of reports.
#[derive(Debug, Clone, Default)]
pub struct OpenReportsMetrics {
    kept: Gauge,
    writes: Family<ResultLabel, Counter>,
}

impl OpenReportsMetrics {
    /// In a registry from the start.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "openreports_kept",
            "1 while this replica keeps reports of openreports.io (--openreports)",
            metrics.kept.clone(),
        );
        registry.register(
            "openreports_writes",
            "Reports of openreports.io that were written, deleted, or could not be",
            metrics.writes.clone(),
        );
        for result in ["written", "deleted", "failed"] {
            drop(metrics.writes.get_or_create(&ResultLabel { result }));
        }
        metrics
    }

    /// Tells whether reports are kept by this replica.
    pub fn kept(&self, are: bool) {
        self.kept.set(i64::from(are));
    }

    /// Counts a write: `written`, `deleted` or `failed`.
    pub fn write(&self, result: &'static str) {
        self.writes.get_or_create(&ResultLabel { result }).inc();
    }
}
