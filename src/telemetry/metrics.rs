//! Metrics in the Prometheus text format.
//!
//! Labels are words from short lists. No label ever is an object's name, a user, a hash or a
//! transaction: their number has no bound, and they would be told to whoever may read metrics.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

mod alerts;
mod audit;
mod openreports;
mod sources;
pub mod watches;

pub use alerts::{AlertMetrics, Destination, Dropped, Posted};
pub use audit::{AuditMetrics, Restored, Troubled};
pub use openreports::OpenReportsMetrics;
pub use sources::SourceMetrics;
use watches::WatchMetrics;

/// Upper bounds of the buckets of the time a review takes, in seconds. The API server waits 5 s.
const REVIEW_SECONDS: [f64; 11] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0];

/// How looks at a target come about, in labels.
const LOOKS: [&str; 4] = ["initial", "watch", "sweep", "live"];

/// Labels of a review.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    verdict: &'static str,
    reason: &'static str,
}

/// One label that tells how something ended or what state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    /// What is told and delivered.
    pub alerts: AlertMetrics,
    /// What the auditor finds and does.
    pub audit: AuditMetrics,
    /// Of the reports of openreports.io.
    pub openreports: OpenReportsMetrics,
    registry: Registry,
    ready: Gauge,
    reviews: Family<ReviewLabels, Counter>,
    review_seconds: Histogram,
    live_reads: Family<ResultLabel, Counter>,
    guard_looks: Family<ResultLabel, Counter>,
    object_reads: Family<ResultLabel, Counter>,
    guards: Family<StateLabel, Gauge>,
    registrations: Family<ResultLabel, Counter>,
    widened: Gauge,
    contended: Gauge,
    broken_glass: Gauge,
    definition_changes: Family<ResultLabel, Counter>,
    proofs: Family<ResultLabel, Counter>,
    status_writes: Family<ResultLabel, Counter>,
    dropped_events: Counter,
    leader: Gauge,
    in_flight: Gauge,
    handshakes: Family<ResultLabel, Counter>,
    closed_for_room: Counter,
    self_checks: Family<ResultLabel, Counter>,
    certificate_end: Gauge,
    certificate_files_broken: Gauge,
    unknown_authors: Gauge,
    /// Of sources of truth.
    pub sources: SourceMetrics,
    /// Of the watches of guarded objects.
    pub watches: WatchMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("driftguard");
        let mut metrics = Self {
            sources: SourceMetrics::registered(&mut registry),
            alerts: AlertMetrics::register(&mut registry),
            audit: AuditMetrics::register(&mut registry),
            openreports: OpenReportsMetrics::registered(&mut registry),
            registry,
            ready: Gauge::default(),
            reviews: Family::default(),
            review_seconds: Histogram::new(REVIEW_SECONDS),
            live_reads: Family::default(),
            guard_looks: Family::default(),
            object_reads: Family::default(),
            guards: Family::default(),
            registrations: Family::default(),
            widened: Gauge::default(),
            contended: Gauge::default(),
            broken_glass: Gauge::default(),
            definition_changes: Family::default(),
            proofs: Family::default(),
            status_writes: Family::default(),
            dropped_events: Counter::default(),
            leader: Gauge::default(),
            in_flight: Gauge::default(),
            handshakes: Family::default(),
            closed_for_room: Counter::default(),
            self_checks: Family::default(),
            certificate_end: Gauge::default(),
            certificate_files_broken: Gauge::default(),
            unknown_authors: Gauge::default(),
            watches: WatchMetrics::default(),
        };
        metrics.register();
        metrics.show();
        metrics
    }
}

