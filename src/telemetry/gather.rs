//! What is told at once the first time, and gathered after that.
//!
//! An episode is everything with one key. Its first message is told at once; further ones are told
//! together, the last of them with their count. Memory is bounded. Time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Episodes that are remembered at a time.
const MAX_EPISODES: usize = 1024;
/// How often gathered messages of one episode are told.
pub(super) const GATHER: Duration = Duration::from_secs(60);
/// After so long without a message, the next one is told at once again.
pub(super) const FORGET: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
struct Episode<T> {
    last_told: Instant,
    last_seen: Instant,
    waiting: Option<T>,
    gathered: usize,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Observed<T> {
    /// It is told at once.
    Due(T),
    /// It is told later, with others.
    Gathered,
    /// There are too many episodes.
    Dropped,
}

/// All episodes that are remembered.
#[derive(Debug)]
pub(super) struct Episodes<K, T> {
    by_key: HashMap<K, Episode<T>>,
}

impl<K, T> Default for Episodes<K, T> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

impl<K: Eq + Hash, T> Episodes<K, T> {
    /// Takes a message, and says what becomes of it.
    pub(super) fn observe(&mut self, key: K, told: T, now: Instant) -> Observed<T> {
        if let Some(episode) = self.by_key.get_mut(&key) {
            episode.last_seen = now;
            episode.gathered += 1;
            episode.waiting = Some(told);
            return Observed::Gathered;
        }
        if self.by_key.len() >= MAX_EPISODES {
            return Observed::Dropped;
        }
        let episode = Episode { last_told: now, last_seen: now, waiting: None, gathered: 0 };
        self.by_key.insert(key, episode);
        Observed::Due(told)
    }

    /// What has been gathered long enough, with its count; forgets what has been quiet for long.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(T, usize)> {
        let mut due = Vec::new();
        for episode in self.by_key.values_mut() {
            if now.duration_since(episode.last_told) >= GATHER
                && let Some(told) = episode.waiting.take()
            {
                due.push((told, std::mem::take(&mut episode.gathered)));
                episode.last_told = now;
            }
        }
        self.by_key.retain(|_, episode| now.duration_since(episode.last_seen) < FORGET);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_told_at_once_and_the_rest_together() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        assert_eq!(episodes.observe("a", 0, start), Observed::Due(0));
        for number in 1..10_000 {
            assert_eq!(episodes.observe("a", number, start), Observed::Gathered);
        }
        assert!(episodes.due(start).is_empty());
        assert_eq!(episodes.due(start + GATHER), [(9_999, 9_999)]);
        assert!(episodes.due(start + GATHER * 2).is_empty(), "nothing new, nothing told");
    }

    #[test]
    fn memory_is_bounded_however_many_there_are() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        for key in 0..MAX_EPISODES {
            assert_eq!(episodes.observe(key, (), start), Observed::Due(()));
        }
        assert_eq!(episodes.observe(MAX_EPISODES, (), start), Observed::Dropped, "there is no room");
        assert_eq!(episodes.observe(0, (), start), Observed::Gathered, "it has its room");
        assert_eq!(episodes.by_key.len(), MAX_EPISODES);
        episodes.due(start + FORGET);
        assert!(episodes.by_key.is_empty());
    }
}
