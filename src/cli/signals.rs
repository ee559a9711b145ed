//! Signals by which a command is ended: Ctrl-C, SIGTERM, and that of a terminal that closes.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{BoxFuture, select_all};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that end a command.
fn kinds() -> [SignalKind; 3] {
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
}

/// What ends with the first signal heard, and is its number.
pub(super) type Listening = BoxFuture<'static, i32>;

/// Whether the command itself listens.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Listens from now on for signals that end this process, but for those that it was started to ignore, as by `nohup` or
/// in the background of a script: to listen to these would undo that. `None` when all are ignored. To be called
/// within a runtime.
///
/// # Errors
/// When the system lets nobody listen.
pub(super) fn listen() -> io::Result<Option<Listening>> {
    LISTENS.store(true, Ordering::Relaxed);
    begin()
}

/// As [`listen`], and `None` too where the command itself listens: it has its own way to end, and what it writes at the
/// end is not to be lost by the next signal.
///
/// # Errors
/// As [`listen`].
pub(super) fn listen_alone() -> io::Result<Option<Listening>> {
    if LISTENS.load(Ordering::Relaxed) { Ok(None) } else { begin() }
}

fn begin() -> io::Result<Option<Listening>> {
    let mut heard: Vec<Listening> = Vec::new();
    for kind in kinds().into_iter().filter(|kind| !is_ignored(kind.as_raw_value())) {
        let mut signal = signal(kind)?;
        heard.push(Box::pin(async move {
            signal.recv().await;
            kind.as_raw_value()
        }));
    }
    if heard.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::pin(async move { select_all(heard).await.0 })))
}

/// Waits for such a signal; for ever where all are ignored.
pub(super) async fn heard(listening: &mut Option<Listening>) {
    match listening {
        Some(signal) => drop(signal.await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process has it ignore a signal. Where the system does not say (it is asked by `/proc`),
/// it does not.
pub(super) fn is_ignored(number: i32) -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(number - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}
