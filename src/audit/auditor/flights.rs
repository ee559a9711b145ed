//! Looks at targets that are under way beside the watch, and whether what they bring still counts.
//!
//! The watch may tell of a later write before the answer to an earlier look is here: taken then, the answer would undo
//! what the watch told, which tells each write once. Nothing is lost by dropping it: the watch goes on telling.

use std::collections::HashMap;

use crate::core::text::Text;

/// Looks that are under way, by uid of the guard.
#[derive(Debug, Default)]
pub(super) struct Flights {
    of: HashMap<Text, Flight>,
    /// How many looks were begun and news told so far.
    moment: u64,
}

#[derive(Debug, Default)]
struct Flight {
    /// How many are under way.
    looks: usize,
    /// When the watch last told of the target meanwhile.
    told: u64,
}

/// When a look was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(u64);

impl Flights {
    /// How many looks are under way.
    pub(super) fn under_way(&self) -> usize {
        self.of.values().map(|flight| flight.looks).sum()
    }

    /// A look begins.
    pub(super) fn begin(&mut self, guard: &Text) -> Begun {
        self.moment += 1;
        self.of.entry(guard.clone()).or_default().looks += 1;
        Begun(self.moment)
    }

    /// The watch tells of a target.
    pub(super) fn told(&mut self, guard: &Text) {
        if let Some(flight) = self.of.get_mut(guard) {
            self.moment += 1;
            flight.told = self.moment;
        }
    }

    /// A look has ended. Tells whether it counts: the watch has told nothing since it began.
    pub(super) fn ends(&mut self, guard: &Text, Begun(begun): Begun) -> bool {
        let Some(flight) = self.of.get_mut(guard) else { return false };
        let counts = flight.told < begun;
        flight.looks -= 1;
        if flight.looks == 0 {
            self.of.remove(guard);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_counts_unless_the_watch_told_of_its_target_meanwhile() {
        let (mut flights, guard, other) = (Flights::default(), Text::from("a"), Text::from("b"));
        flights.told(&guard);
        let first = flights.begin(&guard);
        flights.told(&other);
        assert!(flights.ends(&guard, first), "it was told before, and of another one");
        let late = flights.begin(&guard);
        flights.told(&guard);
        let later = flights.begin(&guard);
        assert!(!flights.ends(&guard, late));
        assert!(flights.ends(&guard, later), "it was begun after that");
        assert!(flights.of.is_empty(), "nothing is kept of looks that have ended");
    }
}
