//! Metrics of what the auditor finds and does.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets of the time from the sight of drift until the approved content stands
/// again, in seconds.
const RESTORE_SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// How looks come about, as [`AuditMetrics::drift`] counts them.
const LOOKS: [&str; 4] = ["initial", "watch", "sweep", "live"];

/// How an attempt to restore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restored {
    /// The approved content stands again.
    Restored,
    /// No source had content of the approved hash.
    NoVerifiedSource,
    /// The write failed.
    Failed,
    /// The guard was changed meanwhile.
    GivenUp,
}

impl Restored {
    const ALL: [Self; 4] = [Self::Restored, Self::NoVerifiedSource, Self::Failed, Self::GivenUp];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::NoVerifiedSource => "no_verified_source",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

/// How many guards are in a state that somebody should know of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Troubled {
    /// Their target's content is not approved, or there is no target.
    pub drifted: usize,
    /// Somebody keeps undoing what is put back.
    pub fighting: usize,
    /// No source of theirs has the approved content.
    pub sourceless: usize,
    /// Their target cannot be read.
    pub unreadable: usize,
    /// Nothing is put back for them until somebody has looked.
    pub stopped: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookLabel {
    look: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What is counted of the audit. Only the holder of the lease has other values than zero. Every series is
/// there from the start, so that its first rise is one.
#[derive(Debug)]
pub struct AuditMetrics {
    drifts: Family<LookLabel, Counter>,
    drifted: Gauge,
    fighting: Gauge,
    sourceless: Gauge,
    unreadable: Gauge,
    stopped: Gauge,
    remediations: Family<ResultLabel, Counter>,
    restore_seconds: Histogram,
    queue: Gauge,
}

impl AuditMetrics {
    /// Registers all of them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            drifts: Family::default(),
            drifted: Gauge::default(),
            fighting: Gauge::default(),
            sourceless: Gauge::default(),
            unreadable: Gauge::default(),
            stopped: Gauge::default(),
            remediations: Family::default(),
            restore_seconds: Histogram::new(RESTORE_SECONDS),
            queue: Gauge::default(),
        };
        registry.register("drifts", "Drifts that began, by the look that found them", metrics.drifts.clone());
        registry.register(
            "drifted_guards",
            "Guards whose target is not as approved",
            metrics.drifted.clone(),
        );
        registry.register(
            "fighting_guards",
            "Guards whose target somebody keeps changing back",
            metrics.fighting.clone(),
        );
        registry.register(
            "guards_without_source",
            "Guards of which no source has the approved content",
            metrics.sourceless.clone(),
        );
        registry.register(
            "unreadable_guards",
            "Guards whose target cannot be read",
            metrics.unreadable.clone(),
        );
        registry.register(
            "stopped_guards",
            "Drifted guards for which nothing is put back, because many drifted at once",
            metrics.stopped.clone(),
        );
        registry.register("remediations", "Attempts to restore", metrics.remediations.clone());
        registry.register(
            "restore_seconds",
            "Time from the sight of drift until the approved content stands again",
            metrics.restore_seconds.clone(),
        );
        registry.register(
            "audit_queue",
            "News about guarded objects that wait for the auditor",
            metrics.queue.clone(),
        );
        for look in LOOKS {
            drop(metrics.drifts.get_or_create(&LookLabel { look }));
        }
        for result in Restored::ALL {
            drop(metrics.remediations.get_or_create(&ResultLabel { result: result.as_str() }));
        }
        metrics
    }

    /// Counts a drift that began, by the look that found it: `initial`, `watch`, `sweep` or `live`.
    pub fn drift(&self, look: &'static str) {
        self.drifts.get_or_create(&LookLabel { look }).inc();
    }

    /// Sets how many guards are in trouble; all zero when the lease is lost, since another replica counts
    /// them then.
    pub fn troubled(&self, guards: Troubled) {
        let set = |gauge: &Gauge, count| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.drifted, guards.drifted);
        set(&self.fighting, guards.fighting);
        set(&self.sourceless, guards.sourceless);
        set(&self.unreadable, guards.unreadable);
        set(&self.stopped, guards.stopped);
    }

    /// Counts an attempt to restore; `took` is the time since the drift was seen, of one that succeeded.
    pub fn remediation(&self, result: Restored, took: Duration) {
        self.remediations.get_or_create(&ResultLabel { result: result.as_str() }).inc();
        if result == Restored::Restored {
            self.restore_seconds.observe(took.as_secs_f64());
        }
    }

    /// Sets how much waits for the auditor.
    pub fn queue(&self, waiting: usize) {
        self.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}
