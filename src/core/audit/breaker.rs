//! When many guards drift at once: remediation stops, since the approval or the source is the likelier
//! culprit.

use std::time::Duration;

/// How many guards may drift anew within a while before remediation stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Within how long.
    pub window: Duration,
    /// So many of a namespace may, however few guards it has.
    pub namespace_least: usize,
    /// Or so many in a hundred of a namespace's guards, if that is more.
    pub namespace_percent: usize,
    /// So many of the cluster may.
    pub cluster_least: usize,
    /// Or so many in a hundred of all guards.
    pub cluster_percent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            namespace_least: 5,
            namespace_percent: 20,
            cluster_least: 10,
            cluster_percent: 10,
        }
    }
}