impl Metrics {
    /// Makes every series of few labels that counts something, at zero: `increase()` sees no first rise
    /// of a series that was not there before.
    fn show(&self) {
        let counted = [
            (&self.live_reads, ["found", "none", "failed"].as_slice()),
            (&self.guard_looks, &["found", "none", "failed", "late"]),
            (&self.object_reads, &["found", "none", "failed"]),
            (&self.registrations, &["applied", "repaired", "failed"]),
            (&self.definition_changes, &["deleted", "changed"]),
            (&self.proofs, &["proved", "compared", "failed"]),
            (&self.status_writes, &["written", "failed"]),
            (&self.handshakes, &["ok", "failed", "stranger", "anonymous"]),
            (&self.self_checks, &["ok", "failed"]),
        ];
        for (family, results) in counted {
            for result in results {
                drop(family.get_or_create(&ResultLabel { result }));
            }
        }
        for (verdict, reason) in [("allow", "Approved"), ("deny", "HashMismatch")] {
            drop(self.reviews.get_or_create(&ReviewLabels { verdict, reason }));
        }
        self.guards(0, 0);
    }

    /// Tells whether this replica is ready, as `/readyz` says.
    pub fn ready(&self, is: bool) {
        self.ready.set(i64::from(is));
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.watches.register(registry);
        registry.register("ready", "1 while this replica is ready", self.ready.clone());
        registry.register("admission_reviews", "Admission reviews judged", self.reviews.clone());
        registry.register("admission_review_seconds", "Time to judge a review", self.review_seconds.clone());
        registry.register("live_reads", "Reads of guards made on an index miss", self.live_reads.clone());
        registry.register(
            "guard_looks",
            "Looks at a guard before a write was refused, put back or recorded by it",
            self.guard_looks.clone(),
        );
        registry.register(
            "object_reads",
            "Targets and namespaces read while a review waited",
            self.object_reads.clone(),
        );
        registry.register("guards", "Guards in the index", self.guards.clone());
        registry.register(
            "registrations",
            "Writes of the webhook configurations",
            self.registrations.clone(),
        );
        registry.register(
            "widened_resources",
            "Resources whose webhook rules match more than guarded objects",
            self.widened.clone(),
        );
        registry.register(
            "registration_contended",
            "1 while somebody keeps altering the webhook configurations",
            self.contended.clone(),
        );
        registry.register(
            "definition_changes",
            "Writes that delete or change the definition of a guarded kind",
            self.definition_changes.clone(),
        );
        registry.register("proofs", "Dry runs that prove enforcement", self.proofs.clone());
        registry.register("status_writes", "Writes of guard status", self.status_writes.clone());
        registry.register(
            "dropped_events",
            "Events dropped because there were too many",
            self.dropped_events.clone(),
        );
        registry.register(
            "broken_glass",
            "1 while the glass is broken and every write passes",
            self.broken_glass.clone(),
        );
        registry.register("leader", "1 while this replica holds the lease", self.leader.clone());
        registry.register("admission_reviews_in_flight", "Reviews being answered", self.in_flight.clone());
        registry.register("tls_handshakes", "TLS handshakes of clients", self.handshakes.clone());
        registry.register(
            "connections_closed_for_room",
            "Idle connections closed because there were too many",
            self.closed_for_room.clone(),
        );
        registry.register("self_checks", "TLS handshakes with our own listener", self.self_checks.clone());
        registry.register(
            "certificate_end_timestamp_seconds",
            "End of the served certificate, in seconds since 1970",
            self.certificate_end.clone(),
        );
        registry.register(
            "certificate_files_broken",
            "1 while the certificate files cannot be used and what was served before is served on",
            self.certificate_files_broken.clone(),
        );
        registry.register(
            "guards_of_unknown_author",
            "Guards without a valid signature of an author",
            self.unknown_authors.clone(),
        );
    }

    /// Sets how many guards bear no valid signature of an author.
    pub fn unknown_authors(&self, guards: usize) {
        self.unknown_authors.set(i64::try_from(guards).unwrap_or(i64::MAX));
    }

    /// Counts a review that was judged, and how long that took.
    pub fn review(&self, verdict: &'static str, reason: &'static str, took: Duration) {
        self.reviews.get_or_create(&ReviewLabels { verdict, reason }).inc();
        self.review_seconds.observe(took.as_secs_f64());
    }

