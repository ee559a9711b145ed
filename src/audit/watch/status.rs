//! How one watch fares.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What a watch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It has not seen everything yet, or is broken.
    Starting,
    /// It has seen everything and tells of changes.
    Live,
    /// An object cannot be decoded: others are read by name.
    Polled,
    /// It is not allowed.
    Forbidden,
    /// The resource is served no longer.
    Unserved,
}

impl Mode {
    pub(super) const ALL: [Self; 5] =
        [Self::Starting, Self::Live, Self::Polled, Self::Forbidden, Self::Unserved];

    /// A word for metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Polled => "polled",
            Self::Forbidden => "forbidden",
            Self::Unserved => "unserved",
        }
    }

    /// Whether it ought to hear something every minute.
    pub(super) fn ought_to_hear(self) -> bool {
        matches!(self, Self::Starting | Self::Live)
    }
}

/// How one watch fares, for others to see.
#[derive(Debug)]
pub(super) struct Status(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    mode: Mode,
    since: Instant,
    heard: Instant,
}

impl Default for Status {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Inner { mode: Mode::Starting, since: now, heard: now }))
    }
}

impl Status {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mode(&self) -> Mode {
        self.inner().mode
    }

    /// Goes over to a mode. Tells whether it was another one.
    pub(super) fn enter(&self, mode: Mode) -> bool {
        let mut inner = self.inner();
        let is_other = inner.mode != mode;
        if is_other {
            inner.mode = mode;
            inner.since = Instant::now();
        }
        is_other
    }

    /// Something came.
    pub(super) fn heard(&self) {
        self.inner().heard = Instant::now();
    }

    /// When something came last.
    pub(super) fn last_heard(&self) -> Instant {
        self.inner().heard
    }

    /// Whether it has been live all the time since a moment.
    pub(super) fn is_live_since(&self, moment: Instant) -> bool {
        let inner = self.inner();
        inner.mode == Mode::Live && inner.since <= moment
    }
}
