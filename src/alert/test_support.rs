//! What tests of alerts share.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::core::audit::alert::{Alert, AlertReason};
use crate::core::guard::{GuardId, Target};

/// An alert about a ConfigMap, or its notice of resolution.
pub(super) fn alert(resolved: bool) -> Alert {
    Alert {
        episode: "019a0f3e-7c00-7a10-8000-0123456789ab".into(),
        guard: GuardId { namespace: "trading".into(), name: "market-settings-guard".into() },
        guard_uid: "5d3c0e6e".into(),
        target: Target {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            resource: "configmaps".into(),
            namespace: Some("trading".into()),
            name: "market-settings".into(),
        },
        reason: AlertReason::BypassedAdmission,
        resolved,
        message: "somebody wrote past admission".into(),
        paths: vec!["/data/price".into()],
        actor: Some("alice (observed at admission)".into()),
        at: "2026-06-01T12:00:00Z".parse().unwrap(),
    }
}
