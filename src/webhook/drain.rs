//! Stopping without losing a request (DESIGN 4.10), and when to.
//!
//! After the signal the server is unready at once but goes on answering, because load balancers and
//! API servers learn of it later. HTTP/1.1 answers say `Connection: close`; HTTP/2 connections get
//! GOAWAY, again and again for those that are still opened. The socket closes when nobody comes any
//! more, or at a limit. The rule is a pure function of what has happened.
//!
//! An HTTP/1.1 connection that is idle is never closed before the limit is near: a request may just be
//! on its way, and Go's client sends a POST again only when it could write none of it. It goes by
//! `Connection: close` on its next answer, or by the API server, which closes what was idle for 90 s.
//! So a limit of more than that loses none at all; with a shorter one the moment of closing is left.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// How long the parts of stopping last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// The least time to go on accepting: until then load balancers may not have heard.
    pub announce: Duration,
    /// How long nobody must have asked anything before the socket closes although connections are
    /// open: idle HTTP/1.1 connections cannot be asked to close, and stay.
    pub quiet: Duration,
    /// When everything is over, whatever is open.
    pub limit: Duration,
    /// How long before that the socket closes at the latest: the time left for what has begun.
    pub finish: Duration,
}

impl DrainTimes {
    /// Times for a limit given by the user.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self {
            announce: Duration::from_secs(5).min(limit / 2),
            quiet: Duration::from_secs(3).min(limit / 4),
            limit,
            finish: limit / 5,
        }
    }

    /// Whether only the time for answering what has begun is left.
    #[must_use]
    pub fn is_nearly_over(&self, elapsed: Duration) -> bool {
        elapsed >= self.limit.saturating_sub(self.finish)
    }

    /// Whether idle HTTP/1.1 connections stay open although the socket is closed.
    #[must_use]
    pub fn keeps_idle(&self, elapsed: Duration, quiet_for: Duration) -> bool {
        !self.is_nearly_over(elapsed) || quiet_for < self.quiet
    }

    /// What to do now.
    #[must_use]
    pub fn step(&self, progress: Progress) -> Step {
        let Progress { elapsed, open, quiet_for } = progress;
        if self.is_nearly_over(elapsed) {
            return Step::Close;
        }
        if elapsed < self.announce {
            return Step::Serve;
        }
        if open == 0 || quiet_for >= self.quiet { Step::Close } else { Step::Serve }
    }
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Since the signal.
    pub elapsed: Duration,
    /// Open connections.
    pub open: usize,
    /// How long nobody has asked anything.
    pub quiet_for: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on accepting and answering.
    Serve,
    /// Close the socket and finish what has begun.
    Close,
}

/// The signals that stop the process.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts listening for SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next signal, with its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: DrainTimes = DrainTimes {
        announce: Duration::from_secs(5),
        quiet: Duration::from_secs(3),
        limit: Duration::from_secs(25),
        finish: Duration::from_secs(5),
    };

    fn step(elapsed: u64, open: usize, quiet_for: u64) -> Step {
        let seconds = Duration::from_secs;
        TIMES.step(Progress { elapsed: seconds(elapsed), open, quiet_for: seconds(quiet_for) })
    }

    #[test]
    fn it_goes_on_serving_until_others_have_heard() {
        assert_eq!(step(0, 0, 100), Step::Serve);
        assert_eq!(step(4, 0, 100), Step::Serve);
        assert_eq!(step(5, 0, 100), Step::Close);
    }

    #[test]
    fn open_connections_keep_it_serving_while_somebody_asks() {
        assert_eq!(step(10, 3, 0), Step::Serve);
        assert_eq!(step(10, 3, 2), Step::Serve);
        assert_eq!(step(10, 3, 3), Step::Close);
    }

    #[test]
    fn it_closes_early_enough_before_the_limit_to_finish_what_has_begun() {
        assert_eq!(step(19, 50, 0), Step::Serve);
        assert_eq!(step(20, 50, 0), Step::Close);
    }

    #[test]
    fn idle_connections_are_kept_until_the_limit_is_near_and_nobody_asks() {
        let seconds = Duration::from_secs;
        assert!(TIMES.keeps_idle(seconds(19), seconds(19)));
        assert!(TIMES.keeps_idle(seconds(20), seconds(2)));
        assert!(!TIMES.keeps_idle(seconds(20), seconds(3)));
    }

    #[test]
    fn a_short_limit_shortens_everything() {
        let times = DrainTimes::within(Duration::ZERO);
        let progress = Progress { elapsed: Duration::ZERO, open: 9, quiet_for: Duration::ZERO };
        assert_eq!(times.step(progress), Step::Close);
        assert_eq!(DrainTimes::within(Duration::from_secs(25)), TIMES);
    }
}
