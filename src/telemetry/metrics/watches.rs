//! Metrics of the watches of guarded objects.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PurposeLabel {
    purpose: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookLabel {
    look: &'static str,
}

/// What is counted; clones share it.
#[derive(Debug, Clone, Default)]
pub struct WatchMetrics {
    requests: Family<PurposeLabel, Counter>,
    watches: Family<StateLabel, Gauge>,
    news: Family<LookLabel, Counter>,
    age: Gauge,
    sweep_age: Gauge,
    missed: Counter,
}

impl WatchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "watch_requests",
            "Requests made to watch guarded objects, by what they are for",
            self.requests.clone(),
        );
        registry.register("watches", "Watches of guarded objects", self.watches.clone());
        registry.register(
            "target_news",
            "News about guarded objects, by the look that brought them",
            self.news.clone(),
        );
        registry.register(
            "watch_age_seconds",
            "How long the quietest watch of guarded objects has heard nothing, not even a bookmark",
            self.age.clone(),
        );
        registry.register(
            "sweep_age_seconds",
            "How long ago the guarded objects that were not compared for longest were compared with what watches told",
            self.sweep_age.clone(),
        );
        registry.register(
            "watch_missed",
            "Changes of guarded objects that a sweep found and a watch should have told",
            self.missed.clone(),
        );
    }

    /// Counts a request: `watch`, `list`, `sweep`, `get` or `version`.
    pub fn request(&self, purpose: &'static str) {
        self.requests.get_or_create(&PurposeLabel { purpose }).inc();
    }

    /// Sets how many watches are in a state: `live`, `starting`, `polled`, `forbidden` or `unserved`.
    pub fn watches(&self, state: &'static str, count: usize) {
        self.watches.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts news, by the word for the look that brought them.
    pub fn news(&self, look: &'static str) {
        self.news.get_or_create(&LookLabel { look }).inc();
    }

    /// Sets how long the quietest watch has heard nothing.
    pub fn age(&self, age: Duration) {
        self.age.set(whole_seconds(age));
    }

    /// Sets how long ago the oldest sweep was.
    pub fn sweep_age(&self, age: Duration) {
        self.sweep_age.set(whole_seconds(age));
    }

    /// Counts what a sweep found and a watch should have told.
    pub fn missed(&self) {
        self.missed.inc();
    }

    /// How often that happened.
    #[must_use]
    pub fn missed_so_far(&self) -> u64 {
        self.missed.get()
    }
}

fn whole_seconds(age: Duration) -> i64 {
    i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
}
