//! Metrics of sources of truth.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets of the time that a source takes, in seconds. Ten are the most.
const SECONDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Kinds of sources, and what they may answer, in labels.
const SOURCES: [&str; 6] = ["git", "configmap", "secret", "service", "configuration-service", "last-good"];
const RESULTS: [&str; 5] = ["matched", "mismatch", "unavailable", "forbidden", "invalid"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    source: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// How sources of truth answered.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    fetches: Family<FetchLabels, Counter>,
    seconds: Family<SourceLabel, Histogram, fn() -> Histogram>,
}

impl SourceMetrics {
    /// In a registry from the start.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let fresh: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self { fetches: Family::default(), seconds: Family::new_with_constructor(fresh) };
        registry.register("source_fetches", "Sources of truth that were asked", metrics.fetches.clone());
        registry.register(
            "source_fetch_seconds",
            "Time to fetch and check what a source of truth has",
            metrics.seconds.clone(),
        );
        for source in SOURCES {
            drop(metrics.seconds.get_or_create(&SourceLabel { source }));
            for result in RESULTS {
                drop(metrics.fetches.get_or_create(&FetchLabels { source, result }));
            }
        }
        metrics
    }

    /// Counts a source that was asked, by its kind and how that went, and how long it took.
    pub fn asked(&self, source: &'static str, result: &'static str, took: Duration) {
        self.fetches.get_or_create(&FetchLabels { source, result }).inc();
        self.seconds.get_or_create(&SourceLabel { source }).observe(took.as_secs_f64());
    }
}
