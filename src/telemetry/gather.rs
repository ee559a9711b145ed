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
    /// Takes a message, and gives it back when it is to be told at once.
    pub(super) fn observe(&mut self, key: K, told: T, now: Instant) -> Option<(T, usize)> {
        if let Some(episode) = self.by_key.get_mut(&key) {
            episode.last_seen = now;
            episode.gathered += 1;
            episode.waiting = Some(told);
            return None;
        }
        if self.by_key.len() < MAX_EPISODES {
            let episode = Episode { last_told: now, last_seen: now, waiting: None, gathered: 0 };
            self.by_key.insert(key, episode);
            return Some((told, 1));
        }
        None
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
        assert!(episodes.observe("a", 0, start).is_some());
        for number in 1..10_000 {
            assert!(episodes.observe("a", number, start).is_none());
        }
        assert!(episodes.due(start).is_empty());
        assert_eq!(episodes.due(start + GATHER), [(9_999, 9_999)]);
        assert!(episodes.due(start + GATHER * 2).is_empty(), "nothing new, nothing told");
    }

    #[test]
    fn memory_is_bounded_however_many_there_are() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        let at_once = (0..5_000).filter(|key| episodes.observe(*key, (), start).is_some()).count();
        assert_eq!((at_once, episodes.by_key.len()), (MAX_EPISODES, MAX_EPISODES));
        episodes.due(start + FORGET);
        assert!(episodes.by_key.is_empty());
    }
}
