//! Metrics of what is told and delivered.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use crate::core::audit::alert::AlertReason;

/// Upper bounds of the buckets of the time an attempt to deliver takes, in seconds. None takes longer
/// than 10 s.
const ATTEMPT_SECONDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0];

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The receiver of alerts.
    Alerts,
    /// The Telemetry Service.
    Telemetry,
}

impl Destination {
    /// Every destination.
    pub const ALL: [Self; 2] = [Self::Alerts, Self::Telemetry];

    /// As it stands in labels and names of folders.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Telemetry => "telemetry",
        }
    }
}

/// How an attempt to deliver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Posted {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Failed,
    /// The receiver will never take it.
    Refused,
}

impl Posted {
    const ALL: [Self; 3] = [Self::Delivered, Self::Failed, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The spool was full and it was the oldest.
    Full,
    /// Too many came at once for the disk.
    Busy,
    /// Its file was torn.
    Torn,
    /// Its receiver will never take it.
    Refused,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Full, Self::Busy, Self::Torn, Self::Refused];

    /// As it stands in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Torn => "torn",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    reason: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabel {
    destination: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PostedLabels {
    destination: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    destination: &'static str,
    reason: &'static str,
}

type Fill = Gauge<f64, AtomicU64>;

/// What is counted of alerts. Every series is there from the start, so that its first rise is one.
#[derive(Debug)]
pub struct AlertMetrics {
    alerts: Family<AlertLabels, Counter>,
    attempts: Family<PostedLabels, Counter>,
    attempt_seconds: Histogram,
    dropped: Family<DroppedLabels, Counter>,
    events: Family<DestinationLabel, Gauge>,
    bytes: Family<DestinationLabel, Gauge>,
    fill: Family<DestinationLabel, Fill>,
    failing: Family<DestinationLabel, Gauge>,
    not_written: Family<DestinationLabel, Counter>,
}

impl AlertMetrics {
    /// Registers all of them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            alerts: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Histogram::new(ATTEMPT_SECONDS),
            dropped: Family::default(),
            events: Family::default(),
            bytes: Family::default(),
            fill: Family::default(),
            failing: Family::default(),
            not_written: Family::default(),
        };
        registry.register("alerts", "Alerts, and notices that they are resolved", metrics.alerts.clone());
        registry.register("delivery_attempts", "Attempts to deliver a message", metrics.attempts.clone());
        registry.register(
            "delivery_attempt_seconds",
            "Time of an attempt to deliver a message",
            metrics.attempt_seconds.clone(),
        );
        registry.register("delivery_dropped", "Messages that were dropped", metrics.dropped.clone());
        registry.register(
            "delivery_failing",
            "1 while the last attempt to deliver failed",
            metrics.failing.clone(),
        );
        registry.register("spool_events", "Messages that wait to be delivered", metrics.events.clone());
        registry.register("spool_bytes", "Bytes of the messages that wait", metrics.bytes.clone());
        registry.register("spool_fill_ratio", "How full the spool is, from 0 to 1", metrics.fill.clone());
        registry.register(
            "spool_write_errors",
            "Messages that could not be written to the spool and wait in memory",
            metrics.not_written.clone(),
        );
        metrics.show();
        metrics
    }

    fn show(&self) {
        for reason in AlertReason::ALL {
            for state in ["firing", "resolved"] {
                drop(self.alerts.get_or_create(&AlertLabels { reason: reason.as_str(), state }));
            }
        }
        for destination in Destination::ALL {
            let label = DestinationLabel { destination: destination.as_str() };
            drop(self.not_written.get_or_create(&label));
            self.spool(destination, 0, 0, 0.0, false);
            for result in Posted::ALL {
                drop(self.attempts.get_or_create(&posted(destination, result)));
            }
            for reason in Dropped::ALL {
                self.dropped(destination, reason, 0);
            }
        }
    }

    /// Counts an alert by its reason and state, `firing` or `resolved`.
    pub fn alert(&self, reason: &'static str, state: &'static str) {
        self.alerts.get_or_create(&AlertLabels { reason, state }).inc();
    }

    /// Counts an attempt to deliver, and how long it took.
    pub fn posted(&self, destination: Destination, result: Posted, took: Duration) {
        self.attempts.get_or_create(&posted(destination, result)).inc();
        self.attempt_seconds.observe(took.as_secs_f64());
    }

    /// Counts messages that were dropped.
    pub fn dropped(&self, destination: Destination, reason: Dropped, count: usize) {
        let labels = DroppedLabels { destination: destination.as_str(), reason: reason.as_str() };
        self.dropped.get_or_create(&labels).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Counts a message that could not be written to disk.
    pub fn not_written(&self, destination: Destination) {
        self.not_written.get_or_create(&DestinationLabel { destination: destination.as_str() }).inc();
    }

    /// Sets what waits for a destination, how full its spool is, and whether the last attempt failed.
    pub fn spool(&self, destination: Destination, events: usize, bytes: u64, fill: f64, failing: bool) {
        let label = DestinationLabel { destination: destination.as_str() };
        self.events.get_or_create(&label).set(i64::try_from(events).unwrap_or(i64::MAX));
        self.bytes.get_or_create(&label).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.fill.get_or_create(&label).set(fill);
        self.failing.get_or_create(&label).set(i64::from(failing));
    }
}

fn posted(destination: Destination, result: Posted) -> PostedLabels {
    PostedLabels { destination: destination.as_str(), result: result.as_str() }
}
