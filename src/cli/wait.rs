//! Waiting until the cluster says that something is so, by reading it again and again.
//!
//! By reads and not by a watch: that takes no right beyond the one to read what the command is about.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use crate::core::duration;

/// How long it takes from one read to the next.
const PAUSE: Duration = Duration::from_millis(300);

/// Whether a command waits for what it asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Waiting {
    /// Wait until it is so; --wait=false returns once it is asked for
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// What one read shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen<T> {
    /// It is so.
    Done(T),
    /// Not yet, and why.
    NotYet(String),
}

impl Waiting {
    /// Reads until it is so.
    ///
    /// # Errors
    /// What `read` fails with, and when it does not become so in time: then with what the last read showed.
    pub(crate) async fn until<T>(
        &self,
        mut read: impl AsyncFnMut() -> anyhow::Result<Seen<T>>,
    ) -> anyhow::Result<T> {
        // Further away than can be said is never.
        let deadline = Instant::now().checked_add(self.timeout);
        loop {
            match read().await? {
                Seen::Done(result) => return Ok(result),
                Seen::NotYet(why) if deadline.is_some_and(|deadline| Instant::now() + PAUSE > deadline) => {
                    bail!("{why} after {} s; it may still come: see `--timeout`", self.timeout.as_secs())
                }
                Seen::NotYet(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_reads_until_it_is_so_and_tells_what_it_saw_last() {
        let waiting = Waiting { wait: true, timeout: Duration::from_secs(2) };
        let mut reads = 0;
        let done = waiting
            .until(async || {
                reads += 1;
                Ok(if reads == 3 { Seen::Done(reads) } else { Seen::NotYet("no".into()) })
            })
            .await;
        assert_eq!(done.unwrap(), 3);
        let error = waiting.until::<()>(async || Ok(Seen::NotYet("it sleeps".into()))).await.unwrap_err();
        assert_eq!(error.to_string(), "it sleeps after 2 s; it may still come: see `--timeout`");
    }
}
