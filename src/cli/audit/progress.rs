//! How far an audit is, for somebody who waits before a terminal.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Pause between two lines.
const PAUSE: Duration = Duration::from_millis(100);
/// Before that nobody has begun to wait.
const PATIENCE: Duration = Duration::from_millis(200);
/// Cells of the bar.
const BAR: usize = 24;

/// A line on stderr that is written over and over, and goes at the end. Nothing where that is no terminal.
pub(super) struct Progress {
    total: usize,
    done: Cell<usize>,
    due: Cell<Instant>,
    is_shown: bool,
    was_written: Cell<bool>,
}

impl Progress {
    /// Of so many guards.
    pub(super) fn of(total: usize, is_wanted: bool) -> Self {
        Self {
            total,
            done: Cell::new(0),
            due: Cell::new(Instant::now() + PATIENCE),
            is_shown: is_wanted && std::io::stderr().is_terminal(),
            was_written: Cell::new(false),
        }
    }

    /// One more is done.
    pub(super) fn step(&self) {
        self.done.set(self.done.get() + 1);
        self.show(|done| {
            let full = BAR * done / self.total.max(1);
            let bar: String = (0..BAR).map(|cell| if cell < full { '#' } else { '.' }).collect();
            format!("[{bar}] {done}/{} guards", self.total)
        });
    }

    /// So many were found, and nobody knows how many there are.
    pub(super) fn found(&self, count: usize) {
        self.done.set(count);
        self.show(|count| format!("{count} guards found"));
    }

    fn show(&self, line: impl FnOnce(usize) -> String) {
        let now = Instant::now();
        if self.is_shown && now >= self.due.get() {
            self.due.set(now + PAUSE);
            self.was_written.set(true);
            // There is nowhere to report that this failed.
            let _ = write!(std::io::stderr(), "\r{}", line(self.done.get()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.was_written.get() {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