    /// Counts a live read: `found`, `none` or `failed`.
    pub fn live_read(&self, result: &'static str) {
        self.live_reads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a look at a guard: `found`, `none` or `failed`; and a review that could not wait for its own as `late`.
    pub fn guard_look(&self, result: &'static str) {
        self.guard_looks.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a read of an object that a review left open: `found`, `none` or `failed`.
    pub fn object_read(&self, result: &'static str) {
        self.object_reads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Sets how many guards the index holds.
    pub fn guards(&self, valid: usize, invalid: usize) {
        let set = |state, count| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.guards.get_or_create(&StateLabel { state }).set(count);
        };
        set("valid", valid);
        set("invalid", invalid);
    }

    /// Counts a write of the webhook configurations: `applied`, `repaired` or `failed`.
    pub fn registration(&self, result: &'static str) {
        self.registrations.get_or_create(&ResultLabel { result }).inc();
    }

    /// Sets how many resources have rules that match more than guarded objects.
    pub fn widened(&self, resources: usize) {
        self.widened.set(i64::try_from(resources).unwrap_or(i64::MAX));
    }

    /// Tells whether the glass is broken, so that every write passes.
    pub fn broken_glass(&self, is: bool) {
        self.broken_glass.set(i64::from(is));
    }

    /// Tells whether somebody keeps altering the webhook configurations.
    pub fn contended(&self, is: bool) {
        self.contended.set(i64::from(is));
    }

    /// Counts a write to the definition of a guarded kind: `deleted` or `changed`.
    pub fn definition_change(&self, result: &'static str) {
        self.definition_changes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a proof: `proved`, `compared` or `failed`.
    pub fn proof(&self, result: &'static str) {
        self.proofs.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a write of a guard's status: `written` or `failed`.
    pub fn status_write(&self, result: &'static str) {
        self.status_writes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts an Event that was dropped.
    pub fn dropped_event(&self) {
        self.dropped_events.inc();
    }

    /// Tells whether this replica holds the lease.
    pub fn leader(&self, holds: bool) {
        self.leader.set(i64::from(holds));
    }

    /// Counts a review that begins to be answered; [`Self::review_left`] is its end.
    pub fn review_entered(&self) {
        self.in_flight.inc();
    }

    /// Counts the end of a review, answered or not.
    pub fn review_left(&self) {
        self.in_flight.dec();
    }

    /// Counts a TLS handshake of a client: `ok`, `failed`, `stranger` of another name, or `anonymous` where a client
    /// certificate is demanded.
    pub fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a connection that was idle and gave way to another one.
    pub fn connection_closed_for_room(&self) {
        self.closed_for_room.inc();
    }

    /// Counts a handshake with our own listener: `ok` or `failed`.
    pub fn self_check(&self, result: &'static str) {
        self.self_checks.get_or_create(&ResultLabel { result }).inc();
    }

    /// Sets when the served certificate ends, in seconds since 1970.
    pub fn certificate_end(&self, seconds: i64) {
        self.certificate_end.set(seconds);
    }

    /// Tells whether the files with the certificate cannot be used.
    pub fn certificate_files_broken(&self, are: bool) {
        self.certificate_files_broken.set(i64::from(are));
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// Never in practice: only writing to the string could fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn metrics_are_named_as_counters_and_seconds_with_short_labels() {
        let metrics = Metrics::default();
        metrics.review("deny", "HashMismatch", Duration::from_millis(2));
        metrics.guards(3, 1);
        metrics.leader(true);
        let text = metrics.encode().unwrap();
        for line in [
            r#"driftguard_admission_reviews_total{verdict="deny",reason="HashMismatch"} 1"#,
            r#"driftguard_admission_review_seconds_count 1"#,
            r#"driftguard_guards{state="valid"} 3"#,
            "driftguard_leader 1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
