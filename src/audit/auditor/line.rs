//! Guards that wait for their turn. All of a new installation may: each is a word here, and no task of its own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::core::guard::Guard;
use crate::core::text::Text;

/// Guards for each of which something is to be done, for a few at a time.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Arc<Guard>>,
    /// The uids of those that wait, and of those whose turn it is.
    known: HashSet<Text>,
    /// How many have their turn.
    running: usize,
}

impl Line {
    /// A guard waits from now on, behind all others; not one that does so already, or has its turn.
    pub(super) fn join(&mut self, guard: &Arc<Guard>) {
        if self.known.insert(guard.uid.clone()) {
            self.waiting.push_back(Arc::clone(guard));
        }
    }

    /// Whether a guard waits or has its turn.
    pub(super) fn has(&self, uid: &Text) -> bool {
        self.known.contains(uid)
    }

    /// The next whose turn it is while fewer than `at_once` have it, as it stood when it joined. [`Self::done`] must be
    /// told of the end.
    pub(super) fn next(&mut self, at_once: usize) -> Option<Arc<Guard>> {
        let next = (self.running < at_once).then(|| self.waiting.pop_front()).flatten()?;
        self.running += 1;
        Some(next)
    }

    /// The turn of a guard is over.
    pub(super) fn done(&mut self, uid: &Text) {
        self.known.remove(uid);
        self.running = self.running.saturating_sub(1);
        if self.known.is_empty() {
            // What a long line took is given back.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::watch::test_support::guard;

    #[test]
    fn each_has_its_turn_once_and_few_at_a_time() {
        let guards = ["a", "b", "c"].map(|name| Arc::new(guard(name, Some("n"), name)));
        let mut line = Line::default();
        guards.iter().chain(&guards).for_each(|guard| line.join(guard));
        let next = |line: &mut Line| line.next(2).map(|guard| guard.uid.to_string());
        assert_eq!([(); 3].map(|()| next(&mut line)), [Some("a".into()), Some("b".into()), None]);
        line.join(&guards[0]);
        line.done(&guards[0].uid);
        assert!(!line.has(&guards[0].uid) && line.has(&guards[1].uid) && line.has(&guards[2].uid));
        assert_eq!([(); 2].map(|()| next(&mut line)), [Some("c".into()), None]);
        line.done(&guards[1].uid);
        line.done(&guards[2].uid);
        line.join(&guards[0]);
        assert_eq!(next(&mut line), Some("a".into()));
    }
}
